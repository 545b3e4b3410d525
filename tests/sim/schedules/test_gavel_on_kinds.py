"""Gavel on several kinds of GPU: shares and schedules that can be worked out by hand."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from alto_policy.events import JobLeft, TaskArrived, TimerFired
from alto_policy.gangs import Gangs
from alto_policy.kinds.shares import KindShares
from alto_policy.policies.gavel import GavelSettings
from alto_policy.runlog import Entry
from alto_policy.types import Gpu, GpuId, JobId, Task
from alto_sim.simulate import play
from alto_sim.workloads.rigid import AT_ONCE
from alto_sim.workloads.workload import Workload
from tests.sim.cases import Flat, job, task

Speeds = dict[str, float]


def gpus(**counts: int) -> tuple[Gpu, ...]:
    kinds = [kind for kind, count in counts.items() for _ in range(count)]
    return tuple(Gpu(id=GpuId(i), kind=kind) for i, kind in enumerate(kinds))


def told(name: str, speeds: Speeds, width: int = 1, steps: int = 1) -> Task:
    made = task(name, [job(name, steps, 1)], width)
    return replace(made, kinds=tuple(speeds), speeds=tuple(speeds.values()))


@pytest.mark.parametrize(
    ("counts", "rows", "shares"),
    [
        pytest.param(
            # (x + (1 - x) / 2) / 0.75 = ((1 - x) + x / 5) / 0.6, of the whole time of both
            {"fast": 1, "slow": 1},
            [({"fast": 1.0, "slow": 0.5}, 1), ({"fast": 1.0, "slow": 0.2}, 1)],
            [{"fast": 0.5, "slow": 0.5}, {"fast": 0.5, "slow": 0.5}],
            id="each has what it would have of an even division",
        ),
        pytest.param(
            # Evenly 1/2 and 9/16 of a fast one: x / (1/2) = (1 - x + x / 8) / (9/16).
            {"fast": 1, "slow": 1},
            [({"fast": 1.0}, 1), ({"fast": 1.0, "slow": 0.125}, 1)],
            [{"fast": 0.5}, {"fast": 0.5, "slow": 0.5}],
            id="one that the slow kind does not hold",
        ),
        pytest.param(
            {"fast": 1, "slow": 4},
            [({"fast": 1.0, "slow": 0.5}, 1)],
            [{"fast": 1.0, "slow": 0.0}],
            id="alone it has the best",
        ),
        pytest.param(
            # As on one kind: 4 GPUs for widths of 1 and 4, whose shares times width are alike.
            {"fast": 2, "slow": 4},
            [({"slow": 1.0}, 1), ({"slow": 0.5}, 4)],
            [{"slow": 1.0}, {"slow": 0.75}],
            id="what the narrow cannot use is the wide one's",
        ),
        pytest.param(
            {"fast": 2, "slow": 3},
            [({"fast": 1.0, "slow": 0.5}, 4), ({"fast": 1.0, "slow": 0.5}, 4)],
            [{"fast slow": 0.5}, {"fast slow": 0.5}],
            id="wider than each kind",
        ),
    ],
)
def test_shares(
    counts: dict[str, int], rows: list[tuple[Speeds, int]], shares: list[Speeds]
) -> None:
    tasks = [told(f"t{i}", speeds, width) for i, (speeds, width) in enumerate(rows)]
    divided = KindShares(Gangs(gpus(**counts), same_node=False))
    divided.divide(tasks)
    for each, expected in zip(tasks, shares, strict=True):
        found = {" ".join(kinds): fraction for kinds, fraction in divided.of(each)}
        assert found == pytest.approx(expected)


def entries(
    cluster: tuple[Gpu, ...], speeds: Speeds, rows: list[Task], at: Sequence[float] = ()
) -> list[Entry]:
    """Of rigid jobs; those that move lose no time."""
    found: list[Entry] = []
    given = Workload(
        arrivals=tuple(map(TaskArrived, at or [0.0] * len(rows), rows)),
        curves=Flat(),
        latencies=AT_ONCE,
        durations={JobId(each.id): float(each.jobs[0].steps) for each in rows},
        speeds=speeds,
    )
    play(given, GavelSettings(round_seconds=1.0), cluster, found.append)
    return found


def ends(cluster: tuple[Gpu, ...], speeds: Speeds, rows: list[Task]) -> Speeds:
    last = [e.event for e in entries(cluster, speeds, rows) if isinstance(e.event, JobLeft)]
    return {event.job: event.t for event in last}


SPEEDS = {"fast": 1.0, "slow": 0.25}


def test_tasks_take_turns_on_the_fast_kind() -> None:
    """Each does 0.625 a second; b ends at 640, and a, which has done 400, goes on at full speed."""
    rows = [told("a", SPEEDS, steps=1000), told("b", SPEEDS, steps=400)]
    found = ends(gpus(fast=1, slow=1), SPEEDS, rows)
    assert found == pytest.approx({"a": 1240.0, "b": 640.0}, abs=4.0)


def test_those_that_wait_and_those_on_the_slow_kind_have_the_same() -> None:
    """Three of them do 1.25 / 3 a second together; on time alone b and c would do less."""
    rows = [told(name, SPEEDS, steps=500) for name in "abc"]
    found = ends(gpus(fast=1, slow=1), SPEEDS, rows)
    assert found == pytest.approx(dict.fromkeys("abc", 1200.0), abs=6.0)


def test_a_gang_of_several_kinds_takes_its_turn() -> None:
    """a needs all three GPUs, so that b and c run beside each other or not at all."""
    rows = [
        told("a", SPEEDS, 3, steps=25),
        *(told(name, {"slow": 0.25}, steps=25) for name in "bc"),
    ]
    found = ends(gpus(fast=1, slow=2), SPEEDS, rows)
    assert set(found) == {"a", "b", "c"}
    assert max(found.values()) <= 210.0


def test_kinds_are_changed_where_nobody_waits() -> None:
    """b ends while a is on the slow one: a has done 62.5 at 100."""
    rows = [told("a", SPEEDS, steps=500), told("b", {"fast": 1.0}, steps=50)]
    found = ends(gpus(fast=1, slow=1), SPEEDS, rows)
    assert found == pytest.approx({"a": 537.5, "b": 100.0}, abs=4.0)


def test_no_round_is_slept_through() -> None:
    """Though none waits, and some of them change nothing: a has had the fast one for long."""
    rows = [told("a", SPEEDS, steps=2000), told("b", SPEEDS, steps=60)]
    found = entries(gpus(fast=1, slow=1), SPEEDS, rows, at=[0.0, 1000.0])
    rounds = [entry for entry in found if isinstance(entry.event, TimerFired)]
    times = [entry.event.t for entry in rounds if 1000.0 < entry.event.t <= 1050.0]
    assert times == [1000.0 + number for number in range(1, 51)]
    assert any(len(entry.decisions) == 1 for entry in rounds)  # that of the next one
