"""Slow work beside a notebook that stays usable: one job after the other, with progress.

The kernel's main thread answers the widget; what takes seconds (UMAP, HDBSCAN) runs in a
thread of its own. A newer job of the same name replaces one that is waiting, and cancels the
one that runs: nobody wants the map of the last but one position of a slider.
"""

from __future__ import annotations

import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from typing import Any

from rbkit.errors import RbkitError

Report = Callable[[float, str], None]


class Cancelled(RbkitError):
    """Raised inside a job whose result is no longer wanted."""


class Jobs:
    """A queue of one thread.

    Parameters
    ----------
    on_status : callable
        Called with ``{"busy", "text", "fraction", "error"}`` whenever that changes.

    Examples
    --------
    >>> seen = []
    >>> jobs = Jobs(seen.append)
    >>> jobs.start("count", lambda report: report(0.5, "halfway"))
    >>> jobs.wait()
    >>> [s["text"] for s in seen]
    ['count', 'count: halfway', '']
    """

    def __init__(self, on_status: Callable[[dict[str, Any]], None]) -> None:
        self.on_status = on_status
        self._waiting: deque[tuple[str, Callable[[Report], Any]]] = deque()
        self._running = ""
        self._stop = threading.Event()
        self._idle = threading.Condition()
        self._thread: threading.Thread | None = None
        self._said = 0.0

    def start(self, name: str, work: Callable[[Report], Any]) -> None:
        """Queue `work`, which is called with a function ``report(fraction, text)``."""
        with self._idle:
            self._waiting = deque(job for job in self._waiting if job[0] != name)
            if self._running == name:
                self._stop.set()
            self._waiting.append((name, work))
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="rbkit-jobs", daemon=True)
                self._thread.start()

    def cancel(self) -> None:
        """Stop the running job at its next report, and forget the waiting ones."""
        with self._idle:
            self._waiting.clear()
            self._stop.set()

    def wait(self, seconds: float | None = None) -> None:
        """Block until nothing is left to do, or for so many seconds."""
        with self._idle:
            self._idle.wait_for(lambda: not self._waiting and not self._running, seconds)

    def _run(self) -> None:
        while True:
            with self._idle:
                if not self._waiting:
                    self._thread = None
                    return
                self._running, work = self._waiting.popleft()
                self._stop.clear()
            error = ""
            try:
                self._say(self._running, None)
                work(self._report)
            except Cancelled:
                error = ""
            except RbkitError as problem:
                error = str(problem)
            except Exception as problem:  # a thread has nobody above it to tell
                error = f"{self._running}: {type(problem).__name__}: {problem}"
                traceback.print_exc()
            finally:
                with self._idle:
                    last = not self._waiting
                    self._running = ""
                    if last:
                        self._thread = None
                    if last or error:
                        self._say("", None, error, busy=not last)
                    self._idle.notify_all()
            if last:
                return

    def _report(self, fraction: float, text: str = "") -> None:
        if self._stop.is_set():
            raise Cancelled(self._running)
        now = time.monotonic()
        if now - self._said > 0.1 or fraction >= 1 or fraction == 0.5:
            self._say(f"{self._running}: {text}" if text else self._running, fraction)

    def _say(
        self, text: str, fraction: float | None, error: str = "", busy: bool | None = None
    ) -> None:
        self._said = time.monotonic()
        shown = None if fraction is None else float(min(1.0, max(0.0, fraction)))
        self.on_status({"busy": bool(text) if busy is None else busy, "text": text,
                        "fraction": shown, "error": error})  # fmt: skip
