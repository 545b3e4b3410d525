"""The verbs and flags: whoever adds or takes one away says so here."""

import argparse
import os
import subprocess
import sys
from pathlib import Path

import pytest

import alto_cli
from tests.cli.typed import mistake, typed

VERBS = {
    "tune": [
        "STUDY.yaml",
        "--out DIR",
        "--policy NAME|FILE.py",
        "--resume",
        "--cluster ADDRESS",
        "--publish URL",
        "--artifacts URL",
        "--dry-run",
        "--json",
    ],
    "simulate": [
        "TRACE|STUDY.yaml|DIR",
        "--policy NAME|FILE.py",
        "--gpus N",
        "--cluster FILE.yaml",
        "--profile FILE",
        "--gpu NAME",
        "--conditions FILE.yaml",
        "--losses DIR|TABLE.csv",
        "--seeds N",
        "--out DIR",
        "--json",
    ],
    "workload": [
        "--out FILE.jsonl",
        "--tasks N",
        "--arrivals poisson|bursty|WORKLOAD",
        "--mix FILE.yaml",
        "--gap SECONDS",
        "--load SHARE",
        "--gpus N",
        "--cluster FILE.yaml",
        "--profile FILE",
        "--gpu NAME",
        "--seed N",
    ],
    "replay": ["DIR", "--policy FILE.py"],
    "report": ["DIR", "--out DIR", "--csv", "--parquet", "--trace"],
    "serve": [
        "--out DIR",
        "--root DIR",
        "--host ADDRESS",
        "--port N",
        "--tokens FILE",
        "--settings FILE.yaml",
        "--cluster ADDRESS",
    ],
    "submit": [
        "STUDY.yaml",
        "--tenant NAME",
        "--priority N",
        "--server URL",
        "--token-file FILE",
        "--json",
    ],
    "status": ["ID", "--server URL", "--token-file FILE", "--json"],
    "cancel": ["ID", "--server URL", "--token-file FILE", "--json"],
    "profile": ["--check FILE", "--out FILE", "--model NAME", "--quick"],
}

ALONE = """
import sys
import alto_cli
import alto_sim.seeds, alto_sim.workloads.recipe, alto_runs.export, alto_runs.costs.check
import alto_runs.replaying, alto_runs.report.page
import alto_service.serving, alto_service.app, alto_service.client
heavy = {"torch", "transformers", "triton", "ray", "ortools"} & set(sys.modules)
sys.exit(f"imported {heavy}" if heavy else 0)
"""


def flags(parser: argparse.ArgumentParser) -> list[str]:
    """Positional arguments by what they stand for, options by their names and values."""
    found = []
    for action in parser._actions:
        names = [name for name in action.option_strings if name.startswith("--")]
        if names != ["--help"]:
            found.append(" ".join(filter(None, [*names, action.metavar])))  # type: ignore[list-item]
    return found


def verbs() -> dict[str, argparse.ArgumentParser]:
    (subparsers,) = (
        action
        for action in alto_cli._parser()._actions
        if isinstance(action, argparse._SubParsersAction)
    )
    return dict(subparsers.choices)


def test_verbs_and_flags_are_these() -> None:
    assert {verb: flags(parser) for verb, parser in verbs().items()} == VERBS


@pytest.mark.parametrize("verb", [[], *([verb] for verb in VERBS)])
def test_help(verb: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    answer = typed(capsys, *verb, "--help")
    assert (answer.status, answer.err) == (0, "")
    assert answer.out.startswith("usage: alto")


def test_each_verb_and_flag_says_what_it_is_for() -> None:
    for verb, parser in verbs().items():
        assert parser.description, verb
        assert parser.description.endswith("."), verb
        for action in parser._actions:
            assert action.help, (verb, action.dest)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    answer = typed(capsys, "--version")
    assert answer.status == 0
    assert answer.out.startswith("alto ")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ([], "the following arguments are required: VERB; alto --help tells more"),
        (
            ["tine"],
            "argument VERB: invalid choice: 'tine' (choose from 'tune', 'simulate', 'workload', "
            "'replay', 'report', 'profile', 'serve', 'submit', 'status', 'cancel'); "
            "alto --help tells more",
        ),
        (
            ["tune"],
            "alto tune: the following arguments are required: STUDY.yaml; "
            "alto tune --help tells more",
        ),
        (
            ["tune", "s.yaml", "--outt", "x"],
            "unrecognized arguments: --outt x; alto --help tells more",
        ),
        (
            ["tune", "s.yaml", "--out"],
            "alto tune: argument --out: expected one argument; alto tune --help tells more",
        ),
        (
            ["simulate", "t"],
            "alto simulate: the following arguments are required: --out; "
            "alto simulate --help tells more",
        ),
        (
            ["simulate", "t", "--out", "d", "--gpus", "0"],
            "alto simulate: argument --gpus: value '0': expected a whole number above 0; "
            "alto simulate --help tells more",
        ),
        (
            ["simulate", "t", "--out", "d", "--gpus", "1000001"],
            "alto simulate: argument --gpus: value '1000001': expected 1,000,000 at most; "
            "alto simulate --help tells more",
        ),
        (
            ["simulate", "t", "--out", "d", "--gpus", "two"],
            "alto simulate: argument --gpus: value 'two': expected a whole number above 0; "
            "alto simulate --help tells more",
        ),
        (
            ["submit", "s.yaml", "--priority", "high"],
            "alto submit: argument --priority: value 'high': expected a whole number; "
            "alto submit --help tells more",
        ),
        (
            ["report"],
            "alto report: the following arguments are required: DIR; alto report --help tells more",
        ),
    ],
)
def test_what_is_no_command(
    arguments: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert mistake(capsys, *arguments) == line


def test_a_flag_may_not_be_cut_short(capsys: pytest.CaptureFixture[str]) -> None:
    """`--dry` would become another flag on the day that `--dry-spell` comes."""
    told = mistake(capsys, "tune", "s.yaml", "--dry")
    assert told == "unrecognized arguments: --dry; alto --help tells more"


def test_simulating_and_reporting_need_no_gpu_stack() -> None:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", ALONE]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("arguments", "goes_on"),
    [(["tune", "s.yaml", "--out", "d"], True), (["simulate", "t.csv", "--out", "d"], False)],
    ids=["tune", "simulate"],
)
def test_who_interrupts_is_told_what_goes_on(
    arguments: list[str],
    goes_on: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A simulation begins anew in the same folder."""

    def interrupted(options: argparse.Namespace) -> int:
        raise KeyboardInterrupt

    verb = "alto_cli._tune" if goes_on else "alto_sim.verbs._simulate"
    monkeypatch.setattr(verb, interrupted)
    answer = typed(capsys, *arguments)
    assert (answer.status, answer.out) == (130, "")
    assert answer.err.startswith("alto: interrupted")
    assert ("--resume" in answer.err) == goes_on


def test_from_the_shell(tmp_path: str) -> None:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "alto_cli", "replay", f"{tmp_path}/none"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"alto: {tmp_path}/none: no run here, expected a folder with the file run.jsonl\n"
    )


STARTED = """
import sys, time
import alto_cli
status = alto_cli.main(["simulate", *sys.argv[1:]])
heavy = {"torch", "transformers", "triton", "pandas", "matplotlib", "ray"} & set(sys.modules)
print("started:", status, time.process_time(), *heavy)
"""


@pytest.mark.parametrize(
    "simulated",
    [
        ["traces/tiresias/60_job.csv.gz", "--policy", "sjf", "--gpus", "16"],
        ["examples/backbones/study.yaml", "--gpus", "2"],
        ["traces/recorded/qasc-preferences-alto"],
    ],
    ids=lambda simulated: Path(simulated[0]).name,
)
def test_a_simulation_is_done_in_a_moment_and_imports_nothing_heavy(
    simulated: list[str], tmp_path: Path
) -> None:
    """From an interpreter that has imported nothing; 1.5 s of its own time, whatever else runs."""
    command = [sys.executable, "-c", STARTED, *simulated, "--out", str(tmp_path / "run")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    status, seconds, *heavy = done.stdout.splitlines()[-1].removeprefix("started: ").split()
    assert (status, heavy) == ("0", [])
    assert float(seconds) < 1.5
