r"""Distributionally robust mixtures: DoReMi, and the online group DRO that it builds on.

**DoReMi** weighs domains by how far a proxy model is from what a reference model reaches.

Algorithm 1 of Xie et al. (arXiv 2305.10429). A reference model is trained first. Then, in each
step of the proxy's training, with :math:`\lambda_i` the mean over domain i's tokens of
:math:`\max(\ell_{proxy} - \ell_{ref}, 0)`,

.. math:: p \leftarrow (1 - c)\,\mathrm{softmax}(\log p + \eta \lambda) + c / m

and the proxy descends :math:`\sum_i p_i L_i`. The mixture for the real run is the mean of p over
all steps: :meth:`DoReMi.proposal`.

Defaults: eta = 1 and c = 1e-3 (paper and scripts; the code's own default of c is 1e-4). The
authors' code divides the loss by the sum of the weights of the step's tokens, the paper by
their number (issue #9 of their repository): ``normalise_loss``.

Here the weights computed in a step apply from the next one on; theirs weigh the very
step that they were computed from. A domain absent from a step keeps its last excess, as in their
code; one never seen gets the mean of the others, where their code has ``log(vocabulary)``, which
is neutral only as long as no domain has been seen.

Cost: a reference run before, and a forward pass of the reference model for every training
token. Known failure: near one-hot weights with small batches or large eta (their issue #5; the
advice there: eta = 0.1, batches that hold all domains). The eval set plays no part.

**Group DRO**: the domains with the largest training loss weigh most.

Algorithm 1 of Sagawa et al. (arXiv 1911.08731): in each step, for the domains that it drew,

.. math:: p_i \leftarrow p_i \exp\left(\eta\,(L_i + C / \sqrt{n_i})\right), \quad
          p \leftarrow p / \sum_j p_j

and the model descends :math:`\sum_i p_i L_i`. The update is an ascent of the worst case over
mixtures. ``C`` favours small domains, whose training loss says least about unseen examples.

Defaults are those of the authors' code (``step_size=0.01``, no adjustment). Their code counts an
absent group's loss as 0, which pushes it down; the paper updates only what was drawn, as here.

Cost: none beyond the losses that training yields. Known failure: a domain that cannot be
learned (noise, another script) has the largest loss forever and takes all the weight; eval
examples and q play no part.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

import numpy as np

from rbkit.balance.mixers.base import Rule, fill_unknown, normalise, tilt
from rbkit.balance.signals import FloatArray, Observation


@dataclass(eq=False)
class DoReMi(Rule):
    """DoReMi (arXiv 2305.10429): multiplicative weights on the loss above a reference's.

    Parameters
    ----------
    eta : float
        Step size of the weights.
    smoothing : float
        c, share of the mixture that is spread evenly over all domains with data.
    acts : {"loss", "sampling"}
        As published, p weighs the losses of a proxy run; or it is sampled from at once.
    normalise_loss : bool
        Divide by the sum of the weights of a step's tokens (the code) instead of by their
        number (the paper). Without meaning for ``acts="sampling"``.
    reference_steps : int, optional
        Steps of the reference model's training; as many as the run's if not given.

    Examples
    --------
    >>> from rbkit.balance.signals import TrainLosses
    >>> one = np.ones((1, 2))
    >>> losses = TrainLosses(one, one.astype(int), one.astype(int), excess=np.log([[1., 3.]]))
    >>> seen = Observation(0, p=np.full(2, .5), q=np.full(2, .5), sizes=np.array([9, 9]),
    ...                    train_losses=losses)
    >>> DoReMi(smoothing=0).update(seen)
    array([0.25, 0.75])
    """

    eta: float = 1.0
    smoothing: float = 1e-3
    acts: Literal["sampling", "loss"] = "loss"
    normalise_loss: bool = True
    reference_steps: int | None = None
    _p: FloatArray | None = field(default=None, init=False, repr=False)
    _excess: FloatArray | None = field(default=None, init=False, repr=False)
    _sum: FloatArray | None = field(default=None, init=False, repr=False)
    _steps: int = field(default=0, init=False, repr=False)

    signals = frozenset({"excess_losses"})
    per_step: ClassVar[bool] = True
    paper: ClassVar[str] = "DoReMi, arXiv 2305.10429"
    cost: ClassVar[str] = "a reference run, and its forward pass for every training token"

    def __post_init__(self) -> None:
        self._check_number("eta", least=0, try_="1")
        self._check_number("smoothing", least=0, most=1, try_="0.001")
        self._check_choice("acts", "loss", "sampling")
        self._check_flag("normalise_loss")
        self._check_number("reference_steps", least=1, whole=True, optional=True, try_="1000")

    def update(self, seen: Observation) -> FloatArray:
        """Go through the steps of the round; return the next proportions, (m,)."""
        if seen.train_losses is None or seen.train_losses.excess is None:
            raise ValueError("DoReMi needs the signal 'excess_losses'")
        m, available = len(seen.q), seen.available
        even = self.smoothing * normalise(np.ones(m), available)
        p = seen.p if self._p is None else self._p
        last = np.full(m, np.nan) if self._excess is None else self._excess
        total = np.zeros(m) if self._sum is None else self._sum
        for excess in seen.train_losses.excess:
            last = np.where(np.isfinite(excess), excess, last)
            p = (1 - self.smoothing) * tilt(p, fill_unknown(last, available), self.eta) + even
            total = total + p
        self._p, self._excess, self._sum = p, last, total
        self._steps += len(seen.train_losses.excess)
        return p.copy()

    def proposal(self) -> FloatArray | None:
        """Return the mean of p over all steps so far, (m,): what to train the real model on."""
        return None if self._sum is None or not self._steps else self._sum / self._steps


@dataclass(eq=False)
class GroupDRO(Rule):
    """Online group DRO (arXiv 1911.08731): weigh the loss of the worst domains up.

    Parameters
    ----------
    eta : float
        Step size of the weights.
    adjustment : float
        C: ``C / sqrt(n_i)`` is added to the loss of a domain with ``n_i`` training examples.

    Examples
    --------
    >>> from rbkit.balance.signals import TrainLosses
    >>> losses = TrainLosses(np.log([[1., 3.]]), np.ones((1, 2), int), np.ones((1, 2), int))
    >>> seen = Observation(0, p=np.full(2, .5), q=np.full(2, .5), sizes=np.array([9, 9]),
    ...                    train_losses=losses)
    >>> GroupDRO(eta=1.0).update(seen)
    array([0.25, 0.75])
    """

    eta: float = 0.01
    adjustment: float = 0.0
    _p: FloatArray | None = field(default=None, init=False, repr=False)

    signals = frozenset({"train_losses"})
    acts = "loss"
    per_step: ClassVar[bool] = True
    paper: ClassVar[str] = "Group DRO, arXiv 1911.08731"
    cost: ClassVar[str] = "none: losses that training yields"

    def __post_init__(self) -> None:
        self._check_number("eta", least=0, try_="0.01")
        self._check_number("adjustment", least=0, try_="1")

    def update(self, seen: Observation) -> FloatArray:
        """Go through the steps of the round; return the weights of the next, (m,)."""
        if seen.train_losses is None:
            raise ValueError("GroupDRO needs the signal 'train_losses'")
        p = seen.p if self._p is None else self._p
        extra = self.adjustment / np.sqrt(np.maximum(seen.sizes, 1))
        for loss in seen.train_losses.loss:
            drawn = seen.available & np.isfinite(loss)
            p = tilt(p, np.where(drawn, loss + extra, 0.0), self.eta)
        self._p = p
        return p.copy()
