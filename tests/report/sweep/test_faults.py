"""A hundred runs, kernels and the launcher killed at random: nothing lost, nothing made up."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
import uuid

import nbformat
import psutil
import pytest
from nbformat.v4 import new_code_cell, new_notebook

RUNS, JOBS = 100, 4
KERNEL = {"name": "python3", "language": "python", "display_name": "Python 3"}
CELLS = (
    "from pathlib import Path\nPath(run_dir, 'begun').write_text('')",
    # A process of the kernel's own, in a session of its own: it must not stay either.
    "import subprocess, time\n"
    "if seed % 10 == 0:\n"
    "    subprocess.Popen(['sleep', '600'], start_new_session=True)\n"
    "time.sleep(0.1)",
    "Path(run_dir, 'result').write_text(str(seed * seed))",
)
LAUNCH = f"""
import sys
from rbkit.report.sweep.plan import make_plan
from rbkit.report.sweep.launcher import run_plan
plan = make_plan(sys.argv[1], "seed=0..{RUNS - 1}", sys.argv[2])
sys.exit(run_plan(plan, jobs={JOBS}, progress=False).exit_code)
"""


class Sweep:
    """The sweep as its user sees it: a command that can be given again."""

    def __init__(self, folder):
        first = new_code_cell('seed: int = 0\nrun_dir: str = ""', metadata={"tags": ["parameters"]})
        cells = [first, *map(new_code_cell, CELLS)]
        self.template, self.out = folder / "tiny.ipynb", folder / "out"
        nbformat.write(new_notebook(cells=cells, metadata={"kernelspec": KERNEL}), self.template)
        self.mark = uuid.uuid4().hex  # every process of the sweep inherits it
        self.launcher = None

    def launch(self):
        command = [sys.executable, "-c", LAUNCH, str(self.template), str(self.out)]
        self.launcher = subprocess.Popen(command, env={**os.environ, "RBKIT_FAULTS": self.mark})
        return self.launcher

    def processes(self):
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get("RBKIT_FAULTS") == self.mark:
                    found.append(process)
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
        return found

    def victims(self, *, fork_server):
        """Kernels and workers, or what forks the workers."""
        try:
            family = psutil.Process(self.launcher.pid).children(recursive=True)
        except (AttributeError, psutil.NoSuchProcess):  # not begun yet, or just killed
            return []
        kernels = [p for p in family if _runs(p, "ipykernel")]
        if not fork_server:
            # What a worker starts is a kernel, what starts it is the fork_server.
            return kernels + [w for p in kernels for w in _parents(p)[:1]]
        return [n for p in kernels[:1] for n in _parents(p)[1:2]]

    def jobs(self):
        return {path: json.loads(path.read_text()) for path in self.out.glob("runs/*/job.json")}

    def check(self):
        """What says ok has all that a run ends with."""
        for path, job in self.jobs().items():
            if job["status"] == "ok":
                seed = job["parameters"]["seed"]
                assert (path.parent / "result").read_text() == str(seed * seed)
                assert (path.parent / "run.html").stat().st_size > 1000
                notebook = json.loads((path.parent / "run.ipynb").read_text())
                assert not notebook["metadata"]["papermill"]["exception"]

    def done(self):
        return {
            path: path.read_bytes() for path, job in self.jobs().items() if job["status"] == "ok"
        }


def _runs(process, what):
    try:
        return any(what in part for part in process.cmdline())
    except psutil.NoSuchProcess:
        return False


def _parents(process):
    try:
        return [p for p in process.parents() if _runs(p, "fork_server")]
    except psutil.NoSuchProcess:
        return []


def _kill_at_random(sweep, chance, stop, killed):
    while not stop.wait(chance.uniform(0.5, 2.5)):
        found = sweep.victims(fork_server=len(killed) == 4)  # it costs all runs in progress
        for process in chance.sample(found, min(1, len(found))):
            try:
                process.kill()
                killed.append(process.pid)
            except psutil.NoSuchProcess:
                continue


@pytest.mark.slow
@pytest.mark.notebook
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="finds processes by environment")
def test_whatever_is_killed_the_last_call_finishes_the_rest(tmp_path):
    sweep, chance = Sweep(tmp_path), random.Random(20)
    stop, killed = threading.Event(), []
    killer = threading.Thread(target=_kill_at_random, args=(sweep, chance, stop, killed))
    killer.start()
    before: dict = {}
    try:
        for _ in range(2):
            # The launcher is killed after it has done some more of the runs, at any moment.
            launcher, goal = sweep.launch(), len(sweep.done()) + chance.randint(5, 20)
            while launcher.poll() is None and len(list(sweep.out.glob("runs/*/result"))) < goal:
                time.sleep(chance.uniform(0.05, 0.3))
            launcher.send_signal(signal.SIGKILL)
            launcher.wait()
            _, alive = psutil.wait_procs(sweep.processes(), timeout=10)
            assert not alive, "orphans"
            sweep.check()
            assert before.items() <= sweep.done().items()  # what was done is left alone
            before = sweep.done()
        assert len(before) < RUNS
        code = sweep.launch().wait(timeout=300)  # the rest is still being killed
        statuses = [job["status"] for job in sweep.jobs().values()]
        assert set(statuses) <= {"ok", "killed"}
        assert code == (0 if "killed" not in statuses else 1)
        sweep.check()
    finally:
        stop.set()
        killer.join()
    assert len(killed) >= 5
    assert sweep.launch().wait(timeout=300) == 0
    sweep.check()
    assert before.items() <= sweep.done().items()
    assert len(sweep.done()) == RUNS
    assert not sweep.processes()
