"""What an executor spends beside steady passes and evaluations."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace

from alto_policy.types import Job, Task
from alto_runs.costs.durations import PassTimes
from alto_runs.data_lengths import SampleLengths
from alto_sim.pass_shapes import KnownRecordings
from alto_sim.recordings import Recordings
from alto_sim.step_time import StepTime, tokens_of

__all__ = ["NO_OVERHEADS", "FirstTimes", "Overheads", "size_class"]

_LEAST_CLASS = 9


@dataclass(frozen=True, slots=True, kw_only=True)
class Overheads:
    """Seconds in which nobody trains."""

    launch: float  # to give a new job its place
    leave: float  # to keep what a job that stops has come to, of each rank: one after another
    leave_together: float  # the same of jobs that pause or finish, which are kept side by side
    report: float  # to tell of a job
    first_pass: float  # more, where a pass is the first of its size: compiled, recorded
    recording: float  # the same, of each recording where these are known
    compiling: float  # more, of an executor's first passes then
    first_evaluation: float  # more, of an executor: compiled
    first_round: float  # more, where so many jobs are evaluated together for the first time
    first_report: float  # more, of a job: memory for its best adapter
    evaluation_of_pairs: float  # more, relative to other samples of as many tokens

    def __post_init__(self) -> None:
        if min(getattr(self, field.name) for field in fields(self)) < 0:
            raise ValueError(f"seconds must not be negative, got {self}")

    def first_times(
        self,
        step_time: PassTimes,
        task: Task,
        slowdown: float,
        lengths: SampleLengths | None = None,
    ) -> "FirstTimes | Recordings | KnownRecordings | None":
        """Of one GPU; None where passes take no more than their own times."""
        if isinstance(step_time, StepTime) and step_time.rows is not None:
            if lengths is not None:
                return KnownRecordings(
                    task=task,
                    lengths=lengths,
                    compiling=self.compiling,
                    recording=self.recording,
                    rows=step_time.rows,
                    per_token=step_time.per_token,
                    slowdown=slowdown,
                )
            return Recordings(
                task=task,
                compiling=self.compiling,
                recording=self.recording,
                rows=step_time.rows,
                slowdown=slowdown,
            )
        return FirstTimes(task, self.first_pass * slowdown) if self.first_pass else None


NO_OVERHEADS = Overheads(
    launch=0.0,
    leave=0.0,
    leave_together=0.0,
    report=0.0,
    first_pass=0.0,
    recording=0.0,
    compiling=0.0,
    first_evaluation=0.0,
    first_round=0.0,
    first_report=0.0,
    evaluation_of_pairs=0.0,
)


def size_class(tokens: float) -> int:
    """Work of one class is as good as of one size: a doubling, with no class below 512 tokens."""
    return max(_LEAST_CLASS, math.ceil(math.log2(max(1.0, tokens))))


@dataclass(frozen=True, slots=True)
class FirstTimes:
    """What passes of new sizes take more on one GPU of an executor.

    The first size is paid for at once. A smaller one does as well in what was made for a larger
    one, at that one's time, until this has cost as much as its own would.
    """

    task: Task
    whole: float  # seconds that a size costs
    seconds: Mapping[int, float] = field(default_factory=dict)  # of a pass, by its size's class
    paid: Mapping[int, float] = field(default_factory=dict)

    def after(
        self, jobs: Sequence[Job], seconds: float, count: int, done: Sequence[int] = ()
    ) -> tuple[float, "FirstTimes"]:
        """Seconds that so many passes of the jobs take more than their own `seconds` each, and
        what is paid for then."""
        size = size_class(tokens_of(jobs, self.task))
        paid = self.paid.get(size, 0.0)
        left = self.whole - paid
        larger = [known for other, known in self.seconds.items() if other > size]
        if left <= 0 or not larger:
            more = max(0.0, left)
        else:
            more = min(left, count * max(0.0, min(larger) - seconds))
        known = {size: seconds} if paid + more >= self.whole else {}
        return more, replace(
            self,
            seconds={**self.seconds, **known},
            paid={**self.paid, size: paid + more},
        )
