"""One look for all figures, and their way into a page."""

import re
import warnings
from io import StringIO
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

__all__ = [
    "GRID",
    "INK",
    "MANY_SHAPES",
    "MUTED",
    "PALETTE",
    "figure_of",
    "grid_of",
    "panels_of",
    "short",
    "svg_of",
    "tell_thousands",
    "tell_values",
]

INK, MUTED, GRID = "#1F2933", "#616E7C", "#E4E7EB"
# Okabe and Ito's colours (2008), which all readers tell apart, in the order of their contrast.
PALETTE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#8C6D31", "#1A1A1A")
MANY_SHAPES = 1500  # drawn as an image from here on, to keep the page small

_STYLE: Any = {  # the stubs spell out every key
    "svg.fonttype": "none",  # text stays text: it can be searched, and scales
    "svg.hashsalt": "alto",  # the same run gives the same page
    "font.family": "sans-serif",
    "font.size": 10,
    "text.parse_math": False,  # names come from the user
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": GRID,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "savefig.dpi": 150,
}


def figure_of(height: float) -> tuple[Figure, Axes]:
    """A figure as wide as the page, of that many inches of height, with a quiet frame."""
    figure, (axes,) = panels_of(height, 1)
    return figure, axes


def panels_of(height: float, count: int, *, stacked: bool = False) -> tuple[Figure, list[Axes]]:
    """As `figure_of`, with panels side by side, or one above the other over the same x-axis."""
    rows, columns = (count, 1) if stacked else (1, count)
    figure, panels = grid_of(height, rows, columns, sharex=stacked)
    return figure, [axes for row in panels for axes in row]


def grid_of(
    height: float, rows: int, columns: int, *, sharex: bool = False
) -> tuple[Figure, list[list[Axes]]]:
    """As `panels_of`, in rows and columns."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(9.6, height), layout="constrained")
        panels = figure.subplots(rows, columns, sharex=sharex, squeeze=False)
    for axes in panels.flat:
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(length=0)
        axes.set_axisbelow(True)
    return figure, [list(row) for row in panels]


def short(value: float, digits: int = 3) -> str:
    """With so many digits, more where it is larger, and never with an exponent for that."""
    return f"{value:,.0f}" if round(abs(value)) >= 10**digits else f"{value:.{digits}g}"


def tell_thousands(axis: Axis) -> None:
    """Ticks of a linear axis as numbers, thousands apart."""
    axis.set_major_formatter(lambda value, _: f"{value:,.10g}")


def tell_values(axis: Axis, subs: tuple[int, ...] = (1, 2, 5)) -> None:
    """Ticks of a logarithmic axis at these multiples of powers of ten, as numbers."""
    axis.set_major_locator(LogLocator(subs=subs))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(lambda value, _: f"{value:,.10g}")


def svg_of(figure: Figure, label: str) -> str:
    """The figure for an HTML page: no prolog, no addresses, and a label for those who hear it."""
    text = StringIO()
    nothing = {"Creator": None, "Date": None, "Format": None, "Type": None}
    with matplotlib.rc_context(_STYLE), warnings.catch_warnings():
        # Names may be in any script; the text stays text, and the browser has more fonts than we.
        warnings.filterwarnings(
            "ignore", message=r"Glyph \d+ .* missing from", category=UserWarning
        )
        figure.savefig(text, format="svg", metadata=nothing, transparent=True)
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' xmlns(:\w+)?="[^"]*"', "", svg, count=2)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    return svg.replace("<svg", f'<svg role="img" aria-label="{label}"', 1)
