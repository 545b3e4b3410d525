"""Joins the passes to autograd, and chooses who computes. Nothing is computed here."""

from typing import Any

import torch
from torch import Tensor

from alto_kernels.lora_linear import AdaptedGroup, Path, Plan, lora_linear_group, path_for
from alto_kernels.lora_linear.plan import check
from alto_kernels.lora_linear.segments import segments_with_rows
from alto_kernels.swiglu import swiglu

__all__ = ["lora_mlp"]


def lora_mlp(
    x_TH: Tensor,
    gate_up: AdaptedGroup,
    down: AdaptedGroup,
    plan: Plan,
    path: Path | None = None,
) -> Tensor:
    """(T, H): down's output for silu(gate) * up, where gate and up are the members of one group.

    Gradients go where `lora_linear_group` has them. Where a group has no kernels or no rows one
    operation after the other. Raises ValueError where x, the groups and the plan do not belong
    together.
    """
    check(x_TH, gate_up, plan)
    if gate_up.outputs != (down.inputs,) * 2:
        raise ValueError(f"gate and up have {gate_up.outputs} outputs, down {down.inputs} inputs")
    paths = [path or path_for(x_TH, group) for group in (gate_up, down)]
    if any(p is not Path.FUSED for p in paths) or not segments_with_rows(plan.segments):
        gate_TF, up_TF = lora_linear_group(x_TH, gate_up, plan, path)
        return lora_linear_group(swiglu(gate_TF, up_TF), down, plan, path)[0]
    y_TH: Tensor = _LoraMlp.apply(x_TH, gate_up.a_RMI, gate_up, down, plan)
    return y_TH


class _LoraMlp(torch.autograd.Function):
    """`anchor` is a tensor that requires a gradient, so that the first layer has a backward."""

    @staticmethod
    def forward(
        ctx: Any,
        x_TH: Tensor,
        anchor: Tensor,
        gate_up: AdaptedGroup,
        down: AdaptedGroup,
        plan: Plan,
    ) -> Tensor:
        from alto_kernels.lora_mlp import gated

        ctx.gate_up, ctx.down, ctx.plan = gate_up, down, plan
        x_TH = x_TH.contiguous()
        y_TH, kept = gated.forward(x_TH, gate_up, down, plan)
        ctx.save_for_backward(x_TH, *kept)
        return y_TH

    @staticmethod
    def backward(ctx: Any, dy_TH: Tensor) -> tuple[Tensor | None, None, None, None, None]:
        from alto_kernels.lora_mlp import gated

        x_TH, *kept = ctx.saved_tensors
        dx_TH = gated.backward(
            dy_TH.contiguous(), x_TH, gated.Kept(*kept), ctx.gate_up, ctx.down, ctx.plan,
            need_dx=ctx.needs_input_grad[0],
        )  # fmt: skip
        return dx_TH, None, None, None, None
