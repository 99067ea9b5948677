"""How to show things: told by an argument or by ``$RBKIT_DISPLAY``, never guessed.

``live``
    while it happens, and with widgets.
``batch``
    for a notebook that nobody watches: a picture now and then, no widgets.
``final``
    one figure at the end.
``off``
    nothing.

A kernel cannot know whether anybody looks at it, so whoever runs notebooks in batches sets
the variable (``rbkit run`` and ``rbkit sweep`` do).
"""

from __future__ import annotations

import os
import sys
from typing import Literal, cast, get_args

from rbkit.errors import InputError

Mode = Literal["live", "batch", "final", "off"]
_MODES: tuple[str, ...] = get_args(Mode)


def display_mode(given: str | bool | None = None) -> Mode:
    """Return the mode: as given, else ``$RBKIT_DISPLAY``, else ``live`` in an IPython kernel.

    Parameters
    ----------
    given : {"live", "batch", "final", "off"} or bool, optional
        False is ``off``; True and None leave it to the variable, and without one to the
        default, which outside of a kernel is ``final``.

    Examples
    --------
    >>> display_mode("batch"), display_mode(False)
    ('batch', 'off')
    >>> display_mode("hologram")
    Traceback (most recent call last):
        ...
    rbkit.errors.InputError: display: 'hologram' is unknown; use live, batch, final, off
    """
    if given is False:
        return "off"
    where, mode = "display", given
    if given is None or given is True:
        where, mode = "RBKIT_DISPLAY", os.environ.get("RBKIT_DISPLAY")
    if not mode:
        return "live" if in_kernel() else "final"
    if mode not in _MODES:
        raise InputError(where, f"{mode!r} is unknown", f"use {', '.join(_MODES)}")
    return cast(Mode, mode)


def in_kernel() -> bool:
    """Whether this process is an IPython kernel, which can show pictures at all."""
    if "IPython" not in sys.modules:  # then nobody can have started one
        return False
    from IPython.core.getipython import get_ipython

    return getattr(get_ipython(), "kernel", None) is not None
