"""Results on a path of fsspec's: whole, or not there."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from alto_runs.errors import UserError
from alto_runs.files.directory import RunDirectory
from alto_runs.files.publishing import Shelf
from tests.cli.typed import files_below

STUDY = "name: small\n"
RESULTS = {
    "best/t/adapter_config.json": b"{}",
    "best/t/adapter_model.safetensors": b"weights",
    "comparison.json": b"[]",
    "leaderboard.json": b"[1]",
    "metrics.json": b"{}",
    "run.jsonl": b"log",
}
OF_THE_RUN_ALONE = {"jobs/a/adapter_model.safetensors": b"a", "checkpoints/a.safetensors": b"b"}


@pytest.fixture
def directory(tmp_path: Path) -> RunDirectory:
    for name, content in {**RESULTS, **OF_THE_RUN_ALONE}.items():
        path = tmp_path / "run" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return RunDirectory(tmp_path / "run")


@pytest.fixture
def memory() -> Iterator[MemoryFileSystem]:
    files = MemoryFileSystem()
    yield files
    files.rm("/shelf", recursive=True)


def in_memory(files: MemoryFileSystem) -> dict[str, bytes]:
    return {
        path.removeprefix("/shelf/runs/"): files.cat_file(path) for path in files.find("/shelf")
    }


def shelf_in_memory(url: str = "memory://shelf/runs/") -> Shelf:
    return Shelf.at(url, "--publish")


def nothing(there: str) -> bool:
    """Of a run that is new, nothing can be there."""
    return False


def test_results_are_copied_and_nothing_else(
    directory: RunDirectory, memory: MemoryFileSystem
) -> None:
    shelf = shelf_in_memory()
    shelf.claim(STUDY, nothing)
    assert in_memory(memory) == {"study.yaml": STUDY.encode()}
    shelf.publish(directory)
    assert in_memory(memory) == {"study.yaml": STUDY.encode(), **RESULTS}
    directory.metrics_path.write_bytes(b"new")
    shelf.publish(directory)
    assert in_memory(memory)["metrics.json"] == b"new"


@pytest.mark.parametrize("url", ["{folder}/a/b", "file://{folder}/a/b"])
def test_a_shared_disk(url: str, directory: RunDirectory, tmp_path: Path) -> None:
    shelf = Shelf.at(url.format(folder=tmp_path), "--publish")
    for _ in range(2):
        shelf.claim(STUDY, STUDY.__eq__)
        shelf.publish(directory)
    expected = {"study.yaml": STUDY.encode(), **RESULTS}
    assert {str(n): c for n, c in files_below(tmp_path / "a" / "b").items()} == expected


@pytest.mark.parametrize("number", range(1, len(RESULTS) + 1))
def test_cut_off_at_any_file_the_leaderboard_is_not_there(
    number: int,
    directory: RunDirectory,
    memory: MemoryFileSystem,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shelf, count = shelf_in_memory(), 0
    move: Any = MemoryFileSystem.mv

    def cut(self: Any, partial: str, there: str) -> None:
        nonlocal count
        count += 1
        if count == number:
            raise PermissionError("the\nline is dead")
        move(self, partial, there)

    shelf.claim(STUDY, nothing)
    with monkeypatch.context() as patch:
        patch.setattr(MemoryFileSystem, "mv", cut)
        with pytest.raises(UserError) as told:
            shelf.publish(directory)
    assert str(told.value) == (
        "--publish: value 'memory://shelf/runs': cannot write there: the line is dead"
    )
    there = in_memory(memory)
    assert "leaderboard.json" not in there
    assert all(there[name] == RESULTS[name] for name in there.keys() & RESULTS.keys())
    shelf.claim(STUDY, STUDY.__eq__)
    shelf.publish(directory)
    assert in_memory(memory) == {"study.yaml": STUDY.encode(), **RESULTS}


def test_nothing_of_another_run_is_overwritten(
    directory: RunDirectory, memory: MemoryFileSystem
) -> None:
    shelf_in_memory().claim(STUDY, nothing)
    with pytest.raises(UserError, match="another run was published there"):
        shelf_in_memory().claim(STUDY, nothing)
    shelf_in_memory().below("s1").claim("name: other\n", nothing)
    assert set(in_memory(memory)) == {"study.yaml", "s1/study.yaml"}


@pytest.mark.parametrize(
    ("url", "line"),
    [
        ("nowhere://x", "--publish: value 'nowhere://x': Protocol not known: nowhere"),
        ("s3://bucket/x", "--publish: value 's3://bucket/x': Install s3fs to access S3"),
    ],
)
def test_a_path_that_cannot_be_reached_is_one_line(url: str, line: str) -> None:
    with pytest.raises(UserError) as told:
        Shelf.at(url, "--publish")
    assert str(told.value) == line


def test_a_place_where_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write there"):
        Shelf.at(f"{tmp_path}/file/below", "--publish").claim(STUDY, nothing)
