"""How the shards of a layer come in from the other ranks.

Frozen weights never change, so whoever reaches the memory of another GPU reads them there when it
wants to: copy engines do it, and leave the processors to the computation. An all-gather's kernel
takes some of them, and a product that counts on all of them waits for those.
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

Memories = Callable[[Tensor], Sequence[Tensor]]


class AllGathers:
    """By collectives, which all ranks make in the same order."""

    def __init__(self, ranks: Ranks) -> None:
        self._group = ranks.group
        self._coming: dict[int, dist.Work] = {}  # by the layer
        self._layers: dict[int, tuple[list[Tensor], list[Tensor]]] = {}

    def keep(
        self, number: int, shards: Sequence[Tensor], whole: Sequence[Tensor]
    ) -> Sequence[Tensor]:
        """This rank's shards of a layer where they are to lie; those of all come into `whole`."""
        self._layers[number] = list(whole), list(shards)
        return shards

    def start(self, number: int) -> None:
        """When what is computed with `whole` so far has been launched."""
        whole, shards = self._layers[number]
        self._coming[number] = self._group.allgather_into_tensor_coalesced(whole, shards)

    def wait(self, number: int) -> None:
        """What is launched from now on finds the layer, if it was on its way."""
        if (work := self._coming.pop(number, None)) is not None:
            work.wait()


class PeerCopies:
    """By copies out of the memory of the other ranks: `memories` tells this rank's flat tensor to
    all, and gives those of all, by rank. What comes from one rank comes beside what comes from the
    others: else some wait for a link that two read from while another is idle."""

    def __init__(self, ranks: Ranks, memories: Memories) -> None:
        self._rank = ranks.rank
        self._memories = memories
        self._lines = [_Line(ranks.device) for _ in range(ranks.size)]
        self._coming: set[int] = set()

    def keep(
        self, number: int, shards: Sequence[Tensor], whole: Sequence[Tensor]
    ) -> Sequence[Tensor]:
        """As above. All ranks keep a layer together."""
        sizes = [_rounded_up(shard.numel(), _ALIGNED // shard.element_size()) for shard in shards]
        flat = shards[0].new_zeros(sum(sizes))

        def parts(memory: Tensor) -> list[Tensor]:
            pieces = zip(memory.split(sizes), shards, strict=True)
            return [piece[: shard.numel()].view_as(shard) for piece, shard in pieces]

        for part, shard in zip(parts(flat), shards, strict=True):
            part.copy_(shard)
        by_rank = [parts(memory) for memory in self._memories(flat)]
        for rank, line in enumerate(self._lines):
            line.copies[number] = [
                (into[rank * len(part) : (rank + 1) * len(part)], part)
                for into, part in zip(whole, by_rank[rank], strict=True)
            ]
        return by_rank[self._rank]

    def start(self, number: int) -> None:
        self._coming.add(number)
        for line in self._lines:
            line.start(number)

    def wait(self, number: int) -> None:
        if number in self._coming:
            self._coming.remove(number)
            for line in self._lines:
                line.wait()


class _Line:
    """Copies from one rank, one after another."""

    def __init__(self, device: torch.device) -> None:
        self.copies: dict[int, list[tuple[Tensor, Tensor]]] = {}  # into what, from what; by layer
        self._device = device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def start(self, number: int) -> None:
        """Behind what has been launched so far."""
        if self._stream is not None:
            self._stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._stream) if self._stream is not None else nullcontext():
            for into, part in self.copies[number]:
                into.copy_(part, non_blocking=True)

    def wait(self) -> None:
        if self._stream is not None:
            torch.cuda.current_stream(self._device).wait_stream(self._stream)


Gathering = AllGathers | PeerCopies


def rank_memories(ranks: Ranks) -> Memories | None:
    """For GPUs that all reach one another's memory; else there is none, alike on all ranks."""
    if not ranks.reach_one_another():
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
