"""The definition. Slow, obvious, differentiable by PyTorch, and never tuned."""

import torch
from torch import Tensor

from alto_kernels.lora_linear.dropout import keep_mask
from alto_kernels.lora_linear.plan import AdaptedGroup, Plan, check

__all__ = ["lora_linear_group_ref"]


def lora_linear_group_ref(x_TI: Tensor, group: AdaptedGroup, plan: Plan) -> Tensor:
    """y = x W^T + bias, and for a segment's rows, each member + scale * dropout(x) A^T B."""
    check(x_TI, group, plan)
    y_TO = torch.nn.functional.linear(x_TI, group.weight_OI, group.bias_O)
    rows = []
    for s in plan.segments:
        members = []
        for index, columns in group.members:
            x = x_TI[s.first_row : s.end_row]
            if s.dropout:
                keep_tI = keep_mask(s, group.number + index, x.shape[1], x.device)
                x = x * keep_tI / (1 - s.dropout)
            a_rI = group.a_RMI[s.first_rank : s.end_rank, index].to(x.dtype)
            b_rO = group.b_RO[s.first_rank : s.end_rank, columns].to(x.dtype)
            members.append(s.scale * (x @ a_rI.T @ b_rO))
        rows.append((s, torch.cat(members, dim=1)))
    for s, update_tO in rows:
        at = torch.arange(s.first_row, s.end_row, device=x_TI.device)
        y_TO = y_TO.index_add(0, at, update_tO)
    return y_TO
