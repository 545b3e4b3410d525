"""Every recorded search: what it saved, how good its winner is, and why no better.

The paper: samples saved, and the loss of the winner over that of the full grid as 1.00; no search
is told apart from another.

Here: every search of `traces` but those recorded for their times alone, full grids last. *Behind*
says how far its winner's best validation loss is above the least of the full grid of the same data
and seed; that grid is an H100's, for searches on an H200 too, but for combined fact's second seed.
It is the product of three parts.
*Choice*: how far the job that it chose is behind in the grid, by the grid's own losses. *Stop*:
what that job lost in the grid by being stopped before its own best report. *Recording*: how far the
losses of one and the same job are apart in the two recordings. *By the grid* says what the same
policy comes to over the grid's own losses, which is how the simulator decides. Wanted are 75 %
saved and a winner within 0.5 %, or the reason why not.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from alto_policy.decisions import ExitReason
from alto_runs.outcomes.leaderboard import Standing
from alto_runs.report.drawing import GRID, INK, MUTED, PALETTE, grid_of
from experiments.exhibits.exhibit import Exhibit, Table, Verdict
from experiments.exhibits.past_repeats import compared, pairs_of
from experiments.exhibits.recorded_speed import policy_name, recorded_makespan
from experiments.fidelity.real_runs import told_code
from experiments.grids.curve_sets import RECORDED, CurveSet, recorded_logs, recorded_sets
from experiments.grids.judging import judge
from experiments.grids.same_task import is_same_task, seed_of
from experiments.grids.scores import Measure, Search, searches
from experiments.grids.table_backend import play_policy

__all__ = ["Row", "exhibit", "rows_of", "told_why"]

# Of searches with exits and their grids; `h200` has some of those in `recorded` once more.
_FOLDERS = ("recorded", "plus", "slices", "h200")
_SAVED_BAR, _LOSS_BAR = 0.75, 0.005
_RANDOM = "of-random-weights"  # recorded for its times alone
_SLIGHT = 0.001  # a part that is not worth a word


class Row(NamedTuple):
    search: str  # its folder in `traces`
    policy: str
    seed: int
    makespan: float  # seconds
    saved: float
    loss: float | None
    behind: float | None
    choice: float | None
    stop: float | None
    recording: float | None
    grid_saved: float | None
    grid_behind: float | None
    code: str | None


def _that_learn(folders: Sequence[Path]) -> Iterator[tuple[Search, Path]]:
    """Searches of a trained backbone, and their folders."""
    for folder in folders:
        for one in searches(folder):
            if _RANDOM not in one.task.backbone:
                yield one, folder


def rows_of(folder: Path) -> list[Row]:
    """Of the searches with exits of all folders beside this one, then of the full grids."""
    folders = [folder.with_name(name) for name in _FOLDERS]
    found = list(_that_learn(folders))
    found.sort(key=lambda pair: not pair[0].has_exits)
    grids = [curves for each in folders for curves in recorded_sets(each)]
    return [_row(one, each, _grid_of(one, grids)) for one, each in found]


def exhibit(folder: Path = RECORDED) -> Exhibit:
    rows = rows_of(folder)
    ended = [row for row in rows if row.policy not in ("fifo", "sequential")]
    judged = [row for row in ended if row.behind is not None]
    good = [row for row in judged if (row.behind or 0.0) <= _LOSS_BAR]
    return Exhibit(
        verdict=Verdict.BEYOND if ended else Verdict.CANNOT,
        gist=f"{sum(row.saved >= _SAVED_BAR for row in ended)} of {len(ended)} searches with exits "
        f"save 75 % of the samples or more; the winner is within 0.5 % of its own grid's best in "
        f"{len(good)} of the {len(judged)} that have one. Why not in the others stands below.",
        found=tuple(told_why(folder)),
        table=Table(
            (
                "search", "policy", "seed", "makespan, s", "saved", "winner's loss", "behind",
                "choice", "stop", "recording", "saved by the grid", "behind by the grid",
                "commit or code",
            ),
            tuple(rows),
        ),
        logs=tuple(f"`traces/{row.search}`" for row in rows),
        seeds="One run each, no error bars.",
        figure=_draw(ended) if ended else None,
        shown_rows=len(ended),
    )  # fmt: skip


def _grid_of(one: Search, grids: Sequence[CurveSet]) -> CurveSet | None:
    """Of the same jobs; None where no full grid of the data and the seed is recorded."""
    return next(
        (
            curves
            for curves in grids
            if is_same_task(curves.task, one.task) and seed_of(curves.task) == one.seed
        ),
        None,
    )


def _row(one: Search, folder: Path, grid: CurveSet | None) -> Row:
    (log,) = (log for path, log in recorded_logs(folder) if path == one.origin)
    assert log.header is not None
    told = (
        one.origin.removeprefix("traces/").rsplit("/", 1)[0],
        policy_name(log),
        one.seed,
        recorded_makespan(log),
        sum(one.saved_by_rule.values()),
        one.standings[0].best_val_loss,
    )
    code = told_code(log.header)
    if grid is None or not one.has_exits:
        return Row(*told, *(None,) * 6, code)
    judged = judge(grid, play_policy(grid, one.policy))
    parts = _parts(one, grid)
    behind = one.best_loss / float(grid.best.min()) - 1
    return Row(*told, behind, *parts, 1 - judged.budget, judged.regret, code)


def _parts(one: Search, grid: CurveSet) -> tuple[float, float, float]:
    """Choice, stop and recording: each plus one, they multiply to the whole."""
    winner = one.standings[0]
    row = _row_of(winner, grid)
    own, reached = float(grid.best[row]), _reached(winner, grid)
    known = np.where(np.isfinite(grid.val[row]), grid.val[row], np.inf)[:reached].min()
    return own / float(grid.best.min()) - 1, float(known) / own - 1, one.best_loss / known - 1


def _row_of(standing: Standing, grid: CurveSet) -> int:
    chosen = [job.hyperparameters for job in grid.task.jobs]
    return chosen.index(standing.hyperparameters)


def _reached(standing: Standing, grid: CurveSet) -> int:
    """Reports of the grid up to where the job was trained."""
    job = grid.task.jobs[_row_of(standing, grid)]
    return max(1, round(standing.steps / job.steps * grid.num_reports))


def told_why(folder: Path) -> Iterator[str]:
    """A sentence for each search with exits that misses the bar, or that cannot be judged."""
    folders = [folder.with_name(name) for name in _FOLDERS]
    grids = [curves for each in folders for curves in recorded_sets(each)]
    noise = {
        (new.name, seed_of(new.task)): compared(new, old)
        for new, old in pairs_of(folder, folder.with_name("repeated"))
    }
    for one in (one for one, _ in _that_learn(folders) if one.has_exits):
        name, grid = one.origin.removeprefix("traces/").rsplit("/", 1)[0], _grid_of(one, grids)
        if grid is None:
            accuracy = one.of_winner(Measure.PREFERRED)
            yield f"`{name}`: " + (
                "no full grid of this data and seed is recorded."
                if accuracy is None
                else f"losses end near zero, where shares of them mean nothing; the winner prefers "
                f"the better answer in {accuracy:.1%} of the pairs."
            )
            continue
        behind = one.best_loss / float(grid.best.min()) - 1
        if behind <= _LOSS_BAR:
            continue
        told = [f"`{name}` is {behind:.2%} behind", *_told_parts(one, grid)]
        seed = one.seed if (grid.name, one.seed) in noise else _other_seed(grid.name, noise)
        known = None if seed is None else noise[grid.name, seed]
        if known is not None:
            which = "this grid" if seed == one.seed else f"the grid of seed {seed} (not this one)"
            told.append(
                f"when {which} was recorded twice, a job of its best quarter was "
                f"{known.best_quarter_apart:.2%} apart in the median, and the winner of one up to "
                f"{known.winner_behind:.2%} behind in the other"
            )
        yield f"{told[0]}: {'; '.join(told[1:])}."


def _other_seed(task: str, known: Iterable[tuple[str, int]]) -> int | None:
    """Of which the task's grid is known, where it is not of the search's own."""
    return next((seed for name, seed in known if name == task), None)


def _told_parts(one: Search, grid: CurveSet) -> Iterator[str]:
    choice, stop, recording = _parts(one, grid)
    winner, best = one.standings[0], int(np.argmin(grid.best))
    if choice > _SLIGHT:
        yield f"{choice:.2%} by choice, for the grid's best job {_fate(one, grid, best)}"
    if stop > _SLIGHT:
        share = _reached(winner, grid) / grid.num_reports
        at = (int(np.nanargmin(grid.val[_row_of(winner, grid)])) + 1) / grid.num_reports
        why = f" ({winner.reason.value})" if winner.reason else ""
        yield (
            f"{stop:.2%} by stopping the winner{why} after {share:.0%} of its samples, where its "
            f"best came at {at:.0%} in the grid"
        )
    if abs(recording) > _SLIGHT:
        known = one.best_loss / (1 + recording)
        yield (
            f"{recording:+.2%} by recording it twice (the same job {known:.4f} in the grid and "
            f"{one.best_loss:.4f} here)"
        )


def _fate(one: Search, grid: CurveSet, best: int) -> str:
    """What became of the grid's best job in the search."""
    chosen = grid.task.jobs[best].hyperparameters
    (found,) = (each for each in one.standings if each.hyperparameters == chosen)
    place = 1 + list(one.standings).index(found)
    if found.reason is None or found.reason is ExitReason.OVERFITTED:
        ended = "was stopped as overfitted" if found.reason else "came to its end"
    else:
        ended = f"was stopped ({found.reason.value})"
    share = _reached(found, grid) / grid.num_reports
    return f"{ended} after {share:.0%} of its samples, number {place} here"


def _draw(rows: Sequence[Row]) -> Figure:
    figure, ((saved, behind),) = grid_of(0.9 + 0.22 * len(rows), 1, 2)
    names = [row.search.replace("recorded/", "") for row in rows]
    places = range(len(rows))
    for axes, own, grid in (
        (saved, [row.saved for row in rows], [row.grid_saved for row in rows]),
        (behind, [row.behind for row in rows], [row.grid_behind for row in rows]),
    ):
        for values, filled, size, label in (
            (grid, "none", 60, "the policy over the full grid's losses"),
            (own, PALETTE[0], 26, "as recorded"),
        ):
            known = [(100 * value, at) for value, at in zip(values, places, strict=True)
                     if value is not None]  # fmt: skip
            axes.scatter(
                [value for value, _ in known],
                [at for _, at in known],
                s=size,
                facecolor=filled,
                edgecolor=PALETTE[0] if filled != "none" else MUTED,
                label=label if axes is saved else None,
                zorder=3,
            )
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.grid(color=GRID)
    saved.set_yticks(list(places), names, fontsize=7, color=INK)
    behind.set_yticks(list(places), [])
    saved.axvline(100 * _SAVED_BAR, color=PALETTE[4], ls=":", label="wanted")
    behind.axvline(100 * _LOSS_BAR, color=PALETTE[4], ls=":")
    saved.set_xlim(70, 100)
    saved.set_xlabel("samples saved, %")
    behind.set_xscale("symlog", linthresh=1)
    behind.xaxis.set_major_formatter("{x:g}")
    behind.set_xticks((-1, -0.5, 0, 0.5, 1, 2, 5, 10))
    behind.set_xlabel("winner's loss above the full grid's best, %")
    figure.legend(loc="outside upper center", ncols=3, frameon=False, fontsize=8)
    return figure
