"""Which hyper-parameters a task tries."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from itertools import product
from math import prod
from typing import Any

from alto_policy.types import Hyperparameters
from alto_runs.fields import FieldError, decode_fields, encode_fields, unknown_key

__all__ = [
    "PAPER_GRID",
    "Axis",
    "Value",
    "configuration",
    "configurations",
    "parse_jobs",
    "parse_search",
    "written_jobs",
    "written_search",
]

Value = float | int | str | bool | None

_MAX_JOBS = 10_000
_COUNTS, _MOST_AT_ONCE = ("batch_size", "accumulation"), 65_536  # a step holds all its samples
_FIELDS = [field.name for field in fields(Hyperparameters)]


@dataclass(frozen=True, slots=True)
class Axis:
    """The values of one hyper-parameter. No alpha (None) means twice the rank, as in the paper."""

    field: str
    values: tuple[Value, ...]


# The paper's search on one GPU (appendix A.4, 7-8B models): 60 jobs.
PAPER_GRID = (
    Axis("learning_rate", (1e-5, 5e-5, 2e-4, 3e-4, 5e-4)),
    Axis("rank", (16, 32, 64)),
    Axis("batch_size", (1, 2, 4, 8)),
)


def parse_search(given: object) -> tuple[Axis, ...]:
    """Every hyper-parameter's axis: those given in their order, then the rest at their defaults.

    Raises FieldError.
    """
    if not isinstance(given, Mapping):
        raise FieldError((), "expected hyper-parameters with a value or a list of values")
    lengths = (len(value) for value in given.values() if isinstance(value, list))
    if (num_jobs := prod(lengths)) > _MAX_JOBS:
        raise FieldError((), f"the grid has {num_jobs} jobs, expected {_MAX_JOBS} at most")
    return _completed([_axis(name, value) for name, value in given.items()])


def parse_jobs(given: object) -> tuple[Hyperparameters, ...]:
    """Jobs that are written out one by one. Raises FieldError."""
    if not isinstance(given, list) or not 1 <= len(given) <= _MAX_JOBS:
        raise FieldError((), f"expected a list of 1 to {_MAX_JOBS} jobs")
    return tuple(_job(number, job) for number, job in enumerate(given))


def configurations(axes: Iterable[Axis]) -> tuple[Hyperparameters, ...]:
    """The product of the axes; the last of them varies fastest."""
    axes = tuple(axes)
    names = [axis.field for axis in axes]
    grid = product(*(axis.values for axis in axes))
    return tuple(configuration(dict(zip(names, values, strict=True))) for values in grid)


def configuration(given: Mapping[str, Value]) -> Hyperparameters:
    """One job's hyper-parameters. Raises FieldError."""
    values = dict(given)
    for name in _COUNTS:
        count = values.get(name)
        if isinstance(count, int) and count > _MOST_AT_ONCE:
            raise FieldError((name,), f"expected {_MOST_AT_ONCE:,} at most")
    if values.get("alpha") is not None:
        return decode_fields(Hyperparameters, values)
    values.pop("alpha", None)
    rank = decode_fields(Hyperparameters, values).rank
    return decode_fields(Hyperparameters, {**values, "alpha": 2 * rank})


def written_search(axes: Iterable[Axis]) -> dict[str, Any]:
    """The axes as a study file has them."""
    return {
        axis.field: list(axis.values) if len(axis.values) > 1 else axis.values[0] for axis in axes
    }


def written_jobs(jobs: Iterable[Hyperparameters]) -> list[dict[str, Any]]:
    return [encode_fields(job) for job in jobs]


def _axis(name: object, value: Any) -> Axis:
    if name not in _FIELDS:
        raise FieldError((str(name),), unknown_key(name, _FIELDS))
    field = str(name)
    values = value if isinstance(value, list) else [value]
    if not values:
        raise FieldError((field,), "expected at least one value")
    seen: set[Value] = set()
    for number, one in enumerate(values):
        try:
            configuration({field: one})
        except FieldError as error:
            raise FieldError((field, number), error.what) from error
        if one in seen:
            raise FieldError((field, number), "this value stands twice in the list")
        seen.add(one)
    return Axis(field, tuple(values))


def _completed(axes: list[Axis]) -> tuple[Axis, ...]:
    defaults = encode_fields(Hyperparameters()) | {"alpha": None}
    named = {axis.field for axis in axes}
    rest = (Axis(name, (value,)) for name, value in defaults.items() if name not in named)
    return (*axes, *rest)


def _job(number: int, given: object) -> Hyperparameters:
    if not isinstance(given, Mapping):
        raise FieldError((number,), "expected hyper-parameters with their values")
    try:
        return configuration(given)
    except FieldError as error:
        raise error.within(number) from error
