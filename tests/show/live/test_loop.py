"""A loop of one's own leaves the same run folder as the trainer, in one line."""

import json
import os

import numpy as np
import pretend
import pytest
import torch

import rbkit as rb
from rbkit.errors import InputError
from rbkit.train.record import Run

A, B, C = [0.5, 0.5], [0.25, 0.75], [0.9, 0.1]


def test_rounds_end_where_the_proportions_change_or_a_gram_is_given(tmp_path):
    with rb.live(tmp_path, ["oak", "car"], steps=4, display=False) as live:
        for p in (A, B, B, C):
            live(1.0, p=p)
    history = Run.open(tmp_path).history
    assert history["step"].tolist() == [2, 4]
    assert history["p"].tolist() == [A, B, C]


def test_proportions_are_read_from_the_sampler(tmp_path):
    sampler = rb.MixtureSampler([0, 0, 1, 1], A)
    with rb.live(tmp_path, ["oak", "car"], sampler=sampler, steps=2, display=False) as live:
        live(1.0)
        sampler.set_proportions(B)
        live(1.0)
    history = Run.open(tmp_path).history
    assert (history["step"].tolist(), history["p"].tolist()) == ([2], [A, B])


def test_the_logged_loss_is_the_mean_since_the_last_one(tmp_path):
    with rb.live(tmp_path, ["oak"], steps=5, log_every=2, display=False) as live:
        for step in live:
            live(torch.tensor(float(step), requires_grad=True), tokens=torch.tensor(10))
    rows = Run.open(tmp_path).metrics("train")
    assert [(row["step"], row["loss"], row["tokens"]) for row in rows] == [
        (2, 0.5, 20), (4, 2.5, 40), (5, 4.0, 50)]  # fmt: skip


def test_the_eval_loss_is_weighted_with_q(tmp_path):
    q = [0.25, 0.5, 0.25]
    with rb.live(tmp_path, ["a", "b", "c"], q=q, steps=1, display=False) as live:
        live(1.0, eval_losses=[4.0, 1.0, np.nan])
    run = Run.open(tmp_path)
    assert run.metrics("eval")[0]["loss_token"] == pytest.approx(2.0)
    assert run.info["final"]["by_domain_token"] == [4.0, 1.0, None]


def test_without_a_with_the_record_ends_after_the_last_step(tmp_path):
    live = rb.live(tmp_path, pretend.NAMES, steps=20, display=False)
    for step in range(20):
        pretend.one_step(live, step)
    assert Run.open(tmp_path).status == "ok"
    endless = rb.live(tmp_path, pretend.NAMES, display=False)
    endless(1.0)
    assert Run.open(tmp_path).status == "running"
    endless.end()
    assert Run.open(tmp_path).status == "ok"


@pytest.mark.parametrize(("what", "match"), [
    ({"p": [1.0]}, r"p: shape \(1,\), but there are 2 domains"),
    ({"eval_losses": [1.0, 2.0, 3.0]}, "eval_losses: shape"),
])  # fmt: skip
def test_what_does_not_fit_the_domains_is_refused(tmp_path, what, match):
    with (
        pytest.raises(InputError, match=match),
        rb.live(tmp_path, ["oak", "car"], display=False) as live,
    ):
        live(1.0, **what)
    assert Run.open(tmp_path).status == "failed"


def test_a_run_that_is_going_on_elsewhere_is_not_overwritten(tmp_path):
    rb.live(tmp_path, ["oak"], display=False)
    rb.live(tmp_path, ["oak"], display=False)  # a cell that is run once more
    info = json.loads((tmp_path / "run.json").read_text())
    (tmp_path / "run.json").write_text(json.dumps(info | {"pid": os.getppid()}))
    with pytest.raises(InputError, match="a run is going on"):
        rb.live(tmp_path, ["oak"], display=False)
