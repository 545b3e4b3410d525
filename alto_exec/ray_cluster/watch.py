"""Which nodes of the cluster live: Ray believes a dead one to live for half a minute."""

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

from alto_exec.ray_cluster.devices import Node, nodes
from alto_policy.events import Event, NodeDown, NodeUp

__all__ = ["Turns", "Watch"]

_LOOK_SECONDS = 1.0  # between two looks at the run's nodes
_ANSWER_SECONDS = 5.0  # that a node which is doubted may take to answer


class Watch:
    def __init__(self, ping: Callable[[str], Any]) -> None:
        """`ping` gives what Ray resolves when the node with this id answers."""
        self._ping = ping
        self._doubts: dict[str, tuple[Any, float]] = {}  # by id: its answer, and since when

    def doubt(self, node: str) -> None:
        """Something there has ended, as it would if the node had."""
        if node not in self._doubts:
            self._doubts[node] = self._ping(node), time.monotonic()

    def is_doubted(self, node: str) -> bool:
        return node in self._doubts

    def living(self) -> tuple[Node, ...]:
        """But for those that were doubted and do not answer."""
        self._hear()
        now = time.monotonic()
        silent = {id for id, (_, at) in self._doubts.items() if now - at > _ANSWER_SECONDS}
        return tuple(node for node in nodes() if node.id not in silent)

    def _hear(self) -> None:
        import ray
        from ray.exceptions import RayError

        for node, (answer, _) in tuple(self._doubts.items()):
            if ray.wait([answer], timeout=0)[0]:
                with suppress(RayError):  # a node that has died does not come back
                    ray.get(answer)
                    del self._doubts[node]


class Turns:
    """Of the run's nodes, from there to lost and back, for its policy."""

    def __init__(self, lost: frozenset[str], look: Callable[[], frozenset[str]]) -> None:
        """The policy knows of those that are `lost`; a look tells which ones are."""
        self._lost = lost
        self._look = look
        self._looked_at = float("-inf")

    def since_last(self, t: float) -> Iterator[Event]:
        """What has turned since the last call; `t` is when that is told."""
        if t < self._looked_at + _LOOK_SECONDS:
            return
        lost, self._looked_at = self._look(), t
        for node in sorted(lost - self._lost):
            yield NodeDown(t, node)
        for node in sorted(self._lost - lost):
            yield NodeUp(t, node)
        self._lost = lost
