"""The session's state on its way to the widget: which traits change with what."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rbkit.data.corpus import about
from rbkit.show.explorer.guide import Guide
from rbkit.show.explorer.session import Session
from rbkit.show.explorer.widget import ExplorerWidget, packed


class View:
    """Set the traits of a widget from a session; safe to call from two threads.

    Parameters
    ----------
    session : Session
    widget : ExplorerWidget
    """

    def __init__(self, session: Session, widget: ExplorerWidget) -> None:
        self.session, self.widget = session, widget
        self.guide = Guide(session)
        self._lock = threading.RLock()

    def everything(self) -> None:
        """Set all traits: at the start."""
        session = self.session
        with self._lock, self.widget.hold_sync():
            self.widget.xy = packed(session.xy, "f4")
            self.widget.n_train = len(session.shown)
            self.widget.source_ids = packed(session.source_ids(), "u2")
            self.widget.sources = session.sources()
            self.widget.images = session.editor.material.has_images
            self.widget.title = str(about(session.editor.material.corpus)["name"])
        self.changed()

    def changed(self, light: bool = False) -> None:
        """Send changed domains; `light` while a slider moves: no texts, no crosstab."""
        session = self.session
        with self._lock, self.widget.hold_sync():
            self.widget.labels = packed(session.labels(), "u2")
            self.widget.domains = session.domains()
            if not light:
                self.widget.crosstab = session.crosstab()
                self.widget.history = session.history()
                self.widget.controls = self.guide.controls()
                self.widget.notices = self.guide.notices()
                self._set_colours()

    def places(self) -> None:
        """Send a map that was laid out anew."""
        with self._lock, self.widget.hold_sync():
            self.widget.xy = packed(self.session.xy, "f4")
            self.widget.domains = self.session.domains()
            self.widget.controls = self.guide.controls()

    def controls(self) -> None:
        """Send sliders, recommendations and notices."""
        with self._lock, self.widget.hold_sync():
            self.widget.controls = self.guide.controls()
            self.widget.notices = self.guide.notices()

    def colours(self) -> None:
        """Send what colours the map."""
        with self._lock, self.widget.hold_sync():
            self._set_colours()

    def select(self, points: NDArray[np.int64]) -> None:
        """Select points of the map."""
        with self._lock:
            self.widget.selection = packed(points, "u4")

    def status(self, status: dict[str, Any]) -> None:
        """Show what goes on in the background."""
        with self._lock:
            self.widget.status = {key: status[key] for key in ("busy", "text", "fraction")}
            if status["error"]:
                self.widget.send({"type": "error", "text": status["error"]})

    def freeze(self, ax: Any = None) -> Any:
        """Draw the map as it is coloured now; return the axes."""
        from rbkit.show.map_figure import domain_map

        session = self.session
        n, mode = len(session.shown), session.colouring.mode
        names = [card.name for card in session.editor.cards()]
        labels: NDArray[np.integer[Any]] = session.now.labels[session.shown]
        if mode in ("domain", "source"):
            entries = session.domains() if mode == "domain" else session.sources()
            if mode == "source":
                names = session.editor.material.source_ids[0]
                labels = session.editor.material.source_ids[1][session.shown]
            colours = [entry["colour"] for entry in entries]
            return domain_map(session.xy[:n], labels, names, ax, colours=colours)
        values, info = session.colouring.raw()
        centre = 0.0 if mode == "gram" else None
        return domain_map(
            session.xy[:n], labels, names, ax, values=values[:n], value_label=info["title"],
            centre=centre,
        )  # fmt: skip

    def _set_colours(self) -> None:
        values, info = self.session.colouring.values()
        self.widget.values = packed(values, "u1")
        self.widget.colour = info
