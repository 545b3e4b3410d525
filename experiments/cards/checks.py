"""All that only a GPU can check, in one command and within a time that is given.

    python -m experiments.cards.checks --out DIR --commit COMMIT --minutes 8

The GPU's tests come first, since correctness gates speed, then the LoRA linear with its peers (the
bars of 8B and 1B), the operations around it, the frozen backbone compiled, and what other tests
there is time for. What was skipped, cut off or not begun is said. Rows of measurements go to
DIR/rows.jsonl, whole outputs to DIR/NAME.txt; what is printed is short.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Check", "Outcome", "checks", "run_checks"]

_ROOT = Path(__file__).resolve().parents[2]
_PYTEST = ("-m", "pytest", "-q", "-rs", "--maxfail=20", "-p", "no:cacheprovider")
_ON_GPU = (
    "tests/kernels",
    "tests/exec/passes/test_cuda_graphs.py",
    "tests/exec/adapters/test_8_bit_states.py",
)
_OTHERS = ("tests/exec", "tests/parallel")
_LINES, _WIDTH = 24, 160  # of an output, that are printed


@dataclass(frozen=True, slots=True)
class Check:
    name: str
    arguments: tuple[str, ...]  # of Python
    shows: Callable[[str], bool]  # whether a line of its output is told
    seconds: float  # at most


@dataclass(frozen=True, slots=True)
class Outcome:
    check: Check
    ending: str
    seconds: float
    lines: tuple[str, ...] = ()

    @property
    def is_good(self) -> bool:
        return self.ending == "passed"


def checks(rows: Path, commit: str, lorafusion: Path | None = None) -> tuple[Check, ...]:
    """In the order of their weight."""
    written = ("--out", str(rows), "--commit", commit)
    peers: tuple[str, ...] = ("--peers", "grouped_mm,padded_bmm")
    if lorafusion is not None:
        peers += ("--lorafusion", str(lorafusion))
    linear = ("-m", "bench.lora_linear", *written, *peers)
    return (
        Check("gpu-tests", (*_PYTEST, *_ON_GPU), _is_of_pytest, 210),
        Check("linear-8B", (*linear, "--models", "8B"), _is_of_linear, 150),
        Check(
            "linear-1B",
            (*linear, "--models", "1B", "--batches", "K32 r16"),
            _is_of_linear,
            45,
        ),
        Check("operations", ("-m", "bench.ops", *written), _is_told, 60),
        Check(
            "frozen-compiled",
            ("-m", "experiments.steps.throughput", "--models", "Llama-3.2-1B", "--out", str(rows),
             "--peers", "frozen-compiled"),
            _is_told,
            90,
        ),
        Check("other-tests", (*_PYTEST, *_OTHERS), _is_of_pytest, 300),
    )  # fmt: skip


def run_checks(
    chosen: Sequence[Check],
    folder: Path,
    minutes: float,
    say: Callable[[str], None],
    clock: Callable[[], float] = time.monotonic,
) -> list[Outcome]:
    """One after another, until the time is over; each is told as it ends."""
    end = clock() + 60 * minutes
    outcomes = []
    for check in chosen:
        left = end - clock()
        if left < 1:
            outcome = Outcome(check, "not begun", 0.0)
        else:
            outcome = _run(check, folder / f"{check.name}.txt", min(left, check.seconds))
        outcomes.append(outcome)
        say(f"{check.name:16} {outcome.ending:24} {outcome.seconds:6.1f} s")
        for line in outcome.lines:
            say(f"  {line[:_WIDTH]}")
    return outcomes


def _run(check: Check, path: Path, seconds: float) -> Outcome:
    """Its output goes to the file as it comes, so that nothing of one cut off is lost."""
    start = time.monotonic()
    known = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    search = os.pathsep.join([str(_ROOT), str(_ROOT / "kernels"), *filter(None, known)])
    with path.open("w+", encoding="utf-8") as output:
        try:
            done = subprocess.run(
                [sys.executable, *check.arguments],
                cwd=_ROOT,
                env={**os.environ, "PYTHONPATH": search},
                stdout=output,
                stderr=subprocess.STDOUT,
                timeout=seconds,
            )
            ending = "passed" if done.returncode == 0 else f"FAILED, exit status {done.returncode}"
        except subprocess.TimeoutExpired:
            ending = f"CUT OFF after {seconds:.0f} s"
        output.seek(0)
        text = output.read().splitlines()
    shown = [line for line in text if check.shows(line)]
    if ending != "passed":
        shown = [*shown, *(line for line in text[-6:] if line not in shown)]
    return Outcome(check, ending, time.monotonic() - start, tuple(shown[-_LINES:]))


def _is_of_pytest(line: str) -> bool:
    counted = (" passed", " failed", " error", " skipped")
    return line.startswith(("FAILED", "ERROR", "SKIPPED")) or any(n in line for n in counted)


def _is_of_linear(line: str) -> bool:
    return "geometric mean" in line or "does not run" in line or "no figures" in line


def _is_told(line: str) -> bool:
    return " ms" in line or "no figures" in line or "out of memory" in line


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--commit", required=True)
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--lorafusion", type=Path, metavar="FOLDER")
    parser.add_argument("--only", nargs="+", metavar="NAME")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    every = checks(options.out / "rows.jsonl", options.commit, options.lorafusion)
    known = [check.name for check in every]
    for name in options.only or ():
        if name not in known:
            raise SystemExit(f"--only: {name!r} is none of {', '.join(known)}")
    chosen = [check for check in every if options.only is None or check.name in options.only]
    outcomes = run_checks(
        chosen, options.out, options.minutes, lambda text: print(text, flush=True)
    )
    if left_out := [name for name in known if name not in [check.name for check in chosen]]:
        print(f"left out: {', '.join(left_out)}")
    if not all(outcome.is_good for outcome in outcomes):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
