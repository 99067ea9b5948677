"""Trackers say what the run folder says, once, and nothing before they are asked for."""

import importlib.util

import numpy as np
import pytest

from rbkit.balance.signals import GramEstimate
from rbkit.errors import InputError, RbkitWarning
from rbkit.train import Run
from rbkit.train.recorder import Audience, Recorder
from rbkit.train.trackers import (
    TrackedValues,
    TrackerWatcher,
    hyperparameters,
    tag_names,
    tracker_names,
)

NAMES = ["film/tv", "c++ code", "日本語"]
TAGS = ["film_tv", "c_code", "日本語"]
PARAMETERS = {"round_steps": 4, "mixer": "RnB", "mixer_options": {"lam": 3.0}, "k": [8, 12]}


def record_run(folder, watcher, steps, resume_from=None, stop=True, **options):
    """Write the record of some steps as a trainer does, watched; return the recorder."""
    recorder = Recorder(folder, resume=resume_from is not None, **options)
    recorder.arrays["p"] = [np.full(3, 1 / 3)]
    if resume_from is not None:
        recorder.load_state_dict(resume_from)
    recorder.q = np.full(3, 1 / 3)
    recorder.start(parameters=PARAMETERS, domains={"names": NAMES, "sizes": [5, 9, 2]})
    watcher.begin(folder)
    state = None
    for step in steps:
        recorder.log({"kind": "train", "step": step, "loss": 5 - 0.1 * step, "lr": 1e-3})
        if step % 4 == 0:
            by_domain = [3.0, 4.0 - 0.1 * step, None]
            recorder.log(
                {
                    "kind": "eval",
                    "step": step,
                    "loss_token": 3.5 - 0.1 * step,
                    "loss_example": 3.6,
                    "by_domain_token": by_domain,
                }
            )
            gram = np.diag([4.0, 2.0, 1.0]) + 0.1 * step
            ones = np.ones(3)
            estimate = GramEstimate(gram, ones, ones, 0.5 * ones)
            recorder._history_due = 0.0
            recorder.round(step=step, p=np.array([0.5, 0.25, 0.25]), estimate=estimate)
        watcher._throttle._due = 0.0
        watcher.look()
        if step == 8:
            state = recorder.state_dict()
    if stop:
        recorder.finish("ok")
        watcher.end()
    return state


def scalars(folder):
    """Everything in the event files of TensorBoard: name -> [(step, value), ...]."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "trackers" / "tensorboard"), {"scalars": 0}).Reload()
    return {
        tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]
    }


def recorded(folder, kind, key):
    return [(row["step"], pytest.approx(row[key])) for row in Run.open(folder).metrics(kind)]


@pytest.fixture(scope="module")
def tensorboard():
    """TensorBoard, or skip; imported once, since it takes a second."""
    pytest.importorskip("tensorboard")
    return pytest.importorskip("torch.utils.tensorboard")


def test_tensorboard_holds_what_the_record_holds(tmp_path, tensorboard):
    record_run(tmp_path, TrackerWatcher("tensorboard"), range(1, 11))
    found = scalars(tmp_path)
    assert found["train/loss"] == recorded(tmp_path, "train", "loss")
    assert found["eval/loss"] == recorded(tmp_path, "eval", "loss_token")
    assert found["eval/loss/c_code"] == [(4, pytest.approx(3.6)), (8, pytest.approx(3.2))]
    assert "eval/loss/日本語" not in found  # never measured
    assert found["eval/loss_worst"] == found["eval/loss/c_code"]
    # The proportions that each round was made of.
    assert found["rb/p/film_tv"] == [(4, pytest.approx(1 / 3)), (8, 0.5)]
    assert found["rb/effective_domains"][0] == (4, pytest.approx(3.0))
    G = Run.open(tmp_path).history["gram"][-1]
    assert found["rb/gram_min_eig"][-1] == (8, pytest.approx(np.linalg.eigvalsh(G)[0]))
    assert found["rb/noise_share"][-1] == (8, pytest.approx(1.5 / np.trace(G)))
    assert list((tmp_path / "trackers" / "tensorboard").glob("*/hparams.yml"))


def test_a_killed_and_resumed_run_has_no_step_twice(tmp_path, tensorboard):
    killed = TrackerWatcher("tensorboard")
    checkpoint = record_run(tmp_path, killed, range(1, 12), stop=False)
    record_run(tmp_path, TrackerWatcher("tensorboard"), range(9, 17), resume_from=checkpoint)
    found = scalars(tmp_path)
    assert found["train/loss"] == recorded(tmp_path, "train", "loss")
    assert [step for step, _ in found["train/loss"]] == list(range(1, 17))
    assert [step for step, _ in found["rb/gram_trace"]] == [4, 8, 12, 16]
    killed._tracker.finish()


def test_a_new_run_in_the_same_folder_starts_new_curves(tmp_path, tensorboard):
    record_run(tmp_path, TrackerWatcher("tensorboard"), range(1, 9))
    (tmp_path / "trackers" / "mine.txt").write_text("not ours")
    record_run(tmp_path, TrackerWatcher("tensorboard"), range(1, 4), overwrite=True)
    assert [step for step, _ in scalars(tmp_path)["train/loss"]] == [1, 2, 3]
    assert (tmp_path / "trackers" / "mine.txt").exists()


class Collecting:
    """Stands for a tracker of accelerate; keeps what it is told."""

    def __init__(self, **options):
        self.calls, self.finished, self.tracker = [], False, None

    def start(self):
        pass

    def store_init_configuration(self, values):
        self.values = values

    def log(self, values, step):
        self.calls.append((step, values))

    def finish(self):
        self.finished = True


@pytest.fixture
def collecting(monkeypatch):
    from accelerate import tracking

    monkeypatch.setitem(tracking.LOGGER_TYPE_TO_CLASS, "collecting", Collecting)
    monkeypatch.setattr(tracking, "get_available_trackers", lambda: ["collecting"])
    return TrackerWatcher("collecting")


def test_each_step_is_sent_once_and_in_order(tmp_path, collecting):
    record_run(tmp_path, collecting, range(1, 11))
    steps = [step for step, _ in collecting._tracker.calls]
    assert steps == list(range(1, 11))  # what a round adds comes with its step, not after it
    assert collecting._tracker.finished
    assert collecting._tracker.values == {
        "round_steps": 4,
        "mixer": "RnB",
        "mixer_options.lam": 3.0,
        "k": "[8, 12]",
        "n_domains": 3,
        "rbkit": Run.open(tmp_path).info["versions"]["rbkit"],
    }


def test_a_step_waits_for_its_round_and_no_longer(tmp_path, collecting):
    record_run(tmp_path, collecting, [1, 2, 3], stop=False)
    assert [step for step, _ in collecting._tracker.calls] == [1, 2, 3]
    Recorder(tmp_path, resume=True).log({"kind": "train", "step": 4, "loss": 1.0})
    collecting._throttle._due = 0.0
    collecting.look()
    assert len(collecting._tracker.calls) == 3  # its p and its Gram matrix are not written yet
    collecting.end()
    assert [step for step, _ in collecting._tracker.calls] == [1, 2, 3, 4]


def test_rounds_of_any_length_are_sent_though_their_file_comes_late(tmp_path, collecting):
    recorder, ones = Recorder(tmp_path), np.ones(3)
    recorder.start(parameters={}, domains={"names": NAMES})
    recorder.arrays["p"] = [ones / 3]
    collecting.begin(tmp_path)
    for step in range(1, 31):
        recorder.log({"kind": "train", "step": step, "loss": 2.0})
        if step % 5 == 0:
            recorder._history_due = 0.0 if step % 15 == 0 else float("inf")
            recorder.round(step=step, p=ones / 3, estimate=GramEstimate(np.eye(3), *[ones] * 3))
        recorder.beat(every=0, step=step)
        collecting._throttle._due = 0.0
        collecting.look()
    while_it_ran = len(collecting._tracker.calls)
    recorder.finish("ok")
    collecting.end()
    told = [step for step, values in collecting._tracker.calls if "rb/gram_trace" in values]
    assert told == [5, 10, 15, 20, 25, 30]
    assert while_it_ran == 30  # and nothing waits for the end


def test_looking_again_at_once_costs_nothing(tmp_path, collecting, monkeypatch):
    record_run(tmp_path, collecting, [1], stop=False)
    monkeypatch.setattr(collecting._run, "refresh", lambda: pytest.fail("looked too early"))
    collecting.look()


def test_a_tracker_that_fails_is_closed_and_training_goes_on(tmp_path, collecting, monkeypatch):
    audience = Audience([collecting])
    recorder = Recorder(tmp_path)
    recorder.start(parameters=PARAMETERS)
    audience.begin(tmp_path)
    monkeypatch.setattr(collecting._tracker, "log", lambda values, step: 1 / 0)
    recorder.log({"kind": "train", "step": 1, "loss": 2.0})
    collecting._throttle._due = 0.0
    with pytest.warns(RbkitWarning, match="TrackerWatcher stopped watching, training continues"):
        audience.look()
    assert collecting._tracker.finished
    audience.end()


def test_none_is_the_default_and_imports_nothing():
    assert tracker_names("none") == tracker_names([]) == tracker_names(["none"]) == []


def test_names_are_checked_before_anything_runs(monkeypatch):
    from accelerate import tracking

    monkeypatch.setattr(tracking, "get_available_trackers", lambda: [])
    with pytest.raises(InputError, match="no tracker is called 'all'; name one of none, aim"):
        tracker_names("all")
    with pytest.raises(InputError, match="wandb is not installed; pip install wandb"):
        TrackerWatcher("wandb")


def test_names_of_domains_become_tags_that_stay_apart():
    assert tag_names(NAMES) == TAGS
    hostile = ["a\x1b[31m", "a/..", "", "😀", "😀😀", "00_a"]
    assert len(set(tag_names(hostile))) == len(hostile)
    assert all(set(tag) <= set("0123456789_a.31m") for tag in tag_names(hostile))


def test_of_very_many_domains_the_largest_are_named():
    names, sizes = [f"d{i}" for i in range(1000)], list(range(1000))
    values = TrackedValues({"domains": {"names": names, "sizes": sizes}})
    history = {"step": np.array([5]), "p": np.full((2, 1000), 1e-3), "gram": np.eye(1000)[None]}
    found = values.round(history, 0)
    assert sum(name.startswith("rb/p/") for name in found) == 100
    assert "rb/p/d999" in found
    assert found["rb/effective_domains"] == pytest.approx(1000)


def test_gaps_in_the_record_are_left_out():
    values = TrackedValues({})
    assert values.row({"kind": "train", "step": 1, "loss": None}) == {}
    assert values.row({"kind": "eval", "loss_token": 2.0, "by_domain_token": [1.0]}) == {
        "eval/loss": 2.0,
        "eval/loss_worst": 1.0,
    }
    gram = np.full((1, 2, 2), np.nan)
    history = {"step": np.array([4, 8]), "gram": gram, "noise_floor": gram[0, :1]}
    assert values.round(history, 0) == values.round(history, 1) == {}  # whose is the one matrix?
    assert hyperparameters({}) == {}


def test_a_gram_matrix_is_told_of_its_own_round(tmp_path):
    recorder, ones = Recorder(tmp_path), np.ones(3)
    recorder.start(parameters={})
    recorder.arrays["p"] = [ones / 3]
    for t in range(4):
        seen = GramEstimate(t * np.eye(3), ones.astype(np.int64), ones, ones) if t % 2 else None
        recorder.round(step=10 * (t + 1), p=ones / 3, estimate=seen)
    recorder.finish("ok")
    history = Run.open(tmp_path).history
    assert {len(history[name]) for name in ("step", "gram", "counts", "noise_floor")} == {4}
    assert history["counts"][:, 0].tolist() == [0, 1, 0, 1]
    told = [TrackedValues({}).round(history, t).get("rb/gram_trace") for t in range(4)]
    assert told == [None, 3.0, None, 9.0]


def installed_or_skip(name):
    return pytest.param(
        name,
        marks=pytest.mark.skipif(
            importlib.util.find_spec(name) is None, reason=f"{name} is not installed"
        ),
    )


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # of other projects, as they like
@pytest.mark.parametrize("name", [installed_or_skip(name) for name in ("wandb", "mlflow")])
def test_other_trackers_take_it_and_keep_it_in_the_run_folder(tmp_path, monkeypatch, name):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    checkpoint = record_run(tmp_path, TrackerWatcher(name), range(1, 10))
    record_run(tmp_path, TrackerWatcher(name), range(9, 13), resume_from=checkpoint)
    folder = tmp_path / "trackers" / name
    if name == "wandb":  # two parts of one run, which wandb puts together when it is online
        parts = [path.stem for path in folder.glob("wandb/offline-run-*/*.wandb")]
        assert len(parts) == 2
        assert len(set(parts)) == 1
        return
    from mlflow import MlflowClient

    known = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    (run,) = known.search_runs([known.get_experiment_by_name("rbkit").experiment_id])
    found = [(m.step, m.value) for m in known.get_metric_history(run.info.run_id, "train/loss")]
    assert found == recorded(tmp_path, "train", "loss")
