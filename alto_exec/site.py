"""Where a run trains: on the device of this machine, or on a cluster."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import Protocol

from alto_exec.backend import ExecBackend, StartedExecutor
from alto_exec.comparing import compare
from alto_exec.events.inbox import Inbox
from alto_exec.events.moving import Move
from alto_exec.events.past import Past
from alto_exec.host.machine import gpu_of, settle
from alto_exec.jobs.claims import succeeding
from alto_exec.preparation import PreparedTask
from alto_policy.controller import Backend
from alto_policy.decisions import Decision
from alto_policy.policies import Settings, chooses_widths
from alto_policy.types import Gpu, JobId, Task, TaskId
from alto_policy.view import ClusterView
from alto_runs.errors import UserError
from alto_runs.files.directory import RunDirectory
from alto_runs.files.scratch import sweep_folders
from alto_runs.outcomes.comparison import Comparison
from alto_runs.result import Result
from alto_runs.study import ExecutorSpec, Study

__all__ = [
    "RunToTrain",
    "Site",
    "Start",
    "TaskFiles",
    "ThisMachine",
    "TrainingBackend",
    "check_widths",
]


@dataclass(frozen=True, slots=True)
class Start:
    """How a task's executor comes up; goes to other processes. A durable one has on disk whatever
    it tells of."""

    prepared: PreparedTask
    spec: ExecutorSpec
    directory: RunDirectory
    reported: tuple[tuple[JobId, int], ...] = ()  # what the log tells of jobs that will go on

    def __call__(self, *, is_durable: bool = True) -> StartedExecutor:
        return self.prepared.start(self.spec, self.directory, is_durable=is_durable)


@dataclass(frozen=True, slots=True)
class TaskFiles:
    """What is to be known of a task to train it, and to give it up."""

    start_of: Callable[[Task], Start | None]  # None costs the task: it is as good as cancelled
    directory_of: Callable[[TaskId], RunDirectory]
    fail: Callable[[TaskId, str], None]  # raises, or else the task is as good as cancelled

    def next_start(self, task: Task) -> Start | None:
        """Of another executor: those of the task before it write no more."""
        start = self.start_of(task)
        return start and replace(start, directory=succeeding(start.directory, task.id))


@dataclass(frozen=True, slots=True, kw_only=True)
class RunToTrain:
    """What comes by the inbox is trained, from where the log ends."""

    spec: ExecutorSpec
    inbox: Inbox
    files: TaskFiles
    directory: RunDirectory  # by which its processes on a cluster are known
    past: Past
    ledger: ClusterView


class TrainingBackend(Backend, Protocol):
    @property
    def tokens_trained(self) -> int: ...

    def prepare(self, decisions: Sequence[Decision]) -> None:
        """The log is about to tell of these: what it then counts on must be on disk first. Raises
        UndecidedError where that cannot be: whoever asked goes on from where the log ends."""
        ...


def check_widths(spec: ExecutorSpec, policy: Settings) -> None:
    """Raises UserError where tasks may have more GPUs than their least and nobody would say so."""
    if len(spec.widths) > 1 and not chooses_widths(policy):
        raise UserError(
            f"executor.max_gpus: value {spec.max_gpus}: this policy leaves each task on "
            f"{spec.widths[0]} GPU(s), expected policy: elastic, or one of your own that resizes"
        )


class Site(Protocol):
    def settle(self, spec: ExecutorSpec) -> ExecutorSpec:
        """Every choice that the study leaves open; raises UserError."""
        ...

    def gpus(self, spec: ExecutorSpec) -> tuple[Gpu, ...]: ...

    def move(self, spec: ExecutorSpec, past: Past, view: ClusterView) -> Move:
        """From where the log ends to here; `view` is the ledger there."""
        ...

    def backend(self, run: RunToTrain) -> AbstractContextManager[TrainingBackend]: ...

    def compare(
        self, study: Study, prepared: Sequence[PreparedTask], result: Result
    ) -> tuple[Comparison, ...]: ...


class ThisMachine:
    """One device, in this process."""

    def settle(self, spec: ExecutorSpec) -> ExecutorSpec:
        if spec.gpus not in (None, 1):
            raise UserError(
                f"executor.gpus: value {spec.gpus}: a task has one GPU here, expected --cluster, "
                f"or torchrun with --nproc-per-node {spec.gpus}"
            )
        if spec.max_gpus not in (None, 1):
            raise UserError(
                f"executor.max_gpus: value {spec.max_gpus}: a task has one GPU here, expected "
                "--cluster"
            )
        return settle(spec)

    def gpus(self, spec: ExecutorSpec) -> tuple[Gpu, ...]:
        return (gpu_of(spec),)

    def move(self, spec: ExecutorSpec, past: Past, view: ClusterView) -> Move:
        return Move.of(view, self.gpus(spec), past.lost_nodes, spec.gpus or 1)

    @contextmanager
    def backend(self, run: RunToTrain) -> Iterator[TrainingBackend]:
        sweep_folders()

        def start(task: Task) -> StartedExecutor | None:
            begin = run.files.next_start(task)
            try:
                return None if begin is None else begin(is_durable=False)
            except UserError as error:
                run.files.fail(task.id, str(error))
                return None

        yield ExecBackend(run.inbox, start, run.files.directory_of, run.past)

    def compare(
        self, study: Study, prepared: Sequence[PreparedTask], result: Result
    ) -> tuple[Comparison, ...]:
        return compare(study, prepared, result.best)
