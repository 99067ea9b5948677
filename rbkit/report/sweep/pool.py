"""Run a plan: so many runs at a time, and a ``job.json`` for each that tells the truth.

The launcher, this process, is the only one that writes ``job.json``. It may be killed at any
moment: what runs then is killed with it (see :mod:`~rbkit.report.sweep.nursery`), what was
done stays done, and the next call does the rest.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from rbkit.errors import InputError
from rbkit.report.nbio import read_notebook
from rbkit.report.sweep.board import Board
from rbkit.report.sweep.declared import declared
from rbkit.report.sweep.gpus import GpuSlots, gpu_environment, gpu_slots
from rbkit.report.sweep.launcher import Launcher, Task
from rbkit.report.sweep.local_workers import LocalWorkers
from rbkit.report.sweep.lock import FOLDER, cannot_write, sweep_lock
from rbkit.report.sweep.plan import Plan
from rbkit.report.sweep.requeue import requeue
from rbkit.report.sweep.result import SweepResult
from rbkit.report.sweep.workers import Workers

__all__ = ["SweepResult", "run_plan"]

_THREADS = (
    "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS", "NUMBA_NUM_THREADS", "RAYON_NUM_THREADS",
)  # fmt: skip


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
    _check(jobs, timeout, retries)
    slots = [] if ray else gpu_slots(gpus)
    at_once = min(jobs, len(slots)) if slots else jobs
    with sweep_lock(plan.out):
        try:
            plan.write()
            template = _template(plan)
            todo = requeue(plan, resume=resume)
        except OSError as error:
            raise cannot_write(plan.out, error) from error
        if not todo.jobs:
            _release(plan)
            return SweepResult(plan.out, dict.fromkeys(todo.done, "ok"))
        threads = max(1, _cores() // at_once)
        workers: Workers = LocalWorkers()
        if ray is not None:
            from rbkit.report.sweep.ray_pool import RayWorkers

            workers = RayWorkers(ray, jobs=min(jobs, len(todo.jobs)), gpus=gpus)
            threads = workers.threads
        launcher = Launcher(
            workers,
            [Task(job.id, job.run_dir, job.parameters, info) for job, info in todo.jobs],
            template=template,
            resumable="resume" in declared(read_notebook(template)),
            at_once=at_once,
            gpus=GpuSlots(slots) if slots else None,
            env={**thread_environment(threads), **gpu_environment(gpus, None)},
            threads=threads,
            timeout=timeout,
            retries=retries,
            board=Board(len(plan.jobs), len(todo.done), at_once, progress),
        )
        try:
            statuses = launcher.run()
        except OSError as error:
            raise cannot_write(plan.out, error) from error
        finally:
            _release(plan)
    ended = {job.id: statuses.get(job.id, "ok") for job in plan.jobs}
    return SweepResult(plan.out, ended, launcher.stopped, launcher.started)


def thread_environment(threads: int) -> dict[str, str]:
    """Return the variables that keep numerical libraries to so many threads.

    Examples
    --------
    >>> thread_environment(2)["OMP_NUM_THREADS"]
    '2'
    """
    return dict.fromkeys(_THREADS, str(threads))


def _check(jobs: int, timeout: float | None, retries: int) -> None:
    if os.name != "posix":
        raise InputError("sweep", "needs process groups", "run it on Linux or macOS")
    limits: Mapping[str, tuple[float | None, float]] = {
        "jobs": (jobs, 1), "retries": (retries, 0),
    }  # fmt: skip
    for name, (value, least) in limits.items():
        if value is not None and not value >= least:
            raise InputError(name, f"is {value}", f"give {least} or more")
    if timeout is not None and not timeout > 0:
        raise InputError("timeout", f"is {timeout} s", "give a number above 0")


def _template(plan: Plan) -> Path:
    """Copy the notebook: an edit while the sweep goes on must not change half of its runs."""
    copy = plan.out / FOLDER / plan.template.name
    shutil.copyfile(plan.template, copy)
    return copy


def _release(plan: Plan) -> None:
    with suppress(OSError, InputError):  # full: the name of a process that has gone, then
        plan.release()


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
