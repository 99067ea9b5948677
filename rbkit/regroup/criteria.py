"""What a number of domains can be judged by, and how each criterion is measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import davies_bouldin_score, pairwise_distances_chunked

Labels = NDArray[np.integer[Any]]


@dataclass(frozen=True)
class Criterion:
    """A column of the grid over k.

    Attributes
    ----------
    key : str
        Its name in a row of the grid; the standard deviation over seeds is ``key + "_sd"``.
    name : str
        For people.
    higher_is_better : bool
    flat : float
        If it varies over the grid by less than this, nothing can be chosen by it.
    votes : bool
        Whether its best k may contradict the chosen one. Those that get better with every
        further domain (the size of the smallest, backwards) do not vote.
    """

    key: str
    name: str
    higher_is_better: bool
    flat: float
    votes: bool = True

    def values(self, grid: Sequence[Mapping[str, Any]]) -> dict[int, float]:
        """Return its value by k, where it is known."""
        found = {int(row["k"]): row.get(self.key) for row in grid}
        return {k: float(v) for k, v in found.items() if v is not None and np.isfinite(v)}

    def best(self, grid: Sequence[Mapping[str, Any]]) -> int | None:
        """Return its best k, the smaller of equals; None where it is not known."""
        sign = 1 if self.higher_is_better else -1
        values = self.values(grid)
        return max(values, key=lambda k: (sign * values[k], -k)) if values else None


CRITERIA = (
    Criterion("silhouette", "silhouette", True, flat=0.01),
    Criterion("stability_ari", "stability (ARI)", True, flat=0.05),
    Criterion("davies_bouldin", "Davies-Bouldin", False, flat=0.05),
    Criterion("regret_bound", "regret bound", False, flat=0.02, votes=False),
    Criterion("gradient_regret_bound", "regret bound of gradients", False, flat=0.02, votes=False),
    Criterion("smallest_domain", "smallest domain", True, flat=0, votes=False),
    Criterion("loss", "eval loss", False, flat=0.002),
)


def criterion(key: str) -> Criterion:
    """Return the criterion of a column.

    Examples
    --------
    >>> criterion("davies_bouldin").higher_is_better
    False
    """
    return next(found for found in CRITERIA if found.key == key)


def silhouettes(X: NDArray[np.floating[Any]], labelings: Sequence[Labels]) -> list[float]:
    """Mean silhouette (Rousseeuw 1987) of several labelings of the same rows.

    Distances are what a silhouette costs and they do not depend on the labels, so all
    labelings share one pass over them; chunks keep the memory under 200 MB.

    Parameters
    ----------
    X : ndarray of shape (n, d)
    labelings : sequence of ndarray of int, shape (n,)

    Returns
    -------
    list of float
        Equal to :func:`sklearn.metrics.silhouette_score`; 0 for a single domain.

    Examples
    --------
    >>> X = np.array([[0.0], [0.1], [5.0], [5.1]])
    >>> [round(score, 2) for score in silhouettes(X, [np.array([0, 0, 1, 1])])]
    [0.98]
    """
    compact = [np.unique(labels, return_inverse=True)[1] for labels in labelings]
    widths = [int(labels.max()) + 1 for labels in compact]
    # One column per domain of every labeling: D @ members sums distances by domain.
    members = np.zeros((len(X), sum(widths)), dtype=np.float32)
    starts = np.cumsum([0, *widths[:-1]])
    for labels, start in zip(compact, starts, strict=True):
        members[np.arange(len(X)), start + labels] = 1
    counts = members.sum(axis=0, dtype=np.float64)
    totals = np.zeros(len(labelings))

    def add(distances: NDArray[np.floating[Any]], first: int) -> None:
        sums = distances.astype(np.float32) @ members
        row = np.arange(first, first + len(distances))
        for at, (labels, start, width) in enumerate(zip(compact, starts, widths, strict=True)):
            own = labels[row]
            part, size = sums[:, start : start + width], counts[start : start + width]
            totals[at] += _silhouette_sum(part.astype(np.float64), size, own)

    for _ in pairwise_distances_chunked(X, reduce_func=add, working_memory=128):
        pass
    return [float(total / len(X)) for total in totals]


def _silhouette_sum(
    sums: NDArray[np.float64], size: NDArray[np.float64], own: NDArray[np.int64]
) -> float:
    at = np.arange(len(own))
    if len(size) < 2:
        return 0.0
    within = sums[at, own] / np.maximum(size[own] - 1, 1)
    others = sums / size
    others[at, own] = np.inf
    between = others.min(axis=1)
    scale = np.maximum(within, between)
    score = np.divide(between - within, scale, out=np.zeros_like(scale), where=scale > 0)
    return float(score[size[own] > 1].sum())  # by definition 0 for a domain of one


def davies_bouldin(X: NDArray[np.floating[Any]], labels: Labels) -> float | None:
    """Davies-Bouldin index (1979): mean over domains of scatter against separation; less is better.

    Parameters
    ----------
    X : ndarray of shape (n, d)
    labels : ndarray of int, shape (n,)

    Returns
    -------
    float or None
        None for a single domain, or one domain for each row, where it says nothing.

    Examples
    --------
    >>> X = np.array([[0.0], [0.2], [5.0], [5.2]])
    >>> round(davies_bouldin(X, np.array([0, 0, 1, 1])), 2)
    0.04
    """
    if not 2 <= len(np.unique(labels)) < len(X):
        return None
    return float(davies_bouldin_score(X, labels))


def explained_share(X: NDArray[np.floating[Any]], labels: Labels) -> float:
    """Share of the variance of the rows that lies between domains, in [0, 1].

    ``n`` random labels of m domains have about ``(m - 1) / (n - 1)``, whatever `X`.

    Examples
    --------
    >>> explained_share(np.array([[0.0], [0.0], [2.0], [2.0]]), np.array([0, 0, 1, 1]))
    1.0
    """
    total = float(np.square(X - X.mean(axis=0, dtype=np.float64)).sum(dtype=np.float64))
    return 1.0 - inertia(X, labels) / total if total > 0 else 0.0


def inertia(X: NDArray[np.floating[Any]], labels: Labels) -> float:
    """Sum of squared distances of the rows to the mean of their domain.

    Examples
    --------
    >>> inertia(np.array([[0.0], [2.0], [5.0]]), np.array([0, 0, 1]))
    2.0
    """
    found = 0.0
    for label in np.unique(labels):
        part = np.asarray(X[labels == label], dtype=np.float64)
        found += float(np.square(part - part.mean(axis=0)).sum())
    return found
