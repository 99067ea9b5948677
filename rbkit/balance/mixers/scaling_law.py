r"""Fitting :math:`L(n) = e^{\varepsilon} + e^{a} n^{-\alpha}` to a loss curve, robustly.

As ADO (arXiv 2410.11820) does in its code: the Huber loss (width 1e-3) of
:math:`\log L - \mathrm{LSE}(a - \alpha \log n, \varepsilon)`, summed over points, with penalties
that keep :math:`0 \le \alpha \le 0.8`, :math:`\varepsilon \ge 0.5`, :math:`a \le 6.5`; quasi-Newton
descent from a grid of starts, and the best of them. Here all starts descend at once, as rows of an
array, with BFGS: for 3 parameters its matrix is as small as L-BFGS's memory.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np

from rbkit.balance.signals import FloatArray

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
    """Return ``(a, e, alpha)`` of the best fit, (3,); NaN if there is no point to fit.

    Parameters
    ----------
    n : ndarray of shape (T,)
        Examples seen so far at each point; points with 0 are left out.
    loss : ndarray of shape (T,)
        Loss at each point, in nats; points that are not above 0 are left out.
    grid : {"full", "coarse"}
        The published 8 x 8 x 8 starts, or 2 x 2 x 2 of them for trying things out.

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
    found, values = _descend(lambda x: _objective(x, log_n, log_loss), starts)
    best: FloatArray = found[np.argmin(np.where(np.isfinite(values), values, np.inf))]
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
    objective: Callable[[FloatArray], tuple[FloatArray, FloatArray]], x: FloatArray,
    value: FloatArray, gradient: FloatArray, direction: FloatArray, length: FloatArray,
) -> tuple[FloatArray, FloatArray, FloatArray]:  # fmt: skip
    """Halve the step of each row until its objective falls enough (Armijo); else stay."""
    x, value, new_gradient = x.copy(), value.copy(), gradient.copy()
    fall = 1e-4 * np.einsum("gi,gi->g", direction, gradient)
    left = np.arange(len(x))
    for _ in range(20):
        trial = x[left] + length[left, None] * direction[left]
        found, its_gradient = objective(trial)
        good = found <= value[left] + length[left] * fall[left]
        at = left[good]
        x[at], value[at], new_gradient[at] = trial[good], found[good], its_gradient[good]
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
