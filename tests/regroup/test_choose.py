"""Choosing k: the silhouette is scikit-learn's, and stability stands beside it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import BaseEstimator
from sklearn.metrics import davies_bouldin_score, silhouette_score

from rbkit.errors import InputError
from rbkit.regroup import KMeans, choose_k, silhouettes
from rbkit.regroup.choose import davies_bouldin, explained_share, inertia, judge
from rbkit.regroup.regret_bound import alignments, regret


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
        choose,
        "pairwise_distances_chunked",
        lambda X, **kw: whole(X, **kw | {"working_memory": 1}),
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


# --------------------------------------------------------------------------- other criteria


@settings(max_examples=40)
@given(st.integers(0, 10_000), st.integers(2, 9))
def test_variance_is_that_within_domains_and_that_between_them(seed, k):
    rng = np.random.default_rng(seed)
    X, labels = rng.normal(size=(50, 3)), rng.integers(k, size=50)
    means = np.stack([X[labels == label].mean(axis=0) for label in labels])
    total = ((X - X.mean(axis=0)) ** 2).sum()
    between = ((means - X.mean(axis=0)) ** 2).sum()
    assert inertia(X, labels) == pytest.approx(total - between)
    assert explained_share(X, labels) == pytest.approx(between / total)


def test_davies_bouldin_is_silent_where_there_is_nothing_to_compare():
    X = np.random.default_rng(0).normal(size=(6, 2))
    labels = np.array([0, 0, 1, 1, 2, 2])
    assert davies_bouldin(X, labels) == davies_bouldin_score(X, labels)
    assert davies_bouldin(X, np.zeros(6, int)) is davies_bouldin(X, np.arange(6)) is None
    assert choose_k(X, [1], progress=False).best["davies_bouldin"] is None


def test_each_row_has_means_over_seeds_and_their_spread():
    X = np.random.default_rng(0).normal(size=(300, 4)).astype(np.float32)
    aim = np.random.default_rng(1).normal(size=(20, 4))
    row = choose_k(X, [5], eval_vectors=aim, seed=3, progress=False).best
    fits = [KMeans(5, seed=seed).fit(X) for seed in (3, 1003, 2003)]
    found = [davies_bouldin_score(X, fit.labels_) for fit in fits]
    assert row["davies_bouldin"] == pytest.approx(np.mean(found), rel=1e-5)
    assert row["davies_bouldin_sd"] == pytest.approx(np.std(found), rel=1e-4)
    bounds = [regret(fit.labels_, alignments(X, aim)).bound for fit in fits]
    assert row["regret_bound"] == pytest.approx(np.mean(bounds))
    assert row["regret_exact"] <= row["regret_lemma"]
    assert row["regret_bound"] <= row["regret_worst"]
    assert row["stability_ari_sd"] > 0


def test_gradient_sketches_are_judged_beside_the_vectors():
    X = three_blobs()
    gradients = np.repeat(np.eye(3), 30, axis=0)
    choice = choose_k(X, [2, 3], gradients=(gradients, np.ones((4, 3))), progress=False)
    assert choice.grid[0]["gradient_explained"] == pytest.approx(0.5)
    assert choice.grid[1]["gradient_explained"] == pytest.approx(1)
    assert choice.grid[1]["gradient_regret_bound"] == 0
    with pytest.raises(InputError, match="89 gradient sketches for 90 vectors"):
        choose_k(X, [2], gradients=(gradients[1:], gradients), progress=False)


# -------------------------------------------------------------------------- cuts of a hierarchy


class Tree(BaseEstimator):
    """Cuts a line into equal parts, or, with another seed, into others."""

    def __init__(self, seed=0):
        self.seed = seed

    def fit(self, X):
        self.X = X
        return self

    def cut(self, k):
        place = np.argsort(np.argsort(self.X[:, 0]))
        return ((place + self.seed // 1000) % len(place) * k // len(place)).astype(np.int32)


def test_k_can_be_chosen_among_the_cuts_of_a_tree():
    X = three_blobs()
    choice = choose_k(X, [2, 3, 6], tree=Tree().fit(X), progress=False)
    assert choice.k == 3
    assert choice.best["smallest_domain"] == 30
    assert 0 < choice.best["stability_ari"] < 1  # of trees with other seeds
    assert choose_k(X, [3], tree=Tree().fit(X), n_seeds=1, progress=False).best[
        "inertia"
    ] == pytest.approx(inertia(X, Tree().fit(X).cut(3)))


def test_a_tree_of_other_vectors_is_refused():
    with pytest.raises(InputError, match="tree: cuts 90 rows, but there are 50"):
        choose_k(three_blobs()[:50], [2], tree=Tree().fit(three_blobs()), n_seeds=1)
    with pytest.raises(InputError, match="n_init"):
        choose_k(three_blobs(), [2], tree=Tree().fit(three_blobs()), n_init=3)


# -------------------------------------------------------------------------------- the verdict


def rows(**columns):
    ks = columns.pop("ks", (5, 10, 20, 40))
    return [
        {"k": k, **{name: values[at] for name, values in columns.items()}}
        for at, k in enumerate(ks)
    ]


def test_a_clear_choice_is_called_so():
    grid = rows(silhouette=[0.1, 0.3, 0.2, 0.1], stability_ari=[0.5, 0.9, 0.6, 0.4])
    assert judge(grid, 10).kind == "clear"
    assert str(judge(grid, 10)) == (
        "clear: silhouette and stability (ARI) are best at or near k = 10"
    )


def test_criteria_that_are_best_far_apart_disagree_and_say_where():
    grid = rows(
        silhouette=[0.1, 0.2, 0.3, 0.4],
        stability_ari=[0.9, 0.6, 0.5, 0.4],
        davies_bouldin=[4.0, 3.0, 2.0, 2.5],
    )
    verdict = judge(grid, 40)
    assert verdict.kind == "disagree"
    assert verdict.words.startswith("criteria disagree: silhouette is best at k = 40, stability")
    assert "Davies-Bouldin at 20" in verdict.words
    assert verdict.words.endswith("k = 40 is the last tried")
    assert verdict.best == {"silhouette": 40, "stability (ARI)": 5, "Davies-Bouldin": 20}


def test_a_best_k_within_noise_of_a_nearer_one_is_no_disagreement():
    grid = rows(
        silhouette=[0.1, 0.4, 0.2, 0.1],
        stability_ari=[0.6, 0.88, 0.2, 0.9],
        stability_ari_sd=[0.05] * 4,
    )
    assert judge(grid, 10).kind == "clear"
    assert judge([row | {"stability_ari_sd": 0.01} for row in grid], 10).kind == "disagree"


@pytest.mark.parametrize("noise", [0.0, 0.06])
def test_a_curve_within_its_noise_or_a_small_number_is_too_flat(noise):
    step = 0.002 if noise == 0 else 0.02
    grid = rows(silhouette=[0.03 + step * at for at in range(4)], silhouette_sd=[noise] * 4)
    verdict = judge(grid, 40)
    assert verdict.kind == "flat"
    assert verdict.words.startswith(
        f"too flat to choose by: the silhouette varies by {3 * step:.3f} over k = 5 to 40"
    )
    assert ("0.060 from seed to seed" in verdict.words) == (noise > 0)


def test_flat_criteria_and_those_that_favour_few_domains_do_not_vote():
    grid = rows(
        silhouette=[0.1, 0.2, 0.3, 0.1],
        stability_ari=[0.51, 0.5, 0.5, 0.5],
        smallest_domain=[90, 40, 20, 10],
        regret_bound=[1.0, 0.8, 0.7, 0.2],
    )
    assert judge(grid, 20).kind == "clear"


def test_one_k_is_no_choice_and_missing_values_are_left_out():
    assert str(judge(rows(ks=[7], silhouette=[0.3]), 7)) == "only k = 7 was tried"
    assert judge([{"k": 4, "silhouette": None}, {"k": 8, "silhouette": 0.1}], 8).kind == "single"
    assert judge([], 8).best == {}


def test_the_verdict_belongs_to_the_rule():
    grid = rows(silhouette=[0.1, 0.11, 0.1, 0.1], stability_ari=[0.9, 0.8, 0.5, 0.4])
    assert judge(grid, 5, "stability").kind == "clear"
    assert judge(grid, 10, "silhouette").kind == "flat"


def test_vectors_without_clusters_are_too_flat_to_choose_by():
    X = np.random.default_rng(0).normal(size=(600, 30))
    choice = choose_k(X, [5, 10, 20], progress=False)
    assert choice.judged.kind == "flat"
    assert "verdict='too flat to choose by" in repr(choice)
