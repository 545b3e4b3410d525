"""What one optimizer step reads and changes. Suffixes: R rows of the bank, C columns, B blocks."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["BLOCK", "Bank", "Moments", "Update"]

BLOCK = 256  # columns of one row that share a scale, in 8 bits


@dataclass(frozen=True, slots=True)
class Moments:
    """Both moments of the gradient, (R, C) fp32 each; or uint8 codes of the first and of the root
    of the second, with the largest of each block (R, B) fp32: see `codes.py`."""

    mean_RC: Tensor
    square_RC: Tensor
    mean_scale_RB: Tensor | None = None
    root_scale_RB: Tensor | None = None

    @classmethod
    def zeros(cls, rows: int, columns: int, device: torch.device, *, in_8_bits: bool) -> "Moments":
        def zeros(width: int, dtype: torch.dtype | None = None) -> Tensor:
            return torch.zeros(rows, width, device=device, dtype=dtype)

        if not in_8_bits:
            return cls(zeros(columns), zeros(columns))
        blocks = -(-columns // BLOCK)
        first, second = (zeros(columns, torch.uint8) for _ in range(2))
        return cls(first, second, zeros(blocks), zeros(blocks))

    @property
    def in_8_bits(self) -> bool:
        return self.mean_scale_RB is not None

    @property
    def tensors(self) -> Mapping[str, Tensor]:
        """By the names under which they are kept, in the order of the fields."""
        found = {
            "mean": self.mean_RC,
            "square": self.square_RC,
            "mean_scale": self.mean_scale_RB,
            "root_scale": self.root_scale_RB,
        }
        return {name: tensor for name, tensor in found.items() if tensor is not None}


@dataclass(frozen=True, slots=True)
class Bank:
    """fp32; `copy_RC` is the values in a narrower type for the kernels, never infinite or NaN.

    So a job whose values are lost turns its own rows of a batch into rubbish, and no neighbour's:
    a zero times a finite number is zero.
    """

    value_RC: Tensor
    grad_RC: Tensor
    moments: Moments
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
