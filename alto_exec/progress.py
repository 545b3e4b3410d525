"""What a run tells while it goes: a live table on a terminal, plain lines elsewhere."""

import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from alto_policy.decisions import Stop
from alto_policy.events import (
    Departure,
    ExecutorDown,
    ExecutorUp,
    JobLeft,
    LossReported,
    TaskArrived,
    TaskCancelled,
)
from alto_policy.runlog import Entry
from alto_policy.types import Job
from alto_policy.view import ClusterView, Status

__all__ = ["Progress"]

_SHOWN = (Status.RUNNING, Status.PAUSING, Status.STOPPING, Status.PAUSED, Status.QUEUED)


class Progress:
    """Shows each entry of the log as it is written. Writes to the console it is given alone."""

    def __init__(self, console: Console, view: ClusterView, tokens: Callable[[], int]) -> None:
        self._console = console
        self._view = view
        self._tokens = tokens
        self._start = time.monotonic()
        self._live = (
            Live(get_renderable=self._screen, console=console, refresh_per_second=2)
            if console.is_terminal
            else None
        )

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._live:
            self._live.stop()

    def show(self, entry: Entry) -> None:
        for line in self._lines(entry):
            self._console.print(Text(line), soft_wrap=True, highlight=False)

    def _lines(self, entry: Entry) -> Iterator[str]:
        t = f"{entry.event.t:8.1f} s"
        match entry.event:
            case TaskArrived(task=task):
                yield f"{t}  task {task.id}: {len(task.jobs)} jobs on {task.backbone}"
            case TaskCancelled(task=task_id):
                yield f"{t}  {task_id}: cancelled"
            case ExecutorUp(task=task_id):
                yield f"{t}  {task_id}: backbone loaded"
            case ExecutorDown(task=task_id):
                yield f"{t}  {task_id}: executor ended"
            case LossReported() as report if self._live is None:
                yield f"{t}  {self._report_line(report)}"
            case JobLeft(job=job, how=Departure.FINISHED):
                yield f"{t}  {job} finished after {self._view.spec(job).steps} steps"
            case JobLeft(job=job, how=Departure.FAILED | Departure.EVICTED as how):
                yield f"{t}  {job} {how.value}"
        for decision in entry.decisions:
            if isinstance(decision, Stop):
                yield f"{t}  {decision.job} stopped: {decision.reason.value}"

    def _report_line(self, report: LossReported) -> str:
        steps = self._view.spec(report.job).steps
        return (
            f"{report.job} step {report.step}/{steps}  train {report.train_loss:.4f}  "
            f"validation {report.val_loss:.4f}  ({self._rate():.0f} tokens/s)"
        )

    def _rate(self) -> float:
        return self._tokens() / max(1e-9, time.monotonic() - self._start)

    def _screen(self) -> Group:
        table = Table(box=None, header_style="bold")
        for heading in ("job", "rate", "rank", "batch", "state", "step", "train", "validation"):
            table.add_column(heading, justify="left" if heading in ("job", "state") else "right")
        for job, status in self._jobs_going():
            history = self._view.history(job.id)
            h = job.hyperparameters
            losses = (history[-1].train_loss, history[-1].val_loss) if history else ()
            table.add_row(
                job.id,
                f"{h.learning_rate:g}",
                str(h.rank),
                str(h.batch_size),
                status.value,
                f"{history[-1].step if history else 0}/{job.steps}",
                *(f"{loss:.4f}" for loss in losses),
            )
        return Group(table, Text(self._summary(), style="dim"))

    def _jobs_going(self) -> Iterator[tuple[Job, Status]]:
        for status in _SHOWN:
            for task in self._view.tasks():
                for job in self._view.jobs(task, status):
                    yield self._view.spec(job), status

    def _summary(self) -> str:
        left, done = 0, 0
        for task in self._view.tasks().values():
            for job in task.jobs:
                history = self._view.history(job.id)
                trained = job.samples(history[-1].step) if history else 0
                done += trained
                if self._view.status(job.id) is not Status.ENDED:
                    left += job.samples(job.steps) - trained
        elapsed = time.monotonic() - self._start
        end = f"at most {elapsed * left / done:.0f} s more" if done else "end not known yet"
        return f"{elapsed:.0f} s, {self._rate():.0f} tokens/s, {end} if no job exits early"
