"""Text from elsewhere, as it is safe to show on a page: every sign is seen, and none acts.

Escaping (``<`` to ``&lt;``) is the template's; here goes what escaping leaves alone: signs
that turn the direction of what follows, controls, colours of a terminal, half characters.
"""

from __future__ import annotations

import io
import json
import os
import re
import sys
import unicodedata
from collections.abc import Iterable
from contextlib import suppress
from typing import Any


def thousands(value: Any) -> str:
    """Write a number with commas; a dash for what is not known."""
    return f"{value:,}" if isinstance(value, int | float) else "–"


def percent(value: float | None) -> str:
    """Write a percentage with two digits that say something.

    Examples
    --------
    >>> percent(0.04673), percent(12.345), percent(None)
    ('0.047 %', '12.35 %', '–')
    """
    if value is None:
        return "–"
    if value == 0:
        return "0 %"
    return f"{value:.2f} %" if value >= 0.1 else f"{value:.2g} %"


def seconds(value: float | None) -> str:
    """Write a time in the unit that fits it.

    Examples
    --------
    >>> seconds(0.0141), seconds(41.9), seconds(335)
    ('14.1 ms', '41.9 s', '5 min 35 s')
    """
    if value is None:
        return "–"
    if value >= 100:
        return f"{int(value // 60)} min {int(value % 60):02d} s"
    return f"{value:.1f} s" if value >= 1 else f"{value * 1000:.3g} ms"


def amount(value: float | None, unit: str = "") -> str:
    """Write a number with a metric prefix.

    Examples
    --------
    >>> amount(2.4e12), amount(4_000_000, "B")
    ('2.4 T', '4 MB')
    """
    if value is None:
        return "–"
    size = float(value)
    for prefix in ("", "k", "M", "G", "T", "P"):
        if abs(size) < 1000:
            return f"{size:.3g} {prefix}{unit}".rstrip()
        size /= 1000
    return f"{size:.3g} E{unit}"


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


HEADLINE = 500  # characters of an error
LINE = 2_000  # of a line of its traceback
LINES = 200  # of a traceback


def shorten(text: object, most: int = HEADLINE) -> str:
    """Return `text`, with an ellipsis for what is over `most` characters.

    Examples
    --------
    >>> shorten("loss is NaN"), shorten("x" * 1000, 5)
    ('loss is NaN', 'xxxx…')
    """
    text = str(text)
    return text if len(text) <= most else text[: most - 1] + "…"


def last_lines(parts: Iterable[object]) -> list[str]:
    r"""Return the last lines of a traceback that comes in parts, each cut to its length.

    Examples
    --------
    >>> last_lines(["a\nb", "c"])
    ['a', 'b', 'c']
    """
    lines = [line for part in parts for line in str(part).splitlines()][-LINES:]
    return [shorten(line, LINE) for line in lines]


# CSI (colours, cursor), OSC (titles, links) and two-character escape sequences of a terminal.
_TERMINAL = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b[@-Z\\-_]")
# Controls but tab and newline; marks that turn direction; invisible tags; halves of characters
# (which UTF-8 cannot hold); signs that are no characters.
_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064"
    "\u2066-\u206f\ufeff\ufff9-\ufffb\ufffe\uffff\U000e0000-\U000e007f\ud800-\udfff]"
)


def shown(text: str) -> str:
    r"""Return `text` without what cannot be seen; line ends are newlines.

    Examples
    --------
    >>> shown("\x1b[31mred\x1b[0m \u202etxt.exe\r\n"), shown("half \ud800")
    ('red txt.exe\n', 'half ')
    """
    text = _TERMINAL.sub("", text)
    text = re.sub("\r\n?|[\u2028\u2029\x0b\x0c\x85]", "\n", text)
    return _UNSEEN.sub("", text)


def clean(what: Any) -> Any:
    r"""Return JSON values with every text in them, names too, as :func:`shown` has it.

    Neither UTF-8, nor Parquet, nor matplotlib takes half a character.

    Examples
    --------
    >>> clean({"a\ud800": ["\x00b", 1.5]})
    {'a': ['b', 1.5]}
    """
    if isinstance(what, str):
        return shown(what)
    if isinstance(what, dict):
        return {shown(str(name)): clean(item) for name, item in what.items()}
    return [clean(item) for item in what] if isinstance(what, list | tuple) else what


def value(what: Any) -> str:
    """Write a parameter's value: a text as it is, everything else as JSON; long ones are cut.

    Examples
    --------
    >>> value("RnB"), value({"prior": "target"}), value([8, 12]), value(None), value("")
    ('RnB', 'prior: target', '8, 12', 'none', '(empty)')
    """
    if what is None:
        return "none"
    if isinstance(what, dict):
        said = ", ".join(f"{k}: {value(v)}" for k, v in what.items())
    elif isinstance(what, list | tuple):
        said = ", ".join(map(value, what))
    elif isinstance(what, float):
        said = f"{what:.6g}"
    else:
        said = what if isinstance(what, str) else json.dumps(what, default=str)
    said = " ".join(shown(said).split())
    return (said if len(said) <= 200 else said[:199] + "…") or "(empty)"


def script_json(what: Any) -> str:
    r"""Write JSON that is safe inside a ``script`` element: nothing in it can end one.

    Examples
    --------
    >>> script_json({"name": "</script>"})
    '{"name":"\\u003c/script\\u003e"}'
    """
    text = json.dumps(what, separators=(",", ":"), allow_nan=False)
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text
