"""A recorded pass of all ranks is a launched one, whichever way it goes: on GPUs, and off them as
far as the ranks' agreement goes."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from alto_exec.adapters.bank import AdapterBank, Slot
from alto_exec.backbones import decoder
from alto_exec.backbones.decoder import Decoder
from alto_exec.parallel.ranks import Ranks
from alto_exec.parallel.sharded_decoder import ShardedDecoder
from alto_exec.passes.cuda_graphs import Replayed
from alto_policy.executors.exchange import Way
from tests.exec.batches import a_batch
from tests.exec.comparing import (
    Trajectory,
    assert_identical,
    assert_same_training,
    in_double_precision,
)
from tests.exec.tiny_models import tiny_llama
from tests.parallel.ranks_of_processes import outcomes
from tests.parallel.recorder import Recorder
from tests.parallel.test_sharded_decoder import JOBS, MOST_PASSES, OWNERS, model_of, train

LAYERS = 5  # more than are at hand at a time
ON_GPUS = torch.cuda.device_count() > 1
ON_BOTH = [pytest.mark.gpu, pytest.mark.skipif(not ON_GPUS, reason="NCCL recorded")]
WAYS = [
    *((way, "cpu") for way in Way if way is not Way.COPIED),  # for which GPUs reach one another
    *(pytest.param(way, "cuda", marks=ON_BOTH) for way in Way),
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


@dataclass(frozen=True, slots=True)
class Trained:
    trajectories: dict[str, Trajectory]
    validation: dict[str, float]
    captures: int
    replays: int
    gathers: int
    passes: int


def train_to_the_end(way: Way, ranks: Ranks, folder: Path) -> Trained:
    """Rooms of many shapes, ranks that have nothing left to train, evaluation."""
    with in_double_precision():
        whole = model_of("qwen2")
        model_here = partial(ShardedDecoder, whole, ranks, whole_layers=1, way=way)
        recorder = Recorder(model_here)
        mine = [JOBS[i] for i in OWNERS[ranks.size][ranks.rank]]
        trajectories, validation = train(recorder.model, mine)
        recorder.model.settle()
    layers = recorder.model.layers
    return Trained(
        trajectories,
        validation,
        recorder.captures,
        recorder.replays,
        layers.gathers,
        layers.passes[way],
    )


@pytest.mark.parametrize(("way", "size"), [(Way.GATHERED, 4), (Way.TRAVELLING, 3)])
def test_jobs_train_as_beside_all_others_on_one_process(
    way: Way, size: int, tmp_path: Path
) -> None:
    found = outcomes(partial(train_to_the_end, way), size, tmp_path)
    with in_double_precision():
        together, validation = train(Decoder(model_of("qwen2")), list(JOBS))
    sharded = LAYERS - 1
    for one in found:
        assert one.replays >= one.captures > 0
        for name, trajectory in one.trajectories.items():
            assert_same_training(trajectory, together[name], what=name)
            assert one.validation[name] == pytest.approx(validation[name], rel=1e-9)
        evaluations = one.passes - MOST_PASSES
        expected = 2 + MOST_PASSES * 2 * (sharded - 2) + (evaluations - 1) * sharded + sharded - 2
        assert one.gathers == (expected if way is Way.GATHERED else 0)


@pytest.mark.parametrize(("way", "kind"), WAYS)
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
    on, and both launch all that follows."""
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
    assert model.replayed.passes == 0
    assert not model.passes._recordings
    return found


def short_of_memory(ranks: Ranks, folder: Path) -> list[tuple[int, int, int]]:
    """Captures, replays and recordings after each pass; what is free changes on the second rank."""
    whole: Any = tiny_llama(layers=LAYERS)[0]
    recorder = Recorder(partial(ShardedDecoder, whole, ranks, way=Way.GATHERED))
    bank, slots = adapters(recorder.model)
    needed = 128 * recorder.model._decoder.row_bytes
    told = []
    for lengths, free in (
        (NOW, needed),  # launched
        (NOW, 2 * needed - 1),  # launched: it would fit, but not stay
        (NOW, 2 * needed),  # recorded
        (NOW, 0),  # replayed
        ((90, 90, 90), 0),  # of another shape: launched where the first one was
        (NOW, 1 << 40),  # recorded: the larger one has room
        (NOW, 1 << 40),  # replayed
    ):
        recorder.free = 1 << 40 if ranks.is_leader else free
        recorder.model.train(bank, *a_batch(slots, lengths, ranks.device))
        told.append((recorder.captures, recorder.replays, len(recorder.model.passes._recordings)))
    bank.reserve(64)  # on both ranks, which then record anew
    for _ in range(2):
        recorder.model.train(bank, *a_batch(slots, NOW, ranks.device))
        told.append((recorder.captures, recorder.replays, len(recorder.model.passes._recordings)))
    if ranks.is_leader:
        bank.give_back(12)
    recorder.model.train(bank, *a_batch(slots, NOW, ranks.device))
    told.append((recorder.captures, recorder.replays, len(recorder.model.passes._recordings)))
    ranks.forget()
    assert recorder.resets == recorder.captures  # so that nothing waits for a graph
    return told


def test_a_pass_is_recorded_where_all_ranks_have_memory_for_it(tmp_path: Path) -> None:
    first, second = outcomes(short_of_memory, 2, tmp_path)
    assert first == second
    assert first == [
        (0, 0, 1),
        (0, 0, 1),
        (1, 1, 1),
        (1, 2, 1),
        (1, 2, 1),
        (2, 3, 1),
        (2, 4, 1),
        (2, 4, 1),
        (3, 5, 1),
        (3, 5, 1),
    ]


@pytest.mark.parametrize(("way", "kind"), WAYS)
def test_a_rank_without_memory_to_record_keeps_nobody_from_training(
    way: Way, kind: str, tmp_path: Path
) -> None:
    first, second = outcomes(partial(without_memory, way), 2, tmp_path, kind)
    for gradients in (*first[1:], second[2], second[3], second[4]):
        assert_identical(gradients, first[0])
    assert not second[1].any()
