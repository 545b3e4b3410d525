"""Runs that end at a line of their log, or were killed at the worst moment, made of whole ones."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from alto_policy.decisions import ExitReason, Stop
from alto_policy.runlog import Entry
from alto_runs.files.directory import LogWriter
from alto_runs.result import Result

__all__ = ["Moment", "at_moments", "begun_and_hardly_kept", "num_lines_of"]

Moment = int | type  # of a log: so many entries after the moment before, or the next such event


def at_moments(moments: Sequence[Moment], act: Callable[[], object]) -> None:
    """What this process writes to a log comes to these moments, however late anybody looks at it.
    For the rest of the process, which is one of the test's own."""
    write, left, count = LogWriter.write_entry, list(moments), 0

    def write_and_act(writer: LogWriter, entry: Entry) -> None:
        nonlocal count
        write(writer, entry)
        count += 1
        if left and (left[0] == count or left[0] is type(entry.event)):
            left.pop(0)
            count = 0
            act()

    LogWriter.write_entry = write_and_act  # type: ignore[method-assign, assignment]


def num_lines_of(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def begun_and_hardly_kept(whole: Result, out: Path) -> None:
    """As where one device was killed when all jobs had paused after their warm-up, and the weak
    ones were told to leave: nothing is on disk of those that have not left before."""
    entries = whole.log.entries
    selected = next(
        number
        for number, entry in enumerate(entries)
        if any(
            isinstance(one, Stop) and one.reason is ExitReason.UNDERPERFORMED
            for one in entry.decisions
        )
    )
    shutil.copytree(whole.directory.path, out, ignore=lambda *_: ("best",))
    decided = [one for entry in entries[:selected] for one in entry.decisions]
    stopped = {str(one.job) for one in decided if isinstance(one, Stop)}
    for folder in (out / "jobs").iterdir():
        if folder.name not in stopped:
            shutil.rmtree(folder)
    for path in (*out.glob("*.json"), out / "work.jsonl"):
        path.unlink(missing_ok=True)
    lines = (out / "run.jsonl").read_text().splitlines(keepends=True)
    (out / "run.jsonl").write_text("".join(lines[: selected + 1]))
