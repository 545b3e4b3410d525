"""Policies by rounds sleep through those at which nothing can change, and lose nothing by it."""

import random
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from alto_policy.estimates import DurationEstimate, declared_seconds
from alto_policy.events import TimerFired
from alto_policy.policies import Settings
from alto_policy.policies.ftf import FtfSettings
from alto_policy.policies.gavel import GavelSettings
from alto_policy.policies.las import LasSettings
from alto_policy.preemption import Preemptive
from alto_policy.runlog import Entry
from alto_policy.types import Task
from alto_sim.importers import read_trace
from alto_sim.machines.hardware import gpus_of
from alto_sim.machines.latencies import Latencies
from alto_sim.simulate import play
from alto_sim.workloads.rigid import AT_ONCE, rigid
from tests.sim.schedules.test_schedulers import Row, Stay, stays, workload

# No sum of these is whole: whether what happens at the very moment of a round counts is a toss-up.
LATE = Latencies(
    start=1.013, load=2.0007, launch=0, report=0, pause=0.503, checkpoint=4.00009, stop=0.251
)
BY_ROUNDS: tuple[Settings, ...] = (
    LasSettings(thresholds=(40.0, 400.0), round_seconds=7.0),
    FtfSettings(round_seconds=7.0),
    GavelSettings(round_seconds=7.0),
)


def rows(seed: int) -> list[Row]:
    """Bursts of jobs of all lengths, more than four GPUs can hold."""
    dice = random.Random(seed)
    found: list[Row] = []
    now = 0
    for number in range(24):
        now += dice.choice((0, 3, 60, 333))
        found.append((f"j{number}", now, dice.choice((5, 50, 200, 900)), dice.choice((1, 1, 2, 4))))
    return found


def wrong(task: Task) -> float:
    """An estimate that some tasks overrun by far."""
    return declared_seconds(task) * (0.3 if task.id.endswith(("1", "4", "7")) else 1.5)


@pytest.mark.parametrize("estimate", [declared_seconds, wrong])
@pytest.mark.parametrize("latencies", [AT_ONCE, LATE], ids=["at once", "late"])
@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("settings", BY_ROUNDS, ids=lambda settings: type(settings).__name__)
def test_sleeping_changes_no_schedule(
    settings: Settings,
    seed: int,
    latencies: Latencies,
    estimate: DurationEstimate,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given = workload(rows(seed), latencies)
    asleep: list[Stay] = stays(settings, given, 4, estimate)
    monkeypatch.setattr(Preemptive, "_same_rounds", lambda *_: 0)
    assert asleep == stays(settings, given, 4, estimate)


def test_a_long_trace_is_mostly_slept_through() -> None:
    """500 jobs over 61 days: 17,700 rounds of five minutes."""
    kinds: Counter[type] = Counter()

    def record(entry: Entry) -> None:
        kinds[type(entry.event)] += 1

    began = time.process_time()
    trace = read_trace(Path("traces/muri/trace1.csv.gz"))
    given = rigid(replace(trace, jobs=trace.jobs[:500]), AT_ONCE)
    play(given, LasSettings(), gpus_of(64), record)
    assert kinds[TimerFired] < 2_500
    assert time.process_time() - began < 60
