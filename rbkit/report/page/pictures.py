"""The figures of the page: as many as say something, each as a picture with its description."""

from __future__ import annotations

import base64
import math
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from rbkit.report.compare.level import level
from rbkit.report.compare.paired import Difference
from rbkit.report.compare.variants import Comparison, Variant
from rbkit.report.page.averaged import Averaged, side_by_side
from rbkit.report.page.frames import names_of
from rbkit.show.band_figure import loss_bands
from rbkit.show.cards import domain_sizes
from rbkit.show.choice_figure import k_choice
from rbkit.show.cost_figure import costs
from rbkit.show.curves import loss_by_domain, loss_curves
from rbkit.show.difference_figure import difference_forest
from rbkit.show.display import png, size_of
from rbkit.show.facts import RunLike, mixer_of, pairs_by_seed, same_corpus, same_machine
from rbkit.show.gram_figure import gram_over_time
from rbkit.show.mixture import proportions_side_by_side
from rbkit.show.pareto_figure import pareto
from rbkit.show.several_figure import gram_by_variant, proportions_by_variant
from rbkit.show.style import alt_text

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
    comparison: Comparison, gaps: Mapping[str, Difference | None], tracked: RunLike | None,
    domains: Any,
) -> dict[str, Drawing]:  # fmt: skip
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
            found["pareto"] = lambda: pareto(
                ground.variants, unit, baselines=_bases(comparison))  # fmt: skip
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
            variants, "eval", minus=base_of, baseline=comparison.baseline_label, baselines=bases,
        )  # fmt: skip
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
    return any(same_corpus(*pair) and all(len(run.metrics("eval")) for run in pair)
               for pair in pairs_by_seed(variant.runs, base.runs))  # fmt: skip


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
