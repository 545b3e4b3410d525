"""A policy of one's own, by its file: simulated, replayed, deployed, and taken up again."""

import re
import sys
from pathlib import Path

import pytest

from alto_policy.decisions import StartExecutor
from alto_policy.policies.fifo import FifoSettings
from alto_policy.policies.own import OwnSettings
from alto_policy.runlog import Header, dump_header
from alto_runs.fields import FieldError
from alto_runs.result import Result
from alto_runs.study_fields.policy_settings import parse_settings
from alto_sim.unended import clear_unended
from tests.cli.typed import mistake, study_file, typed
from tests.tune.same import assert_same_outcome

Capture = pytest.CaptureFixture[str]

EXAMPLE = Path("examples/policy/widest_first.py")
TRACE = """\
job_id,submit_s,duration_s,num_gpus,tenant,model,batch_size,iterations
first,0,100,4,,,,
wide,1,100,4,,,,
narrow,2,100,1,,,,
middle,3,100,2,,,,
"""
FIFO = """\
from alto_policy.dispatch import Dispatch


class Mine(Dispatch):
    pass
"""


def mine(folder: Path, text: str = FIFO) -> Path:
    path = folder / "mine.py"
    path.write_text(text, encoding="utf-8")
    return path


def trace(folder: Path) -> Path:
    path = folder / "trace.csv"
    path.write_text(TRACE)
    return path


def starts(run: Path) -> list[str]:
    decisions = (decision for entry in Result(run).log.entries for decision in entry.decisions)
    return [each.task for each in decisions if isinstance(each, StartExecutor)]


def test_the_one_of_the_readme_starts_narrow_tasks_first(tmp_path: Path, capsys: Capture) -> None:
    readme = Path("README.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n([^`]*Dispatch[^`]*)```", readme)
    run, file = tmp_path / "run", mine(tmp_path, code)
    options = ("--policy", file, "--gpus", "4", "--out", run)
    assert typed(capsys, "simulate", trace(tmp_path), *options).status == 0
    assert starts(run) == ["first", "narrow", "middle", "wide"]
    assert typed(capsys, "report", run).status == 0
    assert "NarrowestFirst" in (run / "report.html").read_text(encoding="utf-8")


def test_its_log_replays_by_its_file_alone(tmp_path: Path, capsys: Capture) -> None:
    """And tells where another version of the file decides otherwise."""
    run, file = tmp_path / "run", mine(tmp_path, f"# replayed\n{FIFO}")
    options = ("--policy", file, "--gpus", "4", "--out", run)
    assert typed(capsys, "simulate", trace(tmp_path), *options).status == 0
    assert "all decided the same" in typed(capsys, "replay", run, "--policy", file).out
    with file.open("a") as text:
        text.write("\n    def key(self, task):\n        return task.num_gpus\n")
    answer = typed(capsys, "replay", run, "--policy", f"{file}:Mine")
    assert answer.status == 1
    assert "decided differently" in answer.out
    digest = "0" * 64
    log = run / "run.jsonl"
    log.write_text(re.sub(r'"digest":"\w+"', f'"digest":"{digest}"', log.read_text()))
    for words in (("replay", run), ("simulate", run, "--out", tmp_path / "again")):
        told = mistake(capsys, *words)
        assert "decided by Mine of mine.py" in told
        assert "with --policy" in told
    built_in = "traces/recorded/qasc-preferences-alto"
    assert "expected none" in mistake(capsys, "replay", built_in, "--policy", file)


def test_seeds_of_it_run_side_by_side(tmp_path: Path, capsys: Capture) -> None:
    """In processes of their own, which load its file again."""
    tasks, runs = tmp_path / "tasks.jsonl", tmp_path / "runs"
    typed(capsys, "workload", "--tasks", "3", "--gap", "60", "--out", tasks)
    options = ("--policy", EXAMPLE, "--gpus", "8", "--seeds", "2", "--out", runs)
    assert typed(capsys, "simulate", tasks, *options).status == 0
    headers = [Result(runs / f"seed-{seed}").log.header for seed in range(2)]
    policies = {header.policy for header in headers if header is not None}
    (policy,) = policies
    assert isinstance(policy, OwnSettings)
    assert (policy.file, policy.policy) == ("widest_first.py", "WidestFirst")


def test_the_example_is_as_short_as_promised() -> None:
    assert len(EXAMPLE.read_text(encoding="utf-8").splitlines()) <= 50


def test_it_is_deployed_and_goes_on_after_a_kill(tmp_path: Path, capsys: Capture) -> None:
    study, whole, cut = study_file(tmp_path / "s"), tmp_path / "whole", tmp_path / "cut"
    assert typed(capsys, "tune", study, "--policy", EXAMPLE, "--out", whole).status == 0
    header = Result(whole).log.header
    assert header is not None
    assert isinstance(header.policy, OwnSettings)
    assert "all decided the same" in typed(capsys, "replay", whole, "--policy", EXAMPLE).out
    assert typed(capsys, "tune", study, "--policy", EXAMPLE, "--out", cut).status == 0
    log = cut / "run.jsonl"
    log.write_text("".join(log.read_text().splitlines(keepends=True)[:2]))  # nothing is launched
    assert "was begun with policy" in mistake(capsys, "tune", study, "--out", cut, "--resume")
    resolved = cut / "study.yaml"  # that names the policy itself
    del sys.modules[header.policy.module]  # as in a process that knows nothing of it
    words = ("tune", resolved, "--policy", EXAMPLE, "--out", cut, "--resume")
    assert typed(capsys, *words).status == 0
    assert_same_outcome(Result(cut), Result(whole))


def test_no_study_brings_code_along() -> None:
    """Neither does a log or a service's settings: what they name has to be loaded by its user."""
    written = {"name": "own", "file": "mine.py", "policy": "Mine", "digest": "1" * 64}
    with pytest.raises(FieldError, match="with --policy"):
        parse_settings(written)
    with pytest.raises(FieldError, match="expected one of alto, "):
        parse_settings("own")
    with pytest.raises(FieldError, match="needs the field 'file'"):
        parse_settings({"name": "own", "policy": "Mine"})


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "mine.py: expected a class with the method observe"),
        ("class Mine:\n    pass\n", "expected a class with the method observe"),
        (f"{FIFO}\n\nclass Other(Mine):\n    pass\n", "mine.py:Mine or "),
        ("def mine(:\n", "mine.py: line 1: SyntaxError: invalid syntax"),
        ("\nimport nowhere\n", "mine.py: line 2: ModuleNotFoundError: No module named 'nowhere'"),
        (FIFO.replace("pass", "def __init__(self, rank):\n        pass"), "parameter 'rank'"),
        (
            FIFO.replace("pass", "def observe(self, event, cluster):\n        return (STOP,)")
            + "\n\nfrom alto_policy.decisions import ExitReason, Stop\n"
            + 'STOP = Stop("nobody", ExitReason.CANCELLED)\n',
            "mine.py: Mine: ",
        ),
        (
            FIFO.replace("pass", "def observe(self, event, cluster):\n        return ('start',)"),
            "mine.py: Mine: decides 'start', expected one of alto_policy.decisions",
        ),
        (
            FIFO.replace("pass", "def observe(self, event, cluster):\n        pass"),
            "mine.py: Mine: observe returns None, expected a tuple of decisions",
        ),
        (
            FIFO.replace("pass", "def key(self, task):\n        return task.nothing"),
            "mine.py: line 6: Mine: AttributeError: 'Task' object has no attribute 'nothing'",
        ),
        (
            FIFO.replace("pass", "def keys(self, task):\n        return 0.0"),
            "mine.py: Mine: keys: Dispatch asks no such thing, expected key(self, task)",
        ),
        (
            FIFO.replace("pass", "def key(self, task):\n        task.num_gpus"),
            "mine.py: Mine: key returns None, expected a number",
        ),
        (
            FIFO.replace("pass", "def key(self, task):\n        return float('nan')"),
            "mine.py: Mine: key returns nan, expected a number",
        ),
        (
            FIFO.replace("pass", "def ready(self, task, cluster):\n        pass"),
            "if any(groups) else ()' of dispatch.py: TypeError: 'NoneType' object is not iterable",
        ),
        (
            FIFO.replace("pass", "def __init__(self):\n        self.backfills = False"),
            "mine.py: Mine: expected __init__ to call super().__init__() first",
        ),
    ],
    ids=[
        "empty",
        "no-policy",
        "several",
        "syntax",
        "import",
        "parameter",
        "illegal",
        "no-decision",
        "none",
        "attribute",
        "misnamed",
        "no-key",
        "nan",
        "no-groups",
        "not-made",
    ],
)
def test_a_mistake_in_it_is_told_in_one_line(
    text: str, told: str, tmp_path: Path, capsys: Capture
) -> None:
    options = ("--policy", mine(tmp_path, text), "--gpus", "4", "--out", tmp_path / "run")
    assert told in mistake(capsys, "simulate", trace(tmp_path), *options)


@pytest.mark.parametrize("seeds", [(), ("--seeds", "2")], ids=["one", "seeds"])
def test_what_a_broken_one_has_left_does_not_stand_in_the_way_of_the_next_attempt(
    seeds: tuple[str, ...], tmp_path: Path, capsys: Capture
) -> None:
    """But it does in that of any other run, and so does all else."""
    tasks, run = tmp_path / "tasks.jsonl", tmp_path / "run"
    typed(capsys, "workload", "--tasks", "2", "--gap", "60", "--out", tasks)
    broken = mine(tmp_path, FIFO.replace("pass", "def key(self, task):\n        return task.x"))
    options: tuple[str | Path, ...] = ("--gpus", "8", *seeds, "--out", run)
    assert "'x'" in mistake(capsys, "simulate", tasks, "--policy", broken, *options)
    assert list(run.rglob("run.jsonl"))
    study = study_file(tmp_path / "study")
    assert "not empty" in mistake(capsys, "tune", study, "--out", run)
    assert typed(capsys, "simulate", tasks, "--policy", "fifo", *options).status == 0
    assert "not empty" in mistake(capsys, "simulate", tasks, "--policy", "fifo", *options)


def test_only_an_unended_simulation_is_begun_anew(tmp_path: Path) -> None:
    def left(name: str, line: str, *others: str) -> Path:
        (tmp_path / name).mkdir()
        for other in others:
            (tmp_path / name / other).touch()
        path = tmp_path / name / "run.jsonl"
        path.write_text(line)
        clear_unended(path.parent)
        return path

    header = dump_header(Header(policy=FifoSettings(), gpus=(), made_by=(("clock", "simulated"),)))
    assert not left("simulated", f"{header}\n").exists()
    assert left("with more", f"{header}\n", "mine.txt").exists()
    assert left("real", f"{dump_header(Header(policy=FifoSettings(), gpus=()))}\n").exists()
    assert left("torn", header[:-9]).exists()
    assert left("no log", "mine").exists()


def test_a_file_or_class_that_is_not_there(tmp_path: Path, capsys: Capture) -> None:
    out = ("--out", tmp_path / "run")
    assert "No such file" in mistake(capsys, "simulate", EXAMPLE, "--policy", "none.py", *out)
    told = mistake(capsys, "simulate", EXAMPLE, "--policy", f"{EXAMPLE}:Mine", *out)
    assert f"no policy 'Mine' in it, expected {EXAMPLE}:WidestFirst" in told
