"""Figures of sizes, far eval examples and drift say in words what they show."""

from __future__ import annotations

from types import SimpleNamespace

import matplotlib
import numpy as np
import pytest

from rbkit.errors import InputError
from rbkit.regroup import KMeans
from rbkit.regroup.distances import distance_profile
from rbkit.regroup.domains import Domains
from rbkit.regroup.drift import drift_report
from rbkit.regroup.outliers import far_eval
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
    return Domains(NAMES[:m], found.labels_, found.predict(fresh),
                   centroids=found.cluster_centers_, quality={"distances": profile})  # fmt: skip


@pytest.mark.parametrize("m", [3, 60])
def test_far_eval_and_drift_are_drawn_and_told(m):
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


def outcome(policy="nearest", after=(40, 90), noise=(50, 0)):
    return SimpleNamespace(policy=policy, sizes_before=[30, 50], sizes_after=after,
                           noise_before=noise[0], noise_after=noise[1])  # fmt: skip


def test_the_effect_of_a_policy_on_sizes_is_shown_and_told():
    ax = size_effect(outcome(), ["a", "$b$"])
    assert "noise from 38.5% to 0.0%" in alt_text(ax)
    assert "$b$ grows most, from 50 to 90" in alt_text(ax)
    marks = {line.get_label(): line.get_xdata().tolist() for line in ax.lines}
    assert marks == {"before": [50, 30, 50], "after": [90, 40, 0]}
    assert png(ax, dpi=40)


def test_noise_that_becomes_a_domain_has_a_row_of_its_own():
    ax = size_effect(outcome("own", (30, 50, 50)))
    ticks = [tick.get_text() for tick in ax.get_yticklabels()]
    assert "noise, a domain now" in ticks
    assert ticks[-1] == "in no domain"


def test_shares_of_noise_mean_the_same_as_counts():
    by_count = alt_text(size_effect(outcome(noise=(20, 5)), NAMES[:2]))
    by_share = alt_text(size_effect(outcome(noise=(0.2, 0.05)), NAMES[:2]))
    assert by_count == by_share


def test_of_many_domains_those_that_changed_most_are_shown():
    before = np.full(70, 100)
    many = SimpleNamespace(policy="nearest", sizes_before=before, noise_before=70, noise_after=0,
                           sizes_after=before + np.arange(70))  # fmt: skip
    ax = size_effect(many, NAMES[:70])
    assert len(ax.get_yticklabels()) == 41
    assert "30 domains that changed least are not shown" in ax.get_xlabel()
