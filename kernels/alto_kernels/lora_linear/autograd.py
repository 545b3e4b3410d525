"""Joins the passes to autograd. Nothing is computed here."""

from typing import Any

import torch
from torch import Tensor

from alto_kernels.lora_linear import composed
from alto_kernels.lora_linear.path import Path, path_for
from alto_kernels.lora_linear.plan import AdaptedGroup, Plan, check
from alto_kernels.lora_linear.segments import segments_with_rows

__all__ = ["lora_linear_group"]


def lora_linear_group(
    x_TI: Tensor, group: AdaptedGroup, plan: Plan, path: Path | None = None
) -> tuple[Tensor, ...]:
    """y (T, outputs) of each frozen linear of a group, with an adapter for each segment of rows.

    In the backward pass the gradients of A and B go to the bank and are not handed to autograd.
    Without `path` the one that `path_for` names is taken. Raises ValueError where x, the group and
    the plan do not belong together.
    """
    check(x_TI, group, plan)
    if path is None:
        path = path_for(x_TI, group)
    if not segments_with_rows(plan.segments):
        # The frozen product alone, or nothing but the bias.
        path = Path.COMPOSED_ALONE if path.is_alone else Path.COMPOSED
    y: tuple[Tensor, ...] = _LoraLinear.apply(x_TI, group.a_RMI, group, plan, path)
    return y


class _LoraLinear(torch.autograd.Function):
    """`anchor` is a tensor that requires a gradient, so that the first layer has a backward."""

    @staticmethod
    def forward(
        ctx: Any, x_TI: Tensor, anchor: Tensor, group: AdaptedGroup, plan: Plan, path: Path
    ) -> tuple[Tensor, ...]:
        ctx.group, ctx.plan, ctx.path = group, plan, path
        if path.is_composed:
            y_TO, shrinks = composed.forward(x_TI, group, plan, path)
        else:
            from alto_kernels.lora_linear import fused

            x_TI = x_TI.contiguous()
            y_TO, s_PJ = fused.forward(x_TI, group, plan, path)
            shrinks = [s_PJ]
        ctx.save_for_backward(x_TI, *shrinks)
        return tuple(torch.split(y_TO, list(group.outputs), dim=1))

    @staticmethod
    def backward(ctx: Any, *dy: Tensor) -> tuple[Tensor | None, None, None, None, None]:
        x_TI, *shrinks = ctx.saved_tensors
        dy_TO, need_dx = _side_by_side(dy), ctx.needs_input_grad[0]
        if ctx.path.is_composed:
            dx_TI = composed.backward(
                dy_TO, x_TI, shrinks, ctx.group, ctx.plan, ctx.path, need_dx=need_dx
            )
        else:
            from alto_kernels.lora_linear import fused

            dx_TI = fused.backward(
                dy_TO, x_TI, shrinks[0], ctx.group, ctx.plan, ctx.path, need_dx=need_dx
            )
        return dx_TI, None, None, None, None


def _side_by_side(parts: tuple[Tensor, ...]) -> Tensor:
    """The parts as one contiguous tensor; no copy where they are the columns of one already."""
    first = parts[0]
    width = sum(part.shape[1] for part in parts)
    column = first.storage_offset()
    for part in parts:
        if (
            part.untyped_storage().data_ptr() != first.untyped_storage().data_ptr()
            or part.storage_offset() != column
            or part.stride() != (width, 1)
        ):
            return torch.cat(parts, dim=1)
        column += part.shape[1]
    return first.as_strided((first.shape[0], width), (width, 1))
