"""A loop of one's own leaves the same run folder as the trainer, in one line."""

import json
import os
import signal
from pathlib import Path

import numpy as np
import pretend
import pytest
import torch

import rbkit as rb
from rbkit.balance.signals import GramEstimate
from rbkit.errors import InputError
from rbkit.train import Run

A, B, C = [0.5, 0.5], [0.25, 0.75], [0.9, 0.1]


def recorded(folder):
    history = Run.open(folder).history
    return history["step"].tolist(), history["p"].tolist()


def gram_of(k):
    """An estimate that can be told from the others by its diagonal."""
    return GramEstimate(k * np.eye(2), np.full(2, 9), np.full(2, 0.8 * k), np.full(2, 0.2 * k))


def test_rounds_end_where_the_proportions_change(tmp_path):
    options = {"p": A, "round_steps": 1, "steps": 4, "display": False}
    with rb.live(tmp_path, ["oak", "car"], **options) as live:
        for p in (A, B, B, C):
            live(1.0, p=p)
    assert recorded(tmp_path) == ([2, 4], [A, B, C])


def test_proportions_that_change_at_every_step_are_recorded_by_their_mean(tmp_path):
    with rb.live(tmp_path, ["oak", "car"], p=[0.5, 0.5], steps=25, display=False) as live:
        for step in live:
            live(1.0, p=[0.5 + 0.01 * (step + 1), 0.5 - 0.01 * (step + 1)])
    steps, p = recorded(tmp_path)
    assert steps == [10, 20, 25]
    assert [row[0] for row in p] == pytest.approx([0.545, 0.645, 0.72, 0.75])


def test_proportions_are_read_from_the_sampler(tmp_path):
    sampler = rb.MixtureSampler([0, 0, 1, 1], A)
    options = {"sampler": sampler, "round_steps": 1, "steps": 3, "display": False}
    with rb.live(tmp_path, ["oak", "car"], **options) as live:
        for step in live:
            live(1.0)
            if step == 1:
                sampler.set_proportions(B)  # of which the third step is made
    assert recorded(tmp_path) == ([2], [A, B])


@pytest.mark.parametrize("iterates", [True, False])
@pytest.mark.parametrize("before", [True, False])
def test_a_gram_matrix_belongs_to_its_round_whatever_is_called_first(tmp_path, before, iterates):
    sampler, rows = rb.MixtureSampler([0, 0, 1, 1], A), {3: B, 7: C, 11: A}
    with rb.live(tmp_path, ["oak", "car"], sampler=sampler, steps=12, display=False) as live:
        for step in live if iterates else range(12):
            if before and step in rows:
                sampler.set_proportions(rows[step])
            live(1.0, gram=gram_of(step) if step in rows else None)
            if not before and step in rows:
                sampler.set_proportions(rows[step])
    assert recorded(tmp_path) == ([4, 8, 12], [A, B, C, A])
    assert Run.open(tmp_path).history["gram"][:, 0, 0].tolist() == [3, 7, 11]


def test_proportions_that_nobody_told_are_unknown_and_not_uniform(tmp_path):
    with rb.live(tmp_path, ["oak", "car"], steps=4, display=False) as live:
        for step in live:
            live(1.0, gram=gram_of(1.0) if step % 2 else None, p=B if step == 3 else None)
    history = Run.open(tmp_path).history
    assert np.isnan(history["p"][:2]).all()
    assert history["p"][2].tolist() == B


def test_the_logged_loss_is_the_mean_since_the_last_one(tmp_path):
    with rb.live(tmp_path, ["oak"], steps=5, log_every=2, display=False) as live:
        for step in live:
            live(torch.tensor(float(step), requires_grad=True), tokens=torch.tensor(10))
    rows = Run.open(tmp_path).metrics("train")
    assert [(row["step"], row["loss"], row["tokens"]) for row in rows] == [
        (2, 0.5, 20),
        (4, 2.5, 40),
        (5, 4.0, 50),
    ]


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
    with pytest.raises(InputError, match="a finished run; give overwrite=True"):
        rb.live(tmp_path, pretend.NAMES, display=False)
    endless = rb.live(tmp_path, pretend.NAMES, overwrite=True, display=False)
    endless(1.0)
    assert Run.open(tmp_path).status == "running"
    endless.end()
    assert Run.open(tmp_path).status == "ok"


@pytest.mark.parametrize(
    ("what", "match"),
    [
        ({"p": [1.0]}, r"p: shape \(1,\), but there are 2 domains"),
        ({"eval_losses": [1.0, 2.0, 3.0]}, "eval_losses: shape"),
        ({"p": [30, 70]}, "p: the sum is 100, not 1"),
        ({"p": [np.nan, 1.0]}, "p: some are negative or not numbers"),
    ],
)
def test_what_does_not_fit_the_domains_is_refused(tmp_path, what, match):
    with (
        pytest.raises(InputError, match=match),
        rb.live(tmp_path, ["oak", "car"], display=False) as live,
    ):
        live(1.0, **what)
    assert Run.open(tmp_path).status == "failed"


@pytest.mark.parametrize("what", ["p", "q"])
def test_what_are_no_proportions_is_refused_before_anything_is_written(tmp_path, what):
    with pytest.raises(InputError, match=f"{what}: the sum is 100, not 1; divide by it"):
        rb.live(tmp_path, ["oak", "car"], display=False, **{what: [30, 70]})
    assert not list(tmp_path.iterdir())
    single = np.array([0.1, 0.9], dtype=np.float16)
    rb.live(tmp_path, ["oak", "car"], display=False, **{what: single}).end()


def test_a_run_that_is_going_on_elsewhere_is_not_overwritten(tmp_path):
    rb.live(tmp_path, ["oak"], display=False)
    rb.live(tmp_path, ["oak"], display=False)  # a cell that is run once more
    info = json.loads((tmp_path / "run.json").read_text())
    (tmp_path / "run.json").write_text(json.dumps(info | {"pid": os.getppid()}))
    with pytest.raises(InputError, match="a run is in progress"):
        rb.live(tmp_path, ["oak"], display=False)


def test_a_loop_left_open_is_replaced_only_where_that_is_asked_for(tmp_path):
    first = rb.live(tmp_path, ["oak"], steps=3, display=False)
    first(1.0)
    with pytest.raises(InputError, match="left open at step 1; give overwrite=True"):
        rb.live(tmp_path, ["oak"], display=False)
    for _ in range(2):
        first(1.0)
    assert Run.open(tmp_path).status == "ok"
    second = rb.live(tmp_path, ["oak"], steps=3, display=False, overwrite=True)
    second(1.0)
    rb.live(tmp_path, ["oak"], display=False, overwrite=True).end()


def test_a_stop_meant_for_an_earlier_run_stops_nothing(tmp_path):
    (tmp_path / "STOP").touch()
    live = rb.live(tmp_path, ["oak"], steps=3, display=False)
    for _ in live:
        live(1.0)
    assert (live.step, Run.open(tmp_path).status) == (3, "ok")


def test_an_iteration_that_is_left_early_ends_the_record_without_a_with(tmp_path):
    def train(live):
        for step in live:
            live(1.0)
            if step == 1:
                raise OSError("the disk is gone")

    live = rb.live(tmp_path, ["oak"], steps=5, display=False)
    with pytest.raises(OSError, match="disk"):
        train(live)
    assert Run.open(tmp_path).status == "interrupted"
    for _ in live:  # mended, and goes on
        live(1.0)
    assert (live.step, Run.open(tmp_path).status) == (5, "ok")
    endless = rb.live(tmp_path, ["oak"], overwrite=True, display=False)
    for _ in endless:
        endless(1.0)
        break
    endless.end()
    assert Run.open(tmp_path).status == "ok"


def test_a_loop_of_its_own_numbers_is_stopped_a_step_later(tmp_path):
    def train(live):
        with live:
            for step in range(9):
                if step == 2:
                    signal.raise_signal(signal.SIGINT)
                live(1.0)

    live = rb.live(tmp_path, ["oak"], steps=9, display=False)
    with pytest.raises(KeyboardInterrupt):
        train(live)
    assert (live.step, Run.open(tmp_path).status) == (4, "interrupted")


def test_a_stop_that_came_too_late_interrupts_nothing(tmp_path):
    with rb.live(tmp_path, ["oak"], steps=2, display=False) as live:
        for step in live:
            if step == 1:
                signal.raise_signal(signal.SIGINT)
            live(1.0)
    assert Run.open(tmp_path).status == "ok"


@pytest.mark.slow
def test_two_processes_share_one_record_and_stop_at_the_same_step(start_script, tmp_path):
    taken = rb.live(tmp_path / "taken", ["oak"], display=False)
    job = Path(__file__).with_name("loop_job.py")
    env = {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    both = [start_script(job, rank, tmp_path, env=env) for rank in (0, 1)]
    said = [each.wait(120).stdout.splitlines() for each in both]
    taken.end()
    run = Run.open(tmp_path / "run")
    stopped = [lines[0] for lines in said]
    assert stopped[0] == stopped[1] == f"left at {run.info['progress']['step']}"
    assert run.status == "interrupted"
    assert (run.metrics("train")[0]["loss"], run.metrics("train")[0]["tokens"]) == (0.5, 20)
    assert "a run is in progress" in said[0][1]
    assert "the first process cannot" in said[1][1]
