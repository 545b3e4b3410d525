"""Which number of threads is taken, by a stopwatch that tells what a machine would."""

import itertools
from collections.abc import Callable

import pytest

from alto_exec.host.thread_count import clearly_fastest

Machine = Callable[[int, int], float]  # seconds of a turn, by threads and rounds until then


def idle(threads: int, rounds: int) -> float:
    """Two cores: four threads on them gain nothing more."""
    return {1: 0.020, 2: 0.011, 4: 0.011}[threads]


def shared(threads: int, rounds: int) -> float:
    return 0.040 if threads == 1 else 0.160


def hiccup(threads: int, rounds: int) -> float:
    return 5.0 if (threads, rounds) == (2, 4) else idle(threads, rounds)


def lucky(threads: int, rounds: int) -> float:
    """The neighbours sleep for a moment, and two threads are as fast as on an idle machine."""
    return idle(threads, rounds) if rounds == 2 else shared(threads, rounds)


def slowing(threads: int, rounds: int) -> float:
    """All become slower, for whatever reason, while they are timed."""
    return idle(threads, rounds) * (10 if rounds > 3 else 1)


def little(threads: int, rounds: int) -> float:
    return 0.020 if threads == 1 else 0.018


def cold(threads: int, rounds: int) -> float:
    """Threads are made in the first round, and in another one they meet a neighbour."""
    return 5.0 if rounds in (0, 2) and threads == 2 else idle(threads, rounds)


@pytest.mark.parametrize(
    ("machine", "expected"),
    [(idle, 2), (shared, 1), (hiccup, 2), (lucky, 1), (slowing, 2), (little, 1), (cold, 2)],
    ids=lambda one: getattr(one, "__name__", one),
)
def test_more_threads_are_taken_where_they_are_clearly_faster(
    machine: Machine, expected: int
) -> None:
    counts = (1, 2, 4)
    num_turns = itertools.count()

    def seconds_with(threads: int) -> float:
        return machine(threads, next(num_turns) // len(counts))

    assert clearly_fastest(counts, seconds_with) == expected


def test_no_round_begins_after_a_second() -> None:
    taken: list[float] = []

    def seconds_with(threads: int) -> float:
        taken.append(0.1 if threads == 1 else 1.0)
        return taken[-1]

    assert clearly_fastest((1, 2), seconds_with) == 1
    assert len(taken) == 2 * (1 + 3)  # those that are not counted, and three rounds
