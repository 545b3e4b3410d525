"""How Gavel divides several kinds of GPU (Narayanan et al. 2020, sections 4.1 and 4.2)."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence

from alto_policy.gangs import Gangs
from alto_policy.kinds.max_min import Claim, Way, max_min
from alto_policy.types import Kinds, Task

__all__ = ["KindShares", "choices"]

_Shape = tuple[int, Kinds, tuple[float, ...]]
_NONE = 1e-6  # of the time: what is left of a sum of floats


class KindShares:
    """The least of all tasks' normalised throughputs is as large as it can be.

    A task's is the sum of X * speed over the kinds, times its width, over what it would have if it
    were on each kind for that kind's part of all GPUs. Where X is 1 at most and a kind has no more
    GPUs than there are, tasks that can have more without loss to the others do.
    """

    def __init__(self, gangs: Gangs) -> None:
        self.gangs = gangs
        self._counts: Counter[str] = Counter()
        for (kind, _), count in gangs.counts.items():
            self._counts[kind] += count
        self._shapes: Counter[_Shape] = Counter()
        self._shares: dict[_Shape, Sequence[tuple[tuple[str, ...], float]]] = {}

    def divide(self, tasks: Sequence[Task]) -> None:
        """Between these tasks, which fit on the cluster and tell their speeds."""
        shapes = Counter([_shape(task) for task in tasks])
        if shapes == self._shapes:
            return
        self._shapes = shapes
        choices = {shape: self._choices(*shape) for shape in shapes}
        claims = [Claim(tuple(choices[shape].values()), count) for shape, count in shapes.items()]
        found = max_min(claims, [float(count) for count in self._counts.values()])
        self._shares = {
            shape: [
                (kinds, fraction if fraction > _NONE else 0.0)
                for kinds, fraction in zip(choices[shape], fractions, strict=True)
            ]
            for shape, fractions in zip(shapes, found, strict=True)
        }

    def of(self, task: Task) -> Sequence[tuple[tuple[str, ...], float]]:
        """The kinds on which it can be, one by one or all of a gang's, and its X there."""
        return self._shares[_shape(task)]

    def _choices(
        self, width: int, kinds: Kinds, speeds: tuple[float, ...]
    ) -> dict[tuple[str, ...], Way]:
        room: dict[str, int] = {}  # of the widest place of each kind
        for (kind, _), count in self.gangs.counts.items():
            room[kind] = max(count, room.get(kind, 0))
        speed_on = dict(zip(kinds or (), speeds, strict=True))
        found = choices(width, speed_on, room, self._counts)
        whole = self._counts.total()
        evenly = math.fsum(
            speed * sum(self._counts[kind] for kind in on) / whole
            for on, (speed, _) in found.items()
        )
        return {
            on: Way(
                speed * width / evenly,
                tuple([float(gang.get(kind, 0)) for kind in self._counts]),
            )
            for on, (speed, gang) in found.items()
        }


def choices(
    width: int, speeds: Mapping[str, float], room: Mapping[str, int], counts: Mapping[str, int]
) -> dict[tuple[str, ...], tuple[float, dict[str, int]]]:
    """The kinds on which a task can be, one by one where one has room for it, with the speed and
    the GPUs that it has there; else all of them, the first as far as they reach."""
    if alone := [kind for kind in speeds if room[kind] >= width]:
        return {(kind,): (speeds[kind], {kind: width}) for kind in alone}
    gang: dict[str, int] = {}
    for kind in speeds:
        if taken := min(width - sum(gang.values()), counts[kind]):
            gang[kind] = taken
    return {tuple(speeds): (min(speeds[kind] for kind in gang), gang)}


def _shape(task: Task) -> _Shape:
    return task.num_gpus, task.kinds, task.speeds
