"""Colours of the map: quantities that colour each example."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rbkit.errors import InputError
from rbkit.files import read_npz
from rbkit.show.figures.map import alignment

#: Colour modes and the title of their scale.
MODES = {
    "domain": "domain",
    "source": "source",
    "distance": "distance to the domain's centre",
    "length": "characters of the text (log scale)",
    "loss": "eval loss",  # in the unit of the run
    "gram": "alignment of the domain's gradient with the target",
}
CATEGORIES = ("domain", "source")  # modes without a continuous scale
NEED_RUN = ("loss", "gram")

_UNKNOWN = 255


def to_bytes(
    values: NDArray[np.float64], symmetric: bool = False
) -> tuple[NDArray[np.uint8], tuple[float, float] | None]:
    """Scale values to 0..254 (255 where NaN); also return the ends of the scale, if any.

    A few extreme points must not take the whole scale: it ends at the percentiles 1 and 99.

    >>> to_bytes(np.array([0.0, 1.0, np.nan]))[0].tolist()
    [0, 254, 255]
    """
    finite = np.isfinite(values)
    if not finite.any():
        return np.full(len(values), _UNKNOWN, dtype=np.uint8), None
    low, high = np.quantile(values[finite], [0.01, 0.99])
    if symmetric:
        high = max(abs(low), abs(high))
        low = -high
    scaled = np.clip((np.where(finite, values, low) - low) / ((high - low) or 1.0), 0, 1) * 254
    return np.where(finite, scaled, _UNKNOWN).astype(np.uint8), (float(low), float(high))


def loss_by_example(run: Any, shown: NDArray[np.int64]) -> NDArray[np.float64]:
    """Losses of a run: eval examples have their own, training examples that of their domain."""
    final = read_npz(run.path / "final.npz", "train to the end: the losses come last")
    own = np.asarray(next(iter(final.values())), dtype=np.float64)
    domains = run.domains
    by_domain = np.full(domains.m + 1, np.nan)  # the last one for -1, in no domain
    for domain in range(domains.m):
        losses = own[domains.eval_labels == domain]
        if np.isfinite(losses).any():
            by_domain[domain] = np.nanmean(losses)
    return np.concatenate([by_domain[domains.train_labels[shown]], own])


def alignment_by_example(run: Any, shown: NDArray[np.int64]) -> NDArray[np.float64]:
    """Cosine of each domain's gradient with the target's, in the last round that has a Gram."""
    history = run.history
    if "gram" not in history or not len(history["gram"]):
        what = f"{run.name} tracked no gradients"
        raise InputError("gram", what, "train with a rule that does, such as RnB")
    estimated = np.flatnonzero(np.isfinite(history["gram"]).any(axis=(1, 2)))
    cosine, _, _ = alignment(run, int(estimated[-1]) if len(estimated) else -1)
    labels = np.concatenate([run.domains.train_labels[shown], run.domains.eval_labels])
    return np.asarray(np.append(cosine, np.nan)[labels])
