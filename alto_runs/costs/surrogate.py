"""A sum of physical terms, fitted to measurements, and what the measurements say beyond it.

The trend is a product of factors near their expected values (a maximum a posteriori fit in the
logarithm); what is left over is interpolated by a Gaussian process. Inside the measured range the
answer so follows the measurements, outside of it the physics, and its uncertainty grows between.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from alto_runs.costs.work import Term

__all__ = ["Estimate", "Surrogate", "fit_surrogate"]

Array = NDArray[np.float64]

_NOISE = 0.02  # relative, of a median of repeats on one card
_MISFIT = 0.08  # relative, by which such physics is off
_HOST_MISFIT = 0.15  # relative, more of it where the host's launches are what takes time
_SHARPNESS = 4.0  # host and device overlap: a norm between their sum (1) and the larger (infinite)
_ITERATIONS = 60


@dataclass(frozen=True, slots=True)
class Estimate:
    """A positive quantity, and the standard deviation of its logarithm."""

    value: float
    spread: float

    def upper(self, deviations: float) -> float:
        return self.value * float(np.exp(deviations * self.spread))


@dataclass(frozen=True, slots=True)
class Surrogate:
    """Factors of the terms with their covariance, and the residuals at the measured places."""

    terms: tuple[Term, ...]
    log_factors: Array
    covariance: Array
    places: Array  # one row a measurement
    residuals: Array  # solved against the kernel matrix
    inverse: Array
    scatter: float = 1.0  # by which the measurements contradict each other more than is assumed

    @property
    def factors(self) -> tuple[float, ...]:
        return tuple(float(each) for each in np.exp(self.log_factors))

    def value(self, work: Sequence[float], place: Sequence[float]) -> float:
        """As `estimate`, without its spread, which takes most of the time."""
        near = _kernel(np.array([place]), self.places)[0]
        trend = _log_trend(self.log_factors, np.array([work]), self.terms)[0]
        return float(np.exp(trend + near @ self.residuals))

    def estimate(self, work: Sequence[float], place: Sequence[float]) -> Estimate:
        """The quantity whose terms are `work`, at the place of the pass among the measured ones."""
        row = np.array([work])
        slope = _slopes(self.log_factors, row, self.terms)[0]
        near = _kernel(np.array([place]), self.places)[0]
        log_value = _log_trend(self.log_factors, row, self.terms)[0] + near @ self.residuals
        unexplained = _MISFIT**2 - near @ self.inverse @ near
        # Far from all measurements the factors are unsure, near to them they are held.
        trust = float(near.max(initial=0.0)) / _MISFIT**2
        on_host = math.fsum(s for s, term in zip(slope, self.terms, strict=True) if term.on_host)
        unsure = (1 - trust) * (slope @ self.covariance @ slope + (_HOST_MISFIT * on_host) ** 2)
        spread = np.sqrt(max(unexplained, 0.0) + unsure + _NOISE**2)
        return Estimate(float(np.exp(log_value)), self.scatter * float(spread))


def fit_surrogate(
    terms: Sequence[Term],
    work: Sequence[Sequence[float]],
    places: Sequence[Sequence[float]],
    values: Sequence[float],
) -> Surrogate:
    """With no measurement at all, the expected factors."""
    rows = np.array(work, dtype=float).reshape(len(values), len(terms))
    where = np.array(places, dtype=float).reshape(len(values), len(places[0]) if places else 0)
    logs = np.log(np.array(values, dtype=float))
    log_factors, covariance = _fit_factors(tuple(terms), rows, logs)
    left = logs - _log_trend(log_factors, rows, tuple(terms))
    inverse = _inverted(_kernel(where, where) + _NOISE**2 * np.eye(len(values)))
    residuals = inverse @ left
    # Each measurement, told by the others, over the deviation that it should be off by.
    off = residuals / np.sqrt(inverse.diagonal())
    scatter = max(1.0, float(np.sqrt(np.mean(off**2)))) if len(values) else 1.0
    return Surrogate(tuple(terms), log_factors, covariance, where, residuals, inverse, scatter)


def _fit_factors(terms: tuple[Term, ...], work: Array, logs: Array) -> tuple[Array, Array]:
    """Levenberg's damped Gauss-Newton steps; the expected factors keep it well-posed."""
    expected = np.log([term.factor for term in terms])
    precision = np.diag([term.spread**-2.0 for term in terms])
    weight = 1 / (_NOISE**2 + _MISFIT**2)

    def loss(log_factors: Array) -> float:
        left = logs - _log_trend(log_factors, work, terms)
        off = log_factors - expected
        return float(weight * left @ left + off @ precision @ off)

    found, damping = expected, 1e-3
    for _ in range(_ITERATIONS):
        slopes = _slopes(found, work, terms)
        left = logs - _log_trend(found, work, terms)
        normal = weight * slopes.T @ slopes + precision
        downhill = weight * slopes.T @ left - precision @ (found - expected)
        step = np.linalg.solve(normal + damping * np.diag(np.diag(normal)), downhill)
        if loss(found + step) < loss(found):
            found, damping = found + step, damping / 4
        else:
            damping *= 8
        if np.abs(step).max() < 1e-7:
            break
    slopes = _slopes(found, work, terms)
    return found, _inverted(weight * slopes.T @ slopes + precision)


def _inverted(matrix: Array) -> Array:
    return np.asarray(np.linalg.inv(matrix), dtype=np.float64)


def _log_trend(log_factors: Array, work: Array, terms: tuple[Term, ...]) -> Array:
    host, device = _sides(np.exp(log_factors) * work, terms)
    larger = np.maximum(host, device)
    norm = ((host / larger) ** _SHARPNESS + (device / larger) ** _SHARPNESS) ** (1 / _SHARPNESS)
    trend: Array = np.log(larger * norm)
    return trend


def _slopes(log_factors: Array, work: Array, terms: tuple[Term, ...]) -> Array:
    """Derivative of the logarithm of the trend by the logarithm of each factor."""
    parts = np.exp(log_factors) * work
    host, device = _sides(parts, terms)
    larger = np.maximum(host, device)
    host_share = (host / larger) ** _SHARPNESS
    device_share = (device / larger) ** _SHARPNESS
    whole = host_share + device_share
    on_host = np.array([term.on_host for term in terms])
    tiny = np.finfo(float).tiny
    of_host = parts * (host_share / whole / np.maximum(host, tiny))[:, None]
    of_device = parts * (device_share / whole / np.maximum(device, tiny))[:, None]
    slopes: Array = np.where(on_host, of_host, of_device)
    return slopes


def _sides(parts: Array, terms: tuple[Term, ...]) -> tuple[Array, Array]:
    on_host = np.array([term.on_host for term in terms])
    return parts[:, on_host].sum(axis=1), parts[:, ~on_host].sum(axis=1)


def _kernel(left: Array, right: Array) -> Array:
    """Covariance of residuals: Matern's of order 3/2 over places whose unit is its reach."""
    if left.size == 0 or right.size == 0:
        return np.zeros((len(left), len(right)))
    distance = np.sqrt(3 * ((left[:, None, :] - right[None, :, :]) ** 2).sum(axis=2))
    kernel: Array = _MISFIT**2 * (1 + distance) * np.exp(-distance)
    return kernel
