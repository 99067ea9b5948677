"""The widget of the explorer: traits and messages; the interface itself is JavaScript.

No build step and no network: the files in ``show/static/`` are joined to one module
(:mod:`rbkit.show.widgets`). Large traits travel as bytes (``float32``, ``uint16``, ``uint32``,
little endian), so that a new cut of 200,000 examples is a message of 400 kB.
"""

from __future__ import annotations

from typing import Any

import anywidget
import numpy as np
import traitlets
from numpy.typing import NDArray

from rbkit.show.widgets import joined


class ExplorerWidget(anywidget.AnyWidget):
    """Map, cards, selection, crosstab and log of a corpus that is being cut into domains.

    It computes nothing. The user's actions arrive with ``on_msg`` as a dict with a ``type``
    (``"op"``, ``"preview"``, ``"read"``, ...) or as a change of ``selection`` or
    ``selected_domains``; the answer is a change of traits, or a message with the question's
    ``token``. Change ``labels`` and ``domains`` together within ``hold_sync()``.

    The binary traits are ``Any``: the browser sends memoryviews, which ``traitlets.Bytes``
    rejects without an error.
    """

    _esm = joined("js", "map", "explorer")
    _css = joined("css", "explorer")

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
        return np.frombuffer(bytes(self.selection or b""), dtype="<u4").astype(np.int64)
