"""The definition. Slow, obvious, differentiable by PyTorch, and never tuned.

Shape suffixes of this folder: T rows (tokens), D all heads side by side, d one head.
"""

import torch
from torch import Tensor

__all__ = ["head_norm_ref"]


def head_norm_ref(
    q_TD: Tensor, k_TD: Tensor, q_weight_d: Tensor, k_weight_d: Tensor, epsilon: float
) -> tuple[Tensor, Tensor]:
    """Of each head: weight * x / sqrt(mean(x^2) + epsilon)."""
    return _normed(q_TD, q_weight_d, epsilon), _normed(k_TD, k_weight_d, epsilon)


def _normed(x_TD: Tensor, weight_d: Tensor, epsilon: float) -> Tensor:
    x_Thd = x_TD.unflatten(1, (-1, len(weight_d)))
    wide_Thd = x_Thd.to(torch.promote_types(x_Thd.dtype, torch.float32))
    mean_Th1 = wide_Thd.square().mean(2, keepdim=True)
    normed_Thd = wide_Thd * torch.rsqrt(mean_Th1 + epsilon)
    weighed_Thd: Tensor = weight_d * normed_Thd.to(x_TD.dtype)
    return weighed_Thd.flatten(1)
