"""What the head and an executor's process say to each other.

Every message may come twice: a head that has died and come back says again what the log holds, and
hears again what it had not yet confirmed. A stay counts the launches of a job, so that whatever
belongs to an earlier one is known as such.
"""

from dataclasses import dataclass

from alto_exec.jobs.residence import Losses
from alto_policy.codec import Codec, codec_of
from alto_policy.events import Departure
from alto_policy.memory import MemoryModel
from alto_policy.types import Job, JobId

__all__ = [
    "CALL",
    "ORDERS",
    "PULSE",
    "Broken",
    "Call",
    "Join",
    "Leave",
    "Left",
    "News",
    "Order",
    "Orders",
    "Pulse",
    "Ready",
    "Release",
    "Reported",
    "Secure",
    "Secured",
]


@dataclass(frozen=True, slots=True)
class Join:
    job: Job
    stay: int
    place: int = 0  # which of the executor's devices it trains on


@dataclass(frozen=True, slots=True)
class Release:
    """Decisions on the report that the job made at `step` have come."""

    job: JobId
    step: int


@dataclass(frozen=True, slots=True)
class Leave:
    job: JobId
    stay: int
    how: Departure  # PAUSED or STOPPED


@dataclass(frozen=True, slots=True)
class Secure:
    """Have the best adapters of these jobs on disk: they are about to stop."""

    jobs: tuple[Job, ...]


Order = Join | Release | Leave | Secure


@dataclass(frozen=True, slots=True)
class Orders:
    """With them so many of the executor's news have been answered, from the first ever."""

    orders: tuple[Order, ...]
    answered: int


@dataclass(frozen=True, slots=True)
class Call:
    """Asks for a pulse: as soon as there are news, or after so many seconds. Those `confirmed` are
    in the log, and need not be told again."""

    confirmed: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Ready:
    """The backbone is loaded."""

    memory: MemoryModel


@dataclass(frozen=True, slots=True)
class Reported:
    job: JobId
    stay: int
    step: int
    losses: Losses


@dataclass(frozen=True, slots=True)
class Left:
    job: JobId
    stay: int
    how: Departure


@dataclass(frozen=True, slots=True)
class Broken:
    """The executor is gone, or will train no more; one that was asked to go among them."""

    why: str
    is_mistake: bool = False  # of the user, told in one line


@dataclass(frozen=True, slots=True)
class Secured:
    """What these jobs have as their best adapters is on disk."""

    jobs: tuple[JobId, ...]


News = Ready | Reported | Left | Secured | Broken


@dataclass(frozen=True, slots=True)
class Pulse:
    """A sign of life, with the news that are not confirmed; the first one has number `first`."""

    first: int
    news: tuple[News, ...]
    tokens_trained: int
    pass_seconds: float  # that the pass under way has taken; evaluations are part of it


ORDERS: Codec[Orders] = codec_of(Orders)
CALL: Codec[Call] = codec_of(Call)
PULSE: Codec[Pulse] = codec_of(Pulse)
