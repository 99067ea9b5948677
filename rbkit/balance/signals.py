"""What a mixer is shown at the end of a round: plain arrays, nothing of torch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class GramEstimate:
    """Gram matrix of the mean domain gradients of one round, with its uncertainty.

    Attributes
    ----------
    gram : ndarray of shape (m, m), float64
        ``G[i, j] = <A_i, A_j> / (n_i n_j)``, with ``A_i`` the sum over the round of the
        loss gradients of domain i's examples (Algorithm 1 of R&B). Rows and columns of
        domains that no example came from are NaN.
    counts : ndarray of shape (m,), int64
        Examples of each domain in the round, ``n_i``.
    diagonal_debiased : ndarray of shape (m,), float64
        Product of the mean gradients of two half-rounds: an unbiased estimate of
        ``||g_i||^2``, where the plug-in diagonal of `gram` is too large by about
        ``noise_floor[i]``. NaN where a half has no example.
    noise_floor : ndarray of shape (m,), float64
        ``||A1_i/n1_i - A2_i/n2_i||^2 / 4``: squared norm that sampling noise alone puts
        into the mean gradient of domain i. NaN where a half has no example.
    """

    gram: FloatArray
    counts: IntArray
    diagonal_debiased: FloatArray
    noise_floor: FloatArray

    def debiased(self) -> FloatArray:
        """Return `gram` with the debiased diagonal where there is one, (m, m).

        The result is unbiased but need not be positive semi-definite.
        """
        gram = self.gram.copy()
        known = np.isfinite(self.diagonal_debiased)
        index = np.flatnonzero(known)
        gram[index, index] = self.diagonal_debiased[known]
        return gram


@dataclass(frozen=True)
class Observation:
    """Everything that one round showed; a mixer reads the signals that it declared.

    Attributes
    ----------
    round : int
        Number of the round that has just ended, from 0.
    p : ndarray of shape (m,)
        Proportions in force during the round.
    q : ndarray of shape (m,)
        Target proportions: share of each domain in the eval set.
    sizes : ndarray of shape (m,), int64
        Training examples that each domain has.
    gram : GramEstimate or None
        Signal ``"gram"``.
    eval_losses : ndarray of shape (m,) or None
        Signal ``"eval_losses"``: mean loss per token of each domain's eval examples at the
        end of the round, in nats; NaN for a domain without eval examples.
    """

    round: int
    p: FloatArray
    q: FloatArray
    sizes: IntArray
    gram: GramEstimate | None = None
    eval_losses: FloatArray | None = None

    @property
    def available(self) -> NDArray[np.bool_]:
        """Which domains have training data, (m,): only these can be sampled."""
        return np.asarray(self.sizes) > 0
