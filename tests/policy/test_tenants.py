"""Priority, fair share and quota among tenants, and what they do on a simulated cluster."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from alto_policy.controller import Controller
from alto_policy.decisions import ExitReason, StartExecutor, Stop
from alto_policy.events import ExecutorDown, ExecutorUp, TaskArrived
from alto_policy.ledger.cluster import Cluster
from alto_policy.policies import build
from alto_policy.policies.fifo import FifoSettings
from alto_policy.policies.shared import SharedSettings
from alto_policy.tenants import Tenant, TenantRules
from alto_policy.types import JobId, Task, TaskId
from tests.policy.cases import gpus, job, memory, task

DAY = 86_400.0


def of(tenant: str, name: str, *, num_gpus: int = 1, priority: int = 0) -> Task:
    plain = task(name, [job(f"{name}0")], num_gpus)
    return replace(plain, tenant=tenant, priority=priority)


class Shop:
    """A policy by shares on so many GPUs, to which tasks come and in which they end."""

    def __init__(self, *tenants: Tenant, num_gpus: int = 1, half_life: float = 1e9) -> None:
        settings = SharedSettings(
            tenants=tenants, half_life_seconds=half_life, within=FifoSettings()
        )
        self._controller = Controller(build(settings), Cluster(gpus(num_gpus)))

    def come(self, t: float, *tasks: Task) -> list[str]:
        """The tasks that start as these arrive; their executors are up at once."""
        started: list[str] = []
        for each in tasks:
            started += self._started(t, TaskArrived(t, each))
        return started

    def end(self, t: float, name: str) -> list[str]:
        """The tasks that start when the executor of this one is gone, its job unfinished."""
        return self._started(t, ExecutorDown(t, TaskId(name)))

    def _started(self, t: float, event: TaskArrived | ExecutorDown) -> list[str]:
        decisions = self._controller.handle(event)
        names = [each.task for each in decisions if isinstance(each, StartExecutor)]
        for name in names:
            self._controller.handle(ExecutorUp(t, name, memory(9)))
        return list(names)


def shares(shop: Shop, tenants: Sequence[str], count: int) -> dict[str, int]:
    """How many of the next stays each tenant gets, all of one length, none of them finished."""
    running = shop.come(0.0, *(of(name, name) for name in tenants))
    had = dict.fromkeys(tenants, 0)
    for number in range(1, count + 1):
        had[running[0]] += 1
        running = running[1:] + shop.end(float(number), running[0])
    return had


def test_of_equal_tenants_each_has_its_turn() -> None:
    assert shares(Shop(), "ab", 10) == {"a": 5, "b": 5}


def test_a_double_share_has_twice_the_time() -> None:
    assert shares(Shop(Tenant(name="a", share=2)), "ab", 30) == {"a": 20, "b": 10}


def test_many_tasks_win_no_more_than_one() -> None:
    shop = Shop()
    assert shop.come(0.0, *(of("a", f"a{i}") for i in range(3)), of("b", "b0")) == ["a0"]
    assert shop.end(10.0, "a0") == ["b0"]


def test_tasks_that_start_at_once_are_dealt_out_in_turn() -> None:
    shop = Shop(num_gpus=4)
    assert shop.come(0.0, of("z", "wide", num_gpus=4)) == ["wide"]
    waiting = [*(of("a", f"a{i}") for i in range(4)), *(of("b", f"b{i}") for i in range(4))]
    assert shop.come(1.0, *waiting) == []
    assert shop.end(5.0, "wide") == ["a0", "b0", "a1", "b1"]


def test_what_was_used_long_ago_counts_less() -> None:
    """a had 10 days until day 10, b has had 4 until day 14."""

    def next_one(half_life: float) -> list[str]:
        shop = Shop(half_life=half_life)
        shop.come(0.0, of("a", "a0"))
        shop.come(1.0, of("b", "b0"))
        assert shop.end(10 * DAY, "a0") == ["b0"]
        return shop.end(14 * DAY, "b0")

    assert next_one(1e9) == ["b0"]
    assert next_one(DAY) == ["a0"]


def test_what_is_used_now_counts_at_once() -> None:
    shop = Shop(num_gpus=2)
    assert shop.come(0.0, of("a", "a0"), of("b", "b0")) == ["a0", "b0"]
    assert shop.come(5.0, of("a", "a1"), of("b", "b1")) == []
    assert shop.end(10.0, "b0") == ["b0"]  # as long as the other one, and first in the order
    assert shop.end(20.0, "a0") == ["a0"]


def test_a_higher_priority_of_the_tenant_comes_first() -> None:
    shop = Shop(Tenant(name="b", priority=1))
    shop.come(0.0, of("b", "b0"), of("a", "a0"), of("b", "b1"), of("a", "a1", priority=9))
    assert shop.end(1000.0, "b0") == ["b0"]


def test_a_priority_of_the_task_orders_those_of_its_tenant_only() -> None:
    shop = Shop()
    shop.come(0.0, of("c", "c0"), of("a", "a0"))
    shop.come(0.0, of("b", "b0", priority=9), of("a", "a1", priority=1))
    assert shop.end(1.0, "c0") == ["a1"]


def test_a_quota_holds_though_gpus_are_free() -> None:
    shop = Shop(Tenant(name="a", max_gpus=2), num_gpus=4)
    shop.come(0.0, of("a", "a0"), of("a", "wide", num_gpus=2))
    assert shop.come(0.0, of("a", "a1"), of("a", "a2"), of("b", "b0")) == ["a1", "b0"]
    assert shop.end(1.0, "b0") == ["b0"]


def test_a_task_beyond_the_quota_is_refused() -> None:
    settings = SharedSettings(tenants=(Tenant(name="a", max_gpus=2),))
    controller = Controller(build(settings), Cluster(gpus(4)))
    decided = controller.handle(TaskArrived(0.0, of("a", "wide", num_gpus=3)))
    assert decided == (Stop(JobId("wide0"), ExitReason.OVER_QUOTA),)


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (lambda: Tenant(share=0), "share must be above 0"),
        (lambda: Tenant(share=float("inf")), "share must be above 0"),
        (lambda: Tenant(max_gpus=0), "max_gpus must be at least 1"),
        (lambda: TenantRules(tenants=(Tenant(name="a"), Tenant(name="a"))), "distinct names"),
        (lambda: TenantRules(half_life_seconds=0), "half_life_seconds must be above 0"),
    ],
)
def test_what_is_no_rule(make: object, what: str) -> None:
    assert callable(make)
    with pytest.raises(ValueError, match=what):
        make()
