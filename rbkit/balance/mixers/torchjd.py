r"""Weightings of the torchjd package, on the Gram matrix of the domain gradients.

TorchJD's ``Weighting`` classes map a Gram matrix to weights of a combined gradient. Scaled to
sum to 1, these are proportions: a batch drawn from p has the mean gradient
:math:`\sum_i p_i g_i`. A Gram matrix that is partly remembered from earlier rounds need not be
positive semi-definite, so its negative eigenvalues are set to 0 first.
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
        """Return the next proportions, (m,); a round that tells nothing changes nothing."""
        if seen.gram is None:
            raise ValueError(f"{self.name} needs the signal 'gram', but the observation has none")
        self._gram = remember(self._gram, seen.gram.gram)
        available = seen.available
        known = np.flatnonzero(available & ever_seen(self._gram))
        gram = np.nan_to_num(self._gram)[np.ix_(known, known)]
        trace = np.trace(gram)
        if not trace > 0:
            return seen.p
        # By its trace: torchjd takes smaller ones than 1e-4 for zero.
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
