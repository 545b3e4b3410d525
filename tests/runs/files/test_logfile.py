"""A log is whole but for its last line, whenever its writer is killed."""

import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from alto_policy.decisions import WakeAt
from alto_policy.events import TimerFired
from alto_policy.policies.fifo import FifoSettings
from alto_policy.runlog import Entry, Header, RunLog, dump_entry, dump_header
from alto_runs.errors import UserError
from alto_runs.files.logfile import LogWriter, read_header, read_run_log

HEADER = Header(policy=FifoSettings(), gpus=())
FIRST, SECOND, THIRD = (Entry(TimerFired(t), (WakeAt(t + 1),)) for t in (1.0, 2.0, 3.0))

WRITER = """
import os, signal, sys
from pathlib import Path
from alto_policy.events import TimerFired
from alto_policy.runlog import Entry
from alto_runs.files.logfile import LogWriter

writer = LogWriter(Path(sys.argv[1]))
for t in range(50):
    writer.write_entry(Entry(TimerFired(float(t)), ()))
    print(t, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def begun(path: Path, tail: str | bytes = b"") -> Path:
    """A log of a header and two entries, and what a kill has left of a third."""
    with LogWriter(path) as writer:
        writer.write_header(HEADER)
        writer.write_entry(FIRST)
        writer.write_entry(SECOND)
    with path.open("ab") as file:
        file.write(tail.encode() if isinstance(tail, str) else tail)
    return path


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    log = read_run_log(begun(tmp_path / "run.jsonl"))
    assert log == RunLog(HEADER, (FIRST, SECOND))


def test_each_line_is_on_disk_when_its_write_returns(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    with LogWriter(path) as writer:
        writer.write_header(HEADER)
        assert path.read_text() == f"{dump_header(HEADER)}\n"
        writer.write_entry(FIRST)
        assert path.read_text() == f"{dump_header(HEADER)}\n{dump_entry(FIRST)}\n"


def test_the_log_of_a_killed_writer_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    command = [sys.executable, "-c", WRITER, str(path)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == -signal.SIGKILL
    log = read_run_log(path)
    assert len(log.entries) == len(ended.stdout.split()) == 50
    assert log.torn is None
    with LogWriter(path) as writer:  # the dead hold no lock
        assert writer.torn is None


@pytest.mark.parametrize("length", [1, 9, len(dump_entry(THIRD)) - 1])
def test_a_torn_last_line_is_dropped_and_told(
    length: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    torn = dump_entry(THIRD)[:length]
    path = begun(tmp_path / "run.jsonl", torn)
    assert read_run_log(path) == RunLog(HEADER, (FIRST, SECOND), torn)
    with caplog.at_level(logging.WARNING), LogWriter(path) as writer:
        assert writer.torn == torn
        writer.write_entry(THIRD)
    assert caplog.messages == [f"{path}: dropped its last line, which was cut short"]
    assert read_run_log(path) == RunLog(HEADER, (FIRST, SECOND, THIRD))


@pytest.mark.parametrize(
    "tail",
    [
        pytest.param(dump_entry(THIRD), id="a line that only lacks its end"),
        pytest.param(f"{dump_entry(THIRD)}\n\n \n", id="blank lines"),
    ],
)
def test_a_whole_last_line_is_kept(tail: str, tmp_path: Path) -> None:
    path = begun(tmp_path / "run.jsonl", tail)
    with LogWriter(path) as writer:
        assert writer.torn is None
        writer.write_entry(FIRST)
    assert read_run_log(path).entries == (FIRST, SECOND, THIRD, FIRST)


@pytest.mark.parametrize(
    "tail",
    [
        pytest.param(b"\0" * 4096, id="null bytes, as a power cut leaves them"),
        pytest.param(b'{"event":{"kind":"\xff', id="bytes that are no text"),
        pytest.param('{"event": "' + "x" * 300_000, id="longer than what is read at first"),
    ],
)
def test_whatever_is_torn_does_no_harm(tail: str | bytes, tmp_path: Path) -> None:
    path = begun(tmp_path / "run.jsonl", tail)
    with LogWriter(path) as writer:
        assert writer.torn is not None
        writer.write_entry(THIRD)
    assert read_run_log(path) == RunLog(HEADER, (FIRST, SECOND, THIRD))


def test_a_torn_header_leaves_an_empty_log(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    path.write_text(dump_header(HEADER)[:20])
    with LogWriter(path) as writer:
        assert writer.torn == dump_header(HEADER)[:20]
        assert path.read_bytes() == b""
        writer.write_header(HEADER)
    assert read_run_log(path) == RunLog(HEADER, ())


def test_an_empty_log(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    path.touch()
    assert read_run_log(path) == RunLog(None, ())
    with LogWriter(path) as writer:
        assert writer.torn is None


def test_a_second_writer_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    with LogWriter(path) as writer:
        writer.write_entry(FIRST)
        with path.open("ab") as file:
            file.write(b'{"half')  # as if the first were just writing
        with pytest.raises(UserError) as caught:
            LogWriter(path)
        assert str(caught.value) == f"{path}: another process is writing to this run"
        assert path.read_bytes().endswith(b'{"half')
    with LogWriter(path) as writer:
        assert writer.torn == '{"half'


@pytest.mark.parametrize(
    ("content", "what"),
    [
        pytest.param(
            f"{dump_entry(FIRST)}\n{{\n{dump_entry(SECOND)}\n",
            "line 2: not JSON: Expecting property name enclosed in double quotes: "
            "line 2 column 1 (char 2)",
            id="torn in the middle",
        ),
        pytest.param(
            '{"event":{"kind":"Bang","t":1.0},"decisions":[]}\n',
            "line 1: event: expected a kind of TaskArrived, TaskCancelled, TaskResized, "
            "ExecutorUp, ExecutorDown, LossReported, JobLeft, NodeDown, "
            "NodeUp, TimerFired, got kind 'Bang'",
            id="unknown event",
        ),
        pytest.param(
            dump_header(HEADER).replace('"version":1', '"version":2'),
            "line 1: header: version must be 1, got 2",
            id="a version to come",
        ),
        pytest.param(b"\xff\xfe\n", "not a run log: invalid start byte", id="no text"),
    ],
)
def test_what_is_no_log(content: str | bytes, what: str, tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(UserError) as caught:
        read_run_log(path)
    assert str(caught.value) == f"{path}: {what}"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("gone.jsonl", "No such file or directory"),
        (".", "Is a directory"),
        ("x" * 300, "File name too long"),
    ],
)
def test_a_log_that_cannot_be_read(name: str, reason: str, tmp_path: Path) -> None:
    path = tmp_path / name
    with pytest.raises(UserError) as caught:
        read_run_log(path)
    assert str(caught.value) == f"{path}: cannot read this log: {reason}"


def test_a_header_is_read_without_the_lines_after_it(tmp_path: Path) -> None:
    path = begun(tmp_path / "run.jsonl", "no line\nof a log\n")
    assert read_header(path) == HEADER
    path.write_text(f"{dump_entry(FIRST)}\n")
    assert read_header(path) is None
