"""Runs that were killed at the worst moment, made of whole ones."""

import shutil
from pathlib import Path

from alto_policy.decisions import ExitReason, Stop
from alto_runs.result import Result

__all__ = ["begun_and_hardly_kept"]


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
