"""Colours of the map: a palette for domains, and quantities that colour each example."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

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
# Lightness and chroma of three neighbours; the dark level between two light ones.
_LEVELS = ((0.70, 0.135), (0.52, 0.150), (0.62, 0.145))
_FIRST_HUE = 250.0  # blue, the colour of the project


def domain_palette(m: int, sizes: ArrayLike | None = None) -> list[str]:
    """Return `m` colours as ``#rrggbb``, for domains in order of similarity.

    With `sizes`, in the same order, hue follows the share of the corpus that comes before, so
    that the parts of a domain keep about its hue when a finer cut divides it.

    The colours are made in OKLCH (Björn Ottosson, 2020), where equal steps look equal. Three
    levels of lightness alternate, so that neighbours differ without hue as well; every level has
    a contrast of at least 2.5:1 with white and with black paper.

    >>> domain_palette(2)
    ['#57a3ef', '#915c07']
    >>> len(set(domain_palette(300)))
    300
    >>> domain_palette(3, sizes=[50, 25, 25])[0] == domain_palette(2, sizes=[50, 50])[0]
    True
    """
    share = np.ones(m) if sizes is None else np.asarray(sizes, dtype=np.float64)
    before = np.cumsum(share) - share
    hues = _FIRST_HUE + 360.0 * before / max(float(share.sum()), 1.0)
    level = np.array([_LEVELS[i % len(_LEVELS)] for i in range(m)]).reshape(m, 2)
    rgb = _srgb(level[:, 0], level[:, 1], np.deg2rad(hues))
    return ["#" + "".join(f"{channel:02x}" for channel in row) for row in rgb]


def _srgb(
    lightness: NDArray[np.float64], chroma: NDArray[np.float64], hue: NDArray[np.float64]
) -> NDArray[np.uint8]:
    """OKLCH to 8-bit sRGB; a colour outside the gamut loses chroma until it fits."""
    for _ in range(20):
        a, b = chroma * np.cos(hue), chroma * np.sin(hue)
        long = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
        medium = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
        short = (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3
        linear = np.stack(
            [
                4.0767416621 * long - 3.3077115913 * medium + 0.2309699292 * short,
                -1.2684380046 * long + 2.6097574011 * medium - 0.3413193965 * short,
                -0.0041960863 * long - 0.7034186147 * medium + 1.7076147010 * short,
            ],
            axis=1,
        )
        outside = ((linear < 0) | (linear > 1)).any(axis=1)
        if not outside.any():
            break
        chroma = np.where(outside, 0.94 * chroma, chroma)
    linear = np.clip(linear, 0, 1)
    gamma = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.asarray(np.rint(255 * gamma), dtype=np.uint8)


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
