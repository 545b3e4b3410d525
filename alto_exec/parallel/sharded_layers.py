"""Frozen layers of which every rank keeps a shard, and gathers the whole when it is their turn.

Two of them are whole at a time: one is computed with while the next one comes in. Nothing is ever
sent but shards of frozen weights, and they are the same in every pass. Some layers may stay whole
on every rank, and are never sent.
"""

from collections.abc import Collection, Sequence
from enum import IntEnum
from itertools import accumulate

import torch.distributed as dist
from torch import Tensor

from alto_exec.decoder import Layer
from alto_exec.parallel.ranks import Ranks

__all__ = ["Pass", "ShardedLayers", "spread_evenly"]

_WHOLE = 2  # layers that are whole at a time
_ALIGNMENT = 128  # numbers: tensor descriptors of Hopper want their matrices aligned
# PyTorch 2.13 has another name for it, and warns of the one it had before.
_gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor


class Pass(IntEnum):
    """What a rank wants to compute together with the others; the most wanted is computed."""

    NONE = 0
    FORWARD = 1
    TRAIN = 2


class ShardedLayers:
    """A LayerKeeper. All layers have matrices of the same shapes."""

    def __init__(self, ranks: Ranks, whole: Collection[int] = ()) -> None:
        """The layers with the numbers `whole` stay so."""
        self.device = ranks.device
        self._ranks = ranks
        self._stay = frozenset(whole)
        self._num_layers = 0
        self._shards: dict[int, Tensor] = {}  # by the layer
        self._places: dict[int, int] = {}  # where a layer is gathered, by turns
        self._whole: list[Tensor] = []  # the weights of the layers that are at hand, each flat
        self._held: list[int | None] = [None] * _WHOLE  # whose they are
        self._coming: dict[int, dist.Work] = {}  # by the layer
        self._order: Sequence[int] = ()  # in which the pass under way needs the layers
        self._position = 0
        self.gathers = 0  # layers that were gathered

    @property
    def num_bytes(self) -> int:
        """Of the shards of this rank."""
        return sum(shard.nbytes for shard in self._shards.values())

    @property
    def bytes_per_gather(self) -> int:
        """What comes in from the other ranks for a layer."""
        return max((s.nbytes for s in self._shards.values()), default=0) * (self._ranks.size - 1)

    def keep(self, layer: Layer) -> Layer:
        """Take over this rank's shard; norms and biases stay whole."""
        number, weights = self._num_layers, [group.weight_OI for group in layer.groups]
        self._num_layers += 1
        if number in self._stay:
            return layer.over([weight.to(self.device) for weight in weights])
        sizes = [-(-weight.numel() // _ALIGNMENT) * _ALIGNMENT for weight in weights]
        starts = list(accumulate(sizes, initial=0))
        part = -(-starts[-1] // (self._ranks.size * _ALIGNMENT)) * _ALIGNMENT
        flat = weights[0].new_zeros(part * self._ranks.size)
        for weight, start in zip(weights, starts, strict=False):
            flat[start : start + weight.numel()] = weight.reshape(-1)
        if not self._whole:
            self._whole = [flat.new_empty(flat.shape, device=self.device) for _ in range(_WHOLE)]
        assert flat.shape == self._whole[0].shape
        mine = flat[part * self._ranks.rank : part * (self._ranks.rank + 1)]
        self._places[number] = len(self._shards) % _WHOLE
        self._shards[number] = mine.to(self.device, copy=True)
        # `data` counts the changes of the views apart: what a backward pass reads has not changed
        # since it was computed with, though the memory held another layer in between.
        whole = self._whole[self._places[number]].data
        views = [
            whole[start : start + weight.numel()].view(weight.shape)
            for weight, start in zip(weights, starts, strict=False)
        ]
        return layer.over(views)

    def begin(self, kind: Pass) -> None:
        """Have the first layers at hand."""
        numbers = range(self._num_layers)
        self._order = numbers if kind is Pass.FORWARD else (*numbers, *reversed(numbers))
        self._position = 0
        for number in tuple(self._shards)[:_WHOLE]:
            self._fetch(number)
            self._await(number)

    def start(self) -> None:
        """The ranks have begun together."""

    def turn(self) -> None:
        number = self._order[self._position]
        self._position += 1
        self._await(number)
        # What is computed with the shards before has been launched, so their place is free: on a
        # GPU the collective waits for it, and the computation for the collective when it is needed.
        coming = self._order[self._position :]
        if (sharded := next((each for each in coming if each in self._shards), None)) is not None:
            self._fetch(sharded)

    def finish(self) -> None:
        """Whatever this rank did not compute, the others did."""
        while self._position < len(self._order):
            self.turn()

    def _fetch(self, number: int) -> None:
        place = self._places[number]
        if self._held[place] == number:
            return
        self._held[place] = number
        self.gathers += 1
        work = _gather(
            self._whole[place], self._shards[number], group=self._ranks.group, async_op=True
        )
        assert work is not None
        self._coming[number] = work

    def _await(self, number: int) -> None:
        if (work := self._coming.pop(number, None)) is not None:
            work.wait()


def spread_evenly(count: int, num_layers: int) -> frozenset[int]:
    """Numbers of so many layers, far apart: between them there is time for a layer to come in."""
    return frozenset((2 * each + 1) * num_layers // (2 * count) for each in range(count))
