"""Without a GPU, Triton's kernels run in its interpreter.

Triton reads the variable when a kernel is defined, so it stands before any test is imported.
"""

import os

import hypothesis
import pytest
import torch

from alto_exec.host.process import keep_the_order_of_sums

keep_the_order_of_sums()  # tests multiply before an executor starts

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"

# The same examples each time, however long one takes: a machine that stalls breaks no property.
# `--hypothesis-profile default` looks for others.
hypothesis.settings.load_profile("ci")

# Whose files train once for many tests, and whose tests are the longest: groups begin first.
_TOGETHER = {"parallel", "service", "tune"}


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """One more than there are cores: tests of a cluster mostly wait for it."""
    return len(os.sched_getaffinity(0)) + 1


@pytest.hookimpl(tryfirst=True)  # xdist reads the marks when it is its turn
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """A file of these in one process of xdist."""
    if not config.pluginmanager.hasplugin("xdist"):
        return
    for item in items:
        if item.path.parent.name in _TOGETHER:
            item.add_marker(pytest.mark.xdist_group(f"{item.path.parent.name}-{item.path.stem}"))
