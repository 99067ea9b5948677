"""Several processes find the Gram matrix of one that has all data, and resume as any number."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch

JOB = Path(__file__).parent / "parallel_tracker.py"
ESTIMATORS = ["sketch", "exact", "grouped"]
pytestmark = pytest.mark.slow

spec = importlib.util.spec_from_file_location("rbkit_parallel_tracker", JOB)
job = importlib.util.module_from_spec(spec)
spec.loader.exec_module(job)


@pytest.fixture(scope="module")
def launch(start_script):
    def track(folder, world, first, last):
        """Track steps `first` to `last` in `world` processes; return what each found."""
        environment = {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
        parts = [
            start_script(JOB, folder, rank, world, first, last, env=environment)
            for rank in range(world)
        ]
        done = [part.wait(120) for part in parts]
        assert not any(one.returncode for one in done), "\n".join(one.stderr for one in done)
        return [dict(np.load(folder / f"found-{rank}.npz")) for rank in range(world)]

    return track


@pytest.fixture(scope="module")
def chain(launch, tmp_path_factory):
    """Steps 0 to 3 with two processes, step 3 with one, the others with four."""
    folder = tmp_path_factory.mktemp("chain")
    pair = launch(folder, 2, 0, 3)
    saved = torch.load(folder / "state.pt", weights_only=True)
    for estimator in ESTIMATORS:
        layer, tracker = job.tracker_of(estimator)
        tracker.load_state_dict(saved[estimator])
        job.watch(layer, tracker, 3, 4)
        saved[estimator] = tracker.state_dict()
    torch.save(saved, folder / "state.pt")
    return pair, launch(folder, 4, 4, job.STEPS)


def alone(estimator, last):
    layer, tracker = job.tracker_of(estimator)
    job.watch(layer, tracker, 0, last)
    return job.found(tracker)


def assert_same(results, expected, estimator):
    for rank in results:
        for name, value in expected.items():
            found, size = rank[f"{name}.{estimator}"], np.nanmax(np.abs(value))
            np.testing.assert_allclose(found, value, rtol=1e-6, atol=1e-6 * size, err_msg=name)
            # The same to the last bit, so that all processes go on with one p.
            np.testing.assert_array_equal(found, results[0][f"{name}.{estimator}"])


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_two_processes_find_what_one_finds(chain, estimator):
    assert_same(chain[0], alone(estimator, 3), estimator)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_a_round_goes_on_from_two_to_one_to_four_processes(chain, estimator):
    """The fourth process never sees a batch, and domain 3 is seen by one process alone."""
    assert_same(chain[1], alone(estimator, job.STEPS), estimator)


def test_processes_that_have_seen_nothing_agree_on_nothing(chain):
    for results in chain:
        for rank in results:
            assert not rank["empty.sketch"].any()
