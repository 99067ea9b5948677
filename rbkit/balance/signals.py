"""Observations: the signals that a mixer gets at the end of a round, as plain arrays."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

# Every signal that a mixer may declare, with a description.
SIGNALS: dict[str, str] = {
    "gram": "Gram matrix of the domain gradients that training yields",
    "eval_losses": "eval loss of each domain at the end of the round",
    "train_losses": "training loss of each domain in each step",
    "visit_losses": "training losses of first visits and of repeats, of each domain's examples",
    "excess_losses": "training loss above that of a reference model, trained first",
    "target_gradient": "products of fresh domain gradients with the eval set's, all parameters",
    "domain_gradients": "Gram matrix of fresh domain gradients, all parameters",
    "probe_runs": "a short training run on each domain alone, before the first step",
}


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


def noise_share(gram: FloatArray, noise_floor: FloatArray) -> float | None:
    """Return the share of the diagonal of G, (m, m), that is sampling noise; None if unknown.

    >>> noise_share(np.diag([3.0, 1.0, np.nan]), np.array([1.0, 1.0, 1.0]))
    0.5
    """
    diagonal = np.diagonal(np.asarray(gram, dtype=np.float64))
    floor = np.asarray(noise_floor, dtype=np.float64)
    known = np.isfinite(diagonal) & np.isfinite(floor)
    whole = float(diagonal[known].sum())
    return float(floor[known].sum()) / whole if whole > 0 else None


@dataclass(frozen=True)
class TrainLosses:
    """Training losses of the K steps of a round, by domain, in nats.

    Attributes
    ----------
    loss : ndarray of shape (K, m), float64
        Mean loss per token of each domain's examples in each step; NaN where a domain had
        no token in the step.
    tokens, examples : ndarray of shape (K, m), int64
        Predicted tokens, and examples, of each domain in each step.
    excess : ndarray of shape (K, m), float64, or None
        Signal ``"excess_losses"``: mean over the same tokens of ``max(loss - reference, 0)``.
    """

    loss: FloatArray
    tokens: IntArray
    examples: IntArray
    excess: FloatArray | None = None


@dataclass(frozen=True)
class VisitLosses:
    """Training losses of a round by domain: of examples seen for the first time, and of repeats.

    Their difference is what the model remembers of single examples, if those are first visited
    at all times: see the `reserve` of :class:`~rbkit.balance.sampler.MixtureSampler`.

    Attributes
    ----------
    first, repeat : ndarray of shape (m,), float64
        Mean loss per token, in nats; NaN where there was none.
    first_examples, repeat_examples : ndarray of shape (m,), int64
        Examples of each kind.
    visits : ndarray of shape (m,), float64
        Mean number of earlier visits of the repeats; NaN where there was none.
    """

    first: FloatArray
    repeat: FloatArray
    first_examples: IntArray
    repeat_examples: IntArray
    visits: FloatArray


@dataclass(frozen=True)
class FreshGradients:
    """Inner products of gradients on batches drawn for the purpose, over all parameters.

    One batch per domain, of training data, and one of the eval set; each gradient is of the
    mean loss per token.

    Attributes
    ----------
    norms : ndarray of shape (m,), float64
        Norms of the domain gradients; NaN for a domain without data.
    target : ndarray of shape (m,), float64, or None
        Products with the gradient of the eval batch (``"target_gradient"``).
    target_norm : float or None
        Norm of that gradient.
    gram : ndarray of shape (m, m), float64, or None
        Products among the domains (``"domain_gradients"``).
    """

    norms: FloatArray
    target: FloatArray | None = None
    target_norm: float | None = None
    gram: FloatArray | None = None


@dataclass(frozen=True)
class ProbeRuns:
    """Eval losses before and after short training runs, each on one domain alone.

    Attributes
    ----------
    before : ndarray of shape (m,), float64
        Eval loss per token of each domain, of the model that every run started from; NaN for
        a domain without eval examples.
    after : ndarray of shape (m, m), float64
        ``after[i, j]``: eval loss of domain j after training on domain i alone; rows of
        domains without training data are NaN.
    steps : int
        Steps of each run.
    """

    before: FloatArray
    after: FloatArray
    steps: int


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
    train_losses : TrainLosses or None
        Signal ``"train_losses"`` (and, with `excess`, ``"excess_losses"``).
    visit_losses : VisitLosses or None
        Signal ``"visit_losses"``.
    drawn : ndarray of shape (m,), int64, or None
        Examples drawn of each domain so far in the run; None if unknown.
    gradients : FreshGradients or None
        Signals ``"target_gradient"`` and ``"domain_gradients"``.
    step : int
        Optimizer steps made so far; 0 if unknown.
    steps : int
        Optimizer steps of the whole run; 0 if unknown.
    learning_rate : float
        Learning rate of the round's last step; NaN if unknown.
    peak_learning_rate : float
        Largest learning rate of the schedule; NaN if unknown.
    """

    round: int
    p: FloatArray
    q: FloatArray
    sizes: IntArray
    gram: GramEstimate | None = None
    eval_losses: FloatArray | None = None
    train_losses: TrainLosses | None = None
    gradients: FreshGradients | None = None
    visit_losses: VisitLosses | None = None
    drawn: IntArray | None = None
    step: int = 0
    steps: int = 0
    learning_rate: float = field(default=float("nan"))
    peak_learning_rate: float = field(default=float("nan"))

    @property
    def available(self) -> NDArray[np.bool_]:
        """Which domains have training data, (m,): only these can be sampled."""
        return np.asarray(self.sizes) > 0
