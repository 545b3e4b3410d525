"""How many of many are kept."""

import pytest

from alto_policy.policies import build
from alto_policy.policies.alto import AltoSettings
from tests.policy.cases import ToyBackend, job, job_decisions, play, task


@pytest.mark.parametrize(
    ("num_jobs", "keep", "kept"),
    [
        pytest.param(100, 0.07, 7, id="0.07 * 100 is 7.000000000000001, and means 7"),
        pytest.param(100, 0.071, 8, id="a part of a job is a whole one"),
        pytest.param(10, 0.3, 3, id="0.3 * 10"),
    ],
)
def test_a_share_of_many_jobs(num_jobs: int, keep: float, kept: int) -> None:
    names = [f"j{number:03}" for number in range(num_jobs)]
    losses = {name: float(number) for number, name in enumerate(names)}
    jobs = [job(name, steps=4, reports=4) for name in names]
    backend = ToyBackend([task("t", jobs)], lambda spec, step: losses[spec.id], capacity=999)
    settings = AltoSettings(warmup=0.25, keep=keep)
    decided = job_decisions(play(build(settings), backend))
    survivors = [name for name in names if decided[name] == [(1, "pause")]]
    assert survivors == names[:kept]
