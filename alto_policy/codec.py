"""JSON of frozen dataclasses, driven by the types of their fields and strict about them.

A member of a union of dataclasses carries its class name as `kind`; a float that JSON cannot
write (a diverged loss) is one of the strings "nan", "inf" and "-inf".
"""

import math
from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields, is_dataclass
from enum import StrEnum
from functools import cache
from types import NoneType, UnionType
from typing import Any, NewType, Union, get_args, get_origin, get_type_hints

__all__ = ["Codec", "MalformedError", "codec_of"]

_NON_FINITE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


class MalformedError(ValueError):
    """A value is not what its type says; the message begins with where it stands."""

    def __init__(self, path: str, what: str) -> None:
        super().__init__(f"{path}: {what}" if path else what)
        self.path, self.what = path, what

    def within(self, outer: str) -> "MalformedError":
        inner = self.path if not self.path or self.path.startswith("[") else f".{self.path}"
        return MalformedError(outer + inner, self.what)


@dataclass(frozen=True, slots=True)
class Codec:
    """Two functions between values of one type and what `json` reads and writes."""

    encode: Callable[[Any], Any]
    decode: Callable[[Any], Any]


@cache
def codec_of(kind: Any) -> Codec:
    """The codec of a type: a dataclass, a union, an enum, a tuple or a plain value."""
    if isinstance(kind, NewType):
        return codec_of(kind.__supertype__)
    if kind is float:
        return Codec(_encode_float, _decode_float)
    if kind in (int, str, bool, NoneType):
        return Codec(_same, lambda value: _exactly(kind, value))
    if get_origin(kind) is tuple:
        return _tuple_codec(get_args(kind))
    if get_origin(kind) in (Union, UnionType):
        return _union_codec(get_args(kind))
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        return Codec(lambda member: member.value, lambda value: _member(kind, value))
    if isinstance(kind, type) and is_dataclass(kind):
        return _dataclass_codec(kind)
    raise TypeError(f"no codec for {kind!r}")


def _dataclass_codec(kind: type) -> Codec:
    hints = get_type_hints(kind)
    codecs = {field.name: codec_of(hints[field.name]) for field in fields(kind)}

    def encode(value: Any) -> Any:
        return {name: codec.encode(getattr(value, name)) for name, codec in codecs.items()}

    def decode(value: Any) -> Any:
        body = _exactly(dict, value)
        if unknown := [name for name in body if name not in codecs]:
            raise MalformedError("", f"{kind.__name__} has no field {unknown[0]!r}")
        if missing := [name for name in codecs if name not in body]:
            raise MalformedError("", f"{kind.__name__} needs the field {missing[0]!r}")
        values = {name: _at(name, codecs[name], part) for name, part in body.items()}
        try:
            return kind(**values)
        except ValueError as error:
            raise MalformedError("", str(error)) from error

    return Codec(encode, decode)


def _union_codec(kinds: tuple[Any, ...]) -> Codec:
    """A union of dataclasses, told apart by `kind`; or of one type and None."""
    if NoneType in kinds:
        (kind,) = (kind for kind in kinds if kind is not NoneType)
        inner = codec_of(kind)
        return Codec(
            lambda value: None if value is None else inner.encode(value),
            lambda value: None if value is None else inner.decode(value),
        )
    by_name = {kind.__name__: codec_of(kind) for kind in kinds}

    def encode(value: Any) -> Any:
        name = type(value).__name__
        return {"kind": name, **by_name[name].encode(value)}

    def decode(value: Any) -> Any:
        body = dict(_exactly(dict, value))
        name = body.pop("kind", MISSING)
        if not isinstance(name, str) or name not in by_name:
            found = "no kind" if name is MISSING else f"kind {name!r}"
            raise MalformedError("", f"expected a kind of {', '.join(by_name)}, got {found}")
        return by_name[name].decode(body)

    return Codec(encode, decode)


def _tuple_codec(parts: tuple[Any, ...]) -> Codec:
    if len(parts) == 2 and parts[1] is Ellipsis:
        codec = codec_of(parts[0])
        return Codec(
            lambda value: [codec.encode(part) for part in value],
            lambda value: tuple(
                _at(f"[{i}]", codec, part) for i, part in enumerate(_exactly(list, value))
            ),
        )
    codecs = [codec_of(part) for part in parts]

    def decode(value: Any) -> Any:
        if len(_exactly(list, value)) != len(codecs):
            raise MalformedError("", f"expected {len(codecs)} values, got {len(value)}")
        together = zip(codecs, value, strict=True)
        return tuple(_at(f"[{i}]", codec, part) for i, (codec, part) in enumerate(together))

    return Codec(
        lambda value: [c.encode(part) for c, part in zip(codecs, value, strict=True)], decode
    )


def _at(path: str, codec: Codec, value: Any) -> Any:
    try:
        return codec.decode(value)
    except MalformedError as error:
        raise error.within(path) from error


def _same(value: Any) -> Any:
    return value


def _exactly(kind: type, value: Any) -> Any:
    if type(value) is not kind:  # a bool is no int here
        raise MalformedError("", f"expected {_name(kind)}, got {value!r}")
    return value


def _name(kind: type) -> str:
    return {dict: "an object", list: "a list", NoneType: "null"}.get(kind, kind.__name__)


def _member(kind: type[StrEnum], value: Any) -> StrEnum:
    names = [member.value for member in kind]
    if value not in names:
        raise MalformedError("", f"expected one of {', '.join(names)}, got {value!r}")
    return kind(value)


def _encode_float(value: float) -> float | str:
    return float(value) if math.isfinite(value) else str(float(value))


def _decode_float(value: Any) -> float:
    if type(value) in (int, float):
        try:
            return float(value)
        except OverflowError as error:
            raise MalformedError("", f"expected a float, got {value!r}") from error
    if isinstance(value, str) and value in _NON_FINITE:
        return _NON_FINITE[value]
    raise MalformedError("", f"expected a float, got {value!r}")
