"""Choosing k by short training: paired within seeds, and a killed sweep goes on."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy import stats

import rbkit as rb
from rbkit.errors import InputError, RbkitWarning
from rbkit.regroup import KMeans, TfidfEmbedder, embed_corpus
from rbkit.train import Run
from rbkit.train.k_sweep import compare_losses, sweep_k

SMALL = {
    "steps": 4,
    "round_steps": 2,
    "context": 24,
    "vocab_size": 400,
    "batch_size": 4,
    "embedder": "tfidf",
    "progress": False,
}


# ------------------------------------------------------------------------------- the statistics


def test_what_all_k_have_in_common_in_a_seed_is_no_noise():
    rng = np.random.default_rng(0)
    of_k, of_seed = np.array([3.2, 3.0, 3.1]), 5 * rng.normal(size=6)
    rows = compare_losses(of_k[:, None] + of_seed)
    np.testing.assert_allclose([row["gap"] for row in rows], [0.2, 0, 0.1], atol=1e-9)
    assert max(row["loss_sd"] for row in rows) < 1e-9
    assert rows[0]["gap_low"] == pytest.approx(rows[0]["gap_high"])
    assert rows[1]["gap_low"] is None


def test_the_interval_is_students_over_paired_seeds():
    losses = np.random.default_rng(0).normal(size=(3, 5)) + np.array([[0], [3], [5]])
    rows = compare_losses(losses)
    low, high = stats.ttest_rel(losses[1], losses[0]).confidence_interval(0.95)
    assert (rows[1]["gap_low"], rows[1]["gap_high"]) == pytest.approx((low, high))


def test_one_seed_has_no_interval():
    rows = compare_losses(np.array([[3.0], [3.1]]))
    assert [row["gap_high"] for row in rows] == [None, None]
    assert [row["loss_sd"] for row in rows] == [None, None]


# ------------------------------------------------------------------------------------- the runs


@pytest.fixture(scope="module")
def corpus():
    return rb.load_corpus("docstrings", max_examples=160, eval_size=30, progress=False)


@pytest.fixture(scope="module")
def swept(corpus, tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweep")
    with pytest.warns(RbkitWarning, match="of the examples") as warned:  # of the chosen k alone
        sweep = sweep_k(corpus, [5, 3, 4], run_dir=folder, seeds=2, **SMALL)
    assert len(warned) == 1
    assert f"and {sweep.k - 1} others the rest" in str(warned[0].message)
    return folder, sweep


@pytest.mark.slow
def test_the_k_of_the_lowest_loss_is_taken(corpus, swept):
    folder, sweep = swept
    assert [row["k"] for row in sweep.grid] == [3, 4, 5]
    assert sweep.best["loss"] == min(row["loss"] for row in sweep.grid)
    assert sweep.best["gap"] == 0
    for row in sweep.grid:
        runs = [Run.open(folder / f"k-{row['k']:03d}" / f"seed-{seed}") for seed in (0, 1)]
        assert [run.info["final"]["loss_token"] for run in runs] == row["losses"]
        assert all(run.info["parameters"]["mixer"] == "Stratified" for run in runs)
        kmeans = KMeans(row["k"]).fit(
            embed_corpus(corpus, TfidfEmbedder(), progress=False)["train"]
        )
        sizes = np.bincount(kmeans.labels_)
        assert sizes.tolist() == sweep.domains[row["k"]].sizes.tolist()
        assert row["smallest_epochs"] == pytest.approx(16 / row["k"] / sizes.min())
        assert {"silhouette", "stability_ari", "davies_bouldin", "regret_bound"} <= set(row)
    assert set(sweep.tied) <= {3, 4, 5} - {sweep.k}
    assert 0 <= sweep.silhouette_r2 <= 1
    assert sweep.cost["runs"] == 6
    assert sweep.cost["flops"] > 0


@pytest.mark.slow
def test_the_sweep_says_what_it_found_in_a_file(swept):
    folder, sweep = swept
    kept = json.loads((folder / "k_sweep.json").read_text())
    assert kept["k"] == sweep.k
    assert kept["grid"] == sweep.grid
    assert kept["verdict"] == sweep.verdict
    assert "eval loss" in sweep.verdict


@pytest.mark.slow
def test_a_killed_sweep_goes_on_and_what_ended_well_is_not_repeated(corpus, swept):
    folder, sweep = swept
    killed = folder / "k-003" / "seed-1" / "run.json"
    info = json.loads(killed.read_text())
    before = {p: p.stat().st_mtime_ns for p in folder.glob("k-*/seed-*/run.json") if p != killed}
    killed.write_text(json.dumps({**info, "status": "running", "pid": 2**22 + 1, "final": None}))
    assert Run.open(killed.parent).status == "killed"
    with pytest.warns(RbkitWarning):
        again = sweep_k(corpus, [3, 4, 5], run_dir=folder, seeds=2, **SMALL)
    assert Run.open(killed.parent).status == "ok"
    assert {p: p.stat().st_mtime_ns for p in before} == before
    assert again.grid == sweep.grid


@pytest.mark.slow
def test_runs_of_other_options_are_not_taken_for_these(corpus, swept):
    with pytest.raises(InputError, match="other options"):
        sweep_k(corpus, [3], run_dir=swept[0], seeds=1, **{**SMALL, "context": 16})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seeds": 0}, "seeds: 0 are not different"),
        ({"seeds": [1, 1]}, "not different seeds"),
        ({"seed": 3}, "domain_seed"),
        ({"mixer": "RnB"}, "mixer: is set by the method"),
        ({"setps": 3}, "did you mean steps"),
    ],
)
def test_options_that_cannot_work_are_refused_before_anything_is_done(options, message, tmp_path):
    with pytest.raises(InputError, match=message):
        sweep_k(None, [2], run_dir=tmp_path, **options)
    assert not list(tmp_path.iterdir())
