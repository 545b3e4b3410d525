"""Placement on several kinds of GPU: who waits for a faster one, and what starts now."""

import random
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alto_policy.controller import Controller
from alto_policy.decisions import Decision, StartExecutor
from alto_policy.estimates import declared_seconds
from alto_policy.events import (
    Departure,
    Event,
    ExecutorDown,
    ExecutorUp,
    JobLeft,
    NodeDown,
    TaskArrived,
)
from alto_policy.ledger.cluster import Cluster
from alto_policy.placement.on_kinds import (
    OnKinds,
    improve_on_kinds,
    schedule_on_kinds,
    starts_on_kinds,
)
from alto_policy.placement.planner import Planner
from alto_policy.placement.plans import Item, Objective
from alto_policy.policies import build
from alto_policy.policies.fifo import FifoSettings
from alto_policy.types import Gpu, GpuId, JobId, Task, TaskId
from tests.policy.cases import job, memory, task

Lanes = list[list[float]]


def planned(
    rows: Sequence[tuple[int, OnKinds]], lanes: Lanes
) -> list[tuple[float, int | None, float]]:
    items = [Item(TaskId(""), width, 1.0) for width, _ in rows]
    slots = schedule_on_kinds(range(len(rows)), items, [on for _, on in rows], lanes)
    return [(slot.start, slot.kind, slot.end) for slot in slots]


def on(*seconds: float, together: float | None = None) -> OnKinds:
    return OnKinds(tuple(enumerate(seconds)), together)


@pytest.mark.parametrize(
    ("rows", "lanes", "expected"),
    [
        pytest.param([(1, on(10, 40))], [[5], [0]], [(5, 0, 15)], id="waits for the faster"),
        pytest.param([(1, on(10, 40))], [[35], [0]], [(0, 1, 40)], id="not for so long"),
        pytest.param([(1, on(10, 40))], [[30], [0]], [(30, 0, 40)], id="of equals the first"),
        pytest.param([(2, on(10, 40))], [[0, 9], [0, 0]], [(9, 0, 19)], id="both of its GPUs"),
        pytest.param(
            [(1, on(10, 40)), (1, on(10, 40)), (1, on(10, 12))],
            [[0], [0]],
            [(0, 0, 10), (10, 0, 20), (0, 1, 12)],
            id="the slow one is left to those whom it slows least",
        ),
        pytest.param(
            [(2, on(10)), (1, on(3))], [[0, 4]], [(4, 0, 14), (14, 0, 17)], id="no gap is filled"
        ),
        pytest.param(
            [(2, on(10)), (1, on(3))],
            [[0, 4, 4]],
            [(4, 0, 14), (0, 0, 3)],
            id="the soonest is left to others",
        ),
        pytest.param(
            [(1, on(7)), (1, on(2))], [[0, 4]], [(0, 0, 7), (4, 0, 6)], id="the soonest for each"
        ),
        pytest.param(
            [(3, on(1, 2, together=5)), (1, on(1, 2))],
            [[0, 3], [0, 0]],
            [(0, None, 5), (3, 0, 4)],
            id="a gang of several kinds",
        ),
    ],
)
def test_a_task_is_where_it_ends_first(
    rows: list[tuple[int, OnKinds]], lanes: Lanes, expected: list[tuple[float, int | None, float]]
) -> None:
    assert planned(rows, lanes) == expected


def drawn(dice: random.Random) -> tuple[list[Item], list[OnKinds], Lanes]:
    lanes = [
        sorted(float(dice.choice([0, 0, dice.randint(1, 30)])) for _ in range(dice.randint(1, 6)))
        for _ in range(dice.randint(2, 3))
    ]
    items, times = [], []
    for number in range(dice.randint(1, 9)):
        width = dice.randint(1, max(map(len, lanes)))
        kinds = [kind for kind, lane in enumerate(lanes) if len(lane) >= width]
        some = dice.sample(kinds, dice.randint(1, len(kinds)))
        seconds = tuple((kind, float(dice.randint(1, 40))) for kind in some)
        items.append(Item(TaskId(str(number)), width, min(each for _, each in seconds)))
        times.append(OnKinds(seconds))
    return items, times, lanes


@pytest.mark.parametrize("objective", Objective)
@pytest.mark.parametrize("seed", range(60))
def test_no_gpu_is_promised_twice_and_a_search_does_no_harm(
    seed: int, objective: Objective
) -> None:
    items, times, lanes = drawn(random.Random(seed))

    def cost(ends: Sequence[float]) -> float:
        return max(ends) if objective is Objective.MAKESPAN else sum(ends) / len(ends)

    first = tuple(range(len(items)))
    order, slots = improve_on_kinds(
        items, times, lanes, objective=objective, nodes=500, hints=[first]
    )
    assert sorted(order) == list(first)
    assert slots == schedule_on_kinds(order, items, times, lanes)
    assert cost([slot.end for slot in slots]) <= cost(
        [slot.end for slot in schedule_on_kinds(first, items, times, lanes)]
    )
    for slot, on_kinds in zip(slots, times, strict=True):
        assert slot.kind is not None
        assert slot.end == slot.start + dict(on_kinds.seconds)[slot.kind]
    for kind, lane in enumerate(lanes):
        here = [(s, i.width) for s, i in zip(slots, items, strict=True) if s.kind == kind]
        for at in {slot.start for slot, _ in here}:
            held = sum(width for slot, width in here if slot.start <= at < slot.end)
            assert held + sum(free > at for free in lane) <= len(lane)


@pytest.mark.parametrize(
    ("rows", "lanes", "expected"),
    [
        pytest.param(
            [(2, on(10)), (1, on(3)), (1, on(5))],
            [[0, 4]],
            [(1, 0)],
            id="done before the wide one begins",
        ),
        pytest.param([(2, on(10)), (1, on(4))], [[0, 4]], [(1, 0)], id="at that very moment"),
        pytest.param(
            [(2, on(10)), (1, on(2, 9))], [[0, 4], [5]], [(1, 0)], id="on the faster kind"
        ),
        pytest.param(
            [(2, on(10)), (1, on(5, 12))],
            [[0, 4], [0]],
            [(1, 1)],
            id="as planned, where the gap is too short",
        ),
        pytest.param(
            [(2, on(10)), (1, on(1)), (1, on(1))], [[0, 4]], [(1, 0)], id="a gap is given away once"
        ),
        pytest.param(
            [(3, on(9, 9, together=9)), (1, on(4)), (1, on(2))],
            [[0, 0], [3]],
            [(2, 0)],
            id="before a gang of several kinds",
        ),
    ],
)
def test_gaps_are_filled(
    rows: list[tuple[int, OnKinds]], lanes: Lanes, expected: list[tuple[int, int]]
) -> None:
    items, times = [Item(TaskId(""), width, 1.0) for width, _ in rows], [each for _, each in rows]
    order = range(len(rows))
    slots = schedule_on_kinds(order, items, times, lanes)
    assert starts_on_kinds(order, items, times, lanes, slots) == expected


class _Table:
    """Another account of the same: who holds so many GPUs of a kind from when to when."""

    def __init__(self, lanes: Lanes) -> None:
        self.lanes = lanes
        self.rows: list[tuple[int, int, float, float]] = []  # kind, width, start, end

    def holds(self) -> bool:
        return all(self._used(kind, at) <= len(self.lanes[kind]) for kind, _, at, _ in self.rows)

    def _used(self, kind: int, at: float) -> int:
        given = sum(w for k, w, start, end in self.rows if k == kind and start <= at < end)
        return given + sum(until > at for until in self.lanes[kind])

    def takes(self, kind: int, width: int, end: float) -> bool:
        moments = [0.0, *[at for k, _, at, _ in self.rows if k == kind and at < end]]
        return all(self._used(kind, at) + width <= len(self.lanes[kind]) for at in moments)


@given(dice=st.randoms(use_true_random=False))
def test_who_fills_a_gap_is_done_sooner_and_delays_nobody(dice: random.Random) -> None:
    """And nobody is left who could."""
    items, times, lanes = drawn(dice)
    order = dice.sample(range(len(items)), len(items))
    slots = schedule_on_kinds(order, items, times, lanes)
    kinds = dict(starts_on_kinds(order, items, times, lanes, slots))
    assert {index for index in order if slots[index].start == 0.0} <= set(kinds)
    planned, done = _Table(lanes), _Table(lanes)
    for index, (slot, item) in enumerate(zip(slots, items, strict=True)):
        assert slot.kind is not None
        planned.rows.append((slot.kind, item.width, slot.start, slot.end))
        kind, start, end = slot.kind, slot.start, slot.end
        if index in kinds:
            assert kinds[index] is not None
            kind, start = kinds[index] or 0, 0.0
            end = dict(times[index].seconds)[kind]
            assert end <= slot.end
        done.rows.append((kind, item.width, start, end))
    assert planned.holds()
    assert done.holds()
    both = _Table(lanes)  # those that began sooner are still planned
    both.rows = [*done.rows, *[planned.rows[i] for i in kinds if slots[i].start > 0.0]]
    for index in set(order) - set(kinds):
        for kind, seconds in times[index].seconds:
            assert seconds > slots[index].end or not both.takes(kind, items[index].width, seconds)


GPUS = tuple(
    Gpu(id=GpuId(i), kind=kind, node=kind)
    for i, kind in enumerate(["fast", "fast", "slow", "slow"])
)
STEPS = {"long": 100, "short": 30, "brief": 2}


class Scene:
    """Two fast GPUs and two slow ones, told events by hand."""

    def __init__(self, objective: Objective, **speeds: float) -> None:
        """With tasks that arrive at once, whose names tell how long they are, and how wide; each
        has a speed on the slow ones, zero where they do not hold it."""
        place = Planner(lambda task, _: declared_seconds(task), objective=objective)
        self._controller = Controller(build(FifoSettings(), place), Cluster(GPUS))
        self.decided: list[Decision] = []
        for name, speed in speeds.items():
            steps = STEPS[name.rstrip("0123wide_")]
            made = task(name, [replace(job(name), steps=steps, reports=1)], 1 + ("wide" in name))
            kinds = {"fast": 1.0} | ({"slow": speed} if speed else {})
            told = replace(made, kinds=tuple(kinds), speeds=tuple(kinds.values()))
            self.tell(TaskArrived(0.0, told))

    def tell(self, event: Event) -> dict[str, tuple[int, ...]]:
        decided = self._controller.handle(event)
        self.decided += decided
        return {one.task: one.gpus for one in decided if isinstance(one, StartExecutor)}

    @property
    def started(self) -> dict[str, tuple[int, ...]]:
        return {one.task: one.gpus for one in self.decided if isinstance(one, StartExecutor)}

    def end(self, name: str) -> dict[str, tuple[int, ...]]:
        self.tell(ExecutorUp(1.0, TaskId(name), memory(9)))
        self.tell(JobLeft(2.0, JobId(name), Departure.FINISHED))
        return self.tell(ExecutorDown(3.0, TaskId(name)))


def test_a_task_waits_for_the_faster_kind_where_it_ends_sooner() -> None:
    """On a slow one it would take ten times as long; for a fast one it waits 30 s."""
    scene = Scene(Objective.MAKESPAN, short0=0.1, short1=0.1, long=0.1)
    assert scene.started == {"short0": (0,), "short1": (1,)}
    assert scene.end("short1") == {"long": (1,)}


def test_a_task_starts_on_the_slower_kind_where_it_ends_sooner() -> None:
    scene = Scene(Objective.MAKESPAN, long0=0.5, long1=0.5, short=0.5)
    assert scene.started == {"long0": (0,), "long1": (1,), "short": (2,)}


@pytest.mark.parametrize(
    ("speed", "gang"),
    [pytest.param(0.0, None, id="it waits"), pytest.param(0.9, (2,), id="on the slow one")],
)
def test_a_free_gpu_is_kept_for_whom_it_was_planned(
    speed: float, gang: tuple[int, ...] | None
) -> None:
    """For the mean it is best that the wide one is next on both fast ones, in 2 s."""
    scene = Scene(Objective.MEAN_COMPLETION, brief=0.0, brief_wide=0.0, short=speed)
    assert scene.started.pop("brief") == (0,)
    assert scene.started.get("short") == gang


def test_nobody_waits_for_a_node_that_is_down() -> None:
    scene = Scene(Objective.MAKESPAN)
    scene.tell(NodeDown(0.0, "fast"))
    made: Task = task("t", [job("t")], 1)
    arrived = TaskArrived(1.0, replace(made, kinds=("fast", "slow"), speeds=(1.0, 0.01)))
    assert scene.tell(arrived) == {"t": (2,)}
