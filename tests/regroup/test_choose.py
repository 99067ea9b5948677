"""Choosing k: the silhouette is scikit-learn's, and stability stands beside it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import silhouette_score

from rbkit.errors import InputError
from rbkit.regroup import choose_k, silhouettes


def three_blobs(n=90):
    rng = np.random.default_rng(0)
    return np.concatenate([rng.normal(at, 0.2, (n // 3, 4)) for at in (0, 3, 6)])


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000), st.integers(2, 9))
def test_silhouettes_equal_scikit_learns(seed, k):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(50, 3))
    labelings = [np.r_[0, 1, rng.integers(k, size=48)] for _ in range(3)]
    expected = [silhouette_score(X, labels) for labels in labelings]
    np.testing.assert_allclose(silhouettes(X, labelings), expected, atol=1e-5)


def test_chunks_do_not_change_the_silhouette(monkeypatch):
    X = np.random.default_rng(0).normal(size=(700, 3))
    labels = np.random.default_rng(1).integers(4, size=700)
    from rbkit.regroup import choose

    whole = choose.pairwise_distances_chunked
    monkeypatch.setattr(
        choose, "pairwise_distances_chunked", lambda X, **kw: whole(X, **kw | {"working_memory": 1})
    )
    (score,) = silhouettes(X, [labels])
    assert score == pytest.approx(silhouette_score(X, labels), abs=1e-6)


def test_a_single_domain_has_silhouette_zero():
    assert silhouettes(np.eye(4), [np.zeros(4, int)]) == [0.0]


@pytest.mark.parametrize("rule", ["silhouette", "stability"])
def test_the_true_number_of_domains_is_chosen(rule):
    choice = choose_k(three_blobs(), [3, 4, 6], rule=rule, progress=False)
    assert choice.k == 3
    assert choice.rule == rule
    assert choice.best["stability_ari"] == 1
    assert choice.best["smallest_domain"] == 30
    assert [row["k"] for row in choice.grid] == [3, 4, 6]


def test_above_the_sample_size_the_silhouette_is_close_to_the_full_one():
    X = np.random.default_rng(0).normal(size=(1500, 5))
    full = choose_k(X, [3], n_seeds=1, progress=False).best["silhouette"]
    part = choose_k(X, [3], n_seeds=1, sample=700, progress=False).best["silhouette"]
    assert part == pytest.approx(full, abs=0.02)


@pytest.mark.parametrize(
    ("grid", "message"),
    [([500, 2], "500 domains asked of 90"), ([0, 2], "0 domains asked"), ([], "grid is empty")],
)
def test_an_impossible_grid_is_refused(grid, message):
    with pytest.raises(InputError, match=message):
        choose_k(three_blobs(), grid, progress=False)


def test_an_unknown_rule_is_refused():
    with pytest.raises(InputError, match="rule"):
        choose_k(three_blobs(), [2], rule="luck", progress=False)
