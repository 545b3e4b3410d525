"""The training step: one fused pass over a batch of all resident jobs.

Every job brings its next sequences; one forward and one backward pass serve them all; a job whose
passes make up its optimizer step takes it."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from alto_exec.adapters.bank import AdapterBank
from alto_exec.adapters.optimizer import update_of
from alto_exec.data.samples import Example, Pair, Sample
from alto_exec.jobs.residence import Resident
from alto_exec.passes.batch import PackedBatch, Share, on_device, pack
from alto_exec.passes.dropping import step_key
from alto_exec.passes.frozen_model import FrozenModel
from alto_exec.passes.objective import (
    Objective,
    PairsOfJob,
    Preferences,
    References,
    TokenMeans,
)
from alto_exec.passes.weighing import Weigh
from alto_kernels.adamw import adamw
from alto_policy.types import JobId
from alto_runs.sample_order import batch_indices

__all__ = ["Lookahead", "train_pass"]

Key = tuple[tuple[JobId, int, int, int], ...]


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a resident stands, or will stand, when a pass begins."""

    resident: Resident
    step: int
    passes: int = 0
    step_tokens: int = 0

    @classmethod
    def of(cls, resident: Resident) -> "_Place":
        return cls(resident, resident.progress.step, resident.passes, resident.step_tokens)


@dataclass(frozen=True, slots=True)
class _Pass:
    """A batch of all residents, laid out on the device."""

    key: Key
    shares: tuple[Share, ...]
    batch: PackedBatch
    objective: Objective
    weigh: Weigh
    job_of_N: Tensor  # whose target it is, by its number in the batch; the frozen model's left out


class Lookahead:
    """The next pass, laid out while the device is at the one before."""

    def __init__(self) -> None:
        self.upcoming: _Pass | None = None

    def take(self, places: Sequence[_Place]) -> _Pass | None:
        """What was laid out, if it is for these."""
        found, self.upcoming = self.upcoming, None
        return found if found is not None and found.key == _key(places) else None


def train_pass(
    backbone: FrozenModel,
    bank: AdapterBank,
    examples: Sequence[Example],
    residents: Sequence[Resident],
    *,
    ahead: Lookahead | None = None,
    references: References | None = None,
) -> int:
    """Train every resident on its next `batch_size` examples; the number of tokens that took.

    A resident whose loss is not finite is marked lost and takes no step. Pairs ask what the
    frozen model makes of them; `references` remembers it from one pass to the next.
    """
    places = [_Place.of(resident) for resident in residents]
    this = ahead.take(places) if ahead else None
    if this is None:
        this = _lay_out(places, examples, backbone, references)
    losses_N = backbone.train(bank, this.batch, this.weigh)
    fetched = _fetch(losses_N)
    complete = [r for r in residents if r.passes + 1 == r.job.hyperparameters.accumulation]
    _take_steps(bank, this, losses_N, residents, complete)
    if ahead:
        after = list(_after(places, this.shares))
        ahead.upcoming = _lay_out(after, examples, backbone, references) if after else None
    _record(this, fetched(), residents)
    for resident in complete:
        resident.is_lost = not math.isfinite(resident.step_loss)
        _count_step(resident)
    return len(this.batch.tokens_T)


def _lay_out(
    places: Sequence[_Place],
    examples: Sequence[Example],
    backbone: FrozenModel,
    references: References | None,
) -> _Pass:
    steps = [_step_examples(place, examples) for place in places]
    drawn = [_pass_examples(place, step) for place, step in zip(places, steps, strict=True)]
    shares = tuple(_share(place, part) for place, part in zip(places, drawn, strict=True))
    objective = _objective(places, drawn, steps, references or References())
    batch = pack([*shares, *objective.frozen_shares], backbone.device)
    weigh = objective.weigh(backbone)
    parts = np.array(batch.targets_per_share[: len(shares)])
    (job_of_N,) = on_device([np.repeat(np.arange(len(places)), parts)], backbone.device)
    for plan in (batch.plan, batch.predicting_plan):
        if plan is not None:
            plan.tables(backbone.device)  # so that they are on their way
    return _Pass(_key(places), shares, batch, objective, weigh, job_of_N)


def _objective(
    places: Sequence[_Place],
    drawn: Sequence[tuple[Example, ...]],
    steps: Sequence[tuple[Example, ...]],
    references: References,
) -> Objective:
    """A data set holds either samples or pairs, and never both."""
    if isinstance(drawn[0][0], Pair):
        parts = []
        for place, part in zip(places, drawn, strict=True):
            h = place.resident.job.hyperparameters
            pairs = tuple(pair for pair in part if isinstance(pair, Pair))
            parts.append(PairsOfJob(pairs, h.samples_per_step, h.dpo_beta))
        return Preferences(parts, references)
    return TokenMeans([_samples(part) for part in drawn], [_samples(step) for step in steps])


def _take_steps(
    bank: AdapterBank,
    this: _Pass,
    losses_N: Tensor,
    residents: Sequence[Resident],
    complete: Sequence[Resident],
) -> None:
    """The device sees for itself whose loss is finite: it need not wait for the host to know."""
    stepping = [r for r in complete if math.isfinite(r.step_loss)]
    of_jobs_N = losses_N[: len(this.job_of_N)]
    losses_K = losses_N.new_zeros(len(residents)).index_add_(0, this.job_of_N, of_jobs_N)
    if len(stepping) < len(residents):
        number = {resident.job.id: index for index, resident in enumerate(residents)}
        chosen = np.array([number[resident.job.id] for resident in stepping], dtype=np.int64)
        losses_K = losses_K[on_device([chosen], losses_K.device)[0]]
    updates = [
        update_of(r.slot, r.job.hyperparameters, r.progress.step, r.job.steps) for r in stepping
    ]
    adamw(bank.rows(), updates, losses_K)


def _fetch(losses_N: Tensor) -> Callable[[], NDArray[np.floating]]:
    """Begins to copy; what it hands back waits for that and for nothing behind it."""
    if losses_N.device.type != "cuda":
        return losses_N.numpy
    copied = torch.empty(losses_N.shape, dtype=losses_N.dtype, pin_memory=True)
    copied.copy_(losses_N, non_blocking=True)
    done = torch.cuda.Event()
    done.record()

    def wait() -> NDArray[np.floating]:
        done.synchronize()
        return copied.numpy()

    return wait


def _record(this: _Pass, losses_N: NDArray[np.floating], residents: Sequence[Resident]) -> None:
    """What the pass has come to, told to its residents."""
    losses = this.objective.job_losses(losses_N)
    for resident, share, loss in zip(residents, this.shares, losses, strict=True):
        resident.passes += 1
        resident.step_loss += loss
        resident.step_tokens += _num_tokens(share)


def _after(places: Iterable[_Place], shares: Iterable[Share]) -> Iterator[_Place]:
    """Who trains in the next pass if every loss is finite: a job with a report due waits."""
    for place, share in zip(places, shares, strict=True):
        job = place.resident.job
        if place.passes + 1 < job.hyperparameters.accumulation:
            tokens = place.step_tokens + _num_tokens(share)
            yield _Place(place.resident, place.step, place.passes + 1, tokens)
        elif place.step + 1 < job.next_report_step(place.step):
            yield _Place(place.resident, place.step + 1)


def _key(places: Iterable[_Place]) -> Key:
    return tuple((p.resident.job.id, p.resident.slot.first, p.step, p.passes) for p in places)


def _step_examples(place: _Place, examples: Sequence[Example]) -> tuple[Example, ...]:
    """All examples of the optimizer step under way."""
    h = place.resident.job.hyperparameters
    drawn = batch_indices(h.seed, place.step, h.samples_per_step, len(examples))
    return tuple(examples[index] for index in drawn)


def _pass_examples(place: _Place, step: tuple[Example, ...]) -> tuple[Example, ...]:
    """Those of the pass under way."""
    batch_size = place.resident.job.hyperparameters.batch_size
    first = place.passes * batch_size
    return step[first : first + batch_size]


def _samples(examples: Sequence[Example]) -> tuple[Sample, ...]:
    return tuple(sample for example in examples for sample in example.samples)


def _share(place: _Place, drawn: Sequence[Example]) -> Share:
    h = place.resident.job.hyperparameters
    return Share(
        samples=_samples(drawn),
        slot=place.resident.slot,
        scale=h.scale,
        dropout=h.dropout,
        dropout_key=step_key(h, place.step),
        first_token=place.step_tokens,
        starts_gradients=place.passes == 0,
    )


def _num_tokens(share: Share) -> int:
    return sum(len(sample.tokens) for sample in share.samples)


def _count_step(resident: Resident) -> None:
    progress = resident.progress
    progress.step += 1
    progress.loss_sum += resident.step_loss
    progress.loss_steps += 1
    progress.report = None
    resident.passes, resident.step_loss, resident.step_tokens = 0, 0.0, 0
