"""ALTO and its peers: whole training steps, one after another on one GPU, in one run.

    python -m experiments.steps.together --out DIR --seconds 150 --lorafusion THEIRS --mlora THEIRS

Ours come first, then LoRAFusion, PEFT with one adapter and mLoRA, then the frozen backbone alone,
compiled. A process for each system and shape has imported all it needs when its turn comes, and
what one does to its device is of no consequence for the next. Rows go to DIR/peers.jsonl. What
fails, is cut off or not begun is told.
"""

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Work", "run_in_turn", "works"]

_ROOT = Path(__file__).resolve().parents[2]
_BIG, _MIDDLE, _SMALL = "Llama-3.1-8B", "Llama-3.2-1B", "SmolLM2-135M"
_LENGTH = 512
_AHEAD = 2  # processes that import; more would be in the way of the one that measures
_TOLD_LINES, _WIDTH = 4, 300  # of what a process complained of before it failed


@dataclass(frozen=True, slots=True)
class Work:
    """Of one process."""

    system: str
    model: str
    cases: tuple[str, ...]  # JOBSxBATCHxLENGTH, then @SECONDS and +again where they are told
    most_seconds: float

    @property
    def name(self) -> str:
        return f"{self.system} {self.model}"


def works() -> tuple[Work, ...]:
    """In the order of their weight."""
    jobs = {_BIG: 16, _MIDDLE: 32, _SMALL: 32}
    many = {model: f"{count}x1x{_LENGTH}" for model, count in jobs.items()}
    alone = f"1x1x{_LENGTH}"
    few = {model: f"4x{count // 4}x{_LENGTH}" for model, count in jobs.items()}
    ours = {
        _BIG: ("32x1x512@10", f"{many[_BIG]}@3", alone),
        _MIDDLE: (f"{many[_MIDDLE]}@5", alone),
        _SMALL: ("64x1x256@3", f"{many[_SMALL]}@3", alone),
    }
    turns = (_MIDDLE, _SMALL, _BIG)
    return (
        *(Work("alto", model, ours[model], 90) for model in jobs),
        *(Work("lorafusion", model, (many[model], few[model], alone), 45) for model in turns),
        *(Work("peft", model, (alone,), 20) for model in turns),
        *(Work("mlora", m, (many[m], f"{many[m]}+again"), 45) for m in (_MIDDLE, _SMALL)),
        Work("mlora", _BIG, (f"{many[_BIG]}+again",), 45),
        *(Work("frozen-compiled", m, (f"1x16x{_LENGTH}",), 60) for m in turns),
    )


def run_in_turn(
    commands: Sequence[tuple[str, Sequence[str], float]],
    seconds: float,
    folder: Path,
    say: Callable[[str], None],
) -> list[str]:
    """Each command with its name and most seconds. Two are begun ahead, and each waits for a line
    before its turn. How they ended, as it is told; what they complain of is in NAME.txt."""
    end = time.monotonic() + seconds
    begun: list[subprocess.Popen[bytes]] = []
    endings = []
    try:
        for number, (name, _, most) in enumerate(commands):
            for other, command, _ in commands[len(begun) : number + 1 + _AHEAD]:
                begun.append(_begin(command, _complaints(folder, other)))
            start = time.monotonic()
            endings.append(_ending(begun[number], min(most, end - start)))
            _stop(begun[number])  # and what it began
            say(f"== {name}: {endings[-1]}, {time.monotonic() - start:.1f} s")
            if endings[-1].startswith("FAILED"):
                for line in _complaints(folder, name).read_text().splitlines()[-_TOLD_LINES:]:
                    say(f"  {line[:_WIDTH]}")
    finally:
        for process in begun:
            _stop(process)
    return endings


def _begin(command: Sequence[str], complaints: Path) -> "subprocess.Popen[bytes]":
    known = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    search = os.pathsep.join([str(_ROOT), str(_ROOT / "kernels"), *filter(None, known)])
    with complaints.open("wb") as file:
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stderr=file,
            env={**os.environ, "PYTHONPATH": search},
            start_new_session=True,  # so that it ends with all that it began
        )


def _complaints(folder: Path, name: str) -> Path:
    return folder / f"{name.replace(' ', '-')}.txt"


def _ending(process: "subprocess.Popen[bytes]", seconds: float) -> str:
    if seconds < 1:
        return "not begun"
    try:
        process.communicate(b"go\n", timeout=seconds)
    except subprocess.TimeoutExpired:
        return f"CUT OFF after {seconds:.0f} s"
    status = process.returncode
    return "passed" if status == 0 else f"FAILED, exit status {status}"


def _stop(process: "subprocess.Popen[bytes]") -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    if process.stdin is not None:
        with suppress(BrokenPipeError):
            process.stdin.close()
    process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=150.0)
    parser.add_argument("--lorafusion", type=Path, metavar="FOLDER")
    parser.add_argument("--mlora", type=Path, metavar="FOLDER")
    parser.add_argument("--only", nargs="+", metavar="SYSTEM")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    folders = {"lorafusion": options.lorafusion, "mlora": options.mlora}
    chosen = [
        work
        for work in works()
        if (options.only is None or work.system in options.only)
        and folders.get(work.system, options.out) is not None
    ]
    rows = options.out / "peers.jsonl"
    commands = [
        (work.name, _command(work, rows, folders.get(work.system)), work.most_seconds)
        for work in chosen
    ]
    endings = run_in_turn(
        commands, options.seconds, options.out, lambda text: print(text, flush=True)
    )
    if any(ending != "passed" for ending in endings):
        raise SystemExit(1)


def _command(work: Work, rows: Path, folder: Path | None) -> tuple[str, ...]:
    command = (sys.executable, "-m", "experiments.steps.workers", work.system, work.model)
    told = () if folder is None else ("--folder", str(folder))
    return (*command, "--rows", str(rows), *told, "--cases", *work.cases)


if __name__ == "__main__":
    main()
