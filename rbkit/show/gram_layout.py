"""How a Gram matrix of domain gradients is laid out: order, colour scale and blocks.

Every picture of a Gram matrix (figures, live panel, terminal, scrubber, thumbnails of a page)
takes these from here, so that the same matrix looks the same everywhere. Pure numpy: nothing
here draws.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rbkit.show.facts import Array
from rbkit.show.style import shorten
from rbkit.text import number

Order = NDArray[np.int64]
Kind = Literal["cosine", "raw"]  # cosines of gradients, or inner products as the mixer saw them


def to_cosine(gram: ArrayLike) -> Array:
    """Divide G[i, j] by the norms of both gradients: cosines, NaN where a norm is 0.

    Parameters
    ----------
    gram : array_like of shape (..., m, m)

    Examples
    --------
    >>> to_cosine([[4.0, -2.0], [-2.0, 1.0]])
    array([[ 1., -1.],
           [-1.,  1.]])
    """
    gram = np.asarray(gram, dtype=np.float64)
    norm = np.sqrt(np.clip(np.diagonal(gram, axis1=-2, axis2=-1), 0.0, None))
    norm = np.where(norm > 0, norm, np.nan)
    cosine: Array = np.clip(gram / (norm[..., :, None] * norm[..., None, :]), -1.0, 1.0)
    return cosine


def values(gram: ArrayLike, kind: Kind) -> Array:
    """Cosines or inner products of Gram matrices, of shape (..., m, m)."""
    return to_cosine(gram) if kind == "cosine" else np.asarray(gram, dtype=np.float64)


def finite_mean(arrays: Array) -> Array:
    """Mean over the first axis without NaN; NaN, silently, where there is nothing else."""
    finite = np.isfinite(arrays)
    return _divide(np.where(finite, arrays, 0.0).sum(axis=0), finite.sum(axis=0))


def _divide(total: Array, count: NDArray[Any]) -> Array:
    mean: Array = np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)
    return mean


# ------------------------------------------------------------------------------------- order


def domain_order(history: Mapping[str, Any]) -> Order:
    """Order of the domains that puts similar ones side by side.

    Average linkage on 1 - cosine of the mean Gram matrix, leaves in the optimal order
    (Bar-Joseph et al. 2001). Domains without any gradient come last; without a recorded
    Gram matrix domains keep their order.

    Parameters
    ----------
    history : mapping with ``gram`` (T, m, m), or only ``p`` (T, m)

    Returns
    -------
    ndarray of int64, shape (m,)
    """
    gram = np.asarray(history.get("gram", np.empty((0, 0, 0))), dtype=np.float64)
    if gram.ndim != 3 or not gram.size:
        p = np.asarray(history.get("p", np.empty((0, 0))))
        return np.arange(p.shape[-1] if p.ndim else 0)
    return seriate(finite_mean(to_cosine(gram)))


def seriate(similarity: Array) -> Order:
    """Order of the rows of a similarity matrix (m, m) that puts similar rows side by side."""
    from scipy.cluster.hierarchy import leaves_list, linkage
    from scipy.spatial.distance import squareform

    seen = np.flatnonzero(np.isfinite(np.diagonal(similarity)))
    unseen = np.setdiff1d(np.arange(len(similarity)), seen)
    if len(seen) > 2:
        # Pairs that never met in a round count as unrelated.
        distance = 1.0 - np.nan_to_num(similarity[np.ix_(seen, seen)], nan=0.0)
        np.fill_diagonal(distance, 0.0)
        distance = np.clip((distance + distance.T) / 2, 0.0, None)
        # The optimal order of 1,000 leaves takes seconds, and nobody could see it.
        optimal = len(seen) <= 300
        tree = linkage(squareform(distance, checks=False), "average", optimal_ordering=optimal)
        seen = seen[leaves_list(tree)]
    return np.concatenate([seen, unseen]).astype(np.int64)


# ------------------------------------------------------------------------------------- scale


def common_scale(grams: ArrayLike, percentile: float = 98.0) -> float:
    """Largest colour of a scale for all of `grams`: a high percentile of |G| off the diagonal."""
    grams = np.asarray(grams, dtype=np.float64)
    off = np.abs(grams[..., ~np.eye(grams.shape[-1], dtype=bool)])
    off = off[np.isfinite(off)]
    return float(np.percentile(off, percentile)) if off.size and off.max() > 0 else 1.0


def round_up(value: float) -> float:
    """Next number that is 1, 2 or 5 times a power of ten: a scale that can grow in few steps.

    Examples
    --------
    >>> [round_up(v) for v in (0.1, 0.13, 0.9, 3.0, 51.0)]
    [0.1, 0.2, 1.0, 5.0, 100.0]
    """
    if not value > 0 or not math.isfinite(value):
        return 1.0
    power = 10.0 ** math.floor(math.log10(value) + 1e-9)
    factor = next(f for f in (1, 2, 5, 10) if f * power >= value * (1 - 1e-9))
    return float(f"{factor * power:.3g}")


# ------------------------------------------------------------------------------------ blocks


def blocks(gram: Array, groups: Sequence[NDArray[np.integer[Any]]]) -> Array:
    """Mean of the finite cells of each block, for a matrix too large to be seen cell by cell.

    The diagonal, squared norms and so another quantity than its neighbours, is left out unless
    every group is one domain.

    Parameters
    ----------
    gram : ndarray of shape (m, m)
    groups : n arrays of int
        Domains of each group, e.g. ``np.array_split(order, n)``.

    Returns
    -------
    ndarray of shape (n, n)

    Examples
    --------
    >>> G = np.array([[9.0, 1.0, 0.0], [1.0, 9.0, 2.0], [0.0, 2.0, 9.0]])
    >>> blocks(G, np.array_split([0, 1, 2], 2))
    array([[ 1.,  1.],
           [ 1., nan]])
    """
    order = np.concatenate(groups)
    gram = np.array(gram[np.ix_(order, order)])
    if len(groups) == len(order):
        return gram
    np.fill_diagonal(gram, np.nan)
    starts = np.cumsum([0, *map(len, groups[:-1])])
    finite = np.isfinite(gram)
    total, count = (
        np.add.reduceat(np.add.reduceat(cells, starts, axis=0), starts, axis=1)
        for cells in (np.where(finite, gram, 0.0), finite.astype(np.float64))
    )
    return _divide(total, count)


# ------------------------------------------------------------------------------------- words


def extremes(G: Array, names: Sequence[str]) -> str:
    """Say which two domains agree most and which are in the strongest conflict."""
    off = np.where(np.triu(np.ones_like(G, dtype=bool), 1), G, np.nan)
    if not np.isfinite(off).any():
        return "no pair of domains was observed"
    pairs = []
    for what, where in (("closest pair", np.nanargmax(off)), ("conflict", np.nanargmin(off))):
        i, j = divmod(int(where), off.shape[1])
        if what == "conflict":
            what = "strongest conflict" if off[i, j] < 0 else "no conflict, weakest pair"
        value = off[i, j]
        text = number(value, 2) if abs(value) >= 0.005 else f"{value:.1e}".replace("-", "−", 1)
        pairs.append(f"{what} {names[i]} / {names[j]} {text}")
    return "; ".join(pairs[::-1])


def short_ids(names: Sequence[str]) -> list[str]:
    """Return the numbers that domain names start with, else the names, for the crowded axis.

    Examples
    --------
    >>> short_ids(["03 species, genus", "11 film, actress"]), short_ids(["recipes", "code"])
    (['03', '11'], ['recipes', 'code'])
    """
    first = [name.split(" ", 1)[0] for name in names]
    numbered = all(f.isdigit() and len(f) <= 3 for f in first) and len(set(first)) == len(first)
    return first if numbered else [shorten(name, 16) for name in names]
