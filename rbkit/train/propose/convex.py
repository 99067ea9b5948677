r"""MixMin's convex problem: the mixture of source models that predicts a target set best.

:math:`\min_{p \in \Delta} -\sum_x w_x \log \sum_i p_i P_i(x)`, arXiv 2502.10510. It is the loss
of an ensemble, and in the limit of large models that of one model trained on the mixture.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import logsumexp, softmax

from rbkit.balance.signals import FloatArray
from rbkit.errors import InputError


@dataclass(frozen=True, eq=False)
class Solution:
    """A minimum, and how sure it is.

    Attributes
    ----------
    p : ndarray of shape (m,), float64
    loss : float
        Objective at `p`.
    gap : float
        The objective can be lowered by this at most: it is convex.
    steps : int
        Steps made.
    """

    p: FloatArray
    loss: float
    gap: float
    steps: int


def mixture_loss(p: FloatArray, log_prob: FloatArray, weights: FloatArray) -> float:
    r"""Return :math:`-\sum_x w_x \log \sum_i p_i P_i(x)`.

    Parameters
    ----------
    p : ndarray of shape (m,)
    log_prob : ndarray of shape (m, n)
        Log-probability of each document (or token) under each source model.
    weights : ndarray of shape (n,)

    Examples
    --------
    >>> log_prob = np.log([[0.5, 0.1], [0.1, 0.5]])
    >>> mixture_loss(np.array([0.5, 0.5]), log_prob, np.array([0.5, 0.5])).__round__(3)
    1.204
    """
    with np.errstate(divide="ignore"):
        mixed = logsumexp(np.log(p)[:, None] + log_prob, axis=0)
    return float(-(weights @ mixed))


def gains(p: FloatArray, log_prob: FloatArray, weights: FloatArray) -> FloatArray:
    """Return minus the gradient of :func:`mixture_loss` in `p`, (m,)."""
    with np.errstate(divide="ignore"):
        mixed = logsumexp(np.log(p)[:, None] + log_prob, axis=0)
    found: FloatArray = np.exp(np.minimum(log_prob - mixed, 700.0)) @ weights
    return found


def minimise(
    log_prob: FloatArray, weights: FloatArray, *, lr: float = 1.0, steps: int = 100,
    tol: float = 1e-4,
) -> Solution:  # fmt: skip
    """Minimise :func:`mixture_loss` by exponentiated gradient from the uniform mixture.

    Published: lr 1, at most 100 steps, tol 1e-4. A step that would raise the loss is halved
    until it does not, since a rate of 1 has no guarantee. The end is where the loss can fall by
    at most `tol` more: the published code looks at the size of the gradient instead, which on
    the simplex is never small.

    Parameters
    ----------
    log_prob : ndarray of shape (m, n)
        Finite log-probabilities.
    weights : ndarray of shape (n,)
        Positive.

    Raises
    ------
    InputError
        For arrays that cannot be this.

    Examples
    --------
    Two sources, three documents: the first source is right about two of them.

    >>> log_prob = np.log([[0.9, 0.9, 0.1], [0.1, 0.1, 0.9]])
    >>> minimise(log_prob, np.full(3, 1 / 3), tol=1e-9).p.round(3)
    array([0.708, 0.292])
    """
    log_prob, weights = np.asarray(log_prob, np.float64), np.asarray(weights, np.float64)
    if log_prob.ndim != 2 or not log_prob.size or log_prob.shape[1:] != weights.shape:
        raise InputError(
            "log_prob", f"shape {log_prob.shape} with weights of shape {weights.shape}",
            "give (sources, documents) and (documents,)",
        )  # fmt: skip
    if not (np.isfinite(log_prob).all() and (weights > 0).all()):
        raise InputError("log_prob", "not all finite, or a weight is not positive", "check them")
    if not (lr > 0 and steps >= 0 and tol >= 0):
        raise InputError("lr, steps, tol", f"{lr}, {steps}, {tol} cannot work", "try 1, 100, 1e-4")
    shift = log_prob.max(axis=0)  # a constant per document changes no p
    log_prob = log_prob - shift
    p = np.full(len(log_prob), 1 / len(log_prob))
    loss, made = mixture_loss(p, log_prob, weights), 0
    while True:
        gain = gains(p, log_prob, weights)
        gap = float(gain.max() - weights.sum())  # the gains' mean under p is the weights' sum
        if gap <= tol or made == steps:
            break
        rate = lr
        while True:
            tried = softmax(np.log(np.maximum(p, 1e-300)) + rate * gain)
            if (lower := mixture_loss(tried, log_prob, weights)) <= loss or rate < 1e-12:
                break
            rate /= 2
        p, loss, made = tried, lower, made + 1
    return Solution(p, loss - float(weights @ shift), max(gap, 0.0), made)
