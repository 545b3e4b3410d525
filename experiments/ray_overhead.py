"""What the Ray backend costs over the local one on one machine, and two backbones that share it.

    python experiments/ray_overhead.py FOLDER OUT --rounds 2    # FOLDER: study.yaml, data, model

The same study in turns: on this machine, and on a Ray cluster that is made of this machine. What
it takes longer is split into its start and what comes with each report, and told for ten minutes.
"""

import argparse
import subprocess
import sys
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from alto_policy.events import ExecutorDown, ExecutorUp, LossReported
from alto_runs.result import Result

__all__ = ["main"]

_TEN_MINUTES, _MOST_SECONDS = 600.0, 1800.0


@dataclass(frozen=True, slots=True)
class Run:
    """Seconds of one run. Between executors, one goes down and the next one comes up."""

    command: float
    start: float  # of the process, of Ray, and of the first executor
    training: float
    between_executors: tuple[float, ...]
    reports: int


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args(arguments)
    runs: dict[str, list[Run]] = {"here": [], "ray": []}
    for number in range(options.rounds):
        for name, flags in (("here", ()), ("ray", ("--cluster", "local"))):
            out = options.out / f"{name}-{number}"
            runs[name].append(_timed(options.folder / "study.yaml", out, flags))
            print(name, runs[name][-1], flush=True)
    here, ray = (min(of, key=lambda run: run.command) for of in runs.values())
    start = ray.start - here.start
    report = (ray.training - here.training) / here.reports
    rate = here.reports / here.training
    overhead = start + report * rate * _TEN_MINUTES
    print(f"start {start:+.2f} s, a report {report * 1e3:+.2f} ms at {rate:.2f} reports a second:")
    print(f"{overhead:+.1f} s of ten minutes of training, {overhead / _TEN_MINUTES:+.2%}")


def _timed(study: Path, out: Path, flags: tuple[str, ...]) -> Run:
    command = [sys.executable, "-m", "alto_cli", "tune", str(study), "--out", str(out), *flags]
    begun = time.perf_counter()
    subprocess.run(command, check=True, timeout=_MOST_SECONDS, stdout=subprocess.DEVNULL)
    seconds = time.perf_counter() - begun
    events = [entry.event for entry in Result(out).log.entries]
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
        between_executors=between,
        reports=sum(isinstance(event, LossReported) for event in events),
    )


if __name__ == "__main__":
    main(sys.argv[1:])
