"""The figures of the page: as many as say something, each as a picture with its description."""

from __future__ import annotations

import base64
import io
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import matplotlib
import numpy as np

from rbkit.report.compare.paired import Difference, level
from rbkit.report.compare.variants import Comparison, Variant
from rbkit.show.facts import (
    Array,
    RunLike,
    domain_names,
    losses,
    mixer_of,
    pairs_by_seed,
    same_corpus,
    same_machine,
    seed_of,
    target,
)
from rbkit.show.figures.compare import (
    difference_forest,
    gram_by_variant,
    loss_bands,
    pareto,
    proportions_by_variant,
)
from rbkit.show.figures.costs import costs
from rbkit.show.figures.domains import domain_sizes, k_choice
from rbkit.show.figures.gram import gram_over_time
from rbkit.show.figures.losses import loss_by_domain, loss_curves
from rbkit.show.figures.mixture import proportions_side_by_side
from rbkit.show.gram_layout import common_scale, domain_order, to_cosine
from rbkit.show.style import alt_text, png, size_of
from rbkit.text import script_json, visible

_WIDTH, _HEIGHT, _POINTS = 96, 26, 24
_LEVELS = 63  # odd: zero has a colour of its own
_LARGEST = 36  # rows of a thumbnail; more are averaged


def sparkline(
    steps: Sequence[float],
    values: Sequence[float],
    *,
    last_step: float,
    low: float,
    high: float,
    colour: str,
    title: str,
) -> str:
    """Draw a curve as inline SVG, on scales that all curves of a table share.

    Parameters
    ----------
    steps, values : sequence of float
        Points without NaN; what lies above `high` is cut off.
    last_step, low, high : float
        The right edge, and the lower and upper edge.
    colour : str
        ``#rrggbb``.
    title : str
        What the curve shows, for those who do not see it; escaped here.

    Returns
    -------
    str
        Empty where there is nothing to draw.
    """
    from markupsafe import escape

    if not len(values):
        return ""
    keep = np.unique(np.linspace(0, len(values) - 1, min(_POINTS, len(values))).astype(int))
    x = 3 + (_WIDTH - 6) * np.asarray(steps, dtype=np.float64)[keep] / max(last_step, 1e-9)
    share = (np.asarray(values, dtype=np.float64)[keep] - low) / max(high - low, 1e-9)
    y = 3 + (_HEIGHT - 6) * (1 - np.clip(share, 0, 1))
    points = " ".join(f"{a:.4g},{b:.3g}" for a, b in zip(x, y, strict=True))
    return (
        f'<svg class="spark" width="{_WIDTH}" height="{_HEIGHT}" '
        f'viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(title)}">'
        f'<polyline points="{points}" fill="none" stroke="{_colour(colour)}" stroke-width="1.6"/>'
        f'<circle cx="{x[-1]:.4g}" cy="{y[-1]:.3g}" r="2.2" fill="{_colour(colour)}"/></svg>'
    )


def thumbnail(cosine: Array, scale: float = 1.0) -> str:
    """Draw a matrix of cosines (m, m) as a PNG of one pixel per cell, under 1.5 kB.

    Parameters
    ----------
    cosine : ndarray of shape (m, m)
        Blue to red, white at 0, grey where nothing was observed. Of more than 36 domains,
        neighbours are averaged.
    scale : float
        Cosine of the strongest colours.

    Returns
    -------
    str
        A ``data:`` address.
    """
    from PIL import Image

    cells = _fewer(np.asarray(cosine, dtype=np.float64))
    known = np.isfinite(cells)
    level = np.rint((np.clip(np.where(known, cells, 0.0) / scale, -1, 1) + 1) / 2 * (_LEVELS - 1))
    image = Image.fromarray(np.where(known, level, _LEVELS).astype(np.uint8))
    ramp = matplotlib.colormaps["RdBu_r"](np.linspace(0, 1, _LEVELS))[:, :3]
    image.putpalette([*np.rint(255 * ramp).astype(int).ravel().tolist(), 217, 222, 227])
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def swatch(colour: str) -> str:
    """Draw a patch of colour that stands before a name."""
    return (
        '<svg class="swatch" width="12" height="12" aria-hidden="true">'
        f'<rect width="12" height="12" rx="3" fill="{_colour(colour)}"/></svg>'
    )


def bar(share: float, kind: str) -> str:
    """Draw a horizontal bar of the class `kind`, `share` (0 to 1) of its room long."""
    width = 100 * float(np.clip(np.nan_to_num(share), 0.004, 1))
    return (
        f'<svg class="bar {kind}" height="10" viewBox="0 0 100 10" preserveAspectRatio="none" '
        f'aria-hidden="true"><rect width="{width:.1f}" height="10"/></svg>'
    )


def _fewer(cells: Array) -> Array:
    m = len(cells)
    if m <= _LARGEST:
        return cells
    edges = np.linspace(0, m, _LARGEST + 1).astype(int)
    known = np.isfinite(cells)
    sums: Any = [np.where(known, cells, 0.0), known.astype(np.float64)]
    for axis in (0, 1):
        sums = [np.add.reduceat(part, edges[:-1], axis=axis) for part in sums]
    made: Array = np.divide(sums[0], sums[1], out=np.full(sums[0].shape, np.nan), where=sums[1] > 0)
    return made


def _colour(colour: str) -> str:
    # Colours are ours, but one of them might once come from a file.
    return matplotlib.colors.to_hex(colour)


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
        seed_of(run)
        for run in variant.runs
        if domain_names(run) == names and losses(run).by_domain.size == len(names)
    }


def _even(variants: Sequence[Variant], best: Variant) -> list[Variant]:
    """Leave each variant the runs of the seeds that all have with the same domains."""
    shared = set.intersection(*(_same(variant, best) for variant in variants))
    return [
        replace(variant, runs=tuple(run for run in variant.runs if seed_of(run) in shared))
        for variant in variants
        if shared
    ]


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
        "names": [visible(names_of(run)[i]) for i in order],
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


_LINES = 8  # runs that one pair of axes can hold
_PANELS = 4  # panels that fit beside each other
_SMALL = 12  # and small ones, in rows

Drawing = Callable[[], Any]


def picture(figure: Any) -> dict[str, Any]:
    """Return a figure (or axes) as ``src``, ``alt``, ``width`` and ``height`` of an image."""
    figure = figure.get_figure(root=True) if hasattr(figure, "get_figure") else figure
    with warnings.catch_warnings():
        # Names without end leave no room for axes: an ugly figure, and no reason to lose a report.
        warnings.filterwarnings("ignore", "constrained_layout not applied", UserWarning)
        image = png(figure, dpi=180)
    width, height = size_of(image)
    return {
        "src": "data:image/png;base64," + base64.b64encode(image).decode("ascii"),
        "alt": alt_text(figure),
        "width": round(width / 1.8),
        "height": round(height / 1.8),
    }


def drawings(
    comparison: Comparison,
    gaps: Mapping[str, Difference | None],
    tracked: RunLike | None,
    domains: Any,
) -> dict[str, Drawing]:
    """Return what is to be drawn, by the name that the templates use.

    Parameters
    ----------
    comparison : Comparison
    gaps : mapping of str to Difference or None
    tracked : Run, optional
        The run whose Gram matrices are shown over time.
    domains : Domains, optional
    """
    runs: list[Any] = [run for run in comparison.runs if run.status == "ok"]
    runs = runs or [run for run in comparison.runs if run.status != "queued"]
    found = _losses(comparison, runs)
    if len(comparison.variants) > 1:
        known = [gap for gap in gaps.values() if gap is not None]
        if known:
            label = comparison.baseline_label
            found["forest"] = lambda: difference_forest(known, baseline=label)
        ground = level(comparison)
        if ground.is_even and len(ground.variants) > 1:
            unit: Any = "seconds" if _one_machine(comparison) else "flops"
            found["pareto"] = lambda: pareto(ground.variants, unit, baselines=_bases(comparison))
    mixers = list({mixer_of(run): run for run in reversed(runs)}.values())[::-1]
    found["costs"] = lambda: costs(mixers[:_LINES])
    found |= _mixtures(comparison, mixers)
    if tracked is not None:
        names, history = names_of(tracked), tracked.history
        # Fewer and larger panels where there are many names to read.
        panels = 5 if len(names) <= 16 else 4 if len(names) <= 24 else 3
        found["gram"] = lambda: gram_over_time(history, names, panels)[0]
    if domains is not None:
        found["sizes"] = lambda: domain_sizes(domains)
        if domains.quality.get("grid"):
            found["k"] = lambda: k_choice(domains.quality["grid"], chosen=len(domains.names))
    return found


def _losses(comparison: Comparison, runs: list[Any]) -> dict[str, Drawing]:
    """Curves of single runs while they are few, else means and bands over seeds."""
    found: dict[str, Drawing] = {}
    variants, bases = comparison.variants, _bases(comparison)
    single = all(len(variant.runs) <= 1 for variant in variants)
    shown = level(comparison).variants
    alone = [run for variant in shown for run in variant.runs] or runs
    if runs and single and len(alone) <= _LINES and set(comparison.varied) <= {"mixer"}:
        found["eval"] = lambda: loss_curves(alone, "eval")
        found["train"] = lambda: loss_curves(alone, "train")
    elif shown:
        found["eval"] = lambda: loss_bands(shown, "eval", baselines=bases)
        found["train"] = lambda: loss_bands(shown, "train", baselines=bases)
    base_of: Any = comparison.baseline_of  # of our Variant; the figure takes any like it
    if any(_has_gap(variant, comparison) for variant in variants):
        found["gap"] = lambda: loss_bands(
            variants,
            "eval",
            minus=base_of,
            baseline=comparison.baseline_label,
            baselines=bases,
        )
    beside = side_by_side(comparison, _LINES)
    if beside:
        base = _baseline_mixer(comparison)
        found["by_domain"] = lambda: loss_by_domain([Averaged(v) for v in beside], base)
    return found


def _has_gap(variant: Variant, comparison: Comparison) -> bool:
    """Whether a curve of the variant can be held against the baseline's."""
    base = comparison.baseline_of(variant)
    if base is None or base is variant:
        return False
    return any(
        same_corpus(*pair) and all(len(run.metrics("eval")) for run in pair)
        for pair in pairs_by_seed(variant.runs, base.runs)
    )


def _one_machine(comparison: Comparison) -> bool:
    first, *others = [run for variant in comparison.variants for run in variant.runs]
    return all(same_machine(first, other) for other in others)


def _mixtures(comparison: Comparison, mixers: list[Any]) -> dict[str, Drawing]:
    """Proportions, and last Gram matrices, of single runs or of variants."""
    found: dict[str, Drawing] = {}
    moving = [run for run in mixers if "p" in run.history]
    variants = comparison.variants
    single = all(len(variant.runs) <= 1 for variant in variants)
    if (single and len(variants) <= _PANELS) or not variants:
        if moving:
            found["proportions"] = lambda: proportions_side_by_side(moving[:_PANELS])
        return found
    if moving:
        found["proportions"] = lambda: proportions_by_variant(_moving(comparison))
    tracked = [v for v in variants if any("gram" in run.history for run in v.runs)]
    if tracked and (len(tracked) > 1 or len(tracked[0].runs) > 1):
        found["grams"] = lambda: gram_by_variant(tracked)
    return found


def _moving(comparison: Comparison) -> list[Variant]:
    """Return the variants whose proportions are worth a panel, when not all have room.

    Those that move come first, the lowest loss before others; of what stays where it is,
    one variant of each mixer says all.
    """
    if len(comparison.variants) <= _SMALL:
        return list(comparison.variants)
    ground = level(comparison)
    ranked = sorted(comparison.variants, key=lambda v: ground.loss(v) or math.inf)
    moving = [v for v in ranked if _moves(v.runs[0])]
    still = list({v.mixer: v for v in reversed(ranked) if v not in moving}.values())
    room = max(_SMALL - len(still), _SMALL // 2)
    return [*moving[:room], *still][:_SMALL]


def _moves(run: RunLike) -> bool:
    p = np.asarray(run.history.get("p", np.empty((0, 0))))
    return bool(p.ndim == 2 and len(p) > 1 and np.ptp(p, axis=0).max() > 1e-9)


def _bases(comparison: Comparison) -> list[str]:
    return [v.label for v in comparison.variants if comparison.is_baseline(v)]


def _baseline_mixer(comparison: Comparison) -> str:
    for variant in comparison.variants:
        if comparison.is_baseline(variant):
            return variant.mixer
    return "Stratified"
