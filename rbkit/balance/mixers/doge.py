r"""DoGE: weigh domains by how much their gradients help all domains, or a target.

Fan, Pagliardini and Jaggi (arXiv 2310.15393). In each step, with each domain gradient clipped to
norm 5, the learning rate :math:`\eta_t` and the sum over the target domains,

.. math:: W_i = \mathrm{clip}\left(\eta_t \frac{\sum_j \langle g_i, g_j \rangle}
          {\mathrm{mean}_i \lVert g_i \rVert},\, 0,\, 5 \eta_t\right), \quad
          p \leftarrow (1 - \epsilon)\,\mathrm{softmax}(\log p + W / \mu) + \epsilon / m

and the proxy model descends :math:`\sum_i p_i L_i`. The mixture for the real run is the mean of p
over all updates: :meth:`DoGE.proposal`.

Defaults are those of the authors' ``config/doge.json``: mu = 0.01 (0.05 in the code's arguments),
eps = 0, norm 5, W up to 5 eta_t. The paper's sum over all domains includes j = i. Their code
means to leave it out, but the test that should say so never holds, so it stays in too:
``diagonal="dropped"`` does what was meant. They take the gradients of the training batch, by
domain, and keep an absent domain's old one; here each has a fresh batch, so none is absent.

Cost: a forward and a backward pass per domain and update, all m gradients held at once
(``target="train"``), or one more for the eval set (``target="eval"``). Known failure: W is at most
5 eta_t / mu a step, so p follows the learning rate and freezes when that decays.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from rbkit.balance.mixers.base import Rule, fill_unknown, normalise, tilt
from rbkit.balance.signals import FloatArray, FreshGradients, Observation

_TINY = 1e-6  # the published code's guard of both divisions
_USUAL_RATE = 1e-4  # the published code's, where nothing is known of the learning rate


@dataclass(eq=False)
class DoGE(Rule):
    r"""DoGE (arXiv 2310.15393): domain reweighting with generalisation estimation.

    Parameters
    ----------
    target : {"train", "eval"}
        Help all training domains alike (the paper's universal generalisation), or the eval
        set, whose gradient takes the place of the sum.
    mu : float
        :math:`\mu`: the smaller, the faster p moves.
    smoothing : float
        :math:`\epsilon`, share of the mixture that is spread evenly.
    clip : float
        Largest norm of a gradient.
    max_score : float
        W is clipped to ``[0, max_score * learning rate]``.
    diagonal : {"kept", "dropped"}
        Whether a domain's product with itself counts, for ``target="train"``.
    learning_rate : float, optional
        In place of the training's own; 1e-4 if neither is known.

    Examples
    --------
    >>> from rbkit.balance.signals import FreshGradients
    >>> g = FreshGradients(norms=np.array([1., 1.]), gram=np.array([[1., 0.], [0., 1.]]))
    >>> seen = Observation(0, p=np.array([.25, .75]), q=np.full(2, .5), sizes=np.array([9, 9]),
    ...                    gradients=g, learning_rate=1e-3)
    >>> DoGE().update(seen)   # both help alike
    array([0.25, 0.75])
    """

    target: Literal["train", "eval"] = "train"
    mu: float = 0.01
    smoothing: float = 0.0
    clip: float = 5.0
    max_score: float = 5.0
    diagonal: Literal["kept", "dropped"] = "kept"
    learning_rate: float | None = None
    _p: FloatArray | None = field(default=None, init=False, repr=False)
    _sum: FloatArray | None = field(default=None, init=False, repr=False)
    _updates: int = field(default=0, init=False, repr=False)

    signals = frozenset({"domain_gradients"})
    acts = "loss"
    per_step: ClassVar[bool] = True
    paper: ClassVar[str] = "DoGE, arXiv 2310.15393"
    cost: ClassVar[str] = "gradients of m batches an update, all parameters, held at once"

    def __post_init__(self) -> None:
        self._check_choice("target", "train", "eval")
        self._check_number("mu", positive=True, try_="0.01")
        self._check_number("smoothing", least=0, most=1, try_="0.01")
        self._check_number("clip", positive=True, try_="5")
        self._check_number("max_score", positive=True, try_="5")
        self._check_choice("diagonal", "kept", "dropped")
        self._check_number("learning_rate", positive=True, optional=True, try_="0.0005")
        if self.target == "eval":
            self.signals = frozenset({"target_gradient"})

    def update(self, seen: Observation) -> FloatArray:
        """Return the next proportions, (m,); a domain without a gradient gets the mean W."""
        if seen.gradients is None:
            raise ValueError(f"DoGE needs the signal {sorted(self.signals)[0]!r}")
        rate = seen.learning_rate if self.learning_rate is None else self.learning_rate
        if not np.isfinite(rate):
            rate = _USUAL_RATE
        help_ = self._help(seen.gradients, seen.available)
        score = np.clip(rate * help_, 0.0, self.max_score * rate)  # NaN stays NaN
        p = seen.p if self._p is None else self._p
        p = tilt(p, fill_unknown(score, seen.available), 1 / self.mu)
        even = normalise(np.ones(len(p)), seen.available)
        p = (1 - self.smoothing) * p + self.smoothing * even
        self._p, self._updates = p, self._updates + 1
        self._sum = p if self._sum is None else self._sum + p
        return p.copy()

    def _help(self, fresh: FreshGradients, available: NDArray[np.bool_]) -> FloatArray:
        """Return the sum of products with the targets over the mean norm, (m,), all clipped."""
        norms = np.where(available, fresh.norms, np.nan)
        cut = np.minimum(1.0, self.clip / (norms + _TINY))
        if self.target == "eval":
            if fresh.target is None or fresh.target_norm is None:
                raise ValueError("DoGE(target='eval') needs the signal 'target_gradient'")
            cut_target = min(1.0, self.clip / (fresh.target_norm + _TINY))
            total = fresh.target * cut * cut_target
        else:
            if fresh.gram is None:
                raise ValueError("DoGE needs the signal 'domain_gradients'")
            products = fresh.gram * cut[:, None] * cut
            if self.diagonal == "dropped":
                np.fill_diagonal(products, 0.0)
            total = np.where(np.isfinite(norms), np.nansum(products, axis=1), np.nan)
        known = np.isfinite(norms)
        middle = (norms * cut)[known].mean() if known.any() else np.nan
        help_: FloatArray = total / (middle + _TINY)
        return help_

    def proposal(self) -> FloatArray | None:
        """Return the mean of p over all updates so far, (m,): what to train the real model on."""
        return None if self._sum is None else self._sum / self._updates
