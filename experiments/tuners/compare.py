"""Plays full grids through the tuners' own code and through our policies; writes `results.csv`.

    make tuners

The tuners live in an environment of their own (`requirements.txt`). A loss that is not finite ends
a job whoever decides: what is compared are rules, not how a crash is handled. In lock-step all
jobs report in turn; in sequence a job begins when the one before it has ended. Orders of the jobs
are drawn by seeds 0 to 2, the same for all.
"""

import csv
import json
import math
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import astuple, fields
from importlib.metadata import version
from io import StringIO
from pathlib import Path

import numpy as np

from alto_policy.policies import SETTINGS, Settings
from alto_runs.directory import write_atomically
from experiments.curve_sets import CurveSet, generated_sets, recorded_sets
from experiments.judging import Judgement, judge, oracle, random_play
from experiments.table_backend import Arrival, Play, play_policy
from experiments.tuners.rule import Patience, Peer, Rule, TrainAll

__all__ = ["COLUMNS", "NUM_GENERATED", "NUM_ORDERS", "RESULTS", "VERSIONS", "play_rule"]

RESULTS = Path(__file__).parent / "results.csv"
VERSIONS = Path(__file__).parent / "versions.json"
NUM_GENERATED, NUM_ORDERS = 4, 3
COLUMNS = (
    "task", "generated", "rule", "setting", "arrival", "order",
    *(field.name for field in fields(Judgement)),
)  # fmt: skip
_OURS = ("alto", "alto+", "asha", "hyperband", "median")


def play_rule(curves: CurveSet, rule: Rule, arrival: Arrival, order: Sequence[int]) -> Play:
    """The reports that the rule lets happen."""
    rows: list[int] = []
    columns: list[int] = []
    going = list(order)
    column = dict.fromkeys(order, 0)
    if arrival is Arrival.LOCKSTEP:
        for row in order:
            rule.begin(row)
    while going:
        row = going[0] if arrival is Arrival.SEQUENTIAL else min(going, key=column.__getitem__)
        if arrival is Arrival.SEQUENTIAL and column[row] == 0:
            rule.begin(row)
        loss = float(curves.val[row, column[row]])
        rows.append(row)
        columns.append(column[row])
        column[row] += 1
        is_lost = not math.isfinite(loss)
        if is_lost or rule.stops(row, column[row], loss) or column[row] == curves.num_reports:
            known = curves.val[row, : column[row]]
            finite = known[np.isfinite(known)]
            rule.end(row, float(finite[-1]) if len(finite) else 1e9)
            going.remove(row)
    return Play(tuple(rows), tuple(columns))


def main() -> None:
    from experiments.tuners.optuna_rules import optuna_peers
    from experiments.tuners.ray_rules import ray_peers
    from experiments.tuners.syne_rules import syne_peers

    peers = [
        Peer("none", "", lambda reports, seed: TrainAll()),
        *(Peer("patience", f"patience {p}", _patience(p)) for p in (2, 3, 5)),
        *ray_peers(),
        *optuna_peers(),
        *syne_peers(),
    ]
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for curves in (*recorded_sets(), *generated_sets(NUM_GENERATED)):
        for row in _rows(curves, peers):
            writer.writerow(row)
        print(f"{curves.name}: done", file=sys.stderr, flush=True)
    write_atomically(RESULTS, text.getvalue())
    packages = ("ray", "optuna", "syne-tune", "numpy")
    write_atomically(VERSIONS, json.dumps({name: version(name) for name in packages}) + "\n")


def _rows(curves: CurveSet, peers: Sequence[Peer]) -> Iterable[tuple[object, ...]]:
    count = len(curves.task.jobs)
    for arrival in Arrival:
        for seed in range(NUM_ORDERS):
            order = [int(row) for row in np.random.default_rng(seed).permutation(count)]

            def row(name: str, setting: str, play: Play) -> tuple[object, ...]:
                found = [round(value, 6) for value in astuple(judge(curves, play))]
                head = (curves.name, curves.is_generated, name, setting, arrival.value, seed)  # noqa: B023
                return (*head, *found)

            for name in _OURS:
                settings: Settings = SETTINGS[name]()
                play = play_policy(curves, settings, arrival, order)
                yield row(f"ours: {name}", "", play)
                if name == "alto":
                    budget = judge(curves, play).budget
                    yield row("random", "budget of alto", random_play(curves, budget, seed))
            yield row("oracle", "", oracle(curves))
            for peer in peers:
                rule = peer.make(curves.num_reports, seed)
                yield row(peer.name, peer.setting, play_rule(curves, rule, arrival, order))


def _patience(patience: int) -> Callable[[int, int], Rule]:
    return lambda reports, seed: Patience(patience)


if __name__ == "__main__":
    main()
