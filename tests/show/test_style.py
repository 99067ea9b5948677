import itertools

import matplotlib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure

from rbkit.balance.mixers.registry import MIXERS
from rbkit.show.style import (
    alt_text,
    domain_colours,
    mixer_colour,
    mixer_marker,
    rbkit_style,
    set_alt,
    shorten,
    spread,
)


def test_the_style_ends_with_its_block():
    before = dict(matplotlib.rcParams)
    with rbkit_style(font_size=17):
        assert matplotlib.rcParams["font.size"] == 17
    assert dict(matplotlib.rcParams) == before


def test_the_style_ends_also_when_the_block_fails():
    before = dict(matplotlib.rcParams)
    with pytest.raises(RuntimeError), rbkit_style():
        raise RuntimeError
    assert dict(matplotlib.rcParams) == before


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=20).map(sorted), st.floats(0.1, 50))
def test_spread_labels_keep_their_order_and_their_distance(positions, gap):
    moved = spread(positions, gap)
    assert all(b - a >= gap - 1e-6 for a, b in itertools.pairwise(moved))


@given(st.lists(st.integers(-100, 100), min_size=1, max_size=20, unique=True).map(sorted))
def test_labels_that_do_not_collide_stay_where_they_are(positions):
    assert spread([float(p) for p in positions], 1.0) == pytest.approx(positions)


def test_neighbouring_domains_differ_in_lightness():
    luminance = np.array(domain_colours(20)) @ [0.2126, 0.7152, 0.0722]
    assert np.abs(np.diff(luminance)).min() > 0.05


def test_every_mixer_has_a_look_of_its_own():
    looks = [(mixer_colour(name), mixer_marker(name)) for name in MIXERS]
    assert len({colour for colour, _ in looks}) == len({mark for _, mark in looks}) == len(MIXERS)


@pytest.mark.parametrize("mixer", [*MIXERS, "Mine"])
def test_mixer_colours_can_be_read_as_text_on_white(mixer):
    rgb = np.array(matplotlib.colors.to_rgb(mixer_colour(mixer)))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    assert 1.05 / (linear @ [0.2126, 0.7152, 0.0722] + 0.05) >= 3.0


def test_the_alternative_text_of_a_figure_is_that_of_its_axes():
    figure = Figure()
    left, right = figure.subplots(1, 2)
    set_alt(left, "Left.")
    set_alt(right, "Right\n  side.")
    assert alt_text(figure) == "Left. Right side."
    set_alt(figure, "Both.")
    assert alt_text(figure) == "Both."


def test_a_figure_without_a_description_still_has_some_text():
    figure = Figure()
    figure.subplots().set_title("Loss")
    assert alt_text(figure) == "Figure: Loss."
    assert alt_text(Figure()) == "Empty figure."


@given(st.text(max_size=60), st.integers(2, 40))
def test_shortened_text_fits(text, width):
    assert len(shorten(text, width)) <= width
