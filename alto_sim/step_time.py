"""How long fused training passes and evaluations take."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields

from alto_policy.types import Job, Task

__all__ = ["DEFAULT_STEP_TIME", "StepTime", "tokens_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTime:
    """Seconds as a linear form of what a pass has to do."""

    per_pass: float
    per_token: float
    per_evaluation: float  # one job on the validation set, whatever that holds
    per_evaluated_token: float = 0.0  # of validation sets whose tokens are known
    per_round: float = 0.0  # of evaluations that are made together

    def __post_init__(self) -> None:
        if min(getattr(self, field.name) for field in fields(self)) < 0:
            raise ValueError(f"seconds must not be negative, got {self}")
        if self.per_pass + self.per_token == 0:
            raise ValueError(f"a pass must take time, got {self}")

    def pass_seconds(self, jobs: Iterable[Job], task: Task) -> float:
        """One fused pass of the jobs, each with one batch of sequences of the mean length."""
        length = task.mean_length  # once: a simulator asks at every change of a GPU's jobs
        tokens = sum([job.hyperparameters.batch_size * length for job in jobs])
        return self.per_pass + self.per_token * tokens

    def evaluation_seconds(self, jobs: Sequence[Job], task: Task) -> float:
        """Evaluation of the jobs that are due together."""
        if not jobs:
            return 0.0
        tokens = 0 if task.tokens is None else task.tokens.validation
        return self.per_round + (
            (self.per_evaluation + self.per_evaluated_token * tokens) * len(jobs)
        )


# An 8B backbone on one H100: 17,000 tokens a second in a full batch.
DEFAULT_STEP_TIME = StepTime(per_pass=0.02, per_token=1 / 17_000, per_evaluation=2.0)


def tokens_of(job: Job, task: Task) -> float:
    """Tokens of the job in one pass, were all its sequences of the mean length."""
    return job.hyperparameters.batch_size * task.mean_length
