r"""Weightings of the torchjd package, on the Gram matrix of the domain gradients.

TorchJD's ``Weighting`` classes map a Gram matrix to weights of a combined gradient. Scaled to
sum to 1, these are proportions: a batch drawn from p has the mean gradient
:math:`\sum_i p_i g_i`. A Gram matrix that is partly remembered from earlier rounds need not be
positive semi-definite, so its negative eigenvalues are set to 0 first.

**MGDA**: the mixture whose gradient is the shortest, so that no domain is left behind.

Multiple-gradient descent (Désidéri, Comptes Rendus 350, 2012; Frank-Wolfe form of Sener and Koltun,
arXiv 1810.04650), by torchjd's ``MGDAWeighting``:

.. math:: p = \arg\min_{w \in \Delta} w^T G w

A step along the shortest gradient in the convex hull lowers the loss of *every* domain, as long
as any direction does. Defaults are torchjd's: 100 iterations, stop below a step of 1e-3.

**It ignores q**: the composition of the eval set plays no part. Scaling the gradients by q does
not fix that, it does the opposite: the shortest vector gives a domain with a longer gradient
*less* weight. So there is no such option; for a rule of this family that knows q, use
:class:`UPGrad` with ``preference="target"``.

Cost: as R&B's. Known failures: the domain with the smallest gradient, which is often the one
that is learned already, takes nearly all the weight; the bias of G's diagonal (noise) counts in
full; Frank-Wolfe with 100 iterations is a rough solver for many domains.

**UPGrad**: project each domain's gradient so that it hurts no other, then combine.

Quinton and Rey (arXiv 2406.16232), by torchjd's ``UPGradWeighting``: with a preference u,

.. math:: w = \sum_i \arg\min_{v \ge u_i e_i} v^T G v, \qquad p = w / \sum_j w_j

The combined gradient :math:`\sum_i w_i g_i` has a non-negative product with every domain's, so to
first order a step along it raises no loss. Scaled to sum to 1, only its length changes.

The published preference is uniform. With ``preference="target"`` it is q, which makes it a rule
for the eval set's mixture: for domains that are not in conflict p = q.

The quadratic programs are solved as non-negative least squares (scipy), on torchjd's
:math:`G / \mathrm{tr}\,G + 10^{-4} I`: with :math:`G = L L^T` and :math:`v = u + s`, minimise
:math:`\lVert L^T s + L^T u \rVert` over :math:`s \ge 0`. torchjd's own solver, quadprog, gives the
same but is under the GPL, so it is not required.

Cost: as R&B's, and m small least-squares problems a round. Known failures: with gradients that all
agree, which is the usual case for a language model, it is the preference itself; noise that
makes gradients look opposed counts as conflict.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field
from importlib import import_module
from typing import ClassVar, Literal

import numpy as np

from rbkit.balance.mixers.base import Rule, ever_seen, normalise, remember
from rbkit.balance.signals import FloatArray, Observation
from rbkit.errors import InputError


def need_torchjd(rule: str) -> None:
    """Refuse to make a mixer called `rule` where torchjd is missing, and say how to get it."""
    try:
        import_module("torchjd.aggregation")
    except ImportError as error:
        raise InputError(
            f"mixer {rule}",
            f"a package that it needs is missing ({error})",
            "pip install rbkit[torchjd]",
        ) from error


class GramWeighting(Rule):
    """A rule that hands the Gram matrix of the domains it knows to a weighting.

    Domains that a round did not draw keep their last products; one never drawn gets an even
    share, ``1 / k``, and those that are known divide the rest.
    """

    signals = frozenset({"gram"})
    _gram: FloatArray | None

    def update(self, seen: Observation) -> FloatArray:
        """Return the next proportions, (m,); a round without evidence changes nothing."""
        if seen.gram is None:
            raise ValueError(f"{self.name} needs the signal 'gram', but the observation has none")
        self._gram = remember(self._gram, seen.gram.gram)
        available = seen.available
        known = np.flatnonzero(available & ever_seen(self._gram))
        gram = np.nan_to_num(self._gram)[np.ix_(known, known)]
        trace = np.trace(gram)
        if not trace > 0:
            return seen.p
        # Scaled by its trace: torchjd treats values below 1e-4 as zero.
        weights = self._weights(_semidefinite(gram / trace), seen.q[known])
        p = normalise(np.ones(len(seen.q)), available)
        p[known] = len(known) / available.sum() * weights / weights.sum()
        return p

    @abstractmethod
    def _weights(self, gram: FloatArray, q: FloatArray) -> FloatArray:
        """Return non-negative weights, (k,), from a Gram matrix of trace 1, (k, k)."""


def _semidefinite(gram: FloatArray) -> FloatArray:
    """Return the nearest positive semi-definite matrix."""
    values, vectors = np.linalg.eigh((gram + gram.T) / 2)
    if values[0] >= 0:
        return gram
    nearest: FloatArray = (vectors * np.maximum(values, 0.0)) @ vectors.T
    return nearest


@dataclass(eq=False)
class MGDA(GramWeighting):
    """Multiple-gradient descent (arXiv 1810.04650) on the domains; needs torchjd.

    Parameters
    ----------
    epsilon : float
        Frank-Wolfe stops below this step.
    max_iters : int
        Or after so many steps.

    Examples
    --------
    >>> from rbkit.balance.signals import GramEstimate, Observation
    >>> nan = np.full(2, np.nan)
    >>> g = GramEstimate(np.diag([3.0, 1.0]), np.array([8, 8]), nan, nan)
    >>> seen = Observation(0, p=np.full(2, .5), q=np.full(2, .5), sizes=np.array([9, 9]), gram=g)
    >>> MGDA().update(seen)
    array([0.25, 0.75])
    """

    epsilon: float = 1e-3
    max_iters: int = 100
    _gram: FloatArray | None = field(default=None, init=False, repr=False)

    paper: ClassVar[str] = "MGDA, arXiv 1810.04650 (torchjd)"
    cost: ClassVar[str] = "products of the tracked gradients, m^2 a round"

    def __post_init__(self) -> None:
        self._check_number("epsilon", positive=True, try_="0.001")
        self._check_number("max_iters", least=1, whole=True, try_="100")
        need_torchjd("MGDA")

    def _weights(self, gram: FloatArray, q: FloatArray) -> FloatArray:
        import torch
        from torchjd.aggregation import MGDAWeighting

        weighting = MGDAWeighting(epsilon=self.epsilon, max_iters=self.max_iters)
        return np.asarray(weighting(torch.from_numpy(gram)), dtype=np.float64)


_REGULAR = 1e-4  # torchjd's: keeps the Gram matrix positive definite against rounding


@dataclass(eq=False)
class UPGrad(GramWeighting):
    """UPGrad (arXiv 2406.16232) on the domains; needs torchjd.

    Parameters
    ----------
    preference : {"uniform", "target"}
        What conflict-free gradients are combined by: alike (as published), or by q.

    Examples
    --------
    >>> from rbkit.balance.signals import GramEstimate, Observation
    >>> nan = np.full(2, np.nan)
    >>> g = GramEstimate(np.array([[2., 1.], [1., 2.]]), np.array([8, 8]), nan, nan)
    >>> seen = Observation(0, np.full(2, .5), np.array([.9, .1]), np.array([9, 9]), gram=g)
    >>> UPGrad(preference="target").update(seen).round(4)
    array([0.9, 0.1])
    """

    preference: Literal["uniform", "target"] = "uniform"
    _gram: FloatArray | None = field(default=None, init=False, repr=False)

    paper: ClassVar[str] = "UPGrad, arXiv 2406.16232 (torchjd)"
    cost: ClassVar[str] = "products of the tracked gradients, m^2 a round"

    def __post_init__(self) -> None:
        self._check_choice("preference", "uniform", "target")
        need_torchjd("UPGrad")

    def _weights(self, gram: FloatArray, q: FloatArray) -> FloatArray:
        import torch
        from torchjd.aggregation import UPGradWeighting
        from torchjd.linalg import DualConeProjector

        class Projector(DualConeProjector):
            def __call__(self, U: torch.Tensor, G: torch.Tensor) -> torch.Tensor:
                return torch.from_numpy(project(U.numpy(), G.numpy()))

        wanted = q if self.preference == "target" and q.sum() > 0 else np.ones(len(q))
        weighting = UPGradWeighting(torch.from_numpy(wanted / wanted.sum()), Projector())
        return np.asarray(weighting(torch.from_numpy(gram)), dtype=np.float64)


def project(wanted: FloatArray, gram: FloatArray) -> FloatArray:
    """Return for each row u of `wanted` the ``v >= u`` with the least ``v' G v``, (k, m).

    With v as weights, the combined gradient is the projection of u's onto the directions that
    hurt no domain (arXiv 2406.16232, Proposition 1).

    Examples
    --------
    >>> project(np.array([[1., 0.]]), np.array([[1., -.5], [-.5, 1.]])).round(3)
    array([[1. , 0.5]])
    """
    from scipy.optimize import nnls

    regular = gram / np.trace(gram) + _REGULAR * np.eye(len(gram))
    root = np.linalg.cholesky(regular).T
    return np.array([u + nnls(root, -root @ u)[0] for u in wanted])
