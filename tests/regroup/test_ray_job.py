"""The job on Ray gives what one process gives, whatever dies on the way."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from datasets import Dataset
from sklearn.base import BaseEstimator

from rbkit.errors import InputError
from rbkit.ray_cluster import connected_ray
from rbkit.regroup import embed_shards, ray_job

ROWS = Dataset.from_dict({"text": [f"{'abcde'[i % 5] * (i % 7)}{i}" for i in range(100)]})


class Letters(BaseEstimator):
    """Counts letters; kills its process, with the signal nobody can catch, at its first shard."""

    def __init__(self, flag: str | None = None, log: str | None = None) -> None:
        self.flag, self.log = flag, log

    @property
    def identity(self):
        return {"embedder": "Letters"}

    def fit(self, texts):
        return self

    def transform(self, texts):
        if self.log:
            with open(self.log, "a") as file:
                file.write(f"{os.getpid()}\n")
        if self.flag and not Path(self.flag).exists():
            Path(self.flag).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        rows = [[text.count(letter) / 3 for letter in "abcde"] for text in texts]
        return np.array(rows, dtype=np.float32)


def test_ray_is_not_imported_before_it_is_used():
    code = (
        "import sys, rbkit.regroup.ray_job, rbkit.regroup as r; dir(r); print('ray' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.slow
def test_a_start_that_ray_gives_up_is_tried_again(monkeypatch):
    services = pytest.importorskip("ray._private.services")
    get_node, asked = services.get_node, []

    def slow_at_first(*args, **options):
        asked.append(args)
        if len(asked) == 1:
            raise Exception("The current node timed out during startup. This could happen ...")
        return get_node(*args, **options)

    monkeypatch.setattr(services, "get_node", slow_at_first)
    with connected_ray(None, cpus=1, gpus=0) as ray:
        assert ray.is_initialized()
    assert len(asked) > 1


@pytest.mark.slow
def test_a_failed_start_leaves_nothing_behind(monkeypatch):
    services = pytest.importorskip("ray._private.services")

    def fail(*args, **options):
        raise ValueError("no such luck")

    monkeypatch.setattr(services, "get_node", fail)
    before = set(psutil.Process().children(recursive=True))
    failing = pytest.raises(InputError, match=r"Ray: did not start \(no such luck\)")
    with failing, connected_ray(None, cpus=1, gpus=0):
        pass
    gc.collect()  # a process that was forgotten warns now
    assert set(psutil.Process().children(recursive=True)) == before


def test_without_ray_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"Ray: is not installed .*pip install 'rbkit\[ray\]'"):
        ray_job.embed_shards_on_ray(ROWS, Letters(), tmp_path, progress=False)
    assert "RAY_USAGE_STATS_ENABLED" not in os.environ


def test_what_is_done_needs_no_ray(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    done = embed_shards(ROWS, Letters(), tmp_path, progress=False)
    again = ray_job.embed_shards_on_ray(ROWS, Letters(), tmp_path, progress=False)
    assert again.key == done.key


def test_a_number_of_workers_is_asked_for(tmp_path):
    with pytest.raises(InputError, match="workers"):
        ray_job.embed_shards_on_ray(ROWS, Letters(), tmp_path, workers=0, progress=False)


@pytest.fixture(scope="module")
def ray():
    """Ray on this machine, as the job starts it; and nothing of it is left afterwards."""
    pytest.importorskip("ray")
    before = set(psutil.Process().children(recursive=True))  # a server of other tests, say
    with connected_ray(None, cpus=3, gpus=0) as ray:
        # The folder of the tests is no package that a worker could import from.
        ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
        started = set(psutil.Process().children(recursive=True)) - before
        yield ray
        ray.cloudpickle.unregister_pickle_by_value(sys.modules[__name__])
    _, alive = psutil.wait_procs(started, timeout=60)
    assert not alive
    assert not ray.is_initialized()


@pytest.mark.slow
@pytest.mark.timeout(900)
class TestOnRay:
    def test_a_worker_dies_and_the_vectors_are_those_of_one_process(self, ray, tmp_path):
        deadly = Letters(flag=str(tmp_path / "flag"), log=str(tmp_path / "log"))
        options = {"rows_per_shard": 10, "progress": False}
        vectors = ray_job.embed_shards_on_ray(ROWS, deadly, tmp_path / "ray", workers=2, **options)
        one = embed_shards(ROWS, Letters(), tmp_path / "one", **options)
        assert (tmp_path / "flag").exists()  # it did die
        assert len(set((tmp_path / "log").read_text().split())) >= 2
        assert np.array_equal(vectors[:], one[:])
        assert ray.is_initialized()  # what was running before stays

    def test_what_a_worker_raises_is_the_users_error(self, ray, tmp_path):
        rows = Dataset.from_dict({"text": ["a"] * 25 + [None]})
        with pytest.raises(InputError, match="row 25 is NoneType"):
            ray_job.embed_shards_on_ray(
                rows, Letters(), tmp_path, rows_per_shard=10, progress=False
            )

    @pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks /proc and psutil")
    def test_nothing_listens_beyond_this_machine(self, ray):
        time.sleep(1)
        family = [psutil.Process(), *psutil.Process().children(recursive=True)]
        listening = [
            link.laddr.ip
            for process in family
            for link in process.net_connections("inet")
            if link.status == psutil.CONN_LISTEN
        ]
        assert listening
        assert set(listening) <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}
