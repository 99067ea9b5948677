"""What a view shows of a run is what the run folder says at that moment, finished or not."""

from io import StringIO
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
from rich.console import Console

from rbkit.show.live.final import final_figure
from rbkit.show.live.frame import frame_svg
from rbkit.show.live.snapshot import Speed, snapshot, speed
from rbkit.show.live.terminal import Room, draw
from rbkit.show.style import alt_text
from rbkit.train import Recorder, Run

P = [[0.25, 0.75], [0.5, 0.5], [0.9, 0.1]]


def estimate(gram):
    diagonal = np.diag(gram)
    return SimpleNamespace(
        gram=gram,
        counts=np.array([8, 8]),
        noise_floor=diagonal / 4,
        diagonal_debiased=0.75 * diagonal,
    )


@pytest.fixture
def recorder(tmp_path):
    """A run of 2 domains, 40 steps and 2 rounds of 10, in the middle of the third."""
    recorder = Recorder(tmp_path / "run")
    recorder.start(
        parameters={"mixer": "RnB", "steps": 40},
        domains={"names": ["oak", "car"], "q": [0.5, 0.5], "sizes": [9, 9]},
    )
    recorder.q = np.array([0.5, 0.5])
    recorder.arrays["p"] = [np.array(P[0])]
    for t in (0, 1):
        step = 10 * (t + 1)
        recorder.log({"kind": "train", "step": step, "loss": 5.0 - t, "tokens": 100 * step})
        losses = {"loss_token": 5.0 - t, "by_domain_token": [4.0 - t, 6.0]}
        recorder.log({"kind": "eval", "step": step, "round": t + 1, **losses})
        recorder.round(step=step, p=P[t + 1], estimate=estimate(np.diag([4.0, 1.0 + t])))
        recorder._write_history()
    recorder.log({"kind": "train", "step": 25, "loss": 3.5, "tokens": 2500})
    return recorder


def snapshot_of(recorder):
    run = Run.follow(recorder.path)
    run.refresh()
    return snapshot(run)


def test_losses_and_the_domain_that_is_hardest_now(recorder):
    snap = snapshot_of(recorder)
    assert snap.train.values.tolist() == [5.0, 4.0, 3.5]
    assert snap.evaluation.steps.tolist() == [10, 20]
    assert snap.worst_name == "car"
    assert snap.worst.values.tolist() == [6.0, 6.0]


def test_the_round_in_progress_is_shown_up_to_now(recorder):
    snap = snapshot_of(recorder)
    assert (snap.step, snap.steps, snap.rounds) == (25, 40, 2)
    assert snap.edges.tolist() == [0, 10, 20, 25]
    np.testing.assert_allclose(snap.p, P)


def test_a_round_that_has_not_begun_is_not_shown(recorder):
    recorder.load_state_dict({"metrics": 0, "timings": 0, "rounds": 2})
    recorder.log({"kind": "train", "step": 20, "loss": 4.0})
    snap = snapshot_of(recorder)
    assert snap.edges.tolist() == [0, 10, 20]
    assert len(snap.p) == 2


def test_matrix_noise_and_effective_numbers_are_those_of_the_last_round(recorder):
    snap = snapshot_of(recorder)
    np.testing.assert_allclose(snap.gram, np.diag([4.0, 2.0]))
    assert snap.noise_share == pytest.approx(0.25)
    assert snap.effective == pytest.approx(np.exp(-0.9 * np.log(0.9) - 0.1 * np.log(0.1)))
    assert snap.effective_target == pytest.approx(2)


def test_speed_and_what_is_left(recorder):
    logged = [("train", 10), ("eval", 10), ("train", 20), ("eval", 20), ("train", 25)]
    timings = [{"kind": k, "step": s, "seconds": s / 10} for k, s in logged]
    run = Run.follow(recorder.path)
    run.refresh()
    run = run.with_(timings=timings)
    snap = snapshot(run)
    assert snap.tokens_per_second == pytest.approx(1000)
    assert snap.eta_seconds == pytest.approx(1.5)


def test_what_watching_took_is_said(recorder):
    recorder._watched_before = 0.5
    recorder._seconds_before += 100
    recorder.finish("ok")
    snap = snapshot_of(recorder)
    assert snap.watch_percent == pytest.approx(0.5, rel=0.01)
    assert (snap.status, snap.eta_seconds) == ("ok", None)


def test_before_the_run_there_is_nothing_to_show_and_no_error(tmp_path):
    snap = snapshot(Run.follow(tmp_path / "later"))
    assert (snap.status, snap.step, snap.m, snap.gram) == ("waiting", 0, 0, None)
    assert (snap.q, snap.worst_name, snap.effective) == (None, None, None)


def test_the_order_of_domains_changes_ever_more_rarely(tmp_path):
    rng = np.random.default_rng(0)
    run = Run.follow(tmp_path).with_(status="running", metrics=[], timings=[])
    orders = []
    vectors = [rng.normal(size=(12, 4)) for _ in range(33)]
    for t in range(1, 34):
        grams = np.array([v @ v.T for v in vectors[:t]])
        run.history = {"gram": grams, "p": np.full((t + 1, 12), 1 / 12), "step": np.arange(t) + 1}
        orders.append(snapshot(run).order.tolist())
    changes = sum(a != b for a, b in pairwise(orders))
    assert changes <= 5


def test_a_finished_run_of_the_record_has_a_snapshot_too(write_run, tmp_path):
    snap = snapshot(write_run(tmp_path / "run"))
    assert snap.gram.shape == (14, 14)
    assert len(snap.p) == len(snap.edges) - 1 == snap.rounds == 12
    assert sorted(snap.order.tolist()) == list(range(14))


def test_speed_is_never_measured_across_a_kill(tmp_path, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(Recorder, "seconds", property(lambda _: clock[0]))

    def work(recorder, steps):
        for step in steps:
            clock[0] += 1.0
            if step % 10 == 0:
                recorder.log({"kind": "train", "step": step, "loss": 2.0, "tokens": 100 * step})
        recorder.beat(every=0, step=step, steps=400)

    recorder = Recorder(tmp_path)
    recorder.start(parameters={"steps": 400})
    work(recorder, range(1, 101))
    checkpoint = recorder.state_dict()
    work(recorder, range(101, 200))  # and was killed
    resumed = Recorder(tmp_path, resume=True)
    resumed.load_state_dict(checkpoint)
    resumed.start(parameters={"steps": 400})
    work(resumed, range(101, 121))
    snap = snapshot_of(resumed)
    assert (snap.eta_seconds, snap.tokens_per_second) == (280.0, 100.0)


def test_the_speed_in_tokens_is_unknown_where_none_were_logged():
    rows = [{"kind": "train", "step": step, "loss": 2.0} for step in (10, 20)]
    timed = [{"kind": "train", "step": 10 * i, "seconds": float(i)} for i in (1, 2)]
    run = SimpleNamespace(metrics=lambda kind: rows, timings=lambda: timed, info={})
    assert speed(run) == Speed(steps=10.0, tokens=None)


@pytest.mark.parametrize("known_from", [1, 2, None])
def test_unknown_proportions_are_not_shown_and_all_views_cope(tmp_path, known_from):
    recorder = Recorder(tmp_path)
    recorder.start(parameters={"steps": 40}, domains={"names": ["oak", "car"], "q": [0.5, 0.5]})
    recorder.arrays["p"] = [np.full(2, np.nan)]
    for t in (0, 1):
        p = P[2] if known_from is not None and t + 1 >= known_from else np.full(2, np.nan)
        seen = estimate(np.diag([4.0, 1.0])) if t == 0 else None
        recorder.round(step=10 * (t + 1), p=p, estimate=seen)
    recorder.beat(every=0, step=25, steps=40)
    recorder._write_history()
    snap = snapshot_of(recorder)
    assert snap.gram.tolist() == [[4.0, 0.0], [0.0, 1.0]]  # of the last round that had one
    assert snap.p.tolist() == [P[2]] * {1: 2, 2: 1, None: 0}[known_from]
    assert snap.edges[:1].tolist() == ([] if known_from is None else [10.0 * known_from])
    assert ("not known" in frame_svg(snap)) == (known_from is None)
    console = Console(width=100, file=StringIO())
    console.print(draw(snap, Room(100)))
    assert ("90.0" if known_from else " – ") in console.file.getvalue()
    said = alt_text(final_figure(Run.open(tmp_path)))
    assert (f"before step {10 * (known_from or 0)}" in said) == (known_from is not None)
