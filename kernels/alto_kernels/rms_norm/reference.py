"""The definition. Slow, obvious, differentiable by PyTorch, and never tuned.

Shape suffixes of this folder: T rows (tokens), H hidden.
"""

import torch
from torch import Tensor

__all__ = ["add_rms_norm_ref"]


def add_rms_norm_ref(
    h_TH: Tensor, delta_TH: Tensor | None, weight_H: Tensor, epsilon: float
) -> tuple[Tensor, Tensor]:
    """The new residual stream h + delta, and its norm: weight * h / sqrt(mean(h^2) + epsilon)."""
    if delta_TH is not None:
        h_TH = h_TH + delta_TH
    wide_TH = h_TH.to(torch.promote_types(h_TH.dtype, torch.float32))
    mean_T1 = wide_TH.square().mean(1, keepdim=True)
    normed_TH = wide_TH * torch.rsqrt(mean_T1 + epsilon)
    return h_TH, weight_H * normed_TH.to(h_TH.dtype)
