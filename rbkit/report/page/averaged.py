"""The runs of a variant as one: mean final losses over its seeds, for figures of one mark each."""

from __future__ import annotations

from typing import Any

import numpy as np

from rbkit.report.compare.variants import Comparison, Variant
from rbkit.report.page.result import mean_loss
from rbkit.show.facts import domain_names, losses


class Averaged:
    """A run whose final eval losses are the means over the seeds of a variant.

    Runs with other domains than the first are left out: their losses are of other texts.
    """

    def __init__(self, variant: Variant) -> None:
        first: Any = variant.runs[0]
        same = [run for run in variant.runs if domain_names(run) == domain_names(first)]
        by_domain = np.array([losses(run).by_domain for run in same])
        self.path, self.status = first.path, "ok"
        self.history: dict[str, Any] = {}
        self.domains = None
        mean = by_domain.mean(axis=0) if by_domain.size else by_domain.ravel()
        final = {
            "loss_token": mean_loss(variant),
            "by_domain_token": [float(v) if np.isfinite(v) else None for v in mean],
        }
        parameters = {**(first.info.get("parameters") or {}), "mixer": variant.mixer, "seed": None}
        self.info: dict[str, Any] = {**first.info, "final": final, "parameters": parameters}

    def metrics(self, kind: str) -> list[dict[str, Any]]:
        """Nothing: only the end is averaged."""
        return []


def side_by_side(comparison: Comparison, most: int) -> list[Variant]:
    """Return one variant of each mixer, all else being equal, the lowest loss among them.

    Losses by domain compare only where the domains are the same, so what varies beside the
    mixer is held at the values of the variant with the lowest mean loss.
    """
    finished = [v for v in comparison.variants if losses(v.runs[0]).by_domain.size]
    if not finished:
        return []
    best = min(finished, key=lambda v: (comparison.is_baseline(v), mean_loss(v) or np.inf))
    names = domain_names(best.runs[0])
    free = ("mixer", "mixer_options")
    held = {name: what for name, what in best.values.items() if name not in free}
    found: dict[str, Variant] = {}
    for variant in sorted(finished, key=lambda v: mean_loss(v) or np.inf):
        equal = all(variant.values.get(name) == what for name, what in held.items())
        if equal and domain_names(variant.runs[0]) == names:
            found.setdefault(variant.mixer, variant)
    return [v for v in comparison.variants if v in list(found.values())[:most]]
