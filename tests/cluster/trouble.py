"""Runs on a Ray cluster in which something dies, at a line of the log that a seed chooses."""

import os
import random
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console

from alto_exec import tune
from alto_exec.ray_cluster import connection
from alto_exec.ray_cluster.remote import Patience
from alto_policy.decisions import StartExecutor
from alto_policy.events import ExecutorDown, ExecutorUp
from alto_runs.files import mirror
from alto_runs.own_policy import own_policy
from alto_runs.result import Result
from alto_runs.study import Study, load_study
from tests.cluster.nodes import add_node
from tests.cluster.zygotes import workers_of
from tests.forked import forked
from tests.tune.cut import Moment, at_moments, num_lines_of
from tests.tune.small_study import write_study

__all__ = [
    "HASTY",
    "PATIENCE_SECONDS",
    "Trouble",
    "Victim",
    "begin",
    "ended",
    "free_gpus",
    "kill_a_node",
    "kill_a_rank",
    "study_of",
    "undisturbed",
]

STUDY = """\
name: trouble
model: {model}
data: {{train: train.jsonl, validation: validation.jsonl, max_length: 96}}
search: {{learning_rate: [0, 3.0e-3, 1.0e-2, 3.0e+4], rank: [2, 4]}}
budget: {{samples: 48}}
reports: 8
executor: {{device: cpu, threads: 1, max_jobs: 5}}
policy: {{name: alto, warmup: 0.25}}
"""
PATIENCE_SECONDS = 300
# For runs that lose a node, of which nobody tells: its executor is silent.
HASTY = Patience(hold=2.0, unreachable=4.0, silence=6.0)


class Victim(StrEnum):
    EXECUTOR = "executor"
    NODE = "node"
    HEAD = "head"
    HANGING_EXECUTOR = "hanging executor"
    BERTH = "berth"
    ZYGOTE = "zygote"


@dataclass(frozen=True, slots=True)
class Trouble:
    """What a seed did to a run, and how long that held it up."""

    victim: Victim
    line: int  # of the log, after which it happened
    recovery_seconds: float | None  # until an executor was up again; none if none had gone down
    num_executors: int  # that the run has started, one after another


def study_of(folder: Path) -> Study:
    return load_study(write_study(folder, STUDY))


def begin(
    study: Study,
    out: Path,
    address: str,
    *stops: Moment,
    artifacts: str | None = None,
    patience: Patience | None = None,
    policy: Path | None = None,
) -> BaseProcess:
    """A head in a process of its own, which loads the policy. It stops at these moments of its log:
    nothing more is decided until it is told to go on, however late whoever waits for that is."""
    process = forked(_train, study, out, address, stops, artifacts, patience or Patience(), policy)
    process.start()
    return process


def ended(
    study: Study,
    out: Path,
    cluster: Any,
    seed: int,
    num_lines: int,
    patience: Patience | None = None,
) -> Trouble:
    """Train with one misfortune on the way; `num_lines` are in the log of a run without."""

    def begun() -> BaseProcess:
        return begin(study, out, cluster.address, patience=patience)

    dice = random.Random(seed)
    victim = list(Victim)[seed % len(Victim)]
    line = dice.randrange(1, num_lines)
    process = begun()
    with _cleared(process):
        _wait(lambda: num_lines_of(out / "run.jsonl") >= line or not process.is_alive())
        time.sleep(dice.uniform(0, 0.3))
        struck = time.monotonic()
        num_up = _count(out, ExecutorUp)
        num_down = _count(out, ExecutorDown)
        process = _strike(victim, process, cluster, begun)
        with _cleared(process):
            _wait(lambda: _count(out, ExecutorUp) > num_up or not process.is_alive())
            recovery = time.monotonic() - struck
            process.join(PATIENCE_SECONDS)
            assert process.exitcode == 0
    has_lost = _count(out, ExecutorDown) > num_down + 1 and _count(out, ExecutorUp) > num_up
    decisions = (decision for entry in Result(out).log.entries for decision in entry.decisions)
    starts = [one for one in decisions if isinstance(one, StartExecutor)]
    return Trouble(victim, line, recovery if has_lost else None, len(starts))


def kill_a_rank(cluster: Any, rank: int) -> None:
    """Of the only executor there is."""
    for node in cluster.worker_nodes:
        for process in _processes(node, Victim.EXECUTOR):
            if process.name() == f"alto-rank-{rank}":
                _signal(process, signal.SIGKILL)


def free_gpus(cluster: Any) -> tuple[float, float]:
    """Free GPUs and all GPUs of the cluster, a minute after a run at the latest."""
    deadline = time.monotonic() + 60
    while True:
        free = cluster.global_state.available_resources().get("GPU", 0.0)
        total = cluster.global_state.cluster_resources()["GPU"]
        if free == total or time.monotonic() > deadline:
            return free, total
        time.sleep(0.1)


def undisturbed(study: Study, out: Path) -> Result:
    return tune(study, out, console=Console(quiet=True))


def _train(
    study: Study,
    out: Path,
    address: str,
    stops: Sequence[Moment],
    artifacts: str | None,
    patience: Patience,
    policy: Path | None,
) -> None:
    mirror._LEAST_SECONDS = 0.1
    vars(connection)["Patience"] = lambda: patience
    if policy is not None:
        own_policy(policy)
    at_moments(stops, lambda: os.kill(os.getpid(), signal.SIGSTOP))
    silent = Console(quiet=True)
    tune(study, out, resume=True, cluster=address, console=silent, artifacts=artifacts)


def _strike(
    victim: Victim, process: BaseProcess, cluster: Any, again: Callable[[], BaseProcess]
) -> BaseProcess:
    """The head that is there afterwards."""
    match victim:
        case Victim.HEAD:
            process.kill()
            process.join()
            return again()
        case Victim.NODE:
            kill_a_node(cluster)
            add_node(cluster)
        case _:
            how = signal.SIGSTOP if victim is Victim.HANGING_EXECUTOR else signal.SIGKILL
            for node in cluster.worker_nodes:
                for each in _processes(node, victim):
                    _signal(each, how)
    return process


def kill_a_node(cluster: Any) -> None:
    """One that trains, if any does."""
    nodes = [node for node in cluster.worker_nodes if _processes(node, Victim.EXECUTOR)]
    node = (nodes or list(cluster.worker_nodes))[0]
    processes = _processes(node, Victim.NODE)
    cluster.remove_node(node, allow_graceful=False)
    for each in processes:
        _signal(each, signal.SIGKILL)


def _processes(node: Any, victim: Victim) -> list[psutil.Process]:
    """Processes of ours on the node, of the kind that is to suffer."""
    if victim in (Victim.NODE, Victim.BERTH):
        raylets = [psutil.Process(r.process.pid) for r in node.all_processes.get("raylet", [])]
        below = [child for raylet in raylets for child in raylet.children(recursive=True)]
        below += [worker for raylet in raylets for worker in workers_of(raylet.pid)]
        return [each for each in below if victim is Victim.NODE or "ray::Berth" in _line(each)]
    ours = [each for each in psutil.process_iter() if f"zygote {node.node_id}" in _line(each)]
    forking = {each.pid for each in ours}
    is_forked = victim is not Victim.ZYGOTE
    return [each for each in ours if (_parent(each) in forking) is is_forked]


def _line(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def _parent(process: psutil.Process) -> int | None:
    try:
        return int(process.ppid())
    except psutil.Error:
        return None


def _signal(process: psutil.Process, number: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(process.pid, number)


@contextmanager
def _cleared(process: BaseProcess) -> Iterator[None]:
    try:
        yield
    finally:
        if process.is_alive():
            process.kill()
            process.join()


def _count(out: Path, kind: type) -> int:
    try:
        return (out / "run.jsonl").read_bytes().count(f'"kind":"{kind.__name__}"'.encode())
    except FileNotFoundError:
        return 0


def _wait(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "nothing happens any more"
        time.sleep(0.03)
