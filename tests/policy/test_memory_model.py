"""Bytes of jobs beside each other, worked out by hand."""

import pytest

from alto_policy.memory import MemoryModel
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
