"""The report of one or several runs: one page that needs nothing but a browser."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from alto_policy.types import Task, TaskId
from alto_runs.costs.step_profile import NOT_MEASURED, Basis
from alto_runs.errors import UserError
from alto_runs.fields import encode_fields
from alto_runs.files.directory import write_atomically
from alto_runs.outcomes.comparison import Comparison, read_comparisons
from alto_runs.outcomes.history import RunHistory
from alto_runs.outcomes.leaderboard import Standing, varying_fields
from alto_runs.outcomes.schedule import measure_usage
from alto_runs.report.curves import draw_curves
from alto_runs.report.ending import Ending, ending_of
from alto_runs.report.gantt import draw_gantt, duration
from alto_runs.report.samples import SampleBar, draw_samples
from alto_runs.report.side_by_side import (
    Group,
    draw_completion,
    draw_queueing,
    draw_totals,
    group_runs,
    has_reports,
)
from alto_runs.report.usage import draw_usage
from alto_runs.result import Result
from alto_runs.study_fields.policy_settings import policy_name

__all__ = ["write_report"]

_MOST_TASKS = 12  # on the whole page with a panel of their own
_MOST_STAYS = 20_000  # that a picture of the GPUs can show
_FEW_TASKS = 3  # too few for distributions of completion and waiting


@dataclass(frozen=True, slots=True)
class _Row:
    standing: Standing
    ending: Ending
    values: tuple[object, ...]  # of the hyper-parameters that vary


@dataclass(frozen=True, slots=True)
class _TaskView:
    name: str
    winner: Standing | None
    varying: tuple[str, ...]
    rows: tuple[_Row, ...]
    curves: str
    comparison: Comparison | None  # with the untuned model


@dataclass(frozen=True, slots=True)
class _RunView:
    name: str
    policy: str
    facts: tuple[tuple[str, str], ...]
    result: Result
    tasks: tuple[_TaskView, ...]
    num_hidden: int  # tasks beyond those
    gantt: str | None  # None where it would be a blur
    usage: str
    samples: str
    is_simulated: bool
    is_estimated: bool  # its step times are none of the card's own


@dataclass(frozen=True, slots=True)
class _Comparison:
    """Pictures of all runs together; None where there is nothing to compare."""

    groups: tuple[Group, ...]
    samples: str | None
    totals: str | None
    completion: str | None
    queueing: str | None


def write_report(directories: Sequence[Path], out: Path) -> Path:
    """Write report.html into the folder `out`; raises UserError for what is no run."""
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    if out.is_file():
        raise UserError(f"{out}: is a file, expected a folder for the report")
    names = _distinct_names(directories)
    results = [Result(path) for path in directories]
    most = max(1, _MOST_TASKS // max(1, len(results)))
    runs = [_view(name, result, most) for name, result in zip(names, results, strict=True)]
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    environment.filters.update(
        duration=duration,
        served=_served,
        svg=Markup,
        loss=_loss,
        share=_share,
        value=_value,
    )
    source = files("alto_runs.report").joinpath("page.html.j2").read_text(encoding="utf-8")
    page = environment.from_string(source).render(
        runs=runs,
        comparison=_comparison(runs),
        are_all_shown=not any(run.num_hidden for run in runs),
        not_measured=NOT_MEASURED,
    )
    path = out / "report.html"
    write_atomically(path, page)
    return path


def _comparison(runs: Sequence[_RunView]) -> _Comparison:
    groups = group_runs([(run.name, run.result) for run in runs])
    has_many = any(len(run.result.history.tasks) >= _FEW_TASKS for run in runs)
    bars = [SampleBar(run.name, run.result.metrics.overall) for run in runs]
    return _Comparison(
        groups=groups,
        samples=draw_samples(bars) if has_reports([run.result for run in runs]) else None,
        totals=draw_totals(groups) if len(runs) > 1 else None,
        completion=draw_completion(groups) if has_many else None,
        queueing=draw_queueing(groups) if has_many else None,
    )


def _view(name: str, result: Result, most_tasks: int) -> _RunView:
    header = result.log.header
    history = result.history
    by_task = _by_task(result.leaderboard)
    winners = [standings[0].job for standings in by_task.values() if _has_won(standings[0])]
    shown = history.tasks[:most_tasks]
    per_task = [SampleBar(task.id, result.metrics.tasks[task.id]) for task in shown]
    usage = measure_usage(history)
    gpus = header.gpus if header else ()  # there may be more since
    num_stays = sum(len(job.residencies) for job in history.jobs.values())
    comparisons = {one.task: one for one in read_comparisons(result.directory.comparison_path)}
    return _RunView(
        name=name,
        policy=policy_name(header.policy) if header else "unknown",
        facts=header.made_by if header else (),
        result=result,
        tasks=tuple(
            _task_view(task, history, by_task[task.id], comparisons.get(task.id)) for task in shown
        ),
        num_hidden=len(history.tasks) - len(shown),
        gantt=draw_gantt(history, winners, gpus) if num_stays <= _MOST_STAYS else None,
        usage=draw_usage(usage, max(len(gpus), usage.allocated.max())),
        samples=draw_samples(per_task),
        is_estimated=result.step_times == Basis.ESTIMATED,
        is_simulated=header is not None and header.facts.get("clock") == "simulated",
    )


def _task_view(
    task: Task,
    history: RunHistory,
    standings: Sequence[Standing],
    comparison: Comparison | None,
) -> _TaskView:
    varying = varying_fields(standings)
    winner = standings[0] if _has_won(standings[0]) else None
    return _TaskView(
        name=task.id,
        winner=winner,
        varying=varying,
        rows=tuple(
            _Row(
                standing,
                ending_of(history.jobs[standing.job]),
                tuple(encode_fields(standing.hyperparameters)[name] for name in varying),
            )
            for standing in standings
        ),
        curves=draw_curves(history.of_task(task), winner.job if winner else None),
        comparison=comparison,
    )


def _by_task(leaderboard: Sequence[Standing]) -> dict[TaskId, list[Standing]]:
    by_task: dict[TaskId, list[Standing]] = {}
    for standing in leaderboard:
        by_task.setdefault(standing.task, []).append(standing)
    return by_task


def _has_won(first: Standing) -> bool:
    """Whether the best of its task has a loss at all."""
    return first.best_val_loss is not None


def _distinct_names(directories: Sequence[Path]) -> list[str]:
    """Of the folders, else their paths from the folder that all of them are in."""
    paths = [path.resolve() for path in directories]
    names = [path.name for path in paths]
    if len(set(names)) == len(names):
        return names
    shared = Path(os.path.commonpath([path.parent for path in paths]))
    return [str(path.relative_to(shared)) for path in paths]


def _loss(value: float | None) -> str:
    return "\N{EN DASH}" if value is None else f"{value:.4f}"


def _served(seconds: float | None) -> str:
    """A time of tasks that have ended, or begun."""
    return "none yet" if seconds is None else duration(seconds)


def _share(value: float) -> str:
    return f"{100 * value:.1f} %"


def _value(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
