"""Groups of linears with a random bank, and how their values and gradients are taken."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

import torch
from torch import Tensor

from alto_kernels.lora_linear import (
    AdaptedGroup,
    Plan,
    Segment,
    lora_linear_group,
    lora_linear_group_ref,
)
from alto_kernels.lora_linear.path import Path
from tests.kernels.comparing import DEVICE

NUMBER = 5  # of the first linear


@dataclass(frozen=True)
class Case:
    """`sizes`, `ranks` and `dropouts` are those of the segments; `tail` rows meet no adapter."""

    sizes: tuple[int, ...]
    ranks: tuple[int, ...]
    inputs: int = 64
    outputs: tuple[int, ...] = (64,)
    dropouts: tuple[float, ...] = ()
    tail: int = 0
    bias: bool = False

    @property
    def num_rows(self) -> int:
        return sum(self.sizes) + self.tail

    @property
    def num_ranks(self) -> int:
        return sum(self.ranks) + 3  # the bank has free rows

    def plan(self) -> Plan:
        ends, rank_ends = accumulate(self.sizes), accumulate(self.ranks)
        dropouts = self.dropouts or (0.0,) * len(self.sizes)
        parts = zip(self.sizes, ends, self.ranks, rank_ends, dropouts, strict=True)
        segments = tuple(
            Segment(
                first_row=end - size,
                end_row=end,
                first_rank=rank_end - rank,
                end_rank=rank_end,
                scale=0.5 + 0.25 * index,
                dropout=dropout,
                dropout_key=(2654435761 * (index + 1)) & 0xFFFFFFFF,
                first_token=7 * index,
            )
            for index, (size, end, rank, rank_end, dropout) in enumerate(parts)
        )
        return Plan(self.num_rows, segments)


@dataclass(frozen=True)
class Tensors:
    """All in float64; `grad` is what the gradient bank holds before the backward pass."""

    x: Tensor
    dy: Tensor
    weight: Tensor
    bias: Tensor | None
    a: Tensor
    b: Tensor
    grad: Tensor


def draw(case: Case, dtype: torch.dtype) -> Tensors:
    """Values that `dtype` holds exactly, so that only the arithmetic differs."""
    generator = torch.Generator().manual_seed(0)
    members, outputs = len(case.outputs), sum(case.outputs)

    def normal(*shape: int, scale: float = 1.0) -> Tensor:
        values = torch.randn(*shape, generator=generator) * scale
        return values.to(dtype).double().to(DEVICE)

    return Tensors(
        x=normal(case.num_rows, case.inputs),
        dy=normal(case.num_rows, outputs),
        weight=normal(outputs, case.inputs, scale=case.inputs**-0.5),
        bias=normal(outputs) if case.bias else None,
        a=normal(case.num_ranks, members, case.inputs, scale=case.inputs**-0.5),
        b=normal(case.num_ranks, outputs),
        grad=normal(case.num_ranks, members * case.inputs + outputs),
    )


def without_weight(t: Tensors, path: Path) -> tuple[Tensors, Tensors]:
    """For the path, and for what it is held against: alone it must not read the weight."""
    if not path.is_alone:
        return t, t
    poisoned, nothing = torch.full_like(t.weight, torch.nan), torch.zeros_like(t.weight)
    return replace(t, weight=poisoned), replace(t, weight=nothing)


def group_of(case: Case, t: Tensors, dtype: torch.dtype) -> AdaptedGroup:
    """A and B are strided columns of one bank, as in the executor."""
    members, middle = len(case.outputs), len(case.outputs) * case.inputs
    bank = torch.cat([t.a.flatten(1), t.b], dim=1).to(dtype)
    grad = t.grad.float()
    shape = (members, case.inputs)
    return AdaptedGroup(
        weight_OI=t.weight.to(dtype),
        bias_O=None if t.bias is None else t.bias.to(dtype),
        a_RMI=bank[:, :middle].unflatten(1, shape).requires_grad_(),
        b_RO=bank[:, middle:],
        grad_a_RMI=grad[:, :middle].unflatten(1, shape),
        grad_b_RO=grad[:, middle:],
        outputs=case.outputs,
        number=NUMBER,
    )


Results = dict[str, Tensor]  # y, dx, da, db


def ours(
    case: Case, t: Tensors, dtype: torch.dtype, path: Path, plan: Plan | None = None
) -> Results:
    group = group_of(case, t, dtype)
    x = t.x.to(dtype).requires_grad_()
    y = torch.cat(lora_linear_group(x, group, plan or case.plan(), path), dim=1)
    (dx,) = torch.autograd.grad(y, [x], t.dy.to(dtype))
    middle = t.a.shape[1] * t.a.shape[2]
    grad_a, grad_b = t.grad[:, :middle], t.grad[:, middle:]
    return {
        "y": y.detach(),
        "dx": dx,
        "da": group.grad_a_RMI.flatten(1).double() - grad_a,
        "db": group.grad_b_RO.double() - grad_b,
    }


def by_autograd(case: Case, t: Tensors, dtype: torch.dtype) -> Results:
    """The reference and the gradients that PyTorch finds for it."""
    x, a, b = (v.to(dtype).requires_grad_() for v in (t.x, t.a, t.b))
    bias = None if t.bias is None else t.bias.to(dtype)
    nothing = torch.empty(0)
    group = AdaptedGroup(t.weight.to(dtype), bias, a, b, nothing, nothing, case.outputs, NUMBER)
    y = lora_linear_group_ref(x, group, case.plan())
    dx, da, db = torch.autograd.grad(y, [x, a, b], t.dy.to(dtype), materialize_grads=True)
    return {"y": y.detach(), "dx": dx, "da": da.flatten(1), "db": db}


NAMES: Sequence[str] = ("y", "dx", "da", "db")
