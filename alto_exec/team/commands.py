"""What the leader asks of every rank, and what a rank says to it: JSON, by the run log's codec."""

from dataclasses import dataclass

from alto_exec.executor import Report
from alto_policy.codec import Codec, codec_of
from alto_policy.events import Departure
from alto_policy.executors.layout import Spread
from alto_policy.memory import MemoryModel
from alto_policy.types import JobId, TaskId

__all__ = [
    "ANSWER",
    "COMMAND",
    "Advance",
    "Answer",
    "Assist",
    "Command",
    "Finish",
    "Launch",
    "Leave",
    "Reach",
    "Resume",
    "ResumeAll",
    "Secure",
    "Start",
]


@dataclass(frozen=True, slots=True)
class Start:
    """Come up as an executor of the task; the one before is given up."""

    task: TaskId
    spread: Spread
    writer: str | None  # of the run's folder


@dataclass(frozen=True, slots=True)
class Launch:
    """Of concern to the rank that is named, as all that follow."""

    job: JobId
    rank: int


@dataclass(frozen=True, slots=True)
class Leave:
    job: JobId
    keep: bool


@dataclass(frozen=True, slots=True)
class Reach:
    """Come to the report of `step`, on the rank that is named, and keep what the job has then."""

    job: JobId
    step: int
    rank: int


@dataclass(frozen=True, slots=True)
class Secure:
    """Have the best adapters of these jobs on disk, on whichever ranks they are."""

    jobs: tuple[JobId, ...]


@dataclass(frozen=True, slots=True)
class Resume:
    """Decisions on the report that the job made at `step` have come."""

    job: JobId
    step: int


@dataclass(frozen=True, slots=True)
class ResumeAll:
    """They have come on all reports."""


@dataclass(frozen=True, slots=True)
class Advance:
    pass


@dataclass(frozen=True, slots=True)
class Assist:
    """Load the task's backbone in shards, and take part in passes that the leader makes."""

    task: TaskId
    spread: Spread


@dataclass(frozen=True, slots=True)
class Finish:
    """There is nothing more to do."""


Command = Start | Launch | Leave | Reach | Secure | Resume | ResumeAll | Advance | Assist | Finish


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came of a command on one rank."""

    tokens_trained: int = 0
    reports: tuple[Report, ...] = ()
    ends: tuple[tuple[JobId, Departure], ...] = ()
    evicted: JobId | None = None  # out of memory
    memory: MemoryModel | None = None  # of an executor that came up


COMMAND: Codec[Command] = codec_of(Command)
ANSWER: Codec[Answer] = codec_of(Answer)
