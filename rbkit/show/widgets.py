"""What goes to the browser: one module made of a few plain scripts, and arrays as bytes.

There is no build step and no network: each script uses only what the scripts before it define.
All of them are in ``static/`` here, and every rule of the style sheets is scoped under ``.rbx``,
so that two widgets on a page, or a page of someone else's, do not disturb each other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.resources import files
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from rbkit.show.style import Mode, bundle


def output(
    mode: Mode,
    widget: Any,
    text: str,
    freeze: Callable[[], Any],
    include: Mapping[str, Any],
    dpi: int = 200,
) -> Any:
    """MIME bundle for a cell: the widget if live, `text` if off, else the figure of `freeze`.

    `include` is what IPython passed to ``_repr_mimebundle_``.

    Examples
    --------
    >>> output("off", None, "Scrubber of RnB", lambda: None, {})
    {'text/plain': 'Scrubber of RnB'}
    """
    if mode == "live":
        data, metadata = widget._repr_mimebundle_(**include)
        return data | {"text/plain": text}, metadata
    return {"text/plain": text} if mode == "off" else bundle(freeze(), dpi=dpi)


def joined(kind: Literal["js", "css"], *names: str) -> str:
    """Text of ``static/shared.{kind}`` and of ``static/{name}.{kind}`` for each name, in order.

    Examples
    --------
    >>> "class Conversation" in joined("js")
    True
    """
    static = files("rbkit.show") / "static"
    parts = [static / f"{name}.{kind}" for name in ("shared", *names)]
    return "\n".join(part.read_text(encoding="utf-8") for part in parts)


def packed(values: ArrayLike, kind: Literal["f2", "f4", "u1", "u2", "u4"]) -> bytes:
    r"""Little-endian bytes of an array, as binary traits want them.

    Examples
    --------
    >>> packed([1, 258], "u2")
    b'\x01\x00\x02\x01'
    """
    return np.asarray(values).astype(f"<{kind}").tobytes()
