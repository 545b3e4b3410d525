"""What may stand in a field of a study file."""

import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, PlainSerializer, PlainValidator, ValidationInfo

from alto_runs.fields import FieldError
from alto_runs.files.directory import is_plain_name

__all__ = [
    "Count",
    "File",
    "Flag",
    "ModelName",
    "Name",
    "Number",
    "Prompts",
    "Targets",
    "Threads",
]

_LONGEST_NAME = 80  # jobs add their number to it
_MAX_PROMPTS, _MAX_CHARACTERS = 100, 20_000  # nothing else trains while they are answered


def _file(value: object, info: ValidationInfo) -> Path:
    """A path, seen from the folder of the study where there is one."""
    if not isinstance(value, str | Path) or not str(value).strip() or "\0" in str(value):
        raise ValueError("expected the path of a file")
    is_at_home = str(value) == "~" or str(value).startswith("~/")  # nobody learns who there is
    path = Path(os.path.expanduser(value) if is_at_home else value)
    return path if info.context is None else Path(os.path.abspath(info.context / path))


def _model(value: str, info: ValidationInfo) -> str:
    """A path is seen from the folder of the study; a name of the hub is left as it is."""
    if not value.strip() or "\0" in value:
        raise ValueError("expected a folder, a .gguf file or a name of the hub")
    looks_local = value.startswith((".", "/", "~")) or value.endswith(".gguf")
    looks_local = looks_local or ".." in value.split("/")  # whatever is there, or is not
    if info.context is not None and (looks_local or os.path.exists(info.context / value)):
        return str(_file(value, info))
    return value


def _targets(value: object) -> Literal["all-linear"] | tuple[str, ...]:
    if value == "all-linear":
        return "all-linear"
    if not isinstance(value, list | tuple) or not value:
        raise FieldError((), "expected all-linear or a list of names such as q_proj")
    for number, name in enumerate(value):
        if not isinstance(name, str) or not name.strip():
            raise FieldError((number,), "expected the name of a linear layer such as q_proj")
    return tuple(value)


def _name(value: str) -> str:
    if not is_plain_name(value) or len(value) > _LONGEST_NAME:
        raise ValueError(
            f"expected {_LONGEST_NAME} letters, digits, '.', '_' and '-' at most, "
            "the first no '.' or '-'"
        )
    return value


def _prompts(value: tuple[str, ...]) -> tuple[str, ...]:
    if len(value) > _MAX_PROMPTS or sum(map(len, value)) > _MAX_CHARACTERS:
        raise ValueError(
            f"expected {_MAX_PROMPTS} prompts of {_MAX_CHARACTERS} characters in all at most"
        )
    return value


Name = Annotated[str, AfterValidator(_name)]
File = Annotated[Path, PlainValidator(_file), PlainSerializer(str)]
ModelName = Annotated[str, AfterValidator(_model)]
Count = Annotated[int, Field(strict=True, ge=1, le=10**12)]
Threads = Annotated[int, Field(strict=True, ge=1, le=1024)]  # more than that cannot even start
Number = Annotated[float, Field(strict=True, gt=0, le=10**6, allow_inf_nan=False)]
Flag = Annotated[bool, Field(strict=True)]
Prompts = Annotated[tuple[Annotated[str, Field(min_length=1)], ...], AfterValidator(_prompts)]
Targets = Annotated[Literal["all-linear"] | tuple[str, ...], PlainValidator(_targets)]
