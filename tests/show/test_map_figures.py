"""Maps and crosstabs show what is there, whatever it is called, and say it in words."""

from __future__ import annotations

import time
from itertools import combinations

import matplotlib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from matplotlib.figure import Figure

from rbkit.errors import InputError
from rbkit.show import alt_text, crosstab, domain_map, gram_on_map, map_colours, png
from rbkit.show.figures.domains import count_table, diagonal_distance, diagonal_order
from rbkit.show.figures.map import alignment, medians, wrapped

ODD = [
    "漢字 · 日本語",
    "الحرب · الجيش",
    "<script>alert(1)</script>",
    "$x^2$ · $\\alpha",
    "😀",
    "a very long name, " * 9,
    "Donaudampfschifffahrtsgesellschaftskapitän",
    " ",
]


def world(n=600, m=8, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(-1, m, size=n)
    return rng.normal(size=(m + 1, 2))[labels] * 5 + rng.normal(size=(n, 2)), labels


def names_on(ax):
    return [text for text in ax.texts if text.get_text() and text.get_path_effects()]


def test_a_map_of_odd_names_is_drawn_and_leaves_no_trace():
    before = dict(matplotlib.rcParams)
    ax = domain_map(*world(), ODD)
    assert png(ax, dpi=40)
    assert dict(matplotlib.rcParams) == before
    assert "600 examples in 8 domains" in alt_text(ax)
    assert not any(text.get_parse_math() for text in ax.texts if text.get_text())


@pytest.mark.parametrize("m", [12, 60])
def test_names_do_not_collide_and_stay_inside(m):
    xy, labels = world(4000, m)
    ax = domain_map(xy, labels, [f"first {i} · second · third" for i in range(m)])
    shown = names_on(ax)
    assert 8 <= len(shown) <= 25
    boxes = [text.get_window_extent() for text in shown]
    assert not any(a.overlaps(b) for a, b in combinations(boxes, 2))
    frame = ax.get_window_extent()
    assert all(frame.x0 <= box.x0 and box.x1 <= frame.x1 for box in boxes)


def test_who_goes_unnamed_or_is_in_no_domain_is_said():
    xy, labels = world(4000, 60)
    foot = domain_map(xy, labels, [f"d{i}" for i in range(60)]).texts[-1].get_text()
    assert "of 60 domains named" in foot
    assert f"{(labels < 0).sum():,} in no domain" in foot


def test_continuous_values_have_a_colour_bar_and_a_diverging_scale_is_centred():
    xy, labels = world()
    values = np.linspace(-1, 3, len(xy))
    values[:5] = np.nan
    ax = domain_map(xy, labels, ODD, values=values, value_label="loss (nats)", centre=0)
    bar = ax.figure.axes[-1]
    assert bar.get_ylabel() == "loss (nats)"
    assert bar.get_ylim() == (-3, 3)
    assert "coloured by loss (nats)" in alt_text(ax)


def test_it_draws_on_given_axes_with_eval_and_selection():
    given_axes = Figure().subplots()
    xy, labels = world()
    ax = domain_map(xy, labels, ODD, given_axes, eval_coordinates=xy[:9], selected=[1, 2])
    assert ax is given_axes
    assert "diamonds: 9 eval examples · rings: 2 selected" in ax.texts[-1].get_text()


@pytest.mark.parametrize("labels", [[], [0], [0, 0], [-1, -1]])
def test_few_points_are_no_trouble(labels):
    xy = np.zeros((len(labels), 2))
    assert png(domain_map(xy, np.array(labels, dtype=int), ["a"]), dpi=30)
    assert png(domain_map(xy, np.array(labels, dtype=int), ["a"], values=np.zeros(len(xy))), dpi=30)


@pytest.mark.slow
def test_two_hundred_thousand_points_take_seconds():
    xy, labels = world(200_000, 60)
    began = time.perf_counter()
    png(domain_map(xy, labels, [f"d{i}" for i in range(60)]), dpi=100)
    assert time.perf_counter() - began < 20


def test_what_cannot_be_drawn_is_said():
    xy, labels = world()
    with pytest.raises(InputError, match="coordinates"):
        domain_map(xy[:, :1], labels, ODD)
    with pytest.raises(InputError, match="labels"):
        domain_map(xy, labels, ODD[:3])
    with pytest.raises(InputError, match="values"):
        domain_map(xy, labels, ODD, values=[1.0])


# ------------------------------------------------------------------ names and colours


@given(arrays(np.float64, (40, 2), elements=st.floats(-1e3, 1e3)), st.integers(1, 6))
def test_medians_lie_within_their_domain(xy, m):
    labels = np.arange(40) % (m + 1) - 1
    for i, place in enumerate(medians(xy, labels, m)):
        own = xy[labels == i]
        assert (own.min(axis=0) <= place).all()
        assert (place <= own.max(axis=0)).all()


def test_a_domain_in_two_pieces_is_named_on_one_of_them():
    rng = np.random.default_rng(0)
    xy = np.concatenate([rng.normal(-9, 0.2, (60, 2)), rng.normal(9, 0.2, (50, 2))])
    ring = np.concatenate([xy, [[0, 0]]])
    assert np.abs(medians(ring, np.zeros(111, dtype=int), 1)[0] + 9).max() < 1


@settings(max_examples=20)
@given(st.integers(1, 70), st.integers(0, 99))
def test_neighbours_on_a_map_never_share_a_colour(m, seed):
    places = np.random.default_rng(seed).normal(size=(m, 2))
    colours = map_colours(places)
    assert colours == map_colours(places)
    assert len(set(colours)) == min(m, 40)
    for i in range(m if m > 1 else 0):
        gaps = np.linalg.norm(places - places[i], axis=1)
        gaps[i] = np.inf
        assert colours[i] != colours[int(np.argmin(gaps))]


@given(st.text(max_size=80))
def test_names_take_two_lines_at_most(name):
    lines = wrapped(name).split("\n")
    assert len(lines) <= 2
    assert all(len(line) <= 18 for line in lines)


# --------------------------------------------------------------------- Gram on the map


def test_alignment_is_the_cosine_with_the_target_direction(runs):
    run = runs[-1]
    G, q = run.history["gram"][-1], run.history["q"]
    cosine, names, step = alignment(run)
    values, vectors = np.linalg.eigh(G)
    gradients = vectors * np.sqrt(values.clip(min=0))  # rows with this Gram matrix
    direction = q @ gradients
    lengths = np.linalg.norm(gradients, axis=1) * np.linalg.norm(direction)
    assert np.allclose(cosine, gradients @ direction / lengths)
    assert step == run.history["step"][-1]
    assert names == run.info["domains"]["names"]


def test_domains_a_round_did_not_see_have_no_colour(runs):
    run = runs[-1]
    unseen = len(run.history["gram"]) // 3
    cosine = alignment(run, unseen)[0]
    assert np.isnan(cosine).sum() == 1
    assert np.abs(cosine[np.isfinite(cosine)]).max() <= 1


def test_the_map_of_a_run_can_be_drawn_against_the_target_and_against_a_domain(runs):
    run = runs[-1]
    xy, labels = world(900, len(run.info["domains"]["names"]))
    ax = gram_on_map(run, xy, labels)
    assert "cosine of each domain's gradient with the target" in alt_text(ax)
    low, high = ax.figure.axes[-1].get_ylim()
    assert low == -high
    focused = gram_on_map(run, xy, labels, round=0, focus="02 def, return, self")
    assert "step 25" in focused.get_title(loc="left")
    assert png(focused, dpi=40)


def test_a_run_without_what_is_asked_says_so(runs):
    xy, labels = world(9, 14)
    with pytest.raises(InputError, match="no Gram matrix"):
        gram_on_map(runs[0], xy, labels)
    with pytest.raises(InputError, match="no domain 'x'"):
        gram_on_map(runs[-1], xy, labels, focus="x")
    with pytest.raises(InputError, match="99 of 12 rounds"):
        gram_on_map(runs[-1], xy, labels, round=99)


# ---------------------------------------------------------------------------- crosstab


@given(
    st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(-1, 4)), min_size=1, max_size=80),
    st.integers(2, 7),
)
def test_no_example_is_lost_from_the_table(rows, most):
    sources, labels = [s for s, _ in rows], np.array([label for _, label in rows])
    table, kinds, columns = count_table(sources, labels, list("vwxyz"), most)
    assert table.sum() == len(rows)
    assert table.shape == (len(kinds), len(columns))
    assert len(kinds) <= most
    for j, column in enumerate(columns):
        label = -1 if column == "in no domain" else "vwxyz".index(column)
        assert table[:, j].sum() == (labels == label).sum()


@given(
    st.permutations(range(7)),
    st.permutations(range(7)),
    st.lists(st.integers(1, 50), min_size=7, max_size=7),
)
def test_a_shuffled_diagonal_is_found_again(rows, columns, sizes):
    table = np.diag(sizes)[list(rows)][:, list(columns)]
    by_row, by_column = diagonal_order(table)
    ordered = table[by_row][:, by_column]
    assert (np.diag(ordered) > 0).all()


@settings(max_examples=40)
@given(arrays(np.int64, (6, 9), elements=st.integers(0, 9)))
def test_the_order_is_one_and_no_farther_from_the_diagonal_than_chance(table):
    by_row, by_column = diagonal_order(table)
    assert sorted(by_row) == list(range(6))
    assert sorted(by_column) == list(range(9))
    rng = np.random.default_rng(0)
    shuffled = [
        diagonal_distance(table[rng.permutation(6)][:, rng.permutation(9)]) for _ in range(30)
    ]
    assert diagonal_distance(table[by_row][:, by_column]) <= np.median(shuffled) + 1e-9


@pytest.mark.parametrize("of", ["source", "domain", "count"])
def test_crosstabs_are_drawn_and_described(of):
    _, labels = world()
    sources = [ODD[i % 3] for i in range(600)]
    ax = crosstab(sources, labels, ODD, of=of)
    assert png(ax, dpi=40)
    assert "600 examples" in alt_text(ax)
    assert "in no domain" in [tick.get_text() for tick in ax.get_xticklabels()]


def test_a_crosstab_of_nothing_is_refused():
    with pytest.raises(InputError, match="0 sources for 0 labels"):
        crosstab([], [], ["a"])
    with pytest.raises(InputError, match="unknown"):
        crosstab(["a"], [0], ["a"], of="row")
