"""Figure 4: one adapter at a time leaves a GPU idle.

The paper: one adapter of batch 1, 2, 4 and 8: 15, 18, 25 and 39 % of 140 GB in use; streaming
multiprocessors active 7.7, 16.9, 17.4 and 11.7 % of the time, occupied 2.8, 6.9, 7.8 and 5.8 % (in
the order in which they are printed).

Here: memory and arithmetic of PEFT with one adapter of an 8B at 512 tokens, as measured on an H100
at batch 1, 4 and 8, and of ALTO with 16 jobs of batch 1. Arithmetic is the share of the rate that
cuBLAS reaches on the same card; counters of the multiprocessors were not read.

The paper against itself: its GPU has 140 GB, but the paper's hardware is the H100 of 80 GB.
"""

from matplotlib.figure import Figure

from alto_runs.costs.step_profile import work_of_row
from alto_runs.profile import GemmRow, StepRow, read_profile, shipped_profile
from alto_runs.report.drawing import GRID, INK, MUTED, PALETTE, panels_of
from experiments.exhibits.exhibit import Exhibit, Table, Verdict

__all__ = ["exhibit", "share_of_peak"]

_MODEL, _LENGTH, _CAPACITY = "Llama-3.1-8B", 512, 80e9
_SYSTEMS = {"peft": "PEFT", "alto-triton": "ALTO"}
_OF_PAPER = "paper, a card of 140 GB"
_PAPER_CAPACITY = 140e9
_PAPER = {1: 0.15, 2: 0.18, 4: 0.25, 8: 0.39}  # of it, one adapter, by batch size


def share_of_peak(row: StepRow, flops_per_second: float) -> float:
    """Of the frozen products of forward and backward; recomputation is not counted."""
    shape = row.model
    head = shape.vocabulary * shape.hidden
    flops = 4 * work_of_row(row).tokens * (shape.block_parameters + head)
    return flops / row.seconds / flops_per_second


def exhibit() -> Exhibit:
    rows = read_profile(shipped_profile())
    peak = max(row.flops_per_second for row in rows if isinstance(row, GemmRow))
    own = [
        row
        for row in rows
        if isinstance(row, StepRow)
        and row.model.name == _MODEL
        and row.length == _LENGTH
        and row.kernels in _SYSTEMS
    ]
    table = tuple(
        (
            f"{_SYSTEMS[row.kernels]}, {row.jobs} x {row.batch_size}",
            row.jobs * row.batch_size,
            None if row.peak_bytes is None else row.peak_bytes / _CAPACITY,
            share_of_peak(row, peak),
            row.tokens / row.seconds,
        )
        for row in own
    )
    alone = min(line[3] for line in table)
    most = max(line[3] for line in table if line[0].startswith("ALTO"))
    return Exhibit(
        verdict=Verdict.PARTLY,
        gist=f"One adapter with PEFT uses {alone:.0%} of the arithmetic that the card can do, 16 "
        f"jobs together {most:.0%}. Active multiprocessors, the paper's measure, were not counted.",
        found=(
            f"One adapter of batch 1 uses {alone:.0%} of what the card's products reach; jobs "
            f"together {most:.0%}. The paper's point holds: memory and arithmetic are left over.",
            "Its counters cannot be compared: active multiprocessors are not arithmetic.",
        ),
        table=Table(
            ("system, jobs x batch", "sequences", "of 80 GB", "of cuBLAS", "tokens/s"), table
        ),
        logs=("`kernels/profiles/h100.jsonl`",),
        seeds="Medians of measured passes.",
        figure=_draw(table),
    )


def _draw(table: tuple[tuple[str, int, float | None, float, float], ...]) -> Figure:
    figure, panels = panels_of(2.8, 2)
    names = [line[0] for line in table]
    gigabytes = [(line[2] or 0.0) * _CAPACITY / 1e9 for line in table]
    heights = (gigabytes, [100 * line[3] for line in table])
    titles = ("memory in use, GB of 80", "arithmetic, % of the rate of cuBLAS")
    for axes, values, title in zip(panels, heights, titles, strict=True):
        colours = [PALETTE[0] if name.startswith("ALTO") else MUTED for name in names]
        drawn = axes.barh(names, values, color=colours)
        form = "{:.0f} GB" if axes is panels[0] else "{:.0f}%"
        axes.bar_label(drawn, fmt=form, fontsize=8, color=INK, padding=6)
        axes.set_title(title, fontsize=9, color=INK)
        axes.set_xlim(0, 100)
        axes.grid(axis="x", color=GRID)
    known = {
        line[0]: _PAPER[line[1]] * _PAPER_CAPACITY / 1e9
        for line in table
        if line[0].startswith("PEFT")
    }
    panels[0].plot(list(known.values()), list(known), "D", mfc="white", mec=INK, label=_OF_PAPER)
    panels[0].axvline(_CAPACITY / 1e9, color=INK, lw=0.8, ls=":")
    panels[0].legend(fontsize=8, frameon=False, loc="lower right", bbox_to_anchor=(0.8, 0.0))
    panels[0].set_ylabel("jobs x batch size")
    panels[1].set_yticks([])
    return figure
