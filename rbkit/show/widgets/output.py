"""A widget as the output of a notebook cell, or the figure that stands for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from rbkit.show.modes import Mode


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
    from rbkit.show.display import bundle

    return bundle(freeze(), dpi=dpi)
