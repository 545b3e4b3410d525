"""Loss curves of jobs that nobody trains, for studies and traces that never ran.

Where a job ends is drawn from a landscape fitted to real sweeps (`curves.fit`). How it gets there
is a power law whose speed grows with the learning rate, so that the fast and the good cross; the
gap to the training loss grows late, with the rank, and faster in some tasks than in others.
"""

import math
import random
from collections.abc import Iterable
from dataclasses import dataclass, fields

from alto_policy.types import Job, JobId, Task, TaskId
from alto_sim.curves.landscape import DEFAULT_LANDSCAPE, Landscape
from alto_sim.curves.losses import Losses

__all__ = ["DEFAULT_SHAPE", "GeneratedCurves", "Shape"]

_FLOOR = 0.01  # as in the fit: excess is multiplied by its residual above this
_OVERFIT_FROM = 0.3  # fraction of the steps; three epochs are the paper's
_MOST_OVERFIT = 0.6
_LOST_AFTER = 0.6  # decades beyond which a diverging job's loss is soon no number
_64_BITS = 2**64 - 1
_SQRT_3 = math.sqrt(3)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """How jobs get to their ends. The defaults are of large models on much data; small ones on
    little data are noisier and overfit more: see `experiments/exhibits/past_curves.py`."""

    speed: float = 60.0  # of the power law, at the best rate: 5 % of the steps do 3/4 of the way
    speed_power: float = 0.4  # of the learning rate in the speed
    noise: float = 0.0007  # of a validation loss, relative; it always asks the same
    train_noise: float = 0.006
    overfit: float = 0.05  # of the last validation loss the training loss is lower, at rank 16
    overfit_spread: float = 0.8  # over tasks, of its logarithm

    @property
    def told(self) -> str:
        return ", ".join(f"{each.name} {getattr(self, each.name):g}" for each in fields(self))

    def __post_init__(self) -> None:
        if not 0 < self.speed < math.inf:
            raise ValueError(f"speed must be above 0, got {self.speed}")
        for name in ("speed_power", "noise", "train_noise", "overfit_spread"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be at least 0, got {getattr(self, name)}")
        if not 0 < self.overfit <= _MOST_OVERFIT:
            raise ValueError(f"overfit must be in (0, {_MOST_OVERFIT}], got {self.overfit}")


DEFAULT_SHAPE = Shape()


@dataclass(frozen=True, slots=True)
class _TaskDraw:
    """What the jobs of a task share."""

    best: float  # validation loss of the best job at its end
    start: float  # loss before training
    shift: float  # decades by which its best learning rate differs
    overfit: float  # relative gap that a rank of 16 reaches at its end
    speed: float


@dataclass(frozen=True, slots=True)
class _Course:
    """How one job goes."""

    start: float
    end: float
    speed: float
    gap: float  # relative, at the end
    noise: int  # key of its noise
    diverges_at: float | None  # fraction of its steps
    is_lost_at: float | None


class GeneratedCurves:
    """The same seed, task and job give the same curve, whoever asks and in whatever order.

    Jobs of no task that is given share one draw.
    """

    def __init__(
        self,
        tasks: Iterable[Task] = (),
        *,
        seed: int = 0,
        landscape: Landscape = DEFAULT_LANDSCAPE,
        shape: Shape = DEFAULT_SHAPE,
    ) -> None:
        self._seed = seed
        self._landscape = landscape
        self._shape = shape
        self._task_of: dict[JobId, TaskId] = {job.id: t.id for t in tasks for job in t.jobs}
        self._draws: dict[TaskId, _TaskDraw] = {}
        self._courses: dict[JobId, _Course] = {}

    def losses(self, job: Job, step: int) -> Losses:
        course = self._course(job)
        fraction = step / job.steps
        if course.is_lost_at is not None and fraction >= course.is_lost_at:
            return Losses(math.nan, math.nan)
        left = _way_left(fraction, course.speed)
        late = max(0.0, fraction - _OVERFIT_FROM) / (1 - _OVERFIT_FROM)
        gap = course.gap * late**1.5
        # The end stays where the landscape has it: what overfitting adds, it has saved before.
        val = course.end * (1 + 0.3 * (gap - course.gap)) + (course.start - course.end) * left
        train = val * (1 - 0.01 - gap)
        if course.diverges_at is not None and fraction > course.diverges_at:
            rise = 1 + 2 * (fraction - course.diverges_at)
            val, train = val * rise, train * rise
        return Losses(
            train * (1 + self._shape.train_noise * _normal(course.noise + 2 * step)),
            val * (1 + self._shape.noise * _normal(course.noise + 2 * step + 1)),
        )

    def report_step(self, job: Job, step: int) -> int:
        return job.next_report_step(step)

    def _course(self, job: Job) -> _Course:
        course = self._courses.get(job.id)
        if course is None:
            course = self._courses[job.id] = self._drawn(job)
        return course

    def _drawn(self, job: Job) -> _Course:
        task = self._draw(self._task_of.get(job.id, TaskId("")))
        dice = random.Random(f"{self._seed}/{job.id}")
        chosen = job.hyperparameters
        decades = self._landscape.decades_above(chosen, task.shift)
        if decades == -math.inf:  # it learns nothing
            return _Course(
                task.start, task.start, task.speed, 0.0, dice.getrandbits(40), None, None
            )
        excess = self._landscape.excess(chosen, decades)
        excess = (excess + _FLOOR) * math.exp(dice.gauss(0, self._landscape.residual)) - _FLOOR
        diverges = dice.random() < self._landscape.divergence(decades)
        onset = dice.uniform(0.02, 0.5)
        is_wild = decades > self._landscape.diverges_at + _LOST_AFTER
        eagerness = min(max(decades, -2.0), 0.2)  # beyond it a higher rate gains no speed
        return _Course(
            start=task.start,
            end=task.best * (1 + max(0.0, excess)),
            speed=task.speed
            * 10 ** (self._shape.speed_power * eagerness)
            * math.exp(dice.gauss(0, 0.02)),
            gap=task.overfit * (chosen.rank / 16) ** 0.25 * 10 ** (0.5 * eagerness),
            noise=dice.getrandbits(40),
            diverges_at=onset if diverges else None,
            is_lost_at=onset + 0.05 if diverges and is_wild else None,
        )

    def _draw(self, task: TaskId) -> _TaskDraw:
        if task not in self._draws:
            dice, shape = random.Random(f"{self._seed}/task/{task}"), self._shape
            gap = math.log(shape.overfit), shape.overfit_spread
            best = math.exp(dice.gauss(math.log(0.9), 0.35))
            self._draws[task] = _TaskDraw(
                best=best,
                start=best * dice.uniform(1.4, 2.6),
                shift=dice.gauss(0, self._landscape.rate_spread),
                overfit=min(_MOST_OVERFIT, math.exp(dice.gauss(*gap))),
                speed=shape.speed * math.exp(dice.gauss(0, 0.3)),
            )
        return self._draws[task]


def _way_left(fraction: float, speed: float) -> float:
    """Share of the way from the start to the end that is still ahead: 1 at first, 0 at last."""
    last = 1 / (1 + speed)
    return (1 / (1 + speed * fraction) - last) / (1 - last)


def _normal(key: int) -> float:
    """Nearly normal: the sum of four uniform numbers that a key is mixed into (SplitMix64)."""
    mixed = key * 0x9E3779B97F4A7C15 & _64_BITS
    mixed = (mixed ^ mixed >> 30) * 0xBF58476D1CE4E5B9 & _64_BITS
    mixed = (mixed ^ mixed >> 27) * 0x94D049BB133111EB & _64_BITS
    mixed ^= mixed >> 31
    parts = (mixed & 0xFFFF) + (mixed >> 16 & 0xFFFF) + (mixed >> 32 & 0xFFFF) + (mixed >> 48)
    return (parts / 65535 - 2) * _SQRT_3
