"""How many domains? Algorithm 2's silhouette over a grid, with its stability beside it.

On real text the silhouette is nearly flat in k, so its maximum alone says little. Hence the
second number: how well two clusterings with other seeds agree (adjusted Rand index).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import adjusted_rand_score, pairwise_distances_chunked
from tqdm import tqdm

from rbkit.errors import InputError
from rbkit.regroup.cluster import KMeans

DEFAULT_GRID = (5, 8, 12, 16, 20, 25, 30, 40)


@dataclass(frozen=True)
class KChoice:
    """The chosen number of domains, and what each k of the grid scored.

    Attributes
    ----------
    k : int
    rule : str
        "silhouette" or "stability".
    grid : list of dict
        ``{"k", "silhouette", "silhouette_sd", "stability_ari", "smallest_domain",
        "inertia"}``, by k. `silhouette` is the mean over seeds, `smallest_domain` the
        fewest examples that any domain of any seed has.
    """

    k: int
    rule: str
    grid: list[dict[str, Any]] = field(repr=False)

    @property
    def best(self) -> dict[str, Any]:
        """The row of the grid that was chosen."""
        return next(row for row in self.grid if row["k"] == self.k)


def choose_k(
    X: ArrayLike,
    grid: Sequence[int] = DEFAULT_GRID,
    *,
    seed: int = 0,
    n_seeds: int = 3,
    sample: int = 10_000,
    rule: str = "silhouette",
    progress: bool = True,
    **kmeans: Any,
) -> KChoice:
    """Choose k by clustering with every k of `grid` under several seeds.

    Parameters
    ----------
    X : array of shape (n, d)
        Vectors of the **training** examples.
    grid : sequence of int
    seed, n_seeds : int
        Seeds ``seed, seed + 1000, ...``: the first is the clustering :func:`regroup` uses.
    sample : int
        Above this many rows the silhouette is that of a random sample of this size, the
        same for all k.
    rule : {"silhouette", "stability"}
        What to maximise; ties go to the smaller k.
    **kmeans
        Passed to :class:`KMeans`.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> X = np.concatenate([rng.normal(at, 0.1, (40, 2)) for at in (0, 5, 10)])
    >>> choose_k(X, [2, 3, 4], progress=False)
    KChoice(k=3, rule='silhouette')
    """
    X = np.asarray(X)
    ks = _checked_grid(grid, len(X))
    if rule not in ("silhouette", "stability"):
        raise InputError("rule", f"{rule!r} is unknown", 'use "silhouette" or "stability"')
    fits: dict[int, list[KMeans]] = {k: [] for k in ks}
    jobs = [(k, seed + 1000 * at) for k in ks for at in range(n_seeds)]
    for k, at in tqdm(jobs, desc="choose k", unit="fit", mininterval=1, disable=not progress):
        fits[k].append(KMeans(k, seed=at, **kmeans).fit(X))
    rows = np.arange(len(X))
    if len(X) > sample:
        rows = np.sort(np.random.default_rng(seed).choice(len(X), sample, replace=False))
    scores = iter(silhouettes(X[rows], [fit.labels_[rows] for k in ks for fit in fits[k]]))
    table = [_row(k, fits[k], [next(scores) for _ in fits[k]]) for k in ks]
    key = "silhouette" if rule == "silhouette" else "stability_ari"
    best = max(table, key=lambda row: (row[key], -row["k"]))
    return KChoice(k=best["k"], rule=rule, grid=table)


def silhouettes(
    X: NDArray[np.floating[Any]], labelings: Sequence[NDArray[np.integer[Any]]]
) -> list[float]:
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


def _row(k: int, fits: list[KMeans], scores: list[float]) -> dict[str, Any]:
    agreement = [adjusted_rand_score(a.labels_, b.labels_) for a, b in combinations(fits, 2)]
    return {
        "k": k,
        "silhouette": float(np.mean(scores)),
        "silhouette_sd": float(np.std(scores)),
        "stability_ari": float(np.mean(agreement)) if agreement else 1.0,
        "smallest_domain": int(min(np.bincount(f.labels_, minlength=k).min() for f in fits)),
        "inertia": float(min(fit.inertia_ for fit in fits)),
    }


def _checked_grid(grid: Sequence[int], n: int) -> list[int]:
    ks = sorted({int(k) for k in grid})
    if not ks:
        raise InputError("k", "the grid is empty", "give at least one number of domains")
    if ks[0] < 1 or ks[-1] > n:
        wrong = ks[0] if ks[0] < 1 else ks[-1]
        what = f"{wrong} domains asked of {n} training examples"
        raise InputError("k", what, f"choose 1 <= k <= {n}")
    return ks
