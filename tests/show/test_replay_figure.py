from __future__ import annotations

import numpy as np
import pytest
from matplotlib.figure import Figure

from rbkit.balance.mixers.rnb import RnB
from rbkit.errors import InputError
from rbkit.show import alt_text, png, replay_distance, replays
from rbkit.show.figures.mixture import replay_labels
from rbkit.train.counterfactual import Replay, replay


def made(mixer, distance, **options):
    recorded = np.tile([0.5, 0.5], (3, 1))
    p = recorded + np.outer([0, 1, 1], [distance, -distance])
    return Replay(mixer, options, p, recorded, np.array([10, 20]), ["a", "b"])


@pytest.fixture
def run(runs):
    return runs[-1]


def test_every_rule_has_a_panel_after_what_was_sampled(run):
    figure = replays(run, ["Target", RnB(lam=1), RnB(lam=9)])
    titles = [ax.get_title(loc="left") for ax in figure.axes]
    assert titles[:-1] == ["sampled: RnB", "Target", "RnB\nlam=1", "RnB\nlam=9"]
    assert "other domains" in titles[-1]
    assert png(figure, 40)
    assert "RnB(lam=9)" in alt_text(figure)


def test_the_alternative_text_of_a_panel_names_its_rule(run):
    *panels, _ = replays(run, ["Target", RnB(lam=9)]).axes
    for ax, rule in zip(panels, ["RnB", "Target", "RnB(lam=9)"], strict=True):
        assert f"under {rule};" in alt_text(ax)


def test_domains_have_one_colour_in_all_panels(run):
    *panels, _ = replays(run, ["Stratified", RnB()]).axes
    faces = [[c.get_facecolor()[0].tolist() for c in ax.collections] for ax in panels]
    assert faces[0] == faces[1] == faces[2]


def test_the_distance_is_drawn_where_it_is_asked_for_and_described():
    ax = Figure().subplots()
    assert replay_distance([made("Target", 0.25), made("RnB", 0.1)], ax) is ax
    np.testing.assert_allclose(ax.lines[0].get_ydata(), [0, 0.25, 0.25])
    # The row after the last round made nothing: the mean is over the two rounds.
    assert "Target 12% on average" in alt_text(ax)


def test_rules_of_one_name_are_named_by_what_differs():
    replays_made = [
        made("RnB", 0.1, lam=3.0, floor=0.0),
        made("RnB", 0.2, lam=9, floor=0.0),
        made("Mine", 0.1, a=1),
    ]
    assert replay_labels(replays_made) == ["RnB", "RnB(lam=9)", "Mine(a=1)"]
    colours = [line.get_color() for line in replay_distance(replays_made).lines]
    assert len(set(colours)) == 3


def test_a_rule_that_cannot_be_replayed_says_why(runs):
    with pytest.raises(InputError, match="replay of RnB"):
        replays(runs[0], ["RnB"])


def test_a_replay_that_was_made_already_is_taken(run):
    figure = replays(run, [replay(run, "Target")])
    assert len(figure.axes) == 3
