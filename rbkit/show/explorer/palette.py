"""Colours for the domains of a map: related domains in related hues, told apart by lightness.

Made in OKLCH (Björn Ottosson, 2020), where equal steps look equal: hue follows the order of
similarity, lightness goes through three levels, so that neighbours differ for eyes that see no
hues. All levels keep a contrast of at least 2.5:1 with white and with black paper; names,
outlines and dimming say the rest, never colour alone.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

#: Lightness and chroma of three neighbours; the dark level between two light ones.
_LEVELS = ((0.70, 0.135), (0.52, 0.150), (0.62, 0.145))
_FIRST_HUE = 250.0  # blue, the colour of the project


def domain_palette(m: int, sizes: ArrayLike | None = None) -> list[str]:
    """Return `m` colours as ``#rrggbb``, for domains in order of similarity.

    Parameters
    ----------
    m : int
    sizes : array_like of shape (m,), optional
        Sizes in the same order: hue then follows the share of the corpus that comes before, so
        that the parts of a domain keep about its hue when a finer cut divides it.

    Examples
    --------
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
    """OKLCH to 8-bit sRGB; what lies outside the gamut loses chroma until it fits."""
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
