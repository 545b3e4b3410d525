"""Where co-batching helps, and where it stops.

The paper: jobs trained side by side share the passes over one backbone; a card that one job leaves
idle is filled by others. How the gain falls as one job brings more tokens is not shown.

Here: tokens a second over the tokens that one job brings to a step (1 x 128, then 1 to 16 sequences
of 512), rank 16 on all linears, random weights, on one H100: as many jobs side by side as make up
16,384 tokens (32 at most; of 8B 8,192, which has room for no more and was measured twice), the same
job alone, and PEFT with one adapter. Ours are of one run, PEFT's the faster of that one and of one
before, for its steps wait for the host and differ by up to two thirds; so do ours of single jobs,
by a quarter. Losses and gradients were as exact as PyTorch's before anything was timed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.axes import Axes

from alto_runs.profile import JOB_SIZES, StepRow, read_profiles, shipped_profile
from alto_runs.report.drawing import GRID, INK, PALETTE, panels_of, tell_values
from experiments.exhibits.exhibit import Exhibit, Table, Verdict

__all__ = ["STEPS", "Point", "exhibit", "measured_points", "points_of"]

STEPS = "h100-peers.jsonl"  # of ours and of peers in one run
_PEERS_BEFORE = Path(__file__).parents[1] / "data" / "step_peers_h100.jsonl"
_MODELS = ("SmolLM2-135M", "Llama-3.2-1B", "Llama-3.1-8B")
_RANK = 16


@dataclass(frozen=True, slots=True)
class Point:
    """Tokens a second where a job brings so many tokens; None where it was not measured."""

    model: str
    tokens: int
    jobs: int  # side by side
    packed: float
    alone: float | None
    peft: float | None


def points_of(rows: Sequence[StepRow]) -> tuple[Point, ...]:
    """Where jobs stood side by side, by model, then by tokens; of rows with a commit."""
    found = []
    for model in _MODELS:
        for batch_size, length in JOB_SIZES:
            alike = [
                row
                for row in rows
                if row.model.name == model
                and (row.batch_size, row.length, row.rank) == (batch_size, length, _RANK)
                and not row.recompute
                and row.machine.commit is not None
            ]
            ours = {row.jobs: row for row in alike if row.kernels == "alto-triton"}
            peft = [row for row in alike if row.kernels == "peft"]
            most = max(ours, default=1)
            if most > 1:
                found.append(
                    Point(
                        model,
                        batch_size * length,
                        most,
                        _speed(ours[most]),
                        _speed(ours[1]) if 1 in ours else None,
                        max(map(_speed, peft), default=None),
                    )
                )
    return tuple(found)


def measured_points() -> tuple[Point, ...]:
    rows = read_profiles((shipped_profile(STEPS), _PEERS_BEFORE))
    return points_of([row for row in rows if isinstance(row, StepRow)])


def exhibit() -> Exhibit:
    points = measured_points()
    models = list(dict.fromkeys(point.model for point in points))
    figure, panels = panels_of(3.4, len(models))
    for model, axes in zip(models, panels, strict=True):
        _draw(axes, model, [point for point in points if point.model == model])
    panels[0].set_ylabel("tokens/s")
    panels[0].legend(fontsize=7, frameon=False, labelcolor=INK)
    return Exhibit(
        verdict=Verdict.BEYOND,
        gist="Packing jobs gains most where one brings few tokens, and next to nothing over the "
        f"same job alone at 8,192: {_gist(points)}.",
        found=tuple(_told(model, points) for model in models),
        table=Table(
            ("model", "tokens of a job", "jobs", "packed", "alone", "PEFT alone", "over PEFT"),
            tuple(
                (p.model, p.tokens, p.jobs, p.packed, p.alone, p.peft, _ratio(p.packed, p.peft))
                for p in points
            ),
        ),
        logs=(f"`kernels/profiles/{STEPS}`", f"`experiments/data/{_PEERS_BEFORE.name}`"),
        seeds="Medians of repeated steps; no error bars.",
        figure=figure,
    )


def _gist(points: Sequence[Point]) -> str:
    """Of the smallest model with the most tokens of a job."""
    gains = {p.model: (p.tokens, p.packed / p.alone) for p in points if p.alone is not None}
    return ", ".join(f"{name} {gain:.2f}x at {tokens:,}" for name, (tokens, gain) in gains.items())


def _told(model: str, points: Sequence[Point]) -> str:
    mine = [point for point in points if point.model == model]
    peers = [f"{p.packed / p.peft:.1f}x at {p.tokens}" for p in mine if p.peft is not None]
    own = [f"{p.packed / p.alone:.2f}x at {p.tokens}" for p in mine if p.alone is not None]
    return (
        f"{model}, packed over PEFT alone by tokens of a job: {', '.join(peers) or 'nothing'}; "
        f"over the same job alone on our kernels: {', '.join(own) or 'nothing'}."
    )


def _ratio(speed: float, peer: float | None) -> float | None:
    return None if peer is None else speed / peer


def _speed(row: StepRow) -> float:
    return row.tokens / row.seconds


def _draw(axes: Axes, model: str, points: Sequence[Point]) -> None:
    speeds = {
        "ALTO, jobs packed": {point.tokens: point.packed for point in points},
        "ALTO, one job": {p.tokens: p.alone for p in points if p.alone is not None},
        "PEFT, one job": {p.tokens: p.peft for p in points if p.peft is not None},
    }
    for (name, known), colour in zip(speeds.items(), PALETTE, strict=False):
        axes.plot(list(known), list(known.values()), marker="o", ms=3, color=colour, label=name)
    axes.set_xscale("log", base=2)
    axes.set_xticks([p.tokens for p in points], [f"{p.tokens:,}" for p in points], fontsize=6.5)
    axes.minorticks_off()
    axes.set_yscale("log")
    tell_values(axes.yaxis)
    axes.set_title(model, fontsize=9, color=INK)
    axes.set_xlabel("tokens of one job in a step")
    axes.grid(axis="y", color=GRID)
