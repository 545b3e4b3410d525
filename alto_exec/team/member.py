"""The part of one rank: an executor for the jobs that are its own."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import assert_never

import torch

from alto_exec.executor import Executor
from alto_exec.parallel.ranks import Ranks
from alto_exec.parallel.sharded_decoder import ShardedDecoder
from alto_exec.passes.frozen_model import FrozenModel
from alto_exec.team.commands import (
    ANSWER,
    COMMAND,
    Advance,
    Answer,
    Assist,
    Command,
    Finish,
    Launch,
    Leave,
    Reach,
    Resume,
    ResumeAll,
    Secure,
    Start,
)
from alto_policy.executors.layout import Spread
from alto_policy.memory import MemoryModel
from alto_policy.types import Job, JobId, TaskId

__all__ = ["Loader", "Member"]

_Act = Launch | Leave | Reach | Resume | ResumeAll | Advance  # of an executor that is up


@dataclass(frozen=True, slots=True)
class Loader:
    """How a rank comes to a task's backbone, and to an executor on it."""

    load: Callable[[TaskId, Spread], FrozenModel]  # in shards
    start: Callable[[TaskId, Spread, str | None], tuple[Executor, MemoryModel]]


class Member:
    """Obeys the leader's commands. With a sharded backbone all ranks come to the end of a command
    together, since each takes part in the passes of the others."""

    def __init__(self, ranks: Ranks, jobs: Mapping[JobId, Job], loader: Loader) -> None:
        self._ranks = ranks
        self._jobs = jobs
        self._loader = loader
        self._executor: Executor | None = None

    def follow(self) -> None:
        """Until there is nothing more to do."""
        while not isinstance(command := COMMAND.read(self._ranks.tell()), Finish):
            self._ranks.hear(ANSWER.dump(self.obey(command)))

    def obey(self, command: Command) -> Answer:
        match command:
            case Start(task=task, spread=spread, writer=writer):
                self._executor = None  # its memory comes first
                self._executor, memory = self._loader.start(task, spread, writer)
                answer = Answer(memory=memory)
            case Assist(task=task, spread=spread):
                self._executor = None
                _settle(self._loader.load(task, spread))
                return Answer()
            case Secure(jobs=jobs):
                assert self._executor is not None
                here = [self._jobs[job] for job in jobs if job in self._executor.residents]
                self._executor.secure(here)
                answer = Answer(tokens_trained=self._executor.tokens_trained)
            case Launch() | Leave() | Reach() | Resume() | ResumeAll() | Advance():
                assert self._executor is not None
                answer = self._act(self._executor, command)
            case Finish():
                return Answer()
            case _:
                assert_never(command)
        assert self._executor is not None
        _settle(self._executor.backbone)
        return answer

    def _act(self, executor: Executor, command: _Act) -> Answer:
        answer = Answer()
        match command:
            case Launch(job=job, rank=rank):
                if rank == self._ranks.rank and (report := executor.launch(self._jobs[job])):
                    answer = Answer(reports=(report,))
            case Leave(job=job, keep=keep):
                if job in executor.residents:
                    executor.leave(job, keep=keep)
            case Reach(job=job, step=step, rank=rank):
                if rank == self._ranks.rank:
                    answer = _reach(executor, self._jobs[job], step)
            case Resume(job=job, step=step):
                how = executor.resume(job, step)
                answer = Answer(ends=((job, how),) if how else ())
            case ResumeAll():
                answer = Answer(ends=tuple(executor.resume_all()))
            case Advance():
                answer = _advance(executor)
            case _:
                assert_never(command)
        return replace(answer, tokens_trained=executor.tokens_trained)


def _advance(executor: Executor) -> Answer:
    """One pass, if there is a job."""
    if not executor.residents:
        return Answer()
    try:
        return Answer(reports=tuple(executor.advance()))
    except torch.OutOfMemoryError:
        return Answer(evicted=executor.evict())


def _reach(executor: Executor, job: Job, step: int) -> Answer:
    try:
        executor.reach([(job, step)])
    except torch.OutOfMemoryError:
        if not executor.residents:
            raise
        return Answer(evicted=executor.evict())
    finally:
        if job.id not in executor.residents:
            executor.forget(job.id)
    return Answer()


def _settle(backbone: FrozenModel) -> None:
    if isinstance(backbone, ShardedDecoder):
        backbone.settle()
