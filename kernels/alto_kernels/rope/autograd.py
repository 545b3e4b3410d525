"""Joins the kernel to autograd: the gradient is turned back by the same angle."""

from typing import Any

import torch
from torch import Tensor

from alto_kernels.rope.reference import rope_ref

__all__ = ["rope"]


def rope(x_TND: Tensor, cos_TD: Tensor, sin_TD: Tensor) -> Tensor:
    """(T, N, D) turned; `cos_TD` and `sin_TD` have each angle twice, once for each half.

    By PyTorch's own operations off the GPU.
    """
    if x_TND.device.type != "cuda":
        return rope_ref(x_TND, cos_TD, sin_TD)
    y_TND: Tensor = Rope.apply(x_TND, cos_TD, sin_TD)
    return y_TND


class Rope(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_TND: Tensor, cos_TD: Tensor, sin_TD: Tensor) -> Tensor:
        from alto_kernels.rope.kernel import turn

        ctx.save_for_backward(cos_TD, sin_TD)
        return turn(x_TND, cos_TD, sin_TD, back=False)

    @staticmethod
    def backward(ctx: Any, dy_TND: Tensor) -> tuple[Tensor, None, None]:
        from alto_kernels.rope.kernel import turn

        return turn(dy_TND, *ctx.saved_tensors, back=True), None, None
