"""What a step works on, and how each job wants it.

Shape suffixes of this folder: R rows of the bank, C its columns, r rows of one job.
"""

from dataclasses import dataclass

from torch import Tensor

__all__ = ["Bank", "JobStep"]


@dataclass(frozen=True, slots=True)
class Bank:
    """(R, C) each; `shadow_RC` is a copy of the values in a narrower dtype, or the values."""

    value_RC: Tensor
    grad_RC: Tensor
    mean_RC: Tensor
    square_RC: Tensor
    shadow_RC: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class JobStep:
    """Step `step`, counted from 1, of the job in rows `first_row` to `end_row`."""

    first_row: int
    end_row: int
    step: int
    rate: float
    weight_decay: float
    beta1: float
    beta2: float
    epsilon: float
    clip: float | None  # largest norm of the job's gradient

    @property
    def mean_correction(self) -> float:
        return 1 - self.beta1**self.step

    @property
    def square_correction(self) -> float:
        return 1 - self.beta2**self.step
