"""An executor on several ranks, as its leader sees it: the face of an `Executor`."""

from collections.abc import Sequence
from dataclasses import replace

import torch

from alto_exec.executor import Report
from alto_exec.parallel.ranks import Ranks, ranks_in_one_memory
from alto_exec.team.commands import (
    ANSWER,
    COMMAND,
    Advance,
    Answer,
    Command,
    Launch,
    Leave,
    Reach,
    Resume,
    ResumeAll,
    Secure,
    Start,
)
from alto_exec.team.member import Member
from alto_policy.events import Departure
from alto_policy.executors.layout import Spread
from alto_policy.memory import MemoryModel
from alto_policy.types import Job, JobId, TaskId

__all__ = ["Team"]


class Team:
    """The leader's own rank and all others. A job trains on the rank that it was launched on."""

    def __init__(self, ranks: Ranks, member: Member) -> None:
        self._ranks = ranks
        self._member = member
        self._rank_of: dict[JobId, int] = {}  # in the order of launching
        self._waiting: dict[JobId, int] = {}  # have reported at a step, decisions are to come
        self._evicted: list[JobId] = []  # have left their rank, and nobody has been told
        self._tokens_by_rank: tuple[int, ...] = (0,) * ranks.size

    @property
    def residents(self) -> Sequence[JobId]:
        return tuple(self._rank_of)

    @property
    def training(self) -> Sequence[JobId]:
        """Residents that do not wait for decisions."""
        return tuple(job for job in self._rank_of if job not in self._waiting)

    @property
    def tokens_trained(self) -> int:
        return sum(self._tokens_by_rank)

    @property
    def keeper(self) -> None:
        """Each rank keeps for itself, before it tells."""
        return

    def expect(self, jobs: Sequence[Job]) -> None:
        """Which of them will be a rank's is not known to it."""

    def reach(self, targets: Sequence[tuple[Job, int]]) -> None:
        """One job after another, on its rank. Raises OutOfMemoryError, and then a job is to be
        evicted."""
        for job, step in targets:
            answers = self._all(Reach(job.id, step, self._rank_of.get(job.id, 0)))
            self._evicted = [a.evicted for a in answers if a.evicted is not None]
            if self._evicted:
                raise torch.OutOfMemoryError

    def secure(self, jobs: Sequence[Job]) -> None:
        """Have their best adapters on disk."""
        self._all(Secure(tuple(job.id for job in jobs)))

    def forget(self, job: JobId) -> None:
        """A rank that a job has left knows nothing of it."""

    def start(self, task: TaskId, spread: Spread, writer: str | None = None) -> MemoryModel:
        """Come up with the task's backbone, as this writer of the run's folder; what each of the
        ranks can hold."""
        models = [answer.memory for answer in self._all(Start(task, spread, writer))]
        found = [model for model in models if model is not None]
        here = ranks_in_one_memory(self._ranks.device, self._ranks.size)
        return replace(
            max(found, key=lambda model: model.fixed),
            capacity=min(model.capacity for model in found) // here,
            per_token=max(model.per_token for model in found),
        )

    def launch(self, job: Job, place: int = 0) -> Report | None:
        """Give the job a slot on the rank: a new one, or from its checkpoint, whichever rank has
        written it."""
        answers = self._all(Launch(job.id, place))
        self._rank_of[job.id] = place
        return next(iter(_noted(answers, self._waiting)), None)

    def leave(self, job: JobId, *, keep: bool) -> None:
        """Free the job's slot; what it has come to is kept on disk if it is to go on."""
        del self._rank_of[job]
        self._waiting.pop(job, None)
        if job in self._evicted:
            self._evicted.remove(job)
        else:
            self._all(Leave(job, keep))

    def resume_all(self) -> list[tuple[JobId, Departure]]:
        """Decisions on all reports have come: the jobs train on, but for those named, which are
        at their end."""
        ends = [end for answer in self._all(ResumeAll()) for end in answer.ends]
        self._waiting = {job: self._waiting[job] for job, _ in ends}
        return ends

    def resume(self, job: JobId, step: int) -> Departure | None:
        """Decisions on the job's report of `step` have come: it trains on, or waits to leave at
        its end. If that is not what it waits for, nothing happens."""
        if self._waiting.get(job) != step:
            return None
        for answer in self._all(Resume(job, step)):
            for _, how in answer.ends:
                return how
        del self._waiting[job]
        return None

    def advance(self) -> list[Report]:
        """Make one fused pass on every rank; the reports that became due by it.

        Raises OutOfMemoryError, before it does anything, if a rank had to give up a job.
        """
        if self._evicted:
            raise torch.OutOfMemoryError
        answers = self._all(Advance())
        self._evicted = [a.evicted for a in answers if a.evicted is not None]
        return _noted(answers, self._waiting)

    def evict(self) -> JobId:
        """The job that a rank gave up when its memory ran out; it is kept on disk."""
        job = self._evicted.pop(0)
        del self._rank_of[job]
        return job

    def _all(self, command: Command) -> list[Answer]:
        """What each rank says to the command, by rank."""
        self._ranks.tell(COMMAND.dump(command))
        own = self._member.obey(command)
        answers = [ANSWER.read(text) for text in self._ranks.hear(ANSWER.dump(own))]
        if not isinstance(command, Start):
            self._tokens_by_rank = tuple(answer.tokens_trained for answer in answers)
        return answers


def _noted(answers: Sequence[Answer], waiting: dict[JobId, int]) -> list[Report]:
    """The reports among them; their jobs wait from now on."""
    reports = [report for answer in answers for report in answer.reports]
    waiting.update((report.job, report.step) for report in reports)
    return reports
