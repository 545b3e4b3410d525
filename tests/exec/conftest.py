import gc
from collections.abc import Iterator

import pytest
import torch

from tests.exec.comparing import in_double_precision


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """A second thread makes the tiny models slower, not faster."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def _only_what_is_new() -> Iterator[None]:
    """Looks for garbage pass over all that was there before: with the modules of all tests they
    take a third of a second each."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture
def double_precision() -> Iterator[None]:
    with in_double_precision():
        yield
