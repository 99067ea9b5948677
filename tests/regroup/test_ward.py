"""Ward's tree over micro-clusters: cuts nest, numbers are stable, sizes weigh."""

from __future__ import annotations

import time
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.cluster.hierarchy import fcluster, linkage
from sklearn.metrics import adjusted_rand_score
from sklearn.utils.estimator_checks import parametrize_with_checks

from rbkit.errors import InputError, RbkitWarning
from rbkit.regroup.ward import WardTree, ward


def blobs(n=300, d=8, k=5, seed=0):
    rng = np.random.default_rng(seed)
    truth = rng.integers(k, size=n)
    return rng.normal(size=(k, d))[truth] * 10 + rng.normal(size=(n, d)), truth


def tree_of(M=12, seed=0, n=60):
    X = np.random.default_rng(seed).normal(size=(n, 3)).astype(np.float32)
    return WardTree(2, n_micro=M, seed=seed).fit(X), X


trees = st.builds(tree_of, st.integers(2, 20), st.integers(0, 10_000))


@parametrize_with_checks([WardTree(n_clusters=2)])
@pytest.mark.filterwarnings("ignore::rbkit.errors.RbkitWarning")
def test_ward_tree_is_a_scikit_learn_estimator(estimator, check):
    if check.func.__name__ == "check_array_api_input":
        pytest.skip("needs SCIPY_ARRAY_API")
    check(estimator)


@settings(max_examples=30)
@given(trees)
def test_every_k_gives_exactly_k_clusters_and_one_more_splits_one(fitted):
    tree, _ = fitted
    cuts = [tree.cut(k) for k in range(1, tree.n_micro_ + 1)]
    for k, labels in enumerate(cuts, start=1):
        assert labels.dtype == np.int32
        assert set(labels) == set(range(k))
    for coarse, fine in pairwise(cuts):
        # Exactly one cluster splits, into adjacent numbers; those before it keep theirs.
        split = fine != coarse
        at = coarse[split].min()
        assert np.array_equal(fine, coarse + split)
        assert set(fine[coarse == at]) == {at, at + 1}
        assert (fine[coarse > at] == coarse[coarse > at] + 1).all()


@settings(max_examples=30)
@given(trees, st.data())
def test_parents_lead_from_a_finer_cut_to_a_coarser_one(fitted, data):
    tree, _ = fitted
    fine = data.draw(st.integers(1, tree.n_micro_))
    coarse = data.draw(st.integers(1, fine))
    parents = tree.parents(fine, coarse)
    assert np.array_equal(parents[tree.cut(fine)], tree.cut(coarse))
    assert (np.diff(parents) >= 0).all()
    middle = data.draw(st.integers(coarse, fine))
    assert np.array_equal(tree.parents(middle, coarse)[tree.parents(fine, middle)], parents)


@settings(max_examples=30)
@given(st.integers(2, 40), st.integers(0, 10_000))
def test_with_equal_sizes_it_is_scipys_ward(M, seed):
    centers = np.random.default_rng(seed).normal(size=(M, 4))
    _, heights = ward(centers, np.ones(M, dtype=int))
    theirs = linkage(centers, "ward")[:, 2]
    np.testing.assert_allclose(np.sqrt(2 * heights), theirs, rtol=1e-6)


@settings(max_examples=30)
@given(st.integers(2, 10), st.integers(0, 10_000))
def test_a_group_weighs_as_its_examples_do(M, seed):
    """The tree over groups is the upper part of the tree over their examples."""
    rng = np.random.default_rng(seed)
    centers, sizes = rng.normal(size=(M, 3)), rng.integers(1, 6, M)
    _, heights = ward(centers, sizes)
    repeated = linkage(np.repeat(centers, sizes, axis=0), "ward")[:, 2]
    np.testing.assert_allclose(np.sqrt(2 * heights), repeated[sizes.sum() - M :], atol=1e-6)


@settings(max_examples=30)
@given(trees)
def test_heights_are_the_rise_of_the_sum_of_squares(fitted):
    tree, _ = fitted
    assert (np.diff(tree.heights_) >= 0).all()
    weights, centers = tree.micro_sizes_, tree.micro_centers_.astype(float)

    def within(k):
        clusters = tree.cut_micro(k)
        means = tree.centers(k)[clusters]
        return float((weights * ((centers - means) ** 2).sum(axis=1)).sum())

    for k in range(2, tree.n_micro_ + 1):
        rise = within(k - 1) - within(k)
        assert tree.heights_[tree.n_micro_ - k] == pytest.approx(rise, abs=1e-3)


@settings(max_examples=20)
@given(st.integers(2, 8), st.integers(0, 10_000))
def test_shuffled_rows_give_the_same_cuts(k, seed):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(60, 4)).astype(np.float32)
    order = rng.permutation(60)
    one, two = WardTree(2, n_micro=15).fit(X), WardTree(2, n_micro=15).fit(X[order])
    assert adjusted_rand_score(one.cut(k)[order], two.cut(k)) == 1


def test_it_finds_what_is_there_at_every_level():
    X, truth = blobs()
    tree = WardTree(5, n_micro=60).fit(X)
    assert adjusted_rand_score(tree.labels_, truth) == 1
    theirs = fcluster(linkage(X, "ward"), 3, "maxclust")
    assert adjusted_rand_score(tree.cut(3), theirs) == 1
    assert np.array_equal(tree.predict(X), tree.labels_)
    np.testing.assert_allclose(
        tree.cluster_centers_, [X[tree.labels_ == at].mean(axis=0) for at in range(5)], atol=0.2
    )


def test_the_same_seed_gives_the_same_bits():
    X, _ = blobs()
    one, two = WardTree(5, seed=3).fit(X), WardTree(5, seed=3).fit(X)
    assert np.array_equal(one.cut(17), two.cut(17))
    assert np.array_equal(one.leaf_order_, two.leaf_order_)


def test_a_tree_has_all_its_micro_clusters_as_leaves():
    tree, _ = tree_of(20)
    assert sorted(tree.leaf_order_) == list(range(20))
    assert sorted(tree.children_.ravel()) == list(range(38))


def test_taking_another_cut_of_50_000_examples_takes_half_a_millisecond():
    rng = np.random.default_rng(0)
    tree = WardTree()
    tree.micro_sizes_ = rng.integers(1, 100, 1000)
    centers = rng.normal(size=(1000, 16))
    began = time.perf_counter()
    tree.children_, tree.heights_ = ward(centers, tree.micro_sizes_)
    assert time.perf_counter() - began < 2  # 0.04 s on a quiet machine
    tree.leaf_order_ = rng.permutation(1000)
    tree.micro_labels_ = rng.integers(0, 1000, 50_000).astype(np.int32)
    took = []
    for k in range(2, 200, 2):
        began = time.perf_counter()
        tree.cut(k)
        took.append(time.perf_counter() - began)
    assert np.median(took) < 2e-3  # 0.15 ms on a quiet machine


class TestDegenerate:
    def test_one_example_is_one_domain(self):
        tree = WardTree(1).fit([[1.0, 2.0]])
        assert tree.cut(1).tolist() == [0]
        assert tree.children_.shape == (0, 2)

    def test_repeated_vectors_are_never_parted(self):
        tree = WardTree(2, n_micro=6).fit([[0.0], [0.0], [1.0], [1.0], [4.0], [4.0]])
        assert tree.n_micro_ == 3
        assert tree.labels_.tolist()[::2] == tree.labels_.tolist()[1::2]

    def test_fewer_different_vectors_than_domains_is_told(self):
        with pytest.warns(RbkitWarning, match="3 domains asked, but only 1 vectors differ"):
            tree = WardTree(3).fit(np.zeros((9, 2)))
        assert tree.labels_.tolist() == [0] * 9

    def test_bad_numbers_are_refused_with_the_range(self):
        X, _ = blobs(40)
        with pytest.raises(InputError, match=r"k .*500 domains asked of n_samples=40"):
            WardTree(500).fit(X)
        with pytest.raises(InputError, match=r"n_micro: 3 micro-clusters for 5 .*5 <= n_micro"):
            WardTree(5, n_micro=3).fit(X)
        tree = WardTree(5, n_micro=10).fit(X)
        with pytest.raises(InputError, match=r"k: 11 domains .* tree of 10 .*1 <= k <= 10"):
            tree.cut(11)
        with pytest.raises(InputError, match=r"4 clusters have no parents among 5"):
            tree.parents(4, 5)
