"""How numbers are compared in these tests: exactly, or within the one tolerance there is."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = [
    "Trajectory",
    "assert_close",
    "assert_identical",
    "assert_no_worse_than",
    "assert_same_training",
    "in_double_precision",
]

# Of fp32 with another order of sums: about 8 units in the last place, in the norm of a tensor.
_TOLERANCE = 1e-6


@dataclass(frozen=True, slots=True)
class Trajectory:
    """The loss of each step, and the adapter after the last one by the names that PEFT uses."""

    losses: tuple[float, ...]
    adapter: Mapping[str, Tensor]


def assert_close(found: Tensor, expected: Tensor, what: str = "tensor") -> None:
    """Their difference is at most 1e-6 of the expected one, both by their norms."""
    assert found.shape == expected.shape, what
    assert torch.isfinite(expected).all(), what
    error = torch.linalg.vector_norm(found.double() - expected.double())
    limit = _TOLERANCE * torch.linalg.vector_norm(expected.double())
    assert error <= limit, f"{what}: differs by {error:.3e}, allowed {limit:.3e}"


def assert_identical(found: Tensor, expected: Tensor, what: str = "tensor") -> None:
    assert torch.equal(found, expected), f"{what}: differs by {(found - expected).abs().max():.3e}"


def assert_no_worse_than(found: Tensor, own: Tensor, truth: Tensor, what: str = "tensor") -> None:
    """`found` is at most twice as far from the truth as PyTorch's `own`, or within the tolerance.

    The second is for results that PyTorch happens to get exactly right.
    """
    assert found.shape == truth.shape, what
    error, limit = (float(torch.linalg.vector_norm(t.double() - truth)) for t in (found, own))
    floor = 0.1 * _TOLERANCE * float(torch.linalg.vector_norm(truth))
    assert error <= max(2 * limit, floor), f"{what}: is off by {error:.3e}, PyTorch by {limit:.3e}"


def assert_same_training(
    found: Trajectory, expected: Trajectory, *, bitwise: bool = False, what: str = "job"
) -> None:
    """The losses of all steps, and every matrix of the adapter."""
    compare = assert_identical if bitwise else assert_close
    compare(_column(found.losses), _column(expected.losses), f"{what}: losses")
    assert found.adapter.keys() == expected.adapter.keys()
    for name, tensor in expected.adapter.items():
        compare(found.adapter[name], tensor, f"{what}: {name}")


@contextmanager
def in_double_precision() -> Iterator[None]:
    """New tensors are float64, so that what two trainings differ by is a mistake, not rounding.

    Adam divides a gradient by its own size: where one is nearly zero, it turns the rounding of
    fp32 into a difference of 1e-5, of PEFT from itself as well.
    """
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


def _column(losses: Sequence[float]) -> Tensor:
    return torch.tensor(losses, dtype=torch.float64)
