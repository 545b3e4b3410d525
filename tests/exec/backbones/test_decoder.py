"""The decoder that is written out computes what transformers' modules compute."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from alto_exec.adapters.bank import AdapterBank
from alto_exec.backbones import decoder
from alto_exec.backbones.decoder import Decoder, can_be_written_out
from alto_exec.backbones.transformers_model import Backbone
from alto_exec.data.samples import Sample
from alto_exec.passes.batch import PackedBatch, Share, pack
from alto_exec.passes.frozen_model import FrozenModel
from alto_exec.passes.weighing import FixedWeights
from alto_kernels.lora_linear import AdaptedGroup, Plan
from alto_kernels.lora_mlp import lora_mlp
from tests.exec.comparing import assert_close
from tests.exec.tiny_models import (
    TINY_MODELS,
    VOCABULARY_SIZE,
    tiny_llama,
    tiny_qwen2,
    tiny_qwen3,
    tiny_smollm3,
)

CPU = torch.device("cpu")
TARGETS = ("all-linear", ("q_proj", "v_proj"), ("k_proj", "up_proj", "down_proj"))


def sample(length: int, seed: int) -> Sample:
    dice = torch.Generator().manual_seed(seed)
    tokens = torch.randint(3, VOCABULARY_SIZE, (length,), generator=dice).tolist()
    return Sample(tuple(tokens), (False, *(i % 3 > 0 for i in range(length - 1))))


def filled(
    model: FrozenModel, ranks: tuple[int, ...], dropout: float = 0.1
) -> tuple[AdapterBank, PackedBatch]:
    """A bank of adapters that do something, and a batch of all of them and the frozen model."""
    bank = AdapterBank(model.shapes, CPU, dtype=model.dtype)
    shares = [Share((sample(7, 0),), None)]
    for number, rank in enumerate(ranks):
        state = bank.fresh(rank, seed=number)
        dice = torch.Generator().manual_seed(number)
        for _, _, b_rO in bank.matrices(state.value_rC):
            b_rO.normal_(generator=dice, std=0.1)
        slot = bank.join(state)
        samples = (sample(5 + number, 10 + number), sample(9, 20 + number))
        shares.append(Share(samples, slot, 2.0, dropout * number, number, 0))
    return bank, pack(shares, CPU)


def run(
    model: FrozenModel, ranks: tuple[int, ...], dropout: float = 0.1
) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss sums, and the gradients of all adapters by the names of their linears."""
    bank, batch = filled(model, ranks, dropout)
    of_shares = torch.arange(1.0, 1 + len(batch.targets_per_share))
    weights_N = of_shares.repeat_interleave(torch.tensor(batch.targets_per_share))
    sums = batch.share_sums(model.train(bank, batch, FixedWeights(weights_N)))
    with torch.no_grad():
        assert_close(model.loss_sums(bank, batch), sums, "loss sums of an evaluation")
    rows = slice(0, sum(ranks))
    return sums, {
        f"{name}.{part}": matrix
        for name, a_rI, b_rO in bank.matrices(bank.grad_RC[rows])
        for part, matrix in (("A", a_rI), ("B", b_rO))
    }


@pytest.mark.parametrize("targets", TARGETS, ids=str)
@pytest.mark.parametrize("make", [tiny_llama, tiny_qwen2, tiny_qwen3, tiny_smollm3])
@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("dropout", [0.1, 0.0], ids=["dropout", "without"])
def test_same_losses_and_gradients(
    make: Callable[[], tuple[PreTrainedModel, object]],
    targets: str | tuple[str, ...],
    recompute: bool,
    dropout: float,
) -> None:
    plain = run(Backbone(make()[0], targets), (4, 2, 8), dropout)
    written_out = run(Decoder(make()[0], targets, recompute=recompute), (4, 2, 8), dropout)
    assert_close(written_out[0], plain[0], "loss sums")
    assert written_out[1].keys() == plain[1].keys()
    for name, gradient in plain[1].items():
        assert_close(written_out[1][name], gradient, name)


@pytest.mark.parametrize(("dropout", "is_cut"), [(0.0, True), (0.1, False)])
def test_behind_its_attention_the_last_layer_computes_rows_that_predict_targets_alone(
    dropout: float, is_cut: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But for dropout, whose masks are those of whole sequences."""
    seen: list[int] = []

    def watched(x_TH: Tensor, gate_up: AdaptedGroup, down: AdaptedGroup, plan: Plan) -> Tensor:
        assert len(x_TH) == plan.num_rows
        seen.append(len(x_TH))
        return lora_mlp(x_TH, gate_up, down, plan)

    monkeypatch.setattr(decoder, "lora_mlp", watched)
    model = Decoder(tiny_llama()[0])
    bank, batch = filled(model, (4, 2), dropout)
    rows, targets = len(batch.tokens_T), len(batch.targets_N)
    assert targets < rows
    model.train(bank, batch, FixedWeights(torch.ones(targets)))
    assert seen == [rows, targets if is_cut else rows]


def test_an_adapter_without_targets_has_no_gradients_of_a_step_before() -> None:
    """It would have no rows where the last layer ends, and nothing would write them."""
    model = Decoder(tiny_llama()[0])
    bank = AdapterBank(model.shapes, CPU, dtype=model.dtype)
    slots = [bank.join(bank.fresh(4, seed=number)) for number in range(2)]
    bank.grad_RC.fill_(3.0)
    silent = Sample((3, 4, 5), (False,) * 3)
    shares = [
        Share((one,), slot, starts_gradients=True)
        for one, slot in zip((silent, sample(9, 0)), slots, strict=True)
    ]
    batch = pack(shares, CPU)
    model.train(bank, batch, FixedWeights(torch.ones(len(batch.targets_N))))
    assert not bank.grad_RC[slots[0].rows].any()
    assert bank.grad_RC[slots[1].rows].any()
    assert not (bank.grad_RC[slots[1].rows] == 3.0).any()


@pytest.mark.parametrize("make", [tiny_llama, tiny_qwen3])
def test_same_logits_facts_and_names(
    make: Callable[[], tuple[PreTrainedModel, object]],
) -> None:
    plain, written_out = Backbone(make()[0]), Decoder(make()[0])
    with torch.no_grad():
        found = written_out.target_logits(*filled(written_out, (4,)))
        assert_close(found, plain.target_logits(*filled(plain, (4,))))
    assert [s.name for s in written_out.shapes] == [s.name for s in plain.shapes]
    for fact in ("base_model", "vocabulary_size", "end_tokens", "dtype", "num_bytes"):
        assert getattr(written_out, fact) == getattr(plain, fact)


@pytest.mark.parametrize("family", TINY_MODELS)
def test_only_the_family_of_llama_is_written_out(family: str) -> None:
    _, config = TINY_MODELS[family]()
    assert can_be_written_out(config) == (family in ("llama", "qwen2", "qwen3", "smollm3"))
