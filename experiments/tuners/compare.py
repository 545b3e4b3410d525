"""Plays full grids through the tuners' own code and through our policies; writes `results.csv`.

    make tuners
    python -m experiments.tuners.compare --ours   # our rules anew, the tuners' rows as they are

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
from itertools import product
from pathlib import Path

import numpy as np

from alto_policy.policies import SETTINGS, Settings
from alto_runs.files.directory import write_atomically
from experiments.grids.columns import column_of, told_at
from experiments.grids.curve_sets import CurveSet, generated_sets, other_grids, recorded_sets
from experiments.grids.judging import Judgement, judge, judge_random, oracle
from experiments.grids.table_backend import Arrival, Play, play_policy
from experiments.tuners.rule import Patience, Peer, Rule, TrainAll

__all__ = ["COLUMNS", "NUM_GENERATED", "NUM_ORDERS", "RESULTS", "VERSIONS", "order_of", "play_rule"]

RESULTS = Path(__file__).parent / "results.csv"
VERSIONS = Path(__file__).parent / "versions.json"
NUM_GENERATED, NUM_ORDERS = 4, 3
_DRAWS = 1000  # of random jobs for each order
COLUMNS = (
    "task", "kind", "rule", "setting", "arrival", "order",
    *(field.name for field in fields(Judgement)),
)  # fmt: skip
_OURS = ("alto", "alto+", "asha", "hyperband", "median")


def play_rule(curves: CurveSet, rule: Rule, arrival: Arrival, order: Sequence[int]) -> Play:
    """The reports that the rule lets happen. A report of a job that has fewer tells the tuner of as
    much of the job as the others'."""
    jobs = curves.task.jobs
    rows: list[int] = []
    columns: list[int] = []
    going = list(order)
    number = dict.fromkeys(order, 0)
    if arrival is Arrival.LOCKSTEP:
        for row in order:
            rule.begin(row)
    while going:
        is_in_turn = arrival is Arrival.SEQUENTIAL
        row = (
            going[0] if is_in_turn else min(going, key=lambda row: number[row] / jobs[row].reports)
        )
        if is_in_turn and number[row] == 0:
            rule.begin(row)
        number[row] += 1
        column = column_of(jobs[row], number[row], curves.num_reports)
        loss = float(curves.val[row, column])
        rows.append(row)
        columns.append(column)
        is_lost = not math.isfinite(loss)
        time = told_at(jobs[row], number[row], curves.num_reports)
        if is_lost or rule.stops(row, time, loss) or number[row] == jobs[row].reports:
            known = curves.val[row, : column + 1]
            finite = known[np.isfinite(known)]
            rule.end(row, float(finite[-1]) if len(finite) else 1e9)
            going.remove(row)
    return Play(tuple(rows), tuple(columns))


def order_of(curves: CurveSet, seed: int) -> list[int]:
    """In which its jobs come."""
    return [int(row) for row in np.random.default_rng(seed).permutation(len(curves.task.jobs))]


def _all_anew() -> None:
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
    _write(_rows(peers))
    packages = ("ray", "optuna", "syne-tune", "numpy")
    write_atomically(VERSIONS, json.dumps({name: version(name) for name in packages}) + "\n")


def _ours_anew() -> None:
    """Both come in the order of `_rows`."""
    with RESULTS.open(encoding="utf-8", newline="") as file:
        known = list(csv.reader(file))[1:]
    ours = iter(_rows(()))
    rules = {*(f"ours: {name}" for name in _OURS), "random", "oracle"}
    _write(next(ours) if row[2] in rules else row for row in known)


def _write(rows: Iterable[Sequence[object]]) -> None:
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(rows)
    write_atomically(RESULTS, text.getvalue())


def _rows(peers: Sequence[Peer]) -> Iterable[tuple[object, ...]]:
    """Our own rules, random jobs and the oracle before the peers, of each play."""
    kinds = (
        ("recorded", recorded_sets()),
        ("other", other_grids()),
        ("generated", generated_sets(NUM_GENERATED)),
    )
    for kind, curves in ((kind, curves) for kind, sets in kinds for curves in sets):
        for arrival, seed in product(Arrival, range(NUM_ORDERS)):
            order = order_of(curves, seed)
            for name, setting, judged in (
                *_own(curves, arrival, order, seed),
                *_of_peers(curves, arrival, order, seed, peers),
            ):
                found = [round(value, 6) for value in astuple(judged)]
                yield (curves.name, kind, name, setting, arrival.value, seed, *found)
        print(f"{curves.name}: done", file=sys.stderr, flush=True)


def _own(
    curves: CurveSet, arrival: Arrival, order: Sequence[int], seed: int
) -> Iterable[tuple[str, str, Judgement]]:
    for name in _OURS:
        settings: Settings = SETTINGS[name]()
        judged = judge(curves, play_policy(curves, settings, arrival, order))
        yield f"ours: {name}", "", judged
        if name == "alto":
            draws = range(seed * _DRAWS, (seed + 1) * _DRAWS)
            yield "random", "budget of alto", judge_random(curves, judged.budget, draws)
    yield "oracle", "", judge(curves, oracle(curves))


def _of_peers(
    curves: CurveSet, arrival: Arrival, order: Sequence[int], seed: int, peers: Sequence[Peer]
) -> Iterable[tuple[str, str, Judgement]]:
    for peer in peers:
        rule = peer.make(curves.num_reports, seed)
        played = play_rule(curves, rule, arrival, order)
        yield peer.name, peer.setting, judge(curves, played)


def _patience(patience: int) -> Callable[[int, int], Rule]:
    return lambda reports, seed: Patience(patience)


if __name__ == "__main__":
    if sys.argv[1:] == ["--ours"]:
        _ours_anew()
    else:
        _all_anew()
