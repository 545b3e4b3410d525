"""Joins the kernels to autograd. The weight is frozen: it gets no gradient."""

from typing import Any

import torch
from torch import Tensor

from alto_kernels.rms_norm.reference import add_rms_norm_ref

__all__ = ["AddNorm", "Norm", "add_rms_norm"]


def add_rms_norm(
    h_TH: Tensor, delta_TH: Tensor | None, weight_H: Tensor, epsilon: float
) -> tuple[Tensor, Tensor]:
    """The new residual stream h + delta (T, H), and its norm. Off the GPU by PyTorch's own
    operations."""
    if not h_TH.is_cuda:
        return add_rms_norm_ref(h_TH, delta_TH, weight_H, epsilon)
    if delta_TH is None:
        return h_TH, Norm.apply(h_TH, weight_H, epsilon)
    new_TH, x_TH = AddNorm.apply(h_TH, delta_TH, weight_H, epsilon)
    return new_TH, x_TH


class AddNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, h_TH: Tensor, delta_TH: Tensor, weight_H: Tensor, epsilon: float
    ) -> tuple[Tensor, Tensor]:
        from alto_kernels.rms_norm.kernel import add_rms_norm_fwd

        new_TH, x_TH, scale_T = add_rms_norm_fwd(
            h_TH.contiguous(), delta_TH.contiguous(), weight_H, epsilon
        )
        ctx.save_for_backward(new_TH, scale_T, weight_H)
        return new_TH, x_TH

    @staticmethod
    def backward(ctx: Any, dnew_TH: Tensor, dx_TH: Tensor) -> tuple[Tensor, Tensor, None, None]:
        from alto_kernels.rms_norm.kernel import add_rms_norm_bwd

        new_TH, scale_T, weight_H = ctx.saved_tensors
        dh_TH = add_rms_norm_bwd(
            dnew_TH.contiguous(), dx_TH.contiguous(), new_TH, scale_T, weight_H
        )
        return dh_TH, dh_TH, None, None


class Norm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, h_TH: Tensor, weight_H: Tensor, epsilon: float) -> Tensor:
        from alto_kernels.rms_norm.kernel import add_rms_norm_fwd

        h_TH = h_TH.contiguous()
        _, x_TH, scale_T = add_rms_norm_fwd(h_TH, None, weight_H, epsilon)
        ctx.save_for_backward(h_TH, scale_T, weight_H)
        return x_TH

    @staticmethod
    def backward(ctx: Any, dx_TH: Tensor) -> tuple[Tensor, None, None]:
        from alto_kernels.rms_norm.kernel import add_rms_norm_bwd

        h_TH, scale_T, weight_H = ctx.saved_tensors
        return add_rms_norm_bwd(None, dx_TH.contiguous(), h_TH, scale_T, weight_H), None, None
