"""Frozen dataclasses that are quick to make: a long trace makes millions of them."""

from dataclasses import MISSING, fields
from typing import Any, TypeVar

__all__ = ["quick"]

Kind = TypeVar("Kind")


def quick(kind: type[Kind]) -> type[Kind]:
    """Let a frozen, slotted dataclass fill its slots by their descriptors.

    The `__init__` that `dataclass` writes looks `object.__setattr__` up for each field, and takes
    more than twice as long. Raises TypeError for a field that has a default factory.
    """
    known: dict[str, Any] = {}
    positional: list[str] = []
    by_keyword: list[str] = []
    body: list[str] = []
    for field in fields(kind):  # type: ignore[arg-type]
        if field.default_factory is not MISSING:
            raise TypeError(f"{kind.__name__}.{field.name}: a default factory is not supported")
        known[f"set_{field.name}"] = kind.__dict__[field.name].__set__
        parameter = field.name
        if field.default is not MISSING:
            known[f"default_{field.name}"] = field.default
            parameter += f"=default_{field.name}"
        (by_keyword if field.kw_only else positional).append(parameter)
        body.append(f"    set_{field.name}(self, {field.name})")
    if hasattr(kind, "__post_init__"):
        body.append("    self.__post_init__()")
    star = ["*"] if by_keyword else []
    head = f"def __init__({', '.join(['self', *positional, *star, *by_keyword])}):"
    exec("\n".join([head, *body]), known)
    initialise = known["__init__"]
    initialise.__qualname__ = f"{kind.__qualname__}.__init__"
    kind.__init__ = initialise  # type: ignore[method-assign]
    return kind
