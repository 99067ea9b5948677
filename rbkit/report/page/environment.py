"""The templates of pages: everything is escaped, and styles and scripts are known by hash."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Any

from rbkit import text
from rbkit.text import amount, number, percent, seconds, signed, thousands

TEMPLATES = Path(__file__).parents[1] / "templates"


def environment() -> Any:
    """Return the jinja environment of all pages.

    Whatever a template writes is escaped, after :func:`rbkit.text.visible` has
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
        "value": text.value_text,
        "hash_of": hash_of,
        "data": lambda v: "" if v is None else v,
    }
    return made


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
    return text.visible(what) if isinstance(what, str) and not hasattr(what, "__html__") else what
