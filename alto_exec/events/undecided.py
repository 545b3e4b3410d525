"""Decisions that could not be told are made again, from where the log ends."""

import logging
from collections.abc import Callable, Sequence

from alto_policy.decisions import Decision, Stop

__all__ = ["Perseverance", "UndecidedError"]

log = logging.getLogger(__name__)

_MOST_ROUNDS = 5


class UndecidedError(Exception):
    """What was decided last must not be told, since what it was decided on is lost."""


class Perseverance:
    """Goes on so many times in a row; a job that was told to stop shows that the run gets on."""

    def __init__(self) -> None:
        self._left = _MOST_ROUNDS

    def heard(self, decisions: Sequence[Decision]) -> None:
        """These were told."""
        if any(isinstance(decision, Stop) for decision in decisions):
            self._left = _MOST_ROUNDS

    def go_on(self, from_log: Callable[[], None]) -> None:
        """`from_log` begins where the log ends. Raises the last UndecidedError."""
        while True:
            try:
                return from_log()
            except UndecidedError as error:
                self._left -= 1
                if not self._left:
                    raise
                log.warning("%s, and goes on from its log", error)
