"""A run on the ranks that torchrun launched: the first one leads, and the others follow it."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch

from alto_exec.backend import ExecBackend
from alto_exec.comparing import compare
from alto_exec.events.moving import Move
from alto_exec.events.past import Past
from alto_exec.executor import Executor
from alto_exec.host.machine import gpu_of, settle
from alto_exec.parallel.ranks import Ranks, join_launched_ranks
from alto_exec.parallel.sharded_decoder import ShardedDecoder
from alto_exec.passes.frozen_model import FrozenModel
from alto_exec.preparation import PreparedTask, prepare
from alto_exec.site import RunToTrain, Start, TrainingBackend
from alto_exec.team.commands import COMMAND, Assist, Finish
from alto_exec.team.leader import Team
from alto_exec.team.member import Loader, Member
from alto_exec.team.placing import load_shards, spread_of
from alto_policy.executors.layout import Layout, Spread
from alto_policy.memory import MemoryModel
from alto_policy.types import Gpu, GpuId, Job, JobId, Task, TaskId
from alto_policy.view import ClusterView
from alto_runs.errors import UserError
from alto_runs.files.directory import RunDirectory
from alto_runs.outcomes.comparison import Comparison
from alto_runs.result import Result
from alto_runs.study import ExecutorSpec, Study, load_study

__all__ = ["LeadingRank", "follow", "joined", "loader_of"]


class LeadingRank:
    """The site of the leader. Each task trains on all ranks, which so have it one after another.

    How a backbone lies on them is chosen for each task if it is not given.
    """

    def __init__(self, ranks: Ranks, spread: Spread | None = None) -> None:
        self._ranks = ranks
        self._spread = spread
        self._spreads: dict[TaskId, Spread] = {}
        self._starts: dict[TaskId, Start] = {}
        self._jobs: dict[JobId, Job] = {}
        self.has_begun = False

    def settle(self, spec: ExecutorSpec) -> ExecutorSpec:
        if spec.gpus not in (None, self._ranks.size):
            raise UserError(
                f"executor.gpus: value {spec.gpus}: expected {self._ranks.size}, as many as there "
                "are processes"
            )
        if spec.max_gpus not in (None, self._ranks.size):
            raise UserError(
                f"executor.max_gpus: value {spec.max_gpus}: a task has all {self._ranks.size} "
                "processes here, expected --cluster"
            )
        return settle(spec.model_copy(update={"gpus": self._ranks.size}))

    def gpus(self, spec: ExecutorSpec) -> tuple[Gpu, ...]:
        one = gpu_of(spec)
        return tuple(replace(one, id=GpuId(rank)) for rank in range(self._ranks.size))

    def move(self, spec: ExecutorSpec, past: Past, view: ClusterView) -> Move:
        return Move.of(view, self.gpus(spec), past.lost_nodes, self._ranks.size)

    @contextmanager
    def backend(self, run: RunToTrain) -> Iterator[TrainingBackend]:
        self._ranks.tell(str(run.directory.path.absolute()))
        self.has_begun = True
        loader = loader_of(self._ranks, self._starts)
        member = Member(self._ranks, self._jobs, loader)

        def start(task: Task) -> tuple[Team, MemoryModel] | None:
            begun = run.files.next_start(task)
            if begun is None:
                return None
            self._starts[task.id] = begun
            self._jobs.update((job.id, job) for job in task.jobs)
            spread = self._spread or spread_of(begun.prepared, begun.spec, self._ranks)
            self._spreads[task.id] = spread
            team = Team(self._ranks, member)
            return team, team.start(task.id, spread, begun.directory.writer)

        yield ExecBackend(run.inbox, start, run.files.directory_of, run.past)

    def compare(
        self, study: Study, prepared: Sequence[PreparedTask], result: Result
    ) -> tuple[Comparison, ...]:
        """With the ranks' help for a backbone that no one of them may hold."""
        helped: list[ShardedDecoder] = []

        def load(one: PreparedTask) -> FrozenModel:
            self._release(helped)
            spread = self._spreads.get(one.task.id)
            if spread is None or spread.layout is Layout.COPIES:
                return one.load(study.executor)
            self._ranks.tell(COMMAND.dump(Assist(one.task.id, spread)))
            helped.append(load_shards(one, study.executor, self._ranks, spread))
            return helped[0]

        found = compare(study, prepared, result.best, load)
        self._release(helped)
        return found

    def dismiss(self) -> None:
        """Let the other ranks go."""
        self._ranks.tell(COMMAND.dump(Finish()) if self.has_begun else "")

    def _release(self, helped: list[ShardedDecoder]) -> None:
        if helped:
            helped.pop().settle()
            self._ranks.hear("")


def follow(ranks: Ranks) -> None:
    """Train what the leader says, until it says no more."""
    told = ranks.tell()
    if told:
        directory = RunDirectory.known(Path(told))
        study = load_study(directory.study_path)
        prepared = prepare(study)
        starts = {one.task.id: Start(one, study.executor, directory) for one in prepared}
        jobs = {job.id: job for one in prepared for job in one.task.jobs}
        Member(ranks, jobs, loader_of(ranks, starts)).follow()


@contextmanager
def joined(study: Study) -> Iterator[LeadingRank | None]:
    """The site of a leader; on the other ranks all is done, and there is None.

    A leader that fails takes the others with it.
    """
    is_on_gpus = study.executor.device != "cpu" and torch.cuda.is_available()
    ranks = join_launched_ranks(torch.device("cuda" if is_on_gpus else "cpu"))
    if not ranks.is_leader:
        follow(ranks)
        ranks.leave()
        yield None
        return
    site = LeadingRank(ranks)
    try:
        yield site
    except UserError:
        if not site.has_begun:
            site.dismiss()
            ranks.leave()
        raise
    site.dismiss()
    ranks.leave()


def loader_of(ranks: Ranks, starts: Mapping[TaskId, Start]) -> Loader:
    """Of a rank, for tasks of which `starts` knows, or will know when they are loaded."""

    def load(task: TaskId, spread: Spread) -> FrozenModel:
        return load_shards(starts[task].prepared, starts[task].spec, ranks, spread)

    def start(task: TaskId, spread: Spread, writer: str | None) -> tuple[Executor, MemoryModel]:
        prepared, spec = starts[task].prepared, starts[task].spec
        directory = replace(starts[task].directory, writer=writer)
        if spread.layout is Layout.COPIES:
            return prepared.start(spec, directory)
        return prepared.start(
            spec, directory, lambda spec: load_shards(prepared, spec, ranks, spread)
        )

    return Loader(load, start)
