"""Validation loss of an adapter, and answers that it gives."""

from collections.abc import Iterator, Sequence

import torch

from alto_exec.bank import AdapterBank, Slot
from alto_exec.batch import Share, pack
from alto_exec.data.samples import Sample
from alto_exec.frozen_model import FrozenModel

__all__ = ["PASS_TOKENS", "generate", "validation_loss"]

PASS_TOKENS = 2048  # bounds the memory of one pass; its logits are the largest part


@torch.no_grad()
def validation_loss(
    backbone: FrozenModel,
    bank: AdapterBank,
    samples: Sequence[Sample],
    slot: Slot | None,
    scale: float = 1.0,
) -> float:
    """Mean loss of a target token over all samples; of the frozen model where there is no slot.

    Passes hold one adapter alone and are cut the same way each time, so the value does not
    depend on what else is resident.
    """
    total, targets = 0.0, 0
    for chunk in _chunks(samples):
        batch = pack([Share(chunk, slot, scale)], backbone.device)
        total += float(backbone.loss_sums(bank, batch))
        targets += batch.targets_per_share[0]
    return total / targets


@torch.no_grad()
def generate(
    backbone: FrozenModel,
    bank: AdapterBank,
    prompt: Sequence[int],
    adapters: Sequence[tuple[Slot | None, float]],
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


def _chunks(samples: Sequence[Sample]) -> Iterator[tuple[Sample, ...]]:
    chunk: list[Sample] = []
    tokens = 0
    for sample in samples:
        if chunk and tokens + len(sample.tokens) > PASS_TOKENS:
            yield tuple(chunk)
            chunk, tokens = [], 0
        chunk.append(sample)
        tokens += len(sample.tokens)
    if chunk:
        yield tuple(chunk)
