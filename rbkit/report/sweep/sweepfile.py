"""``sweep.json``: what was asked for in a folder of runs, with what, and who works on it.

::

    format      "rbkit-sweep/1"
    template    notebook, as it was given; template_path: which file that was
    template_sha  hash of its code
    grid, parameters, command      of the last call
    calls       all calls: {grid, parameters, options, command, cwd, jobs, created}
    jobs        ids of the runs, in order; each is the folder runs/<id>
    superseded  ids of runs that others replace: what was asked for is the same, but code or data
                are older
    launcher    {pid, born, host, since} of the process that works on it, or null
    rbkit, versions, machine {cpus, memory_gb, platform, gpus}, git {commit, changed}, created
"""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

import rbkit
from rbkit.errors import InputError
from rbkit.files import read_json, write_json
from rbkit.report.nbio import read_notebook
from rbkit.report.sweep.identity import code_sha
from rbkit.report.sweep.jobfile import STALE, job_status, now, read_job, seconds_since
from rbkit.report.sweep.processes import is_alive, process_identity
from rbkit.report.sweep.replaced import replaced

if TYPE_CHECKING:
    from rbkit.report.sweep.plan import Plan

FORMAT = "rbkit-sweep/1"
NAME = "sweep.json"
_TYPES: dict[str, type] = {
    "template": str, "template_sha": str, "grid": dict, "parameters": dict, "command": str,
    "calls": list, "jobs": list, "superseded": list, "machine": dict, "versions": dict,
}  # fmt: skip


def read_sweep(out: str | Path) -> dict[str, Any]:
    """Return the ``sweep.json`` of the folder `out`.

    Raises
    ------
    InputError
        There is none, it is broken, or it is no sweep.
    """
    path = Path(out) / NAME
    if not path.is_file():
        raise InputError(str(out), f"no {NAME} there", "give the folder of a sweep")
    info = read_json(path)
    if not isinstance(info, dict) or info.get("format") != FORMAT:
        raise InputError(str(path), f"not of the format {FORMAT!r}", "give a folder of rbkit's")
    for name, kind in _TYPES.items():
        if not isinstance(info.get(name), kind):
            raise InputError(str(path), f"{name} is missing or damaged", "repair it")
    # A run's folder is runs/<id>: an id with a path in it would lead elsewhere.
    for id in (*info["jobs"], *info["superseded"]):
        if not isinstance(id, str) or id in ("", ".", "..") or set(id) & set("/\\\0"):
            raise InputError(str(path), f"{id!r} is no id of a run", "repair it")
    return info


def launcher_of(out: str | Path, info: Mapping[str, Any]) -> str | None:
    """Say who works on the sweep: ``process 12`` or ``a process on HOST``; None if nobody does.

    A process of another machine cannot be seen; its heartbeats in the runs can.
    """
    who = info.get("launcher")
    if not isinstance(who, dict):
        return None
    if who.get("host") == platform.node():
        return f"process {who.get('pid')}" if is_alive(who) else None
    if seconds_since(who.get("since")) < STALE:
        return f"a process on {who.get('host')}"
    for id in info["jobs"]:
        with suppress(InputError):
            if job_status(read_job(Path(out) / "runs" / id)) == "running":
                return f"a process on {who.get('host')}"
    return None


def check_free(plan: Plan) -> dict[str, Any] | None:
    """Return what is in the plan's folder already; refuse if it is not ours to write to."""
    out = plan.out
    if not (out / NAME).exists():
        return None
    info = read_sweep(out)
    if (other := _other_template(info, plan)) is not None:
        raise InputError(
            str(out), f"holds a sweep of another notebook, {other}", "give another --out"
        )
    who = launcher_of(out, info)
    if who and not _is_me(info["launcher"]):
        raise InputError(
            str(out), f"{who} works on this sweep",
            f"wait for it, or stop it; see: rbkit status {out}",
        )  # fmt: skip
    return info


def _other_template(info: Mapping[str, Any], plan: Plan) -> str | None:
    """Return the notebook that the folder belongs to, if it is another one than the plan's.

    One that was moved, or copied as it is, is the same.
    """
    if Path(info["template"]).stem != Path(plan.given).stem:
        return str(info["template"])
    before = info.get("template_path")
    if not isinstance(before, str) or before == str(plan.template.resolve()):
        return None
    try:
        same = not Path(before).is_file() or code_sha(read_notebook(before)) == plan.template_sha
    except (InputError, OSError, ValueError):  # no path, or no notebook any more
        same = False
    return None if same else before


def write_sweep(plan: Plan) -> None:
    """Write the file for a plan; runs of earlier calls stay in it."""
    old = check_free(plan)
    ids = [job.id for job in plan.jobs]
    call = {"grid": plan.grid, "parameters": plan.fixed, "options": plan.options,
            "command": plan.command, "cwd": os.getcwd(), "jobs": ids, "created": now()}  # fmt: skip
    calls = [] if old is None else old["calls"]
    if not calls or {**calls[-1], "created": ""} != {**call, "created": ""}:
        calls = [*calls, call]
    older = [id for id in (old or {}).get("superseded", []) if id not in ids]
    older += replaced(plan, old) if old else []
    kept = [id for id in (old or {}).get("jobs", []) if id not in older]
    write_json(
        plan.out / NAME,
        {
            "format": FORMAT, "template": plan.given,
            "template_path": str(plan.template.resolve()), "template_sha": plan.template_sha,
            "grid": plan.grid, "parameters": plan.fixed, "command": plan.command,
            "calls": calls, "jobs": list(dict.fromkeys([*kept, *ids])),
            "superseded": older, "launcher": _me(), "rbkit": rbkit.__version__,
            "versions": _versions(), "machine": machine(), "git": git(plan.template.parent),
            "created": (old or call)["created"],
        },
    )  # fmt: skip


def ways_on(info: Mapping[str, Any], statuses: Mapping[str, str]) -> list[str]:
    """Return commands that go on with all runs that are not ok: the latest calls that have some.

    Parameters
    ----------
    info : dict
        ``sweep.json``.
    statuses : mapping of str to str
        Status of each run, by id.
    """
    left = {id for id, status in statuses.items() if status != "ok"}
    found: list[str] = []
    for call in reversed(info["calls"]):
        ids = call.get("jobs") if isinstance(call, dict) else None
        mine = left.intersection(map(str, ids)) if isinstance(ids, list) else set()
        if mine:
            left -= mine
            found.insert(0, _from_here(call))
    if left and info["command"] not in found:  # planned by calls that did not say so
        found.append(info["command"])
    return list(dict.fromkeys(found))


def _from_here(call: Mapping[str, Any]) -> str:
    command, cwd = str(call.get("command")), call.get("cwd")
    elsewhere = isinstance(cwd, str) and cwd != os.getcwd()
    return f"cd {shlex.quote(str(cwd))} && {command}" if elsewhere else command


def release(out: Path) -> None:
    """Take this process out of the file, if it is the one in it."""
    info = read_sweep(out)
    if _is_me(info.get("launcher")):
        write_json(out / NAME, {**info, "launcher": None})


def superseded(plan: Plan) -> dict[str, list[str]]:
    """Return ids of runs in the folder that a plan would replace, and what has changed since."""
    return replaced(plan, read_sweep(plan.out)) if (plan.out / NAME).exists() else {}


def known_ids(out: Path) -> dict[str, str]:
    """Return the ids of the runs that are planned in `out`, by their hash.

    The words of an id depend on what varied when it was made; the hash says what it is.
    """
    if not (out / NAME).exists():
        return {}
    info = read_sweep(out)
    return {id.rpartition("-")[2]: id for id in (*info["superseded"], *info["jobs"])}


def machine() -> dict[str, Any]:
    """Describe this machine: what a result's seconds depend on."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "cpus": cpus,
        "memory_gb": round(psutil.virtual_memory().total / 2**30, 1),
        "platform": platform.platform(),
        "gpus": _lines(["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"], Path.cwd()),
    }


def git(folder: Path) -> dict[str, Any] | None:
    """Return the commit that `folder` is at, and whether files differ from it; None outside."""
    commit = _lines(["git", "rev-parse", "HEAD"], folder)
    if not commit:
        return None
    changed = _lines(["git", "status", "--porcelain", "--untracked-files=no"], folder)
    return {"commit": commit[0], "changed": bool(changed)}


def _lines(command: list[str], folder: Path) -> list[str]:
    if shutil.which(command[0]) is None:
        return []
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=20, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return []
    return [line.strip() for line in done.stdout.splitlines()] if done.returncode == 0 else []


def _versions() -> dict[str, str]:
    from rbkit.train.record import versions

    return versions()


def _me() -> dict[str, Any]:
    return {**process_identity(), "host": platform.node(), "since": now()}


def _is_me(who: Any) -> bool:
    here = (os.getpid(), platform.node())
    return isinstance(who, dict) and (who.get("pid"), who.get("host")) == here and is_alive(who)
