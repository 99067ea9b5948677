r"""Aioli: learn during training how each domain moves each eval loss.

Chen et al. (arXiv 2411.05735). A round begins with *LearnParams*: in `lp_rounds` sweeps over
the k domains in random order, `lp_steps` steps are trained on each smoothed one-hot mixture
:math:`w^{(j)}` (h on j, :math:`(1-h)/(k-1)` elsewhere), and the drop of every eval loss is noted.
With :math:`\Delta_{ij}` the mean drop of loss i on mixture j and W the matrix of mixtures, solve
:math:`W a_i = \Delta_i` for each row of A. Shifted to be non-negative and scaled to sum to 1,

.. math:: p_j \leftarrow p_j \exp\Big(\eta \sum_i A_{ij}\Big) \qquad\text{or}\qquad
          p_j \propto \exp\Big(\eta \sum_i \bar A_{ij}\Big) \;\text{ with }\;
          \bar A \leftarrow (1 - \beta) A + \beta \bar A

Two algorithms behind one flag, in the authors' code: without an average, weights pile up over
rounds; with one, they do not. The rest of the round trains on p.

The segments are rounds to the trainer: :meth:`Aioli.round_length` plans them inside a round of
`round_steps`, and the eval at the end of one is the base of the next. Nothing was evaluated for a
rule before the first step, so the run begins with one segment of `lead_steps` on uniform
proportions, as in the code's own setting with a prior (``prior_steps``). Domains without
training data are not swept. The order of each sweep is a function of (seed, round, sweep), so a
resumed run continues with the same one.

Defaults: 1 sweep of 5 steps and no average (the code's), eta = 0.2 and normalised (its README),
h = 0.75 (its script for 7 domains; the code's default is 1, its README says less than 1). The
README's 4 sweeps of 4 steps are for 2 domains. Not taken: the code's diagonal variant.

Cost: an evaluation per segment, ``k * lp_rounds + 1`` a round; the steps of LearnParams are
training, but on mixtures that nobody chose (7 domains, published settings: 140 of 200 steps).
Known failures: drops over a few steps are noise, and the learning rate's warm-up is in them;
scaled to sum to 1, A has column sums near 1/k, so with many domains p hardly moves; q plays
no part, every eval domain counts alike.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from rbkit.balance.mixers.base import Rule, normalise, tilt
from rbkit.balance.signals import FloatArray, IntArray, Observation
from rbkit.errors import InputError

_LEAD = -1  # segment before the first sweep


@dataclass(eq=False)
class Aioli(Rule):
    r"""Aioli (arXiv 2411.05735): a mixing law learned within the run.

    Parameters
    ----------
    eta : float
        Step size of the weights.
    lp_rounds : int
        Sweeps over the domains at the start of each round.
    lp_steps : int
        Steps on each mixture of a sweep.
    one_hot : float
        h, share of the domain that a mixture stands for; 1 is that domain alone.
    ema : float, optional
        :math:`\beta`, in [0, 1): average A over rounds, and do not accumulate weights.
    normalise : bool
        Shift and scale A.
    lead_steps : int, optional
        Steps on uniform proportions before the first sweep; `lp_steps` by default.
    seed : int
        Of the order of the sweeps.

    Examples
    --------
    Two domains, segments of 5 steps in rounds of 100: a lead, two mixtures, the rest.

    >>> rule = Aioli()
    >>> p = rule.start(q=np.full(2, .5), sizes=np.array([9, 9]))
    >>> lengths = []
    >>> for t in range(4):
    ...     lengths.append(rule.round_length(100))
    ...     p = rule.update(Observation(t, p, np.full(2, .5), np.array([9, 9]),
    ...                                 eval_losses=np.array([3., 3.]) - t / 10))
    >>> lengths
    [5, 5, 5, 85]
    """

    eta: float = 0.2
    lp_rounds: int = 1
    lp_steps: int = 5
    one_hot: float = 0.75
    ema: float | None = None
    normalise: bool = True
    lead_steps: int | None = None
    seed: int = 0
    _available: NDArray[np.bool_] | None = field(default=None, init=False, repr=False)
    _segment: int = field(default=_LEAD, init=False, repr=False)
    _round: int = field(default=0, init=False, repr=False)
    _last: FloatArray | None = field(default=None, init=False, repr=False)  # losses, (m,)
    _drops: FloatArray | None = field(default=None, init=False, repr=False)  # (m, m)
    _mean: FloatArray | None = field(default=None, init=False, repr=False)  # A bar, (m, m)
    _p: FloatArray | None = field(default=None, init=False, repr=False)

    signals = frozenset({"eval_losses"})
    paper: ClassVar[str] = "Aioli, arXiv 2411.05735"
    cost: ClassVar[str] = "m lp_rounds + 1 evaluations a round"

    def __post_init__(self) -> None:
        self._check_number("eta", least=0, try_="0.2")
        self._check_number("lp_rounds", least=1, whole=True, try_="1")
        self._check_number("lp_steps", least=1, whole=True, try_="5")
        self._check_number("one_hot", positive=True, most=1, try_="0.75")
        self._check_number("ema", least=0, below=1, optional=True, try_="0.1")
        self._check_flag("normalise")
        self._check_number("lead_steps", least=1, whole=True, optional=True, try_="5")
        self._check_number("seed", least=0, whole=True, try_="0")

    def start(self, q: FloatArray, sizes: IntArray) -> FloatArray:
        """Begin a run with the segment whose eval is the first base."""
        p = super().start(q, sizes)
        self._available = np.asarray(sizes) > 0
        k = int(self._available.sum())
        if k > 1 and abs(self.one_hot - 1 / k) < 1e-9:
            raise InputError(
                "Aioli(one_hot=...)",
                f"{self.one_hot} is 1/{k}: all mixtures are uniform",
                "try one_hot=0.75",
            )
        self._p = p
        return p.copy()

    def round_length(self, round_steps: int) -> int:
        """Return the steps of the coming segment."""
        order = self._order()
        if not len(order):
            return round_steps
        lead = (self.lead_steps or self.lp_steps) if self._round == 0 else 0
        used = len(order) * self.lp_steps + lead
        if used >= round_steps:
            raise InputError(
                "round_steps",
                f"Aioli's LearnParams alone takes {used} steps of {round_steps}",
                "use longer rounds, or fewer lp_rounds or lp_steps",
            )
        if self._segment == _LEAD:
            return lead
        return self.lp_steps if self._segment < len(order) else round_steps - used

    def update(self, seen: Observation) -> FloatArray:
        """Note the drops of the segment that ended; return the mixture of the next, (m,)."""
        if seen.eval_losses is None:
            raise ValueError("Aioli needs the signal 'eval_losses'")
        if self._available is None or self._p is None:
            raise ValueError("Aioli plans its rounds: call start() first")
        order, m = self._order(), len(seen.q)
        if not len(order):
            return self._p.copy()
        if self._drops is None:
            self._drops = np.zeros((m, m))
        if 0 <= self._segment < len(order) and self._last is not None:
            # An unknown loss (NaN) counts as no drop.
            self._drops[:, order[self._segment]] += np.nan_to_num(self._last - seen.eval_losses)
        self._last = seen.eval_losses.copy()
        self._segment += 1
        if self._segment == len(order):
            self._learn(np.isfinite(seen.eval_losses))
        elif self._segment > len(order):  # the round is over
            self._round, self._segment, self._drops = self._round + 1, 0, np.zeros((m, m))
        if self._segment < len(order):
            mixture: FloatArray = self._mixtures()[self._order()[self._segment]]
            return mixture
        return self._p.copy()

    def _order(self) -> IntArray:
        """Return the domains that this round sweeps over; none if there is nothing to mix."""
        assert self._available is not None
        swept = np.flatnonzero(self._available)
        if len(swept) < 2:
            return np.zeros(0, dtype=np.int64)
        sweeps = [np.random.default_rng([self.seed, self._round, i]) for i in range(self.lp_rounds)]
        return np.concatenate([rng.permutation(swept) for rng in sweeps])

    def _mixtures(self) -> FloatArray:
        """Return the mixture that stands for each domain, (m, m), one a row."""
        assert self._available is not None
        k = int(self._available.sum())
        others = (1 - self.one_hot) / (k - 1)
        rows = np.where(np.eye(len(self._available), dtype=bool), self.one_hot, others)
        mixtures: FloatArray = np.where(self._available, rows, 0.0)
        return mixtures

    def _learn(self, known: NDArray[np.bool_]) -> None:
        """Solve for A over the domains whose loss is `known`, and set p."""
        assert self._available is not None
        assert self._drops is not None
        assert self._p is not None
        swept = np.flatnonzero(self._available)
        if not known.any():
            return
        drops = self._drops[np.ix_(known, swept)] / self.lp_rounds
        mixtures = self._mixtures()[np.ix_(swept, swept)]
        law = np.linalg.solve(mixtures, drops.T).T
        if self.normalise:
            law = law - min(float(law.min()), 0.0)
            law = law / law.sum() if law.sum() > 0 else law
        graph = np.zeros(self._drops.shape)
        graph[np.ix_(known, swept)] = law
        if self.ema is None:
            self._p = tilt(self._p, graph.sum(axis=0), self.eta)
            return
        self._mean = graph if self._mean is None else (1 - self.ema) * graph + self.ema * self._mean
        even = normalise(np.ones(len(graph)), self._available)
        self._p = tilt(even, self._mean.sum(axis=0), self.eta)
