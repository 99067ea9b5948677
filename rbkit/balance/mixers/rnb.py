r"""Balance: a softmax over the alignment of each domain with the eval set.

Algorithm 1 of R&B (arXiv 2505.00358), line 14:

.. math:: p_{t+1} = \mathrm{softmax}\left(\lambda \frac{G q}{\lVert G q \rVert_2}\right)

To first order, a step on the mixture p lowers the eval loss by :math:`\eta\, q^T G p`.
Alone, that is maximal at a corner: one domain. With an entropy term whose weight scales
with :math:`\lVert Gq \rVert`, the maximum is the softmax above, and the learning rate
cancels. The rule has no memory: averaging over the round is its only smoothing.

Algorithm 3, line 17, prints it without the norm, :math:`\mathrm{softmax}(\eta\lambda G q)`.
That form depends on the scale of the gradients, which changes by orders of magnitude while a
model trains; the normalised one is the one that the paper derives.

Options extend the printed rule, none on by default: a *prior* other than uniform
(:math:`p \propto \pi \exp(\cdot)`), a *floor* against starved domains, a temperature set
by the wanted *effective number of domains* :math:`\exp H(p)` (the printed rule flattens
like :math:`1/\sqrt m` as domains get many), *smoothing* over rounds, the *debiased* diagonal,
and a cap on repetitions.

Known failures: with a large lambda the mixture collapses and starved domains give no
gradient; with eval domains that training lacks, Gq is 0. Here a domain unseen in a round
keeps its last products, one never seen gets the mean score, and Gq = 0 keeps p.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

import numpy as np

from rbkit.balance.mixers.base import (
    Rule,
    effective_number,
    ever_seen,
    fill_unknown,
    normalise,
    remember,
    tilt,
)
from rbkit.balance.signals import FloatArray, Observation


@dataclass(eq=False)
class RnB(Rule):
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
        Choose lambda in each round so that :math:`\exp H(p)` is this number (at most
        that of the prior), before the floor. Overrides `lam`.
    diagonal : {"paper", "debiased"}
        Plug-in diagonal of G, as printed, or its unbiased estimate from two half-rounds.
    form : {"normalised", "plain"}
        Algorithm 1's rule, or Algorithm 3's ``softmax(eta * lam * G q)``.
    eta : float
        The step size in Algorithm 3's rule; with Algorithm 1's it cancels.
    smoothing : float
        Share, in [0, 1), of the earlier rounds' sums of gradients (and of their counts) that
        stays in the next round's; 0 in the paper. Sums are kept, not Gram matrices.
    max_epochs : float, optional
        No domain is seen more often than this in a run; the trainer enforces it.

    Examples
    --------
    >>> from rbkit.balance.signals import GramEstimate
    >>> nan = np.full(2, np.nan)
    >>> g = GramEstimate(np.diag([3.0, 4.0]), np.array([8, 8]), nan, nan)
    >>> seen = Observation(0, p=np.full(2, .5), q=np.full(2, .5), sizes=np.array([9, 9]), gram=g)
    >>> RnB(lam=1).update(seen).round(4)   # softmax([0.6, 0.8])
    array([0.4502, 0.5498])
    >>> RnB(lam=1, form="plain").update(seen).round(4)   # softmax([1.5, 2])
    array([0.3775, 0.6225])
    """

    lam: float = 3.0
    prior: Literal["uniform", "target", "previous"] = "uniform"
    floor: float = 0.0
    effective_domains: float | None = None
    diagonal: Literal["paper", "debiased"] = "paper"
    form: Literal["normalised", "plain"] = "normalised"
    eta: float = 1.0
    smoothing: float = 0.0
    max_epochs: float | None = None
    _gram: FloatArray | None = field(default=None, init=False, repr=False)

    signals = frozenset({"gram"})
    paper: ClassVar[str] = "R&B, arXiv 2505.00358"
    cost: ClassVar[str] = "products of the tracked gradients, m^2 a round"

    def __post_init__(self) -> None:
        self._check_number("lam", least=0, try_="3")
        self._check_choice("prior", "uniform", "target", "previous")
        self._check_number("floor", least=0, most=1, try_="0.1")
        self._check_number("effective_domains", least=1, optional=True, try_="4")
        self._check_choice("diagonal", "paper", "debiased")
        self._check_choice("form", "normalised", "plain")
        self._check_number("eta", least=0, try_="1")
        self._check_number("smoothing", least=0, below=1, try_="0.5")
        self._check_number("max_epochs", positive=True, optional=True, try_="4")
        self.gram_decay = self.smoothing

    def update(self, seen: Observation) -> FloatArray:
        """Return the next proportions, (m,)."""
        available = seen.available
        alignment = self.alignment(seen)
        norm = np.linalg.norm(alignment[available])
        if norm == 0:
            return seen.p  # no evidence on any domain
        score = alignment / norm if self.form == "normalised" else self.eta * alignment
        priors = {"uniform": np.ones(len(seen.q)), "target": seen.q, "previous": seen.p}
        prior = normalise(priors[self.prior], available)
        lam = self.lam
        if self.effective_domains is not None:
            lam = lambda_for_effective_domains(self.effective_domains, prior, score)
        p = tilt(prior, score, lam)
        return (1 - self.floor) * p + self.floor * normalise(np.ones(len(p)), available)

    def alignment(self, seen: Observation) -> FloatArray:
        """Return ``G q``, (m,), with G's unseen entries filled from earlier rounds.

        A product never observed counts as 0; a domain never observed gets the mean score of
        the others.
        """
        if seen.gram is None:
            raise ValueError("RnB needs the signal 'gram', but the observation has none")
        fresh = seen.gram.gram if self.diagonal == "paper" else seen.gram.debiased()
        self._gram = remember(self._gram, fresh)
        score = np.where(ever_seen(self._gram), np.nan_to_num(self._gram) @ seen.q, np.nan)
        return fill_unknown(score, seen.available)


def lambda_for_effective_domains(wanted: float, prior: FloatArray, score: FloatArray) -> float:
    """Return the smallest bracketed lambda at which ``tilt`` has `wanted` effective domains.

    0 if the prior has no more than `wanted`; by bisection otherwise, since the effective
    number falls continuously from the prior's to that of the best-scored domains.

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
