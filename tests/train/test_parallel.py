"""Several processes: the same p and the same examples as one, and a resume from any number."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import forked
import numpy as np
import pytest

from rbkit.train import Run

JOB = Path(__file__).parent / "parallel_job.py"
pytestmark = pytest.mark.slow


TORCHRUN = ["torch.distributed.run", "--nproc-per-node=2", "--master-addr=127.0.0.1"]
ACCELERATE = [
    "accelerate.commands.launch",
    "--multi_gpu",
    "--num_processes=2",
    "--num_machines=1",
    "--mixed_precision=no",
    "--dynamo_backend=no",
    "--main_process_ip=127.0.0.1",
]
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}


def launch(folder, world, what="run", launcher=None, **options):
    """Run the job in `world` processes; return its exit status and what it printed.

    The processes are forked from one that has the imports, unless a `launcher` starts them.
    """
    arguments = [str(folder), what, json.dumps(options)]
    if launcher is None and world == 1:
        done = forked.run(JOB, *arguments, env=ENVIRONMENT)
    elif launcher is None:
        done = forked.run_parallel(JOB, *arguments, world=world, env=ENVIRONMENT)
    else:
        done = launched(arguments, launcher)
    return done.returncode, done.stdout + done.stderr


def launched(arguments, launcher):
    """Run the job in two processes, as a user starts them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    option = "--master-port" if launcher is TORCHRUN else "--main_process_port"
    return subprocess.run(
        [sys.executable, "-m", *launcher, f"{option}={port}", str(JOB), *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, **ENVIRONMENT},
        check=False,
        timeout=400,
    )


def finished(folder, world, what="run", **options):
    status, said = launch(folder, world, what, **options)
    assert status == 0, said[-3000:]
    run = Run.open(folder)
    assert run.status == "ok"
    return run, json.loads((Path(folder) / "result.json").read_text())


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    return finished(tmp_path_factory.mktemp("alone"), 1)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    return finished(tmp_path_factory.mktemp("pair"), 2, launcher=TORCHRUN)


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """Two processes, one of which dies in the middle of a round, after a checkpoint in another."""
    folder = tmp_path_factory.mktemp("killed")
    status, _ = launch(folder, 2, "kill:1:17")
    assert status != 0
    # The first process is ended with the other, or hears of its death before that.
    assert Run.open(folder).status in ("killed", "failed")
    assert (folder / "checkpoints" / "checkpoint-14" / "rbkit_state.json").exists()
    return folder


def same(one, other):
    """The same examples in the same order, and p to 1e-5."""
    (run, result), (theirs, expected) = one, other
    assert result["start"] + len(result["drawn"]) == len(expected["drawn"])
    assert result["drawn"] == expected["drawn"][result["start"] :]
    np.testing.assert_allclose(run.history["p"], theirs.history["p"], atol=1e-5)
    scale = np.nanmax(np.abs(theirs.history["gram"]))
    np.testing.assert_allclose(run.history["gram"], theirs.history["gram"], atol=1e-4 * scale)
    np.testing.assert_array_equal(run.history["counts"], theirs.history["counts"])
    np.testing.assert_allclose(
        run.history["noise_floor"], theirs.history["noise_floor"], rtol=1e-3, atol=1e-4 * scale
    )
    for mine, other_row in zip(run.metrics("eval"), theirs.metrics("eval"), strict=True):
        np.testing.assert_allclose(mine["by_domain_token"], other_row["by_domain_token"], rtol=1e-4)


def test_two_processes_draw_and_balance_as_one(alone, pair):
    same(pair, alone)


def test_accelerate_launch_works_as_torchrun_does(alone, tmp_path):
    same(finished(tmp_path, 2, launcher=ACCELERATE), alone)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_four_processes_draw_and_balance_as_one(alone, tmp_path, accumulate):
    same(finished(tmp_path, 4, accumulate=accumulate), alone)


def test_a_kill_of_any_process_loses_nothing_but_the_steps_since_the_checkpoint(
    killed, pair, tmp_path
):
    """The same number of processes goes on bit by bit."""
    folder = shutil.copytree(killed, tmp_path / "run")
    run, _ = again = finished(folder, 2, "resume")
    same(again, pair)
    assert (folder / "metrics.jsonl").read_bytes() == (pair[0].path / "metrics.jsonl").read_bytes()
    np.testing.assert_array_equal(run.history["p"], pair[0].history["p"])


def test_a_kill_in_the_middle_of_a_checkpoint_goes_back_to_the_one_before(pair, tmp_path):
    status, _ = launch(tmp_path, 2, "kill-saving:0:14")
    assert status != 0
    unfinished = tmp_path / "checkpoints" / "checkpoint-14"
    assert unfinished.exists()
    assert not (unfinished / "rbkit_state.json").exists()
    same(finished(tmp_path, 2, "resume"), pair)


@pytest.mark.parametrize("world", [1, 4])
def test_a_checkpoint_of_two_processes_resumes_with_another_number(killed, alone, tmp_path, world):
    folder = shutil.copytree(killed, tmp_path / "run")
    same(finished(folder, world, "resume"), alone)


@pytest.mark.parametrize("world", [2, 4])
def test_sharded_models_draw_and_balance_as_one(alone, tmp_path, world):
    run, result = finished(tmp_path, world, arguments=FSDP)
    assert result["sharded"]
    same((run, result), alone)


def test_a_checkpoint_of_a_sharded_model_resumes_in_one_process_and_in_four(alone, tmp_path):
    status, _ = launch(tmp_path / "killed", 2, "kill:0:17", arguments=FSDP)
    assert status != 0
    for world, arguments in ((1, {}), (4, FSDP)):
        folder = shutil.copytree(tmp_path / "killed", tmp_path / f"run-{world}")
        same(finished(folder, world, "resume", arguments=arguments), alone)


def test_every_signal_is_the_same_in_two_processes(tmp_path):
    """Losses, fresh gradients, probe runs and a reference model, each for a rule that needs it."""
    options = {"mixers": SIGNALS, "steps": 6, "round_steps": 3, "fidelity_rounds": 2}
    for world in (1, 2):
        status, said = launch(tmp_path / str(world), world, "mixers", **options)
        assert status == 0, said[-3000:]
    for name in SIGNALS:
        one, two = (Run.open(tmp_path / str(world) / name) for world in (1, 2))
        assert one.status == two.status == "ok"
        assert np.ptp(one.history["p"], axis=0).max() > 1e-4, f"{name} does not move"
        np.testing.assert_allclose(one.history["p"], two.history["p"], atol=1e-5, err_msg=name)
        assert one.info["progress"]["loss"] == pytest.approx(two.info["progress"]["loss"], rel=1e-4)


SIGNALS = {
    "GroupDRO": {"eta": 1.0},
    "DGA": {},
    "DoGE": {},
    "SkillIt": {"graph_steps": 3},
    "DoReMi": {},
    "ODM": {},
    "MGDA": {},
    "RepeatAware": {"reserve": 0.5},
}
FSDP = {
    "fsdp": True,
    "fsdp_config": {
        "fsdp_version": 2,
        "transformer_layer_cls_to_wrap": ["LlamaDecoderLayer"],
        "state_dict_type": "FULL_STATE_DICT",
    },
}
