"""Workers are forked; where one cannot be, that costs its run and no other."""

from __future__ import annotations

import time

import pytest

from rbkit.report.sweep import worker
from rbkit.report.sweep.launcher import judge
from rbkit.report.sweep.worker import LocalWorkers

NO_SECOND = """
import os
fork, calls = os.fork, []
def fork_but_once():
    calls.append(1)
    if len(calls) == 2:
        raise BlockingIOError(11, "Resource temporarily unavailable")
    return fork()
os.fork = fork_but_once
"""


@pytest.fixture
def workers():
    workers = LocalWorkers()
    yield workers
    workers.close()


def request(id, folder):
    return {
        "id": id,
        "template": str(folder / "none.ipynb"),
        "parameters": {},
        "env": {},
        "run_dir": str(folder),
        "cwd": str(folder),
    }


def ends(workers, *ids):
    found, end = {}, time.monotonic() + 60
    while set(found) < set(ids) and time.monotonic() < end:
        for event in workers.events(0.25):
            if event.kind == "ended":
                found[event.id] = event.data["result"]
    return found


def test_a_fork_that_fails_costs_one_run(tmp_path, monkeypatch, workers):
    monkeypatch.setattr(worker, "_START", NO_SECOND + worker._START)
    for id in "abc":
        workers.start(request(id, tmp_path))
    found = ends(workers, "a", "b", "c")
    assert "no such notebook" in found["a"]["error"]
    assert "no such notebook" in found["c"]["error"]
    verdict = judge(tmp_path, found["b"], None)
    assert verdict.status == "killed"  # so it is tried again if retries are wanted
    assert verdict.error == "no process could be started for it (Resource temporarily unavailable)"


def test_no_more_files_cost_one_run(tmp_path, monkeypatch, workers):
    def no_more(_mark):
        raise OSError(24, "Too many open files")

    monkeypatch.setattr("rbkit.report.sweep.worker.start_fork_server", no_more)
    workers.start(request("a", tmp_path))
    assert "(Too many open files)" in ends(workers, "a")["a"]["error"]
