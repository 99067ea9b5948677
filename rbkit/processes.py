"""Ends processes by identity, with all that they started.

A process number alone is not enough to kill by: numbers are used again. So a process is
named by number and time of birth (:func:`~rbkit.processes.process_identity`).
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import Any

import psutil

MARK = "RBKIT_SWEEP"  # a variable of the environment that all processes of a sweep inherit
_SAME = 2.0  # seconds by which times of birth may differ: the clock that dates them may be set
STALE = 120.0  # seconds without a heartbeat after which a process elsewhere counts as killed
_PR_SET_CHILD_SUBREAPER = 36  # <linux/prctl.h>


def process_identity(pid: int | None = None) -> dict[str, Any]:
    """Return ``{"pid", "born"}`` of a process (this one by default); numbers alone are reused."""
    pid = os.getpid() if pid is None else pid
    try:
        return {"pid": pid, "born": psutil.Process(pid).create_time()}
    except psutil.NoSuchProcess:
        return {"pid": pid, "born": 0.0}  # gone already: no process was born then


def is_alive(process: Mapping[str, Any] | None) -> bool:
    """Whether the process with this identity still runs, on this machine."""
    if not process:
        return False
    pid, born = process.get("pid"), process.get("born")
    if type(pid) is not int or pid <= 0 or not isinstance(born, int | float):
        return False
    try:
        found = psutil.Process(pid)
        # The clock that dates processes may be set: two seconds are the same birth.
        same = abs(found.create_time() - born) < 2
        return bool(same and found.status() != psutil.STATUS_ZOMBIE)
    except psutil.AccessDenied:
        return True
    except (psutil.NoSuchProcess, OverflowError):
        return False


def has_lived_since(pid: int, when: datetime) -> bool:
    """Whether process `pid`, seen alive at `when`, still runs: a later one may have its number."""
    try:
        process = psutil.Process(pid)
        same = process.create_time() <= when.timestamp() + 1  # heartbeats are whole seconds
        return bool(same and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.AccessDenied:  # somebody else's: it lives
        return True
    except psutil.NoSuchProcess:
        return False


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent dies (Linux).

    So that what a killed kernel leaves behind can still be found, and ended, also when it
    has made a session of its own.
    """
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def kill_group(leader: Mapping[str, Any] | None) -> bool:
    """Kill the process group that the process `leader` leads or led; whether there was one.

    While the leader is there, with the right time of birth, the group is the one meant. When
    it has gone, others may have its number, above all after a reboot or in a copied folder.
    So then only those are killed that carry the mark of the sweep in their environment.

    Parameters
    ----------
    leader : dict, optional
        ``{pid, born, mark}``, by :func:`~rbkit.processes.process_identity`, with the
        value of ``$RBKIT_SWEEP`` of the sweep.
    """
    if not leader or not isinstance(leader.get("pid"), int) or leader["pid"] <= 1:
        return False
    pid, born = leader["pid"], leader.get("born")
    if pid == os.getpgrp() or not isinstance(born, int | float) or not _is_group(pid):
        return False
    if 0 < born < psutil.boot_time() - _SAME:  # 0: it was gone before it could be dated
        return False  # of another life of this machine, or of another machine
    if is_alive(leader) or _died_just_now(pid, born):
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)
            return True
        return False
    if psutil.pid_exists(pid):
        return False  # somebody else has the number now
    return _kill_marked(pid, leader.get("mark"))


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


def _is_group(pid: int) -> bool:
    try:
        os.killpg(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _died_just_now(pid: int, born: float) -> bool:
    """Whether it is there still, as a zombie."""
    try:
        found = psutil.Process(pid)
        zombie = found.status() == psutil.STATUS_ZOMBIE
        return bool(zombie and abs(found.create_time() - born) < _SAME)
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return False


def _kill_marked(group: int, mark: Any) -> bool:
    killed = False
    for pid in psutil.pids() if isinstance(mark, str) and mark else ():
        with suppress(OSError, psutil.Error):  # it has just gone, or is not ours
            process = psutil.Process(pid)
            if os.getpgid(pid) == group and process.environ().get(MARK) == mark:
                process.kill()
                killed = True
    return killed


def _prctl(option: int, value: int) -> None:
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


# Seconds that a kernel gets to end its cell after Ctrl-C, e.g. to write a checkpoint.
GRACE = 15


def signal_name(number: int) -> str:
    """Return the name of a signal.

    Examples
    --------
    >>> signal_name(9), signal_name(1000)
    ('SIGKILL', 'signal 1000')
    """
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


@contextmanager
def terminate_by_interrupt() -> Iterator[None]:
    """Have SIGTERM raise KeyboardInterrupt in the block, so that what was begun is put away.

    Not where somebody else handles it, nor outside of the main thread.

    Examples
    --------
    >>> try:
    ...     with terminate_by_interrupt():
    ...         signal.raise_signal(signal.SIGTERM)
    ... except KeyboardInterrupt:
    ...     print("put away")
    put away
    """
    ours = threading.current_thread() is threading.main_thread()
    if not ours or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
