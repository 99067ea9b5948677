"""Exponential tilts of a mixture, and how many domains a mixture amounts to."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rbkit.balance.signals import FloatArray


def tilt(prior: FloatArray, score: FloatArray, lam: float) -> FloatArray:
    """Return ``prior * exp(lam * score)``, normalised; zero where the prior is zero.

    Examples
    --------
    >>> tilt(np.array([.5, .5, 0.]), np.array([0., np.log(3), 9.]), 1.0)
    array([0.25, 0.75, 0.  ])
    """
    inside = prior > 0
    logits = lam * score[inside] + np.log(prior[inside])
    # Shifting by the largest keeps exp from overflowing; it cancels.
    weights = np.zeros(len(prior))
    weights[inside] = np.exp(logits - logits.max())
    total: FloatArray = weights / weights.sum()
    return total


def fill_unknown(score: FloatArray, among: NDArray[np.bool_]) -> FloatArray:
    """Return `score` with each NaN replaced by the mean of the known scores in `among`.

    So a domain without evidence is neither favoured nor dropped for want of it. All zeros
    where nothing is known.

    Examples
    --------
    >>> fill_unknown(np.array([1., np.nan, 3., 9.]), np.array([True, True, True, False]))
    array([1., 2., 3., 0.])
    """
    known = among & np.isfinite(score)
    middle = score[known].mean() if known.any() else 0.0
    return np.where(known, score, np.where(among, middle, 0.0))


def effective_number(p: FloatArray) -> float:
    """Return ``exp(H(p))``: m for uniform proportions, 1 when one domain has them all.

    Examples
    --------
    >>> round(effective_number(np.array([.25, .25, .25, .25, 0.])), 6)
    4.0
    """
    inside = p[p > 0]
    return float(np.exp(-(inside * np.log(inside)).sum()))


def lambda_for_effective_domains(wanted: float, prior: FloatArray, score: FloatArray) -> float:
    """Return the smallest bracketed lambda at which ``tilt`` has `wanted` effective domains.

    0 if the prior has no more than `wanted`; by bisection otherwise, since the effective
    number falls continuously from the prior's to that of the best-scored domains.

    Examples
    --------
    >>> u, s = np.full(4, .25), np.array([0., 0., 0., 1.])
    >>> lam = lambda_for_effective_domains(2.0, u, s)
    >>> round(effective_number(tilt(u, s, lam)), 6)
    2.0
    """
    if effective_number(prior) <= wanted:
        return 0.0
    low, high = 0.0, 1.0
    while effective_number(tilt(prior, score, high)) > wanted:
        low, high = high, 2 * high
        if high > 1e12:  # ties at the top: fewer effective domains than `wanted` do not exist
            return low
    for _ in range(200):
        middle = (low + high) / 2
        if effective_number(tilt(prior, score, middle)) > wanted:
            low = middle
        else:
            high = middle
    return high
