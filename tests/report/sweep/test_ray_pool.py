"""The same runs on Ray: what a worker of Ray takes with it when it dies is done again."""

from __future__ import annotations

import json
import signal
import sys

import psutil
import pytest

from rbkit.errors import InputError
from rbkit.ray_cluster import connected_ray
from rbkit.report.sweep import launcher, ray_workers
from rbkit.report.sweep.folder import read_job
from rbkit.report.sweep.launcher import run_plan
from rbkit.report.sweep.plan import make_plan

CELL = """
import os, subprocess, time
from pathlib import Path
import psutil
kernel, worker, fork_server, actor = os.getpid(), *[p.pid for p in psutil.Process().parents()[:3]]
here, once = Path(run_dir), Path(log, "once")
child = subprocess.Popen(["sleep", "600"], start_new_session=True)
with open(Path(log, "children"), "a") as file:
    file.write(f"{child.pid}\\n")
if seed == 1 and not once.exists():
    once.write_text(str(actor))
    os.kill(actor, 9)
    time.sleep(60)
(here / "result").write_text(f"{seed * seed} {actor} {os.getcwd()} {os.environ['RBKIT_DISPLAY']}")
"""


def test_without_ray_the_extra_is_named_and_all_is_still_queued(tiny, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    plan = make_plan(tiny("1"), "seed=0", tmp_path / "out")
    with pytest.raises(InputError, match=r"Ray: is not installed .*pip install 'rbkit\[ray\]'"):
        run_plan(plan, ray="local")
    assert set(plan.statuses().values()) == {"queued"}


def test_ray_hands_out_gpus_itself():
    with pytest.raises(InputError, match="gpus: is '0,1', but Ray hands them out"):
        ray_workers.RayWorkers("local", jobs=2, gpus="0,1")


@pytest.fixture(scope="module")
def ray():
    """Ray on this machine, for all tests: it takes seconds to start."""
    pytest.importorskip("ray")
    before = signal.getsignal(signal.SIGTERM)
    with connected_ray(None, cpus=2, gpus=0) as ray:
        yield ray
    assert not ray.is_initialized()
    assert signal.getsignal(signal.SIGTERM) is before  # Ray sets one, and would leave it


@pytest.mark.slow
@pytest.mark.notebook
@pytest.mark.timeout(300)
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="adopts orphans")
def test_a_worker_of_ray_is_killed_and_the_result_is_complete(
    ray, tiny, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    parameters = 'seed: int = 0\nlog: str = ""\nrun_dir: str = ""'
    plan = make_plan(
        tiny(CELL, parameters=parameters), "seed=0..3", tmp_path / "out", {"log": str(tmp_path)}
    )
    result = run_plan(plan, jobs=2, ray="local", retries=1)
    said = capsys.readouterr().err.splitlines()
    assert result.exit_code == 0
    assert result.started == 5
    assert sum("killed" in line for line in said) == 1
    actors = set()
    for job in plan.jobs:
        info, seed = read_job(job.run_dir), job.parameters["seed"]
        number, actor, folder, display = (job.run_dir / "result").read_text().split()
        assert (number, folder, display) == (str(seed * seed), str(tmp_path), "batch")
        assert info["attempts"] == (2 if seed == 1 else 1)
        assert (job.run_dir / "run.html").exists()
        notebook = json.loads((job.run_dir / "run.ipynb").read_text())
        assert not notebook["metadata"]["papermill"]["exception"]
        actors.add(actor)
    assert (tmp_path / "once").read_text() not in actors
    children = [int(pid) for pid in (tmp_path / "children").read_text().split()]
    assert len(children) == 5
    left = [psutil.Process(pid) for pid in children if psutil.pid_exists(pid)]
    assert not psutil.wait_procs(left, timeout=20)[1]


@pytest.mark.slow
@pytest.mark.notebook
@pytest.mark.timeout(300)
def test_a_run_on_ray_is_kept_to_its_time(ray, tiny, tmp_path, monkeypatch):
    late = property(lambda task: 100.0 if (task.run_dir / "begun").exists() else 1.0)
    monkeypatch.setattr(launcher.Task, "seconds", late)  # no need to wait for it
    cell = (
        "import time\nfrom pathlib import Path\ntry:\n"
        "    Path(run_dir, 'begun').touch()\n    time.sleep(600)\n"
        "except KeyboardInterrupt:\n    Path(run_dir, 'checkpoint').touch()\n    raise"
    )
    plan = make_plan(tiny(cell), "seed=0", tmp_path / "out")
    assert run_plan(plan, ray="local", timeout=60, progress=False).counts == {"timeout": 1}
    assert (plan.jobs[0].run_dir / "checkpoint").exists()
    assert ray.is_initialized()  # what was running before stays
