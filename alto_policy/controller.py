"""The loop that every backend shares."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import isfinite
from typing import Protocol

from alto_policy.decisions import Decision
from alto_policy.events import Event
from alto_policy.ledger.cluster import Cluster
from alto_policy.ledger.transitions import IllegalDecisionError, ImpossibleEventError
from alto_policy.runlog import Entry, dump_entry
from alto_policy.view import Policy

__all__ = ["Backend", "Controller", "Difference", "Policy", "replay", "run"]


class Backend(Protocol):
    """A cluster of GPUs. It owns the clock and stamps the events."""

    def next_event(self) -> Event | None: ...
    def execute(self, decision: Decision) -> None: ...


class Controller:
    """Folds events into the ledger and asks the policy; `record` sees an entry before it acts."""

    def __init__(
        self, policy: Policy, cluster: Cluster, record: Callable[[Entry], None] | None = None
    ) -> None:
        self._policy = policy
        self._cluster = cluster
        self._record = record

    def handle(self, event: Event) -> tuple[Decision, ...]:
        """Decisions on the event, all of them legal.

        Raises IllegalDecisionError or ImpossibleEventError; the controller is of no use after it.
        """
        if not isfinite(event.t):
            raise ImpossibleEventError(f"t must be finite, got {event.t}")
        cluster = self._cluster
        is_news = cluster.apply(event)
        decisions = self._policy.observe(event, cluster) if is_news else ()
        if decisions is None:  # of a user's policy, which no type checker need have seen
            raise IllegalDecisionError("observe returns None, expected a tuple of decisions")
        for decision in decisions:
            cluster.commit(decision)
        if self._record is not None:
            self._record(Entry(event, decisions))
        return decisions


@dataclass(frozen=True, slots=True)
class Difference:
    """The first entry of a log that is decided differently now."""

    index: int
    event: Event
    logged: tuple[Decision, ...]
    decided: tuple[Decision, ...]


def run(controller: Controller, backend: Backend) -> None:
    next_event, handle, execute = backend.next_event, controller.handle, backend.execute
    while (event := next_event()) is not None:
        for decision in handle(event):
            execute(decision)


def replay(entries: Iterable[Entry], controller: Controller) -> Difference | None:
    """Decide again; None if every line comes out byte for byte as it was logged."""
    for index, entry in enumerate(entries):
        decided = controller.handle(entry.event)
        if dump_entry(Entry(entry.event, decided)) != dump_entry(entry):
            return Difference(index, entry.event, entry.decisions, decided)
    return None
