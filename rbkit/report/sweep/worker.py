"""One run in one process: execute the notebook, make its page, say how it ended."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rbkit.report.engine import Failure, NotebookError, execute, failure_in
from rbkit.report.sweep.channel import Channel, Message
from rbkit.report.sweep.jobfile import tail_of
from rbkit.report.sweep.memory import oom_kills
from rbkit.report.sweep.plain import plain
from rbkit.report.sweep.processes import adopt_orphans, kill_descendants, process_identity
from rbkit.report.sweep.short import last_lines, shorten

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
        "status": status, "error": plain(failure.headline) or None,
        "cell": None if failure.cell is None else plain(failure.cell),
        "tail": tail_of(failure.traceback),
        "oom": status == "killed" and None not in (before, after) and after != before,
    }  # fmt: skip


def _unexpected(error: BaseException) -> Failure:
    said = (str(error).strip().splitlines() or [""])[0]
    return Failure(
        None, shorten(f"{type(error).__name__}: {said}".rstrip(": ")),
        last_lines(traceback.format_exception(error)),
    )  # fmt: skip


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
