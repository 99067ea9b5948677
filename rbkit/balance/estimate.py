"""From the sums of a round to its Gram matrix."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from rbkit.balance.pooled import halves, layout, pooled
from rbkit.balance.signals import FloatArray, GramEstimate
from rbkit.balance.watched import WatchedLayer
from rbkit.errors import InputError


@torch.no_grad()
def gram_estimate(
    layers: Sequence[WatchedLayer], counts: FloatArray, examples: FloatArray
) -> GramEstimate:
    """Return the Gram matrix of the layers' sums over all processes, which call this together.

    Parameters
    ----------
    layers : sequence of WatchedLayer
    counts : ndarray of shape (2, m)
        What the sums of each half-round are divided by.
    examples : ndarray of shape (m,)
        What is reported as the round's counts.
    """
    place, m = layers[0].device, counts.shape[1]
    (n1, n2), examples = pooled(counts, place), pooled(examples, place)
    whole, squares = np.zeros((m, m)), np.zeros((3, m))
    for layer in layers:
        found = layout(layer.total, layer.device)
        if found is None:
            if (n1 + n2).any():
                raise InputError(
                    "layers", "a watched layer took no part in the backward pass",
                    "watch another, or use a loss that is not fused with it",
                )  # fmt: skip
            continue  # nothing was watched yet
        for first, second in halves(layer.total, found[0], layer.device):
            both = first + second
            whole += (both @ both.T).cpu().numpy()
            pairs = ((first, second), (first, first), (second, second))
            squares += [torch.linalg.vecdot(a, b).cpu().numpy() for a, b in pairs]
    with np.errstate(divide="ignore", invalid="ignore"):
        cross, one, two = squares / np.array([n1 * n2, n1 * n1, n2 * n2])
    n = np.where(n1 + n2 > 0, n1 + n2, np.nan)
    split = np.where((n1 > 0) & (n2 > 0), 1.0, np.nan)
    return GramEstimate(
        gram=whole / np.outer(n, n),
        counts=np.rint(examples).astype(np.int64),
        diagonal_debiased=cross * split,
        noise_floor=(one + two - 2 * cross) / 4 * split,
    )
