"""Simulations that came to no end, and what they left."""

from contextlib import suppress
from pathlib import Path

from alto_policy.runlog import CorruptLogError, load
from alto_runs.files.directory import RunDirectory

__all__ = ["SIMULATED", "clear_unended"]

SIMULATED = "clock", "simulated"  # the fact of a log's header


def clear_unended(out: Path) -> None:
    """What one has left for whoever asks why it broke does not stand in the way of the next."""
    path = RunDirectory(out).log_path
    if not path.is_file() or any(each != path for each in out.iterdir()):
        return
    with path.open(encoding="utf-8", errors="replace") as file, suppress(CorruptLogError):
        header = load([file.readline()]).header
        if header is not None and SIMULATED in header.made_by:
            path.unlink()
