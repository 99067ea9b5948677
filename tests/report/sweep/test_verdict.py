"""A run is ok only if everything that should say so does."""

from __future__ import annotations

import json

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

from rbkit.report.engine import failure_in
from rbkit.report.sweep.launcher import judge, rescue_notebook
from rbkit.report.sweep.machine import oom_kills

WELL = {"status": "ok", "error": None, "cell": None, "tail": [], "oom": False}
BADLY = {"status": "killed", "error": "DeadKernelError", "cell": "In [2]", "tail": ["x"]}


def notebook(*states, exception=None, end="2026-01-01"):
    cells = [{"cell_type": "code", "metadata": {"papermill": {"status": s}}} for s in states]
    return json.dumps(
        {"cells": cells, "metadata": {"papermill": {"exception": exception, "end_time": end}}}
    )


@pytest.fixture
def run_dir(tmp_path):
    (tmp_path / "run.ipynb").write_text(notebook("completed", "completed"))
    return tmp_path


def test_a_run_without_a_record_of_its_own_is_ok_by_its_notebook(run_dir):
    assert judge(run_dir, WELL, 0).status == "ok"


@pytest.mark.parametrize(
    "written",
    [
        None,
        "",
        '{"cells": [',
        "[]",
        notebook("completed", "pending"),
        notebook("failed"),
        notebook("completed", exception=True),
        notebook("completed", end=None),
    ],
)
def test_without_a_notebook_executed_to_its_end_nothing_is_ok(run_dir, written):
    (run_dir / "run.ipynb").unlink()
    if written is not None:
        (run_dir / "run.ipynb").write_text(written)
    found = judge(run_dir, WELL, 0)
    assert (found.status, found.error) == (
        "failed",
        "run.ipynb is not there, or not executed to its end",
    )


@pytest.mark.parametrize(
    ("record", "status"),
    [
        ('{"status": "ok"}', "ok"),
        ('{"status": "running"}', "failed"),
        ("{", "failed"),
        ('{"status": "interrupted"}', "interrupted"),
        ('{"status": "failed"}', "failed"),
    ],
)
def test_the_runs_own_record_must_agree(run_dir, record, status):
    (run_dir / "run.json").write_text(record)
    assert judge(run_dir, WELL, 0).status == status


def test_a_worker_without_a_word_was_killed_by_what_its_code_says(run_dir):
    (run_dir / "worker.log").write_text("Fatal Python error: \x1b[31mSegmentation fault\n")
    found = judge(run_dir, None, -11)
    assert (found.status, found.error) == ("killed", "the worker was killed by SIGSEGV")
    assert found.tail == ("Fatal Python error: Segmentation fault",)
    assert judge(run_dir, None, 1).error == "the worker left with exit code 1 and without a report"
    assert judge(run_dir, None, None).status == "killed"


def test_a_run_that_was_interrupted_from_elsewhere_has_not_failed(run_dir):
    stopped = {**BADLY, "status": "failed", "error": "KeyboardInterrupt:", "oom": False}
    assert judge(run_dir, stopped, 0).status == "failed"
    (run_dir / "run.json").write_text('{"status": "interrupted"}')
    assert judge(run_dir, stopped, 0).status == "interrupted"
    assert judge(run_dir, {**stopped, "error": "ValueError: no"}, 0).status == "failed"


def test_what_is_long_is_cut_before_it_is_looked_at(tmp_path):
    error = new_output(
        "error",
        ename="ValueError",
        evalue="x" * 10_000_000,
        traceback=["\n" * 100_000, "\x1b[31m" + "x" * 10_000_000],
    )
    cell = new_code_cell("1", outputs=[error])
    nbformat.write(new_notebook(cells=[cell]), tmp_path / "run.ipynb")
    found = failure_in(tmp_path / "run.ipynb")
    assert (len(found.headline), found.headline[-1]) == (500, "…")
    assert len(found.traceback) == 200
    assert max(map(len, found.traceback)) == 2000
    (tmp_path / "worker.log").write_text("\n" * 100_000 + "y" * 1_000_000 + "\n")
    assert list(map(len, judge(tmp_path, None, -9).tail)) == [2000]
    (tmp_path / "run.json").write_text('{"status": "%s"}' % ("z" * 1_000_000))
    (tmp_path / "run.ipynb").write_text(notebook("completed"))
    assert len(judge(tmp_path, WELL, 0).error) < 100


def test_out_of_memory_is_told_apart_from_other_kills(run_dir):
    assert judge(run_dir, None, -9, oom=True).error.startswith("out of memory")
    assert judge(run_dir, {**BADLY, "oom": True}, 0).error.startswith("out of memory")
    assert judge(run_dir, {**BADLY, "oom": False}, 0).error == "DeadKernelError"


def test_what_the_launcher_asked_for_is_the_reason_unless_the_run_failed_by_itself(run_dir):
    stopped = {**BADLY, "status": "interrupted", "oom": False}
    failed = {**BADLY, "status": "failed", "oom": False}
    found = judge(run_dir, stopped, 0, stop_reason="timeout", limit=90)
    assert (found.status, found.error) == ("timeout", "ran longer than the limit of 90 s")
    assert found.cell == "In [2]"
    assert judge(run_dir, None, -9, stop_reason="interrupted").status == "interrupted"
    assert judge(run_dir, failed, 0, stop_reason="timeout", limit=90).status == "failed"
    assert judge(run_dir, WELL, 0, stop_reason="timeout", limit=90).status == "ok"  # just in time


def test_the_notebook_of_a_killed_worker_is_kept_if_it_is_whole(tmp_path):
    (tmp_path / ".tmp-run.ipynb").write_text('{"cells": [')
    rescue_notebook(tmp_path)
    assert not (tmp_path / "run.ipynb").exists()
    (tmp_path / ".tmp-run.ipynb").write_text(notebook("completed", "pending"))
    rescue_notebook(tmp_path)
    assert judge(tmp_path, WELL, 0).status == "failed"


def test_the_system_counts_in_both_versions_of_control_groups(tmp_path):
    own, group = tmp_path / "own", tmp_path / "a" / "b"
    own.write_text("0::/a/b\n")
    assert oom_kills(tmp_path, own) is None
    group.mkdir(parents=True)
    (group / "memory.events").write_text("low 0\noom 4\noom_kill 3\n")
    assert oom_kills(tmp_path, own) == 3
    own.write_text("5:cpu,memory:/a/b\n1:name=systemd:/x\n")
    assert oom_kills(tmp_path, own) is None
    (tmp_path / "memory" / "a" / "b").mkdir(parents=True)
    (tmp_path / "memory" / "a" / "b" / "memory.oom_control").write_text("oom_kill 7\n")
    assert oom_kills(tmp_path, own) == 7
    assert oom_kills(tmp_path, tmp_path / "nothing") is None
