"""Stands for CUDA graphs on a CPU: what was launched is launched again where it is replayed."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from alto_exec.backbones.decoder import Decoder
from alto_exec.parallel import shared_passes
from alto_exec.parallel.sharded_decoder import ShardedDecoder
from alto_exec.passes.batch import PackedBatch
from alto_exec.passes.cuda_graphs import Launch, Recording, Room
from alto_exec.passes.weighing import Weigh
from alto_policy import memory

__all__ = ["Recorder"]


class Recorder:
    """In a process of its own: all passes may be recorded, if there are `free` bytes for that."""

    def __init__(self, model: Callable[[], ShardedDecoder]) -> None:
        self.free = 1 << 40
        self.captures = self.replays = self.resets = 0
        patch = pytest.MonkeyPatch()
        patch.setattr(Decoder, "most_recorded_tokens", 1 << 20)
        patch.setattr(memory, "_LEAST_ROWS", 32)
        patch.setattr(shared_passes, "free_bytes", lambda: self.free)
        patch.setattr(shared_passes, "pool_of", lambda _: None)
        patch.setattr(shared_passes, "Recording", lambda shape: _Again(shape, self))
        self.model = model()

    def written(self) -> list[Tensor]:
        """All that a pass changes on the device."""
        bank = self.model.passes.recorded_bank.memory
        held = [each for whole in self.model.layers._whole for each in whole]
        return held if bank is None else [*held, bank.grad_RC]


class _Again(Recording):
    def __init__(self, shape: Any, recorder: Recorder) -> None:
        super().__init__(shape)
        self._recorder = recorder

    def filled(self, batch: PackedBatch, weigh: Weigh) -> tuple[PackedBatch, Weigh]:
        """Anew: off the GPU it is read on the host where sequences and segments end."""
        assert self._shape is not None
        room = Room(self._shape, batch, weigh)
        return room.batch, room.weigh

    def record(self, launch: Launch, pool: Any) -> None:
        """The host does what it does in a pass; of what was computed nothing stays."""
        self._recorder.captures += 1
        held = self._recorder.written()
        kept = [each.clone() for each in held]
        self._found = launch()
        with torch.no_grad():
            for each, before in zip(held, kept, strict=True):
                each.copy_(before)
        self.graph = _Graph(self._recorder)

    def run(self, launch: Launch) -> Tensor:
        """The device computes; the host stands where it stood."""
        if not self.is_recorded:
            return super().run(launch)
        self._recorder.replays += 1
        layers = self._recorder.model.layers
        standing = layers.standing()
        found = launch()
        layers.go_back(standing)
        assert self._found is not None
        assert found.shape == self._found.shape
        return found


@dataclass(frozen=True, slots=True)
class _Graph:
    recorder: Recorder

    def reset(self) -> None:
        self.recorder.resets += 1
