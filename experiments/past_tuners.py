"""Against the tuners' own code: which rule finds how much with how little.

The paper: it compares its exits with no other early-stopping rule.

Here: the tuners' own classes (Ray Tune, Optuna, Syne Tune; versions in `tuners/versions.json`),
patience, our `asha`, `hyperband` and `median`, random jobs at the budget of `alto`, and the oracle,
all over the same full grids, with jobs in lock-step and one after another, in three orders. Each
tuner's grace and reduction factor are chosen on other tasks than those it is judged on: of the
settings that spend no more than `alto`, the one of least regret, else the thriftiest. So are the
share that `alto+` keeps and its handicap (`choosing.py`); *as shipped* they are chosen on all
tasks. Regret is the winner's best validation loss over that of the full grid. *Kept*: jobs of the
true best quarter that were trained to their own best loss. *False kills*: jobs stopped that would
have beaten the winner. `tuners/compare.py` (`make tuners`) makes the table; the figure is made from
it.
"""

import csv
import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from statistics import fmean

from matplotlib.figure import Figure

from alto_policy.policies.alto_plus import AltoPlusSettings
from alto_runs.report.drawing import GRID, INK, MUTED, PALETTE, panels_of
from experiments.choosing import all_recordings, of_other_tasks, plus_of
from experiments.curve_sets import recorded_sets
from experiments.exhibit import Cell, Exhibit, Table, Verdict
from experiments.judging import judge
from experiments.table_backend import Arrival, play_policy
from experiments.tuners.compare import NUM_ORDERS, RESULTS, VERSIONS, order_of

__all__ = ["Result", "chosen_settings", "exhibit", "no_worse", "read_results"]

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
_LEAST_RECORDED = 3  # to choose settings on recorded tasks alone
_NOISE = 0.001  # of a loss: regrets that differ by less are equal


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One play of a rule over a grid."""

    task: str
    is_generated: bool
    rule: str
    setting: str
    arrival: Arrival
    order: int
    budget: float
    regret: float
    top_kept: float
    false_kills: int
    time_to_best: float


def read_results() -> tuple[Result, ...]:
    with RESULTS.open(encoding="utf-8", newline="") as file:
        return tuple(
            Result(
                task=row["task"],
                is_generated=row["generated"] == "True",
                rule=row["rule"],
                setting=row["setting"],
                arrival=Arrival(row["arrival"]),
                order=int(row["order"]),
                budget=float(row["budget"]),
                regret=float(row["regret"]),
                top_kept=float(row["top_kept"]),
                false_kills=int(row["false_kills"]),
                time_to_best=float(row["time_to_best"]),
            )
            for row in csv.DictReader(file)
        )


def chosen_settings(results: Iterable[Result], tasks: Collection[str]) -> dict[str, str]:
    """The setting of each rule that does best on the tasks."""
    by_setting: dict[tuple[str, str], list[Result]] = {}
    for one in results:
        if one.task in tasks:
            by_setting.setdefault((one.rule, one.setting), []).append(one)
    (limit,) = (
        fmean(one.budget for one in found)
        for (rule, _), found in by_setting.items()
        if rule == "ours: alto"
    )
    best: dict[str, tuple[tuple[bool, float, float], str]] = {}
    for (rule, setting), found in by_setting.items():
        budget, regret = fmean(r.budget for r in found), fmean(r.regret for r in found)
        is_over = budget > limit * 1.001
        key = (is_over, budget if is_over else round(regret, 4), budget)
        if rule not in best or key < best[rule][0]:
            best[rule] = key, setting
    return {rule: setting for rule, (_, setting) in best.items()}


def no_worse(ours: Sequence[Result], theirs: Sequence[Result]) -> bool:
    """On one task: no larger budget, and no larger regret beyond the noise, in the mean."""
    return (
        fmean(one.budget for one in ours) <= fmean(one.budget for one in theirs) + 1e-9
        and fmean(one.regret for one in ours) <= fmean(one.regret for one in theirs) + _NOISE
    )


def exhibit() -> Exhibit:
    results = [replace(one, rule=_SHIPPED) if one.rule == _PLUS else one for one in read_results()]
    judged, basis = _judged(results)
    judged += _plus_on_others()
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
                    *(_wins(ours, rule, judged, tasks) for ours in _OURS),
                )
            )
    rows.sort(key=lambda row: (str(row[0]) not in _OURS, row[4]))
    columns = (
        *("rule", "setting", "arrival", "budget", "regret", "worst regret", "kept"),
        *("false kills", "time to best", "alto no worse", "alto+ no worse"),
    )
    recorded = [task for task in tasks if not _is_generated(task, results)]
    return Exhibit(
        verdict=Verdict.BEYOND,
        found=_sentences(judged, tasks, rules),
        table=Table(columns, tuple(rows)),
        logs=("`tuners/results.csv`", f"tasks judged on: {', '.join(tasks)}", _versions()),
        seeds=f"Settings {basis}. Means over {len(tasks)} tasks ({len(recorded)} recorded) and "
        "three "
        "orders of the jobs; dots of a rule are its tasks.",
        figure=_draw(judged, tasks),
    )


def _judged(results: Sequence[Result]) -> tuple[list[Result], str]:
    """Plays at settings chosen on other tasks: leave one out of the recorded, or half of them."""
    recorded = list(dict.fromkeys(one.task for one in results if not one.is_generated))
    generated = list(dict.fromkeys(one.task for one in results if one.is_generated))
    if len(recorded) >= _LEAST_RECORDED:
        splits = [([name], [n for n in recorded if n != name]) for name in recorded]
        basis = "are chosen on the other recorded tasks, for each task in turn"
    elif recorded:
        splits = [(recorded, generated)]
        basis = "are chosen on generated tasks, judged on recorded ones"
    else:
        half = len(generated) // 2
        splits = [(generated[half:], generated[:half])]
        basis = "are chosen on the first half of the generated tasks, judged on the second"
    judged = []
    for held_out, others in splits:
        settings = chosen_settings(results, others)
        judged += [
            one for one in results if one.task in held_out and one.setting == settings[one.rule]
        ]
    return judged, basis


def _plus_on_others() -> Iterator[Result]:
    """Plays of `alto+` on the recorded tasks, each at settings that the others chose."""
    for curves in recorded_sets():
        chosen = plus_of(of_other_tasks(curves, all_recordings()))
        assert chosen is not None, (
            f"no share is thrifty enough on the tasks other than {curves.name}"
        )
        keep = chosen.keep[0]
        settings = AltoPlusSettings(rounds=chosen.rounds, keep=keep, handicap=chosen.handicap)
        for arrival, seed in product(Arrival, range(NUM_ORDERS)):
            play = play_policy(curves, settings, arrival, order_of(curves, seed))
            yield Result(
                task=curves.name,
                is_generated=False,
                rule=_PLUS,
                setting=f"keep {keep:g}, handicap {chosen.handicap:g}",
                arrival=arrival,
                order=seed,
                **asdict(judge(curves, play)),
            )


def _wins(ours: str, rule: str, judged: Sequence[Result], tasks: Sequence[str]) -> str:
    """On how many tasks ours is no worse than the rule in budget and in regret."""
    if rule == ours:
        return ""
    wins = sum(
        no_worse(
            [one for one in judged if one.rule == ours and one.task == task],
            [one for one in judged if one.rule == rule and one.task == task],
        )
        for task in tasks
    )
    return f"{wins} of {len(tasks)}"


def _sentences(
    judged: Sequence[Result], tasks: Sequence[str], rules: Sequence[str]
) -> tuple[str, ...]:
    peers = [r for r in rules if not r.startswith("ours") and r not in _BASELINES]
    sentences = []
    for ours in _OURS:
        own = [one for one in judged if one.rule == ours]
        beaten = [
            peer
            for peer in peers
            if int(_wins(ours, peer, judged, tasks).split()[0]) >= 0.75 * len(tasks)
        ]
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


def _is_generated(task: str, results: Sequence[Result]) -> bool:
    return any(one.is_generated for one in results if one.task == task)


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
