"""A card per domain: what sets it apart, its most and least typical examples, its sources."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS, CountVectorizer

from rbkit.regroup.domains import Card
from rbkit.regroup.preparation import Material

# Letters first, so that numbers and punctuation in recipes and code are not terms.
_TERM = r"(?u)\b[^\W\d_]\w{2,}\b"
_VOCABULARY = 30_000
_LONGEST = 20_000  # characters of one text that count: a book is not to outvote a thousand notes
# Terms are statistics: this many examples per domain give the same ones as all of them.
_PER_DOMAIN = 3_000
_LIVE = 60_000  # examples counted once, for cards that follow a slider
_SHOWN = 300  # characters of an example
_READ_AT_MOST = 40  # examples read to find a few different texts


class TermCounts:
    """Counts of terms in (a sample of) the training texts, for any grouping of them.

    Counting takes the time; once it is done, the terms of any other grouping are a product
    of two sparse matrices. So names can follow a slider. `rows` says which examples the texts
    are (all, in order, by default).

    Examples
    --------
    >>> counts = TermCounts(["oak tree", "tree of oak", "car engine", "engine of a car"])
    >>> counts.best(counts.weights(np.array([0, 0, 1, 1]), 2))
    [['oak', 'tree'], ['car', 'engine']]
    """

    def __init__(self, texts: Sequence[str], rows: NDArray[np.integer[Any]] | None = None) -> None:
        self.rows = np.arange(len(texts)) if rows is None else np.asarray(rows)
        vectorizer = CountVectorizer(
            stop_words=list(ENGLISH_STOP_WORDS), token_pattern=_TERM, max_features=_VOCABULARY
        )
        try:
            self.counts = vectorizer.fit_transform([text[:_LONGEST] for text in texts]).tocsr()
            self.vocabulary = vectorizer.get_feature_names_out()
        except ValueError:  # no term in any text: digits or stop words only
            self.counts = sparse.csr_matrix((len(texts), 0))
            self.vocabulary = np.array([], dtype=str)

    def weights(self, labels: NDArray[np.integer[Any]], m: int) -> NDArray[np.float64]:
        """Return the class-based TF-IDF of every term in every domain, shape (m, n_terms)."""
        own = np.asarray(labels)[self.rows]
        inside = np.flatnonzero(own >= 0)
        member = sparse.csr_matrix(
            (np.ones(len(inside)), (own[inside], inside)), shape=(m, len(own))
        )
        return class_tfidf((member @ self.counts).toarray())

    def best(self, weights: NDArray[np.float64], n_terms: int = 10) -> list[list[str]]:
        """Return the terms of the largest weights of each row, best first."""
        order = np.argsort(-weights, axis=1, kind="stable")[:, :n_terms]
        return [
            [str(self.vocabulary[t]) for t in ranked if weights[at, t] > 0]
            for at, ranked in enumerate(order)
        ]

    def density(
        self, weights: NDArray[np.float64], labels: NDArray[np.integer[Any]]
    ) -> NDArray[np.float64]:
        """Return how densely each example uses the terms of its domain: shape (n,)."""
        density = np.zeros(len(labels))
        own = np.asarray(labels)[self.rows]
        length = np.maximum(np.asarray(self.counts.sum(axis=1)).ravel(), 1)
        for at in range(len(weights)):
            inside = np.flatnonzero(own == at)
            # The square root keeps a two-word text from being the most typical one.
            used = self.counts[inside] @ weights[at]
            density[self.rows[inside]] = used / np.sqrt(length[inside])
        return density


def class_tfidf(counts: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Class-based TF-IDF of counts (m, n_terms), ``sqrt(tf(t, c)) * log(1 + A / f(t))``.

    BERTopic, arXiv 2203.05794: ``tf`` is the share of the term in the domain, ``f`` its
    occurrences in all domains, ``A`` the mean number of terms per domain. The square root is
    BERTopic's `reduce_frequent_words`: without it "used" and "known" lead every other card.

    Examples
    --------
    >>> class_tfidf(np.array([[2.0, 2.0], [0.0, 4.0]])).round(3).tolist()
    [[0.777, 0.361], [0.0, 0.511]]
    """
    per_domain = counts.sum(axis=1, dtype=np.float64)
    share = counts / np.maximum(per_domain, 1)[:, None]
    rarity = np.log1p(per_domain.mean() / np.maximum(counts.sum(axis=0), 1))
    return np.asarray(np.sqrt(share) * rarity, dtype=np.float64)


def unique_names(
    terms: Sequence[Sequence[str]], n_words: int = 3, taken: Sequence[str] = ()
) -> list[str]:
    """Name domains by their first terms; a name that is taken gets further terms.

    Examples
    --------
    >>> unique_names([["war", "wars", "army", "battle"], ["war", "army", "battle"], []])
    ['war · army · battle', 'war · army · battle (2)', 'domain 2']
    """

    def joined(words: Sequence[str]) -> str:
        return " · ".join(words).replace(" · (", " (")

    names: list[str] = []
    # "self · def" and "def · self" are one name to a reader
    seen: set[frozenset[str]] = {frozenset(name.split(" · ")) for name in taken}
    used = set(taken)
    for at, ranked in enumerate(terms):
        words = _distinct(ranked) or [f"domain {at}"]
        tries = [words[:n] for n in range(n_words, max(n_words, len(words)) + 1)]
        tries += [[*words[: n_words - 1], words[n]] for n in range(n_words, len(words))]
        most = 2 + 2 * (len(terms) + len(taken))
        tries += [[*words[:n_words], f"({nth})"] for nth in range(2, most)]
        free = [name for name in tries if frozenset(name) not in seen]
        chosen = next(name for name in free if joined(name) not in used)
        seen.add(frozenset(chosen))
        used.add(joined(chosen))
        names.append(joined(chosen))
    return names


def _distinct(terms: Sequence[str]) -> list[str]:
    """Leave out variants: "battle · battles · battlefield" says less than three words could."""

    def alike(one: str, other: str) -> bool:
        shorter, longer = sorted((one, other), key=len)
        inflected = longer.startswith(shorter) and len(longer) - len(shorter) <= 2
        return one[:6] == other[:6] or inflected

    distinct: list[str] = []
    for term in terms:
        if not any(alike(term, other) for other in distinct):
            distinct.append(term)
    return distinct


class CardMaker:
    """Cards for one grouping of a corpus after the other: terms are counted once.

    Examples
    --------
    >>> from datasets import Dataset, DatasetDict
    >>> rows = Dataset.from_dict({"text": ["oak", "oak elm", "car"], "source": ["a", "b", "b"]})
    >>> material = Material(DatasetDict({"train": rows, "eval": rows}), np.eye(3), np.eye(3),
    ...                     embedder={}, origin="")
    >>> [card.name for card in CardMaker(material).cards(np.array([0, 0, 1]), 2)]
    ['elm · oak', 'car']
    """

    def __init__(self, material: Material, *, seed: int = 0) -> None:
        self.material, self.seed = material, seed
        self._counts: TermCounts | None = None

    def cards(
        self,
        labels: NDArray[np.integer[Any]],
        m: int,
        *,
        eval_sizes: NDArray[np.int64] | None = None,
        distances: NDArray[np.floating[Any]] | None = None,
        names: Sequence[str | None] | None = None,
        live: bool = True,
        n_shown: int = 3,
    ) -> list[Card]:
        """Describe a grouping.

        Parameters
        ----------
        labels : ndarray of int, shape (n,)
            Domain of every example, -1 for none.
        m : int
        eval_sizes : ndarray of int64, shape (m,), optional
        distances : ndarray of shape (n,), optional
            Distance of every example to its centroid. Without it the nearest examples are
            those that use the domain's terms most densely.
        names : sequence of str or None, length m
            Names given by a person; the others are made of terms.
        live : bool
            Terms from one sample of the corpus for all groupings, instead of an equal
            number of examples of each domain; the same for corpora of up to 60,000.
        n_shown : int
            Nearest, and strangest, examples per card.
        """
        labels = np.asarray(labels)
        counts = self._count(labels, m, live)
        weights = counts.weights(labels, m)
        terms = counts.best(weights)
        rank = -counts.density(weights, labels) if distances is None else distances
        # Sorted once by (domain, distance): no pass over the corpus per domain.
        order = np.lexsort((rank, labels))
        ends = np.searchsorted(labels[order], np.arange(m + 1))
        members = [order[ends[at] : ends[at + 1]] for at in range(m)]

        def read(rows: NDArray[np.int64]) -> list[str]:
            return self.material.texts("train", rows)

        near = _beginnings(read, members, n_shown)
        far = _beginnings(read, [rows[::-1] for rows in members], n_shown)
        titles = _titles(terms, names)
        shares = self._source_shares(labels, m)
        return [
            Card(
                name=titles[at],
                size=len(members[at]),
                eval_size=0 if eval_sizes is None else int(eval_sizes[at]),
                terms=terms[at],
                nearest=near[at],
                # Of a domain of five both lists would be the same.
                strangest=[text for text in far[at] if text not in near[at]],
                sources=shares[at],
            )
            for at in range(m)
        ]

    def _count(self, labels: NDArray[np.integer[Any]], m: int, live: bool) -> TermCounts:
        n = len(self.material.train)
        if not live and n > _LIVE:
            rows = _stratified(labels, m, _PER_DOMAIN, self.seed)
            return TermCounts(self.material.texts("train", rows), rows)
        if self._counts is None:
            rows = np.arange(n)
            if n > _LIVE:
                rows = np.sort(np.random.default_rng(self.seed).choice(n, _LIVE, replace=False))
            self._counts = TermCounts(self.material.texts("train", rows), rows)
        return self._counts

    def _source_shares(self, labels: NDArray[np.integer[Any]], m: int) -> list[dict[str, float]]:
        names, codes, _ = self.material.source_ids
        inside = labels >= 0
        flat = labels[inside] * len(names) + codes[inside]
        table = np.bincount(flat, minlength=m * len(names)).reshape(m, len(names))
        return [
            {
                names[at]: float(row[at] / row.sum())
                for at in np.argsort(-row, kind="stable")
                if row[at]
            }
            for row in table
        ]


def _stratified(
    labels: NDArray[np.integer[Any]], m: int, most: int, seed: int
) -> NDArray[np.int64]:
    """Return rows of at most `most` random examples of each domain, in order of domains."""
    rng = np.random.default_rng(seed)
    order = np.argsort(labels, kind="stable")
    ends = np.searchsorted(labels[order], np.arange(m + 1))
    parts = [np.zeros(0, dtype=np.int64)]
    for at in range(m):
        rows = order[ends[at] : ends[at + 1]]
        parts.append(rows if len(rows) <= most else np.sort(rng.choice(rows, most, replace=False)))
    return np.concatenate(parts)


def _titles(terms: Sequence[Sequence[str]], names: Sequence[str | None] | None) -> list[str]:
    given = list(names) if names is not None else [None] * len(terms)
    unnamed = [words for words, name in zip(terms, given, strict=True) if name is None]
    made = iter(unique_names(unnamed, taken=[name for name in given if name is not None]))
    return [name if name is not None else next(made) for name in given]


def _beginnings(
    read: Callable[[NDArray[np.int64]], list[str]],
    members: Sequence[NDArray[np.int64]],
    wanted: int,
) -> list[list[str]]:
    """Beginnings of the first `wanted` different texts of each group; one read for all."""

    def different(texts: Sequence[str]) -> list[str]:
        return list(dict.fromkeys(beginning(text) for text in texts))[:wanted]

    first = [rows[: max(wanted, 1) * 4] for rows in members]
    texts = iter(read(np.concatenate(first)) if first else [])
    shown = []
    for rows, all_rows in zip(first, members, strict=True):
        some = different([next(texts) for _ in rows])
        if len(some) < min(wanted, len(all_rows)):  # many copies of one text
            some = different(read(all_rows[:_READ_AT_MOST]))
        shown.append(some)
    return shown


def beginning(text: str, length: int = _SHOWN) -> str:
    """Return the first characters of a text in one line, with an ellipsis where it is cut.

    Examples
    --------
    >>> beginning("An  oak is a tree.", 10)
    'An oak is…'
    """
    text = " ".join(text[: 4 * length].split())
    return text if len(text) <= length else text[: length - 1].rstrip() + "…"
