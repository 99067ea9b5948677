"""A card per domain: what sets it apart, its most typical examples, where they came from."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS, CountVectorizer

from rbkit.regroup.domains import Card

# Letters first, so that numbers and punctuation in recipes and code are no terms.
_TERM = r"(?u)\b[^\W\d_]\w{2,}\b"
# Terms are statistics: this many examples per domain give the same ones as all of them.
_TERM_EXAMPLES = 3_000
_SHOWN = 300


def make_cards(
    texts: Sequence[str],
    sources: Sequence[str],
    labels: NDArray[np.integer[Any]],
    m: int,
    *,
    eval_sizes: NDArray[np.int64] | None = None,
    distances: NDArray[np.floating[Any]] | None = None,
    names: Sequence[str] | None = None,
    n_terms: int = 10,
    n_nearest: int = 3,
    seed: int = 0,
) -> list[Card]:
    """Describe `m` domains from their training examples.

    Parameters
    ----------
    texts, sources : sequence of str, length n
    labels : ndarray of int, shape (n,)
        Domain of every example, -1 for none.
    m : int
    eval_sizes : ndarray of int64, shape (m,), optional
    distances : ndarray of shape (n,), optional
        Distance of every example to its centroid. Without it the nearest examples are
        those that say the domain's terms most densely.
    names : sequence of str, length m, optional
        Without it a domain is named by its top terms.

    Examples
    --------
    >>> texts = ["oak tree and elm tree", "tall oak tree", "car engine", "engine of a car"]
    >>> cards = make_cards(texts, ["a", "a", "b", "a"], np.array([0, 0, 1, 1]), 2)
    >>> cards[1].name, cards[1].sources
    ('car · engine', {'a': 0.5, 'b': 0.5})
    """
    labels = np.asarray(labels)
    terms, density = _terms(texts, labels, m, n_terms, seed)
    titles = list(names) if names is not None else unique_names(terms)
    rank = density if distances is None else distances
    cards = []
    for at in range(m):
        rows = np.flatnonzero(labels == at)
        near = rows[np.argsort(rank[rows], kind="stable")]
        cards.append(
            Card(
                name=titles[at],
                size=len(rows),
                eval_size=0 if eval_sizes is None else int(eval_sizes[at]),
                terms=terms[at],
                nearest=_beginnings(texts, near, n_nearest),
                sources=_shares([sources[int(row)] for row in rows]),
            )
        )
    return cards


def class_tfidf(counts: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Class-based TF-IDF, ``sqrt(tf(t, c)) * log(1 + A / f(t))`` (BERTopic, arXiv 2203.05794).

    The square root is BERTopic's `reduce_frequent_words`: without it "used" and "known"
    lead every other card.

    Parameters
    ----------
    counts : ndarray of shape (m, n_terms)
        Occurrences of each term in each domain.

    Returns
    -------
    ndarray of float64, shape (m, n_terms)
        ``tf`` is the share of the term in the domain, ``f`` its occurrences in all domains,
        ``A`` the mean number of terms per domain.

    Examples
    --------
    >>> class_tfidf(np.array([[2.0, 2.0], [0.0, 4.0]])).round(3).tolist()
    [[0.777, 0.361], [0.0, 0.511]]
    """
    per_domain = counts.sum(axis=1, dtype=np.float64)
    share = counts / np.maximum(per_domain, 1)[:, None]
    rarity = np.log1p(per_domain.mean() / np.maximum(counts.sum(axis=0), 1))
    return np.asarray(np.sqrt(share) * rarity, dtype=np.float64)


def unique_names(terms: Sequence[Sequence[str]], n_words: int = 3) -> list[str]:
    """Name domains by their first terms; a name that is taken gets further terms.

    Examples
    --------
    >>> unique_names([["war", "wars", "army", "battle"], ["war", "army", "battle"], []])
    ['war · army · battle', 'war · army · battle (2)', 'domain 2']
    """
    names: list[str] = []
    taken: set[frozenset[str]] = set()  # "self · def" and "def · self" are one name to a reader
    for at, ranked in enumerate(terms):
        words = _distinct(ranked) or [f"domain {at}"]
        tries = [words[:n] for n in range(n_words, max(n_words, len(words)) + 1)]
        tries += [[*words[: n_words - 1], words[n]] for n in range(n_words, len(words))]
        tries += [[*words[:n_words], f"({nth})"] for nth in range(2, len(terms) + 2)]
        chosen = next(name for name in tries if frozenset(name) not in taken)
        taken.add(frozenset(chosen))
        names.append(" · ".join(chosen).replace(" · (", " ("))
    return names


def _distinct(terms: Sequence[str]) -> list[str]:
    # "battle · battles · battlefield" says less than three words could.
    kept: list[str] = []
    for term in terms:
        if not any(_alike(*sorted((term, other), key=len)) for other in kept):
            kept.append(term)
    return kept


def _alike(short: str, long: str) -> bool:
    return short[:6] == long[:6] or (long.startswith(short) and len(long) - len(short) <= 2)


def _terms(
    texts: Sequence[str], labels: NDArray[np.integer[Any]], m: int, n_terms: int, seed: int
) -> tuple[list[list[str]], NDArray[np.float64]]:
    """Return the top terms of every domain and, per example, minus its density of them."""
    rng = np.random.default_rng(seed)
    members = [np.flatnonzero(labels == at) for at in range(m)]
    kept = [np.sort(rng.permutation(rows)[:_TERM_EXAMPLES]) for rows in members]
    rows = np.concatenate(kept)
    density = np.zeros(len(labels))
    vectorizer = CountVectorizer(
        stop_words=list(ENGLISH_STOP_WORDS), token_pattern=_TERM, max_features=30_000
    )
    try:
        counts = vectorizer.fit_transform([texts[int(row)] for row in rows])
    except ValueError:  # no term in any text: digits or stop words only
        return [[] for _ in range(m)], density
    ends = np.cumsum([0, *map(len, kept)])
    by_domain = [np.asarray(counts[a:b].sum(axis=0)).ravel() for a, b in pairwise(ends)]
    weights = class_tfidf(np.stack(by_domain).astype(np.float64))
    vocabulary = vectorizer.get_feature_names_out()
    top = np.argsort(-weights, axis=1, kind="stable")[:, :n_terms]
    terms = [[str(vocabulary[t]) for t in top[at] if weights[at, t] > 0] for at in range(m)]
    for at, (a, b) in enumerate(pairwise(ends)):
        said = counts[a:b] @ weights[at]
        # The square root keeps a two-word text from being the most typical one.
        density[rows[a:b]] = -said / np.sqrt(
            np.maximum(np.asarray(counts[a:b].sum(axis=1)).ravel(), 1)
        )
    return terms, density


def _beginnings(texts: Sequence[str], rows: NDArray[np.int64], wanted: int) -> list[str]:
    shown: list[str] = []
    for row in rows:
        text = " ".join(texts[int(row)][: 4 * _SHOWN].split())
        text = text if len(text) <= _SHOWN else text[: _SHOWN - 1].rstrip() + "…"
        if text not in shown:
            shown.append(text)
        if len(shown) == wanted:
            break
    return shown


def _shares(sources: Sequence[str]) -> dict[str, float]:
    if not sources:
        return {}
    names, counts = np.unique(np.asarray(sources, dtype=str), return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return {str(names[at]): float(counts[at] / len(sources)) for at in order}
