"""Joins the kernels to autograd, and chooses who computes. Nothing is computed here."""

from typing import Any

import torch
from torch import Tensor

from alto_kernels.rope import rope
from alto_kernels.varlen_attention.plan import CumulativeLengths
from alto_kernels.varlen_attention.reference import varlen_attention_ref
from alto_kernels.varlen_attention.tiles import MIXED

__all__ = ["VarlenAttention", "flash_attention", "varlen_attention"]


def varlen_attention(
    q_TD: Tensor,
    k_TD: Tensor,
    v_TD: Tensor,
    cos_Td: Tensor,
    sin_Td: Tensor,
    lengths: CumulativeLengths,
    head_size: int,
) -> Tensor:
    """(T, D): each token attends to itself and to those before it in its own sequence, queries and
    keys turned by their positions' angles (`rope`): by our kernels in place, so what is given for
    them is written over.

    Rows may lie apart, columns may not. Off the GPU and for wider types than 16 bits by PyTorch's
    own product for each sequence; for other sizes of heads by its flash attention.
    """
    if q_TD.is_cuda and q_TD.dtype.itemsize == 2 and head_size in MIXED:
        mixed_TD: Tensor = VarlenAttention.apply(
            q_TD, k_TD, v_TD, cos_Td, sin_Td, lengths, head_size
        )
        return mixed_TD
    q_TD, k_TD, v_TD = rope(q_TD, k_TD, v_TD, cos_Td, sin_Td)
    by_torch = q_TD.is_cuda and q_TD.dtype.itemsize == 2
    attention = flash_attention if by_torch else varlen_attention_ref
    return attention(q_TD, k_TD, v_TD, lengths, head_size)


class VarlenAttention(torch.autograd.Function):
    """The gradients of all three lie side by side, as the product that made them wants them."""

    @staticmethod
    def forward(
        ctx: Any,
        q_TD: Tensor,
        k_TD: Tensor,
        v_TD: Tensor,
        cos_Td: Tensor,
        sin_Td: Tensor,
        lengths: CumulativeLengths,
        head_size: int,
    ) -> Tensor:
        from alto_kernels.rope.kernel import turn
        from alto_kernels.varlen_attention.kernel.forward import attention_fwd

        turn(k_TD, cos_Td, sin_Td)
        mixed_TD, lse_hT = attention_fwd(q_TD, k_TD, v_TD, cos_Td, sin_Td, lengths, head_size)
        ctx.save_for_backward(q_TD, k_TD, v_TD, mixed_TD, lse_hT, cos_Td, sin_Td)
        ctx.lengths, ctx.head_size = lengths, head_size
        return mixed_TD

    @staticmethod
    def backward(
        ctx: Any, dmixed_TD: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, None, None, None, None]:
        from alto_kernels.varlen_attention.kernel.backward import attention_bwd

        q_TD, k_TD, v_TD, mixed_TD, lse_hT, cos_Td, sin_Td = ctx.saved_tensors
        dq_TD, dk_TD, dv_TD = attention_bwd(
            dmixed_TD.contiguous(), q_TD, k_TD, v_TD, mixed_TD, lse_hT, cos_Td, sin_Td,
            ctx.lengths, ctx.head_size,
        )  # fmt: skip
        return dq_TD, dk_TD, dv_TD, None, None, None, None


def flash_attention(
    q_TD: Tensor,
    k_TD: Tensor,
    v_TD: Tensor,
    lengths: CumulativeLengths,
    head_size: int,
    scale: float | None = None,
    window: int | None = None,  # tokens that each one sees, itself among them
) -> Tensor:
    """PyTorch's own, which takes fewer key heads than query heads as they are."""
    q, k, v = (t.unflatten(1, (-1, head_size)) for t in (q_TD, k_TD, v_TD))
    ends, longest = lengths.ends, lengths.longest
    out: Tensor = torch.ops.aten._flash_attention_forward(
        q, k, v, ends, ends, longest, longest, 0.0, True, False, scale=scale,
        window_size_left=None if window is None else window - 1,
        window_size_right=None if window is None else 0,
    )[0]  # fmt: skip
    return out.flatten(1)
