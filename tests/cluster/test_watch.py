"""Which nodes live, and what a policy is told of that."""

from collections.abc import Iterator
from typing import Any

import pytest

from alto_exec.ray_cluster.devices import Node
from alto_exec.ray_cluster.watch import Turns, Watch
from alto_policy.events import NodeDown, NodeUp

A, B = (Node(f"id of {name}", name, "H100", 2, has_gpus=True) for name in "ab")


class Answers:
    """What nodes have said to a ping: nothing yet, an error, or that they are there."""

    def __init__(self) -> None:
        self.said: dict[str, Exception | None] = {}

    def wait(self, pings: list[str], timeout: float) -> tuple[list[str], list[str]]:
        return [ping for ping in pings if ping in self.said], []

    def get(self, ping: str) -> None:
        if (error := self.said[ping]) is not None:
            raise error


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Answers:
    import ray

    found = Answers()
    monkeypatch.setattr(ray, "wait", found.wait)
    monkeypatch.setattr(ray, "get", found.get)
    monkeypatch.setattr("alto_exec.ray_cluster.watch.nodes", lambda: (A, B))
    return found


def ping(node: str) -> Any:
    return node


def test_a_node_that_answers_is_doubted_no_more(answers: Answers) -> None:
    watch = Watch(ping)
    watch.doubt(A.id)
    assert watch.living() == (A, B)  # it has some seconds
    assert watch.is_doubted(A.id)
    answers.said[A.id] = None
    assert watch.living() == (A, B)
    assert not watch.is_doubted(A.id)


def test_one_that_does_not_is_lost_until_it_does(
    answers: Answers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("alto_exec.ray_cluster.watch._ANSWER_SECONDS", 0.0)
    watch = Watch(ping)
    watch.doubt(A.id)
    assert watch.living() == (B,)
    watch.doubt(A.id)
    assert watch.living() == (B,)
    answers.said[A.id] = None
    assert watch.living() == (A, B)


def test_one_that_has_died_does_not_come_back(
    answers: Answers, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ray.exceptions import RayError

    monkeypatch.setattr("alto_exec.ray_cluster.watch._ANSWER_SECONDS", 0.0)
    watch = Watch(ping)
    watch.doubt(A.id)
    answers.said[A.id] = RayError()
    assert watch.living() == (B,)
    assert watch.living() == (B,)


def test_what_turns_is_told_once() -> None:
    looks: Iterator[frozenset[str]] = iter(
        [frozenset({"b", "c"}), frozenset({"a", "c"}), frozenset()]
    )
    turns = Turns(frozenset({"c"}), lambda: next(looks))
    assert list(turns.since_last(10.0)) == [NodeDown(10.0, "b")]
    assert list(turns.since_last(10.5)) == []
    assert list(turns.since_last(11.5)) == [NodeDown(11.5, "a"), NodeUp(11.5, "b")]
    assert list(turns.since_last(13.0)) == [NodeUp(13.0, "a"), NodeUp(13.0, "c")]
