"""A run that was killed or interrupted continues as if nothing had happened."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path

import forked
import numpy as np
import pytest
import torch
from job import make

from rbkit.balance.mixers.rnb import RnB
from rbkit.errors import InputError
from rbkit.regroup.domains import Domains
from rbkit.train import Run
from rbkit.train.checkpoint import latest_checkpoint

JOB = Path(__file__).parent / "job.py"


def job(folder, what="run", step=0):
    return forked.run(JOB, folder, what, step)


@pytest.fixture(scope="module")
def seven_steps(tmp_path_factory):
    """A run that ended at its checkpoint of step 7."""
    folder = tmp_path_factory.mktemp("seven")
    make(folder, steps=7).train()
    return folder


@pytest.fixture
def copied(seven_steps, tmp_path):
    return Path(shutil.copytree(seven_steps, tmp_path / "run"))


@pytest.fixture(scope="module")
def never_stopped(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    done = job(folder)
    assert done.returncode == 0, done.stderr
    return folder


def same(folder, whole):
    assert (folder / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()
    ours, theirs = Run.open(folder).history, Run.open(whole).history
    assert sorted(ours) == sorted(theirs)
    for name in theirs:
        np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)
    ours, theirs = (json.loads((f / "result.json").read_text()) for f in (folder, whole))
    assert ours["weights"] == theirs["weights"]
    assert ours["drawn"] == theirs["drawn"][ours["start"] :]
    ours, theirs = Run.open(folder).info, Run.open(whole).info
    assert ours["status"] == theirs["status"] == "ok"
    assert ours["final"] == theirs["final"]


@pytest.mark.slow
@pytest.mark.parametrize("step", [16, 29])
def test_a_run_killed_in_the_middle_of_a_round_resumes_exactly(tmp_path, never_stopped, step):
    assert job(tmp_path, "kill", step).returncode == -signal.SIGKILL
    assert Run.open(tmp_path).status == "killed"
    assert latest_checkpoint(tmp_path / "checkpoints").name == f"checkpoint-{step // 7 * 7}"
    resumed = job(tmp_path, "resume")
    assert resumed.returncode == 0, resumed.stderr
    same(tmp_path, never_stopped)


@pytest.mark.slow
def test_ctrl_c_ends_a_run_cleanly_and_it_resumes_exactly(tmp_path, never_stopped):
    stopped = job(tmp_path, "interrupt", 23)
    assert stopped.returncode == 0, stopped.stderr
    assert "Traceback" not in stopped.stderr
    run = Run.open(tmp_path)
    assert run.status == "interrupted"
    assert latest_checkpoint(tmp_path / "checkpoints").name == "checkpoint-24"
    resumed = job(tmp_path, "resume")
    assert resumed.returncode == 0, resumed.stderr
    same(tmp_path, never_stopped)


@pytest.mark.slow
def test_a_checkpoint_whose_writer_was_killed_is_passed_over(tmp_path, never_stopped):
    job(tmp_path, "kill", 16)
    half = tmp_path / "checkpoints" / "checkpoint-99"
    half.mkdir()
    (half / "model.safetensors").write_bytes(b"half a fi")
    assert job(tmp_path, "resume").returncode == 0
    same(tmp_path, never_stopped)


def test_nothing_to_resume_from_is_said_plainly(tmp_path):
    with pytest.raises(InputError, match="no complete checkpoint to resume from"):
        make(tmp_path).train(resume_from_checkpoint=True)


def test_a_corrupt_state_names_the_file(copied):
    path = copied / "checkpoints" / "checkpoint-7" / "rbkit_state.npz"
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(InputError, match=r"rbkit_state\.npz: cannot be read"):
        make(copied, steps=9).train(resume_from_checkpoint=True)


def test_another_mixer_cannot_continue_a_run(copied):
    with pytest.raises(InputError, match="mixer was 'RnB', and is 'Target' now"):
        make(copied, steps=9, mixer="Target").train(resume_from_checkpoint=True)


@pytest.mark.parametrize(
    ("changed", "name"),
    [
        ({"mixer": RnB(prior="previous", lam=30)}, "mixer_options"),
        ({"round_steps": 5}, "round_steps"),
        ({"accumulate": 1}, "examples_per_step"),
        ({"layer": "model.layers.0.mlp.down_proj"}, "layer"),
        ({"buckets": 8}, "buckets"),
        ({"domains": Domains.from_labels(list("abcd"), [0, 1, 2, 3, 0, 1] * 15, [0] * 30)}, "dom"),
    ],
)
def test_a_changed_setting_is_named_and_the_record_left_alone(copied, changed, name):
    before = (copied / "metrics.jsonl").read_bytes()
    with pytest.raises(InputError, match=f"{name}.* was|with {name}"):
        make(copied, steps=9, **changed).train(resume_from_checkpoint=True)
    assert (copied / "metrics.jsonl").read_bytes() == before


@pytest.mark.parametrize("steps", [14, 20])
def test_resuming_a_finished_run_changes_nothing(tmp_path, steps):
    first = make(tmp_path, steps=steps)
    first.train()
    metrics, info = (tmp_path / "metrics.jsonl").read_bytes(), Run.open(tmp_path).info
    again = make(tmp_path, steps=steps)
    again.train(resume_from_checkpoint=True)
    assert (tmp_path / "metrics.jsonl").read_bytes() == metrics
    assert Run.open(tmp_path).info["final"] == info["final"]
    assert Run.open(tmp_path).status == "ok"
    for ours, theirs in zip(again.model.parameters(), first.model.parameters(), strict=True):
        assert (ours == theirs).all()


def test_a_trainer_trains_once(tmp_path):
    trainer = make(tmp_path, steps=7)
    trainer.train()
    with pytest.raises(InputError, match="has trained already"):
        trainer.train()


def test_evaluating_by_hand_sees_the_weights_of_now_and_leaves_the_record_alone(tmp_path):
    trainer = make(tmp_path, steps=7)
    before = trainer.evaluate()["eval_loss"]
    with torch.no_grad():
        trainer.model.lm_head.weight.mul_(5)
    assert trainer.evaluate()["eval_loss"] != before
    trainer.train()
    assert [row["step"] for row in Run.open(tmp_path).metrics("eval")] == [0, 7]


def test_damaged_weights_name_the_file(copied):
    path = copied / "checkpoints" / "checkpoint-7" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(InputError, match=r"model\.safetensors: cannot be read"):
        make(copied, steps=9).train(resume_from_checkpoint=True)


def test_a_record_shorter_than_the_checkpoint_is_refused_before_anything_is_cut(copied):
    path = copied / "metrics.jsonl"
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(InputError, match=r"metrics\.jsonl: has 40 bytes, but"):
        make(copied, steps=9).train(resume_from_checkpoint=True)
    assert path.stat().st_size == 40


def test_a_foreign_checkpoint_is_refused(tmp_path):
    (tmp_path / "theirs").mkdir()
    with pytest.raises(InputError, match="not a checkpoint of a mixture"):
        make(tmp_path).train(resume_from_checkpoint=str(tmp_path / "theirs"))
