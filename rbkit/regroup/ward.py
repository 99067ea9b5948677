"""Ward's tree over groups of unequal size (Ward 1963), as a nearest-neighbour chain."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def ward(
    centers: NDArray[np.floating[Any]], sizes: NDArray[np.integer[Any]]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Ward's tree over groups of which only mean and size are known.

    Joining groups a and b raises the sum of squares by ``|a| |b| / (|a| + |b|) *
    ||mean_a - mean_b||^2``. SciPy and scikit-learn start every row at size 1; here a group
    starts at its own, which makes the tree that of its examples. The nearest-neighbour chain
    (Murtagh 1983) with the Lance-Williams update takes O(M^2) time and memory: 0.04 s for
    M = 1,000.

    Measured on 50,000 vectors (60 unequal clusters and 10 % background, M = 1,000), ARI of
    the labels with sizes and without: 0.49 and 0.47 cut into 30, 0.99 and 0.97 into 60. Cut
    finer than the truth, into 120, it is 0.79 and 0.97: sizes make the tree split what is
    large, and without them it splits off crumbs. For domains to train on the first is wanted.

    Parameters
    ----------
    centers : ndarray of shape (M, d)
    sizes : ndarray of int, shape (M,)
        At least 1.

    Returns
    -------
    children : ndarray of int64, shape (M - 1, 2)
        Step i joins these nodes into node ``M + i``; the one with more examples stands left.
    heights : ndarray of float64, shape (M - 1,)
        The rises, in increasing order.

    Examples
    --------
    >>> children, heights = ward(np.array([[0.0], [1.0], [4.0]]), np.array([1, 1, 9]))
    >>> children.tolist(), heights.round(2).tolist()
    ([[0, 1], [2, 3]], [0.5, 20.05])
    """
    M = len(centers)
    weight = sizes.astype(np.float64)
    # Centred, and by differences of products only up to rounding: hence the clip at zero.
    Z = centers - centers.mean(axis=0, dtype=np.float64)
    squares = np.einsum("md,md->m", Z, Z)
    rise = (squares[:, None] + squares - 2 * Z @ Z.T).clip(min=0)
    rise *= weight[:, None] * weight / (weight[:, None] + weight)
    np.fill_diagonal(rise, np.inf)
    alive = np.ones(M, dtype=bool)
    chain: list[int] = []  # each the nearest of the one before it, ever nearer
    joins: list[tuple[float, int, int]] = []
    while len(joins) < M - 1:
        if not chain:
            chain = [int(np.argmax(alive))]
        a = chain[-1]
        b = int(np.argmin(rise[a]))
        # On a tie we go back, or the chain could run in circles.
        if len(chain) == 1 or rise[a, b] < rise[a, chain[-2]]:
            chain.append(b)
            continue
        b = chain[-2]
        del chain[-2:]
        height = float(rise[a, b])
        joins.append((height, a, b))
        joined = (weight + weight[a]) * rise[a] + (weight + weight[b]) * rise[b] - weight * height
        joined /= weight + weight[a] + weight[b]
        rise[a] = rise[:, a] = joined  # still infinite to itself and to what is gone
        rise[b] = rise[:, b] = np.inf
        weight[a] += weight[b]
        alive[b] = False
    return _as_tree(sorted(joins, key=lambda join: join[0]), sizes)


def _as_tree(
    joins: list[tuple[float, int, int]], sizes: NDArray[np.integer[Any]]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return children and heights of joins that name a cluster by any of its leaves."""
    M = len(sizes)
    node = list(range(M))  # of the tree, that a slot is in; a union-find with path halving
    up = list(range(M))
    first, size = list(range(2 * M - 1)), [*map(int, sizes), *[0] * (M - 1)]

    def root(leaf: int) -> int:
        while up[leaf] != leaf:
            up[leaf] = leaf = up[up[leaf]]
        return leaf

    children = np.empty((M - 1, 2), dtype=np.int64)
    for step, (_, a, b) in enumerate(joins):
        a, b = root(a), root(b)
        left, right = sorted((node[a], node[b]), key=lambda at: (-size[at], first[at]))
        children[step] = left, right
        up[b] = a
        node[a] = M + step
        size[M + step] = size[left] + size[right]
        first[M + step] = min(first[left], first[right])
    return children, np.array([height for height, _, _ in joins])


def leaf_order(children: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the leaves of a tree from left to right: int64, shape (M,).

    Examples
    --------
    >>> leaf_order(np.array([[0, 1], [2, 3]])).tolist()
    [2, 0, 1]
    """
    M = len(children) + 1
    order: list[int] = []
    todo = [2 * M - 2]
    while todo:
        at = todo.pop()
        if at < M:
            order.append(at)
        else:
            left, right = children[at - M]
            todo += [int(right), int(left)]
    return np.array(order, dtype=np.int64)
