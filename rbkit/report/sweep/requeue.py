"""What there is to do in a sweep's folder, and its leftovers cleared away."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rbkit.errors import InputError
from rbkit.report.sweep.jobfile import NAME, now, read_job, write_job
from rbkit.report.sweep.plan import Job, Plan
from rbkit.report.sweep.processes import kill_group


@dataclass
class Todo:
    """Jobs to run, with their ``job.json``, and ids of those that are done."""

    jobs: list[tuple[Job, dict[str, Any]]]
    done: list[str]


def requeue(plan: Plan, *, resume: bool) -> Todo:
    """Queue what is not done; with ``resume=False`` everything, from nothing.

    Processes that a killed launcher left are ended first: two must not write to one folder.
    """
    found = [(job, _found(plan, job)) for job in plan.jobs]
    for _, info in found:
        if info["host"] == platform.node():
            kill_group(info["kernel"])
            kill_group(info["worker"])
    todo = Todo([], [])
    for job, info in found:
        if resume and info["status"] == "ok" and (job.run_dir / "run.ipynb").exists():
            todo.done.append(job.id)
            continue
        if not resume:
            clear(job.run_dir)
            info = _new(plan, job)
        for name in ("worker", "kernel", "launcher", "gpu"):
            info[name] = None
        info.update(
            status="queued", given=job.given, command=job.command, queued=info["queued"] or now()
        )
        write_job(job.run_dir, info)
        todo.jobs.append((job, info))
    return todo


def clear(run_dir: Path, keep: Sequence[str] = (NAME,)) -> None:
    """Remove what an earlier attempt wrote, but not what `keep` names."""
    for path in run_dir.iterdir() if run_dir.is_dir() else ():
        if path.name in keep:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def clear_halves(run_dir: Path) -> None:
    """Remove files that a killed process was writing."""
    for path in run_dir.glob(".tmp-*"):
        path.unlink(missing_ok=True)


def _found(plan: Plan, job: Job) -> dict[str, Any]:
    try:
        return read_job(job.run_dir)
    except InputError:  # none, or damaged: then it is not known to be done
        return _new(plan, job)


def _new(plan: Plan, job: Job) -> dict[str, Any]:
    return job.new(plan.given)
