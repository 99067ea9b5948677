r"""RepeatAware: target proportions, discounted where examples repeat, by how much they repeat.

To maximise :math:`\sum_i w_i \log n_i`, with n_i the draws from domain i, draw in proportion to
w. A draw of an example seen before is worth less: Muennighoff et al. (arXiv 2305.16264) fit
:math:`\exp(-r / R)` after r repetitions of a data set, with R of about 15. With D draws left,
and d_i of N_i examples drawn, marginal values are equal at the end of the run where

.. math:: p_i = c\, w_i \exp(-r_i / R), \qquad r_i = \max\{0, (d_i + p_i D) / N_i - 1\}, \qquad
          \sum_i p_i = 1,

which is one Wright omega function for each domain and a bisection for c. The weights are q, and
where q would repeat, a part of the domains' sizes, so that data like it can stand in:
:math:`w = (1 - \rho) q + \rho N / \sum N`, :math:`\rho = 0.3 (1 - \sum_i q_i \exp(-E_i / R))`
with E_i the repetitions that p = q would make. Where nothing repeats, p = q exactly.

R depends on the model, the optimiser and the data, so it is *measured*: the training loss of
repeats, less that of first visits in the same round, is what the model remembers of single
examples. Fitted over domains and rounds as :math:`\kappa` nats for each earlier visit, with a weak
prior, it gives :math:`R = 0.2 / \kappa`. For first visits to occur late in a run, a fifth of each
domain is let in slowly: see :class:`~rbkit.balance.sampler.MixtureSampler`.

Cost: none beyond the losses that training yields. Known failures: R is one number for all
domains; memory of examples is taken for the harm of repeating them, at a fixed rate that was set
on small models; each pass before the last leaves some of the data out.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from scipy.special import wrightomega

from rbkit.balance.mixers.base import Rule, normalise
from rbkit.balance.signals import FloatArray, IntArray, Observation, VisitLosses

_NATS = 0.2  # R = _NATS / kappa
_PRIOR_R, _PRIOR_PAIRS = 12.0, 10.0  # R to begin with, and how many pairs of losses it counts as
_LEAST_R, _MOST_R = 1.0, 100.0
_KEPT = 0.9  # share of the evidence of earlier rounds: memory grows while a model trains
_STAND_IN = 0.3  # share of the weights that goes to sizes where all of q is worn out


@dataclass(eq=False)
class RepeatAware(Rule):
    r"""Target proportions with a discount on repeated examples, measured while training.

    Parameters
    ----------
    repeats : float, optional
        R: repetitions after which an example is worth 1/e of a new one; None measures it. 15 is
        the constant of arXiv 2305.16264.
    reserve : float
        Share, in [0, 1), of each domain that is let in slowly, so that R can be measured; not
        used where R is given.

    Examples
    --------
    A run of 200 draws, half of the eval set like the first domain, which has 10 examples:

    >>> mixer = RepeatAware(repeats=4)
    >>> mixer.budget = 200  # a trainer does that
    >>> mixer.start(q=np.array([.5, .5]), sizes=np.array([10, 100])).round(3)
    array([0.25, 0.75])
    >>> mixer.budget = 20  # nothing repeats
    >>> mixer.start(q=np.array([.5, .5]), sizes=np.array([10, 100]))
    array([0.5, 0.5])
    """

    repeats: float | None = None
    reserve: float = 0.2
    _evidence: FloatArray | None = field(default=None, init=False, repr=False)  # sums of the fit

    signals = frozenset({"visit_losses"})
    knows_repetition: ClassVar[bool] = True
    paper: ClassVar[str] = "rbkit, after arXiv 2305.16264"
    cost: ClassVar[str] = "none: losses that training yields"

    def __post_init__(self) -> None:
        self._check_number("repeats", positive=True, optional=True, try_="15")
        self._check_number("reserve", least=0, below=1, try_="0.2")
        if self.repeats is not None:
            self.reserve, self.signals = 0.0, frozenset()

    def start(self, q: FloatArray, sizes: IntArray) -> FloatArray:
        """Begin a run: forget any earlier one, and plan all of it."""
        super().start(q, sizes)
        return self._plan(q, sizes, np.zeros(len(q)), self._budget())

    def update(self, seen: Observation) -> FloatArray:
        """Return the next proportions, (m,): a plan for the rest of the run."""
        if seen.drawn is None:
            raise ValueError("RepeatAware needs the numbers of examples drawn")
        if self.repeats is None:
            if seen.visit_losses is None:
                raise ValueError("RepeatAware needs the signal 'visit_losses'")
            fresh = _evidence(seen.visit_losses)
            self._evidence = fresh + (0.0 if self._evidence is None else _KEPT * self._evidence)
        return self._plan(seen.q, seen.sizes, seen.drawn.astype(np.float64), self._budget())

    @property
    def worth(self) -> float:
        """R: repetitions after which an example is worth 1/e of a new one, as known now."""
        if self.repeats is not None:
            return float(self.repeats)
        gap, square = np.zeros(2) if self._evidence is None else self._evidence
        kappa = (gap + _PRIOR_PAIRS * _NATS / _PRIOR_R) / (square + _PRIOR_PAIRS)
        return float(np.clip(_NATS / max(kappa, 1e-9), _LEAST_R, _MOST_R))

    def _plan(self, q: FloatArray, sizes: IntArray, drawn: FloatArray, budget: int) -> FloatArray:
        """Return the proportions for the rest of a run that draws `budget` examples in all."""
        available = np.asarray(sizes) > 0
        q = normalise(q, available)
        size = np.where(available, sizes, 1).astype(np.float64)
        seen, left = drawn / size, max(budget - float(np.sum(drawn)), 1.0)
        again = np.maximum(budget * q / size - 1, 0)
        rho = _STAND_IN * (1 - float(q @ np.exp(-again / self.worth)))
        weight = (1 - rho) * q + rho * normalise(size, available)
        if not ((seen + weight * left / size)[available] > 1).any():
            return normalise(weight, available)
        share = size / left  # of an epoch, in draws that are left
        with np.errstate(divide="ignore"):
            log_weight = np.log(weight)

        def shares(log_c: float) -> FloatArray:
            plain = np.exp(np.minimum(log_c + log_weight, 1.0))  # above 1 in any case
            # Where it repeats, p exp(p / (share R)) = c w exp((1 - seen) / R).
            scale = share * self.worth
            log_p = log_c + log_weight + (1 - seen) / self.worth
            repeated = scale * wrightomega(log_p - np.log(scale))
            p: FloatArray = np.where(seen + plain / share > 1, repeated, plain)
            return p

        low, high = -1.0, 1.0
        while shares(low).sum() > 1:
            low -= 2 * abs(low)
        while shares(high).sum() < 1:
            high += 2 * abs(high)
        for _ in range(100):
            middle = (low + high) / 2
            low, high = (low, middle) if shares(middle).sum() > 1 else (middle, high)
        return normalise(shares(low), available)


def _evidence(losses: VisitLosses) -> FloatArray:
    """Return what a round says of kappa, (2,): sums of the fit of the gap on earlier visits.

    A domain counts by the number of pairs: half the harmonic mean of its examples of each kind.

    >>> losses = VisitLosses(np.array([3.0]), np.array([2.8]), np.array([4]), np.array([4]),
    ...                      np.array([2.0]))
    >>> _evidence(losses)  # two pairs, a gap of 0.2 after 2 visits
    array([0.8, 8. ])
    """
    first, repeat = np.maximum(losses.first_examples, 1), np.maximum(losses.repeat_examples, 1)
    pairs = first * repeat / (first + repeat)
    gap = losses.first - losses.repeat
    known = np.isfinite(gap) & np.isfinite(losses.visits)
    visits, gap, pairs = losses.visits[known], gap[known], pairs[known]
    return np.array([(pairs * visits * gap).sum(), (pairs * visits**2).sum()])
