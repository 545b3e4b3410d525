"""An executor whose disk lags behind: what must be there is, and the rest is trained again."""

import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from alto_exec import executor as executor_module
from alto_exec.adapters.peft_format import read_adapter, write_adapter
from alto_exec.executor import Executor
from alto_exec.jobs import keeping
from alto_exec.jobs.checkpoint import Checkpoint, kept_step, write_checkpoint
from alto_exec.passes.training import train_pass
from alto_policy.events import Departure
from alto_runs.files.artifacts import Artifact
from alto_runs.files.directory import RunDirectory
from tests.exec.comparing import assert_close, assert_same_training
from tests.exec.test_executor import JOBS, STEADY, Story, finish, job, new_executor, undisturbed


@pytest.fixture(autouse=True)
def _no_checkpoint_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeping, "_SHARE", 1e-12)


def checkpoints(folder: Path) -> list[Path]:
    return sorted((folder / "checkpoints").glob("*"))


def adapter(executor: Executor, folder: Path) -> torch.Tensor:
    return read_adapter(RunDirectory(folder).job_folder(STEADY.id), executor.bank).value_rC


def assert_same_story(story: Story, expected: Story) -> None:
    assert story.ends == expected.ends
    for each in JOBS:
        assert_same_training(story.losses(each.id), expected.losses(each.id), what=each.id)


def assert_goes_on_as_undisturbed(
    heir: Executor, story: Story, folder: Path, undisturbed_folder: Path, expected: Story
) -> None:
    for each in JOBS:
        if each.id not in story.ends:
            story.hear(heir.launch(each))
    finish(heir, story)
    heir.keeper.close()
    assert_same_story(story, expected)
    found, wanted = adapter(heir, folder), adapter(heir, undisturbed_folder)
    assert_close(found, wanted, "the best adapter")


@pytest.mark.usefixtures("double_precision")
@pytest.mark.parametrize("passes", [1, 4, 9])
def test_who_pauses_keeps_its_rows_until_they_are_needed(passes: int, tmp_path: Path) -> None:
    """Nothing of its state is written; it comes back to the same slot."""
    expected = undisturbed(tmp_path / "undisturbed")
    folder = tmp_path / "paused"
    executor, story = new_executor(folder, is_durable=False), Story()
    executor.expect(JOBS)
    for each in JOBS:
        story.hear(executor.launch(each))
    finish(executor, story, passes=passes)
    rows = executor.bank.num_rows
    assert rows == sum(each.hyperparameters.rank for each in JOBS)
    executor.leave(STEADY.id, keep=True)
    assert STEADY.id not in executor.residents
    story.hear(executor.launch(STEADY))
    assert not checkpoints(folder)
    finish(executor, story)
    assert executor.bank.num_rows == rows
    assert_same_story(story, expected)


@pytest.mark.usefixtures("double_precision")
def test_who_needs_the_rows_of_a_paused_job_gets_them(tmp_path: Path) -> None:
    expected = undisturbed(tmp_path / "undisturbed")
    folder = tmp_path / "paused"
    executor, story = new_executor(folder, is_durable=False), Story()
    for each in JOBS[:2]:
        story.hear(executor.launch(each))
    finish(executor, story, passes=5)
    rows = executor.bank.num_rows
    executor.leave(STEADY.id, keep=True)
    story.hear(executor.launch(JOBS[2]))
    assert executor.bank.num_rows == rows, "the paused job went to disk"
    finish(executor, story)
    assert [path.stem for path in checkpoints(folder)] == [STEADY.id]
    story.hear(executor.launch(STEADY))
    finish(executor, story)
    assert_same_story(story, expected)


@pytest.mark.usefixtures("double_precision")
@pytest.mark.parametrize("is_durable", [False, True], ids=["alone", "one of several"])
@pytest.mark.parametrize("share", [1e-12, 1e12], ids=["no checkpoint", "at each report"])
def test_what_a_killed_process_had_not_written_is_trained_again(
    share: float, is_durable: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeping, "_SHARE", share)
    expected = undisturbed(tmp_path / "undisturbed")
    folder, story = tmp_path / "killed", Story()
    killed = new_executor(folder, is_durable=is_durable)
    for each in JOBS:
        story.hear(killed.launch(each))
    finish(killed, story, passes=7)
    killed.keeper.close()
    stems = [path.stem for path in checkpoints(folder)]
    assert (STEADY.id in stems) == (share > 1)
    heir = new_executor(folder, is_durable=is_durable)
    assert_goes_on_as_undisturbed(heir, story, folder, tmp_path / "undisturbed", expected)


@pytest.mark.usefixtures("double_precision")
@pytest.mark.parametrize(("passes", "num_behind"), [(3, 1), (5, 2), (7, 1)])
def test_jobs_catch_up_side_by_side_and_all_of_it_is_on_disk(
    passes: int, num_behind: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An executor was lost that had kept best adapters alone; jobs go on where it had told."""
    expected = undisturbed(tmp_path / "undisturbed")
    folder, story = tmp_path / "lost", Story()
    lost = new_executor(folder)
    for each in JOBS:
        story.hear(lost.launch(each))
    finish(lost, story, passes=passes)
    lost.keeper.close()
    told = {name: reports[-1].step for name, reports in story.reports.items()}
    behind = [
        (each, told[each.id]) for each in JOBS if each.id in told and each.id not in story.ends
    ]
    assert len(behind) == num_behind
    heir = new_executor(folder)
    side_by_side = list[int]()

    def watched(*operands: Any, **options: Any) -> int:
        side_by_side.append(len(operands[3]))
        return train_pass(*operands, **options)

    with monkeypatch.context() as patch:
        patch.setattr(executor_module, "train_pass", watched)
        heir.reach(behind)
    assert side_by_side[0] == len(behind)
    assert not heir.residents
    assert heir.bank.num_taken_rows == 0
    for each, step in behind:
        assert kept_step(RunDirectory(folder).checkpoint(each.id)) == step
    assert_goes_on_as_undisturbed(heir, story, folder, tmp_path / "undisturbed", expected)


@pytest.mark.parametrize("is_slow", [False, True], ids=["a disk", "a slow disk"])
def test_the_best_adapter_is_on_disk_when_its_job_is_past_it(
    is_slow: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not before: each improvement overwrites the last in memory. A disk that is behind with
    others is asked for it as the job leaves."""
    turning = job("turning", steps=8, reports=8, learning_rate=0.05)
    lasting = undisturbed(tmp_path / "lasting", (turning,))
    losses = [report.losses.val for report in lasting.reports[turning.id]]
    best = losses.index(min(losses))
    assert best < 6, "the last adapter is not the best"
    executor, story = new_executor(tmp_path / "left", is_durable=False), Story()
    disk_is_free = threading.Event()
    if is_slow:

        def write_slowly(folder: Artifact, *arguments: Any) -> None:
            assert str(folder).endswith(turning.id) or disk_is_free.wait(60)
            write_adapter(folder, *arguments)

        monkeypatch.setattr(keeping, "write_adapter", write_slowly)
        for number in range(executor.keeper._num_threads):
            story.hear(executor.launch(job(f"other{number}", steps=1, reports=1)))
        finish(executor, story)
    story.hear(executor.launch(turning))
    written = RunDirectory(tmp_path / "left").job_folder(turning.id)
    for index in range(7):
        finish(executor, story, passes=1)
        if index <= best:
            assert executor.keeper._adapters.last(turning.id) is None
    assert (executor.keeper._adapters.last(turning.id) is not None) != is_slow
    executor.keeper.settle(turning.id)
    assert written.exists() != is_slow
    disk_is_free.set()
    executor.leave(turning.id, keep=False)
    executor.keeper.settle(turning.id)
    found, wanted = (
        read_adapter(RunDirectory(path).job_folder(turning.id), executor.bank).value_rC
        for path in (tmp_path / "left", tmp_path / "lasting")
    )
    assert torch.equal(found, wanted)


def test_a_report_waits_for_nothing_and_its_adapter_is_on_disk_once_it_is_secured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A report that comes while a state is on its way leaves its own out."""
    monkeypatch.setattr(keeping, "_SHARE", 1e12)
    disk_is_free, written = threading.Event(), list[int]()

    def write_checkpoint(file: Artifact, state: Checkpoint) -> None:
        assert disk_is_free.wait(20)
        written.append(state.progress.step)

    def write_slowly(*arguments: Any) -> None:
        time.sleep(0.3)
        write_adapter(*arguments)

    monkeypatch.setattr(keeping, "write_checkpoint", write_checkpoint)
    monkeypatch.setattr(keeping, "write_adapter", write_slowly)
    improving = job("steady", steps=8, reports=8)
    executor, story = new_executor(tmp_path), Story()
    story.hear(executor.launch(improving))
    best = torch.empty(0)
    for passes in range(1, 5):
        finish(executor, story, passes=1)
        losses = [report.losses.val for report in story.reports[improving.id]]
        assert len(losses) == passes
        if losses[-1] == min(losses):
            best = executor.bank.value_RC[: improving.hyperparameters.rank].clone()
        executor.secure([improving])
        assert torch.equal(adapter(executor, tmp_path), best)
    disk_is_free.set()
    executor.keeper.settle(improving.id)
    finish(executor, story, passes=1)
    executor.leave(improving.id, keep=True)
    assert written == [1, 5, 5]


def test_what_goes_wrong_with_a_file_is_told(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "jobs").write_text("in the way of a folder")
    executor, story = new_executor(folder, is_durable=False), Story()
    story.hear(executor.launch(STEADY))
    finish(executor, story, passes=4)
    executor.leave(STEADY.id, keep=False)
    with pytest.raises(OSError, match="jobs"):
        executor.keeper.settle(STEADY.id)


def test_a_paused_job_that_is_stopped_gives_its_rows_back(tmp_path: Path) -> None:
    executor, story = new_executor(tmp_path, is_durable=False), Story()
    story.hear(executor.launch(STEADY))
    finish(executor, story, passes=4)
    executor.leave(STEADY.id, keep=True)
    assert executor.bank.value_RC.any()
    executor.forget(STEADY.id)
    assert not executor.bank.value_RC.any()
    story = Story()
    story.hear(executor.launch(STEADY))
    finish(executor, story)
    assert story.ends == {STEADY.id: Departure.FINISHED}


def test_nobody_waits_for_states_of_jobs_that_are_given_up_and_none_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of five, two are being written."""
    disk_is_free, begun = threading.Event(), threading.Semaphore(0)

    def write_slowly(file: Artifact, state: Checkpoint) -> None:
        begun.release()
        assert disk_is_free.wait(20)
        write_checkpoint(file, state)

    monkeypatch.setattr(keeping, "write_checkpoint", write_slowly)
    executor, story = new_executor(tmp_path, is_durable=False), Story()
    jobs = [job(f"job{n}", steps=4, reports=4, seed=n) for n in range(5)]
    for each in jobs:
        story.hear(executor.launch(each))
    finish(executor, story, passes=2)
    for each in jobs:
        executor.leave(each.id, keep=True)
    executor.expect([job("wide", steps=4, reports=4, rank=99)])
    assert all(begun.acquire(timeout=20) for _ in range(2))
    for each in jobs[:-1]:
        executor.forget(each.id)
        RunDirectory(tmp_path).drop_checkpoint(each.id)
        assert (RunDirectory(tmp_path).job_folder(each.id) / "adapter_config.json").exists()
    disk_is_free.set()
    executor.keeper.close()
    assert [path.stem for path in checkpoints(tmp_path)] == [jobs[-1].id]


def test_reports_do_not_wait_behind_states_of_other_jobs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many are on their way: a best adapter has its own way to the disk."""
    monkeypatch.setattr(keeping, "_SHARE", 1e12)
    disk_is_free = threading.Event()
    monkeypatch.setattr(keeping, "write_checkpoint", lambda *_: disk_is_free.wait(20))
    executor, story = new_executor(tmp_path), Story()
    jobs = [job(f"job{n}", steps=4, reports=4, seed=n) for n in range(20)]
    for each in jobs:
        story.hear(executor.launch(each))
    start = time.monotonic()
    finish(executor, story, passes=3)
    assert time.monotonic() - start < 20
    disk_is_free.set()
    executor.keeper.close()
    of_jobs = [[report.losses.val for report in reports] for reports in story.reports.values()]
    assert sum(losses[1] < losses[0] for losses in of_jobs) > 2, "nobody keeps a second adapter"


def test_who_leaves_for_good_waits_for_no_state_that_nobody_has_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And for a state that is being written: those that nobody has begun to write are given up."""
    monkeypatch.setattr(keeping, "_SHARE", 1e12)
    disk_is_free, written = threading.Event(), list[tuple[str, int]]()

    def write_checkpoint(file: Artifact, state: Checkpoint) -> None:
        assert disk_is_free.wait(20)
        written.append((Path(str(file)).stem, state.progress.step))

    def write_slowly(*arguments: Any) -> None:
        time.sleep(0.3)
        write_adapter(*arguments)

    monkeypatch.setattr(keeping, "write_checkpoint", write_checkpoint)
    monkeypatch.setattr(keeping, "write_adapter", write_slowly)
    jobs = [job(f"job{n}", steps=3, reports=3, seed=n) for n in range(4)]
    executor, story = new_executor(tmp_path), Story()
    for each in jobs:
        story.hear(executor.launch(each))
    finish(executor, story, passes=2)
    assert len(executor.advance()) == len(jobs)
    for each in reversed(jobs):
        assert executor.resume(each.id, 3) is Departure.FINISHED
        if each is jobs[1]:
            threading.Timer(0.5, disk_is_free.set).start()
        executor.leave(each.id, keep=False)
        assert (RunDirectory(tmp_path).job_folder(each.id) / "adapter_config.json").exists()
        if each is jobs[1]:
            assert ("job1", 1) in written, "what is being written may come after it has left"
    assert not executor.residents
    executor.keeper.close()
    assert sorted(written) == [("job0", 1), ("job1", 1)], "two threads had begun"


def test_no_state_is_kept_of_a_job_at_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeping, "_SHARE", 1e12)
    short = job("short", steps=2, reports=2)
    executor, story = new_executor(tmp_path), Story()
    story.hear(executor.launch(short))
    for _ in range(2):
        finish(executor, story, passes=0)
        story.hear(executor.advance()[0])
        executor.keeper.settle(short.id)
        assert kept_step(RunDirectory(tmp_path).checkpoint(short.id)) == 1
    assert [report.step for report in story.reports[short.id]] == [1, 2]
    assert (RunDirectory(tmp_path).job_folder(short.id) / "adapter_config.json").exists()
