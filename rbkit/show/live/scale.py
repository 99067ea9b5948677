"""The colour scale of a matrix that is shown again and again: it never changes in silence."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from rbkit.show.facts import Array
from rbkit.show.gram_figure import common_scale, to_cosine

Kind = Literal["cosine", "raw"]
_PERCENTILE = 95.0  # of |G|: a few pairs of a first, noisy round shall not bleach all the others


class Scale:
    """A scale from -limit to limit, centred at 0, that starts round and grows in round steps.

    Round are 1, 2 and 5 times a power of ten. It depends on the rounds seen, and not on when
    somebody began to look at them.

    Parameters
    ----------
    kind : {"cosine", "raw"}
        Cosines of domain gradients, or their inner products.

    Attributes
    ----------
    limit : float or None
        None before the first matrix.

    Examples
    --------
    >>> scale = Scale("raw")
    >>> [scale.see([[[9.0, g], [g, 9.0]]]) for g in (0.13, 0.01, 0.3)]
    [0.2, 0.2, 0.5]
    """

    def __init__(self, kind: Kind = "cosine") -> None:
        self.kind: Kind = kind
        self.limit: float | None = None
        self.seen = 0  # rounds

    def see(self, grams: ArrayLike) -> float:
        """Take note of Gram matrices (T, m, m); return the limit."""
        for gram in np.asarray(grams, dtype=np.float64):
            self.seen += 1
            shown = values(gram, self.kind)
            if np.isfinite(shown[~np.eye(len(shown), dtype=bool)]).any():
                self.limit = max(self.limit or 0.0, round_up(common_scale(shown, _PERCENTILE)))
        return self.limit or 1.0

    def follow(self, history: dict[str, Array]) -> float:
        """Take note of the rounds of a ``history`` that were not there before."""
        grams = history.get("gram", np.empty((0, 0, 0)))
        if grams.ndim != 3:
            return self.limit or 1.0
        if len(grams) < self.seen:  # cut back by a resume
            self.limit, self.seen = None, 0
        return self.see(grams[self.seen :])


def values(gram: Array, kind: Kind) -> Array:
    """Cosines or inner products of a Gram matrix, (m, m)."""
    return to_cosine(gram) if kind == "cosine" else np.asarray(gram, dtype=np.float64)


def round_up(value: float) -> float:
    """Next number that is 1, 2 or 5 times a power of ten.

    Examples
    --------
    >>> [round_up(v) for v in (0.1, 0.13, 0.9, 3.0, 51.0)]
    [0.1, 0.2, 1.0, 5.0, 100.0]
    """
    if not value > 0 or not math.isfinite(value):
        return 1.0
    power = 10.0 ** math.floor(math.log10(value) + 1e-9)
    factor = next(f for f in (1, 2, 5, 10) if f * power >= value * (1 - 1e-9))
    return float(f"{factor * power:.3g}")
