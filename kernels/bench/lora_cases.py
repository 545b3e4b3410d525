"""The shapes and batches that the LoRA linear is measured on."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

from alto_kernels.lora_linear import AdaptedGroup, Plan, Segment

__all__ = ["BARS", "BATCHES", "SHAPES", "Batch", "Operands", "Shape", "operands"]


@dataclass(frozen=True)
class Shape:
    """A group of linears of one model."""

    model: str
    group: str
    inputs: int
    outputs: tuple[int, ...]


def _llama(model: str, hidden: int, keys: int, middle: int) -> Iterator[Shape]:
    yield Shape(model, "qkv", hidden, (hidden, keys, keys))
    yield Shape(model, "o", hidden, (hidden,))
    yield Shape(model, "gate-up", hidden, (middle, middle))
    yield Shape(model, "down", middle, (hidden,))


SHAPES = (*_llama("8B", 4096, 1024, 14336), *_llama("1B", 2048, 512, 8192))


@dataclass(frozen=True)
class Batch:
    """Tokens and rank of each job, in the first pass of a step."""

    name: str
    sizes: tuple[int, ...]
    ranks: tuple[int, ...]

    def plan(self) -> Plan:
        ends, rank_ends = accumulate(self.sizes), accumulate(self.ranks)
        parts = zip(self.sizes, ends, self.ranks, rank_ends, strict=True)
        segments = tuple(
            Segment(end - size, end, rank_end - rank, rank_end, scale=2.0, starts_gradients=True)
            for size, end, rank, rank_end in parts
        )
        return Plan(sum(self.sizes), segments)


_RAGGED = (31, 470, 256, 5, 411, 129, 500, 64, 90, 333, 511, 17, 403, 240, 60, 349)
_MIXED = (8, 16, 32, 64, 128, 8, 64, 16)
BATCHES = (
    Batch("K32 r16", (256,) * 32, (16,) * 32),
    Batch("K8 r64", (1024,) * 8, (64,) * 8),
    Batch("ragged r16", tuple(n for s in _RAGGED for n in (s, 512 - s)), (16,) * 32),
    Batch("one empty r16", (1024, 1024, 0, 2048, 1024, 1024, 1024, 1024), (16,) * 8),
    Batch("ranks 8-128", (1024,) * 8, _MIXED),
)


# Most that ours may take over the frozen linears, in the geometric mean over a model's groups.
BARS = {("8B", batch.name): 1.12 for batch in BATCHES} | {
    ("8B", "K32 r16"): 1.08,
    ("1B", "K32 r16"): 1.20,
}


@dataclass(frozen=True)
class Operands:
    x: Tensor
    dy: Tensor
    group: AdaptedGroup
    plan: Plan


def operands(shape: Shape, batch: Batch, device: torch.device) -> Operands:
    """Random, in bf16, with fp32 gradients; the bank's columns are those of the group alone."""
    generator = torch.Generator(device).manual_seed(0)

    def normal(*size: int, scale: float = 1.0) -> Tensor:
        values = torch.randn(*size, generator=generator, device=device, dtype=torch.bfloat16)
        return values.mul_(scale)

    members, outputs = len(shape.outputs), sum(shape.outputs)
    middle, rows = members * shape.inputs, sum(batch.ranks)
    bank = normal(rows, middle + outputs, scale=0.02)
    grad = torch.zeros(rows, middle + outputs, device=device)
    tokens, size = sum(batch.sizes), (members, shape.inputs)
    group = AdaptedGroup(
        weight_OI=normal(outputs, shape.inputs, scale=shape.inputs**-0.5),
        bias_O=None,
        a_RMI=bank[:, :middle].unflatten(1, size).requires_grad_(),
        b_RO=bank[:, middle:],
        grad_a_RMI=grad[:, :middle].unflatten(1, size),
        grad_b_RO=grad[:, middle:],
        outputs=shape.outputs,
        number=0,
    )
    x = normal(tokens, shape.inputs).requires_grad_()
    return Operands(x, normal(tokens, outputs), group, batch.plan())
