r"""MGDA: the mixture whose gradient is the shortest, so that no domain is left behind.

Multiple-gradient descent (Désidéri, Comptes Rendus 350, 2012; Frank-Wolfe form of Sener and Koltun,
arXiv 1810.04650), by torchjd's ``MGDAWeighting``:

.. math:: p = \arg\min_{w \in \Delta} w^T G w

A step along the shortest gradient in the convex hull lowers the loss of *every* domain, as long
as any direction does. Defaults are torchjd's: 100 iterations, stop below a step of 1e-3.

**It ignores q**: what the eval set is made of plays no part. Scaling the gradients by q does not
mend that, it does the contrary: the shortest vector gives a domain with a longer gradient
*less* weight. So there is no such option; use :class:`~rbkit.balance.mixers.upgrad.UPGrad` with
``preference="target"`` for a rule of this family that knows q.

Cost: as R&B's. Known failures: the domain with the smallest gradient, which is often the one
that is learned already, takes nearly all the weight; the bias of G's diagonal (noise) counts in
full; Frank-Wolfe with 100 iterations is a rough solver for many domains.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from rbkit.balance.mixers.weighting import GramWeighting, need_torchjd
from rbkit.balance.signals import FloatArray


@dataclass(eq=False)
class MGDA(GramWeighting):
    """Multiple-gradient descent (arXiv 1810.04650) on the domains; needs torchjd.

    Parameters
    ----------
    epsilon : float
        Frank-Wolfe stops below this step.
    max_iters : int
        Or after so many steps.

    Examples
    --------
    >>> from rbkit.balance.signals import GramEstimate, Observation
    >>> nan = np.full(2, np.nan)
    >>> g = GramEstimate(np.diag([3.0, 1.0]), np.array([8, 8]), nan, nan)
    >>> seen = Observation(0, p=np.full(2, .5), q=np.full(2, .5), sizes=np.array([9, 9]), gram=g)
    >>> MGDA().update(seen)
    array([0.25, 0.75])
    """

    epsilon: float = 1e-3
    max_iters: int = 100
    _gram: FloatArray | None = field(default=None, init=False, repr=False)

    paper: ClassVar[str] = "MGDA, arXiv 1810.04650 (torchjd)"
    cost: ClassVar[str] = "products of the tracked gradients, m^2 a round"

    def __post_init__(self) -> None:
        self._check_number("epsilon", positive=True, try_="0.001")
        self._check_number("max_iters", least=1, whole=True, try_="100")
        need_torchjd("MGDA")

    def _weights(self, gram: FloatArray, q: FloatArray) -> FloatArray:
        import torch
        from torchjd.aggregation import MGDAWeighting

        weighting = MGDAWeighting(epsilon=self.epsilon, max_iters=self.max_iters)
        return np.asarray(weighting(torch.from_numpy(gram)), dtype=np.float64)
