"""The runs of a variant as one: mean final losses over its seeds, for figures of one mark each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from rbkit.report.compare.level import level
from rbkit.report.compare.variants import Comparison, Variant
from rbkit.show.facts import domain_names, losses, seed_of


class Averaged:
    """A run whose final eval losses by domain are the means over the seeds of a variant."""

    def __init__(self, variant: Variant) -> None:
        first: Any = variant.runs[0]
        by_domain = np.array([losses(run).by_domain for run in variant.runs])
        known = [value for run in variant.runs if (value := losses(run).token) is not None]
        self.path, self.status = first.path, "ok"
        self.history: dict[str, Any] = {}
        self.domains = None
        mean = by_domain.mean(axis=0) if by_domain.size else by_domain.ravel()
        final = {
            "loss_token": float(np.mean(known)) if known else None,
            "by_domain_token": [float(v) if np.isfinite(v) else None for v in mean],
        }
        parameters = {**(first.info.get("parameters") or {}), "mixer": variant.mixer, "seed": None}
        self.info: dict[str, Any] = {**first.info, "final": final, "parameters": parameters}

    def metrics(self, kind: str) -> list[dict[str, Any]]:
        """Nothing: only the end is averaged."""
        return []


def side_by_side(comparison: Comparison, most: int) -> list[Variant]:
    """Return one variant of each mixer, all else being equal, the lowest loss among them.

    Losses by domain compare only where domains and texts are the same, so what varies beside
    the mixer is held at the values of the variant with the lowest mean loss. Each variant has
    only the runs of those seeds that all of them have with the same domains.
    """
    ground = level(comparison)
    finished = [v for v in ground.variants if losses(v.runs[0]).by_domain.size]
    if not finished:
        return []

    def loss(variant: Variant) -> float:
        mean = ground.loss(variant)
        return np.inf if mean is None else mean

    best = min(finished, key=lambda v: (comparison.is_baseline(v), loss(v)))
    free = ("mixer", "mixer_options")
    held = {name: what for name, what in best.values.items() if name not in free}
    found: dict[str, Variant] = {}
    for variant in sorted(finished, key=loss):
        equal = all(variant.values.get(name) == what for name, what in held.items())
        if equal and _same(variant, best):
            found.setdefault(variant.mixer, variant)
    return _even([v for v in ground.variants if v in list(found.values())[:most]], best)


def _same(variant: Variant, best: Variant) -> set[str]:
    """Seeds, as text, whose run has losses of the domains that `best` has first."""
    names = domain_names(best.runs[0])
    return {
        seed_of(run) for run in variant.runs
        if domain_names(run) == names and losses(run).by_domain.size == len(names)
    }  # fmt: skip


def _even(variants: Sequence[Variant], best: Variant) -> list[Variant]:
    """Leave each variant the runs of the seeds that all have with the same domains."""
    shared = set.intersection(*(_same(variant, best) for variant in variants))
    return [
        replace(variant, runs=tuple(run for run in variant.runs if seed_of(run) in shared))
        for variant in variants if shared
    ]  # fmt: skip
