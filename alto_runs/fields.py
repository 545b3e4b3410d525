"""Dataclasses of the policy package from the fields that a user has written."""

import math
from collections.abc import Callable, Hashable, Mapping
from dataclasses import is_dataclass
from difflib import get_close_matches
from functools import cache
from typing import Any, TypeVar, get_args, get_type_hints

from alto_policy.codec import MalformedError, codec_of

__all__ = ["FieldError", "decode_fields", "encode_fields", "unknown_key"]

T = TypeVar("T")
Path = tuple[str | int, ...]

_LARGEST = 1e15  # products of two settings are still numbers of single precision

_WORDS = {
    "expected int": "expected a whole number",
    "expected a float": "expected a number",
    "expected str": "expected text",
    "expected bool": "expected true or false",
    "expected an object": "expected fields with values",
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
    _check_fields(kind, given)
    codec = codec_of(kind)
    try:
        value: T = codec.decode(_merged(codec.encode(kind()), given))
    except MalformedError as error:
        path = tuple(error.path.split(".")) if error.path else ()
        what, _, _ = error.what.rpartition(", got ")
        first_word = what.split(" ", 1)[0]  # a rule of the dataclass begins with the field's name
        inner = given
        for name in path:
            inner = inner.get(name, {}) if isinstance(inner, Mapping) else {}
        if isinstance(inner, Mapping) and first_word in inner:
            path = (*path, first_word)
        raise FieldError(path, _WORDS.get(what, what)) from error
    return value


def encode_fields(value: Hashable) -> dict[str, Any]:
    """All fields, as `decode_fields` takes them."""
    kind: Hashable = type(value)
    encoded: dict[str, Any] = codec_of(kind).encode(value)
    return encoded


def _check_fields(kind: Any, given: Mapping[Any, Any]) -> None:
    """Refuse unknown keys, and the NaN and infinities that a log may hold but no setting."""
    types = _types_of(kind)
    for name, value in given.items():
        if name not in types:
            raise FieldError((name,), unknown_key(name, list(types)))
        if float in (types[name], *get_args(types[name])):
            _check_number(name, value)
        if is_dataclass(types[name]) and isinstance(value, Mapping):
            try:
                _check_fields(types[name], value)
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
