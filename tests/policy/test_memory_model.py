"""Bytes of jobs beside each other, worked out by hand."""

from dataclasses import replace

import pytest

from alto_policy.memory import MeasuredPasses, MemoryModel
from alto_policy.types import Hyperparameters, Job, JobId


def job(name: str, *, rank: int, batch_size: int = 1) -> Job:
    chosen = Hyperparameters(rank=rank, batch_size=batch_size)
    return Job(id=JobId(name), hyperparameters=chosen, steps=1, reports=1)


MODEL = MemoryModel(capacity=1000, fixed=100, per_rank=10, per_token=3, per_rank_token=2)
SMALL, LARGE = job("a", rank=1, batch_size=1), job("b", rank=4, batch_size=2)


@pytest.mark.parametrize(
    ("jobs", "max_length", "expected"),
    [
        pytest.param((), 5, 100, id="the backbone alone"),
        pytest.param((job("r", rank=4),), 0, 100 + 40, id="rank, at no length"),
        pytest.param((SMALL,), 5, 100 + 10 + 5 * (3 + 2), id="one job"),
        pytest.param((LARGE,), 5, 100 + 40 + 10 * (3 + 8), id="two sequences of rank four"),
        pytest.param((SMALL, LARGE), 5, 100 + 35 + 150, id="two jobs and one backbone"),
    ],
)
def test_bytes(jobs: tuple[Job, ...], max_length: int, expected: int) -> None:
    assert MODEL.bytes(jobs, max_length) == expected


@pytest.mark.parametrize(
    ("capacity", "max_jobs", "fits"),
    [
        pytest.param(285, None, True, id="exactly full"),
        pytest.param(284, None, False, id="a byte too much"),
        pytest.param(285, 2, True, id="as many as may be"),
        pytest.param(285, 1, False, id="one too many"),
    ],
)
def test_fits(capacity: int, max_jobs: int | None, fits: bool) -> None:
    model = MemoryModel(
        capacity=capacity,
        fixed=100,
        per_rank=10,
        per_token=3,
        per_rank_token=2,
        max_jobs=max_jobs,
    )
    assert model.fits((SMALL, LARGE), 5) is fits


# Passes of 100 and 200 tokens were measured; a rank of 16 and 10 tokens of 3 jobs take blocks of
# 16 columns and 10 + 128 * 4 rows.
PASSES = MeasuredPasses(
    peaks=((100, 1000), (200, 1501)), per_row_rank=0, per_rank_moving=0, evaluation=0
)


@pytest.mark.parametrize(
    ("passes", "jobs", "max_length", "expected"),
    [
        pytest.param(PASSES, (), 100, 0, id="nobody"),
        pytest.param(PASSES, (SMALL,), 10, 1000, id="fewer tokens than the smallest pass"),
        pytest.param(PASSES, (SMALL,), 100, 1000, id="as measured"),
        pytest.param(PASSES, (SMALL,), 151, 1000 + 256, id="between, rounded up"),
        pytest.param(PASSES, (LARGE,), 150, 1501 + 7 * 100, id="beyond the largest"),
        pytest.param(
            replace(PASSES, per_row_rank=2), (SMALL,), 100, 1000 + 2 * 16 * 356, id="least width"
        ),
        pytest.param(
            replace(PASSES, per_row_rank=1),
            (SMALL, job("c", rank=65)),
            50,
            1000 + 128 * (100 + 128 * 3),
            id="all rows are as wide as the widest adapter",
        ),
        pytest.param(replace(PASSES, evaluation=5000), (SMALL,), 100, 5000, id="evaluation"),
        pytest.param(
            replace(PASSES, per_rank_moving=900), (LARGE,), 50, 3600, id="adapters that move"
        ),
        pytest.param(
            replace(PASSES, recorded_tokens=200), (SMALL,), 129, 1501 + 7 * 56, id="recorded"
        ),
        pytest.param(
            replace(PASSES, recorded_tokens=200, per_row_rank=1),
            (SMALL,),
            100,
            1000 + 141 + 16 * (128 + 128 * 9),
            id="recorded with room for eight jobs",
        ),
    ],
)
def test_bytes_of_measured_passes(
    passes: MeasuredPasses, jobs: tuple[Job, ...], max_length: int, expected: int
) -> None:
    """Beside a backbone of no size, and adapters whose own state has none."""
    model = MemoryModel(capacity=0, fixed=0, per_rank=0, per_token=7, passes=passes)
    assert model.bytes(jobs, max_length) == expected


def test_where_no_pass_had_room_no_job_fits() -> None:
    nothing = replace(PASSES, peaks=())
    model = MemoryModel(capacity=99, fixed=1, per_rank=1, per_token=1, passes=nothing)
    assert not model.fits((SMALL,), 1)
    assert model.fits((), 1)
