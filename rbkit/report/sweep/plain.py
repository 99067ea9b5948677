"""Text from elsewhere made harmless for a terminal: no colours, no control characters."""

from __future__ import annotations

import re
import unicodedata

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
