"""What goes to the browser: one module put together from small files, and arrays as bytes.

No build step and no network: each file uses only what came before it, in an order that the
widget names. Files in ``static/`` here serve all widgets; every rule of theirs is scoped under
``.rbx``, so that two widgets on a page, or a page of somebody else, do not disturb each other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from rbkit.show.style import Mode


def output(
    mode: Mode,
    widget: Any,
    said: str,
    freeze: Callable[[], Any],
    include: Mapping[str, Any],
    dpi: int = 200,
) -> Any:
    """MIME bundle for a cell: the widget if live, words if off, else its static twin.

    Parameters
    ----------
    mode : {"live", "batch", "final", "off"}
    widget : anywidget.AnyWidget
    said : str
        What stands for it in words.
    freeze : callable
        Makes the figure; called only where it is shown.
    include : mapping
        What IPython gave to ``_repr_mimebundle_``.
    dpi : int

    Examples
    --------
    >>> output("off", None, "Scrubber of RnB", lambda: None, {})
    {'text/plain': 'Scrubber of RnB'}
    """
    if mode == "live":
        made: Any = widget._repr_mimebundle_(**include)
        return made[0] | {"text/plain": said}, made[1]
    if mode == "off":
        return {"text/plain": said}
    from rbkit.show.style import bundle

    return bundle(freeze(), dpi=dpi)


#: Scripts of this package that every widget begins with, in their order.
SHARED = ("base", "colours", "frame", "conversation")


def joined(package: str, names: Sequence[str], kind: str) -> str:
    """Text of the files ``static/{name}.{kind}`` of `package`, after those shared by all.

    Parameters
    ----------
    package : str
    names : sequence of str
    kind : {"js", "css"}

    Examples
    --------
    >>> "class Conversation" in joined("rbkit.show.widgets", [], "js")
    True
    """
    shared = SHARED if kind == "js" else ("base",)
    parts = [files("rbkit.show") / "static" / f"{name}.{kind}" for name in shared]
    parts += [files(package) / "static" / f"{name}.{kind}" for name in names]
    return "\n".join(part.read_text(encoding="utf-8") for part in parts)


def packed(values: ArrayLike, kind: str) -> bytes:
    r"""Little-endian bytes of an array, as binary traits want them.

    Parameters
    ----------
    values : array_like
    kind : {"f2", "f4", "u1", "u2", "u4"}

    Examples
    --------
    >>> packed([1, 258], "u2")
    b'\x01\x00\x02\x01'
    """
    return np.asarray(values).astype(f"<{kind}").tobytes()
