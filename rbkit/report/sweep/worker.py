"""One run in one process: execute the notebook, make its page, say how it ended."""

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
from rbkit.report.engine import Failure, NotebookError, execute, failure_in
from rbkit.report.sweep.folder import tail_of
from rbkit.report.sweep.machine import oom_kills
from rbkit.text import last_lines, one_line, shorten

Message = dict[str, Any]


class Channel:
    """One end of a connection.

    Examples
    --------
    >>> ours, theirs = Channel.pair()
    >>> _ = ours.send({"say": "interrupt"}); theirs.receive()
    {'say': 'interrupt'}
    >>> ours.close(); theirs.receive() is None
    True
    >>> theirs.close()
    """

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self._rest = b""
        self._lock = threading.Lock()  # a worker speaks from two threads
        self.ended = False  # the other end is closed: by itself, or by the death of its process

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
        data = json.dumps(message).encode() + b"\n"
        try:
            with self._lock:
                self.socket.sendall(data)
        except OSError:
            return False
        return True

    def receive(self) -> Message | None:
        """Wait for the next message; None when there will be no more."""
        while b"\n" not in self._rest and not self.ended:
            self._take()
        return self._next()

    def pending(self) -> list[Message]:
        """Return what has arrived, after a ``select`` that said so."""
        self._take()
        return self._all()

    def rest(self) -> list[Message]:
        """Return what a process that has ended still said."""
        while not self.ended:
            self._take()
        return self._all()

    def hang_up(self) -> None:
        """Say no more, but go on listening: the other end sees this one as closed."""
        with suppress(OSError):  # it is closed already
            self.socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Close this end: the other one sees that."""
        self.socket.close()

    def _take(self) -> None:
        try:
            data = self.socket.recv(65536)
        except OSError:
            data = b""
        self.ended = not data
        self._rest += data

    def _next(self) -> Message | None:
        line, newline, rest = self._rest.partition(b"\n")
        if not newline:
            return None
        self._rest = rest
        message: Message = json.loads(line)
        return message

    def _all(self) -> list[Message]:
        found = []
        while (message := self._next()) is not None:
            found.append(message)
        return found


@dataclass(frozen=True)
class Event:
    """Something that happened to a run.

    ``started`` (identity of the worker, its host, its GPU), ``kernel`` (identity of the
    notebook's kernel), or ``ended`` (``result``: what the worker said, or None if it could
    not; ``code``: its exit code, negative for a signal, None if nobody knows it).
    """

    kind: Literal["started", "kernel", "ended"]
    id: str
    data: dict[str, Any] = field(default_factory=dict)


class Workers(Protocol):
    """Those who do runs; every method returns at once but :meth:`events`."""

    def start(self, request: Message) -> None:
        """Begin the run ``request["id"]``."""

    def events(self, timeout: float) -> list[Event]:
        """Return what happened; wait at most `timeout` seconds for something."""

    def interrupt(self, id: str) -> None:
        """Have the run interrupt its notebook, which may write a checkpoint."""

    def kill(self, id: str) -> None:
        """Kill the run and all its processes."""

    def close(self) -> None:
        """Kill whatever still runs, and let go of everything."""


LOG = "worker.log"


def serve(channel: Channel, scratch: Path) -> None:
    """Do the one run that comes over `channel`, in a process of its own.

    What arrives: ``{"template", "parameters", "run_dir", "cwd", "env"}``, later perhaps
    ``{"say": "interrupt"}``. What is told: ``{"kernel": {pid, born}}``, and at the end
    ``{"result": {status, error, cell, tail, oom}}``.

    Parameters
    ----------
    scratch : Path
        A private folder for the sockets of the kernel; removed by whoever gave it.
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
    _log_to(run_dir / LOG)
    threading.Thread(target=_lifeline, args=(channel,), daemon=True).start()
    result = _run(request, run_dir, scratch, channel.send)
    kill_descendants()
    _drop_if_empty(run_dir / LOG)
    channel.send({"result": result})


def _lifeline(channel: Channel) -> None:
    """Pass on an interrupt; when the launcher is gone, go at once and leave nothing behind."""
    while (message := channel.receive()) is not None:
        if message.get("say") == "interrupt":
            os.kill(os.getpid(), signal.SIGINT)
    kill_descendants()
    os._exit(1)


def _run(request: Message, run_dir: Path, scratch: Path, tell: Callable[[Message], Any]) -> Message:
    before = oom_kills()
    failure = Failure(None, "", [])
    try:
        scratch.mkdir()
        os.chdir(request["cwd"])  # on Ray it is another
        for name in ("run.ipynb", "run.html"):  # of an earlier attempt
            (run_dir / name).unlink(missing_ok=True)
        execute(
            request["template"],
            request["parameters"],
            run_dir,
            progress=False,
            on_kernel=lambda pid: tell({"kernel": process_identity(pid)}),
        )
        status = "ok"
    except NotebookError as error:
        status, failure = error.status, error.failure
    except KeyboardInterrupt:
        status = "interrupted"
        failure = failure_in(run_dir / "run.ipynb") or Failure(None, "interrupted", [])
    except Exception as error:
        status, failure = "failed", _unexpected(error)
    # It has ended, and how is known: too late to be interrupted.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _page(run_dir)
    after = oom_kills()
    return {
        "status": status,
        "error": one_line(failure.headline) or None,
        "cell": None if failure.cell is None else one_line(failure.cell),
        "tail": tail_of(failure.traceback),
        "oom": status == "killed" and None not in (before, after) and after != before,
    }


def _unexpected(error: BaseException) -> Failure:
    said = (str(error).strip().splitlines() or [""])[0]
    return Failure(
        None,
        shorten(f"{type(error).__name__}: {said}".rstrip(": ")),
        last_lines(traceback.format_exception(error)),
    )


def _page(run_dir: Path) -> None:
    from rbkit.report.html import notebook_to_html

    if not (run_dir / "run.ipynb").exists():
        return
    try:
        notebook_to_html(run_dir / "run.ipynb", run_dir / "run.html")
    except Exception:  # the run is what it is; the log says why it has no page
        traceback.print_exc()


def _log_to(path: Path) -> None:
    # What is not said through the notebook: of libraries in C, and of this process.
    try:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o644)
    except OSError:  # a full disk: the run itself will say so
        file = os.open(os.devnull, os.O_WRONLY)
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.close(file)


def _drop_if_empty(path: Path) -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:  # full: what is there stays
            return
    if path.exists() and path.stat().st_size == 0:
        path.unlink()


_START = (
    "import sys; sys.path.append(sys.argv[2]); "
    "from rbkit.report.sweep.worker import main; "
    "main(int(sys.argv[1]), sys.argv[3])"
)
_ROOT = str(Path(__file__).resolve().parents[3])


def start_nursery(mark: str = "") -> tuple[subprocess.Popen[bytes], Channel, Path]:
    """Start the nursery; it works until the channel is closed. All it starts carries `mark`.

    The folder that is returned too has the sockets of the kernels. The nursery removes it
    at its end; whoever started it does so if it was killed.
    """
    scratch = Path(tempfile.mkdtemp(prefix="rbkit-", dir=_short()))
    ours, theirs = Channel.pair()
    # Threads of numerical libraries do not survive a fork: have none.
    own = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    own[MARK] = mark
    process = subprocess.Popen(
        # -P: no module is taken from the working folder.
        [sys.executable, "-P", "-c", _START, str(theirs.fileno()), _ROOT, str(scratch)],
        pass_fds=[theirs.fileno()],
        stdin=subprocess.DEVNULL,
        env={**os.environ, **own},
        start_new_session=True,  # Ctrl-C is the launcher's, which passes it on
    )
    theirs.close()
    return process, ours, scratch


def ask_for_worker(control: Channel) -> Channel:
    """Have a worker forked; return the connection to it.

    The nursery says ``{"forked": pid}`` on `control`, or ``{"forked": None, "error": why}``,
    and ``{"ended": pid, "code": code}`` when it has ended, with a negative code for a signal.
    """
    ours, theirs = Channel.pair()
    with suppress(OSError):  # the nursery is gone: the connection says so by being closed
        socket.send_fds(control.socket, [b"w"], [theirs.fileno()])
    theirs.close()
    return ours


def main(fd: int, folder: str) -> None:
    """Fork workers as asked, until the launcher is gone."""
    adopt_orphans()
    scratch = Path(folder)
    control = Channel(socket.socket(fileno=fd))
    _warm()
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
                asked, fds, _, _ = socket.recv_fds(control.socket, 1, 1)
                if not asked:
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


def _warm() -> None:
    for name in ("papermill", "rbkit.report.engine", "rbkit.report.sweep.worker"):
        importlib.import_module(name)
    from nbformat import v4

    from rbkit.report.html import OfflineExporter

    # What conversion imports and compiles when it is first used: 0.3 s of each run.
    new_output: Any = v4.new_output
    cells = [v4.new_markdown_cell("# $x$"), v4.new_code_cell("1")]  # type: ignore[no-untyped-call]
    cells[1].outputs = [new_output("stream", text="1")]
    OfflineExporter().from_notebook_node(v4.new_notebook(cells=cells))  # type: ignore[no-untyped-call]
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

        serve(Channel(socket.socket(fileno=fd)), scratch / str(os.getpid()))
        code = 0
    finally:
        os._exit(code)  # never back into the nursery's loop, nor into its clean-up


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


def _short() -> str | None:
    # Sockets of kernels lie there, and their paths have some 107 characters at most.
    return "/tmp" if len(tempfile.gettempdir()) > 40 else None


@dataclass
class _Worker:
    id: str
    channel: Channel
    identity: Mapping[str, Any] | None = None
    kernel: Mapping[str, Any] | None = None
    result: Message | None = None
    later: list[Event] = field(default_factory=list)


class LocalWorkers:
    """See :class:`~rbkit.report.sweep.worker.Workers`."""

    def __init__(self) -> None:
        self._nursery: subprocess.Popen[bytes] | None = None
        self._control: Channel | None = None
        self._scratch: Path | None = None
        self._workers: dict[str, _Worker] = {}
        self._unborn: deque[_Worker] = deque()  # asked for, in the order they will be forked
        self._stillborn: list[Event] = []
        self._mark = uuid.uuid4().hex  # by which what they leave is known, after their death too

    def start(self, request: Message) -> None:
        """Begin the run ``request["id"]``."""
        try:
            if self._control is None:
                self._nursery, self._control, self._scratch = start_nursery(self._mark)
            worker = _Worker(request["id"], ask_for_worker(self._control))
        except OSError as error:  # it costs this run, not those that go on
            self._stillborn.append(_not_begun(request["id"], error.strerror or str(error)))
            return
        worker.channel.send(request)
        self._workers[worker.id] = worker
        self._unborn.append(worker)

    def events(self, timeout: float) -> list[Event]:
        """Return what happened; wait at most `timeout` seconds for something."""
        found, self._stillborn = self._stillborn, []
        if found:
            return found
        speaking = [w for w in self._workers.values() if not w.channel.ended]
        channels = [w.channel for w in speaking] + ([self._control] if self._control else [])
        if not channels:
            time.sleep(timeout)
            return []
        ready = _ready(channels, timeout)
        for worker in speaking:
            if worker.channel in ready:
                found += self._heard(worker, worker.channel.pending())
        if self._control in ready and self._control is not None:
            for message in self._control.pending():
                found += self._of_nursery(message)
            if self._control.ended:
                found += self._nursery_is_gone()
        return found

    def interrupt(self, id: str) -> None:
        """Have the run interrupt its notebook."""
        if id in self._workers:
            self._workers[id].channel.send({"say": "interrupt"})

    def kill(self, id: str) -> None:
        """Kill the run and all its processes; that it has ended is told as always."""
        worker = self._workers.get(id)
        if worker is not None:
            kill_group(worker.kernel)
            if not kill_group(worker.identity):
                worker.channel.hang_up()  # not forked yet: it will find nobody there

    def close(self) -> None:
        """Kill whatever still runs, and end the nursery."""
        for worker in self._workers.values():
            kill_group(worker.kernel)
            kill_group(worker.identity)
            worker.channel.close()
        self._workers.clear()
        self._unborn.clear()
        self._end_nursery()

    def _heard(self, worker: _Worker, messages: list[Message]) -> list[Event]:
        found = []
        for message in messages:
            if "kernel" in message:
                worker.kernel = {**message["kernel"], "mark": self._mark}
                found.append(Event("kernel", worker.id, {"kernel": worker.kernel}))
            if "result" in message:
                worker.result = message["result"]
        if worker.identity is None:  # it may speak before the nursery does
            worker.later += found
            return []
        return found

    def _of_nursery(self, message: Message) -> list[Event]:
        if "forked" in message:
            worker = self._unborn.popleft()
            if message["forked"] is None:
                worker.channel.close()
                self._workers.pop(worker.id, None)
                return [_not_begun(worker.id, message["error"])]
            worker.identity = {**process_identity(int(message["forked"])), "mark": self._mark}
            data = {"worker": worker.identity, "host": platform.node()}
            earlier, worker.later = worker.later, []
            return [Event("started", worker.id, data), *earlier]
        ended = [
            w
            for w in self._workers.values()
            if w.identity and w.identity["pid"] == message["ended"]
        ]
        return [event for worker in ended for event in self._end(worker, message["code"])]

    def _end(self, worker: _Worker, code: int | None) -> list[Event]:
        found = self._heard(worker, worker.channel.rest())
        kill_group(worker.kernel)  # where the nursery cannot adopt what is left of it
        worker.channel.close()
        self._workers.pop(worker.id, None)
        return [*found, Event("ended", worker.id, {"result": worker.result, "code": code})]

    def _nursery_is_gone(self) -> list[Event]:
        # Nobody collects its workers any more: they go too, each with all that it started. The
        # next run gets a new nursery.
        for worker in self._workers.values():
            worker.channel.hang_up()
        end = time.monotonic() + 5
        found = []
        for worker in list(self._workers.values()):
            while is_alive(worker.identity) and time.monotonic() < end:
                time.sleep(0.02)
            kill_group(worker.kernel)
            kill_group(worker.identity)
            found += self._end(worker, None)
        self._unborn.clear()
        self._end_nursery()
        return found

    def _end_nursery(self) -> None:
        if self._control is not None:
            self._control.close()
        if self._nursery is not None:
            try:
                self._nursery.wait(timeout=10)
            except subprocess.TimeoutExpired:
                self._nursery.kill()
                self._nursery.wait()
        if self._scratch is not None:
            shutil.rmtree(self._scratch, ignore_errors=True)
        self._nursery = self._control = self._scratch = None


def _not_begun(id: str, why: str) -> Event:
    error = f"no process could be started for it ({why})"
    result: dict[str, Any] = {"status": "killed", "error": error, "cell": None, "tail": []}
    return Event("ended", id, {"result": {**result, "oom": False}, "code": None})


def _ready(channels: list[Channel], timeout: float) -> list[Channel]:
    # Not select(): a process with many files open has numbers that it cannot take.
    with selectors.DefaultSelector() as selector:
        for channel in channels:
            selector.register(channel, selectors.EVENT_READ)
        found: list[Channel] = [key.fileobj for key, _ in selector.select(timeout)]  # type: ignore[misc]
    return found
