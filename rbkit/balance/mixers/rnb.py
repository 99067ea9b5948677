r"""Balance: a softmax over the alignment of each domain with the eval set.

Algorithm 1 of R&B (arXiv 2505.00358), line 14:

.. math:: p_{t+1} = \mathrm{softmax}\left(\lambda \frac{G q}{\lVert G q \rVert_2}\right)

To first order, a step on the mixture p lowers the eval loss by :math:`\eta\, q^T G p`.
Alone, that is maximal at a corner: one domain. With an entropy term whose weight scales
with :math:`\lVert Gq \rVert`, the maximum is the softmax above, and the learning rate
cancels. The rule has no memory: averaging over the round is its only smoothing.

Options stand beside the printed rule, none on by default: a *prior* other than uniform
(:math:`p \propto \pi \exp(\cdot)`), a *floor* against starved domains, a temperature set
by the wanted *effective number of domains* :math:`\exp H(p)` (the printed rule flattens
like :math:`1/\sqrt m` as domains get many), and the *debiased* diagonal.

Known failures: with a large lambda the mixture collapses and starved domains give no
gradient; with eval domains that training lacks, Gq is 0. Here a domain unseen in a round
keeps its last products, one never seen gets the mean score, and Gq = 0 keeps p.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np

from rbkit.balance.mixers.base import Mixer, normalise
from rbkit.balance.signals import FloatArray, IntArray, Observation
from rbkit.errors import InputError


@dataclass(eq=False)
class RnB(Mixer):
    r"""R&B's Balance (arXiv 2505.00358, Algorithm 1), with options that are off by default.

    Parameters
    ----------
    lam : float
        :math:`\lambda`, how strongly alignment counts; 0 gives the prior. The paper
        reports 3 for one of its experiments and no value for the others.
    prior : {"uniform", "target", "previous"}
        What the mixture is drawn towards: uniform (the paper), `q`, or the current `p`
        (which makes the rule DoGE-like multiplicative weights).
    floor : float
        Share of the mixture, in [0, 1], that is spread evenly over all domains with data,
        so that none is starved.
    effective_domains : float, optional
        Choose lambda anew each round so that :math:`\exp H(p)` is this number (at most
        that of the prior), before the floor. Overrides `lam`.
    diagonal : {"paper", "debiased"}
        Plug-in diagonal of G, as printed, or its unbiased estimate from two half-rounds.

    Examples
    --------
    >>> from rbkit.balance.signals import GramEstimate
    >>> nan = np.full(2, np.nan)
    >>> g = GramEstimate(np.diag([3.0, 4.0]), np.array([8, 8]), nan, nan)
    >>> seen = Observation(0, p=np.full(2, .5), q=np.full(2, .5), sizes=np.array([9, 9]), gram=g)
    >>> RnB(lam=1).update(seen).round(4)   # softmax([0.6, 0.8])
    array([0.4502, 0.5498])
    """

    lam: float = 3.0
    prior: Literal["uniform", "target", "previous"] = "uniform"
    floor: float = 0.0
    effective_domains: float | None = None
    diagonal: Literal["paper", "debiased"] = "paper"
    _gram: FloatArray | None = field(default=None, init=False, repr=False)

    signals: ClassVar[frozenset[str]] = frozenset({"gram"})

    def __post_init__(self) -> None:
        for name in ("lam", "floor", "effective_domains"):
            value = getattr(self, name)
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not (number or (value is None and name == "effective_domains")):
                raise InputError(f"RnB({name}=...)", f"{value!r} is not a number", "give a number")
        if not (np.isfinite(self.lam) and self.lam >= 0):
            raise InputError("RnB(lam=...)", f"{self.lam} is not a number >= 0", "try lam=3")
        if self.prior not in ("uniform", "target", "previous"):
            raise InputError(
                "RnB(prior=...)", f"{self.prior!r} is unknown", "use uniform, target or previous"
            )
        if not 0 <= self.floor <= 1:
            raise InputError("RnB(floor=...)", f"{self.floor} is not in [0, 1]", "try floor=0.1")
        if self.effective_domains is not None and not self.effective_domains >= 1:
            raise InputError(
                "RnB(effective_domains=...)", f"{self.effective_domains} is below 1", "use 1 to m"
            )
        if self.diagonal not in ("paper", "debiased"):
            raise InputError(
                "RnB(diagonal=...)", f"{self.diagonal!r} is unknown", "use paper or debiased"
            )

    def start(self, q: FloatArray, sizes: IntArray) -> FloatArray:
        """Begin a run, with no product known yet."""
        self._gram = None
        return super().start(q, sizes)

    def update(self, seen: Observation) -> FloatArray:
        """Return the next proportions, (m,)."""
        available = seen.available
        alignment = self.alignment(seen)
        norm = np.linalg.norm(alignment[available])
        if norm == 0:
            return seen.p  # nothing is known of any domain: keep what is
        score = np.where(available, alignment / norm, 0.0)
        prior = self._prior(seen)
        lam = self.lam
        if self.effective_domains is not None:
            lam = lambda_for_effective_domains(self.effective_domains, prior, score)
        p = tilt(prior, score, lam)
        return (1 - self.floor) * p + self.floor * normalise(np.ones(len(p)), available)

    def alignment(self, seen: Observation) -> FloatArray:
        """Return ``G q``, (m,), with G's unseen entries filled from earlier rounds.

        A product never observed counts as 0; a domain never observed gets the mean score of
        the others, so that it is neither favoured nor dropped for want of evidence.
        """
        if seen.gram is None:
            raise ValueError("RnB needs the signal 'gram', but the observation has none")
        fresh = seen.gram.gram if self.diagonal == "paper" else seen.gram.debiased()
        if self._gram is None or self._gram.shape != fresh.shape:
            self._gram = np.full(fresh.shape, np.nan)
        self._gram = np.where(np.isfinite(fresh), fresh, self._gram)
        known = np.isfinite(np.diag(self._gram))
        alignment = np.nan_to_num(self._gram) @ seen.q
        unknown = seen.available & ~known
        if unknown.any() and (seen.available & known).any():
            alignment[unknown] = alignment[seen.available & known].mean()
        return alignment

    def _prior(self, seen: Observation) -> FloatArray:
        weights = {"uniform": np.ones(len(seen.q)), "target": seen.q, "previous": seen.p}
        return normalise(weights[self.prior], seen.available)

    def state_dict(self) -> dict[str, Any]:
        """Last known Gram entries."""
        return {} if self._gram is None else {"gram": self._gram}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up the last known Gram entries."""
        gram = state.get("gram")
        self._gram = None if gram is None else np.array(gram, dtype=np.float64)

    def options(self) -> dict[str, Any]:
        """Return the parameters of the rule."""
        return {k: v for k, v in asdict(self).items() if not k.startswith("_")}


def tilt(prior: FloatArray, score: FloatArray, lam: float) -> FloatArray:
    """Return ``prior * exp(lam * score)``, normalised; zero where the prior is zero.

    Examples
    --------
    >>> tilt(np.array([.5, .5, 0.]), np.array([0., np.log(3), 9.]), 1.0)
    array([0.25, 0.75, 0.  ])
    """
    inside = prior > 0
    # Shifting by the largest score keeps exp from overflowing; it cancels.
    weights = prior * np.exp(np.where(inside, lam * (score - score[inside].max()), -np.inf))
    total: FloatArray = weights / weights.sum()
    return total


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
