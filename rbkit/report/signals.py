"""Names of signals, and how a notebook heeds one."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

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
