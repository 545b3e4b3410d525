"""Neighbours lead a job in bfloat16 no further astray than the shape of a batch does.

The paper: jobs that are trained side by side come to the losses that they come to alone.

Here: one job of rank 16 over 200 steps, beside 31 and 7 others of ranks 4 to 64 and batches of 1 to
3, and alone; and, as the measure, PEFT and AdamW on the same job, once with its four sequences in
one pass and once in two passes of two; several seeds. On an H100, a model of four layers of the
width of SmolLM2-135M and random weights (`cards/bf16_losses.py`). Roundings differ wherever a
product has another shape, and training carries them on: the bar is that neighbours cost no more
than this, in the mean of the steps, at the largest and at the last, but for two standard errors
over the seeds.
"""

import csv
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from alto_runs.report.drawing import GRID, INK, PALETTE, panels_of
from experiments.exhibits.exhibit import Exhibit, Table, Verdict

__all__ = ["apart", "exhibit"]

_LOSSES = Path(__file__).parents[1] / "data" / "bf16_losses_h100.csv"
_PAIRS = {
    "ALTO: beside 31 and alone": ("packed", "alone"),
    "ALTO: beside 7 and alone": ("beside_7", "alone"),
    "PEFT: a pass of 4, and 2 of 2": ("peft_4", "peft_2x2"),
}
_MEASURES = ("mean", "largest", "at the last step")

Array = NDArray[np.float64]


def apart(losses: dict[str, Array], one: str, other: str) -> Array:
    """Relative difference at each step."""
    difference: Array = np.abs(losses[one] / losses[other] - 1)
    return difference


def no_larger(ours: Array, theirs: Array) -> bool:
    """In the mean over seeds, but for two standard errors of the difference."""
    difference = ours - theirs
    error = difference.std(ddof=1) / len(difference) ** 0.5
    return bool(difference.mean() <= 2 * error)


def exhibit() -> Exhibit:
    losses = _read(_LOSSES)
    found = {label: apart(losses, *pair) for label, pair in _PAIRS.items()}
    by_seed = {label: _measured(values_SN) for label, values_SN in found.items()}
    *ours, theirs = by_seed.values()
    holds = [no_larger(each[name], theirs[name]) for each in ours for name in _MEASURES]
    packed, alike = ours[0], len(theirs["mean"])
    return Exhibit(
        verdict=Verdict.REPRODUCED if all(holds) else Verdict.NOT_REPRODUCED,
        gist=f"A job's losses differ by {packed['mean'].mean():.1e} between training beside 31 "
        f"neighbours and alone; PyTorch's differ by {theirs['mean'].mean():.1e} between two shapes "
        "of a batch. "
        + ("Other seeds differ by more." if all(holds) else "Other seeds differ by less."),
        found=tuple(
            f"{name.capitalize()}, mean over seeds (standard error): "
            + "; ".join(f"{label} {_with_error(each[name])}" for label, each in by_seed.items())
            + "."
            for name in _MEASURES
        ),
        table=Table(
            ("pair", "seed", *_MEASURES),
            tuple(
                (label, seed, *(float(each[name][seed]) for name in _MEASURES))
                for label, each in by_seed.items()
                for seed in range(alike)
            ),
        ),
        shown_rows=3 * alike,
        logs=(f"`experiments/data/{_LOSSES.name}`",),
        seeds=f"{alike} seeds, each its own adapter and order of data; bands from the least to the "
        "largest.",
        figure=_drawn(found, by_seed),
    )


def _measured(values_SN: Array) -> dict[str, Array]:
    """Of each seed."""
    measures = (values_SN.mean(axis=1), values_SN.max(axis=1), values_SN[:, -1])
    return dict(zip(_MEASURES, measures, strict=True))


def _with_error(values: Array) -> str:
    return f"{values.mean():.1e} ({values.std(ddof=1) / len(values) ** 0.5:.0e})"


def _drawn(found: dict[str, Array], by_seed: dict[str, dict[str, Array]]) -> Figure:
    figure, (spread, ends) = panels_of(3.2, 2)
    for (label, values_SN), colour in zip(found.items(), PALETTE, strict=False):
        so_far = np.maximum.accumulate(values_SN, axis=1)
        steps = np.arange(1, so_far.shape[1] + 1)
        spread.plot(steps, so_far.mean(axis=0), color=colour, label=label)
        spread.fill_between(steps, so_far.min(axis=0), so_far.max(axis=0), color=colour, alpha=0.15)
    for place, (each, colour) in enumerate(zip(by_seed.values(), PALETTE, strict=False)):
        values = each["at the last step"]
        ends.plot([place] * len(values), values, "o", color=colour, ms=4, alpha=0.7)
        ends.plot([place - 0.2, place + 0.2], [values.mean()] * 2, color=colour)
    spread.set_title("largest difference so far, relative", fontsize=9, color=INK)
    ends.set_title("at the last step, each seed and their mean", fontsize=9, color=INK)
    spread.set_xlabel("step")
    names = [label.replace(": ", ":\n") for label in by_seed]
    ends.set_xticks(range(len(names)), names, fontsize=7)
    for axes in (spread, ends):
        axes.set_yscale("log")
        axes.grid(axis="y", color=GRID)
    spread.legend(fontsize=7, frameon=False, labelcolor=INK)
    return figure


def _read(path: Path) -> dict[str, Array]:
    """(seeds, steps) each, seeds in their order."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = sorted(csv.DictReader(file), key=lambda row: (int(row["seed"]), int(row["step"])))
    seeds = len({row["seed"] for row in rows})
    names = [name for name in rows[0] if name not in ("seed", "step")]
    return {name: np.array([float(row[name]) for row in rows]).reshape(seeds, -1) for name in names}
