"""Validation loss of an adapter, and answers that it gives."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from alto_exec.adapters.bank import AdapterBank, Slot
from alto_exec.data.samples import Example, Pair, Sample
from alto_exec.jobs.residence import Resident
from alto_exec.passes.batch import PackedBatch, Share, pack
from alto_exec.passes.frozen_model import FrozenModel
from alto_exec.passes.objective import References, pair_losses
from alto_exec.passes.weighing import margins

__all__ = [
    "FROZEN",
    "Accuracy",
    "Adapter",
    "accuracies",
    "generate",
    "pass_limits",
    "preference_margins",
    "validation_loss",
    "validation_losses",
]

Found = TypeVar("Found")


@dataclass(frozen=True, slots=True)
class Adapter:
    """What a sequence is seen through: without a slot, the frozen model alone."""

    slot: Slot | None
    scale: float = 1.0
    dpo_beta: float = 0.1  # asked for where pairs are judged

    @classmethod
    def of(cls, resident: Resident) -> "Adapter":
        h = resident.job.hyperparameters
        return cls(resident.slot, h.scale, h.dpo_beta)


FROZEN = Adapter(None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Accuracy:
    """Of answers that are known."""

    answers: float  # share that greedy decoding gives, word for word, with their end
    tokens: float  # share of their tokens that it goes on with after those before


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
    examples: Sequence[Example],
    adapters: Sequence[Adapter],
    references: References | None = None,
) -> list[float]:
    """Under each adapter: the mean loss of a target token over all samples, or of a pair over all
    pairs; `references` remembers what the frozen model makes of those.

    The samples are cut the same way each time, and passes hold as many (adapter, part) as they
    can: few adapters of many samples, or many of few. The host waits once, for all of them. Where
    memory runs out all the same, passes of half the size follow.
    """
    if pairs := [example for example in examples if isinstance(example, Pair)]:
        gained = preference_margins(backbone, bank, pairs, adapters, references or References())
        return [float(pair_losses(margins_P).mean()) for margins_P in gained]
    samples = [example for example in examples if isinstance(example, Sample)]
    return _in_passes_that_fit(
        backbone, lambda limits: _mean_losses(backbone, bank, adapters, samples, limits)
    )


def _in_passes_that_fit(backbone: FrozenModel, work: Callable[[tuple[int, int]], Found]) -> Found:
    max_tokens, max_targets = pass_limits(backbone)
    while True:
        try:
            return work((max_tokens, max_targets))
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
        shares = [_share(part, adapters[number]) for number, part in pieces]
        sums.append(backbone.loss_sums(bank, pack(shares, backbone.device)))
        order += [number for number, _ in pieces]
    totals = [0.0] * len(adapters)
    for number, total in zip(order, torch.cat(sums).tolist() if sums else (), strict=True):
        totals[number] += total
    targets = sum(sample.num_targets for sample in samples)
    return [total / targets for total in totals]


@torch.no_grad()
def preference_margins(
    backbone: FrozenModel,
    bank: AdapterBank,
    pairs: Sequence[Pair],
    adapters: Sequence[Adapter],
    references: References,
) -> list[Tensor]:
    """(pairs,) for each adapter, float64: above zero where it prefers the chosen answer by more
    than the frozen model does."""
    new = [pair for pair in dict.fromkeys(pairs) if pair not in references.known]
    if new:
        (found,) = _answer_sums(backbone, bank, new, [FROZEN])
        for pair, (chosen, rejected) in zip(new, found.tolist(), strict=True):
            references.known[pair] = (chosen, rejected)
    known_P2 = torch.tensor([references.known[pair] for pair in pairs], dtype=torch.float64)
    sums = _answer_sums(backbone, bank, pairs, adapters)
    return [
        margins(sums_P2, known_P2, torch.tensor(adapter.dpo_beta, dtype=torch.float64))
        for sums_P2, adapter in zip(sums, adapters, strict=True)
    ]


@torch.no_grad()
def accuracies(
    backbone: FrozenModel,
    bank: AdapterBank,
    samples: Sequence[Sample],
    adapters: Sequence[Adapter],
) -> list[Accuracy]:
    """Of each adapter; nothing is generated. As long as a greedy answer is the known one, it goes
    on with the most likely token after the known ones, so one pass over those tells its all.
    """

    def right_of_each(batch: PackedBatch) -> Tensor:
        return batch.share_sums(backbone.target_logits(bank, batch).argmax(-1) == batch.targets_N)

    targets_S = torch.tensor([sample.num_targets for sample in samples])
    return [
        Accuracy(
            answers=float((right_S == targets_S).double().mean()),
            tokens=float(right_S.sum() / targets_S.sum()),
        )
        for right_S in _of_each(backbone, samples, adapters, right_of_each)
    ]


def validation_loss(
    backbone: FrozenModel,
    bank: AdapterBank,
    examples: Sequence[Example],
    slot: Slot | None,
    scale: float = 1.0,
) -> float:
    """Of one adapter alone, or of the frozen model where there is no slot."""
    return validation_losses(backbone, bank, examples, [Adapter(slot, scale)])[0]


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
    """The most likely continuation of `prompt` under each adapter, all in one batch."""
    answers: list[tuple[int, ...]] = [()] * len(adapters)
    going = set(range(len(adapters)))
    for _ in range(max_new_tokens):
        order = sorted(going)
        shares = []
        for i in order:
            # The last place is where the next token is predicted; what stands there is not read.
            tokens = (*prompt, *answers[i], 0)
            is_target = (False,) * (len(tokens) - 1) + (True,)
            shares.append(_share((Sample(tokens, is_target),), adapters[i]))
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


def _share(part: Part, adapter: Adapter) -> Share:
    return Share(part, adapter.slot, adapter.scale)


def _answer_sums(
    backbone: FrozenModel, bank: AdapterBank, pairs: Sequence[Pair], adapters: Sequence[Adapter]
) -> list[Tensor]:
    """(pairs, 2) for each adapter, float64, on the host: the losses of both answers, summed."""
    answers = [answer for pair in pairs for answer in pair.samples]
    found = _of_each(backbone, answers, adapters, lambda batch: backbone.loss_sums(bank, batch))
    return [sums.view(-1, 2) for sums in found]


def _of_each(
    backbone: FrozenModel,
    samples: Sequence[Sample],
    adapters: Sequence[Adapter],
    judge: Callable[[PackedBatch], Tensor],
) -> list[Tensor]:
    """(samples,) for each adapter, float64, on the host: what `judge` says of a sample's share."""

    def of_all(limits: tuple[int, int]) -> list[list[Tensor]]:
        found: list[list[Tensor]] = [[] for _ in adapters]
        for pieces in _passes(_parts(samples, *limits), len(adapters), *limits):
            shares = [_share((sample,), adapters[n]) for n, part in pieces for sample in part]
            of_parts = judge(pack(shares, backbone.device)).split([len(p) for _, p in pieces])
            for (number, _), of_part in zip(pieces, of_parts, strict=True):
                found[number].append(of_part)
        return found

    return [torch.cat(parts).cpu().double() for parts in _in_passes_that_fit(backbone, of_all)]


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
