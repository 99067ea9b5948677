"""Run a plan: so many runs at a time, and a ``job.json`` for each that tells the truth.

The launcher, this process, is the only one that writes ``job.json``. It may be killed at any
moment: what runs then is killed with it (see :mod:`~rbkit.report.sweep.nursery`), what was
done stays done, and the next call does the rest.
"""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from rbkit.errors import InputError
from rbkit.report.nbio import read_notebook
from rbkit.report.sweep.board import Board
from rbkit.report.sweep.cores import cores, thread_environment
from rbkit.report.sweep.declared import declared
from rbkit.report.sweep.gpus import GpuSlots, gpu_environment, gpu_slots, slots
from rbkit.report.sweep.identity import code_sha
from rbkit.report.sweep.launcher import Launcher, Task
from rbkit.report.sweep.local_workers import LocalWorkers
from rbkit.report.sweep.lock import FOLDER, cannot_write, sweep_lock
from rbkit.report.sweep.plan import Plan
from rbkit.report.sweep.requeue import requeue
from rbkit.report.sweep.result import SweepResult
from rbkit.report.sweep.workers import Workers

__all__ = ["SweepResult", "run_plan"]


def run_plan(
    plan: Plan,
    *,
    jobs: int = 1,
    resume: bool = True,
    timeout: float | None = None,
    retries: int = 0,
    gpus: str = "auto",
    progress: bool = True,
    ray: str | None = None,
) -> SweepResult:
    """Do the runs of `plan` that are not done.

    Parameters
    ----------
    plan : Plan
        Of :func:`~rbkit.report.sweep.plan.make_plan`.
    jobs : int
        Runs at the same time, each in a process of its own; where there are GPUs, no more
        than there are slots. The cores are shared out.
    resume : bool
        Leave what is ``ok`` as it is, and begin the others again, each from its checkpoint if
        the notebook declares a parameter ``resume``. False: begin all from nothing.
    timeout : float, optional
        Seconds of wall time that a run may take. It is interrupted then, and killed if that
        does not end it.
    retries : int
        How often a run that was killed or ran out of time is begun again.
    gpus : str
        ``auto``, ``none``, or ids with commas: each run gets one of them to itself.
    progress : bool
        A live table on stderr; a line for each ended run where that is no terminal.
    ray : str, optional
        ``local`` or the address of a Ray cluster (``auto``: the one this machine belongs to):
        runs are done there. All machines see the sweep's folder by the same path.

    Returns
    -------
    SweepResult

    Raises
    ------
    InputError
        A number that cannot be; another launcher works on the folder; or the folder cannot be
        written, now or later. All that is not done can be resumed then.
    """
    _check(jobs, timeout, retries, gpus)
    with sweep_lock(plan.out):
        try:
            return _run(plan, jobs, resume, timeout, retries, gpus, progress, ray)
        finally:
            _release(plan)


def _run(
    plan: Plan, jobs: int, resume: bool, timeout: float | None, retries: int, gpus: str,
    progress: bool, ray: str | None,
) -> SweepResult:  # fmt: skip
    try:
        template = _template(plan)
        plan.write()
        todo = requeue(plan, resume=resume)
    except OSError as error:
        raise cannot_write(plan.out, error) from error
    statuses = dict.fromkeys(todo.done, "ok")
    if not todo.jobs:
        return SweepResult(plan.out, statuses)
    resumable = "resume" in declared(read_notebook(template))
    hands = _hands(min(jobs, len(todo.jobs)), gpus, ray)
    launcher = Launcher(
        hands.workers,
        [Task(job.id, job.run_dir, job.given, info) for job, info in todo.jobs],
        out=plan.out,
        template=template,
        resumable=resumable,
        at_once=hands.at_once,
        gpus=GpuSlots(hands.slots) if hands.slots else None,
        env={**thread_environment(hands.threads), **gpu_environment(gpus, None)},
        threads=hands.threads,
        timeout=timeout,
        retries=retries,
        board=Board(len(plan.jobs), len(todo.done), hands.at_once, progress),
    )
    statuses |= launcher.run()
    ended = {job.id: statuses[job.id] for job in plan.jobs}
    return SweepResult(plan.out, ended, launcher.stopped, launcher.started)


@dataclass(frozen=True)
class _Hands:
    """Who does the runs, how many at once, with how many threads each, and on which GPUs."""

    workers: Workers
    at_once: int
    threads: int
    slots: list[str]


def _hands(jobs: int, gpus: str, ray: str | None) -> _Hands:
    if ray is not None:
        from rbkit.report.sweep.ray_pool import RayWorkers

        cluster = RayWorkers(ray, jobs=jobs, gpus=gpus)
        return _Hands(cluster, cluster.at_once, cluster.threads, [])
    at_once = slots(jobs, gpus)
    return _Hands(LocalWorkers(), at_once, max(1, cores() // at_once), gpu_slots(gpus))


def _check(jobs: int, timeout: float | None, retries: int, gpus: str) -> None:
    if os.name != "posix":
        raise InputError("sweep", "needs process groups", "run it on Linux or macOS")
    for name, value, least in (("jobs", jobs, 1), ("retries", retries, 0)):
        if value < least:
            raise InputError(name, f"is {value}", f"give {least} or more")
    if timeout is not None and not timeout > 0:
        raise InputError("timeout", f"is {timeout} s", "give a number above 0")
    gpu_slots(gpus)  # whether it can be read


def _template(plan: Plan) -> Path:
    """Copy the notebook: an edit while the sweep goes on must not change half of its runs."""
    copy = plan.out / FOLDER / plan.template.name
    shutil.copyfile(plan.template, copy)
    if code_sha(read_notebook(copy)) != plan.template_sha:
        raise InputError(
            str(plan.template), "was changed after the runs were planned, whose names its code "
            "is part of", "run the same command again",
        )  # fmt: skip
    return copy


def _release(plan: Plan) -> None:
    with suppress(OSError, InputError):  # full: the name of a process that has gone, then
        plan.release()
