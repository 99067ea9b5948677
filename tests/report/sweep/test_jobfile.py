"""What job.json says, and what is true."""

import json
import os
import platform
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest

from rbkit.errors import InputError
from rbkit.files import read_json, write_json
from rbkit.processes import is_alive, process_identity
from rbkit.report.sweep.folder import (
    STATUSES,
    error_tail,
    job_status,
    launcher_at_work,
    new_job,
    now,
    read_job,
    write_job,
)
from rbkit.text import one_line


@pytest.fixture
def job(tmp_path):
    write_job(tmp_path, new_job("seed-0-00000000", "t.ipynb", {"seed": 0}, {"seed": 0}, "rbkit"))
    return tmp_path


def running(**more):
    return {"status": "running", "host": platform.node(), "worker": process_identity(), **more}


def update_job(path, **changes):
    job = {**read_job(path), **changes}
    write_job(path, job)
    return job


def ago(seconds):
    return (datetime.now(UTC) - timedelta(seconds=seconds)).isoformat(timespec="seconds")


def test_a_job_survives_its_file(job):
    made = update_job(job, status="ok", attempts=2, seconds=1.5, gpu="0")
    assert read_job(job) == made
    assert [path.name for path in job.iterdir()] == ["job.json"]


@pytest.mark.parametrize("status", [s for s in STATUSES if s != "running"])
def test_what_has_ended_is_what_it_says(job, status):
    assert job_status(update_job(job, status=status)) == status


def test_a_run_whose_worker_lives_is_running(job):
    assert job_status(update_job(job, **running(heartbeat=ago(9999)))) == "running"


def test_a_run_whose_worker_is_gone_was_killed(job):
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    worker = process_identity(child.pid)
    assert job_status(update_job(job, **running(worker=worker))) == "running"
    child.kill()
    # Not waited for yet: it has a number still, and is dead all the same.
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert job_status(read_job(job)) == "killed"
    child.communicate()
    assert job_status(read_job(job)) == "killed"


def test_a_worker_that_has_just_ended_is_not_killed_while_its_launcher_is_at_work(job):
    gone = {"pid": os.getpid(), "born": 0.0}
    there = {"worker": gone, "launcher": process_identity(os.getppid())}
    assert job_status(update_job(job, **running(**there, heartbeat=now()))) == "running"
    assert job_status(update_job(job, heartbeat="2020-01-01T00:00:00+00:00")) == "killed"
    assert job_status(update_job(job, launcher=gone, heartbeat=now())) == "killed"
    assert job_status(update_job(job, launcher=process_identity())) == "killed"
    with launcher_at_work():
        assert job_status(read_job(job)) == "running"


def test_another_process_with_the_same_number_is_another(job):
    worker = {**process_identity(), "born": process_identity()["born"] - 60}
    assert job_status(update_job(job, **running(worker=worker))) == "killed"


@pytest.mark.parametrize(
    "worker", [None, {}, {"pid": "1", "born": 0}, {"pid": -1, "born": 0}, {"pid": 2**80, "born": 0}]
)
def test_a_worker_that_makes_no_sense_is_none(worker):
    assert not is_alive(worker)


def test_on_another_machine_the_heartbeat_tells(job):
    there = running(host="elsewhere", worker={"pid": 1, "born": 0.0})
    assert job_status(update_job(job, **there, heartbeat=ago(60))) == "running"
    assert job_status(update_job(job, heartbeat=ago(121))) == "killed"
    for wrong in (None, "yesterday", "2026-01-01T00:00:00"):
        assert job_status(update_job(job, heartbeat=wrong)) == "killed"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"format": "x"}, "format 'x' instead of 'rbkit-job/1'"),
        ({"status": "done"}, "unknown status 'done'"),
        ({"parameters": [1]}, "parameters is missing or damaged"),
        ({"tail": None}, "tail is missing or damaged"),
    ],
)
def test_a_damaged_file_is_refused_by_name(job, change, said):
    write_json(job / "job.json", {**read_json(job / "job.json"), **change})
    with pytest.raises(InputError, match=r"job\.json: ") as error:
        read_job(job)
    assert said in str(error.value)


@pytest.mark.parametrize("text", ["", "{", "[]", '"x"', "1"])
def test_what_is_no_job_is_refused(job, text):
    (job / "job.json").write_text(text)
    with pytest.raises(InputError, match=r"job\.json: "):
        read_job(job)
    (job / "job.json").unlink()
    with pytest.raises(InputError, match="no such file"):
        read_job(job)


def test_tails_are_short_and_free_of_control_characters(job):
    lines = [f"\x1b[31mline {i}\x1b[0m" for i in range(100)]
    assert error_tail(lines) == [f"line {i}" for i in range(70, 100)]
    assert read_job(job)["tail"] == []
    update_job(job, tail=error_tail("\n".join(lines)) * 2)
    assert len(read_job(job)["tail"]) == 30


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("\x1b[1;31mred\x1b[m", "red"),
        ("\x1b]0;title\x07text", "text"),
        ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("a\r\nb\tc\x00\x9b", "a b    c"),
        ("abc\u202edcb\u200b", "abcdcb"),
        ("[bold]x[/bold] ünï \U0001f600", "[bold]x[/bold] ünï \U0001f600"),
    ],
)
def test_text_from_elsewhere_does_nothing_to_a_terminal(text, meant):
    assert one_line(text) == meant


def test_what_a_suspended_launcher_has_not_recorded_is_not_killed(job):
    gone = {"pid": os.getpid(), "born": 0.0}
    launcher = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        there = running(worker=gone, launcher=process_identity(launcher.pid))
        assert job_status(update_job(job, **there, heartbeat=ago(300))) == "killed"
        launcher.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, launcher.pid, os.WSTOPPED | os.WNOWAIT)
        assert job_status(read_job(job)) == "running"
    finally:
        launcher.kill()
        launcher.communicate()
    assert job_status(read_job(job)) == "killed"


def test_from_another_machine_a_run_lives_by_its_own_heartbeat_too(job):
    update_job(job, **running(host="elsewhere", worker={"pid": 1, "born": 0.0}), heartbeat=ago(300))
    assert job_status(read_job(job), job) == "killed"
    (job / "run.json").write_text(json.dumps({"heartbeat": ago(5)}))
    assert job_status(read_job(job), job) == "running"
    (job / "run.json").write_text("[]")
    assert job_status(read_job(job), job) == "killed"
