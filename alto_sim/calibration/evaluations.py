"""Learns from what executors told how long evaluations take."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median_low

from alto_policy.types import TaskId
from alto_runs.files.executor_work import EvaluationWork
from alto_sim.calibration.least_squares import LEAST_SECONDS, typical, weighed
from alto_sim.times.step_time import forward_passes

__all__ = ["Rounds", "firsts_of", "fit_rounds"]

_WAITING = [0, *(1 << power for power in range(9, 15))]  # tokens, of which one parts passes best


@dataclass(frozen=True, slots=True)
class Rounds:
    """Seconds of evaluations that are made together."""

    per_round: float
    per_token: float
    per_sequence: float
    per_pass: float  # at least: of few tokens the device is done before the host
    first: float  # more, of all
    first_round: float  # more, of so many jobs for the first time
    first_report: float  # more, of a job

    def seconds(self, row: EvaluationWork, means: Mapping[TaskId, float]) -> float:
        """Of a steady one."""
        passes = forward_passes(row.jobs, row.tokens / row.jobs)
        each = self.per_token + self.per_sequence * _sequences(row, means)
        return self.per_round + math.fsum(
            count * max(self.per_pass, each * tokens) for count, tokens in passes
        )


_NOTHING = Rounds(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)


def _sequences(row: EvaluationWork, means: Mapping[TaskId, float]) -> float:
    """For each token; none where nothing is known of them."""
    return 1 / means[row.task] if row.task in means else 0.0


def fit_rounds(
    runs: Sequence[Sequence[EvaluationWork]], means: Mapping[TaskId, float] | None = None
) -> Rounds:
    """Steady rounds are those of as many jobs as before, none of them for the first time; the
    others tell what they took more. `means` are tokens of a sequence, of tasks; data sets of one
    mean tell nothing of sequences."""
    means = {} if means is None or len({*means.values()}) == 1 else means
    rows = [row for run in runs for row in run]
    if not rows:
        return _NOTHING
    firsts = [first for run in runs for first in firsts_of(run)]
    steady = [row for row, first in zip(rows, firsts, strict=True) if not any(first)] or rows
    times = min(
        (_with_waiting(steady, means, tokens) for tokens in _WAITING),
        key=lambda times: round(math.fsum(_missed(row, means, times) for row in steady), 9),
    )
    more = [row.seconds - times.seconds(row, means) for row in rows]
    of_each = list(zip(rows, more, firsts, strict=True))
    first_report = typical(
        seconds / row.first_reports
        for row, seconds, (is_first, _, news) in of_each
        if news and not is_first
    )
    return replace(
        times,
        first=max(
            0.0,
            median_low(
                [s - first_report * row.first_reports for row, s, first in of_each if first[0]]
            ),
        ),
        first_round=typical(s for _, s, (_, is_new, news) in of_each if is_new and not news),
        first_report=first_report,
    )


def _with_waiting(
    rows: Sequence[EvaluationWork], means: Mapping[TaskId, float], least: int
) -> Rounds:
    """Where passes of fewer tokens wait for the host."""
    work = []
    for row in rows:
        passes = forward_passes(row.jobs, row.tokens / row.jobs)
        waiting = sum(count for count, tokens in passes if tokens < least)
        tokens = math.fsum(count * tokens for count, tokens in passes if tokens >= least)
        work.append((1, tokens, tokens * _sequences(row, means), waiting))
    found = weighed(work, [row.seconds for row in rows])
    per_round, per_token, per_sequence, per_pass = found
    return replace(
        _NOTHING,
        per_round=per_round,
        per_token=per_token,
        per_sequence=per_sequence,
        per_pass=per_pass,
    )


def _missed(row: EvaluationWork, means: Mapping[TaskId, float], times: Rounds) -> float:
    return (row.seconds - times.seconds(row, means)) ** 2 / max(row.seconds, LEAST_SECONDS)


def firsts_of(rows: Sequence[EvaluationWork]) -> list[tuple[float, ...]]:
    """Of each: whether it is the first, whether others are the first of so many jobs, and how many
    jobs report for the first time."""
    known: set[int] = set()
    firsts: list[tuple[float, ...]] = []
    for row in rows:
        is_new = row.jobs not in known
        firsts.append((is_new and not known, is_new and bool(known), row.first_reports))
        known.add(row.jobs)
    return firsts
