"""Batches of one job after another, of so many tokens each."""

from collections.abc import Sequence

import torch

from alto_exec.adapters.bank import Slot
from alto_exec.data.samples import Sample
from alto_exec.passes.batch import PackedBatch, Share, pack
from alto_exec.passes.weighing import FixedWeights
from tests.exec.tiny_models import VOCABULARY_SIZE

__all__ = ["a_batch"]


def a_batch(
    slots: Sequence[Slot], lengths: Sequence[int], device: torch.device, dropout: float = 0.1
) -> tuple[PackedBatch, FixedWeights]:
    """And the weights of its targets."""
    dice = torch.Generator().manual_seed(sum(lengths))
    shares = []
    for number, (slot, length) in enumerate(zip(slots, lengths, strict=True)):
        tokens = torch.randint(3, VOCABULARY_SIZE, (length,), generator=dice).tolist()
        sample = Sample(tuple(tokens), (False, *(i % 3 < 2 for i in range(length - 1))))
        shares.append(Share((sample,), slot, 2.0, dropout * number, number, 0))
    batch = pack(shares, device)
    return batch, FixedWeights(torch.rand(len(batch.targets_N), generator=dice).to(device))
