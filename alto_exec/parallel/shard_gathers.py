"""How the shards of a layer come in from the other ranks.

Frozen weights never change, so whoever reaches the memory of another GPU reads them there when it
wants to: copy engines do it, and leave the processors to the computation. An all-gather is faster,
but its kernel takes some of those, and a product that counts on all of them waits.
"""

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext

import torch
import torch.distributed as dist
from torch import Tensor

from alto_exec.parallel.ranks import Ranks

__all__ = ["AllGathers", "Gathering", "Memories", "PeerCopies", "rank_memories"]

_ALIGNED = 256  # bytes

Memories = Callable[[Tensor], Sequence[Tensor]]  # from this rank's, told to all: of all, by rank


class AllGathers:
    """By collectives, which all ranks make in the same order."""

    def __init__(self, ranks: Ranks) -> None:
        self._group = ranks.group
        self._coming: dict[int, dist.Work] = {}  # by the layer
        self._layers: dict[int, tuple[list[Tensor], list[Tensor]]] = {}

    def keep(self, number: int, shards: Sequence[Tensor], whole: Sequence[Tensor]) -> None:
        """This rank's shards of a layer; those of all come into `whole`."""
        self._layers[number] = list(whole), list(shards)

    def start(self, number: int) -> None:
        """When what is computed with `whole` so far has been launched."""
        whole, shards = self._layers[number]
        self._coming[number] = self._group.allgather_into_tensor_coalesced(whole, shards)

    def wait(self, number: int) -> None:
        """What is launched from now on finds the layer, if it was on its way."""
        if (work := self._coming.pop(number, None)) is not None:
            work.wait()


class PeerCopies:
    """By copies out of the memory of the other ranks. Each begins behind itself, so that as long as
    they are in step no two read from the same one."""

    def __init__(self, ranks: Ranks, memories: Memories) -> None:
        self._device = ranks.device
        self._memories = memories
        self._order = [(ranks.rank + each) % ranks.size for each in range(ranks.size)]
        self._stream = None
        if self._device.type == "cuda":
            self._stream = torch.cuda.Stream(self._device)
        self._coming: set[int] = set()
        self._copies: dict[int, list[tuple[Tensor, Tensor]]] = {}  # into what, from what

    def keep(
        self, number: int, shards: Sequence[Tensor], whole: Sequence[Tensor]
    ) -> Sequence[Tensor]:
        """This rank's shards where they lie from now on. All ranks keep a layer together."""
        sizes = [_rounded_up(shard.numel(), _ALIGNED // shard.element_size()) for shard in shards]
        flat = shards[0].new_zeros(sum(sizes))

        def parts(memory: Tensor) -> list[Tensor]:
            pieces = zip(memory.split(sizes), shards, strict=True)
            return [piece[: shard.numel()].view_as(shard) for piece, shard in pieces]

        for part, shard in zip(parts(flat), shards, strict=True):
            part.copy_(shard)
        by_rank = [parts(memory) for memory in self._memories(flat)]
        self._copies[number] = [
            (into[rank * len(part) : (rank + 1) * len(part)], part)
            for rank in self._order
            for into, part in zip(whole, by_rank[rank], strict=True)
        ]
        return by_rank[self._order[0]]

    def start(self, number: int) -> None:
        self._coming.add(number)
        if self._stream is not None:
            self._stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._stream) if self._stream is not None else nullcontext():
            for into, part in self._copies[number]:
                into.copy_(part, non_blocking=True)

    def wait(self, number: int) -> None:
        if number in self._coming and self._stream is not None:
            torch.cuda.current_stream(self._device).wait_stream(self._stream)
        self._coming.discard(number)


Gathering = AllGathers | PeerCopies


def rank_memories(ranks: Ranks) -> Memories | None:
    """For GPUs that all reach one another's memory; else there is none, alike on all ranks."""
    if not ranks.reach_one_another:
        return None
    from torch.distributed import _symmetric_memory as symmetric_memory

    def memories(flat: Tensor) -> Sequence[Tensor]:
        own = symmetric_memory.empty(flat.shape, dtype=flat.dtype, device=flat.device)
        own.copy_(flat)
        torch.cuda.synchronize(ranks.device)  # before the others read it
        handle = symmetric_memory.rendezvous(own, ranks.group)
        buffers = [
            handle.get_buffer(rank, tuple(flat.shape), flat.dtype) for rank in range(ranks.size)
        ]
        buffers[ranks.rank] = own
        return buffers

    return memories


def _rounded_up(count: int, step: int) -> int:
    return math.ceil(count / step) * step
