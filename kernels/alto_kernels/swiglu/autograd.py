"""Joins the kernels to autograd. Nothing is computed here."""

from typing import Any

import torch
from torch import Tensor

from alto_kernels.swiglu.reference import swiglu_ref

__all__ = ["swiglu"]


def swiglu(gate_TF: Tensor, up_TF: Tensor) -> Tensor:
    """(T, F); by PyTorch's own operations off the GPU.

    gate and up may be the columns of one tensor, and their gradients always are: the group of
    linears that made them takes its gradient without a copy.
    """
    if gate_TF.device.type != "cuda":
        return swiglu_ref(gate_TF, up_TF)
    y_TF: Tensor = SwiGlu.apply(gate_TF, up_TF)
    return y_TF


class SwiGlu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate_TF: Tensor, up_TF: Tensor) -> Tensor:
        from alto_kernels.swiglu.kernel import swiglu_fwd

        ctx.save_for_backward(gate_TF, up_TF)
        y_TF = gate_TF.new_empty(gate_TF.shape)
        swiglu_fwd(gate_TF, up_TF, y_TF)
        return y_TF

    @staticmethod
    def backward(ctx: Any, dy_TF: Tensor) -> tuple[Tensor, Tensor]:
        from alto_kernels.swiglu.kernel import swiglu_bwd

        gate_TF, up_TF = ctx.saved_tensors
        d_T2F = gate_TF.new_empty(gate_TF.shape[0], 2 * gate_TF.shape[1])
        swiglu_bwd(dy_TF.contiguous(), gate_TF, up_TF, d_T2F)
        dgate_TF, dup_TF = d_T2F.chunk(2, dim=1)
        return dgate_TF, dup_TF
