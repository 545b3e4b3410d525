"""Is one selection at 5 % that keeps 25 % the best use of its budget?

The paper: one selection, by the loss at the end of the warm-up. It tries no other way.

Here: several rounds of selection, ranks by where a loss is going (its slope over the logarithm of
the samples), and a margin for those that are close to the last one kept, in a numerical model of
such policies (`grids/rounds_of_selection.py`; a test holds that it says what the policies do).
Settings are chosen on generated tasks and judged on recorded ones (on the other recorded ones where
there are three): of those that spend no more than the limit, the one of least regret, then of most
of the true best quarter kept. *Thrift* asks the other way round: of the rounds whose regret is
within 0.1 % of `alto`'s on each other recorded task and on eight generated ones, those that spend
least.

At equal updates: after equally many samples, a job of large batches has made few updates and looks
worse than it is, so it is given a handicap that wanes. The policy `alto+` has such a handicap, and
a round at each doubling of 2.5 % of the samples. Its handicap is chosen first: it is the least one
whose ranks agree best (to two digits) with those of the best losses, within the best third of each
grid and over the first three rounds, since twenty jobs of a grid tell more than its winner. Then
the share that goes on at each round is chosen within the limit's budget; 75 % was adopted. Both are
chosen on the other tasks, in all recordings that there are: those of `traces`, the older ones of
the same grids (`traces/repeated`) and one of large batches (`traces/batches`). *As shipped* means
that they are chosen on all tasks.

The paper's rule for overfitting ends a job whose validation loss is a tenth above its training
loss, also where both still fall: in two of the grids that was the job that would have won. `alto+`
does without it, since its rounds end whoever falls behind. *Gap* says what is lost with it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from statistics import fmean

from matplotlib.figure import Figure

from alto_policy.policies.alto_plus import AltoPlusSettings
from alto_runs.report.drawing import GRID, MUTED, PALETTE, panels_of
from experiments.exhibits.exhibit import Exhibit, Table, Verdict
from experiments.grids.choosing_settings import (
    DOUBLINGS,
    HANDICAPS,
    KEEPS,
    all_recordings,
    best_of,
    known_outcome,
    mean_outcome,
    of_other_tasks,
    plus_of,
)
from experiments.grids.curve_sets import (
    RECORDED,
    CurveSet,
    by_seed,
    generated_sets,
    longer_grids,
    origins,
    recorded_sets,
)
from experiments.grids.rounds_of_selection import ALTO, Selection

__all__ = ["CANDIDATES", "Family", "exhibit", "gist_of", "splits"]

_ROUNDS = (
    *((0.025,), (0.05,), (0.1,), (0.15,), (0.025, 0.075), (0.025, 0.1), (0.025, 0.15)),
    *((0.05, 0.1), (0.05, 0.2), (0.05, 0.15), (0.1, 0.3), (0.05, 0.15, 0.45)),
    *((0.05, 0.1, 0.2, 0.4), (0.025, 0.05, 0.1, 0.2, 0.4), DOUBLINGS),
)
_LOOKAHEADS, _MARGINS = (0.0, 0.25, 0.5, 1.0), (0.0, 0.002, 0.005)
_GENERATED, _LEAST_RECORDED = 8, 3
_CLOUD = "#C5CBD3"
_MARKERS = {"alto": "*", "alto+": "D", "alto+, as shipped": "P"}
_THRIFT = "thrift"
_LIMITS = (1.0, 0.75, 0.5)  # of what `alto` spends
_ADOPTED = 0.75  # for `alto+`
_AS_GOOD = 0.001  # more regret than `alto`'s


@dataclass(frozen=True, slots=True)
class Family:
    """Candidates of one idea."""

    name: str
    rounds: bool = False  # more than one
    slope: bool = False
    margin: bool = False
    updates: bool = False  # losses as if at equal updates


FAMILIES = (
    Family("one round"),
    Family("rounds", rounds=True),
    Family("slope", slope=True),
    Family("margin", margin=True),
    Family("rounds and slope", rounds=True, slope=True),
    Family("all three", rounds=True, slope=True, margin=True),
    Family("rounds at equal updates", rounds=True, updates=True),
)
CANDIDATES = (
    *(
        Selection(rounds=rounds, keep=(keep,) * len(rounds), lookahead=lookahead, margin=margin)
        for rounds, keep, lookahead, margin in product(_ROUNDS, KEEPS, _LOOKAHEADS, _MARGINS)
    ),
    *(
        Selection(rounds=rounds, keep=(keep,) * len(rounds), handicap=handicap)
        for rounds, keep, handicap in product(_ROUNDS, KEEPS, HANDICAPS)
        if handicap
    ),
)


def candidates_of(family: Family) -> list[Selection]:
    return [
        one
        for one in CANDIDATES
        if (family.rounds or len(one.rounds) == 1)
        and (family.slope or one.lookahead == 0)
        and (family.margin or one.margin == 0)
        and (family.updates or one.handicap == 0)
    ]


def thriftiest(sets: Sequence[CurveSet]) -> Selection:
    """Of the rounds that are as good as `alto` on each of these and on generated tasks."""
    known = tuple(dict.fromkeys((*sets, *generated_sets(_GENERATED))))
    as_good = [
        one
        for one in candidates_of(Family(_THRIFT, rounds=True))
        if all(
            known_outcome(s, one).regret <= known_outcome(s, ALTO).regret + _AS_GOOD for s in known
        )
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
    for share in _LIMITS:
        pairs = []
        for held_out in sets:
            chosen = plus_of(of_other_tasks(held_out, all_recordings()), share)
            if chosen is not None:
                pairs.append((held_out, chosen))
        if len(pairs) == len(sets):
            rows.append(("alto+", share, *_row(pairs), _names([one for _, one in pairs])))
    chosen_on = (*(others for _, others in folds), all_recordings())
    plus = _shipped()
    rows += [
        (name, 1.0, *_row([(curves, one) for curves in sets]), _names([one]))
        for name, one in (
            ("alto+, as shipped", plus),
            ("alto+, with the paper's gap", replace(plus, rules=ALTO.rules)),
            ("alto, without it", replace(ALTO, rules=plus.rules)),
        )
    ]
    return Exhibit(
        verdict=Verdict.BEYOND,
        gist=gist_of(
            {(str(row[0]), float(row[1])): (float(row[2]), float(row[3])) for row in rows}
        ),
        found=tuple(_told_later(curves, plus) for curves in longer_grids()),
        table=Table(
            ("idea", "limit", "budget", "regret", "worst regret", "kept", "chosen"), tuple(rows)
        ),
        logs=(
            *(f"judged on {one}" for one in origins((*sets, *longer_grids()))),
            *(f"chosen on {one}" for one in origins(_all_of(chosen_on))),
        ),
        seeds="*Limit*: what may be spent, over what `alto` spends. Nothing is drawn but the "
        "generated curves.",
        figure=_draw(sets, rows),
        shown_rows=len(rows),
    )


def _shipped() -> Selection:
    adopted = AltoPlusSettings()
    return Selection(
        rounds=adopted.rounds,
        keep=(adopted.keep,) * len(adopted.rounds),
        handicap=adopted.handicap,
        rules=adopted.rules,
    )


def _told_later(curves: CurveSet, plus: Selection) -> str:
    ours, sharper = known_outcome(curves, ALTO), known_outcome(curves, plus)
    return (
        "Held out are the settings of alto+, not its idea, which was found with the grids in view. "
        f"On a grid that was recorded after both were chosen ({curves.name} of a job): alto "
        f"{ours.budget:.1%} for a regret of {ours.regret:.2%}, alto+ as shipped "
        f"{sharper.budget:.1%} for {sharper.regret:.2%}."
    )


def gist_of(outcomes: Mapping[tuple[str, float], tuple[float, float]]) -> str:
    """Budget and regret by idea and limit, on tasks that did not choose its settings."""
    (spent, regret), alto = outcomes["alto+", _ADOPTED], outcomes["alto", 1.0]
    is_better = spent < alto[0] and regret <= alto[1]
    sloped, plain = outcomes["slope", 1.0][1], outcomes["one round", 1.0][1]
    return (
        f"{'No' if is_better else 'Nothing better was found'}: `alto+`, with a round at each "
        "doubling, a handicap for large batches and no rule for overfitting, trains "
        f"{spent:.1%} of the samples for a regret of {regret:.2%} on tasks that did not choose its "
        f"settings; `alto` trains {alto[0]:.1%} for {alto[1]:.2%}. To judge jobs by their slopes "
        f"as well {'misleads' if sloped > plain else 'does no harm'}: a regret of {sloped:.2%}, "
        f"without them {plain:.2%}."
    )


def _all_of(groups: Iterable[Sequence[CurveSet]]) -> Iterable[CurveSet]:
    """Each set once."""
    return dict.fromkeys(curves for group in groups for curves in group)


def splits(folder: Path = RECORDED) -> list[tuple[CurveSet, Sequence[CurveSet]]]:
    """Each task that is judged on, with those that its settings are chosen on."""
    recorded = recorded_sets(folder)
    if len(by_seed(recorded)) >= _LEAST_RECORDED:
        return [(one, of_other_tasks(one, recorded)) for one in recorded]
    chosen_on = generated_sets(_GENERATED)
    judged_on = recorded or generated_sets(_GENERATED, first_seed=_GENERATED)
    return [(one, chosen_on) for one in judged_on]


def _row(pairs: Sequence[tuple[CurveSet, Selection]]) -> tuple[float, float, float, float]:
    found = [known_outcome(curves, selection) for curves, selection in pairs]
    return (
        fmean(one.budget for one in found),
        fmean(one.regret for one in found),
        max(one.regret for one in found),
        fmean(one.top_kept for one in found),
    )


def _names(chosen: Sequence[Selection]) -> str:
    return "; ".join(
        dict.fromkeys(
            f"{_told(one.rounds)} keep {one.keep[0]:g}"
            + (f" slope {one.lookahead:g}" if one.lookahead else "")
            + (f" margin {one.margin:g}" if one.margin else "")
            + (f" handicap {one.handicap:g}" if one.handicap else "")
            for one in chosen
        )
    )


def _told(rounds: Sequence[float]) -> str:
    return "doublings" if rounds == DOUBLINGS else " ".join(f"{share:g}" for share in rounds)


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
        ideas = [family.name for family in FAMILIES]
        names = ["alto", *ideas, _THRIFT, "alto+", "alto+, as shipped"]
        for number, family in enumerate(names):
            own = [row for row in rows if row[0] == family]
            heights = [factor * float(row[3 if name == "regret" else 5]) for row in own]
            axes.scatter(
                [float(row[2]) for row in own],
                heights,
                s=70 if family.startswith("alto") else 22,
                marker=_MARKERS.get(family, "o"),
                color=PALETTE[number % len(PALETTE)],
                label=family,
                zorder=3 if family == "alto" else 2,
            )
        axes.set_xlabel("samples trained, share of the full grid")
        axes.set_xlim(0, 0.5)
        axes.grid(color=GRID)
    panels[0].set_ylabel("regret, %", color=MUTED)
    panels[0].set_yscale("symlog", linthresh=0.1, linscale=0.3)
    panels[0].yaxis.set_major_formatter("{x:g}")
    panels[0].set_ylim(bottom=-0.01)
    panels[1].set_ylabel("true best quarter kept", color=MUTED)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=5, frameon=False, fontsize=8)
    return figure
