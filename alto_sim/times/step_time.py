"""How long fused training passes and evaluations take."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from alto_policy.types import Job, Task
from alto_runs.costs.work import EVALUATED_AT_ONCE
from alto_sim.times.checked import check_seconds

__all__ = [
    "DEFAULT_STEP_TIME",
    "Computed",
    "RowTimes",
    "StepTime",
    "forward_passes",
    "tokens_of",
    "walked_rows",
]

_WALKED_RANK, _WALKED_ROWS = 16, 512  # at most, of passes in which rows are walked


@dataclass(frozen=True, slots=True, kw_only=True)
class Computed:
    """What passes compute that are replayed, all of them together."""

    rows: Mapping[float, int]  # passes, by the rows of each
    places: float = 0.0  # that attention has: of each sequence as many as the longest has tokens
    longest: float = 0.0  # tokens of a sequence, for which there is room
    sequences: float = 0.0
    walked: float = 0.0  # rows

    @property
    def passes(self) -> int:
        return sum(self.rows.values())


def walked_rows(rank: int, rows: int) -> int:
    """That are walked one after another where the adapters of a pass have at most such a rank, and
    so many rows each: one pass over the gradients makes both of what two passes make elsewhere."""
    return rows if rank <= _WALKED_RANK and rows <= _WALKED_ROWS else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RowTimes:
    """Of the rows that a pass computes: beyond those that fill a GPU they take longer. The other
    times are known only where runs tell the lengths of their data."""

    per_row: float
    per_row_beyond: float  # more
    filling: int
    per_place: float = 0.0
    per_longest: float = 0.0
    per_sequence: float = 0.0
    per_walked: float = 0.0
    per_stretch: float = 0.0  # of passes in a row, the first of which nothing was done ahead for

    def __post_init__(self) -> None:
        check_seconds(self)

    def seconds(self, rows: float) -> float:
        return self.per_row * rows + self.per_row_beyond * max(0.0, rows - self.filling)

    @property
    def is_detailed(self) -> bool:
        return self.per_place + self.per_longest + self.per_sequence + self.per_walked > 0

    def of(self, computed: Computed) -> float:
        """Seconds of all these passes."""
        return (
            math.fsum(passes * self.seconds(rows) for rows, passes in computed.rows.items())
            + self.per_place * computed.places
            + self.per_longest * computed.longest
            + self.per_sequence * computed.sequences
            + self.per_walked * computed.walked
        )

    def of_means(self, jobs: Sequence[Job], task: Task) -> float:
        """Seconds of a pass, were all sequences of the mean length and nothing computed beside."""
        chosen = [job.hyperparameters for job in jobs]
        sequences = sum([h.batch_size for h in chosen])
        if not self.is_detailed:
            return self.seconds(task.mean_length * sequences)
        rows = math.ceil(task.mean_length * max(h.batch_size for h in chosen))
        return self.of(
            Computed(
                rows={task.mean_length * sequences: 1},
                places=sequences * task.max_length,
                longest=task.max_length,
                sequences=sequences,
                walked=walked_rows(max(h.rank for h in chosen), rows),
            )
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTime:
    """Seconds as a linear form of what a pass has to do."""

    per_pass: float
    per_token: float
    per_evaluation: float  # one job on the validation set, whatever that holds
    per_evaluated_token: float = 0.0  # of validation sets whose tokens are known
    per_evaluated_sequence: float = 0.0  # more, of the mean length of those that are trained on
    per_forward_pass: float = 0.0  # of an evaluation: at least, however few its tokens
    per_round: float = 0.0  # of evaluations that are made together
    per_rank: float = 0.0  # summed over the jobs of a pass
    per_length: float = 0.0  # of a pass, for each token of the longest sequence
    rows: RowTimes | None = None  # of executors that record passes; their tokens are rows

    def __post_init__(self) -> None:
        check_seconds(self)
        of_rows = self.rows is not None and (
            self.rows.per_row + self.rows.per_row_beyond > 0 or self.rows.is_detailed
        )
        if self.per_pass + self.per_token == 0 and not of_rows:
            raise ValueError(f"a pass must take time, got {self}")

    def pass_seconds(self, jobs: Iterable[Job], task: Task) -> float:
        """One fused pass of the jobs, each with one batch of sequences of the mean length."""
        jobs = tuple(jobs)
        chosen = [job.hyperparameters for job in jobs]
        tokens = task.mean_length * sum([h.batch_size for h in chosen])
        seconds = self.per_pass + self.per_token * tokens
        if self.rows is not None:
            seconds += self.rows.of_means(jobs, task) + self.per_length * task.max_length
        if self.per_rank:
            seconds += self.per_rank * sum([h.rank for h in chosen])
        return seconds

    def evaluation_seconds(self, jobs: Sequence[Job], task: Task) -> float:
        """Evaluation of the jobs that are due together."""
        if not jobs:
            return 0.0
        tokens = 0 if task.tokens is None else task.tokens.validation
        seconds = self.per_round + self.per_evaluation * len(jobs)
        per_token = self.per_evaluated_token + self.per_evaluated_sequence / task.mean_length
        if not self.per_forward_pass:
            return seconds + per_token * tokens * len(jobs)
        for passes, held in forward_passes(len(jobs), tokens):
            seconds += passes * max(self.per_forward_pass, per_token * held)
        return seconds

    def gang(self, task: Task) -> None:
        """Each GPU trains for itself."""


@lru_cache(maxsize=1 << 12)
def forward_passes(jobs: int, tokens: float) -> tuple[tuple[int, float], ...]:
    """How many passes evaluate so many jobs, each on so many tokens, and what they hold: parts of a
    validation set that fill a pass, and the rest under as many adapters as a pass allows."""
    full, rest = divmod(tokens, EVALUATED_AT_ONCE)
    passes = [(int(full) * jobs, float(EVALUATED_AT_ONCE))]
    if rest:
        at_once = min(jobs, int(EVALUATED_AT_ONCE // rest))
        whole, left = divmod(jobs, at_once)
        passes += [(whole, at_once * rest), (1, left * rest)] if left else [(whole, at_once * rest)]
    return tuple((count, held) for count, held in passes if count)


# An 8B backbone on one H100: 17,000 tokens a second in a full batch.
DEFAULT_STEP_TIME = StepTime(per_pass=0.02, per_token=1 / 17_000, per_evaluation=2.0)


def tokens_of(jobs: Iterable[Job], task: Task) -> float:
    """Tokens of the jobs in one pass, were all their sequences of the mean length."""
    return task.mean_length * sum([job.hyperparameters.batch_size for job in jobs])
