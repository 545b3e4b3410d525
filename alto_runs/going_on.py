"""How a run goes on: what of its study may be another by then."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from alto_runs.errors import UserError
from alto_runs.study import ExecutorSpec, Study, parse_study

__all__ = ["choices", "elsewhere", "executor_difference", "first_difference", "is_of_run"]

# May be another.
_ROOM = ("gpus", "across_nodes", "max_gpus", "max_jobs", "memory_gb")


def first_difference(study: Study, begun: Study) -> str | None:
    """Field in which `study` is not what a run was begun with: `other value, not this one`.

    That of an executor is asked of `executor_difference`.
    """
    if difference := executor_difference(study.executor, begun.executor):
        return difference
    given = _lines(study.model_copy(update={"executor": begun.executor}))
    for path, value in _lines(begun).items():
        if path not in given or given[path] != value:
            return f"{path} {value!r}, not {given.get(path)!r}"
    return next((f"no {path}" for path in given if path not in _lines(begun)), None)


def executor_difference(executor: ExecutorSpec, begun: ExecutorSpec) -> str | None:
    """The same of executors. What was left open may have been chosen since, and jobs do not feel
    how many train side by side."""
    for name, value in choices(executor).items():
        if name not in _ROOM and value != getattr(begun, name):
            return f"executor.{name} {getattr(begun, name)!r}, not {value!r}"
    return None


def choices(executor: ExecutorSpec) -> Mapping[str, object]:
    """What a study or a service says of its executors, and does not leave open."""
    given = {name: getattr(executor, name) for name in executor.model_fields_set}
    return {name: value for name, value in given.items() if value not in (None, "auto")}


def is_of_run(text: str, study: Study) -> bool:
    """Whether a study file of this text is that of the run, or was before the run moved."""
    try:
        return first_difference(study, parse_study(text, "", Path())) is None
    except UserError:
        return False


def elsewhere(begun: ExecutorSpec, executor: ExecutorSpec) -> ExecutorSpec:
    """How a run goes on: as it was begun, with as much room as the `executor` has now."""
    return begun.model_copy(update={name: getattr(executor, name) for name in _ROOM})


def _lines(value: Any, path: str = "") -> dict[str, Any]:
    """The leaves of a resolved study by their dotted paths."""
    if isinstance(value, Study):
        value = value.model_dump(mode="python")
    if not isinstance(value, dict):
        return {path: value}
    leaves: dict[str, Any] = {}
    for key, part in value.items():
        leaves |= _lines(part, f"{path}.{key}" if path else str(key))
    return leaves
