"""What an exhibit is: a verdict, the numbers, the figure, and what they were made from.

What the paper shows and what is run instead stands in the docstring of the exhibit's module: the
title, then paragraphs that begin with `The paper:`, `Here:` and `The paper against itself:`.
"""

import csv
import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from io import StringIO
from pathlib import Path

from matplotlib.figure import Figure

from alto_runs.files.directory import write_atomically

__all__ = [
    "CONTRADICTION",
    "FIGURES",
    "Cell",
    "Exhibit",
    "Table",
    "Verdict",
    "markdown",
    "title_of",
    "verdict_over",
    "write",
]

CONTRADICTION = "The paper against itself:"  # begins a paragraph of an exhibit's docstring
FIGURES = Path(__file__).parents[1] / "figures"
_DOTS_PER_INCH = 110

Cell = str | int | float | None


class Verdict(StrEnum):
    REPRODUCED = "reproduced"
    PARTLY = "partly reproduced"
    NOT_REPRODUCED = "not reproduced"
    CANNOT = "cannot be tested here"
    BEYOND = "not in the paper"


_ENOUGH_TASKS = 3  # as many as the paper shows at least


def verdict_over(holds: Sequence[bool]) -> Verdict:
    """On a claim about all tasks, by whether it holds on each recorded one."""
    if not holds:
        return Verdict.CANNOT
    if all(holds) and len(holds) >= _ENOUGH_TASKS:
        return Verdict.REPRODUCED
    return Verdict.PARTLY if any(holds) else Verdict.NOT_REPRODUCED


@dataclass(frozen=True, slots=True)
class Table:
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Exhibit:
    """What one figure or table has come to."""

    verdict: Verdict
    gist: str  # a sentence: what it comes to, and so the verdict
    found: tuple[str, ...]  # sentences
    table: Table
    logs: tuple[str, ...]  # what the numbers were made from
    seeds: str  # and what the error bars are
    figure: Figure | None = None
    shown_rows: int = 14  # of the table in the gallery; the CSV has all


def write(name: str, exhibit: Exhibit) -> Path:
    """The figure as PNG and the numbers as CSV, under the name of the exhibit's module; where the
    figure is, or the numbers where there is none."""
    FIGURES.mkdir(exist_ok=True)
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(exhibit.table.columns)
    writer.writerows([_exact(cell) for cell in row] for row in exhibit.table.rows)
    write_atomically(FIGURES / f"{name}.csv", text.getvalue())
    if exhibit.figure is not None:
        exhibit.figure.savefig(
            FIGURES / f"{name}.png",
            dpi=_DOTS_PER_INCH,
            facecolor="white",
            metadata={"Software": None},
        )
    return FIGURES / f"{name}.{'csv' if exhibit.figure is None else 'png'}"


def title_of(text: str) -> str:
    """Of an exhibit's docstring."""
    return text.strip().split("\n", 1)[0].rstrip(".")


def markdown(name: str, text: str, exhibit: Exhibit) -> str:
    """The exhibit's section of the gallery; `text` is the docstring of its module."""
    title, *paragraphs = inspect.cleandoc(text).split("\n\n")
    stated = [
        f"*{head}.* {rest[:1].upper()}{rest[1:]}"
        for head, rest in (" ".join(each.split()).split(": ", 1) for each in paragraphs)
    ]
    rows = exhibit.table.rows[: exhibit.shown_rows]
    left_out = len(exhibit.table.rows) - len(rows)
    more = f"\n{left_out} more rows stand in `figures/{name}.csv`.\n" if left_out else ""
    image = [f"![{title_of(title)}](figures/{name}.png)"] if exhibit.figure else []
    parts = [
        f"## {title_of(title)}",
        f"**{exhibit.verdict.value}** · `exhibits/{name}.py`\n\n{exhibit.gist}",
        *stated,
        *image,
        _lines(exhibit.table.columns, rows) + more,
        "".join(f"- {sentence}\n" for sentence in exhibit.found),
        f"Made from: {'; '.join(exhibit.logs)}. {exhibit.seeds}\n",
    ]
    return "\n\n".join(part.rstrip("\n") for part in parts) + "\n"


def _lines(columns: tuple[str, ...], rows: tuple[tuple[Cell, ...], ...]) -> str:
    head = [f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
    return "\n".join([*head, *(f"| {' | '.join(map(_short, row))} |" for row in rows)]) + "\n"


def _short(cell: Cell) -> str:
    if cell is None:
        return ""
    return f"{cell:.3g}" if isinstance(cell, float) else str(cell)


def _exact(cell: Cell) -> Cell:
    return float(f"{cell:.6g}") if isinstance(cell, float) else cell
