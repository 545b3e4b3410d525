"""What one optimizer step reads and changes. Suffixes: R rows of the bank, C columns."""

import math
from dataclasses import dataclass

from torch import Tensor

__all__ = ["Bank", "Update"]


@dataclass(frozen=True, slots=True)
class Bank:
    """fp32; `copy_RC` is the values in a narrower type for the kernels, never infinite or NaN.

    So a job whose values are lost turns its own rows of a batch into rubbish, and no neighbour's:
    a zero times a finite number is zero.
    """

    value_RC: Tensor
    grad_RC: Tensor
    mean_RC: Tensor
    square_RC: Tensor
    copy_RC: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Update:
    """Step `step` (0-based) of the job in bank rows `first_rank` to `end_rank`.

    `clip` bounds the norm of the job's whole gradient.
    """

    first_rank: int
    end_rank: int
    step: int
    rate: float
    weight_decay: float = 0.0
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    clip: float | None = None

    @property
    def factors(self) -> tuple[float, ...]:
        """What the arithmetic multiplies by, worked out in double precision."""
        return (
            math.inf if self.clip is None else self.clip,
            1 - self.rate * self.weight_decay,
            1 - self.beta1,
            self.beta2,
            1 - self.beta2,
            math.sqrt(1 - self.beta2 ** (self.step + 1)),
            self.epsilon,
            self.rate / (1 - self.beta1 ** (self.step + 1)),
        )
