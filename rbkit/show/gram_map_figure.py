"""The Gram matrix of a run coloured back onto the map: where in the corpus gradients agree."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike

from rbkit.errors import InputError
from rbkit.show.facts import Array, RunLike, domain_names, target
from rbkit.show.gram_figure import to_cosine
from rbkit.show.map_figure import domain_map
from rbkit.show.style import number, set_alt, shorten


def gram_on_map(
    run: RunLike,
    coordinates: ArrayLike,
    labels: ArrayLike,
    ax: Axes | None = None,
    *,
    round: int = -1,
    focus: int | str | None = None,
    title: str | None = None,
) -> Axes:
    """Colour the map by the gradients of a run: which domains pull towards the target.

    Every example has the colour of its domain: the cosine between the domain's gradient and
    the target direction (the q-weighted sum of domain gradients; R&B's scores Gq are these
    inner products), or between it and the gradient of one domain.

    Parameters
    ----------
    run : Run
        With a recorded Gram matrix.
    coordinates, labels
        As in :func:`domain_map`, of the domains of the run.
    ax : matplotlib Axes, optional
    round : int
        Which round, from 0, or from the end if negative.
    focus : int or str, optional
        The domain, or its name, to compare with instead of the target.
    title : str, optional

    Raises
    ------
    InputError
        A run without Gram matrices, no such round, or no such domain.
    """
    cosine, names, step = alignment(run, round, focus)
    labels = np.asarray(labels)
    values = np.append(cosine, np.nan)[np.where(labels < 0, len(cosine), labels)]
    others = np.delete(cosine, _index(names, focus)) if focus is not None else cosine
    others = others[np.isfinite(others)]
    shown = [
        f"{shorten(name, 24)} {'+' if c > 0 else ''}{number(c, 2)}"
        for name, c in zip(names, cosine, strict=True)
    ]
    against = "the target" if focus is None else shorten(names[_index(names, focus)], 24)
    ax = domain_map(
        coordinates, labels, shown, ax, values=values, centre=0.0,
        value_label=f"cosine with {against}",
        # A scale that ends at the strongest of them would paint noise in full colour.
        vmax=max(0.1, float(np.abs(others).max(initial=0.0))),
        title=title or f"Gradients against {against}, step {step}",
    )  # fmt: skip
    if len(others):
        low, high = int(np.nanargmin(cosine)), int(np.nanargmax(cosine))
        set_alt(ax, f"Map coloured by the cosine of each domain's gradient with {against} at step "
                    f"{step}: from {names[low]} {number(cosine[low], 2)} to {names[high]} "
                    f"{number(cosine[high], 2)}.")  # fmt: skip
    return ax


def alignment(
    run: RunLike, round: int = -1, focus: int | str | None = None
) -> tuple[Array, list[str], int]:
    """Return the cosine of each domain's gradient with the target direction or another domain.

    Returns
    -------
    cosine : ndarray of shape (m,)
        NaN for a domain that the round did not see.
    names : list of m str
    step : int
        The optimizer step at which the round ended.
    """
    grams = np.asarray(run.history.get("gram", np.empty((0, 0, 0))), dtype=np.float64)
    if not len(grams):
        what = "holds no Gram matrix"
        raise InputError(str(run.path), what, "train with a mixer that tracks gradients, as RnB")
    if not -len(grams) <= round < len(grams):
        raise InputError("round", f"{round} of {len(grams)} rounds", f"use 0 to {len(grams) - 1}")
    G = grams[round]
    m = len(G)
    names = domain_names(run)
    names = names if len(names) == m else [f"domain {i}" for i in range(m)]
    steps = run.history.get("step")
    step = int(steps[round]) if steps is not None else round % len(grams)
    if focus is not None:
        return to_cosine(G)[_index(names, focus)], names, step
    seen = np.isfinite(np.diagonal(G)) & (np.diagonal(G) > 0)
    q = target(run)
    q = np.full(m, 1 / m) if q is None or len(q) != m else q
    q = np.where(seen, q, 0.0)
    known = np.nan_to_num(G)
    length = np.sqrt(max(float(q @ known @ q), 0.0)) * np.sqrt(np.clip(np.diagonal(known), 0, None))
    cosine: Array = np.divide(known @ q, length, out=np.full(m, np.nan), where=seen & (length > 0))
    return np.clip(cosine, -1, 1), names, step


def _index(names: Sequence[str], focus: int | str) -> int:
    if isinstance(focus, str):
        if focus not in names:
            raise InputError("focus", f"no domain {focus!r}", f"use one of {', '.join(names[:5])}")
        return list(names).index(focus)
    if not 0 <= focus < len(names):
        raise InputError("focus", f"{focus} of {len(names)} domains", f"use 0 to {len(names) - 1}")
    return int(focus)
