r"""What a cut into domains may lose against a better one: the regret of R&B's Lemma 1.

Let ``a(x)`` be the alignment of an example with the direction that lowers the eval loss. Of
two domains i and j, a mixer would sample the better aligned one, i. Its *regret* is what the
best set of as many examples from both would have gained on it,

.. math:: R(i, j) = \\max_{|D| = n_i} \bar a(D) - \\mu_i, \\qquad D \\subset D_i \\cup D_j .

Lemma 1 (arXiv 2505.00358; Lemma 5 in its appendix) bounds it for domains of equal size by
radius against separation, ``max(0, (r_i + r_j - (mu_i - mu_j)) / 2)`` with
``r_i = max |a(x) - mu_i|``. Small radii and far apart means make a stable grouping.

Domains are seldom equal. Swap c examples: the worst c of D_i lie below its mean by at most
``min(c, n_i - c) r_i`` in all, the best c of D_j above theirs by ``min(c, n_j - c) r_j``, so

.. math::
    R \\le \\max_c [\\min(c, n_i - c) r_i + \\min(c, n_j - c) r_j - c (\\mu_i - \\mu_j)] / n_i,

which is concave in c, so that its maximum stands at 0, n_i / 2, n_j / 2 or the smaller size:
for equal sizes it is the lemma. That is what is computed here.

The radius is one outlier's. Hence a quantile of ``|a(x) - mu_i|`` in its place is what is
shown: no bound any more, but a number about the domain and not about one example. The regret
itself can be found exactly, by sorting, and stands beside it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rbkit.errors import InputError

QUANTILE = 0.95  # of the distances to a domain's mean alignment: the radius that is shown
_PAIRS = 2_000  # of domains, at most, whose true regret is found
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Regret:
    """Regret over the pairs of a grouping's domains, in standard deviations of a(x).

    Means are over pairs of examples in different domains: a pair of domains counts
    ``n_i n_j`` times.

    Attributes
    ----------
    bound : float
        Mean bound, with a quantile for the radius. This is the one that figures show.
    worst : float
        Largest such bound of any pair.
    lemma : float
        Mean bound as the lemma has it, with the largest distance for the radius.
    exact : float
        Mean of the regret itself.
    """

    bound: float
    worst: float
    lemma: float
    exact: float


def alignments(vectors: ArrayLike, eval_vectors: ArrayLike) -> Floats:
    """Return a(x), the product of each row with the mean of the eval rows.

    Parameters
    ----------
    vectors : array of shape (n, d)
        Gradient sketches, or embeddings in their place.
    eval_vectors : array of shape (n_eval, d)
        Of the same kind.

    Returns
    -------
    ndarray of float64, shape (n,)

    Raises
    ------
    InputError
        No eval rows, or rows of another length.

    Examples
    --------
    >>> alignments([[1.0, 0.0], [0.0, 2.0]], [[1.0, 1.0], [3.0, 1.0]])
    array([2., 2.])
    """
    X, aim = np.asarray(vectors), np.asarray(eval_vectors)
    if X.ndim != 2 or aim.ndim != 2 or X.shape[1] != aim.shape[1] or not len(aim):
        what = f"shape {aim.shape} for train vectors of shape {X.shape}"
        raise InputError("eval_vectors", what, "give rows of the same length, at least one")
    direction = aim.mean(axis=0, dtype=np.float64)
    return np.concatenate(
        [np.asarray(X[at : at + 65_536], np.float64) @ direction for at in range(0, len(X), 65_536)]
        or [np.zeros(0)]
    )


def regret(labels: ArrayLike, a: ArrayLike, *, quantile: float = QUANTILE, seed: int = 0) -> Regret:
    """Return bound and regret of a grouping, given the alignment of every example.

    Parameters
    ----------
    labels : array of int, shape (n,)
        Domain of every example; those below 0 are left out.
    a : array of shape (n,)
        :func:`alignments`.
    quantile : float
        What takes the place of the radius in `bound` and `worst`; 1 is the lemma's own.
    seed : int
        Above 2,000 pairs of domains the exact regret is that of a random 2,000.

    Examples
    --------
    Half of each domain at one end, half at the other: the lemma's bound is reached.

    >>> found = regret([0, 0, 1, 1], [-0.75, 1.25, -1.25, 0.75], quantile=1)
    >>> round(found.bound / found.exact, 6)
    1.0
    """
    groups = _Groups.of(labels, a)
    if len(groups.sizes) < 2 or groups.spread == 0:
        return Regret(0.0, 0.0, 0.0, 0.0)
    upper = np.triu_indices(len(groups.sizes), 1)
    weights = np.outer(groups.sizes, groups.sizes)[upper].astype(np.float64)
    weights /= weights.sum()
    shown, largest = (groups.bounds(groups.radii(part))[upper] for part in (quantile, 1.0))
    true = groups.mean_regret(upper, weights, seed)
    values = (weights @ shown, shown.max(), weights @ largest, true)
    return Regret(*(float(value / groups.spread) for value in values))


def pair_bounds(labels: ArrayLike, a: ArrayLike, *, quantile: float = 1.0) -> Floats:
    """Return the bound of every pair of domains, (m, m), in the units of `a`.

    With ``quantile=1`` this is Lemma 1 for domains of equal size, and its extension for others.
    """
    groups = _Groups.of(labels, a)
    return groups.bounds(groups.radii(quantile))


def pair_regret(better: ArrayLike, other: ArrayLike) -> float:
    """Return the regret itself of two domains, from the alignments of their examples.

    Examples
    --------
    >>> pair_regret([1.0, 3.0], [2.0, 0.0])   # [3, 2] has the mean 2.5
    0.5
    """
    one, two = np.asarray(better, np.float64), np.asarray(other, np.float64)
    if one.mean() < two.mean():
        one, two = two, one
    best = np.partition(np.concatenate((one, two)), len(two))[len(two) :]
    return max(0.0, float(best.mean() - one.mean()))  # at least but for rounding


@dataclass(frozen=True)
class _Groups:
    """Alignments sorted by domain, and the sizes and means of the domains."""

    sorted: Floats
    starts: NDArray[np.int64]
    sizes: NDArray[np.int64]
    means: Floats
    spread: float

    @classmethod
    def of(cls, labels: ArrayLike, a: ArrayLike) -> _Groups:
        found, values = np.asarray(labels), np.asarray(a, dtype=np.float64)
        if found.shape != values.shape or found.ndim != 1:
            what = f"shape {found.shape} for alignments of shape {values.shape}"
            raise InputError("labels", what, "give one label per example")
        values, found = values[found >= 0], found[found >= 0]
        order = np.argsort(found, kind="stable")
        values = values[order]
        starts, sizes = np.unique(found[order], return_index=True, return_counts=True)[1:]
        means = np.add.reduceat(values, starts) / sizes if len(starts) else np.zeros(0)
        spread = float(values.std()) if len(values) else 0.0
        # Of equal numbers only rounding is left, and a ratio to it says nothing.
        if spread <= 1e-12 * float(np.abs(values).max(initial=0.0)):
            spread = 0.0
        return cls(values, starts, sizes, means, spread)

    def radii(self, quantile: float) -> Floats:
        """Return the quantile, rounded up, of the distances to each domain's mean."""
        if not 0 < quantile <= 1:
            raise InputError("quantile", f"{quantile} is not in (0, 1]", "1 is the maximum")
        which = np.repeat(np.arange(len(self.sizes)), self.sizes)
        distances = np.abs(self.sorted - self.means[which])
        distances = distances[np.lexsort((distances, which))]
        at = np.ceil(quantile * self.sizes - 1e-9).astype(np.int64).clip(min=1) - 1
        return np.asarray(distances[self.starts + at])

    def bounds(self, radii: Floats) -> Floats:
        gap = self.means[:, None] - self.means[None, :]
        first = gap > 0  # whether the row's domain is the better one
        n, r = self.sizes.astype(np.float64), radii

        def oriented(of: Floats) -> tuple[Floats, Floats]:
            rows, columns = np.broadcast_arrays(of[:, None], of[None, :])
            return np.where(first, rows, columns), np.where(first, columns, rows)

        (n_i, n_j), (r_i, r_j) = oriented(n), oriented(r)
        delta, most = np.abs(gap), np.minimum(n_i, n_j)
        bound = np.zeros_like(delta)
        for swapped in (n_i / 2, n_j / 2, most):
            c = np.minimum(swapped, most)
            gain = np.minimum(c, n_i - c) * r_i + np.minimum(c, n_j - c) * r_j - c * delta
            bound = np.maximum(bound, gain / n_i)
        # Two domains with the same mean: either may be called the better one.
        tied = gap == 0
        bound = np.where(tied, np.maximum(bound, bound.T), bound)
        np.fill_diagonal(bound, 0.0)
        return bound

    def mean_regret(
        self, pairs: tuple[NDArray[np.intp], NDArray[np.intp]], weights: Floats, seed: int
    ) -> float:
        parts = np.split(self.sorted, self.starts[1:])
        chosen = np.arange(len(weights))
        if len(weights) > _PAIRS:  # drawn by their weights, which are then equal
            chosen = np.random.default_rng(seed).choice(len(weights), _PAIRS, p=weights)
            weights = np.full(len(weights), 1 / _PAIRS)
        found = [pair_regret(parts[pairs[0][at]], parts[pairs[1][at]]) for at in chosen]
        return float(np.dot(weights[chosen], found))
