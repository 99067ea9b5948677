"""Texts of a figure lie apart, whatever the names and however many: titles, legends, labels."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.text import Text

import rbkit as rb
from rbkit import show
from rbkit.balance.mixers.rnb import RnB
from rbkit.regroup import KMeans
from rbkit.regroup.distances import distance_profile, far_eval
from rbkit.regroup.domains import Domains
from rbkit.regroup.drift import drift_report
from rbkit.show.style import legend_above, rbkit_style

MIXERS = ("Stratified", "Target", "RnB", "DoReMi", "SkillIt", "Proportional", "Aioli")


# ------------------------------------------------------------------------------ what is seen


def corners(text):
    """Corners of a text as it is turned, in pixels."""
    box = Text.get_window_extent(text)
    angle = text.get_rotation()
    if angle % 90 == 0:
        return np.array([(box.x0, box.y0), (box.x1, box.y0), (box.x1, box.y1), (box.x0, box.y1)])
    text.set_rotation(0)
    flat = Text.get_window_extent(text)
    text.set_rotation(angle)
    cos, sin = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
    shape = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * (flat.width / 2, flat.height / 2)
    return shape @ [[cos, sin], [-sin, cos]] + ((box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2)


def on_each_other(a, b, slack=1.5):
    """Whether two convex shapes share more than `slack` pixels: no line lies between them."""
    for shape in (a, b):
        for x, y in np.diff(np.vstack([shape, shape[:1]]), axis=0):
            across = np.array([-y, x]) / max(np.hypot(x, y), 1e-9)
            one, other = a @ across, b @ across
            if min(one.max(), other.max()) - max(one.min(), other.min()) <= slack:
                return False
    return True


def texts_in(artist):
    """Visible texts, of an axis those of the ticks that are drawn."""
    if not artist.get_visible():
        return []
    if isinstance(artist, Text):
        return [artist] if artist.get_text().strip() else []
    if isinstance(artist, Axis):
        labels = [label for tick in artist._update_ticks() for label in (tick.label1, tick.label2)]
        children = [*labels, artist.label, artist.offsetText]
    else:
        children = artist.get_children()
        if isinstance(artist, Axes) and not artist.axison:
            children = [child for child in children if not isinstance(child, Axis)]
    return [text for child in children for text in texts_in(child)]


def crowding(figure):
    """What is wrong with the texts of a figure, in words."""
    for _ in range(2):  # as when it is saved: the layout needs two passes
        figure.draw_without_rendering()
    edge = figure.get_tightbbox().transformed(figure.dpi_scale_trans).padded(3)
    texts = list({id(text): text for text in texts_in(figure)}.values())
    shapes = [corners(text) for text in texts]
    wrong = []
    for i, (text, shape) in enumerate(zip(texts, shapes, strict=True)):
        words = text.get_text()
        if text.get_fontsize() < 4.5:
            wrong.append(f"{words!r} is too small to read")
        if not (edge.containsx(shape[:, 0].min()) and edge.containsx(shape[:, 0].max())):
            wrong.append(f"{words!r} is cut")
        wrong += [
            f"{words!r} lies on {other.get_text()!r}"
            for other, place in zip(texts[:i], shapes[:i], strict=True)
            if on_each_other(shape, place)
        ]
    return wrong


# ------------------------------------------------------------------------- the figure families


@dataclass
class Variant:
    label: str
    mixer: str
    key: tuple
    runs: list


def families(write_run, folder, m, rounds):
    """Each figure of rbkit.show, of domains and variants with long names, by its name."""
    names = [f"{i:02d} a very long name of a domain, number {i}, with terms" for i in range(m)]
    runs = [write_run(folder / x, x, names=names, rounds=rounds) for x in MIXERS]
    failed = write_run(
        folder / "f", names=names, rounds=3, status="failed", error="the loss is NaN, " * 12
    )
    few, (_, target, rnb, *_) = runs[:3], runs
    variants = [
        Variant(
            f"{run.path.name}, a setting with a long name = {i}", run.path.name, (("k", i),), [run]
        )
        for i, run in enumerate(runs)
    ]
    base = variants[0].label
    gaps = [
        SimpleNamespace(label=v.label, mixer=v.mixer, values=(-0.3, 0.1), mean=-0.1, half_width=0.1)
        for v in variants
    ]
    rng = np.random.default_rng(0)
    labels = np.concatenate([np.arange(m), rng.integers(-1, m, 900)])
    xy = 5 * rng.normal(size=(m + 1, 2))[labels] + rng.normal(size=(len(labels), 2))
    sources = [f"a source with a long name {label % 11}" for label in labels]
    X = (3 * rng.normal(size=(m, 12))[labels.clip(0)] + rng.normal(size=(len(labels), 12))).astype(
        "f4"
    )
    found, fresh = KMeans(m).fit(X), X[::7] + 2
    domains = Domains(
        names,
        found.labels_,
        found.predict(fresh),
        centroids=found.cluster_centers_,
        quality={"distances": distance_profile(X, found.labels_, found.cluster_centers_)},
    )
    sizes = np.bincount(labels + 1, minlength=m + 1)[1:]
    outcome = SimpleNamespace(
        sizes_before=sizes, sizes_after=sizes + 9, policy="nearest", noise_before=90, noise_after=3
    )
    grid = rnb.domains.quality["grid"]
    more = [row | {"davies_bouldin": 2.0, "regret_bound": 1.0, "regret_exact": 0.5} for row in grid]
    drift = drift_report(domains, fresh)
    gram = np.asarray(rnb.history["gram"])[-1]
    narrow = lambda: Figure(figsize=(6, 3), layout="constrained").subplots(1, 2)[0]  # noqa: E731
    return {
        "loss_curves": lambda: show.loss_curves(runs),
        "loss_curves, training": lambda: show.loss_curves(runs, "train"),
        "loss_by_domain": lambda: show.loss_by_domain(few),
        "loss_by_domain, many": lambda: show.loss_by_domain(runs),
        "proportions": lambda: show.proportions(rnb),
        "proportions, narrow": lambda: show.proportions(rnb, narrow()),
        "proportions_side_by_side": lambda: show.proportions_side_by_side(few),
        "replays": lambda: show.replays(rnb, ["Target", RnB(lam=9, floor=0.1), "Stratified"]),
        "gram": lambda: show.gram(gram, names),
        "gram_over_time": lambda: show.gram_over_time(rnb.history, names)[0],
        "domain_sizes": lambda: show.domain_sizes(rnb.domains),
        "k_choice": lambda: show.k_choice(more),
        "k_choice, one": lambda: show.k_choice(grid[:1]),
        "domain_map": lambda: show.domain_map(xy, labels, names, eval_coordinates=xy[::9]),
        "gram_on_map": lambda: show.gram_on_map(rnb, xy, labels, focus=1),
        "crosstab": lambda: show.crosstab(sources, labels, names),
        "size_effect": lambda: show.size_effect(outcome, names),
        "eval_distances": lambda: show.eval_distances(domains, far_eval(domains, fresh)),
        "drift": lambda: show.drift(drift),
        "costs": lambda: show.costs(few),
        "costs, many": lambda: show.costs(runs),
        "final": lambda: show.final_figure(rnb),
        "final, no Gram matrix": lambda: show.final_figure(target),
        "final, failed": lambda: show.final_figure(failed),
        "scrubber": lambda: rb.scrub(rnb, target, display="off").freeze(n=4),
        "loss_bands": lambda: show.loss_bands(variants),
        "loss_bands, minus": lambda: show.loss_bands(
            variants, minus=lambda _: variants[0], baseline=base, baselines={base}
        ),
        "difference_forest": lambda: show.difference_forest(gaps, baseline=base),
        "pareto": lambda: show.pareto(variants),
        "gram_by_variant": lambda: show.gram_by_variant(variants),
        "proportions_by_variant": lambda: show.proportions_by_variant(variants),
        "proportions_by_variant, one": lambda: show.proportions_by_variant(variants[:1]),
    }


def figure_of(drawn):
    return drawn if isinstance(drawn, Figure) else drawn.get_figure(root=True)


@pytest.mark.slow
@pytest.mark.parametrize(("m", "rounds"), [(2, 1), (14, 3), (60, 2)])
def test_no_text_lies_on_another_nor_is_cut(tmp_path, write_run, m, rounds):
    wrong = {}
    for name, draw in families(write_run, tmp_path, m, rounds).items():
        if found := crowding(figure_of(draw())):
            wrong[name] = found[:3]
    assert wrong == {}


@pytest.mark.parametrize(
    "title", ["Loss", "A title that is as wide as the axes themselves, and more"]
)
@pytest.mark.parametrize("entries", [1, 3, 9])
def test_a_legend_stands_on_the_line_of_the_title_only_where_both_have_room(title, entries):
    with rbkit_style():
        ax = Figure(figsize=(5, 3), layout="constrained").subplots()
        for i in range(entries):
            ax.plot([0, 1], [i, 1], label=f"entry number {i} of the legend")
        ax.set_title(title)
        legend_above(ax)
    assert crowding(ax.figure) == []
    assert ax.get_legend().get_window_extent().y0 >= ax.get_window_extent().y1 - 1


def test_powers_of_ten_are_drawn_as_such():
    with rbkit_style():
        ax = Figure().subplots()
        ax.loglog([1, 1e6], [1, 1e6])
        show.png(ax, 40)
    assert all(tick.get_parse_math() for tick in ax.get_xticklabels())
