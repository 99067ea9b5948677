"""k-means: scikit-learn's conventions, and what the seed does and does not decide."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.sparse import csr_matrix
from sklearn.cluster import KMeans as SklearnKMeans
from sklearn.metrics import adjusted_rand_score
from sklearn.utils.estimator_checks import parametrize_with_checks

from rbkit.errors import InputError, RbkitWarning
from rbkit.regroup import KMeans, SourceLabels, UmapHDBSCAN, WardTree, choose_k
from rbkit.regroup.kmeans import Copies, assign, vectors_of


def blobs(n=300, d=8, k=5, seed=0):
    rng = np.random.default_rng(seed)
    truth = rng.integers(k, size=n)
    return rng.normal(size=(k, d))[truth] * 10 + rng.normal(size=(n, d)), truth


# The array-API check skips itself unless SCIPY_ARRAY_API is set before scipy is imported.
@parametrize_with_checks([KMeans(n_clusters=2)])
@pytest.mark.filterwarnings("ignore::rbkit.errors.RbkitWarning")
def test_kmeans_is_a_scikit_learn_estimator(estimator, check):
    if check.func.__name__ == "check_array_api_input":
        pytest.skip("needs SCIPY_ARRAY_API")
    check(estimator)


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 6), st.integers(0, 3), st.integers(0, 10_000))
def test_labels_are_the_nearest_centroid_and_largest_domain_comes_first(k, seed, data):
    X = np.random.default_rng(data).normal(size=(40, 3)).astype(np.float32)
    kmeans = KMeans(k, seed=seed).fit(X)
    assert kmeans.labels_.dtype == np.int32
    assert set(kmeans.labels_) == set(range(k))  # no domain is empty
    sizes = np.bincount(kmeans.labels_)
    assert (np.diff(sizes) <= 0).all()
    squared = ((X[:, None] - kmeans.cluster_centers_) ** 2).sum(-1)
    best = squared.min(axis=1)
    np.testing.assert_allclose(squared[np.arange(40), kmeans.labels_], best, atol=1e-4)
    assert kmeans.inertia_ == pytest.approx(best.sum(), rel=1e-3)


@settings(deadline=None, max_examples=25)
@given(st.integers(2, 8), st.integers(0, 10_000))
def test_shuffled_rows_give_the_same_partition(k, seed):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(60, 4)).astype(np.float32)
    order = rng.permutation(60)
    one, two = KMeans(k).fit(X), KMeans(k).fit(X[order])
    assert adjusted_rand_score(one.labels_[order], two.labels_) == 1


@settings(deadline=None, max_examples=25)
@given(arrays(np.float64, (30, 2), elements=st.integers(0, 3)), st.integers(1, 6))
@pytest.mark.filterwarnings("ignore::rbkit.errors.RbkitWarning")
def test_repeated_rows_are_one_domain(X, k):
    kmeans = KMeans(k).fit(X)
    for row in np.unique(X, axis=0):
        assert len(set(kmeans.labels_[(row == X).all(axis=1)])) == 1
    distinct = len(np.unique(X, axis=0))
    assert len(set(kmeans.labels_)) == min(k, distinct)


def test_the_same_seed_gives_the_same_bits():
    X, _ = blobs()
    one, two = KMeans(5, seed=3).fit(X), KMeans(5, seed=3).fit(X)
    assert np.array_equal(one.labels_, two.labels_)
    assert np.array_equal(one.cluster_centers_, two.cluster_centers_)


def test_it_finds_what_is_there_and_is_as_good_as_scikit_learn():
    X, truth = blobs()
    kmeans = KMeans(5).fit(X)
    assert adjusted_rand_score(kmeans.labels_, truth) > 0.99
    theirs = SklearnKMeans(5, n_init=3, random_state=0).fit(X)
    assert kmeans.inertia_ == pytest.approx(theirs.inertia_, rel=1e-3)


def test_a_far_origin_costs_no_precision():
    X, truth = blobs()
    far = KMeans(5).fit(X + 1e4)
    assert adjusted_rand_score(far.labels_, truth) > 0.99
    assert np.array_equal(far.predict(X + 1e4), far.labels_)


def test_spherical_centroids_have_unit_length():
    X, _ = blobs()
    kmeans = KMeans(4, spherical=True).fit(X / np.linalg.norm(X, axis=1, keepdims=True))
    np.testing.assert_allclose(np.linalg.norm(kmeans.cluster_centers_, axis=1), 1, atol=1e-5)


def test_a_subset_can_train_and_every_row_is_assigned():
    X, truth = blobs(n=3000)
    kmeans = KMeans(5, max_train=500).fit(X)
    assert adjusted_rand_score(kmeans.labels_, truth) > 0.99


def test_fewer_different_rows_than_domains_is_told():
    with pytest.warns(RbkitWarning, match="1 of 3 domains are empty"):
        KMeans(3).fit([[0.0], [0.0], [1.0], [1.0]])


def test_more_domains_than_examples_names_both():
    with pytest.raises(InputError, match=r"k .*500 domains asked of n_samples=12 .*k <= 12"):
        KMeans(500).fit(np.ones((12, 2)))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_vectors_that_are_not_finite_are_refused(bad):
    X = np.ones((12, 2))
    X[3, 1] = bad
    with pytest.raises(ValueError, match=r"NaN|infinity"):
        KMeans(2).fit(X)


def test_assign_agrees_with_brute_force():
    rng = np.random.default_rng(0)
    X, centers = rng.normal(size=(500, 7)) + 50, rng.normal(size=(9, 7)).astype(np.float32) + 50
    labels, distances = assign(X, centers)
    squared = ((X[:, None] - centers) ** 2).sum(-1)
    assert np.array_equal(labels, squared.argmin(axis=1))
    np.testing.assert_allclose(distances, squared.min(axis=1), rtol=1e-4)


def test_faiss_and_torch_share_a_process():
    import torch

    X, _ = blobs()
    before = KMeans(5).fit(X).labels_
    torch.randn(200, 200) @ torch.randn(200, 200)
    assert np.array_equal(before, KMeans(5).fit(X).labels_)


class TestSourceLabels:
    def test_domains_are_the_sources_largest_first(self):
        labels = SourceLabels().fit(sources=["b", "a", "c", "c"])
        assert labels.sources_ == ["c", "a", "b"]
        assert labels.labels_.tolist() == [2, 1, 0, 0]
        assert labels.fit_predict(None, ["x", "y"]).tolist() == [0, 1]

    def test_unseen_sources_are_named_with_their_share_and_the_remedy(self):
        labels = SourceLabels().fit(sources=["a", "b"])
        with pytest.raises(InputError, match=r"50\.0% .*'chat', 'mail'.*unseen=\"drop\""):
            labels.predict(sources=["a", "mail", "chat", "b"])

    def test_no_sources_are_refused(self):
        with pytest.raises(InputError, match="sources"):
            SourceLabels().fit()


class TestVectors:
    """Vectors of any library, type and device are taken, or refused with the row."""

    X = np.random.default_rng(0).normal(size=(6, 3)).round(2)

    @pytest.mark.parametrize(
        "of",
        [
            np.ndarray.tolist,
            np.float16,
            np.longdouble,
            np.asfortranarray,
            pd.DataFrame,
            csr_matrix,
            torch.tensor,
            lambda X: torch.tensor(X, requires_grad=True),
            lambda X: torch.tensor(X).to_sparse(),
            lambda X: torch.tensor(X, dtype=torch.bfloat16),
            lambda X: [torch.tensor(row) for row in X],
            lambda X: X.astype(object),
            lambda X: pd.DataFrame(X, dtype="Float64"),
        ],
    )
    def test_all_libraries_are_taken(self, of):
        np.testing.assert_allclose(vectors_of(of(self.X)), self.X, atol=2e-2)
        assert vectors_of(of(self.X)).dtype.kind == "f"

    def test_whole_numbers_and_booleans_are_taken_as_they_are(self):
        for kind in (np.int64, np.uint8, bool):
            X = (self.X > 0).astype(kind)
            assert np.array_equal(vectors_of(X), X)

    @pytest.mark.parametrize(
        ("X", "message"),
        [
            ([[1.0, 2.0], [3.0, "x"]], "row 1 is not numbers"),
            ([[1.0, 2.0], [3.0, None]], "NaN or infinity in row 1"),
            ([[1.0], [3.0], [1.0, 2.0]], "row 2 has 2 numbers, row 0 has 1"),
            ([[1.0, 2.0], None], "row 1 is not"),
            (np.array([["1", "2"]]), "not vectors"),
            (np.ones((2, 2), dtype=complex), "not vectors|not numbers"),
            (np.ones((2, 2), dtype="M8[s]"), "not vectors"),
            (np.ma.array(np.ones((3, 2)), mask=[[0, 0], [0, 1], [0, 0]]), "infinity in row 1"),
            (np.ones(3), r"an array of shape \(3,\)"),
            (np.array([[1.0], [np.inf]], dtype=np.float16), "NaN or infinity in row 1"),
            ([[1.0], [1e25]], r"1e\+25 in row 1"),
            (torch.tensor([[1.0], [-1e30]]), r"1e\+30 in row 1"),
            (None, "vectors"),
            ("abc", "vectors"),
        ],
    )
    def test_the_rest_is_refused_with_the_row(self, X, message):
        with pytest.raises(InputError, match=message):
            vectors_of(X)

    @pytest.mark.parametrize("huge", [1e13, 1e25, 3e38])
    def test_a_finite_number_too_large_to_square_does_not_end_the_process(self, huge):
        X, _ = blobs()
        fitted = KMeans(3).fit(X)
        X[7, 1] = huge
        for call in (KMeans(3).fit, fitted.predict, WardTree(3).fit, UmapHDBSCAN(cache=False).fit):
            with pytest.raises(InputError, match="in row 7"):
                call(X)
        with pytest.raises(InputError, match="in row 7"):
            choose_k(X, [2, 3], progress=False)

    def test_a_tensor_is_clustered_as_its_array_is(self):
        X = blobs()[0].astype(np.float32)
        tensor = torch.tensor(X, requires_grad=True)
        assert np.array_equal(KMeans(4).fit(tensor).labels_, KMeans(4).fit(X).labels_)


class TestCopies:
    def test_copies_are_counted_as_numpy_counts_them(self):
        rng = np.random.default_rng(0)
        for kind in (np.float16, np.float32, np.float64):
            X = rng.integers(0, 3, (500, 4)).astype(kind)
            X[X == 0] *= -1  # -0.0
            copies = Copies.of(X)
            unique, inverse = np.unique(X, axis=0, return_inverse=True)
            assert copies.different == len(unique)
            pairs = {*zip(copies.number.tolist(), inverse.ravel().tolist(), strict=True)}
            assert len(pairs) == len(unique)

    @pytest.mark.parametrize("scale", [1e-9, 1.0, 1e9])
    def test_fewer_different_vectors_than_k_are_one_domain_each_at_any_scale(self, scale):
        X = np.random.default_rng(1).normal(size=(5, 384))[np.arange(3000) % 5] * scale
        with pytest.warns(RbkitWarning, match="only 5 different vectors") as told:
            kmeans = KMeans(8).fit(X)
        assert len(told) == 1
        assert len(kmeans.cluster_centers_) == 5
        assert all(len(set(kmeans.labels_[at::5])) == 1 for at in range(5))
        assert len(set(KMeans(5).fit(X).labels_)) == 5

    @pytest.mark.parametrize("k", [8.0, np.int64(8), torch.tensor(8)])
    def test_k_may_be_an_integer_of_any_library(self, k):
        X, _ = blobs()
        assert len(KMeans(k, seed=np.uint8(3)).fit(X).cluster_centers_) == 8
        assert WardTree(k, n_micro=np.float32(40)).fit(X).n_clusters_ == 8

    @pytest.mark.parametrize("bad", ["8", 2.5, True, None, [3]])
    def test_anything_else_is_refused_by_name(self, bad):
        X, _ = blobs()
        for clusterer in (KMeans(bad), KMeans(3, seed=bad), KMeans(3, n_init=bad), WardTree(bad)):
            with pytest.raises(InputError, match=r"k|seed|n_init"):
                clusterer.fit(X)
