"""A run folder is followed while it is written: only new bytes are read, nothing half is seen."""

import json

import numpy as np
import pytest

from rbkit.errors import InputError
from rbkit.train.recorder import Recorder, Run
from rbkit.train.run import Follower


@pytest.fixture
def recorder(tmp_path):
    recorder = Recorder(tmp_path / "run")
    recorder.start(parameters={"mixer": "RnB"})
    return recorder


def log(recorder, *steps, kind="train"):
    for step in steps:
        recorder.log({"kind": kind, "step": step, "loss": 5.0 - step / 100})


def steps(run, kind="train"):
    return [row["step"] for row in run.metrics(kind)]


def test_nothing_is_there_before_the_run(tmp_path):
    run = Follower(tmp_path / "later")
    assert not run.look()
    assert (run.status, run.info, run.rows, run.history) == ("waiting", {}, [], {})


def test_new_rows_arrive_and_nothing_arrives_twice(recorder):
    run = Follower(recorder.path)
    log(recorder, 10, 20)
    log(recorder, 20, kind="eval")
    assert run.look()
    assert not run.look()
    log(recorder, 30)
    assert run.look()
    assert (steps(run), steps(run, "eval")) == ([10, 20, 30], [20])
    assert [row["step"] for row in run.timings] == [10, 20, 20, 30]
    assert len(run.metrics()) == 4


def test_a_line_without_its_end_is_not_there_yet(recorder):
    run, path = Follower(recorder.path), recorder.path / "metrics.jsonl"
    log(recorder, 10)
    line = json.dumps({"kind": "train", "step": 20}) + "\n"
    with path.open("a") as file:
        file.write(line[:9])
    run.look()
    assert steps(run) == [10]
    with path.open("a") as file:
        file.write(line[9:])
    run.look()
    assert steps(run) == [10, 20]


def test_damage_hides_what_is_damaged_and_no_more(recorder):
    run = Follower(recorder.path)
    log(recorder, 10)
    with (recorder.path / "metrics.jsonl").open("ab") as file:
        file.write(b"\xff{half\n[1]\n")
    log(recorder, 20)
    run.look()
    (recorder.path / "run.json").write_text("{")
    (recorder.path / "history.npz").write_bytes(b"PK no")
    run.look()
    assert (steps(run), run.status, run.history) == ([10, 20], "running", {})


def test_the_history_follows_the_rounds(recorder):
    run = Follower(recorder.path)
    recorder.round(step=5, p=[0.5, 0.5], estimate=None)
    assert run.look()
    np.testing.assert_array_equal(run.history["step"], [5])


def test_a_record_cut_back_by_a_resume_is_read_anew(recorder):
    run = Follower(recorder.path)
    log(recorder, 10)
    state = recorder.state_dict()
    log(recorder, 20, 30)
    run.look()
    resumed = Recorder(recorder.path, resume=True)
    resumed.load_state_dict(state)
    assert run.look()
    assert steps(run) == [10]
    resumed.start(parameters={})
    for step in (21, 31, 41):  # longer than it was
        log(resumed, step)
    run.look()
    assert steps(run) == [10, 21, 31, 41]


def test_another_run_in_the_same_folder_replaces_the_first(recorder):
    run = Follower(recorder.path)
    log(recorder, 10)
    recorder.round(step=10, p=[1.0], estimate=None)
    run.look()
    Recorder(recorder.path).start(parameters={}, started="2026-01-01T00:00:00+00:00")
    run.look()
    assert (run.rows, run.history) == ([], {})


def test_the_death_of_a_run_is_news(recorder):
    run = Follower(recorder.path)
    run.look()
    run.info["pid"] = 2**30
    assert run.look()
    assert run.status == "killed"


@pytest.mark.parametrize(
    "what", [{"heartbeat": None}, {"heartbeat": "yesterday"}, {"pid": None}, {"pid": -1}]
)
def test_a_heartbeat_or_process_that_cannot_be_read_is_not_there_yet(recorder, what):
    run, path = Follower(recorder.path), recorder.path / "run.json"
    path.write_text(json.dumps(recorder.info | what))
    run.look()
    assert run.status == "waiting"
    with pytest.raises(InputError, match="heartbeat or pid cannot be read"):
        Run.open(recorder.path)
