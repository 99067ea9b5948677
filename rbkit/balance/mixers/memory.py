"""A Gram matrix remembered from round to round, for domains that a round did not draw."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rbkit.balance.signals import FloatArray


def remember(last: FloatArray | None, fresh: FloatArray) -> FloatArray:
    """Return the products of `fresh`, (m, m), and the last known ones where it has NaN.

    Examples
    --------
    >>> nan = np.nan
    >>> remember(np.array([[1., 2.], [2., 8.]]), np.array([[3., nan], [nan, nan]]))
    array([[3., 2.],
           [2., 8.]])
    """
    if last is None or last.shape != fresh.shape:
        last = np.full(fresh.shape, np.nan)
    return np.where(np.isfinite(fresh), fresh, last)


def ever_seen(gram: FloatArray) -> NDArray[np.bool_]:
    """Return which domains a remembered Gram matrix knows, (m,)."""
    known: NDArray[np.bool_] = np.isfinite(np.diag(gram))
    return known
