"""Curves of other sources: a folder with one `trainer_state.json` for each job, or a table.

`FOLDER/<job>/trainer_state.json`, or that of the last checkpoint, `FOLDER/<job>/checkpoint-N/`.
`TABLE.csv` or `TABLE.csv.gz`, with the columns job, step, train_loss and val_loss, as `alto report
--csv` writes them.
"""

import json
import logging
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from alto_policy.types import Job, JobId
from alto_runs.errors import UserError
from alto_sim.csv_rows import read_rows
from alto_sim.curves.losses import Losses, RecordedCurves

__all__ = ["COLUMNS", "read_curves", "read_trainer_state"]

log = logging.getLogger(__name__)

COLUMNS = ("job", "step", "train_loss", "val_loss")

_NAME = "trainer_state.json"


def read_trainer_state(path: Path) -> dict[int, Losses]:
    """Losses at each evaluation of a `trainer_state.json` of Hugging Face's Trainer.

    The training loss is the mean of what was logged since the evaluation before. Raises UserError
    with the entry and field at fault.
    """
    history = _history(path)
    reports: dict[int, Losses] = {}
    since: list[float] = []
    for number, entry in enumerate(history):
        place = f"{path}: log_history[{number}]"
        if not isinstance(entry, dict):
            raise UserError(f"{place}: expected an object, got {entry!r}")
        if "loss" in entry:
            since.append(_number(entry, "loss", place))
        if "eval_loss" in entry:
            step = entry.get("step")
            if type(step) is not int or step < 1:
                raise UserError(f"{place}: step: expected an integer of at least 1, got {step!r}")
            val = _number(entry, "eval_loss", place)
            reports[step] = Losses(fmean(since) if since else val, val)
            since = []
    if not reports:
        raise UserError(f"{path}: log_history: no 'eval_loss' in it, expected one at least")
    return reports


def read_curves(path: Path, jobs: Sequence[Job]) -> RecordedCurves:
    """The curves of several jobs, from a table or each from its own file below a folder; what they
    cannot tell is warned of. Raises UserError."""
    if path.is_dir():
        curves = {job.id: read_trainer_state(_state_of(path, job.id)) for job in jobs}
    elif path.name.endswith((".csv", ".csv.gz")):
        curves = _read_table(path, jobs)
    else:
        raise UserError(
            f"{path}: no such folder, expected one with a folder for each job, or a .csv file"
        )
    steps = [(job.id, step) for job in jobs for step in _report_steps(job)]
    if held := sum(step not in curves[job] for job, step in steps):
        log.warning(
            "%s: %d of %d reports are at steps without an evaluation, and take the one before",
            path,
            held,
            len(steps),
        )
    return RecordedCurves(curves)


def _read_table(path: Path, jobs: Sequence[Job]) -> dict[JobId, dict[int, Losses]]:
    """A job without a validation loss has broken down; without a training loss it has learned what
    the validation says. Other jobs, and columns, are passed over."""
    curves: dict[JobId, dict[int, Losses]] = {job.id: {} for job in jobs}
    for row in read_rows(path, COLUMNS):
        reports = curves.get(JobId(row.text("job")))
        if reports is None:
            continue
        step = row.whole("step")
        if not step:
            raise row.error("step", "a whole number of at least 1")
        val, train = row.number("val_loss"), row.number("train_loss")
        val = math.nan if val is None else val
        reports[step] = Losses(val if train is None else train, val)
    if silent := [job for job, reports in curves.items() if not reports]:
        raise UserError(f"{path}: no row of job {silent[0]!r}, expected its losses")
    return curves


def _report_steps(job: Job) -> Iterator[int]:
    step = 0
    while step < job.steps:
        step = job.next_report_step(step)
        yield step


def _state_of(folder: Path, job: JobId) -> Path:
    """The file of the whole run, else of its last checkpoint."""
    path = folder / job / _NAME
    if path.is_file():
        return path
    steps = {
        int(step): found
        for found in (folder / job).glob(f"checkpoint-*/{_NAME}")
        if (step := found.parent.name.removeprefix("checkpoint-")).isdecimal()
    }
    if not steps:
        raise UserError(f"{path}: no such file, expected the curve of job {job!r}")
    return steps[max(steps)]


def _history(path: Path) -> list[Any]:
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: cannot read this file: {error}") from error
    history = state.get("log_history") if isinstance(state, dict) else None
    if not isinstance(history, list):
        raise UserError(f"{path}: log_history: expected a list, got {history!r}")
    return history


def _number(entry: dict[str, Any], field: str, place: str) -> float:
    """The Trainer writes NaN as Python's json does."""
    value = entry[field]
    if type(value) not in (int, float):
        raise UserError(f"{place}: {field}: expected a number, got {value!r}")
    return float(value) if math.isfinite(value) else math.nan
