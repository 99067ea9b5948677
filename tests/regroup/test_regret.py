"""Lemma 1's regret bound: it holds, it is reached, and it can be read."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rbkit.errors import InputError
from rbkit.regroup.regret_bound import alignments, pair_bounds, pair_regret, regret

seeds = st.integers(0, 2**20)


def draw(seed, sizes):
    """Alignments of two domains, from mild to wild."""
    rng = np.random.default_rng(seed)
    shape = rng.choice([1.0, 3.0])
    parts = [rng.normal(rng.normal(), rng.uniform(0.05, 2), n) ** shape for n in sizes]
    labels = np.repeat(np.arange(len(sizes)), sizes)
    return labels, np.concatenate(parts)


def brute_force(one, other):
    """The regret by its definition: all sets as large as the better domain."""
    if one.mean() < other.mean():
        one, other = other, one
    both = np.concatenate((one, other))
    return max(np.mean(both[list(s)]) for s in combinations(range(len(both)), len(one))) - (
        one.mean()
    )


@settings(max_examples=60)
@given(seeds, st.integers(1, 6), st.integers(1, 6))
def test_the_regret_is_that_of_the_best_set(seed, n_i, n_j):
    labels, a = draw(seed, [n_i, n_j])
    expected = brute_force(a[labels == 0], a[labels == 1])
    assert pair_regret(a[labels == 0], a[labels == 1]) == pytest.approx(expected)


@settings(max_examples=200)
@given(seeds, st.integers(1, 40))
def test_the_bound_is_the_lemmas_for_equal_sizes_and_holds(seed, n):
    labels, a = draw(seed, [n, n])
    one, two = sorted((a[:n], a[n:]), key=np.mean, reverse=True)
    radii = np.abs(one - one.mean()).max() + np.abs(two - two.mean()).max()
    lemma = max(0.0, (radii - (one.mean() - two.mean())) / 2)
    bound = pair_bounds(labels, a)[0, 1]
    assert bound == pytest.approx(lemma)
    assert pair_regret(one, two) <= bound + 1e-9


@settings(max_examples=200)
@given(seeds, st.integers(1, 40), st.integers(1, 40))
def test_the_bound_holds_for_unequal_sizes_too(seed, n_i, n_j):
    labels, a = draw(seed, [n_i, n_j])
    true = pair_regret(a[labels == 0], a[labels == 1])
    assert true <= pair_bounds(labels, a)[0, 1] + 1e-9


def test_the_lemma_itself_does_not_hold_for_unequal_sizes():
    better, other = np.array([1.0, 1.0]), np.array([3.0] * 4 + [-3.0] * 4)
    lemma = (0 + 3 - (1 - 0)) / 2
    true = pair_regret(better, other)
    bound = pair_bounds(np.repeat([0, 1], [2, 8]), np.concatenate((better, other)))[0, 1]
    assert lemma < true == bound


def test_the_bound_is_reached_where_half_of_each_domain_lies_at_either_end():
    # means 0.25 and -0.25, radii 1: the bound is (1 + 1 - 0.5) / 2.
    a = np.array([1.25, -0.75] * 10 + [0.75, -1.25] * 10)
    bound = pair_bounds(np.repeat([0, 1], 20), a)[0, 1]
    assert bound == pytest.approx(0.75)
    assert pair_regret(a[:20], a[20:]) == pytest.approx(bound)


def test_no_regret_between_domains_that_alignment_separates():
    labels, a = np.repeat([0, 1, 2], 5), np.repeat([3.0, 2.0, 1.0], 5)
    a += np.tile(np.linspace(-0.4, 0.4, 5), 3)
    found = regret(labels, a)
    assert (found.bound, found.worst, found.lemma, found.exact) == (0, 0, 0, 0)


def test_one_outlier_moves_the_lemma_but_not_what_is_shown():
    rng = np.random.default_rng(0)
    labels, a = np.repeat([0, 1], 500), rng.normal(size=1000)
    before = regret(labels, a)
    a[0] = 1000.0
    after, spread = regret(labels, a), a.std()
    assert after.bound * spread == pytest.approx(before.bound, rel=0.2)
    assert after.lemma * spread > 100 * before.lemma


@given(seeds, st.floats(0.1, 50), st.floats(-9, 9))
def test_regret_is_read_in_standard_deviations(seed, scale, shift):
    labels, a = draw(seed, [20, 30, 10])
    one, two = regret(labels, a), regret(labels, scale * a + shift)
    for name, value in vars(one).items():
        assert vars(two)[name] == pytest.approx(value, rel=1e-6, abs=1e-9)


@given(seeds)
def test_numbers_of_domains_do_not_matter_and_noise_is_left_out(seed):
    labels, a = draw(seed, [9, 7, 8])
    renamed = np.array([5, 2, 9])[labels]
    assert regret(renamed, a).worst == pytest.approx(regret(labels, a).worst)
    noisy = np.r_[labels, -1, -1], np.r_[a, 1e6, -1e6]
    assert vars(regret(*noisy)) == vars(regret(labels, a))


@given(seeds)
def test_mean_exact_regret_is_below_the_lemmas_bound(seed):
    labels, a = draw(seed, [9, 17, 3, 8])
    found = regret(labels, a)
    assert found.exact <= found.lemma + 1e-9
    assert found.bound <= min(found.worst, found.lemma) + 1e-9


def test_many_domains_take_a_sample_of_pairs():
    rng = np.random.default_rng(0)
    labels, a = rng.integers(0, 90, 4000), rng.normal(size=4000)  # 4,005 pairs
    whole = np.mean(
        [pair_regret(a[labels == i], a[labels == j]) for i in range(90) for j in range(i)]
    )
    assert regret(labels, a).exact * a.std() == pytest.approx(whole, rel=0.05)


def test_a_single_domain_or_constant_alignment_has_no_regret():
    assert regret([0, 0], [1.0, 2.0]).bound == 0
    assert regret([0, 1, 1], [0.1, 0.1, 0.1]).worst == 0


def test_alignment_is_the_product_with_the_mean_of_the_eval_set():
    rng = np.random.default_rng(0)
    X, aim = rng.normal(size=(9, 4)).astype(np.float32), rng.normal(size=(5, 4))
    np.testing.assert_allclose(alignments(X, aim), (X @ aim.T).mean(axis=1), rtol=1e-5)


def test_what_cannot_be_measured_is_refused():
    with pytest.raises(InputError, match="eval_vectors: shape"):
        alignments(np.zeros((3, 4)), np.zeros((3, 5)))
    with pytest.raises(InputError, match="one label per example"):
        regret([0, 1], [1.0])
    with pytest.raises(InputError, match="quantile"):
        regret([0, 1], [1.0, 2.0], quantile=0)
