"""The panel of a training cell: Gram matrix, proportions, losses and price while training."""

from __future__ import annotations

import base64
import contextvars
import threading
import time
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from rbkit.errors import InputError
from rbkit.files import atomic_path
from rbkit.show.live.facts import LiveFacts, live_facts, printable
from rbkit.show.live.frame import Kind, Scale, alt, frame_html
from rbkit.show.style import display_mode, in_kernel
from rbkit.train.recorder import Throttle
from rbkit.train.run import Run


class Output(NamedTuple):
    """What a cell shows: data by MIME type, and their metadata."""

    data: dict[str, Any]
    metadata: dict[str, Any]


class View:
    """A run folder as frames.

    Parameters
    ----------
    path : path
        The run folder.
    kind : {"cosine", "raw"}
        How the Gram matrix is shown; may be changed between frames.

    Attributes
    ----------
    run : Run
    """

    def __init__(self, path: str | Path, kind: Kind = "cosine") -> None:
        self.run, self.kind = Run.follow(path), kind
        self._scales: dict[Kind, Scale] = {}
        self._began: Any = None

    @property
    def running(self) -> bool:
        """Whether there is more to come."""
        return self.run.status in ("running", "waiting")

    def frame(self, hint: str = "") -> Output:
        """Draw the run as it was when it was last looked at."""
        facts = printable(live_facts(self.run))
        # Only the first look needs the words: repeated, they would fill the notebook's file.
        html = frame_html(facts, self.kind, self._scale(facts), hint)
        return Output({"text/html": html, "text/plain": alt(facts, self.kind)}, {})

    def figure(self) -> Output:
        """Draw the figure with which a view ends."""
        from rbkit.show.live.final import final_figure
        from rbkit.show.style import bundle

        return Output(*bundle(final_figure(self.run)))

    def _scale(self, facts: LiveFacts) -> float:
        began = (self.run.info.get("started"), len(self.run.info.get("resumed") or ()))
        if began != self._began:  # another run in this folder, or one cut back
            self._began, self._scales = began, {}
        scale = self._scales.setdefault(self.kind, Scale(self.kind))
        return scale.follow(self.run.history)


def stop_hint(path: Path) -> str:
    """Say how to end the training of a run folder."""
    return f"To stop and keep what was learned: a file named STOP in {path}"


class Screen(Protocol):
    """Where frames are shown, each in the place of the one before."""

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
        self._put(output.data, metadata=output.metadata, raw=True)

    def show_object(self, thing: Any) -> None:
        """Show anything that IPython can show, such as a widget."""
        self._put(thing)

    def _put(self, thing: Any, **how: Any) -> None:
        from IPython import display

        if self._handle is None:
            self._handle = display.DisplayHandle()  # type: ignore[no-untyped-call]
            self._handle.display(thing, **how)
        else:
            self._handle.update(thing, **how)


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
        nothing: see :mod:`rbkit.show.style`.
    kind : {"cosine", "raw"}
        Cosines of domain gradients, or their inner products as the mixer sees them.
    screen : Screen, optional
        Where to show frames; the output of the running cell by default. Outside of a
        kernel there is none: then the figure is only saved.

    Notes
    -----
    The figure is also saved, as ``figures/live.png`` in the run folder.

    Looking is paid for by :class:`~rbkit.train.recorder.Throttle`: less than 1 % of the time
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
        """Put the figure in the place of the frames, and save it."""
        if self._view is None or self.mode == "off":
            return
        self._view.run.refresh()
        if self.shows_progress:
            self._show(self._view.frame())  # the truth at once, and if the figure should fail
        figure = self._view.figure()
        self._show(figure)
        with atomic_path(self._view.run.path / "figures" / "live.png") as temporary:
            temporary.write_bytes(base64.b64decode(figure.data["image/png"]))

    def _show(self, output: Output) -> None:
        if self._shown is not None:
            self._shown.show(output)


# Of one core, in a process that does not train; but never longer out of sight than this.
_attachment_SHARE, _MOST = 0.02, 5.0


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
        See :mod:`rbkit.show.style`. In all modes but ``live`` the run is shown as it is now.
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
    >>> from rbkit.train.recorder import Recorder
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
            raise InputError(
                str(path), f"no run there after {wait:g} s", "give the folder of a run"
            )
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
        throttle = Throttle(_attachment_SHARE, most=_MOST)
        try:
            while self._view.running and not self._stopped:
                self._again.wait(0.1)
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
