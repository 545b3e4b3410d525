"""The rows of the bank are no more than memory has room for, and no job feels that they move."""

from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from alto_exec.adapters import bank_memory
from alto_exec.adapters.bank import AdapterBank, LinearShape
from alto_exec.adapters.bank_memory import BankMemory
from alto_exec.adapters.peft_format import read_adapter
from alto_exec.backbones.decoder import Decoder
from alto_exec.data.dataset import Dataset, Dropped
from alto_exec.executor import Executor
from alto_exec.jobs.seating import Space
from alto_policy.memory import KeptActivations, MeasuredPasses, MemoryModel
from alto_policy.types import Job
from alto_runs.files.directory import RunDirectory
from tests.exec.comparing import assert_same_training
from tests.exec.test_executor import JOBS, STEADY, TRAIN, VALIDATION, Story, finish, job
from tests.exec.tiny_models import tiny_llama

LENGTH = 8
# A unit of rank is as large as ten tokens: 100 units in all.
SMALL = MemoryModel(capacity=1_000, fixed=0, per_rank=10, per_token=1)


def an_executor(folder: Path, space: Space | None, *, is_durable: bool = False) -> Executor:
    dataset = Dataset(tuple(TRAIN), tuple(VALIDATION), Dropped(0, 0), 0)
    backbone = Decoder(tiny_llama()[0])
    bank = AdapterBank(backbone.shapes, backbone.device, rows=0)
    return Executor(
        backbone, dataset, RunDirectory(folder), bank=bank, space=space, is_durable=is_durable
    )


def tiny_llama_shapes() -> tuple[LinearShape, ...]:
    return Decoder(tiny_llama()[0]).shapes


def rows_of(jobs: list[Job]) -> int:
    return sum(each.hyperparameters.rank for each in jobs)


def test_rows_that_passes_need_are_not_the_banks() -> None:
    space, two = Space(SMALL, LENGTH), [job("one", rank=10), job("two", rank=20, batch_size=4)]
    assert SMALL.bytes(two, LENGTH) == 340
    assert space.most_rows(two) == 96
    assert space.most_rows([job("large", rank=4, batch_size=200)]) == 4, "never less than its own"
    keeping = replace(SMALL, kept=KeptActivations(per_token=5))
    assert Space(keeping, LENGTH).most_rows(two) == 80, "activations may be kept"


@settings(
    max_examples=40,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    st.lists(
        st.tuples(st.sampled_from(["launch", "pause", "stop"]), st.integers(0, 7)), max_size=30
    )
)
def test_rows_beside_what_passes_need_fit_whoever_comes_and_goes(
    tmp_path: Path, script: list[tuple[str, int]]
) -> None:
    """A launch that fits by the model finds a bank that fits."""
    space = Space(SMALL, LENGTH)
    executor = an_executor(tmp_path, space)
    jobs = [
        job(f"job-{number}", rank=rank, batch_size=batch_size)
        for number, (rank, batch_size) in enumerate(
            [(8, 1), (16, 1), (32, 2), (4, 60), (2, 110), (24, 3), (1, 1), (12, 30)]
        )
    ]
    here: list[Job] = []
    for move, number in script:
        chosen = jobs[number]
        if move == "launch" and chosen not in here and SMALL.fits([*here, chosen], LENGTH):
            executor.launch(chosen)
            here.append(chosen)
        elif move != "launch" and chosen in here:
            executor.leave(chosen.id, keep=move == "pause")
            here.remove(chosen)
        assert rows_of(here) <= executor.bank.num_rows <= max(space.most_rows(here), 100)
        if move == "launch" and here:
            assert executor.bank.num_rows <= space.most_rows(here)


def tight(jobs: tuple[Job, ...]) -> Space:
    """Room for the rows of these jobs side by side, and for no others."""
    model = replace(SMALL, per_token=0)
    return Space(replace(model, capacity=model.bytes(jobs, LENGTH)), LENGTH)


@pytest.mark.parametrize("is_durable", [True, False], ids=["durable", "lagging"])
def test_jobs_train_to_the_same_bits_in_a_bank_that_is_compacted(
    is_durable: bool, tmp_path: Path
) -> None:
    """Within a step of two passes as well, whose first gradients move with the job."""
    stories = []
    first, second = job("first", rank=8, steps=4, reports=2), job("second", rank=2, seed=5)
    for name, space in (("roomy", None), ("tight", tight((STEADY, second)))):
        executor, story = an_executor(tmp_path / name, space, is_durable=is_durable), Story()
        for each in (first, STEADY):
            story.hear(executor.launch(each))
        finish(executor, story, passes=3)
        executor.leave(first.id, keep=True)
        executor.expect([second])
        story.hear(executor.launch(second))
        assert executor.bank.num_rows == (11 if space is None else 5)
        finish(executor, story)
        stories.append(story)
    roomy, compacted = stories
    assert compacted.ends == roomy.ends
    for each in (STEADY, second):
        assert_same_training(
            compacted.losses(each.id), roomy.losses(each.id), bitwise=True, what=each.id
        )


def test_a_bank_in_pieces_is_put_together_and_does_not_grow(tmp_path: Path) -> None:
    executor = an_executor(tmp_path, None)
    jobs = [job(f"job-{number}", rank=4) for number in range(4)]
    for each in jobs:
        executor.launch(each)
    for each in jobs[::2]:
        executor.leave(each.id, keep=False)
    executor.launch(job("wide", rank=8))
    assert executor.bank.num_rows == 16


def test_the_bank_grows_once_for_all_that_are_launched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside those who train; who has paused leaves first, but not who is among them."""
    executor = an_executor(tmp_path, None)
    trains, pauses, returns = (job(name, rank=4) for name in ("trains", "pauses", "returns"))
    for each in (trains, pauses, returns):
        executor.launch(each)
    for each in (pauses, returns):
        executor.leave(each.id, keep=True)
    sizes: list[int] = []
    resize = BankMemory.resize

    def resized(memory: BankMemory, rows: int) -> None:
        sizes.append(rows)
        resize(memory, rows)

    monkeypatch.setattr(BankMemory, "resize", resized)
    group = [*(job(f"job-{number}", rank=rank) for number, rank in enumerate((4, 2, 8))), returns]
    executor.expect(group)
    kept = executor._seating._parked
    assert list(kept) == [returns.id]
    for each in group:
        executor.launch(each)
    assert sizes == [4 + 4 + 2 + 8 + 4]
    assert executor.launch(pauses) is None
    assert sizes == [22, 26]


def test_when_memory_has_run_out_only_those_who_train_have_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    executor, story = an_executor(tmp_path, None), Story()
    for each in JOBS:
        story.hear(executor.launch(each))
    finish(executor, story, passes=2)
    ranks = rows_of(list(JOBS))
    assert executor.bank.num_rows == ranks
    with monkeypatch.context() as patch:
        patch.setattr(Decoder, "train", out_of_memory)
        with pytest.raises(torch.OutOfMemoryError):
            executor.advance()
    evicted = executor.evict()
    finish(executor, story, passes=1)
    left = [each for each in JOBS if each.id != evicted and each.id not in story.ends]
    assert executor.bank.num_rows == rows_of(left) < ranks
    assert executor.bank.num_taken_rows == rows_of(left)


def out_of_memory(*_: object) -> NoReturn:
    raise torch.OutOfMemoryError


def test_a_bank_that_moves_is_counted_on() -> None:
    """One of its tensors is there twice while it shrinks from, or grows to, as many rows."""
    passes = MeasuredPasses(peaks=((1, 1),), per_row_rank=0, per_rank_moving=6, evaluation=1)
    memory = replace(SMALL, fixed=40, passes=passes)
    rows = Space(memory, LENGTH).most_rows([job("one", rank=2)])
    assert 40 + rows * (10 + 6) <= memory.capacity < 40 + (rows + 1) * (10 + 6)
    many = [job(f"job-{number}", rank=10) for number in range(9)]
    assert Space(memory, LENGTH).most_rows(many) == 90, "never less than their own"


def with_memory_for(rows: int, monkeypatch: pytest.MonkeyPatch, *, tensors: int = 0) -> None:
    """A device on which tensors of more rows cannot be made, but for the first few."""
    resized, left = bank_memory._resized, tensors

    def on_small_device(bank_RC: Tensor, wanted: int) -> Tensor:
        nonlocal left
        if wanted > rows and not left:
            raise torch.OutOfMemoryError("no room")
        left -= wanted > rows
        return resized(bank_RC, wanted)

    monkeypatch.setattr(bank_memory, "_resized", on_small_device)


@pytest.mark.parametrize("tensors", range(5))
def test_a_bank_that_cannot_grow_is_as_it_was(
    tensors: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    bank = AdapterBank(tiny_llama_shapes(), torch.device("cpu"), rows=0, dtype=torch.bfloat16)
    slot = bank.join(bank.fresh(4, seed=1))
    before = bank.state(slot)
    with monkeypatch.context() as patch:
        with_memory_for(4, patch, tensors=tensors)
        with pytest.raises(torch.OutOfMemoryError):
            bank.join(bank.fresh(3, seed=2))
    memory = bank.memory
    kept = (memory.value_RC, memory.grad_RC, memory.shadow_RC, *memory.moments.tensors.values())
    assert {len(tensor) for tensor in kept} == {4}
    assert memory.is_loose is (tensors > 0)
    assert torch.equal(bank.state(slot).value_rC, before.value_rC)
    assert torch.equal(memory.shadow_RC, before.value_rC.bfloat16())
    bank.give_back(4)
    assert not memory.is_loose
    other = bank.fresh(3, seed=2)
    assert torch.equal(bank.state(bank.join(other)).value_rC, other.value_rC)


def test_rows_move_without_memory_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    bank = AdapterBank(tiny_llama_shapes(), torch.device("cpu"), rows=0)
    slots = [bank.join(bank.fresh(rank, seed=rank)) for rank in (2, 7, 3, 5)]
    before = [bank.state(slot).value_rC for slot in slots]
    for number in (0, 2):
        bank.leave(slots[number])
    monkeypatch.setattr(Tensor, "clone", out_of_memory)
    moved = bank.compact()
    for number in (1, 3):
        assert torch.equal(bank.value_RC[moved[slots[number]].rows], before[number])


@pytest.mark.parametrize("space", [None, Space(SMALL, LENGTH)], ids=["unbounded", "bounded"])
def test_a_job_without_room_for_its_rows_leaves_and_comes_back(
    space: Space | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others train on to the bits that they would have come to, and so does it, later."""
    stories = []
    first, second = job("first", rank=4, seed=3), job("second", rank=2, seed=5)
    for name in ("roomy", "small"):
        executor, story = an_executor(tmp_path / name, space), Story()
        executor.expect([first])
        story.hear(executor.launch(first))
        with monkeypatch.context() as patch:
            if name == "small":
                with_memory_for(4, patch)
                executor.expect([second])
                assert executor.launch(second) is None
                assert executor.training == (first.id, second.id)
                assert executor.residents == executor.training
                with pytest.raises(torch.OutOfMemoryError):
                    executor.advance()
                assert executor.evict() == second.id
                assert list(executor.residents) == [first.id]
            finish(executor, story)
        executor.expect([second])
        story.hear(executor.launch(second))
        finish(executor, story)
        stories.append(story)
    for each in (first, second):
        losses = [story.losses(each.id) for story in stories]
        assert_same_training(losses[1], losses[0], bitwise=True, what=each.id)


@pytest.mark.parametrize("passes", [0, 3], ids=["training", "waiting for a decision"])
def test_where_a_job_has_to_come_back_to_others_make_room(
    passes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its best adapter becomes what the log says that it was; those train on later, to the same
    bits."""
    gone, other = job("gone", rank=4, seed=3), job("other", rank=2, seed=5, steps=6, reports=2)
    lasting, roomy = an_executor(tmp_path / "lasting", None), Story()
    for each in (gone, other):
        roomy.hear(lasting.launch(each))
        finish(lasting, roomy)
    lasting.keeper.close()
    heir, story = an_executor(tmp_path / "heir", None), Story()
    story.hear(heir.launch(other))
    for _ in range(passes):
        for report in heir.advance():
            story.hear(report)
    with monkeypatch.context() as patch:
        with_memory_for(4, patch)
        with pytest.raises(torch.OutOfMemoryError):
            heir.reach([(gone, gone.steps)])
        assert heir.evict() == other.id
        heir.reach([(gone, gone.steps)])
    heir.keeper.keep_best(gone)
    heir.keeper.settle(gone.id)
    heir.forget(gone.id)
    found, wanted = (
        read_adapter(RunDirectory(tmp_path / name).job_folder(gone.id), heir.bank).value_rC
        for name in ("heir", "lasting")
    )
    assert torch.equal(found, wanted)
    story.hear(heir.launch(other))
    finish(heir, story)
    assert_same_training(story.losses(other.id), roomy.losses(other.id), bitwise=True, what="other")


def test_a_step_without_memory_on_the_way_back_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From its first pass on, in the rows that the job has by then."""
    undisturbed, executor = (an_executor(tmp_path / name, None) for name in ("first", "second"))
    undisturbed.reach([(STEADY, STEADY.steps)])
    train, passes = Decoder.train, iter((1, 2))

    def fail_late(*operands: Any) -> Tensor:
        """What of the second pass has come to the gradients stays there."""
        losses = train(*operands)
        return losses if next(passes) == 1 else out_of_memory()

    with monkeypatch.context() as patch:
        patch.setattr(Decoder, "train", fail_late)
        with pytest.raises(torch.OutOfMemoryError):
            executor.reach([(STEADY, STEADY.steps)])
    executor.reach([(STEADY, STEADY.steps)])
    assert executor.bank.num_taken_rows == rows_of([STEADY])
    assert executor.launch(STEADY) == undisturbed.launch(STEADY)


def test_a_job_without_room_may_be_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    executor = an_executor(tmp_path, None)
    with_memory_for(0, monkeypatch)
    executor.launch(job("one", rank=4))
    executor.leave(job("one").id, keep=False)
    executor.forget(job("one").id)
    assert executor.residents == ()
