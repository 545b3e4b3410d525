"""JSON of frozen dataclasses, driven by the types of their fields and strict about them.

A field that has a default may be missing: what was written before there was such a field is read.
One that is `LEFT_OUT` is written only where it is not at its default.
A member of a union of dataclasses carries its class name as `kind`; a float that JSON cannot
write (a diverged loss) is one of the strings "nan", "inf" and "-inf".
"""

import json
import math
from collections.abc import Callable, Iterable
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from enum import StrEnum
from functools import cache, partial
from itertools import repeat
from json.encoder import encode_basestring_ascii
from types import NoneType, UnionType
from typing import Any, Generic, NewType, TypeVar, Union, get_args, get_origin, get_type_hints

__all__ = ["LEFT_OUT", "Codec", "MalformedError", "codec_of"]

LEFT_OUT = {"left_out": True}  # metadata of a field

_MOST_QUOTED = 80  # characters of a value in a message

_NON_FINITE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


class MalformedError(ValueError):
    """A value is not what its type says; the message begins with where it stands."""

    def __init__(self, path: str, what: str) -> None:
        super().__init__(f"{path}: {what}" if path else what)
        self.path, self.what = path, what

    def within(self, outer: str) -> "MalformedError":
        inner = self.path if not self.path or self.path.startswith("[") else f".{self.path}"
        return MalformedError(outer + inner, self.what)


T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Codec(Generic[T]):
    """Two functions of one type: a value to its JSON text, and what `json` has read to a value."""

    dump: Callable[[T], str]
    decode: Callable[[Any], T]

    def encode(self, value: T) -> Any:
        """What `json` would read: for those who change a part of it."""
        return json.loads(self.dump(value))

    def read(self, text: str) -> T:
        """The value of a text that `dump` has made. Raises ValueError where it is no JSON, and
        MalformedError."""
        return self.decode(json.loads(text))


@cache
def codec_of(kind: Any) -> Codec[Any]:
    """The codec of a type: a dataclass, a union, an enum, a tuple or a plain value."""
    if isinstance(kind, type) and is_dataclass(kind):
        return Codec(_fields_dump(kind), _decoder_of(kind))
    known: dict[str, Any] = {}
    dump = eval(f"lambda value: {_dump_source(kind, 'value', known)}", known)
    return Codec(dump, _decoder_of(kind))


def _dump_source(kind: Any, value: str, known: dict[str, Any]) -> str:
    """Python source of the JSON text of `value`, an expression; what it calls goes to `known`.

    A template that is filled in one go is several times as fast as building objects for `json`.
    """

    def name(part: Any) -> str:
        known[f"_{len(known)}"] = part
        return f"_{len(known) - 1}"

    if isinstance(kind, NewType):
        return _dump_source(kind.__supertype__, value, known)
    if kind is float:
        known["repr"], known["isfinite"] = repr, math.isfinite
        return f"(repr(float({value})) if isfinite({value}) else {name(_dump_non_finite)}({value}))"
    if kind in _PLAIN:
        return f"{name(_PLAIN[kind])}({value})"
    if get_origin(kind) is tuple:
        return _tuple_source(get_args(kind), value, known)
    if get_origin(kind) in (Union, UnionType):
        kinds = [part for part in get_args(kind) if part is not NoneType]
        if len(kinds) < len(get_args(kind)):
            return f"('null' if {value} is None else {_dump_source(kinds[0], value, known)})"
        return f"{name({each: _union_member(each) for each in kinds})}[{value}.__class__]({value})"
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        return f"{name({member: json.dumps(member.value) for member in kind})}[{value}]"
    if isinstance(kind, type) and is_dataclass(kind):
        return f"{name(_remembering(_fields_dump(kind)))}({value})"
    raise TypeError(f"no codec for {kind!r}")


def _tuple_source(parts: tuple[Any, ...], value: str, known: dict[str, Any]) -> str:
    if len(parts) == 2 and parts[1] is Ellipsis:
        one, each = (_dump_source(parts[0], place, known) for place in (f"{value}[0]", "part"))
        many = f"'[' + ','.join([{each} for part in {value}]) + ']' if {value} else '[]'"
        return f"('[' + {one} + ']' if len({value}) == 1 else {many})"  # of a trace most are one
    places = [_dump_source(part, f"{value}[{i}]", known) for i, part in enumerate(parts)]
    return f"('[{','.join(['%s'] * len(parts))}]' % ({', '.join(places)},))"


def _union_member(kind: type) -> Callable[[Any], str]:
    return _fields_dump(kind, f'"kind":"{kind.__name__}"')


def _fields_dump(kind: type, *heads: str) -> Callable[[Any], str]:
    hints, known = get_type_hints(kind), dict[str, Any]()
    written = [field for field in fields(kind) if not _is_left_out(field)]
    seldom = [field for field in fields(kind) if _is_left_out(field)]  # after the others
    names = [*heads, *(f'"{field.name}":%s' for field in written)]
    template = "{" + ",".join(names) + "%s" * len(seldom) + "}"
    parts: list[str] = []
    for field in [*written, *seldom]:
        value = f"value.{field.name}"
        part = _dump_source(hints[field.name], value, known)
        if _is_left_out(field):
            part = f"""('' if {value} == {field.default!r} else ',"{field.name}":' + {part})"""
        parts.append(part + ",")
    dump: Callable[[Any], str] = eval(f"lambda value: {template!r} % ({''.join(parts)})", known)
    return dump


def _is_left_out(field: Field[Any]) -> bool:
    return field.metadata == LEFT_OUT


def _remembering(dump: Callable[[Any], str]) -> Callable[[Any], str]:
    """Keeps the last value and its text: many jobs in a row share one set of hyper-parameters."""
    last: tuple[Any, str] = (None, "")  # one object, so that threads never see half of it

    def dump_once(value: Any) -> str:
        nonlocal last
        known, text = last
        if known is not value:
            text = dump(value)
            last = value, text
        return text

    return dump_once


def _dump_non_finite(value: float) -> str:
    return f'"{float(value)}"'


_PLAIN: dict[Any, Callable[[Any], str]] = {
    int: int.__repr__,
    str: encode_basestring_ascii,
    bool: lambda value: "true" if value else "false",
}


@cache
def _decoder_of(kind: Any) -> Callable[[Any], Any]:
    if isinstance(kind, NewType):
        return _decoder_of(kind.__supertype__)
    if kind is float:
        return _decode_float
    if kind in (int, str, bool, NoneType):
        return partial(_exactly, kind)
    if get_origin(kind) is tuple:
        return _tuple_decode(get_args(kind))
    if get_origin(kind) in (Union, UnionType):
        return _union_decode(get_args(kind))
    if issubclass(kind, StrEnum):
        return partial(_member, kind)
    return _dataclass_decode(kind)


def _dataclass_decode(kind: type) -> Callable[[Any], Any]:
    hints = get_type_hints(kind)
    decoders = {field.name: _decoder_of(hints[field.name]) for field in fields(kind)}
    needed = {field.name for field in fields(kind) if not _has_default(field)}

    def decode(value: Any) -> Any:
        body = _exactly(dict, value)
        if body.keys() != decoders.keys() and not needed <= body.keys() <= decoders.keys():
            raise _misfit(kind, list(decoders), needed, body)
        values: dict[str, Any] = {}
        name = ""
        try:
            for name, part in body.items():
                values[name] = decoders[name](part)
        except MalformedError as error:
            raise error.within(name) from error
        try:
            return kind(**values)
        except ValueError as error:
            raise MalformedError("", str(error)) from error

    return decode


def _has_default(field: Field[Any]) -> bool:
    return field.default is not MISSING or field.default_factory is not MISSING


def _misfit(kind: type, known: list[str], needed: set[str], body: dict[str, Any]) -> MalformedError:
    if unknown := [name for name in body if name not in known]:
        return MalformedError("", f"{kind.__name__} has no field {unknown[0]!r}")
    missing = next(name for name in known if name in needed and name not in body)
    return MalformedError("", f"{kind.__name__} needs the field {missing!r}")


def _union_decode(kinds: tuple[Any, ...]) -> Callable[[Any], Any]:
    """A union of dataclasses, told apart by `kind`; or of one type and None."""
    if NoneType in kinds:
        (kind,) = (kind for kind in kinds if kind is not NoneType)
        inner = _decoder_of(kind)
        return lambda value: None if value is None else inner(value)
    decoders = {kind.__name__: _decoder_of(kind) for kind in kinds}

    def decode(value: Any) -> Any:
        body = dict(_exactly(dict, value))
        name = body.pop("kind", MISSING)
        if not isinstance(name, str) or name not in decoders:
            found = "no kind" if name is MISSING else f"kind {name!r}"
            raise MalformedError("", f"expected a kind of {', '.join(decoders)}, got {found}")
        return decoders[name](body)

    return decode


def _tuple_decode(parts: tuple[Any, ...]) -> Callable[[Any], Any]:
    if len(parts) == 2 and parts[1] is Ellipsis:
        decode = _decoder_of(parts[0])
        return lambda value: _decode_all(repeat(decode), _exactly(list, value))
    decoders = [_decoder_of(part) for part in parts]

    def decode_fixed(value: Any) -> Any:
        if len(_exactly(list, value)) != len(decoders):
            raise MalformedError("", f"expected {len(decoders)} values, got {len(value)}")
        return _decode_all(decoders, value)

    return decode_fixed


def _decode_all(decoders: Iterable[Callable[[Any], Any]], values: list[Any]) -> tuple[Any, ...]:
    done: list[Any] = []
    try:
        for decode, value in zip(decoders, values, strict=False):
            done.append(decode(value))
    except MalformedError as error:
        raise error.within(f"[{len(done)}]") from error
    return tuple(done)


def _exactly(kind: type, value: Any) -> Any:
    if type(value) is not kind:  # a bool is no int here
        raise MalformedError("", f"expected {_name(kind)}, got {_quoted(value)}")
    return value


def _quoted(value: Any) -> str:
    """A whole file of another form may stand in one line."""
    text = repr(value)
    return text if len(text) <= _MOST_QUOTED else f"{text[: _MOST_QUOTED - 3]}..."


def _name(kind: type) -> str:
    return {dict: "an object", list: "a list", NoneType: "null"}.get(kind, kind.__name__)


def _member(kind: type[StrEnum], value: Any) -> StrEnum:
    names = [member.value for member in kind]
    if value not in names:
        raise MalformedError("", f"expected one of {', '.join(names)}, got {_quoted(value)}")
    return kind(value)


def _decode_float(value: Any) -> float:
    if type(value) in (int, float):
        try:
            return float(value)
        except OverflowError as error:
            raise MalformedError("", f"expected a float, got {_quoted(value)}") from error
    if isinstance(value, str) and value in _NON_FINITE:
        return _NON_FINITE[value]
    raise MalformedError("", f"expected a float, got {_quoted(value)}")
