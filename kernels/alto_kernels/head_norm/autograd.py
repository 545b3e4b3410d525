"""Joins the kernels to autograd. The weights are frozen: they get no gradients."""

from typing import Any

import torch
from torch import Tensor

from alto_kernels.head_norm.reference import head_norm_ref

__all__ = ["HeadNorm", "head_norm"]


def head_norm(
    q_TD: Tensor, k_TD: Tensor, q_weight_d: Tensor, k_weight_d: Tensor, epsilon: float
) -> tuple[Tensor, Tensor]:
    """Queries and keys, each head normed. Rows may lie apart, columns may not.

    The gradients that come back are written over, so that they stay where they lie: side by side
    with those of the values, as the product that made all three wants them. Off the GPU by
    PyTorch's own operations.
    """
    if not q_TD.is_cuda:
        return head_norm_ref(q_TD, k_TD, q_weight_d, k_weight_d, epsilon)
    normed: tuple[Tensor, Tensor] = HeadNorm.apply(q_TD, k_TD, q_weight_d, k_weight_d, epsilon)
    return normed


class HeadNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        q_TD: Tensor,
        k_TD: Tensor,
        q_weight_d: Tensor,
        k_weight_d: Tensor,
        epsilon: float,
    ) -> tuple[Tensor, Tensor]:
        from alto_kernels.head_norm.kernel import head_norm_fwd

        ctx.save_for_backward(q_TD, k_TD, q_weight_d, k_weight_d)
        ctx.epsilon = epsilon
        return head_norm_fwd(q_TD, k_TD, q_weight_d, k_weight_d, epsilon)

    @staticmethod
    def backward(ctx: Any, dq_TD: Tensor, dk_TD: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        from alto_kernels.head_norm.kernel import head_norm_bwd

        q_TD, k_TD, q_weight_d, k_weight_d = ctx.saved_tensors
        head_norm_bwd(dq_TD, dk_TD, q_TD, k_TD, q_weight_d, k_weight_d, ctx.epsilon)
        return dq_TD, dk_TD, None, None, None
