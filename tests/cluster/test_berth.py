"""A berth without a cluster: whose process it speaks to, and when it gives its devices back."""

import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from alto_exec.ray_cluster.node.berth import _LOOK_SECONDS, DEVICES, MEETING, Berth

SECONDS = 30


class Clock:
    """A berth's: it looks again when the test lets time go by, however long it takes for that."""

    def __init__(self) -> None:
        self._now = 0.0
        self._is_idle = False  # asleep, or over
        self._changed = threading.Condition()

    def monotonic(self) -> float:
        return self._now

    def sleep(self, seconds: float) -> None:
        with self._changed:
            end = self._now + seconds
            self.rest()
            self._changed.wait_for(lambda: self._now >= end)

    def rest(self) -> None:
        with self._changed:
            self._is_idle = True
            self._changed.notify_all()

    def go_by(self, seconds: float) -> None:
        with self._changed:
            for _ in range(round(seconds / _LOOK_SECONDS)):
                assert self._changed.wait_for(lambda: self._is_idle, SECONDS)
                self._is_idle = False
                self._now += _LOOK_SECONDS
                self._changed.notify_all()
            assert self._changed.wait_for(lambda: self._is_idle, SECONDS)


class Child:
    """A process as its berth sees it."""

    def __init__(self, meeting: str, environment: dict[str, str]) -> None:
        self.environment = environment
        self.life, orders, pulses = (socket.socket(socket.AF_UNIX) for _ in range(3))
        for line in (self.life, orders, pulses):
            line.connect(meeting)
        self.orders, self.pulses = Connection(orders.detach()), Connection(pulses.detach())

    def end(self) -> None:
        for line in (self.life, self.orders, self.pulses):
            line.close()


class Nursery:
    """Its children end when their berth says so."""

    def __init__(self) -> None:
        self.children: list[Child] = []
        self.bear = self

    def remote(self, meeting: str, environment: dict[str, str]) -> None:
        child = Child(meeting, environment)
        self.children.append(child)

        def wait() -> None:
            child.life.recv(1)
            child.end()

        threading.Thread(target=wait, daemon=True).start()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr("alto_exec.ray_cluster.node.berth.time", found)
    return found


@pytest.fixture
def given_back(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    import ray

    groups = import_module("ray.util.placement_group")  # Ray hides it behind a function
    event = threading.Event()

    def give_back(_: object) -> None:
        event.set()
        clock.rest()

    monkeypatch.setattr(ray, "get", lambda value: value)
    monkeypatch.setattr(groups, "get_current_placement_group", lambda: None)
    monkeypatch.setattr(groups, "remove_placement_group", give_back)
    return event


@pytest.fixture
def nursery() -> Nursery:
    return Nursery()


@pytest.fixture
def caller() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor() as pool:
        yield pool


Housed = Callable[..., Berth]


@pytest.fixture
def housed(nursery: Nursery, given_back: threading.Event) -> Iterator[Housed]:
    berths = []

    def house(tenant: str, orphan: float = 60.0, vacant: float = 60.0, rank: int = 0) -> Berth:
        berth = Berth(orphan, vacant)
        berths.append(berth)
        berth.house(nursery, tenant, b"duty", berth.meeting(), {"RANK": str(rank)})
        return berth

    yield house
    for process in (berth._process for berth in berths):
        if process is not None:
            process.end()
            process.close()


def answer(child: Child, text: str) -> Any:
    asked = child.pulses.recv_bytes().decode()
    child.pulses.send_bytes(text.encode())
    return asked


def test_it_passes_on_what_is_said(
    housed: Housed, nursery: Nursery, caller: ThreadPoolExecutor
) -> None:
    berth = housed("one")
    (child,) = nursery.children
    berth.order("train")
    assert [child.orders.recv_bytes() for _ in range(2)] == [b"duty", b"train"]
    heard = caller.submit(berth.listen, "one", "well?")
    assert answer(child, "well") == "well?"
    assert heard.result(SECONDS) == "well"


def test_who_listens_to_the_next_does_not_hear_the_one_before(
    housed: Housed, nursery: Nursery, caller: ThreadPoolExecutor
) -> None:
    berth = housed("one")
    berth.end()
    assert berth.listen("one", "well?") == ""
    heard = caller.submit(berth.listen, "two", "well?")
    berth.house(nursery, "two", b"duty", {}, {"RANK": "0"})
    first, second = nursery.children
    assert first.life.fileno() == -1
    assert answer(second, "well") == "well?"
    assert heard.result(SECONDS) == "well"


def test_a_process_that_cannot_be_had_has_ended(housed: Housed, nursery: Nursery) -> None:
    def fail(meeting: str, environment: dict[str, str]) -> None:
        raise RuntimeError("the process that forks executors is gone")

    berth = housed("one")
    nursery.remote = fail  # type: ignore[method-assign]
    with pytest.raises(RuntimeError):
        berth.house(nursery, "two", b"duty", {}, {"RANK": "0"})
    assert berth.listen("two", "well?") == ""
    berth.order("train")
    berth.end()


def test_a_rank_is_told_which_it_is(housed: Housed, nursery: Nursery) -> None:
    housed("one", rank=1)
    assert set(nursery.children[0].environment) >= {MEETING, "RANK"}


def test_where_ranks_have_met_is_forgotten_before_a_process_ends(
    housed: Housed, nursery: Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever hears of its end may have the berth killed at once."""
    berth = housed("one")
    (child,) = nursery.children
    meeting, found = Path(child.environment[MEETING].removeprefix("file://")), list[bool]()
    meeting.touch()
    end = child.end

    def look_and_end() -> None:
        found.append(meeting.exists())
        end()

    monkeypatch.setattr(child, "end", look_and_end)
    berth.end()
    assert found == [False]
    assert not meeting.parent.exists()


def test_ranks_see_the_devices_of_all(
    housed: Housed, nursery: Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the order of the ranks, or whatever there is if Ray hides none."""
    berth = housed("one")
    assert DEVICES not in nursery.children[0].environment
    assert berth.device() == ""
    monkeypatch.setenv(DEVICES, "3")
    berth.house(nursery, "two", b"duty", {}, {"RANK": "1"}, "2", berth.device())
    assert nursery.children[1].environment[DEVICES] == "2,3"
    berth.house(nursery, "three", b"duty", {}, {"RANK": "1"}, "", "")
    assert DEVICES not in nursery.children[2].environment


def test_devices_go_back_when_nobody_has_spoken_to_it(
    housed: Housed,
    nursery: Nursery,
    clock: Clock,
    given_back: threading.Event,
    caller: ThreadPoolExecutor,
) -> None:
    berth = housed("one", orphan=2.0)
    for _ in range(3):
        caller.submit(answer, nursery.children[0], "well")
        assert berth.listen("one", "well?") == "well"
        clock.go_by(1.5)
        assert not given_back.is_set()
    clock.go_by(0.5)
    assert given_back.is_set()


def test_devices_go_back_when_nobody_moves_in(
    housed: Housed, nursery: Nursery, clock: Clock, given_back: threading.Event
) -> None:
    """The head that was to close it may be dead."""
    berth = housed("one", vacant=1.0)
    clock.go_by(2.5)
    berth.end()
    clock.go_by(1.0)
    berth.house(nursery, "two", b"duty", {}, {"RANK": "0"})
    clock.go_by(2.5)
    berth.end()
    clock.go_by(1.0)
    assert not given_back.is_set()
    clock.go_by(0.5)
    assert given_back.is_set()


def test_one_that_follows_is_spoken_to_by_nobody(
    housed: Housed, clock: Clock, given_back: threading.Event
) -> None:
    berth = housed("one", orphan=2.0, rank=1)
    clock.go_by(3.0)
    berth.end()
    clock.go_by(1.5)
    assert not given_back.is_set()
    clock.go_by(0.5)
    assert given_back.is_set()
