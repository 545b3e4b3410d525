"""Fits the landscape of generated curves to the final losses of real sweeps."""

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from alto_policy.types import Hyperparameters
from alto_runs.errors import UserError
from alto_sim.curves.landscape import DEFAULT_LANDSCAPE, Landscape

__all__ = ["FinalLoss", "LandscapeFit", "fit_landscape", "read_sweep"]

Array = NDArray[np.float64]

_COLUMNS = ("model", "learning_rate", "rank", "test_nll")
_SWEEP_ALPHA, _SWEEP_BATCH = 32.0, 128
_FLOOR = 0.01  # relative excess below which differences are noise
_SHIFT_PRIOR = 0.25  # decades by which the best learning rate of a model may well differ
_STEPS = 40


@dataclass(frozen=True, slots=True)
class FinalLoss:
    """The end of one run; losses are compared within a task alone."""

    task: str
    hyperparameters: Hyperparameters
    loss: float


@dataclass(frozen=True, slots=True)
class LandscapeFit:
    """The landscape, and for each run the excess that was measured and that it predicts."""

    landscape: Landscape
    runs: tuple[FinalLoss, ...]
    measured: tuple[float, ...]
    predicted: tuple[float, ...]

    @property
    def explained(self) -> float:
        """Share of the variance of the logarithm of the excess, floored at one per cent."""
        measured, predicted = np.log(_floored(self.measured)), np.log(_floored(self.predicted))
        return float(1 - np.var(measured - predicted) / np.var(measured))


def read_sweep(path: Path) -> tuple[FinalLoss, ...]:
    """A table of runs by model, learning rate and rank; raises UserError with the line at fault."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot read this table: {error}") from error
    runs = []
    for number, row in enumerate(rows, start=2):
        if missing := [name for name in _COLUMNS if row.get(name) is None]:
            raise UserError(f"{path}: line {number}: expected the column {missing[0]!r}")
        try:
            chosen = Hyperparameters(
                rank=int(row["rank"]),
                alpha=_SWEEP_ALPHA,
                learning_rate=float(row["learning_rate"]),
                batch_size=_SWEEP_BATCH,
            )
            runs.append(FinalLoss(row["model"], chosen, float(row["test_nll"])))
        except ValueError as error:
            raise UserError(f"{path}: line {number}: {error}") from error
    return tuple(runs)


def fit_landscape(runs: Sequence[FinalLoss], start: Landscape = DEFAULT_LANDSCAPE) -> LandscapeFit:
    """Least squares on the logarithm of the excess, with a best loss and rate for each task.

    Divergence cannot be fitted to runs that finished: it stays as it was.
    """
    tasks = sorted({run.task for run in runs})
    index = np.array([tasks.index(run.task) for run in runs])
    losses = np.array([run.loss for run in runs])
    lowest = np.array([losses[index == number].min() for number in range(len(tasks))])

    def parts(theta: Array) -> tuple[Landscape, Array, Array]:
        shape, rest = _landscape(theta[:6], start), theta[6:]
        shifts, best = rest[: len(tasks)], lowest * np.exp(-np.exp(rest[len(tasks) :]))
        shift_of = shifts[index]
        decades = [
            shape.decades_above(run.hyperparameters, float(shift))
            for run, shift in zip(runs, shift_of, strict=True)
        ]
        predicted = np.array(
            [shape.excess(r.hyperparameters, d) for r, d in zip(runs, decades, strict=True)]
        )
        return shape, losses / best[index] - 1, predicted

    def residuals(theta: Array) -> Array:
        _, measured, predicted = parts(theta)
        off = np.log(_floored(measured)) - np.log(_floored(predicted))
        shifts, headroom = np.split(theta[6:], 2)
        return np.concatenate([off, shifts / _SHIFT_PRIOR * 0.3, (headroom + 5.5) * 0.3])

    theta = np.concatenate([_theta(start), np.zeros(len(tasks)), np.full(len(tasks), -5.5)])
    theta = _least_squares(residuals, theta)
    shape, measured, predicted = parts(theta)
    off = np.log(_floored(measured)) - np.log(_floored(predicted))
    shape = replace(
        shape,
        rate_spread=float(np.std(theta[6 : 6 + len(tasks)])),
        residual=float(np.std(off)),
    )
    return LandscapeFit(
        shape, tuple(runs), tuple(map(float, measured)), tuple(map(float, predicted))
    )


def _theta(shape: Landscape) -> Array:
    positive = (shape.best_rate, shape.below, shape.above, shape.above_power, shape.rank_cost)
    return np.array([shape.scale_power, *np.log(positive)])


def _landscape(theta: Array, start: Landscape) -> Landscape:
    best_rate, below, above, above_power, rank_cost = (float(v) for v in np.exp(theta[1:6]))
    return replace(
        start,
        scale_power=float(theta[0]),
        best_rate=best_rate,
        below=below,
        above=above,
        above_power=above_power,
        rank_cost=rank_cost,
    )


def _least_squares(residuals: Callable[[Array], Array], theta: Array) -> Array:
    """Levenberg's steps with a numerical Jacobian."""
    damping, left = 1e-2, residuals(theta)
    for _ in range(_STEPS):
        columns = [(residuals(theta + step) - left) / 1e-5 for step in 1e-5 * np.eye(len(theta))]
        jacobian = np.stack(columns, axis=1)
        normal = jacobian.T @ jacobian
        move = np.linalg.solve(normal + damping * np.eye(len(theta)), -jacobian.T @ left)
        found = residuals(theta + move)
        if found @ found < left @ left:
            gained = 1 - (found @ found) / (left @ left)
            theta, left, damping = theta + move, found, damping / 5
            if gained < 1e-5:
                break
        else:
            damping *= 10
    return theta


def _floored(excess: Sequence[float] | Array) -> Array:
    return np.asarray(excess, dtype=np.float64) + _FLOOR
