"""What jobs minimise: the weight of each target in a pass, and the loss of each job from them.

Suffixes: N targets of the batch, A answers, P pairs of the jobs, F pairs that the frozen model sees
as well.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import softplus

from alto_exec.data.samples import Pair, Sample
from alto_exec.passes.batch import Share, on_device
from alto_exec.passes.weighing import (
    UNSEEN,
    FixedWeights,
    PairTable,
    PairWeights,
    Weigh,
    loss_dtype,
    margins,
)

__all__ = [
    "Computes",
    "Objective",
    "PairsOfJob",
    "Preferences",
    "References",
    "TokenMeans",
    "pair_losses",
]


class Objective(Protocol):
    @property
    def frozen_shares(self) -> tuple[Share, ...]:
        """What the frozen model has to see in the same pass, behind the jobs' own shares."""
        ...

    def weigh(self, model: "Computes") -> Weigh: ...

    def job_losses(self, losses_N: NDArray[np.floating]) -> list[float]:
        """What the pass adds to the loss of each job's step."""
        ...


class Computes(Protocol):
    """Where a pass is computed, and in which precision."""

    @property
    def device(self) -> torch.device: ...
    @property
    def dtype(self) -> torch.dtype: ...


class TokenMeans:
    """A job's loss is the mean over the target tokens of its own step, all passes of it together;
    the batch's loss is the sum of the jobs' losses, so no job's gradient knows of another."""

    frozen_shares: tuple[Share, ...] = ()

    def __init__(
        self, of_pass: Sequence[Sequence[Sample]], of_step: Sequence[Sequence[Sample]]
    ) -> None:
        """The sequences of each job in this pass, and in its whole step."""
        self._parts = [_num_targets(samples) for samples in of_pass]
        self._counts = [_num_targets(samples) for samples in of_step]

    def weigh(self, model: Computes) -> FixedWeights:
        weights_K = torch.tensor(self._counts, dtype=loss_dtype(model.dtype)).reciprocal().numpy()
        (weights_N,) = on_device([np.repeat(weights_K, self._parts)], model.device)
        return FixedWeights(weights_N)

    def job_losses(self, losses_N: NDArray[np.floating]) -> list[float]:
        first = np.cumsum((0, *self._parts[:-1]))
        sums = np.add.reduceat(losses_N.astype(np.float64), first)
        losses: list[float] = (sums / self._counts).tolist()
        return losses


@dataclass(frozen=True, slots=True)
class References:
    """The losses of a pair's two answers, summed, under the frozen model, once they are known:
    they never change, so all jobs and all epochs share them."""

    known: dict[Pair, tuple[float, float]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PairsOfJob:
    """What one job brings to a pass of its step, and how many pairs that step has."""

    pairs: tuple[Pair, ...]
    in_step: int
    beta: float


class Preferences:
    """Direct preference optimization (Rafailov et al. 2023, equation 7): a job's loss is the mean
    over the pairs of its own step.

    Pairs whose losses under the frozen model are not known pass without an adapter in the same
    batch.
    """

    def __init__(self, of_pass: Sequence[PairsOfJob], references: References) -> None:
        known = references.known
        self._of_pass = of_pass
        self._known = known
        self._pairs = [pair for job in of_pass for pair in job.pairs]
        told = [known.get(pair) for pair in self._pairs]
        unknown = (p for p, losses in zip(self._pairs, told, strict=True) if losses is None)
        number = {pair: f for f, pair in enumerate(dict.fromkeys(unknown))}
        self._new = tuple(number)
        self._table = PairTable(
            targets_P2=_num_targets_of(self._pairs),
            targets_F2=_num_targets_of(self._new),
            known_P2=np.array([losses or (0.0, 0.0) for losses in told]),
            frozen_of_P=np.array([number.get(pair, UNSEEN) for pair in self._pairs]),
            betas_P=np.array([job.beta for job in of_pass for _ in job.pairs]),
            parts_P=np.array([1 / job.in_step for job in of_pass for _ in job.pairs]),
        )

    @property
    def frozen_shares(self) -> tuple[Share, ...]:
        answers = tuple(answer for pair in self._new for answer in pair.samples)
        return (Share(answers, slot=None),) if answers else ()

    def weigh(self, model: Computes) -> Weigh:
        return PairWeights(self._table, model.device, loss_dtype(model.dtype))

    def job_losses(self, losses_N: NDArray[np.floating]) -> list[float]:
        """What is seen of the frozen model here is known from now on."""
        table, pairs = self._table, len(self._pairs)
        targets = np.concatenate([table.targets_P2, table.targets_F2]).ravel()
        first = np.cumsum(targets) - targets
        sums_A2 = np.add.reduceat(losses_N.astype(np.float64), first).reshape(-1, 2)
        references_P2 = table.known_P2.copy()
        is_new_P = table.frozen_of_P != UNSEEN
        references_P2[is_new_P] = sums_A2[pairs:][table.frozen_of_P[is_new_P]]
        for pair, (chosen, rejected) in zip(self._new, sums_A2[pairs:].tolist(), strict=True):
            self._known.setdefault(pair, (chosen, rejected))
        margins_P = margins(*map(torch.from_numpy, (sums_A2[:pairs], references_P2, table.betas_P)))
        losses_P = pair_losses(margins_P).numpy() * table.parts_P
        ends = np.cumsum([len(job.pairs) for job in self._of_pass])
        return [float(part.sum()) for part in np.split(losses_P, ends[:-1])]


def pair_losses(margins_P: Tensor) -> Tensor:
    """(P,): -log sigmoid."""
    return softplus(-margins_P)


def _num_targets(samples: Sequence[Sample]) -> int:
    return sum(sample.num_targets for sample in samples)


def _num_targets_of(pairs: Sequence[Pair]) -> NDArray[np.int64]:
    """(pairs, 2)"""
    counts = [answer.num_targets for pair in pairs for answer in pair.samples]
    return np.array(counts, dtype=np.int64).reshape(-1, 2)
