"""A finished run as a terminal shows it."""

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from statistics import fmean, stdev

from rich.console import Console, RenderableType
from rich.progress import track
from rich.table import Table
from rich.text import Text

from alto_policy.executors.packing import by_batch_size, pack
from alto_policy.types import GpuId, Job, Task
from alto_runs.costs.step_profile import NOT_MEASURED, Basis
from alto_runs.fields import encode_fields
from alto_runs.files.logfile import read_header
from alto_runs.measurement import Forecast, MeasuredTask
from alto_runs.outcomes.comparison import Comparison, read_comparisons
from alto_runs.outcomes.history import Outcome
from alto_runs.outcomes.leaderboard import Standing, varying_fields
from alto_runs.outcomes.metrics import TaskMetrics
from alto_runs.result import Result

__all__ = [
    "GENERATED",
    "LENGTHS",
    "LOSSES",
    "counted",
    "print_forecast",
    "print_seeds",
    "print_summary",
    "seeds_json",
    "stdout_console",
]

# Facts of a simulated log's header.
LOSSES, GENERATED = "losses", "generated"
LENGTHS = "sequence lengths"

_ROWS = 16  # of a leaderboard; the rest is in leaderboard.json
_MOST_TASKS = 5  # with a leaderboard of their own
_NOT_TRAINED = "losses are generated: they tell how a policy fares, not which job is best"
_NO_ROOM = (
    "nothing was trained, since it asks for more GPUs than there are, or no job fits beside the "
    "backbone into the memory of a GPU (or executor.memory_gb)"
)
_Totals = tuple[tuple[str, float | None, str], ...]


def stdout_console() -> Console:
    """As wide as the terminal; a file or pipe gets lines as long as they are."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(width=200, highlight=False)


def print_summary(result: Result, console: Console) -> None:
    """Leaderboard, savings and the winner beside the untuned model, for each of a few tasks.

    Totals where there are many.
    """
    comparisons = {one.task: one for one in read_comparisons(result.directory.comparison_path)}
    tasks = result.history.tasks
    if len(tasks) > _MOST_TASKS:
        console.print(_totals_table([result]))
        tasks = ()
    for task in tasks:
        for part in _task_parts(task, result, comparisons.get(task.id)):
            console.print(part, soft_wrap=isinstance(part, Text))
    _print_cautions(result, console)
    console.print(Text(f"run directory: {result.directory.path}"), soft_wrap=True)


def print_seeds(results: Sequence[Result], console: Console) -> None:
    """The mean over the runs of each total, and its standard deviation."""
    console.print(_totals_table(results))
    _print_cautions(results[0], console)
    folder = results[0].directory.path.parent
    console.print(Text(f"alto report {folder} tells more"), soft_wrap=True)


def _print_cautions(result: Result, console: Console) -> None:
    """What the figures of a simulation do not stand on."""
    header = read_header(result.directory.log_path)
    facts = header.facts if header is not None else {}
    if result.step_times == Basis.ESTIMATED:
        console.print(Text(f"{NOT_MEASURED} ({facts['profile']})"), soft_wrap=True)
    if facts.get(LOSSES) == GENERATED:
        console.print(Text(_NOT_TRAINED), soft_wrap=True)
    if LENGTHS in facts:
        told = f"tokens of the data are {facts[LENGTHS]}; alto tune --dry-run counts them"
        console.print(Text(told), soft_wrap=True)
    if facts.get("clock") == "simulated" and (tasks := result.without_room):
        told = (
            f"{len(tasks):,} of {len(result.history.tasks):,} tasks" if tasks[1:] else tasks[0].id
        )
        console.print(Text(f"{told}: {_NO_ROOM}"), soft_wrap=True)


def seeds_json(results: Sequence[Result]) -> str:
    """metrics.json of each run but its tasks, by the name of its folder."""
    runs = {
        result.directory.path.name: {
            "step_times": result.step_times,
            **asdict(result.metrics.overall),
            "schedule": asdict(result.metrics.schedule),
        }
        for result in sorted(results, key=lambda result: result.directory.path)
    }
    return json.dumps(runs, indent=2, allow_nan=False) + "\n"


def _totals_table(results: Sequence[Result]) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column("measure")
    table.add_column("value", justify="right")
    for rows in zip(*map(_totals, results), strict=False):
        name, _, form = rows[0]
        values = [value for _, value, _ in rows if value is not None]
        told = "-" if not values else f"{fmean(values):{form}}"
        if len(values) > 1:
            told += f" \N{PLUS-MINUS SIGN} {stdev(values):{form}}"
        table.add_row(name, told)
    return table


def _totals(result: Result) -> _Totals:
    overall, schedule = result.metrics.overall, result.metrics.schedule
    hours = ",.1f" if overall.gpu_seconds >= 36_000 else ",.4f"
    samples: _Totals = (
        ("samples trained", overall.samples_trained, ",.0f"),
        ("samples saved, share", overall.saved_share, ".1%"),
    )
    return (
        ("tasks", schedule.tasks, ",.0f"),
        ("tasks ended", schedule.tasks_ended, ",.0f"),
        ("jobs", sum(overall.jobs_by_outcome.values()), ",.0f"),
        ("makespan, s", overall.makespan_seconds, ",.1f"),
        ("GPU-hours", overall.gpu_seconds / 3600, hours),
        ("GPU-hours with a job", overall.busy_gpu_seconds / 3600, hours),
        ("completion, mean, s", schedule.completion_mean, ",.1f"),
        ("completion, p99, s", schedule.completion_p99, ",.1f"),
        ("queueing, mean, s", schedule.queueing_mean, ",.1f"),
        *(samples if overall.reports else ()),  # a rigid job has seconds, no samples
    )


def _task_parts(
    task: Task, result: Result, comparison: Comparison | None
) -> Iterator[RenderableType]:
    standings = [standing for standing in result.leaderboard if standing.task == task.id]
    yield Text(f"\n{task.id}", style="bold")
    yield _table(standings)
    if len(standings) > _ROWS:
        yield Text(f"and {len(standings) - _ROWS} more in {result.directory.leaderboard_path.name}")
    yield Text(_savings(result.metrics.tasks[task.id]))
    if comparison is not None:
        yield from _comparison_parts(comparison)


def _table(standings: Sequence[Standing]) -> Table:
    varying = varying_fields(standings)
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("#", justify="right")
    table.add_column("job", no_wrap=True)
    for name in varying:
        table.add_column(name.replace("_", " "), justify="right", no_wrap=True)
    table.add_column("ending", no_wrap=True)
    for heading in ("steps", "best val loss", "final"):
        table.add_column(heading, justify="right", no_wrap=True)
    for place, standing in enumerate(standings[:_ROWS], start=1):
        values = encode_fields(standing.hyperparameters)
        table.add_row(
            str(place),
            standing.job,
            *(_number(values[name]) for name in varying),
            _ending(standing),
            str(standing.steps),
            _loss(standing.best_val_loss),
            _loss(standing.final_val_loss),
            style="bold" if place == 1 else None,
        )
    return table


def _savings(metrics: TaskMetrics) -> str:
    if not metrics.reports:
        return f"no loss was reported; {metrics.makespan_seconds:.1f} s from its arrival to its end"
    saved = ", ".join(
        f"{count / metrics.samples_total:.0%} {rule.value}"
        for rule, count in metrics.saved_by_rule.items()
        if count
    )
    return (
        f"{metrics.samples_trained:,} of {metrics.samples_total:,} samples trained in "
        f"{metrics.makespan_seconds:.1f} s; {metrics.saved_share:.0%} saved"
        + (f" ({saved})" if saved else "")
    )


def _comparison_parts(comparison: Comparison) -> Iterator[RenderableType]:
    yield Text(
        f"winner {comparison.job}: validation loss {comparison.val_loss:.4f}, "
        f"untuned model {comparison.untuned_val_loss:.4f}{_preferred(comparison)}",
        style="bold",
    )
    for answer in comparison.answers:
        for speaker, words in (
            ("prompt", answer.prompt),
            ("untuned", answer.untuned),
            ("tuned", answer.tuned),
        ):
            yield Text(f"  {speaker:8} {' '.join(words.split())}")


def _preferred(comparison: Comparison) -> str:
    if comparison.preferred is None:
        return ""
    return f"; prefers the better answer in {comparison.preferred:.0%} of the pairs"


def _ending(standing: Standing) -> str:
    if standing.status is Outcome.STOPPED and standing.reason is not None:
        return standing.reason.value
    return standing.status.value


def _loss(loss: float | None) -> str:
    return "-" if loss is None else f"{loss:.4f}"


def _number(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def counted(results: Iterable[Result], count: int) -> Iterator[Result]:
    """Hands results on: past a bar on a terminal, past a line for each elsewhere."""
    console = Console(stderr=True, highlight=False)
    if sys.stderr.isatty():
        yield from track(results, "seeds", count, console=console)
        return
    for number, result in enumerate(results, start=1):
        console.print(Text(f"{result.directory.path}: {number} of {count}"), soft_wrap=True)
        yield result


def print_forecast(forecast: Forecast, console: Console) -> None:
    """Jobs, memory and time of a study that has not run."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("task")
    for heading in ("jobs", "samples", "jobs at once", "memory GB", "available GB"):
        table.add_column(heading, justify="right")
    for one in forecast.measured:
        jobs, length = one.task.jobs, one.task.max_length
        together = _first_together(one)
        table.add_row(
            one.task.id,
            str(len(jobs)),
            f"{sum(job.samples(job.steps) for job in jobs):,}",
            str(len(together)),
            f"{one.memory.bytes(together, length) / 1e9:.2f}",
            f"{one.memory.capacity / 1e9:.2f}",
        )
    console.print(table)
    for one in forecast.measured:
        count = sum(not one.memory.fits([job], one.task.max_length) for job in one.task.jobs)
        if count:
            told = f"{one.task.id}: {count} of {len(one.task.jobs)} jobs do not fit into"
            room = f"{one.memory.capacity / 1e9:.3g} GB, and would not be trained"
            console.print(Text(f"{told} {room}"), soft_wrap=True)
    longest, typical = forecast.longest_seconds, forecast.typical_seconds
    console.print(
        f"on this device at most {_duration(longest)} if no job leaves early; "
        f"about {_duration(typical)} on typical loss curves",
        soft_wrap=True,
        highlight=False,
    )


def _duration(seconds: float) -> str:
    """As one would say it, in at most two units."""
    if seconds < 60:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    hours, rest = divmod(minutes, 60)
    if not hours:
        return f"{minutes} min"
    return f"{hours} h {rest} min" if rest else f"{hours} h"


def _first_together(measured: MeasuredTask) -> Sequence[Job]:
    """The jobs that an empty device takes first."""
    task = measured.task
    (launch,) = pack(by_batch_size(task.jobs), {GpuId(0): ()}, measured.memory, task) or (None,)
    launched = frozenset(launch.jobs) if launch else frozenset()
    return [job for job in task.jobs if job.id in launched]
