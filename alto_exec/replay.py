"""Training passes recorded once as CUDA graphs and replayed on other batches.

A pass over a small model is a thousand launches of microseconds each, and what the host does for
each takes longer. A recorded launch keeps its addresses and its grid, so batches are copied into
buffers with some room, and all those that fit the same buffers share a recording.
"""

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from alto_exec.bank import AdapterBank
from alto_exec.batch import PackedBatch
from alto_kernels.lora_linear import TablesShape, room_for
from alto_kernels.varlen_attention import CumulativeLengths

__all__ = ["PassShape", "Replays", "Room", "Train"]

_LEAST_ROWS = 128
_MOST_RECORDINGS = 16  # the one replayed longest ago makes room
_MEMORY = 2  # free for each byte that a pass takes: what is recorded keeps its memory

Train = Callable[[AdapterBank, PackedBatch, Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class PassShape:
    """All that the launches of a pass read of a batch on the host."""

    rows: int
    targets: int
    sequences: int
    longest: int
    tables: TablesShape

    @classmethod
    def around(cls, batch: PackedBatch) -> "PassShape":
        """With room for this batch and for others like it."""
        rows = room_for(len(batch.tokens_T), _LEAST_ROWS)
        longest = room_for(batch.lengths.longest)
        left_over = -(-(rows - len(batch.tokens_T)) // longest)
        return cls(
            rows=rows,
            targets=room_for(len(batch.targets_N), _LEAST_ROWS),
            sequences=room_for(len(batch.lengths.lengths) + left_over),
            longest=longest,
            tables=TablesShape.around(batch.plan.tables(batch.tokens_T.device), rows),
        )


class Room:
    """A batch and its weights in buffers of a shape.

    The rows left over are sequences that no adapter meets, the targets left over weigh nothing.
    """

    def __init__(self, shape: PassShape, batch: PackedBatch, weights_N: Tensor) -> None:
        self._shape = shape
        device = batch.tokens_T.device
        self.batch = PackedBatch(
            tokens_T=batch.tokens_T.new_zeros(shape.rows),
            positions_T=batch.positions_T.new_zeros(shape.rows),
            lengths=self._lengths(batch),
            predicting_rows=batch.predicting_rows.new_zeros(shape.targets),
            targets_N=batch.targets_N.new_zeros(shape.targets),
            targets_per_share=(shape.targets,),
            plan=batch.plan.with_room(shape.tables, device),
        )
        self.weights_N = weights_N.new_zeros(shape.targets)
        self.fill(batch, weights_N)

    def fill(self, batch: PackedBatch, weights_N: Tensor) -> None:
        """Write a batch of the same shape over the one before."""
        room = self.batch
        room.plan.refill(batch.plan, batch.tokens_T.device)
        room.lengths.ends.copy_(self._lengths(batch).ends)
        _fill(room.tokens_T, batch.tokens_T)
        _fill(room.positions_T, batch.positions_T)
        # The last row of a batch predicts nothing, so its gradient is nobody's.
        _fill(room.predicting_rows, batch.predicting_rows, rest=self._shape.rows - 1)
        _fill(room.targets_N, batch.targets_N)
        _fill(self.weights_N, weights_N)

    def _lengths(self, batch: PackedBatch) -> CumulativeLengths:
        """The rows left over in sequences no longer than the shape's, then empty ones."""
        shape, lengths = self._shape, list(batch.lengths.lengths)
        whole, rest = divmod(shape.rows - len(batch.tokens_T), shape.longest)
        lengths += [shape.longest] * whole + [rest] * (rest > 0)
        lengths += [0] * (shape.sequences - len(lengths))
        found = CumulativeLengths.of(lengths, batch.tokens_T.device)
        return CumulativeLengths(found.lengths, shape.longest, found.ends)


class Replays:
    """The recorded passes of one model, by their shapes."""

    def __init__(self, train: Train, row_bytes: int) -> None:
        """A pass takes at most `row_bytes` for each row of its batch."""
        self._train = train
        self._row_bytes = row_bytes
        self._recordings: dict[PassShape, _Recording] = {}
        self._bank: weakref.ref[Tensor] | None = None  # whose addresses are recorded

    def train(self, bank: AdapterBank, batch: PackedBatch, weights_N: Tensor) -> Tensor:
        """What `train` computes; good until the next pass."""
        if self._bank is None or self._bank() is not bank.shadow_RC:
            self.clear()
        shape = PassShape.around(batch)
        needed = shape.rows * self._row_bytes
        if shape not in self._recordings and needed > _free_bytes():
            self.clear()
        self._bank = weakref.ref(bank.shadow_RC)
        recording = self._recordings.pop(shape, None)
        if recording is None:
            recording = _Recording(self._train, Room(shape, batch, weights_N))
        else:
            recording.room.fill(batch, weights_N)
            if recording.graph is None and _MEMORY * needed <= _free_bytes():
                recording.record(bank, self._pool())
        self._recordings[shape] = recording
        if len(self._recordings) > _MOST_RECORDINGS:
            del self._recordings[next(iter(self._recordings))]
        return recording.run(bank)[: len(weights_N)]

    def clear(self) -> None:
        """Give the memory back: a pass that is not recorded may need it."""
        self._bank = None
        self._recordings.clear()

    def _pool(self) -> Any:
        """One memory for all recordings: they never run at the same time."""
        graphs = (recording.graph for recording in self._recordings.values())
        known = next((graph for graph in graphs if graph is not None), None)
        return torch.cuda.graph_pool_handle() if known is None else known.pool()


class _Recording:
    """The first pass of a shape is launched as ever, which compiles its kernels; the second is
    recorded where there is memory for that."""

    def __init__(self, train: Train, room: Room) -> None:
        self.room = room
        self.graph: torch.cuda.CUDAGraph | None = None
        self._train = train
        self._losses_N: Tensor | None = None  # of the recorded pass

    def record(self, bank: AdapterBank, pool: Any) -> None:
        """Nothing is computed by that."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
            self._losses_N = self._train(bank, self.room.batch, self.room.weights_N)
        self.graph = graph

    def run(self, bank: AdapterBank) -> Tensor:
        if self.graph is None or self._losses_N is None:
            return self._train(bank, self.room.batch, self.room.weights_N)
        self.graph.replay()
        return self._losses_N


def _free_bytes() -> int:
    cached = torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
    return torch.cuda.mem_get_info()[0] + cached


def _fill(room: Tensor, values: Tensor, rest: int = 0) -> None:
    room[: len(values)] = values
    room[len(values) :] = rest
