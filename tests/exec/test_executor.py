"""Jobs come, report, pause, return and leave; nothing of them is lost or changed by it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from alto_exec.adapters.bank import AdapterBank
from alto_exec.adapters.peft_format import read_adapter
from alto_exec.backbones.transformers_model import Backbone
from alto_exec.data.dataset import Dataset, Dropped
from alto_exec.executor import Executor, Report
from alto_exec.passes.evaluation import validation_loss
from alto_policy.events import Departure
from alto_policy.types import Hyperparameters, Job, JobId
from alto_runs.errors import UserError
from alto_runs.files.directory import RunDirectory
from tests.exec.comparing import Trajectory, assert_close, assert_same_training, in_double_precision
from tests.exec.packed_loop import ragged_samples, tiny_model, train_packed

TRAIN, VALIDATION = ragged_samples(), ragged_samples(8, seed=1)


def job(name: str, *, steps: int = 6, reports: int = 3, **hyperparameters: float) -> Job:
    given = {"rank": 3, "learning_rate": 5e-3} | hyperparameters
    h = Hyperparameters(**given)  # type: ignore[arg-type]  # whole numbers are numbers
    return Job(id=JobId(name), hyperparameters=h, steps=steps, reports=reports)


STEADY = job("steady", accumulation=2, seed=1)
JOBS = (STEADY, job("wide", rank=7, batch_size=3), job("short", steps=2, reports=2, seed=2))


def new_executor(
    folder: Path | RunDirectory, *, is_durable: bool = True, in_8_bits: bool = False
) -> Executor:
    dataset = Dataset(tuple(TRAIN), tuple(VALIDATION), Dropped(0, 0), 0)
    backbone = Backbone(tiny_model("llama"))
    bank = AdapterBank(backbone.shapes, backbone.device, rows=0, in_8_bits=in_8_bits)
    directory = RunDirectory(folder) if isinstance(folder, Path) else folder
    return Executor(backbone, dataset, directory, bank=bank, is_durable=is_durable)


@dataclass(slots=True)
class Story:
    """What an executor told of its jobs."""

    reports: dict[JobId, list[Report]] = field(default_factory=dict)
    ends: dict[JobId, Departure] = field(default_factory=dict)

    def hear(self, report: Report | None) -> None:
        """A report that was heard before is not told twice."""
        if report is not None:
            known = self.reports.setdefault(report.job, [])
            if not known or report.step > known[-1].step:
                known.append(report)

    def losses(self, name: JobId) -> Trajectory:
        """Of training and validation by turns."""
        told = self.reports[name]
        return Trajectory(tuple(x for r in told for x in (r.losses.train, r.losses.val)), {})


def finish(executor: Executor, story: Story, *, passes: int | None = None) -> None:
    """Train until all are at their ends, or for a number of passes."""
    while True:
        for name, how in executor.resume_all():
            executor.leave(name, keep=True)
            story.ends[name] = how
        if not executor.residents or passes == 0:
            return
        for report in executor.advance():
            story.hear(report)
        passes = None if passes is None else passes - 1


def undisturbed(folder: Path, jobs: Sequence[Job] = JOBS) -> Story:
    executor, story = new_executor(folder), Story()
    for each in jobs:
        story.hear(executor.launch(each))
    finish(executor, story)
    return story


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> tuple[Story, Path]:
    """The jobs side by side without a disturbance, in double precision, and their folder."""
    folder = tmp_path_factory.mktemp("undisturbed")
    with in_double_precision():
        return undisturbed(folder), folder


def assert_came_to_the_same(story: Story, folder: Path, expected: tuple[Story, Path]) -> None:
    """Reports, ends, adapters and the state of the optimizer."""
    other, other_folder = expected
    assert story.ends == other.ends
    for each in JOBS:
        steps = [report.step for report in story.reports[each.id]]
        assert steps == [report.step for report in other.reports[each.id]]
        assert_same_training(story.losses(each.id), other.losses(each.id), what=each.id)
        ours, theirs = (
            load_file(str(RunDirectory(path).checkpoint(each.id)))
            for path in (folder, other_folder)
        )
        for name, tensor in theirs.items():
            assert_close(ours[name], tensor, f"{each.id}: {name}")


def test_reports_come_when_due_and_say_what_is_so(tmp_path: Path) -> None:
    story = undisturbed(tmp_path)
    losses = train_packed("llama", TRAIN, JOBS)
    for each in JOBS:
        due = [each.report_step(number + 1) for number in range(each.reports)]
        assert [report.step for report in story.reports[each.id]] == due
        for before, report in zip([0, *due], story.reports[each.id], strict=False):
            steps = losses[each.id].losses[before : report.step]
            assert_same_training(
                Trajectory((report.losses.train,), {}), Trajectory((sum(steps) / len(steps),), {})
            )
    assert story.ends == dict.fromkeys((each.id for each in JOBS), Departure.FINISHED)


def test_a_job_that_has_reported_waits_for_the_decisions(tmp_path: Path) -> None:
    executor = new_executor(tmp_path)
    executor.launch(job("early", steps=2, reports=2))
    executor.launch(job("late", steps=2, reports=1))
    (report,) = executor.advance()
    assert report.job == "early"
    (report,) = executor.advance()
    assert report.job == "late"
    assert executor.resume_all() == [("late", Departure.FINISHED)]


@pytest.mark.usefixtures("double_precision")
@pytest.mark.parametrize("passes", range(1, 12))
def test_a_pause_at_any_pass_changes_nothing(
    passes: int, tmp_path: Path, expected: tuple[Story, Path]
) -> None:
    """Within a step, at its end, at a report; the way back leads to another slot."""
    executor, story = new_executor(tmp_path), Story()
    for each in JOBS[:2]:
        story.hear(executor.launch(each))
    finish(executor, story, passes=passes)
    executor.leave(STEADY.id, keep=True)
    story.hear(executor.launch(JOBS[2]))
    finish(executor, story, passes=1)
    story.hear(executor.launch(STEADY))
    finish(executor, story)
    assert_came_to_the_same(story, tmp_path, expected)


@pytest.mark.usefixtures("double_precision")
@pytest.mark.parametrize("passes", [0, 3, 4, 7, 11])
def test_a_process_that_dies_loses_nothing(
    passes: int, tmp_path: Path, expected: tuple[Story, Path]
) -> None:
    """What was not yet on disk is trained again, to the same end."""
    story = Story()
    killed = new_executor(tmp_path)
    for each in JOBS:
        story.hear(killed.launch(each))
    finish(killed, story, passes=passes)
    heir = new_executor(tmp_path)
    for each in JOBS:
        if each.id not in story.ends:
            story.hear(heir.launch(each))
    finish(heir, story)
    assert_came_to_the_same(story, tmp_path, expected)


def test_the_report_of_a_checkpoint_is_handed_out_again(tmp_path: Path) -> None:
    executor = new_executor(tmp_path)
    executor.launch(STEADY)
    reports: list[Report] = []
    while not reports:
        reports = executor.advance()
    executor.keeper.close()
    again = new_executor(tmp_path)
    assert again.launch(STEADY) == reports[0]
    assert again.residents == (STEADY.id,)


@pytest.mark.filterwarnings("error")
def test_a_job_that_breaks_is_lost_alone(tmp_path: Path) -> None:
    broken = job("broken", learning_rate=1e30, seed=3)
    story = undisturbed(tmp_path / "together", (STEADY, broken))
    assert story.ends == {STEADY.id: Departure.FINISHED, broken.id: Departure.FAILED}
    (report,) = story.reports[broken.id]
    assert report.step == 2, "at the end of the step whose loss was not finite"
    assert report.losses.train != report.losses.train
    assert report.losses.val != report.losses.val
    alone = undisturbed(tmp_path / "alone", (STEADY,))
    assert_same_training(story.losses(STEADY.id), alone.losses(STEADY.id))
    again = new_executor(tmp_path / "together")
    assert again.launch(broken) is not None
    assert again.resume_all() == [(broken.id, Departure.FAILED)]


def test_the_best_adapter_is_kept_as_it_happens(tmp_path: Path) -> None:
    """It is that of the lowest validation loss, not the last one."""
    turning = job("turning", steps=8, reports=8, learning_rate=0.05)
    story = undisturbed(tmp_path, (turning,))
    losses = [report.losses.val for report in story.reports[turning.id]]
    assert 0 < losses.index(min(losses)) < 7, "a loss that falls and rises"
    executor = new_executor(tmp_path)
    adapter = read_adapter(RunDirectory(tmp_path).job_folder(turning.id), executor.bank)
    slot = executor.bank.join(adapter.state())
    found = validation_loss(executor.backbone, executor.bank, VALIDATION, slot, adapter.scale)
    assert found == min(losses)


@pytest.mark.parametrize(
    "share", [0.0, 0.001, 0.3, 0.999], ids=["empty", "no header", "half", "all but the end"]
)
def test_a_damaged_checkpoint_is_told_in_one_line(share: float, tmp_path: Path) -> None:
    executor = new_executor(tmp_path)
    executor.launch(STEADY)
    executor.leave(STEADY.id, keep=True)
    path = Path(str(RunDirectory(tmp_path).checkpoint(STEADY.id)))
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    refuses(tmp_path, STEADY, "not a checkpoint of a job, or damaged")


def test_a_checkpoint_of_another_rank_is_told_in_one_line(tmp_path: Path) -> None:
    executor = new_executor(tmp_path)
    executor.launch(job("one", rank=3))
    executor.leave(JobId("one"), keep=True)
    refuses(tmp_path, job("one", rank=4), "the job needs (4, ")


def refuses(folder: Path, launched: Job, says: str) -> None:
    executor = new_executor(folder)
    with pytest.raises(UserError) as caught:
        executor.launch(launched)
    message = str(caught.value)
    assert says in message
    assert str(RunDirectory(folder).checkpoint(launched.id)) in message
    assert "\n" not in message
    assert not executor.residents
    assert not executor.bank.value_RC.any()
    assert torch.isfinite(executor.bank.value_RC).all()
