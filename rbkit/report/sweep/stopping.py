"""Ctrl-C and SIGTERM as a request that the launcher can act on in order."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Stopping:
    """How often the launcher was asked to stop.

    Examples
    --------
    >>> stopping = Stopping()
    >>> with stopping.listening():
    ...     signal.raise_signal(signal.SIGINT)
    >>> stopping.asked
    1
    """

    def __init__(self) -> None:
        self.asked = 0

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Count signals in the block; outside of the main thread none arrive."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def on_signal(_number: int, _frame: FrameType | None) -> None:
            self.asked += 1

        before = {
            number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)
        }
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
