"""The widget of the explorer: traits and messages; the interface itself is JavaScript.

No build step and no network: the small files in ``static/`` are put together into one
module (:mod:`rbkit.show.widgets`). Large traits travel as bytes (``float32``, ``uint16``,
``uint32``, little endian), so that a new cut of 200,000 examples is a message of 400 kB.
"""

from __future__ import annotations

from typing import Any, Literal

import anywidget
import numpy as np
import traitlets
from numpy.typing import ArrayLike, NDArray

from rbkit.show import widgets

#: Value of ``labels`` for an example in no domain (dropped, or noise).
NO_DOMAIN = 65_535

_SCRIPTS = (
    "store",
    "geometry",
    "points",
    "names",
    "examples",
    "tooltip",
    "map",
    "gestures",
    "popover",
    "cut",
    "toolbar",
    "legend",
    "status",
    "card",
    "domains",
    "selection",
    "crosstab",
    "app",
)
_STYLES = ("explorer", "panels")


def script() -> str:
    """Return the whole interface as one ES module, which exports ``{render}``.

    Examples
    --------
    >>> "export default" in script() and "import " not in script().split("export default")[1]
    True
    """
    return widgets.joined("js", *(f"../explorer/static/{name}" for name in _SCRIPTS))


def style() -> str:
    """Return the style sheet; every rule is scoped under ``.rbx``."""
    return widgets.joined("css", *(f"../explorer/static/{name}" for name in _STYLES))


def packed(values: ArrayLike, kind: Literal["f4", "u1", "u2", "u4"]) -> bytes:
    r"""Little-endian bytes of an array, as the widget's binary traits want them.

    Parameters
    ----------
    values : array_like
        Labels may be negative: -1 (in no domain) becomes ``NO_DOMAIN``.
    kind : {"f4", "u1", "u2", "u4"}

    Examples
    --------
    >>> packed([0, 3, -1], "u2")
    b'\x00\x00\x03\x00\xff\xff'
    """
    array = np.asarray(values)
    if kind == "u2" and array.dtype.kind == "i":
        array = np.where(array < 0, NO_DOMAIN, array)
    return widgets.packed(array, kind)


def rows_of(selection: Any) -> NDArray[np.int64]:
    """Rows in the bytes of a selection, whichever side wrote them.

    Examples
    --------
    >>> rows_of(memoryview(packed([2, 70_000], "u4"))).tolist()
    [2, 70000]
    """
    return np.frombuffer(bytes(selection or b""), dtype="<u4").astype(np.int64)


class ExplorerWidget(anywidget.AnyWidget):
    """Map, cards, selection, crosstab and log of a corpus that is being cut into domains.

    It computes nothing. What the user does arrives with ``on_msg`` as a dict with a ``type``
    (``"op"``, ``"preview"``, ``"read"``, ...) or as a change of ``selection`` or
    ``selected_domains``; the answer is a change of traits, or a message with the question's
    ``token``. Change ``labels`` and ``domains`` together within ``hold_sync()``.

    The binary traits are ``Any``: what comes from the browser is a memoryview, which
    ``traitlets.Bytes`` turns away without a word.
    """

    _esm = script()
    _css = style()

    xy = traitlets.Any(b"").tag(sync=True)
    n_train = traitlets.Int(0).tag(sync=True)
    labels = traitlets.Any(b"").tag(sync=True)
    values = traitlets.Any(b"").tag(sync=True)
    source_ids = traitlets.Any(b"").tag(sync=True)
    domains: Any = traitlets.List().tag(sync=True)
    sources: Any = traitlets.List().tag(sync=True)
    crosstab = traitlets.Dict().tag(sync=True)
    colour = traitlets.Dict().tag(sync=True)
    controls = traitlets.Dict().tag(sync=True)
    history = traitlets.Dict().tag(sync=True)
    status = traitlets.Dict().tag(sync=True)
    notices: Any = traitlets.List().tag(sync=True)
    # No echo: the browser that made the selection knows it already.
    selection = traitlets.Any(b"").tag(sync=True, echo_update=False)
    selected_domains: Any = traitlets.List().tag(sync=True)
    title = traitlets.Unicode("").tag(sync=True)
    images = traitlets.Bool(False).tag(sync=True)

    @property
    def selected_rows(self) -> NDArray[np.int64]:
        """Rows of the selection, train examples first; int64 of shape (n_selected,)."""
        return rows_of(self.selection)
