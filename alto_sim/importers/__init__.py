"""Traces of GPU clusters, in the form of this project and in those of their publishers."""

from collections.abc import Callable
from pathlib import Path

from alto_runs.errors import UserError
from alto_sim.csv_rows import read_columns
from alto_sim.importers.alibaba import PAI_2023_COLUMNS, read_pai_2020, read_pai_2023
from alto_sim.importers.canonical import COLUMNS, read_canonical
from alto_sim.importers.philly import PHILLY, read_philly
from alto_sim.importers.slurm import ACME_COLUMNS, HELIOS_COLUMNS, read_acme, read_helios
from alto_sim.importers.trace import Trace, TraceJob

__all__ = ["Trace", "TraceJob", "is_cluster_trace", "read_trace"]

_TABLES: tuple[tuple[str, tuple[str, ...], Callable[[Path], Trace]], ...] = (
    ("canonical", COLUMNS, read_canonical),
    ("Helios", HELIOS_COLUMNS, read_helios),
    ("Acme", ACME_COLUMNS, read_acme),
    ("Alibaba PAI 2023", PAI_2023_COLUMNS, read_pai_2023),
)


def is_cluster_trace(path: Path) -> bool:
    """Whether the name is that of a cluster's trace, and not of a run log or run directory."""
    if path.is_dir():
        return (path / "pai_task_table.csv").is_file()
    return _unzipped(path).endswith((".csv", ".json")) or _unzipped(path) == PHILLY


def read_trace(path: Path) -> Trace:
    """A trace of any known form, told by its file and columns; raises UserError."""
    if path.is_dir():
        return read_pai_2020(path)
    if _unzipped(path).endswith(".json") or _unzipped(path) == PHILLY:
        return read_philly(path)
    columns = read_columns(path)
    for _, wanted, read in _TABLES:
        if set(wanted) <= set(columns):
            return read(path)
    known = ", ".join(name for name, _, _ in _TABLES)
    raise UserError(f"{path}: line 1: columns {', '.join(columns)}: expected those of {known}")


def _unzipped(path: Path) -> str:
    return path.name.removesuffix(".gz")
