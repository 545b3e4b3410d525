"""Job tables of Slurm: Helios (Hu et al. 2021) and Acme (Hu et al. 2024), as published."""

from pathlib import Path

from alto_sim.csv_rows import read_rows
from alto_sim.importers.trace import Sieve, Trace, TraceJob

__all__ = ["ACME_COLUMNS", "HELIOS_COLUMNS", "read_acme", "read_helios"]

_COMMON = ("job_id", "user", "gpu_num", "state", "submit_time", "start_time", "end_time")
HELIOS_COLUMNS = (*_COMMON, "vc")
ACME_COLUMNS = (*_COMMON, "type")


def read_helios(path: Path) -> Trace:
    """`cluster_log.csv` of one cluster; the tenant is the virtual cluster."""
    return _read(path, HELIOS_COLUMNS, tenant="vc")


def read_acme(path: Path) -> Trace:
    """`trace_seren.csv` or `trace_kalos.csv`; the tenant is the user, the model the workload."""
    return _read(path, ACME_COLUMNS, tenant="user", model="type")


def _read(path: Path, columns: tuple[str, ...], *, tenant: str, model: str | None = None) -> Trace:
    sieve = Sieve(str(path))
    for row in read_rows(path, columns):
        span = row.time("start_time"), row.time("end_time")
        if times := sieve.times(row.time("submit_time"), [span]):
            sieve.take(
                TraceJob(
                    id=row.text("job_id"),
                    submitted=times.submitted,
                    duration=times.seconds,
                    num_gpus=row.whole("gpu_num") or 0,
                    tenant=row.text(tenant),
                    model=row.text(model) if model else "",
                )
            )
    return sieve.trace()
