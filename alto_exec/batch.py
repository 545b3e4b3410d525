"""Sequences of several adapters side by side in one packed row: no padding between or within.

Suffixes: T tokens of the batch, N target tokens (those whose prediction is scored).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from alto_exec.bank import Slot
from alto_exec.data.samples import Sample
from alto_kernels.lora_linear import Plan, Segment
from alto_kernels.varlen_attention import CumulativeLengths

__all__ = ["PackedBatch", "Share", "pack"]


@dataclass(frozen=True, slots=True)
class Share:
    """What one adapter contributes to a batch; without a slot the frozen model sees the samples.

    `first_token` is the number of tokens that the job's current step has seen in earlier passes.
    """

    samples: tuple[Sample, ...]
    slot: Slot | None
    scale: float = 1.0
    dropout: float = 0.0
    dropout_key: int = 0
    first_token: int = 0


@dataclass(frozen=True, slots=True)
class PackedBatch:
    tokens_T: Tensor
    positions_T: Tensor  # place of each token in its own sequence
    lengths: CumulativeLengths  # of the sequences
    predicting_rows: Tensor  # (N,) rows whose output predicts a target, ascending
    targets_N: Tensor
    targets_per_share: tuple[int, ...]
    plan: Plan

    def share_sums(self, of_targets_N: Tensor) -> Tensor:
        """(shares,) what stands for each target, summed over those of each share."""
        parts = torch.split(of_targets_N, list(self.targets_per_share))
        return torch.stack([part.sum() for part in parts])


def pack(shares: Sequence[Share], device: torch.device) -> PackedBatch:
    """Lay the shares' samples end to end, in the order given."""
    samples = [sample for share in shares for sample in share.samples]
    lengths = tuple(len(sample.tokens) for sample in samples)
    tokens = np.concatenate([np.asarray(s.tokens, dtype=np.int64) for s in samples])
    is_target = np.concatenate([np.asarray(s.is_target, dtype=bool) for s in samples])
    positions = np.concatenate([np.arange(length, dtype=np.int64) for length in lengths])
    target_rows = np.flatnonzero(is_target)
    counts = tuple(sum(int(np.sum(s.is_target)) for s in share.samples) for share in shares)
    return PackedBatch(
        tokens_T=torch.from_numpy(tokens).to(device),
        positions_T=torch.from_numpy(positions).to(device),
        lengths=CumulativeLengths.of(lengths, device),
        predicting_rows=torch.from_numpy(target_rows - 1).to(device),
        targets_N=torch.from_numpy(tokens[target_rows]).to(device),
        targets_per_share=counts,
        plan=_plan(shares, len(tokens)),
    )


def _plan(shares: Sequence[Share], num_rows: int) -> Plan:
    segments, row = [], 0
    for share in shares:
        end = row + sum(len(sample.tokens) for sample in share.samples)
        if share.slot is not None:
            segments.append(
                Segment(
                    first_row=row,
                    end_row=end,
                    first_rank=share.slot.first,
                    end_rank=share.slot.rows.stop,
                    scale=share.scale,
                    dropout=share.dropout,
                    dropout_key=share.dropout_key,
                    first_token=share.first_token,
                )
            )
        row = end
    return Plan(num_rows, tuple(segments))
