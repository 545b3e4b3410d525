"""A cluster of several kinds of GPU: who may be where, and which GPUs a gang gets."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from alto_policy.controller import Controller
from alto_policy.decisions import Decision, ExitReason, StartExecutor, Stop, StopExecutor
from alto_policy.estimates import declared_seconds
from alto_policy.events import Departure, ExecutorDown, ExecutorUp, JobLeft, TaskArrived
from alto_policy.gangs import Gangs
from alto_policy.ledger.cluster import Cluster
from alto_policy.ledger.transitions import IllegalDecisionError
from alto_policy.placement.planner import Planner
from alto_policy.policies import SETTINGS, build
from alto_policy.policies.fifo import FifoSettings
from alto_policy.policies.shared import SharedSettings
from alto_policy.policies.sjf import SjfSettings
from alto_policy.policies.srtf import SrtfSettings
from alto_policy.types import Gpu, GpuId, JobId, Kinds, Task, TaskId
from tests.policy.cases import job, memory, task

# Three large ones on two nodes, five small ones on two others.
GPUS = tuple(
    Gpu(id=GpuId(i), kind=kind, node=node)
    for i, (kind, node) in enumerate(
        [("big", "a"), ("big", "b"), ("big", "b")] + [("small", "c")] * 2 + [("small", "d")] * 3
    )
)
FREE = tuple(gpu.id for gpu in GPUS)


def ids(*numbers: int) -> tuple[GpuId, ...]:
    return tuple(GpuId(number) for number in numbers)


def on(kinds: Kinds, name: str = "t", width: int = 1, steps: int = 4) -> Task:
    return replace(task(name, [replace(job(name), steps=steps, reports=1)], width), kinds=kinds)


def gangs_of(decisions: Sequence[Decision]) -> dict[str, tuple[int, ...]]:
    return {one.task: one.gpus for one in decisions if isinstance(one, StartExecutor)}


@pytest.mark.parametrize(
    ("free", "width", "kinds", "gang"),
    [
        pytest.param(FREE, 2, None, ids(0, 1), id="the lowest"),
        pytest.param(FREE, 2, ("small", "big"), ids(3, 4), id="its best kind"),
        pytest.param(FREE, 2, ("small",), ids(3, 4), id="its only kind"),
        pytest.param(ids(0, 4, 5), 2, ("big", "small"), ids(4, 5), id="the kind that has room"),
        pytest.param(ids(0, 1, 3), 2, ("small",), None, id="its kind has no room"),
        pytest.param(ids(0, 1, 3, 4), 4, None, None, id="one kind has as many, if not now"),
        pytest.param(FREE, 6, None, ids(0, 1, 2, 3, 4, 5), id="wider than each kind"),
        pytest.param(FREE, 6, ("small", "big"), ids(0, 3, 4, 5, 6, 7), id="the best kind first"),
        pytest.param(FREE, 6, ("small",), None, id="wider than its kind"),
        pytest.param(FREE, 1, (), None, id="no kind"),
    ],
)
def test_a_gang_has_one_kind_unless_it_is_wider_than_each(
    free: tuple[GpuId, ...], width: int, kinds: Kinds, gang: tuple[GpuId, ...] | None
) -> None:
    gangs = Gangs(GPUS, same_node=False)
    assert gangs.fits(free, width, kinds) is (gang is not None)
    if gang is not None:
        rest = tuple(gpu for gpu in free if gpu not in gang)
        assert gangs.take(free, width, kinds) == (gang, rest)


@pytest.mark.parametrize(
    ("width", "kinds", "gang"),
    [
        (2, None, ids(1, 2)),
        (2, ("small", "big"), ids(3, 4)),
        (3, None, ids(5, 6, 7)),
        (3, ("big",), None),
        (6, None, None),
    ],
)
def test_a_gang_on_one_node_of_its_best_kind(
    width: int, kinds: Kinds, gang: tuple[GpuId, ...] | None
) -> None:
    gangs = Gangs(GPUS, same_node=True)
    assert gangs.can_hold(width, kinds) is (gang is not None)
    if gang is not None:
        assert gangs.take(FREE, width, kinds)[0] == gang


def test_the_ledger_takes_no_task_to_a_kind_that_is_too_small() -> None:
    ledger = Cluster(GPUS)
    ledger.apply(TaskArrived(0.0, on(("big",))))
    with pytest.raises(IllegalDecisionError, match="GPU 3 is of kind small, too small for it"):
        ledger.commit(StartExecutor(TaskId("t"), ids(3)))
    assert ledger.free_gpus() == FREE
    ledger.commit(StartExecutor(TaskId("t"), ids(2)))


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("is_planned", [False, True], ids=["in order", "planned"])
def test_every_policy_passes_by_the_kinds_that_are_too_small(name: str, is_planned: bool) -> None:
    """More tasks wait for a large one than there are small ones free."""
    place = Planner(lambda task, _: declared_seconds(task)) if is_planned else None
    controller = Controller(build(SETTINGS[name](), place), Cluster(GPUS))
    started: dict[str, tuple[int, ...]] = {}
    for number, kinds in enumerate([("big",)] * 9 + [("small", "big")] * 2):
        arrived = TaskArrived(float(number), on(kinds, f"t{number}"))
        started |= gangs_of(controller.handle(arrived))
    if name == "exclusive" and not is_planned:  # nobody passes the fourth
        assert started == {"t0": (0,), "t1": (1,), "t2": (2,)}
    else:
        assert started == {"t0": (0,), "t1": (1,), "t2": (2,), "t9": (3,), "t10": (4,)}
    finish(controller, "t1", GpuId(1), 10.0)
    decided = controller.handle(ExecutorDown(12.0, TaskId("t1")))
    assert gangs_of(decided)["t3"] == (1,)


def finish(controller: Controller, name: str, gpu: GpuId, now: float) -> None:
    decided = controller.handle(ExecutorUp(now, TaskId(name), memory(9)))
    (launch,) = decided
    assert getattr(launch, "gpu", None) == gpu
    decided = controller.handle(JobLeft(now + 1, JobId(name), Departure.FINISHED))
    assert StopExecutor(TaskId(name)) in decided


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize(
    ("kinds", "width"),
    [((), 1), (("big",), 4), (None, 9)],
    ids=["no kind", "its kind is too few", "too wide"],
)
def test_every_policy_rejects_what_no_kinds_hold(name: str, kinds: Kinds, width: int) -> None:
    controller = Controller(build(SETTINGS[name]()), Cluster(GPUS))
    decided = controller.handle(TaskArrived(0.0, on(kinds, width=width)))
    assert decided == (Stop(JobId("t"), ExitReason.TOO_LARGE),)
    decided = controller.handle(TaskArrived(1.0, on(None, "u")))
    assert gangs_of(decided) == {"u": (0,)}


def test_a_wide_task_that_waits_for_its_kind_holds_up_nobody() -> None:
    controller = Controller(build(FifoSettings()), Cluster(GPUS))
    controller.handle(TaskArrived(0.0, on(("small",), "s", 3)))
    controller.handle(TaskArrived(1.0, on(None, "w", 5)))  # as wide as there are small ones
    decided = controller.handle(TaskArrived(2.0, on(None, "n")))
    assert gangs_of(decided) == {"n": (0,)}


def test_only_holders_of_the_right_kind_give_way() -> None:
    """The least urgent of all is on a small one, which is of no use to a task for large ones."""
    controller = Controller(build(SrtfSettings(), estimate=declared_seconds), Cluster(GPUS))
    for name, kinds, width, steps in (
        ("long", ("small",), 5, 900),
        ("middle", ("big",), 2, 500),
        ("short", ("big",), 1, 400),
    ):
        controller.handle(TaskArrived(0.0, on(kinds, name, width, steps)))
    decided = controller.handle(TaskArrived(1.0, on(("big",), "urgent", 1, 2)))
    assert decided == (StopExecutor(TaskId("middle")),)  # it has no job yet


def test_a_task_that_finds_no_room_of_its_kinds_does_not_count_for_its_tenant() -> None:
    controller = Controller(build(SharedSettings()), Cluster(GPUS[:4]))
    for name, kind, width in (("b", "big", 3), ("s", "small", 1)):
        controller.handle(TaskArrived(0.0, on((kind,), name, width)))
    rows: list[tuple[str, Kinds, str]]
    rows = [("x", ("big",), "one"), ("y", None, "one"), ("z", None, "two")]
    for name, kinds, tenant in rows:
        controller.handle(TaskArrived(1.0, replace(on(kinds, name), tenant=tenant)))
    finish(controller, "s", GpuId(3), 2.0)
    decided = controller.handle(ExecutorDown(4.0, TaskId("s")))
    assert gangs_of(decided) == {"y": (3,)}


def test_a_key_is_that_of_all_kinds() -> None:
    """The shortest that waits starts first, wherever it may be."""
    controller = Controller(build(SjfSettings(), estimate=declared_seconds), Cluster(GPUS[:4]))
    for name, kind, width in (("b", "big", 3), ("s", "small", 1)):
        controller.handle(TaskArrived(0.0, on((kind,), name, width)))
    rows: list[tuple[str, Kinds, int]] = [("x", None, 9), ("y", ("small",), 5), ("z", ("big",), 7)]
    for name, kinds, steps in rows:
        controller.handle(TaskArrived(1.0, on(kinds, name, 1, steps)))
    finish(controller, "s", GpuId(3), 2.0)
    decided = controller.handle(ExecutorDown(4.0, TaskId("s")))
    assert gangs_of(decided) == {"y": (3,)}
