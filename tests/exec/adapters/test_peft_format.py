"""Adapters cross over to PEFT and back without a change."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel, get_peft_model_state_dict
from torch import Tensor
from transformers import PreTrainedModel

from alto_exec.adapters.bank import AdapterBank
from alto_exec.adapters.file_order import in_file_order
from alto_exec.adapters.peft_format import StoredAdapter, read_adapter, write_adapter
from alto_exec.backbones.transformers_model import Backbone
from alto_exec.data.samples import Sample
from alto_exec.passes.batch import Share, pack
from alto_exec.passes.evaluation import validation_loss
from alto_policy.types import Hyperparameters
from alto_runs.errors import UserError
from alto_runs.files.artifacts import FolderArtifact
from tests.exec.comparing import assert_close, assert_identical
from tests.exec.packed_loop import ragged_samples, tiny_model
from tests.exec.plain_loop import as_peft, loaded_by_peft
from tests.exec.tiny_models import TINY_MODELS, tiny_gpt2

H = Hyperparameters(rank=5, alpha=12.0)
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
SAMPLES = ragged_samples(6)
TOKENS = torch.arange(3, 40)


def model_of(family: str) -> PreTrainedModel:
    return tiny_gpt2()[0] if family == "gpt2" else tiny_model(family)


def random_adapter(bank: AdapterBank, rank: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rank, bank.num_columns, generator=generator) * 0.1


def alto_logits(backbone: Backbone, bank: AdapterBank, adapter: StoredAdapter) -> Tensor:
    """Of each token of `TOKENS` but the first, predicted from those before it."""
    slot = bank.join(adapter.state())
    sample = Sample(tuple(TOKENS.tolist()), (False, *[True] * (len(TOKENS) - 1)))
    batch = pack([Share((sample,), slot, adapter.scale)], backbone.device)
    with torch.no_grad():
        return backbone.target_logits(bank, batch)


def peft_logits(model: PeftModel) -> Tensor:
    with torch.no_grad():
        logits: Tensor = model(input_ids=TOKENS[None]).logits[0, :-1]
    return logits


def backbone_with_bank(
    family: str = "llama", targets: str | list[str] = "all-linear"
) -> tuple[Backbone, AdapterBank]:
    backbone = Backbone(model_of(family), targets)
    return backbone, AdapterBank(backbone.shapes, backbone.device)


def write(
    folder: Path, backbone: Backbone, bank: AdapterBank, value_rC: Tensor, h: Hyperparameters
) -> None:
    weights_LN = in_file_order(bank, value_rC)
    write_adapter(FolderArtifact(folder), bank, weights_LN, h, backbone.base_model, step=3)


def written(
    folder: Path, h: Hyperparameters = H, family: str = "llama"
) -> tuple[AdapterBank, Tensor]:
    backbone, bank = backbone_with_bank(family)
    value_rC = random_adapter(bank, h.rank)
    write(folder, backbone, bank, value_rC, h)
    return bank, value_rC


@pytest.mark.parametrize("family", [*TINY_MODELS, "gpt2"])
def test_peft_loads_what_is_written_and_predicts_the_same(family: str, tmp_path: Path) -> None:
    h = Hyperparameters(rank=5, alpha=7.5, rslora=True, dropout=0.1)
    backbone, bank = backbone_with_bank(family)
    value_rC = random_adapter(bank, h.rank)
    write(tmp_path, backbone, bank, value_rC, h)
    loaded = loaded_by_peft(model_of(family), tmp_path)
    found = alto_logits(backbone, bank, StoredAdapter(value_rC, h.scale))
    assert_close(found, peft_logits(loaded))
    tensors = get_peft_model_state_dict(loaded)
    assert len(tensors) == 2 * len(bank.shapes)
    for name, a_rI, b_rO in bank.matrices(value_rC):
        assert_identical(tensors[f"base_model.model.{name}.lora_A.weight"], a_rI)
        assert_identical(tensors[f"base_model.model.{name}.lora_B.weight"], b_rO.T)


@pytest.mark.parametrize(
    "targets",
    [
        pytest.param(["q_proj", "v_proj"], id="last names"),
        pytest.param(["layers.1.mlp.down_proj", "layers.0.self_attn.q_proj"], id="ends of paths"),
        pytest.param(["layers.0.mlp.up_proj", "up_proj"], id="one within another"),
    ],
)
def test_peft_loads_adapters_of_some_linears(targets: list[str], tmp_path: Path) -> None:
    backbone, bank = backbone_with_bank("llama", targets)
    value_rC = random_adapter(bank, H.rank)
    write(tmp_path, backbone, bank, value_rC, H)
    loaded = loaded_by_peft(model_of("llama"), tmp_path)
    assert len(get_peft_model_state_dict(loaded)) == 2 * len(bank.shapes)
    assert_close(alto_logits(backbone, bank, StoredAdapter(value_rC, H.scale)), peft_logits(loaded))


@pytest.mark.parametrize("family", ["llama", "gpt_neox", "gpt2"])
@pytest.mark.parametrize("rslora", [False, True], ids=["plain", "rslora"])
def test_what_peft_writes_is_read_and_evaluates_the_same(
    family: str, rslora: bool, tmp_path: Path
) -> None:
    h = Hyperparameters(rank=6, alpha=9.0, rslora=rslora)
    peft = as_peft(model_of(family), h).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in peft.parameters():
            if parameter.requires_grad:
                parameter.normal_(std=0.1, generator=generator)
    peft.save_pretrained(str(tmp_path))
    backbone, bank = backbone_with_bank(family)
    adapter = read_adapter(tmp_path, bank)
    assert adapter.scale == h.scale
    assert_close(alto_logits(backbone, bank, adapter), peft_logits(peft))
    slot = bank.join(adapter.state())
    found = validation_loss(backbone, bank, SAMPLES, slot, adapter.scale)
    assert_close(torch.tensor(found), torch.tensor(plain_validation_loss(peft)))


def plain_validation_loss(peft: PeftModel) -> float:
    losses: list[float] = []
    for sample in SAMPLES:
        tokens = torch.tensor(sample.tokens)
        with torch.no_grad():
            logits = peft(input_ids=tokens[None]).logits[0]
        each = torch.nn.functional.cross_entropy(logits[:-1], tokens[1:], reduction="none")
        losses += each[torch.tensor(sample.is_target)[1:]].tolist()
    return sum(losses) / len(losses)


def test_an_adapter_survives_writing_and_reading_exactly(tmp_path: Path) -> None:
    bank, value_rC = written(tmp_path)
    found = read_adapter(tmp_path, bank)
    assert_identical(found.value_rC, value_rC)
    assert found.scale == H.scale
    state = found.state()
    assert state.moments is None, "never trained"


@pytest.mark.parametrize("rslora", [False, True])
def test_the_config_says_what_is_so_and_no_more(rslora: bool, tmp_path: Path) -> None:
    written(tmp_path, Hyperparameters(rank=3, alpha=7.5, rslora=rslora, dropout=0.25))
    assert json.loads((tmp_path / CONFIG).read_text()) == {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": "",
        "r": 3,
        "lora_alpha": 7.5,
        "lora_dropout": 0.25,
        "use_rslora": rslora,
        "fan_in_fan_out": False,
        "bias": "none",
        "target_modules": [
            "down_proj",
            "gate_proj",
            "k_proj",
            "o_proj",
            "q_proj",
            "up_proj",
            "v_proj",
        ],
        "inference_mode": True,
    }


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        pytest.param({"r": None}, "r must be", id="no rank"),
        pytest.param({"r": 0}, "rank", id="rank zero"),
        pytest.param({"r": 5.0}, "r must be", id="a rank that is no whole number"),
        pytest.param({"r": 4}, "must be", id="another rank than the weights have"),
        pytest.param({"lora_alpha": "large"}, "not a PEFT adapter", id="alpha that is no number"),
        pytest.param({"peft_type": "LOHA"}, "LOHA", id="another method"),
        pytest.param({"use_dora": True}, "use_dora", id="dora"),
        pytest.param({"alpha_pattern": {"q_proj": 3}}, "alpha_pattern", id="alpha of its own"),
        pytest.param({"rank_pattern": {"q_proj": 3}}, "rank_pattern", id="rank of its own"),
        pytest.param({"lora_bias": True}, "lora_bias", id="biases of the adapter"),
        pytest.param({"bias": "all"}, "bias", id="trained biases"),
        pytest.param({"modules_to_save": ["lm_head"]}, "modules_to_save", id="whole modules"),
    ],
)
def test_a_config_that_means_something_else_is_refused(
    changes: dict[str, Any], says: str, tmp_path: Path
) -> None:
    bank, _ = written(tmp_path)
    config = json.loads((tmp_path / CONFIG).read_text()) | changes
    (tmp_path / CONFIG).write_text(json.dumps(config))
    refuses(tmp_path, bank, says)


@pytest.mark.parametrize("file", [CONFIG, WEIGHTS])
@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999], ids=lambda s: f"{s:.1%} of it")
def test_a_file_cut_short_is_refused(file: str, share: float, tmp_path: Path) -> None:
    bank, _ = written(tmp_path)
    content = (tmp_path / file).read_bytes()
    (tmp_path / file).write_bytes(content[: int(share * (len(content) - 2))])
    refuses(tmp_path, bank, "not a PEFT adapter, or damaged")


@pytest.mark.parametrize("content", [b"[]", b"3", b"\xff\xfe\x00", b'{"r": 4}'])
def test_a_config_that_is_none_is_refused(content: bytes, tmp_path: Path) -> None:
    bank, _ = written(tmp_path)
    (tmp_path / CONFIG).write_bytes(content)
    refuses(tmp_path, bank, "not a PEFT adapter, or damaged")


@pytest.mark.parametrize("file", [CONFIG, WEIGHTS])
def test_a_missing_file_is_told(file: str, tmp_path: Path) -> None:
    bank, _ = written(tmp_path)
    (tmp_path / file).unlink()
    refuses(tmp_path, bank, file)


def test_an_adapter_of_another_model_is_refused(tmp_path: Path) -> None:
    written(tmp_path / "neox", family="gpt_neox")
    written(tmp_path / "qwen2", family="qwen2")
    _, bank = backbone_with_bank("llama")
    refuses(tmp_path / "neox", bank, "q_proj.lora_A.weight must be (5, 32), found nothing")
    refuses(tmp_path / "qwen2", bank, "gate_proj.lora_B.weight must be (64, 5), found (48, 5)")
    _, narrow = backbone_with_bank("llama", ["q_proj"])
    written(tmp_path / "wide")
    refuses(tmp_path / "wide", narrow, "belongs to no adapted linear of this model")


def refuses(folder: Path, bank: AdapterBank, says: str) -> None:
    with pytest.raises(UserError) as caught:
        read_adapter(folder, bank)
    message = str(caught.value)
    assert says in message
    assert str(folder) in message
    assert "\n" not in message
