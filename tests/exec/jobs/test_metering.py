"""What an executor tells of its work adds up to what it did."""

from pathlib import Path

import pytest
from torch import Tensor

from alto_exec.adapters.bank import AdapterBank
from alto_exec.backbones.transformers_model import Backbone
from alto_exec.data.dataset import Dataset, Dropped
from alto_exec.executor import Executor
from alto_exec.jobs.metering import Meter
from alto_exec.passes.batch import PackedBatch
from alto_exec.passes.cuda_graphs import Replayed
from alto_exec.passes.weighing import Weigh
from alto_policy.types import Hyperparameters, Job, JobId, TaskId
from alto_runs.files.directory import RunDirectory
from alto_runs.files.executor_work import EvaluationWork, LaunchWork, TrainingWork, Work
from tests.exec.packed_loop import ragged_samples, tiny_model

VALIDATION = ragged_samples(8, seed=1)


def job(name: str, rank: int, steps: int, reports: int) -> Job:
    chosen = Hyperparameters(rank=rank)
    return Job(id=JobId(name), hyperparameters=chosen, steps=steps, reports=reports)


def new_executor(folder: Path, rows: list[Work], kind: type[Backbone] = Backbone) -> Executor:
    backbone = kind(tiny_model("llama"))
    return Executor(
        backbone,
        Dataset(tuple(ragged_samples()), tuple(VALIDATION), Dropped(0, 0), 0),
        RunDirectory(folder),
        bank=AdapterBank(backbone.shapes, backbone.device, rows=0),
        meter=Meter(TaskId("t"), rows.append),
    )


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> tuple[Executor, list[Work]]:
    """Two jobs to their ends, the second of which is launched after two passes of the first."""
    folder: Path = tmp_path_factory.mktemp("run")
    rows: list[Work] = []
    executor = new_executor(folder, rows)
    executor.launch(job("first", 4, 6, 1))
    executor.advance()
    executor.advance()
    executor.launch(job("second", 3, 4, 2))
    while executor.residents:
        executor.advance()
        for name, _ in executor.resume_all():
            executor.leave(name, keep=False)
    return executor, rows


def test_passes_of_the_same_jobs_are_one_row(told: tuple[Executor, list[Work]]) -> None:
    found = [row for row in told[1] if isinstance(row, TrainingWork)]
    assert [(row.jobs, row.ranks, row.passes) for row in found] == [(1, 4, 2), (2, 7, 2), (2, 7, 2)]
    assert sum(row.tokens for row in found) == told[0].tokens_trained
    assert all(row.seconds > 0 and row.task == "t" for row in found)


def test_passes_of_other_jobs_are_another_row(tmp_path: Path) -> None:
    rows: list[Work] = []
    executor = new_executor(tmp_path, rows)
    executor.launch(job("first", 4, 6, 1))
    executor.launch(job("second", 3, 6, 1))
    executor.advance()
    executor.leave(JobId("second"), keep=False)
    while executor.residents:
        executor.advance()
        for name, _ in executor.resume_all():
            executor.leave(name, keep=False)
    found = [(row.jobs, row.passes) for row in rows if isinstance(row, TrainingWork)]
    assert found == [(2, 1), (1, 5)]


def test_replays_and_ways_are_told(tmp_path: Path) -> None:
    class Replaying(Backbone):
        passes = 0

        @property
        def replayed(self) -> Replayed:
            """The first pass is launched, the second recorded, the others compute 100 rows."""
            replayed = max(0, self.passes - 2)
            return Replayed(replayed, 100 * replayed, recorded=int(self.passes > 1))

        @property
        def travelled(self) -> int:
            """In all passes but the first."""
            return max(0, self.passes - 1)

        def train(self, bank: AdapterBank, batch: PackedBatch, weigh: Weigh) -> Tensor:
            self.passes += 1
            return super().train(bank, batch, weigh)

    rows: list[Work] = []
    executor = new_executor(tmp_path, rows, Replaying)
    executor.launch(job("first", 4, 6, 1))
    for _ in range(3):
        executor.advance()
    executor.leave(JobId("first"), keep=False)
    executor.launch(job("second", 4, 6, 1))
    executor.advance()
    executor.launch(job("third", 4, 6, 1))
    executor.advance()
    told = [row for row in rows if isinstance(row, TrainingWork)]
    assert [(row.passes, row.replayed, row.replayed_rows) for row in told] == [
        (3, 1, 100),
        (1, 1, 100),
    ]
    assert [(row.recorded, row.travelled) for row in told] == [(1, 2), (0, 1)]


def test_every_evaluation_tells_its_tokens(told: tuple[Executor, list[Work]]) -> None:
    one = sum(len(sample.tokens) for sample in VALIDATION)
    found = [row for row in told[1] if isinstance(row, EvaluationWork)]
    assert [(row.jobs, row.first_reports, row.tokens) for row in found] == [
        (1, 1, one),
        (2, 1, 2 * one),
    ]
    assert all(row.seconds > 0 for row in found)


def test_launches_stand_where_they_were_made(told: tuple[Executor, list[Work]]) -> None:
    kinds = [type(row) for row in told[1]]
    assert kinds == [
        LaunchWork,
        TrainingWork,
        LaunchWork,
        TrainingWork,
        EvaluationWork,
        TrainingWork,
        EvaluationWork,
    ]
