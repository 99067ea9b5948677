r"""UPGrad: project each domain's gradient so that it hurts no other, then combine.

Quinton and Rey (arXiv 2406.16232), by torchjd's ``UPGradWeighting``: with a preference u,

.. math:: w = \sum_i \arg\min_{v \ge u_i e_i} v^T G v, \qquad p = w / \sum_j w_j

The combined gradient :math:`\sum_i w_i g_i` has a non-negative product with every domain's, so to
first order a step along it raises no loss. Scaled to sum to 1, only its length changes.

The published preference is uniform. With ``preference="target"`` it is q, which makes it a rule
for the eval set's mixture: for domains that are not in conflict p = q.

The quadratic programs are solved as non-negative least squares (scipy), on torchjd's
:math:`G / \mathrm{tr}\,G + 10^{-4} I`: with :math:`G = L L^T` and :math:`v = u + s`, minimise
:math:`\lVert L^T s + L^T u \rVert` over :math:`s \ge 0`. torchjd's own solver, quadprog, gives the
same but stands under the GPL, so it is not asked for.

Cost: as R&B's, and m small least-squares problems a round. Known failures: with gradients that all
agree, which is the usual case for a language model, it is the preference itself; noise that
makes gradients look opposed is taken for conflict.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

import numpy as np

from rbkit.balance.mixers.weighting import GramWeighting, need_torchjd
from rbkit.balance.signals import FloatArray

_REGULAR = 1e-4  # torchjd's: keeps the Gram matrix positive definite against rounding


@dataclass(eq=False)
class UPGrad(GramWeighting):
    """UPGrad (arXiv 2406.16232) on the domains; needs torchjd.

    Parameters
    ----------
    preference : {"uniform", "target"}
        What conflict-free gradients are combined by: alike (as published), or by q.

    Examples
    --------
    >>> from rbkit.balance.signals import GramEstimate, Observation
    >>> nan = np.full(2, np.nan)
    >>> g = GramEstimate(np.array([[2., 1.], [1., 2.]]), np.array([8, 8]), nan, nan)
    >>> seen = Observation(0, np.full(2, .5), np.array([.9, .1]), np.array([9, 9]), gram=g)
    >>> UPGrad(preference="target").update(seen).round(4)
    array([0.9, 0.1])
    """

    preference: Literal["uniform", "target"] = "uniform"
    _gram: FloatArray | None = field(default=None, init=False, repr=False)

    paper: ClassVar[str] = "UPGrad, arXiv 2406.16232 (torchjd)"
    cost: ClassVar[str] = "products of the tracked gradients, m^2 a round"

    def __post_init__(self) -> None:
        self._check_choice("preference", "uniform", "target")
        need_torchjd("UPGrad")

    def _weights(self, gram: FloatArray, q: FloatArray) -> FloatArray:
        import torch
        from torchjd.aggregation import UPGradWeighting
        from torchjd.linalg import DualConeProjector

        class Projector(DualConeProjector):
            def __call__(self, U: torch.Tensor, G: torch.Tensor) -> torch.Tensor:
                return torch.from_numpy(project(U.numpy(), G.numpy()))

        wanted = q if self.preference == "target" and q.sum() > 0 else np.ones(len(q))
        weighting = UPGradWeighting(torch.from_numpy(wanted / wanted.sum()), Projector())
        return np.asarray(weighting(torch.from_numpy(gram)), dtype=np.float64)


def project(wanted: FloatArray, gram: FloatArray) -> FloatArray:
    """Return for each row u of `wanted` the ``v >= u`` with the least ``v' G v``, (k, m).

    With v as weights, the combined gradient is the projection of u's onto the directions that
    hurt no domain (arXiv 2406.16232, Proposition 1).

    Examples
    --------
    >>> project(np.array([[1., 0.]]), np.array([[1., -.5], [-.5, 1.]])).round(3)
    array([[1. , 0.5]])
    """
    from scipy.optimize import nnls

    regular = gram / np.trace(gram) + _REGULAR * np.eye(len(gram))
    root = np.linalg.cholesky(regular).T
    return np.array([u + nnls(root, -root @ u)[0] for u in wanted])
