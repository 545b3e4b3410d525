"""Jobs drawn from a search: spread evenly over every axis, in an order that a seed shuffles."""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from random import Random

from alto_policy.types import Hyperparameters
from alto_runs.fields import FieldError
from alto_runs.study_fields.search import Axis, Range, Value, configuration

__all__ = ["drawn"]

Chance = Callable[[], float]  # in [0, 1)

_DIGITS = 4  # of what is drawn, so that a table can tell it
_TRIES = 10_000  # for a job that is not there yet


@lru_cache(maxsize=16)  # who checks a study asks first, and who trains it once more
def drawn(axes: tuple[Axis | Range, ...], num_jobs: int, seed: int) -> tuple[Hyperparameters, ...]:
    """So many jobs, all of them different.

    Each axis is cut into as many equal parts as there are jobs, and each job has one part of each,
    by chance (McKay et al. 1979, Latin hypercube). Raises FieldError where the search has fewer
    jobs.
    """
    # Of Random's methods `random` alone is promised to stay as it is.
    chance = Random(seed).random
    columns = [_spread(num_jobs, chance) for _ in axes]
    found: dict[tuple[Value, ...], None] = {}
    for shares in zip(*columns, strict=True):
        for values in _tries(axes, shares, chance):
            if values not in found:
                found[values] = None
                break
        else:
            raise FieldError(("draw", "jobs"), f"the search has no more than {len(found)} jobs")
    names = [axis.field for axis in axes]
    return tuple(configuration(dict(zip(names, values, strict=True))) for values in found)


def _spread(parts: int, chance: Chance) -> list[float]:
    """One share in [0, 1) of each part, in any order."""
    shares = [(part + chance()) / parts for part in range(parts)]
    order = sorted((chance(), part) for part in range(parts))
    return [shares[part] for _, part in order]


def _tries(
    axes: Sequence[Axis | Range], shares: Sequence[float], chance: Chance
) -> Iterator[tuple[Value, ...]]:
    """What the shares come to; then, if that is taken, whatever else."""
    yield tuple(_at(axis, share) for axis, share in zip(axes, shares, strict=True))
    for _ in range(_TRIES):
        yield tuple(_at(axis, chance()) for axis in axes)


def _at(axis: Axis | Range, share: float) -> Value:
    """The value at this share of the way."""
    if isinstance(axis, Axis):
        return axis.values[int(share * len(axis.values))]
    low, high = axis.low, axis.high
    end = high + 1 if axis.is_whole else high
    if axis.log:
        value = math.exp(math.log(low) + share * (math.log(end) - math.log(low)))
    else:
        value = low + share * (end - low)
    if axis.is_whole:
        return min(int(value), int(high))
    return min(max(float(f"{value:.{_DIGITS}g}"), low), high)
