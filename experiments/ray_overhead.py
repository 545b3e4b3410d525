"""What the Ray backend costs over the local one on one machine, and two backbones that share it.

    python experiments/ray_overhead.py FOLDER OUT --rounds 2    # FOLDER: study.yaml, data, model

The same study in turns: on this machine, and on a Ray cluster that is made of this machine, with
as many threads as the first run chose. What it takes longer is told apart: its start; passes, which
grow with the study; and reports, of which a longer study has no more. CPU seconds are told by what
kind of process has taken them: a card does not feel those of Ray.
"""

import argparse
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import psutil

from alto_policy.events import ExecutorDown, ExecutorUp, LossReported
from alto_runs.executor_work import TrainingWork, read_work
from alto_runs.result import Result

__all__ = ["main"]

_TEN_MINUTES, _MOST_SECONDS = 600.0, 1800.0
_LOOK_SECONDS = 0.5  # what a process takes after the last look is not counted


@dataclass(frozen=True, slots=True)
class Run:
    """Seconds of one run. Between executors, one goes down and the next one comes up."""

    command: float
    start: float  # of the process, of Ray, and of the first executor
    training: float  # all that executors do while they are up
    passes: float
    between_executors: tuple[float, ...]
    reports: int
    cpu: Mapping[str, float]  # by the kind of process


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args(arguments)
    runs: dict[str, list[Run]] = {"here": [], "ray": []}
    study = options.folder / "study.yaml"
    for number in range(options.rounds):
        for name, flags in (("here", ()), ("ray", ("--cluster", "local"))):
            out = options.out / f"{name}-{number}"
            runs[name].append(_timed(study, out, flags))
            study = options.out / "here-0" / "study.yaml"
            print(name, runs[name][-1], flush=True)
    here, ray = (min(of, key=lambda run: run.command) for of in runs.values())
    start = ray.start - here.start
    passes = ray.passes / here.passes - 1
    reports = (ray.training - ray.passes) - (here.training - here.passes)
    overhead = start + reports + passes * _TEN_MINUTES
    print(f"this study: training {ray.training / here.training - 1:+.2%}")
    print(f"start {start:+.2f} s, passes {passes:+.2%}, {here.reports} reports {reports:+.2f} s;")
    print(f"of ten minutes with as many reports: {overhead:+.1f} s, {overhead / _TEN_MINUTES:+.2%}")


def _timed(study: Path, out: Path, flags: tuple[str, ...]) -> Run:
    command = [sys.executable, "-m", "alto_cli", "tune", str(study), "--out", str(out), *flags]
    begun = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    taken: dict[tuple[str, int], float] = {}
    while process.poll() is None:
        assert time.perf_counter() - begun < _MOST_SECONDS
        _look_at(process.pid, taken)
        time.sleep(_LOOK_SECONDS)
    assert process.returncode == 0
    seconds = time.perf_counter() - begun
    cpu: dict[str, float] = defaultdict(float)
    for (kind, _), each in taken.items():
        cpu[kind] = round(cpu[kind] + each, 1)
    result = Result(out)
    events = [entry.event for entry in result.log.entries]
    work = read_work(result.directory.work_path)
    changes = [event for event in events if isinstance(event, ExecutorUp | ExecutorDown)]
    first_up, last_down = changes[0].t, changes[-1].t
    between = tuple(
        round(up.t - down.t, 3)
        for down, up in pairwise(changes)
        if isinstance(down, ExecutorDown) and isinstance(up, ExecutorUp)
    )
    return Run(
        command=seconds,
        start=seconds - (last_down - first_up),
        training=last_down - first_up - sum(between),
        passes=sum(one.seconds for one in work if isinstance(one, TrainingWork)),
        between_executors=between,
        reports=sum(isinstance(event, LossReported) for event in events),
        cpu=dict(cpu),
    )


def _look_at(pid: int, taken: dict[tuple[str, int], float]) -> None:
    """CPU seconds of the command, all below it, and what it has forked for executors."""
    with suppress(psutil.Error):
        command = psutil.Process(pid)
        line = command.cmdline()
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                is_fork = process.cmdline() == line
                if not is_fork and command not in process.parents():
                    continue
                kind = "head" if process.pid == pid else _kind_of(process, is_fork=is_fork)
                used = process.cpu_times()
                taken[kind, process.pid] = used.user + used.system


def _kind_of(process: psutil.Process, *, is_fork: bool) -> str:
    line = " ".join(process.cmdline())
    if is_fork or "ray_cluster.zygote" in line:
        return "executors" if process.name().startswith("alto-rank") else "zygote"
    return "actors" if "ray::" in line else "Ray"


if __name__ == "__main__":
    main(sys.argv[1:])
