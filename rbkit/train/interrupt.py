"""Ctrl-C as a request: the step in progress is finished and saved, then the run ends."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType


class StopRequest:
    """Whether someone asked the run to stop: Ctrl-C, the ■ of a notebook, or a STOP file."""

    def __init__(self, run_dir: Path) -> None:
        self._file = run_dir / "STOP"
        self._asked = False

    def __bool__(self) -> bool:
        return self._asked or self._file.exists()

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take the first Ctrl-C of the block as a request; a second one stops at once."""
        self._file.unlink(missing_ok=True)
        if threading.current_thread() is not threading.main_thread():
            yield  # only the main thread may set signal handlers; the STOP file still works
            return

        def on_signal(_number: int, _frame: FrameType | None) -> None:
            if self._asked:
                raise KeyboardInterrupt
            self._asked = True

        before = signal.signal(signal.SIGINT, on_signal)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)
            self._file.unlink(missing_ok=True)
