"""Without a GPU, Triton's kernels run in its interpreter.

Triton reads the variable when a kernel is defined, so it stands before any test is imported.
"""

import os

import pytest
import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """One more than there are cores: tests of a cluster mostly wait for it."""
    return len(os.sched_getaffinity(0)) + 1
