"""Processes by identity: which one it is, whether it is alive, and ending it with all it started.

A process number alone is not enough to kill by: numbers are reused. So a process is identified
by its number and its time of birth (:func:`process_identity`).
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock, Timeout

STALE = 120.0  # seconds without a heartbeat after which a run on another machine counts as killed
MARK = "RBKIT_SWEEP"  # an environment variable that all processes of a sweep inherit
GRACE = 15  # seconds that a kernel gets to end its cell after Ctrl-C, e.g. to write a checkpoint
_SAME_BIRTH = 2.0  # seconds by which times of birth may differ: the clock may have been set
_PR_SET_CHILD_SUBREAPER = 36  # <linux/prctl.h>


def process_identity(pid: int | None = None) -> dict[str, Any]:
    """Return ``{"pid", "born"}`` of a process, by default this one."""
    pid = os.getpid() if pid is None else pid
    try:
        return {"pid": pid, "born": psutil.Process(pid).create_time()}
    except psutil.NoSuchProcess:
        return {"pid": pid, "born": 0.0}  # gone already: no process was born then


def is_alive(identity: Mapping[str, Any] | None) -> bool:
    """Whether the process with this identity still runs on this machine."""
    if not identity:
        return False
    pid, born = identity.get("pid"), identity.get("born")
    if type(pid) is not int or pid <= 0 or not isinstance(born, int | float):
        return False
    try:
        process = psutil.Process(pid)
        same = abs(process.create_time() - born) < _SAME_BIRTH
        return bool(same and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.AccessDenied:
        return True
    except (psutil.NoSuchProcess, OverflowError):
        return False


def take_lock(path: Path) -> FileLock | None:
    """Take the lock `path` until ``release()`` or the death of this process; None if it is taken.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "lock"
    >>> lock = take_lock(path)
    >>> take_lock(path) is None
    True
    >>> lock.release()
    """
    if path.is_symlink():  # locking empties the file that it leads to
        raise OSError(errno.ELOOP, "the lock is a link", str(path))
    lock = FileLock(path, timeout=0, thread_local=False)
    try:
        lock.acquire()
    except Timeout:
        return None
    return lock


def is_suspended(identity: Mapping[str, Any]) -> bool:
    """Whether this living process is stopped, as by Ctrl-Z: it continues when it is resumed."""
    try:
        return bool(psutil.Process(identity["pid"]).status() == psutil.STATUS_STOPPED)
    except psutil.Error:
        return False


def seconds_since(time: Any) -> float:
    """Return the seconds since a time in ISO 8601 with a zone; infinity if it is not one."""
    try:
        return (datetime.now(UTC) - datetime.fromisoformat(str(time))).total_seconds()
    except (ValueError, TypeError):
        return float("inf")


def has_lived_since(pid: int, when: datetime) -> bool:
    """Whether process `pid`, seen alive at `when`, still runs: a later one may have its number."""
    try:
        process = psutil.Process(pid)
        same = process.create_time() <= when.timestamp() + 1  # heartbeats are whole seconds
        return bool(same and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.AccessDenied:  # another user's: it lives
        return True
    except psutil.NoSuchProcess:
        return False


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent dies (Linux).

    So what a killed kernel leaves behind can be found and ended, even in a session of its own.
    """
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def kill_group(leader: Mapping[str, Any] | None) -> bool:
    """Kill the process group that the process `leader` leads or led; whether there was one.

    While the leader is there, with the right time of birth, the group is the one meant. Once it
    has gone, its number may belong to others, above all after a reboot or in a copied folder;
    then only processes with the `mark` of the leader as ``$RBKIT_SWEEP`` are killed.
    """
    if not leader or type(leader.get("pid")) is not int or not 1 < leader["pid"] < 2**31:
        return False
    pid, born = leader["pid"], leader.get("born")
    if pid == os.getpgrp() or not isinstance(born, int | float) or not _group_exists(pid):
        return False
    if 0 < born < psutil.boot_time() - _SAME_BIRTH:  # 0: it was gone before it could be dated
        return False  # from before a reboot, or from another machine
    if is_alive(leader) or _is_zombie(pid, born):
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)
            return True
        return False
    if psutil.pid_exists(pid):
        return False  # another process has the number now
    return _kill_marked(pid, leader.get("mark"))


def kill_descendants(but: set[int] | None = None) -> None:
    """Kill all descendants of this process, except the children `but` and theirs.

    Repeated until none is left: one may be starting another while it is being killed.
    """
    for _ in range(20):
        children = [c for c in psutil.Process().children() if c.pid not in (but or set())]
        family = list(children)
        for child in children:
            with suppress(psutil.NoSuchProcess):
                family += child.children(recursive=True)
        if not [process for process in family if _kill(process)]:
            return
        psutil.wait_procs(family, timeout=0.2)


def _kill(process: psutil.Process) -> bool:
    try:
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        process.kill()
    except psutil.NoSuchProcess:
        return False
    return True


def _group_exists(pid: int) -> bool:
    try:
        os.killpg(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _is_zombie(pid: int, born: float) -> bool:
    try:
        process = psutil.Process(pid)
        zombie = process.status() == psutil.STATUS_ZOMBIE
        return bool(zombie and abs(process.create_time() - born) < _SAME_BIRTH)
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
    """Have SIGTERM raise KeyboardInterrupt in the block, so that it can clean up.

    Not where SIGTERM is handled already, nor outside of the main thread.

    Examples
    --------
    >>> try:
    ...     with terminate_by_interrupt():
    ...         signal.raise_signal(signal.SIGTERM)
    ... except KeyboardInterrupt:
    ...     print("cleaned up")
    cleaned up
    """
    in_main = threading.current_thread() is threading.main_thread()
    if not in_main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
