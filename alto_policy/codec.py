"""JSON of frozen dataclasses, driven by the types of their fields and strict about them.

A member of a union of dataclasses carries its class name as `kind`; a float that JSON cannot
write (a diverged loss) is one of the strings "nan", "inf" and "-inf".
"""

import json
import math
from collections.abc import Callable, Iterable
from dataclasses import MISSING, dataclass, fields, is_dataclass
from enum import StrEnum
from functools import cache
from itertools import repeat
from json.encoder import encode_basestring_ascii
from operator import attrgetter
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
    """Two functions of one type: a value to its JSON text, and what `json` has read to a value."""

    dump: Callable[[Any], str]
    decode: Callable[[Any], Any]


@cache
def codec_of(kind: Any) -> Codec:
    """The codec of a type: a dataclass, a union, an enum, a tuple or a plain value."""
    if isinstance(kind, NewType):
        return codec_of(kind.__supertype__)
    if kind is float:
        return Codec(_dump_float, _decode_float)
    if kind in _DUMPS:
        return Codec(_DUMPS[kind], lambda value: _exactly(kind, value))
    if get_origin(kind) is tuple:
        return _tuple_codec(get_args(kind))
    if get_origin(kind) in (Union, UnionType):
        return _union_codec(get_args(kind))
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        texts = {member: json.dumps(member.value) for member in kind}
        return Codec(texts.__getitem__, lambda value: _member(kind, value))
    if isinstance(kind, type) and is_dataclass(kind):
        return Codec(_dataclass_dump(kind), _dataclass_decode(kind))
    raise TypeError(f"no codec for {kind!r}")


def _dataclass_dump(kind: type, tag: str = "") -> Callable[[Any], str]:
    """Fills the fields into a template: several times as fast as building an object for `json`."""
    hints = get_type_hints(kind)
    names = [field.name for field in fields(kind)]
    dumps = [codec_of(hints[name]).dump for name in names]
    template = "{" + ",".join([*([tag] if tag else []), *(f'"{name}":%s' for name in names)]) + "}"
    if not names:
        return lambda _: template
    if len(names) == 1:  # attrgetter gives no tuple then
        (name,), (dump,) = names, dumps
        return lambda value: template % dump(getattr(value, name))
    values_of = attrgetter(*names)
    return lambda value: (
        template % tuple([dump(part) for dump, part in zip(dumps, values_of(value), strict=True)])
    )


def _dataclass_decode(kind: type) -> Callable[[Any], Any]:
    hints = get_type_hints(kind)
    decoders = {field.name: codec_of(hints[field.name]).decode for field in fields(kind)}

    def decode(value: Any) -> Any:
        body = _exactly(dict, value)
        if body.keys() != decoders.keys():
            raise _misfit(kind, list(decoders), body)
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


def _misfit(kind: type, known: list[str], body: dict[str, Any]) -> MalformedError:
    if unknown := [name for name in body if name not in known]:
        return MalformedError("", f"{kind.__name__} has no field {unknown[0]!r}")
    missing = next(name for name in known if name not in body)
    return MalformedError("", f"{kind.__name__} needs the field {missing!r}")


def _union_codec(kinds: tuple[Any, ...]) -> Codec:
    """A union of dataclasses, told apart by `kind`; or of one type and None."""
    if NoneType in kinds:
        (kind,) = (kind for kind in kinds if kind is not NoneType)
        inner = codec_of(kind)
        return Codec(
            lambda value: "null" if value is None else inner.dump(value),
            lambda value: None if value is None else inner.decode(value),
        )
    dumps = {kind: _dataclass_dump(kind, f'"kind":"{kind.__name__}"') for kind in kinds}
    decoders = {kind.__name__: codec_of(kind).decode for kind in kinds}

    def decode(value: Any) -> Any:
        body = dict(_exactly(dict, value))
        name = body.pop("kind", MISSING)
        if not isinstance(name, str) or name not in decoders:
            found = "no kind" if name is MISSING else f"kind {name!r}"
            raise MalformedError("", f"expected a kind of {', '.join(decoders)}, got {found}")
        return decoders[name](body)

    return Codec(lambda value: dumps[type(value)](value), decode)


def _tuple_codec(parts: tuple[Any, ...]) -> Codec:
    if len(parts) == 2 and parts[1] is Ellipsis:
        dump, decode = codec_of(parts[0]).dump, codec_of(parts[0]).decode
        return Codec(
            lambda value: f"[{','.join([dump(part) for part in value])}]",
            lambda value: _decode_all(repeat(decode), _exactly(list, value)),
        )
    dumps = [codec_of(part).dump for part in parts]
    decoders = [codec_of(part).decode for part in parts]

    def decode_fixed(value: Any) -> Any:
        if len(_exactly(list, value)) != len(decoders):
            raise MalformedError("", f"expected {len(decoders)} values, got {len(value)}")
        return _decode_all(decoders, value)

    return Codec(
        lambda value: (
            f"[{','.join([dump(part) for dump, part in zip(dumps, value, strict=True)])}]"
        ),
        decode_fixed,
    )


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
        raise MalformedError("", f"expected {_name(kind)}, got {value!r}")
    return value


def _name(kind: type) -> str:
    return {dict: "an object", list: "a list", NoneType: "null"}.get(kind, kind.__name__)


def _member(kind: type[StrEnum], value: Any) -> StrEnum:
    names = [member.value for member in kind]
    if value not in names:
        raise MalformedError("", f"expected one of {', '.join(names)}, got {value!r}")
    return kind(value)


def _dump_float(value: float) -> str:
    return repr(float(value)) if math.isfinite(value) else f'"{float(value)}"'


def _decode_float(value: Any) -> float:
    if type(value) in (int, float):
        try:
            return float(value)
        except OverflowError as error:
            raise MalformedError("", f"expected a float, got {value!r}") from error
    if isinstance(value, str) and value in _NON_FINITE:
        return _NON_FINITE[value]
    raise MalformedError("", f"expected a float, got {value!r}")


_DUMPS: dict[Any, Callable[[Any], str]] = {
    int: int.__repr__,
    str: encode_basestring_ascii,
    bool: lambda value: "true" if value else "false",
    NoneType: lambda _: "null",
}
