"""What is far: one in a hundred of the training's own kind, and all of another kind."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rbkit.errors import InputError, RbkitWarning
from rbkit.regroup import Domains, FarEval, KMeans, assign_new, distance_profile, far_eval
from rbkit.regroup.distances import at_least, nearest_prototypes


def cloud(n, seed=0, k=6, d=32, spread=1.0):
    """`n` vectors around `k` fixed centres, some of them tighter than others."""
    centres = np.random.default_rng(99).normal(size=(k, d)) * 2
    rng = np.random.default_rng(seed)
    which = rng.integers(k, size=n)
    width = spread * np.linspace(0.3, 1.5, k)[which][:, None]
    return (centres[which] + width * rng.normal(size=(n, d))).astype(np.float32)


def grouped(X, k=6, n_eval=100, **profile):
    kmeans = KMeans(k).fit(X)
    found = distance_profile(X, kmeans.labels_, kmeans.cluster_centers_, **profile)
    names = [f"domain {at}" for at in range(k)]
    return Domains(
        names,
        kmeans.labels_,
        np.zeros(n_eval, dtype=int),
        centroids=kmeans.cluster_centers_,
        quality={"distances": found},
    )


@pytest.mark.parametrize(("n", "k"), [(3000, 6), (600, 6), (600, 60)])
def test_one_in_a_hundred_of_the_same_kind_is_far_also_in_small_domains(n, k):
    domains = grouped(cloud(n), k, n_eval=5000)
    assert far_eval(domains, cloud(5000, seed=1)).share < 0.025


def test_without_leaving_one_out_small_domains_would_call_too_many_far():
    X, fresh = cloud(600, d=256), cloud(5000, seed=1, d=256)
    domains = grouped(X, 60, n_eval=5000)
    own = nearest_prototypes(X, domains.centroids)[1]
    naive = (assign_new(domains, fresh).distances > np.quantile(own, 0.99)).mean()
    assert far_eval(domains, fresh).share < 0.02 < naive


def test_what_is_of_another_kind_is_far_even_where_it_lies_inside_the_widest_domain():
    domains = grouped(cloud(3000))
    tight = int(np.argmin(domains.quality["distances"]["thresholds"]))
    wide = max(domains.quality["distances"]["thresholds"])
    direction = np.random.default_rng(3).normal(size=(100, 32))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    beside = domains.centroids[tight] + 0.6 * wide * direction
    placed = assign_new(domains, beside)
    assert placed.distances.max() < wide
    assert placed.far[placed.labels == tight].all()


def test_a_wide_domain_is_no_refuge_for_what_is_farther_than_nearly_all():
    rng = np.random.default_rng(0)
    tight = rng.normal(size=(2700, 8)) * 0.3
    wide = rng.normal(size=(300, 8)) * 3 + 20
    X = np.concatenate([tight, wide]).astype(np.float32)
    labels = np.repeat([0, 1], [2700, 300])
    centres = np.stack([tight.mean(axis=0), wide.mean(axis=0)])
    profile = distance_profile(X, labels, centres)
    own = np.linalg.norm(wide - centres[1], axis=1)
    assert profile["thresholds"][1] < np.quantile(own, 0.99)
    assert profile["far_share"] <= 0.01 + 1e-3


@settings(max_examples=20)
@given(st.integers(0, 10_000), st.floats(0.01, 100), st.floats(-50, 50))
def test_what_is_far_does_not_depend_on_scale_or_place(seed, scale, shift):
    X, fresh = cloud(300, seed, d=4), cloud(60, seed + 1, d=4, spread=2)
    labels, centres = KMeans(6).fit(X).labels_, KMeans(6).fit(X).cluster_centers_

    def far(move):
        profile = distance_profile(move(X), labels, move(centres))
        domains = Domains(
            list("abcdef"),
            labels,
            labels[:60],
            centroids=move(centres),
            quality={"distances": profile},
        )
        return assign_new(domains, move(fresh))

    before, after = far(lambda x: x), far(lambda x: x * np.float32(scale) + np.float32(shift))
    margin = (
        np.abs(
            before.distances
            / np.asarray(distance_profile(X, labels, centres)["thresholds"])[before.labels]
            - 1
        )
        > 1e-2
    )
    assert (before.far == after.far)[margin].all()


def test_a_training_example_put_back_is_never_farther_than_without_it():
    X = cloud(400)
    domains = grouped(X, 12)
    assert assign_new(domains, X).far.mean() <= 0.01


def test_several_prototypes_may_make_one_domain():
    X = cloud(900)
    kmeans = KMeans(6).fit(X)
    owners = np.array([0, 0, 0, 1, 1, 1])
    profile = distance_profile(X, owners[kmeans.labels_], kmeans.cluster_centers_, owners)
    domains = Domains(["a", "b"], owners[kmeans.labels_], [0])
    domains.centroids, domains.centroid_domains = kmeans.cluster_centers_, owners
    domains.quality["distances"] = profile
    placed = assign_new(domains, X)
    assert (placed.labels == domains.train_labels).all()
    assert sum(profile["counts"]) == sum(profile["assigned"]) == 900


def test_examples_left_out_set_no_threshold_but_are_expected_again():
    X = np.concatenate([cloud(900), cloud(100, seed=5, spread=8)])
    labels = KMeans(6).fit(X[:900]).predict(X)
    centres = np.stack([X[:900][labels[:900] == at].mean(axis=0) for at in range(6)])
    labels[900:] = -1
    profile = distance_profile(X, labels, centres)
    assert sum(profile["counts"]) == 900
    assert sum(profile["assigned"]) == 1000
    assert profile["far_share"] > 0.05


@pytest.mark.parametrize("X", [np.ones((50, 3), dtype=np.float32), np.eye(3, dtype=np.float32)])
def test_copies_and_single_examples_are_no_trouble(X):
    labels = np.arange(len(X)) % 3
    centres = np.stack([X[labels == at].mean(axis=0) for at in range(3)])
    profile = distance_profile(X, labels, centres)
    assert np.isfinite(profile["thresholds"]).all()
    json.dumps(profile, allow_nan=False)


def test_a_prototype_that_none_of_its_examples_is_nearest_to_is_no_trouble():
    profile = distance_profile(cloud(40), np.arange(40) % 2, cloud(5, seed=3), [0, 1, 1, 2, 2])
    assert np.isfinite(profile["thresholds"]).all()


def test_the_profile_is_json_and_a_memory_map_gives_the_same(tmp_path):
    X = cloud(70_000, d=4)
    labels, centres = np.zeros(len(X), dtype=int), X.mean(axis=0, keepdims=True)
    np.save(tmp_path / "x.npy", X)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    profile = distance_profile(mapped, labels, centres)
    assert json.loads(json.dumps(profile)) == distance_profile(X, labels, centres)


def report(far, n=100, m=2):
    labels = (np.arange(n) % m).astype(np.int32)
    return FarEval(["<b>", "b"], labels, np.ones(n, dtype=np.float32), far, np.ones(m))


def test_the_warning_has_numbers_and_says_what_to_do():
    with pytest.warns(RbkitWarning, match=r"30 of 100 eval examples \(30%\).*1.0% expected.*keep"):
        report(np.arange(100) < 30).warn()


@pytest.mark.parametrize(
    ("far", "n", "told"),
    [
        (4, 50, False),
        (6, 50, True),
        (6, 12, True),
        (1, 5, False),
        (70, 1000, True),
        (55, 1000, False),
    ],
)
def test_it_warns_when_chance_cannot_have_put_one_in_twenty_far(far, n, told):
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        report(np.arange(n) < far, n).warn()
    assert bool(seen) is told


@given(st.lists(st.booleans(), min_size=2, max_size=40).filter(lambda far: not all(far)))
def test_kept_apart_far_examples_take_no_part_in_q(far):
    found = report(np.array(far), len(far))
    labels = found.apart()
    assert ((labels == -1) == found.far).all()
    kept = np.bincount(labels[labels >= 0], minlength=2)
    assert np.allclose(found.q_apart, kept / kept.sum())
    assert 0 <= found.to_dict()["q_moved"] <= found.share + 1e-12
    json.dumps(found.to_dict(), allow_nan=False)


def test_names_are_escaped_and_a_wholly_far_eval_set_is_refused():
    found = report(np.ones(100, dtype=bool))
    assert "<b>" not in found._repr_html_().replace("<b></b>", "")
    with pytest.raises(InputError, match="all of its examples lie far"):
        found.apart()


@given(st.integers(0, 60), st.integers(0, 60))
def test_the_certain_share_is_below_the_observed_one_and_grows_with_it(k, more):
    n = k + more + 1
    assert 0 <= at_least(k, n) <= k / n
    assert at_least(k, n) <= at_least(k + 1, n)


def test_what_cannot_be_placed_is_said():
    with pytest.raises(InputError, match="without vectors"):
        assign_new(Domains(["a"], [0], [0]), np.ones((1, 2)))
    plain = Domains(["a"], [0], [0], centroids=[[0.0, 0.0]])
    with pytest.raises(InputError, match="3 numbers each"):
        assign_new(plain, np.ones((1, 3)))
    with pytest.raises(InputError, match="NaN"):
        assign_new(plain, np.full((1, 2), np.nan))
    assert assign_new(plain, np.empty((0, 2))).labels.shape == (0,)
    with pytest.raises(InputError, match="distance_profile"):
        far_eval(plain, np.ones((1, 2)))
    with pytest.raises(InputError, match="no example is in any domain"):
        distance_profile(np.ones((2, 2)), [-1, -1], np.ones((1, 2)))
