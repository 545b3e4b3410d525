"""The columns to which the shipped traces were brought, whatever their source."""

from pathlib import Path
from sys import intern

from alto_sim.csv_rows import read_rows
from alto_sim.importers.trace import Sieve, Trace, TraceJob

__all__ = ["COLUMNS", "read_canonical"]

COLUMNS = (
    "job_id",
    "submit_s",
    "duration_s",
    "num_gpus",
    "tenant",
    "model",
    "batch_size",
    "iterations",
)


def read_canonical(path: Path) -> Trace:
    sieve = Sieve(str(path))
    for row in read_rows(path, COLUMNS):
        submitted, num_gpus = row.number("submit_s"), row.whole("num_gpus")
        if submitted is None:
            raise row.error("submit_s", "seconds")
        sieve.take(
            TraceJob(
                id=row.text("job_id"),
                submitted=submitted,
                duration=row.number("duration_s"),
                num_gpus=num_gpus or 0,
                tenant=intern(row.text("tenant")),
                model=intern(row.text("model")),
                batch_size=row.whole("batch_size"),
                iterations=row.whole("iterations"),
            )
        )
    return sieve.trace()
