"""What an executor's process is told once, when it has been forked."""

import os
import threading
import traceback
from dataclasses import dataclass, replace

import torch

from alto_exec.host.process import multiply_with
from alto_exec.jobs.checkpoint import kept_step
from alto_exec.parallel.ranks import (
    Ranks,
    is_launched_beside_another,
    join_launched_ranks,
    num_launched_ranks,
)
from alto_exec.ray_cluster.node.berth import MEETING
from alto_exec.ray_cluster.node.worker import Crew, Worker
from alto_exec.site import Start
from alto_exec.team.launched import loader_of
from alto_exec.team.leader import Team
from alto_exec.team.member import Member
from alto_exec.team.placing import spread_of, widths_of
from alto_policy.memory import MemoryModel
from alto_runs.errors import UserError

__all__ = ["Duty"]


@dataclass(frozen=True, slots=True)
class Duty:
    """To train a task of a run; alone, or as one of several ranks, as the variables say that
    torchrun sets too."""

    start: Start
    hold_seconds: float
    answer_seconds: float

    def begin(self) -> Worker | None:
        """Nobody speaks to a rank that follows another."""
        if num_launched_ranks() == 1:
            return Worker(self._executor, self.hold_seconds, self.answer_seconds)
        if is_launched_beside_another():
            threading.Thread(target=self._follow, name="training", daemon=True).start()
            return None
        return Worker(self._team, self.hold_seconds, self.answer_seconds)

    def _executor(self) -> tuple[Crew, MemoryModel]:
        self._check_place()
        return self._caught_up(*self.start())

    def _team(self) -> tuple[Crew, MemoryModel]:
        self._check_place()
        ranks, member = self._joined()
        team = Team(ranks, member)
        spread = spread_of(self.start.prepared, self.start.spec, ranks)
        writer = self.start.directory.writer
        memory = team.start(self.start.prepared.task.id, spread, writer)
        return self._caught_up(team, memory)

    def _caught_up(self, crew: Crew, memory: MemoryModel) -> tuple[Crew, MemoryModel]:
        """Whatever the log tells of is on disk from now on: an executor may be lost before it has
        kept what it told, and a device alone, on which the run may have been before, keeps less
        often than it reports. A job that is behind may be stopped before it is there again."""
        jobs = {job.id: job for job in self.start.prepared.task.jobs}
        crew.reach(
            [
                (jobs[job], step)
                for job, step in self.start.reported
                if kept_step(self.start.directory.checkpoint(job)) < step
            ]
        )
        widths = widths_of(self.start.prepared, self.start.spec)
        return crew, replace(memory, widths=widths) if widths else memory

    def _follow(self) -> None:
        """Until the leader is gone, or this rank fails, which the others notice."""
        try:
            self._joined()[1].follow()
        finally:
            traceback.print_exc()
            os._exit(1)

    def _joined(self) -> tuple[Ranks, Member]:
        task = self.start.prepared.task
        assert self.start.spec.threads is not None
        multiply_with(self.start.spec.threads)
        ranks = join_launched_ranks(torch.device(self.start.spec.device), os.environ[MEETING])
        loader = loader_of(ranks, {task.id: self.start})
        return ranks, Member(ranks, {job.id: job for job in task.jobs}, loader)

    def _check_place(self) -> None:
        directory = self.start.directory
        if directory.stored_at is None and not directory.path.is_dir():
            raise UserError(
                f"{directory.path}: is not seen from every node of the cluster, expected a folder "
                "on a disk that all share, or a URL that all reach (--artifacts)"
            )
