"""What each domain is about: cards, and sizes against the target.

Text of a corpus is data: everything is escaped on its way into HTML.
"""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from rbkit.show.style import (
    legend_above,
    mixer_colour,
    new_axes,
    plain_ticks,
    rbkit_style,
    set_alt,
    shorten,
    tidy,
)

_BAR, _MARK = "#9db4c8", mixer_colour("Target")


def domain_cards(domains: Any) -> str:
    """HTML table of the domains: name, size against q, top terms, sources, nearest example.

    Parameters
    ----------
    domains : Domains
        With ``cards``, ``sizes`` and ``q``.

    Returns
    -------
    str
        One escaped ``<table>`` with inline style and no script, for a notebook or a report.
    """
    shares, q = _shares(domains)
    top = max(float(shares.max(initial=0)), float(q.max(initial=0)), 1e-9)
    rows = []
    for i, card in enumerate(domains.cards):
        sources = ", ".join(f"{name} {share:.0%}" for name, share in top_sources(card.sources))
        nearest = shorten(card.nearest[0], 160) if card.nearest else ""
        rows.append(
            "<tr style='border-top:1px solid #dfe3e8;vertical-align:top'>"
            "<th scope='row' style='text-align:left;padding:6px 12px 6px 0'>"
            f"{escape(card.name)}</th>"
            f"<td style='padding:6px 12px;white-space:nowrap'>{card.size:,}"
            f"{_bar(shares[i] / top, _BAR)}{_bar(q[i] / top, _MARK)}"
            f"<small>{shares[i]:.1%} of train, q {q[i]:.1%}</small></td>"
            f"<td style='text-align:left;padding:6px 12px'>{escape(', '.join(card.terms[:8]))}</td>"
            f"<td style='text-align:left;padding:6px 12px'>{escape(sources)}</td>"
            f"<td style='text-align:left;padding:6px 0;color:#5b6673'>{escape(nearest)}</td></tr>"
        )
    head = "".join(
        f"<th scope='col' style='text-align:left;padding:4px 12px 4px {pad}px'>{title}</th>"
        for title, pad in zip(
            ("domain", "examples", "terms", "sources", "nearest to the centre"),
            (0, 12, 12, 12, 0),
            strict=True,
        )
    )
    return (
        "<table style='border-collapse:collapse;font-size:13px;line-height:1.4'>"
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    )


def domain_sizes(domains: Any, ax: Axes | None = None) -> Axes:
    """Share of each domain in the training set (bar) against the target proportions q (mark)."""
    with rbkit_style():
        shares, q = _shares(domains)
        m = len(shares)
        ax = new_axes(ax, 6.8, 1.1 + 0.27 * max(m, 3))
        order = np.argsort(shares, kind="stable")
        rows = np.arange(m)
        ax.barh(rows, 100 * shares[order], height=0.66, color=_BAR, label="train set")
        ax.plot(100 * q[order], rows, "D", color=_MARK, mec="white", ms=7, label="target q")
        tidy(ax, "x")
        plain_ticks(ax.yaxis, [shorten(domains.names[i], 36) for i in order])
        ax.tick_params(axis="y", length=0)
        ax.margins(y=0.02)
        ax.set_xlabel("share of examples (%)")
        ax.set_title("Size of each domain, and its target")
        legend_above(ax)
        gap = int(np.argmax(np.abs(q - shares))) if m else 0
        widest = (
            f"; widest gap {domains.names[gap]}: {shares[gap]:.1%} of the train set, "
            f"{q[gap]:.1%} of the target"
            if m
            else ""
        )
        set_alt(ax, f"Sizes of {m} domains against target proportions q{widest}.")
    return ax


def top_sources(sources: Mapping[str, float], n: int = 3) -> list[tuple[str, float]]:
    """Return the `n` sources with the largest share of a domain, as fractions of 1."""
    total = float(sum(sources.values())) or 1.0
    ranked = sorted(sources.items(), key=lambda item: (-item[1], item[0]))
    return [(str(name), float(share) / total) for name, share in ranked[:n] if share > 0]


def _shares(domains: Any) -> tuple[Any, Any]:
    sizes = np.asarray(domains.sizes, dtype=np.float64)
    return sizes / max(sizes.sum(), 1.0), np.asarray(domains.q, dtype=np.float64)


def _bar(fraction: float, colour: str) -> str:
    width = round(110 * min(max(float(fraction), 0.0), 1.0), 1)
    return f"<div style='height:5px;margin:2px 0;width:{width}px;background:{colour}'></div>"
