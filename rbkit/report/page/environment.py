"""The templates of pages: everything is escaped, and styles and scripts are known by hash."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Any

from rbkit import text
from rbkit.show.style import number
from rbkit.text import amount, percent, seconds, thousands

TEMPLATES = Path(__file__).parents[1] / "templates"


def environment() -> Any:
    """Return the jinja environment of all pages.

    Whatever a template writes is escaped, after :func:`rbkit.text.shown` has
    taken out what cannot be seen. Only what we made ourselves is marked ``safe``.
    """
    import jinja2

    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_seen,
    )
    made.filters |= {
        "number": number,
        "signed": signed,
        "percent": percent,
        "seconds": seconds,
        "amount": amount,
        "thousands": thousands,
        "value": text.value,
        "hash_of": hash_of,
        "data": lambda v: "" if v is None else v,
    }
    return made


def signed(value: float | None) -> str:
    """Write a number with its sign; a dash for what is not known.

    Examples
    --------
    >>> signed(0.0312), signed(-0.5), signed(None)
    ('+0.031', '−0.500', '–')
    """
    return "–" if value is None else ("+" if value > 0 else "") + number(value)


def asset(*names: str) -> str:
    """Return the files `names` of the templates, one after the other."""
    return "\n".join((TEMPLATES / name).read_text(encoding="utf-8").strip() for name in names)


def hash_of(content: str) -> str:
    """Return the source expression by which a page's policy allows this style or script.

    Examples
    --------
    >>> hash_of("")
    'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU='
    """
    digest = hashlib.sha256(content.encode()).digest()
    return "sha256-" + base64.b64encode(digest).decode("ascii")


def _seen(what: Any) -> Any:
    return text.shown(what) if isinstance(what, str) and not hasattr(what, "__html__") else what
