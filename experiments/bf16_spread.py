"""Neighbours lead a job in bfloat16 no further astray than the shape of a batch does.

The paper: jobs that are trained side by side come to the losses that they come to alone.

Here: one job of rank 16 over 200 steps, beside 31 others of ranks 4 to 64 and batches of 1 to 3,
and alone; and, as the measure, PEFT and AdamW on the same job, once with its four sequences in one
pass and once in two passes of two. On an H100, a model of four layers of the width of SmolLM2-135M
and random weights (`bf16_losses.py`). Roundings differ wherever a product has another shape, and
training carries them on: the bar is that neighbours cost no more than this.
"""

import csv
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from alto_runs.report.drawing import GRID, INK, PALETTE, panels_of
from experiments.exhibit import Exhibit, Table, Verdict

__all__ = ["apart", "exhibit"]

_LOSSES = Path(__file__).parent / "data" / "bf16_losses_h100.csv"
_PAIRS = (
    ("packed", "alone", "ALTO: packed and alone"),
    ("peft_4", "peft_2x2", "PEFT: a pass of 4, and 2 of 2"),
)

_LABELS = {
    "packed": "ALTO, packed",
    "alone": "ALTO, alone",
    "peft_4": "PEFT, a pass of 4",
    "peft_2x2": "PEFT, 2 passes of 2",
}

Array = NDArray[np.float64]


def apart(losses: dict[str, Array], one: str, other: str) -> Array:
    """Relative difference at each step."""
    difference: Array = np.abs(losses[one] / losses[other] - 1)
    return difference


def exhibit() -> Exhibit:
    losses = _read(_LOSSES)
    found = {label: apart(losses, one, other) for one, other, label in _PAIRS}
    figure, (curves, spread) = panels_of(3.2, 2)
    for name, colour in zip(losses, PALETTE, strict=False):
        curves.plot(losses[name], color=colour, lw=1, label=_LABELS[name])
    for (label, values), colour in zip(found.items(), PALETTE, strict=False):
        spread.plot(np.maximum.accumulate(values), color=colour, label=label)
    curves.set_title("loss of the job", fontsize=9, color=INK)
    spread.set_title("largest difference so far, relative", fontsize=9, color=INK)
    spread.set_yscale("log")
    for axes in (curves, spread):
        axes.set_xlabel("step")
        axes.grid(axis="y", color=GRID)
        axes.legend(fontsize=7, frameon=False, labelcolor=INK)
    (ours, theirs) = found.values()
    return Exhibit(
        verdict=Verdict.REPRODUCED if _holds(ours, theirs) else Verdict.NOT_REPRODUCED,
        gist=f"Beside neighbours a job's losses are {ours.mean():.1e} apart from those alone, "
        f"PyTorch's {theirs.mean():.1e} between two shapes of the same batch.",
        found=(
            f"Packed against alone: {ours.mean():.1e} in the mean of the steps, "
            f"{ours.max():.1e} at most; PyTorch against itself {theirs.mean():.1e} and "
            f"{theirs.max():.1e}.",
        ),
        table=Table(
            ("pair", "mean", "largest", "at the last step"),
            tuple(
                (label, float(values.mean()), float(values.max()), float(values[-1]))
                for label, values in found.items()
            ),
        ),
        logs=(f"`experiments/data/{_LOSSES.name}`",),
        seeds="One seed.",
        figure=figure,
    )


def _holds(ours: Array, theirs: Array) -> bool:
    return bool(ours.mean() <= theirs.mean() and ours.max() <= theirs.max())


def _read(path: Path) -> dict[str, Array]:
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return {
        name: np.array([float(row[name]) for row in rows]) for name in rows[0] if name != "step"
    }
