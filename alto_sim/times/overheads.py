"""What an executor spends beside steady passes and evaluations."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from alto_policy.events import Departure
from alto_policy.types import Job, Task
from alto_runs.costs.durations import PassTimes
from alto_runs.files.data_lengths import SampleLengths
from alto_sim.times.checked import check_seconds
from alto_sim.times.pass_shapes import KnownRecordings
from alto_sim.times.recorded_passes import Recordings
from alto_sim.times.step_time import Computed, StepTime, tokens_of
from alto_sim.times.writing import Writing

__all__ = [
    "FEW_LEAVING",
    "NO_OVERHEADS",
    "Departed",
    "FirstTimes",
    "Leaving",
    "Overheads",
    "size_class",
]

_LEAST_CLASS = 9
_UNTIL_KEPT = 2  # reports since the best one, of which the first begins to write its adapter
FEW_LEAVING = 2  # jobs at a moment


@dataclass(frozen=True, slots=True)
class Leaving:
    """Seconds of each rank until the best adapter of a job that leaves is on disk: of older
    executors, by `Departed`."""

    alone: float = 0.0  # of few jobs at a moment, one after another
    together: float = 0.0  # of many, side by side
    pass_beside: float = 0.0  # seconds of the host for a pass meanwhile

    def __post_init__(self) -> None:
        check_seconds(self)

    def slows(self, each: float) -> float:
        """The share of the time until then that passes lose which take so long `each`."""
        return 1 - each / self.pass_beside if each < self.pass_beside else 0.0

    def of_ranks(self, jobs: int, ranks: int) -> float:
        """Of jobs that leave at one moment."""
        return ranks * (self.together if jobs > FEW_LEAVING else self.alone)


@dataclass(slots=True)
class Departed:
    """Jobs that leave at one moment, those whose best adapters are not yet on disk.

    That of a job past its best was written as it reported for the first time since. Others wait for
    all that is on its way as soon as one job does not come back, or one that has paused is given
    up; if all of them do, the host gets on more slowly beside it: what is recorded next takes as
    much longer, and passes that the device is done with sooner wait for the host.
    """

    jobs: int = 0
    ranks: int = 0
    gone_jobs: int = 0  # of these, that do not come back
    is_given_up: bool = False  # jobs that had paused are stopped

    def add(self, rank: int, how: Departure, since_best: int) -> None:
        """A job that has reported so often since its best report."""
        if since_best < _UNTIL_KEPT:
            self.jobs, self.ranks = self.jobs + 1, self.ranks + rank
            self.gone_jobs += not how.comes_back

    @property
    def is_waited_for(self) -> bool:
        return self.gone_jobs > 0 or self.is_given_up

    @property
    def are_many(self) -> bool:
        return self.jobs > FEW_LEAVING

    def waited(self, leaving: Leaving) -> float:
        """Seconds until others train on."""
        return leaving.of_ranks(self.jobs, self.ranks) if self.is_waited_for else 0.0

    def beside(self, leaving: Leaving) -> float:
        """Seconds of writing which others feel."""
        return 0.0 if self.is_waited_for else leaving.of_ranks(self.jobs, self.ranks)


@dataclass(frozen=True, slots=True, kw_only=True)
class Overheads:
    """Seconds in which nobody trains."""

    launch: float  # to give a new job its place, of an executor's first ones
    launch_beside: float  # of later ones: the memory of adapters grows
    leaving: Leaving | Writing  # by the rule of older executors, or of today's
    reports: float  # to tell of those that come together
    report: float  # more, of each
    departure: float  # of a job that pauses, or has paused and is given up
    first_pass: float  # more, where a pass is the first of its size: compiled, recorded
    recording: float  # the same, of each recording where these are known
    compiling: float  # more, of an executor's first passes then
    launched_pass: float  # at least, of one that is too large to be recorded
    first_evaluation: float  # more, of an executor: compiled
    first_round: float  # more, where so many jobs are evaluated together for the first time
    first_report: float  # more, of a job: memory for its best adapter
    evaluation_of_pairs: float  # more, relative to other samples of as many tokens

    def __post_init__(self) -> None:
        check_seconds(self)

    def first_times(
        self,
        step_time: PassTimes,
        task: Task,
        slowdown: float,
        lengths: SampleLengths | None = None,
        most_recorded: int | None = None,
        told: dict[int, Computed] | None = None,
    ) -> "FirstTimes | Recordings | KnownRecordings | None":
        """Of one GPU; None where passes take no more than their own times. Of data of known lengths
        it may be known of how many tokens passes are recorded at most."""
        if isinstance(step_time, StepTime) and step_time.rows is not None:
            if lengths is not None:
                return KnownRecordings(
                    task=task,
                    lengths=lengths,
                    compiling=self.compiling,
                    recording=self.recording,
                    rows=step_time.rows,
                    per_token=step_time.per_token,
                    launched_pass=self.launched_pass,
                    most_recorded=most_recorded,
                    slowdown=slowdown,
                    told=told,
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
    launch_beside=0.0,
    leaving=Leaving(),
    reports=0.0,
    report=0.0,
    departure=0.0,
    first_pass=0.0,
    recording=0.0,
    compiling=0.0,
    launched_pass=0.0,
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
    made: int = 0  # recordings, of which it knows nothing
    seconds: Mapping[int, float] = field(default_factory=dict)  # of a pass, by its size's class
    paid: Mapping[int, float] = field(default_factory=dict)

    def cleared(self) -> "FirstTimes":
        """It knows of no recordings."""
        return self

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
