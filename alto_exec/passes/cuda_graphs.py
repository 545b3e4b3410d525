"""Training passes recorded once as CUDA graphs and replayed on other batches.

A pass over a small model is a thousand launches of microseconds each, and what the host does for
each takes longer. A recorded launch keeps its addresses and its grid, so batches are copied into
buffers with some room, and all those that fit the same buffers share a recording.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

from alto_exec.adapters.bank import AdapterBank
from alto_exec.adapters.bank_memory import RecordedBank
from alto_exec.passes.batch import PackedBatch
from alto_exec.passes.weighing import Weigh, WeighShape
from alto_kernels.lora_linear import TablesShape, room_for
from alto_kernels.varlen_attention import CumulativeLengths
from alto_policy.memory import SPARE, recorded_rows, recorded_targets
from alto_runs.costs.recording import RECORDING_ROWS

__all__ = [
    "MOST_RECORDINGS",
    "Launch",
    "PassShape",
    "Recording",
    "Replayed",
    "Replays",
    "Room",
    "Train",
    "free_bytes",
    "pool_of",
    "spare_bytes",
]

_LEAST_LENGTH = 128  # of the longest sequence: attention works on so many rows at a time
MOST_RECORDINGS = 32  # the one replayed longest ago makes room
_FREE = 2  # memory, for each byte that is kept for other passes
_MEMORY = 2  # free for each byte that a pass takes: what is recorded keeps its memory

Launch = Callable[[], Tensor]
Train = Callable[[AdapterBank, PackedBatch, Weigh], Tensor]


@dataclass(frozen=True, slots=True)
class PassShape:
    """All that the launches of a pass read of a batch on the host."""

    rows: int
    targets: int
    sequences: int
    longest: int
    tables: TablesShape
    weigh: WeighShape
    predicts_apart: bool  # the last layer ends with the rows that predict targets

    @classmethod
    def around(cls, batch: PackedBatch, weigh: Weigh, spare: float = 0.0) -> "PassShape":
        """With room for this batch and for others like it, `spare` of it more in any case."""
        rows = recorded_rows(len(batch.tokens_T), spare)
        longest = max(_LEAST_LENGTH, _power_of_two(batch.lengths.longest))
        # An empty sequence costs nothing; half of the rows may be left over, or more of this batch.
        count = len(batch.lengths.lengths)
        own = count + -(-(rows - len(batch.tokens_T)) // longest)
        return cls(
            rows=rows,
            targets=recorded_targets(len(batch.targets_N), spare),
            sequences=max(own, room_for(count) + -(-rows // (2 * longest))),
            longest=longest,
            tables=TablesShape.around(batch.plan.tables(batch.tokens_T.device), rows),
            weigh=weigh.shape(spare),
            predicts_apart=batch.predicting_plan is not None,
        )

    def takes(self, batch: PackedBatch, shape: "PassShape") -> bool:
        """Whether this shape has room for a batch that `shape` is around."""
        left_over = -(-(self.rows - len(batch.tokens_T)) // self.longest)
        return (
            self.rows >= shape.rows
            and self.targets >= shape.targets
            and self.longest >= shape.longest
            and self.sequences >= len(batch.lengths.lengths) + left_over
            and self.tables.num_segments >= shape.tables.num_segments
            and self.tables.max_segment >= shape.tables.max_segment
            and self.tables.rank_width >= shape.tables.rank_width
            and self.tables.has_dropout == shape.tables.has_dropout
            and self.weigh.takes(shape.weigh)
            and self.predicts_apart == shape.predicts_apart
        )


@dataclass(frozen=True, slots=True)
class Replayed:
    """Passes, and the rows that they computed: more than their batches had; and how many more
    passes were recorded."""

    passes: int = 0
    rows: int = 0
    recorded: int = 0

    def plus(self, rows: int) -> "Replayed":
        return replace(self, passes=self.passes + 1, rows=self.rows + rows)

    def plus_recorded(self) -> "Replayed":
        return replace(self, recorded=self.recorded + 1)


class Room:
    """A batch and its weighing in buffers of a shape.

    The rows left over are sequences that no adapter meets, the targets left over weigh nothing.
    """

    def __init__(self, shape: PassShape, batch: PackedBatch, weigh: Weigh) -> None:
        self._shape = shape
        device = batch.tokens_T.device
        apart = batch.predicting_plan
        if apart is not None:
            apart = apart.with_room(replace(shape.tables, num_rows=shape.targets), device)
        self.batch = PackedBatch(
            tokens_T=batch.tokens_T.new_zeros(shape.rows),
            positions_T=batch.positions_T.new_zeros(shape.rows),
            lengths=self._lengths(batch),
            predicting_rows=batch.predicting_rows.new_zeros(shape.targets),
            targets_N=batch.targets_N.new_zeros(shape.targets),
            targets_per_share=(shape.targets,),
            plan=batch.plan.with_room(shape.tables, device),
            predicting_plan=apart,
        )
        self.weigh = weigh.with_room(shape.weigh, shape.targets)
        self._fill_batch(batch)

    def fill(self, batch: PackedBatch, weigh: Weigh) -> None:
        """Write a batch of the same shape over the one before."""
        self.weigh.refill(weigh)
        self._fill_batch(batch)

    def _fill_batch(self, batch: PackedBatch) -> None:
        room = self.batch
        room.plan.refill(batch.plan, batch.tokens_T.device)
        if room.predicting_plan is not None and batch.predicting_plan is not None:
            room.predicting_plan.refill(batch.predicting_plan, batch.tokens_T.device)
        room.lengths.ends.copy_(self._lengths(batch).ends)
        _fill(room.tokens_T, batch.tokens_T)
        _fill(room.positions_T, batch.positions_T)
        # The last row of a batch predicts nothing, so its gradient is nobody's.
        _fill(room.predicting_rows, batch.predicting_rows, rest=self._shape.rows - 1)
        _fill(room.targets_N, batch.targets_N)

    def _lengths(self, batch: PackedBatch) -> CumulativeLengths:
        """The rows left over in sequences no longer than the shape's, then empty ones."""
        shape, lengths = self._shape, list(batch.lengths.lengths)
        whole, rest = divmod(shape.rows - len(batch.tokens_T), shape.longest)
        lengths += [shape.longest] * whole + [rest] * (rest > 0)
        lengths += [0] * (shape.sequences - len(lengths))
        found = CumulativeLengths.of(lengths, batch.tokens_T.device)
        return CumulativeLengths(found.lengths, shape.longest, found.ends)


class Replays:
    """The recorded passes of one model, by their shapes. The very first pass is launched as ever,
    which sets libraries up; of any other shape the first pass is recorded where there is memory for
    that, since to record takes the host no longer than to launch."""

    def __init__(self, train: Train, row_bytes: int, *, varies: bool = True) -> None:
        """A pass takes at most `row_bytes` for each row of its batch; unless that `varies`, the
        same batches come again and again."""
        self.replayed = Replayed()  # so far
        self._train = train
        self._spare = SPARE if varies else 0.0
        self._row_bytes = row_bytes
        self._recordings: dict[PassShape, Recording] = {}
        self._wasted: dict[PassShape, int] = {}  # rows of each, since it last made room for another
        self._recorded_bank = RecordedBank(self)
        self._is_warm = False  # a pass has been launched, which sets libraries up

    def train(self, bank: AdapterBank, batch: PackedBatch, weigh: Weigh) -> Tensor:
        """What `train` computes; good until the next pass."""
        self._recorded_bank.meet(bank.memory)
        shape = self._shape_for(batch, weigh)
        needed = shape.rows * self._row_bytes
        if shape not in self._recordings and needed > free_bytes():
            self.clear()
        recording = self._recordings.pop(shape, None) or Recording(shape)
        launch = partial(self._train, bank, *recording.filled(batch, weigh))
        if recording.is_recorded:
            self.replayed = self.replayed.plus(shape.rows)
        elif self._is_warm and spare_bytes(needed) <= free_bytes():
            recording.record(launch, pool_of(self._recordings.values()))
            self.replayed = self.replayed.plus_recorded()
        self._recordings[shape] = recording
        if len(self._recordings) > MOST_RECORDINGS:
            del self._recordings[next(iter(self._recordings))]
        self._is_warm = True
        return recording.run(launch)[: len(batch.targets_N)]

    def _shape_for(self, batch: PackedBatch, weigh: Weigh) -> PassShape:
        """The smallest that is known and has room: until what that computes for nothing, for
        whichever batches, has cost as much as another recording does."""
        own = PassShape.around(batch, weigh)
        new = PassShape.around(batch, weigh, self._spare) if self._spare else own
        known = [shape for shape in self._recordings if shape.takes(batch, own)]
        if not known:
            return new
        least = min(known, key=lambda shape: shape.rows)
        self._wasted[least] = self._wasted.get(least, 0) + max(0, least.rows - new.rows)
        if self._wasted[least] <= RECORDING_ROWS:
            return least
        self._wasted[least] = 0
        return new

    def make_way(self, needed: int) -> None:
        """Give the memory back if a pass that is not recorded, of so many bytes, may need it: what
        is recorded here cannot be its, and `free_bytes` counts it."""
        if not self._recordings:
            return
        own = max(shape.rows for shape in self._recordings) * self._row_bytes
        if needed + own > free_bytes():
            self.clear()

    def clear(self) -> None:
        """Give the memory back: a pass that is not recorded may need it, or a bank that moves."""
        self._recordings.clear()
        self._wasted.clear()


class Recording:
    """Of passes of one shape. Without a shape there is no batch in it."""

    def __init__(self, shape: PassShape | None) -> None:
        self.graph: Any = None
        self._shape = shape
        self._room: Room | None = None
        self._found: Tensor | None = None  # by the recorded pass

    @property
    def is_recorded(self) -> bool:
        return self.graph is not None

    def takes(self, batch: PackedBatch, shape: PassShape) -> bool:
        """Whether it has room for a batch that `shape` is around."""
        return self._shape is not None and self._shape.takes(batch, shape)

    def filled(self, batch: PackedBatch, weigh: Weigh) -> tuple[PackedBatch, Weigh]:
        """The batch and its weighing where the recorded pass reads them."""
        assert self._shape is not None
        if self._room is None:
            self._room = Room(self._shape, batch, weigh)
        else:
            self._room.fill(batch, weigh)
        return self._room.batch, self._room.weigh

    def record(self, launch: Launch, pool: Any) -> None:
        """Nothing is computed by that."""
        self.graph, self._found = _capture(launch, pool)

    def forget(self) -> None:
        """Launch from now on. The graph ends here and now, whoever may still know of it, such as an
        error on its way: NCCL's communicators wait at their end for graphs that are left."""
        if self.graph is not None:
            self.graph.reset()
        self.graph = self._found = None

    def run(self, launch: Launch) -> Tensor:
        """What the pass finds, by `launch` or as that was recorded."""
        if self._found is None:
            return launch()
        self.graph.replay()
        return self._found


def _capture(launch: Launch, pool: Any) -> tuple[Any, Tensor]:
    """The graph of all that is launched, and what it writes."""
    graph = torch.cuda.CUDAGraph()
    _make_room()
    try:
        with torch.cuda.stream(_capture_stream(torch.cuda.current_device())):
            graph.capture_begin(pool=pool, capture_error_mode="thread_local")
            try:
                found = launch()
            finally:
                graph.capture_end()
    except BaseException:
        graph.reset()
        raise
    return graph, found


def _make_room() -> None:
    """A graph cannot have memory that is kept for other passes, which is given back where it may
    want that: whoever records has seen that twice what a pass takes is free with it.

    `torch.cuda.graph` gives all of it back each time, page-locked memory of the host as well, and
    the next pass, evaluation or best adapter asks the driver for it again.
    """
    torch.cuda.synchronize()
    kept = torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
    if torch.cuda.mem_get_info()[0] < _FREE * kept:
        torch.cuda.empty_cache()


@cache
def _capture_stream(device: int) -> torch.cuda.Stream:
    """One for all recordings: they share their memory."""
    return torch.cuda.Stream(device)


def pool_of(recordings: Iterable[Recording]) -> Any:
    """One memory for all recordings: they never run at the same time."""
    known = next((one.graph for one in recordings if one.is_recorded), None)
    return torch.cuda.graph_pool_handle() if known is None else known.pool()


def spare_bytes(needed: int) -> int:
    """To be free where a pass that takes so much is recorded."""
    return _MEMORY * needed


def free_bytes() -> int:
    cached = torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
    return torch.cuda.mem_get_info()[0] + cached


def _power_of_two(count: int) -> int:
    """The first that is not below `count`."""
    return 1 << max(0, count - 1).bit_length()


def _fill(room: Tensor, values: Tensor, rest: int = 0) -> None:
    room[: len(values)] = values
    room[len(values) :] = rest
