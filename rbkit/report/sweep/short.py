"""Text from elsewhere kept to a length that a table, a log and ``job.json`` can bear."""

from __future__ import annotations

from collections.abc import Iterable

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
