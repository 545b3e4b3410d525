"""Runs whose jobs write to a store, and go on from there when their own folder is lost."""

import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fsspec.implementations.memory import MemoryFileSystem
from rich.console import Console
from safetensors.torch import load_file

from alto_exec import tune
from alto_exec.jobs import keeping
from alto_policy.events import LossReported
from alto_runs.errors import UserError
from alto_runs.files import mirror
from alto_runs.files.directory import RunDirectory
from alto_runs.files.executor_work import read_work
from alto_runs.replaying import replay_run
from alto_runs.result import Result
from alto_runs.study import Study
from tests.forked import forked
from tests.tune.cut import at_moments, num_lines_of
from tests.tune.same import assert_same_outcome
from tests.tune.small_study import small_study

SILENT = Console(quiet=True)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return small_study(tmp_path_factory.mktemp("stored"))


@pytest.fixture(scope="module")
def expected(study: Study, tmp_path_factory: pytest.TempPathFactory) -> Result:
    return tune(study, tmp_path_factory.mktemp("folder") / "run", console=SILENT)


@pytest.fixture
def store() -> Iterator[MemoryFileSystem]:
    files = MemoryFileSystem()
    yield files
    files.rm("/bucket", recursive=True)


def test_all_of_it_is_there_and_the_same(
    study: Study, expected: Result, store: MemoryFileSystem, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    tune(study, out, console=SILENT, artifacts="memory://bucket/run")
    result = Result(out)
    assert_same_outcome(result, expected)
    here = {path.relative_to(out).parts[0] for path in out.rglob("*")}
    there = {path.split("/")[3] for path in store.find("/bucket/run")}
    results = {"best", "run.jsonl", "study.yaml", "leaderboard.json", "metrics.json"}
    assert here == results | {"comparison.json", "artifacts", "work.jsonl", "lengths.jsonl"}
    assert there == results | {"comparison.json", "jobs", "work"}
    for name in ("run.jsonl", "leaderboard.json", "best/small/adapter_model.safetensors"):
        assert store.cat_file(f"/bucket/run/{name}") == (out / name).read_bytes()
    trained, known = (
        sum(getattr(row, "passes", 0) for row in read_work(r.directory.work_path))
        for r in (result, expected)
    )
    assert trained == known
    winner = result.best()
    assert winner is not None
    assert winner.adapter == out / "best" / "small"
    assert load_file(winner.adapter / "adapter_model.safetensors")


def test_it_is_read_without_its_store(study: Study, expected: Result, tmp_path: Path) -> None:
    there = tmp_path / "there"
    tune(study, tmp_path / "run", console=SILENT, artifacts=str(there))
    shutil.rmtree(there)
    result = Result(tmp_path / "run")
    assert result.leaderboard == expected.leaderboard
    assert replay_run(tmp_path / "run")[1] is None


def train_to(num_lines: int, study: Study, out: Path, there: Path) -> None:
    """Killed when the log has so many lines, some of it is copied and a state is there. It is
    copied all the time, and states are kept at each report."""
    mirror._LEAST_SECONDS, mirror._SHARE = 0.02, 1.0
    keeping._SHARE = 1e12

    def die() -> None:
        while not num_lines_of(there / "run.jsonl") or not any(there.glob("checkpoints/*")):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGKILL)

    at_moments([num_lines - 1], die)
    train(study, out, there)


def train(study: Study, out: Path, there: Path) -> None:
    tune(study, out, resume=True, console=SILENT, artifacts=f"file://{there}")


def cut(study: Study, out: Path, there: Path, num_lines: int) -> None:
    process = forked(train_to, num_lines, study, out, there)
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL


def test_whoever_has_lost_its_folder_goes_on_from_the_store(
    study: Study, expected: Result, tmp_path: Path
) -> None:
    out, there = tmp_path / "run", tmp_path / "there"
    cut(study, out, there, len(expected.log.entries) // 2)
    assert (there / "run.jsonl").stat().st_size
    shutil.rmtree(out)
    train(study, tmp_path / "other", there)
    assert_same_outcome(Result(tmp_path / "other"), expected)
    assert replay_run(tmp_path / "other")[1] is None


def test_results_follow_where_the_flag_is_not_given_again(
    study: Study, expected: Result, tmp_path: Path
) -> None:
    out, there = tmp_path / "run", tmp_path / "there"
    cut(study, out, there, len(expected.log.entries) // 2)
    tune(study, out, resume=True, console=SILENT)
    assert (there / "leaderboard.json").read_bytes() == (out / "leaderboard.json").read_bytes()


def test_a_path_is_the_same_for_whoever_begins_elsewhere(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tune(study, tmp_path / "run", console=SILENT, artifacts="there")
    monkeypatch.chdir(tmp_path.parent)
    assert RunDirectory.open(tmp_path / "run").stored_at == str(tmp_path / "there")


@pytest.mark.parametrize("share", [0.25, 0.0, None], ids=["a quarter", "a header", "nothing"])
def test_what_the_copied_log_lacks_is_made_again(
    share: float | None, study: Study, expected: Result, tmp_path: Path
) -> None:
    """States were further than it: those would not tell what lies between."""
    out, there = tmp_path / "run", tmp_path / "there"
    cut(study, out, there, 2 * len(expected.log.entries) // 3)
    lines = (out / "run.jsonl").read_bytes().splitlines(keepends=True)
    if share is None:
        (there / "run.jsonl").unlink()
    else:
        part = lines[: max(1, int(share * len(expected.log.entries)))]
        (there / "run.jsonl").write_bytes(b"".join(part))
    assert any((there / "checkpoints").iterdir())
    shutil.rmtree(out)
    train(study, tmp_path / "other", there)
    result = Result(tmp_path / "other")
    assert_same_outcome(result, expected)
    told = [e.event for e in result.log.entries if isinstance(e.event, LossReported)]
    known = [e.event for e in expected.log.entries if isinstance(e.event, LossReported)]
    assert {(one.job, one.step) for one in told} == {(one.job, one.step) for one in known}


def test_a_run_stays_where_its_artifacts_are(study: Study, tmp_path: Path) -> None:
    tune(study, tmp_path / "run", console=SILENT, artifacts=str(tmp_path / "there"))
    with pytest.raises(UserError, match=r"^--artifacts: value '.*other': the run was begun with "):
        tune(
            study,
            tmp_path / "run",
            resume=True,
            console=SILENT,
            artifacts=str(tmp_path / "other"),
        )
    with pytest.raises(UserError, match=r"^--artifacts: value .*: another run was published there"):
        tune(study, tmp_path / "new", console=SILENT, artifacts=str(tmp_path / "there"))
