"""Runs end in many ways, and job.json says in which."""

from __future__ import annotations

import json
import platform
import shutil
import signal
import subprocess
import sys
import time

import psutil
import pytest

from rbkit.errors import InputError
from rbkit.processes import process_identity
from rbkit.report.sweep import launcher
from rbkit.report.sweep.folder import read_job, write_job
from rbkit.report.sweep.launcher import run_plan
from rbkit.report.sweep.plan import make_plan, queue_unfinished

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="adopts orphans")

ENDINGS = """
import json, os, subprocess, sys, time
from pathlib import Path
here, tries = Path(run_dir), Path(log, case)
tries.write_text(tries.read_text() + "x" if tries.exists() else "x")
well = Path(log, "well").exists() and (case != "kernel" or len(tries.read_text()) > 2)
names = ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "RBKIT_DISPLAY")
mine = {name: os.environ[name] for name in names}
(here / "environment.json").write_text(json.dumps(mine))
child = subprocess.Popen(["sleep", "600"], start_new_session=True)
Path(log, f"{case}.child").write_text(str(child.pid))
"""
DOES = """
# papermill_description=Deed
def say(status):
    (here / "run.json").write_text(json.dumps({"status": status}))
if well or case == "ok":
    say("ok")
elif case == "error":
    raise ValueError("loss is \\x1b[31mNaN")
elif case == "kernel":
    os.kill(os.getpid(), 9)
elif case == "worker":
    os.kill(os.getppid(), 9)
    time.sleep(60)
elif case == "exit":
    os._exit(3)
elif case == "slow":
    Path(run_dir, "late").touch()
    time.sleep(600)
elif case == "stubborn":
    Path(run_dir, "late").touch()
    while True:
        try:
            time.sleep(600)
        except KeyboardInterrupt:
            print("no")
elif case == "pretends":
    say("running")
elif case == "stopped":
    say("interrupted")
"""
ENDS = {
    "ok": ("ok", None),
    "error": ("failed", "ValueError: loss is NaN"),
    "kernel": ("killed", "killed by SIGKILL"),
    "worker": ("killed", "the worker was killed by SIGKILL"),
    "exit": ("killed", "it left with exit code 3"),
    "slow": ("timeout", "ran longer than the limit of 60 s"),
    "stubborn": ("timeout", "ran longer than the limit of 60 s"),
    "pretends": ("failed", "run.json says running"),
    "stopped": ("interrupted", "interrupted"),
}


def update_job(path, **changes):
    write_job(path, {**read_job(path), **changes})


def gone(pid, within=5.0):
    """Whether the process has ended, soon."""
    end = time.monotonic() + within
    while time.monotonic() < end:
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.05)
    return False


def late_when_they_say_so(monkeypatch):
    """Runs are late once they have said so: no test has to wait, or to guess how long."""
    seconds = launcher.Task.seconds.fget
    late = property(lambda t: seconds(t) + (100 if (t.run_dir / "late").exists() else 0))
    monkeypatch.setattr(launcher.Task, "seconds", late)


@pytest.mark.slow
@pytest.mark.notebook
@linux
def test_every_ending_is_reported_as_it_was_and_the_next_call_does_the_rest(
    tiny, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(launcher, "_PATIENCE", 4)
    late_when_they_say_so(monkeypatch)
    log = tmp_path / "log"
    log.mkdir()
    parameters = 'case: str = "ok"\nlog: str = ""\nrun_dir: str = ""'
    template = tiny(ENDINGS, DOES, parameters=parameters)
    grid = {"case": list(ENDS)}
    plan = make_plan(template, grid, tmp_path / "out", {"log": str(log)})
    # Two GPU slots, so two at once, and one of the two cores for each.
    result = run_plan(plan, jobs=3, timeout=60, gpus="7,8")

    jobs = {job.parameters["case"]: (job.run_dir, read_job(job.run_dir)) for job in plan.jobs}
    for case, (status, error) in ENDS.items():
        run_dir, job = jobs[case]
        assert (case, job["status"]) == (case, status)
        assert error is job["error"] is None or error in job["error"]
        assert job["attempts"] == 1
        assert job["seconds"] > 0
        assert job["worker"] is job["kernel"] is None  # nobody's any more
        mine = json.loads((run_dir / "environment.json").read_text())
        assert mine["CUDA_VISIBLE_DEVICES"] == job["gpu"] in {"7", "8"}
        assert mine["OMP_NUM_THREADS"] == str(job["threads"])
        assert mine["RBKIT_DISPLAY"] == "batch"
        assert gone(int((log / f"{case}.child").read_text())), f"{case} left an orphan"
        assert (run_dir / "run.ipynb").exists()
        # A worker that is killed, by the launcher too, makes no page.
        assert case in ("worker", "stubborn") or (run_dir / "run.html").exists()
        assert not list(run_dir.glob(".tmp-*"))
    assert jobs["error"][1]["cell"] == "Deed"
    assert jobs["error"][1]["tail"][-1] == "ValueError: loss is NaN"
    assert result.exit_code == 1
    assert result.counts == {"ok": 1, "failed": 2, "killed": 3, "timeout": 2, "interrupted": 1}
    said = capsys.readouterr().err
    assert len(said.splitlines()) == len(ENDS)
    assert "\x1b" not in said

    (log / "well").touch()
    before = (jobs["ok"][0] / "job.json").read_bytes()
    result = run_plan(plan, jobs=2, gpus="none", retries=1)
    assert result.exit_code == 0
    assert result.started == len(ENDS)  # all but one, and one of them twice
    assert (jobs["ok"][0] / "job.json").read_bytes() == before
    attempts = {job.parameters["case"]: read_job(job.run_dir)["attempts"] for job in plan.jobs}
    assert attempts == dict.fromkeys(ENDS, 2) | {"ok": 1, "kernel": 3}
    mine = json.loads((jobs["error"][0] / "environment.json").read_text())
    assert mine["CUDA_VISIBLE_DEVICES"] == ""
    assert run_plan(plan).started == 0


CHECKPOINTS = """
import time
from pathlib import Path
Path(run_dir, "begun").touch()
try:
    time.sleep(600)
except KeyboardInterrupt:
    time.sleep(0.5)
    Path(run_dir, "checkpoint").touch()
    if seed == 1:
        time.sleep(600)
    raise
"""
LAUNCH = """
import sys
from rbkit.report.sweep.plan import make_plan
from rbkit.report.sweep.launcher import run_plan
plan = make_plan(sys.argv[1], sys.argv[2], sys.argv[3])
sys.exit(run_plan(plan, jobs=int(sys.argv[4]), progress=False).exit_code)
"""


def launched(template, grid, out, jobs):
    """A launcher as the shell starts it, and once its runs have begun."""
    command = [sys.executable, "-c", LAUNCH, str(template), grid, str(out), str(jobs)]
    # A shell starts background jobs with SIGINT ignored, and children inherit that.
    restore = signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(command)
    signal.signal(signal.SIGINT, restore)
    end = time.monotonic() + 180  # on a machine with other work
    while len(list(out.glob("runs/*/begun"))) < jobs:
        assert time.monotonic() < end
        assert process.poll() is None
        time.sleep(0.05)
    time.sleep(0.2)
    return process


@pytest.mark.slow
@pytest.mark.notebook
def test_ctrl_c_lets_runs_write_a_checkpoint_and_a_second_one_does_not_wait(tiny, tmp_path):
    template, out = tiny(CHECKPOINTS), tmp_path / "out"
    process = launched(template, "seed=0..2", out, jobs=2)
    plan = make_plan(template, "seed=0..2", out)
    kernels = [read_job(job.run_dir)["kernel"]["pid"] for job in plan.jobs[:2]]
    with pytest.raises(InputError, match=f"process {process.pid} works on this sweep"):
        run_plan(plan)
    process.send_signal(signal.SIGINT)
    end = time.monotonic() + 30
    while read_job(plan.jobs[0].run_dir)["status"] == "running" and time.monotonic() < end:
        time.sleep(0.05)
    first = read_job(plan.jobs[0].run_dir)
    assert (first["status"], first["error"]) == ("interrupted", "interrupted")
    assert all((job.run_dir / "checkpoint").exists() for job in plan.jobs[:2])
    assert (plan.jobs[0].run_dir / "run.html").exists()
    assert process.poll() is None  # the other one still has time
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == 130
    assert time.monotonic() - began < 8
    statuses = [read_job(job.run_dir)["status"] for job in plan.jobs]
    assert statuses == ["interrupted", "interrupted", "queued"]
    assert all(gone(pid) for pid in kernels)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 400 KB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("may not mount")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.slow
@pytest.mark.notebook
def test_a_full_disk_stops_what_it_stops_and_nothing_is_made_up(tiny, tmp_path, small_disk):
    fills = """
import os
from pathlib import Path
if seed < 2 and not Path(%r).exists():
    with open(Path(run_dir, "big"), "wb", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 4096)
        finally:
            if seed == 0:
                os.unlink(file.name)
"""
    template = tiny(fills % str(tmp_path / "room"))
    plan = make_plan(template, "seed=0..2", small_disk / "out")
    with pytest.raises(InputError, match=r"cannot be written \(No space left on device\)"):
        run_plan(plan, progress=False)
    jobs = [read_job(job.run_dir) for job in plan.jobs]
    assert jobs[0]["status"] == "failed"
    assert "No space left on device" in jobs[0]["error"]
    assert "ok" not in plan.statuses().values()
    assert plan.statuses()[plan.jobs[1].id] == "killed"  # nobody works on it any more

    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(InputError, match=r"cannot be written \(Read-only file system\)"):
        run_plan(plan, progress=False)
    subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)
    (tmp_path / "room").touch()
    (plan.jobs[1].run_dir / "big").unlink()
    assert run_plan(plan, jobs=2, progress=False).exit_code == 0


TRAINS = """
import os, signal, threading, time
from pathlib import Path
import rbkit as rb
def kill_half_way():
    while not Path(run_dir, "checkpoints", "checkpoint-8").exists():
        time.sleep(0.001)
    os.kill(os.getpid(), signal.SIGKILL)
if not resume:
    threading.Thread(target=kill_half_way, daemon=True).start()
corpus = rb.load_corpus("docstrings", max_examples=120, eval_size=20, progress=False)
domains = rb.regroup(corpus, embedder="tfidf", k=3, progress=False)
def train(run_dir, resume=None):
    rb.train(corpus, domains, run_dir=run_dir, mixer="RnB", model="tiny", vocab_size=300,
             context=16, steps=16, round_steps=2, checkpoint_rounds=1, batch_size=4,
             resume=resume, progress=False)
train(run_dir, resume or None)
train(run_dir + "/calm")  # here, since a kernel of its own has to import everything
"""


@pytest.mark.slow
@pytest.mark.notebook
def test_a_killed_training_goes_on_from_its_checkpoint(tiny, tmp_path):
    parameters = 'run_dir: str = ""\nresume: bool = False'
    plan = make_plan(tiny(TRAINS, parameters=parameters), "", tmp_path / "out")
    assert run_plan(plan, retries=1, progress=False).exit_code == 0
    run_dir = plan.jobs[0].run_dir
    assert read_job(run_dir)["attempts"] == 2
    assert len(json.loads((run_dir / "run.json").read_text())["resumed"]) == 1
    calm = (run_dir / "calm" / "metrics.jsonl").read_bytes()
    assert (run_dir / "metrics.jsonl").read_bytes() == calm


def test_what_a_killed_launcher_left_is_ended_if_it_is_the_one_meant(tiny, tmp_path):
    plan = make_plan(tiny("1"), "seed=0..1", tmp_path / "out")
    plan.write()
    left = [subprocess.Popen(["sleep", "600"], start_new_session=True) for _ in plan.jobs]
    try:
        for job, process, born in zip(plan.jobs, left, (0.0, -60.0), strict=True):
            who = process_identity(process.pid)
            kernel = {**who, "born": who["born"] + born}  # somebody else has the number now
            update_job(job.run_dir, status="running", kernel=kernel, host=platform.node())
        queued, _ = queue_unfinished(plan, resume=True)
        assert left[0].wait(timeout=5) == -signal.SIGKILL
        assert left[1].poll() is None
    finally:
        for process in left:
            process.kill()
            process.wait()
    assert [info["status"] for _, info in queued] == ["queued", "queued"]


def test_without_resume_everything_begins_again(tiny, tmp_path):
    plan = make_plan(tiny("1"), "seed=0..1", tmp_path / "out")
    plan.write()
    done = plan.jobs[0]
    update_job(done.run_dir, status="ok", attempts=1)
    (done.run_dir / "run.ipynb").write_text("{}")
    (done.run_dir / "side").mkdir()
    assert [job.id for job, _ in queue_unfinished(plan, resume=True)[0]] == [plan.jobs[1].id]
    assert len(queue_unfinished(plan, resume=False)[0]) == 2
    assert [path.name for path in done.run_dir.iterdir()] == ["job.json"]
    assert read_job(done.run_dir)["attempts"] == 0


def test_a_damaged_job_is_not_taken_for_done(tiny, tmp_path):
    plan = make_plan(tiny("1"), "seed=0", tmp_path / "out")
    plan.write()
    (plan.jobs[0].run_dir / "job.json").write_text('{"status": "ok"')
    assert len(queue_unfinished(plan, resume=True)[0]) == 1


def test_a_notebook_that_is_changed_after_it_was_planned_runs_under_no_wrong_name(tiny, tmp_path):
    template = tiny("1")
    plan = make_plan(template, "seed=0", tmp_path / "out")
    tiny("2")
    with pytest.raises(InputError, match="was changed after the runs were planned"):
        run_plan(plan, progress=False)
    assert not (tmp_path / "out" / "runs").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"jobs": 0}, "jobs: 0 is not positive"),
        ({"retries": -1}, "retries: -1 is negative"),
        ({"timeout": 0}, "timeout: is 0"),
        ({"gpus": "many"}, "gpus: 'many'"),
    ],
)
def test_numbers_that_cannot_be_stop_before_anything_is_written(tiny, tmp_path, options, said):
    plan = make_plan(tiny("1"), "seed=0", tmp_path / "out")
    with pytest.raises(InputError, match=said):
        run_plan(plan, **options)
    assert not (tmp_path / "out").exists()


def test_the_launcher_does_not_import_what_workers_need():
    code = (
        "import sys, rbkit.report.sweep.launcher, rbkit.report.sweep.plan; "
        "print([m for m in ('papermill', 'nbconvert', 'torch', 'ray') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
