"""The definition. Slow, obvious, differentiable by PyTorch, and never tuned."""

import torch
from torch import Tensor

from alto_kernels.lora_linear.dropout import keep_mask
from alto_kernels.lora_linear.plan import AdaptedLinear, Plan, check

__all__ = ["lora_linear_ref"]


def lora_linear_ref(x_TI: Tensor, linear: AdaptedLinear, plan: Plan) -> Tensor:
    """y = x W^T + bias, and for the rows of each segment + scale * dropout(x) A^T B."""
    check(x_TI, linear, plan)
    y_TO = torch.nn.functional.linear(x_TI, linear.weight_OI, linear.bias_O)
    updates = torch.zeros_like(y_TO)
    for s in plan.segments:
        rows, ranks = slice(s.first_row, s.end_row), slice(s.first_rank, s.end_rank)
        x = x_TI[rows]
        if s.dropout:
            x = x * keep_mask(s, linear.number, x.shape[1], x.device) / (1 - s.dropout)
        a_rI, b_rO = linear.a_RI[ranks].to(x.dtype), linear.b_RO[ranks].to(x.dtype)
        updates = updates.index_add(
            0, torch.arange(s.first_row, s.end_row, device=x.device), s.scale * (x @ a_rI.T @ b_rO)
        )
    return y_TO + updates
