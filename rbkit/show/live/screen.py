"""One output of a notebook cell, replaced in place: no flicker, and one output in the end."""

from __future__ import annotations

from typing import Any, Protocol

from rbkit.show.live.view import Output


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
