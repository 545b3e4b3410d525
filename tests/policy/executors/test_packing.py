from dataclasses import replace

import pytest

from alto_policy.decisions import Launch
from alto_policy.executors.packing import by_batch_size, pack
from alto_policy.memory import MeasuredPasses, MemoryModel
from alto_policy.types import GpuId, Hyperparameters, Job, JobId, TaskId
from tests.policy.cases import job, memory, task


def launched(
    sizes: list[int], held: list[list[int]], model: MemoryModel, most: int | None = None
) -> dict[int, list[str]]:
    """Jobs named by their place in the queue, launched beside jobs of the sizes held."""
    queue = [job(str(i), batch_size=size) for i, size in enumerate(sizes)]
    residents = {
        GpuId(gpu): [job(f"r{gpu}{i}", batch_size=size) for i, size in enumerate(here)]
        for gpu, here in enumerate(held)
    }
    everyone = [*queue, *(resident for here in residents.values() for resident in here)]
    launches = pack(queue, residents, model, task("t", everyone), most)
    return {launch.gpu: list(launch.jobs) for launch in launches}


@pytest.mark.parametrize(
    ("sizes", "held", "capacity", "expected"),
    [
        pytest.param([4, 4, 2], [[]], 10, {0: ["0", "1", "2"]}, id="all fit exactly"),
        pytest.param([4, 4, 2], [[]], 9, {0: ["0", "1"]}, id="one byte short"),
        pytest.param([4, 8, 2], [[]], 6, {0: ["0", "2"]}, id="a large one does not block the next"),
        pytest.param([4], [[3]], 7, {0: ["0"]}, id="beside a resident"),
        pytest.param([4], [[4]], 7, {}, id="no room beside a resident"),
        pytest.param([1, 1], [[], []], 9, {0: ["0"], 1: ["1"]}, id="spread over GPUs"),
        pytest.param([1, 1], [[5], [1]], 9, {1: ["0", "1"]}, id="the emptiest GPU first"),
        pytest.param([], [[1]], 9, {}, id="nobody waits"),
    ],
)
def test_pack(
    sizes: list[int], held: list[list[int]], capacity: int, expected: dict[int, list[str]]
) -> None:
    assert launched(sizes, held, memory(capacity)) == expected


def test_no_more_jobs_than_the_executor_takes() -> None:
    model = MemoryModel(capacity=99, fixed=0, per_rank=0, per_token=1, max_jobs=3)
    assert launched([1, 1, 1], [[1]], model) == {0: ["0", "1"]}


def test_no_more_jobs_than_the_policy_wants() -> None:
    assert launched([1, 1, 1], [[], [1]], memory(99), most=1) == {0: ["0"]}


def test_a_gpu_without_a_place_is_passed_over_although_it_has_memory() -> None:
    assert launched([1], [[1, 1], [5]], memory(99), most=2) == {1: ["0"]}


def test_what_did_not_fit_on_the_emptiest_gpu_may_fit_on_the_next() -> None:
    """Passes keep rows as wide as the widest rank, so that a wide job costs less beside another."""
    passes = MeasuredPasses(
        peaks=((1, 1), (1000, 1000)), per_row_rank=1, per_rank_moving=0, evaluation=0
    )
    model = MemoryModel(capacity=53_892, fixed=0, per_rank=0, per_token=1, passes=passes)

    def ranked(name: str, rank: int) -> Job:
        return replace(job(name), hyperparameters=Hyperparameters(rank=rank))

    queue = [ranked("0", 128), ranked("1", 64), ranked("2", 128)]
    residents = {
        GpuId(0): [ranked("r0", 128)],
        GpuId(1): [ranked("r1", 32), ranked("r2", 64)],
    }
    everyone = [*queue, *residents[GpuId(0)], *residents[GpuId(1)]]
    launches = pack(queue, residents, model, task("t", everyone))
    assert {launch.gpu: launch.jobs for launch in launches} == {0: ("2",), 1: ("1",)}


def test_fixed_bytes_count_once() -> None:
    model = MemoryModel(capacity=12, fixed=10, per_rank=0, per_token=1)
    assert launched([1, 1, 1], [[]], model) == {0: ["0", "1"]}


def test_launch_names_task_and_gpu() -> None:
    one = job("a")
    assert pack([one], {GpuId(7): []}, memory(1), task("t", [one])) == [
        Launch(TaskId("t"), GpuId(7), (JobId("a"),))
    ]


@pytest.mark.parametrize(
    ("first", "expected"),
    [
        pytest.param(None, "bd-ac-e", id="largest batch first"),
        pytest.param(2, "ac-bd-e", id="that of the departed first"),
        pytest.param(1, "e-bd-ac", id="then the others by size"),
        pytest.param(3, "bd-ac-e", id="none is of that size"),
    ],
)
def test_groups_of_equal_batch_size_keep_their_order(first: int | None, expected: str) -> None:
    sizes = {"a": 2, "b": 8, "c": 2, "d": 8, "e": 1}
    jobs = [job(name, batch_size=size) for name, size in sizes.items()]
    assert [each.id for each in by_batch_size(jobs, first)] == list(expected.replace("-", ""))
