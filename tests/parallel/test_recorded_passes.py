"""A recorded pass of all ranks is a launched one, whichever way it goes: on GPUs, and off them as
far as the ranks' agreement goes."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from alto_exec import decoder
from alto_exec.bank import AdapterBank, Slot
from alto_exec.parallel.ranks import Ranks
from alto_exec.parallel.sharded_decoder import ShardedDecoder
from alto_exec.replay import Replayed
from alto_policy.exchange import Way
from tests.exec.batches import a_batch
from tests.exec.comparing import assert_identical
from tests.exec.tiny_models import tiny_llama
from tests.parallel.ranks_of_processes import outcomes
from tests.parallel.recorder import Recorder

LAYERS = 5  # more than are at hand at a time
ON_GPUS = torch.cuda.device_count() > 1
KINDS = [
    "cpu",
    pytest.param(
        "cuda",
        marks=[pytest.mark.gpu, pytest.mark.skipif(not ON_GPUS, reason="NCCL recorded")],
    ),
]
BEFORE, NOW = (30, 41, 50), (49, 33, 20)  # tokens of each job; of one shape


@dataclass(frozen=True, slots=True)
class Found:
    """Losses and gradients of passes in their order, and validation sums."""

    trained: list[tuple[Tensor, Tensor]]
    evaluated: list[Tensor]
    replayed: Replayed
    travelled: int
    gathers: list[int]  # by each pass


def a_model(ranks: Ranks, way: Way) -> ShardedDecoder:
    """In a process of its own, in which all passes may be recorded."""
    whole: Any = tiny_llama(layers=LAYERS)[0]
    whole = whole.to(torch.bfloat16)

    def model() -> ShardedDecoder:
        return ShardedDecoder(whole, ranks, whole_layers=1, way=way)

    if ranks.device.type == "cpu":
        return Recorder(model).model
    pytest.MonkeyPatch().setattr(decoder, "most_recorded_tokens", lambda _: 1 << 20)
    return model()


def adapters(model: ShardedDecoder) -> tuple[AdapterBank, tuple[Slot, ...]]:
    bank = AdapterBank(model.shapes, model.device, rows=12, dtype=model.dtype)
    return bank, tuple(bank.join(bank.fresh(4, seed)) for seed in range(len(NOW)))


def passes(way: Way, ranks: Ranks, folder: Path) -> list[Found]:
    """Of both ranks, then of the second alone, then evaluation beside nothing: by a model that
    records, and by one for each pass that is launched in the same room."""
    found = []
    order = [(BEFORE, True), (BEFORE, True), (NOW, True), (BEFORE, False), (NOW, False)]
    order += [(BEFORE, True), (NOW, False)]
    for is_fresh in (False, True):
        model = a_model(ranks, way)
        bank, slots = adapters(model)
        trained: list[tuple[Tensor, Tensor]] = []
        evaluated: list[Tensor] = []
        gathers: list[int] = []
        for lengths, all_train in order:
            if is_fresh:
                model.passes.clear()
            bank.grad_RC.zero_()
            before = model.layers.gathers
            if all_train or not ranks.is_leader:
                losses_N = model.train(bank, *a_batch(slots, lengths, model.device)).clone()
                trained.append((losses_N.cpu(), bank.grad_RC.clone().cpu()))
            model.settle()
            gathers.append(model.layers.gathers - before)
        for lengths in (BEFORE, NOW, BEFORE):
            if is_fresh:
                model.passes.clear()
            if ranks.is_leader:
                batch, _ = a_batch(slots, lengths, model.device)
                evaluated.append(model.loss_sums(bank, batch).cpu())
            model.settle()
        travelled = model.passes.travelled
        found.append(Found(trained, evaluated, model.replayed, travelled, gathers))
    return found


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", Way)
def test_a_recorded_pass_is_a_launched_one(way: Way, kind: str, tmp_path: Path) -> None:
    for recorded, launched in outcomes(partial(passes, way), 2, tmp_path, kind):
        assert launched.replayed.passes == 0
        assert recorded.replayed.passes >= 2
        assert (recorded.travelled > 0) == (way is Way.TRAVELLING)
        assert recorded.gathers == launched.gathers
        assert len(recorded.trained) == len(launched.trained)
        for one, other in zip(recorded.trained, launched.trained, strict=True):
            assert one[1].any()
            for values, expected in zip(one, other, strict=True):
                assert_identical(values, expected)
        for sums, same in zip(recorded.evaluated, launched.evaluated, strict=True):
            assert_identical(sums, same)


def without_memory(way: Way, ranks: Ranks, folder: Path) -> list[Tensor]:
    """The second rank's memory runs out while it records: it gives its pass up, the first trains
    on, then both record."""
    model = a_model(ranks, way)
    bank, slots = adapters(model)
    compute, calls = model._decoder._run_layer, [0]
    found: list[Tensor] = []

    def run_layer(*args: Any) -> Any:
        calls[0] += 1
        if not ranks.is_leader and calls[0] == LAYERS + 3:
            raise torch.OutOfMemoryError
        return compute(*args)

    pytest.MonkeyPatch().setattr(model._decoder, "_run_layer", run_layer)
    for number in range(5):
        bank.grad_RC.zero_()
        try:
            model.train(bank, *a_batch(slots, NOW, model.device))
        except torch.OutOfMemoryError:
            assert number == 1
        found.append(bank.grad_RC.clone().cpu())
    model.settle()
    assert model.replayed.passes == 1
    return found


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", Way)
def test_a_rank_without_memory_to_record_keeps_nobody_from_training(
    way: Way, kind: str, tmp_path: Path
) -> None:
    first, second = outcomes(partial(without_memory, way), 2, tmp_path, kind)
    for gradients in (*first[1:], second[2], second[3], second[4]):
        assert_identical(gradients, first[0])
    assert not second[1].any()
