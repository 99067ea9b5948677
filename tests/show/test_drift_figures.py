"""Figures of sizes, far eval examples and drift say in words what they show."""

from __future__ import annotations

from types import SimpleNamespace

import matplotlib
import numpy as np
import pytest

from rbkit.errors import InputError
from rbkit.regroup import KMeans
from rbkit.regroup.distances import distance_profile, far_eval
from rbkit.regroup.domains import Domains
from rbkit.regroup.drift import drift_report
from rbkit.regroup.noise import settle_noise
from rbkit.show import (
    alt_text,
    drift,
    drift_distances,
    drift_shares,
    eval_distances,
    png,
    size_effect,
)

NAMES = ["漢字", "<b>bold</b>", "$x$ and $y", "a long name, " * 9] + [f"d{i}" for i in range(80)]


def cloud(n, m=6, seed=0, away=0.0):
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(1).normal(size=(m, 12)) * 3
    return (centres[rng.integers(m, size=n)] + rng.normal(size=(n, 12)) + away).astype("f4")


def regrouped(m, fresh):
    X = cloud(800, m)
    found = KMeans(m).fit(X)
    profile = distance_profile(X, found.labels_, found.cluster_centers_)
    return Domains(
        NAMES[:m],
        found.labels_,
        found.predict(fresh),
        centroids=found.cluster_centers_,
        quality={"distances": profile},
    )


@pytest.mark.parametrize("m", [3, 60])
def test_far_eval_and_drift_are_drawn_and_described(m):
    before = dict(matplotlib.rcParams)
    fresh = np.concatenate([cloud(80, m, 1), cloud(30, m, 2, away=6)])
    domains = regrouped(m, fresh)
    far, report = far_eval(domains, fresh), drift_report(domains, fresh)
    ax = eval_distances(domains, far)
    assert far.message() in alt_text(ax)
    assert len(ax.get_yticklabels()) == min(m, 40)
    both = drift(report)
    for figure in (ax, both, drift_shares(report), drift_distances(report)):
        assert png(figure, dpi=40)
    assert "then and now" in alt_text(both)
    assert f"largest gap {report.ks:.3f}" in alt_text(both)
    assert both.get_suptitle().startswith("refit is due")
    assert dict(matplotlib.rcParams) == before


def test_what_has_left_the_band_of_chance_is_filled():
    domains = regrouped(6, cloud(9))
    report = drift_report(domains, cloud(300)[domains.train_labels[:300] != 0])
    moved = (report.table["change"].abs() > report.table["noise"]).sum()
    lines = {line.get_label(): line for line in drift_shares(report).lines}
    assert len(lines["now"].get_xdata()) == moved > 0


def test_without_a_profile_there_is_nothing_to_draw():
    domains = Domains(["a"], [0], [0], centroids=[[0.0]])
    with pytest.raises(InputError, match="distance_profile"):
        eval_distances(domains, None)


def settled(policy, noise=60, **more):
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, -1], [30, 50, noise]).astype(np.int32)
    return settle_noise(
        labels, rng.normal(size=(len(labels), 3)).astype(np.float32), policy, **more
    )


def rows_of(ax):
    ticks = [tick.get_text() for tick in ax.get_yticklabels()]
    marks = {line.get_label(): line.get_xdata().astype(int).tolist() for line in ax.lines}
    return dict(zip(ticks, zip(marks["before"], marks["after"], strict=True), strict=True))


@pytest.mark.parametrize("policy", ["nearest", "own", "drop"])
def test_no_example_is_lost_between_before_and_after(policy):
    ax = size_effect(settled(policy, max_noise=0.2), ["$a$", "b"])
    assert png(ax, dpi=40)
    before, after = np.array(list(rows_of(ax).values())).T
    assert before.sum() == after.sum() == 140


def test_the_effect_of_a_policy_on_sizes_is_shown_and_described():
    nearest = size_effect(settled("nearest"), ["$a$", "b"])
    assert rows_of(nearest)["in no domain"] == (60, 0)
    assert "in no domain 42.9% of the examples before, 0.0% after" in alt_text(nearest)
    assert "grows most, from" in alt_text(nearest)
    dropped = size_effect(settled("drop"), ["$a$", "b"])
    assert rows_of(dropped)["in no domain"] == (60, 60)
    assert "no domain grows" in alt_text(dropped)


def test_noise_that_becomes_a_domain_has_a_row_of_its_own():
    rows = rows_of(size_effect(settled("own"), ["$a$", "b"]))
    assert rows["noise, a domain now"] == (0, 60)
    assert rows["in no domain"] == (60, 0)


def test_of_many_domains_those_that_changed_most_are_shown():
    before = np.full(70, 100)
    many = SimpleNamespace(
        policy="nearest",
        sizes_before=before,
        noise_before=70,
        noise_after=0,
        sizes_after=before + np.arange(70),
    )
    ax = size_effect(many, NAMES[:70])
    assert len(ax.get_yticklabels()) == 41
    assert "30 domains that changed least are not shown" in ax.get_xlabel()
