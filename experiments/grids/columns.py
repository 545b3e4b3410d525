"""Which reports of a job stand in the columns of a curve set.

Column n holds the first report at or after the share (n + 1) / columns. A job of fewer steps than
the others have reports reports each step: one report of it stands in several columns.
"""

from alto_policy.types import Job

__all__ = ["column_of", "report_in", "told_at"]


def column_of(job: Job, number: int, columns: int) -> int:
    """The first that holds the report of that number, counted from 1."""
    return (number - 1) * columns // job.reports


def report_in(job: Job, column: int, columns: int) -> int:
    """Number of the report that the column holds."""
    return -(-(column + 1) * job.reports // columns)


def told_at(job: Job, number: int, columns: int) -> int:
    """When the report comes, in columns: as many as there are at the job's end."""
    return number * columns // job.reports
