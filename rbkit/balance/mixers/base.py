"""The one interface of all mixers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from rbkit.balance.signals import FloatArray, IntArray, Observation


class Mixer(ABC):
    """A rule that turns what a round showed into the proportions of the next.

    A rule of one's own is a subclass with an :meth:`update`. It declares in `signals`
    what it needs (``"gram"``, ``"eval_losses"``); the trainer produces just that, and the
    ledger writes down its price. The trainer checks what comes back: finite, on the
    simplex, zero where a domain has no training data.

    Examples
    --------
    Train more on what is still badly predicted:

    >>> class LossSeeking(Mixer):
    ...     signals = frozenset({"eval_losses"})
    ...     def update(self, seen):
    ...         return normalise(np.exp(seen.eval_losses), seen.available)
    >>> seen = Observation(0, p=np.full(2, .5), q=np.full(2, .5), sizes=np.array([9, 9]),
    ...                    eval_losses=np.log([1.0, 3.0]))
    >>> LossSeeking().update(seen)
    array([0.25, 0.75])
    """

    signals: ClassVar[frozenset[str]] = frozenset()

    @property
    def name(self) -> str:
        """Name shown in tables and legends."""
        return type(self).__name__

    def start(self, q: FloatArray, sizes: IntArray) -> FloatArray:
        """Begin a run: forget any earlier one, and return the proportions of the first round.

        Uniform over the domains with data, (m,), unless a rule says otherwise.
        """
        return normalise(np.ones(len(q)), np.asarray(sizes) > 0)

    @abstractmethod
    def update(self, seen: Observation) -> FloatArray:
        """Return the proportions of the next round, (m,), from what this one showed."""

    def state_dict(self) -> dict[str, Any]:
        """State that must survive a restart: arrays and JSON values, by name."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up a state saved by :meth:`state_dict`."""
        if state:
            raise ValueError(f"{self.name} has no state, but was given {sorted(state)}")

    def options(self) -> dict[str, Any]:
        """Options that define the rule, as JSON values, for the record of a run."""
        return {}


def normalise(weights: FloatArray, available: np.ndarray[Any, np.dtype[np.bool_]]) -> FloatArray:
    """Scale non-negative `weights` to proportions over the `available` domains.

    Examples
    --------
    >>> normalise(np.array([2.0, 1.0, 1.0]), np.array([True, True, False])).round(3)
    array([0.667, 0.333, 0.   ])
    """
    weights = np.where(available, np.asarray(weights, dtype=np.float64), 0.0)
    total = weights.sum()
    if not (np.isfinite(total) and total > 0):
        raise ValueError(f"no usable weight on a domain with training data: {weights}")
    p: FloatArray = weights / total
    return p


def check_proportions(p: FloatArray, available: np.ndarray[Any, np.dtype[np.bool_]]) -> FloatArray:
    """Return `p` as float64 if it is on the simplex and zero where nothing can be sampled."""
    p = np.asarray(p, dtype=np.float64)
    if p.shape != available.shape:
        raise ValueError(
            f"proportions have shape {p.shape}, but there are {len(available)} domains"
        )
    if not np.isfinite(p).all() or (p < 0).any() or abs(p.sum() - 1) > 1e-9:
        raise ValueError(f"proportions must be finite, non-negative and sum to 1: {p}")
    if (p[~available] > 0).any():
        raise ValueError(f"proportions of domains without training data must be 0: {p[~available]}")
    return p
