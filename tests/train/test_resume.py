"""A run that was killed or interrupted continues as if nothing had happened."""

from __future__ import annotations

import json
import logging
import os
import pickle
import shutil
import signal
import zipfile
from pathlib import Path

import forked
import numpy as np
import pytest
import torch
from job import At, make

from rbkit.balance.mixers.fixed import Fixed
from rbkit.balance.mixers.repeat_aware import RepeatAware
from rbkit.balance.mixers.rnb import RnB
from rbkit.errors import InputError, RbkitWarning
from rbkit.regroup.domains import Domains
from rbkit.train import Run
from rbkit.train.checkpoint import latest_checkpoint, load_state, save_state

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
@pytest.mark.parametrize("how", ["interrupt", "terminate"])
def test_a_signal_ends_a_run_cleanly_and_it_resumes_exactly(tmp_path, never_stopped, how):
    stopped = job(tmp_path, how, 23)
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


def test_weights_tied_to_those_of_a_checkpoint_are_not_reported_as_missing(copied, monkeypatch):
    said = []
    monkeypatch.setattr(logging.getLogger("transformers.trainer"), "warning", said.append)
    trainer = make(copied, steps=7)
    trainer.train(resume_from_checkpoint=True)
    assert said == []
    trainer._issue_warnings_after_load(trainer.model.load_state_dict({}, strict=False))
    assert "'model.norm.weight'" in said[0]
    assert "lm_head" not in said[0]


def test_a_mixture_by_name_trains_resumes_and_is_recorded_as_its_vector_is(tmp_path):
    vector, by_name = [5, 2, 0, 1], {"d": 1, "c": 0, "a": 5, "b": 2}
    for folder, p in (("vector", vector), ("name", by_name)):
        make(tmp_path / folder, steps=14, mixer=Fixed(p)).train()
    shutil.rmtree(tmp_path / "name" / "checkpoints" / "checkpoint-14")
    with pytest.raises(InputError, match="mixer_options"):
        make(tmp_path / "name", steps=14, mixer=Fixed(vector)).train(resume_from_checkpoint=True)
    make(tmp_path / "name", steps=14, mixer=Fixed(by_name)).train(resume_from_checkpoint=True)
    rows = [(tmp_path / folder / "metrics.jsonl").read_bytes() for folder in ("vector", "name")]
    assert rows[0] == rows[1]
    run = Run.open(tmp_path / "name")
    assert run.info["parameters"]["mixer_options"] == {"p": by_name}
    assert run.mixture() == {"a": 5 / 8, "b": 2 / 8, "c": 0, "d": 1 / 8}
    with pytest.raises(InputError, match="no domain is called 'e'; the domains are 'a', 'b'"):
        make(tmp_path / "wrong", mixer=Fixed({**by_name, "e": 1}))
    assert not (tmp_path / "wrong" / "run.json").exists()


def test_a_rule_that_reads_visits_resumes_exactly_in_the_middle_of_a_round(tmp_path):
    def run_of(folder):
        rule = RepeatAware(reserve=0.5)
        return make(tmp_path / folder, steps=20, round_steps=5, mixer=rule)

    whole = run_of("whole")
    whole.train()
    stopped = run_of("stopped")
    stopped.add_callback(At(12, signal.SIGTERM))
    stopped.train()
    again = run_of("stopped")
    again.train(resume_from_checkpoint=True)
    assert again.mixer.worth == whole.mixer.worth != RepeatAware().worth
    rows = [(tmp_path / folder / "metrics.jsonl").read_bytes() for folder in ("whole", "stopped")]
    assert rows[0] == rows[1]
    mine, theirs = (Run.open(tmp_path / folder).history["p"] for folder in ("whole", "stopped"))
    np.testing.assert_array_equal(mine, theirs)
    assert np.ptp(mine, axis=0).max() > 1e-3


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


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.pt", "training_args.bin"])
def test_a_pipe_in_a_checkpoint_is_refused_and_not_waited_for(copied, name):
    path = copied / "checkpoints" / "checkpoint-7" / name
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(InputError, match=f"{name}: is not a regular file"):
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


@pytest.fixture(scope="module")
def two_checkpoints(tmp_path_factory):
    """A run that ended at step 9, with checkpoints of steps 7 and 9."""
    folder = tmp_path_factory.mktemp("nine")
    make(folder, steps=9).train()
    return folder


def truncated(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def zeroed(path):
    path.write_bytes(bytes(path.stat().st_size))


@pytest.mark.parametrize("damage", [truncated, zeroed, Path.unlink], ids=lambda how: how.__name__)
@pytest.mark.parametrize(
    "name",
    ["model.safetensors", "trainer_state.json", "rbkit_state.npz"],
)
def test_a_damaged_newest_checkpoint_is_passed_over_with_a_warning(
    two_checkpoints, tmp_path, name, damage
):
    run = Path(shutil.copytree(two_checkpoints, tmp_path / "run"))
    damage(run / "checkpoints" / "checkpoint-9" / name)
    with pytest.warns(RbkitWarning, match=r"passed over for checkpoint-7: .*cannot be read|JSON"):
        assert latest_checkpoint(run / "checkpoints").name == "checkpoint-7"
    with pytest.raises(InputError, match=name.replace(".", r"\.") + "|weights"):
        make(run, steps=9).train(str(run / "checkpoints" / "checkpoint-9"))  # that very one


@pytest.mark.parametrize("damage", [truncated, zeroed], ids=lambda how: how.__name__)
@pytest.mark.parametrize("name", ["optimizer.pt", "scheduler.pt", "rng_state.pth"])
def test_a_damaged_part_counts_as_damage_not_as_missing(two_checkpoints, tmp_path, name, damage):
    run = Path(shutil.copytree(two_checkpoints, tmp_path / "run"))
    damage(run / "checkpoints" / "checkpoint-9" / name)
    with pytest.warns(RbkitWarning, match="passed over for checkpoint-7"):
        assert latest_checkpoint(run / "checkpoints").name == "checkpoint-7"


def test_a_run_that_passes_over_a_damaged_checkpoint_ends_as_if_nothing_had_happened(
    two_checkpoints, tmp_path
):
    run = Path(shutil.copytree(two_checkpoints, tmp_path / "run"))
    truncated(run / "checkpoints" / "checkpoint-9" / "model.safetensors")
    with pytest.warns(RbkitWarning, match="passed over"):
        make(run, steps=9).train(resume_from_checkpoint=True)
    whole = Run.open(two_checkpoints)
    assert Run.open(run).metrics() == whole.metrics()
    assert Run.open(run).info["final"] == whole.info["final"]
    assert latest_checkpoint(run / "checkpoints").name == "checkpoint-9"


@pytest.mark.parametrize(
    ("name", "part"),
    [("optimizer.pt", "optimizer"), ("scheduler.pt", "scheduler"), ("rng_state.pth", "random")],
)
def test_a_checkpoint_without_all_parts_is_refused_unless_that_is_asked_for(copied, name, part):
    (copied / "checkpoints" / "checkpoint-7" / name).unlink()
    before = (copied / "metrics.jsonl").read_bytes()
    with pytest.raises(InputError, match=f"has no {part}.*allow_missing=True"):
        make(copied, steps=9).train(resume_from_checkpoint=True)
    assert (copied / "metrics.jsonl").read_bytes() == before
    make(copied, steps=9).train(resume_from_checkpoint=True, allow_missing=True)
    assert Run.open(copied).info["resumed_without"][0].startswith(part)


def test_save_only_model_cannot_be_resumed_exactly(tmp_path):
    make(tmp_path, steps=7, arguments={"save_only_model": True}).train()
    with pytest.raises(InputError, match="no optimizer, no scheduler, no random state"):
        make(tmp_path, steps=9).train(resume_from_checkpoint=True)


def test_a_state_that_is_not_finite_comes_back_as_it_was(tmp_path):
    save_state(tmp_path, {"loss": float("nan"), "losses": [1.0, float("inf")]})
    state = load_state(tmp_path)
    assert np.isnan(state["loss"])
    assert [float(x) for x in state["losses"]] == [1.0, float("inf")]


class Command:
    """What runs a command where it is unpickled."""

    def __reduce__(self):
        return os.system, ("touch it-ran",)


def poisoned(path):
    """Put a pickle that runs a command into a file of torch."""
    aside = path.with_suffix(".aside")
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(aside, "w") as new:
        for item in old.infolist():
            is_pickle = item.filename.endswith("data.pkl")
            new.writestr(item.filename, pickle.dumps(Command(), 2) if is_pickle else old.read(item))
    aside.replace(path)


@pytest.mark.parametrize("name", ["optimizer.pt", "scheduler.pt", "rng_state.pth"])
def test_a_pickle_that_runs_something_is_damage(two_checkpoints, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    run = Path(shutil.copytree(two_checkpoints, tmp_path / "run"))
    poisoned(run / "checkpoints" / "checkpoint-9" / name)
    with pytest.warns(RbkitWarning, match="passed over for checkpoint-7"):
        assert latest_checkpoint(run / "checkpoints").name == "checkpoint-7"
    assert not (tmp_path / "it-ran").exists()


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("trainer_state.json", {"global_step": "many"}),
        ("trainer_state.json", {"logging_steps": [1]}),
        ("trainer_state.json", {"unheard": 1}),
        ("trainer_state.json", {"best_model_checkpoint": "\x1b[31m"}),
        ("trainer_state.json", []),
        ("rbkit_state.json", []),
        ("rbkit_state.json", {"mixture": "array:/nothing"}),
        ("rbkit_state.json", {"tokens": "many"}),
        ("rbkit_state.json", {"recorder": {"metrics": "../x", "timings": 0, "rounds": 0}}),
    ],
)
def test_a_state_that_makes_no_sense_is_an_input_error(two_checkpoints, tmp_path, name, change):
    run = Path(shutil.copytree(two_checkpoints, tmp_path / "run"))
    path = run / "checkpoints" / "checkpoint-9" / name
    facts = json.loads(path.read_text())
    path.write_text(json.dumps(facts | change if isinstance(change, dict) else change))
    with pytest.raises(InputError, match="delete the checkpoint's folder and resume from another"):
        make(run, steps=12).train(str(path.parent))
