"""How jobs end: the words, colours and marks that all figures share."""

from enum import Enum

from alto_policy.decisions import ExitReason
from alto_runs.outcomes.history import JobHistory, Outcome

__all__ = ["Ending", "ending_of"]


class Ending(Enum):
    """Label, colour and mark; the colours are Okabe and Ito's (2008), told apart by all readers."""

    FINISHED = ("trained to its end", "#0072B2", "o")
    UNDERPERFORMED = ("underperformed", "#A9B1BB", ".")
    OVERFITTED = ("overfitted", "#E69F00", "s")
    DIVERGED = ("diverged", "#CC79A7", "X")
    NON_FINITE = ("non-finite loss", "#D55E00", "*")
    FAILED = ("failed", "#1A1A1A", "P")
    OTHER = ("too large or cancelled", "#8C6D31", "v")
    OPEN = ("not ended", "#56B4E9", ">")

    @property
    def label(self) -> str:
        return self.value[0]

    @property
    def color(self) -> str:
        return self.value[1]

    @property
    def mark(self) -> str:
        return self.value[2]


_BY_REASON = {
    ExitReason.UNDERPERFORMED: Ending.UNDERPERFORMED,
    ExitReason.OVERFITTED: Ending.OVERFITTED,
    ExitReason.DIVERGED: Ending.DIVERGED,
    ExitReason.NON_FINITE: Ending.NON_FINITE,
}


def ending_of(job: JobHistory) -> Ending:
    match job.outcome:
        case Outcome.FINISHED:
            return Ending.FINISHED
        case Outcome.FAILED:
            return Ending.FAILED
        case Outcome.STOPPED if job.reason is not None:
            return _BY_REASON.get(job.reason, Ending.OTHER)
        case Outcome.STOPPED:
            return Ending.OTHER
        case Outcome.PAUSED | Outcome.RUNNING | Outcome.QUEUED:
            return Ending.OPEN
