"""Joins the passes to autograd, and chooses who computes. Nothing is computed here."""

from typing import Any

import torch
from torch import Tensor

from alto_kernels.lora_linear import AdaptedGroup, Path, Plan, lora_linear_group, path_for
from alto_kernels.lora_linear.plan import check, segments_with_rows
from alto_kernels.swiglu import swiglu

__all__ = ["lora_swiglu"]


def lora_swiglu(x_TI: Tensor, group: AdaptedGroup, plan: Plan, path: Path | None = None) -> Tensor:
    """(T, F): silu(gate) * up, where gate and up are the members of the group.

    Gradients go where `lora_linear_group` has them. Without kernels, or without adapters, the two
    operations one after the other. Raises ValueError where x, the group and the plan do not belong
    together.
    """
    check(x_TI, group, plan)
    if len(group.outputs) != 2 or group.outputs[0] != group.outputs[1]:
        raise ValueError(f"a gate and what it opens have equal outputs, not {group.outputs}")
    if path is None:
        path = path_for(x_TI, group)
    if path.is_composed or not segments_with_rows(plan.segments):
        gate_TF, up_TF = lora_linear_group(x_TI, group, plan, path)
        return swiglu(gate_TF, up_TF)
    y_TF: Tensor = _LoraSwiGlu.apply(x_TI, group.a_RMI, group, plan, path)
    return y_TF


class _LoraSwiGlu(torch.autograd.Function):
    """`anchor` is a tensor that requires a gradient, so that the first layer has a backward."""

    @staticmethod
    def forward(
        ctx: Any, x_TI: Tensor, anchor: Tensor, group: AdaptedGroup, plan: Plan, path: Path
    ) -> Tensor:
        from alto_kernels.lora_swiglu import fused

        ctx.group, ctx.plan, ctx.path = group, plan, path
        x_TI = x_TI.contiguous()
        y_TF, both_TO, s_PJ = fused.forward(x_TI, group, plan, path)
        ctx.save_for_backward(x_TI, both_TO, s_PJ)
        return y_TF

    @staticmethod
    def backward(ctx: Any, dy_TF: Tensor) -> tuple[Tensor | None, None, None, None, None]:
        from alto_kernels.lora_swiglu import fused

        dx_TI = fused.backward(
            dy_TF.contiguous(), *ctx.saved_tensors, ctx.group, ctx.plan, ctx.path,
            need_dx=ctx.needs_input_grad[0],
        )  # fmt: skip
        return dx_TI, None, None, None, None
