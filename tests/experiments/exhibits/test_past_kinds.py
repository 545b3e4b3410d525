"""The exhibit of a cluster of several kinds, on a few tasks."""

import pytest

from alto_sim.machines.nodes import Nodes
from experiments.exhibits.past_kinds import BARS, CLUSTER, fared, jain, workload_of


def test_jains_index() -> None:
    assert jain([2.0, 2.0, 2.0]) == 1.0
    assert jain([5.0, 0.0, 0.0, 0.0]) == 0.25
    assert jain([1.0, 3.0]) == pytest.approx(16 / 20)


def test_weighing_kinds_pays() -> None:
    workload, nodes = workload_of(30, 1), Nodes(CLUSTER)
    found = {bar.name: fared(bar, workload, nodes) for bar in BARS}
    assert found["fifo, placed"].completion < 0.95 * found["fifo"].completion
    assert found["alto"].completion < 0.5 * found["fifo"].completion
    assert found["gavel"].fairness == max(
        found[name].fairness for name in ("fifo", "fifo, placed", "sjf", "gavel")
    )
