"""``rb.attach``: look at a run that trains elsewhere, or that the browser lost sight of."""

from __future__ import annotations

import contextvars
import threading
import time
from pathlib import Path
from typing import Any

from rbkit.errors import InputError
from rbkit.show.live.scale import Kind
from rbkit.show.live.screen import CellOutput, Screen
from rbkit.show.live.view import Output, View, stop_hint
from rbkit.show.modes import display_mode, in_kernel
from rbkit.train.watch import Throttle

# Of one core, in a process that does not train; but never longer out of sight than this.
_SHARE, _MOST = 0.02, 5.0


def attach(
    run: Any,
    *,
    kind: Kind = "cosine",
    display: str | bool | None = None,
    screen: Screen | None = None,
    wait: float = 10.0,
) -> Attachment:
    """Show a run while it trains: in another cell, notebook or process, or in a reopened tab.

    The cell ends at once; the view goes on in a thread, follows the run folder, and puts the
    final figure in its place when the run has ended, was interrupted or was killed. Ending
    the view does nothing to the run.

    Parameters
    ----------
    run : path, Run or anything else with a ``path``
        The run folder.
    kind : {"cosine", "raw"}
        How the Gram matrix is shown at first; there are buttons.
    display : bool or {"live", "batch", "final", "off"}, optional
        See :mod:`rbkit.show.modes`. In all modes but ``live`` the run is shown as it is now.
    screen : Screen, optional
        Where to show it; the output of this cell by default.
    wait : float
        Seconds to wait for a run that has not begun.

    Returns
    -------
    Attachment
        ``.stop()`` ends the view, ``.wait()`` waits for the run, ``.toggle()`` shows inner
        products for cosines, and back.

    Raises
    ------
    InputError
        If there is no run.

    Examples
    --------
    >>> import tempfile
    >>> from rbkit.train.record import Recorder
    >>> recorder = Recorder(tempfile.mkdtemp())
    >>> recorder.start(parameters={"mixer": "RnB"})
    >>> recorder.finish("ok")
    >>> attach(recorder.path, display="off").status
    'ok'
    """
    path, mode = Path(getattr(run, "path", run)), display_mode(display)
    view = View(path, kind)
    deadline = time.monotonic() + wait
    while not view.run.look() or view.run.status == "waiting":
        if time.monotonic() > deadline:
            raise InputError(str(path), f"no run there after {wait:g} s",
                             "give the folder of a run")  # fmt: skip
        time.sleep(0.1)
    return Attachment(view, mode, screen or (CellOutput() if in_kernel() else None))


class Attachment:
    """A view of a run that goes on by itself; made by :func:`attach`.

    Attributes
    ----------
    path : Path
        The run folder.
    """

    def __init__(self, view: View, mode: str, screen: Screen | None) -> None:
        self.path, self._view, self._screen = view.run.path, view, screen
        self._ended, self._again = threading.Event(), threading.Event()
        self._stopped = self._final = False
        self._lock = threading.RLock()  # one frame at a time: the thread's, or a button's
        self._error: BaseException | None = None
        self._thread: threading.Thread | None = None
        self._buttons: _Buttons | None = None
        if mode == "live" and screen is not None and view.running:
            self._buttons = _Buttons(self) if isinstance(screen, CellOutput) else None
            self._draw()
            # The thread shows frames in the name of this cell.
            context = contextvars.copy_context()
            self._thread = threading.Thread(
                target=context.run, args=(self._follow,), name="rbkit-attach", daemon=True
            )
            self._thread.start()
        elif mode != "off":
            self._end()

    @property
    def status(self) -> str:
        """Status of the run, as of the last look."""
        return self._view.run.status

    @property
    def kind(self) -> Kind:
        """How the Gram matrix is shown: ``cosine`` or ``raw``."""
        return self._view.kind

    @kind.setter
    def kind(self, kind: Kind) -> None:
        self._view.kind = kind
        if self._thread is not None and not self._ended.is_set():
            self._draw()

    def toggle(self) -> None:
        """Show inner products instead of cosines, or cosines again."""
        self.kind = "raw" if self.kind == "cosine" else "cosine"

    def stop(self) -> None:
        """End the view; its last frame stays. The run goes on."""
        self._stopped = True
        self._again.set()
        self.wait()

    def wait(self, seconds: float | None = None) -> str:
        """Wait until the view has ended, for so many seconds at most; return the run's status."""
        if self._thread is not None and threading.current_thread() is not self._thread:
            self._thread.join(seconds)
        if self._error is not None:
            raise self._error
        return self.status

    def _follow(self) -> None:
        throttle = Throttle(_SHARE, most=_MOST)
        try:
            while self._view.running and not self._stopped:
                self._again.wait(0.1)
                if not throttle.due():
                    continue
                with throttle.looking(), self._lock:
                    if self._view.run.look():
                        self._draw()
            if self._stopped:
                self._draw(last="No longer followed.")
            else:
                self._end()
        except BaseException as error:
            self._error = error
            self._say_that_it_failed(error)
        finally:
            self._ended.set()
            if self._buttons is not None:
                self._buttons.remove()

    def _draw(self, last: str = "") -> None:
        """Show a frame, unless the last one is there already: `last` is what to say below it."""
        assert self._screen is not None
        with self._lock:
            if not self._final:
                self._screen.show(self._view.frame(last or f"{stop_hint(self.path)}."))
            self._final |= bool(last)

    def _end(self) -> None:
        with self._lock:
            figure = self._view.figure()
            if self._screen is not None:
                self._screen.show(figure)
            else:
                print(figure.data["text/plain"])
            self._final = True

    def _say_that_it_failed(self, error: BaseException) -> None:
        """Say it below the last frame, which must not look like that of a run that stands still."""
        said = " ".join(f"This view has ended: {type(error).__name__}: {error}.".split())
        try:
            self._draw(last=f"{said} The run is not affected.")
        except Exception as again:  # nothing can be drawn or shown: `wait` raises the first
            error.add_note(f"and to say so failed: {again}")

    def _ipython_display_(self) -> None:
        """Show nothing: the view is there already."""

    def __repr__(self) -> str:
        how = "following" if self._thread is not None and not self._ended.is_set() else "ended"
        return f"Attachment({str(self.path)!r}, {self.status}, {how})"


class _Buttons:
    """Cosine or inner products: they work, since nothing else runs in this kernel's cell."""

    def __init__(self, attachment: Attachment) -> None:
        import ipywidgets

        self._widget = ipywidgets.ToggleButtons(
            options=[("cosines", "cosine"), ("inner products", "raw")], value=attachment.kind,
            description="Gram", tooltips=["without the norms", "as the mixer sees them"],
        )  # fmt: skip
        self._widget.style.button_width = "110px"
        self._widget.observe(lambda change: setattr(attachment, "kind", change["new"]), "value")
        self._output = CellOutput()
        self._output.show_object(self._widget)

    def remove(self) -> None:
        """Take the buttons away: a saved notebook would show an error in their place."""
        self._output.show(Output({"text/html": "", "text/plain": ""}, {}))
        self._widget.close()
