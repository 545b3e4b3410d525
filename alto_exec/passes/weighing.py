"""The weight of each target of a pass, from tensors of known sizes alone: so the passes of any
objective can be recorded, and replayed on other batches.

Suffixes: N targets of the batch, A answers, P pairs of the jobs, F pairs that the frozen model sees
as well.
"""

from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from alto_exec.passes.batch import PackedBatch, on_device
from alto_kernels.lora_linear import room_for

__all__ = [
    "UNSEEN",
    "FixedWeights",
    "PairTable",
    "PairWeights",
    "Weigh",
    "WeighShape",
    "loss_dtype",
    "margins",
]

UNSEEN = -1  # by the frozen model in this pass, since what it makes of the pair is known


@dataclass(frozen=True, slots=True)
class WeighShape:
    """What the launches of weighing read on the host, beside the number of targets."""

    pairs: int = 0  # 0 where weights are known before the losses
    frozen_pairs: int = 0

    def takes(self, other: "WeighShape") -> bool:
        is_alike = (self.pairs == 0) == (other.pairs == 0)
        return is_alike and self.pairs >= other.pairs and self.frozen_pairs >= other.frozen_pairs


class Weigh(Protocol):
    """From the (N,) losses of a pass to the (N,) weights with which their gradients are summed."""

    def __call__(self, losses_N: Tensor) -> Tensor: ...
    def shape(self, spare: float = 0.0) -> WeighShape:
        """With room for this and for others like it, `spare` of it more in any case."""
        ...

    def with_room(self, shape: WeighShape, targets: int) -> Self:
        """The same in buffers of a shape: targets and pairs left over weigh nothing."""
        ...

    def refill(self, other: Self) -> None:
        """Write others that the shape takes over those before."""
        ...


@dataclass(frozen=True, slots=True)
class FixedWeights:
    """Weights that are known before the losses."""

    weights_N: Tensor

    @classmethod
    def none(cls, batch: PackedBatch) -> Self:
        """Where nothing is trained."""
        return cls(torch.zeros(len(batch.targets_N), device=batch.targets_N.device))

    def __call__(self, losses_N: Tensor) -> Tensor:
        return self.weights_N

    def shape(self, spare: float = 0.0) -> WeighShape:
        return WeighShape()

    def with_room(self, shape: WeighShape, targets: int) -> Self:
        room = type(self)(self.weights_N.new_zeros(targets))
        room.refill(self)
        return room

    def refill(self, other: "FixedWeights") -> None:
        count = len(other.weights_N)
        self.weights_N[:count] = other.weights_N
        self.weights_N[count:] = 0


@dataclass(frozen=True, slots=True)
class PairTable:
    """The pairs of a pass, on the host. In the batch the jobs' pairs come first, then those of the
    frozen model, chosen and rejected in turns."""

    targets_P2: NDArray[np.int64]  # of each answer
    targets_F2: NDArray[np.int64]
    known_P2: NDArray[np.floating[Any]]  # losses under the frozen model; zero if in this pass
    frozen_of_P: NDArray[np.int64]  # which of the F tells them, or -1
    betas_P: NDArray[np.floating[Any]]
    parts_P: NDArray[np.floating[Any]]  # of each pair in the mean of its job's step


class PairWeights:
    """Direct preference optimization (Rafailov et al. 2023, equation 7): how hard each answer of a
    pair is pulled depends on the losses of both."""

    def __init__(
        self,
        table: PairTable,
        device: torch.device,
        dtype: torch.dtype,
        *,
        shape: WeighShape | None = None,
        num_targets: int | None = None,
    ) -> None:
        """`dtype` is that of the losses; the shape is the table's own unless one is given."""
        self._table = table
        self._device, self._dtype = device, dtype
        self._numpy_dtype = np.float64 if dtype == torch.float64 else np.float32
        self._shape = shape or WeighShape(len(table.targets_P2), len(table.targets_F2))
        own_targets = int(table.targets_P2.sum() + table.targets_F2.sum())
        self._num_targets = own_targets if num_targets is None else num_targets
        numbers, values = self._laid_out(table)
        (self._numbers,) = on_device([numbers], device)
        (self._values,) = on_device([values], device)

    def __call__(self, losses_N: Tensor) -> Tensor:
        pairs = self._shape.pairs
        answers = 2 * (pairs + self._shape.frozen_pairs + 1)
        starts, frozen_of_P, answer_of_N = self._numbers.split(
            [answers + 1, pairs, self._num_targets]
        )
        known, betas_P, parts_P = self._values.split([2 * pairs, pairs, pairs])
        sums_A = torch.segment_reduce(losses_N, "sum", offsets=starts, unsafe=True)
        sums_P2, sums_F2 = sums_A[: 2 * pairs].view(-1, 2), sums_A[2 * pairs :].view(-1, 2)
        margins_P = margins(sums_P2, known.view(-1, 2) + sums_F2[frozen_of_P], betas_P)
        # The derivative of -log sigmoid(margin) by an answer's summed loss.
        pull_P = betas_P * torch.sigmoid(-margins_P) * parts_P
        pulls_A = torch.zeros_like(sums_A)
        pulls_A[: 2 * pairs] = torch.stack([pull_P, -pull_P], dim=1).flatten()
        return pulls_A[answer_of_N]

    def shape(self, spare: float = 0.0) -> WeighShape:
        def room(count: int) -> int:
            return room_for(int((1 + spare) * count))

        return WeighShape(room(len(self._table.targets_P2)), room(len(self._table.targets_F2)))

    def with_room(self, shape: WeighShape, targets: int) -> "PairWeights":
        return PairWeights(self._table, self._device, self._dtype, shape=shape, num_targets=targets)

    def refill(self, other: "PairWeights") -> None:
        self._table = other._table
        numbers, values = self._laid_out(other._table)
        self._numbers.copy_(on_device([numbers], self._device)[0], non_blocking=True)
        self._values.copy_(on_device([values], self._device)[0], non_blocking=True)

    def _laid_out(self, table: PairTable) -> tuple[NDArray[Any], NDArray[Any]]:
        """Where answers begin, who tells each pair's reference, whose each target is; and what is
        known of the pairs. The last pair has no targets: it tells nothing, and what is left over
        is its own."""
        pairs, frozen = len(table.targets_P2), len(table.targets_F2)
        room, frozen_room = self._shape.pairs, self._shape.frozen_pairs
        targets = np.zeros((room + frozen_room + 1, 2), np.int64)
        targets[:pairs] = table.targets_P2
        targets[room : room + frozen] = table.targets_F2
        starts = np.concatenate([[0], np.cumsum(targets)])
        frozen_of_P = np.full(room, frozen_room)
        frozen_of_P[:pairs] = np.where(table.frozen_of_P == UNSEEN, frozen_room, table.frozen_of_P)
        answer_of_N = np.full(self._num_targets, targets.size - 1)
        answer_of_N[: starts[-1]] = np.repeat(np.arange(targets.size), targets.ravel())
        values = np.zeros(4 * room)
        values[: 2 * pairs] = table.known_P2.ravel()
        values[2 * room : 2 * room + pairs] = table.betas_P
        values[3 * room : 3 * room + pairs] = table.parts_P
        return np.concatenate([starts, frozen_of_P, answer_of_N]), values.astype(self._numpy_dtype)


def loss_dtype(dtype: torch.dtype) -> torch.dtype:
    """Of the losses of a model of this type."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def margins(sums_P2: Tensor, references_P2: Tensor, betas_P: Tensor) -> Tensor:
    """(P,): by how much more than the frozen model a job prefers the chosen answer."""
    gains_P2 = references_P2 - sums_P2
    return betas_P * (gains_P2[:, 0] - gains_P2[:, 1])
