"""Several runs side by side: runs of one policy are its seeds, and give it error bars."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from statistics import fmean, stdev
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from alto_policy.runlog import Header
from alto_policy.types import TaskId
from alto_runs.outcomes.schedule import ScheduleMetrics, TaskTimes, task_times
from alto_runs.report.drawing import (
    GRID,
    INK,
    MUTED,
    PALETTE,
    figure_of,
    panels_of,
    short,
    svg_of,
    tell_thousands,
    tell_values,
)
from alto_runs.report.gantt import time_unit
from alto_runs.result import Result
from alto_runs.study_fields.policy_settings import policy_name

__all__ = [
    "Group",
    "draw_completion",
    "draw_queueing",
    "draw_totals",
    "group_runs",
    "has_reports",
    "regrets",
]

_MOST_ROWS = 12  # widths that are drawn, and tenants
_ROOM = 2.2  # a panel over its longest bar: the number stands behind it
_FEW_DECADES = 1e4  # up to which a logarithmic axis has room for more than powers of ten
# Facts of a simulated log that seeds differ in, or that change no schedule.
_NO_CONDITIONS = ("seed", "alto", "python", "commit", "simpy")
_Measure = tuple[str, Callable[[Result], float | None]]


@dataclass(frozen=True, slots=True)
class Group:
    """Runs that differ in their seed alone; a colour of their own."""

    name: str
    color: str
    runs: tuple[Result, ...]

    def times(self) -> list[TaskTimes]:
        return [times for run in self.runs for times in task_times(run.history)]


def group_runs(results: Sequence[tuple[str, Result]]) -> tuple[Group, ...]:
    """By policy, tasks, GPUs and what was simulated; named by the policy, and a run where groups
    share it."""
    members: dict[object, list[tuple[str, Result]]] = {}
    for name, run in results:
        header = run.log.header
        tasks = frozenset(task.id for task in run.history.tasks)
        key = (header.policy, tasks, header.gpus, _conditions(header)) if header else name
        members.setdefault(key, []).append((name, run))
    policies = [_policy(runs[0][1]) for runs in members.values()]
    groups = []
    for number, (policy, runs) in enumerate(zip(policies, members.values(), strict=True)):
        name = policy if policies.count(policy) == 1 else f"{policy}: {_named(runs)}"
        color = PALETTE[number % len(PALETTE)]
        groups.append(Group(name, color, tuple(run for _, run in runs)))
    return tuple(groups)


def regrets(runs: Sequence[Result]) -> list[float | None]:
    """How much worse a run's winners are than the best that any run of the same seed found.

    The mean over its tasks of loss over best loss, less 1; None for a run without a winner.
    """
    best: dict[tuple[str, TaskId], float] = {}
    for run in runs:
        for task, loss in _winners(run).items():
            key = (_seed(run), task)
            best[key] = min(loss, best.get(key, loss))
    return [
        fmean(shares) if shares else None
        for shares in (
            [loss / best[_seed(run), task] - 1 for task, loss in _winners(run).items()]
            for run in runs
        )
    ]


def draw_totals(groups: Sequence[Group]) -> str:
    """SVG of a bar for each group and measure: the mean over seeds, and a standard deviation."""
    all_runs = [run for group in groups for run in group.runs]
    regret_of = dict(zip(map(id, all_runs), regrets(all_runs), strict=True))
    scale, unit = time_unit(max(run.metrics.overall.makespan_seconds for run in all_runs))
    measures: tuple[_Measure, ...] = (
        (f"makespan\n{unit}", lambda run: run.metrics.overall.makespan_seconds / scale),
        (f"mean completion\n{unit}", lambda run: _scaled(_served(run).completion_mean, scale)),
        ("held\nGPU-hours", lambda run: run.metrics.overall.gpu_seconds / 3600),
    )
    if has_reports(all_runs):
        measures += (
            ("samples saved\n%", lambda run: 100 * run.metrics.overall.saved_share),
            ("regret\n%", lambda run: _scaled(regret_of[id(run)], 0.01)),
        )
    else:
        measures += (
            (f"99 % done within\n{unit}", lambda run: _scaled(_served(run).completion_p99, scale)),
            (f"mean waiting\n{unit}", lambda run: _scaled(_served(run).queueing_mean, scale)),
        )
    figure, panels = panels_of(1.1 + 0.36 * len(groups), len(measures))
    for axes, (label, measure) in zip(panels, measures, strict=True):
        longest = 0.0
        for row, group in enumerate(groups):
            found = [value for value in map(measure, group.runs) if value is not None]
            if found:
                longest = max(longest, _draw_bar(axes, row, found, group.color))
        names = [group.name for group in groups] if axes is panels[0] else [""] * len(groups)
        axes.set_yticks(range(len(groups)), names, color=INK)
        axes.set_ylim(len(groups) - 0.5, -0.5)
        axes.set_xlim(0, _ROOM * longest or 1.0)
        axes.xaxis.set_visible(False)
        axes.spines["bottom"].set_visible(False)
        axes.set_title(label, fontsize=9.5, color=MUTED, loc="left")
    return svg_of(figure, "The policies' measures side by side")


def draw_completion(groups: Sequence[Group]) -> str:
    """SVG: the share of tasks that were done within a time; a thin line for each seed."""
    figure, axes = figure_of(3.2)
    found = [times.completion for group in groups for times in group.times()]
    scale, unit = time_unit(max((each for each in found if each is not None), default=0.0))
    smallest, largest = np.inf, 0.0
    for group in groups:
        runs = [_completions(task_times(run.history), scale) for run in group.runs]
        if len(runs) > 1:
            for run in runs:
                _draw_shares(axes, run, color=group.color, linewidth=0.8, alpha=0.45)
        pooled = np.sort(np.concatenate(runs))
        if len(pooled):
            smallest, largest = min(smallest, pooled[0]), max(largest, pooled[-1])
            _draw_shares(axes, pooled, color=group.color, linewidth=2.2, label=group.name)
    if np.isfinite(smallest) and smallest > 0:
        axes.set_xscale("log")
        tell_values(axes.xaxis, (1, 2, 5) if largest / smallest < _FEW_DECADES else (1,))
    axes.set_ylim(0, 102)
    axes.set_ylabel("% of tasks done")
    axes.set_xlabel(f"{unit} from arrival to end")
    axes.grid(color=GRID, linewidth=0.8)
    figure.legend(loc="outside upper left", ncols=6, frameon=False, handlelength=1.6)
    return svg_of(figure, "Completion times of the tasks")


def draw_queueing(groups: Sequence[Group]) -> str:
    """SVG: waiting by width and by tenant: a dot for the mean, a line to the 90th percentile."""
    waits = [_waits(group.times()) for group in groups]
    rows, left_out = _rows([times for group in groups for times in group.times()])
    longest = max((wait for each in waits for found in each.values() for wait in found), default=0)
    scale, unit = time_unit(longest)
    figure, axes = figure_of(1.0 + len(rows) * (0.18 + 0.13 * len(groups)))
    for number, (group, of_group) in enumerate(zip(groups, waits, strict=True)):
        offset = (number - (len(groups) - 1) / 2) * 0.6 / len(groups)
        for row, name in enumerate(rows):
            if found := of_group.get(name):
                high, at = float(np.percentile(found, 90)) / scale, row + offset
                axes.plot([0, high], [at, at], color=group.color, linewidth=2.4, alpha=0.4)
                axes.plot(fmean(found) / scale, at, "o", color=group.color, markersize=6)
        axes.plot([], [], "o-", color=group.color, label=group.name)
    axes.set_yticks(range(len(rows)), rows, color=INK)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlim(left=0)
    axes.set_xlabel(f"{unit} of waiting: the mean, and up to the 90th percentile{left_out}")
    tell_thousands(axes.xaxis)
    axes.grid(axis="x", color=GRID, linewidth=0.8)
    figure.legend(loc="outside upper left", ncols=6, frameon=False, handlelength=1.6)
    return svg_of(figure, "Waiting of tasks by their width and tenant")


def _waits(times: Sequence[TaskTimes]) -> dict[str, list[float]]:
    """Seconds of waiting under the name of each row that a task counts for."""
    waits: dict[str, list[float]] = {}
    for each in times:
        if each.queueing is not None:
            for name in (_width(each.num_gpus), _tenant(each.tenant)):
                waits.setdefault(name, []).append(each.queueing)
    return waits


def _rows(times: Sequence[TaskTimes]) -> tuple[list[str], str]:
    """Widths in their order, then the tenants if there are several: of both, those with the most
    tasks. And what is told of the others."""
    widths = Counter(each.num_gpus for each in times)
    tenants = Counter(each.tenant for each in times)
    rows = [_width(width) for width, _ in sorted(widths.most_common(_MOST_ROWS))]
    if len(tenants) > 1:
        rows += [_tenant(tenant) for tenant, _ in sorted(tenants.most_common(_MOST_ROWS))]
    counts = (("widths", len(widths)), ("tenants", len(tenants)))
    cut = [f"{_MOST_ROWS} of {count} {what}" for what, count in counts if count > _MOST_ROWS]
    return rows, f"; {' and '.join(cut)}, those with the most tasks" if cut else ""


def _width(num_gpus: int) -> str:
    return f"{num_gpus} GPU{'s' if num_gpus > 1 else ''}"


def _tenant(name: str) -> str:
    return f"of {name}" if name else "of nobody"


def _draw_bar(axes: Axes, row: int, values: Sequence[float], color: str) -> float:
    """Returns where the bar ends, its deviation included."""
    mean = fmean(values)
    spread = stdev(values) if len(values) > 1 else 0.0
    axes.barh(row, mean, height=0.6, color=color, alpha=0.85)
    if spread:
        axes.plot([mean - spread, mean + spread], [row, row], color=INK, linewidth=1.4)
    text = short(mean) + (f" \N{PLUS-MINUS SIGN} {short(spread, 2)}" if len(values) > 1 else "")
    axes.annotate(
        text,
        (mean + spread, row),
        xytext=(4, 0),
        textcoords="offset points",
        va="center",
        fontsize=9,
    )
    return mean + spread


def _draw_shares(axes: Axes, values: NDArray[np.float64], **style: Any) -> None:
    if len(values):
        shares = 100 * np.arange(1, len(values) + 1) / len(values)
        axes.step(np.append(values[0], values), np.append(0.0, shares), where="post", **style)


def _completions(times: Sequence[TaskTimes], scale: float) -> NDArray[np.float64]:
    return np.sort([t.completion / scale for t in times if t.completion is not None])


def has_reports(runs: Sequence[Result]) -> bool:
    """Rigid jobs have none: no losses, and no samples that an exit could save."""
    return any(run.metrics.overall.reports for run in runs)


def _served(run: Result) -> ScheduleMetrics:
    return run.metrics.schedule


def _scaled(value: float | None, scale: float) -> float | None:
    return None if value is None else value / scale


def _named(runs: Sequence[tuple[str, Result]]) -> str:
    """The first of them, or the folder that holds the seeds."""
    folders = {PurePath(name).parent for name, _ in runs}
    is_shared = len(runs) > 1 and len(folders) == 1 and PurePath() not in folders
    return str(*folders) if is_shared else runs[0][0]


def _conditions(header: Header) -> tuple[tuple[str, str], ...]:
    """What a simulation was of: times, failures, beliefs. Of a real run, that it was real."""
    if header.facts.get("clock") is None:
        return ()
    return tuple(fact for fact in header.made_by if fact[0] not in _NO_CONDITIONS)


def _winners(run: Result) -> dict[TaskId, float]:
    losses: dict[TaskId, float] = {}
    for standing in run.leaderboard:
        if standing.best_val_loss is not None and standing.best_val_loss > 0:
            losses.setdefault(standing.task, standing.best_val_loss)
    return losses


def _seed(run: Result) -> str:
    header = run.log.header
    return header.facts.get("seed", "") if header else ""


def _policy(run: Result) -> str:
    return policy_name(run.log.header.policy) if run.log.header else "unknown"
