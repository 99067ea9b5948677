"""Offline proposers: the mathematics on known functions, and small swarms that survive a kill."""

from __future__ import annotations

import csv
import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

import rbkit as rb
from rbkit.balance.mixers.fixed import Fixed
from rbkit.errors import InputError
from rbkit.train import Recorder, Run
from rbkit.train.propose import Proposal, draw_mixtures, mixmin, regmix
from rbkit.train.propose.convex import (
    gains,
    minimise,
    mixture_loss,
    objective,
    source_log_probabilities,
)
from rbkit.train.propose.regression import (
    MixtureSpace,
    best_mean,
    choose,
    draw_candidates,
    fit,
    regressors,
    spearman,
)
from rbkit.train.propose.runs import train_once

# Half of a corpus of 160 examples in one of three domains is nothing to warn of here.
pytestmark = pytest.mark.filterwarnings("ignore:domain .* holds:rbkit.errors.RbkitWarning")

SMALL = {"steps": 4, "round_steps": 2, "context": 24, "vocab_size": 400, "batch_size": 4}
seeds = st.integers(0, 2**16)
one = np.ones(1)


# --------------------------------------------------------------------- which mixtures are tried


@given(seeds, st.lists(st.integers(0, 300), min_size=1, max_size=5), st.floats(6, 20))
@settings(max_examples=40)
def test_every_mixture_is_on_the_simplex_within_its_cap_and_without_crumbs(seed, sizes, epochs):
    sizes = np.array([*sizes, 50, 80])
    space = MixtureSpace.of(sizes, max_epochs=epochs)
    drawn = draw_mixtures(space, 3, seed=seed)
    np.testing.assert_allclose(drawn.sum(axis=1), 1)
    assert (drawn[:, sizes == 0] == 0).all()
    assert (drawn * sizes.sum() <= epochs * sizes + 1e-6).all()
    assert ((drawn == 0) | (drawn > 1e-4)).all()
    assert len(np.unique(drawn, axis=0)) == 3
    np.testing.assert_array_equal(draw_mixtures(space, 6, seed=seed)[:3], drawn)


def test_mixtures_lie_around_the_tempered_prior():
    sizes = np.array([10, 90, 900])
    # Without rounding: mixtures of one domain would otherwise be alike, and drawn only once.
    drawn = draw_mixtures(MixtureSpace.of(sizes, max_epochs=100, minimum=0), 3000, seed=0)
    tempered = np.sqrt(sizes) / np.sqrt(sizes).sum()
    np.testing.assert_allclose(drawn.mean(axis=0), tempered, atol=0.03)
    effective = 1 / (drawn**2).sum(axis=1)
    assert np.quantile(effective, 0.1) < 1.05  # weak draws are nearly one domain
    assert np.quantile(effective, 0.9) > 1.9


def test_candidates_keep_the_cap_too():
    space = MixtureSpace.of(np.array([10, 90]), max_epochs=3)
    drawn = draw_candidates(space, 500, seed=1)
    assert 0 < len(drawn) < 500
    assert drawn[:, 0].max() <= 0.3 + 1e-9


def test_a_cap_that_leaves_no_mixture_is_said():
    with pytest.raises(InputError, match="fall short of the budget"):
        MixtureSpace.of(np.array([10, 90]), max_epochs=2, budget=500)
    with pytest.raises(InputError, match="different mixtures"):
        draw_mixtures(MixtureSpace.of(np.array([0, 90])), 2)


# ------------------------------------------------------------------------------------- RegMix


def smooth(mixtures, best):
    """A loss like those of training: log-like gains, best where `best` says."""
    return 3 - (np.log(mixtures + 0.05) * best).sum(axis=1)


@pytest.mark.parametrize("seed", range(4))
def test_the_proposal_lies_in_the_best_region_of_a_smooth_loss(seed):
    rng = np.random.default_rng(seed)
    best = rng.dirichlet(np.full(4, 2.0))
    space = MixtureSpace.of(np.full(4, 100))
    tried = draw_mixtures(space, 48, seed=seed)
    losses = smooth(tried, best)[:, None] + rng.normal(0, 0.01, (48, 1))
    fitted, _ = choose("auto", tried, losses, one)
    candidates = draw_candidates(space, 5000, seed=seed)
    p = best_mean(fitted, candidates, 64)
    truth = smooth(candidates, best)
    assert smooth(p[None], best)[0] <= np.quantile(truth, 0.05)


def test_cross_validation_chooses_the_regression_that_fits():
    tried = draw_mixtures(MixtureSpace.of(np.full(3, 100)), 60, seed=2)
    linear = (tried @ np.array([1.0, 2.0, 4.0]))[:, None]
    curved = smooth(tried, np.array([0.2, 0.3, 0.5]))[:, None]
    assert (
        choose("auto", tried, curved, one)[1]["log"]
        < choose("ridge", tried, curved, one)[1]["ridge"]
    )
    fitted, errors = choose("auto", tried, linear, one)
    assert fitted.name == min(errors, key=errors.get)
    assert errors["ridge"] < errors["boosting"]


@pytest.mark.parametrize("name", sorted(regressors()))
def test_every_regression_predicts_better_than_the_mean(name):
    tried = draw_mixtures(MixtureSpace.of(np.full(3, 100)), 120, seed=3)
    losses = smooth(tried, np.array([0.6, 0.3, 0.1]))[:, None]
    guess = fit(name, tried[:90], losses[:90], one).predict(tried[90:])
    rank, interval = spearman(guess, losses[90:, 0])
    assert rank > 0.6
    assert interval[0] < rank < interval[1]


def test_a_linear_regression_does_not_mind_the_order_of_domains():
    tried = draw_mixtures(MixtureSpace.of(np.full(4, 100)), 30, seed=4)
    losses, order = smooth(tried, np.array([0.4, 0.3, 0.2, 0.1]))[:, None], np.array([2, 0, 3, 1])
    for name in ("ridge", "log", "quadratic"):
        mine = fit(name, tried, losses, one).predict(tried)
        np.testing.assert_allclose(
            fit(name, tried[:, order], losses, one).predict(tried[:, order]), mine, rtol=1e-6
        )


def test_losses_of_domains_are_added_up_with_their_weights():
    tried = draw_mixtures(MixtureSpace.of(np.full(3, 100)), 40, seed=5)
    losses = np.stack([tried @ [1.0, 0, 2], tried @ [0, 3.0, 1]], axis=1)
    weights = np.array([0.25, 0.75])
    fitted = fit("ridge", tried, losses, weights)
    np.testing.assert_allclose(fitted.predict(tried), losses @ weights, atol=1e-3)


def test_rank_correlation_is_not_claimed_where_there_is_none():
    assert spearman(np.ones(8), np.arange(8.0)) == (None, None)
    assert spearman(np.arange(3.0), np.arange(3.0))[1] is None


def test_what_regression_cannot_do_is_said():
    few = draw_mixtures(MixtureSpace.of(np.full(3, 100)), 4)
    with pytest.raises(InputError, match="is unknown"):
        choose("forest", few, np.ones((4, 1)), one)
    with pytest.raises(InputError, match="2 runs to fit"):
        choose("ridge", few[:2], np.ones((2, 1)), one)
    if importlib.util.find_spec("lightgbm") is None:
        with pytest.raises(InputError, match="pip install"):
            choose("lightgbm", few, np.ones((4, 1)), one)


# ------------------------------------------------------------------------------------- MixMin


def problem(seed, m=3, n=20):
    rng = np.random.default_rng(seed)
    return rng.normal(0, 2, (m, n)) - 5, rng.dirichlet(np.ones(n)) + 1e-3


@given(seeds, st.integers(2, 5))
@settings(max_examples=25)
def test_exponentiated_gradient_finds_the_minimum_that_scipy_finds(seed, m):
    log_prob, weights = problem(seed, m)
    found = minimise(log_prob, weights, steps=4000, tol=1e-7)
    scipys = minimize(
        lambda p: mixture_loss(np.maximum(p, 1e-12), log_prob, weights),
        np.full(m, 1 / m),
        method="SLSQP",
        bounds=[(0, 1)] * m,
        options={"ftol": 1e-12, "maxiter": 500},
        constraints={"type": "eq", "fun": lambda p: p.sum() - 1},
    )
    assert found.loss <= scipys.fun + 1e-5
    assert found.loss >= scipys.fun - found.gap - 1e-6
    assert found.loss == pytest.approx(mixture_loss(found.p, log_prob, weights))


@given(seeds, seeds)
def test_no_mixture_is_better_by_more_than_the_gap(seed, other):
    log_prob, weights = problem(seed)
    found = minimise(log_prob, weights, steps=5)
    p = np.random.default_rng(other).dirichlet(np.ones(3))
    assert mixture_loss(p, log_prob, weights) >= found.loss - found.gap - 1e-9


@given(seeds)
def test_each_step_lowers_the_loss(seed):
    log_prob, weights = problem(seed, m=4)
    losses = [minimise(log_prob, 9 * weights, steps=s, tol=0).loss for s in range(6)]
    assert (np.diff(losses) <= 1e-12).all()


@given(seeds)
def test_the_gains_are_minus_the_gradient(seed):
    log_prob, weights = problem(seed)
    p = np.random.default_rng(seed + 1).dirichlet(np.full(3, 3.0))
    for i in range(3):
        e = 1e-6 * np.eye(3)[i]
        slope = mixture_loss(p + e, log_prob, weights) - mixture_loss(p - e, log_prob, weights)
        assert gains(p, log_prob, weights)[i] == pytest.approx(-slope / 2e-6, rel=1e-4)


@given(seeds, st.permutations(range(4)))
def test_mixmin_does_not_mind_the_order_of_domains(seed, order):
    log_prob, weights = problem(seed, m=4)
    p = minimise(log_prob, weights).p
    np.testing.assert_allclose(minimise(log_prob[order], weights).p, p[order], atol=1e-9)


@given(seeds, st.floats(-800, 800))
def test_a_factor_per_document_changes_nothing(seed, shift):
    """Documents of thousands of tokens have log-probabilities that no float could exponentiate."""
    log_prob, weights = problem(seed)
    shifts = shift * np.linspace(-1, 1, 20)
    np.testing.assert_allclose(
        minimise(log_prob + shifts, weights).p, minimise(log_prob, weights).p, atol=1e-6
    )


def test_sources_that_say_the_same_stay_equal_and_one_that_is_always_right_takes_all():
    log_prob, weights = problem(1, m=1)
    np.testing.assert_allclose(minimise(np.repeat(log_prob, 3, 0), weights).p, 1 / 3)
    best = np.concatenate([log_prob, log_prob - 3])
    assert minimise(best, weights, steps=3000).p[0] > 0.99


def test_documents_weigh_the_same_however_long_and_tokens_do_not():
    log_prob, starts = np.log([[0.5, 0.5, 0.5, 0.1], [0.1, 0.1, 0.1, 0.5]]), np.array([0, 3, 3, 4])
    chosen = np.array([True, True, True])  # the second has no token: left out
    by_document, weights = objective(log_prob, starts, chosen, "document")
    np.testing.assert_allclose(by_document, np.log([[0.125, 0.1], [0.001, 0.5]]))
    np.testing.assert_allclose(weights, [1 / 6, 1 / 2])
    by_token, weights = objective(log_prob, starts, np.array([True, True, False]), "token")
    np.testing.assert_allclose(by_token, log_prob[:, :3])
    np.testing.assert_allclose(weights, 1 / 3)


@pytest.mark.parametrize("log_prob", [np.ones(3), np.ones((2, 4)), np.full((2, 3), -np.inf)])
def test_arrays_that_are_no_log_probabilities_are_refused(log_prob):
    with pytest.raises(InputError, match="log_prob"):
        minimise(log_prob, np.ones(3))


# ------------------------------------------------------------------------- proposals as files


def test_a_proposal_survives_being_saved_and_makes_a_mixer(tmp_path):
    made = Proposal([0.25, 0.75], "RegMix", ["a", "b"], 3.5, diagnostics={"spearman": None})
    kept = Proposal.load(made.save(tmp_path / "proposal.json"))
    np.testing.assert_array_equal(kept.p, made.p)
    assert (kept.method, kept.domains, kept.diagnostics) == ("RegMix", ("a", "b"), made.diagnostics)
    assert isinstance(kept.mixer(), Fixed)
    np.testing.assert_allclose(kept.mixer().start(np.array([0.5, 0.5]), np.array([9, 9])), made.p)


@pytest.mark.parametrize("p", [[0.5], [0.5, 0.6], [1.5, -0.5], [np.nan, 1]])
def test_what_is_no_mixture_is_no_proposal(p):
    with pytest.raises(InputError, match="Proposal"):
        Proposal(p, "MixMin", ("a", "b"), 1.0)


def test_a_file_that_is_no_proposal_is_refused(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        Proposal.load(tmp_path / "none.json")
    path = tmp_path / "p.json"
    for text in ("{}", '{"format": "rbkit-proposal/1"}', '{"format": "rbkit-proposal/1", "p": 3}'):
        path.write_text(text)
        with pytest.raises(InputError, match="proposal"):
            Proposal.load(path)


# --------------------------------------------------------------------------- real small swarms


@pytest.fixture(scope="module")
def data():
    corpus = rb.load_corpus("docstrings", max_examples=160, eval_size=30, progress=False)
    return corpus, rb.regroup(corpus, embedder="tfidf", k=3, progress=False)


@pytest.fixture(scope="module")
def swarm(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("regmix")
    proposal = regmix(*data, folder, n=6, candidates=500, best=16, progress=False, **SMALL)
    return folder, proposal


@pytest.mark.slow
def test_regmix_proposes_a_mixture_and_says_how_far_to_trust_it(data, swarm):
    folder, proposal = swarm
    domains, found = data[1], proposal.diagnostics
    assert proposal.p.sum() == pytest.approx(1)
    assert found["held_out"] == 2
    assert found["regressor"] == min(found["cv_error"], key=found["cv_error"].get)
    assert -1 <= found["spearman"] <= 1
    runs = [Run.open(folder / f"run-{i:03d}") for i in range(6)]
    assert found["best_loss_of_a_run"] == min(r.info["final"]["loss_token"] for r in runs)
    assert proposal.cost["runs"] == 6
    assert proposal.cost["flops"] > 6 * 6 * runs[0].info["model"]["parameters"]
    with (folder / "swarm.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert sum(int(row["held_out"]) for row in rows) == 2
    shares = [float(rows[3][f"p: {name}"]) for name in domains.names]
    np.testing.assert_allclose(shares, runs[3].history["p"][0])
    assert Proposal.load(folder / "proposal.json").p.tolist() == proposal.p.tolist()


@pytest.mark.slow
def test_a_killed_swarm_goes_on_and_what_ended_well_is_not_repeated(data, swarm, tmp_path):
    folder, proposal = swarm
    killed = folder / "run-002" / "run.json"
    info = json.loads(killed.read_text())
    before = {p: p.stat().st_mtime_ns for p in folder.glob("run-*/run.json") if p != killed}
    killed.write_text(json.dumps({**info, "status": "running", "pid": 2**22 + 1, "final": None}))
    assert Run.open(killed.parent).status == "killed"
    again = regmix(*data, folder, n=6, candidates=500, best=16, progress=False, **SMALL)
    np.testing.assert_array_equal(again.p, proposal.p)
    assert Run.open(killed.parent).status == "ok"
    assert {p: p.stat().st_mtime_ns for p in before} == before


@pytest.mark.slow
def test_a_folder_of_other_runs_is_left_alone(data, swarm):
    with pytest.raises(InputError, match="other options"):
        regmix(*data, swarm[0], n=6, progress=False, **{**SMALL, "steps": 5})
    run = Run.open(swarm[0] / "run-000")
    assert run.status == "ok"


@pytest.mark.slow
def test_a_run_that_is_stopped_stops_the_swarm_and_is_finished_later(data, tmp_path, monkeypatch):
    options = {**SMALL, "save_model": False, "eval_rounds": 100, "checkpoint_rounds": 1}
    beat = Recorder.beat

    def stopping(self, **progress):
        if progress.get("step") == 2:
            (self.path / "STOP").touch()
        return beat(self, **progress)

    monkeypatch.setattr(Recorder, "beat", stopping)
    with pytest.raises(KeyboardInterrupt, match="continues from there"):
        train_once(*data, tmp_path / "run", Fixed([1, 1, 1]), options)
    monkeypatch.undo()
    (tmp_path / "run" / "STOP").unlink(missing_ok=True)
    run = train_once(*data, tmp_path / "run", Fixed([1, 1, 1]), options)
    assert run.status == "ok"
    assert len(run.info["resumed"]) == 1


@pytest.mark.slow
def test_mixmin_proposes_from_one_model_per_domain(data, tmp_path):
    corpus, domains = data
    proposal = mixmin(corpus, domains, tmp_path, progress=False, **SMALL)
    found = proposal.diagnostics
    assert found["used"]["loss"] <= found["used"]["loss_uniform"] + 1e-9
    assert found["used"]["loss"] <= found["used"]["loss_best_source"] + found["gap"] + 1e-9
    assert found["used"]["examples"] + found["held_out"]["examples"] == 30
    assert proposal.predicted_loss == found["held_out"]["loss"]
    run = Run.open(tmp_path / "source-001")
    np.testing.assert_array_equal(run.history["p"][0], [0, 1, 0])
    assert proposal.cost["flops"] > sum(
        e["flops_counted"] or 0
        for i in range(3)
        for e in Run.open(tmp_path / f"source-{i:03d}").info["ledger"]["entries"]
    )
    log_prob, starts, *_ = source_log_probabilities(run, list(corpus["eval"]["text"]))
    with np.load(tmp_path / "source-001" / "final.npz") as file:
        mean = file["eval_loss_per_example"]
    mine = -np.add.reduceat(log_prob, starts[:-1]) / np.diff(starts)
    np.testing.assert_allclose(mine, mean, rtol=1e-4)  # the trainer's own evaluation
    times = {p: p.stat().st_mtime_ns for p in tmp_path.glob("source-*/*")}
    other = mixmin(corpus, domains, tmp_path, per="token", progress=False, **SMALL)
    assert {p: p.stat().st_mtime_ns for p in tmp_path.glob("source-*/*")} == times
    assert other.options["per"] == "token"


def test_bad_options_are_refused_before_anything_is_trained(tmp_path):
    class Untouched:
        m, sizes, eval_sizes, q = 2, np.array([9, 9]), np.array([3, 0]), np.array([1.0, 0.0])
        names = ("a", "b")

    def refused(match, method=regmix, **options):
        with pytest.raises(InputError, match=match):
            method(None, Untouched(), tmp_path / "never", progress=False, **options)

    refused("at least 5", n=4)
    refused("holdout", holdout=1.0)
    refused("best", best=0)
    refused("did you mean steps", setps=4)
    refused("is set by the method", mixer="RnB")
    refused("3 weights for 2", weights=[1, 1, 1])
    refused("are not weights", weights=[-1, 2])
    refused("b has no eval example", weights=[1, 1])
    refused("strengths", strengths=[0])
    refused("per", mixmin, per="word")
    refused("holdout", mixmin, holdout=-0.1)
    refused("save_model", mixmin, save_model=False)
    assert not Path(tmp_path / "never").exists()
