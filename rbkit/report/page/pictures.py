"""The pictures of the page: small ones in its tables, and as many figures as say something."""

from __future__ import annotations

import base64
import io
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import matplotlib
import numpy as np
from markupsafe import escape

from rbkit.report.compare.paired import Difference
from rbkit.report.compare.variants import Comparison, Variant, comparable, with_seeds
from rbkit.show.facts import (
    Array,
    Measure,
    domain_names,
    loss_unit,
    metric_names,
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
from rbkit.show.gram_layout import blocks, common_scale, domain_order, to_cosine
from rbkit.show.style import alt_text, png, size_of, without_glyph_warnings
from rbkit.text import number, script_json, visible
from rbkit.train.run import Run

# ------------------------------------------------------------------------ pictures in tables
#
# A few hundred bytes each, and without a style attribute: the page's policy forbids those.

_WIDTH, _HEIGHT, _POINTS = 96, 26, 24  # of a sparkline
_LEVELS = 63  # colours of a thumbnail; odd: zero has a colour of its own
_MOST_ROWS = 36  # of a thumbnail; of more domains, neighbours are averaged


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
    """Draw a curve without NaN as inline SVG, on scales that all curves of a table share.

    What lies above `high` is cut off. The `title` is for those who do not see the curve; it is
    escaped here.
    """
    if not len(values):
        return ""
    keep = np.unique(np.linspace(0, len(values) - 1, min(_POINTS, len(values))).astype(int))
    x = 3 + (_WIDTH - 6) * np.asarray(steps, dtype=np.float64)[keep] / max(last_step, 1e-9)
    share = (np.asarray(values, dtype=np.float64)[keep] - low) / max(high - low, 1e-9)
    y = 3 + (_HEIGHT - 6) * (1 - np.clip(share, 0, 1))
    points = " ".join(f"{a:.4g},{b:.3g}" for a, b in zip(x, y, strict=True))
    return (
        f'<svg class="spark" width="{_WIDTH}" height="{_HEIGHT}" '
        f'viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img"><title>{escape(title)}</title>'
        f'<polyline points="{points}" fill="none" stroke="{_hex(colour)}" stroke-width="1.6"/>'
        f'<circle cx="{x[-1]:.4g}" cy="{y[-1]:.3g}" r="2.2" fill="{_hex(colour)}"/></svg>'
    )


def thumbnail(cosine: Array, scale: float = 1.0) -> str:
    """Draw cosines (m, m) as a PNG of one pixel per cell, under 1.5 kB, in a ``data:`` address.

    Blue to red at `scale`, white at 0, grey where nothing was observed.
    """
    from PIL import Image

    groups = np.array_split(np.arange(len(cosine)), min(len(cosine), _MOST_ROWS))
    cells = blocks(np.asarray(cosine, dtype=np.float64), groups)
    known = np.isfinite(cells)
    level = np.rint((np.clip(np.where(known, cells, 0.0) / scale, -1, 1) + 1) / 2 * (_LEVELS - 1))
    image = Image.fromarray(np.where(known, level, _LEVELS).astype(np.uint8))
    ramp = matplotlib.colormaps["RdBu_r"](np.linspace(0, 1, _LEVELS))[:, :3]
    image.putpalette([*np.rint(255 * ramp).astype(int).ravel().tolist(), 217, 222, 227])
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return _png_address(buffer.getvalue())


def swatch(colour: str) -> str:
    """Draw a patch of colour that stands before a name."""
    return (
        '<svg class="swatch" width="12" height="12" aria-hidden="true">'
        f'<rect width="12" height="12" rx="3" fill="{_hex(colour)}"/></svg>'
    )


def bar(share: float, kind: str) -> str:
    """Draw a horizontal bar of the class `kind`, `share` (0 to 1) of its room long."""
    width = 100 * float(np.clip(np.nan_to_num(share), 0.004, 1))
    return (
        f'<svg class="bar {kind}" height="10" viewBox="0 0 100 10" preserveAspectRatio="none" '
        f'aria-hidden="true"><rect width="{width:.1f}" height="10"/></svg>'
    )


def _hex(colour: str) -> str:
    # Colours are ours, but one of them might once come from a file.
    return matplotlib.colors.to_hex(colour)


def _png_address(image: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(image).decode("ascii")


# ------------------------------------------------------------------- rounds of the scrubber

# Rounds that the page carries; fewer of large matrices, which would fill it.
_FRAMES, _CELLS = 40, 40_000


def frames(run: Run) -> str:
    """Gram matrices and proportions of a run as JSON that is safe inside a script element.

    Returns
    -------
    str
        ``names`` in the order of similarity, ``q``, ``rounds``, ``scale`` of both kinds, and
        ``frames``: of up to 40 rounds ``step``, ``round``, the lower triangle ``g`` and the
        proportions ``next`` that it led to.
    """

    def rounded(values: np.ndarray[Any, Any]) -> list[float | None]:
        return [float(f"{v:.4g}") if np.isfinite(v) else None for v in values.ravel()]

    history, q, names = run.history, target(run), names_of(run)
    grams = np.asarray(history["gram"], dtype=np.float64)
    order = domain_order(history)
    m = grams.shape[-1]
    count = int(np.clip(_CELLS // (m * (m + 1) // 2), 4, _FRAMES))
    keep = np.unique(np.linspace(0, len(grams) - 1, min(count, len(grams))).astype(int))
    triangle = tuple(order[index] for index in np.tril_indices(m))
    p = np.asarray(history["p"], dtype=np.float64)[:, order]
    steps = np.asarray(history["step"])[-len(grams) :]
    content = {
        "names": [visible(names[i]) for i in order],
        "q": rounded(q[order]) if q is not None and len(q) == m else None,
        "rounds": len(grams),
        "frames": [
            {
                "step": int(steps[t]),
                "round": int(t) + 1,
                "g": rounded(grams[t][triangle]),
                "next": rounded(p[min(t + 1, len(p) - 1)]),
            }
            for t in keep
        ],
        "scale": {"raw": common_scale(grams), "cosine": common_scale(to_cosine(grams))},
    }
    return script_json(content)


def names_of(run: Run) -> list[str]:
    """Names of the domains, or numbers where the names do not fit the history."""
    names = domain_names(run)
    m = np.asarray(run.history["p"]).shape[-1] if "p" in run.history else len(names)
    return names if len(names) == m else [f"domain {i}" for i in range(m)]


# ------------------------------------------------------------------------------- figures

_MOST_METRICS = 4  # with curves on the page
_LOSS = Measure()
_LINES = 8  # runs that one pair of axes can hold
_PANELS = 4  # panels that fit side by side
_PAD = 0.06  # inches that a saved figure has around it
_SMALL_PANELS = 12  # and small ones, in rows

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
        "src": _png_address(image),
        "alt": alt_text(figure),
        "width": round(width / 1.8),
        "height": round(height / 1.8),
        "points": _points(figure),
    }


_MOST_OF_A_LINE, _MOST_POINTS = 25, 250  # values that can be read by pointing at them


def _points(figure: Any) -> list[dict[str, Any]]:
    """Return the marks of a figure, in thousandths of the picture, and in words what they are."""
    with without_glyph_warnings():
        frame = figure.get_tightbbox().padded(_PAD)  # as it is cut when it is saved
    points = []
    for ax in (ax for whole in figure.axes for ax in (whole, *whole.child_axes)):
        labels = {round(t.get_position()[1]): t.get_text() for t in ax.get_yticklabels()}
        rows = labels if any(map(str.isalpha, "".join(labels.values()))) else {}  # of names
        unit = re.split(r" \(|;|\n", ax.get_xlabel())[0]
        for line in ax.lines:
            if line.get_marker() in (None, "None", "", " ", "|"):
                continue
            name = "" if str(line.get_label()).startswith("_") else f"{line.get_label()}: "
            xy = np.asarray(line.get_xydata(), dtype=np.float64)
            xy = xy[:: -(-len(xy) // _MOST_OF_A_LINE) or 1]
            for (x, y), at in zip(xy, ax.transData.transform(xy) / figure.dpi, strict=True):
                if not np.isfinite(at).all() or not ax.viewLim.contains(x, y):
                    continue
                what = f"{unit} {x:g}, {number(y)}"
                if rows:
                    what = f"{rows.get(round(y), '')} {number(x)}"
                left, top = (at[0] - frame.x0) / frame.width, 1 - (at[1] - frame.y0) / frame.height
                here = {"x": f"{1000 * left:.0f}", "y": f"{1000 * top:.0f}"}
                points.append(here | {"text": visible(f"{name}{what}")})
    return points[:_MOST_POINTS]


def drawings(
    comparison: Comparison,
    gaps: Mapping[str, Difference | None],
    tracked: Run | None,
    domains: Any,
) -> dict[str, Drawing]:
    """Return what is to be drawn, by the name that the template uses.

    `tracked` is the run whose Gram matrices are shown over time.
    """
    runs = [run for run in comparison.runs if run.status == "ok"]
    runs = runs or [run for run in comparison.runs if run.status != "queued"]
    drawn = _loss_drawings(comparison, runs)
    if len(comparison.variants) > 1:
        paired = [gap for gap in gaps.values() if gap is not None]
        if paired:
            drawn["forest"] = lambda: difference_forest(
                paired,
                baseline=comparison.baseline_label,
                unit=loss_unit(runs),
                **_by_measure(comparison),
            )
        means = comparable(comparison)
        if means.same_seeds and len(means.variants) > 1:
            unit: Any = "seconds" if _one_machine(comparison) else "flops"
            drawn["pareto"] = lambda: pareto(
                means.variants, unit, baselines=_bases(comparison), **_by_measure(comparison)
            )
    one_per_mixer = list({mixer_of(run): run for run in reversed(runs)}.values())[::-1]
    drawn["costs"] = lambda: costs(one_per_mixer[:_LINES])
    drawn |= _mixture_drawings(comparison, one_per_mixer)
    if tracked is not None:
        names, history = names_of(tracked), tracked.history
        # Fewer and larger panels where there are many names to read.
        panels = 5 if len(names) <= 16 else 4 if len(names) <= 24 else 3
        drawn["gram"] = lambda: gram_over_time(history, names, panels)[0]
    if domains is not None:
        drawn["sizes"] = lambda: domain_sizes(domains)
        if len(domains.quality.get("grid") or ()) > 1:  # else k was given, and not chosen
            drawn["k"] = lambda: k_choice(domains.quality["grid"], chosen=len(domains.names))
    return drawn


def _loss_drawings(comparison: Comparison, runs: list[Run]) -> dict[str, Drawing]:
    """Curves of single runs while they are few, else means and bands over seeds."""
    drawn: dict[str, Drawing] = {}
    variants, bases = comparison.variants, _bases(comparison)
    metrics = metric_names(comparison.runs)[:_MOST_METRICS]
    shown = comparable(comparison).variants
    alone = [run for variant in shown for run in variant.runs] or runs
    few = len(alone) <= _LINES and _single(variants) and set(comparison.varied) <= {"mixer"}
    if runs and few:
        drawn["eval"] = lambda: loss_curves(alone, "eval")
        drawn["train"] = lambda: loss_curves(alone, "train")
        for name in metrics:
            drawn[f"metric {name}"] = partial(loss_curves, alone, metric=name)
    elif shown:
        drawn["eval"] = lambda: loss_bands(shown, "eval", baselines=bases)
        drawn["train"] = lambda: loss_bands(shown, "train", baselines=bases)
        for name in metrics:
            drawn[f"metric {name}"] = partial(loss_bands, shown, metric=name, baselines=bases)
    if any(_has_gap(variant, comparison) for variant in variants):
        minus: Any = comparison.baseline_of  # of our Variant; the figure takes any like it
        label = comparison.baseline_label
        drawn["gap"] = lambda: loss_bands(
            variants,
            "eval",
            minus=minus,
            baseline=label,
            baselines=bases,
            **_by_measure(comparison),
        )
    if with_domains := side_by_side(comparison, _LINES):
        baselines = [v.mixer for v in variants if comparison.is_baseline(v)] or ["Stratified"]
        means = [mean_by_domain(variant, comparison.measure) for variant in with_domains]
        drawn["by_domain"] = lambda: loss_by_domain(means, baselines[0], **_by_measure(comparison))
    return drawn


def _by_measure(comparison: Comparison) -> dict[str, Any]:
    """Return the options by which figures show what the comparison is by."""
    measure = comparison.measure
    if measure.metric is None:
        return {}
    return {"metric": measure.metric, "higher_is_better": measure.higher_is_better}


def _mixture_drawings(comparison: Comparison, one_per_mixer: list[Run]) -> dict[str, Drawing]:
    """Proportions, and last Gram matrices, of single runs or of variants."""
    drawn: dict[str, Drawing] = {}
    with_p = [run for run in one_per_mixer if "p" in run.history]
    variants = comparison.variants
    if (_single(variants) and len(variants) <= _PANELS) or not variants:
        if with_p:
            drawn["proportions"] = lambda: proportions_side_by_side(with_p[:_PANELS])
        return drawn
    if with_p:
        drawn["proportions"] = lambda: proportions_by_variant(_worth_a_panel(comparison))
    tracked = [v for v in variants if any("gram" in run.history for run in v.runs)]
    if tracked and (len(tracked) > 1 or len(tracked[0].runs) > 1):
        drawn["grams"] = lambda: gram_by_variant(tracked)
    return drawn


def _single(variants: Sequence[Variant]) -> bool:
    return all(len(variant.runs) <= 1 for variant in variants)


def _has_gap(variant: Variant, comparison: Comparison) -> bool:
    """Whether a curve of the variant can be compared with the baseline's."""
    base = comparison.baseline_of(variant)
    if base is None or base is variant:
        return False
    return any(
        same_corpus(*pair) and all(len(comparison.measure.series(run)[0]) for run in pair)
        for pair in pairs_by_seed(variant.runs, base.runs)
    )


def _one_machine(comparison: Comparison) -> bool:
    first, *others = [run for variant in comparison.variants for run in variant.runs]
    return all(same_machine(first, other) for other in others)


def _bases(comparison: Comparison) -> list[str]:
    return [v.label for v in comparison.variants if comparison.is_baseline(v)]


def _worth_a_panel(comparison: Comparison) -> list[Variant]:
    """Return the variants whose proportions are worth a panel, when not all have room.

    Those that move come first, the lowest loss before others; of what stays where it is,
    one variant of each mixer shows all.
    """

    def moves(run: Run) -> bool:
        p = np.asarray(run.history.get("p", np.empty((0, 0))))
        return bool(p.ndim == 2 and len(p) > 1 and np.ptp(p, axis=0).max() > 1e-9)

    if len(comparison.variants) <= _SMALL_PANELS:
        return list(comparison.variants)
    means = comparable(comparison)
    ranked = sorted(comparison.variants, key=means.cost)
    moving = [v for v in ranked if moves(v.runs[0])]
    still = list({v.mixer: v for v in reversed(ranked) if v not in moving}.values())
    room = max(_SMALL_PANELS - len(still), _SMALL_PANELS // 2)
    return [*moving[:room], *still][:_SMALL_PANELS]


def side_by_side(comparison: Comparison, most: int) -> list[Variant]:
    """Return one variant of each mixer, all else being equal, the lowest loss among them.

    Losses by domain compare only where domains and texts are the same, so every other setting
    is held at its value in the variant with the lowest mean loss. Each variant has only the
    runs of those seeds that all of them have with the same domains.
    """
    means = comparable(comparison)
    by_domain = comparison.measure.by_domain
    finished = [v for v in means.variants if by_domain(v.runs[0]).size]
    if not finished:
        return []
    best = min(finished, key=lambda v: (comparison.is_baseline(v), means.cost(v)))
    names = domain_names(best.runs[0])

    def same_domains(variant: Variant) -> set[str]:
        """Seeds whose run has values of the domains that `best` has first."""
        return {
            seed_of(run)
            for run in variant.runs
            if domain_names(run) == names and by_domain(run).size == len(names)
        }

    held = best.values
    for name in ("mixer", "mixer_options"):
        held.pop(name, None)
    chosen: dict[str, Variant] = {}
    for variant in sorted(finished, key=means.cost):
        if held.items() <= variant.values.items() and same_domains(variant):
            chosen.setdefault(variant.mixer, variant)
    shown = [v for v in means.variants if v in list(chosen.values())[:most]]
    shared = set.intersection(*map(same_domains, shown))
    return [with_seeds(variant, shared) for variant in shown] if shared else []


def mean_by_domain(variant: Variant, measure: Measure = _LOSS) -> Run:
    """Return a run whose final values by domain are the means over the variant's seeds."""
    first = variant.runs[0]
    by_domain = np.array([measure.by_domain(run) for run in variant.runs])
    overall = [value for run in variant.runs if (value := measure.final(run)) is not None]
    means = by_domain.mean(axis=0) if by_domain.size else by_domain.ravel()
    mean = float(np.mean(overall)) if overall else None
    each = [float(v) if np.isfinite(v) else None for v in means]
    final: dict[str, Any] = {"loss_token": mean, "by_domain_token": each}
    if measure.metric is not None:
        final = {"metrics": {measure.metric: {"value": mean, "by_domain": each}}}
    parameters = {**(first.info.get("parameters") or {}), "mixer": variant.mixer, "seed": None}
    info = {**first.info, "final": final, "parameters": parameters}
    return first.with_(info=info, history={}, metrics=[], domains=None, status="ok")
