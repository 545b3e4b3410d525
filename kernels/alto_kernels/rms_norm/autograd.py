"""Joins the kernels to autograd. Nothing is computed here."""

from typing import Any

import torch
from torch import Tensor

from alto_kernels.rms_norm.reference import rms_norm_ref

__all__ = ["rms_norm"]


def rms_norm(x_TH: Tensor, weight_H: Tensor, epsilon: float) -> Tensor:
    """(T, H); by PyTorch's own operations off the GPU."""
    if x_TH.device.type != "cuda":
        return rms_norm_ref(x_TH, weight_H, epsilon)
    y_TH: Tensor = RmsNorm.apply(x_TH, weight_H, epsilon)
    return y_TH


class RmsNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_TH: Tensor, weight_H: Tensor, epsilon: float) -> Tensor:
        from alto_kernels.rms_norm.kernel import rms_norm_fwd

        y_TH, scale_T = rms_norm_fwd(x_TH, weight_H, epsilon)
        ctx.save_for_backward(x_TH, weight_H, scale_T)
        return y_TH

    @staticmethod
    def backward(ctx: Any, dy_TH: Tensor) -> tuple[Tensor, None, None]:
        from alto_kernels.rms_norm.kernel import rms_norm_bwd

        return rms_norm_bwd(dy_TH, *ctx.saved_tensors), None, None
