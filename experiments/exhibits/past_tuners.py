"""Against the tuners' own code: which rule finds how much with how little.

The paper: it compares its exits with no other early-stopping rule.

Here: the tuners' own classes (Ray Tune, Optuna, Syne Tune; versions in `tuners/versions.json`),
patience, our `asha`, `hyperband` and `median`, random jobs trained to their ends at the budget of
`alto` (the mean of 3,000 draws; the worst of their regrets is the mean of 1,000), and an oracle,
all over the same full grids, with jobs in lock-step and one after another, in three orders. A
tuner's grace and reduction factor are chosen on other tasks than the one it is judged on: of the
settings that spend no more than `alto` the one of least regret, or else the thriftiest. The share
that `alto+` keeps and its handicap are chosen in the same way (`grids/choosing_settings.py`); *as
shipped* means that they are chosen on all tasks. *Regret*: how much the winner's best validation
loss is above that of the full grid. *Kept*: jobs of the true best quarter that were trained to
their own best loss. *False kills*: jobs that were stopped and would have beaten the winner. Full
grids of other kinds (larger batches, other amounts of data, slices of the backbone) are judged
apart, at settings chosen on tasks of other data. The preferences are not judged, since their losses
end near zero. `tuners/compare.py` (`make tuners`) makes the table, and the figure is made from it.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from itertools import product
from statistics import fmean

from matplotlib.figure import Figure

from alto_policy.policies.alto_plus import AltoPlusSettings
from alto_runs.report.drawing import GRID, INK, MUTED, PALETTE, panels_of
from experiments.exhibits.exhibit import Cell, Exhibit, Table, Verdict
from experiments.grids.choosing_settings import all_recordings, of_other_data, plus_of
from experiments.grids.curve_sets import CurveSet, other_grids, recorded_sets
from experiments.grids.judging import judge
from experiments.grids.table_backend import Arrival, play_policy
from experiments.tuners.compare import NUM_ORDERS, VERSIONS, order_of
from experiments.tuners.results import (
    Result,
    chosen_settings,
    judged_on_others,
    read_results,
    tasks_of,
)

__all__ = ["check_played", "exhibit", "no_worse"]

_PLUS = "ours: alto+"
_SHIPPED = f"{_PLUS}, as shipped"
_OURS = ("ours: alto", _PLUS)
_BASELINES = ("none", "oracle", "random")
_FAMILIES = {"ours": PALETTE[0], "Ray": PALETTE[1], "Optuna": PALETTE[2], "Syne": PALETTE[3]}
_MEASURES = (
    ("budget", 1, "samples trained, of the full grid"),
    ("regret", 100, "regret of the winner, %"),
    ("top_kept", 1, "true best quarter kept"),
)
_NOISE = 0.001  # of a loss: regrets that differ by less are equal
_SMALLER = (0.0005, 0.0)  # what it would come to otherwise


def no_worse(ours: Sequence[Result], theirs: Sequence[Result], noise: float = _NOISE) -> bool:
    """On one task: no larger budget, and no larger regret beyond the noise, in the mean."""
    return (
        fmean(one.budget for one in ours) <= fmean(one.budget for one in theirs) + 1e-9
        and fmean(one.regret for one in ours) <= fmean(one.regret for one in theirs) + noise
    )


def exhibit() -> Exhibit:
    results = [replace(one, rule=_SHIPPED) if one.rule == _PLUS else one for one in read_results()]
    check_played(results, (*recorded_sets(), *other_grids()))
    judged, basis = judged_on_others(results)
    judged += _plus_on_others(recorded_sets())
    others = _judged_others(results)
    tasks = list(dict.fromkeys(one.task for one in judged))
    rules = list(dict.fromkeys(one.rule for one in judged))
    rows: list[tuple[Cell, ...]] = []
    for rule in rules:
        for arrival in Arrival:
            found = [one for one in judged if one.rule == rule and one.arrival is arrival]
            rows.append(
                (
                    rule,
                    ", ".join(dict.fromkeys(one.setting for one in found if one.setting)),
                    arrival.value,
                    fmean(one.budget for one in found),
                    fmean(one.regret for one in found),
                    max(one.regret for one in found),
                    fmean(one.top_kept for one in found),
                    fmean(one.false_kills for one in found),
                    fmean(one.time_to_best for one in found),
                    *(
                        ""
                        if rule == ours
                        else f"{_wins(ours, rule, judged, tasks)} of {len(tasks)}"
                        for ours in _OURS
                    ),
                )
            )
    rows.sort(key=lambda row: (str(row[0]) not in _OURS, row[4]))
    columns = (
        *("rule", "setting", "arrival", "budget", "regret", "worst regret", "kept"),
        *("false kills", "time to best", "alto no worse", "alto+ no worse"),
    )
    recorded = tasks_of(results, "recorded")
    return Exhibit(
        verdict=Verdict.BEYOND,
        gist=_gist(judged, tasks, rules),
        found=(*_sentences(judged, tasks, rules), *_told_others(others, rules)),
        table=Table(columns, tuple(rows)),
        logs=("`tuners/results.csv`", f"tasks judged on: {', '.join(tasks)}", _versions()),
        seeds=f"Settings {basis}. Means over {len(tasks)} tasks ({len(recorded)} recorded) and "
        "three "
        "orders of the jobs; dots of a rule are its tasks.",
        figure=_draw(judged, tasks),
        shown_rows=len(rows),
    )


def check_played(results: Iterable[Result], sets: Iterable[CurveSet]) -> None:
    """Ends the program where the table is older than a grid."""
    played = {one.task for one in results}
    missing = dict.fromkeys(curves.name for curves in sets if curves.name not in played)
    if missing:
        raise SystemExit(
            f"tuners/results.csv: no plays of {', '.join(missing)}: `make tuners` comes before "
            "`make figures` where grids were recorded"
        )


def _judged_others(results: Sequence[Result]) -> list[Result]:
    """Plays on grids of another kind, at settings chosen on the recorded tasks of other data."""
    recorded, judged = tasks_of(results, "recorded"), []
    for name in tasks_of(results, "other"):
        settings = chosen_settings(results, [task for task in recorded if task != _data_of(name)])
        judged += [one for one in results if one.task == name and one.setting == settings[one.rule]]
    return judged + list(_plus_on_others(other_grids()))


def _data_of(name: str) -> str:
    """Of a grid of another kind."""
    return name.split(",")[0]


def _plus_on_others(sets: Iterable[CurveSet]) -> Iterator[Result]:
    """Plays of `alto+` on the sets, each at settings that recordings of other data chose."""
    for curves in sets:
        chosen = plus_of(of_other_data(_data_of(curves.name), all_recordings()))
        assert chosen is not None, (
            f"no share is thrifty enough on the tasks other than {curves.name}"
        )
        keep = chosen.keep[0]
        settings = AltoPlusSettings(rounds=chosen.rounds, keep=keep, handicap=chosen.handicap)
        for arrival, seed in product(Arrival, range(NUM_ORDERS)):
            play = play_policy(curves, settings, arrival, order_of(curves, seed))
            yield Result(
                task=curves.name,
                kind="recorded",
                rule=_PLUS,
                setting=f"keep {keep:g}, handicap {chosen.handicap:g}",
                arrival=arrival,
                order=seed,
                **asdict(judge(curves, play)),
            )


def _wins(
    ours: str, rule: str, judged: Sequence[Result], tasks: Sequence[str], noise: float = _NOISE
) -> int:
    """On how many tasks ours is no worse than the rule in budget and in regret."""
    return sum(
        no_worse(
            [one for one in judged if one.rule == ours and one.task == task],
            [one for one in judged if one.rule == rule and one.task == task],
            noise,
        )
        for task in tasks
    )


def _peers(rules: Iterable[str]) -> list[str]:
    return [r for r in rules if not r.startswith("ours") and r not in _BASELINES]


def _beaten(
    ours: str,
    judged: Sequence[Result],
    tasks: Sequence[str],
    peers: Sequence[str],
    noise: float = _NOISE,
) -> list[str]:
    """Those than which it is no worse on three quarters of the tasks."""
    needed = 0.75 * len(tasks)
    return [p for p in peers if _wins(ours, p, judged, tasks, noise) >= needed]


def _told_noise(judged: Sequence[Result], tasks: Sequence[str], peers: Sequence[str]) -> str:
    """How much hangs on it."""
    told = []
    for noise in _SMALLER:
        counts = (len(_beaten(ours, judged, tasks, peers, noise)) for ours in _OURS)
        when = f"by less than {noise:.2%}" if noise else "not at all"
        told.append(f"{' and '.join(map(str, counts))} if {when}")
    names = " and ".join(ours.removeprefix("ours: ") for ours in _OURS)
    return (
        f"Regrets count as equal if they differ by less than {_NOISE:.1%} of the loss, as jobs of "
        f"one grid do when it is recorded twice. Much hangs on it: of {len(peers)} peer rules, "
        f"{names} are no worse in both than {'; '.join(told)}."
    )


def _gist(judged: Sequence[Result], tasks: Sequence[str], rules: Sequence[str]) -> str:
    peers, told = _peers(rules), []
    for ours in _OURS:
        own = [one for one in judged if one.rule == ours]
        told.append(
            f"`{ours.removeprefix('ours: ')}` trains {fmean(one.budget for one in own):.1%} of the "
            f"samples for a regret of {fmean(one.regret for one in own):.2%}; on three quarters of "
            "the tasks it is no worse in either than "
            f"{len(_beaten(ours, judged, tasks, peers))} of {len(peers)} rules of other tuners "
            f"({len(_beaten(ours, judged, tasks, peers, 0.0))} if regrets that differ by less than "
            f"{_NOISE:.1%} do not count as equal)"
        )
    rich = min(
        (rule for rule in rules if rule.startswith("ours") and rule not in (*_OURS, _SHIPPED)),
        key=lambda rule: fmean(one.regret for one in judged if one.rule == rule),
    )
    own = [one for one in judged if one.rule == rich]
    return (
        f"{'. '.join(told)}. Our `{rich.removeprefix('ours: ')}` finds better jobs for more "
        f"samples: a regret of {fmean(one.regret for one in own):.2%} for "
        f"{fmean(one.budget for one in own):.0%} of them."
    )


def _told_others(others: Sequence[Result], rules: Sequence[str]) -> Iterator[str]:
    """Of grids of another kind: batches, amounts of data, backbones."""
    tasks, peers = list(dict.fromkeys(one.task for one in others)), _peers(rules)
    if not tasks:
        return
    for ours in (*_OURS, _SHIPPED):
        beaten = _beaten(ours, others, tasks, peers)
        own = [one for one in others if one.rule == ours]
        worst = [task for task in tasks if _is_worst(ours, peers, others, task)]
        yield (
            f"{ours} on {len(tasks)} grids of other kinds: no worse in both than {len(beaten)} of "
            f"{len(peers)} peer rules on three quarters of them, the highest regret of all on "
            f"{', '.join(worst) or 'none'}; budget and regret: {_by_task(own, tasks)}."
        )


def _sentences(
    judged: Sequence[Result], tasks: Sequence[str], rules: Sequence[str]
) -> tuple[str, ...]:
    peers = _peers(rules)
    sentences = []
    for ours in _OURS:
        own = [one for one in judged if one.rule == ours]
        beaten = _beaten(ours, judged, tasks, peers)
        left = [peer for peer in peers if peer not in beaten]
        sentences.append(
            f"{ours}: budget {fmean(one.budget for one in own):.1%}, regret "
            f"{fmean(one.regret for one in own):.2%}. No worse in both than {len(beaten)} of "
            f"{len(peers)} peer rules on three quarters of the tasks"
            + (f"; not so against {', '.join(left)}." if left else ".")
        )
        worst = [task for task in tasks if _is_worst(ours, peers, judged, task)]
        sentences.append(
            f"{ours} has the highest regret of all rules on: {', '.join(worst) or 'no task'}."
        )
        sentences.append(f"{ours} by task, budget and regret: {_by_task(own, tasks)}.")
    thrifty = min(peers, key=lambda peer: _mean_budget(judged, peer))
    spent = _by_task([one for one in judged if one.rule == thrifty], tasks)
    sentences.append(f"The thriftiest peer rule is {thrifty}: {spent}.")
    sentences.append(_told_noise(judged, tasks, peers))
    drawn = [one for one in judged if one.rule == "random"]
    sentences.append(
        f"Random jobs at alto's budget: {_by_task(drawn, tasks)}; in the mean a regret of "
        f"{fmean(one.regret for one in drawn):.2%}."
    )
    return (
        *sentences,
        "A rule that looks only at a job's own rung and at those before it decides the same in "
        "lock-step and in sequence. Optuna's median and percentile pruners compare with finished "
        "trials alone, so that in lock-step they stop nobody.",
    )


def _by_task(own: Sequence[Result], tasks: Sequence[str]) -> str:
    plays = {task: [one for one in own if one.task == task] for task in tasks}
    return ", ".join(
        f"{task} {fmean(one.budget for one in found):.1%} and "
        f"{fmean(one.regret for one in found):.2%}"
        for task, found in plays.items()
    )


def _mean_budget(judged: Sequence[Result], rule: str) -> float:
    return fmean(one.budget for one in judged if one.rule == rule)


def _is_worst(ours: str, peers: Sequence[str], judged: Sequence[Result], task: str) -> bool:
    def regret(rule: str) -> float:
        return fmean(one.regret for one in judged if one.rule == rule and one.task == task)

    return regret(ours) > max(regret(peer) for peer in peers)


def _versions() -> str:
    versions = json.loads(VERSIONS.read_text(encoding="utf-8"))
    return "with " + ", ".join(f"{name} {number}" for name, number in versions.items())


def _draw(judged: Sequence[Result], tasks: Sequence[str]) -> Figure:
    """A line for each rule."""
    rules = sorted(
        dict.fromkeys(one.rule for one in judged),
        key=lambda rule: _mean_budget(judged, rule),
        reverse=True,
    )
    figure, panels = panels_of(0.9 + 0.24 * len(rules), 3)
    for axes, (field, factor, title) in zip(panels, _MEASURES, strict=True):
        for place, rule in enumerate(rules):
            found = [one for one in judged if one.rule == rule]
            colour = next((c for name, c in _FAMILIES.items() if rule.startswith(name)), MUTED)
            for arrival, fill in ((Arrival.LOCKSTEP, colour), (Arrival.SEQUENTIAL, "none")):
                values = [
                    [
                        factor * getattr(r, field)
                        for r in found
                        if (r.arrival, r.task) == (arrival, t)
                    ]
                    for t in tasks
                ]
                means = [fmean(each) for each in values]
                axes.scatter(means, [place] * len(means), s=7, color=colour, alpha=0.5, lw=0)
                axes.scatter(fmean(means), place, s=44, facecolor=fill, edgecolor=colour, zorder=3)
        axes.set_title(title, fontsize=9, color=INK)
        axes.set_yticks(range(len(rules)), rules if axes is panels[0] else [], fontsize=8)
        axes.grid(color=GRID)
    panels[1].set_xscale("symlog", linthresh=0.1)
    panels[1].xaxis.set_major_formatter("{x:g}")
    panels[1].set_xlim(left=-0.02)
    panels[2].set_xlim(0, 1.05)
    handles = [
        panels[0].scatter([], [], s=size, facecolor=fill, edgecolor=MUTED, label=label)
        for size, fill, label in (
            (7, MUTED, "a task"),
            (44, MUTED, "mean of the tasks, jobs in lock-step"),
            (44, "none", "mean of the tasks, jobs one after another"),
        )
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=3, frameon=False, fontsize=8)
    return figure
