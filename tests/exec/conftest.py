from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """A second thread makes the tiny models slower, not faster."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def double_precision() -> Iterator[None]:
    """New tensors are float64, so that what two trainings differ by is a mistake, not rounding.

    Adam divides a gradient by its own size: where one is nearly zero, it turns the rounding of
    fp32 into a difference of 1e-5, of PEFT from itself as well.
    """
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)
