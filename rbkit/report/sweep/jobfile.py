"""``job.json``: how a run of a sweep stands, written by the launcher alone.

A run that is killed cannot say so, and neither can the notebook it was (papermill marks
it completed). So beside the run's own ``run.json`` there is a file that only the launcher
writes, with the identity of the process that works on the run: whoever reads ``running``
there can see whether somebody does. ::

    format      "rbkit-job/1"
    id          name of the run: words for what varies, and a hash of what it is made of
    template    notebook, as it was given
    parameters  all parameters, as JSON values
    given       those that were set: what the notebook gets; the others keep its defaults
    varied      those that the grid sets
    content     what the run is made of: {sha, template_sha, rbkit, data {parameter: hash}}
    status      queued, running, ok, failed, killed, timeout or interrupted
    attempts    times that the run was started
    worker      {pid, born} of the process that works on it, or null
    launcher    {pid, born} of the process that writes this file, or null
    kernel      {pid, born} of the notebook's kernel, or null
    host, gpu, threads            where, on which GPU (or null), with how many threads
    queued, started, heartbeat, ended    times (ISO 8601, UTC), or null
    seconds     wall time of the last attempt, or null
    error       headline of what went wrong, or null
    cell        name of the cell in which it did, or null
    tail        last lines (30 at most) of the error, without colours
    command     repeats this run alone
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rbkit.errors import InputError
from rbkit.files import read_json, write_json
from rbkit.report.sweep.processes import is_alive

FORMAT = "rbkit-job/1"
NAME = "job.json"
STATUSES = ("queued", "running", "ok", "failed", "killed", "timeout", "interrupted")
_AT_WORK = 30.0  # a launcher that is at work gives a heartbeat every few seconds
STALE = 120.0  # seconds without a heartbeat after which a run on another machine counts as killed

# What a reader may rely on. The file may come from a stranger: everything else is refused.
_TYPES: dict[str, tuple[type, ...]] = {
    "id": (str,), "template": (str,), "parameters": (dict,), "given": (dict,), "varied": (dict,),
    "content": (dict,), "status": (str,), "attempts": (int,),
    "worker": (dict, type(None)), "kernel": (dict, type(None)),
    "launcher": (dict, type(None)),
    "host": (str, type(None)), "gpu": (str, int, type(None)), "threads": (int, type(None)),
    "queued": (str, type(None)), "started": (str, type(None)), "heartbeat": (str, type(None)),
    "ended": (str, type(None)), "seconds": (int, float, type(None)),
    "error": (str, type(None)), "cell": (str, type(None)), "tail": (list,), "command": (str,),
}  # fmt: skip
# Not there in files of the first versions.
_ADDED: dict[str, Any] = {"launcher": None, "given": {}, "content": {}}

_launching = 0  # launchers at work in this process


def now() -> str:
    """Return the time as ISO 8601 text, UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def new_job(
    id: str, template: str, parameters: Mapping[str, Any], varied: Mapping[str, Any],
    command: str = "", content: Mapping[str, Any] | None = None,
    given: Mapping[str, Any] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Return a job that waits for its turn.

    Examples
    --------
    >>> job = new_job("seed-0-1a2b3c4d5e6f", "run.ipynb", {"seed": 0}, {"seed": 0})
    >>> job_status(job), job["attempts"]
    ('queued', 0)
    """
    return {
        "format": FORMAT, "id": id, "template": template, "parameters": dict(parameters),
        "given": dict(varied if given is None else given), "varied": dict(varied),
        "content": dict(content or {}), "status": "queued",
        "attempts": 0, "worker": None, "kernel": None, "launcher": None, "host": None,
        "gpu": None, "threads": None, "queued": now(), "started": None, "heartbeat": None,
        "ended": None, "seconds": None, "error": None, "cell": None, "tail": [], "command": command,
    }  # fmt: skip


def read_job(path: str | Path) -> dict[str, Any]:
    """Read the ``job.json`` of the run folder `path`.

    Raises
    ------
    InputError
        There is none, it is broken, or it is no job.
    """
    path = Path(path) / NAME
    if not path.is_file():
        raise InputError(str(path), "no such file", "give the folder of a run of a sweep")
    try:
        job = read_json(path)
    except OSError as error:
        raise InputError(str(path), f"cannot be read ({error})", "check its permissions") from error
    if not isinstance(job, dict) or job.get("format") != FORMAT:
        found = job.get("format") if isinstance(job, dict) else type(job).__name__
        raise InputError(
            str(path), f"format {found!r} instead of {FORMAT!r}", "give a run of a sweep"
        )
    job = {**_ADDED, **job}
    for name, types in _TYPES.items():
        if name not in job or not isinstance(job[name], types):
            raise InputError(str(path), f"{name} is missing or damaged", "delete it, or run again")
    if job["status"] not in STATUSES:
        raise InputError(
            str(path), f"unknown status {job['status']!r}", f"known are {', '.join(STATUSES)}"
        )
    return job


def write_job(path: str | Path, job: Mapping[str, Any]) -> None:
    """Write `job` as ``job.json`` of the run folder `path`, whole or not at all."""
    write_json(Path(path) / NAME, {**job, "tail": list(job["tail"])[-30:]})


def update_job(path: str | Path, **changes: Any) -> dict[str, Any]:
    """Change some fields of the ``job.json`` in the run folder `path`; return the job."""
    if unknown := set(changes) - set(_TYPES):
        raise KeyError(", ".join(sorted(unknown)))
    job = {**read_job(path), **changes}
    write_job(path, job)
    return job


def job_status(job: Mapping[str, Any]) -> str:
    """Return how a job stands, which is not always what it says.

    A job that says it is running, but whose worker is gone, was killed. On the machine
    where it runs that is seen at once; from elsewhere, by a heartbeat older than 120 s.

    Examples
    --------
    >>> job = new_job("seed-0-1a2b3c4d5e6f", "run.ipynb", {}, {})
    >>> here = {"host": platform.node(), "worker": process_identity()}
    >>> job_status({**job, "status": "running", **here})
    'running'
    >>> here["worker"] = {"pid": os.getpid(), "born": 0.0}  # somebody else had that number
    >>> job_status({**job, "status": "running", **here})
    'killed'
    """
    status = str(job["status"])
    if status != "running":
        return status
    if job.get("host") == platform.node():
        # A worker ends a moment before the launcher has written how: while that one is at work,
        # it will.
        return "running" if is_alive(job.get("worker")) or _is_at_work(job) else "killed"
    return "running" if seconds_since(job.get("heartbeat")) < STALE else "killed"


@contextmanager
def launching() -> Iterator[None]:
    """Say that a launcher is at work in this process while the block runs."""
    global _launching
    _launching += 1
    try:
        yield
    finally:
        _launching -= 1


def _is_at_work(job: Mapping[str, Any]) -> bool:
    launcher = job.get("launcher")
    if not launcher or not is_alive(launcher):
        return False
    if launcher["pid"] == os.getpid():  # a notebook, say, which lives on when its sweep has ended
        return _launching > 0
    return seconds_since(job.get("heartbeat")) < _AT_WORK


def tail_of(lines: Sequence[str] | str, count: int = 30) -> list[str]:
    """Return the last lines of an error, without colours and other control characters."""
    from rbkit.report.sweep.plain import plain

    lines = lines.splitlines() if isinstance(lines, str) else lines
    return [plain(line) for line in lines][-count:]


def seconds_since(time: Any) -> float:
    """Return the seconds since an ISO time; infinity if it is none."""
    try:
        return (datetime.now(UTC) - datetime.fromisoformat(str(time))).total_seconds()
    except (ValueError, TypeError):  # no time, or one without a zone
        return float("inf")
