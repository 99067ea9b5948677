"""The process from which workers are forked: what a worker needs is imported once, here.

A fresh interpreter that imports papermill and nbconvert costs some two seconds of CPU, a
fork of this one some milliseconds. It is not :mod:`multiprocessing`'s fork server, since
that imports the user's script again in each worker (and a script without
``if __name__ == "__main__"`` would start its sweep again).

It is also what leaves no orphans. Its only connection is to the launcher: when that ends,
whatever the reason, it kills all that descends from it and goes. On Linux, processes whose
parent was killed become its children, so they are found also after they have made sessions
of their own; any child that is no worker is the orphan of a killed one.
"""

from __future__ import annotations

import errno
import gc
import importlib
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from rbkit.report.sweep.channel import Channel
from rbkit.report.sweep.processes import MARK, adopt_orphans, kill_descendants

_START = (
    "import sys; sys.path.append(sys.argv[2]); "
    "from rbkit.report.sweep.nursery import main; "
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
        pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, env={**os.environ, **own},
        start_new_session=True,  # Ctrl-C is the launcher's, which passes it on
    )  # fmt: skip
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
    for name in ("papermill", "rbkit.report.kernels", "rbkit.report.sweep.worker"):
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
        from rbkit.report.sweep.worker import serve

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
