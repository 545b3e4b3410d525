"""Jobs drawn from ranges and lists: different, spread, the same for a seed, or one clear line."""

from collections import Counter
from pathlib import Path

import pytest

from alto_policy.types import Hyperparameters
from alto_runs import study
from alto_runs.errors import UserError
from alto_runs.study import TaskSpec, expand, resolved_yaml
from tests.runs.faulty import WHOLE
from tests.runs.study.test_study import study_of

GOLDEN = [
    (8.444e-05, 8, 0.01343, 4),
    (1.389e-05, 32, 0.05516, 7),
    (0.005963, 8, 0.07182, 8),
    (0.001453, 32, 0.02128, 4),
    (0.0002642, 16, 0.08603, 2),
]
SPACE = """
search:
  learning_rate: { low: 1.0e-5, high: 1.0e-2, log: true }
  rank: [8, 16, 32]
  dropout: { low: 0.0, high: 0.1 }
  batch_size: { low: 1, high: 8 }
"""


def drawn(draw: str, tmp_path: Path, space: str = SPACE) -> tuple[Hyperparameters, ...]:
    spec: TaskSpec = next(iter(study_of(f"{WHOLE}{space}draw: {draw}", tmp_path).tasks.values()))
    assert spec.num_jobs == len(spec.configurations)
    return spec.configurations


def test_they_are_spread_over_every_axis(tmp_path: Path) -> None:
    """Of 24 jobs each value of a list has its share; of a range each of its 24 parts has one."""
    jobs = drawn("{ jobs: 24 }", tmp_path)
    assert Counter(job.rank for job in jobs) == {8: 8, 16: 8, 32: 8}
    assert Counter(job.batch_size for job in jobs) == dict.fromkeys(range(1, 9), 3)
    parts = sorted(int(24 * job.dropout / 0.1) for job in jobs)
    assert parts == list(range(24))
    decades = Counter(int(f"{job.learning_rate:e}"[-3:]) for job in jobs)
    assert decades == {-5: 8, -4: 8, -3: 8}
    assert {job.alpha / job.rank for job in jobs} == {2.0}
    assert len({(job.learning_rate, job.rank) for job in jobs}) == 24


def test_axes_are_not_drawn_in_step(tmp_path: Path) -> None:
    jobs = drawn("{ jobs: 60 }", tmp_path)
    by_rate = sorted(jobs, key=lambda job: job.learning_rate)
    dropouts = [job.dropout for job in by_rate]
    assert dropouts not in (sorted(dropouts), sorted(dropouts, reverse=True))
    assert {job.rank for job in by_rate[:20]} == {8, 16, 32}


def test_a_seed_draws_the_same_ones_wherever(tmp_path: Path) -> None:
    first, again = (drawn("{ jobs: 5, seed: 3 }", tmp_path) for _ in range(2))
    assert first == again != drawn("{ jobs: 5, seed: 4 }", tmp_path)
    assert [(j.learning_rate, j.rank, j.dropout, j.batch_size) for j in first] == GOLDEN


def test_all_jobs_of_a_grid_can_be_drawn(tmp_path: Path) -> None:
    space = "search: { rank: [4, 8], batch_size: { low: 1, high: 3 } }\n"
    jobs = drawn("{ jobs: 6 }", tmp_path, space)
    pairs = {(job.rank, job.batch_size) for job in jobs}
    assert pairs == {(rank, size) for rank in (4, 8) for size in (1, 2, 3)}


def test_without_a_search_the_papers_grid_is_drawn_from(tmp_path: Path) -> None:
    rates = {job.learning_rate for job in drawn("{ jobs: 10 }", tmp_path, "")}
    assert rates == {1e-5, 5e-5, 2e-4, 3e-4, 5e-4}


def test_a_range_of_whole_numbers_reaches_both_ends(tmp_path: Path) -> None:
    space = "search: { rank: { low: 1, high: 256, log: true }, seed: { low: 0, high: 1 }, "
    rates = "learning_rate: { low: 0.1, high: 0.2 } }\n"
    jobs = drawn("{ jobs: 400 }", tmp_path, space + rates)
    ranks = [job.rank for job in jobs]
    assert (min(ranks), max(ranks)) == (1, 256)
    assert sum(rank < 16 for rank in ranks) == pytest.approx(200, abs=2)  # half of the way in logs
    assert {job.seed for job in jobs} == {0, 1}


def test_the_resolved_study_draws_the_same(tmp_path: Path) -> None:
    found = study_of(f"{WHOLE}{SPACE}draw: {{ jobs: 7, seed: 9 }}", tmp_path)
    text = resolved_yaml(found)
    again = study_of(text, tmp_path)
    assert again == found
    (name, spec), (_, other) = (*found.tasks.items(), *again.tasks.items())
    assert spec.configurations == other.configurations
    task = expand(name, spec, num_samples=100, max_length=64)
    assert [job.hyperparameters for job in task.jobs] == list(spec.configurations)


def test_too_many_jobs_are_told_before_any_is_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A study of strangers would keep a service busy for minutes."""
    monkeypatch.setattr(study, "drawn", None)
    tasks = "".join(f"  t{number}: {{}}\n" for number in range(11))
    with pytest.raises(UserError, match="they have 110000 jobs in all, expected 100000 at most"):
        study_of(f"{WHOLE}{SPACE}draw: {{ jobs: 10000 }}\ntasks:\n{tasks}", tmp_path)


def test_a_task_that_has_too_few_is_named(tmp_path: Path) -> None:
    text = f"{WHOLE}tasks: {{a: {{}}, b: {{search: {{rank: [1, 2]}}, draw: {{jobs: 3}}}}}}"
    with pytest.raises(UserError, match=r"tasks\.b\.draw\.jobs: value 3: the search has no more"):
        study_of(text, tmp_path)
