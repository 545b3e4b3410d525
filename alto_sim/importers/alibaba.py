"""The GPU traces of Alibaba PAI, of 2020 (Weng et al. 2022) and 2023 (Weng et al. 2023)."""

import math
from pathlib import Path

from alto_runs.errors import UserError
from alto_sim.csv_rows import read_rows
from alto_sim.importers.trace import Sieve, Trace, TraceJob

__all__ = ["PAI_2023_COLUMNS", "read_pai_2020", "read_pai_2023"]

PAI_2023_COLUMNS = (
    "name",
    "num_gpu",
    "gpu_milli",
    "qos",
    "creation_time",
    "deletion_time",
    "scheduled_time",
)
_JOB_COLUMNS = ("job_name", "inst_id", "user", "status", "start_time", "end_time")
_TASK_COLUMNS = (
    "job_name",
    "task_name",
    "inst_num",
    "status",
    "start_time",
    "end_time",
    "plan_cpu",
    "plan_mem",
    "plan_gpu",
    "gpu_type",
)


def read_pai_2020(folder: Path) -> Trace:
    """A folder with `pai_job_table.csv` and `pai_task_table.csv`, which have no header lines.

    A job's width is the sum over its tasks of instances x GPUs, rounded up: a share of a GPU counts
    as a whole one. Its run lasts from the first start of a task with GPUs to the last end of one.
    """
    for name in ("pai_job_table.csv", "pai_task_table.csv"):
        if not (folder / name).is_file():
            raise UserError(f"{folder}: no file {name}, expected those of the PAI trace of 2020")
    sieve = Sieve(str(folder))
    tasks: dict[str, list[tuple[float | None, float | None, float]]] = {}
    for row in read_rows(folder / "pai_task_table.csv", _TASK_COLUMNS, has_header=False):
        gpus = (row.number("inst_num") or 0) * (row.number("plan_gpu") or 0) / 100
        if gpus > 0:
            span = row.number("start_time"), row.number("end_time")
            tasks.setdefault(row.text("job_name"), []).append((*span, gpus))
    for row in read_rows(folder / "pai_job_table.csv", _JOB_COLUMNS, has_header=False):
        name, submitted = row.text("job_name"), row.number("start_time")
        of_job = tasks.get(name, [])
        starts = [start for start, _, _ in of_job if start is not None]
        ends = [end for _, end, _ in of_job if end is not None]
        if submitted is None:
            sieve.drop("no time of submission")
        elif not of_job:
            sieve.drop("asked for no GPU")
        elif len(starts) < len(of_job) or len(ends) < len(of_job):
            sieve.drop("no start or end")
        else:
            sieve.take(
                TraceJob(
                    id=name,
                    submitted=submitted,
                    duration=max(ends) - min(starts),
                    num_gpus=math.ceil(sum(gpus for _, _, gpus in of_job)),
                    tenant=row.text("user"),
                )
            )
    return sieve.trace()


def read_pai_2023(path: Path) -> Trace:
    """`openb_pod_list_default.csv`; a share of a GPU counts as a whole one."""
    sieve = Sieve(str(path))
    for row in read_rows(path, PAI_2023_COLUMNS):
        span = row.number("scheduled_time"), row.number("deletion_time")
        if times := sieve.times(row.number("creation_time"), [span]):
            sieve.take(
                TraceJob(
                    id=row.text("name"),
                    submitted=times.submitted,
                    duration=times.seconds,
                    num_gpus=row.whole("num_gpu") or 0,
                    tenant=row.text("qos"),
                )
            )
    return sieve.trace()
