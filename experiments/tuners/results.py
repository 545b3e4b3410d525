"""Plays of rules over the full grids, the tuners' own code among them (`tuners/results.csv`)."""

import csv
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

from experiments.grids.table_backend import Arrival
from experiments.tuners.compare import RESULTS

__all__ = ["Result", "chosen_settings", "judged_on_others", "read_results", "tasks_of"]

_LEAST_RECORDED = 3  # to choose settings on recorded tasks alone


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One play of a rule over a grid."""

    task: str
    kind: str  # recorded, other: a grid of another kind of a recorded task, or generated
    rule: str
    setting: str
    arrival: Arrival
    order: int
    budget: float
    regret: float
    top_kept: float
    false_kills: float  # random jobs in the mean of many draws
    time_to_best: float


def read_results() -> tuple[Result, ...]:
    with RESULTS.open(encoding="utf-8", newline="") as file:
        return tuple(
            Result(
                task=row["task"],
                kind=row["kind"],
                rule=row["rule"],
                setting=row["setting"],
                arrival=Arrival(row["arrival"]),
                order=int(row["order"]),
                budget=float(row["budget"]),
                regret=float(row["regret"]),
                top_kept=float(row["top_kept"]),
                false_kills=float(row["false_kills"]),
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


def judged_on_others(results: Sequence[Result]) -> tuple[list[Result], str]:
    """Plays at settings chosen on other tasks: leave one out of the recorded, or half of them."""
    recorded, generated = (tasks_of(results, kind) for kind in ("recorded", "generated"))
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


def tasks_of(results: Iterable[Result], kind: str) -> list[str]:
    return list(dict.fromkeys(one.task for one in results if one.kind == kind))
