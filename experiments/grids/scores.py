"""Recorded searches with what was asked of their adapters: how many answers each gives.

A run that was judged has an `answers.jsonl` beside its log (`recordings/answers.py`), a line for
the untuned model and for each adapter: the share of the validation set that greedy decoding answers
word for word, the share of answer tokens that are the most likely ones after those before, or the
share of pairs in which the better answer is preferred.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from pathlib import Path

from alto_policy.codec import MalformedError, codec_of
from alto_policy.decisions import ExitReason
from alto_policy.events import TaskArrived
from alto_policy.policies import Settings
from alto_policy.policies.fifo import FifoSettings
from alto_policy.policies.sequential import SequentialSettings
from alto_policy.runlog import RunLog
from alto_policy.types import Hyperparameters, JobId, Task
from alto_runs.errors import UserError
from alto_runs.files.lines import as_found, open_lines
from alto_runs.outcomes.history import Outcome, follow
from alto_runs.outcomes.leaderboard import Standing, rank_jobs
from alto_runs.outcomes.metrics import measure
from experiments.grids.curve_sets import RECORDED, CurveSet, recorded_logs
from experiments.grids.same_task import is_same_task, seed_of

__all__ = ["ANSWERS", "Answers", "Measure", "Search", "read_answers", "scored_as", "searches"]

ANSWERS = "answers.jsonl"


class Measure(StrEnum):
    ANSWERS = "whole answers"
    TOKENS = "answer tokens"
    PREFERRED = "pairs preferred"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """Shares of the validation set; what its examples do not have is None."""

    task: str
    job: str | None  # None: the untuned model
    answers: float | None = None
    tokens: float | None = None
    preferred: float | None = None

    def share(self, measure: Measure) -> float | None:
        match measure:
            case Measure.ANSWERS:
                return self.answers
            case Measure.TOKENS:
                return self.tokens
            case Measure.PREFERRED:
                return self.preferred


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Search:
    """One task of a recorded run."""

    origin: str  # its log
    task: Task
    policy: Settings
    is_whole: bool  # not cut off
    saved_by_rule: Mapping[ExitReason, float]  # shares of all samples
    standings: Sequence[Standing]  # best first
    untuned: Answers | None  # None: its adapters were not judged
    scores: Mapping[Hyperparameters, Answers]  # of jobs that came to an end

    @property
    def seed(self) -> int:
        return seed_of(self.task)

    @property
    def has_exits(self) -> bool:
        return not isinstance(self.policy, FifoSettings | SequentialSettings)

    @property
    def best_loss(self) -> float:
        loss = self.standings[0].best_val_loss
        assert loss is not None
        return loss

    def of_winner(self, measure: Measure) -> float | None:
        score = self.scores.get(self.standings[0].hyperparameters)
        return None if score is None else score.share(measure)


@cache
def searches(folder: Path = RECORDED) -> tuple[Search, ...]:
    """Of all run logs of the folder. Raises UserError where answers are not those of the run."""
    return tuple(
        search
        for path, log in recorded_logs(folder)
        for search in _searches_of(path, log, folder.parents[1] / path)
    )


def scored_as(curves: CurveSet, folder: Path = RECORDED) -> Search | None:
    """The judged search without exits whose jobs are those of the set; None: nobody judged them."""
    return next(
        (
            one
            for one in searches(folder)
            if one.untuned is not None
            and not one.has_exits
            and is_same_task(one.task, curves.task)
            and one.seed == seed_of(curves.task)
        ),
        None,
    )


def read_answers(path: Path) -> tuple[Answers, ...]:
    """Nothing where there is no such file. Raises UserError."""
    if not path.is_file():
        return ()
    try:
        with open_lines(path) as lines:
            return tuple(codec_of(Answers).decode(json.loads(line)) for line in lines)
    except (ValueError, MalformedError) as error:
        raise UserError(f"{path}: not what answers.py writes: {error}") from error


def _searches_of(name: str, log: RunLog, path: Path) -> Iterator[Search]:
    history = follow(log)
    metrics, ranked = measure(history), rank_jobs(history)
    answers = as_found(path.with_name(ANSWERS))
    told = read_answers(answers)
    assert log.header is not None
    for task in (e.event.task for e in log.entries if isinstance(e.event, TaskArrived)):
        own = metrics.tasks[task.id]
        standings = [one for one in ranked if one.task == task.id]
        untuned, scores = _scores(answers, task, standings, told)
        yield Search(
            origin=name,
            task=task,
            policy=log.header.policy,
            is_whole=all(one.status in _ENDINGS for one in standings),
            saved_by_rule={
                rule: samples / own.samples_total for rule, samples in own.saved_by_rule.items()
            },
            standings=standings,
            untuned=untuned,
            scores=scores,
        )


_ENDINGS = (Outcome.FINISHED, Outcome.STOPPED)


def _scores(
    path: Path, task: Task, standings: Sequence[Standing], told: Sequence[Answers]
) -> tuple[Answers | None, dict[Hyperparameters, Answers]]:
    """Of the untuned model, and of each job that came to its end."""
    by_job = {JobId(one.job): one for one in told if one.task == task.id and one.job is not None}
    if strange := sorted(by_job.keys() - {job.id for job in task.jobs}):
        raise UserError(f"{path}: job {strange[0]!r} is not of this run")
    untuned = next((one for one in told if one.task == task.id and one.job is None), None)
    if untuned is None and by_job:
        raise UserError(f"{path}: no line of the untuned model of {task.id}")
    return untuned, {
        one.hyperparameters: by_job[one.job]
        for one in standings
        if one.job in by_job and one.status in _ENDINGS
    }
