import itertools
import re

import matplotlib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure

from rbkit.balance.mixers.registry import MIXERS
from rbkit.report.page.page import asset
from rbkit.show.live.frame import STATUS
from rbkit.show.style import (
    INK,
    MUTED,
    PAPER,
    alt_text,
    contrast,
    domain_colours,
    mixer_colour,
    mixer_marker,
    rbkit_style,
    readable,
    set_alt,
    shorten,
    spread,
)
from rbkit.show.widgets import joined


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
def test_mixer_colours_can_be_told_from_white(mixer):
    assert contrast(mixer_colour(mixer), PAPER) >= 3.0


def on_dark(colour):
    """A colour of a picture as it is seen under a dark theme (filter effects of the W3C)."""
    rgb = 0.92 - 0.84 * np.array(matplotlib.colors.to_rgb(colour))
    luma = np.array([0.213, 0.715, 0.072])  # hue-rotate(180deg): grey stays, what differs turns
    return np.clip(2 * luma @ rgb - rgb, 0, 1)


TEXT = [INK, MUTED, *(readable(mixer_colour(name)) for name in [*MIXERS, "Mine"]), *STATUS.values()]


@pytest.mark.parametrize("colour", TEXT)
def test_text_of_pictures_has_the_contrast_of_wcag_aa_on_light_and_on_dark(colour):
    assert contrast(colour, PAPER) >= 4.5
    assert contrast(on_dark(colour), on_dark(PAPER)) >= 4.5


def themes(css):
    """Variables of each rule that sets --ink: of the light theme, and of the dark one."""
    rules = [
        dict(re.findall(r"--([\w-]+): ([^;]+);", rule)) for rule in re.findall(r"{([^{}]+)}", css)
    ]
    return [rule for rule in rules if "ink" in rule]


def test_text_of_the_page_has_the_contrast_of_wcag_aa_in_both_themes():
    light, *dark = themes(asset("page.css"))
    assert len(dark) == 2  # chosen, and by the system
    assert dark[0] == dark[1]
    for theme in (light, dark[0]):
        for name in ("ink", "body", "muted", "accent", "good", "bad", "warn"):
            for paper in ("paper", "soft"):
                assert contrast(theme[name], theme[paper]) >= 4.5, (name, paper)
        assert contrast(theme["ink"], theme["notice"]) >= 4.5
        assert contrast(theme["ink"], theme["alarm"]) >= 4.5


def test_text_of_the_widgets_has_the_contrast_of_wcag_aa_in_both_themes():
    sheet = joined("css")
    light = dict(re.findall(r"--([\w-]+): (?:var\([\w-]+, )?(#\w+)", sheet.partition("}")[0]))
    dark = dict(
        re.findall(r"--([\w-]+): (#\w+)", sheet.partition(".rbx-dark {")[2].partition("}")[0])
    )
    # JupyterLab's own dark theme: its paper, and its inks (white of 87 % and of 54 %).
    dark = light | {"paper": "#111111", "ink": "#e0e0e0", "muted": "#929292"} | dark
    for theme in (light, dark):
        paper = theme["paper"]
        for name in ("ink", "muted", "accent", "bad"):
            assert contrast(theme[name], paper) >= 4.5, (name, paper)
        assert contrast(theme["on-accent"], theme["accent"]) >= 4.5
        assert contrast(theme["want"], paper) >= 3.0  # marks and lines, no text


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
