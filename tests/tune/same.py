"""The one tolerance of these tests."""

import torch
from torch import Tensor

__all__ = ["assert_same_values"]

_RELATIVE = 1e-6  # of the largest value: fp32 sums in another order, in another packing


def assert_same_values(ours: Tensor | float, theirs: Tensor | float) -> None:
    a, b = (torch.as_tensor(value, dtype=torch.float64) for value in (ours, theirs))
    assert a.shape == b.shape
    assert (a - b).abs().max() <= _RELATIVE * b.abs().max()
