"""What all traces of GPU clusters come down to: who asked for how many GPUs, when, for how long."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from alto_policy.frozen import quick
from alto_runs.errors import UserError
from alto_runs.files.directory import checked_name

__all__ = ["Sieve", "Times", "Trace", "TraceJob"]

Span = tuple[float | None, float | None]  # start and end of a run, as far as they are known


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class TraceJob:
    id: str
    submitted: float  # seconds of any epoch
    duration: float | None  # seconds of the run, None where the source gives iterations alone
    num_gpus: int
    tenant: str = ""
    model: str = ""
    batch_size: int | None = None
    iterations: int | None = None


@dataclass(frozen=True, slots=True)
class Trace:
    """Jobs in the order of submission, and how many were left out for which reason."""

    source: str
    jobs: tuple[TraceJob, ...]
    dropped: Mapping[str, int]

    @property
    def start(self) -> float:
        return self.jobs[0].submitted


@dataclass(frozen=True, slots=True)
class Times:
    """Of a job of which all are known."""

    submitted: float
    runs: Sequence[tuple[float, float]]  # from the start to the end of each

    @property
    def seconds(self) -> float:
        return sum(end - start for start, end in self.runs)


class Sieve:
    """Collects the jobs of a source, and counts those that cannot be simulated."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._jobs: dict[str, TraceJob] = {}
        self._dropped: Counter[str] = Counter()

    def drop(self, reason: str) -> None:
        self._dropped[reason] += 1

    def times(self, submitted: float | None, spans: Sequence[Span]) -> Times | None:
        """None where one is missing: the job is dropped then."""
        runs = [(start, end) for start, end in spans if start is not None and end is not None]
        if submitted is None:
            self.drop("no time of submission")
        elif not spans or len(runs) < len(spans):
            self.drop("no start or end")
        else:
            return Times(submitted, runs)
        return None

    def take(self, job: TraceJob) -> None:
        """Raises UserError for an id that cannot be the name of a file."""
        if job.num_gpus < 1:
            self.drop("asked for no GPU")
        elif job.duration is not None and job.duration <= 0:
            self.drop("did not run")
        elif job.duration is None and not job.iterations:
            self.drop("neither duration nor iterations")
        elif job.id in self._jobs:
            self.drop("id stands twice")
        else:
            try:
                self._jobs[checked_name(job.id)] = job
            except UserError as error:
                raise UserError(f"{self._source}: id of a job: {error}") from error

    def trace(self) -> Trace:
        """Raises UserError if nothing is left."""
        dropped = dict(sorted(self._dropped.items()))
        if not self._jobs:
            told = ", ".join(f"{count} {reason}" for reason, count in dropped.items()) or "none"
            raise UserError(f"{self._source}: no job to simulate, left out: {told}")
        jobs = sorted(self._jobs.values(), key=lambda job: job.submitted)
        return Trace(self._source, tuple(jobs), dropped)
