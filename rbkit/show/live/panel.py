"""A run while it trains: the panel of the training cell, and ``rb.attach`` from anywhere else."""

from __future__ import annotations

import base64
import contextvars
import threading
import time
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from rbkit.errors import InputError
from rbkit.files import atomic_path
from rbkit.show.gram_layout import Kind
from rbkit.show.live.frame import alt, frame_html
from rbkit.show.live.snapshot import Scale, beginning, snapshot
from rbkit.show.style import bundle, display_mode, in_kernel
from rbkit.text import visible
from rbkit.train.recorder import Throttle
from rbkit.train.run import Run

# A frame that took r seconds is followed by 125 r without one: under 1 % of the time, whatever
# the machine and the model, with some room for reading the folder.
_PANEL_SHARE = 0.008
_LEAST = {"live": 0.5, "batch": 25.0}  # seconds between two frames
# Of one core, in a process that does not train; but never longer without a frame than this.
_ATTACHED_SHARE, _MOST = 0.02, 5.0


class Output(NamedTuple):
    """What a cell shows: data by MIME type, and their metadata."""

    data: dict[str, Any]
    metadata: dict[str, Any]


class View:
    """A followed run folder as frames; `kind` may be changed between frames."""

    def __init__(self, path: str | Path, kind: Kind = "cosine") -> None:
        self.run, self.kind = Run.follow(path), kind
        self._scales: dict[Kind, Scale] = {}
        self._beginning: Any = None

    @property
    def unfinished(self) -> bool:
        """Whether there is more to come."""
        return self.run.status in ("running", "waiting")

    def frame(self, hint: str = "") -> Output:
        """Draw the run as of the last refresh, with a line of text below."""
        if beginning(self.run) != self._beginning:
            self._beginning, self._scales = beginning(self.run), {}
        scale = self._scales.setdefault(self.kind, Scale(self.kind)).follow(self.run.history)
        snap = snapshot(self.run)
        html = frame_html(snap, self.kind, scale, hint)
        return Output({"text/html": html, "text/plain": alt(snap, self.kind)}, {})

    def figure(self) -> Output:
        """Draw the figure with which a view ends."""
        from rbkit.show.live.final import final_figure

        return Output(*bundle(final_figure(self.run)))


def _stop_hint(path: Path) -> str:
    return f"To stop and keep what was learned: a file named STOP in {path}"


class Screen(Protocol):
    """Where outputs are shown, each in the place of the one before."""

    def show(self, output: Output) -> None:
        """Show an output."""


class CellOutput:
    """The output of the cell that is running when the first frame is shown.

    Later frames reach it from anywhere in the kernel, also from a thread and after the cell
    has ended.
    """

    def __init__(self) -> None:
        self._handle: Any = None

    def show(self, output: Output) -> None:
        """Show an output in place of the one before."""
        self.show_object(output.data, metadata=output.metadata, raw=True)

    def show_object(self, thing: Any, **how: Any) -> None:
        """Show anything that IPython can show, such as a widget."""
        from IPython import display

        if self._handle is None:
            self._handle = display.DisplayHandle()  # type: ignore[no-untyped-call]
            self._handle.display(thing, **how)
        else:
            self._handle.update(thing, **how)


class LivePanel:
    """A watcher that shows the run of the training cell, and ends in one static figure.

    Parameters
    ----------
    mode : {"live", "batch", "final", "off"}, optional
        Frames as often as they may be, one about every 25 s, only the figure at the end, or
        nothing: see :mod:`rbkit.show.style`.
    kind : {"cosine", "raw"}
        Cosines of domain gradients, or their inner products as the mixer sees them.
    screen : Screen, optional
        Where to show frames; the output of the running cell by default. Outside of a
        kernel there is none: then the figure is only saved.

    Notes
    -----
    The figure is also saved, as ``figures/live.png`` in the run folder.

    :class:`~rbkit.train.recorder.Throttle` limits the frames to less than 1 % of the time,
    however slow the machine. The time they took is shown.
    """

    def __init__(
        self, mode: str | None = None, *, kind: Kind = "cosine", screen: Screen | None = None
    ) -> None:
        self.mode, self.kind = display_mode(mode), kind
        self._given_screen = screen
        self._screen: Screen | None = None
        self._view: View | None = None
        if self.shows_progress:
            import seaborn  # noqa: F401  (a second of imports belongs before the training)

    @property
    def shows_progress(self) -> bool:
        """Whether there are frames, so that a progress bar would be one too many."""
        return self.mode in _LEAST and (self._given_screen is not None or in_kernel())

    def begin(self, path: Path) -> None:
        """Show the first frame."""
        self._view = View(path, self.kind)
        self._screen = self._given_screen or (CellOutput() if in_kernel() else None)
        self._hint = _stop_hint(path) + (", or the ■ button above." if in_kernel() else ".")
        if self.shows_progress:
            self._throttle = Throttle(_PANEL_SHARE, _LEAST[self.mode])
            with self._throttle.looking():
                self._view.run.refresh()
                self._show(self._view.frame(self._hint))

    def look(self) -> None:
        """Show a frame, if it is time and there is something new."""
        if not self.shows_progress or self._view is None or not self._throttle.due():
            return
        with self._throttle.looking():
            if self._view.run.refresh():
                self._show(self._view.frame(self._hint))

    def end(self) -> None:
        """Replace the frames by the figure, and save it."""
        if self._view is None or self.mode == "off":
            return
        self._view.run.refresh()
        if self.shows_progress:
            self._show(self._view.frame())  # the last state at once, should the figure fail
        figure = self._view.figure()
        self._show(figure)
        with atomic_path(self._view.run.path / "figures" / "live.png") as temporary:
            temporary.write_bytes(base64.b64decode(figure.data["image/png"]))

    def _show(self, output: Output) -> None:
        if self._screen is not None:
            self._screen.show(output)


def attach(
    run: Any,
    *,
    kind: Kind = "cosine",
    display: str | bool | None = None,
    screen: Screen | None = None,
    wait: float = 10.0,
) -> Attachment:
    """Show a run while it trains: in another cell, notebook or process, or in a reopened tab.

    The cell ends at once; the view continues in a thread, follows the run folder, and shows the
    final figure when the run has ended, was interrupted or was killed. Ending the view does
    nothing to the run.

    Parameters
    ----------
    run : path, Run or anything else with a ``path``
        The run folder.
    kind : {"cosine", "raw"}
        How the Gram matrix is shown at first; there are buttons.
    display : bool or {"live", "batch", "final", "off"}, optional
        See :mod:`rbkit.show.style`. In all modes but ``live`` the run is shown as it is now.
    screen : Screen, optional
        Where to show it; the output of this cell by default.
    wait : float
        Seconds to wait for a run that has not begun.

    Returns
    -------
    Attachment
        ``.stop()`` ends the view, ``.wait()`` waits for the run, ``.toggle()`` shows inner
        products instead of cosines, and back.

    Raises
    ------
    InputError
        If there is no run.

    Examples
    --------
    >>> import tempfile
    >>> from rbkit.train import Recorder
    >>> recorder = Recorder(tempfile.mkdtemp())
    >>> recorder.start(parameters={"mixer": "RnB"})
    >>> recorder.finish("ok")
    >>> attach(recorder.path, display="off").status
    'ok'
    """
    path, mode = Path(getattr(run, "path", run)), display_mode(display)
    view = View(path, kind)
    deadline = time.monotonic() + wait
    while not view.run.refresh() or view.run.status == "waiting":
        if time.monotonic() > deadline:
            what = f"no run there after {wait:g} s"
            raise InputError(str(path), what, "give the folder of a run")
        time.sleep(0.1)
    return Attachment(view, mode, screen or (CellOutput() if in_kernel() else None))


class Attachment:
    """A view of a run that continues by itself; made by :func:`attach`.

    Attributes
    ----------
    path : Path
        The run folder.
    """

    def __init__(self, view: View, mode: str, screen: Screen | None) -> None:
        self.path, self._view, self._screen = view.run.path, view, screen
        self._ended, self._wake = threading.Event(), threading.Event()
        self._stopped = self._final = False
        self._lock = threading.RLock()  # one frame at a time: the thread's, or a button's
        self._error: BaseException | None = None
        self._thread: threading.Thread | None = None
        self._buttons: _Buttons | None = None
        if mode == "live" and screen is not None and view.unfinished:
            self._buttons = _Buttons(self) if isinstance(screen, CellOutput) else None
            self._draw()
            # In the context of this cell, so that frames appear in its output.
            context = contextvars.copy_context()
            self._thread = threading.Thread(
                target=context.run, args=(self._follow,), name="rbkit-attach", daemon=True
            )
            self._thread.start()
        elif mode != "off":
            self._end()

    @property
    def status(self) -> str:
        """Status of the run, as of the last refresh."""
        return self._view.run.status

    @property
    def kind(self) -> Kind:
        """How the Gram matrix is shown: ``cosine`` or ``raw``."""
        return self._view.kind

    @kind.setter
    def kind(self, kind: Kind) -> None:
        self._view.kind = kind
        if self._following:
            self._draw()

    def toggle(self) -> None:
        """Show inner products instead of cosines, or cosines again."""
        self.kind = "raw" if self.kind == "cosine" else "cosine"

    def stop(self) -> None:
        """End the view; its last frame stays. The run continues."""
        self._stopped = True
        self._wake.set()
        self.wait()

    def wait(self, seconds: float | None = None) -> str:
        """Wait until the view has ended, for so many seconds at most; return the run's status."""
        if self._thread is not None and threading.current_thread() is not self._thread:
            self._thread.join(seconds)
        if self._error is not None:
            raise self._error
        return self.status

    @property
    def _following(self) -> bool:
        return self._thread is not None and not self._ended.is_set()

    def _follow(self) -> None:
        throttle = Throttle(_ATTACHED_SHARE, most=_MOST)
        try:
            while self._view.unfinished and not self._stopped:
                self._wake.wait(0.1)
                if not throttle.due():
                    continue
                with throttle.looking(), self._lock:
                    if self._view.run.refresh():
                        self._draw()
            if self._stopped:
                self._draw(last="No longer followed.")
            else:
                self._end()
        except BaseException as error:
            self._error = error
            self._show_failure(error)
        finally:
            self._ended.set()
            if self._buttons is not None:
                self._buttons.remove()

    def _draw(self, last: str = "") -> None:
        """Show a frame unless the final output is there; `last` makes this one final."""
        assert self._screen is not None
        with self._lock:
            if not self._final:
                self._screen.show(self._view.frame(last or f"{_stop_hint(self.path)}."))
            self._final |= bool(last)

    def _end(self) -> None:
        with self._lock:
            figure = self._view.figure()
            if self._screen is not None:
                self._screen.show(figure)
            else:
                print(visible(figure.data["text/plain"]))
            self._final = True

    def _show_failure(self, error: BaseException) -> None:
        """Report it below the last frame: it must not look as if the run stood still."""
        text = " ".join(f"This view has ended: {type(error).__name__}: {error}.".split())
        try:
            self._draw(last=f"{text} The run is not affected.")
        except Exception as second:  # nothing can be drawn or shown: `wait` raises the first
            error.add_note(f"and this could not be shown: {second}")

    def _ipython_display_(self) -> None:
        """Show nothing: the view is there already."""

    def __repr__(self) -> str:
        how = "following" if self._following else "ended"
        return f"Attachment({str(self.path)!r}, {self.status}, {how})"


class _Buttons:
    """Cosines or inner products: they work, since no other cell runs in this kernel."""

    def __init__(self, attachment: Attachment) -> None:
        import ipywidgets

        self._widget = ipywidgets.ToggleButtons(
            options=[("cosines", "cosine"), ("inner products", "raw")],
            value=attachment.kind,
            description="Gram",
            tooltips=["without the norms", "as the mixer sees them"],
        )
        self._widget.style.button_width = "110px"
        self._widget.observe(lambda change: setattr(attachment, "kind", change["new"]), "value")
        self._output = CellOutput()
        self._output.show_object(self._widget)

    def remove(self) -> None:
        """Take the buttons away: a saved notebook would show an error in their place."""
        self._output.show(Output({"text/html": "", "text/plain": ""}, {}))
        self._widget.close()
