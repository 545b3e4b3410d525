"""PyTorch's own attention, cut at the ends of the sequences: no mask of all pairs is ever made.

On the GPU its variable-length flash attention; elsewhere one product for each sequence.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

__all__ = ["CumulativeLengths", "varlen_attention"]


@dataclass(frozen=True, slots=True)
class CumulativeLengths:
    """Where the sequences of a batch begin and end; made once, read by every layer."""

    lengths: tuple[int, ...]
    longest: int
    ends: Tensor  # int32 (sequences + 1,), from 0

    @classmethod
    def of(cls, lengths: Sequence[int], device: torch.device) -> "CumulativeLengths":
        ends = torch.tensor(tuple(accumulate(lengths, initial=0)), dtype=torch.int32)
        if device.type == "cuda":  # so that the copy does not wait for what the device is at
            ends = ends.pin_memory()
        return cls(tuple(lengths), max(lengths), ends.to(device, non_blocking=True))


def varlen_attention(
    q_TD: Tensor, k_TD: Tensor, v_TD: Tensor, lengths: CumulativeLengths, head_size: int
) -> Tensor:
    """(T, D): each token attends to itself and to those before it in its own sequence.

    D is the columns of all heads; keys and values may have fewer heads than queries, a divisor.
    """
    q, k, v = (t.unflatten(1, (-1, head_size)) for t in (q_TD, k_TD, v_TD))
    if q.is_cuda and q.dtype.itemsize == 2:
        return _flash(q, k, v, lengths).flatten(1)
    grouped = q.shape[1] != k.shape[1]
    outputs = []
    parts = (t.transpose(0, 1).split(list(lengths.lengths), dim=1) for t in (q, k, v))
    for q_htd, k_htd, v_htd in zip(*parts, strict=True):
        outputs.append(
            scaled_dot_product_attention(
                q_htd[None], k_htd[None], v_htd[None], is_causal=True, enable_gqa=grouped
            )[0]
        )
    return torch.cat(outputs, dim=1).transpose(0, 1).flatten(1)


def _flash(q: Tensor, k: Tensor, v: Tensor, lengths: CumulativeLengths) -> Tensor:
    """(T, heads, size). The operator takes fewer key heads than query heads as they are."""
    ends, longest = lengths.ends, lengths.longest
    out: Tensor = torch.ops.aten._flash_attention_forward(
        q, k, v, ends, ends, longest, longest, 0.0, True, False
    )[0]
    return out
