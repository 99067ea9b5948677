r"""Weightings of the torchjd package, on the Gram matrix of the domain gradients.

TorchJD's ``Weighting`` classes map a Gram matrix to weights of a combined gradient. Scaled to
sum to 1, these are proportions: a batch drawn from p has the mean gradient
:math:`\sum_i p_i g_i`. A Gram matrix that is partly remembered from earlier rounds need not be
positive semi-definite, so its negative eigenvalues are set to 0 first.
"""

from __future__ import annotations

from abc import abstractmethod
from importlib import import_module

import numpy as np

from rbkit.balance.mixers.base import normalise
from rbkit.balance.mixers.memory import ever_seen, remember
from rbkit.balance.mixers.rule import Rule
from rbkit.balance.signals import FloatArray, Observation
from rbkit.errors import InputError


def need_torchjd(rule: str) -> None:
    """Refuse to make a mixer called `rule` where torchjd is missing, and say how to get it."""
    try:
        import_module("torchjd.aggregation")
    except ImportError as error:
        raise InputError(
            f"mixer {rule}", f"a package that it needs is missing ({error})",
            "pip install rbkit[torchjd]",
        ) from error  # fmt: skip


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
