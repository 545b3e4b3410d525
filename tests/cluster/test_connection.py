"""Addresses at which there is no cluster, and what is done before there is one."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import ray

from alto_exec.host.machine import settle
from alto_exec.ray_cluster import connected, connection, local
from alto_runs.errors import UserError
from alto_runs.study import ExecutorSpec


@pytest.mark.parametrize(
    "address", ["127.0.0.1:1", "nonsense", "nowhere.invalid:6379", "ray://127.0.0.1:1", ":", ""]
)
@pytest.mark.timeout(30)
def test_one_clear_line_and_soon(address: str) -> None:
    with pytest.raises(UserError) as told, connected(address):
        pass
    assert str(told.value) == (
        f"--cluster: value {address!r}: no Ray cluster there, expected local, auto or HOST:PORT"
    )


def test_threads_are_timed_while_ray_leaves_the_cores_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else a run on this machine's own cluster may train with one thread where two are faster."""
    order: list[str] = []

    class Paused(local.OwnNode):
        @contextmanager
        def paused(self) -> Iterator[None]:
            order.append("paused")
            yield
            order.append("goes on")

    def timed() -> int:
        order.append("threads")
        return 2

    def joined(**_: object) -> None:
        order.append("ray")
        raise ValueError

    monkeypatch.setattr(local, "made", lambda: Paused("127.0.0.1:1", 0, ""))
    monkeypatch.setattr(connection, "best_thread_count", timed)
    monkeypatch.setattr(ray, "init", joined)
    with pytest.raises(UserError), connected("local"):
        pass
    assert order == ["paused", "threads", "goes on", "ray"]


def test_what_was_timed_is_taken_unless_a_study_says_otherwise() -> None:
    assert settle(ExecutorSpec(device="cpu"), threads=3).threads == 3
    assert settle(ExecutorSpec(device="cpu", threads=1), threads=3).threads == 1
