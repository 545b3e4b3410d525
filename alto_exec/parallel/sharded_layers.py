"""Frozen layers of which every rank keeps a shard: some rows of each matrix.

In a pass of many tokens the whole comes in when it is its turn (see `shard_gathers`). Two layers
are whole at a time: one is computed with while the next one comes in. In a pass of few tokens these
go to the shards (see `travelling`). Some layers may stay whole on every rank, and are never sent.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import partial

from torch import Tensor

from alto_exec.backbones.layers import Layer
from alto_exec.parallel.agreement import Pass
from alto_exec.parallel.ranks import Ranks
from alto_exec.parallel.shard_gathers import AllGathers, Gathering, PeerCopies, rank_memories
from alto_exec.parallel.travelling import TravellingTokens
from alto_policy.executors.exchange import LAYERS_AT_HAND, PassTokens, ShardedLinears, Way

__all__ = ["ShardedLayers", "Standing", "spread_evenly"]


@dataclass(frozen=True, slots=True)
class Standing:
    """What passes leave behind on the host."""

    held: tuple[int | None, ...]  # layers that are at hand
    gathers: int
    token_bytes: int

    def since(self, before: "Standing") -> "Standing":
        """With what was added to that of before."""
        return Standing(
            self.held, self.gathers - before.gathers, self.token_bytes - before.token_bytes
        )


class ShardedLayers:
    """A LayerKeeper. All layers have matrices of the same shapes."""

    def __init__(
        self, ranks: Ranks, whole: Collection[int] = (), *, can_be_recorded: bool = True
    ) -> None:
        """The layers with the numbers `whole` stay so."""
        self.device = ranks.device
        self._ranks = ranks
        self._stay = frozenset(whole)
        self._num_layers = 0
        self._is_behind_adapter = False  # where the next matrix lies in the model
        self._shards: dict[int, Sequence[Tensor]] = {}  # of each matrix, by the layer
        self._places: dict[int, int] = {}  # where a layer is gathered, by turns
        # The matrices of the layers that are at hand, with room for whole shards of all ranks.
        self._whole: list[Sequence[Tensor]] = []
        self._held: list[int | None] = [None] * LAYERS_AT_HAND  # whose they are
        memories = rank_memories(ranks)
        self._collectives = AllGathers(ranks)
        self._copies = None if memories is None else PeerCopies(ranks, memories)
        self._gathering: Gathering = self._collectives  # of the pass under way
        self._order: Sequence[int] = ()  # in which the pass under way needs the layers
        self._position = 0
        self._travelling = TravellingTokens(ranks)
        self.travels = False
        self.can_be_recorded = can_be_recorded  # by all ranks together
        self.gathers = 0  # layers that were gathered
        self.passes = dict.fromkeys(Way, 0)  # so far, by the way

    @property
    def num_bytes(self) -> int:
        """Of the shards of this rank."""
        return sum(shard.nbytes for shards in self._shards.values() for shard in shards)

    @property
    def received_bytes(self) -> int:
        """What has come in from the other ranks, of weights and of tokens."""
        others = self._ranks.size - 1
        shards = next(iter(self._shards.values()), ())
        gathered = self.gathers * others * sum(shard.nbytes for shard in shards)
        return gathered + self._travelling.received_bytes

    @property
    def linears(self) -> ShardedLinears:
        """What is in shards."""
        whole = self._whole[0] if self._whole else ()
        return ShardedLinears(
            num_gpus=self._ranks.size,
            layers=len(self._shards),
            groups=tuple((each.shape[1], each.shape[0]) for each in whole),
            item_bytes=max((each.element_size() for each in whole), default=0),
            reads_peers=self._copies is not None,
        )

    def keep(self, layer: Layer) -> Layer:
        """Take over this rank's shard; norms and biases stay whole."""
        number, weights = self._num_layers, [group.weight_OI for group in layer.groups]
        returns = []
        for split in layer.splits:
            returns += [self._is_behind_adapter] * len(split.groups)
            self._is_behind_adapter |= any(group.number is not None for group in split.groups)
        self._num_layers += 1
        if number in self._stay:
            return layer.over([weight.to(self.device) for weight in weights])
        shards: Sequence[Tensor] = [self._shard_of(weight) for weight in weights]
        if not self._whole:
            self._whole = [
                [s.new_empty(self._ranks.size * s.shape[0], s.shape[1]) for s in shards]
                for _ in range(LAYERS_AT_HAND)
            ]
        place = self._places[number] = len(self._shards) % LAYERS_AT_HAND
        assert [len(whole) for whole in self._whole[place]] == [
            self._ranks.size * len(shard) for shard in shards
        ]
        if self._copies is not None:
            shards = self._copies.keep(number, shards, self._whole[place])
        self._collectives.keep(number, shards, self._whole[place])
        self._shards[number] = shards
        # `data` counts the changes of the views apart: what a backward pass reads has not changed
        # since it was computed with, though the memory held another layer in between.
        views = [
            whole.data[: len(weight)]
            for whole, weight in zip(self._whole[place], weights, strict=True)
        ]
        travels = [
            partial(self._travelling.product, self._travelling.add(shard, returns=each))
            for shard, each in zip(shards, returns, strict=True)
        ]
        return layer.over(views, travels)

    def begin(self, kind: Pass, tokens: PassTokens, way: Way) -> None:
        """Have the first layers at hand, or tokens on their way."""
        self.passes[way] += 1
        self.travels = way is Way.TRAVELLING
        numbers = range(self._num_layers)
        self._order = numbers if kind is Pass.FORWARD else (*numbers, *reversed(numbers))
        self._position = 0
        if self.travels:
            self._travelling.begin(tokens)
            return
        self._gathering = self._collectives
        if way is Way.COPIED:
            assert self._copies is not None
            self._gathering = self._copies
        for number in tuple(self._shards)[:LAYERS_AT_HAND]:
            self._fetch(number)
            self._gathering.wait(number)

    def start(self) -> None:
        """The ranks have begun together."""

    def turn(self) -> None:
        if self.travels:
            return
        number = self._order[self._position]
        self._position += 1
        self._gathering.wait(number)
        # What is computed with the shards before has been launched, so their place is free: on a
        # GPU what comes in waits for it, and the computation for that when it is needed.
        coming = self._order[self._position :]
        if (sharded := next((each for each in coming if each in self._shards), None)) is not None:
            self._fetch(sharded)

    def finish(self) -> None:
        """Whatever this rank did not compute, the others did."""
        if self.travels:
            self._travelling.finish()
            return
        while self._position < len(self._order):
            self.turn()

    def standing(self) -> Standing:
        return Standing(tuple(self._held), self.gathers, self._travelling.received_bytes)

    def go_back(self, standing: Standing) -> None:
        """To the beginning of the pass, and what there was then: it was recorded, not made."""
        self._held = list(standing.held)
        self.gathers = standing.gathers
        self._travelling.go_to(standing.token_bytes, is_over=False)
        self._position = 0

    def pass_over(self, left: Standing) -> None:
        """To the end of the pass: it was replayed, which has left so much more."""
        self._held = list(left.held)
        self.gathers += left.gathers
        received = self._travelling.received_bytes + left.token_bytes
        self._travelling.go_to(received, is_over=True)
        self._position = len(self._order)

    def _fetch(self, number: int) -> None:
        place = self._places[number]
        if self._held[place] == number:
            return
        self._held[place] = number
        self.gathers += 1
        self._gathering.start(number)

    def _shard_of(self, weight_OI: Tensor) -> Tensor:
        """This rank's rows; where they do not come out even, zeros follow the last ones."""
        outputs, inputs = weight_OI.shape
        rows = -(-outputs // self._ranks.size)
        mine = weight_OI[rows * self._ranks.rank : rows * (self._ranks.rank + 1)]
        shard = weight_OI.new_zeros(rows, inputs, device=self.device)
        shard[: len(mine)] = mine
        return shard


def spread_evenly(count: int, num_layers: int) -> frozenset[int]:
    """Numbers of so many layers, far apart: between them there is time for a layer to come in."""
    return frozenset((2 * each + 1) * num_layers // (2 * count) for each in range(count))
