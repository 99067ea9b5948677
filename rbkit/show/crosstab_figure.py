"""Sources against domains: what regrouping kept together, and what it cut or joined anew."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from numpy.typing import ArrayLike, NDArray

from rbkit.errors import InputError
from rbkit.show.facts import Array
from rbkit.show.gram_figure import seriate
from rbkit.show.style import (
    INK,
    MUTED,
    PAPER,
    new_axes,
    plain_ticks,
    rbkit_style,
    set_alt,
    shorten,
)

_MOST_SOURCES = 40
_NUMBERS = 400  # cells up to which a number is written into each
_OF = {"source": "share of the source (%)", "domain": "share of the domain (%)",
       "count": "examples"}  # fmt: skip


def crosstab(
    sources: Sequence[str],
    labels: ArrayLike,
    names: Sequence[str],
    ax: Axes | None = None,
    *,
    of: Literal["source", "domain", "count"] = "source",
    most_sources: int = _MOST_SOURCES,
) -> Axes:
    """Heat map of sources (rows) against domains (columns), the mass near the diagonal.

    Parameters
    ----------
    sources : sequence of n str
        Source of every training example.
    labels : int array of shape (n,)
        Domain of each; those at -1 have a column of their own.
    names : sequence of m str
    ax : matplotlib Axes, optional
    of : {"source", "domain", "count"}
        What a cell's share is a share of: its row, its column, or a plain count.
    most_sources : int
        Smaller sources are put together in a last row.

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    InputError
        Lengths that do not fit, or nothing to count.
    """
    if of not in _OF:
        raise InputError("of", f"{of!r} is unknown", f"use one of {', '.join(_OF)}")
    table, rows, columns = count_table(sources, labels, names, most_sources)
    shares = {
        "source": 100 * table / np.maximum(table.sum(axis=1, keepdims=True), 1),
        "domain": 100 * table / np.maximum(table.sum(axis=0, keepdims=True), 1),
        "count": table.astype(np.float64),
    }[of]
    n_rows, n_columns = table.shape
    with rbkit_style():
        wide, high = (0.36, 0.27) if n_columns <= 24 else (0.23, 0.21)
        ax = new_axes(ax, 3.4 + wide * max(n_columns, 4), 2.2 + high * max(n_rows, 4))
        look = LinearSegmentedColormap.from_list("rbkit", [PAPER, "#9fc3e0", "#2b6ca3", "#0b2f52"])
        top = float(shares.max()) if of == "count" else 10 * np.ceil(shares.max() / 10)
        image = ax.imshow(shares, cmap=look, vmin=0, vmax=top, aspect="auto")
        plain_ticks(ax.yaxis, [f"{shorten(rows[i], 30)}  {table[i].sum():,}"
                               for i in range(n_rows)])  # fmt: skip
        plain_ticks(ax.xaxis, [shorten(name, 26) for name in columns],
                    rotation=45, ha="right", rotation_mode="anchor")  # fmt: skip
        ax.set_xticks(np.arange(-0.5, n_columns), minor=True)
        ax.set_yticks(np.arange(-0.5, n_rows), minor=True)
        ax.grid(False)
        ax.grid(True, which="minor", color="#eceff2", linewidth=0.7)
        ax.tick_params(which="both", length=0, labelsize=9 if n_columns <= 24 else 7.5)
        ax.spines[:].set_visible(False)
        if table.size <= _NUMBERS:
            _write_numbers(ax, shares, table, of, top)
        _colorbar(ax, image, _OF[of])
        ax.set_title("Sources against domains")
        set_alt(ax, _said(table, rows, columns))
    return ax


def count_table(
    sources: Sequence[str],
    labels: ArrayLike,
    names: Sequence[str],
    most_sources: int = _MOST_SOURCES,
) -> tuple[NDArray[np.int64], list[str], list[str]]:
    """Count examples by source and domain, ordered so that the mass lies near the diagonal.

    Returns
    -------
    table : ndarray of int64, shape (s, m)
    sources, domains : lists of str
        Names of rows and columns. Small sources together are the last row ("12 more sources"),
        examples in no domain the last column, where there are any.

    Examples
    --------
    >>> count_table(["a", "b", "b", "c"], [2, 0, 0, 1], ["x", "y", "z"])[0].tolist()
    [[1, 0, 0], [0, 2, 0], [0, 0, 1]]
    """
    found = np.asarray(labels, dtype=np.int64)
    if len(sources) != len(found) or not len(found):
        what = f"{len(sources)} sources for {len(found)} labels"
        raise InputError("sources", what, "give one of each per training example")
    m = len(names)
    if not -1 <= found.min() <= found.max() < m:
        what = f"from {found.min()} to {found.max()} for {m} names"
        raise InputError("labels", what, f"use -1 to {m - 1}")
    kinds, codes = np.unique(np.asarray(sources, dtype=str), return_inverse=True)
    table = np.zeros((len(kinds), m + 1), dtype=np.int64)
    np.add.at(table, (codes.ravel(), found), 1)  # -1 counts in the last column
    rows = [str(kind) for kind in kinds]
    rest: NDArray[np.int64] | None = None
    if len(rows) > most_sources:
        large = np.sort(np.argsort(-table.sum(axis=1), kind="stable")[: most_sources - 1])
        rest = table.sum(axis=0) - table[large].sum(axis=0)
        hidden = len(rows) - len(large)
        table, rows = table[large], [rows[i] for i in large]
    by_row, by_column = diagonal_order(table[:, :m])
    table = table[by_row][:, np.append(by_column, m)]
    rows = [rows[i] for i in by_row]
    columns = [str(names[i]) for i in by_column]
    if rest is not None:
        table = np.vstack([table, rest[np.append(by_column, m)]])
        rows.append(f"{hidden} more sources")
    if table[:, m].any():
        columns.append("in no domain")
    return table[:, : len(columns)], rows, columns


def diagonal_order(table: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Order rows and columns of a table of counts so that the mass lies near the diagonal.

    Rows with like profiles stand side by side (average linkage, optimal leaf order); columns
    follow at the mean place of their mass, in which large cells count more.

    Examples
    --------
    >>> rows, columns = diagonal_order([[0, 9, 0], [0, 0, 7], [8, 0, 0]])
    >>> np.array([[0, 9, 0], [0, 0, 7], [8, 0, 0]])[rows][:, columns].tolist()
    [[8, 0, 0], [0, 7, 0], [0, 0, 9]]
    """
    counts = np.asarray(table, dtype=np.float64)
    profile = np.sqrt(counts / np.maximum(counts.sum(axis=1, keepdims=True), 1))
    rows = seriate(profile @ profile.T)
    shares = counts / np.maximum(counts.sum(axis=0, keepdims=True), 1)
    best = (np.inf, rows, np.arange(counts.shape[1]))
    for _ in range(8):
        columns = _by_mean_place(shares[rows].T)
        if (away := _away(counts[rows][:, columns])) < best[0]:
            best = (away, rows, columns)
        rows = _by_mean_place((profile**2)[:, columns])
    return best[1], best[2]


def _by_mean_place(mass: Array) -> NDArray[np.int64]:
    """Order of the rows by the mean place of their mass; empty ones last."""
    heavy = mass**2
    total = heavy.sum(axis=1)
    place = np.divide(heavy @ np.arange(mass.shape[1]), total,
                      out=np.full(len(mass), np.inf), where=total > 0)  # fmt: skip
    return np.argsort(place, kind="stable").astype(np.int64)


def _away(counts: Array) -> float:
    """Mean squared distance of the mass from the diagonal of the unit square."""
    i, j = (np.linspace(0, 1, size) for size in counts.shape)
    return float((counts * (i[:, None] - j[None, :]) ** 2).sum() / max(counts.sum(), 1))


def _write_numbers(ax: Axes, shares: Array, table: NDArray[np.int64], of: str, top: float) -> None:
    for i, j in zip(*np.nonzero(table), strict=True):
        value = shares[i, j]
        text = f"{table[i, j]:,}" if of == "count" else f"{value:.0f}" if value >= 1 else "·"
        ax.text(j, i, text, ha="center", va="center", fontsize=7.5 if len(text) < 5 else 6.5,
                color=PAPER if value > 0.45 * top else INK if value >= 1 else MUTED)  # fmt: skip


def _colorbar(ax: Axes, image: Any, label: str) -> None:
    bar = ax.figure.colorbar(image, ax=ax, shrink=0.8, aspect=22, pad=0.02)
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=0, labelsize=8)
    bar.locator = matplotlib.ticker.MaxNLocator(5, integer=True)
    bar.update_ticks()
    bar.set_label(label, fontsize=8.5)


def _said(table: NDArray[np.int64], rows: list[str], columns: list[str]) -> str:
    main = table.argmax(axis=1)
    kept = table.max(axis=1) / np.maximum(table.sum(axis=1), 1)
    i = int(np.argmin(kept))
    said = f"{len(rows)} sources against {len(columns)} domains, {table.sum():,} examples."
    together = (table.max(axis=1).sum()) / max(int(table.sum()), 1)
    return (
        f"{said} {together:.0%} of the examples are in the main domain of their source; most "
        f"scattered: {rows[i]}, {kept[i]:.0%} in {columns[main[i]]}."
    )
