"""Figures of several variants: what they draw is what the runs say, and they say it in words."""

from dataclasses import dataclass, field

import numpy as np
import pytest

from rbkit.show import (
    alt_text,
    difference_forest,
    gram_by_variant,
    loss_bands,
    pareto,
    proportions_by_variant,
)
from rbkit.show.facts import spent
from rbkit.show.figures.compare import named_variants, variant_styles
from rbkit.train import Run

STEPS = (0, 50, 100)


def rows(losses, kinds=("train", "eval")):
    return [
        {"kind": kind, "step": s, "loss_token": v, "loss": v}
        for kind in kinds
        for s, v in zip(STEPS, losses, strict=False)
    ]


def run(losses=(9.0, 5.0, 4.0), seed=0, seconds=10.0, names="abc", tracked=True, entries=()):
    """A run in memory, with a curve through `losses`."""
    m = len(names)
    history = {"p": np.full((3, m), 1 / m), "step": np.array([50, 100])}
    if tracked:
        history["gram"] = np.tile(np.eye(m) + 0.5, (2, 1, 1))
    step = {"name": "step", "seconds": seconds, "flops_counted": 1000 * seconds, "calls": 100}
    info = {
        "parameters": {"mixer": "RnB", "seed": seed},
        "domains": {"names": list(names)},
        "final": {"loss_token": losses[-1]},
        "ledger": {"entries": [step, *entries]},
    }
    return Run.follow("run").with_(
        status="ok", history=history, domains=None, metrics=rows(losses), info=info
    )


@dataclass
class Variant:
    label: str
    mixer: str = "RnB"
    key: tuple = ()
    runs: list = field(default_factory=lambda: [run()])


def many(n):
    return [
        Variant(
            f"k {i}",
            key=(("k", i),),
            runs=[run((9.0, 5.0, 4.0 + i / 100), s, 10 + i) for s in range(2)],
        )
        for i in range(n)
    ]


def texts(ax):
    return [text.get_text() for text in ax.texts]


FIGURES = [
    loss_bands,
    lambda variants: loss_bands(variants, "train"),
    lambda variants: loss_bands(variants, minus=lambda variant: None),
    pareto,
    gram_by_variant,
    proportions_by_variant,
]


def figure_of(drawn):
    return drawn.get_figure(root=True) if hasattr(drawn, "get_figure") else drawn


@pytest.mark.parametrize("draw", FIGURES)
@pytest.mark.parametrize(
    "variants",
    [[], [Variant("RnB")], [Variant("RnB", runs=[])], many(14)],
    ids=["none", "one", "no runs", "many"],
)
def test_every_figure_can_be_drawn_of_anything_and_is_described(draw, variants):
    drawn = draw(variants)
    figure_of(drawn).canvas.draw()
    assert len(alt_text(drawn)) > 20


def test_the_line_is_the_mean_and_the_band_spans_the_seeds():
    runs = [run((9.0, 5.0, end), seed) for seed, end in enumerate((4.0, 4.1, 4.5))]
    ax = loss_bands([Variant("RnB", runs=runs)])
    lines = {tuple(np.round(line.get_ydata(), 6)) for line in ax.lines}
    assert {(9.0, 5.0, 4.2), (9.0, 5.0, 4.0), (9.0, 5.0, 4.5)} == lines
    assert "RnB ends at 4.200 (seeds 4.000 to 4.500)" in alt_text(ax)
    assert "mean and range over 3 seeds" in alt_text(ax)


def test_runs_that_end_early_do_not_bend_the_mean():
    short = run().with_(metrics=rows((8.0, 8.0)))
    ax = loss_bands([Variant("RnB", runs=[run(), short])])
    assert list(ax.lines[-1].get_xdata()) == [0, 50]


def test_rows_that_make_no_sense_are_left_out():
    nonsense = [{"step": "x", "loss_token": 1.0}, {"loss_token": 1.0}]
    nonsense.append({"step": 200, "loss_token": True})
    more = [{"kind": "eval", **row} for row in nonsense]
    odd = run().with_(metrics=[*run().metrics("eval"), *more])
    assert "RnB ends at 4.000." in alt_text(loss_bands([Variant("RnB", runs=[odd])]))


def test_differences_are_paired_by_seed():
    base = Variant("Stratified", "Stratified", runs=[run((9, 5, 4 + s), s) for s in (0, 1, 2)])
    ours = Variant("RnB", runs=[run((9, 5, 3.5 + s), s) for s in (1, 2, 7)])
    ax = loss_bands(
        [base, ours], minus=lambda _: base, baseline="Stratified", baselines=["Stratified"]
    )
    assert "RnB ends at −0.500 (seeds −0.500 to −0.500)" in alt_text(ax)
    assert "Stratified ends" not in alt_text(ax)


def test_losses_on_other_corpora_are_not_subtracted():
    base, other = Variant("base", runs=[run()]), Variant("other", runs=[run()])
    base.runs[0].info["corpus"], other.runs[0].info["corpus"] = (
        {"fingerprint": "a"},
        {"fingerprint": "b"},
    )
    ax = loss_bands([base, other], minus=lambda _: base, baselines=["base"])
    assert "nothing to compare" in texts(ax)


def test_a_single_record_is_a_point():
    one = run().with_(metrics=[{"kind": "train", "step": 8, "loss": 5.0}])
    markers = [line.get_marker() for line in loss_bands([Variant("a", runs=[one])], "train").lines]
    assert markers == ["o"] or all(marker not in ("", "None") for marker in markers)


def test_of_very_many_variants_the_best_the_worst_and_a_baseline_are_named():
    variants = many(20)
    named = named_variants(variants, {"k 7", "k 9"})
    assert [v.label for v, shown in zip(variants, named, strict=True) if shown] == [
        "k 0",
        "k 1",
        "k 2",
        "k 7",
        "k 19",
    ]
    assert all(named_variants(variants[:12], ()))
    ax = loss_bands(variants, baselines={"k 7"})
    assert {"k 0", "k 7", "k 19"} < set(texts(ax))
    assert "15 other variants are grey" in alt_text(ax)


def test_a_mixer_keeps_its_colour_and_the_rest_shows_in_the_line_style():
    grid = [
        Variant(f"{mixer} {k}", mixer, (("mixer", mixer), ("k", k)))
        for mixer in ("RnB", "Target")
        for k in (10, 30)
    ]
    a, b, c, d = variant_styles(grid)
    assert (a.ink, a.marker) == (b.ink, b.marker) != (c.ink, c.marker)
    assert a.line == c.line != b.line == d.line
    assert len({style.colour for style in variant_styles(many(4))}) == 4


def test_options_of_its_own_do_not_make_a_mixer_pale():
    key = (("mixer", "RnB"), ("mixer_options", (("lam", 2.0),)))
    variants = [
        Variant("ADO", "ADO", (("mixer", "ADO"), ("mixer_options", ()))),
        Variant("RnB", "RnB", key),
    ]
    assert [style.line for style in variant_styles(variants)] == ["-", "-"]
    assert [style.colour == style.ink.lower() for style in variant_styles(variants)] == [True, True]


@dataclass
class Gap:
    label: str
    values: tuple
    mean: float
    half_width: float | None
    mixer: str = "RnB"


def test_a_filled_mark_is_told_apart_and_a_hollow_one_is_not():
    gaps = [
        Gap("k 10", (-0.3, -0.1), -0.2, 0.1),
        Gap("k 30", (-0.3, 0.3), 0.0, 0.4),
        Gap("k 50", (-0.1,), -0.1, None),
    ]
    ax = difference_forest(gaps, baseline="Stratified")
    means = [line for line in ax.lines if len(line.get_xdata()) == 1]
    assert [line.get_markerfacecolor() == "white" for line in means] == [False, True, True]
    said = alt_text(ax)
    assert "k 10 −0.200 (−0.300 to −0.100)" in said
    assert "k 30 0.000 (−0.400 to 0.400, not told apart)" in said
    assert "k 50 −0.100 (one pair)" in said


def test_the_forest_groups_by_mixer_and_leaves_out_the_middle():
    gaps = [
        Gap(f"{mixer} {i}", (i,), i + start, None, mixer)
        for i in range(30)
        for mixer, start in (("RnB", 0.5), ("ADO", 0.0))
    ]
    ax = difference_forest(gaps)
    rows = [label.get_text() for label in ax.get_yticklabels()]
    assert len(rows) == 40
    assert rows == sorted(rows, key=lambda row: row.split()[0])
    assert "20 rows in the middle are left out" in alt_text(ax)
    assert alt_text(difference_forest([])).endswith("nothing to compare.")


def test_the_front_joins_those_that_nothing_beats_in_both():
    variants = [
        Variant("cheap", runs=[run((9, 5, 4.5), seconds=5)]),
        Variant("good", runs=[run((9, 5, 4.0), seconds=9)]),
        Variant("neither", runs=[run((9, 5, 4.6), seconds=8)]),
    ]
    ax = pareto(variants)
    assert "Not beaten in both: cheap (5 s, 4.500), good (9 s, 4.000)." in alt_text(ax)
    assert {"cheap", "good", "neither"} <= set(texts(ax))
    assert "FLOPs" in pareto(variants, "flops").get_xlabel()
    variants[0].runs[0].info["ledger"]["entries"][0]["seconds"] = 0.1
    assert pareto(variants).get_xscale() == "log"


def test_what_a_rule_added_is_part_of_the_cost():
    extra = [
        {"name": "track", "seconds": 1.0, "flops_counted": 50},
        {"name": "reference_run", "seconds": 4.0, "flops_modelled": 700},
        {"name": "eval", "seconds": 99.0, "flops_counted": 99},
        {"name": "mixer", "seconds": 1.0, "flops_counted": None},
    ]
    price = spent(run(entries=extra), "seconds")
    assert (price.before, price.total, price.at(0.5)) == (4.0, 16.0, 10.0)
    assert spent(run(entries=extra), "flops").total == 10_750
    assert spent(run(seconds=0.0), "seconds") is None
    nobody_counted = [{"name": "gram", "seconds": 1.0, "flops_counted": None}]
    assert spent(run(entries=nobody_counted), "flops") is None


@pytest.mark.parametrize("name", ["track", "probe_runs", "reference_run", "something"])
def test_a_cost_that_nobody_counted_is_not_free(name):
    counted = {"name": "gram", "seconds": 1.0, "flops_counted": 5, "calls": 1}
    unknown = {"name": name, "seconds": 2.0, "flops_counted": None, "calls": 1}
    one = run(entries=[counted, unknown])
    assert spent(one, "flops") is None
    assert spent(one, "seconds").total == pytest.approx(spent(run(), "seconds").total + 3)
    rule = {"name": "mixer", "seconds": 1.0, "flops_counted": None, "calls": 1}
    assert spent(run(entries=[counted, rule]), "flops") is not None


def test_gram_matrices_are_means_over_seeds_of_the_same_domains():
    one, two, other = run(seed=0), run(seed=1), run(seed=2, names="xyz")
    two.history["gram"][-1, 0, 1] = two.history["gram"][-1, 1, 0] = -0.5
    figure = gram_by_variant([Variant("RnB", runs=[one, two, other])])
    ax = figure.axes[0]
    assert ax.get_xlabel() == "2 of 3 seeds"
    cells = np.asarray(ax.images[0].get_array())
    assert np.isclose(cells, (0.5 / 1.5 - 0.5 / 1.5) / 2).sum() == 2
    assert "closest pair" in alt_text(figure)


def test_variants_with_other_domains_have_their_own_order_and_that_is_said():
    variants = [Variant("k 3"), Variant("k 4", runs=[run(names="wxyz")])]
    for draw in (gram_by_variant, proportions_by_variant):
        assert "each kind has its own order" in alt_text(draw(variants))
        assert "own order" not in alt_text(draw(variants[:1]))


def test_all_panels_have_one_scale():
    weak = run()
    weak.history["gram"] = np.tile(np.eye(3) + 0.01, (2, 1, 1))
    figure = gram_by_variant([Variant("a"), Variant("b", runs=[weak])])
    limits = {ax.images[0].get_clim() for ax in figure.axes if ax.images}
    assert len(limits) == 1


def test_fixed_proportions_give_way_to_those_that_moved():
    moving = run()
    moving.history["p"][1] = (0.6, 0.3, 0.1)
    variants = [*(Variant(f"fixed {i}") for i in range(3)), Variant("moved", runs=[moving])]
    figure = proportions_by_variant(variants, most=2)
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["fixed 0", "moved"]
    assert "2 of 4 variants" in alt_text(figure)


def test_of_very_many_domains_the_smaller_ones_are_one_layer():
    names = [f"d{i}" for i in range(60)]
    many_domains = run(names=names, tracked=False)
    many_domains.history["p"][:, :30] *= 1.5
    many_domains.history["p"][:, 30:] *= 0.5
    figure = proportions_by_variant([Variant("RnB", runs=[many_domains])])
    written = [text.get_text() for text in figure.axes[0].texts]
    assert "37 smaller ones" in written
    assert "d1" in written
    assert "d59" not in written


def test_a_name_cannot_be_mathematics_nor_break_a_figure():
    bad = [Variant(name, key=(("k", name),)) for name in ("$\\frac{$", "<b>_^", "\n")]
    for draw in FIGURES:
        figure_of(draw(bad)).canvas.draw()
    figure_of(difference_forest([Gap("$x_{", (1.0, 2.0), 1.5, 0.2)])).canvas.draw()


def scored(score, seed=0, seconds=10.0):
    """A run whose metric goes from 0 to `score`."""
    made = run(seed=seed, seconds=seconds)
    row = {"kind": "metric", "name": "f1", "higher_is_better": True}
    values = zip(STEPS, (0, score / 2, score), strict=True)
    metrics = [{**row, "step": step, "value": value} for step, value in values]
    info = made.info | {"final": {"loss_token": 4.0, "metrics": {"f1": metrics[-1]}}}
    return made.with_(metrics=[*made.metrics(), *metrics], info=info)


def test_bands_of_a_metric_are_of_its_values():
    ax = loss_bands([Variant("a", runs=[scored(0.4, 0), scored(0.6, 1)])], metric="f1")
    assert ax.get_title("left") == "f1: mean and range over seeds"
    assert ax.get_ylabel() == "f1"
    np.testing.assert_allclose(ax.lines[-1].get_ydata(), [0, 0.25, 0.5])
    assert "f1 by step" in alt_text(ax)
    base = Variant("b", "Stratified", runs=[scored(0.3, 0)])
    ax = loss_bands([Variant("a", runs=[scored(0.4, 0)])], metric="f1", minus=lambda _: base)
    assert "above 0 is better" in alt_text(ax)


def test_the_highest_metric_for_a_cost_is_not_beaten():
    variants = [
        Variant("dear", runs=[scored(0.9, seconds=30)]),
        Variant("cheap", runs=[scored(0.5, seconds=10)]),
        Variant("poor", runs=[scored(0.2, seconds=20)]),
    ]
    ax = pareto(variants, metric="f1")
    assert "Not beaten in both: cheap (10 s, 0.500), dear (30 s, 0.900)" in alt_text(ax)
    assert ax.get_ylabel() == "final f1"
    low = alt_text(pareto(variants, metric="f1", higher_is_better=False))
    assert "Not beaten in both: cheap (10 s, 0.500), poor (20 s, 0.200)" in low


def test_of_many_variants_those_with_the_best_metric_are_named():
    variants = [Variant(f"k {i}", runs=[scored(i / 20)]) for i in range(15)]
    ax = loss_bands(variants, metric="f1")
    named = {text.get_text() for text in ax.texts}
    assert {"k 14", "k 13", "k 12", "k 0"} <= named
