"""How long fused training passes and evaluations take."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields

from alto_policy.types import Job, Task

__all__ = ["DEFAULT_STEP_TIME", "RowTimes", "StepTime", "tokens_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RowTimes:
    """Of the rows that a pass computes: beyond those that fill a GPU they take longer."""

    per_row: float
    per_row_beyond: float  # more
    filling: int

    def __post_init__(self) -> None:
        _check_times(self)

    def seconds(self, rows: float) -> float:
        return self.per_row * rows + self.per_row_beyond * max(0.0, rows - self.filling)


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTime:
    """Seconds as a linear form of what a pass has to do."""

    per_pass: float
    per_token: float
    per_evaluation: float  # one job on the validation set, whatever that holds
    per_evaluated_token: float = 0.0  # of validation sets whose tokens are known
    per_round: float = 0.0  # of evaluations that are made together
    per_rank: float = 0.0  # summed over the jobs of a pass
    rows: RowTimes | None = None  # of executors that record passes; their tokens are rows

    def __post_init__(self) -> None:
        _check_times(self)
        rows = 0.0 if self.rows is None else self.rows.per_row + self.rows.per_row_beyond
        if self.per_pass + self.per_token + rows == 0:
            raise ValueError(f"a pass must take time, got {self}")

    def pass_seconds(self, jobs: Iterable[Job], task: Task) -> float:
        """One fused pass of the jobs, each with one batch of sequences of the mean length."""
        chosen = [job.hyperparameters for job in jobs]
        tokens = task.mean_length * sum([h.batch_size for h in chosen])
        seconds = self.per_pass + self.per_token * tokens
        if self.rows is not None:
            seconds += self.rows.seconds(tokens)
        if self.per_rank:
            seconds += self.per_rank * sum([h.rank for h in chosen])
        return seconds

    def evaluation_seconds(self, jobs: Sequence[Job], task: Task) -> float:
        """Evaluation of the jobs that are due together."""
        if not jobs:
            return 0.0
        tokens = 0 if task.tokens is None else task.tokens.validation
        return self.per_round + (
            (self.per_evaluation + self.per_evaluated_token * tokens) * len(jobs)
        )

    def gang(self, task: Task) -> None:
        """Each GPU trains for itself."""


def _check_times(times: RowTimes | StepTime) -> None:
    values = (getattr(times, field.name) for field in fields(times))
    if min(value for value in values if isinstance(value, int | float)) < 0:
        raise ValueError(f"seconds must not be negative, got {times}")


# An 8B backbone on one H100: 17,000 tokens a second in a full batch.
DEFAULT_STEP_TIME = StepTime(per_pass=0.02, per_token=1 / 17_000, per_evaluation=2.0)


def tokens_of(jobs: Iterable[Job], task: Task) -> float:
    """Tokens of the jobs in one pass, were all their sequences of the mean length."""
    return task.mean_length * sum([job.hyperparameters.batch_size for job in jobs])
