"""What one panel of small multiples shows: a mean over the seeds of one variant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rbkit.show.facts import Array, RunLike, domain_names, target
from rbkit.show.gram_figure import mean_over_rounds, seriate, to_cosine
from rbkit.show.mixture import proportions_in_force
from rbkit.show.variant_looks import VariantLike, how_many

_LAYERS = 24  # domains that can be told apart in a small panel
Names = tuple[str, ...]


@dataclass(frozen=True)
class Panel:
    """Mean over the seeds of a variant that have the same domains."""

    variant: VariantLike
    names: Names
    runs: list[RunLike]
    mean: Array
    edges: Array = field(default_factory=lambda: np.empty(0))

    @property
    def seeds(self) -> str:
        """How many seeds the mean is over, and why not over all."""
        n, of = len(self.runs), len(self.variant.runs)
        return how_many(n) if n == of else f"{n} of {of} seeds"


class MeanMixture:
    """Stands for a run whose proportions are the mean over seeds."""

    def __init__(self, panel: Panel, layers: Sequence[Sequence[int]]) -> None:
        def together(shares: Array) -> Array:
            return np.stack([shares[..., list(ids)].sum(axis=-1) for ids in layers], axis=-1)

        self.path = Path(panel.variant.label)
        self.status, self.domains = "ok", None
        known = [q for run in panel.runs if (q := target(run)) is not None]
        known = [q for q in known if len(q) == len(panel.names)]
        self.info: dict[str, Any] = {
            "parameters": {"mixer": panel.variant.label},
            "domains": {
                "names": [panel.names[ids[0]] if len(ids) == 1 else f"{len(ids)} smaller ones"
                          for ids in layers],
                "q": together(np.mean(known, axis=0)) if known else None,
            },
        }  # fmt: skip
        self.history: dict[str, Any] = {"p": together(panel.mean), "step": panel.edges[1:]}

    def metrics(self, kind: str) -> list[dict[str, Any]]:
        """Nothing was recorded."""
        return []


def gram_panel(variant: VariantLike) -> Panel | None:
    """Mean over seeds of the last round's cosines; None if no seed tracked gradients.

    Only seeds with the domains of the first such seed are part of it.
    """
    found = []
    for run in variant.runs:
        grams = np.asarray(run.history.get("gram", []), dtype=np.float64)
        if grams.ndim == 3 and grams.size:
            found.append((run, to_cosine(grams[-1])))
    if not found:
        return None
    names = _names(found[0][0], len(found[0][1]))
    same = [(run, G) for run, G in found if len(G) == len(names) and _names(run, len(G)) == names]
    return Panel(variant, names, [run for run, _ in same],
                  mean_over_rounds(np.array([G for _, G in same])))  # fmt: skip


def mixture_panel(variant: VariantLike) -> Panel | None:
    """Mean over seeds of the proportions in force; None if no seed recorded a round.

    Only seeds with the domains and rounds of the first such seed are part of it.
    """
    found = [(run, *proportions_in_force(run)) for run in variant.runs]
    found = [(run, p, edges) for run, p, edges in found if len(p)]
    if not found:
        return None
    first, shape, edges = found[0][0], found[0][1].shape, found[0][2]
    names = _names(first, shape[1])
    same = [(run, p) for run, p, where in found
            if p.shape == shape and np.array_equal(where, edges)
            and _names(run, shape[1]) == names]  # fmt: skip
    return Panel(variant, names, [run for run, _ in same],
                  np.mean([p for _, p in same], axis=0), edges)  # fmt: skip


def _names(run: RunLike, m: int) -> Names:
    names = domain_names(run)
    return tuple(names) if len(names) == m else tuple(f"domain {i}" for i in range(m))


def by_names(panels: Sequence[Panel]) -> Mapping[Names, list[Panel]]:
    """Put panels with the same domains together, in the order given."""
    groups: dict[Names, list[Panel]] = {}
    for panel in panels:
        groups.setdefault(panel.names, []).append(panel)
    return groups


def layers_of(panels: Sequence[Panel], m: int) -> list[list[int]]:
    """Domains from bottom to top; if there are very many, the smaller ones are one layer."""
    order = _order(panels, m).tolist()
    if m <= _LAYERS:
        return [[i] for i in order]
    weight = np.max([panel.mean.mean(axis=0) for panel in panels], axis=0)
    large = set(np.argsort(-weight, kind="stable")[: _LAYERS - 1].tolist())
    return [[i] for i in order if i in large] + [[i for i in order if i not in large]]


def _order(panels: Sequence[Panel], m: int) -> NDArray[np.int64]:
    """Domains by similarity of gradients, if a variant with these domains tracked them."""
    grams = [found.mean for panel in panels if (found := gram_panel(panel.variant)) is not None
             and found.names == panel.names]  # fmt: skip
    return seriate(mean_over_rounds(np.array(grams))) if grams else np.arange(m)
