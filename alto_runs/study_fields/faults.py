"""The first fault of a study file, in one line."""

from typing import Any

from pydantic import BaseModel, ValidationError

from alto_runs.fields import FieldError, Path, descend, dotted, quoted, unknown_key

__all__ = ["first_fault"]

_WORDS = {
    "int_type": "expected a whole number",
    "int_from_float": "expected a whole number",
    "float_type": "expected a number",
    "bool_type": "expected true or false",
    "string_type": "expected text",
    "string_too_short": "expected text",
    "tuple_type": "expected a list",
    "dict_type": "expected names with their fields",
    "model_type": "expected a mapping, { field: value }",
    "too_short": "expected at least one",
    "invalid_key": "expected text",
}
_PHRASES = {
    "Input should be": "expected",
    "greater than or equal to": "at least",
    "less than or equal to": "at most",
    "greater than": "above",
    "less than": "below",
}


def first_fault(
    error: ValidationError, document: Any, top: type[BaseModel], task: type[BaseModel]
) -> str:
    """`field.path: value ...: what would be right`, as the user's file has the field.

    Unknown keys come first: a missing key is often a misspelt one.
    """
    faults = sorted(error.errors(), key=lambda fault: fault["type"] != "extra_forbidden")
    fault = faults[0]
    path: Path = tuple(part for part in fault["loc"] if part != "[key]")
    is_key = path != fault["loc"] or fault["type"] == "invalid_key"
    what = _WORDS.get(fault["type"]) or fault["msg"].removeprefix("Value error, ")
    for pydantics, ours in _PHRASES.items():
        what = what.replace(pydantics, ours)
    inner = fault.get("ctx", {}).get("error")
    if isinstance(inner, FieldError):
        path, what = (*path, *inner.path), inner.what
    if fault["type"] == "extra_forbidden":
        what = unknown_key(path[-1], _known_at(path[:-1], top, task))
    place, value = _in_document(path[:-1] if is_key else path, document)
    if is_key:
        return f"{dotted(place)}: key {quoted(path[-1])}: {what}".removeprefix(": ")
    if fault["type"] == "missing":
        is_own = path[0] != "tasks" or "tasks" in document
        return f"{dotted(path if is_own else path[2:])}: this field is missing"
    return f"{dotted(place)}: value {quoted(value)}: {what}"


def _known_at(path: Path, top: type[BaseModel], task: type[BaseModel]) -> list[str]:
    """Names of the fields that may stand in the mapping at the path."""
    if not path:
        return sorted({*top.model_fields, *task.model_fields})
    in_task = path[0] == "tasks"
    model: Any = task if in_task else top
    for part in path[2:] if in_task else path:
        model = model.model_fields[part].annotation
    return list(model.model_fields)


def _in_document(path: Path, document: Any) -> tuple[Path, Any]:
    """Where the user wrote it, and what: a task has its fields from the top level too."""
    place, value = descend(path, document)
    if len(path) < 2 or path[0] != "tasks" or place == path:
        return place, value
    shared, shared_value = descend(path[2:], document)
    return (shared, shared_value) if len(shared) > len(place) - 2 else (place, value)
