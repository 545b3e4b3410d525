"""Joins the passes to autograd. Nothing is computed here."""

from typing import Any

import torch
from torch import Tensor

from alto_kernels.lora_linear import composed
from alto_kernels.lora_linear.plan import AdaptedLinear, Plan, check

__all__ = ["lora_linear"]


def lora_linear(x_TI: Tensor, linear: AdaptedLinear, plan: Plan) -> Tensor:
    """y (T, O) of a frozen linear with an adapter for each segment of rows.

    In the backward pass the gradients of A and B are added to the bank's and not handed to
    autograd. Raises ValueError where x and the plan do not belong together.
    """
    check(x_TI, linear, plan)
    y_TO: Tensor = _LoraLinear.apply(x_TI, linear.a_RI, linear, plan)
    return y_TO


class _LoraLinear(torch.autograd.Function):
    """`anchor` is a tensor that requires a gradient, so that the first layer has a backward."""

    @staticmethod
    def forward(
        ctx: Any, x_TI: Tensor, anchor: Tensor, linear: AdaptedLinear, plan: Plan
    ) -> Tensor:
        y_TO, shrinks = composed.forward(x_TI, linear, plan)
        ctx.save_for_backward(x_TI, *shrinks)
        ctx.linear, ctx.plan = linear, plan
        return y_TO

    @staticmethod
    def backward(ctx: Any, dy_TO: Tensor) -> tuple[Tensor | None, None, None, None]:
        x_TI, *shrinks = ctx.saved_tensors
        need_dx = ctx.needs_input_grad[0]
        dx_TI = composed.backward(dy_TO, x_TI, shrinks, ctx.linear, ctx.plan, need_dx=need_dx)
        return dx_TI, None, None, None
