"""UMAP and HDBSCAN: the kept tree gives what a new fit would; small corpora go through."""

from __future__ import annotations

import numpy as np
import pytest
from hdbscan import HDBSCAN
from sklearn.metrics import adjusted_rand_score
from sklearn.utils.estimator_checks import parametrize_with_checks

from rbkit.errors import InputError
from rbkit.regroup.hdbscan import UmapHDBSCAN


def blobs(n=400, d=8, k=5, seed=0):
    rng = np.random.default_rng(seed)
    truth = rng.integers(k, size=n)
    X = rng.normal(size=(k, d))[truth] * 9 + rng.normal(size=(n, d))
    return X.astype(np.float32), truth


@pytest.fixture(scope="module")
def fitted():
    X, truth = blobs()
    return UmapHDBSCAN(cache=False).fit(X), X, truth


@parametrize_with_checks([UmapHDBSCAN(min_cluster_size=5, min_samples=2, cache=False)])
def test_it_is_a_scikit_learn_estimator(estimator, check):
    if check.func.__name__ == "check_array_api_input":
        pytest.skip("needs SCIPY_ARRAY_API")
    try:
        check(estimator)
    except InputError as error:
        # A few rows of uniform numbers: whether they have a cluster at all differs between
        # processors, and to predict without one is refused (tested below).
        if "every example as noise" not in str(error):
            raise
        pytest.skip("these random rows have no cluster on this machine")


def test_it_finds_what_is_there(fitted):
    clusters, X, truth = fitted
    assert clusters.labels_.dtype == np.int32
    inside = clusters.labels_ >= 0
    assert inside.mean() > 0.9
    assert adjusted_rand_score(truth[inside], clusters.labels_[inside]) == 1
    np.testing.assert_allclose(
        clusters.cluster_centers_,
        [X[clusters.labels_ == at].mean(axis=0) for at in range(5)],
        atol=1e-4,
    )
    assert np.array_equal(clusters.predict(X)[inside], clusters.labels_[inside])


@pytest.mark.parametrize("size", [2, 5, 15, 60, 150])
def test_a_cut_is_what_a_new_fit_gives(fitted, size):
    clusters, _, _ = fitted
    theirs = HDBSCAN(min_cluster_size=size, min_samples=10).fit_predict(clusters.coordinates_)
    ours = clusters.cut(size)
    assert np.array_equal(ours < 0, theirs < 0)
    assert adjusted_rand_score(theirs, ours) == 1
    assert set(ours) - {-1} == set(range(ours.max() + 1))


def test_no_cluster_is_smaller_than_it_may_be(fitted):
    clusters, _, _ = fitted
    for size in (2, 5, 20, 60):
        labels = clusters.cut(size)
        assert np.bincount(labels[labels >= 0]).min() >= size


def test_numbers_follow_the_tree_from_cut_to_cut(fitted):
    """Whoever is left of another at one size is not right of it at a smaller one."""
    clusters, _, _ = fitted
    coarse, fine = clusters.cut(40), clusters.cut(5)
    both = (coarse >= 0) & (fine >= 0)
    pairs = np.unique(np.stack([coarse[both], fine[both]]), axis=1)
    assert (np.diff(pairs[1]) >= 0).all()


def test_a_sweep_says_what_every_size_gives(fitted):
    clusters, _, _ = fitted
    rows = clusters.sweep([5, 50, 399])
    assert [row["min_cluster_size"] for row in rows] == [5, 50, 399]
    for row in rows:
        labels = clusters.cut(row["min_cluster_size"])
        assert row["k"] == labels.max() + 1
        assert row["noise_share"] == np.mean(labels < 0)
        assert row["largest_share"] == np.bincount(labels + 1)[1:].max(initial=0) / 400


def test_the_size_for_k_gives_k_where_there_is_one(fitted):
    clusters, _, _ = fitted
    assert clusters.cut(clusters.size_for(5)).max() + 1 == 5
    many = clusters.sweep([2])[0]["k"]
    assert clusters.cut(clusters.size_for(10**6)).max() + 1 == many


def test_the_same_seed_gives_the_same_bits(fitted):
    clusters, X, _ = fitted
    again = UmapHDBSCAN(cache=False).fit(X)
    assert np.array_equal(clusters.labels_, again.labels_)
    assert np.array_equal(clusters.coordinates_, again.coordinates_)


def test_above_the_sample_the_rest_takes_the_label_of_its_nearest():
    X, truth = blobs(900)
    clusters = UmapHDBSCAN(sample=300, cache=False).fit(X)
    assert clusters.tree_.shape == (299, 4)
    assert np.array_equal(clusters.labels_, clusters.labels_[clusters.anchors_])
    inside = clusters.labels_ >= 0
    assert inside.mean() > 0.9
    assert adjusted_rand_score(truth[inside], clusters.labels_[inside]) == 1
    # 150 of the corpus are 50 of the sample, which every cluster has.
    assert clusters.cut(150).max() + 1 == 5
    assert clusters.cut(300).max() + 1 < 5


def test_progress_is_told_up_to_the_tree():
    seen = []
    UmapHDBSCAN(cache=False).fit(blobs(100)[0], on_progress=lambda *at: seen.append(at))
    fractions, texts = zip(*seen, strict=True)
    assert list(fractions) == sorted(fractions)
    assert fractions[-1] == 1
    assert "building the tree" in texts


def test_coordinates_are_kept_on_disk_for_the_next_process(monkeypatch):
    X, _ = blobs(100)
    first = UmapHDBSCAN().fit(X)
    monkeypatch.setattr("rbkit.regroup.umap._project", None)  # not called again
    again = UmapHDBSCAN(min_cluster_size=30).fit(X)
    assert np.array_equal(first.coordinates_, again.coordinates_)
    assert np.array_equal(first.cut(30), again.labels_)


class TestDegenerate:
    @pytest.mark.parametrize("n", [1, 2, 3, 9])
    def test_too_few_examples_are_all_noise(self, n):
        X, _ = blobs(n)
        clusters = UmapHDBSCAN(cache=False).fit(X)
        assert clusters.labels_.tolist() == [-1] * n
        assert clusters.cluster_centers_.shape == (0, 8)
        with pytest.raises(InputError, match="min_cluster_size=10 left every example as noise"):
            clusters.predict(X)

    @pytest.mark.parametrize("X", [np.ones((60, 4)), np.zeros((60, 4))])
    def test_copies_and_zero_vectors_go_through(self, X):
        clusters = UmapHDBSCAN(cache=False).fit(X)
        assert clusters.labels_.shape == (60,)
        assert len(clusters.sweep([2, 59])) == 2

    def test_zero_vectors_among_others_are_a_group_of_their_own(self):
        X, _ = blobs(400, k=3)
        X[:60] = 0
        clusters = UmapHDBSCAN(cache=False).fit(X)
        (label,) = set(clusters.labels_[:60]) - {-1}
        assert not (clusters.labels_[60:] == label).any()

    @pytest.mark.parametrize(
        ("parameters", "message"),
        [
            ({"min_cluster_size": 1}, "min_cluster_size: 1 examples do not make a cluster"),
            ({"min_samples": 0}, "min_samples: 0 is too few"),
            ({"n_neighbors": 1}, "n_neighbors: 1 is too few"),
        ],
    )
    def test_bad_numbers_are_refused_by_name(self, parameters, message):
        with pytest.raises(InputError, match=message):
            UmapHDBSCAN(cache=False, **parameters).fit(blobs(20)[0])

    def test_a_moved_private_function_is_told_with_the_remedy(self, fitted, monkeypatch):
        monkeypatch.delattr("hdbscan._hdbscan_tree.condense_tree")
        with pytest.raises(InputError, match=r"another way .*hdbscan==0\.8\.44"):
            fitted[0].cut(5)
