"""Dataclasses of the policy package from the fields that a user has written."""

import math
import re
from collections.abc import Callable, Hashable, Mapping
from dataclasses import is_dataclass
from difflib import get_close_matches
from functools import cache
from typing import Any, TypeVar, get_args, get_type_hints

from alto_policy.codec import MalformedError, codec_of

__all__ = [
    "FieldError",
    "Path",
    "change_fields",
    "decode_fields",
    "descend",
    "dotted",
    "encode_fields",
    "quoted",
    "told",
    "unknown_key",
]

T = TypeVar("T")
Path = tuple[str | int, ...]

_PARTS = re.compile(r"[^.\[\]]+")
_OF_A_CLASS = re.compile(r"^[A-Z]\w+ ((?:needs the|has no) field )")  # whose name nobody knows
_LARGEST = 1e15  # products of two settings are still numbers of single precision

_WORDS = {
    "expected int": "expected a whole number",
    "expected a float": "expected a number",
    "expected str": "expected text",
    "expected bool": "expected true or false",
    "expected an object": "expected a mapping, { field: value }",
}


class FieldError(ValueError):
    """A field at fault: where it stands, and what would be right."""

    def __init__(self, path: Path, what: str) -> None:
        super().__init__(what)
        self.path, self.what = path, what

    def within(self, *outer: str | int) -> "FieldError":
        return FieldError((*outer, *self.path), self.what)


def unknown_key(key: object, known: list[str]) -> str:
    """What to say of a key that nobody knows."""
    if near := get_close_matches(str(key), known, n=1):
        return f"unknown key, did you mean {near[0]!r}?"
    expected = f"one of {', '.join(known)}" if known else "no keys"
    return f"unknown key, expected {expected}"


def decode_fields(kind: Callable[..., T], given: Mapping[Any, Any]) -> T:
    """An instance with the given fields, its defaults elsewhere; raises FieldError."""
    return change_fields(kind(), given)


def change_fields(value: T, given: Mapping[Any, Any]) -> T:
    """The same with the given fields in place of its own; raises FieldError."""
    kind: Any = type(value)
    _check_fields(kind, given)
    codec = codec_of(kind)
    try:
        changed: T = codec.decode(_merged(codec.encode(value), given))
    except MalformedError as error:
        path: Path = tuple(
            int(part) if part.isdigit() else part for part in _PARTS.findall(error.path)
        )
        what = error.what.rpartition(", got ")[0] or error.what
        first_word = what.split(" ", 1)[0]  # a rule of the dataclass begins with the field's name
        place, inner = descend(path, given)
        if place == path and isinstance(inner, Mapping) and first_word in inner:
            path = (*path, first_word)
        what = _OF_A_CLASS.sub(r"\1", _WORDS.get(what, what))
        raise FieldError(path, what) from error
    return changed


def encode_fields(value: Hashable) -> dict[str, Any]:
    """All fields, as `decode_fields` takes them."""
    kind: Hashable = type(value)
    encoded: dict[str, Any] = codec_of(kind).encode(value)
    return encoded


def told(error: FieldError, document: Any) -> str:
    """`field.path: value ...: what would be right`, of a file that holds the document."""
    place, value = descend(error.path, document)
    if place != error.path:
        return f"{dotted(error.path)}: {error.what}"
    return f"{dotted(place)}: value {quoted(value)}: {error.what}"


def descend(path: Path, value: Any) -> tuple[Path, Any]:
    """As far down the path as the value goes."""
    for depth, part in enumerate(path):
        inner = dict(enumerate(value)) if isinstance(value, list) else value
        if not isinstance(inner, dict) or part not in inner:
            return path[:depth], value
        value = inner[part]
    return path, value


def dotted(path: Path) -> str:
    """As one writes it: `models[0].weight`."""
    parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return "".join(parts).removeprefix(".")


def quoted(value: Any) -> str:
    """As YAML has it; a long one is cut."""
    if value is None or isinstance(value, bool):
        return str(value).lower() if value is not None else "null"
    text = repr(value) if isinstance(value, str | int | float | list | dict) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _check_fields(kind: Any, given: Mapping[Any, Any]) -> None:
    """Refuse unknown keys, and the NaN and infinities that a log may hold but no setting."""
    types = _types_of(kind)
    for name, value in given.items():
        if name not in types:
            raise FieldError((name,), unknown_key(name, list(types)))
        if float in (types[name], *get_args(types[name])):
            _check_number(name, value)
        kinds = [k for k in (types[name], *get_args(types[name])) if is_dataclass(k)]
        if len(kinds) == 1 and isinstance(value, Mapping):
            try:
                _check_fields(kinds[0], value)
            except FieldError as error:
                raise error.within(name) from error


@cache
def _types_of(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)


def _check_number(name: str, value: object) -> None:
    if value in ("nan", "inf", "-inf") or (isinstance(value, float) and not math.isfinite(value)):
        raise FieldError((name,), "expected a finite number")
    if isinstance(value, int | float) and abs(value) > _LARGEST:
        raise FieldError((name,), f"expected {_LARGEST:g} at most")


def _merged(defaults: Mapping[str, Any], given: Mapping[Any, Any]) -> dict[str, Any]:
    merged = dict(defaults)
    for name, value in given.items():
        inner = defaults.get(name)
        if isinstance(inner, Mapping) and isinstance(value, Mapping):
            value = _merged(inner, value)
        merged[name] = value
    return merged
