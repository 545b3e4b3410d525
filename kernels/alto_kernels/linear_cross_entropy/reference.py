"""The definition. Slow, obvious, differentiable by PyTorch, and never tuned.

Shape suffixes of this folder: N rows (targets), H hidden, V vocabulary, S segments.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

__all__ = ["linear_cross_entropy_ref"]


def linear_cross_entropy_ref(
    h_NH: Tensor, weight_VH: Tensor, targets_N: Tensor, rows_per_segment: Sequence[int]
) -> Tensor:
    """(S,) sums of -log softmax(h W^T)[target] over the rows of each segment, fp32 or wider."""
    logits_NV = h_NH @ weight_VH.T
    logits_NV = logits_NV.to(torch.promote_types(logits_NV.dtype, torch.float32))
    losses_N = cross_entropy(logits_NV, targets_N, reduction="none")
    return torch.stack([part.sum() for part in losses_N.split(list(rows_per_segment))])
