"""What becomes of noise: a stated policy, a stated bound, and nothing silent."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from rbkit.errors import InputError, RbkitWarning
from rbkit.regroup.noise import POLICIES, cliff, settle_noise, warn_of_shape

labelings = st.lists(st.integers(-1, 3), min_size=1, max_size=40).map(
    lambda given: np.array(given, dtype=np.int32)
)
shares = st.one_of(st.none(), st.floats(0, 1))


def vectors(n, seed=0):
    return np.random.default_rng(seed).normal(size=(n, 3)).astype(np.float32)


@given(labelings, st.sampled_from(POLICIES), shares)
def test_who_has_a_domain_keeps_it_and_noise_never_exceeds_its_bound(labels, policy, max_noise):
    assume((labels >= 0).any())
    m, n = int(labels.max()) + 1, len(labels)
    outcome = settle_noise(labels, vectors(n), policy, max_noise=max_noise)
    kept = labels >= 0
    assert np.array_equal(outcome.labels[kept], labels[kept])
    assert outcome.labels.dtype == np.int32
    left = (outcome.labels < 0) | (outcome.labels == m)
    assert left.sum() == outcome.noise_after
    if max_noise is not None:
        assert outcome.noise_after <= max_noise * n + 1e-6
    if policy == "nearest":
        assert outcome.noise_after == 0
    assert set(outcome.labels[left]) <= {{"own": m, "drop": -1, "nearest": None}[policy]}
    assert outcome.joined.sum() == outcome.noise_before - outcome.noise_after
    assert (outcome.growth >= 1).all() or (outcome.sizes_before == 0).any()


@given(labelings, st.floats(0, 1))
def test_no_more_join_than_must(labels, max_noise):
    assume((labels >= 0).any())
    n = len(labels)
    outcome = settle_noise(labels, vectors(n), "drop", max_noise=max_noise)
    assert outcome.noise_after == min((labels < 0).sum(), np.floor(max_noise * n + 1e-9))


@given(labelings, st.floats(0, 1))
def test_those_that_join_are_nearer_than_those_that_do_not(labels, max_noise):
    assume((labels >= 0).any())
    X = vectors(len(labels))
    outcome = settle_noise(labels, X, "drop", max_noise=max_noise)
    filled = np.unique(labels[labels >= 0])
    centers = np.stack([X[labels == at].mean(axis=0) for at in filled])
    distances = np.linalg.norm(X[:, None] - centers, axis=2)
    joined, left = outcome.joined, outcome.labels < 0
    assert np.array_equal(outcome.labels[joined], filled[distances[joined].argmin(axis=1)])
    if joined.any() and left.any():
        assert distances.min(axis=1)[joined].max() <= distances.min(axis=1)[left].min() + 1e-5


@given(labelings, st.sampled_from(POLICIES), st.floats(0, 1), st.floats(0, 1))
def test_a_tighter_bound_moves_more_and_takes_nothing_back(labels, policy, one, two):
    assume((labels >= 0).any())
    X = vectors(len(labels))
    loose, tight = max(one, two), min(one, two)
    few = settle_noise(labels, X, policy, max_noise=loose)
    many = settle_noise(labels, X, policy, max_noise=tight)
    assert (many.joined | ~few.joined).all()
    assert np.array_equal(many.labels[few.joined], few.labels[few.joined])


def test_what_was_dropped_by_hand_is_no_noise():
    labels = np.array([0, 0, -1, -1])
    noise = np.array([False, False, True, False])
    outcome = settle_noise(labels, vectors(4), "own", noise=noise)
    assert outcome.labels.tolist() == [0, 0, 1, -1]
    assert outcome.noise_before == 1


def test_without_noise_nothing_happens():
    labels = np.array([0, 1, 1])
    for policy in POLICIES:
        outcome = settle_noise(labels, vectors(3), policy)
        assert np.array_equal(outcome.labels, labels)
        assert str(outcome) == "noise: 0 of 3 examples (0.0%)"


def test_the_outcome_says_what_it_did_to_the_sizes():
    X = np.array([[0.0], [0.0], [9.0], [1.0], [2.0], [5.0]])
    outcome = settle_noise([0, 0, 1, -1, -1, -1], X, "drop", max_noise=1 / 6)
    assert outcome.sizes_before.tolist() == [2, 1]
    assert outcome.sizes_after.tolist() == [4, 1]
    assert outcome.growth.tolist() == [2, 1]
    assert "3 of 6 examples (50.0%); 2 joined" in str(outcome)
    assert "1 (16.7%) are left out" in str(outcome)


def test_a_memory_map_in_half_precision_is_read_in_blocks(tmp_path):
    X = vectors(40)
    np.save(tmp_path / "X.npy", X.astype(np.float16))
    mapped = np.load(tmp_path / "X.npy", mmap_mode="r")
    labels = np.where(np.arange(40) % 5 == 0, -1, np.arange(40) % 2)
    outcome = settle_noise(labels, mapped)
    assert np.array_equal(outcome.labels, settle_noise(labels, np.array(mapped)).labels)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"policy": "ignore"}, "'ignore' is unknown; use nearest, own, drop"),
        ({"max_noise": 5}, "max_noise: 5 is not a share"),
        ({"labels": [-1, -1]}, "all examples are noise.*smaller min_cluster_size"),
        ({"labels": [0]}, r"labels of shape \(1,\) for 2 vectors"),
    ],
)
def test_bad_input_is_refused_by_name(options, message):
    with pytest.raises(InputError, match=message):
        settle_noise(**{"labels": [0, -1], "X": vectors(2), **options})


def test_all_noise_can_be_a_domain_of_its_own():
    assert settle_noise([-1, -1], vectors(2), "own").labels.tolist() == [0, 0]


class TestShape:
    def test_a_domain_that_swallows_half_the_corpus_is_named(self):
        with pytest.warns(RbkitWarning, match=r"domain 1 holds 60% .*60 of 100.* 2 others"):
            assert warn_of_shape([30, 60, 10])

    @pytest.mark.parametrize("sizes", [[50, 50], [100], [0, 0], []])
    def test_half_is_not_more_than_half_and_one_domain_is_no_news(self, sizes):
        assert not warn_of_shape(sizes)


class TestCliff:
    # Measured on 20,000 one-line summaries (UMAP in five dimensions).
    REAL = (
        (25, 139, 0.05),
        (50, 69, 0.05),
        (100, 37, 0.06),
        (200, 22, 0.08),
        (300, 15, 0.1),
        (400, 5, 0.55),
    )

    @staticmethod
    def rows(values):
        return [
            {"min_cluster_size": size, "k": k, "noise_share": 0.4, "largest_share": largest}
            for size, k, largest in values
        ]

    def test_the_measured_one_is_found_and_told(self):
        with pytest.warns(RbkitWarning, match=r"300 gives 15 clusters and 400 gives 5.* 55%"):
            found = cliff(self.rows(self.REAL))
        assert found["from_size"] == 300
        assert found["to_k"] == 5

    def test_the_way_down_before_it_is_none(self):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert cliff(self.rows(self.REAL[:-1])) is None
            assert cliff([]) is None

    def test_the_order_of_the_sweep_does_not_matter(self):
        assert cliff(self.rows(self.REAL[::-1]), warn=False)["from_size"] == 300

    def test_a_cluster_that_takes_in_another_quarter_is_one_even_at_a_gentle_k(self):
        assert cliff(self.rows([(10, 10, 0.2), (20, 9, 0.6)]), warn=False)["to_size"] == 20

    def test_no_cluster_at_all_is_a_cliff(self):
        assert cliff(self.rows([(10, 8, 0.2), (12, 0, 0.0)]), warn=False)["to_k"] == 0
