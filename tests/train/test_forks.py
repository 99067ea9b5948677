"""What mixing could still gain: forks continue a run, and the verdict says what they show."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from job import make

import rbkit as rb
from rbkit import show
from rbkit.balance.mixers.fixed import Fixed
from rbkit.errors import InputError
from rbkit.regroup import Domains
from rbkit.show import alt_text
from rbkit.train import Run
from rbkit.train.forks import Headroom, _Checkpoint, _Fork, _rank_correlation, headroom

SMALL = {"round_steps": 4, "context": 24, "vocab_size": 400, "batch_size": 4, "progress": False}


# -------------------------------------------------------------------------------- a fork


@pytest.mark.parametrize("tied", [True, False])
def test_a_fork_continues_weights_optimizer_and_examples_of_the_run(tmp_path, tied):
    """On the same mixture and rate it is the run that was never stopped."""
    options = {"mixer": Fixed([4, 3, 2, 1]), "dropout": 0.0, "tied": tied, "round_steps": 7}
    arguments = {"lr_scheduler_type": "constant", "save_steps": 7}
    whole = make(tmp_path / "whole", steps=14, arguments=arguments, **options)
    whole.train()
    start = _Checkpoint.of(
        Run.open(tmp_path / "whole"), tmp_path / "whole" / "checkpoints" / "checkpoint-7"
    )
    assert start.step == 7
    assert start.learning_rate == pytest.approx(1e-2)
    forked = make(tmp_path / "fork", steps=7, arguments=arguments, **options)
    forked.args.learning_rate = start.learning_rate
    forked.add_callback(_Fork(start, 0))
    forked.callback_handler.callbacks.insert(0, forked.callback_handler.callbacks.pop())
    forked.train()
    assert (forked.sampler.drawn == whole.sampler.drawn).all()
    for one, other in zip(forked.model.parameters(), whole.model.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
    evals = Run.open(tmp_path / "whole").metrics("eval")
    losses = {row["step"]: row["loss_token"] for row in evals}
    assert Run.open(tmp_path / "fork").metrics("eval")[0]["loss_token"] == losses[7]


def test_a_stream_is_the_next_stretch_of_the_run(tmp_path):
    options = {"mixer": Fixed([4, 3, 2, 1]), "steps": 14, "round_steps": 7}
    whole = make(tmp_path / "whole", arguments={"save_steps": 7}, **options)
    whole.train()
    start = _Checkpoint.of(Run.open(tmp_path / "whole"), None)
    forked = make(tmp_path / "fork", mixer=Fixed([1, 1, 1, 7]), steps=2)
    forked.add_callback(_Fork(start, 12))
    forked.train()
    expected = make(tmp_path / "expected", **options).sampler
    expected.take(7 * whole.examples_per_step + 12)
    expected.set_proportions([0.1, 0.1, 0.1, 0.7])
    expected.take(2 * whole.examples_per_step)
    assert (forked.sampler.drawn == expected.drawn).all()


# ----------------------------------------------------------------------------- the whole way


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    corpus = rb.load_corpus("docstrings", max_examples=160, eval_size=30, progress=False)
    domains = Domains.from_labels(
        ["a", "b", "c"], np.arange(len(corpus["train"])) % 3, np.arange(len(corpus["eval"])) % 3
    )
    folder = tmp_path_factory.mktemp("run") / "run"
    run = rb.train(corpus, domains, run_dir=folder, steps=24, checkpoint_rounds=2, **SMALL)
    return corpus, domains, run


@pytest.fixture(scope="module")
def measured(trained):
    corpus, domains, run = trained
    return headroom(run, corpus, domains, steps=3, p="target", progress=False)


@pytest.mark.slow
def test_every_direction_is_tried_on_every_stream_and_resumed(trained, measured, monkeypatch):
    corpus, domains, run = trained
    assert measured.names == ("a", "b", "c")
    assert measured.step == 16
    assert measured.gains.shape == (3, 2)
    np.testing.assert_allclose(measured.mixtures.sum(axis=1), 1)
    folder = run.path / "headroom-16"
    base = [Run.open(folder / "p" / f"stream-{s}").info["final"]["loss_token"] for s in range(4)]
    mine = Run.open(folder / "direction-001" / "stream-1")
    assert measured.gains[1, 1] == base[1] - mine.info["final"]["loss_token"]
    last = Run.open(folder / "combined" / "stream-3").info["final"]["loss_token"]
    assert measured.combined_gains[1] == base[3] - last
    ratio = np.log(measured.combined / measured.p)
    assert np.ptp(ratio) <= 1.0 + 1e-9
    assert set(measured.scores) == {"q", "epochs", "Gq", "cosine", "loss slope"}
    assert measured.cost["runs"] == 12
    assert Run.open(run.path).status == "ok"

    again = Headroom.load(folder / "headroom.json")
    np.testing.assert_array_equal(again.gains, measured.gains)
    assert again.verdict == measured.verdict
    monkeypatch.setattr("rbkit.train.propose.runs.train", lambda *_, **__: pytest.fail("trained"))
    repeated = headroom(run, corpus, domains, steps=3, p="target", progress=False)
    np.testing.assert_array_equal(repeated.gains, measured.gains)


@pytest.mark.slow
def test_what_it_will_take_is_shown_first(trained, measured, capsys):
    corpus, domains, run = trained
    headroom(run, corpus, domains, steps=3, p="target")
    shown = capsys.readouterr()
    assert "12 forks of 3 steps, with an evaluation before and after each, about 1 min" in shown.out
    assert "12/12" in shown.err


def test_inputs_that_cannot_work_are_refused_before_training(trained):
    corpus, domains, run = trained
    other = Domains.from_labels(
        ["a", "b", "c"], np.arange(len(corpus["train"]))[::-1] % 3, domains.eval_labels
    )
    for what, call in {
        "labels are others": lambda: headroom(run, corpus, other, progress=False),
        "shift": lambda: headroom(run, corpus, domains, shift=0.0, progress=False),
        "streams": lambda: headroom(run, corpus, domains, streams=1, progress=False),
        "p: shape": lambda: headroom(run, corpus, domains, p=[1, 2], progress=False),
        "directions": lambda: headroom(
            run, corpus, domains, directions={"x": [0, 0, 0]}, progress=False
        ),
        "learning_rate: is set": lambda: headroom(
            run, corpus, domains, learning_rate=1.0, progress=False
        ),
        "has come to 0": lambda: headroom(
            run, corpus, domains, checkpoint=run.path / "checkpoints" / "checkpoint-24"
        ),
    }.items():
        with pytest.raises(InputError, match=what):
            call()
    assert not (run.path / "headroom-24").exists()


# ------------------------------------------------------------------------------ the verdict


def result(gains, combined, worth=0.002, noise=1e-4, q=None):
    rng = np.random.default_rng(1)
    gains = np.asarray(gains)[:, None] + noise * rng.normal(size=(len(gains), 2))
    m = len(gains)
    scores = {"q": np.arange(m) / m if q is None else q, "Gq": gains.mean(axis=1)}
    p = np.full(m, 1 / m)
    return Headroom(
        tuple("abcdefgh"[:m]), p, np.eye(m), gains, p, combined + noise * rng.normal(size=2),
        scores, 0.5, 40, 200, worth, True,
    )  # fmt: skip


def test_the_verdict_follows_the_interval():
    flat = np.array([0.0004, -0.0002, 0.0001, -0.0009, 0.0003])
    assert "keep p = q" in result(flat, 0.0001).verdict
    assert "it pays to read more of a, e, c, less of d, b" in result(10 * flat, 0.02).verdict
    assert "not known well enough" in result(flat, 0.001, noise=0.01).verdict
    assert result(10 * flat, 0.02).reliability > 0.9
    assert abs(result(flat, 0.0, noise=0.1).reliability) < 0.99


def test_the_interval_holds_as_often_as_it_says():
    rng, inside, n = np.random.default_rng(0), 0, 400
    for _ in range(n):
        gains = rng.normal(size=(6, 1)) + 0.3 * rng.normal(size=(6, 3)) + rng.normal(size=(1, 3))
        each = Headroom(
            tuple("abcdef"), np.full(6, 1 / 6), np.eye(6), gains, np.full(6, 1 / 6), gains[0],
            {}, 0.5, 1, 1, 0.0, True,
        )  # fmt: skip
        error = 0.3 * rng.normal(size=3).mean()
        inside += abs(error) < each.half_width
    assert 0.92 < inside / n < 0.98


def test_rank_correlations_are_spearmans_and_partial_given_q():
    rng = np.random.default_rng(2)
    q = rng.normal(size=60)
    score, gain = q + 0.1 * rng.normal(size=60), q + 0.1 * rng.normal(size=60)
    assert _rank_correlation(score, gain) > 0.9
    assert abs(_rank_correlation(score, gain, q)) < 0.35
    assert _rank_correlation(q, gain, q) is None
    assert _rank_correlation(score[:3], gain[:3]) is None


@pytest.mark.parametrize("m", [1, 5, 8])
def test_the_figure_shows_gains_scores_and_the_verdict(m):
    found = result(0.01 * np.arange(m, 0.0, -1.0), 0.03)
    figure = show.headroom(found)
    gains, scores = figure.axes
    assert [t.get_text() for t in gains.get_yticklabels()] == [*found.names, "all gains together"]
    assert found.verdict[:40] in alt_text(figure)
    shown = [t.get_text() for t in scores.get_yticklabels()]
    assert shown == (["q", "Gq"] if m > 3 else [])
