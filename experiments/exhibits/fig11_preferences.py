"""Figure 11: preference tuning (DPO).

The paper: Qwen2.5-32B on UltraFeedback, 60 configurations, batch 2 to 16: batched 1.8 times and
batched with early exit 4.7 times as fast as one after another; best preference accuracy 76.17 %
both with and without exits.

Here: SmolLM2-135M on 800 pairs that a rule makes of real records (`examples/preferences`: the right
conclusion against that of another pair of facts). A search of 24 configurations was recorded on one
H100 with every job trained to its end, and with exits. One job after another on our kernels is
simulated, by the times that the other recorded searches of that code tell; by them the recorded
search comes out within 2 %. The pairs are easy: both winners get all of them right.
That a job trains as TRL's `DPOTrainer` trains it, step by step, is tested on a tiny model
(`tests/exec/passes/test_preferences.py`); no search was run with TRL.

The paper against itself: for the samples that exits save in DPO its text says 84 % and its figure
15 says 80 %. Figure 11 has 60 configurations, figure 15 has 40 for the same model and data.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from matplotlib.figure import Figure

from alto_policy.policies.sequential import SequentialSettings
from alto_runs.files.directory import RunDirectory, runs_below
from alto_runs.outcomes.comparison import read_comparisons
from alto_runs.report.drawing import GRID, INK, MUTED, PALETTE, figure_of
from alto_runs.result import Result
from experiments.exhibits.exhibit import Cell, Exhibit, Table, Verdict
from experiments.fidelity.makespans import played, predicted
from experiments.fidelity.real_runs import read_recording
from experiments.fidelity.sources import Source, others_of
from experiments.grids.curve_sets import RECORDED
from experiments.grids.same_task import Spread, seed_of, spread_of, told_seeds
from experiments.grids.scores import searches

__all__ = ["exhibit"]

# Figure 11: speed-up over one after another, and best accuracy in per cent where it is printed.
_ALONE = "one after another"
_PAPER = ((_ALONE, 1.0, None), ("batched", 1.8, None), ("batched, exits", 4.7, 76.17))
_TASK = "qasc-preferences"
_CLOSE = 0.25  # relative, of what exits add


@dataclass(frozen=True, slots=True)
class _Run:
    log: str
    seed: int
    has_exits: bool
    seconds: float
    loss: float  # the winner's
    accuracy: float  # share of the pairs in which it prefers the better answer
    saved: float  # of the samples


def exhibit(folder: Path = RECORDED) -> Exhibit:
    runs = _read(folder)
    batched, exits = ({r.seed: r for r in runs if r.has_exits is by} for by in (False, True))
    seeds = sorted(batched.keys() & exits.keys())
    gains = [batched[seed].seconds / exits[seed].seconds for seed in seeds]
    gain, in_paper = fmean(gains), _PAPER[2][1] / _PAPER[1][1]
    kept = [exits[seed].accuracy == batched[seed].accuracy for seed in seeds]
    saved = fmean(exits[seed].saved for seed in seeds)
    holds = all(kept) and abs(gain / in_paper - 1) <= _CLOSE
    alone = _one_by_one(folder, [batched[seed] for seed in seeds])
    slower = spread_of([batched[s].seconds / alone[s] for s in alone]) if alone else None
    by_system = {"batched": batched, "batched, exits": exits}
    return Exhibit(
        verdict=Verdict.PARTLY if holds else Verdict.NOT_REPRODUCED,
        gist=f"Exits make the batched search {gain:.2f} times as fast (paper {in_paper:.2f}) and "
        f"save {saved:.0%} of the samples (paper 80 or 84 %), at the same accuracy in {sum(kept)} "
        f"of {len(kept)} seeds. All pairs are easy ones. {_told_alone(slower, gain)}",
        found=tuple(
            f"Seed {seed}: {gains[place]:.2f} times as fast with exits, which save "
            f"{exits[seed].saved:.1%} of the samples; the winner prefers the better answer in "
            f"{exits[seed].accuracy:.1%} of the pairs, without exits in "
            f"{batched[seed].accuracy:.1%}; losses {exits[seed].loss:.5f} and "
            f"{batched[seed].loss:.5f}, both next to nothing."
            for place, seed in enumerate(seeds)
        ),
        table=Table(
            (
                "system", "seeds", "makespan, s", "best loss", "accuracy", "samples saved",
                "paper, speed-up", "paper, accuracy",
            ),
            tuple(
                (name, *_cells(by_system.get(name, {}), alone), *paper) for name, *paper in _PAPER
            ),
        ),
        logs=tuple(f"`{run.log}`" for run in runs),
        seeds=told_seeds([(_TASK, seeds)]),
        figure=_draw(
            {
                "batched": (1.0, None),
                "batched, exits": spread_of(gains),
                **({} if slower is None else {_ALONE: slower}),
            }
        ),
    )  # fmt: skip


def _one_by_one(folder: Path, batched: Sequence[_Run]) -> dict[int, float]:
    """Seconds by seed, simulated, of runs whose passes other runs of the folder tell."""
    known = [read_recording(each) for each in runs_below(folder)]
    found = {}
    for run in batched:
        (own,) = (one for one in known if run.log.startswith(f"traces/{one.name}/"))
        others = others_of(own, known)
        if others.source is not Source.CODE:
            continue
        found[run.seed] = played(own, predicted(own, others), SequentialSettings()).end
    return found


def _told_alone(slower: Spread | None, gain: float) -> str:
    """Of one job after another, over which the paper has its speed-ups."""
    if slower is None:
        return "One job after another was not run."
    (_, batched, _), (_, exits, _) = _PAPER[1:]
    return (
        f"Over one job after another, simulated, batching is {1 / slower[0]:.1f} times as fast "
        f"(paper {batched}), with exits {gain / slower[0]:.1f} times (paper {exits})."
    )


def _read(folder: Path) -> list[_Run]:
    """Of the preferences, by their names."""
    found = []
    for one in searches(folder):
        if not one.task.id.startswith(f"{_TASK}-"):
            continue
        run = RunDirectory.open((folder.parents[1] / one.origin).parent)
        metrics = Result(run.path).metrics.overall
        (winner,) = read_comparisons(run.comparison_path)
        assert winner.preferred is not None
        found.append(
            _Run(
                one.origin,
                seed_of(one.task),
                one.has_exits,
                metrics.makespan_seconds,
                winner.val_loss,
                winner.preferred,
                metrics.saved_share,
            )
        )
    return found


def _cells(runs: Mapping[int, _Run], alone: Mapping[int, float]) -> tuple[Cell, ...]:
    """Means over seeds; of one job after another the simulated seconds."""
    if not runs and alone:
        return len(alone), fmean(alone.values()), None, None, None
    if not runs:
        return (None,) * 5
    names = ("seconds", "loss", "accuracy", "saved")
    return (len(runs), *(fmean(getattr(run, name) for run in runs.values()) for name in names))


def _draw(speeds: Mapping[str, Spread]) -> Figure:
    """Over the batched search that trains every job to its end."""
    figure, axes = figure_of(2.8)
    names = [name for name, *_ in _PAPER]
    theirs: Sequence[Spread] = [(speed / _PAPER[1][1], None) for _, speed, _ in _PAPER]
    ours = [speeds.get(name, (0.0, None)) for name in names]
    series = ((ours, 0.2, PALETTE[0], "here, 24 jobs"), (theirs, -0.2, MUTED, "paper, 60 jobs"))
    for spreads, shift, colour, label in series:
        places = [place + shift for place in range(len(names))]
        heights = [mean for mean, _ in spreads]
        deviations = [deviation or 0.0 for _, deviation in spreads]
        drawn = axes.bar(places, heights, 0.4, color=colour, label=label)
        known = [n for n, deviation in enumerate(deviations) if deviation]
        if known:
            at, high, far = ([each[n] for n in known] for each in (places, heights, deviations))
            axes.errorbar(at, high, far, fmt="none", ecolor=INK, capsize=3)
        told = [f"{height:.2f}" if height else "not run" for height in heights]
        axes.bar_label(drawn, told, padding=8, fontsize=8, color=INK)
    notes = {_ALONE: "\n(here simulated)"} if _ALONE in speeds else {}
    axes.set_xticks(range(len(names)), [name + notes.get(name, "") for name in names])
    axes.set_ylabel("speed-up over batched")
    axes.margins(y=0.15)
    axes.grid(axis="y", color=GRID)
    axes.legend(frameon=False, fontsize=8, loc="upper left")
    return figure
