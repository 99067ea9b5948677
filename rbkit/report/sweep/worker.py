"""One run in one process, forked from a process in which everything is loaded already.

A fresh interpreter with its imports costs more than a small run. So :class:`LocalWorkers` starts
a *fork server* (:func:`fork_server`) that has papermill and nbconvert loaded, and asks it for a
worker (:func:`work`) for each run. All talk by lines of JSON over :class:`Channel`. The launcher
keeps one end of each, so workers and fork server notice when it dies, however it did, and leave
nothing behind.
"""

from __future__ import annotations

import errno
import gc
import importlib
import json
import os
import platform
import select
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import uuid
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from rbkit.processes import (
    MARK,
    adopt_orphans,
    is_alive,
    kill_descendants,
    kill_group,
    process_identity,
)
from rbkit.report.engine import Failure, NotebookError, failure_in
from rbkit.report.sweep.folder import error_tail
from rbkit.report.sweep.machine import oom_kills
from rbkit.text import last_lines, one_line, truncate

Message = dict[str, Any]
LOG = "worker.log"


class Channel:
    """One end of a connection.

    Examples
    --------
    >>> ours, theirs = Channel.pair()
    >>> _ = ours.send({"interrupt": True}); theirs.receive()
    {'interrupt': True}
    >>> ours.close(); theirs.receive() is None
    True
    >>> theirs.close()
    """

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self._unread = b""
        self._lock = threading.Lock()  # a worker sends from two threads
        self.ended = False  # the other end is closed, by itself or by the death of its process

    @classmethod
    def pair(cls) -> tuple[Channel, Channel]:
        """Make both ends."""
        ours, theirs = socket.socketpair()
        return cls(ours), cls(theirs)

    def fileno(self) -> int:
        """Return the number by which ``select`` knows it."""
        return self.socket.fileno()

    def send(self, message: Message) -> bool:
        """Send; whether anybody was there to send to."""
        try:
            with self._lock:
                self.socket.sendall(json.dumps(message).encode() + b"\n")
        except OSError:
            return False
        return True

    def receive(self) -> Message | None:
        """Wait for the next message; None when there will be no more."""
        while b"\n" not in self._unread and not self.ended:
            self._read()
        return self._next()

    def pending(self, *, to_the_end: bool = False) -> list[Message]:
        """Return what has arrived, after ``select`` has reported it; or all until the other end."""
        self._read()
        while to_the_end and not self.ended:
            self._read()
        return list(iter(self._next, None))

    def stop_sending(self) -> None:
        """Send no more, but continue to listen: the other end sees this one as closed."""
        with suppress(OSError):  # it is closed already
            self.socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Close this end: the other one sees that."""
        self.socket.close()

    def _read(self) -> None:
        try:
            data = self.socket.recv(65536)
        except OSError:
            data = b""
        self.ended = not data
        self._unread += data

    def _next(self) -> Message | None:
        line, newline, rest = self._unread.partition(b"\n")
        if not newline:
            return None
        self._unread = rest
        message: Message = json.loads(line)
        return message


# -------------------------------------------------------------------------------- the worker


def work(channel: Channel, scratch: Path) -> None:
    """Do the one run that is requested over `channel`, in a process of its own.

    In: ``{"template", "parameters", "run_dir", "cwd", "env"}``, later perhaps ``{"interrupt"}``.
    Out: ``{"kernel": {pid, born}}``, at the end ``{"result": {status, error, cell, tail, oom}}``.
    Sockets of the kernel go to the private folder `scratch`, which the fork server removes.
    """
    os.setsid()  # a group of its own, to be found and killed by
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    request = channel.receive()
    if request is None:
        return
    adopt_orphans()
    tempfile.tempdir = str(scratch)
    os.environ.update(request["env"], JUPYTER_RUNTIME_DIR=str(scratch))
    run_dir = Path(request["run_dir"])
    _redirect_output(run_dir / LOG)
    threading.Thread(target=_listen, args=(channel,), daemon=True).start()
    result = _run(request, run_dir, scratch, channel.send)
    kill_descendants()
    _drop_if_empty(run_dir / LOG)
    channel.send({"result": result})


def _listen(channel: Channel) -> None:
    """Pass on an interrupt; when the launcher is gone, exit at once and leave nothing behind."""
    while (message := channel.receive()) is not None:
        if "interrupt" in message:
            os.kill(os.getpid(), signal.SIGINT)
    kill_descendants()
    os._exit(1)


def _run(request: Message, run_dir: Path, scratch: Path, send: Callable[[Message], Any]) -> Message:
    from rbkit.report.html import run_notebook

    before = oom_kills()
    failure = Failure(None, "", [])
    try:
        scratch.mkdir()
        os.chdir(request["cwd"])  # on Ray it is another
        run_notebook(
            request["template"],
            request["parameters"],
            run_dir,
            progress=False,
            overwrite=True,  # it is not done: the launcher has looked
            on_kernel=lambda pid: send({"kernel": process_identity(pid)}),
            # It has ended, and how is known: too late to be interrupted.
            on_end=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
        )
        status = "ok"
    except NotebookError as error:
        status, failure = error.status, error.failure
    except KeyboardInterrupt:
        status = "interrupted"
        failure = failure_in(run_dir / "run.ipynb") or Failure(None, "interrupted", [])
    except Exception as error:
        message = (str(error).strip().splitlines() or [""])[0]
        headline = truncate(f"{type(error).__name__}: {message}".rstrip(": "))
        status = "failed"
        failure = Failure(None, headline, last_lines(traceback.format_exception(error)))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    after = oom_kills()
    return {
        "status": status,
        "error": one_line(failure.headline) or None,
        "cell": None if failure.cell is None else one_line(failure.cell),
        "tail": error_tail(failure.traceback),
        "oom": status == "killed" and None not in (before, after) and after != before,
    }


def _redirect_output(path: Path) -> None:
    # What does not go through the notebook: of libraries in C, and of this process.
    try:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o644)
    except OSError:  # a full disk: the run itself will report it
        file = os.open(os.devnull, os.O_WRONLY)
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.close(file)


def _drop_if_empty(path: Path) -> None:
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:  # full: what is there stays
        return
    if path.exists() and path.stat().st_size == 0:
        path.unlink()


# --------------------------------------------------------------------------- the fork server

_ROOT = str(Path(__file__).resolve().parents[3])


def start_fork_server(mark: str) -> tuple[subprocess.Popen[bytes], Channel, Path]:
    """Start the fork server; it works until the channel is closed. All it starts carries `mark`.

    The folder that is returned too has the sockets of the kernels. The fork server removes it
    at its end; its starter does so if it was killed.
    """
    # Sockets of kernels lie there, and their paths have some 107 characters at most.
    short = "/tmp" if len(tempfile.gettempdir()) > 40 else None
    scratch = Path(tempfile.mkdtemp(prefix="rbkit-", dir=short))
    ours, theirs = Channel.pair()
    # Threads of numerical libraries do not survive a fork: have none.
    env = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    process = subprocess.Popen(
        # -P: no module is taken from the working folder.
        [sys.executable, "-P", "-c", _START, str(theirs.fileno()), _ROOT, str(scratch)],
        pass_fds=[theirs.fileno()],
        stdin=subprocess.DEVNULL,
        env={**os.environ, **env, MARK: mark},
        start_new_session=True,  # Ctrl-C is the launcher's, which passes it on
    )
    theirs.close()
    return process, ours, scratch


def request_fork(control: Channel) -> Channel:
    """Have a worker forked; return the connection to it.

    The fork server answers on `control` with ``{"forked": pid}``, or ``{"forked": None,
    "error": why}``, and when the worker has ended with ``{"ended": pid, "code": code}``, where
    the code is negative for a signal.
    """
    ours, theirs = Channel.pair()
    with suppress(OSError):  # the fork server is gone: the connection shows it by being closed
        socket.send_fds(control.socket, [b"w"], [theirs.fileno()])
    theirs.close()
    return ours


def fork_server(fd: int, folder: str) -> None:
    """Fork workers on request, until the launcher is gone.

    It also leaves no orphans: when its only connection, to the launcher, ends, it kills all its
    descendants. On Linux, processes whose parent was killed become its children, so it finds them
    even in sessions of their own; a child that is not a worker is the orphan of a killed one.
    """
    adopt_orphans()
    scratch = Path(folder)
    control = Channel(socket.socket(fileno=fd))
    _preload()
    # Ray blocks SIGINT in its processes, and a mask is inherited: kernels would never see it.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGCHLD})
    woken, wake = socket.socketpair()
    woken.setblocking(False)
    wake.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake.fileno())
    workers: set[int] = set()
    try:
        while True:
            ready, _, _ = select.select([control.socket, woken], [], [], 1.0)
            if woken in ready:
                with suppress(BlockingIOError):
                    woken.recv(4096)
            if control.socket in ready:
                request, fds, _, _ = socket.recv_fds(control.socket, 1, 1)
                if not request:
                    break
                try:
                    pid = _fork(fds, scratch, (control.socket, woken, wake))
                except OSError as error:  # no more processes, memory or files: for now
                    control.send({"forked": None, "error": error.strerror or str(error)})
                else:
                    workers.add(pid)
                    control.send({"forked": pid})
            _reap(control, workers, scratch)
    except ConnectionError:  # the launcher went with something unread
        return
    finally:
        kill_descendants()
        shutil.rmtree(scratch, ignore_errors=True)


_START = (
    "import sys; sys.path.append(sys.argv[2]); "
    f"from {__name__} import {fork_server.__name__} as serve; serve(int(sys.argv[1]), sys.argv[3])"
)


def _preload() -> None:
    for name in ("papermill", "rbkit.report.kernels", "rbkit.report.sweep.worker"):
        importlib.import_module(name)
    from nbformat import v4

    from rbkit.report.html import OfflineExporter

    # What conversion imports and compiles when it is first used: 0.3 s of each run.
    make: Any = v4  # its makers are untyped
    cells = [make.new_markdown_cell("# $x$"), make.new_code_cell("1")]
    cells[1].outputs = [make.new_output("stream", text="1")]
    OfflineExporter().from_notebook_node(make.new_notebook(cells=cells))
    gc.collect()
    gc.freeze()  # or the collector would write to, and so copy, the pages that are shared


def _fork(fds: list[int], scratch: Path, private: tuple[socket.socket, ...]) -> int:
    if not fds:  # the system drops what it cannot hand over
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
    fd = fds[0]
    try:
        pid = os.fork()
    except OSError:
        os.close(fd)
        raise
    if pid:
        os.close(fd)
        return pid
    code = 1
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for connection in private:
            connection.close()
        work(Channel(socket.socket(fileno=fd)), scratch / str(os.getpid()))
        code = 0
    finally:
        os._exit(code)  # never back into the fork server's loop, nor into its clean-up


def _reap(control: Channel, workers: set[int], scratch: Path) -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        if pid in workers:  # else an orphan
            workers.discard(pid)
            kill_descendants(but=workers)
            shutil.rmtree(scratch / str(pid), ignore_errors=True)
            control.send({"ended": pid, "code": os.waitstatus_to_exitcode(status)})


# ------------------------------------------------------------------------ the launcher's side


@dataclass(frozen=True)
class Event:
    """Something that happened to a run.

    ``started`` (identity of the worker, its host, its GPU), ``kernel`` (identity of the
    notebook's kernel), or ``ended`` (``result``: what the worker sent, or None if it could
    not; ``code``: its exit code, negative for a signal, None if it is unknown).
    """

    kind: Literal["started", "kernel", "ended"]
    id: str
    data: dict[str, Any] = field(default_factory=dict)


class Workers(Protocol):
    """What does runs, here or on Ray; every method returns at once but :meth:`events`."""

    def start(self, request: Message) -> None:
        """Begin the run ``request["id"]``."""

    def events(self, timeout: float) -> list[Event]:
        """Return what happened; wait at most `timeout` seconds for something."""

    def interrupt(self, id: str) -> None:
        """Have the run interrupt its notebook, which may write a checkpoint."""

    def kill(self, id: str) -> None:
        """Kill the run and all its processes; its end is an event as always."""

    def close(self) -> None:
        """Kill whatever still runs, and release everything."""


@dataclass
class _Worker:
    id: str
    channel: Channel
    identity: Mapping[str, Any] | None = None
    kernel: Mapping[str, Any] | None = None
    result: Message | None = None
    early: list[Event] = field(default_factory=list)  # before the fork server reported the fork


class LocalWorkers:
    """:class:`Workers` of this machine."""

    def __init__(self) -> None:
        self._server: subprocess.Popen[bytes] | None = None
        self._control: Channel | None = None
        self._scratch: Path | None = None
        self._workers: dict[str, _Worker] = {}
        self._requested: deque[_Worker] = deque()  # in the order in which they will be forked
        self._not_started: list[Event] = []
        self._mark = uuid.uuid4().hex  # identifies what they leave even after their death

    def start(self, request: Message) -> None:
        try:
            if self._control is None:
                self._server, self._control, self._scratch = start_fork_server(self._mark)
            worker = _Worker(request["id"], request_fork(self._control))
        except OSError as error:  # it costs this run, not those in progress
            self._not_started.append(_not_started(request["id"], error.strerror or str(error)))
            return
        worker.channel.send(request)
        self._workers[worker.id] = worker
        self._requested.append(worker)

    def events(self, timeout: float) -> list[Event]:
        events, self._not_started = self._not_started, []
        if events:
            return events
        connected = [w for w in self._workers.values() if not w.channel.ended]
        channels = [w.channel for w in connected] + ([self._control] if self._control else [])
        if not channels:
            time.sleep(timeout)
            return []
        ready = _ready(channels, timeout)
        for worker in connected:
            if worker.channel in ready:
                events += self._from_worker(worker, worker.channel.pending())
        if self._control in ready and self._control is not None:
            for message in self._control.pending():
                events += self._from_server(message)
            if self._control.ended:
                events += self._server_died()
        return events

    def interrupt(self, id: str) -> None:
        if id in self._workers:
            self._workers[id].channel.send({"interrupt": True})

    def kill(self, id: str) -> None:
        worker = self._workers.get(id)
        if worker is not None:
            kill_group(worker.kernel)
            if not kill_group(worker.identity):
                worker.channel.stop_sending()  # not forked yet: it will receive no request

    def close(self) -> None:
        for worker in self._workers.values():
            kill_group(worker.kernel)
            kill_group(worker.identity)
            worker.channel.close()
        self._workers.clear()
        self._requested.clear()
        self._end_server()

    def _from_worker(self, worker: _Worker, messages: list[Message]) -> list[Event]:
        events = []
        for message in messages:
            if "kernel" in message:
                worker.kernel = {**message["kernel"], "mark": self._mark}
                events.append(Event("kernel", worker.id, {"kernel": worker.kernel}))
            if "result" in message:
                worker.result = message["result"]
        if worker.identity is None:
            worker.early += events
            return []
        return events

    def _from_server(self, message: Message) -> list[Event]:
        if "forked" in message:
            worker = self._requested.popleft()
            if message["forked"] is None:
                worker.channel.close()
                self._workers.pop(worker.id, None)
                return [_not_started(worker.id, message["error"])]
            worker.identity = {**process_identity(int(message["forked"])), "mark": self._mark}
            data = {"worker": worker.identity, "host": platform.node()}
            early, worker.early = worker.early, []
            return [Event("started", worker.id, data), *early]
        for worker in self._workers.values():
            if worker.identity and worker.identity["pid"] == message["ended"]:
                return self._end(worker, message["code"])
        return []

    def _end(self, worker: _Worker, code: int | None) -> list[Event]:
        events = self._from_worker(worker, worker.channel.pending(to_the_end=True))
        kill_group(worker.kernel)  # where the fork server cannot adopt what is left of it
        worker.channel.close()
        self._workers.pop(worker.id, None)
        return [*events, Event("ended", worker.id, {"result": worker.result, "code": code})]

    def _server_died(self) -> list[Event]:
        # Nothing collects its workers any more: they go too, each with all that it started. The
        # next run gets a new fork server.
        for worker in self._workers.values():
            worker.channel.stop_sending()
        end = time.monotonic() + 5
        events = []
        for worker in list(self._workers.values()):
            while is_alive(worker.identity) and time.monotonic() < end:
                time.sleep(0.02)
            kill_group(worker.kernel)
            kill_group(worker.identity)
            events += self._end(worker, None)
        self._requested.clear()
        self._end_server()
        return events

    def _end_server(self) -> None:
        if self._control is not None:
            self._control.close()
        if self._server is not None:
            try:
                self._server.wait(timeout=10)
            except subprocess.TimeoutExpired:
                self._server.kill()
                self._server.wait()
        if self._scratch is not None:
            shutil.rmtree(self._scratch, ignore_errors=True)
        self._server = self._control = self._scratch = None


def _not_started(id: str, why: str) -> Event:
    error = f"no process could be started for it ({why})"
    result: Message = {"status": "killed", "error": error, "cell": None, "tail": [], "oom": False}
    return Event("ended", id, {"result": result, "code": None})


def _ready(channels: list[Channel], timeout: float) -> list[Channel]:
    # Not select(): it cannot take the numbers of a process with many open files.
    with selectors.DefaultSelector() as selector:
        for channel in channels:
            selector.register(channel, selectors.EVENT_READ)
        ready: list[Channel] = [key.fileobj for key, _ in selector.select(timeout)]  # type: ignore[misc]
    return ready
