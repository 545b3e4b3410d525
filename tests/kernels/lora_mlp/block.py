"""The gated block over two random banks, and how its values and gradients are taken."""

from dataclasses import replace

import torch
from torch import Tensor

from alto_kernels.lora_linear import AdaptedGroup, Path, Plan
from alto_kernels.lora_mlp import lora_mlp, lora_mlp_ref
from tests.kernels.comparing import assert_as_exact_as_torch
from tests.kernels.lora_linear.cases import NUMBER, Case, Tensors, draw, group_of


class Block:
    """Gate and up, whose case says all, and down with as many adapters of the same ranks."""

    def __init__(self, case: Case, dtype: torch.dtype) -> None:
        middle, width = case.outputs[0], case.inputs + 24
        self.cases = (case, replace(case, inputs=middle, outputs=(width,)))
        self.dtype, self.plan = dtype, case.plan()
        self.given: tuple[Tensors, ...] = tuple(draw(case, dtype) for case in self.cases)

    def ours(self, path: Path | None, plan: Plan | None = None) -> list[Tensor]:
        """y, dx, and what is added to the gradients of A and B of gate and up, and of down."""
        pairs = list(zip(self.cases, self.given, strict=True))
        groups = [group_of(case, t, self.dtype) for case, t in pairs]
        x = self.given[0].x.to(self.dtype).requires_grad_()
        y = lora_mlp(x, groups[0], groups[1], plan or self.plan, path)
        (dx,) = torch.autograd.grad(y, [x], self.given[1].dy.to(self.dtype))
        found = [y.detach(), dx]
        for group, t in zip(groups, self.given, strict=True):
            middle = t.a.shape[1] * t.a.shape[2]
            found.append(group.grad_a_RMI.flatten(1).double() - t.grad[:, :middle])
            found.append(group.grad_b_RO.double() - t.grad[:, middle:])
        return found

    def by_autograd(self, dtype: torch.dtype, plan: Plan | None = None) -> list[Tensor]:
        """The reference and the gradients that PyTorch finds for it."""
        x = self.given[0].x.to(dtype).requires_grad_()
        banks = [v.to(dtype).requires_grad_() for t in self.given for v in (t.a, t.b)]
        nothing = torch.empty(0)
        gate_up, down = (
            AdaptedGroup(
                t.weight.to(dtype), None if t.bias is None else t.bias.to(dtype), a, b,
                nothing, nothing, case.outputs, NUMBER,
            )
            for case, t, a, b in zip(self.cases, self.given, banks[::2], banks[1::2], strict=True)
        )  # fmt: skip
        y = lora_mlp_ref(x, gate_up, down, plan or self.plan)
        dy = self.given[1].dy.to(dtype)
        dx, *grads = torch.autograd.grad(y, [x, *banks], dy, materialize_grads=True)
        return [y.detach(), dx, *(g.flatten(1) for g in grads)]

    def assert_exact(self, path: Path | None, plan: Plan | None = None) -> None:
        torchs = self.by_autograd(self.dtype, plan)
        exact = self.by_autograd(torch.float64, plan)
        for results in zip(self.ours(path, plan), torchs, exact, strict=True):
            assert_as_exact_as_torch(*results)
