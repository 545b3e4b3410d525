"""A team of ranks is an executor like any other: jobs come, report, move, are evicted, and end."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from alto_exec.adapters.bank import AdapterBank
from alto_exec.backbones.decoder import Decoder
from alto_exec.data.dataset import Dataset, Dropped
from alto_exec.executor import Executor, Report
from alto_exec.jobs import keeping
from alto_exec.jobs.claims import succeeding
from alto_exec.parallel.ranks import Ranks
from alto_exec.parallel.sharded_decoder import ShardedDecoder
from alto_exec.passes.frozen_model import FrozenModel
from alto_exec.team.commands import COMMAND, Finish
from alto_exec.team.leader import Team
from alto_exec.team.member import Loader, Member
from alto_policy.events import Departure
from alto_policy.executors.layout import Layout, Spread
from alto_policy.memory import MemoryModel
from alto_policy.types import TaskId
from alto_runs.files.directory import RunDirectory
from tests.exec.comparing import assert_close, assert_same_training, in_double_precision
from tests.exec.packed_loop import ragged_samples
from tests.exec.test_executor import Story, job
from tests.parallel.ranks_of_processes import outcomes
from tests.parallel.test_sharded_decoder import model_of

TRAIN, VALIDATION = ragged_samples(), ragged_samples(6, seed=1)
STEADY, WIDE = job("steady", accumulation=2, seed=1), job("wide", rank=7, batch_size=3)
SHORT = job("short", steps=2, reports=2, seed=2)
BROKEN = job("broken", alpha=1e300, learning_rate=1e300, seed=3)
JOBS = (STEADY, WIDE, SHORT, BROKEN)
MEMORY = MemoryModel(capacity=900, fixed=10, per_rank=1, per_token=1)


class Narrow(Executor):
    """Runs out of memory once, in its second pass."""

    num_passes = 0

    def advance(self) -> list[Report]:
        self.num_passes += 1
        if self.num_passes == 2:
            raise torch.OutOfMemoryError
        return super().advance()


def new_executor(kind: type[Executor], model: FrozenModel, directory: RunDirectory) -> Executor:
    dataset = Dataset(tuple(TRAIN), tuple(VALIDATION), Dropped(0, 0), 0)
    bank = AdapterBank(model.shapes, model.device, rows=0)
    return kind(model, dataset, directory, bank=bank)


def start_on(
    kind: type[Executor],
    model: FrozenModel,
    folder: Path,
    task: TaskId,
    spread: Spread,
    writer: str | None,
) -> tuple[Executor, MemoryModel]:
    assert writer is not None, "each rank writes as the leader does"
    return new_executor(kind, model, RunDirectory(folder, writer=writer)), MEMORY


def end_those_at_their_ends(executor: Executor | Team, story: Story) -> None:
    for name, how in executor.resume_all():
        executor.leave(name, keep=True)
        story.ends[name] = how


def train_together(ranks: Ranks, folder: Path) -> tuple[Story, MemoryModel, int] | None:
    """Three ranks: one is without a job at first, one runs out of memory, one job moves."""
    vars(keeping)["_SHARE"] = 1e-12  # nothing is kept before somebody asks for it
    with in_double_precision():
        model = ShardedDecoder(model_of("llama"), ranks)
        kind = Narrow if ranks.rank == 1 else Executor
        loader = Loader(
            load=lambda task, spread: model,
            start=partial(start_on, kind, model, folder),
        )
        member = Member(ranks, {each.id: each for each in JOBS}, loader)
        if not ranks.is_leader:
            member.follow()
            return None
        team, story = Team(ranks, member), Story()
        writer = succeeding(RunDirectory(folder), TaskId("task")).writer
        memory = team.start(TaskId("task"), Spread(layout=Layout.SHARDS), writer)
        for each, rank in ((STEADY, 1), (WIDE, 0), (SHORT, 1), (BROKEN, 0)):
            story.hear(team.launch(each, rank))
        places = dict(play(team, story, folder))
        assert places == {"evicted": "short", "moved": "wide"}
        ranks.tell(COMMAND.dump(Finish()))
        return story, memory, team.tokens_trained


def play(team: Team, story: Story, folder: Path) -> Iterator[tuple[str, str]]:
    passes = 0
    while team.residents:
        try:
            for report in team.advance():
                story.hear(report)
                if report.job == STEADY.id:  # on another rank than the leader's
                    team.secure([STEADY, WIDE])
                    assert RunDirectory(folder).job_folder(STEADY.id).is_dir()
        except torch.OutOfMemoryError:
            gone = team.evict()
            yield "evicted", str(gone)
            assert gone not in team.residents
            story.hear(team.launch(SHORT, 2))
        passes += 1
        if passes == 2:
            team.leave(WIDE.id, keep=True)
            story.hear(team.launch(WIDE, 2))
            yield "moved", str(WIDE.id)
        end_those_at_their_ends(team, story)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("team")


def test_as_on_one_device_whatever_happens_to_the_jobs(folder: Path) -> None:
    leader, *others = outcomes(train_together, 3, folder / "ranks")
    assert others == [None, None]
    found, memory, tokens = leader
    assert memory == MemoryModel(capacity=300, fixed=10, per_rank=1, per_token=1)
    with in_double_precision():
        executor, expected = (
            new_executor(Executor, Decoder(model_of("llama")), RunDirectory(folder / "one")),
            Story(),
        )
        for each in JOBS:
            expected.hear(executor.launch(each))
        while executor.residents:
            for report in executor.advance():
                expected.hear(report)
            end_those_at_their_ends(executor, expected)
    assert found.ends == expected.ends
    assert found.ends[BROKEN.id] is Departure.FAILED
    for each in (STEADY, WIDE, SHORT):
        assert [r.step for r in found.reports[each.id]] == [
            r.step for r in expected.reports[each.id]
        ]
        assert_same_training(found.losses(each.id), expected.losses(each.id), what=each.id)
        ours, theirs = (
            load_file(str(RunDirectory(path).checkpoint(each.id)))
            for path in (folder / "ranks", folder / "one")
        )
        for name, tensor in theirs.items():
            assert_close(ours[name], tensor, f"{each.id}: {name}")
    assert tokens >= executor.tokens_trained
