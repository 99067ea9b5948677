"""A run that was killed or interrupted continues as if nothing had happened."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from rbkit.errors import InputError
from rbkit.train.record import Run
from rbkit.train.state import latest_checkpoint

JOB = Path(__file__).parent / "job.py"


def job(folder, what="run", step=0):
    return subprocess.run(
        [sys.executable, str(JOB), str(folder), what, str(step)],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


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
    killed = job(tmp_path, "kill", step)
    assert killed.returncode == -signal.SIGKILL
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
    from job import make

    with pytest.raises(InputError, match="no complete checkpoint to resume from"):
        make(tmp_path).train(resume_from_checkpoint=True)


def test_a_corrupt_state_names_the_file(tmp_path):
    from job import make

    make(tmp_path, steps=7).train()
    path = tmp_path / "checkpoints" / "checkpoint-7" / "rbkit_state.npz"
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(InputError, match=r"rbkit_state\.npz: cannot be read"):
        make(tmp_path, steps=9).train(resume_from_checkpoint=True)


def test_another_mixer_cannot_continue_a_run(tmp_path):
    from job import make

    make(tmp_path, steps=7).train()
    with pytest.raises(InputError, match="made by RnB, not by Target"):
        make(tmp_path, steps=9, mixer="Target").train(resume_from_checkpoint=True)
