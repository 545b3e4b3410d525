"""Joins the kernel to autograd. Nothing is computed here."""

from typing import Any

import torch
from torch import Tensor

from alto_kernels.rope.reference import rope_ref

__all__ = ["Rope", "rope"]


def rope(
    q_TD: Tensor, k_TD: Tensor, v_TD: Tensor, cos_Td: Tensor, sin_Td: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Queries and keys rotated by their positions' angles, and the values.

    cos and sin are (T, half a head), fp32 or wider. The values pass through so that the gradients
    of all three lie side by side, as the product that made them wants them. Off the GPU by
    PyTorch's own operations.
    """
    if not q_TD.is_cuda:
        return rope_ref(q_TD, k_TD, v_TD, cos_Td, sin_Td)
    rotated: tuple[Tensor, Tensor, Tensor] = Rope.apply(q_TD, k_TD, v_TD, cos_Td, sin_Td)
    return rotated


class Rope(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, q_TD: Tensor, k_TD: Tensor, v_TD: Tensor, cos_Td: Tensor, sin_Td: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        from alto_kernels.rope.kernel import rotate

        ctx.save_for_backward(cos_Td, sin_Td)
        return rotate((q_TD, k_TD, v_TD), cos_Td, sin_Td, backwards=False)

    @staticmethod
    def backward(
        ctx: Any, dq_TD: Tensor, dk_TD: Tensor, dv_TD: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, None, None]:
        from alto_kernels.rope.kernel import rotate

        dq_TD, dk_TD, dv_TD = rotate((dq_TD, dk_TD, dv_TD), *ctx.saved_tensors, backwards=True)
        return dq_TD, dk_TD, dv_TD, None, None
