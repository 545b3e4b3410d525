"""Jobs by their best validation loss."""

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from json.encoder import encode_basestring_ascii
from typing import NamedTuple

from alto_policy.decisions import ExitReason
from alto_policy.frozen import quick
from alto_policy.types import Hyperparameters, JobId, TaskId
from alto_runs.errors import UserError
from alto_runs.fields import encode_fields
from alto_runs.files.directory import RunDirectory, adapter_place, checked_name
from alto_runs.files.tensor_header import told_with
from alto_runs.outcomes.history import JobHistory, Outcome, RunHistory

__all__ = [
    "ADAPTER_CONFIG",
    "ADAPTER_STEP",
    "ADAPTER_WEIGHTS",
    "Standing",
    "leaderboard_json",
    "rank_jobs",
    "varying_fields",
]

ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
ADAPTER_STEP = "step"  # of its job, told with the weights

_READERS = 16  # at a time, of a store


@quick
@dataclass(frozen=True, slots=True)
class Standing:
    """A job's place; a loss is None before the first report, `adapter` a path in the directory."""

    job: JobId
    task: TaskId
    hyperparameters: Hyperparameters
    status: Outcome
    reason: ExitReason | None
    steps: int
    best_val_loss: float | None
    final_val_loss: float | None
    adapter: str | None


class _Held(NamedTuple):
    """What a job competes with."""

    loss: float | None
    adapter: str | None


def rank_jobs(
    history: RunHistory, directory: RunDirectory | None = None, *, is_anew: bool = True
) -> tuple[Standing, ...]:
    """Task by task, best first; ties in the order of the jobs, jobs without a finite loss last.

    A job that was stopped competes with its best report. Adapters are looked up in the directory:
    one that is of another report, since a better one was lost with its executor as the task was
    given up, competes with the loss that it has. Unless `is_anew`, a store is not asked where the
    leaderboard was written before. Raises UserError.
    """
    held: Mapping[JobId, _Held] = {}
    if directory is not None:
        is_told = not is_anew and directory.stored_at and directory.leaderboard_path.exists()
        held = _told(directory) if is_told else _looked_up(history, directory)
    ranked: list[Standing] = []
    for _, jobs in history.by_task():
        if len(jobs) == 1:
            ranked.append(_standing(jobs[0], held))
        else:
            ranked += sorted([_standing(job, held) for job in jobs], key=_loss)
    return tuple(ranked)


def leaderboard_json(standings: Iterable[Standing]) -> Iterator[str]:
    """Parts of a list of flat objects, each on a line; a loss that is not finite is null."""
    chosen, text = None, ""  # most jobs in a row share one set of hyper-parameters, or none does
    end = "[\n"
    for standing in standings:
        if standing.hyperparameters is not chosen:
            chosen = standing.hyperparameters
            text = _members(encode_fields(chosen))
        yield f"{end}  {_row(standing, text)}"
        end = ",\n"
    yield "[]\n" if end == "[\n" else "\n]\n"


def varying_fields(standings: Sequence[Standing]) -> tuple[str, ...]:
    """Hyper-parameters in which the jobs differ; alpha not where it is twice the rank."""
    chosen = [standing.hyperparameters for standing in standings]
    names = [field.name for field in fields(Hyperparameters)]
    if all(one.alpha == 2 * one.rank for one in chosen):
        names.remove("alpha")
    return tuple(name for name in names if len({getattr(one, name) for one in chosen}) > 1)


def _standing(job: JobHistory, held: Mapping[JobId, _Held]) -> Standing:
    best = final = adapter = None
    if job.reports:
        losses = [report.val_loss for report in job.reports]
        best = min((loss for loss in losses if math.isfinite(loss)), default=None)
        final = losses[-1]
    spec = job.spec
    if held and spec.id in held:
        best, adapter = held[spec.id]
    return Standing(  # by place: each name costs 50 ns, and a trace has 100,000 jobs
        spec.id,
        job.task,
        spec.hyperparameters,
        job.outcome,
        job.reason,
        job.steps,
        best,
        final,
        adapter,
    )


def _looked_up(history: RunHistory, directory: RunDirectory) -> Mapping[JobId, _Held]:
    """Of jobs whose adapter is there: its weights are written last."""
    names = {checked_name(job): job for job in history.jobs}
    try:
        there = directory.jobs.names()  # where nobody trained, this spares a look for each job
    except OSError as error:
        raise UserError(f"{directory.jobs}: cannot be read: {error}") from error
    found = [names[name] for name in names if f"{name}/{ADAPTER_WEIGHTS}" in there] if there else []
    files = [directory.adapter(job) / ADAPTER_WEIGHTS for job in found]
    with ThreadPoolExecutor(_READERS) as readers:
        steps = [told.get(ADAPTER_STEP) for told in readers.map(told_with, files)]
    return {job: _held(history.jobs[job], step) for job, step in zip(found, steps, strict=True)}


def _held(job: JobHistory, step: str | None) -> _Held:
    """Of an adapter that tells its step; older ones do not, and are of the best report. One whose
    report nobody has heard is not named."""
    losses = {str(report.step): report.val_loss for report in job.reports}
    finite = [loss for loss in losses.values() if math.isfinite(loss)]
    best = min(finite, default=None)
    if step is not None and losses.get(step) not in finite:
        return _Held(best, None)
    loss = best if step is None else losses[step]
    return _Held(loss, adapter_place(job.spec.id))


def _told(directory: RunDirectory) -> Mapping[JobId, _Held]:
    """By the leaderboard as it was written."""
    try:
        rows = json.loads(directory.leaderboard_path.read_bytes())
        return {JobId(row["job"]): _Held(row["best_val_loss"], row["adapter"]) for row in rows}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{directory.leaderboard_path}: not a leaderboard: {error}") from error


def _loss(standing: Standing) -> float:
    return math.inf if standing.best_val_loss is None else standing.best_val_loss


def _row(standing: Standing, hyperparameters: str) -> str:
    """A JSON object; `json.dumps` takes three times as long, and a trace has 100,000 jobs."""
    return (
        f'{{"job": {encode_basestring_ascii(standing.job)}, '
        f'"task": {encode_basestring_ascii(standing.task)}, {hyperparameters}, '
        f'"status": {encode_basestring_ascii(standing.status)}, '
        f'"reason": {_text(standing.reason)}, '
        f'"steps": {standing.steps}, "best_val_loss": {_number(standing.best_val_loss)}, '
        f'"final_val_loss": {_number(standing.final_val_loss)}, '
        f'"adapter": {_text(standing.adapter)}}}'
    )


def _members(fields: Mapping[str, object]) -> str:
    return json.dumps(fields, allow_nan=False)[1:-1]


def _text(text: str | None) -> str:
    return "null" if text is None else encode_basestring_ascii(text)


def _number(loss: float | None) -> str:
    return "null" if loss is None or not math.isfinite(loss) else repr(loss)
