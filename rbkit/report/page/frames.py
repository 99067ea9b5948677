"""The rounds of one run for the scrubber of the page: Gram matrices and proportions as JSON."""

from __future__ import annotations

from typing import Any

import numpy as np

from rbkit.report.page.text import script_json, shown
from rbkit.show.facts import RunLike, domain_names, target
from rbkit.show.gram_figure import common_scale, domain_order, to_cosine

# Rounds that the page carries; fewer of large matrices, which would fill it.
_FRAMES, _CELLS = 40, 40_000


def frames(run: RunLike) -> str:
    """Gram matrices and proportions as JSON that is safe inside a script element.

    Parameters
    ----------
    run : Run
        A run with a recorded Gram matrix.

    Returns
    -------
    str
        ``names`` in the order of similarity, ``q``, ``rounds``, ``scale`` of both kinds, and
        ``frames``: of up to 40 rounds ``step``, ``round``, the lower triangle ``g`` and the
        proportions ``next`` that it led to.
    """
    history = run.history
    grams = np.asarray(history["gram"], dtype=np.float64)
    order = domain_order(history)
    m = grams.shape[-1]
    count = int(np.clip(_CELLS // (m * (m + 1) // 2), 4, _FRAMES))
    keep = np.unique(np.linspace(0, len(grams) - 1, min(count, len(grams))).astype(int))
    ordered = grams[:, order][:, :, order]
    p = np.asarray(history["p"], dtype=np.float64)[:, order]
    q = target(run)
    steps = np.asarray(history["step"])[-len(grams) :]
    value = {
        "names": [shown(names_of(run)[i]) for i in order],
        "q": _digits(q[order], 4) if q is not None and len(q) == m else None,
        "rounds": len(grams),
        "frames": [
            {
                "step": int(steps[t]),
                "round": int(t) + 1,
                "g": _triangle(ordered[t]),
                "next": _digits(p[min(t + 1, len(p) - 1)], 4),
            }
            for t in keep
        ],
        "scale": {"raw": common_scale(grams), "cosine": common_scale(to_cosine(grams))},
    }
    return script_json(value)


def names_of(run: RunLike) -> list[str]:
    """Names of the domains, or numbers where the names do not fit the history."""
    names = domain_names(run)
    m = np.asarray(run.history["p"]).shape[-1] if "p" in run.history else len(names)
    return names if len(names) == m else [f"domain {i}" for i in range(m)]


def _triangle(gram: np.ndarray[Any, Any]) -> list[float | None]:
    return _digits(gram[np.tril_indices(len(gram))], 4)


def _digits(values: np.ndarray[Any, Any], digits: int) -> list[float | None]:
    return [float(f"{v:.{digits}g}") if np.isfinite(v) else None for v in values.ravel()]
