"""`cluster_job_log` of Microsoft's Philly clusters (Jeon et al. 2019), as published."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from alto_runs.errors import UserError
from alto_sim.csv_rows import open_text, seconds_of
from alto_sim.importers.trace import Sieve, Trace, TraceJob

__all__ = ["PHILLY", "read_philly"]

PHILLY = "cluster_job_log"  # the file's name, to which a user may add .json


def read_philly(path: Path) -> Trace:
    """A job's duration is the sum of its attempts; its width that of its widest attempt."""
    try:
        with open_text(path) as file:
            jobs = json.load(file)
    except (ValueError, OSError, EOFError, RecursionError) as error:
        raise UserError(f"{path}: not a JSON file: {error}") from error
    if not isinstance(jobs, list):
        raise UserError(f"{path}: expected a list of jobs, got {type(jobs).__name__}")
    sieve = Sieve(str(path))
    for number, job in enumerate(jobs):
        try:
            _take(sieve, job)
        except (KeyError, TypeError, ValueError) as error:
            what = f"no field {error}" if isinstance(error, KeyError) else str(error)
            raise UserError(f"{path}: job {number}: {what}") from error
    return sieve.trace()


def _take(sieve: Sieve, job: Mapping[str, Any]) -> None:
    submitted, attempts = _seconds(job["submitted_time"]), job["attempts"]
    spans = [(_seconds(each["start_time"]), _seconds(each["end_time"])) for each in attempts]
    times = sieve.times(submitted, spans)
    if times is None:
        return
    widths = [sum(len(node["gpus"]) for node in each["detail"]) for each in attempts]
    sieve.take(
        TraceJob(
            id=str(job["jobid"]),
            submitted=times.submitted,
            duration=times.seconds,
            num_gpus=max(widths),
            tenant=str(job["vc"]),
        )
    )


def _seconds(moment: str | None) -> float | None:
    return None if moment in (None, "None", "") else seconds_of(str(moment))
