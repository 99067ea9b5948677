"""Names of signals, and the time a notebook gets to heed one."""

from __future__ import annotations

import signal

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
