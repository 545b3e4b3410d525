"""What a run has come to, read from its directory."""

from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from alto_policy.decisions import Decision, ExitReason
from alto_policy.events import Event, LossReported
from alto_policy.runlog import RunLog
from alto_policy.types import Hyperparameters, Task, TaskId
from alto_runs.errors import UserError
from alto_runs.files.directory import RunDirectory, read_run_log, write_atomically
from alto_runs.files.logfile import read_header
from alto_runs.outcomes.history import RunHistory, follow
from alto_runs.outcomes.leaderboard import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    Standing,
    leaderboard_json,
    rank_jobs,
)
from alto_runs.outcomes.metrics import Metrics, measure, metrics_json

if TYPE_CHECKING:
    from pandas import DataFrame

__all__ = ["STEP_TIMES", "Best", "Result", "write_result"]

STEP_TIMES = "step_times"  # of a simulated log's facts: how far they stand from a measurement

_FREED = {"t": "wake_at"}  # the column `t` is the event's


@dataclass(frozen=True, slots=True)
class Best:
    """A task's winner; there is no adapter where nobody trained, as in a simulated run."""

    standing: Standing
    adapter: Path | None


class Result:
    """Reads a run that has ended or still goes on; raises UserError if there is none."""

    def __init__(self, path: str | Path | RunDirectory, history: RunHistory | None = None) -> None:
        if isinstance(path, RunDirectory):
            self.directory = path
        elif history is None:
            self.directory = RunDirectory.open(Path(path))
        else:
            self.directory = RunDirectory.known(Path(path))
        self._history = history  # known before anything is read

    @cached_property
    def log(self) -> RunLog:
        return read_run_log(self.directory.log_path)

    @cached_property
    def history(self) -> RunHistory:
        if self._history is not None:
            return self._history
        try:
            return follow(self.log)
        except UserError as error:
            raise UserError(f"{self.directory.log_path}: {error}") from error

    @cached_property
    def leaderboard(self) -> tuple[Standing, ...]:
        return rank_jobs(self.history, self.directory, is_anew=False)

    @cached_property
    def metrics(self) -> Metrics:
        return measure(self.history)

    @cached_property
    def step_times(self) -> str | None:
        """The weakest basis of a simulation's step times; None where time is real, or recorded."""
        if not self.directory.log_path.is_file():  # a service's study: one log holds all of them
            return None
        header = read_header(self.directory.log_path)
        return None if header is None else header.facts.get(STEP_TIMES)

    def best(self, task: str | None = None) -> Best | None:
        """The winner of the task, which may be left out if there is one; None if none reported."""
        name = self._known(task)
        ranked = (s for s in self.leaderboard if s.task == name and s.best_val_loss is not None)
        standing = next(ranked, None)
        if standing is None:
            return None
        if standing.adapter is None:
            return Best(standing, None)
        is_here = self.directory.stored_at is None  # or else the winners' alone
        here = (
            self.directory.job_folder(standing.job) if is_here else self.directory.best_folder(name)
        )
        return Best(standing, here)

    @property
    def without_room(self) -> tuple[Task, ...]:
        """Tasks that have trained nothing, since none of their jobs fits."""
        measures = self.metrics.tasks
        return tuple(
            task
            for task in self.history.tasks
            if not measures[task.id].samples_trained
            and all(job.reason is ExitReason.TOO_LARGE for job in self.history.of_task(task))
        )

    def check_room(self) -> None:
        """Raises UserError for a task that has trained nothing, since none of its jobs fits."""
        for task in self.without_room:
            raise UserError(
                f"task {task.id}: none of its {len(task.jobs)} jobs fits into the memory that "
                "there is, nothing was trained; expected a smaller model, batch_size, rank or "
                "data.max_length, or a larger executor.memory_gb (--dry-run tells the memory)"
            )

    def jobs(self) -> "DataFrame":
        """One row for each job, best first, in the columns of leaderboard.json."""
        from pandas import DataFrame

        rows = [asdict(standing) for standing in self.leaderboard]
        names = [name for name in _names(Standing) if name != "hyperparameters"]
        return DataFrame(
            [{**row.pop("hyperparameters"), **row} for row in rows],
            columns=[*names[:2], *_names(Hyperparameters), *names[2:]],
        )

    def reports(self) -> "DataFrame":
        """One row for each report, in the order of the jobs; `samples` are the job's own."""
        from pandas import DataFrame

        jobs = self.history.jobs.values()
        return DataFrame(
            [
                {"task": job.task, **asdict(report), "samples": job.spec.samples(report.step)}
                for job in jobs
                for report in job.reports
            ],
            columns=["task", *_names(LossReported), "samples"],
        )

    def decisions(self) -> "DataFrame":
        """One row for each decision, with the event that led to it."""
        from pandas import DataFrame

        rows = [_row(entry.event, d) for entry in self.log.entries for d in entry.decisions]
        columns = [_FREED.get(name, name) for name in _names(*get_args(Decision))]
        return DataFrame(rows, columns=["t", "event", "decision", *columns])

    def _known(self, task: str | None) -> TaskId:
        names = [known.id for known in self.history.tasks]
        if task is None and len(names) == 1:
            return names[0]
        if task not in names:
            raise UserError(f"task: value {task!r}: expected one of {', '.join(names)}")
        return TaskId(task)


def _row(event: Event, decision: Decision) -> dict[str, object]:
    of_decision = {_FREED.get(name, name): value for name, value in asdict(decision).items()}
    kinds = {"event": type(event).__name__, "decision": type(decision).__name__}
    return {"t": event.t, **kinds, **of_decision}


def _names(*kinds: Any) -> list[str]:
    """Fields of the dataclasses, each name once."""
    return list(dict.fromkeys(field.name for kind in kinds for field in fields(kind)))


def write_result(directory: RunDirectory, history: RunHistory | None = None) -> Result:
    """Write leaderboard.json, metrics.json and the winners' adapters.

    From the log, unless its history is at hand.
    """
    result = Result(directory, history)
    standings = rank_jobs(result.history, directory)  # not kept: a trace may have 100,000 jobs
    write_atomically(directory.leaderboard_path, leaderboard_json(standings))
    trained = dict.fromkeys(each.task for each in standings if each.adapter)
    del standings
    write_atomically(directory.metrics_path, metrics_json(result.metrics, result.step_times))
    for task in trained:
        if (best := result.best(task)) and best.adapter is not None:
            adapter, folder = directory.adapter(best.standing.job), directory.best_folder(task)
            for name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS):
                with (adapter / name).fetched() as file:
                    write_atomically(folder / name, file.read_bytes())
    return result
