"""Text in CSV files that no spreadsheet takes for a formula.

Spreadsheets run a cell that begins with ``=``, ``+``, ``-`` or ``@``, and names of domains
come from a corpus. Such text gets an apostrophe in front, which spreadsheets take for "this
is text"; text that already looks escaped gets one more, so that nothing is lost.
"""

from __future__ import annotations

import re

# Also their full-width twins, which some spreadsheets take for the same, and white space in
# front, which some of them strip.
_RISKY = re.compile(r"'*(?:\s*[=+\-@\uff1d\uff0b\uff0d\uff20]|[\t\r\n])")


def cell(text: str) -> str:
    """Return `text` as it may stand in a CSV file.

    Examples
    --------
    >>> cell("=HYPERLINK(...)"), cell("recipes = food")
    ("'=HYPERLINK(...)", 'recipes = food')
    """
    whole = text.encode("utf-8", "replace").decode("utf-8")  # a lone surrogate is no text
    return f"'{whole}" if _RISKY.match(whole) else whole


def from_cell(text: str) -> str:
    """Return the text that :func:`cell` was given.

    Examples
    --------
    >>> from_cell(cell("'-5 °C"))
    "'-5 °C"
    """
    return text[1:] if text.startswith("'") and _RISKY.match(text) else text
