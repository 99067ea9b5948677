"""Text from elsewhere made harmless for a terminal: no colours, no control characters."""

from __future__ import annotations

import io
import os
import re
import sys
import unicodedata
from contextlib import suppress

# CSI sequences (colours, cursor), OSC sequences (titles, links), and two-character escapes.
_ESCAPES = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b[@-Z\\-_]")


def plain(text: str) -> str:
    r"""Return `text` as one line without escape sequences, control or direction characters.

    Examples
    --------
    >>> plain("\x1b[31mred\x1b[0m alarm\a")
    'red alarm'
    """
    text = _ESCAPES.sub("", text).replace("\t", "    ")
    # Cc: control; Cf: invisible, among them those that turn the direction of the text;
    # Cs: half a character, which no terminal can encode.
    return "".join(
        " " if c in "\r\n\v\f\x85\u2028\u2029" else c
        for c in text
        if c in "\r\n\v\f\x85\u2028\u2029" or unicodedata.category(c) not in ("Cc", "Cf", "Cs")
    )


def need_streams() -> None:
    """Give this process streams that go nowhere where it was started without.

    Progress bars and the processes of runs fail without; and the next file that is opened would
    get the number of stderr, and with it whatever libraries write there.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            nowhere = os.open(os.devnull, os.O_RDWR)  # the lowest number that is free: this one
            os.set_inheritable(nowhere, True)
    for name, number in (("stdout", 1), ("stderr", 2)):
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "w", encoding="utf-8", closefd=False))  # noqa: SIM115


def say(text: str) -> None:
    """Print a line on stderr, made plain; nobody may be there to read it, and then it is lost.

    A pipe whose reader has gone must cost a sweep neither its report nor its exit code. What
    comes later goes nowhere, so that nothing waits to be written when Python ends.
    """
    need_streams()  # without one, print would take stdout
    try:
        print(plain(text), file=sys.stderr, flush=True)
    except (OSError, ValueError):  # the reader has gone; the file is closed
        with suppress(OSError, ValueError, io.UnsupportedOperation):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, sys.stderr.fileno())
            os.close(nowhere)
