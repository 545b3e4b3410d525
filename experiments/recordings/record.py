"""Records the searches of `traces` anew, one on each GPU of a machine at a time.

    python -m experiments.recordings.record --data DIR --out DIR --warm --minutes 9
    python -m experiments.recordings.record --data DIR --out DIR --only ropes-fifo ropes-alto

`DIR` of the data holds a folder for each data set (`catalogue.py` names them); others come from
`examples`. Searches begin in the order of `--only` or of their value; on several GPUs the longest
that fit begin first. Each is a process of its own and leaves DIR/FOLDER/NAME, the folder as in
`traces`: its log and what stands beside it, no adapters. What is there already is passed over, so
that the same command goes on where a time limit cut it off. With `--warm` a third of a search with
exits on each data set comes first and is not kept: kernels are compiled then.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock, Thread
from typing import Any

from alto_runs.files.lines import compressed
from experiments.recordings.catalogue import (
    RECORDINGS,
    SMALL_BATCHES,
    Policy,
    Recording,
    in_order,
    that_fit,
)
from experiments.recordings.commands import MODEL, ROOT, Site, commands, preparation, settled

__all__ = ["KEPT", "Outcome", "keep", "record_all", "record_one", "warm_up"]

KEPT = (
    "run.jsonl",
    "work.jsonl",
    "lengths.jsonl",
    "study.yaml",
    "leaderboard.json",
    "metrics.json",
    "comparison.json",
    "answers.jsonl",
)
_LAST = 10.0  # seconds of the time limit that are left for the archive


@dataclass(frozen=True, slots=True)
class Outcome:
    recording: Recording
    ending: str
    seconds: float
    told: str = ""

    @property
    def is_good(self) -> bool:
        return self.ending == "recorded"

    def line(self) -> str:
        return f"{self.recording.path:60} {self.ending:24} {self.seconds:6.1f} s  {self.told}"


def record_one(
    recording: Recording, site: Site, device: str | None, seconds: float, *, kept: bool = True
) -> Outcome:
    """Within the seconds. A search that has ended is kept, whatever becomes of its answers."""
    start = time.monotonic()
    run = site.work / ("kept" if kept else "warm") / recording.path
    shutil.rmtree(run, ignore_errors=True)
    run.parent.mkdir(parents=True, exist_ok=True)
    output = run.with_name(f"{run.name}.txt")
    output.unlink(missing_ok=True)
    ending = "recorded" if kept else "warm"
    for command in commands(recording, site, run, kept=kept):
        left = seconds - (time.monotonic() - start)
        if (failure := _ending_of(command, site, device, output, left)) is not None:
            ending = failure
            break
    told = _last_line(output) if ending.startswith("FAILED") else ""
    if kept and (run / "metrics.json").is_file():
        keep(recording, site, run)
        if not (run / "answers.jsonl").is_file():
            ending += ", no answers"
        told = f"{summary(recording, run, output)} {told}".rstrip()
    shutil.rmtree(run, ignore_errors=True)  # adapters are large
    return Outcome(recording, ending, time.monotonic() - start, told)


def _ending_of(
    command: Sequence[str], site: Site, device: str | None, output: Path, seconds: float
) -> str | None:
    """None where it has ended well. Whatever it began ends with it."""
    with output.open("a", encoding="utf-8") as file:
        process = subprocess.Popen(
            [sys.executable, *command],
            cwd=site.work,
            env=site.environment(device),
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            status = process.wait(timeout=max(seconds, 0.0))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return "CUT OFF"
    return None if status == 0 else f"FAILED, exit status {status}"


def keep(recording: Recording, site: Site, run: Path) -> None:
    """The files that are shipped, those of lines compressed; the study's paths as seen from a
    folder in `traces`."""
    folder = site.out / recording.path
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name in KEPT:
        if not (run / name).is_file():
            continue
        if name.endswith(".jsonl"):
            (folder / f"{name}.gz").write_bytes(compressed((run / name).read_bytes()))
        else:
            shutil.copy(run / name, folder / name)
    study = folder / "study.yaml"
    text = study.read_text(encoding="utf-8")
    text = text.replace(f"{ROOT}/examples/", "../../../examples/")
    study.write_text(text.replace(f"{site.data}/", "data/"), encoding="utf-8")


def summary(recording: Recording, run: Path, output: Path) -> str:
    metrics = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    best = json.loads((run / "leaderboard.json").read_text(encoding="utf-8"))[0]
    found = {
        "makespan": round(metrics["makespan_seconds"], 2),
        "saved": round(metrics["saved_share"], 4),
        "best": best["best_val_loss"],
        "job": best["job"],
    }
    if recording.peft_steps:
        found |= _peft_times(output)
    return json.dumps(found)


def _peft_times(output: Path) -> dict[str, Any]:
    for line in output.read_text(encoding="utf-8").splitlines():
        if line.startswith("{") and "times_faster" in line:
            told = json.loads(line)
            names = ("peft_one_by_one_seconds_extrapolated", "times_faster")
            return {name: told[name] for name in (*names, "winner_val_loss_by_peft")}
    return {}


def _last_line(output: Path) -> str:
    lines = output.read_text(encoding="utf-8", errors="replace").split("\n")
    return next((line.strip()[:300] for line in reversed(lines) if line.strip()), "")


def record_all(
    recordings: Sequence[Recording],
    devices: Sequence[str | None],
    minutes: float,
    record: Callable[[Recording, str | None, float], Outcome],
    done: Callable[[Outcome], None],
) -> list[Outcome]:
    """Each device takes the next search that fits into the time left, until none does. Processors
    are shared out, so that what a host does for one search does not hold up another."""
    end = time.monotonic() + 60 * minutes
    waiting = in_order(recordings, len(devices), 60 * minutes)
    outcomes: list[Outcome] = []
    lock = Lock()

    def serve(device: str | None, cores: Sequence[int]) -> None:
        os.sched_setaffinity(0, cores)  # of this thread, and of what it begins
        while True:
            with lock:
                left = end - time.monotonic()
                one = next((one for one in waiting if one.seconds <= left), None)
                if one is None:
                    return
                waiting.remove(one)
            try:
                outcome = record(one, device, left)
            except (OSError, ValueError, LookupError) as error:  # the others go on
                outcome = Outcome(one, f"FAILED, {type(error).__name__}", 0.0, str(error)[:300])
            with lock:
                outcomes.append(outcome)
                done(outcome)

    every = sorted(os.sched_getaffinity(0))
    each = max(len(every) // len(devices), 1)
    shares = [every[at * each :][:each] or every for at in range(len(devices))]
    threads = [Thread(target=serve, args=pair) for pair in zip(devices, shares, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for one in waiting:
        outcomes.append(Outcome(one, "NOT BEGUN", 0.0))
        done(outcomes[-1])
    return outcomes


def warm_up(recordings: Sequence[Recording]) -> list[Recording]:
    """What is run and not kept: a search with exits on each data set, with the whole backbone."""
    kinds: dict[str, Recording] = {}
    for one in recordings:
        if one.batch_sizes == SMALL_BATCHES and one.made_backbone is None:
            kinds.setdefault(one.data.folder, replace(one, policy=Policy.ALTO, makespan=0.0))
    return list(kinds.values())


def _begin_backbones(recordings: Sequence[Recording], site: Site) -> list[subprocess.Popen[bytes]]:
    """That are to be made, side by side; where one fails its searches tell of it."""
    made = {one.made_backbone: preparation(one, site) for one in recordings}
    return [
        subprocess.Popen([sys.executable, *command], cwd=site.work, env=site.environment(None))
        for name, command in made.items()
        if name is not None and command is not None and not (site.work / name).exists()
    ]


def _pack(out: Path, archive: Path, recordings: Sequence[Recording]) -> None:
    """All at once or not at all, so that a run that is cut off leaves the last whole one."""
    unfinished = archive.with_name(f"unfinished-{archive.name}")
    with tarfile.open(unfinished, "w:gz") as file:
        for one in recordings:
            if (out / one.path).is_dir():
                file.add(out / one.path, one.path)
    unfinished.replace(archive)


def _devices() -> list[str | None]:
    """Of this machine, or of CUDA_VISIBLE_DEVICES; one without a name where there is no GPU."""
    if (given := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [name for name in given.split(",") if name] or [None]
    try:
        told = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return [None]
    count = sum(line.startswith("GPU ") for line in told.stdout.splitlines())
    return [str(number) for number in range(count)] or [None]


def _chosen(names: Sequence[str] | None, out: Path) -> list[Recording]:
    known = {one.path: one for one in RECORDINGS}
    for name in names or ():
        if name not in known and not any(one.name == name for one in RECORDINGS):
            raise SystemExit(f"--only: {name!r} is none of {', '.join(known)}")
    places = {name: place for place, name in enumerate(names or known)}
    found = {one: places.get(one.path, places.get(one.name)) for one in RECORDINGS}
    wanted = [(place, one) for one, place in found.items() if place is not None]
    wanted.sort(key=lambda each: each[0])
    return [one for _, one in wanted if not (out / one.path).exists()]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="a folder for each data set")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--archive", type=Path, help="a .tar.gz of what this call recorded")
    parser.add_argument("--model", default=MODEL, help="its name, a .gguf file or a folder")
    parser.add_argument("--only", nargs="+", metavar="NAME")
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--warm", action="store_true", help="compile kernels first")
    parser.add_argument("--records", type=int, help="at most, to try it")
    options = parser.parse_args()
    end: float = time.monotonic() + 60 * options.minutes - _LAST
    site = settled(options.data, options.out, options.model, options.records)
    chosen, devices = _chosen(options.only, site.out), _devices()

    def say(outcome: Outcome) -> None:
        print(outcome.line(), flush=True)
        if options.archive is not None and (site.out / outcome.recording.path).is_dir():
            _pack(site.out, options.archive, chosen)

    def minutes() -> float:
        return (end - time.monotonic()) / 60

    backbones = _begin_backbones(chosen, site)
    if options.warm:
        record_all(
            warm_up(chosen),
            devices,
            minutes(),
            lambda one, device, left: record_one(one, site, device, left, kept=False),
            lambda outcome: print(outcome.line(), flush=True),
        )
    for process in backbones:
        process.wait()
    left_out = len(chosen) - len(that_fit(chosen, len(devices), 60 * minutes()))
    print(f"{len(chosen)} searches on {len(devices)} devices, {minutes():.1f} minutes; by "
          f"expectation {left_out} do not fit", flush=True)  # fmt: skip
    outcomes = record_all(
        chosen,
        devices,
        minutes(),
        lambda one, device, left: record_one(one, site, device, left),
        say,
    )
    if not all(outcome.is_good for outcome in outcomes):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
