"""The figure over k: a panel for each criterion, the choice through all, the verdict on top."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rbkit.show import alt_text, k_choice, png
from rbkit.show.figures.domains import thinned
from rbkit.train.k_sweep import compare_losses

KS = (2, 5, 8, 12, 16, 20, 25, 30, 40)


def full_grid(ks=KS, at=12, stability_at=12):
    """Rows with all columns, best at `at` by all but stability."""
    losses = 2.8 + 0.01 * np.abs(np.log(np.array(ks) / at))[:, None] + [[0.0, 0.1, 0.2]]
    losses += 0.001 * np.random.default_rng(0).normal(size=losses.shape)
    rows = []
    for k, loss in zip(ks, compare_losses(losses), strict=True):
        far, off = abs(np.log(k / at)), abs(np.log(k / stability_at))
        rows.append(
            {
                "k": k,
                "silhouette": 0.4 - 0.1 * far,
                "silhouette_sd": 0.01,
                "stability_ari": 0.9 - 0.2 * off,
                "stability_ari_sd": 0.02,
                "davies_bouldin": 2 + far,
                "davies_bouldin_sd": 0.1,
                "regret_bound": 1 + far / 3,
                "regret_bound_sd": 0.05,
                "regret_exact": 0.4 + far / 9,
                "gradient_regret_bound": 1.2,
                "gradient_regret_exact": 0.5,
                "smallest_domain": 4000 // k**2 + 1,
                "inertia": 9.0,
                **loss,
            }
        )
    return rows


def texts(ax):
    """Texts that are seen, with their places, in pixels."""
    ax.get_figure(root=True).draw_without_rendering()
    found = [ax.title, ax._left_title, *ax.texts]
    for panel in ax.child_axes:
        found += [*panel.texts, panel.xaxis.label]
        for axis in (panel.xaxis, panel.yaxis):  # without the ticks beyond the limits
            found += [tick.label1 for tick in axis._update_ticks() if tick.label1.get_visible()]
    return [(t.get_text(), t.get_window_extent()) for t in found if t.get_text()]


@pytest.mark.parametrize(
    ("grid", "ax"),
    [
        (full_grid(), None),
        (full_grid(stability_at=40), None),
        (full_grid(ks=tuple(range(2, 60))), None),
        (full_grid(ks=(5, 10, 20, 50, 100, 200, 500, 1000)), None),
        (full_grid(), Figure(figsize=(4.6, 12), layout="constrained").subplots()),
        ([{"k": 5, "silhouette": 0.1}, {"k": 9, "silhouette": 0.3}], None),
    ],
)
def test_no_text_lies_on_another_or_outside(grid, ax):
    ax = k_choice(grid, ax)
    found = texts(ax)
    for (one, box), (two, other) in itertools.combinations(found, 2):
        assert not box.shrunk(0.98, 0.8).overlaps(other.shrunk(0.98, 0.8)), (one, two)
    width, height = ax.get_figure(root=True).canvas.get_width_height()
    for text, box in found:
        assert box.x0 >= -1, text
        assert box.x1 <= width + 1, text
        assert box.y0 >= -1, text
        assert box.y1 <= height + 1, text


def test_every_criterion_has_a_panel_that_names_its_best_k():
    ax = k_choice(full_grid(stability_at=40), rule="silhouette")
    assert len(ax.child_axes) == 7
    said = [text for text, _ in texts(ax)]
    assert said.count("best: k = 12") == 4
    assert said.count("best: k = 40") == 1
    assert said.count("best: k = 2") == 2  # smallest domain; of equals the smaller k
    assert sum("higher is better" in text for text in said) == 3
    assert sum("lower is better" in text for text in said) == 4


def test_the_choice_is_a_line_through_all_panels():
    ax = k_choice(full_grid(), chosen=16)
    for panel in ax.child_axes:
        assert [16, 16] in [list(line.get_xdata()) for line in panel.lines]
    limits = {panel.get_xlim() for panel in ax.child_axes}
    assert len(limits) == 1
    assert "dashed: k = 16" in ax.child_axes[-1].get_xlabel()


@pytest.mark.parametrize(
    ("grid", "chosen", "title", "words"),
    [
        (full_grid(), 12, "12 is clear", "are best at or near k = 12"),
        (full_grid(stability_at=40), 12, "12, but the criteria disagree", "stability (ARI) at 40"),
        (
            [{"k": k, "silhouette": 0.03 + k * 1e-5} for k in KS],
            40,
            "40, but the curve is too flat to choose by",
            "Too flat to choose by: the silhouette",
        ),
        ([{"k": 7, "silhouette": 0.03}], 7, "only 7 was tried", "Only k = 7 was tried"),
    ],
)
def test_the_title_says_the_verdict_and_the_alternative_text_all_of_it(grid, chosen, title, words):
    ax = k_choice(grid, chosen=chosen)
    assert ax.get_title(loc="left") == f"Choice of k: {title}"
    alt = alt_text(ax.get_figure())
    assert words in alt
    assert f"chosen k = {chosen}" in alt
    assert "best at k =" in alt or len(grid) == 1


def test_the_loss_leads_where_there_was_training():
    rows = full_grid(at=20, stability_at=20)
    assert "Choice of k: 20" in k_choice(rows).get_title(loc="left")
    for row in rows:
        row["loss"] = row["k"] / 100
    assert "Choice of k: 2," in k_choice(rows).get_title(loc="left")
    assert "Choice of k: 20," in k_choice(rows, rule="silhouette").get_title(loc="left")


def test_uncertainty_is_drawn_where_it_is_known():
    *panels, loss = k_choice(full_grid()).child_axes
    assert [bool(panel.collections) for panel in panels] == [True, True, True, True, False, False]
    bars = loss.lines[0].get_ydata()
    best = min(row["loss"] for row in full_grid())
    assert bars[0] == pytest.approx(best + full_grid()[0]["gap_low"])
    assert len(bars) == 3 * (len(KS) - 1)


def test_old_and_broken_rows_are_drawn_too():
    assert isinstance(k_choice([]), Axes)
    ax = k_choice([{"k": 4, "silhouette": None}, {"k": 8, "silhouette": 0.1}], chosen=8)
    assert len(ax.child_axes) == 1
    ax = k_choice([{"k": 4, "silhouette": None}, {"k": 8, "stability_ari": float("nan")}])
    assert ax.child_axes == []
    assert "nothing measured" in alt_text(ax)
    assert png(ax)


def test_it_draws_into_the_axes_it_is_given():
    first, second = Figure(layout="constrained").subplots(1, 2)
    assert k_choice(full_grid(), first) is first
    assert second.child_axes == []


def test_labels_of_k_keep_a_distance_and_the_chosen_one_is_always_there():
    kept = thinned(list(range(2, 200)), 101, np.asarray)
    assert {2, 101, 199} <= set(kept)
    assert np.diff(kept).min() >= 0.045 * 197
    assert thinned([5], 5, np.log) == [5]
