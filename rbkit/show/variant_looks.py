"""How variants look in every figure: colour and marker by mixer, shade and line by the rest."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import matplotlib
import numpy as np
from matplotlib.colors import to_hex, to_rgb

from rbkit.show.facts import RunLike, losses
from rbkit.show.style import mixer_colour, mixer_marker

_LINES: list[Any] = ["-", (0, (5, 1.8)), (0, (1.3, 1.3)), (0, (6, 1.8, 1.3, 1.8))]
GREY = "#c3cad2"


class VariantLike(Protocol):
    """A group of runs that differ only in their seed."""

    @property
    def label(self) -> str:
        """What it is called."""

    @property
    def mixer(self) -> str:
        """Name of its mixer."""

    @property
    def key(self) -> tuple[tuple[str, Hashable], ...]:
        """What varies, by name, and its value here."""

    @property
    def runs(self) -> Sequence[RunLike]:
        """Finished runs, one per seed."""


@dataclass(frozen=True)
class Look:
    """Colour, marker and line style of a variant, and the colour of its name."""

    colour: str
    ink: str  # as dark as text must be: a shade of a mixer's colour may be too faint
    marker: str
    line: Any


def looks(variants: Sequence[VariantLike]) -> list[Look]:
    """Return the look of each variant.

    Where mixers differ, a mixer keeps its colour and marker; what else varies is told by shade
    and line style, from dark and solid in the order of the variants. Where only one mixer is
    there, values have colours of their own, in order.
    """
    rest_of = _rests(variants)
    rests = list(dict.fromkeys(rest_of))
    one_mixer = len({variant.mixer for variant in variants}) == 1 and len(rests) > 1
    found = []
    for variant, rest in zip(variants, rest_of, strict=True):
        i = rests.index(rest)
        share = i / max(len(rests) - 1, 1)
        if one_mixer:
            # Without the yellow end, which is too faint on white.
            colour = ink = to_hex(matplotlib.colormaps["viridis"](0.75 * share))
        else:
            ink = mixer_colour(variant.mixer)
            r, g, b = (c + 0.4 * share * (1 - c) for c in to_rgb(ink))
            colour = to_hex((r, g, b))
        found.append(Look(colour, ink, mixer_marker(variant.mixer), _LINES[i % len(_LINES)]))
    return found


def mean_loss(variant: VariantLike) -> float:
    """Mean final eval loss per token over the runs of a variant; infinite if there is none."""
    known = [value for run in variant.runs if (value := losses(run).token) is not None]
    return float(np.mean(known)) if known else float("inf")


def outstanding(
    variants: Sequence[VariantLike],
    baselines: Collection[str],
    most: int = 12,
    values: Sequence[float] | None = None,
) -> list[bool]:
    """Whether each variant is shown by name: all if few, else the best, the worst, a baseline.

    Parameters
    ----------
    variants : sequence of variants
    baselines : collection of str
        Labels of baselines, of which the best is named.
    most : int
        Up to so many are all named.
    values : sequence of float, optional
        What to rank them by, lowest first; their mean final loss if not given, which is fair
        only if they have the same seeds.
    """
    if len(variants) <= most:
        return [True] * len(variants)
    ranks = [mean_loss(variant) for variant in variants] if values is None else values
    order = sorted(range(len(variants)), key=lambda i: ranks[i])
    base = [i for i in order if variants[i].label in baselines][:1]
    named = {*order[:3], order[-1], *base}
    return [i in named for i in range(len(variants))]


def how_many(n: int) -> str:
    """Say how many seeds a mean is over.

    Examples
    --------
    >>> how_many(1), how_many(5)
    ('one seed', '5 seeds')
    """
    return "one seed" if n == 1 else f"{n} seeds"


def seeds_of(variants: Sequence[VariantLike]) -> str:
    """Say how many seeds the variants have: ``5 seeds``, or ``2 to 5 seeds``."""
    counts = {len(variant.runs) for variant in variants} or {0}
    low, high = min(counts), max(counts)
    return how_many(high) if low == high else f"{low} to {high} seeds"


def _rests(variants: Sequence[VariantLike]) -> list[tuple[Hashable, int]]:
    """Return what varies beside the mixer; of its own options only which set it is."""
    sets: dict[str, list[Hashable]] = {}
    found: list[tuple[Hashable, int]] = []
    for variant in variants:
        values = dict(variant.key)
        own = sets.setdefault(variant.mixer, [])
        if (options := values.pop("mixer_options", None)) not in own:
            own.append(options)
        values.pop("mixer", None)
        found.append((tuple(values.items()), own.index(options)))
    return found
