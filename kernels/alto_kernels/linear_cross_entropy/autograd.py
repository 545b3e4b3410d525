"""Joins the chunks to autograd. Nothing is computed here but the scaling of the gradient."""

from typing import Any

import torch
from torch import Tensor

from alto_kernels.linear_cross_entropy.chunks import losses_and_gradient

__all__ = ["linear_cross_entropy", "take_rows"]


def take_rows(hidden_TH: Tensor, rows: Tensor) -> Tensor:
    """(N, H): the rows that predict a target.

    The gradients of a row that is taken more than once must be zero.
    """
    hidden_NH: Tensor = _TakeRows.apply(hidden_TH, rows)
    return hidden_NH


def linear_cross_entropy(hidden_NH: Tensor, weight_VH: Tensor, targets_N: Tensor) -> Tensor:
    """(N,) loss of each target; the head's weight is frozen.

    A job's loss is a sum over its own targets, so no job's gradient knows of another. Raises
    ValueError where the shapes do not belong together.
    """
    if hidden_NH.shape != (len(targets_N), weight_VH.shape[1]):
        raise ValueError(
            f"hidden {tuple(hidden_NH.shape)}, head {tuple(weight_VH.shape)} "
            f"and {len(targets_N)} targets"
        )
    losses_N: Tensor = _LinearCrossEntropy.apply(hidden_NH, weight_VH, targets_N)
    return losses_N


class _TakeRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden_TH: Tensor, rows: Tensor) -> Tensor:
        ctx.save_for_backward(rows)
        ctx.shape = hidden_TH.shape
        return hidden_TH[rows]

    @staticmethod
    def backward(ctx: Any, dhidden_NH: Tensor) -> tuple[Tensor, None]:
        (rows,) = ctx.saved_tensors
        return dhidden_NH.new_zeros(ctx.shape).index_copy_(0, rows, dhidden_NH), None


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden_NH: Tensor, weight_VH: Tensor, targets_N: Tensor) -> Tensor:
        need = ctx.needs_input_grad[0]
        losses_N, gradient_NH = losses_and_gradient(
            hidden_NH, weight_VH, targets_N, need_gradient=need
        )
        if gradient_NH is not None:
            ctx.save_for_backward(gradient_NH)
        return losses_N

    @staticmethod
    def backward(ctx: Any, dlosses_N: Tensor) -> tuple[Tensor, None, None]:
        (gradient_NH,) = ctx.saved_tensors
        return gradient_NH * dlosses_N[:, None].to(gradient_NH.dtype), None, None
