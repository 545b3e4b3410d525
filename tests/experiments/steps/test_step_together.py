"""Systems measured one after another: each in its turn, and nothing is left out without a word."""

import sys
from pathlib import Path

from experiments.steps.together import run_in_turn, works
from experiments.steps.workers import MEASURED, Case, case_of

WAITS = (
    "import pathlib, sys, time; sys.stdin.readline(); said = pathlib.Path(sys.argv[1]).open('a')"
)


def command(program: str, path: Path) -> tuple[str, ...]:
    return (sys.executable, "-c", f"{WAITS}; {program}", str(path))


def test_each_waits_for_its_turn(tmp_path: Path) -> None:
    path = tmp_path / "said"
    program = "said.write('begins '); said.flush(); time.sleep(0.3); said.write('ends ')"
    commands = [(name, command(program, path), 20.0) for name in ("a", "b", "c")]
    endings = run_in_turn(commands, 60, tmp_path, lambda text: None)
    assert endings == ["passed"] * 3
    assert path.read_text() == "begins ends " * 3


def test_each_ending_is_told(tmp_path: Path) -> None:
    path, told = tmp_path / "said", list[str]()
    commands = [
        ("bad one", command("raise SystemExit('why')", path), 20.0),
        ("slow", command("time.sleep(600)", path), 0.5 + 1),
        ("good", command("said.write('here')", path), 20.0),
    ]
    endings = run_in_turn(commands, 60, tmp_path, told.append)
    assert endings == ["FAILED, exit status 1", "CUT OFF after 2 s", "passed"]
    assert path.read_text() == "here"
    text = "\n".join(told)
    assert "bad one: FAILED" in text
    assert "why" in text
    assert run_in_turn(commands, 0.5, tmp_path, told.append) == ["not begun"] * 3


def test_works_are_read_by_their_processes() -> None:
    for work in works():
        assert work.system in MEASURED
        for case in map(case_of, work.cases):
            assert case.jobs * case.batch_size * case.length <= 16_384
    assert case_of("32x2x512@10") == Case(32, 2, 512, seconds=10.0)
    assert case_of("1x4x128+again") == Case(1, 4, 128, recompute=True)
