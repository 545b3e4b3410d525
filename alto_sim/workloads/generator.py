"""Tuning workloads for a shared cluster: who asks for which search, and when.

Every draw comes from one generator for each cause (arrivals, tasks), seeded by the caller, so that
another arrival process or load leaves the tasks as they were. The same rules turn the rows of a
cluster's trace into tuning tasks: see `retune`.
"""

import bisect
import math
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise, product
from typing import TypeVar

from alto_policy.events import TaskArrived
from alto_policy.types import Hyperparameters, Task, TaskId
from alto_runs.study_fields.search import numbered_jobs

__all__ = [
    "PAPER_MIX",
    "Arrivals",
    "Bursty",
    "DataSize",
    "ModelChoice",
    "Poisson",
    "Recorded",
    "Search",
    "TaskMix",
    "arrivals_at_load",
    "generate",
    "retune",
]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Poisson:
    """Independent arrivals."""

    def gaps(self, count: int, dice: random.Random) -> list[float]:
        return [dice.expovariate(1.0) for _ in range(count)]


@dataclass(frozen=True, slots=True)
class Bursty:
    """Arrivals in bursts of geometric size, close together, with long gaps between them."""

    mean_burst: float = 5.0
    closeness: float = 0.02  # of the mean gap: the gap within a burst

    def __post_init__(self) -> None:
        if not (self.mean_burst > 1 and 0 < self.closeness < 1):
            raise ValueError(
                "mean_burst must be above 1 and closeness in (0, 1), "
                f"got {self.mean_burst} and {self.closeness}"
            )

    def gaps(self, count: int, dice: random.Random) -> list[float]:
        ends = 1 / self.mean_burst
        between = (1 - (1 - ends) * self.closeness) / ends
        return [
            dice.expovariate(1.0) * (between if dice.random() < ends else self.closeness)
            for _ in range(count)
        ]


@dataclass(frozen=True, slots=True)
class Recorded:
    """The rhythm of a trace, begun at a moment drawn and repeated from its start if it is short."""

    times: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.times) < 2 or max(self.times) <= min(self.times):
            raise ValueError(f"times must be two or more moments, got {self.times}")

    def gaps(self, count: int, dice: random.Random) -> list[float]:
        times = sorted(self.times)
        gaps = [later - earlier for earlier, later in pairwise(times)]
        mean = math.fsum(gaps) / len(gaps)
        first = dice.randrange(len(gaps))
        return [gaps[(first + i) % len(gaps)] / mean for i in range(count)]


Arrivals = Poisson | Bursty | Recorded


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """A grid; alpha is twice the rank, as in the paper."""

    learning_rates: tuple[float, ...]
    ranks: tuple[int, ...]
    batch_sizes: tuple[int, ...]

    def __post_init__(self) -> None:
        for name in ("learning_rates", "ranks", "batch_sizes"):
            values = getattr(self, name)
            if not values or len(set(values)) < len(values):
                raise ValueError(f"{name} must be one value or more, none twice, got {values}")
        for _ in self.points():  # each of them is checked
            pass

    def points(self) -> Iterable[Hyperparameters]:
        for rate, rank, batch_size in product(self.learning_rates, self.ranks, self.batch_sizes):
            yield Hyperparameters(
                rank=rank, alpha=2.0 * rank, learning_rate=rate, batch_size=batch_size
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelChoice:
    """A backbone, the GPUs that its tasks ask for, and the search that its users run."""

    backbone: str
    num_gpus: int
    search: Search
    weight: float = 1.0

    def __post_init__(self) -> None:
        if self.num_gpus < 1:
            raise ValueError(f"num_gpus must be at least 1, got {self.num_gpus}")
        if not 0 < self.weight < math.inf:
            raise ValueError(f"weight must be above 0, got {self.weight}")


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSize:
    """Training samples of a task: log-normal, within bounds."""

    median: int = 6_000
    spread: float = 0.8  # standard deviation of the logarithm
    least: int = 200
    most: int = 50_000

    def __post_init__(self) -> None:
        if not 1 <= self.least <= self.most:
            raise ValueError(f"least must be in [1, {self.most}], got {self.least}")
        if self.median < 1:
            raise ValueError(f"median must be at least 1, got {self.median}")
        if not 0 <= self.spread < math.inf:
            raise ValueError(f"spread must be at least 0, got {self.spread}")

    def draw(self, dice: random.Random) -> int:
        size = math.exp(dice.gauss(math.log(self.median), self.spread))
        return round(min(max(size, self.least), self.most))


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskMix:
    """What a task may be. A job trains on all samples, for some epochs."""

    models: tuple[ModelChoice, ...]
    data: DataSize = DataSize()
    lengths: tuple[tuple[int, float], ...] = ((512, 1.0), (1024, 2.0), (2048, 1.0))  # and weights
    tenants: tuple[tuple[str, float], ...] = (("", 1.0),)  # and weights
    epochs: int = 3
    reports: int = 40  # of a job

    def __post_init__(self) -> None:
        if not self.models:
            raise ValueError("models must be one at least, got none")
        for name in ("lengths", "tenants"):
            weights = [weight for _, weight in getattr(self, name)]
            if not weights or not all(0 < weight < math.inf for weight in weights):
                raise ValueError(f"{name} must have weights above 0, got {weights}")
        if min(length for length, _ in self.lengths) < 1:
            raise ValueError(f"lengths must be at least 1, got {self.lengths}")
        for name in ("epochs", "reports"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")

    def draw(self, name: str, dice: random.Random, num_gpus: int | None = None) -> Task:
        """A task; one of `num_gpus` is of a model that asks for no more, and keeps its width.

        Draws model, length, samples and tenant, in this order.
        """
        fitting = [m for m in self.models if num_gpus is None or m.num_gpus <= num_gpus]
        narrowest = min(model.num_gpus for model in self.models)
        fitting = fitting or [model for model in self.models if model.num_gpus == narrowest]
        model = _weighted(fitting, [each.weight for each in fitting], dice)
        length = _weighted(*_columns(self.lengths), dice)
        samples = self.data.draw(dice) * self.epochs
        return Task(
            id=TaskId(name),
            jobs=numbered_jobs(
                name, model.search.points(), samples=samples, reports=self.reports, digits=3
            ),
            backbone=model.backbone,
            max_length=length,
            num_gpus=num_gpus or model.num_gpus,
            tenant=_weighted(*_columns(self.tenants), dice),
        )


# The paper's models, GPUs and search spaces (section 5, appendix A.4); small models asked for most.
_NARROW = Search(
    learning_rates=(1e-5, 5e-5, 2e-4, 3e-4, 5e-4), ranks=(16, 32, 64), batch_sizes=(1, 2, 4, 8)
)
_WIDE = Search(
    learning_rates=(1e-5, 5e-5, 1e-4, 3e-4), ranks=(16, 32, 64, 128), batch_sizes=(1, 2, 4, 8)
)
PAPER_MIX = TaskMix(
    models=(
        ModelChoice(backbone="Llama-3.1-8B", num_gpus=1, search=_NARROW, weight=4.0),
        ModelChoice(backbone="Qwen2.5-7B", num_gpus=1, search=_NARROW, weight=4.0),
        ModelChoice(backbone="Qwen2.5-32B", num_gpus=2, search=_WIDE, weight=2.0),
        ModelChoice(backbone="Llama-3.1-70B", num_gpus=4, search=_WIDE, weight=1.0),
    )
)


def generate(
    mix: TaskMix, arrivals: Arrivals, *, count: int, gap_seconds: float, seed: int
) -> tuple[TaskArrived, ...]:
    """Tasks `task-0`, `task-1` and so on, the first at time zero; `gap_seconds` is the mean gap."""
    return _timed(_tasks(mix, count, seed), arrivals, gap_seconds, seed)


def arrivals_at_load(
    mix: TaskMix,
    arrivals: Arrivals,
    *,
    count: int,
    seed: int,
    seconds: Callable[[Task], float],
    num_gpus: int,
    load: float,
) -> tuple[TaskArrived, ...]:
    """As `generate`, with the gap at which tasks ask for that share of the cluster's GPU-seconds.

    At a load of 1 the queue grows without end. Raises ValueError for a load that is not above 0.
    """
    if not 0 < load < math.inf:
        raise ValueError(f"load must be above 0, got {load}")
    tasks = _tasks(mix, count, seed)
    asked = math.fsum(seconds(task) * task.num_gpus for task in tasks) / len(tasks)
    return _timed(tasks, arrivals, asked / (num_gpus * load), seed)


def retune(rows: Iterable[TaskArrived], mix: TaskMix, *, seed: int) -> tuple[TaskArrived, ...]:
    """Rows of a cluster's trace as tuning tasks.

    Arrival, name, width and tenant stay. Model, sequence length and data size are drawn from the
    mix by a generator of (seed, name), so that a row becomes the same task in any part of a trace;
    the recorded duration is not used.
    """
    return tuple(
        TaskArrived(row.t, _retuned(row.task, mix, random.Random(f"{seed}/{row.task.id}")))
        for row in rows
    )


def _retuned(row: Task, mix: TaskMix, dice: random.Random) -> Task:
    drawn = mix.draw(row.id, dice, row.num_gpus)
    return Task(
        id=row.id,
        jobs=drawn.jobs,
        backbone=drawn.backbone,
        max_length=drawn.max_length,
        num_gpus=row.num_gpus,
        tenant=row.tenant,
    )


def _tasks(mix: TaskMix, count: int, seed: int) -> list[Task]:
    if count < 1:
        raise ValueError(f"count must be at least 1, got {count}")
    return [mix.draw(f"task-{i}", random.Random(f"{seed}/task/{i}")) for i in range(count)]


def _timed(
    tasks: Sequence[Task], arrivals: Arrivals, gap_seconds: float, seed: int
) -> tuple[TaskArrived, ...]:
    gaps = arrivals.gaps(len(tasks) - 1, random.Random(f"{seed}/arrivals"))
    times = accumulate((gap * gap_seconds for gap in gaps), initial=0.0)
    return tuple(TaskArrived(t, task) for t, task in zip(times, tasks, strict=True))


def _weighted(values: Sequence[T], weights: Sequence[float], dice: random.Random) -> T:
    bounds = list(accumulate(weights))
    return values[bisect.bisect(bounds, dice.random() * bounds[-1], hi=len(values) - 1)]


def _columns(pairs: Sequence[tuple[T, float]]) -> tuple[list[T], list[float]]:
    return [value for value, _ in pairs], [weight for _, weight in pairs]
