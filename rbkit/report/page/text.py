"""Text from elsewhere, as it is safe to show on a page: every sign is seen, and none acts.

Escaping (``<`` to ``&lt;``) is the template's; here goes what escaping leaves alone: signs
that turn the direction of what follows, controls, colours of a terminal, half characters.
"""

from __future__ import annotations

import json
import re
from typing import Any

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
