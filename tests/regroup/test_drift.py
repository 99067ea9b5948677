"""A refit is due when the corpus has changed, and not when only chance has."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rbkit.errors import InputError
from rbkit.regroup import Domains, KMeans, distance_profile, drift_report
from rbkit.regroup.drift import distance_gap, share_gaps, stability_index, total_variation

CENTRES = np.random.default_rng(7).normal(size=(6, 24)) * 2


def cloud(n, seed=0, p=None, spread=1.0, away=0.0):
    rng = np.random.default_rng(seed)
    which = rng.choice(len(CENTRES), size=n, p=p)
    return (CENTRES[which] + spread * rng.normal(size=(n, 24)) + away).astype(np.float32)


@pytest.fixture(scope="module")
def domains():
    X = cloud(4000)
    kmeans = KMeans(6).fit(X)
    profile = distance_profile(X, kmeans.labels_, kmeans.cluster_centers_)
    return Domains(
        ["<i>zero</i>", "one", "two", "three", "four", "five"],
        kmeans.labels_,
        kmeans.predict(cloud(300, 1)),
        centroids=kmeans.cluster_centers_,
        quality={"distances": profile},
    )


def test_more_of_the_same_is_no_drift_and_false_alarms_are_rare(domains):
    reports = [drift_report(domains, cloud(400, seed)) for seed in range(10, 60)]
    assert not any(report.due for report in reports)
    assert np.mean([bool(report.advice) for report in reports]) <= 0.06
    assert np.mean([report.ks > report.ks_noise for report in reports]) <= 0.06
    assert np.mean([report.psi > report.psi_noise for report in reports]) <= 0.06


def test_examples_of_another_kind_make_a_refit_due_with_the_reason_in_words(domains):
    mixed = np.concatenate([cloud(770, 2), cloud(230, 3, away=6)])
    report = drift_report(domains, mixed)
    assert report.due
    assert report.far_share == pytest.approx(0.24, abs=0.02)
    assert "of the new examples lie farther from every domain than 99% of the" in report.reasons[0]
    assert "expected)" in report.reasons[0]


def test_another_kind_inside_one_domain_is_found_though_few_overall(domains):
    new = cloud(3000, 2)
    few = CENTRES[0] + 2.2 * np.random.default_rng(5).normal(size=(60, 24))
    report = drift_report(domains, np.concatenate([new[(new - CENTRES[0]).std(axis=1) > 1.3], few]))
    assert report.far_share < 0.05
    assert report.due
    assert "in '" in report.reasons[0]


def test_everything_a_little_farther_is_drift_though_little_is_far(domains):
    report = drift_report(domains, cloud(1000, 2, spread=1.13))
    assert report.ks > report.ks_noise
    assert report.far_share < 0.15
    assert report.due


def test_shares_that_moved_are_advice_and_a_refit_only_when_they_moved_far(domains):
    a_little = drift_report(domains, cloud(2000, 2, p=[0.3, 0.14, 0.14, 0.14, 0.14, 0.14]))
    assert not a_little.due
    assert "set the domains' proportions again" in a_little.advice[0]
    far = drift_report(domains, cloud(2000, 2, p=[0.75, 0.05, 0.05, 0.05, 0.05, 0.05]))
    assert far.due
    assert "change their domain" in far.reasons[-1]


def test_five_examples_prove_little(domains):
    assert not drift_report(domains, cloud(5, 2)).due


def test_noise_that_was_dropped_is_expected_again():
    clean, noise = cloud(3000), cloud(400, 8, spread=3)
    kmeans = KMeans(6).fit(clean)
    labels = np.concatenate([kmeans.labels_, np.full(400, -1, dtype=np.int32)])
    profile = distance_profile(np.concatenate([clean, noise]), labels, kmeans.cluster_centers_)
    found = Domains(
        list("abcdef"),
        labels,
        [0],
        centroids=kmeans.cluster_centers_,
        quality={"distances": profile},
    )
    again = np.concatenate([cloud(900, 4), cloud(120, 5, spread=3)])
    assert drift_report(found, again).far_share > 0.08
    assert not drift_report(found, again).due


def test_it_works_from_what_is_saved(domains, tmp_path):
    new = cloud(500, 2, away=0.3)
    loaded = Domains.load(domains.save(tmp_path / "domains"))
    assert drift_report(loaded, new).to_dict() == drift_report(domains, new).to_dict()


def test_it_can_be_shown_and_written(domains):
    report = drift_report(domains, cloud(500, 2, away=2), reference="eval")
    assert report.n_reference == 300
    json.dumps(report.to_dict(), allow_nan=False)
    assert "refit is due" in repr(report)
    assert "noise below" in repr(report)
    assert "<i>" not in report._repr_html_()
    assert report.table["now"].sum() == pytest.approx(1)
    assert report.table.index.tolist() == domains.names


def test_what_cannot_be_compared_is_said(domains):
    with pytest.raises(InputError, match="no new examples"):
        drift_report(domains, np.empty((0, 24)))
    with pytest.raises(InputError, match="unknown"):
        drift_report(domains, cloud(5), reference="test")
    bare = Domains(["a"], [0], [0], centroids=[[0.0]])
    with pytest.raises(InputError, match="distance_profile"):
        drift_report(bare, [[1.0]])


counts = st.lists(st.integers(0, 50), min_size=4, max_size=4).filter(any).map(np.array)


@given(counts, counts)
def test_distances_between_shares_are_distances(a, b):
    assert 0 <= total_variation(a, b) <= 1
    assert np.isclose(total_variation(a, b), total_variation(b, a))
    assert np.isclose(stability_index(a, b), stability_index(b, a))
    assert stability_index(a, b) >= -1e-12
    assert total_variation(a, a) == stability_index(a, a) == 0
    assert np.isclose(total_variation(a, 3 * b), total_variation(a, b))


@settings(max_examples=10)
@given(st.integers(0, 1000))
def test_the_noise_band_is_what_chance_stays_below(seed):
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.ones(8))
    above = 0
    for _ in range(60):
        tv, _, noise = share_gaps(rng.multinomial(300, p), rng.multinomial(2000, p), seed)
        above += tv > noise[0]
    assert above <= 6


@given(st.lists(st.floats(0, 10), min_size=1, max_size=50))
def test_the_gap_of_a_sample_to_its_own_quantiles_is_within_a_step(values):
    values = np.array(values)
    quantiles = np.quantile(values, np.linspace(0, 1, 201))
    gap, noise = distance_gap(
        values.astype(np.float32), quantiles.astype(np.float32).astype(float), len(values)
    )
    assert 0 <= gap <= max(noise, 1 / len(values) + 0.01)


def test_the_gap_agrees_with_scipy():
    from scipy.stats import ks_2samp

    rng = np.random.default_rng(0)
    old, new = rng.gamma(4, size=5000), rng.gamma(4.6, size=700)
    gap, _ = distance_gap(new.astype(np.float32), np.quantile(old, np.linspace(0, 1, 201)), 5000)
    assert gap == pytest.approx(ks_2samp(old, new).statistic, abs=0.005)
