"""Without a GPU, Triton's kernels run in its interpreter.

Triton reads the variable when a kernel is defined, so it stands before any test is imported.
"""

import os
from pathlib import Path

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

# Whose files train once for many tests.
_TOGETHER = {"parallel", "service", "tune"}
_SHARING = {"test_fidelity", "test_neighbours"}  # files: what all their tests use takes seconds
# A run is over when its longest chain is: that of the cluster begins before all others, then what
# is in groups, then the folders with the longest tests.
_FIRST = ("ray", "ray-of-their-own")
_BEFORE_OTHERS = ("kernels", "sim")


def pytest_configure(config: pytest.Config) -> None:
    """What is handed out keeps the order of the items; xdist's own is by the number of tests."""
    if hasattr(config.option, "loadscopereorder"):
        config.option.loadscopereorder = False


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """One more than there are cores: tests of a cluster mostly wait for it."""
    return len(os.sched_getaffinity(0)) + 1


@pytest.hookimpl(tryfirst=True)  # xdist reads the marks when it is its turn
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """A file of these in one process of xdist."""
    has_processes = config.pluginmanager.hasplugin("xdist")
    for item in items:
        folder, file = item.path.parent.name, item.path.stem
        if folder in _TOGETHER:
            item.add_marker(pytest.mark.timeout(900))
        if has_processes and (folder in _TOGETHER or file in _SHARING):
            item.add_marker(pytest.mark.xdist_group(f"{folder}-{file}"))
    items.sort(key=_turn)


def _turn(item: pytest.Item) -> int:
    if mark := item.get_closest_marker("xdist_group"):
        (group,) = mark.args
        return _FIRST.index(group) if group in _FIRST else len(_FIRST)
    parts = item.path.relative_to(Path(__file__).parent).parts
    return len(_FIRST) + (1 if parts[0] in _BEFORE_OTHERS else 2)
