"""The story of whoever runs batches, with ``kill -9`` in the middle; also a script.

    python tests/test_batch_story.py --runs 60 --out reports/story

One command runs many notebooks that train. Two kernels are killed, then the launcher itself. It
is said which runs were lost; the second call finishes them and nothing else; one offline page
compares them all.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import pytest

from rbkit.report.html import assert_offline
from rbkit.report.notebooks import find_notebook
from rbkit.report.sweep.folder import job_status, read_job


def command(*words):
    return [sys.executable, "-m", "rbkit.cli", *map(str, words)]


def jobs_in(out):
    return {job["id"]: job for job in (read_job(f.parent) for f in out.glob("runs/*/job.json"))}


def wait_for(something, seconds, launcher):
    """Wait for something to be there; the launcher must be at work meanwhile."""
    until = time.monotonic() + seconds
    while not (found := something()):
        assert time.monotonic() < until, "it never came"
        assert launcher.poll() is None, "the launcher has ended"
        time.sleep(0.05)
    return found


def kill_a_kernel(out, launcher, spared=()):
    """``kill -9`` the kernel of a run that is under way; return the run's id."""

    def running():
        return [
            job
            for job in jobs_in(out).values()
            if job["id"] not in spared and job["status"] == "running" and job["kernel"]
        ]

    victim = wait_for(running, 120, launcher)[0]
    os.kill(victim["kernel"]["pid"], signal.SIGKILL)
    wait_for(lambda: jobs_in(out)[victim["id"]]["status"] == "killed", 30, launcher)
    return victim["id"]


def workers_of(marker):
    """Processes that belong to this sweep, wherever they are in the tree."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("RBKIT_STORY") == marker:
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def story(out, runs, say=print):
    """Live through it; every sentence is checked."""
    marker = str(out)
    mixers = ("stratified", "target", "rnb") if runs > 6 else ("target", "rnb")
    seeds = -(-runs // len(mixers))
    words = [
        "sweep",
        find_notebook("90_run"),
        "--grid",
        f"mixer={','.join(mixers)} seed=0..{seeds - 1}",
        "--out",
        out,
        "--jobs",
        2,
        "--profile",
        "smoke",
        "-p",
        "corpus=docstrings",
        "--baseline",
        "mixer=Target",
    ]
    env = os.environ | {"RBKIT_STORY": marker}
    with tempfile.TemporaryFile() as log:
        first = subprocess.Popen(command(*words), env=env, stdout=log, stderr=log)
        lost = [kill_a_kernel(out, first)]
        lost.append(kill_a_kernel(out, first, lost))
        say(f"two kernels killed: {', '.join(lost)}")
        wait_for(lambda: [j for j in jobs_in(out).values() if j["status"] == "ok"], 300, first)
        first.kill()
        first.wait()
    time.sleep(3)
    assert not workers_of(marker), "orphans"
    said = subprocess.run(
        command("status", out),
        capture_output=True,
        text=True,
        check=False,
        env=env | {"COLUMNS": "160"},
    )
    assert said.returncode == 1
    assert "killed" in said.stdout
    done = {name: job for name, job in jobs_in(out).items() if job_status(job) == "ok"}
    assert set(lost).isdisjoint(done)
    assert len(jobs_in(out)) == len(mixers) * seeds
    say(f"the launcher is gone, too; {len(done)} of {len(jobs_in(out))} runs are done")

    second = subprocess.run(command(*words), env=env, capture_output=True, text=True, check=False)
    assert second.returncode == 0, second.stderr[-3000:]
    after = jobs_in(out)
    assert all(job_status(job) == "ok" for job in after.values())
    assert all(after[name]["ended"] == job["ended"] for name, job in done.items())
    assert all(after[name]["attempts"] == 2 for name in lost)
    assert not workers_of(marker)
    say("the second call finished the rest, and did nothing twice")

    page = (out / "index.html").read_text(encoding="utf-8")
    assert assert_offline(page) == []
    assert all(f"runs/{name}/run.html" in page for name in after)
    assert (out / "numbers" / "runs.csv").exists()
    say(f"one offline page compares them all: {out / 'index.html'}")


@pytest.mark.slow
@pytest.mark.notebook
def test_two_of_many_are_killed_it_says_so_and_the_second_call_finishes_them(tmp_path):
    story(tmp_path / "sweep", 4)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=60)
    parser.add_argument("--out", type=Path, default=Path("reports/story"))
    given = parser.parse_args()
    story(given.out.resolve(), given.runs)
