"""Where a search space is good, poor and diverging: a form with few numbers, fitted to real sweeps.

All losses are relative to the best of their task. The learning rate is measured in decades above
the best one, which moves with the adapter's scale (fitted) and with the batch (assumed).
"""

import math
from dataclasses import dataclass

from alto_policy.types import Hyperparameters

__all__ = ["DEFAULT_LANDSCAPE", "Landscape"]

_FITTED_BATCH = 128  # sequences in a step of the sweep that the defaults were fitted to
_BATCH_POWER = 0.25  # of the best learning rate; between none and the square root of Adam's theory


@dataclass(frozen=True, slots=True, kw_only=True)
class Landscape:
    """Numbers of the final validation loss over learning rate, rank and batch size."""

    best_rate: float  # at scale 2 (alpha twice the rank), for the sweep's batch
    scale_power: float  # best rate over scale: the lower the scale, the higher the rate
    below: float  # relative excess a decade below the best rate
    above: float  # a decade above it
    above_power: float
    rank_cost: float  # relative excess of a halving of the rank below 64
    rate_spread: float  # standard deviation over tasks of the best rate, in decades
    residual: float  # standard deviation of the logarithm of what the form misses
    diverges_at: float  # decades above the best rate at which half of the jobs diverge
    diverges_within: float  # scale of that logistic curve, in decades

    def decades_above(self, chosen: Hyperparameters, shift: float = 0.0) -> float:
        """Of the job's learning rate over the best one of its task, which is shifted so."""
        if chosen.learning_rate == 0:
            return -math.inf
        best = math.log10(self.best_rate) - self.scale_power * math.log10(chosen.scale / 2)
        best += _BATCH_POWER * math.log10(chosen.samples_per_step / _FITTED_BATCH)
        return math.log10(chosen.learning_rate) - best - shift

    def excess(self, chosen: Hyperparameters, decades: float) -> float:
        """Of the final validation loss over the best of the task, relative."""
        below, above = max(0.0, -decades), max(0.0, decades)
        return (
            self.below * below
            + self.above * math.pow(above, self.above_power)
            + self.rank_cost * max(0.0, math.log2(64 / chosen.rank))
        )

    def divergence(self, decades: float) -> float:
        """Probability that a job at that learning rate diverges."""
        return 1 / (1 + math.exp(-(decades - self.diverges_at) / self.diverges_within))


# `fit_landscape` of traces/sweeps/tinker_sft_sweep.csv (548 runs, 35 models); 72 of the 83 runs at
# 3e-3 diverged, and 8 of the 121 at 1e-3 and 2e-3, which sets the last two numbers.
DEFAULT_LANDSCAPE = Landscape(
    best_rate=4.66e-4,
    scale_power=0.0967,
    below=0.0302,
    above=0.281,
    above_power=2.93,
    rank_cost=0.00259,
    rate_spread=0.236,
    residual=0.194,
    diverges_at=0.62,
    diverges_within=0.13,
)
