"""Text for people: numbers as words, and text from elsewhere made safe to show.

A run folder, a corpus or a notebook may come from a stranger. Escaping ``<`` is the page's own
work; what escaping leaves alone goes here, in one place for terminal, page, figure and notebook:
colours and commands of a terminal, control characters, marks that turn the direction of what
follows, and halves of characters, which no file can hold.
"""

from __future__ import annotations

import difflib
import functools
import io
import json
import math
import os
import re
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any

UNKNOWN = "–"
HEADLINE = 500  # characters of an error
LINE = 2_000  # characters of a line of its traceback
LINES = 200  # lines of a traceback

# CSI (colours, cursor), OSC (titles, links) and two-character escape sequences of a terminal.
_ESCAPES = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b[@-Z\\-_]")
_LINE_ENDS = re.compile("\r\n?|[\u2028\u2029\x0b\x0c\x85]")
# Controls except tab and newline; direction marks; invisible characters and tags; surrogates;
# noncharacters. Joiners (U+200C, U+200D) stay: emoji and Persian need them.
_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064"
    "\u2066-\u206f\ufeff\ufff9-\ufffb\ufffe\uffff\U000e0000-\U000e007f\ud800-\udfff]"
)


def number(value: float | None, digits: int = 3) -> str:
    """Write a number with a true minus sign; a dash if it is unknown or not finite.

    Examples
    --------
    >>> number(-0.31234), number(None)
    ('−0.312', '–')
    """
    if value is None or not math.isfinite(value):
        return UNKNOWN
    return f"{value:.{digits}f}".replace("-", "−")


def signed(value: float | None) -> str:
    """Write a number with its sign.

    Examples
    --------
    >>> signed(0.0312), signed(-0.5), signed(None)
    ('+0.031', '−0.500', '–')
    """
    return ("+" if value is not None and value > 0 else "") + number(value)


def thousands(value: Any) -> str:
    """Write a number with commas between thousands; a dash if it is unknown."""
    return f"{value:,}" if isinstance(value, int | float) else UNKNOWN


def percent(value: float | None) -> str:
    """Write a percentage, given in percent.

    Examples
    --------
    >>> percent(0.04673), percent(0.4), percent(12.345), percent(800.0), percent(None)
    ('0.047 %', '0.40 %', '12.3 %', '800 %', '–')
    """
    if value is None or not math.isfinite(value):
        return UNKNOWN
    if value == 0:
        return "0 %"
    if abs(value) < 0.1:
        return f"{value:.2g} %"
    digits = 2 if abs(value) < 1 else 1 if abs(value) < 99.95 else 0
    return f"{value:.{digits}f} %"


def seconds(value: float | None) -> str:
    """Write a measured time in the unit that fits it.

    Examples
    --------
    >>> seconds(0.0141), seconds(41.9), seconds(335)
    ('14.1 ms', '41.9 s', '5 min 35 s')
    """
    if value is None:
        return UNKNOWN
    if value >= 100:
        return f"{int(value // 60)} min {int(value % 60):02d} s"
    return f"{value:.1f} s" if value >= 1 else f"{value * 1000:.3g} ms"


def duration(value: float | None) -> str:
    """Write how long something has taken, or will take, in whole seconds, minutes, hours, days.

    Examples
    --------
    >>> duration(4.2), duration(335), duration(11_100), duration(200_000), duration(None)
    ('4 s', '5 min 35 s', '3 h 05 min', '2 d 7 h', '–')
    """
    if value is None:
        return UNKNOWN
    minutes, rest = divmod(round(value), 60)
    hours, minutes_left = divmod(minutes, 60)
    if hours >= 48:
        return f"{hours // 24} d {hours % 24} h"
    if hours:
        return f"{hours} h {minutes_left:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def amount(value: float | None, unit: str = "") -> str:
    """Write a number with a metric prefix.

    Examples
    --------
    >>> amount(2.4e12), amount(4_000_000, "B")
    ('2.4 T', '4 MB')
    """
    if value is None:
        return UNKNOWN
    size = float(value)
    for prefix in ("", "k", "M", "G", "T", "P"):
        if abs(size) < 1000:
            return f"{size:.3g} {prefix}{unit}".rstrip()
        size /= 1000
    return f"{size:.3g} E{unit}"


def value_text(value: Any) -> str:
    """Write the value of a parameter: text as it is, everything else as JSON; cut if long.

    Examples
    --------
    >>> value_text("RnB"), value_text({"prior": "target"}), value_text([8, 12]), value_text(None)
    ('RnB', 'prior: target', '8, 12', 'none')
    """
    if value is None:
        return "none"
    if isinstance(value, dict):
        text = ", ".join(f"{k}: {value_text(v)}" for k, v in value.items())
    elif isinstance(value, list | tuple):
        text = ", ".join(map(value_text, value))
    elif isinstance(value, float):
        text = f"{value:.6g}"
    else:
        text = value if isinstance(value, str) else json.dumps(value, default=str)
    return truncate(" ".join(visible(text).split()), 200) or "(empty)"


def visible(text: str) -> str:
    r"""Return `text` without what cannot be seen; every line end is a newline.

    Examples
    --------
    >>> visible("\x1b[31mred\x1b[0m \u202etxt.exe\r\n"), visible("half \ud800")
    ('red txt.exe\n', 'half ')
    """
    return _UNSEEN.sub("", _LINE_ENDS.sub("\n", _ESCAPES.sub("", text)))


def listed(names: Sequence[str], most: int = 30) -> str:
    """Write names for an error, the first of them if there are many.

    Examples
    --------
    >>> listed(["a", "b", "c"]), listed(["a", "b", "c"], most=1)
    ("'a', 'b', 'c'", "'a' and 2 more")
    """
    shown = ", ".join(map(repr, names[:most]))
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def nearest(name: Any, known: Iterable[str], cutoff: float = 0.6) -> str | None:
    """Return the known name that was meant, if one is close; case does not count.

    Examples
    --------
    >>> nearest("setps", ["seed", "steps"]), nearest("Code", ["wiki", "code"]), nearest("x", ["y"])
    ('steps', 'code', None)
    """
    folded: dict[str, str] = {}
    for each in known:
        folded.setdefault(each.casefold(), each)
    close = difflib.get_close_matches(str(name).casefold(), folded, 1, cutoff)
    return folded[close[0]] if close else None


def one_line(text: str) -> str:
    r"""Return `text` as :func:`visible` does, on one line: what a terminal may be sent.

    Examples
    --------
    >>> one_line("\x1b[31mred\x1b[0m alarm\a\n")
    'red alarm '
    """
    return visible(text).replace("\n", " ").replace("\t", "    ")


def clean(value: Any) -> Any:
    r"""Return JSON values with every text in them, keys included, made :func:`visible`.

    Neither UTF-8, Parquet nor matplotlib takes half a character.

    Examples
    --------
    >>> clean({"a\ud800": ["\x00b", 1.5]})
    {'a': ['b', 1.5]}
    """
    if isinstance(value, str):
        return visible(value)
    if isinstance(value, dict):
        return {visible(str(name)): clean(item) for name, item in value.items()}
    return [clean(item) for item in value] if isinstance(value, list | tuple) else value


def script_json(value: Any) -> str:
    r"""Write JSON that is safe inside a ``script`` element: nothing in it can end one.

    Examples
    --------
    >>> script_json({"name": "</script>"})
    '{"name":"\\u003c/script\\u003e"}'
    """
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text


def truncate(text: object, most: int = HEADLINE) -> str:
    """Return `text`, with an ellipsis for what is over `most` characters.

    Examples
    --------
    >>> truncate("loss is NaN"), truncate("x" * 1000, 5)
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
    return [truncate(line, LINE) for line in lines]


def need_streams() -> None:
    """Give this process streams that go nowhere where it was started without.

    Progress bars and child processes fail without streams, and the next file that is opened
    would get the number of stderr, and with it whatever libraries write there.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            nowhere = os.open(os.devnull, os.O_RDWR)  # the lowest free number: this one
            os.set_inheritable(nowhere, True)
    for name, number in (("stdout", 1), ("stderr", 2)):
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "w", encoding="utf-8", closefd=False))  # noqa: SIM115


def say(text: str) -> None:
    """Print one safe line on stderr; if nobody reads it any more, it is lost.

    A pipe whose reader has gone must cost a sweep neither its report nor its exit code. Later
    output goes nowhere, so that nothing waits to be written when Python ends.
    """
    need_streams()  # without a stderr, print would take stdout
    try:
        print(one_line(text), file=sys.stderr, flush=True)
    except (OSError, ValueError):  # the reader has gone; the file is closed
        with suppress(OSError, ValueError, io.UnsupportedOperation):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, sys.stderr.fileno())
            os.close(nowhere)


def progress_bar(*args: Any, **how: Any) -> Any:
    """Return a bar of tqdm: a widget in a notebook that someone looks at, else text on stderr.

    A notebook that is run unattended (``$RBKIT_DISPLAY``) has text: the tools that run it read
    how far it is. When a widget ends, its last line stands in its place, so that a saved notebook
    never shows half a widget.

    Examples
    --------
    >>> list(progress_bar([1, 2], disable=True))
    [1, 2]
    """
    if not how.get("disable") and os.environ.get("RBKIT_DISPLAY", "") in ("", "live"):
        # Only a process that has IPython already can be a kernel.
        shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
        if getattr(shell, "kernel", None) is not None:
            return _widget_bar()(*args, **how)
    from tqdm import tqdm

    return tqdm(*args, **how)


@functools.cache
def _widget_bar() -> Any:
    from IPython.display import DisplayHandle
    from tqdm.notebook import tqdm_notebook

    class Bar(tqdm_notebook):  # type: ignore[misc]
        """A widget that gives way to its last line."""

        _handle: Any = None

        def __init__(self, *args: Any, **how: Any) -> None:
            super().__init__(*args, **how, display=False)
            if not self.disable and self.delay <= 0:
                self.display()

        def display(self, *args: Any, check_delay: bool = True, **how: Any) -> None:
            super().display(*args, **how, check_delay=False)
            if check_delay and self._handle is None:
                self._handle = DisplayHandle()  # type: ignore[no-untyped-call]
                self._handle.display(self.container)

        def close(self) -> None:
            if self.disable:
                return
            super().close()
            if self._handle is not None:
                line = self.format_meter(**self.format_dict) if self.leave else ""
                self._handle.update({"text/plain": line}, raw=True)
                self.container.close()

    return Bar
