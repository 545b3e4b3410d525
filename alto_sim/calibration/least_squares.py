"""Seconds of kinds of work, from sums of them."""

from collections.abc import Iterable, Sequence
from statistics import fmean, median

import numpy as np

__all__ = ["LEAST_SECONDS", "solved", "typical", "weighed"]

LEAST_SECONDS = 1e-6
_RARE = 3.0  # medians, beyond which something else was under way


def typical(seconds: Iterable[float]) -> float:
    """The mean, since it is sums that are asked for, of all but what takes many times the median:
    memory or a disk that others use are no guide."""
    known = [*seconds]
    most = _RARE * max(0.0, median(known or [0.0]))
    return max(0.0, fmean([each for each in known if each <= most] or [0.0]))


def weighed(work: Sequence[tuple[float, ...]], seconds: Sequence[float]) -> list[float]:
    """Least squares of errors that grow with the root of the time."""
    roots = np.sqrt(np.maximum(seconds, LEAST_SECONDS))
    return solved(np.array(work, dtype=float) / roots[:, None], np.array(seconds) / roots)


def solved(work: np.ndarray, seconds: np.ndarray) -> list[float]:
    """Least squares; no coefficient is negative: the most negative one is left out and the rest
    are fitted again."""
    scale = np.maximum(np.abs(work).max(axis=0), 1.0)  # tokens outnumber passes by thousands
    columns = list(range(work.shape[1]))
    solution = np.zeros(work.shape[1])
    while columns:
        found = np.linalg.lstsq(work[:, columns] / scale[columns], seconds, rcond=None)[0]
        if found.min() >= 0:
            solution[columns] = found / scale[columns]
            break
        columns.pop(int(found.argmin()))
    return [float(value) for value in solution]
