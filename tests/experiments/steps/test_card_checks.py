"""One command for a card: nothing is left out, cut off or failed without a word."""

from pathlib import Path

import pytest

from bench.lora_cases import BATCHES
from bench.lora_peers import PEERS
from experiments.cards.checks import Check, checks, run_checks
from experiments.steps.peers import PEERS as STEP_PEERS
from tests.style.sources import ROOT


def check(name: str, program: str, seconds: float = 60) -> Check:
    return Check(name, ("-c", program), lambda line: line.startswith("told"), seconds)


def test_each_outcome_is_told(tmp_path: Path) -> None:
    said: list[str] = []
    times = iter([0.0, 0.0, 0.0, 0.0, 61.0])
    outcomes = run_checks(
        [
            check("good", "print('told 1'); print('not this')"),
            check("bad", "print('told 2'); raise SystemExit('why')"),
            check("slow", "import time; print('told 3', flush=True); time.sleep(600)", 2.0),
            check("late", "print('told 4')"),
        ],
        tmp_path,
        1.0,
        said.append,
        lambda: next(times),
    )
    assert [one.ending for one in outcomes] == [
        "passed",
        "FAILED, exit status 1",
        "CUT OFF after 2 s",
        "not begun",
    ]
    assert [one.is_good for one in outcomes] == [True, False, False, False]
    text = "\n".join(said)
    assert all(f"told {number}" in text for number in (1, 2))
    assert "why" in text, "the end of what failed"
    assert "not this" not in text
    assert "not this" in (tmp_path / "good.txt").read_text()
    assert "told 4" not in text


def test_a_long_output_is_cut_short(tmp_path: Path) -> None:
    said: list[str] = []
    many = check("many", "print('told' * 100); print('told\\n' * 5000)")
    run_checks([many], tmp_path, 1.0, said.append)
    assert len("\n".join(said)) < 5_000


@pytest.mark.parametrize("one", checks(Path("rows"), "abc", Path("theirs")), ids=lambda c: c.name)
def test_what_is_run_is_there(one: Check) -> None:
    for argument in one.arguments:
        if argument.startswith("tests/"):
            assert (ROOT / argument).exists()
    options = dict(zip(one.arguments, one.arguments[1:], strict=False))
    module = options["-m"]
    if module.startswith("bench.lora"):
        assert set(options["--peers"].split(",")) <= set(PEERS)
        assert options["--lorafusion"] == "theirs"
        if "--batches" in options:
            assert options["--batches"] in [batch.name for batch in BATCHES]
    if module == "experiments.steps.throughput":
        assert options["--peers"] in STEP_PEERS
    if module != "pytest":
        path = Path(*module.split(".")).with_suffix(".py")
        assert (ROOT / path).exists() or (ROOT / "kernels" / path).exists()
