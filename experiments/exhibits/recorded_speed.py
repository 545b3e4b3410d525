"""Recorded searches of the smallest backbone beside its jobs one after another with PEFT."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from alto_policy.events import ExecutorUp, TaskArrived
from alto_policy.policies import SETTINGS
from alto_policy.runlog import RunLog
from alto_policy.types import Task
from experiments.exhibits.search_costs import BACKBONES, alone_seconds
from experiments.grids.curve_sets import whole_searches
from experiments.recordings.commands import MODEL

__all__ = ["H200_STEPS", "Recorded", "policy_name", "recorded_makespan", "recorded_runs"]

# By `speed/peft_one_by_one.py`: steps of twelve kinds of job.
H200_STEPS = Path("experiments/speed/peft_h200.json")


@dataclass(frozen=True, slots=True)
class Recorded:
    """A search of the smallest backbone on a card, and its jobs one after another with PEFT."""

    name: str
    policy: str
    card: str
    seconds: float
    start: float  # until its executor was up
    peft: float

    @property
    def ratio(self) -> float:
        return self.peft / self.seconds


def recorded_makespan(log: RunLog) -> float:
    """Seconds from the arrival of the tasks to the end of the run."""
    arrivals = [e.event.t for e in log.entries if isinstance(e.event, TaskArrived)]
    return log.entries[-1].event.t - min(arrivals)


def recorded_runs(folders: Sequence[Path]) -> list[Recorded]:
    """Launches bound PEFT's passes, not their tokens. On an H100 a batch of one takes what another
    one of its measured passes takes; on an H200 every step as long as the fastest kind's there."""
    found = []
    for path, log in (pair for folder in folders for pair in whole_searches(folder)):
        assert log.header is not None
        tasks = [e.event.task for e in log.entries if isinstance(e.event, TaskArrived)]
        if any(task.backbone != MODEL for task in tasks):
            continue
        card = "H200" if "H200" in log.header.gpus[0].kind else "H100"
        peft = _on_h200 if card == "H200" else _on_h100
        (up,) = (e.event.t for e in log.entries if isinstance(e.event, ExecutorUp))
        makespan, name = recorded_makespan(log), path.split("/")[-2]
        found.append(Recorded(name, policy_name(log), card, makespan, up, sum(map(peft, tasks))))
    return found


def _on_h100(task: Task) -> float:
    return sum(alone_seconds(replace(task, backbone=BACKBONES[0])))


def _on_h200(task: Task) -> float:
    return _least_step() * sum(job.steps for job in task.jobs)


@cache
def _least_step() -> float:
    told = json.loads((Path(__file__).parents[2] / H200_STEPS).read_text(encoding="utf-8"))
    return float(min(kind["step_ms"] for kind in told["kinds"])) / 1000


def policy_name(log: RunLog) -> str:
    """As it is asked for."""
    assert log.header is not None
    settings = type(log.header.policy)
    return next(name for name, kind in SETTINGS.items() if kind is settings)
