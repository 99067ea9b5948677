"""The paper's overheads beside their recomputation: which follow from its own cost model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from rbkit.show.style import INK, MUTED, new_axes, plain_ticks, rbkit_style, set_alt

if TYPE_CHECKING:
    from rbkit.train.cost_audit import Cell, Status

# A fill, and a sign that says the same without colour.
_LOOKS: dict[Status, tuple[str, str]] = {
    "reproduced": ("#d5ecdf", "✓"),
    "reproduced with other settings": ("#fbe9c6", "≈"),
    "not reproducible": ("#f6cfc7", "✗"),
}


def overhead_audit(cells: Sequence[Cell], ax: Axes | None = None) -> Axes:
    """Table of printed overheads, coloured by whether they can be recomputed.

    Parameters
    ----------
    cells : sequence of Cell
        From :func:`rbkit.train.cost_audit.table1`.
    ax : matplotlib Axes, optional

    Returns
    -------
    matplotlib Axes
    """
    corpora = list(dict.fromkeys(cell.corpus for cell in cells))
    methods = list(dict.fromkeys(cell.method for cell in cells))
    with rbkit_style():
        ax = new_axes(ax, 1.6 + 1.9 * len(corpora), 1.1 + 0.52 * len(methods))
        for cell in cells:
            x, y = corpora.index(cell.corpus), methods.index(cell.method)
            fill, sign = _LOOKS[cell.status]
            ax.add_patch(Rectangle((x - 0.48, y - 0.45), 0.96, 0.9, color=fill, lw=0))
            ax.text(x - 0.42, y, sign, va="center", color=INK, family="DejaVu Sans")
            ax.text(
                x + 0.42,
                y - 0.17,
                f"{cell.printed} %",
                va="center",
                ha="right",
                fontweight="bold",
                color=INK,
            )
            ax.text(
                x + 0.42,
                y + 0.2,
                f"recomputed {percent(cell.reproduced)}",
                va="center",
                ha="right",
                fontsize=8,
                color=MUTED,
            )
        ax.set(xlim=(-0.5, len(corpora) - 0.5), ylim=(len(methods) - 0.5, -0.5))
        plain_ticks(ax.xaxis, corpora, fontweight="bold")
        plain_ticks(ax.yaxis, methods)
        ax.tick_params(length=0, top=False, labeltop=True, labelbottom=False)
        ax.spines[:].set_visible(False)
        ax.grid(False)
        ax.set_title("Printed overhead, and what the cost model gives")
        for i, (status, (fill, sign)) in enumerate(_LOOKS.items()):
            left, below = -0.48 + i * len(corpora) / len(_LOOKS), len(methods) - 0.3
            ax.text(
                left,
                below,
                f" {sign}  {status} ",
                va="top",
                fontsize=8,
                color=INK,
                family="DejaVu Sans",
                clip_on=False,
                bbox={"facecolor": fill, "edgecolor": "none", "pad": 2.5},
            )
        counts = Counter(cell.status for cell in cells)
        lost = ", ".join(f"{c.method} on {c.corpus}" for c in cells if c.slip is not None)
        said = ", ".join(f"{counts[status]} {status}" for status in _LOOKS)
        set_alt(ax, f"{len(cells)} printed overheads: {said}. Not reproducible: {lost or 'none'}.")
    return ax


def percent(value: float) -> str:
    """Format a percentage to four digits, whatever its size.

    Examples
    --------
    >>> percent(0.00065104), percent(62.5), percent(14568.1), percent(0.0)
    ('0.000651 %', '62.5 %', '14,568 %', '0 %')
    """
    if value == 0:
        return "0 %"
    if value >= 1000:
        return f"{value:,.0f} %" if value >= 1e4 else f"{value:.5g} %"
    digits = 3 - int(f"{value:e}".split("e")[1])  # after the point
    return f"{value:.{digits}f}".rstrip("0").rstrip(".") + " %"
