"""Files of a run survive a kill, and stay in their folder."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from alto_policy.types import JobId, TaskId
from alto_runs.errors import UserError
from alto_runs.files.directory import RunDirectory, is_plain_name, write_atomically

KILLED_BEFORE_RENAMING = """
import os, signal, sys
from pathlib import Path
from alto_runs.files.directory import write_atomically

os.replace = lambda *names: os.kill(os.getpid(), signal.SIGKILL)
write_atomically(Path(sys.argv[1]), "new")
"""


def test_what_is_written_is_there(tmp_path: Path) -> None:
    path = tmp_path / "not" / "yet" / "there.json"
    write_atomically(path, "text \u2028")
    assert path.read_text(encoding="utf-8") == "text \u2028"
    write_atomically(path, b"\x00bytes")
    assert path.read_bytes() == b"\x00bytes"
    assert os.listdir(path.parent) == ["there.json"]


def test_a_kill_before_the_renaming_leaves_the_old_content(tmp_path: Path) -> None:
    path = tmp_path / "leaderboard.json"
    path.write_text("old")
    command = [sys.executable, "-c", KILLED_BEFORE_RENAMING, str(path)]
    status = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}, check=False
    ).returncode
    assert status == -signal.SIGKILL
    assert path.read_text() == "old"
    (temporary,) = set(os.listdir(tmp_path)) - {path.name}
    assert (tmp_path / temporary).read_text() == "new"
    assert temporary.startswith(".")  # and so it is no adapter, log or checkpoint
    write_atomically(path, "newer")
    assert path.read_text() == "newer"


@pytest.mark.parametrize("interruption", [OSError("disk full"), KeyboardInterrupt()])
def test_a_write_that_fails_leaves_nothing_of_itself(
    interruption: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise interruption

    path = tmp_path / "metrics.json"
    path.write_text("old")
    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(type(interruption)):
        write_atomically(path, "new")
    assert os.listdir(tmp_path) == ["metrics.json"]
    assert path.read_text() == "old"


def a_new_folder(folder: Path) -> Path:
    return folder / "deep" / "new"


def an_empty_folder(folder: Path) -> Path:
    return folder


@pytest.mark.parametrize("make", [a_new_folder, an_empty_folder])
def test_a_run_begins_in(make: Callable[[Path], Path], tmp_path: Path) -> None:
    directory = RunDirectory.create(make(tmp_path))
    assert directory.path.is_dir()


def test_a_folder_in_use_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / ".hidden").write_text("mine")
    with pytest.raises(UserError) as caught:
        RunDirectory.create(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path}: the folder is not empty, expected a new or empty one"
    )
    assert os.listdir(tmp_path) == [".hidden"]


def test_who_begins_a_run_again_hears_how_it_would_go_on(tmp_path: Path) -> None:
    begun = RunDirectory.create(tmp_path)
    begun.study_path.touch()
    begun.log_path.touch()
    with pytest.raises(UserError, match="or --resume to go on with its run"):
        RunDirectory.create(tmp_path)


@pytest.mark.parametrize(
    ("name", "what"),
    [
        pytest.param("file", "is a file, expected a new or empty folder", id="a file"),
        pytest.param("file/run", "is a file, expected a new or empty folder", id="below a file"),
        pytest.param("x" * 300, "cannot make this folder: File name too long", id="too long"),
    ],
)
def test_where_no_folder_can_be(name: str, what: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    path = tmp_path / name
    with pytest.raises(UserError) as caught:
        RunDirectory.create(path)
    assert str(caught.value) == f"{path}: {what}"
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("url", ["s3://bucket/run", "gs://bucket/run", "file:///tmp/run"])
def test_a_url_is_no_folder(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder `s3:` here would be taken for what is in the store."""
    monkeypatch.chdir(tmp_path)
    for begin in (RunDirectory.create, RunDirectory.reopen):
        with pytest.raises(
            UserError, match="is a URL, expected a folder on a disk; what jobs write"
        ):
            begin(Path(url))
    assert not list(tmp_path.iterdir())


def test_a_folder_without_a_log_is_no_run(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "gone", tmp_path / ("x" * 300)):
        with pytest.raises(UserError) as caught:
            RunDirectory.open(path)
        expected = f"{path}: no run here, expected a folder with the file run.jsonl"
        assert str(caught.value) == expected


def test_a_folder_with_a_log_is_a_run(tmp_path: Path) -> None:
    (tmp_path / "run.jsonl").touch()
    assert RunDirectory.open(tmp_path) == RunDirectory(tmp_path)


def test_names_of_the_files(tmp_path: Path) -> None:
    run, job, task = RunDirectory(tmp_path), JobId("t-01"), TaskId("t")
    paths = [
        run.log_path,
        run.study_path,
        run.leaderboard_path,
        run.metrics_path,
        run.job_folder(job),
        run.best_folder(task),
        Path(str(run.checkpoint(job))),
    ]
    assert [path.relative_to(tmp_path).as_posix() for path in paths] == [
        "run.jsonl",
        "study.yaml",
        "leaderboard.json",
        "metrics.json",
        "jobs/t-01",
        "best/t",
        "checkpoints/t-01.safetensors",
    ]


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("..", id="the folder above"),
        pytest.param(".", id="the folder itself"),
        pytest.param("", id="nothing"),
        pytest.param("../x", id="a path up"),
        pytest.param("a/b", id="a path down"),
        pytest.param("/etc/passwd", id="an absolute path"),
        pytest.param("a\\b", id="a path of Windows"),
        pytest.param("C:x", id="a drive"),
        pytest.param(".hidden", id="a hidden file"),
        pytest.param("-rf", id="an option"),
        pytest.param("a\n", id="an end of line"),
        pytest.param("a\0b", id="a null byte"),
        pytest.param("a b", id="a space"),
        pytest.param("~", id="the home"),
        pytest.param("$HOME", id="a variable"),
        pytest.param("<script>", id="a tag"),
        pytest.param("n\u00e4me", id="a letter beyond ASCII"),
        pytest.param("\u0661", id="a digit beyond ASCII"),
        pytest.param("x" * 101, id="too long"),
    ],
)
def test_a_name_cannot_lead_out_of_its_folder(name: str, tmp_path: Path) -> None:
    assert not is_plain_name(name)
    run = RunDirectory(tmp_path)
    expected = r"^name [^\n]*: expected letters, digits[^\n]*$"
    with pytest.raises(UserError, match=expected):
        run.job_folder(JobId(name))
    with pytest.raises(UserError, match=expected):
        run.best_folder(TaskId(name))
    with pytest.raises(UserError, match=expected):
        run.checkpoint(JobId(name))


@pytest.mark.parametrize("name", ["a", "_", "7", "GSM8K-8B_v1.2", "x" * 100, "a..b"])
def test_plain_names(name: str, tmp_path: Path) -> None:
    assert is_plain_name(name)
    folder = RunDirectory(tmp_path).job_folder(JobId(name))
    assert folder.resolve().parent == (tmp_path / "jobs").resolve()


def test_nothing_is_resumed_where_nothing_was_begun(tmp_path: Path) -> None:
    assert RunDirectory.reopen(tmp_path / "new").path.is_dir()
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(UserError, match=r"no run was begun in this folder.*study\.yaml"):
        RunDirectory.reopen(tmp_path)


@pytest.mark.parametrize("stored_at", [None, "memory://bucket/run"])
@pytest.mark.parametrize("of_study", [True, False], ids=["the study", "where results go"])
def test_a_run_that_was_killed_before_its_study_was_there_may_begin_again(
    of_study: bool, stored_at: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunDirectory.create(tmp_path / "run", stored_at)
    file = run.study_path if of_study else run.path / "artifacts"

    def killed() -> Iterator[bytes]:
        yield b"half of"
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", lambda *_, **__: None)  # whoever is killed clears nothing up
        with pytest.raises(KeyboardInterrupt):
            write_atomically(file, killed())
    (left,) = run.path.glob(".*.tmp")
    again = RunDirectory.reopen(run.path)
    assert again == run
    again.sweep()
    assert not left.exists()
