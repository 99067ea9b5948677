r"""How much a cut into domains may lose against a better one: the regret of R&B's Lemma 1.

Let ``a(x)`` be the alignment of an example with the direction that lowers the eval loss. Of
two domains i and j, a mixer would sample the better aligned one, i. Its *regret* is the gain
on it of the best set of as many examples from both,

.. math:: R(i, j) = \max_{|D| = n_i} \bar a(D) - \mu_i, \qquad D \subset D_i \cup D_j .

Lemma 1 (arXiv 2505.00358; Lemma 5 in its appendix) bounds it for domains of equal size by
radius against separation, ``max(0, (r_i + r_j - (mu_i - mu_j)) / 2)`` with
``r_i = max |a(x) - mu_i|``. Small radii and large separation make a stable grouping.

Domains are seldom equal. Swap c examples: the worst c of D_i lie below its mean by at most
``min(c, n_i - c) r_i`` in all, the best c of D_j above theirs by ``min(c, n_j - c) r_j``, so

.. math::
    R \le \max_c [\min(c, n_i - c) r_i + \min(c, n_j - c) r_j - c (\mu_i - \mu_j)] / n_i,

which is concave in c, so that its maximum stands at 0, n_i / 2, n_j / 2 or the smaller size:
for equal sizes it is the lemma. This is computed here.

The radius is one outlier's. Hence figures show a quantile of ``|a(x) - mu_i|`` in its place:
no longer a bound, but a number about the domain and not about one example. The regret itself
can be found exactly, by sorting, and is reported too.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rbkit.errors import InputError, as_count, as_number

QUANTILE = 0.95  # of the distances to a domain's mean alignment: the radius in figures
_PAIRS = 2_000  # pairs of domains, at most, whose exact regret is computed
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
    blocks = [X[at : at + 65_536] for at in range(0, len(X), 65_536)]
    return np.concatenate([np.zeros(0), *(np.asarray(x, np.float64) @ direction for x in blocks)])


def regret(labels: ArrayLike, a: ArrayLike, *, quantile: float = QUANTILE, seed: int = 0) -> Regret:
    """Return bound and regret of a grouping, given the alignment of every example.

    Parameters
    ----------
    labels : array of int, shape (n,)
        Domain of every example; those below 0 are left out.
    a : array of shape (n,)
        :func:`alignments`.
    quantile : float
        Replaces the radius in `bound` and `worst`; 1 is the lemma's own.
    seed : int
        Above 2,000 pairs of domains the exact regret is that of a random 2,000.

    Examples
    --------
    Half of each domain at one end, half at the other: the lemma's bound is reached.

    >>> result = regret([0, 0, 1, 1], [-0.75, 1.25, -1.25, 0.75], quantile=1)
    >>> round(result.bound / result.exact, 6)
    1.0
    """
    parts, seed = _by_domain(labels, a), as_count("seed", seed)
    values = np.concatenate([np.zeros(0), *parts])
    spread = float(values.std()) if len(values) else 0.0
    # Of equal numbers only rounding is left, and a ratio to it says nothing.
    if len(parts) < 2 or spread <= 1e-12 * float(np.abs(values).max()):
        return Regret(0.0, 0.0, 0.0, 0.0)
    sizes = np.array([len(part) for part in parts])
    pairs = np.triu_indices(len(parts), 1)
    weights = np.outer(sizes, sizes)[pairs].astype(np.float64)
    weights /= weights.sum()
    by_quantile, by_radius = (_bounds(parts, part)[pairs] for part in (quantile, 1.0))
    bound, worst, lemma = weights @ by_quantile, by_quantile.max(), weights @ by_radius
    chosen = np.arange(len(weights))
    if len(weights) > _PAIRS:  # drawn by their weights, which are then equal
        chosen = np.random.default_rng(seed).choice(len(weights), _PAIRS, p=weights)
        weights = np.full(len(weights), 1 / _PAIRS)
    regrets = [pair_regret(parts[pairs[0][at]], parts[pairs[1][at]]) for at in chosen]
    exact = np.dot(weights[chosen], regrets)
    return Regret(*(float(value / spread) for value in (bound, worst, lemma, exact)))


def pair_bounds(labels: ArrayLike, a: ArrayLike, *, quantile: float = 1.0) -> Floats:
    """Return the bound of every pair of domains, (m, m), in the units of `a`.

    With ``quantile=1`` this is Lemma 1 for domains of equal size, and its extension for others.
    """
    return _bounds(_by_domain(labels, a), quantile)


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


def _by_domain(labels: ArrayLike, a: ArrayLike) -> list[Floats]:
    """Return the alignments of each domain that has examples."""
    own, values = np.asarray(labels), np.asarray(a, dtype=np.float64)
    if own.shape != values.shape or own.ndim != 1:
        what = f"shape {own.shape} for alignments of shape {values.shape}"
        raise InputError("labels", what, "give one label per example")
    values, own = values[own >= 0], own[own >= 0]
    order = np.argsort(own, kind="stable")
    starts = np.unique(own[order], return_index=True)[1]
    return list(np.split(values[order], starts[1:])) if len(starts) else []


def _bounds(parts: list[Floats], quantile: float) -> Floats:
    if not 0 < as_number("quantile", quantile, "1 is the maximum") <= 1:
        raise InputError("quantile", f"{quantile} is not in (0, 1]", "1 is the maximum")
    n = np.array([len(part) for part in parts], dtype=np.float64)
    means = np.array([part.sum() / len(part) for part in parts])
    # The quantile, rounded up, of the distances to each domain's mean.
    ranks = np.ceil(quantile * n - 1e-9).astype(np.int64).clip(min=1) - 1
    r = np.array(
        [np.sort(np.abs(x - mu))[at] for x, mu, at in zip(parts, means, ranks, strict=True)]
    )
    gap = means[:, None] - means[None, :]
    first = gap > 0  # whether the row's domain is the better one

    def oriented(of: Floats) -> tuple[Floats, Floats]:
        rows, columns = np.broadcast_arrays(of[:, None], of[None, :])
        return np.where(first, rows, columns), np.where(first, columns, rows)

    (n_i, n_j), (r_i, r_j) = oriented(n), oriented(r)
    delta, most = np.abs(gap), np.minimum(n_i, n_j)
    bound: Floats = np.zeros_like(delta)
    for swapped in (n_i / 2, n_j / 2, most):
        c = np.minimum(swapped, most)
        gain = np.minimum(c, n_i - c) * r_i + np.minimum(c, n_j - c) * r_j - c * delta
        bound = np.maximum(bound, gain / n_i)
    # Two domains with the same mean: either may be called the better one.
    bound = np.where(gap == 0, np.maximum(bound, bound.T), bound)
    np.fill_diagonal(bound, 0.0)
    return bound
