"""Sequences of several adapters side by side in one packed row: no padding between or within.

Suffixes: T tokens of the batch, N target tokens (those whose prediction is scored).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from alto_exec.adapters.bank import Slot
from alto_exec.data.samples import Sample
from alto_kernels.copying import copied
from alto_kernels.lora_linear import Plan, Segment
from alto_kernels.varlen_attention import CumulativeLengths

__all__ = ["PackedBatch", "Share", "on_device", "pack"]

_ALIGNED_BYTES = 16


@dataclass(frozen=True, slots=True)
class Share:
    """What one adapter contributes to a batch; without a slot the frozen model sees the samples.

    `first_token` is the number of tokens that the job's current step has seen in earlier passes;
    where there was none, `starts_gradients`: what the bank holds is written over.
    """

    samples: tuple[Sample, ...]
    slot: Slot | None
    scale: float = 1.0
    dropout: float = 0.0
    dropout_key: int = 0
    first_token: int = 0
    starts_gradients: bool = False


@dataclass(frozen=True, slots=True)
class PackedBatch:
    tokens_T: Tensor
    positions_T: Tensor  # place of each token in its own sequence
    lengths: CumulativeLengths  # of the sequences
    predicting_rows: Tensor  # (N,) rows whose output predicts a target, ascending
    targets_N: Tensor
    targets_per_share: tuple[int, ...]
    plan: Plan
    predicting_plan: Plan | None = None  # of the N rows alone, where those can be told apart

    def share_sums(self, of_targets_N: Tensor) -> Tensor:
        """(shares,) what stands for each target, summed over those of each share."""
        parts = torch.split(of_targets_N, list(self.targets_per_share))
        return torch.stack([part.sum() for part in parts])


def pack(shares: Sequence[Share], device: torch.device) -> PackedBatch:
    """Lay the shares' samples end to end, in the order given."""
    samples = [sample for share in shares for sample in share.samples]
    lengths = np.array([len(sample.tokens) for sample in samples])
    counts = np.array([sample.num_targets for sample in samples])
    first_rows = np.cumsum(lengths) - lengths
    tokens = np.concatenate([sample.token_array for sample in samples])
    positions = np.arange(len(tokens)) - np.repeat(first_rows, lengths)
    target_rows = np.concatenate([sample.target_places for sample in samples])
    target_rows = target_rows + np.repeat(first_rows, counts)
    tokens_T, positions_T, predicting_rows, targets_N = on_device(
        (tokens, positions, target_rows - 1, tokens[target_rows]), device
    )
    per_share = [sum(sample.num_targets for sample in share.samples) for share in shares]
    return PackedBatch(
        tokens_T=tokens_T,
        positions_T=positions_T,
        lengths=CumulativeLengths.of(lengths.tolist(), device),
        predicting_rows=predicting_rows,
        targets_N=targets_N,
        targets_per_share=tuple(per_share),
        plan=_plan(shares, [sum(len(s.tokens) for s in share.samples) for share in shares]),
        predicting_plan=_plan(shares, per_share) if _predict_apart(shares, per_share) else None,
    )


def on_device(arrays: Sequence[NDArray[Any]], device: torch.device) -> tuple[Tensor, ...]:
    """The arrays, of one type, by one copy that does not wait for what the device is at. Each lies
    at a multiple of 16 bytes: kernels are compiled for that, and would be again for less."""
    aligned = _ALIGNED_BYTES // arrays[0].itemsize
    parts = [part for array in arrays for part in (array, array[:1].repeat(-len(array) % aligned))]
    whole = copied(torch.from_numpy(np.concatenate(parts)), device)
    return torch.split(whole, [len(part) for part in parts])[::2]


def _predict_apart(shares: Sequence[Share], targets: Sequence[int]) -> bool:
    """Masks of dropout are those of whole sequences, and of an adapter without rows no gradients
    are written."""
    adapted = [(s, count) for s, count in zip(shares, targets, strict=True) if s.slot is not None]
    return all(share.dropout == 0 and count > 0 for share, count in adapted)


def _plan(shares: Sequence[Share], counts: Sequence[int]) -> Plan:
    """Of so many rows of each share."""
    segments, row = [], 0
    for share, count in zip(shares, counts, strict=True):
        end = row + count
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
                    starts_gradients=share.starts_gradients,
                )
            )
        row = end
    return Plan(row, tuple(segments))
