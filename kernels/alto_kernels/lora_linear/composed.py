"""Forward and backward composed of PyTorch's own matrix products: what runs without a GPU.

The adapters' products are added in place to the frozen linears', so no second pass over y or dx;
to zeros where the frozen linears are computed elsewhere.
"""

import torch
from torch import Tensor

from alto_kernels.lora_linear.dropout import keep_mask
from alto_kernels.lora_linear.path import Path
from alto_kernels.lora_linear.plan import AdaptedGroup, Plan
from alto_kernels.lora_linear.segments import Segment, segments_with_rows

__all__ = ["backward", "forward"]


def forward(
    x_TI: Tensor, group: AdaptedGroup, plan: Plan, path: Path
) -> tuple[Tensor, list[Tensor]]:
    """y (T, O), and of each segment with rows and each member s = scale * dropout(x) A^T."""
    if path.is_alone:
        y_TO = x_TI.new_zeros(x_TI.shape[0], sum(group.outputs))
        if group.bias_O is not None:
            y_TO += group.bias_O
    else:
        y_TO = torch.nn.functional.linear(x_TI, group.weight_OI, group.bias_O)
    shrinks = []
    for s in segments_with_rows(plan.segments):
        for index, columns in group.members:
            a_rI, b_rO = _adapter(group, s, index, columns, x_TI.dtype)
            kept_tI = _kept(x_TI, s, group.number + index)
            x_tI = _dropped(x_TI[s.first_row : s.end_row], s, kept_tI)
            s_tr = (x_tI @ a_rI.T).mul_(s.scale)
            y_TO[s.first_row : s.end_row, columns].addmm_(s_tr, b_rO)
            shrinks.append(s_tr)
    return y_TO, shrinks


def backward(
    dy_TO: Tensor,
    x_TI: Tensor,
    shrinks: list[Tensor],
    group: AdaptedGroup,
    plan: Plan,
    path: Path,
    *,
    need_dx: bool,
) -> Tensor | None:
    """dx (T, I) if it is needed; the gradients of A and B go to the bank."""
    dx_TI = None
    if need_dx:
        dx_TI = torch.zeros_like(x_TI) if path.is_alone else dy_TO @ group.weight_OI
    left = iter(shrinks)
    for s in segments_with_rows(plan.segments):
        rows, ranks = slice(s.first_row, s.end_row), slice(s.first_rank, s.end_rank)
        for index, columns in group.members:
            a_rI, b_rO = _adapter(group, s, index, columns, x_TI.dtype)
            dy_tO, kept_tI = dy_TO[rows, columns], _kept(x_TI, s, group.number + index)
            ds_tr = (dy_tO @ b_rO.T).mul_(s.scale)
            x_tI = _dropped(x_TI[rows], s, kept_tI)
            _put_product(group.grad_b_RO[ranks, columns], next(left).T, dy_tO, s)
            _put_product(group.grad_a_RMI[ranks, index], ds_tr.T, x_tI, s)
            if dx_TI is None:
                continue
            if kept_tI is None:
                dx_TI[rows].addmm_(ds_tr, a_rI)
            else:
                dx_TI[rows] += _dropped(ds_tr @ a_rI, s, kept_tI)
    return dx_TI


def _adapter(
    group: AdaptedGroup, s: Segment, index: int, columns: slice, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    ranks = slice(s.first_rank, s.end_rank)
    return group.a_RMI[ranks, index].to(dtype), group.b_RO[ranks, columns].to(dtype)


def _kept(x_TI: Tensor, s: Segment, linear_number: int) -> Tensor | None:
    return keep_mask(s, linear_number, x_TI.shape[1], x_TI.device) if s.dropout else None


def _dropped(x_tI: Tensor, s: Segment, kept_tI: Tensor | None) -> Tensor:
    return x_tI if kept_tI is None else (x_tI * kept_tI).div_(1 - s.dropout)


def _put_product(total: Tensor, left: Tensor, right: Tensor, segment: Segment) -> None:
    """total (+)= left @ right, in the total's fp32: the factors may be narrower, of whose width a
    product would be rounded."""
    left, right = left.to(total.dtype), right.to(total.dtype)
    total.addmm_(left, right, beta=0 if segment.starts_gradients else 1)
