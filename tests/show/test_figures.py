import itertools
import re
import sys
from dataclasses import dataclass, field

import matplotlib
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text

import rbkit as rb
from rbkit.show import (
    alt_text,
    cost_table,
    costs,
    domain_colours,
    domain_map,
    domain_order,
    domain_sizes,
    final_figure,
    gram,
    gram_over_time,
    k_choice,
    loss_by_domain,
    loss_curves,
    png,
    proportions,
    proportions_by_variant,
    proportions_side_by_side,
    to_cosine,
)
from rbkit.show.live.frame import frame_svg
from rbkit.show.live.snapshot import snapshot
from rbkit.train import Run

LONG = [f"{i:02d} " + "a very long name of a domain, with many terms, " * 3 for i in range(30)]


@pytest.fixture
def all_figures(runs):
    rnb = runs[-1]
    names = rnb.info["domains"]["names"]
    return {
        "eval": lambda: loss_curves(runs),
        "train": lambda: loss_curves(runs, "train"),
        "by_domain": lambda: loss_by_domain(runs),
        "proportions": lambda: proportions(rnb),
        "gram": lambda: gram(rnb.history["gram"][-1], names),
        "over_time": lambda: gram_over_time(rnb.history, names)[0],
        "sizes": lambda: domain_sizes(rnb.domains),
        "k": lambda: k_choice(rnb.domains.quality["grid"]),
        "costs": lambda: costs(runs),
    }


def test_figures_leave_no_trace_in_global_state(all_figures):
    before = dict(matplotlib.rcParams)
    for draw in all_figures.values():
        png(draw(), dpi=40)
    assert dict(matplotlib.rcParams) == before
    pyplot = sys.modules.get("matplotlib.pyplot")
    assert pyplot is None or not pyplot.get_fignums()


def test_every_figure_says_in_words_what_it_shows(all_figures):
    for name, draw in all_figures.items():
        said = alt_text(draw().get_figure())
        assert len(said) > 40, name
        assert any(c.isdigit() for c in said), name


def test_figures_draw_into_the_axes_they_are_given(runs):
    for draw in (loss_curves, loss_by_domain, costs):
        ax = Figure().subplots()
        assert draw(runs, ax=ax) is ax
    ax = Figure().subplots()
    assert proportions(runs[-1], ax) is ax


def test_the_same_figure_has_the_same_bytes(runs):
    assert png(loss_curves(runs), 50) == png(loss_curves(runs), 50)


def test_figures_of_runs_without_records_are_empty_not_errors(tmp_path, write_run):
    run = write_run(tmp_path / "run", status="failed", error="no")
    for name in ("metrics.jsonl", "history.npz"):
        (run.path / name).unlink()
    run = type(run).open(run.path)
    run.info["ledger"] = None
    for draw in (loss_curves, loss_by_domain, costs, proportions_side_by_side):
        figure = draw([run])
        assert png(figure, 40)
    assert "no history" in alt_text(proportions(run))


def test_a_run_is_never_held_against_the_baseline_of_another_seed(tmp_path, write_run):
    runs = [
        write_run(tmp_path / "a", "Stratified", 0, rounds=1),
        write_run(tmp_path / "b", "RnB", 1, rounds=1),
    ]
    assert "difference from" not in alt_text(loss_by_domain(runs))
    runs.append(write_run(tmp_path / "c", "RnB", 0, rounds=1))
    ax = loss_by_domain(runs)
    assert "difference from Stratified" in alt_text(ax)
    assert len(ax.get_legend_handles_labels()[0]) == 1


def test_a_legend_shows_the_mark_that_each_run_has(runs):
    ax = loss_by_domain(runs)
    drawn = {line.get_label(): line for line in ax.lines}
    shown = ax.get_legend()
    assert len(shown.get_texts()) > 1
    for name, mark in zip(shown.get_texts(), shown.legend_handles, strict=True):
        line = drawn[name.get_text()]
        assert (mark.get_color(), mark.get_marker()) == (line.get_color(), line.get_marker())


def test_gram_colours_are_centred_at_zero(runs):
    for G in (runs[-1].history["gram"][0], -np.eye(4), np.array([[5.0, 3.0], [3.0, 4.0]])):
        ax = gram(G, [f"d{i}" for i in range(len(G))])
        low, high = ax.images[0].get_clim()
        assert low == -high < 0
        middle = ax.images[0].get_cmap()(0.5)
        assert min(middle[:3]) > 0.95  # zero is white


def test_gram_frames_share_one_scale(runs):
    run = runs[-1]
    axes = gram_over_time(run.history, run.info["domains"]["names"], 4)
    assert len(axes) == 4
    assert len({ax.images[0].get_clim() for ax in axes}) == 1


def test_domains_without_examples_are_hatched(runs):
    G = runs[-1].history["gram"][4].copy()
    assert np.isnan(G).any()
    ax = gram(G, runs[-1].info["domains"]["names"])
    assert ax.images[0].get_array().mask.any()
    assert any(patch.get_hatch() for patch in ax.patches)


def test_the_strongest_conflict_is_named():
    G = np.array([[1.0, -0.31, 0.2], [-0.31, 1.0, 0.1], [0.2, 0.1, 1.0]])
    said = alt_text(gram(G, ["code", "recipes", "film"]).get_figure())
    assert "strongest conflict code / recipes −0.31" in said
    assert "closest pair code / film 0.20" in said


def test_similar_domains_are_put_side_by_side():
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(3, 50))
    g = np.repeat(centres, 4, axis=0) + 0.1 * rng.normal(size=(12, 50))
    mixed = rng.permutation(12)
    order = domain_order({"gram": (g[mixed] @ g[mixed].T)[None]})
    groups = (mixed[order] // 4).tolist()
    assert sorted(order) == list(range(12))
    assert sum(a != b for a, b in itertools.pairwise(groups)) == 2


def test_domains_never_seen_come_last_in_the_order():
    G = np.full((2, 4, 4), np.nan)
    G[:, 1:, 1:] = np.eye(3) + 0.1
    assert domain_order({"gram": G})[-1] == 0


def test_cosines_do_not_change_when_gradients_are_scaled():
    g = np.random.default_rng(1).normal(size=(5, 9))
    scale = np.diag([1e-6, 1.0, 3.0, 1e5, 2.0])
    np.testing.assert_allclose(to_cosine(g @ g.T), to_cosine(scale @ g @ g.T @ scale), atol=1e-9)


def _overlap(artists, figure):
    renderer = figure._get_renderer()
    # Of the text alone: an annotation would count the line that leads to it.
    boxes = [Text.get_window_extent(a, renderer) for a in artists if a.get_text()]
    return sum(
        a.overlaps(b) and min(a.y1, b.y1) - max(a.y0, b.y0) > 1.5
        for i, a in enumerate(boxes)
        for b in boxes[i + 1 :]
    )


@pytest.mark.parametrize("m", [3, 14, 30])
def test_long_domain_names_do_not_overlap(tmp_path, write_run, m):
    run = write_run(tmp_path / "run", names=LONG[:m], rounds=4)
    drawn = [
        proportions(run),
        gram(run.history["gram"][0], LONG[:m]),
        gram_over_time(run.history, LONG[:m])[0],
        loss_by_domain([run]),
        domain_sizes(run.domains),
    ]
    for ax in drawn:
        figure = ax.get_figure()
        figure.draw_without_rendering()
        assert _overlap([*ax.get_yticklabels(), *ax.texts], figure) == 0
        assert len(max((t.get_text() for t in ax.get_yticklabels()), key=len, default="")) < 40


def test_the_names_of_lines_that_end_together_do_not_overlap(runs):
    for split in ("eval", "train"):
        ax = loss_curves(runs, split)
        ax.get_figure().draw_without_rendering()
        assert len(ax.texts) == 3
        assert _overlap(ax.texts, ax.get_figure()) == 0


def test_dollars_in_a_domain_name_are_dollars(tmp_path, write_run):
    names = ["costs $5, $\\frac{", "$x$ and $y", "日本語 ☃", "ok"]
    run = write_run(tmp_path / "run", names=names, rounds=2)
    for ax in (
        proportions(run),
        loss_by_domain([run]),
        domain_sizes(run.domains),
        gram(run.history["gram"][0], run.domains.names),
    ):
        assert png(ax, 40)


def test_k_without_measurements_is_drawn_too():
    assert isinstance(k_choice([]), Axes)
    ax = k_choice([{"k": 4, "silhouette": None}, {"k": 8, "silhouette": 0.1}], chosen=8)
    assert "chosen k = 8" in alt_text(ax)


def test_the_cost_table_gives_shares_of_the_plain_steps(runs):
    rows = [row for row in cost_table(runs) if row["run"] == "RnB"]
    shares = {row["name"]: row["flops_share"] for row in rows}
    assert shares["step"] == 1.0
    assert shares["track"] == pytest.approx(1.1e9 / 2.4e12)


def test_runs_side_by_side_have_domains_in_the_same_order(runs):
    figure = proportions_side_by_side(runs)
    faces = [[c.get_facecolor()[0].tolist() for c in ax.collections] for ax in figure.axes]
    assert faces[0] == faces[1] == faces[2]


@dataclass
class Variant:
    run: Run
    label: str = "a"
    mixer: str = "RnB"
    key: tuple = ()
    runs: list = field(default_factory=list)

    def __post_init__(self):
        self.runs = [self.run]


def stripes(ax):
    """Name and colour of each layer of a stack, from the top down."""
    written = [text.get_text() for text in ax.texts]
    names = [name for name in written if name != "q" and "Gram" not in name]
    faces = [matplotlib.colors.to_hex(c.get_facecolor()[0]) for c in ax.collections]
    return dict(zip(names[::-1], faces[::-1], strict=False))


def test_a_domain_has_one_colour_whatever_the_picture_and_however_far_the_run(tmp_path, write_run):
    names = ["array", "bird", "cake", "drum", "eel"]
    colours = dict(zip(names, map(matplotlib.colors.to_hex, domain_colours(5)), strict=True))
    runs = [
        write_run(tmp_path / "interrupted", names=names, status="interrupted", rounds=1),
        write_run(tmp_path / "resumed", names=names, rounds=9, seed=3),
        write_run(tmp_path / "other", "Target", names=names, rounds=3),
    ]
    for run in runs:
        pictures = {
            "proportions": proportions(run),
            "final": final_figure(run).axes[-3 if run is runs[2] else 1],
            "frozen": next(
                ax
                for ax in rb.scrub(run, display="off").freeze(2).axes
                if "proportions" in ax.get_title(loc="left")
            ),
            "by variant": proportions_by_variant([Variant(run)]).axes[0],
        }
        order = list(stripes(pictures["proportions"]))
        for name, ax in pictures.items():
            assert stripes(ax) == colours, name
            assert list(stripes(ax)) == order, name  # one order in all of them, too
        sent = rb.scrub(run, display="live").widget.domains
        assert {d["name"]: d["colour"] for d in sent} == colours
        bars = re.findall(
            r'height="[\d.]+" fill="(#\w+)" stroke="#ffffff"', frame_svg(snapshot(run))
        )
        assert bars[::-1] == [colours[name] for name in order]
    xy = np.random.default_rng(0).normal(size=(50, 2))
    points = domain_map(xy, np.arange(50) % 5, names).collections[0].get_facecolors()
    assert {matplotlib.colors.to_hex(c) for c in points} == set(colours.values())


def test_a_rule_without_gradients_leaves_no_empty_square(runs):
    tracked, none = (final_figure(run) for run in (runs[-1], runs[0]))
    assert any(ax.images for ax in tracked.axes)
    assert not any(ax.images for ax in none.axes)
    tracked.draw_without_rendering()
    none.draw_without_rendering()
    widths = [
        next(ax for ax in figure.axes if ax.get_title(loc="left").startswith("Proportions"))
        .get_window_extent()
        .width
        for figure in (tracked, none)
    ]
    assert widths[1] > 1.8 * widths[0]
    assert "Gram matrix" in frame_svg(snapshot(runs[-1]))
    assert "Gram matrix" not in frame_svg(snapshot(runs[0]))


def test_proportions_that_were_not_recorded_are_blank_not_an_error(tmp_path, write_run):
    path = write_run(tmp_path / "late", "RnB", rounds=3).path / "history.npz"
    with np.load(path) as file:
        history = dict(file)
    history["p"] = history["p"].astype(float)
    for unknown in (slice(0, 2), slice(None)):
        history["p"][unknown] = np.nan
        np.savez(path, **history)
        assert len(png(proportions_side_by_side([Run.open(path.parent)]), 40)) > 500
        assert len(png(proportions(Run.open(path.parent)), 40)) > 500


def test_figures_of_losses_show_a_metric_in_their_place(tmp_path, write_run):
    runs = [
        write_run(tmp_path / mixer, mixer, rounds=3, names=["a", "b"], metrics={"f1": value})
        for mixer, value in (("Stratified", 0.4), ("RnB", 0.5))
    ]
    ax = loss_curves(runs, metric="f1")
    assert (ax.get_title("left"), ax.get_ylabel()) == ("f1", "f1")
    assert ax.lines[1].get_ydata()[-1] == pytest.approx(0.5)
    ax = loss_by_domain(runs, metric="f1")
    assert ax.get_xlabel() == "f1 (difference from Stratified, right is better)"
    by_domain = [run.info["final"]["metrics"]["f1"]["by_domain"] for run in runs]
    wanted = np.subtract(by_domain[1], by_domain[0])
    np.testing.assert_allclose(sorted(ax.lines[0].get_xdata()), sorted(wanted))
    best = ["a", "b"][int(np.argmax(wanted))]
    assert f"RnB: best in {best}" in alt_text(ax)
    assert "no accuracy recorded" in " ".join(
        text.get_text() for text in loss_curves(runs, metric="accuracy").texts
    )
