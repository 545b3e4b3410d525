"""The ways to compute a LoRA linear that ours is measured against, forward and backward.

Each takes the same operands and makes a function of no arguments. The peers hand new gradients of A
and B out in bf16; ours are written to fp32 banks.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn.functional import linear

from alto_kernels.lora_linear import lora_linear_group
from bench.lora_cases import Operands

__all__ = ["PEERS", "Peer", "Run"]

Run = Callable[[], object]
Peer = Callable[[Operands], Run]


def frozen(o: Operands) -> Run:
    """The frozen linears alone, concatenated: what the ratio is taken over."""
    weight_OI, x_TI = o.group.weight_OI, o.x.detach()
    return lambda: (x_TI @ weight_OI.T, o.dy @ weight_OI)


def ours(o: Operands) -> Run:
    parts = o.dy.split(o.group.outputs, dim=1)
    return lambda: torch.autograd.grad(lora_linear_group(o.x, o.group, o.plan), [o.x], parts)


def loop(o: Operands) -> Run:
    """As PEFT has it, each adapter on its own rows."""
    leaves = _leaves(o)

    def forward() -> Tensor:
        rows = []
        for s, adapters in zip(o.plan.segments, leaves, strict=True):
            x = o.x[s.first_row : s.end_row]
            parts = [s.scale * linear(linear(x, a), b.T) for a, b in adapters]
            rows.append(torch.cat(parts, dim=1))
        return linear(o.x, o.group.weight_OI) + torch.cat(rows)

    flat = [leaf for adapters in leaves for pair in adapters for leaf in pair]
    return lambda: torch.autograd.grad(forward(), [o.x, *flat], o.dy)


def grouped_mm(o: Operands) -> Run:
    """torch's grouped product on stacked adapters, then a scale for each token and an addition."""
    segments, offsets = o.plan.segments, [s.end_row for s in o.plan.segments]
    offs = torch.tensor(offsets, dtype=torch.int32, device=o.x.device)
    stacks = _stacks(o)
    scale = torch.cat([o.x.new_full((s.end_row - s.first_row, 1), s.scale) for s in segments])

    def forward() -> Tensor:
        parts = []
        for a_KIr, b_KrO in stacks:
            s = torch._grouped_mm(o.x, a_KIr, offs=offs)
            parts.append(torch._grouped_mm(s, b_KrO, offs=offs))
        return linear(o.x, o.group.weight_OI) + scale * torch.cat(parts, dim=1)

    flat = [leaf for pair in stacks for leaf in pair]
    return lambda: torch.autograd.grad(forward(), [o.x, *flat], o.dy)


def padded_bmm(o: Operands) -> Run:
    """Batched products over rows padded to the longest segment and ranks to the highest."""
    segments, width = o.plan.segments, o.x.shape[1]
    longest = max(s.end_row - s.first_row for s in segments)
    place = torch.cat(
        [
            torch.arange(i * longest, i * longest + s.end_row - s.first_row, device=o.x.device)
            for i, s in enumerate(segments)
        ]
    )
    padded = longest * len(segments)
    stacks, even = _stacks(o), padded == o.x.shape[0]
    scale = segments[0].scale

    def forward() -> Tensor:
        x = o.x if even else o.x.new_zeros(padded, width).index_copy(0, place, o.x)
        x_KTI = x.view(-1, longest, width)
        parts = [torch.bmm(torch.bmm(x_KTI, a) * scale, b).flatten(0, 1) for a, b in stacks]
        y = torch.cat(parts, dim=1)
        return linear(o.x, o.group.weight_OI) + (y if even else y[place])

    flat = [leaf for pair in stacks for leaf in pair]
    return lambda: torch.autograd.grad(forward(), [o.x, *flat], o.dy)


PEERS: Mapping[str, Peer] = {
    "frozen": frozen,
    "ours": ours,
    "grouped_mm": grouped_mm,
    "padded_bmm": padded_bmm,
    "loop": loop,
}


def _leaves(o: Operands) -> list[list[tuple[Tensor, Tensor]]]:
    """A (r, I) and B (r, O) of each segment and member."""
    return [
        [
            (
                _leaf(o.group.a_RMI[s.first_rank : s.end_rank, index]),
                _leaf(o.group.b_RO[s.first_rank : s.end_rank, columns]),
            )
            for index, columns in o.group.members
        ]
        for s in o.plan.segments
    ]


def _stacks(o: Operands) -> list[tuple[Tensor, Tensor]]:
    """Of each member A (K, I, r) and B (K, r, O), ranks padded to the highest."""
    rank, adapters = max(s.rank for s in o.plan.segments), _leaves(o)

    def padded(matrix: Tensor) -> Tensor:
        return torch.nn.functional.pad(matrix.detach(), (0, 0, 0, rank - matrix.shape[0]))

    return [
        (
            _leaf(torch.stack([padded(of[index][0]) for of in adapters]).mT.contiguous()),
            _leaf(torch.stack([padded(of[index][1]) for of in adapters])),
        )
        for index, _ in o.group.members
    ]


def _leaf(tensor: Tensor) -> Tensor:
    return tensor.detach().clone().requires_grad_()
