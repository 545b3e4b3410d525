"""A run for other programs: tables in CSV or Parquet, and a timeline for Perfetto."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from enum import StrEnum
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alto_policy.decisions import Stop
from alto_runs.errors import UserError
from alto_runs.fields import encode_fields
from alto_runs.files.directory import write_atomically
from alto_runs.outcomes.history import RunHistory
from alto_runs.outcomes.lanes import assign_slots
from alto_runs.outcomes.schedule import measure_usage, task_times
from alto_runs.result import Result

if TYPE_CHECKING:
    from pandas import DataFrame

__all__ = ["TableFormat", "tables", "timeline", "write_exports", "write_tables", "write_timeline"]

_CLUSTER = 0  # the process of counters and decisions in a timeline; GPU n is n + 1


class TableFormat(StrEnum):
    CSV = "csv"
    PARQUET = "parquet"


def write_exports(
    runs: Sequence[Path], folder: Path, forms: Sequence[TableFormat], *, with_timeline: bool
) -> Iterator[Path]:
    """Files of each run, in a folder of its own where there are several; raises UserError."""
    for number, run in enumerate(runs):
        result = Result(run)
        own = folder / f"{number}-{run.resolve().name}" if len(runs) > 1 else folder
        for form in forms:
            yield from write_tables(result, own, form)
        if with_timeline:
            yield write_timeline(result, own / "timeline.json")


def tables(result: Result) -> dict[str, "DataFrame"]:
    """Frames by name: jobs, reports, decisions, tasks and usage; lists are joined by blanks."""
    from pandas import DataFrame

    usage = measure_usage(result.history)
    frames = {
        "jobs": result.jobs(),
        "reports": result.reports(),
        "decisions": result.decisions(),
        "tasks": DataFrame(_task_rows(result)),
        "usage": DataFrame(
            {
                "t": usage.times,
                "gpus_allocated": usage.allocated,
                "gpus_busy": usage.busy,
                "adapters": usage.adapters,
            }
        ),
    }
    return {name: frame.map(_plain) for name, frame in frames.items()}


def write_tables(result: Result, folder: Path, form: TableFormat) -> tuple[Path, ...]:
    """One file for each table; raises UserError if the folder cannot be written."""
    paths = []
    for name, frame in tables(result).items():
        path = folder / f"{name}.{form.value}"
        match form:
            case TableFormat.CSV:
                data: str | bytes = frame.to_csv(index=False)
            case TableFormat.PARQUET:
                data = frame.to_parquet(index=False)
        paths.append(_write(path, data))
    return tuple(paths)


def write_timeline(result: Result, path: Path) -> Path:
    """JSON that ui.perfetto.dev and chrome://tracing open."""
    return _write(path, timeline(result))


def timeline(result: Result) -> str:
    """A process for each GPU with a thread for each slot; counters; an instant for each stop."""
    history = result.history
    kinds = (_names, _stays, _executors, _outages, _counters)
    events = chain(*(kind(history) for kind in kinds), _stops(result))
    # One at a time: those of a long trace together would fill a GB.
    told = ", ".join(json.dumps(event) for event in events)
    return f'{{"traceEvents": [{told}], "displayTimeUnit": "ms"}}\n'


def _task_rows(result: Result) -> Iterator[dict[str, object]]:
    winners: dict[str, float | None] = {}
    for standing in result.leaderboard:
        winners.setdefault(standing.task, standing.best_val_loss)
    for times in task_times(result.history):
        measures = result.metrics.tasks[times.task]
        yield {
            **asdict(times),
            "completion": times.completion,
            "queueing": times.queueing,
            "gpu_seconds": measures.gpu_seconds,
            "busy_gpu_seconds": measures.busy_gpu_seconds,
            "samples_total": measures.samples_total,
            "samples_trained": measures.samples_trained,
            "samples_saved": measures.samples_saved,
            "best_val_loss": winners.get(times.task),
        }


def _names(history: RunHistory) -> Iterator[dict[str, object]]:
    held = {gpu for span in history.executors for gpu in span.gpus}
    gpus = sorted(held.union(*(outage.gpus for outage in history.outages)))
    for pid, name in [(_CLUSTER, "cluster"), *((gpu + 1, f"GPU {gpu}") for gpu in gpus)]:
        yield {**_event("M", "process_name", 0.0, pid, 0), "args": {"name": name}}
        yield {**_event("M", "process_sort_index", 0.0, pid, 0), "args": {"sort_index": pid}}
    for gpu in gpus:
        yield {**_event("M", "thread_name", 0.0, gpu + 1, 0), "args": {"name": "backbone"}}


def _stays(history: RunHistory) -> Iterator[dict[str, object]]:
    for gpu, slots in assign_slots(history).items():
        for slot in slots:
            job, stay = slot.job, slot.stay
            event = _event("X", job.spec.id, stay.start, gpu + 1, slot.lane + 1)
            yield {
                **event,
                "dur": _microseconds(stay.end - stay.start),
                "args": {
                    "task": job.task,
                    **encode_fields(job.spec.hyperparameters),
                    "left": stay.how.value if stay.how else None,
                    "outcome": job.outcome.value,
                    "reason": job.reason.value if job.reason else None,
                },
            }


def _executors(history: RunHistory) -> Iterator[dict[str, object]]:
    for span in history.executors:
        for gpu in span.gpus:
            event = _event("X", span.task, span.start, gpu + 1, 0)
            yield {**event, "dur": _microseconds(span.end - span.start)}


def _outages(history: RunHistory) -> Iterator[dict[str, object]]:
    for outage in history.outages:
        for gpu in outage.gpus:
            event = _event("X", f"{outage.node} is down", outage.start, gpu + 1, 0)
            yield {**event, "dur": _microseconds(outage.end - outage.start)}


def _stops(result: Result) -> Iterator[dict[str, object]]:
    for entry in result.log.entries:
        for decision in entry.decisions:
            if isinstance(decision, Stop):
                event = _event("i", f"stop {decision.job}", entry.event.t, _CLUSTER, 0)
                yield {**event, "s": "p", "args": {"reason": decision.reason.value}}


def _counters(history: RunHistory) -> Iterator[dict[str, object]]:
    usage = measure_usage(history)
    series = {"allocated": usage.allocated, "busy": usage.busy, "adapters": usage.adapters}
    for name, counts in series.items():
        for t, count in zip(usage.times.tolist(), counts.tolist(), strict=True):
            yield {**_event("C", name, t, _CLUSTER, 0), "args": {name: count}}


def _event(phase: str, name: str, t: float, process: int, thread: int) -> dict[str, object]:
    return {"ph": phase, "name": name, "ts": _microseconds(t), "pid": process, "tid": thread}


def _microseconds(seconds: float) -> int:
    return round(seconds * 1e6)


def _plain(value: Any) -> Any:
    """Enumerations as their words, tuples as words in a row."""
    if isinstance(value, StrEnum):
        return value.value
    return " ".join(map(str, value)) if isinstance(value, tuple) else value


def _write(path: Path, data: str | bytes) -> Path:
    try:
        write_atomically(path, data)
    except OSError as error:
        raise UserError(f"{path}: cannot write this file: {error.strerror}") from error
    return path
