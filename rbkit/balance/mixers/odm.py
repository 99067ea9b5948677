r"""ODM: online data mixing, a bandit that is rewarded with the training loss.

Albalak et al. (arXiv 2312.02406), after EXP3. With K domains, after step t,

.. math:: \hat R_i \leftarrow \alpha \hat R_i + (1 - \alpha) L_i / p_i \;(i \text{ drawn}), \quad
          p_i = (1 - K\epsilon_{t+1}) \frac{e^{\epsilon_t \hat R_i}}{\sum_j e^{\epsilon_t \hat R_j}}
          + \epsilon_{t+1}, \quad \epsilon_t = \min\left(\tfrac1K, \sqrt{\tfrac{\ln K}{K t}}\right)

Three versions go by the name:

``"paper"``: the above; alpha = 0.9.

``"code"``: what the authors' repository names as the paper's rule (``SmoothedMeanWeightUpdater``)
does when a batch mixes domains: no importance weight, the reward is ``exp(L_i)``, and
:math:`p_i = (1 - K\epsilon) \hat R_i / \sum_j \hat R_j + \epsilon`, without the exponential. Read
in ports of that class; the file itself was not at hand.

``"fms"``: IBM's ``fms-acceleration-odm`` with its train-loss reward: every update, for every domain
with its last known loss, :math:`\log w_i \mathrel{+}= \eta L_i / (p_i K)`, then
:math:`p = (1-\gamma) w / \sum w + \gamma / K`; eta = 0.3, gamma = 0.1.

The bandit draws one domain per (micro-)batch; here a batch mixes domains and rewards each that
it holds with its own mean loss. p_i is the proportion in force when the step was drawn.

Cost: none beyond the losses that training yields. Known failures: the loss rewards what is hard,
not what is learned, so noise wins; in "paper" a bounded mean stands where EXP3 has a growing
sum, so that epsilon times it goes to 0 and p back to uniform, and the importance weight makes
a rare domain's reward large (an exploration bonus); in "fms" w grows without bound, so that
one domain soon has all but gamma. The eval set plays no part.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

import numpy as np

from rbkit.balance.mixers.base import Rule, normalise, tilt
from rbkit.balance.signals import FloatArray, Observation


@dataclass(eq=False)
class ODM(Rule):
    r"""Online data mixing (arXiv 2312.02406): EXP3 with the training loss as reward.

    Parameters
    ----------
    version : {"paper", "code", "fms"}
        Which of the three published rules; see the module.
    alpha : float
        Share, in [0, 1), of the old estimate of a reward that is kept ("paper" and "code").
    warmup_steps : int
        Keep uniform proportions for so many steps, while rewards are collected.
    gamma, eta : float
        Exploration share, in [0, 1], and step size ("fms").

    Examples
    --------
    >>> from rbkit.balance.signals import TrainLosses
    >>> losses = TrainLosses(np.tile(np.log([[1., 3.]]), (9, 1)), *np.ones((2, 9, 2), int))
    >>> seen = Observation(0, p=np.full(2, .5), q=np.full(2, .5), sizes=np.array([9, 9]),
    ...                    train_losses=losses)
    >>> ODM(version="code").update(seen).round(3)
    array([0.343, 0.657])
    """

    version: Literal["paper", "code", "fms"] = "paper"
    alpha: float = 0.9
    warmup_steps: int = 0
    gamma: float = 0.1
    eta: float = 0.3
    _reward: FloatArray | None = field(default=None, init=False, repr=False)
    _loss: FloatArray | None = field(default=None, init=False, repr=False)
    _steps: int = field(default=0, init=False, repr=False)

    signals = frozenset({"train_losses"})
    per_step: ClassVar[bool] = True
    paper: ClassVar[str] = "ODM, arXiv 2312.02406"
    cost: ClassVar[str] = "none: losses that training yields"

    def __post_init__(self) -> None:
        self._check_choice("version", "paper", "code", "fms")
        self._check_number("alpha", least=0, below=1, try_="0.9")
        self._check_number("warmup_steps", least=0, whole=True, try_="100")
        self._check_number("gamma", least=0, most=1, try_="0.1")
        self._check_number("eta", least=0, try_="0.3")

    def update(self, seen: Observation) -> FloatArray:
        """Go through the steps of the round; return the next proportions, (m,)."""
        if seen.train_losses is None:
            raise ValueError("ODM needs the signal 'train_losses'")
        available = seen.available
        even = normalise(np.ones(len(seen.q)), available)
        reward = np.zeros(len(seen.q)) if self._reward is None else self._reward
        last = np.zeros(len(seen.q)) if self._loss is None else self._loss
        drawn_from = np.where(seen.p > 0, seen.p, 1.0)
        for loss in seen.train_losses.loss:
            drawn = available & np.isfinite(loss)
            last = np.where(drawn, loss, last)
            if self.version == "fms":
                reward = reward + self.eta * last / (drawn_from * available.sum())
            else:
                fresh = loss / drawn_from if self.version == "paper" else np.exp(loss)
                smooth = self.alpha * reward + (1 - self.alpha) * fresh
                reward = np.where(drawn, smooth, reward)
        self._reward, self._loss = reward, last
        self._steps += len(seen.train_losses.loss)
        if self._steps <= self.warmup_steps or not reward[available].any():
            return even
        if self.version == "fms":
            return (1 - self.gamma) * tilt(even, reward, 1.0) + self.gamma * even
        k = int(available.sum())
        least = self._epsilon(self._steps + 1, k)
        paper = self.version == "paper"
        shares = (
            tilt(even, reward, self._epsilon(self._steps, k))
            if paper
            else normalise(reward, available)
        )
        return (1 - k * least) * shares + k * least * even

    @staticmethod
    def _epsilon(step: int, k: int) -> float:
        """Return the exploration rate of step `step`, counted from 1."""
        return float(min(1 / k, np.sqrt(np.log(k) / (k * step))))
