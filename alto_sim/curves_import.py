"""Curves that other trainers wrote."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

from alto_policy.types import JobId
from alto_runs.errors import UserError
from alto_sim.curves import Losses, RecordedCurves

__all__ = ["read_trainer_state", "read_trainer_states"]


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


def read_trainer_states(paths: Mapping[JobId, Path]) -> RecordedCurves:
    """The curves of several jobs, each from its own file."""
    return RecordedCurves({job: read_trainer_state(path) for job, path in paths.items()})


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
