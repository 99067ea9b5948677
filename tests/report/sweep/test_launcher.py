"""The loop itself, with workers that only pretend: what it does when folders go wrong."""

from __future__ import annotations

import errno
import json
import shutil

import pytest

from rbkit.errors import InputError
from rbkit.report.sweep import launcher
from rbkit.report.sweep.folder import new_job, read_job, write_job
from rbkit.report.sweep.launcher import Board, Launcher, Task
from rbkit.report.sweep.worker import Event

WELL = {"status": "ok", "error": None, "cell": None, "tail": [], "oom": False}
DONE = {"cells": [], "metadata": {"papermill": {"end_time": "2026-01-01"}}}


class Pretenders:
    """Workers that begin, spoil what `spoil` says, and end well, or as killed."""

    def __init__(self, spoil):
        self.spoil, self.killed, self.news, self.folders = spoil, [], [], {}

    def start(self, request):
        self.folders[request["id"]] = request["run_dir"]
        self.news += [(request["id"], "started"), (request["id"], "ended")]

    def events(self, timeout):
        id, kind = self.news.pop(0)
        if kind == "started":
            return [Event("started", id, {"worker": None, "host": "here"})]
        self.spoil(id, self.folders[id])
        return [Event("ended", id, {"result": None if id in self.killed else WELL, "code": 0})]

    def interrupt(self, id):
        raise AssertionError(id)

    def kill(self, id):
        self.killed.append(id)

    def close(self):
        self.closed = True


@pytest.fixture
def launch(tmp_path):
    (tmp_path / ".sweep").mkdir()

    def run(spoil, before=None, gpus=(), workers=None):
        tasks = []
        for id in "abc":
            folder, info = tmp_path / "runs" / id, new_job(id, "t.ipynb", {}, {})
            write_job(folder, info)
            tasks.append(Task(id, folder, {}, info))
        if before:
            before(tmp_path / "runs")
        made = Launcher(
            workers or Pretenders(spoil),
            tasks,
            out=tmp_path,
            template=tmp_path / "t.ipynb",
            resumable=False,
            at_once=2,
            retries=1,
            gpus=gpus,
            board=Board(3, 0, 2, shown=False),
        )
        return made.run()

    return run


def ends_well(id, folder, but=""):
    from pathlib import Path

    if id == but:  # its notebook replaces its own folder
        shutil.rmtree(folder)
        Path(folder).write_text("")
    else:
        (Path(folder) / "run.ipynb").write_text(json.dumps(DONE))


def test_a_folder_that_takes_nothing_costs_its_own_run(launch, tmp_path):
    statuses = launch(lambda id, folder: ends_well(id, folder, but="b"))
    assert statuses == {"a": "ok", "b": "failed", "c": "ok"}
    assert read_job(tmp_path / "runs" / "c")["status"] == "ok"


def test_a_folder_that_cannot_be_cleared_costs_its_own_run(launch, monkeypatch):
    clear = launcher.clear

    def no_permission(folder):
        if folder.name == "a":
            raise PermissionError(errno.EACCES, "Permission denied")
        clear(folder)

    monkeypatch.setattr(launcher, "clear", no_permission)
    assert launch(ends_well) == {"a": "failed", "b": "ok", "c": "ok"}


def test_a_run_whose_beginning_cannot_be_written_down_is_killed(launch, monkeypatch, tmp_path):
    def write(folder, info):
        if folder.name == "a" and info["status"] == "running":
            raise PermissionError(errno.EACCES, "Permission denied")
        write_job(folder, info)

    monkeypatch.setattr(launcher, "write_job", write)
    assert launch(ends_well) == {"a": "failed", "b": "ok", "c": "ok"}
    assert read_job(tmp_path / "runs" / "a")["error"] == (
        "the folder of the run cannot be written (Permission denied)"
    )


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.EACCES])
def test_where_nothing_can_be_written_all_ends(launch, monkeypatch, tmp_path, number):
    def write(folder, info):
        if number == errno.EACCES:  # the folder of the sweep is gone, too
            shutil.rmtree(tmp_path / ".sweep", ignore_errors=True)
        raise OSError(number, "no")

    monkeypatch.setattr(launcher, "write_job", write)
    with pytest.raises(InputError, match=r"cannot be written \(no\)"):
        launch(ends_well)


def test_no_two_runs_at_a_time_have_the_same_gpu(launch):
    class OnGpus(Pretenders):
        def start(self, request):
            self.in_use = {**getattr(self, "in_use", {})}
            gpu = request["env"]["CUDA_VISIBLE_DEVICES"]
            assert gpu not in self.in_use.values()
            self.in_use[request["id"]] = gpu
            super().start(request)

        def events(self, timeout):
            (event,) = super().events(timeout)
            if event.kind == "ended":
                del self.in_use[event.id]
            return [event]

    workers = OnGpus(ends_well)
    assert set(launch(None, gpus=["0", "1"], workers=workers).values()) == {"ok"}
    assert workers.in_use == {}
