r"""ADO: sample the domains whose loss is predicted to fall fastest.

Adaptive data optimization (Jiang et al., arXiv 2410.11820), as in the authors' code
(``yidingjiang/ado``). Each domain's training loss is fitted by
:math:`L_i(n) = e^{\varepsilon_i} + e^{a_i} n^{-\alpha_i}` (see
:func:`fit_scaling_law`), every `refit_steps` steps, on the smoothed history
(Savitzky-Golay, 101 steps, order 3, every 10th point). With :math:`\mu` the domains' shares of the
corpus and h a running share of what was drawn, every step t from 0 has

.. math:: \rho_i \propto \mu_i\, h_i^{1/2}\,
          \frac{\max(\alpha_i, 0.05)\,(L_i(n) - e^{\varepsilon_i})}{n}, \quad
          p = 0.9\,\bar p + 0.1\,\rho, \quad
          \bar p \leftarrow (1 - \tfrac1{t+1})\,\bar p + \tfrac1{t+1}\,\rho, \quad
          h \leftarrow 0.9\,h + 0.1\,\text{batch share}

with :math:`\rho_i \ge 0.01` before its last normalisation. Until the first fit p = mu.

Defaults are those of the code and its ``pile_ado.yaml``: start, ignore and refit at 1000 steps,
and n the same for all domains (``same_step_size``): all examples drawn. A fit needs more points
than its 3 parameters, so with the defaults the first one that counts is at step 2000: lower
all three for a run of hundreds of steps. One version of the code has
:math:`(h_i (1 - h_i))^{1/2}`, the corrected one :math:`h_i^{1/2}`: ``credit``. Their mu counts
tokens; here it counts training examples.

Cost: no FLOPs of the model; 512 small fits per domain every `refit_steps` (seconds on a CPU), and
a history of losses in each checkpoint. Known failures: needs a run long enough for power laws;
a learning rate schedule bends the curves that are extrapolated; the eval set plays no part.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import fsum
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from rbkit.balance.mixers.base import Rule, normalise
from rbkit.balance.signals import FloatArray, IntArray, Observation, TrainLosses

_HUBER = 1e-3
_ITERATIONS, _TOLERANCE = 200, 1e-5  # the published code's
_LEAST_FALL = 1e-12  # of the objective in a step, whose values are of the order of 1e-3
_GRIDS: dict[str, tuple[FloatArray, FloatArray, FloatArray]] = {
    "full": (np.arange(-2.0, 6.0), np.arange(-2.0, 2.0, 0.5), np.arange(0.0, 0.8, 0.1)),
    "coarse": (np.array([0.0, 4.0]), np.array([-1.0, 1.0]), np.array([0.1, 0.5])),
}


def fit_scaling_law(
    n: FloatArray, loss: FloatArray, grid: Literal["full", "coarse"] = "full"
) -> FloatArray:
    r"""Fit :math:`L(n) = e^{\varepsilon} + e^{a} n^{-\alpha}` to a loss curve, robustly.

    As ADO (arXiv 2410.11820) does in its code: the Huber loss (width 1e-3) of
    :math:`\log L - \mathrm{LSE}(a - \alpha \log n, \varepsilon)`, summed over points, with
    penalties that keep :math:`0 \le \alpha \le 0.8`, :math:`\varepsilon \ge 0.5`,
    :math:`a \le 6.5`; quasi-Newton descent from a grid of starts, and the best of them. Here all
    starts descend at once, as rows of an array, with BFGS: for 3 parameters its matrix is as
    small as L-BFGS's memory.

    Parameters
    ----------
    n : ndarray of shape (T,)
        Examples seen so far at each point; points with 0 are left out.
    loss : ndarray of shape (T,)
        Loss at each point, in nats; points that are not above 0 are left out.
    grid : {"full", "coarse"}
        The published 8 x 8 x 8 starts, or 2 x 2 x 2 of them for trying things out.

    Returns
    -------
    ndarray of shape (3,)
        ``a``, ``e`` (:math:`\varepsilon`) and ``alpha``; NaN if there is no point to fit.

    Examples
    --------
    >>> n = np.geomspace(1e2, 1e5, 40)
    >>> a, e, alpha = fit_scaling_law(n, np.exp(0.9) + np.exp(3.0) / n**0.5)
    >>> [round(float(x), 2) for x in (a, e, alpha)]
    [3.0, 0.9, 0.5]
    """
    usable = (n > 0) & np.isfinite(loss) & (loss > 0)
    if not usable.any():
        return np.full(3, np.nan)
    log_n, log_loss = np.log(n[usable]), np.log(loss[usable])
    starts = np.stack(np.meshgrid(*_GRIDS[grid], indexing="ij"), axis=-1).reshape(-1, 3)
    points, values = _descend(lambda x: _objective(x, log_n, log_loss), starts)
    best: FloatArray = points[np.argmin(np.where(np.isfinite(values), values, np.inf))]
    return best


def _objective(
    x_gx3: FloatArray, log_n: FloatArray, log_loss: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Return the objective (G,) and its gradient (G, 3) at G points."""
    a, e, alpha = x_gx3.T
    lead = a[:, None] - alpha[:, None] * log_n - e[:, None]  # how far the power law is above e
    small = np.exp(-np.abs(lead))
    predicted = e[:, None] + np.maximum(lead, 0) + np.log1p(small)
    share = np.where(lead > 0, 1.0, small) / (1 + small)  # of the power law in the loss
    error = predicted - log_loss
    slope = np.clip(error, -_HUBER, _HUBER)
    value = (slope * (error - slope / 2)).sum(axis=1)
    by_a = (slope * share).sum(axis=1)
    gradient = np.stack([by_a, slope.sum(axis=1) - by_a, -(slope * share) @ log_n], axis=1)
    value += np.maximum(alpha - 0.8, 0) - np.minimum(alpha, 0.001)
    value += np.maximum(a - 6.5, 0) - np.minimum(e - 0.5, 0)
    gradient[:, 0] += a > 6.5
    gradient[:, 1] -= e < 0.5
    gradient[:, 2] += (alpha > 0.8).astype(float) - (alpha < 0.001)
    return value, gradient


def _descend(
    objective: Callable[[FloatArray], tuple[FloatArray, FloatArray]], starts: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Descend from all starts, (G, d), by BFGS with backtracking; return points and values."""
    x = starts.copy()
    value, gradient = objective(x)
    inverse = np.tile(np.eye(x.shape[1]), (len(x), 1, 1))
    live = np.arange(len(x))  # those still moving
    for iteration in range(_ITERATIONS):
        live = live[np.linalg.norm(gradient[live], axis=1) > _TOLERANCE]
        if not len(live):
            break
        g = gradient[live]
        direction = -np.einsum("gij,gj->gi", inverse[live], g)
        uphill = np.einsum("gi,gi->g", direction, g) >= 0
        direction[uphill] = -g[uphill]
        # Unscaled, the first step could leave the region where anything is known.
        length = 1 / np.linalg.norm(g, axis=1) if iteration == 0 else np.ones(len(live))
        moved, new_value, new_gradient = _search(
            objective, x[live], value[live], g, direction, length
        )
        inverse[live] = _updated(inverse[live], moved - x[live], new_gradient - g)
        falling = value[live] - new_value > _LEAST_FALL
        x[live], value[live], gradient[live] = moved, new_value, new_gradient
        live = live[falling]
    return x, value


def _search(
    objective: Callable[[FloatArray], tuple[FloatArray, FloatArray]],
    x: FloatArray,
    value: FloatArray,
    gradient: FloatArray,
    direction: FloatArray,
    length: FloatArray,
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Halve the step of each row until its objective falls enough (Armijo); else stay."""
    x, value, new_gradient = x.copy(), value.copy(), gradient.copy()
    fall = 1e-4 * np.einsum("gi,gi->g", direction, gradient)
    left = np.arange(len(x))
    for _ in range(20):
        trial = x[left] + length[left, None] * direction[left]
        trial_value, trial_gradient = objective(trial)
        good = trial_value <= value[left] + length[left] * fall[left]
        at = left[good]
        x[at], value[at], new_gradient[at] = trial[good], trial_value[good], trial_gradient[good]
        left = left[~good]
        length = length / 2
        if not len(left):
            break
    return x, value, new_gradient


def _updated(inverse: FloatArray, step: FloatArray, change: FloatArray) -> FloatArray:
    """Return the BFGS inverse Hessians after a step, where the curvature is positive."""
    curvature = np.einsum("gi,gi->g", step, change)
    good = curvature > 1e-14
    rho = np.where(good, 1 / np.where(good, curvature, 1.0), 0.0)
    left = np.eye(step.shape[1]) - rho[:, None, None] * step[:, :, None] * change[:, None, :]
    new: FloatArray = left @ inverse @ left.transpose(0, 2, 1)
    new += rho[:, None, None] * step[:, :, None] * step[:, None, :]
    return new


_WINDOW, _ORDER = 101, 3  # of the smoothing
_LEAST_ALPHA = 0.05  # the published code's "arbitrary" bound


@dataclass(eq=False)
class ADO(Rule):
    r"""Adaptive data optimization (arXiv 2410.11820): per-domain scaling laws, fitted online.

    Parameters
    ----------
    start_steps : int
        Steps on the prior before p moves.
    ignore_steps : int
        First steps that no fit looks at.
    refit_steps : int
        Steps between two fits.
    every : int
        Fit every so many-th step of the history.
    prior : {"sizes", "uniform"}
        :math:`\mu`: shares of the corpus, or all alike.
    credit : {"share", "variance", "none"}
        :math:`h^{1/2}` (as corrected), :math:`(h(1-h))^{1/2}` (as in the other stored
        version), or no such factor.
    same_step_size : bool
        n counts all examples drawn, for every domain, instead of its own.
    floor : float
        Least share in :math:`\rho`, in [0, 1).
    history : float
        Share of h that is kept in a step, in [0, 1).
    mix : float
        Share of :math:`\rho` in p, in [0, 1].
    grid : {"full", "coarse"}
        512 starts for each fit, or 8 for trying things out.

    Examples
    --------
    >>> ADO().start(q=np.array([.5, .5]), sizes=np.array([10, 30]))
    array([0.25, 0.75])
    """

    start_steps: int = 1000
    ignore_steps: int = 1000
    refit_steps: int = 1000
    every: int = 10
    prior: Literal["sizes", "uniform"] = "sizes"
    credit: Literal["share", "variance", "none"] = "share"
    same_step_size: bool = True
    floor: float = 0.01
    history: float = 0.9
    mix: float = 0.1
    grid: Literal["full", "coarse"] = "full"
    _losses: FloatArray | None = field(default=None, init=False, repr=False)  # (T, m)
    _counts: IntArray | None = field(default=None, init=False, repr=False)  # (T, m)
    _laws: FloatArray | None = field(default=None, init=False, repr=False)  # (m, 3)
    _share: FloatArray | None = field(default=None, init=False, repr=False)  # h
    _mean: FloatArray | None = field(default=None, init=False, repr=False)  # p bar
    _p: FloatArray | None = field(default=None, init=False, repr=False)

    signals = frozenset({"train_losses"})
    per_step: ClassVar[bool] = True
    paper: ClassVar[str] = "ADO, arXiv 2410.11820"
    cost: ClassVar[str] = "none of the model; fits of loss curves on the CPU"

    def __post_init__(self) -> None:
        for name in ("start_steps", "ignore_steps"):
            self._check_number(name, least=0, whole=True, try_="1000")
        self._check_number("refit_steps", least=1, whole=True, try_="1000")
        self._check_number("every", least=1, whole=True, try_="10")
        self._check_choice("prior", "sizes", "uniform")
        self._check_choice("credit", "share", "variance", "none")
        self._check_flag("same_step_size")
        self._check_number("floor", least=0, below=1, try_="0.01")
        self._check_number("history", least=0, below=1, try_="0.9")
        self._check_number("mix", least=0, most=1, try_="0.1")
        self._check_choice("grid", "full", "coarse")

    def start(self, q: FloatArray, sizes: IntArray) -> FloatArray:
        """Begin a run on the prior."""
        self._forget()
        return self._prior(np.asarray(sizes))

    def update(self, seen: Observation) -> FloatArray:
        """Go through the steps of the round; return the next proportions, (m,)."""
        if seen.train_losses is None:
            raise ValueError("ADO needs the signal 'train_losses'")
        before = 0 if self._losses is None else len(self._losses)
        self._append(seen.train_losses, seen.available)
        prior = self._prior(seen.sizes)
        for step in range(before, 0 if self._losses is None else len(self._losses)):
            self._step(step, prior, seen.available)
        return (seen.p if self._p is None else self._p).copy()

    def _prior(self, sizes: IntArray) -> FloatArray:
        weights = sizes.astype(float) if self.prior == "sizes" else np.ones(len(sizes))
        return normalise(weights, sizes > 0)

    def _append(self, seen: TrainLosses, available: NDArray[np.bool_]) -> None:
        """Add the round's steps to the history; an absent domain has its last loss.

        One that has none yet has the step's mean; a step without any loss is left out.
        """
        rows, counts = [], []
        last = np.full(len(available), np.nan) if self._losses is None else self._losses[-1]
        for loss, examples in zip(seen.loss, seen.examples, strict=True):
            drawn = available & np.isfinite(loss) & (examples > 0)
            if not drawn.any():
                continue
            # fsum: to the last digit the same in any order of domains, as fits magnify digits.
            middle = fsum(loss[drawn] * examples[drawn]) / examples[drawn].sum()
            last = np.where(drawn, loss, np.where(np.isfinite(last), last, middle))
            rows.append(last)
            counts.append(np.where(drawn, examples, 0))
        if rows:
            self._losses = np.vstack([*([] if self._losses is None else [self._losses]), *rows])
            self._counts = np.vstack([*([] if self._counts is None else [self._counts]), *counts])

    def _step(self, step: int, prior: FloatArray, available: NDArray[np.bool_]) -> None:
        """Do what follows step number `step`, from 0, with the history up to it."""
        assert self._losses is not None
        assert self._counts is not None
        drawn = self._counts[step]
        if self._share is None:
            self._share = self._mean = self._p = prior
        self._share = self.history * self._share + (1 - self.history) * drawn / drawn.sum()
        if step < self.start_steps:
            return
        if step % self.refit_steps == 0:
            self._refit(step + 1, available)
        if self._laws is None:
            return
        assert self._mean is not None
        rho = self._instant(self._seen(step + 1)[-1], prior, available)
        self._p = (1 - self.mix) * self._mean + self.mix * rho
        self._mean = (1 - 1 / (step + 1)) * self._mean + rho / (step + 1)

    def _seen(self, steps: int) -> FloatArray:
        """Return n of each domain after each of the first `steps` steps, (steps, m)."""
        assert self._counts is not None
        counts = self._counts[:steps].astype(float)
        if self.same_step_size:
            counts = np.broadcast_to(counts.sum(axis=1, keepdims=True), counts.shape)
        return np.cumsum(counts, axis=0)

    def _refit(self, steps: int, available: NDArray[np.bool_]) -> None:
        from scipy.signal import savgol_filter  # 0.2 s to import, and only needed here

        assert self._losses is not None
        n = self._seen(steps)[self.ignore_steps :: self.every]
        if len(n) <= 3:  # no more points than parameters
            return
        window = min(_WINDOW, steps - 1 + steps % 2)
        laws = np.full((len(available), 3), np.nan)
        for i in np.flatnonzero(available):
            losses = self._losses[:steps, i].copy()
            if window > _ORDER:
                losses = savgol_filter(losses, window, _ORDER)
            losses = losses[self.ignore_steps :: self.every]
            laws[i] = fit_scaling_law(n[:, i], losses, self.grid)
        if np.isfinite(laws[available]).all():
            self._laws = laws

    def _instant(
        self, n: FloatArray, prior: FloatArray, available: NDArray[np.bool_]
    ) -> FloatArray:
        """Return rho: where the loss is predicted to fall fastest."""
        assert self._laws is not None
        assert self._share is not None
        a, _, alpha = np.where(available[:, None], self._laws, 0.0).T
        n = np.maximum(n, 1.0)
        slope = np.maximum(alpha, _LEAST_ALPHA) * np.exp(a - alpha * np.log(n)) / n
        h = np.clip(self._share, 0.0, 1.0)
        factor = {"share": h, "variance": h * (1 - h), "none": np.ones(len(h))}[self.credit]
        weights = np.where(available, slope * prior * np.sqrt(factor), 0.0)
        if not (np.isfinite(weights).all() and weights.sum() > 0):
            return prior
        rho = normalise(weights, available)
        # As published: what all floors together ask for beyond 1 is taken off first.
        rho = rho * (1 - max(self.floor * available.sum() - rho.sum(), 0.0))
        return normalise(np.maximum(rho, self.floor), available)
