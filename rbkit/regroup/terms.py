"""Which terms set a domain apart: class-based TF-IDF over counts that are taken once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS, CountVectorizer

# Letters first, so that numbers and punctuation in recipes and code are no terms.
_TERM = r"(?u)\b[^\W\d_]\w{2,}\b"
_VOCABULARY = 30_000
_LONGEST = 20_000  # characters of one text that count: a book is not to outvote a thousand notes


class TermCounts:
    """Counts of terms in (a sample of) the training texts, for any grouping of them.

    Counting is what costs; once it is done, the terms of any other grouping are a product
    of two sparse matrices. That is what lets names follow a slider.

    Parameters
    ----------
    texts : sequence of str
    rows : ndarray of int, optional
        Which examples the texts are; all of them, in order, by default.

    Examples
    --------
    >>> counts = TermCounts(["oak tree", "tree of oak", "car engine", "engine of a car"])
    >>> counts.top(np.array([0, 0, 1, 1]), 2)
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
        """Return the class-based TF-IDF of every term in every domain, shape (m, n_terms).

        Parameters
        ----------
        labels : ndarray of int, shape (n,)
            Domain of every example of the corpus, -1 for none.
        m : int
        """
        own = np.asarray(labels)[self.rows]
        inside = np.flatnonzero(own >= 0)
        member = sparse.csr_matrix(
            (np.ones(len(inside)), (own[inside], inside)), shape=(m, len(own))
        )
        return class_tfidf((member @ self.counts).toarray())

    def top(self, labels: NDArray[np.integer[Any]], m: int, n_terms: int = 10) -> list[list[str]]:
        """Return the terms that set each domain apart, best first."""
        return self.best(self.weights(labels, m), n_terms)

    def best(self, weights: NDArray[np.float64], n_terms: int = 10) -> list[list[str]]:
        """Return the terms of the largest weights of each row, best first."""
        order = np.argsort(-weights, axis=1, kind="stable")[:, :n_terms]
        return [
            [str(self.vocabulary[t]) for t in ranked if weights[at, t] > 0]
            for at, ranked in enumerate(order)
        ]


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


def unique_names(
    terms: Sequence[Sequence[str]], n_words: int = 3, taken: Sequence[str] = ()
) -> list[str]:
    """Name domains by their first terms; a name that is taken gets further terms.

    Examples
    --------
    >>> unique_names([["war", "wars", "army", "battle"], ["war", "army", "battle"], []])
    ['war · army · battle', 'war · army · battle (2)', 'domain 2']
    """
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
        chosen = next(name for name in free if _joined(name) not in used)
        seen.add(frozenset(chosen))
        used.add(_joined(chosen))
        names.append(_joined(chosen))
    return names


def _joined(words: Sequence[str]) -> str:
    return " · ".join(words).replace(" · (", " (")


def _distinct(terms: Sequence[str]) -> list[str]:
    # "battle · battles · battlefield" says less than three words could.
    kept: list[str] = []
    for term in terms:
        if not any(_alike(*sorted((term, other), key=len)) for other in kept):
            kept.append(term)
    return kept


def _alike(short: str, long: str) -> bool:
    return short[:6] == long[:6] or (long.startswith(short) and len(long) - len(short) <= 2)
