"""Is one selection at 5 % that keeps 25 % the best use of its budget?

The paper: one selection, by the loss at the end of the warm-up. It tries no other way.

Here: several rounds of selection, ranks by where a loss is going (its slope over the logarithm of
the samples), and a margin for those that are close to the last one kept, in a numerical model of
such policies (`selection.py`; a test holds that it says what the policies do). Settings are chosen
on generated tasks and judged on recorded ones (on the other recorded ones where there are three):
of those that spend no more than the limit, the one of least regret, then of most of the true best
quarter kept. *Thrift* asks the other way round: of the rounds whose regret is within 0.1 % of
`alto`'s on each other recorded task and on eight generated ones, those that spend least. The policy
`alto+`, one round at 2.5 % that keeps a fifth, is what three quarters of `alto`'s budget chose on
the others of every task when these grids were first recorded (`traces/repeated`).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path
from statistics import fmean

from matplotlib.figure import Figure

from alto_policy.policies.alto_plus import AltoPlusSettings
from alto_runs.report.drawing import GRID, MUTED, PALETTE, panels_of
from experiments.curve_sets import (
    RECORDED,
    CurveSet,
    by_seed,
    generated_sets,
    origins,
    recorded_sets,
)
from experiments.exhibit import Exhibit, Table, Verdict
from experiments.same_task import is_same_task
from experiments.selection import ALTO, Outcome, Selection, outcome

__all__ = ["CANDIDATES", "Family", "best_of", "exhibit", "mean_outcome", "splits"]

_ROUNDS = (
    *((0.025,), (0.05,), (0.1,), (0.15,), (0.025, 0.075), (0.025, 0.1), (0.025, 0.15)),
    *((0.05, 0.1), (0.05, 0.2), (0.05, 0.15), (0.1, 0.3), (0.05, 0.15, 0.45)),
    *((0.05, 0.1, 0.2, 0.4), (0.025, 0.05, 0.1, 0.2, 0.4)),
)
_KEEPS = (0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5, 0.6, 0.7)
_LOOKAHEADS, _MARGINS = (0.0, 0.25, 0.5, 1.0), (0.0, 0.002, 0.005)
_GENERATED, _LEAST_RECORDED = 8, 3
_CLOUD = "#C5CBD3"
_THRIFT = "thrift"
_LIMITS = (1.0, 0.75, 0.5)  # of what `alto` spends
_AS_GOOD = 0.001  # more regret than `alto`'s


@dataclass(frozen=True, slots=True)
class Family:
    """Candidates of one idea."""

    name: str
    rounds: bool = False  # more than one
    slope: bool = False
    margin: bool = False


FAMILIES = (
    Family("one round"),
    Family("rounds", rounds=True),
    Family("slope", slope=True),
    Family("margin", margin=True),
    Family("rounds and slope", rounds=True, slope=True),
    Family("all three", rounds=True, slope=True, margin=True),
)
CANDIDATES = tuple(
    Selection(rounds=rounds, keep=(keep,) * len(rounds), lookahead=lookahead, margin=margin)
    for rounds, keep, lookahead, margin in product(_ROUNDS, _KEEPS, _LOOKAHEADS, _MARGINS)
)


def candidates_of(family: Family) -> list[Selection]:
    return [
        one
        for one in CANDIDATES
        if (family.rounds or len(one.rounds) == 1)
        and (family.slope or one.lookahead == 0)
        and (family.margin or one.margin == 0)
    ]


def mean_outcome(sets: Sequence[CurveSet], selection: Selection) -> Outcome:
    found = [_outcome(curves, selection) for curves in sets]
    return Outcome(
        budget=fmean(one.budget for one in found),
        regret=fmean(one.regret for one in found),
        top_kept=fmean(one.top_kept for one in found),
    )


def best_of(
    candidates: Sequence[Selection], sets: Sequence[CurveSet], limit: float
) -> Selection | None:
    """Of those within the budget the one of least regret, then of most kept, then the thriftiest.

    Regrets count in steps of a hundredth of a percent.
    """
    within = [(mean_outcome(sets, one), one) for one in candidates]
    within = [pair for pair in within if pair[0].budget <= limit]
    if not within:
        return None

    def key(pair: tuple[Outcome, Selection]) -> tuple[float, float, float]:
        found = pair[0]
        return round(found.regret, 4), -round(found.top_kept, 6), found.budget

    return min(within, key=key)[1]


def thriftiest(sets: Sequence[CurveSet]) -> Selection:
    """Of the rounds that are as good as `alto` on each of these and on generated tasks."""
    known = tuple(dict.fromkeys((*sets, *generated_sets(_GENERATED))))
    as_good = [
        one
        for one in candidates_of(Family(_THRIFT, rounds=True))
        if all(_outcome(s, one).regret <= _outcome(s, ALTO).regret + _AS_GOOD for s in known)
    ]
    return min(as_good, key=lambda one: mean_outcome(known, one).budget)


def exhibit() -> Exhibit:
    folds = splits()
    sets = [held_out for held_out, _ in folds]
    rows: list[tuple[str | float, ...]] = [
        ("alto", 1.0, *_row([(s, ALTO) for s in sets]), "5 %, 25 %")
    ]
    for family in FAMILIES:
        candidates = candidates_of(family)
        for share in _LIMITS:
            pairs = []
            for held_out, others in folds:
                limit = share * mean_outcome(others, ALTO).budget
                chosen = best_of(candidates, others, limit)
                if chosen is not None:
                    pairs.append((held_out, chosen))
            if len(pairs) == len(sets):
                rows.append((family.name, share, *_row(pairs), _names([one for _, one in pairs])))
    pairs = [(held_out, thriftiest(others)) for held_out, others in folds]
    rows.append((_THRIFT, 1.0, *_row(pairs), _names([one for _, one in pairs])))
    adopted = AltoPlusSettings()
    plus = Selection(rounds=adopted.rounds, keep=(adopted.keep,) * len(adopted.rounds))
    rows.append(
        ("alto+, as shipped", 1.0, *_row([(curves, plus) for curves in sets]), _names([plus]))
    )
    return Exhibit(
        verdict=Verdict.BEYOND,
        found=tuple(
            f"{row[0]} within {row[1]:.0%} of alto's budget: {row[2]:.1%} spent, regret "
            f"{row[3]:.2%} "
            f"(worst {row[4]:.2%}), {row[5]:.0%} of the best quarter kept."
            for row in rows
        ),
        table=Table(
            ("idea", "limit", "budget", "regret", "worst regret", "kept", "chosen"), tuple(rows)
        ),
        logs=(
            *(f"judged on {one}" for one in origins(sets)),
            *(f"chosen on {one}" for one in origins(_all_of(others for _, others in folds))),
        ),
        seeds="Nothing is drawn but the generated curves.",
        figure=_draw(sets, rows),
    )


def _all_of(groups: Iterable[Sequence[CurveSet]]) -> Iterable[CurveSet]:
    """Each set once."""
    return dict.fromkeys(curves for group in groups for curves in group)


def splits(folder: Path = RECORDED) -> list[tuple[CurveSet, Sequence[CurveSet]]]:
    """Each task that is judged on, with those that its settings are chosen on."""
    recorded = recorded_sets(folder)
    if len(by_seed(recorded)) >= _LEAST_RECORDED:
        return [(one, _of_other_tasks(one, recorded)) for one in recorded]
    chosen_on = generated_sets(_GENERATED)
    judged_on = recorded or generated_sets(_GENERATED, first_seed=_GENERATED)
    return [(one, chosen_on) for one in judged_on]


def _of_other_tasks(one: CurveSet, sets: Sequence[CurveSet]) -> list[CurveSet]:
    """Another seed of a task is no other task."""
    return [each for each in sets if not is_same_task(each.task, one.task)]


@cache
def _outcome(curves: CurveSet, selection: Selection) -> Outcome:
    return outcome(curves, selection)


def _row(pairs: Sequence[tuple[CurveSet, Selection]]) -> tuple[float, float, float, float]:
    found = [_outcome(curves, selection) for curves, selection in pairs]
    return (
        fmean(one.budget for one in found),
        fmean(one.regret for one in found),
        max(one.regret for one in found),
        fmean(one.top_kept for one in found),
    )


def _names(chosen: Sequence[Selection]) -> str:
    return "; ".join(
        dict.fromkeys(
            f"{' '.join(f'{share:g}' for share in one.rounds)} keep {one.keep[0]:g}"
            + (f" slope {one.lookahead:g}" if one.lookahead else "")
            + (f" margin {one.margin:g}" if one.margin else "")
            for one in chosen
        )
    )


def _draw(sets: Sequence[CurveSet], rows: Sequence[tuple[str | float, ...]]) -> Figure:
    figure, panels = panels_of(4.0, 2)
    cloud = [mean_outcome(sets, one) for one in CANDIDATES]
    for axes, name in zip(panels, ("regret", "top_kept"), strict=True):
        factor = 100 if name == "regret" else 1
        axes.scatter(
            [one.budget for one in cloud],
            [factor * getattr(one, name) for one in cloud],
            s=5,
            color=_CLOUD,
            label="every setting, in hindsight",
        )
        names = ["alto", *(family.name for family in FAMILIES), _THRIFT, "alto+, as shipped"]
        for number, family in enumerate(names):
            own = [row for row in rows if row[0] == family]
            heights = [factor * float(row[3 if name == "regret" else 5]) for row in own]
            axes.scatter(
                [float(row[2]) for row in own],
                heights,
                s=70 if family.startswith("alto") else 22,
                marker={"alto": "*", "alto+, as shipped": "P"}.get(family, "o"),
                color=PALETTE[number % len(PALETTE)],
                label=family,
                zorder=3 if family == "alto" else 2,
            )
        axes.set_xlabel("samples trained, share of the full grid")
        axes.set_xlim(0, 0.5)
        axes.grid(color=GRID)
    panels[0].set_ylabel("regret, %", color=MUTED)
    panels[0].set_yscale("symlog", linthresh=0.01)
    panels[0].yaxis.set_major_formatter("{x:g}")
    panels[0].set_ylim(bottom=-0.002)
    panels[1].set_ylabel("true best quarter kept", color=MUTED)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=5, frameon=False, fontsize=8)
    return figure
