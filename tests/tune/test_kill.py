"""Guarantee 4: a run that is killed at any moment, and resumed, ends as if it never had been."""

import random
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
from rich.console import Console

from alto_exec import tune
from alto_exec.jobs import keeping, writes
from alto_policy.runlog import Entry
from alto_runs.files.directory import LogWriter, RunDirectory
from alto_runs.result import Result
from alto_runs.study import Study
from tests.forked import forked
from tests.tune.same import assert_same_outcome
from tests.tune.small_study import small_study

KILLS = 10


def train(study: Study, out: Path) -> None:
    tune(study, out, resume=True, console=Console(quiet=True))


def begin(study: Study, out: Path) -> BaseProcess:
    process = forked(train, study, out)
    process.start()
    return process


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return small_study(tmp_path_factory.mktemp("killed"))


@pytest.fixture(scope="module")
def undisturbed(study: Study, tmp_path_factory: pytest.TempPathFactory) -> tuple[Result, float]:
    """The run, and how long a process takes for it."""
    out = tmp_path_factory.mktemp("undisturbed") / "run"
    begin(study, tmp_path_factory.mktemp("warm") / "run").join()
    start = time.monotonic()
    process = begin(study, out)
    process.join()
    assert process.exitcode == 0
    return Result(out), time.monotonic() - start


@pytest.mark.parametrize("seed", range(KILLS))
def test_ends_as_if_never_killed(
    seed: int, study: Study, undisturbed: tuple[Result, float], tmp_path: Path
) -> None:
    expected, seconds = undisturbed
    dice = random.Random(seed)
    for _ in range(1 + seed % 2):
        process = begin(study, tmp_path / "run")
        time.sleep(dice.uniform(0, seconds))
        process.kill()
        process.join()
    process = begin(study, tmp_path / "run")
    process.join()
    assert process.exitcode == 0
    assert_same_outcome(Result(tmp_path / "run"), expected)


class Died(BaseException):
    """What a process ends by that is killed."""


class LateWrite:
    """Reaches the disk only when somebody waits for it, which no correct program may mind."""

    def __init__(self, write: Callable[[], None]) -> None:
        self._write = write
        self._is_done = False

    def done(self) -> bool:
        return self._is_done

    def cancel(self) -> bool:
        """A job's state is as good as begun."""
        return False

    def result(self) -> None:
        if not self._is_done:
            self._is_done = True
            self._write()


class LateDisk:
    """In place of the pool of threads that write files."""

    def __init__(self, *_: object, **__: object) -> None:
        """Has no threads."""

    def submit(self, write: Callable[[], None]) -> LateWrite:
        return LateWrite(write)

    def shutdown(self) -> None:
        """What nobody has waited for is lost."""


# Where jobs of the warm-up are about to pause, have paused, or are about to be selected from.
@pytest.mark.parametrize("num_entries", [10, 15, 36])
def test_a_stopped_job_leaves_the_adapter_that_the_log_tells_of(
    num_entries: int,
    study: Study,
    undisturbed: tuple[Result, float],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Although no checkpoint was written before the kill, and it trains no more after it."""
    written: list[Entry] = []
    write = LogWriter.write_entry

    def write_or_die(writer: LogWriter, entry: Entry) -> None:
        if len(written) == num_entries:
            raise Died
        written.append(entry)
        write(writer, entry)

    monkeypatch.setattr(keeping, "_SHARE", 1e-12)
    monkeypatch.setattr(writes, "ThreadPoolExecutor", LateDisk)
    with monkeypatch.context() as dying:
        dying.setattr(LogWriter, "write_entry", write_or_die)
        with pytest.raises(Died):
            tune(study, tmp_path / "run", console=Console(quiet=True))
    writers = RunDirectory(tmp_path / "run").writers
    assert len(writers.names()) == 1, "its executor writes while it has leave"
    train(study, tmp_path / "run")
    assert not writers.names()
    assert_same_outcome(Result(tmp_path / "run"), undisturbed[0])
