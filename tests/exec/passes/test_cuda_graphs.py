"""A batch in buffers with room trains as it does alone, and a recorded pass as a launched one."""

import dataclasses
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor

from alto_exec.adapters.bank import AdapterBank, LinearShape, Slot
from alto_exec.adapters.bank_memory import RecordedBank
from alto_exec.backbones import decoder
from alto_exec.backbones.decoder import Decoder
from alto_exec.passes import cuda_graphs
from alto_exec.passes.batch import PackedBatch
from alto_exec.passes.cuda_graphs import PassShape, Recording, Replays, Room
from alto_exec.passes.weighing import FixedWeights, Weigh
from alto_kernels.lora_linear import Plan, room_for
from alto_policy import memory
from tests.exec.batches import a_batch
from tests.exec.comparing import assert_close, assert_identical
from tests.exec.tiny_models import tiny_llama

ON_GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda:0" if ON_GPU else "cpu")
BEFORE, NOW = (30, 41, 50), (49, 33, 20)  # tokens of each job; of one shape


def a_model(dtype: torch.dtype = torch.float32) -> Decoder:
    model: Any = tiny_llama()[0]
    return Decoder(model.to(DEVICE, dtype))


def adapters(model: Decoder, rows: int = 12) -> tuple[AdapterBank, tuple[Slot, ...]]:
    bank = AdapterBank(model.shapes, model.device, rows=rows, dtype=model.dtype)
    return bank, tuple(bank.join(bank.fresh(4, seed)) for seed in range(len(NOW)))


def batch_of(
    slots: Sequence[Slot], lengths: tuple[int, ...], dropout: float = 0.1
) -> tuple[PackedBatch, FixedWeights]:
    return a_batch(slots, lengths, DEVICE, dropout)


DROPOUTS = pytest.mark.parametrize("dropout", [0.1, 0.0], ids=["dropout", "without"])


@DROPOUTS
def test_both_batches_have_one_shape(dropout: float) -> None:
    _, slots = adapters(a_model())
    shapes = {PassShape.around(*batch_of(slots, lengths, dropout)) for lengths in (BEFORE, NOW)}
    assert [shape.predicts_apart for shape in shapes] == [dropout == 0]


@DROPOUTS
def test_room_changes_neither_losses_nor_gradients(dropout: float) -> None:
    model = a_model()
    (bank, slots), (same_bank, _) = adapters(model), adapters(model)
    batch, weigh = batch_of(slots, NOW, dropout)
    room = Room(PassShape.around(batch, weigh), batch, weigh)
    found_N = model.train(bank, room.batch, room.weigh)
    expected_N = model.train(same_bank, batch, weigh)
    assert len(found_N) > len(expected_N)
    assert len(room.batch.tokens_T) > len(batch.tokens_T)
    assert_close(found_N[: len(expected_N)], expected_N, "losses")
    assert_close(bank.grad_RC, same_bank.grad_RC, "gradients")
    assert same_bank.grad_RC.any()


def plans_of(batch: PackedBatch) -> tuple[Plan, ...]:
    plans = (batch.plan, batch.predicting_plan)
    return tuple(plan for plan in plans if plan is not None)


@DROPOUTS
def test_nothing_is_left_of_the_batch_before(dropout: float) -> None:
    _, slots = adapters(a_model())
    before, now = (batch_of(slots, lengths, dropout) for lengths in (BEFORE, NOW))
    used = Room(PassShape.around(*before), *before)
    used.fill(*now)
    new = Room(PassShape.around(*now), *now)
    assert_identical(used.weigh(torch.empty(0)), new.weigh(torch.empty(0)))
    assert_identical(used.batch.lengths.ends, new.batch.lengths.ends)
    for field in ("tokens_T", "positions_T", "predicting_rows", "targets_N"):
        assert_identical(getattr(used.batch, field), getattr(new.batch, field), field)
    plans = [plans_of(room.batch) for room in (used, new)]
    assert [len(each) for each in plans] == [1 if dropout else 2] * 2
    for found, expected in zip(*([p.tables(DEVICE) for p in each] for each in plans), strict=True):
        for name in (field.name for field in dataclasses.fields(found)):
            one, other = getattr(found, name), getattr(expected, name)
            assert torch.equal(one, other) if isinstance(one, Tensor) else one == other, name


class Graph:
    """Stands for a CUDA graph."""

    replays = resets = 0

    def capture_begin(self, *, pool: tuple[int, int], capture_error_mode: str) -> None: ...
    def capture_end(self) -> None: ...
    def replay(self) -> None:
        Graph.replays += 1

    def pool(self) -> tuple[int, int]:
        return (0, 1)

    def reset(self) -> None:
        Graph.resets += 1


class Memory:
    """Of a GPU of 100 bytes, 30 of them in use, and some `kept` for other passes."""

    def __init__(self) -> None:
        self.kept = 10
        self.given_back: list[int] = []

    def empty_cache(self) -> None:
        self.given_back.append(self.kept)
        self.kept = 0


@pytest.fixture
def gpu_memory(monkeypatch: pytest.MonkeyPatch) -> Memory:
    """Passes are recorded without a GPU."""
    memory = Memory()
    stubs: dict[str, Any] = {
        "CUDAGraph": Graph,
        "Stream": lambda device: device,
        "stream": lambda _: nullcontext(),
        "current_device": lambda: -1,
        "synchronize": lambda: None,
        "graph_pool_handle": lambda: (0, 1),
        "empty_cache": memory.empty_cache,
        "memory_allocated": lambda: 30,
        "memory_reserved": lambda: 30 + memory.kept,
        "mem_get_info": lambda: (100 - 30 - memory.kept, 100),
    }
    for name, stub in stubs.items():
        monkeypatch.setattr(torch.cuda, name, stub)
    return memory


@pytest.mark.usefixtures("gpu_memory")
def test_when_a_pass_is_launched_recorded_and_replayed(monkeypatch: pytest.MonkeyPatch) -> None:
    free = 1 << 40
    monkeypatch.setattr(Graph, "replays", 0)
    monkeypatch.setattr(cuda_graphs, "free_bytes", lambda: free)
    calls: list[int] = []

    def train(_: AdapterBank, batch: PackedBatch, weigh: Weigh) -> Tensor:
        calls.append(len(batch.tokens_T))
        return weigh(torch.empty(0))

    bank, slots = adapters(a_model())
    replays = Replays(train, row_bytes=1)

    def counts(lengths: tuple[int, ...]) -> tuple[int, int]:
        batch, weigh = batch_of(slots, lengths)
        assert_identical(replays.train(bank, batch, weigh), weigh.weights_N)
        return len(calls), Graph.replays

    assert counts(BEFORE) == (1, 0)
    assert counts(NOW) == (2, 1)  # recorded, then replayed
    assert counts(BEFORE) == (2, 2)
    bank.compact()  # within its memory
    assert counts(BEFORE) == (2, 3)
    assert counts((90, 90, 90)) == (3, 4)  # of another shape: recorded at once
    assert counts(NOW) == (3, 5)
    bank.reserve(64)
    assert counts(NOW) == (4, 6)
    assert counts(NOW) == (4, 7)
    bank.give_back(12)
    assert counts(NOW) == (5, 8)
    assert counts(NOW) == (5, 9)
    free = 200  # enough for a pass, not for keeping its memory
    replays.clear()
    assert counts(NOW) == (6, 9)
    assert counts(NOW) == (7, 9)
    assert replays.replayed.recorded == 4
    assert replays.replayed.passes == 5, "of nine, four were recorded just before"
    assert replays.replayed.rows == 5 * 512


@pytest.mark.usefixtures("gpu_memory")
@pytest.mark.parametrize(
    ("row_bytes", "free", "stays"),
    [
        pytest.param(10, 10 * 512 + 700, True, id="room for both"),
        pytest.param(10, 10 * 512 + 699, False, id="not for both"),
        pytest.param(100, 10 * 512 + 700, False, id="what is recorded has as much"),
    ],
)
def test_evaluations_stay_recorded_beside_a_launched_pass_that_has_room(
    row_bytes: int, free: int, stays: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To record them again after each such pass takes longer than they do."""
    model = a_model()
    bank, slots = adapters(model)
    calls: list[int] = []

    def losses(_: AdapterBank, batch: PackedBatch, weigh: Weigh) -> Tensor:
        calls.append(len(batch.tokens_T))
        return weigh(torch.empty(0))

    model._evaluations = Replays(losses, row_bytes, varies=False)
    model.row_bytes = 7
    monkeypatch.setattr(cuda_graphs, "free_bytes", lambda: 1 << 40)
    batch, weigh = batch_of(slots, NOW)
    for _ in range(2):
        model._evaluations.train(bank, batch, weigh)
    monkeypatch.setattr(cuda_graphs, "free_bytes", lambda: free)
    hundred = batch_of(slots, (50, 30, 20))
    model.train(bank, *hundred)
    monkeypatch.setattr(cuda_graphs, "free_bytes", lambda: 1 << 40)
    model._evaluations.train(bank, batch, weigh)
    assert len(calls) == (2 if stays else 3)


@pytest.mark.usefixtures("gpu_memory")
def test_a_graph_ends_with_its_recording_whoever_still_knows_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An error that was raised while it was recorded holds the frames, and these the graph."""
    monkeypatch.setattr(Graph, "resets", 0)
    recording = Recording(None)
    recording.record(lambda: torch.empty(0), pool=(0, 1))
    still_known = recording.graph
    recording.forget()
    assert Graph.resets == 1
    assert not recording.is_recorded
    assert still_known is not None

    def fails() -> Tensor:
        raise torch.OutOfMemoryError

    with pytest.raises(torch.OutOfMemoryError):
        recording.record(fails, pool=(0, 1))
    assert Graph.resets == 2
    assert not recording.is_recorded


def test_what_is_kept_for_other_passes_stays_where_a_recording_finds_room(
    gpu_memory: Memory,
) -> None:
    recording = Recording(None)
    recording.record(lambda: torch.empty(0), pool=(0, 1))
    assert not gpu_memory.given_back
    gpu_memory.kept = 40  # as much as is free, and a third
    recording.record(lambda: torch.empty(0), pool=(0, 1))
    assert gpu_memory.given_back == [40]


def test_recordings_give_their_memory_back_before_the_bank_moves() -> None:
    """Else what is recorded and what it is recorded for would be there at the same time."""
    bank = AdapterBank((LinearShape("one", 5, 7),), torch.device("cpu"), rows=4)
    rows: list[int] = []

    class Recorded:
        def clear(self) -> None:
            rows.append(bank.num_rows)

    recorded, gone = Recorded(), Recorded()
    bank.memory.watch(recorded)
    bank.memory.watch(gone)
    del gone
    bank.reserve(9)
    bank.give_back(0)
    assert rows == [4, 9]


def test_recordings_serve_one_bank_at_a_time() -> None:
    one, other = (
        AdapterBank((LinearShape("one", 5, 7),), torch.device("cpu"), rows=4) for _ in range(2)
    )

    class Recorded:
        times_cleared = 0

        def clear(self) -> None:
            self.times_cleared += 1

    recorded = Recorded()
    recorded_bank = RecordedBank(recorded)
    for bank, times in ((one, 1), (one, 1), (other, 2), (one, 3)):
        recorded_bank.meet(bank.memory)
        assert recorded.times_cleared == times
    one.reserve(9)
    assert recorded.times_cleared == 4


@pytest.mark.usefixtures("gpu_memory")
def test_a_larger_recording_serves_until_it_has_wasted_what_another_costs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cuda_graphs, "free_bytes", lambda: 1 << 40)
    monkeypatch.setattr(memory, "_LEAST_ROWS", 16)
    rows: list[int] = []

    def train(_: AdapterBank, batch: PackedBatch, weigh: Weigh) -> Tensor:
        rows.append(len(batch.tokens_T))
        return weigh(torch.empty(0))

    bank, slots = adapters(a_model())
    replays = Replays(train, row_bytes=1)
    large, small, smaller = (batch_of(slots, (n + 10, n, n)) for n in (60, 8, 6))
    for batch in (large, large):
        replays.train(bank, *batch)
    assert len(set(rows)) == 1
    # What is wasted counts, whichever batches it is wasted on.
    needs = [PassShape.around(*batch, spare=1 / 16).rows for batch in (small, smaller)]
    monkeypatch.setattr(cuda_graphs, "RECORDING_ROWS", 2 * (2 * rows[0] - sum(needs)))
    for batch in (small, smaller, small, smaller):
        assert_identical(replays.train(bank, *batch), batch[1].weights_N)
    assert len(set(rows)) == 1
    assert_identical(replays.train(bank, *small), small[1].weights_N)
    assert min(rows) < rows[0] // 2


@pytest.mark.usefixtures("gpu_memory")
def test_a_recording_of_more_rows_left_over_than_used_is_filled_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of 1,024 rows 488 are used at first."""
    monkeypatch.setattr(cuda_graphs, "free_bytes", lambda: 1 << 40)
    (bank, slots), sequences = adapters(a_model()), list[int]()

    def train(_: AdapterBank, batch: PackedBatch, weigh: Weigh) -> Tensor:
        sequences.append(len(batch.lengths.lengths))
        return weigh(torch.empty(0))

    replays = Replays(train, row_bytes=1)
    for length in (61, 61, 64, 63):
        batch, weigh = batch_of([slots[0]] * 8, (length,) * 8)
        assert_identical(replays.train(bank, batch, weigh), weigh.weights_N)
    assert sequences == [13, 13], "launched, recorded, replayed twice"


def test_rows_of_recordings_are_rounded_as_all_that_kernels_have_room_for() -> None:
    for tokens in (0, 1, 512, 513, 8192, 8193, 9000, 30_000, 33_000, 100_001):
        assert memory.recorded_rows(tokens) == room_for(tokens, 512)
        more = room_for(int(tokens * 17 / 16), 512)
        assert memory.recorded_rows(tokens, memory.SPARE) == more


def test_a_shape_takes_what_its_launches_can_compute() -> None:
    _, slots = adapters(a_model())
    batch, weigh = batch_of(slots, NOW)
    own = PassShape.around(batch, weigh)
    roomy = PassShape.around(batch, weigh, spare=1.0)
    assert roomy.takes(batch, own)
    for field in ("rows", "targets", "longest"):
        less = {field: getattr(own, field) - 1}
        assert not dataclasses.replace(roomy, **less).takes(batch, own), field
    for field in ("num_segments", "max_segment", "rank_width"):
        tables = dataclasses.replace(own.tables, **{field: getattr(own.tables, field) - 1})
        assert not dataclasses.replace(roomy, tables=tables).takes(batch, own), field
    tables = dataclasses.replace(own.tables, has_dropout=not own.tables.has_dropout)
    assert not dataclasses.replace(roomy, tables=tables).takes(batch, own)
    assert not dataclasses.replace(roomy, predicts_apart=True).takes(batch, own)
    crowded = dataclasses.replace(roomy, sequences=len(NOW))
    assert not crowded.takes(batch, own), "no place for the rows left over"


@pytest.mark.gpu
@pytest.mark.skipif(not ON_GPU, reason="CUDA graphs")
@DROPOUTS
def test_a_recorded_pass_is_a_launched_one(dropout: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also after the bank has moved, and after its slots have moved within it."""
    monkeypatch.setattr(decoder, "most_recorded_tokens", lambda _: 1 << 20)
    model, fresh = (a_model(torch.bfloat16) for _ in range(2))
    (bank, slots), (same_bank, _) = adapters(model), adapters(fresh)

    def gradients(of: Decoder, into: AdapterBank, lengths: tuple[int, ...]) -> tuple[Tensor, ...]:
        into.grad_RC.zero_()
        batch, weigh = batch_of(slots, lengths, dropout)
        losses_N = of.train(into, batch, weigh).clone()
        return losses_N, into.grad_RC[:12].clone()

    for rows in (12, 32):
        bank.reserve(rows)
        launched, recorded, again = (gradients(model, bank, BEFORE) for _ in range(3))
        other = gradients(model, bank, NOW)
        fresh = a_model(torch.bfloat16)
        for found, expected in (
            *zip(recorded, launched, strict=True),
            *zip(again, launched, strict=True),
            *zip(other, gradients(fresh, same_bank, NOW), strict=True),
        ):
            assert_identical(found, expected)
        assert other[1].any()
    for one in (bank, same_bank):
        one.leave(slots[0])
        moved = one.compact()
    slots = tuple(moved[slot] for slot in slots[1:])
    replayed, launched = gradients(model, bank, NOW[1:]), gradients(fresh, same_bank, NOW[1:])
    for found, expected in zip(replayed, launched, strict=True):
        assert_identical(found, expected)
