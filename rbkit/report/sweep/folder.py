"""The folder of a sweep: ``sweep.json``, a ``job.json`` for each run, and who may write to it."""

from __future__ import annotations

import errno
import os
import platform
import shlex
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rbkit.errors import InputError
from rbkit.files import own, read_json, regular, write_json
from rbkit.processes import (
    STALE,
    is_alive,
    is_suspended,
    process_identity,
    seconds_since,
    take_lock,
)
from rbkit.text import one_line

# ---------------------------------------------------------------------------------- job.json
#
# A run that is killed cannot record it, and neither can its notebook (papermill marks it
# completed). So next to the run's own run.json there is a file that only the launcher writes, with
# the identity of the process that works on the run: who reads "running" can check that it lives.
#
#   format      "rbkit-job/1"
#   id          name of the run: words for what varies, and a hash of its content
#   template    notebook, as it was given
#   parameters  all parameters, as JSON values
#   given       those that were set: what the notebook gets; the others keep its defaults
#   varied      those that the grid sets
#   content     what the run is made of: {sha, template_sha, rbkit, data {parameter: hash}}
#   status      one of STATUSES
#   attempts    times that the run was started
#   worker, launcher, kernel    {pid, born} of the process that works on the run, of the one that
#               writes this file, of the notebook's kernel; or null
#   host, gpu, threads          where, on which GPU (or null), with how many threads
#   queued, started, heartbeat, ended    times (ISO 8601, UTC), or null
#   seconds     wall time of the last attempt, or null
#   error, cell, tail           headline of what went wrong and name of its cell, or null; last
#               lines (30 at most) of the error, without colours
#   command     repeats this run alone

JOB_FORMAT = "rbkit-job/1"
JOB_FILE = "job.json"
STATUSES = ("queued", "running", "ok", "failed", "killed", "timeout", "interrupted")
_AT_WORK = 30.0  # a launcher that is at work writes a heartbeat every few seconds

# What a reader may rely on. The file may come from a stranger: everything else is refused.
_JOB_TYPES: dict[str, Any] = {
    **dict.fromkeys(("id", "template", "status", "command"), str),
    **dict.fromkeys(("parameters", "given", "varied", "content"), dict),
    **dict.fromkeys(("worker", "kernel", "launcher"), dict | None),
    **dict.fromkeys(("queued", "started", "heartbeat", "ended"), str | None),
    **dict.fromkeys(("host", "error", "cell"), str | None),
    "attempts": int,
    "threads": int | None,
    "gpu": str | int | None,
    "seconds": int | float | None,
    "tail": list,
}
# Missing in files of the first versions.
_JOB_DEFAULTS: dict[str, Any] = {"launcher": None, "given": {}, "content": {}}


def now() -> str:
    """Return the time as ISO 8601 text, UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def new_job(
    id: str,
    template: str,
    parameters: Mapping[str, Any],
    varied: Mapping[str, Any],
    command: str = "",
    content: Mapping[str, Any] | None = None,
    given: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return a job that waits for its turn.

    Examples
    --------
    >>> job = new_job("seed-0-1a2b3c4d5e6f", "run.ipynb", {"seed": 0}, {"seed": 0})
    >>> job_status(job), job["attempts"]
    ('queued', 0)
    """
    return {
        "format": JOB_FORMAT,
        "id": id,
        "template": template,
        "parameters": dict(parameters),
        "given": dict(varied if given is None else given),
        "varied": dict(varied),
        "content": dict(content or {}),
        "status": "queued",
        "attempts": 0,
        **dict.fromkeys(("worker", "kernel", "launcher", "host", "gpu", "threads")),
        "queued": now(),
        **dict.fromkeys(("started", "heartbeat", "ended", "seconds", "error", "cell")),
        "tail": [],
        "command": command,
    }


def read_job(path: str | Path) -> dict[str, Any]:
    """Read the ``job.json`` of the run folder `path`.

    Raises
    ------
    InputError
        There is none, or it is damaged, or not a job.
    """
    path = own(Path(path), JOB_FILE)
    if not path.is_file():
        raise InputError(str(path), "no such file", "give the folder of a run of a sweep")
    try:
        job = read_json(path)
    except OSError as error:
        raise InputError(str(path), f"cannot be read ({error})", "check its permissions") from error
    if not isinstance(job, dict) or job.get("format") != JOB_FORMAT:
        what = job.get("format") if isinstance(job, dict) else type(job).__name__
        raise InputError(
            str(path), f"format {what!r} instead of {JOB_FORMAT!r}", "give a run of a sweep"
        )
    job = {**_JOB_DEFAULTS, **job}
    for name, kind in _JOB_TYPES.items():
        if name not in job or not isinstance(job[name], kind):
            raise InputError(str(path), f"{name} is missing or damaged", "delete it, or run again")
    if job["status"] not in STATUSES:
        raise InputError(
            str(path), f"unknown status {job['status']!r}", f"known are {', '.join(STATUSES)}"
        )
    return job


def write_job(path: str | Path, job: Mapping[str, Any], *, flush: bool = True) -> None:
    """Write `job` as ``job.json`` of the run folder `path`, whole or not at all."""
    write_json(Path(path) / JOB_FILE, {**job, "tail": list(job["tail"])[-30:]}, flush=flush)


def job_status(job: Mapping[str, Any], run_dir: Path | None = None) -> str:
    """Return the true status of a job, which is not always the one in its file.

    A job that is recorded as running, but whose worker is gone, was killed. On the machine where
    it runs that is seen at once; from elsewhere, by a heartbeat older than 120 s, in the file or in
    the run's own record in `run_dir`: the launcher may be suspended while the run goes on.

    Examples
    --------
    >>> job = new_job("seed-0-1a2b3c4d5e6f", "run.ipynb", {}, {})
    >>> here = {"host": platform.node(), "worker": process_identity()}
    >>> job_status({**job, "status": "running", **here})
    'running'
    >>> here["worker"] = {"pid": os.getpid(), "born": 0.0}  # another process had that number
    >>> job_status({**job, "status": "running", **here})
    'killed'
    """
    status = str(job["status"])
    if status != "running":
        return status
    if job.get("host") != platform.node():
        silent = seconds_since(job.get("heartbeat"))
        if silent >= STALE and run_dir is not None:
            with suppress(InputError, OSError, AttributeError):
                own = read_json(run_dir / "run.json").get("heartbeat")
                silent = min(silent, seconds_since(own))
        return "running" if silent < STALE else "killed"
    # A worker ends a moment before the launcher has recorded how: while that is at work, it will.
    alive = is_alive(job.get("worker")) or _is_launcher_at_work(job)
    return "running" if alive else "killed"


_launchers_here = 0  # launchers at work in this process


@contextmanager
def launcher_at_work() -> Iterator[None]:
    """Count this process as a launcher at work while the block runs."""
    global _launchers_here
    _launchers_here += 1
    try:
        yield
    finally:
        _launchers_here -= 1


def _is_launcher_at_work(job: Mapping[str, Any]) -> bool:
    launcher = job.get("launcher")
    if not launcher or not is_alive(launcher):
        return False
    if launcher["pid"] == os.getpid():  # a notebook, say, which lives on when its sweep has ended
        return _launchers_here > 0
    return seconds_since(job.get("heartbeat")) < _AT_WORK or is_suspended(launcher)


def error_tail(lines: Sequence[str] | str, count: int = 30) -> list[str]:
    """Return the last lines of an error, without colours and other control characters."""
    lines = lines.splitlines() if isinstance(lines, str) else lines
    return [one_line(line) for line in lines][-count:]


def clear(run_dir: Path) -> None:
    """Remove what an earlier attempt wrote into a run folder, but not its ``job.json``."""
    for path in run_dir.iterdir() if run_dir.is_dir() else ():
        if path.name == JOB_FILE:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


# -------------------------------------------------------------------------------- sweep.json
#
#   format      "rbkit-sweep/1"
#   template    notebook, as it was given; template_path: which file that was
#   template_sha                    hash of its code
#   grid, parameters, command       of the last call
#   calls       all calls: {grid, parameters, options, command, cwd, jobs, created}
#   jobs        ids of the runs, in order; each is the folder runs/<id>
#   superseded  ids of runs that others replace: the same request, with older code or data
#   launcher    {pid, born, host, since} of the process that works on it, or null
#   rbkit, versions, machine {cpus, memory_gb, platform, gpus}, git {commit, changed}, created

SWEEP_FORMAT = "rbkit-sweep/1"
SWEEP_FILE = "sweep.json"
_SWEEP_TYPES: dict[str, type] = {
    **dict.fromkeys(("template", "template_sha", "command"), str),
    **dict.fromkeys(("grid", "parameters", "machine", "versions"), dict),
    **dict.fromkeys(("calls", "jobs", "superseded"), list),
}


def read_sweep(out: str | Path) -> dict[str, Any]:
    """Return the ``sweep.json`` of the folder `out`."""
    path = own(regular(out, or_folder=True), SWEEP_FILE)
    if not path.is_file():
        raise InputError(str(out), f"no {SWEEP_FILE} there", "give the folder of a sweep")
    try:
        info = read_json(path)
    except OSError as error:
        raise InputError(str(path), f"cannot be read ({error})", "check its permissions") from error
    if not isinstance(info, dict) or info.get("format") != SWEEP_FORMAT:
        what = f"not of the format {SWEEP_FORMAT!r}"
        raise InputError(str(path), what, "give a folder of rbkit's")
    for name, kind in _SWEEP_TYPES.items():
        if not isinstance(info.get(name), kind):
            raise InputError(str(path), f"{name} is missing or damaged", "repair it")
    # A run's folder is runs/<id>: an id with a path in it would lead elsewhere.
    for id in (*info["jobs"], *info["superseded"]):
        bad = not isinstance(id, str) or id in ("", ".", "..") or set(id) & set("/\\\0")
        if bad or one_line(id) != id:
            raise InputError(str(path), f"{id!r} is not the id of a run", "repair it")
    return info


def run_ids(out: str | Path) -> list[str]:
    """Return the ids of the runs that are in a sweep's folder, for one that lost its list."""
    runs = Path(out) / "runs"
    return sorted(os.listdir(runs)) if os.path.isdir(runs) else []  # also of too long a name


def resume_commands(info: Mapping[str, Any], statuses: Mapping[str, str]) -> list[str]:
    """Return the commands that finish what is not ok: of the latest calls that had such runs."""
    left = {id for id, status in statuses.items() if status != "ok"}
    commands: list[str] = []
    for call in reversed(info["calls"]):
        ids = call.get("jobs") if isinstance(call, dict) else None
        mine = left.intersection(map(str, ids)) if isinstance(ids, list) else set()
        if mine:
            left -= mine
            command, cwd = str(call.get("command")), call.get("cwd")
            elsewhere = isinstance(cwd, str) and cwd != os.getcwd()
            commands.insert(0, f"cd {shlex.quote(str(cwd))} && {command}" if elsewhere else command)
    if left and info["command"] not in commands:  # planned by calls that did not record it
        commands.append(info["command"])
    return list(dict.fromkeys(commands))


def this_launcher() -> dict[str, Any]:
    """Return what ``sweep.json`` records of a process that works on the sweep: this one."""
    return {**process_identity(), "host": platform.node(), "since": now()}


def is_this_process(launcher: Any) -> bool:
    """Whether `launcher`, from ``sweep.json``, is this process."""
    if not isinstance(launcher, dict):
        return False
    here = (os.getpid(), platform.node())
    return (launcher.get("pid"), launcher.get("host")) == here and is_alive(launcher)


def launcher_of(out: str | Path, info: Mapping[str, Any]) -> str | None:
    """Name who works on the sweep: ``process 12`` or ``a process on HOST``; None if nobody does.

    A process of another machine cannot be seen; its heartbeats in the runs can.
    """
    launcher = info.get("launcher")
    if not isinstance(launcher, dict):
        return None
    if launcher.get("host") == platform.node():
        return f"process {launcher.get('pid')}" if is_alive(launcher) else None
    elsewhere = f"a process on {launcher.get('host')}"
    if seconds_since(launcher.get("since")) < STALE:
        return elsewhere
    for id in info["jobs"]:
        with suppress(InputError):
            run_dir = Path(out) / "runs" / id
            if job_status(read_job(run_dir), run_dir) == "running":
                return elsewhere
    return None


def works_already(out: Path, who: str) -> InputError:
    """Return the error for a folder that another process works on."""
    remedy = f"wait for it, or stop it; see: rbkit status {out}"
    return InputError(str(out), f"{who} works on this sweep", remedy)


# ----------------------------------------------------------------------------- who may write

LAUNCHER_FOLDER = ".sweep"  # what belongs to the launcher alone


@contextmanager
def sweep_lock(out: Path) -> Iterator[None]:
    """Hold the lock of the folder `out`; the death of its holder releases it, too."""
    try:
        (out / LAUNCHER_FOLDER).mkdir(parents=True, exist_ok=True)
        lock = take_lock(out / LAUNCHER_FOLDER / "lock")
    except (OSError, NotImplementedError) as error:
        raise cannot_write(out, error) from error
    if lock is None:
        who = launcher_of(out, read_sweep(out)) if (out / SWEEP_FILE).exists() else None
        raise works_already(out, who or "another process")
    try:
        yield
    finally:
        lock.release()


def is_unwritable(out: Path, error: OSError) -> bool:
    """Whether nothing can be written in the folder `out` any more, not only where `error` arose."""
    if error.errno in (errno.ENOSPC, errno.EROFS, errno.EDQUOT):
        return True
    try:
        with tempfile.TemporaryFile(dir=out / LAUNCHER_FOLDER) as file:
            file.write(b"?")
    except OSError:
        return True
    return False


def cannot_write(out: Path, error: BaseException) -> InputError:
    """Return the error that stops a sweep whose folder cannot be written any more."""
    why = getattr(error, "strerror", None) or str(error)
    return InputError(
        str(out),
        f"cannot be written ({why})",
        "make room, or give another --out, and run the same command again: what is done stays done",
    )
