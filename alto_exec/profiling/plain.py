"""Losses and gradients of adapters in plain PyTorch, and ours beside them: correct before fast."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, linear

from alto_exec.bank import AdapterBank, AdapterState
from alto_exec.batch import Share, pack
from alto_exec.data.samples import Sample
from alto_exec.frozen_model import FrozenModel
from alto_exec.modules import ALL_LINEAR, target_names
from alto_runs.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["Adapter", "Outcome", "ours", "plain", "random_adapter", "require_same"]

_RANK, _SCALE = 8, 2.0
# Largest difference of a loss, relative, and of a job's whole gradient, relative to its norm:
# roundings of 16 bits through all layers, or of 32.
_TOLERANCES = {torch.bfloat16: (5e-3, 0.1), torch.float32: (1e-4, 1e-3)}

Matrices = tuple[Tensor, Tensor]  # A (r, inputs) and B transposed (r, outputs)
Adapter = Mapping[str, Matrices]  # by the names of the linears


@dataclass(frozen=True, slots=True)
class Outcome:
    """Mean loss of a job's target tokens, and the gradients of its matrices."""

    loss: float
    gradients: Adapter


def random_adapter(model: "PreTrainedModel", seed: int) -> Adapter:
    """An adapter that does something, on every linear of the blocks."""
    dice = torch.Generator(model.device).manual_seed(seed)

    def matrix(columns: int) -> Tensor:
        values = torch.randn(_RANK, columns, generator=dice, device=model.device)
        return values.mul_(0.02).to(model.dtype)

    sizes = {name: _size(model.get_submodule(name)) for name in target_names(model, ALL_LINEAR)}
    return {name: (matrix(inputs), matrix(outputs)) for name, (outputs, inputs) in sizes.items()}


def plain(model: "PreTrainedModel", adapter: Adapter, sample: Sample) -> Outcome:
    """transformers' model with the adapter added to the outputs of its linears, alone."""
    leaves = {
        name: (a.clone().requires_grad_(), b.clone().requires_grad_())
        for name, (a, b) in adapter.items()
    }
    tokens = torch.tensor([sample.tokens], device=model.device)
    with _added(model, leaves):
        logits = model(input_ids=tokens).logits[0, :-1].float()
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
        value_rC = torch.zeros(_RANK, bank.num_columns, device=backbone.device)
        for name, a_rI, b_rO in bank.matrices(value_rC):
            a_rI.copy_(adapter[name][0])
            b_rO.copy_(adapter[name][1])
        nothing = torch.zeros_like(value_rC)
        slots.append(bank.join(AdapterState(value_rC, nothing, nothing)))
    shares = [
        Share((sample,), slot, scale=_SCALE) for sample, slot in zip(samples, slots, strict=True)
    ]
    batch = pack(shares, backbone.device)
    counts = torch.tensor(batch.targets_per_share, device=backbone.device)
    weights_N = (1 / counts).repeat_interleave(counts)
    losses_N = backbone.train(bank, batch, weights_N)
    losses = batch.share_sums(losses_N) / counts
    return [
        Outcome(
            float(loss),
            {name: (a, b) for name, a, b in bank.matrices(bank.grad_RC[slot.rows])},
        )
        for loss, slot in zip(losses, slots, strict=True)
    ]


def require_same(
    found: Sequence[Outcome], expected: Sequence[Outcome], dtype: torch.dtype
) -> tuple[float, float]:
    """The largest differences of losses and gradients. Raises UserError if they are too large."""
    loss = max(abs(f.loss / e.loss - 1) for f, e in zip(found, expected, strict=True))
    gradient = max(
        _norm_of(f.gradients, e.gradients) / _norm_of(e.gradients)
        for f, e in zip(found, expected, strict=True)
    )
    most_loss, most_gradient = _TOLERANCES[dtype]
    if not (loss <= most_loss and gradient <= most_gradient):  # a NaN fails too
        raise UserError(
            f"not measured: beside plain PyTorch a loss differs by {loss:.1e} and a gradient by "
            f"{gradient:.1e} on this device, expected at most {most_loss:.0e} and "
            f"{most_gradient:.0e}"
        )
    return loss, gradient


def _size(linear_module: nn.Module) -> tuple[int, int]:
    """Outputs and inputs; transformers' own Conv1D has its weight the other way round."""
    rows, columns = cast(Tensor, linear_module.weight).shape
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
        return lambda module, given, y: y + _SCALE * linear(linear(given[0], a_rI), b_rO.T)

    handles = [
        model.get_submodule(name).register_forward_hook(hook(a, b))
        for name, (a, b) in adapter.items()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
