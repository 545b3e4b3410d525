"""A run is the same to whoever reads it, its files of lines compressed or not."""

import gzip
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from alto_policy.types import TaskId
from alto_runs.errors import UserError
from alto_runs.files import lines
from alto_runs.files.data_lengths import SampleLengths, append_lengths, read_lengths
from alto_runs.files.directory import LogWriter, RunDirectory, read_run_log, runs_below
from alto_runs.files.executor_work import LaunchWork, append_work, read_work
from alto_runs.files.lines import as_found, compressed, open_lines
from alto_runs.files.logfile import read_header
from alto_runs.replaying import replay_run
from alto_runs.result import Result
from tests.runs.cases import fates, save

T = TaskId("t")
WORK = LaunchWork(task=T, jobs=2, seconds=0.5)


@pytest.fixture
def plain(tmp_path: Path) -> RunDirectory:
    directory = save(fates(), tmp_path / "plain")
    directory.study_path.write_text("name: s\n")
    append_work(directory.work_path, WORK)
    lengths = SampleLengths(tokens=(5, 7), targets=(2, 3), longest=(5, 7))
    append_lengths(directory.lengths_path, T, lengths)
    return directory


@pytest.fixture
def packed(plain: RunDirectory, tmp_path: Path) -> RunDirectory:
    directory = RunDirectory(tmp_path / "packed")
    shutil.copytree(plain.path, directory.path)
    for path in directory.path.glob("*.jsonl"):
        path.with_name(f"{path.name}.gz").write_bytes(compressed(path.read_bytes()))
        path.unlink()
    return directory


def test_a_compressed_run_is_read_as_the_plain_one(
    plain: RunDirectory, packed: RunDirectory
) -> None:
    assert [path.name for path in sorted(packed.path.iterdir())] == [
        "lengths.jsonl.gz",
        "run.jsonl.gz",
        "study.yaml",
        "work.jsonl.gz",
    ]
    assert runs_below(packed.path.parent) == [packed.path, plain.path]
    found = Result(packed.path)
    assert str(found.log) == str(fates())  # losses are NaN
    assert found.leaderboard == Result(plain.path).leaderboard
    assert read_header(packed.log_path) == fates().header
    assert read_work(packed.work_path) == (WORK,)
    assert read_lengths(packed.lengths_path)[T].targets == (2, 3)
    assert str(replay_run(packed.path)) == str(replay_run(plain.path))


def test_a_plain_file_beside_a_compressed_one_is_the_newer(packed: RunDirectory) -> None:
    (packed.path / "run.jsonl").touch()
    assert packed.log_path.name == "run.jsonl"
    assert Result(packed.path).log.entries == ()


def test_no_run_goes_on_in_a_compressed_file(packed: RunDirectory) -> None:
    before = {path: path.read_bytes() for path in packed.path.iterdir()}
    expected = r"run\.jsonl\.gz: is compressed, .*; expected run\.jsonl, as gunzip makes it$"
    with pytest.raises(UserError, match=expected):
        RunDirectory.reopen(packed.path)
    with pytest.raises(UserError, match=expected):
        LogWriter(packed.log_path)
    with pytest.raises(UserError, match=r"work\.jsonl\.gz: is compressed"):
        append_work(packed.work_path, WORK)
    assert {path: path.read_bytes() for path in packed.path.iterdir()} == before
    (packed.path / "run.jsonl").write_bytes(gzip.decompress(packed.log_path.read_bytes()))
    with pytest.raises(UserError, match=r"work\.jsonl\.gz: is compressed"):
        RunDirectory.reopen(packed.path)


def test_the_same_lines_are_the_same_bytes_whenever_they_are_compressed() -> None:
    data = compressed(b"{}\n")
    assert gzip.decompress(data) == b"{}\n"
    assert data[3:8] == bytes(5), "neither a name nor a time"


@pytest.mark.parametrize(
    ("damage", "what"),
    [
        pytest.param(lambda data: data[: len(data) // 2], "Compressed file ended", id="cut short"),
        pytest.param(lambda data: data[:-4], "Compressed file ended", id="without its last bytes"),
        pytest.param(lambda data: data[:-5] + b"\0" + data[-4:], "CRC check failed", id="its sum"),
        pytest.param(
            lambda data: data[:30] + bytes(20) + data[50:], "Error -3 while", id="in the middle"
        ),
        pytest.param(lambda data: b"{}\n" + data, "Not a gzipped file", id="plain lines before"),
        pytest.param(lambda data: data + b"{}\n", "Not a gzipped file", id="plain lines after"),
        pytest.param(lambda data: b"", "it is empty", id="nothing"),
    ],
)
def test_a_damaged_file_is_no_part_of_a_run(
    damage: Callable[[bytes], bytes], what: str, packed: RunDirectory
) -> None:
    """Not even where all lines that are asked for stand before the damage."""
    path = packed.log_path
    path.write_bytes(damage(path.read_bytes()))
    for read in (read_run_log, read_header):
        with pytest.raises(UserError) as caught:
            read(path)
        assert str(caught.value).startswith(f"{path}: not a whole gzip file: {what}")


@pytest.mark.parametrize(
    ("limit", "text"),
    [
        pytest.param("_MAX_BYTES", b" \n" * 7500, id="all of it"),
        pytest.param("_MAX_LINE", b"0" * 15000, id="a line"),
    ],
)
def test_a_file_that_grows_too_large_is_refused(
    limit: str, text: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "work.jsonl.gz"
    path.write_bytes(compressed(text))
    monkeypatch.setattr(lines, "_CHUNK", 1000)
    monkeypatch.setattr(lines, limit, 15000)
    assert read_work(path) == ()
    monkeypatch.setattr(lines, limit, 10000)
    with pytest.raises(UserError, match=r"work\.jsonl\.gz: more than .* bytes, or .* in a line"):
        read_work(path)


@pytest.mark.parametrize("name", ["gone.jsonl", "gone.jsonl.gz"])
def test_a_file_that_is_not_there(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    assert as_found(path) == path
    with pytest.raises(FileNotFoundError):
        open_lines(path)
    with pytest.raises(UserError, match="cannot read this log: No such file"):
        read_run_log(path)
