"""A machine on which what was to be decided on is lost before it can be told."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from alto_exec.events.undecided import UndecidedError
from alto_exec.site import RunToTrain, ThisMachine, TrainingBackend
from alto_policy.decisions import Decision, Stop

__all__ = ["Losing"]


class Losing(ThisMachine):
    """Loses what the first decisions to stop were made on, so many times."""

    def __init__(self, times: int) -> None:
        self._left = times

    @contextmanager
    def backend(self, run: RunToTrain) -> Iterator[TrainingBackend]:
        with super().backend(run) as backend:
            prepare = backend.prepare

            def lose(decisions: Sequence[Decision]) -> None:
                if self._left and any(isinstance(decision, Stop) for decision in decisions):
                    self._left -= 1
                    raise UndecidedError("the executor is gone")
                prepare(decisions)

            backend.prepare = lose  # type: ignore[method-assign]
            yield backend
