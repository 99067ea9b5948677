r"""DGA: multiplicative weights on how well a domain's gradient aligns with the target's.

Dynamic Gradient Alignment (Fan, Grangier and Ablin, arXiv 2410.02498). Every round, one batch of
each domain and one of the target set are drawn, apart from those that train, and

.. math:: a_i = \langle \nabla \ell_i, \nabla \ell_{target} \rangle, \quad
          \hat p_i \propto p_i \exp(\eta\, a_i), \quad
          p \leftarrow \beta\, p + (1 - \beta)\, \hat p

with all parameters of the model. No code of the authors is public. The equation is read off the
abstract, R&B's description and reviews; which side of the average :math:`\beta` stands on, and the
values of eta and the round's length, could not be verified. So: beta = 0 (no average), eta = 1.

Cost: a forward and a backward pass for m + 1 batches a round. Known failure: eta multiplies a
product of gradients, whose size falls by orders of magnitude as a model trains and grows with
its number of parameters: a value that works at the start does nothing later.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from rbkit.balance.mixers.base import Rule, fill_unknown, tilt
from rbkit.balance.signals import FloatArray, Observation


@dataclass(eq=False)
class DGA(Rule):
    r"""Dynamic gradient alignment (arXiv 2410.02498).

    Parameters
    ----------
    eta : float
        Step size of the weights.
    ema : float
        :math:`\beta`, in [0, 1): share of the last proportions that is kept.

    Examples
    --------
    >>> import numpy as np
    >>> from rbkit.balance.signals import FreshGradients
    >>> g = FreshGradients(norms=np.ones(2), target=np.log([1., 3.]), target_norm=1.0)
    >>> seen = Observation(0, p=np.full(2, .5), q=np.full(2, .5), sizes=np.array([9, 9]),
    ...                    gradients=g)
    >>> DGA().update(seen)
    array([0.25, 0.75])
    """

    eta: float = 1.0
    ema: float = 0.0
    _p: FloatArray | None = field(default=None, init=False, repr=False)

    signals = frozenset({"target_gradient"})
    paper: ClassVar[str] = "DGA, arXiv 2410.02498"
    cost: ClassVar[str] = "gradients of m + 1 batches a round, all parameters"

    def __post_init__(self) -> None:
        self._check_number("eta", least=0, try_="1")
        self._check_number("ema", least=0, below=1, try_="0.1")

    def update(self, seen: Observation) -> FloatArray:
        """Return the next proportions, (m,); a domain without a gradient gets the mean of a."""
        if seen.gradients is None or seen.gradients.target is None:
            raise ValueError("DGA needs the signal 'target_gradient'")
        p = seen.p if self._p is None else self._p
        aligned = fill_unknown(seen.gradients.target, seen.available)
        self._p = self.ema * p + (1 - self.ema) * tilt(p, aligned, self.eta)
        return self._p.copy()
