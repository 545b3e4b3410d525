"""Losses and gradients of adapters in plain PyTorch, and ours beside them: correct before fast."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, linear

from alto_exec.adapters.bank import AdapterBank, AdapterState
from alto_exec.backbones.linears import ALL_LINEAR, target_names
from alto_exec.data.samples import Sample
from alto_exec.passes.batch import Share, pack
from alto_exec.passes.frozen_model import FrozenModel
from alto_exec.passes.weighing import FixedWeights
from alto_runs.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = [
    "SCALE",
    "Adapter",
    "Outcome",
    "cast",
    "ours",
    "plain",
    "random_adapter",
    "require_as_exact",
    "wider",
]

_RANK = 8
SCALE = 2.0  # alpha over rank
_ALLOWED = 2.0  # of PyTorch's own error
# What a loss may be off all the same, relative: PyTorch's may be exact by chance.
_CHANCE = {torch.bfloat16: 1e-3, torch.float32: 1e-6}

Matrices = tuple[Tensor, Tensor]  # A (r, inputs) and B transposed (r, outputs)
Adapter = Mapping[str, Matrices]  # by the names of the linears


@dataclass(frozen=True, slots=True)
class Outcome:
    """Mean loss of a job's target tokens, and the gradients of its matrices."""

    loss: float
    gradients: Adapter


def random_adapter(model: "PreTrainedModel", seed: int, rank: int = _RANK) -> Adapter:
    """An adapter that does something, on every linear of the blocks."""
    dice = torch.Generator(model.device).manual_seed(seed)

    def matrix(columns: int) -> Tensor:
        values = torch.randn(rank, columns, generator=dice, device=model.device)
        return values.mul_(0.02).to(model.dtype)

    sizes = {name: _size(model.get_submodule(name)) for name in target_names(model, ALL_LINEAR)}
    return {name: (matrix(inputs), matrix(outputs)) for name, (outputs, inputs) in sizes.items()}


def plain(model: "PreTrainedModel", adapter: Adapter, sample: Sample) -> Outcome:
    """transformers' model with the adapter added to the outputs of its linears, alone."""

    def leaf(matrix: Tensor) -> Tensor:
        return matrix.detach().clone().to(model.dtype).requires_grad_()

    leaves = {name: (leaf(a), leaf(b)) for name, (a, b) in adapter.items()}
    tokens = torch.tensor([sample.tokens], device=model.device)
    with _added(model, leaves):
        logits = model(input_ids=tokens).logits[0, :-1]
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    is_target = torch.tensor(sample.is_target[1:], device=model.device)
    loss = cross_entropy(logits[is_target], tokens[0, 1:][is_target])
    flat = [matrix for pair in leaves.values() for matrix in pair]
    found = iter(torch.autograd.grad(loss, flat))
    return Outcome(float(loss.detach()), {name: (next(found), next(found)) for name in leaves})


def ours(
    backbone: FrozenModel, adapters: Sequence[Adapter], samples: Sequence[Sample]
) -> list[Outcome]:
    """The same adapters side by side in one pass of the executor, one sample each."""
    bank = AdapterBank(backbone.shapes, backbone.device, rows=0, dtype=backbone.dtype)
    slots = []
    for adapter in adapters:
        rank = len(next(iter(adapter.values()))[0])
        value_rC = torch.zeros(rank, bank.num_columns, device=backbone.device)
        for name, a_rI, b_rO in bank.matrices(value_rC):
            a_rI.copy_(adapter[name][0])
            b_rO.copy_(adapter[name][1])
        slots.append(bank.join(AdapterState(value_rC)))
    shares = [
        Share((sample,), slot, scale=SCALE) for sample, slot in zip(samples, slots, strict=True)
    ]
    batch = pack(shares, backbone.device)
    counts = torch.tensor(batch.targets_per_share, device=backbone.device)
    weights_N = (1 / counts).repeat_interleave(counts)
    losses_N = backbone.train(bank, batch, FixedWeights(weights_N))
    losses = batch.share_sums(losses_N) / counts
    return [
        Outcome(
            float(loss),
            {name: (a, b) for name, a, b in bank.matrices(bank.grad_RC[slot.rows])},
        )
        for loss, slot in zip(losses, slots, strict=True)
    ]


def cast(model: "PreTrainedModel", dtype: torch.dtype) -> None:
    """The weights alone: tables such as the rotation's frequencies stay as exact as they are."""
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)


def wider(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float32 else torch.float32


def require_as_exact(
    found: Sequence[Outcome],
    torchs: Sequence[Outcome],
    exact: Sequence[Outcome],
    dtype: torch.dtype,
) -> float:
    """The largest error of a loss or gradient over PyTorch's own. Raises UserError above two."""
    ratios = []
    for one, other, right in zip(found, torchs, exact, strict=True):
        own = max(abs(other.loss - right.loss), _CHANCE[dtype] * right.loss)
        ratios.append(abs(one.loss - right.loss) / own)
        ratios.append(
            _norm_of(one.gradients, right.gradients) / _norm_of(other.gradients, right.gradients)
        )
    worst = max(ratios, key=lambda ratio: math.inf if math.isnan(ratio) else ratio)
    if not worst <= _ALLOWED:
        raise UserError(
            f"not measured: on this device losses or gradients are {worst:.1f} times as far from "
            f"{wider(dtype)} as plain PyTorch's, expected at most {_ALLOWED:.0f} times"
        )
    return worst


def _size(linear_module: nn.Module) -> tuple[int, int]:
    """Outputs and inputs; transformers' own Conv1D has its weight the other way round."""
    weight: Any = linear_module.weight
    rows, columns = weight.shape
    return (rows, columns) if isinstance(linear_module, nn.Linear) else (columns, rows)


def _norm_of(adapter: Adapter, without: Adapter | None = None) -> float:
    total = 0.0
    for name, pair in adapter.items():
        for index, matrix in enumerate(pair):
            rest = matrix.double() if without is None else matrix.double() - without[name][index]
            total += float((rest * rest).sum())
    return math.sqrt(total)


@contextmanager
def _added(model: "PreTrainedModel", adapter: Adapter) -> Iterator[None]:
    def hook(a_rI: Tensor, b_rO: Tensor) -> Callable[[nn.Module, Any, Tensor], Tensor]:
        return lambda module, given, y: y + SCALE * linear(linear(given[0], a_rI), b_rO.T)

    handles = [
        model.get_submodule(name).register_forward_hook(hook(a, b))
        for name, (a, b) in adapter.items()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
