"""Files of a run's jobs, on a disk or on any path of fsspec's: whole, or not there."""

import logging
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFile, MemoryFileSystem

from alto_runs.errors import UserError
from alto_runs.files import artifacts
from alto_runs.files.artifacts import Artifact, FolderArtifact, StoredArtifact
from alto_runs.files.tensor_header import told_with


@pytest.fixture(params=["folder", "memory", "local"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Artifact]:
    if request.param == "folder":
        yield FolderArtifact(tmp_path)
    elif request.param == "local":
        yield StoredArtifact.at(f"local://{tmp_path}/there", "--artifacts")
    else:
        yield StoredArtifact.at("memory://runs/one/", "--artifacts")
        MemoryFileSystem().rm("/runs", recursive=True)


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(artifacts, "_PAUSES", (0.0, 0.0))


def test_a_file_is_read_as_it_was_written(root: Artifact) -> None:
    file = root / "jobs" / "a" / "weights"
    with pytest.raises(FileNotFoundError):
        file.beginning(3)
    with pytest.raises(FileNotFoundError), file.fetched() as path:
        path.read_bytes()
    parts: list[bytes | memoryview] = [b"in ", memoryview(b"parts")]
    for data in ("text", parts):
        file.write(data)
    with file.fetched() as path:
        assert path.read_bytes() == b"in parts"
    assert file.beginning(4) == b"in p"
    assert file.beginning(99) == b"in parts"


def test_names_are_those_of_files_below(root: Artifact) -> None:
    assert root.names() == frozenset()
    for name in ("jobs/a/weights", "jobs/b/weights", "checkpoints/a"):
        (root / name).write(name)
    assert (root / "jobs").names() == {"a/weights", "b/weights"}
    (root / "jobs/a").remove()
    (root / "jobs/nothing").remove()
    (root / "checkpoints/a").remove()
    assert root.names() == {"jobs/b/weights"}


def stored() -> StoredArtifact:
    return StoredArtifact.at("memory://runs/one", "--artifacts")


@pytest.fixture
def memory() -> Iterator[MemoryFileSystem]:
    files = MemoryFileSystem()
    files.makedirs("/runs", exist_ok=True)
    yield files
    files.rm("/runs", recursive=True)


def test_a_file_that_is_being_written_is_the_one_before(
    memory: MemoryFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also after its writer was killed, whose beginnings are removed when nobody writes."""
    file = stored() / "state"
    file.write("before")

    def killed(self: Any, data: bytes) -> int:
        MemoryFileSystem.store[self.path] = MemoryFile(self.fs, self.path, data[:2])
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(MemoryFile, "write", killed)
        patch.setattr(MemoryFileSystem, "rm", lambda *_: None)
        with pytest.raises(KeyboardInterrupt):
            file.write("after")
    with file.fetched() as path:
        assert path.read_bytes() == b"before"
    assert len(memory.find("/runs")) == 2
    assert stored().names() == {"state"}
    stored().remove_partial()
    assert memory.find("/runs") == ["/runs/one/state"]


@pytest.mark.parametrize(("failures", "succeeds"), [(2, True), (3, False)])
def test_a_store_that_is_away_for_a_moment_is_asked_again(
    failures: int,
    succeeds: bool,
    memory: MemoryFileSystem,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Whatever its library raises, what is told is an error of files."""
    move: Any = MemoryFileSystem.mv
    attempts = 0

    def failing(self: Any, *names: str) -> None:
        nonlocal attempts
        attempts += 1
        if attempts <= failures:
            raise RuntimeError("slow\ndown")
        move(self, *names)

    caplog.set_level(logging.WARNING)
    file = stored() / "state"
    with monkeypatch.context() as patch:
        patch.setattr(MemoryFileSystem, "mv", failing)
        if succeeds:
            file.write(iter(["all ", "of it"]))
            assert file.beginning(99) == b"all of it"
        else:
            with pytest.raises(OSError, match=r"^memory://runs/one/state: slow down$"):
                file.write("all of it")
            assert not memory.find("/runs")
    assert attempts == 3


def test_a_file_is_never_in_memory_whole_and_is_read_again_for_another_attempt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    move: Any = LocalFileSystem.mv
    attempts = 0

    def failing_once(self: Any, *names: str) -> None:
        nonlocal attempts
        attempts += 1
        if attempts == 1:
            raise RuntimeError("away")
        move(self, *names)

    content = bytes(range(256)) * 2**15
    (tmp_path / "log").write_bytes(content)
    monkeypatch.setattr(LocalFileSystem, "mv", failing_once)
    monkeypatch.setattr(artifacts, "_PAUSES", (0.0,))
    monkeypatch.setattr(artifacts, "_PART_BYTES", 2**16)
    there = StoredArtifact.at(f"file://{tmp_path}/store", "--artifacts") / "log"
    tracemalloc.start()
    try:
        there.write(tmp_path / "log")
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert attempts == 2
    assert (tmp_path / "store" / "log").read_bytes() == content
    assert most < len(content) / 4


def test_what_cannot_succeed_is_not_tried_again(
    memory: MemoryFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(artifacts, "_PAUSES", (99.0,))

    def forbidden(self: Any, *names: str) -> None:
        raise PermissionError("not yours")

    monkeypatch.setattr(MemoryFileSystem, "mv", forbidden)
    with pytest.raises(PermissionError, match="not yours"):
        (stored() / "state").write("text")
    assert not memory.find("/runs")


def test_a_url_that_nobody_knows_is_one_line() -> None:
    with pytest.raises(UserError) as told:
        StoredArtifact.at("nowhere://x", "--artifacts")
    assert str(told.value) == "--artifacts: value 'nowhere://x': Protocol not known: nowhere"


def test_a_path_means_the_same_wherever_a_process_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for url, expected in (("there", ""), ("file://there", "file://"), ("local://there", "file://")):
        assert StoredArtifact.at(url, "--artifacts").url == f"{expected}{tmp_path}/there"


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"no safetensors", id="text"),
        pytest.param(b"\xff" * 99, id="a header without end"),
        pytest.param((20).to_bytes(8, "little") + b"[" * 20, id="no object"),
        pytest.param((2).to_bytes(8, "little") + b"[]", id="a list"),
        pytest.param((20).to_bytes(8, "little") + b'{"__metadata__":[1]}', id="told as a list"),
        pytest.param((100_000).to_bytes(8, "little") + b"[" * 100_000, id="deeper than is read"),
    ],
)
def test_what_is_no_header_tells_nothing(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(content)
    assert told_with(FolderArtifact(tmp_path / "file")) == {}
    assert told_with(FolderArtifact(tmp_path / "gone")) == {}
