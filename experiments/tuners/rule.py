"""What a stopping rule of a tuner is asked, and the rules that need no tuner."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

__all__ = ["GRACES", "Patience", "Peer", "Rule", "TrainAll"]

GRACES = (1, 2, 4)  # reports of 40 before which nothing is stopped: 2.5, 5 and 10 % of a job


class Rule(Protocol):
    """One run of a tuner. A report is the tuner's unit of time, counted from 1."""

    def begin(self, job: int) -> None: ...
    def stops(self, job: int, report: int, loss: float) -> bool: ...
    def end(self, job: int, loss: float) -> None:
        """The job has ended; `loss` is its last finite one."""
        ...


@dataclass(frozen=True, slots=True)
class Peer:
    """A rule of a tuner with its settings; `make` takes the number of reports and a seed."""

    name: str
    setting: str
    make: Callable[[int, int], Rule]


class TrainAll:
    """No rule at all."""

    def begin(self, job: int) -> None:
        pass

    def stops(self, job: int, report: int, loss: float) -> bool:
        return False

    def end(self, job: int, loss: float) -> None:
        pass


class Patience(TrainAll):
    """Prechelt's rule as trainers have it: stop after so many reports without a better loss.

    The semantics of `transformers.EarlyStoppingCallback`, whose class needs a Trainer.
    """

    def __init__(self, patience: int) -> None:
        self._patience = patience
        self._best: dict[int, float] = {}
        self._waited: dict[int, int] = {}

    def stops(self, job: int, report: int, loss: float) -> bool:
        if job not in self._best or loss < self._best[job]:
            self._best[job], self._waited[job] = loss, 0
        else:
            self._waited[job] += 1
        return self._waited[job] >= self._patience
