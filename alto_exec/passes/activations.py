"""Which layers of a backbone compute their activations again in the backward half of a pass."""

from dataclasses import replace

from alto_exec.adapters.bank import AdapterBank
from alto_exec.passes.batch import PackedBatch
from alto_policy.memory import Load, MemoryModel

__all__ = ["Activations", "load_of_batch"]

_LESS = 0.9  # of what a pass was said to hold for which there was no memory


class Activations:
    """All of them, none, or as few as the model of memory that it follows has no room for.

    Ranks that share a backbone agree on a number before each pass.
    """

    def __init__(self, num_layers: int, *, recompute: bool = False) -> None:
        self.recompute = recompute  # in all passes; unless a model is followed
        self.agreed: int | None = None  # layers, in the pass under way
        self._num_layers = num_layers
        self._memory: MemoryModel | None = None
        self._last: tuple[Load, int] | None = None  # the training pass made last, and its layers

    def follow(self, memory: MemoryModel) -> None:
        """From now on, if it knows of passes of both kinds."""
        self._memory = memory if memory.kept is not None else None

    def layers_again(self, bank: AdapterBank, batch: PackedBatch) -> int:
        """Of a pass over the batch."""
        if self.agreed is not None:
            return self.agreed
        if self._memory is None:
            return self._num_layers if self.recompute else 0
        return self._memory.layers_again(load_of_batch(bank, batch), self._num_layers)

    def begin(self, bank: AdapterBank, batch: PackedBatch) -> int:
        """As `layers_again`, of a training pass that is made now."""
        layers = self.layers_again(bank, batch)
        if self._memory is not None:
            self._last = load_of_batch(bank, batch), layers
        return layers

    def give_way(self) -> bool:
        """Whether the pass that was made last, whose memory has run out, can be made with less:
        from now on more layers are computed again in such passes."""
        if self._memory is None or self._last is None or self._last[1] == self._num_layers:
            return False
        load, layers = self._last
        most, least = self._memory.keeping.held(load), self._memory.held(load)
        held = most - (most - least) * layers // self._num_layers
        less = int(_LESS * min(held, self._memory.capacity))
        self._memory = replace(self._memory, capacity=less)
        return True


def load_of_batch(bank: AdapterBank, batch: PackedBatch) -> Load:
    """With the rows of the bank that nobody uses just now: they are there."""
    segments = batch.plan.segments
    return Load(
        jobs=len(segments),
        ranks=bank.num_rows,
        tokens=len(batch.tokens_T),
        rank_tokens=sum(each.rank * (each.end_row - each.first_row) for each in segments),
        widest=max((each.rank for each in segments), default=1),
    )
