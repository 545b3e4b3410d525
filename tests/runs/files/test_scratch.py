"""Folders of processes that were killed are swept away, and those of the living are not."""

import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from alto_runs.files.scratch import held_folder, hold_folder, sweep_folders
from tests.forked import forked

SECONDS = 60.0


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def hold(temporary: Path, is_forked: bool) -> None:
    """Until it is killed; or, if it is forked, a fork of it does, which outlives it."""
    tempfile.tempdir = str(temporary)
    path, _ = hold_folder()
    if is_forked and (pid := os.fork()):
        Path(path, "fork").write_text(str(pid))
        os._exit(0)
    Path(path, "file").touch()
    signal.pause()


def there(temporary: Path) -> list[Path]:
    return sorted(temporary.glob("*/file"))


def await_that(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + SECONDS
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_what_a_killed_process_held_is_swept_away(temporary: Path) -> None:
    """Not what is a living one's, stopped or not, or not ours."""
    holders = [forked(hold, temporary, False) for _ in range(3)]
    for holder in holders:
        holder.start()
    (temporary / "alto-else").mkdir()
    await_that(lambda: len(there(temporary)) == len(holders))
    try:
        stopped, killed, _ = holders
        assert stopped.pid is not None
        os.kill(stopped.pid, signal.SIGSTOP)
        with held_folder() as own:
            sweep_folders()
            assert len(there(temporary)) == len(holders)
            assert own.is_dir()
            killed.kill()
            killed.join()
            sweep_folders()
            assert len(there(temporary)) == len(holders) - 1
            assert own.is_dir()
        assert not own.exists()
    finally:
        for holder in holders:
            holder.kill()
            holder.join()
    sweep_folders()
    assert [path.name for path in temporary.glob("alto-*")] == ["alto-else"]


def test_a_fork_holds_what_was_held(temporary: Path) -> None:
    holder = forked(hold, temporary, True)
    holder.start()
    holder.join(SECONDS)
    assert holder.exitcode == 0
    await_that(lambda: bool(there(temporary)))
    (file,) = temporary.glob("*/fork")
    sweep_folders()
    pid = int(file.read_text())
    os.kill(pid, signal.SIGKILL)

    def is_swept() -> bool:
        sweep_folders()
        return not list(temporary.glob("alto-*"))

    await_that(is_swept)


def test_nobody_loses_a_folder_to_those_who_sweep(temporary: Path) -> None:
    """Though it is no one's for a moment, when it has been made."""
    is_over = threading.Event()

    def sweep() -> None:
        while not is_over.is_set():
            sweep_folders()

    sweepers = [threading.Thread(target=sweep) for _ in range(3)]
    for sweeper in sweepers:
        sweeper.start()
    try:
        for _ in range(300):
            with held_folder() as folder:
                (folder / "file").write_text("here")
                time.sleep(0.0005)
                assert (folder / "file").read_text() == "here"
    finally:
        is_over.set()
        for sweeper in sweepers:
            sweeper.join()
