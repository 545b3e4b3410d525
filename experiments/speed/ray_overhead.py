"""What the Ray backend costs over the local one on one machine, and two backbones that share it.

    python experiments/speed/ray_overhead.py FOLDER OUT --rounds 2
    python experiments/speed/ray_overhead.py FOLDER OUT --side-by-side 580

FOLDER holds `study.yaml`, its data and its model. The same study in turns: on this machine, and on
a Ray cluster that is made of this machine, with as many threads as the first run chose. What it
takes longer is told apart: its start; passes, which grow with the study; and reports, of which a
longer study has no more. CPU seconds are told by what kind of process has taken them: a card does
not feel those of Ray.

Side by side, both at once: each has a GPU of this machine and half of its cores. A tenth of the
study is trained first on both GPUs without Ray, which tells how they differ, and with how many
epochs the study trains for so many seconds.
"""

import argparse
import os
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path

import psutil

from alto_policy.events import ExecutorDown, ExecutorUp, LossReported
from alto_runs.files.executor_work import TrainingWork, read_work
from alto_runs.outcomes.leaderboard import ADAPTER_WEIGHTS
from alto_runs.result import Result
from alto_runs.study import Budget, Study, load_study, resolved_yaml

__all__ = ["main"]

_TEN_MINUTES, _MOST_SECONDS = 600.0, 1800.0
# What a process takes after the last look is not counted; but a look takes 16 ms of a core that
# trains where there are two.
_LOOK_SECONDS = 5.0
_CALIBRATION = 0.1  # of a study
_ALTO = (sys.executable, "-m", "alto_cli")


@dataclass(frozen=True, slots=True)
class Side:
    name: str
    flags: tuple[str, ...] = ()
    gpu: int | None = None  # all of them
    cores: tuple[int, ...] = ()  # all of them


@dataclass(frozen=True, slots=True)
class Run:
    """Seconds of one run. Between executors, one goes down and the next one comes up."""

    command: float
    makespan: float  # of the log, which begins when torch is imported and Ray is there
    start: float  # of the process, of Ray, and of the first executor; and the end
    training: float  # all that executors do while they are up
    passes: float
    between_executors: tuple[float, ...]
    reports: int
    cpu: Mapping[str, float]  # by the kind of process

    @property
    def rest(self) -> float:
        """Of training that are not passes: reports, and whoever waits for decisions."""
        return self.training - self.passes


_HERE, _RAY = Side("here"), Side("ray", ("--cluster", "local"))


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--side-by-side", type=float, metavar="SECONDS", help="of training")
    options = parser.parse_args(arguments)
    study = options.folder / "study.yaml"
    if options.side_by_side is None:
        _in_turns(study, options.out, options.rounds)
    else:
        _side_by_side(load_study(study), options.out, options.side_by_side)


def _in_turns(study: Path, out: Path, rounds: int) -> None:
    runs: dict[str, list[Run]] = {"here": [], "ray": []}
    for number in range(rounds):
        for side in (_HERE, _RAY):
            runs[side.name].append(_timed(study, out / f"{side.name}-{number}", side))
            study = out / "here-0" / "study.yaml"
            print(side.name, runs[side.name][-1], flush=True)
    here, ray = (min(of, key=lambda run: run.command) for of in runs.values())
    start = ray.start - here.start
    passes = ray.passes / here.passes - 1
    reports = ray.rest - here.rest
    overhead = start + reports + passes * _TEN_MINUTES
    print(f"this study: training {ray.training / here.training - 1:+.2%}")
    print(f"start {start:+.2f} s, passes {passes:+.2%}, {here.reports} reports {reports:+.2f} s;")
    print(f"of ten minutes with as many reports: {overhead:+.1f} s, {overhead / _TEN_MINUTES:+.2%}")


def _side_by_side(study: Study, out: Path, seconds: float) -> None:
    out.mkdir(parents=True, exist_ok=True)
    cores = sorted(os.sched_getaffinity(0))
    half = len(cores) // 2
    left = Side("here", gpu=0, cores=tuple(cores[:half]))
    right = Side("there", gpu=1, cores=tuple(cores[half:]))
    file = out / "calibration.yaml"
    file.write_text(resolved_yaml(_stretched(study, _CALIBRATION, _CALIBRATION)), encoding="utf-8")
    first, second = _at_once(file, out / "calibration", left, right)
    cards = second.passes / first.passes, second.rest / first.rest
    print(f"the second card without Ray: passes {cards[0] - 1:+.2%}, reports {cards[1] - 1:+.2%}")
    passes, rest = (
        max(one) / _CALIBRATION
        for one in ((first.passes, second.passes), (first.rest, second.rest))
    )
    factor = max(_CALIBRATION, (seconds - rest) / passes)
    file = out / "study.yaml"
    file.write_text(resolved_yaml(_stretched(study, factor, 1.0)), encoding="utf-8")
    print(f"the study with {factor:.3f} times its budget", flush=True)
    here, ray = _at_once(file, out, left, Side("ray", _RAY.flags, gpu=1, cores=right.cores))
    start = ray.start - here.start
    excess = ray.passes - here.passes * cards[0], ray.rest - here.rest * cards[1]
    overhead = start + sum(excess)
    print(f"makespan by the log {ray.makespan - here.makespan:+.2f} s", end=", ")
    print(f"whole commands {ray.command - here.command:+.2f} s, cards as they are;")
    print(f"cards alike: start {start:+.2f} s, passes {excess[0]:+.2f}, reports {excess[1]:+.2f}:")
    print(f"{overhead:+.2f} s, {overhead / here.command:+.2%} of {here.command:.1f} s")
    print(_compared(out / "here", out / "ray"))
    for name in ("here", "ray"):
        command = [*_ALTO, "replay", str(out / name)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        told = (done.stdout + done.stderr).strip().splitlines()
        print(f"{name} replayed, exit status {done.returncode}: {' '.join(told[-1:])}", flush=True)


def _stretched(study: Study, budget: float, reports: float) -> Study:
    """With so many times as much to train on, and as many reports of each job."""
    tasks = {
        name: task.model_copy(
            update={
                "budget": Budget(epochs=round((task.budget.epochs or 1.0) * budget, 3)),
                "reports": max(1, round(task.reports * reports)),
            }
        )
        for name, task in study.tasks.items()
    }
    return study.model_copy(update={"tasks": tasks})


def _at_once(study: Path, out: Path, *sides: Side) -> list[Run]:
    """Each is told as it ends; one that fails does so when all have ended."""
    with ThreadPoolExecutor() as pool:
        runs: list[Future[Run]] = []
        for side in sides:
            runs.append(pool.submit(_timed, study, out / side.name, side))
            runs[-1].add_done_callback(partial(_tell, side))
    return [run.result() for run in runs]


def _tell(side: Side, run: Future[Run]) -> None:
    print(side.name, run.exception() or run.result(), flush=True)


def _compared(one: Path, other: Path) -> str:
    """How many jobs end otherwise, by the leaderboards and by the adapters' bytes."""
    first, second = ({each.job: each for each in Result(run).leaderboard} for run in (one, other))
    rows = sum(each != second[job] for job, each in first.items())
    order = "the same" if list(first) == list(second) else "another"
    found = sorted(one.glob(f"jobs/*/{ADAPTER_WEIGHTS}"))
    files = [file.relative_to(one) for file in found]
    bytes_differ = sum((one / file).read_bytes() != (other / file).read_bytes() for file in files)
    pairs = [(each.best_val_loss, second[job].best_val_loss) for job, each in first.items()]
    worst = max((abs(x / y - 1) for x, y in pairs if x and y), default=0.0)
    return (
        f"leaderboards: {rows} of {len(first)} rows differ, {order} order, largest relative "
        f"difference of a best loss {worst:.2e}; {bytes_differ} of {len(files)} adapters differ"
    )


def _timed(study: Path, out: Path, side: Side) -> Run:
    command = [*_ALTO, "tune", str(study), "--out", str(out), *side.flags]
    if side.cores:
        command = ["taskset", "--cpu-list", ",".join(map(str, side.cores)), *command]
    seen = {} if side.gpu is None else {"CUDA_VISIBLE_DEVICES": str(side.gpu)}
    out.parent.mkdir(parents=True, exist_ok=True)
    begun = time.perf_counter()
    with out.with_suffix(".txt").open("wb") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=subprocess.STDOUT, env=os.environ | seen
        )
    taken: dict[int, tuple[str, float]] = {}
    own = time.thread_time()  # another thread looks at the other side
    while process.poll() is None:
        assert time.perf_counter() - begun < _MOST_SECONDS
        _look_at(process.pid, taken)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_LOOK_SECONDS)
    seconds = time.perf_counter() - begun
    assert process.returncode == 0, f"{side.name}: exit status {process.returncode}"
    cpu: dict[str, float] = defaultdict(float)
    for kind, each in taken.values():
        cpu[kind] = round(cpu[kind] + each, 1)
    cpu["looks"] = round(time.thread_time() - own, 1)
    return _run_of(out, seconds, cpu)


def _run_of(out: Path, seconds: float, cpu: Mapping[str, float]) -> Run:
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
        makespan=events[-1].t,
        start=seconds - (last_down - first_up),
        training=last_down - first_up - sum(between),
        passes=sum(one.seconds for one in work if isinstance(one, TrainingWork)),
        between_executors=between,
        reports=sum(isinstance(event, LossReported) for event in events),
        cpu=dict(cpu),
    )


def _look_at(pid: int, taken: dict[int, tuple[str, float]]) -> None:
    """CPU seconds of the command, all below it, and what it has forked for executors, by what each
    of these processes was at the last look."""
    with suppress(psutil.Error):
        command = psutil.Process(pid)
        line = command.cmdline()
        for each in psutil.pids():
            with suppress(psutil.Error):
                process = psutil.Process(each)  # names change, and others would keep them
                is_fork = bool(line) and process.cmdline() == line  # kernel threads have none
                if not is_fork and command not in process.parents():
                    continue
                kind = "head" if process.pid == pid else _kind_of(process, is_fork=is_fork)
                used = process.cpu_times()
                taken[process.pid] = kind, used.user + used.system


def _kind_of(process: psutil.Process, *, is_fork: bool) -> str:
    line = " ".join(process.cmdline())
    if is_fork or "ray_cluster.node.zygote" in line:
        return "executors" if process.name().startswith("alto-rank") else "zygote"
    return "actors" if "ray::" in line and "Agent" not in line else "Ray"


if __name__ == "__main__":
    main(sys.argv[1:])
