"""What a user asks for: the study file, checked and with every default filled in."""

import math
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    ValidationError,
    model_validator,
)

from alto_policy.policies import Settings
from alto_policy.policies.alto import AltoSettings
from alto_policy.types import Hyperparameters, Task, TaskId
from alto_runs.errors import UserError
from alto_runs.fields import FieldError
from alto_runs.study_fields.document import dump_document, parse_document, read_document
from alto_runs.study_fields.drawn_jobs import drawn
from alto_runs.study_fields.faults import first_fault
from alto_runs.study_fields.policy_settings import parse_settings, written_settings
from alto_runs.study_fields.search import (
    MAX_JOBS_OF_TASK,
    PAPER_GRID,
    Axis,
    Range,
    check_grid,
    configurations,
    grid_size,
    numbered_jobs,
    parse_jobs,
    parse_search,
    written_jobs,
    written_search,
)
from alto_runs.study_fields.values import (
    Count,
    File,
    Flag,
    ModelName,
    Name,
    Number,
    Prompts,
    Targets,
    Threads,
)

__all__ = [
    "Budget",
    "DataSpec",
    "Draw",
    "ExecutorSpec",
    "Given",
    "Objective",
    "PolicySettings",
    "Study",
    "TaskSpec",
    "as_study",
    "expand",
    "load_study",
    "naming",
    "naming_task",
    "parse_study",
    "resolved_yaml",
]

_MAX_TASKS, _MAX_JOBS = 1_000, 100_000  # of a study
PolicySettings = Annotated[
    Settings, PlainValidator(parse_settings), PlainSerializer(written_settings)
]
Objective = Literal["sft", "dpo"]


class _Spec(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class DataSpec(_Spec):
    """Where a task's samples come from; lengths are in tokens, limits in records."""

    train: File
    validation: File | None = None
    validation_fraction: Annotated[float, Field(strict=True, gt=0, lt=1)] = 0.1
    train_limit: Count | None = None
    validation_limit: Count | None = 256
    max_length: Count = 1024
    completion_only: Flag = True


class Budget(_Spec):
    """What each job may train on: passes through the data, or a number of samples."""

    epochs: Number | None = None
    samples: Count | None = None

    @model_validator(mode="after")
    def _is_one_of_both(self) -> Self:
        if (self.epochs is None) == (self.samples is None):
            raise ValueError("expected either 'epochs' or 'samples', and only one")
        return self

    def num_samples(self, in_epoch: int) -> int:
        if self.samples is not None:
            return self.samples
        assert self.epochs is not None
        return math.ceil(round(self.epochs * in_epoch, 6))


class Draw(_Spec):
    """How many jobs of a search are tried, and by which dice."""

    jobs: Annotated[int, Field(strict=True, ge=1, le=MAX_JOBS_OF_TASK)]
    seed: Annotated[int, Field(strict=True, ge=0, lt=2**31)] = 0


class ExecutorSpec(_Spec):
    """How to train on this machine; what is None is chosen by the executor."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    threads: Threads | None = None
    gpus: Count | None = None  # of one node, for each task
    across_nodes: bool = False  # of several where none has as many; what they send goes slowly
    max_gpus: Count | None = None  # for each, in steps of `gpus`, as the policy chooses
    max_jobs: Count | None = None
    memory_gb: Number | None = None
    recompute: bool | None = None  # activations again in the backward pass, to save memory
    optimizer_states: Literal["float32", "int8"] = "float32"
    frozen_weights: Literal["plain", "int8", "nf4"] = "plain"  # of the backbone's layers

    @model_validator(mode="after")
    def _has_room_for_one(self) -> Self:
        if self.max_gpus is not None and self.max_gpus < (self.gpus or 1):
            raise FieldError(("max_gpus",), f"expected at least `gpus`, {self.gpus}")
        return self

    @property
    def widths(self) -> tuple[int, ...]:
        """Numbers of GPUs among which a policy may choose for each task; () where it may not."""
        least, most = self.gpus or 1, self.max_gpus or 0
        return tuple(range(least, most + 1, least)) if most > least else ()


class TaskSpec(_Spec):
    """One adapter to be found: exactly one of `search` and `jobs` says among which."""

    model: ModelName
    data: DataSpec
    objective: Objective = "sft"  # dpo: from pairs of a better and a worse answer
    targets: Targets = "all-linear"
    search: (
        Annotated[
            tuple[Axis | Range, ...], PlainValidator(parse_search), PlainSerializer(written_search)
        ]
        | None
    ) = None
    draw: Draw | None = None  # that many jobs of the search; without it all of its grid
    jobs: (
        Annotated[
            tuple[Hyperparameters, ...], PlainValidator(parse_jobs), PlainSerializer(written_jobs)
        ]
        | None
    ) = None
    budget: Budget = Budget(epochs=3)
    reports: Count = 40  # that a job makes

    @model_validator(mode="before")
    @classmethod
    def _with_the_papers_grid(cls, given: Any) -> Any:
        if isinstance(given, dict) and given.get("search") is None and given.get("jobs") is None:
            return {**given, "search": written_search(PAPER_GRID)}
        return given

    @model_validator(mode="after")
    def _is_one_of_both(self) -> Self:
        if self.search is not None and self.jobs is not None:
            raise FieldError(("jobs",), "expected either 'search' or 'jobs', not both")
        if self.jobs is not None and self.draw is not None:
            raise FieldError(("draw",), "expected 'search', from which jobs are drawn, not 'jobs'")
        if self.search is not None and self.draw is None:
            check_grid(self.search)
        if self.objective == "dpo" and not self.data.completion_only:
            raise FieldError(("data", "completion_only"), "expected true with objective dpo")
        return self

    @property
    def configurations(self) -> tuple[Hyperparameters, ...]:
        """One for each job, in order."""
        if self.jobs is not None:
            return self.jobs
        axes = self.search or ()
        if self.draw is not None:
            return drawn(axes, self.draw.jobs, self.draw.seed)
        return configurations(axis for axis in axes if isinstance(axis, Axis))

    @property
    def num_jobs(self) -> int:
        if self.draw is not None:
            return self.draw.jobs
        return len(self.jobs or ()) or grid_size(self.search or ())


class Study(_Spec):
    """Tasks by name, the policy that decides on them, and what they run on."""

    name: Name
    tasks: Annotated[dict[Name, TaskSpec], Field(min_length=1)]
    executor: ExecutorSpec = ExecutorSpec()
    policy: PolicySettings = AltoSettings()
    prompts: Prompts = ()  # answered by the untuned model and by the winner

    @model_validator(mode="before")
    @classmethod
    def _has_not_too_many_tasks(cls, given: Any) -> Any:
        """Before each of them is looked at."""
        tasks = given.get("tasks") if isinstance(given, dict) else None
        if isinstance(tasks, dict) and len(tasks) > _MAX_TASKS:
            raise FieldError(("tasks",), f"it has {len(tasks)}, expected {_MAX_TASKS} at most")
        return given

    @model_validator(mode="after")
    def _has_not_too_many_jobs(self) -> Self:
        num_jobs = sum(task.num_jobs for task in self.tasks.values())
        if num_jobs > _MAX_JOBS:
            raise FieldError(
                ("tasks",), f"they have {num_jobs} jobs in all, expected {_MAX_JOBS} at most"
            )
        for name, task in self.tasks.items():
            if task.draw is not None and task.search is not None:  # and few enough to be drawn
                try:
                    drawn(task.search, task.draw.jobs, task.draw.seed)
                except FieldError as error:
                    raise error.within("tasks", name) from error
        return self


Given = Study | Mapping[str, Any] | str | Path
_TASK_FIELDS = tuple(TaskSpec.model_fields)


def as_study(given: Given) -> Study:
    """A study as it is, of a file, or of the fields that one would have, with paths seen from where
    this process is. Raises UserError."""
    if isinstance(given, Study):
        return given
    if isinstance(given, Mapping):
        return _checked(_as_written(given), "the study", Path.cwd())
    return load_study(Path(given))


def load_study(path: Path) -> Study:
    """Read a study file; raises UserError with the field at fault."""
    return _checked(read_document(path), str(path), Path(os.path.abspath(path)).parent)


def parse_study(text: str, source: str, folder: Path) -> Study:
    """The study of a file's text, with paths seen from `folder`.

    Raises UserError, which begins with `source`.
    """
    return _checked(parse_document(text, source), source, folder)


def _checked(document: dict[str, Any], source: str, folder: Path) -> Study:
    try:
        return Study.model_validate(_with_tasks(document), context=folder)
    except ValidationError as error:
        raise UserError(f"{source}: {first_fault(error, document, Study, TaskSpec)}") from error


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """The file of a study is told with what is wrong in a field of it, found wherever."""
    try:
        yield
    except UserError as error:
        field = re.split(r"[.:[]", str(error), maxsplit=1)[0]
        if field not in {*Study.model_fields, *TaskSpec.model_fields}:
            raise
        raise UserError(f"{path}: {error}") from error


@contextmanager
def naming_task(name: str, study: Study) -> Iterator[None]:
    """The task is told with what is wrong in it, where the study has several."""
    try:
        yield
    except UserError as error:
        if len(study.tasks) == 1:
            raise
        raise UserError(f"tasks.{name}: {error}") from error


def resolved_yaml(study: Study) -> str:
    """The study with every default written out; it loads back as an equal one."""
    document = study.model_dump(mode="python")
    for task in document["tasks"].values():
        for name in ("jobs", "search", "draw"):
            if task[name] is None:
                del task[name]
        task["budget"] = {name: n for name, n in task["budget"].items() if n is not None}
    return dump_document(_as_written(document))


def expand(name: str, spec: TaskSpec, *, num_samples: int, max_length: int) -> Task:
    """The task with its jobs. All train on equally many samples, the last batch rounded up.

    `num_samples` are in the training set, of up to `max_length` tokens each.
    """
    configurations = spec.configurations
    budget = spec.budget.num_samples(num_samples)
    digits = max(2, len(str(len(configurations) - 1)))
    jobs = numbered_jobs(name, configurations, samples=budget, reports=spec.reports, digits=digits)
    return Task(id=TaskId(name), jobs=jobs, backbone=spec.model, max_length=max_length)


def _with_tasks(document: dict[str, Any]) -> dict[str, Any]:
    """The document with every task written out: the top level gives the defaults of all."""
    defaults = {key: value for key, value in document.items() if key in _TASK_FIELDS}
    study = {key: value for key, value in document.items() if key not in _TASK_FIELDS}
    tasks = study.get("tasks")
    if tasks is None:
        name = study.get("name")
        study["tasks"] = {name if isinstance(name, str) else "": defaults}
    elif isinstance(tasks, dict):
        study["tasks"] = {name: _task_fields(defaults, given) for name, given in tasks.items()}
    return study


def _task_fields(defaults: dict[str, Any], given: Any) -> Any:
    """A task's own fields before the defaults; `data` field by field, a search as a whole."""
    if given is None:
        return defaults
    if not isinstance(given, dict):
        return given
    kept = dict(defaults)
    if "search" in given or "jobs" in given:
        for name in ("search", "jobs", "draw"):
            kept.pop(name, None)
    fields = {**kept, **given}
    if isinstance(kept.get("data"), dict) and isinstance(given.get("data"), dict):
        fields["data"] = {**kept["data"], **given["data"]}
    return fields


def _as_written(value: Any) -> Any:
    """As a file would have it."""
    if isinstance(value, Mapping):
        return {key: _as_written(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_as_written(part) for part in value]
    return str(value) if isinstance(value, Path) else value
