"""Domains as a table: in a terminal, and in a notebook."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from rbkit.regroup.domains import Card, Domains

_CSS = (
    "<style>table.rbkit-domains{border-collapse:collapse;font:13px/1.5 system-ui,sans-serif}"
    "table.rbkit-domains :is(th,td){padding:3px 12px 3px 0;text-align:left;vertical-align:top;"
    "border-bottom:1px solid #8884}table.rbkit-domains td.n{text-align:right;"
    "font-variant-numeric:tabular-nums;white-space:nowrap}.rbkit-domains i{display:inline-block;"
    "height:9px;background:#3b75af;margin-left:6px}.rbkit-domains td.n+td.n i{background:#d1813a}"
    ".rbkit-domains summary{cursor:pointer}.rbkit-domains blockquote{margin:4px 0 4px 12px;"
    "opacity:.75;max-width:70ch}</style>"
)

_WHERE = {"nearest": "to the nearest domain", "own": "a domain of its own", "drop": "left out"}


def title(domains: Domains) -> str:
    """One line: how many domains, over what, made how, how good."""
    made = domains.method.get("name", "by hand")
    examples = f"{len(domains.train_labels):,} train and {len(domains.eval_labels):,} eval examples"
    parts = [f"{domains.m} domains over {examples}", made]
    if (score := domains.quality.get("silhouette")) is not None:
        parts.append(f"silhouette {score:.3f}")
    if (score := domains.quality.get("stability_ari")) is not None:
        parts.append(f"reseed ARI {score:.2f}")
    steps = len((domains.method.get("edits") or {}).get("ops", [])) - 1
    if steps > 0:
        parts.append(f"edited by hand ({steps} {'step' if steps == 1 else 'steps'})")
    if noise := domains.quality.get("noise"):
        where = _WHERE.get(str(noise.get("policy")), "")
        parts.append(f"noise {noise['share']:.1%} {where}".rstrip())
    far = domains.quality.get("far_eval", {})
    if far.get("apart"):
        parts.append(f"{far['far']:,} far eval examples kept apart")
    return " · ".join(parts)


def as_text(domains: Domains) -> str:
    """Return the title and one line per domain."""
    shares = _shares(domains)
    width = min(40, max(len(name) for name in domains.names))
    lines = [f"{'domain':<{width}}  {'train':>8}  {'share':>6}  {'q':>6}"]
    for name, size, (p, q) in zip(domains.names, domains.sizes, shares, strict=True):
        lines.append(f"{name[:width]:<{width}}  {size:>8,}  {p:>6.1%}  {q:>6.1%}")
    return "\n".join([title(domains), *lines])


def as_html(domains: Domains) -> str:
    """Return an HTML table; whatever comes from the corpus is escaped."""
    shares = _shares(domains)
    widest = max(float(shares.max()), 1e-9)
    rows = []
    for at, name in enumerate(domains.names):
        bars = "".join(
            f'<td class="n">{share:.1%}<i style="width:{60 * share / widest:.0f}px"></i></td>'
            for share in shares[at]
        )
        about = _about(domains.cards[at]) if domains.cards else ""
        rows.append(
            f'<tr><td>{escape(name)}</td><td class="n">{domains.sizes[at]:,}</td>{bars}'
            f"<td>{about}</td></tr>"
        )
    head = "<tr><th>domain</th><th>train</th><th>share</th><th>eval share q</th><th>about</th></tr>"
    return (
        f"{_CSS}<p>{escape(title(domains))}</p>"
        f'<table class="rbkit-domains"><thead>{head}</thead><tbody>{"".join(rows)}</tbody></table>'
    )


def _about(card: Card) -> str:
    terms = escape(", ".join(card.terms[:8]))
    sources = ", ".join(f"{name} {share:.0%}" for name, share in list(card.sources.items())[:4])
    quotes = "".join(f"<blockquote>{escape(text)}</blockquote>" for text in card.nearest)
    return f"<details><summary>{terms or 'examples'}</summary>{escape(sources)}{quotes}</details>"


def _shares(domains: Domains) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    pairs = [counts / max(1, counts.sum()) for counts in (domains.sizes, domains.eval_sizes)]
    return np.stack(pairs, axis=1)
