"""Names and sizes of what is scheduled. The words are the paper's (arXiv 2604.05426)."""

import math
from dataclasses import dataclass, field, replace
from enum import StrEnum
from itertools import pairwise
from typing import NewType

from alto_policy.codec import LEFT_OUT
from alto_policy.frozen import quick

__all__ = [
    "Gpu",
    "GpuId",
    "Hyperparameters",
    "Job",
    "JobId",
    "Kinds",
    "Schedule",
    "Task",
    "TaskId",
    "TokenCounts",
]

TaskId = NewType("TaskId", str)
JobId = NewType("JobId", str)
GpuId = NewType("GpuId", int)
Kinds = tuple[str, ...] | None  # of GPUs that can hold a task, the best first; None: all


class Schedule(StrEnum):
    """How the learning rate moves over a job's own steps."""

    CONSTANT = "constant"
    LINEAR = "linear"
    COSINE = "cosine"


@dataclass(frozen=True, slots=True, kw_only=True)
class Hyperparameters:
    """All that one LoRA configuration may choose for itself. Defaults: paper, appendix A.4.

    Raises ValueError that quotes the field and its value.
    """

    rank: int = 16
    alpha: float = 32.0
    rslora: bool = False  # scale alpha / sqrt(rank) in place of alpha / rank
    dropout: float = 0.0
    learning_rate: float = 2e-4
    schedule: Schedule = Schedule.CONSTANT
    rise: float = 0.0  # fraction of the steps in which the learning rate climbs from zero
    weight_decay: float = 0.01
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    clip: float | None = None  # largest norm of the job's own gradient
    dpo_beta: float = 0.1  # of preferences alone: how strongly the untuned model holds the job back
    batch_size: int = 1  # sequences in one pass
    accumulation: int = 1  # passes in one step
    seed: int = 0  # of the adapter's first values, dropout and data order

    def __post_init__(self) -> None:
        _require(1 <= self.rank <= 256, "rank", self.rank, "from 1 to 256")
        _require(0 < self.alpha < math.inf, "alpha", self.alpha, "above 0")
        _require(0 <= self.dropout < 1, "dropout", self.dropout, "in [0, 1)")
        _require(
            0 <= self.learning_rate < math.inf, "learning_rate", self.learning_rate, "at least 0"
        )
        _require(0 <= self.rise < 1, "rise", self.rise, "in [0, 1)")
        _require(0 <= self.weight_decay < math.inf, "weight_decay", self.weight_decay, "at least 0")
        _require(0 <= self.beta1 < 1, "beta1", self.beta1, "in [0, 1)")
        _require(0 <= self.beta2 < 1, "beta2", self.beta2, "in [0, 1)")
        _require(0 < self.epsilon < 1, "epsilon", self.epsilon, "in (0, 1)")
        _require(self.clip is None or self.clip > 0, "clip", self.clip, "above 0")
        _require(0 < self.dpo_beta < math.inf, "dpo_beta", self.dpo_beta, "above 0")
        _require(self.batch_size >= 1, "batch_size", self.batch_size, "at least 1")
        _require(self.accumulation >= 1, "accumulation", self.accumulation, "at least 1")
        _require(0 <= self.seed < 2**31, "seed", self.seed, "from 0 to 2^31 - 1")

    @property
    def scale(self) -> float:
        """Factor of the adapter's product (Kalajdzievski 2023 for rsLoRA)."""
        return self.alpha / (math.sqrt(self.rank) if self.rslora else self.rank)

    @property
    def samples_per_step(self) -> int:
        return self.batch_size * self.accumulation


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One adapter to be trained for `steps` optimizer steps, with `reports` reports on the way."""

    id: JobId
    hyperparameters: Hyperparameters
    steps: int
    reports: int

    def __post_init__(self) -> None:
        if not 1 <= self.reports <= self.steps:  # spares two calls for each of many jobs
            _require(self.steps >= 1, "steps", self.steps, "at least 1")
            _require(False, "reports", self.reports, "from 1 to steps")

    def report_step(self, number: int) -> int:
        """Step after which report `number` (1 to `reports`) is due; the last one at the end."""
        return -(-number * self.steps // self.reports)

    def next_report_step(self, step: int) -> int:
        """First step later than `step` at whose end a report is due."""
        return self.report_step(step * self.reports // self.steps + 1)

    def samples(self, step: int) -> int:
        """Training samples seen after `step` steps."""
        return step * self.hyperparameters.samples_per_step


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenCounts:
    """Of a task's data, once somebody has read it."""

    per_sample: float  # of a training sample, in the mean
    validation: int  # of all validation samples

    def __post_init__(self) -> None:
        _require(0 < self.per_sample < math.inf, "per_sample", self.per_sample, "above 0")
        _require(self.validation >= 0, "validation", self.validation, "at least 0")


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One tuning request: its jobs share a backbone and a data set; the answer is one adapter."""

    id: TaskId
    jobs: tuple[Job, ...]
    backbone: str
    max_length: int  # tokens of the longest sequence
    num_gpus: int = 1
    tenant: str = ""
    priority: int = 0  # among the tenant's own tasks: the highest first
    tokens: TokenCounts | None = None  # a trace does not tell
    kinds: Kinds = None  # of GPUs that hold its jobs, once somebody has weighed them; () if none
    # On each of `kinds`, over that at which its duration is believed; () where nobody has told.
    speeds: tuple[float, ...] = field(default=(), metadata=LEFT_OUT)

    # Numbers of GPUs among which a policy may choose, increasing; () where it may not.
    widths: tuple[int, ...] = field(default=(), metadata=LEFT_OUT)

    @property
    def mean_length(self) -> float:
        """Tokens of a training sequence; of the longest one where nothing else is known."""
        return self.max_length if self.tokens is None else self.tokens.per_sample

    def on(self, num_gpus: int) -> "Task":
        """As an executor on so many GPUs has it: nothing is left to choose."""
        if self.num_gpus == num_gpus and not self.widths:
            return self
        return replace(self, num_gpus=num_gpus, widths=())

    def fits_on(self, kind: str) -> bool:
        """Whether a GPU of the kind can hold its jobs, as far as is known."""
        return self.kinds is None or kind in self.kinds

    def __post_init__(self) -> None:
        if not (self.jobs and self.max_length >= 1 and self.num_gpus >= 1):
            _require(len(self.jobs) >= 1, "jobs", len(self.jobs), "at least one")
            _require(self.max_length >= 1, "max_length", self.max_length, "at least 1")
            _require(False, "num_gpus", self.num_gpus, "at least 1")
        if self.speeds:
            are_told = self.kinds is not None and len(self.kinds) == len(self.speeds)
            _require(are_told, "speeds", self.speeds, f"one for each of {self.kinds}")
            _require(all(0 < s < math.inf for s in self.speeds), "speeds", self.speeds, "above 0")
        if self.widths:
            is_one = self.num_gpus in self.widths and self.widths[0] >= 1
            increase = all(a < b for a, b in pairwise(self.widths))
            what = f"increasing, num_gpus = {self.num_gpus} among them"
            _require(is_one and increase, "widths", self.widths, what)
        if len(self.jobs) > 1:
            ids = [job.id for job in self.jobs]
            _require(len(set(ids)) == len(ids), "jobs", ids, "of distinct ids")


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """A device that can hold an executor; the CPU of a machine without one counts as one."""

    id: GpuId
    kind: str
    node: str = "local"


def _require(holds: bool, field: str, value: object, what: str) -> None:
    if not holds:
        raise ValueError(f"{field} must be {what}, got {value!r}")
