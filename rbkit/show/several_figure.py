"""Gram matrices and proportions of several variants as small multiples, on one scale."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rbkit.show.facts import Array
from rbkit.show.gram_figure import common_scale, extremes, mean_over_rounds, seriate, short_ids
from rbkit.show.mixture import proportions
from rbkit.show.style import MUTED, alt_text, plain_ticks, rbkit_style, set_alt, shorten
from rbkit.show.variant_looks import VariantLike
from rbkit.show.variant_panels import (
    MeanMixture,
    Names,
    Panel,
    by_names,
    gram_panel,
    layers_of,
    mixture_panel,
)

_MOST = 12  # panels of one figure


def gram_by_variant(variants: Sequence[VariantLike], *, most: int = _MOST) -> Figure:
    """Mean cosine Gram matrix of the last round of each variant, on one colour scale.

    Parameters
    ----------
    variants : sequence of variants
        Those whose runs tracked gradients; at most `most` are drawn, in the order given. The
        mean is over the seeds with the same domains as the first.
    most : int

    Returns
    -------
    matplotlib Figure
        Panels with the same domains have them in the same order; others have their own.
    """
    panels = [panel for variant in variants if (panel := gram_panel(variant)) is not None]
    shown = panels[:most]
    with rbkit_style():
        if not shown:
            return _nothing("no Gram matrix recorded")
        groups = by_names(shown)
        order = {names: seriate(mean_over_rounds(np.array([p.mean for p in found])))
                 for names, found in groups.items()}  # fmt: skip
        vmax = max(common_scale(panel.mean) for panel in shown)
        columns = _columns(shown)
        m = max(len(names) for names in groups)
        side = float(np.clip(0.13 * m, 2.1, 3.2))
        figure, axes = _grid(len(shown), columns, side, side + 0.45, 1.7)
        for i, (panel, ax) in enumerate(zip(shown, axes, strict=True)):
            ids = order[panel.names]
            image = _heat(ax, panel.mean[np.ix_(ids, ids)], vmax)
            _write_domains(
                ax, [panel.names[j] for j in ids], side, i % columns == 0, len(groups) > 1
            )
            ax.set_title(f"{shorten(panel.variant.label, 30)}", fontsize=10)
            ax.set_xlabel(panel.seeds, fontsize=8, color=MUTED)
            set_alt(ax, f"{panel.variant.label}: {extremes(panel.mean, panel.names)}.")
        bar = figure.colorbar(image, ax=list(axes), shrink=0.75, aspect=26, pad=0.02,
                              extend="both", label="cosine")  # fmt: skip
        bar.outline.set_visible(False)
        bar.ax.tick_params(length=0, labelsize=8)
        _tell(figure, "Gradient cosines, last round", len(panels), shown, groups)
    return figure


def proportions_by_variant(variants: Sequence[VariantLike], *, most: int = _MOST) -> Figure:
    """Proportions over time of each variant, mean over its seeds, with q at the right edge.

    Parameters
    ----------
    variants : sequence of variants
        Those whose runs recorded rounds; at most `most` are drawn, those whose proportions
        moved first. The mean is over the seeds with the same domains and rounds as the first.
    most : int

    Returns
    -------
    matplotlib Figure
        Domains have the same order and colour in all panels that have the same domains; of
        very many, the smaller ones are one layer.
    """
    panels = [panel for variant in variants if (panel := mixture_panel(variant)) is not None]
    shown = _most_moving(panels, most)
    with rbkit_style():
        if not shown:
            return _nothing("no proportions recorded")
        groups = by_names(shown)
        layers = {names: layers_of(found, len(names)) for names, found in groups.items()}
        columns = _columns(shown)
        m = max(len(found) for found in layers.values())
        named = len(groups) == 1
        height = max(2.5, 0.135 * m + 0.8) if named else 2.6
        figure, axes = _grid(len(shown), columns, 2.6, height, 2.3 if named else 0.3)
        for i, (panel, ax) in enumerate(zip(shown, axes, strict=True)):
            last = i % columns == columns - 1 or i == len(shown) - 1
            mean = MeanMixture(panel, layers[panel.names])
            proportions(mean, ax, order=range(len(layers[panel.names])), names=named and last,
                        title=shorten(panel.variant.label, 30))  # fmt: skip
            ax.title.set_fontsize(10)
            below = i + columns >= len(shown)
            ax.set_xlabel(f"optimizer step ({panel.seeds})" if below else panel.seeds, fontsize=8.5)
            if i % columns:
                ax.tick_params(labelleft=False)
        _tell(figure, "Proportions over time", len(panels), shown, groups)
    return figure


def _heat(ax: Axes, G: Array, vmax: float) -> Any:
    colours = matplotlib.colormaps["RdBu_r"].with_extremes(bad="#e3e7eb")
    image = ax.imshow(np.ma.masked_invalid(G), cmap=colours, vmin=-vmax, vmax=vmax,
                      interpolation="nearest")  # fmt: skip
    # The diagonal is 1 by definition and says nothing: a line through it.
    ax.plot([-0.5, len(G) - 0.5], [-0.5, len(G) - 0.5], color="#3b4652", linewidth=0.7)
    ax.grid(False)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    return image


def _write_domains(ax: Axes, names: list[str], side: float, first: bool, own: bool) -> None:
    """Names at the left: once per row, or as numbers at each panel that has its own domains."""
    size = min(7.5, 72 * side / len(names) * 0.9)
    texts = short_ids(names) if own else [shorten(name, 22) for name in names]
    legible = size > 3.5 and (own or first)
    ax.set(xticks=[], yticks=[])
    if legible:
        plain_ticks(ax.yaxis, texts, fontsize=size)


def _most_moving(panels: list[Panel], most: int) -> list[Panel]:
    """At most so many, in their order: fixed proportions only where there is room."""
    still = [bool(np.ptp(panel.mean, axis=0).max(initial=0) < 1e-9) for panel in panels]
    kept = sorted(sorted(range(len(panels)), key=lambda i: (still[i], i))[:most])
    return [panels[i] for i in kept]


def _columns(panels: Sequence[Panel]) -> int:
    """Panels in a row: a mixer's, where each has as many, so that columns compare; else 3 or 4."""
    n, counts = len(panels), Counter(panel.variant.mixer for panel in panels)
    each = set(counts.values())
    if len(each) == 1 and len(counts) > 1 and 1 < (columns := each.pop()) <= 4:
        return columns
    return n if n <= 4 else 3 if n in (5, 6, 9) else 4


def _grid(
    n: int, columns: int, width: float, height: float, beside: float
) -> tuple[Figure, list[Axes]]:
    """Figure with `n` axes in rows of `columns`, and `beside` inches for what stands at a side."""
    rows = -(-n // columns)
    figure = Figure(figsize=(width * columns + beside, height * rows + 0.35), layout="constrained")
    axes = np.atleast_1d(figure.subplots(rows, columns)).ravel()
    for ax in axes[n:]:
        ax.remove()
    return figure, list(axes[:n])


def _tell(
    figure: Figure, title: str, there: int, shown: Sequence[Panel], groups: Mapping[Names, Any]
) -> None:
    """Title, and an alternative text from those of the panels."""
    said = [] if there == len(shown) else [f"{len(shown)} of {there} variants"]
    if len(groups) > 1:
        said.append("variants differ in their domains: each kind has its own order")
    figure.suptitle(title, x=0.01, ha="left", fontsize=11.5, fontweight="bold")
    if said:
        figure.supxlabel("; ".join(said), x=0.01, ha="left", fontsize=8.5, color=MUTED)
    each = " ".join(alt_text(ax) for ax in figure.axes if ax.get_label() != "<colorbar>")
    seeds = ", ".join(dict.fromkeys(panel.seeds for panel in shown))
    set_alt(figure, f"{title}, mean over {seeds}. {'; '.join(said)}{'. ' if said else ''}{each}")


def _nothing(text: str) -> Figure:
    figure = Figure(figsize=(6.4, 1.2))
    figure.text(0.5, 0.5, text, ha="center", va="center", color=MUTED)
    set_alt(figure, f"Nothing to show: {text}.")
    return figure
