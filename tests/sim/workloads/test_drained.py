"""The work that a cluster of several kinds can do at most, worked out by hand."""

from dataclasses import replace

import pytest

from alto_policy.types import Task
from alto_sim.workloads.drained import drained_seconds
from tests.sim.cases import job, task


def told(width: int = 1, **speeds: float) -> Task:
    made = task("t", [job("t0", 1, 1)], width)
    return replace(made, kinds=tuple(speeds), speeds=tuple(speeds.values()))


@pytest.mark.parametrize(
    ("tasks", "expected"),
    [
        pytest.param([told(fast=1.0)], 60 / 2, id="one kind"),
        pytest.param([told(fast=1.0, slow=0.5)], 60 / (2 + 4 * 0.5), id="on both kinds"),
        pytest.param([told(width=2, slow=0.5)], 2 * 120 / 4, id="a wide one"),
        pytest.param([told(width=6, fast=1.0, slow=0.5)], 120, id="wider than each kind"),
        pytest.param([told(fast=1.0), told(slow=0.25)], 240 / 4, id="the later of two kinds"),
        pytest.param([told(fast=1.0), told()], 60 / 2, id="one that no kind holds"),
        pytest.param(
            # 60 / 2 for the second on the fast ones, 120 / 4 for the first on the others.
            [told(fast=1.0, slow=0.5), told(fast=1.0, slow=0.1)],
            30.0,
            id="each where it suits",
        ),
        pytest.param(
            [told(fast=1.0, slow=0.25), told(fast=1.0, slow=0.1)],
            # 60 x / 2 + 60 / 2 = 240 (1 - x) / 4
            40.0,
            id="a part of one goes where the other is",
        ),
    ],
)
def test_the_least_time(tasks: list[Task], expected: float) -> None:
    counts = {"fast": 2, "slow": 4}
    assert drained_seconds(tasks, lambda _: 60.0, counts) == pytest.approx(expected)
