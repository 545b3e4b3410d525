"""Which hyper-parameters a task tries."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from itertools import product
from math import prod
from typing import Any

from alto_policy.types import Hyperparameters, Job, JobId
from alto_runs.fields import FieldError, decode_fields, encode_fields, unknown_key

__all__ = [
    "MAX_JOBS_OF_TASK",
    "PAPER_GRID",
    "Axis",
    "Range",
    "Value",
    "check_grid",
    "configuration",
    "configurations",
    "grid_size",
    "numbered_jobs",
    "parse_jobs",
    "parse_search",
    "written_jobs",
    "written_search",
]

Value = float | int | str | bool | None

MAX_JOBS_OF_TASK = 10_000
_COUNTS, _MOST_AT_ONCE = ("batch_size", "accumulation"), 65_536  # a step holds all its samples
_RANGE = ["low", "high", "log"]
_FIELDS = [field.name for field in fields(Hyperparameters)]


@dataclass(frozen=True, slots=True)
class Axis:
    """The values of one hyper-parameter. No alpha (None) means twice the rank, as in the paper."""

    field: str
    values: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Range:
    """Values of one hyper-parameter from `low` to `high`, of which jobs are drawn: evenly, or
    evenly in their logarithm."""

    field: str
    low: float
    high: float
    log: bool

    @property
    def is_whole(self) -> bool:
        return isinstance(self.low, int)


# The paper's search on one GPU (appendix A.4, 7-8B models): 60 jobs.
PAPER_GRID = (
    Axis("learning_rate", (1e-5, 5e-5, 2e-4, 3e-4, 5e-4)),
    Axis("rank", (16, 32, 64)),
    Axis("batch_size", (1, 2, 4, 8)),
)


def numbered_jobs(
    name: str, tried: Iterable[Hyperparameters], *, samples: int, reports: int, digits: int = 2
) -> tuple[Job, ...]:
    """Jobs `name-00` and so on, each on so many samples, the last batch rounded up."""
    jobs = []
    for number, hyperparameters in enumerate(tried):
        steps = max(1, -(-samples // hyperparameters.samples_per_step))
        jobs.append(
            Job(
                id=JobId(f"{name}-{number:0{digits}}"),
                hyperparameters=hyperparameters,
                steps=steps,
                reports=min(reports, steps),
            )
        )
    return tuple(jobs)


def parse_search(given: object) -> tuple[Axis | Range, ...]:
    """Every hyper-parameter's axis: those given in their order, then the rest at their defaults.

    Raises FieldError.
    """
    if not isinstance(given, Mapping):
        raise FieldError((), "expected hyper-parameters with a value, a list of values or a range")
    return _completed([_axis(name, value) for name, value in given.items()])


def parse_jobs(given: object) -> tuple[Hyperparameters, ...]:
    """Jobs that are written out one by one. Raises FieldError."""
    if not isinstance(given, list) or not 1 <= len(given) <= MAX_JOBS_OF_TASK:
        raise FieldError((), f"expected a list of 1 to {MAX_JOBS_OF_TASK} jobs")
    return tuple(_job(number, job) for number, job in enumerate(given))


def check_grid(axes: Iterable[Axis | Range]) -> None:
    """Raises FieldError where not all jobs of the search can be written out."""
    axes = tuple(axes)
    for axis in axes:
        if isinstance(axis, Range):
            what = "a range needs `draw: { jobs: N }`, how many are drawn of the search"
            raise FieldError(("search", axis.field), what)
    if (jobs := grid_size(axes)) > MAX_JOBS_OF_TASK:
        what = f"the grid has {jobs} jobs, expected {MAX_JOBS_OF_TASK} at most"
        raise FieldError(("search",), what)


def grid_size(axes: Iterable[Axis | Range]) -> int:
    return prod(len(axis.values) for axis in axes if isinstance(axis, Axis))


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


def written_search(axes: Iterable[Axis | Range]) -> dict[str, Any]:
    """The axes as a study file has them."""
    return {axis.field: _written(axis) for axis in axes}


def _written(axis: Axis | Range) -> Any:
    if isinstance(axis, Range):
        return {name: getattr(axis, name) for name in _RANGE}
    return list(axis.values) if len(axis.values) > 1 else axis.values[0]


def written_jobs(jobs: Iterable[Hyperparameters]) -> list[dict[str, Any]]:
    return [encode_fields(job) for job in jobs]


def _axis(name: object, value: Any) -> Axis | Range:
    if name not in _FIELDS:
        raise FieldError((str(name),), unknown_key(name, _FIELDS))
    field = str(name)
    if isinstance(value, Mapping):
        return _range(field, value)
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


def _range(field: str, given: Mapping[object, Any]) -> Range:
    """Raises FieldError."""
    for key in given:
        if key not in _RANGE:
            raise FieldError((field, str(key)), unknown_key(key, _RANGE))
    kind = type(encode_fields(Hyperparameters())[field])
    if kind in (bool, str):
        raise FieldError((field,), "expected a value or a list of values")
    low, high = (_end(field, name, given) for name in ("low", "high"))
    log = given.get("log", False)
    if not isinstance(log, bool):
        raise FieldError((field, "log"), "expected true or false")
    if low >= high:
        raise FieldError((field, "high"), f"expected more than `low`, {low}")
    if log and low <= 0:
        raise FieldError((field, "low"), "expected a number above 0, of which there is a logarithm")
    if kind is not int:
        low, high = float(low), float(high)
    return Range(field, low, high, log)


def _end(field: str, name: str, given: Mapping[object, Any]) -> int | float:
    value = given.get(name)
    if value is None:
        raise FieldError((field,), f"expected a number as `{name}`")
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise FieldError((field, name), "expected a number")
    try:
        configuration({field: value})
    except FieldError as error:
        raise FieldError((field, name), error.what) from error
    return value


def _completed(axes: list[Axis | Range]) -> tuple[Axis | Range, ...]:
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
