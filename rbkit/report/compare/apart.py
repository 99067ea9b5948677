"""Runs of one seed and the same parameters that yet had other data: what tells them apart.

Two such runs are no repeats of each other. Corpora and domains are told apart by what a
person would call them, as long as that is enough.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Iterator, Sequence
from itertools import combinations
from typing import Any

from rbkit.report.compare.values import frozen
from rbkit.show.facts import RunLike, domain_names, same_corpus, same_domains

_Describe = Callable[[RunLike], str | int]
UNKNOWN = "unknown"


def tell_data_apart(
    runs: Sequence[RunLike],
    settings: Sequence[dict[str, Any]],
    finished: Sequence[bool],
    varied: Sequence[str],
) -> list[str]:
    """Add settings for what runs of one variant and seed had different; return their names."""
    added: list[str] = []
    for name, same, ways in (("corpus", same_corpus, _CORPUS), ("domains", same_domains, _DOMAINS)):
        pairs = [
            pair for pair in _colliding(runs, settings, finished, (*varied, *added))
            if not same(*pair)
        ]  # fmt: skip
        if not pairs:
            continue
        # The last of them always tells apart: it is what the runs are compared by.
        way = next(way for way in ways if all(way(a) != way(b) for a, b in pairs))
        name = f"{name} made" if name in varied else name
        for run, values in zip(runs, settings, strict=True):
            values[name] = way(run)
        added.append(name)
    return added


def _colliding(
    runs: Sequence[RunLike],
    settings: Sequence[dict[str, Any]],
    finished: Sequence[bool],
    names: Sequence[str],
) -> Iterator[tuple[RunLike, RunLike]]:
    """Pairs of finished runs that nothing tells apart, not even their seed."""
    groups: dict[Hashable, list[RunLike]] = {}
    for run, values, done in zip(runs, settings, finished, strict=True):
        if done and values.get("seed") is not None:
            key = tuple(frozen(values.get(name)) for name in (*names, "seed"))
            groups.setdefault(key, []).append(run)
    for group in groups.values():
        yield from combinations(group, 2)


def _corpus(run: RunLike) -> dict[str, Any]:
    return run.info.get("corpus") or {}


def _size(run: RunLike) -> str:
    known = [_corpus(run).get(name) for name in ("n_train", "n_eval")]
    return UNKNOWN if None in known else f"{known[0]} + {known[1]} examples"


def _method(run: RunLike) -> str:
    made = getattr(run.domains, "method", None) or {}
    return str(made.get("name") or UNKNOWN)


def _count(run: RunLike) -> str | int:
    return len(domain_names(run)) or UNKNOWN


def _digest(run: RunLike) -> str:
    text = "\n".join(domain_names(run)).encode("utf-8", "replace")
    return f"{_count(run)} ({hashlib.sha256(text).hexdigest()[:6]})"


_CORPUS: list[_Describe] = [
    lambda run: str(_corpus(run).get("name") or UNKNOWN),
    _size,
    lambda run: str(_corpus(run).get("fingerprint") or UNKNOWN),
]
_DOMAINS: list[_Describe] = [
    _method,
    _count,
    lambda run: f"{_count(run)} by {_method(run)}",
    _digest,
]
