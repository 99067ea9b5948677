"""Ends processes by identity, with all that they started.

A process number alone is not enough to kill by: numbers are used again. So a process is
named by number and time of birth (:func:`~rbkit.report.sweep.jobfile.process_identity`).
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import psutil

from rbkit.report.sweep.jobfile import is_alive

_PR_SET_CHILD_SUBREAPER = 36  # <linux/prctl.h>


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent dies (Linux).

    So that what a killed kernel leaves behind can still be found, and ended, also when it
    has made a session of its own.
    """
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def kill_group(leader: Mapping[str, Any] | None) -> bool:
    """Kill the process group that the process `leader` leads or led; whether there was one.

    While a group has members, its number is not given to a new process. So it is the one
    meant if the leader is gone, or is there with the right time of birth.
    """
    if not leader or not isinstance(leader.get("pid"), int) or leader["pid"] <= 1:
        return False
    pid = leader["pid"]
    if psutil.pid_exists(pid) and not is_alive(leader) and not _is_zombie(pid):
        return False  # somebody else has the number now
    if pid == os.getpgrp():
        return False
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def kill_process(identity: Mapping[str, Any] | None) -> bool:
    """Kill one process if it is still the one meant; whether it was."""
    if not identity or not is_alive(identity):
        return False
    with suppress(ProcessLookupError, PermissionError):
        os.kill(int(identity["pid"]), signal.SIGKILL)
        return True
    return False


def kill_descendants(but: set[int] | None = None) -> None:
    """Kill whatever descends from this process, except the children `but` and theirs.

    Repeated until none is left: one may be starting another while it is being killed.
    """
    for _ in range(20):
        children = [c for c in psutil.Process().children() if c.pid not in (but or set())]
        family = [p for child in children for p in (child, *_children(child))]
        if not [p for p in family if _kill(p)]:
            return
        psutil.wait_procs(family, timeout=0.2)


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        found: list[psutil.Process] = process.children(recursive=True)
    except psutil.NoSuchProcess:
        return []
    return found


def _kill(process: psutil.Process) -> bool:
    try:
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        process.kill()
    except psutil.NoSuchProcess:
        return False
    return True


def _is_zombie(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def _prctl(option: int, value: int) -> None:
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)
