"""What jobs minimise: the weight of each target in a pass, and the loss of each job from them.

Suffixes: N targets of the batch, P pairs of the jobs, F pairs that the frozen model sees as well.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import softplus

from alto_exec.batch import Share, on_device
from alto_exec.data.samples import Pair, Sample

__all__ = [
    "Computes",
    "FixedWeights",
    "Objective",
    "PairsOfJob",
    "Preferences",
    "References",
    "TokenMeans",
    "Weigh",
    "margins",
    "pair_losses",
    "sums_of_answers",
]

Weigh = Callable[[Tensor], Tensor]
"""From the (N,) losses of a pass to the (N,) weights with which their gradients are summed."""


@dataclass(frozen=True, slots=True)
class FixedWeights:
    """Weights that are known before the losses: such a pass can be recorded and replayed."""

    weights_N: Tensor

    def __call__(self, losses_N: Tensor) -> Tensor:
        return self.weights_N


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
        wide = torch.float64 if model.dtype == torch.float64 else torch.float32
        weights_K = torch.tensor(self._counts, dtype=wide).reciprocal().numpy()
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
        self._of_pass = of_pass
        self._known = references.known
        self._pairs = [pair for job in of_pass for pair in job.pairs]
        self._new = tuple(dict.fromkeys(p for p in self._pairs if p not in references.known))
        self._answers = [a for pair in (*self._pairs, *self._new) for a in pair.samples]

    @property
    def frozen_shares(self) -> tuple[Share, ...]:
        answers = tuple(self._answers[2 * len(self._pairs) :])
        return (Share(answers, slot=None),) if answers else ()

    def weigh(self, model: Computes) -> Weigh:
        counts = np.array([answer.num_targets for answer in self._answers])
        (targets,) = on_device([counts], model.device)

        def weights(losses_N: Tensor) -> Tensor:
            sums_P2, references_P2 = self._sums(losses_N)
            betas_P, parts_P = self._factors(losses_N)
            # The derivative of -log sigmoid(margin) by an answer's summed loss.
            pull_P = betas_P * torch.sigmoid(-margins(sums_P2, references_P2, betas_P)) * parts_P
            pull_P2 = torch.stack([pull_P, -pull_P], dim=1)
            pulls = torch.cat([pull_P2.flatten(), pull_P2.new_zeros(2 * len(self._new))])
            return pulls.repeat_interleave(targets, output_size=len(losses_N))

        return weights

    def job_losses(self, losses_N: NDArray[np.floating]) -> list[float]:
        """What is seen of the frozen model here is known from now on."""
        losses = torch.from_numpy(losses_N).double()
        sums_P2, references_P2 = self._sums(losses)
        betas_P, parts_P = self._factors(losses)
        losses_P = pair_losses(margins(sums_P2, references_P2, betas_P)) * parts_P
        for pair, (chosen, rejected) in zip(self._pairs, references_P2.tolist(), strict=True):
            self._known.setdefault(pair, (chosen, rejected))
        jobs = losses_P.split([len(job.pairs) for job in self._of_pass])
        return [float(part.sum()) for part in jobs]

    def _sums(self, losses_N: Tensor) -> tuple[Tensor, Tensor]:
        """(P, 2) twice: under the jobs, and under the frozen model."""
        sums = sums_of_answers(losses_N, self._answers)
        sums_P2, sums_F2 = sums[: len(self._pairs)], sums[len(self._pairs) :]
        number = {pair: f for f, pair in enumerate(self._new)}
        known = [(0.0, 0.0) if p in number else self._known[p] for p in self._pairs]
        references_P2 = losses_N.new_tensor(known)
        places = [place for place, pair in enumerate(self._pairs) if pair in number]
        references_P2[places] = sums_F2[[number[self._pairs[place]] for place in places]]
        return sums_P2, references_P2

    def _factors(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """(P,) twice: each pair's beta, and its part in the mean of its job's step."""
        betas = [job.beta for job in self._of_pass for _ in job.pairs]
        parts = [1 / job.in_step for job in self._of_pass for _ in job.pairs]
        return like.new_tensor(betas), like.new_tensor(parts)


def sums_of_answers(losses_N: Tensor, answers: Sequence[Sample]) -> Tensor:
    """(pairs, 2): the losses of each answer's targets, summed; chosen and rejected take turns."""
    parts = losses_N.split([answer.num_targets for answer in answers])
    return torch.stack([part.sum() for part in parts]).view(-1, 2)


def margins(sums_P2: Tensor, references_P2: Tensor, betas_P: Tensor) -> Tensor:
    """(P,): by how much more than the frozen model a job prefers the chosen answer."""
    gains_P2 = references_P2 - sums_P2
    return betas_P * (gains_P2[:, 0] - gains_P2[:, 1])


def pair_losses(margins_P: Tensor) -> Tensor:
    """(P,): -log sigmoid."""
    return softplus(-margins_P)


def _num_targets(samples: Sequence[Sample]) -> int:
    return sum(sample.num_targets for sample in samples)
