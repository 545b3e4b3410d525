"""The report of one or several runs: one page that needs nothing but a browser."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from alto_policy.types import Task
from alto_runs.directory import write_atomically
from alto_runs.fields import encode_fields
from alto_runs.leaderboard import Standing, varying_fields
from alto_runs.metrics import EXIT_RULES
from alto_runs.policy_settings import policy_name
from alto_runs.report.curves import draw_curves
from alto_runs.report.ending import Ending, ending_of
from alto_runs.report.gantt import draw_gantt, duration
from alto_runs.report.samples import SampleBar, draw_samples
from alto_runs.result import Result

__all__ = ["write_report"]


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


@dataclass(frozen=True, slots=True)
class _RunView:
    name: str
    policy: str
    facts: tuple[tuple[str, str], ...]
    result: Result
    tasks: tuple[_TaskView, ...]
    gantt: str
    samples: str


def write_report(directories: Sequence[Path], out: Path) -> Path:
    """Write report.html into the folder `out`; raises UserError for what is no run."""
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    names = _distinct_names(directories)
    runs = [_view(name, Result(path)) for name, path in zip(names, directories, strict=True)]
    overall = [SampleBar(run.name, run.result.metrics.overall) for run in runs]
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    environment.filters.update(
        duration=duration, svg=Markup, loss=_loss, share=_share, value=_value
    )
    source = files("alto_runs.report").joinpath("page.html.j2").read_text(encoding="utf-8")
    page = environment.from_string(source).render(
        runs=runs, comparison=draw_samples(overall), rules=EXIT_RULES
    )
    path = out / "report.html"
    write_atomically(path, page)
    return path


def _view(name: str, result: Result) -> _RunView:
    header = result.log.header
    winners = {task.id: result.best(task.id) for task in result.history.tasks}
    standings = [best.standing for best in winners.values() if best is not None]
    per_task = [SampleBar(task, m) for task, m in result.metrics.tasks.items()]
    return _RunView(
        name=name,
        policy=policy_name(header.policy) if header else "unknown",
        facts=header.made_by if header else (),
        result=result,
        tasks=tuple(_task_view(task, result) for task in result.history.tasks),
        gantt=draw_gantt(result.history, [standing.job for standing in standings]),
        samples=draw_samples(per_task),
    )


def _task_view(task: Task, result: Result) -> _TaskView:
    standings = [standing for standing in result.leaderboard if standing.task == task.id]
    best = result.best(task.id)
    varying = varying_fields(standings)
    winner = best.standing if best else None
    return _TaskView(
        name=task.id,
        winner=winner,
        varying=varying,
        rows=tuple(
            _Row(
                standing,
                ending_of(result.history.jobs[standing.job]),
                tuple(encode_fields(standing.hyperparameters)[name] for name in varying),
            )
            for standing in standings
        ),
        curves=draw_curves(result.history.of_task(task), winner.job if winner else None),
    )


def _distinct_names(directories: Sequence[Path]) -> list[str]:
    names = [path.resolve().name for path in directories]
    return names if len(set(names)) == len(names) else [str(path) for path in directories]


def _loss(value: float | None) -> str:
    return "\N{EN DASH}" if value is None else f"{value:.4f}"


def _share(value: float) -> str:
    return f"{100 * value:.1f} %"


def _value(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
