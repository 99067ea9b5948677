"""The widget of the scrubber: traits and messages; the interface itself is JavaScript."""

from __future__ import annotations

from typing import Any

import anywidget
import traitlets

from rbkit.show.widgets import wire

_SCRIPTS = ("store", "recorded", "plot", "gram", "mixture", "losses", "strip",
            "table", "player", "replay", "app")  # fmt: skip


def script() -> str:
    """Return the whole interface as one ES module, which exports ``{render}``."""
    return wire.joined("rbkit.show.scrub", _SCRIPTS, "js")


def style() -> str:
    """Return the style sheet; every rule is scoped under ``.rbx``."""
    return wire.joined("rbkit.show.scrub", ("scrub",), "css")


class ScrubberWidget(anywidget.AnyWidget):
    """Gram matrix, proportions, losses and numbers of a round, linked by one slider.

    It computes nothing. Messages are dicts with a ``type``: ``"menu"`` (which mixers there
    are), ``"replay"`` (``mixer``, ``fields``), ``"forget"`` and ``"gram"`` (``run``,
    ``round``), with a ``token`` that the answer repeats.
    """

    _esm = script()
    _css = style()

    title = traitlets.Unicode("").tag(sync=True)
    domains: Any = traitlets.List().tag(sync=True)
    runs: Any = traitlets.List().tag(sync=True)
    stops: Any = traitlets.List().tag(sync=True)
    scale = traitlets.Dict().tag(sync=True)
    menu: Any = traitlets.List().tag(sync=True)
    notices: Any = traitlets.List().tag(sync=True)
    replay = traitlets.Dict().tag(sync=True)
    at = traitlets.Int(0).tag(sync=True)
    kind = traitlets.Enum(["cosine", "raw"], "cosine").tag(sync=True)
    selected = traitlets.Int(-1).tag(sync=True)
