"""How a head notices that an executor is slow, silent or gone; without Ray's processes."""

import logging
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from ray.exceptions import ActorUnavailableError, RayError

from alto_exec.ray_cluster import remote, roster
from alto_exec.ray_cluster.node.messages import PULSE, Broken, Pulse
from alto_exec.ray_cluster.remote import LostError, Patience, RemoteExecutor
from alto_policy.types import TaskId

PATIENCE = Patience()
NODE = "node"


class Clock:
    now = 100.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class Quarters:
    """Whoever listens hears what was put here, an error among it."""

    def __init__(self) -> None:
        self.share = SimpleNamespace(nodes=(NODE,))
        self.answer: str | Exception = ""
        self.has_devices = True

    def listen(self, tenant: str, message: str) -> str | Exception:
        return self.answer

    def are_there(self) -> bool:
        return self.has_devices


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    def get(answer: str | Exception) -> str:
        if isinstance(answer, Exception):
            raise answer
        return answer

    found = Clock()
    monkeypatch.setattr(remote, "time", found)
    monkeypatch.setattr(ray, "get", get)
    return found


@pytest.fixture
def quarters() -> Quarters:
    return Quarters()


@pytest.fixture
def executor(clock: Clock, quarters: Any) -> RemoteExecutor:
    return RemoteExecutor("task/1", quarters, PATIENCE)


def hear(executor: RemoteExecutor, quarters: Quarters, answer: str | Exception) -> None:
    quarters.answer = answer
    executor.listening()
    executor.hear()


def pulse(pass_seconds: float = 0.0) -> str:
    return PULSE.dump(Pulse(0, (), 0, pass_seconds))


def test_a_straggler_is_told_once_for_each_slow_pass(
    executor: RemoteExecutor, quarters: Quarters, caplog: pytest.LogCaptureFixture
) -> None:
    for seconds in (59.0, 61.0, 62.0, 0.1, 61.0):
        with caplog.at_level(logging.WARNING):
            hear(executor, quarters, pulse(seconds))
    told = [record.getMessage() for record in caplog.records]
    assert told == ["task/1: has been in one pass for 61 s"] * 2


def test_a_pass_that_never_ends_is_a_lost_executor(
    executor: RemoteExecutor, quarters: Quarters
) -> None:
    hear(executor, quarters, pulse(PATIENCE.stalled_pass))
    with pytest.raises(LostError, match="its pass takes 901 s"):
        hear(executor, quarters, pulse(PATIENCE.stalled_pass + 1.0))


@pytest.mark.parametrize("is_held_up_in_a_look", [False, True])
def test_a_head_that_was_held_up_loses_nobody_by_it(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, is_held_up_in_a_look: bool
) -> None:
    """Nor does an executor that always has something to say drown out another one."""
    speaking = ["a", "b"]
    held_up = [0.0]

    def wait(
        pulses: list[str], timeout: float, num_returns: int = 1
    ) -> tuple[list[str], list[str]]:
        clock.now += timeout
        return [pulse for pulse in pulses if pulse in speaking][:num_returns], []

    def living() -> list[Any]:
        clock.now += held_up.pop() if held_up else 0.0
        return [SimpleNamespace(id=NODE)]

    monkeypatch.setattr(ray, "wait", wait)
    monkeypatch.setattr(ray, "get", lambda name: pulse())
    monkeypatch.setattr(roster, "time", clock)
    monkeypatch.setattr(roster, "Watch", lambda ping: SimpleNamespace(living=living))
    found: Any = SimpleNamespace(ping=None, tend=lambda living: None, attach=None)
    all_of_them = roster.Roster(found, SimpleNamespace(hold=lambda task, share: None))  # type: ignore[arg-type]
    for name in tuple(speaking):
        quarters: Any = Quarters()
        quarters.answer = name
        one = RemoteExecutor(name, quarters, PATIENCE)
        found.attach = lambda task, number, one=one: one
        all_of_them.attach(TaskId(name), 1, ())
    for _ in range(4):
        assert list(all_of_them.listen(0.6)) == []
    if is_held_up_in_a_look:
        held_up.append(PATIENCE.silence + 1.0)
    else:
        clock.now += PATIENCE.silence + 1.0
    speaking.clear()  # nobody has yet, after that
    assert list(all_of_them.listen(0.6)) == []
    speaking[:] = ["a", "b"]
    for _ in range(40):
        assert list(all_of_them.listen(0.6)) == []
    speaking[:] = ["a"]
    begin = clock.now
    task, news = next(each for _ in range(40) for each in all_of_them.listen(0.6))
    assert (task, isinstance(news, Broken)) == (TaskId("b"), True)
    assert clock.now - begin == pytest.approx(PATIENCE.silence, abs=2.0)


def test_silence_is_measured_from_the_last_pulse(
    executor: RemoteExecutor, quarters: Quarters, clock: Clock
) -> None:
    for _ in range(3):
        hear(executor, quarters, pulse())
        clock.now += PATIENCE.silence
        executor.check(frozenset({NODE}))
    clock.now += 0.1
    with pytest.raises(LostError, match="silent for 15 s"):
        executor.check(frozenset({NODE}))


def test_who_cannot_be_reached_has_a_while_to_come_back(
    executor: RemoteExecutor, quarters: Quarters, clock: Clock
) -> None:
    away = ActorUnavailableError("away", None)
    for _ in range(2):
        hear(executor, quarters, away)
        clock.now += PATIENCE.unreachable - 0.5
        hear(executor, quarters, pulse())
    hear(executor, quarters, away)
    clock.now += PATIENCE.unreachable + 0.1
    with pytest.raises(LostError, match="unreachable"):
        hear(executor, quarters, away)


def test_an_actor_that_has_died_is_lost_at_once(
    executor: RemoteExecutor, quarters: Quarters
) -> None:
    with pytest.raises(LostError, match=r"^it has died$"):
        hear(executor, quarters, RayError("it has died\nand more"))


def test_a_process_that_has_ended_leaves_its_quarters_sound(
    executor: RemoteExecutor, quarters: Quarters
) -> None:
    with pytest.raises(LostError, match="its process has ended"):
        hear(executor, quarters, "")
    assert executor.has_moved_out


def test_a_dead_node_takes_its_executors_along(executor: RemoteExecutor) -> None:
    executor.check(frozenset({NODE, "another"}))
    with pytest.raises(LostError, match="node node is dead"):
        executor.check(frozenset({"another"}))


def test_one_that_waits_for_devices_is_not_late(
    executor: RemoteExecutor, quarters: Quarters, clock: Clock
) -> None:
    """Others hold them; when it has got them it has as long as ever."""
    quarters.has_devices = False
    clock.now += PATIENCE.start + 1.0
    executor.check(frozenset({NODE}))
    quarters.has_devices = True
    clock.now += PATIENCE.start
    executor.check(frozenset({NODE}))
    clock.now += 0.1
    with pytest.raises(LostError, match="has not begun within 300 s"):
        executor.check(frozenset({NODE}))
