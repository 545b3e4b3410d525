"""Validation loss of an adapter, and answers that it gives."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from alto_exec.bank import AdapterBank, Slot
from alto_exec.batch import Share, pack
from alto_exec.data.samples import Sample
from alto_exec.frozen_model import FrozenModel

__all__ = ["generate", "pass_limits", "validation_loss", "validation_losses"]

Adapter = tuple[Slot | None, float]  # and its scale; without a slot the frozen model

# Most of one pass. What it holds is measured, and the memory model knows it; a token holds what one
# layer makes of it, in training what all layers do.
_CUDA_TOKENS, _CPU_TOKENS = 16_384, 2_048
_FEWEST_TOKENS = 512  # passes of fewer are not tried
_LOGITS = 1 << 28  # elements


def pass_limits(backbone: FrozenModel) -> tuple[int, int]:
    """Tokens and targets that one pass holds at most, unless a single sample has more."""
    tokens = _CUDA_TOKENS if backbone.device.type == "cuda" else _CPU_TOKENS
    return tokens, _LOGITS // backbone.vocabulary_size


@torch.no_grad()
def validation_losses(
    backbone: FrozenModel,
    bank: AdapterBank,
    samples: Sequence[Sample],
    adapters: Sequence[Adapter],
) -> list[float]:
    """Mean loss of a target token over all samples, under each adapter.

    The samples are cut the same way each time, and passes hold as many (adapter, part) as they
    can: few adapters of many samples, or many of few. The host waits once, for all of them. Where
    memory runs out all the same, passes of half the size follow.
    """
    max_tokens, max_targets = pass_limits(backbone)
    while True:
        try:
            return _mean_losses(backbone, bank, adapters, samples, (max_tokens, max_targets))
        except torch.OutOfMemoryError:
            if max_tokens < _FEWEST_TOKENS:
                raise
            max_tokens, max_targets = max_tokens // 2, max_targets // 2
            if backbone.device.type == "cuda":
                torch.cuda.empty_cache()


def _mean_losses(
    backbone: FrozenModel,
    bank: AdapterBank,
    adapters: Sequence[Adapter],
    samples: Sequence[Sample],
    limits: tuple[int, int],
) -> list[float]:
    sums: list[Tensor] = []
    order: list[int] = []  # the adapter of each sum
    for pieces in _passes(_parts(samples, *limits), len(adapters), *limits):
        shares = [Share(part, *adapters[number]) for number, part in pieces]
        sums.append(backbone.loss_sums(bank, pack(shares, backbone.device)))
        order += [number for number, _ in pieces]
    totals = [0.0] * len(adapters)
    for number, total in zip(order, torch.cat(sums).tolist() if sums else (), strict=True):
        totals[number] += total
    targets = sum(sample.num_targets for sample in samples)
    return [total / targets for total in totals]


def validation_loss(
    backbone: FrozenModel,
    bank: AdapterBank,
    samples: Sequence[Sample],
    slot: Slot | None,
    scale: float = 1.0,
) -> float:
    """Mean loss of a target token over all samples; of the frozen model where there is no slot."""
    return validation_losses(backbone, bank, samples, [(slot, scale)])[0]


@torch.no_grad()
def generate(
    backbone: FrozenModel,
    bank: AdapterBank,
    prompt: Sequence[int],
    adapters: Sequence[Adapter],
    *,
    end_tokens: frozenset[int],
    max_new_tokens: int = 48,
) -> list[tuple[int, ...]]:
    """The most likely continuation of `prompt` under each (slot, scale), all in one batch."""
    answers: list[tuple[int, ...]] = [()] * len(adapters)
    going = set(range(len(adapters)))
    for _ in range(max_new_tokens):
        order = sorted(going)
        shares = []
        for i in order:
            # The last place is where the next token is predicted; what stands there is not read.
            tokens = (*prompt, *answers[i], 0)
            is_target = (False,) * (len(tokens) - 1) + (True,)
            shares.append(Share((Sample(tokens, is_target),), *adapters[i]))
        logits = backbone.target_logits(bank, pack(shares, backbone.device))
        for i, token in zip(order, logits.argmax(-1).tolist(), strict=True):
            if token in end_tokens:
                going.discard(i)
            else:
                answers[i] = (*answers[i], token)
        if not going:
            break
    return answers


Part = tuple[Sample, ...]


def _parts(samples: Sequence[Sample], max_tokens: int, max_targets: int) -> list[Part]:
    """The samples in order, cut where a pass would be full."""
    parts: list[list[Sample]] = []
    tokens = targets = 0
    for sample in samples:
        tokens, targets = tokens + len(sample.tokens), targets + sample.num_targets
        if not parts or tokens > max_tokens or targets > max_targets:
            parts.append([])
            tokens, targets = len(sample.tokens), sample.num_targets
        parts[-1].append(sample)
    return [tuple(part) for part in parts]


def _passes(
    parts: Sequence[Part], num_adapters: int, max_tokens: int, max_targets: int
) -> Iterator[list[tuple[int, Part]]]:
    """Every part under every adapter: passes of one part under as many adapters as it allows, so
    that most have the same shape."""
    for part in parts:
        tokens = sum(len(sample.tokens) for sample in part)
        targets = sum(sample.num_targets for sample in part)
        at_once = max(1, min(max_tokens // tokens, max_targets // max(1, targets)))
        for first in range(0, num_adapters, at_once):
            yield [(n, part) for n in range(first, min(first + at_once, num_adapters))]
