"""What each domain is about, as the page shows it: terms, sources, sizes, nearest examples."""

from __future__ import annotations

from typing import Any

import numpy as np

from rbkit.report.page.tiny import bar
from rbkit.show.cards import top_sources

_SHARE = 0.72  # of the room, so that a number fits behind the longest bar
_TEXT = 600  # characters of an example; the whole of it may be a book


def card_rows(domains: Any) -> list[dict[str, Any]]:
    """One dict per card of `domains`, the most wanted by the eval set first.

    Parameters
    ----------
    domains : Domains or None

    Returns
    -------
    list of dict
        ``name, size, terms, nearest, sources, share, q`` and the bars of the last two.
    """
    if domains is None or not domains.cards:
        return []
    sizes = np.asarray(domains.sizes, dtype=np.float64)
    share, q = sizes / max(sizes.sum(), 1.0), np.asarray(domains.q, dtype=np.float64)
    top = max(float(share.max(initial=0)), float(q.max(initial=0)), 1e-9)
    cards = [
        {
            "name": card.name,
            "size": int(sizes[i]),
            "terms": _texts(card.terms)[:10],
            "nearest": [_cut(text) for text in _texts(card.nearest)[:3]],
            "sources": top_sources(_shares(card.sources)),
            "share": float(share[i]),
            "q": float(q[i]),
            "share_bar": bar(_SHARE * float(share[i]) / top, "share"),
            "q_bar": bar(_SHARE * float(q[i]) / top, "want"),
        }
        for i, card in enumerate(domains.cards)
    ]
    return sorted(cards, key=lambda card: -card["q"])


def _texts(given: Any) -> list[str]:
    # Of a file of a stranger, nothing is sure but that it is JSON.
    return [str(text) for text in given] if isinstance(given, list | tuple) else []


def _shares(given: Any) -> dict[str, float]:
    found = given.items() if isinstance(given, dict) else ()
    return {str(name): float(share) for name, share in found
            if isinstance(share, int | float) and 0 <= share < 1e12}  # fmt: skip


def _cut(text: str) -> str:
    return text if len(text) <= _TEXT else text[: _TEXT - 1] + "…"
