"""Which passes a profile measures: over jobs, rank, batch size and length."""

from dataclasses import dataclass

from alto_runs.profile import JOB_SIZES

__all__ = ["EvaluationCase", "StepCase", "evaluation_cases", "step_cases"]


@dataclass(frozen=True, slots=True)
class StepCase:
    """Equal jobs in one fused pass."""

    jobs: int
    rank: int
    batch_size: int  # sequences of one job
    length: int  # tokens of one sequence
    recompute: bool = False

    @property
    def tokens(self) -> int:
        return self.jobs * self.batch_size * self.length


@dataclass(frozen=True, slots=True)
class EvaluationCase:
    jobs: int
    sequences: int  # of each job
    length: int


_MOST_JOBS, _MOST_TOKENS = 32, 16_384  # of a pass in which one job's size is that of many

# One job and many, over the tokens that a job brings to a pass; then ranks and lengths; then what
# predicted memory may miss: short samples, sizes between measured ones, wide ranks, many jobs.
_ON_GPU = (
    *(StepCase(1, 16, *size) for size in JOB_SIZES),
    *(
        StepCase(min(_MOST_JOBS, _MOST_TOKENS // (batch_size * length)), 16, batch_size, length)
        for batch_size, length in JOB_SIZES
    ),
    StepCase(4, 16, 1, 512),
    StepCase(16, 16, 1, 512),
    StepCase(1, 128, 1, 512),
    StepCase(8, 64, 1, 512),
    StepCase(16, 16, 1, 512, recompute=True),
    StepCase(32, 16, 1, 512, recompute=True),
    StepCase(64, 16, 1, 256),
    StepCase(8, 16, 1, 2048),
    StepCase(1, 16, 1, 8192),
    StepCase(1, 128, 1, 128),
    StepCase(1, 16, 1, 256),
    StepCase(1, 16, 3, 160),
    StepCase(1, 64, 3, 256),
    StepCase(5, 16, 1, 256),
    StepCase(16, 32, 1, 256),
    StepCase(64, 16, 1, 128),
    StepCase(4, 128, 1, 2048),
    StepCase(1, 128, 1, 8192),
)
_QUICKLY_ON_GPU = (
    StepCase(1, 16, 1, 512),
    StepCase(4, 16, 1, 512),
    StepCase(8, 64, 1, 512),
    StepCase(16, 16, 1, 512),
    StepCase(8, 16, 1, 128),
    StepCase(1, 16, 8, 512),
)
_ON_CPU = (
    StepCase(1, 8, 1, 32),
    StepCase(1, 8, 1, 128),
    StepCase(1, 64, 1, 32),
    StepCase(1, 8, 4, 32),
    StepCase(4, 8, 1, 32),
    StepCase(8, 8, 1, 32),
    StepCase(4, 32, 2, 16),
)


def step_cases(*, on_gpu: bool, quick: bool) -> tuple[StepCase, ...]:
    if on_gpu:
        return _QUICKLY_ON_GPU if quick else _ON_GPU
    return _ON_CPU[:4] if quick else _ON_CPU


def evaluation_cases(*, on_gpu: bool, quick: bool) -> tuple[EvaluationCase, ...]:
    if not on_gpu:
        return (EvaluationCase(1, 8, 32), EvaluationCase(2, 4, 32))
    cases = (EvaluationCase(1, 32, 512), EvaluationCase(4, 16, 512), EvaluationCase(2, 64, 128))
    return cases[:1] if quick else cases
