"""The panel of a training cell: Gram matrix, proportions, losses and price while training."""

from __future__ import annotations

import base64
from pathlib import Path

from rbkit.files import atomic_path
from rbkit.show.live.scale import Kind
from rbkit.show.live.screen import CellOutput, Screen
from rbkit.show.live.view import Output, View, stop_hint
from rbkit.show.modes import display_mode, in_kernel
from rbkit.train.watch import Throttle

# A frame that took r seconds is followed by 125 r without one: under 1 % of the time,
# whatever machine and model, with some room for what a look costs beside the drawing.
_SHARE = 0.008
_LEAST = {"live": 0.5, "batch": 25.0}  # seconds between two frames


class LivePanel:
    """A watcher that shows the run of the training cell, and ends in one static figure.

    Parameters
    ----------
    mode : {"live", "batch", "final", "off"}, optional
        Frames as often as they may be, one about every 25 s, only the figure at the end, or
        nothing: see :mod:`rbkit.show.modes`.
    kind : {"cosine", "raw"}
        Cosines of domain gradients, or their inner products as the mixer sees them.
    screen : Screen, optional
        Where to show frames; the output of the running cell by default. Outside of a
        kernel there is none: then the figure is only saved.

    Notes
    -----
    The figure is also saved, as ``figures/live.png`` in the run folder.

    Looking is paid for by :class:`~rbkit.train.watch.Throttle`: less than 1 % of the time
    goes to frames by construction, however slow the machine. What it took is shown.
    """

    def __init__(
        self, mode: str | None = None, *, kind: Kind = "cosine", screen: Screen | None = None
    ) -> None:
        self.mode, self.kind = display_mode(mode), kind
        self._screen = screen
        self._shown: Screen | None = None
        self._view: View | None = None
        if self.shows_progress:
            import seaborn  # noqa: F401  (a second of imports belongs before the training)

    @property
    def shows_progress(self) -> bool:
        """Whether there are frames, so that a progress bar would be one too many."""
        return self.mode in _LEAST and (self._screen is not None or in_kernel())

    def begin(self, path: Path) -> None:
        """Show the first frame."""
        self._view = View(path, self.kind)
        self._shown = self._screen or (CellOutput() if in_kernel() else None)
        self._hint = stop_hint(path) + (", or the ■ button above." if in_kernel() else ".")
        if self.shows_progress:
            self._throttle = Throttle(_SHARE, _LEAST[self.mode])
            with self._throttle.looking():
                self._view.run.look()
                self._show(self._view.frame(self._hint))

    def look(self) -> None:
        """Show a frame, if it is time and there is something new."""
        if not self.shows_progress or self._view is None or not self._throttle.due():
            return
        with self._throttle.looking():
            if self._view.run.look():
                self._show(self._view.frame(self._hint))

    def end(self) -> None:
        """Put the figure in the place of the frames, and save it."""
        if self._view is None or self.mode == "off":
            return
        self._view.run.look()
        if self.shows_progress:
            self._show(self._view.frame())  # the truth at once, and if the figure should fail
        figure = self._view.figure()
        self._show(figure)
        with atomic_path(self._view.run.path / "figures" / "live.png") as temporary:
            temporary.write_bytes(base64.b64decode(figure.data["image/png"]))

    def _show(self, output: Output) -> None:
        if self._shown is not None:
            self._shown.show(output)
