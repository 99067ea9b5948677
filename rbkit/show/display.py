"""A figure on its way out: as PNG bytes, as a data: URI, as the output of a notebook cell.

Only ``image/png`` and ``text/plain`` leave a notebook cell: inline SVG and widgets are
blank in untrusted notebooks or in offline HTML.
"""

from __future__ import annotations

import base64
import io
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rbkit.show.style import PAPER, alt_text


def png(fig: Figure | Axes, dpi: int = 200) -> bytes:
    """Render a figure (or the figure of some axes) as PNG, the same bytes each time."""
    buffer = io.BytesIO()
    with without_glyph_warnings():
        _figure(fig).savefig(
            buffer,
            format="png",
            dpi=dpi,
            facecolor=PAPER,
            bbox_inches="tight",
            pad_inches=0.06,
            metadata={"Software": None},
        )
    return buffer.getvalue()


@contextmanager
def without_glyph_warnings() -> Iterator[None]:
    """Silence what matplotlib says of scripts that the fonts lack: a box is drawn, no news."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
        warnings.filterwarnings("ignore", "Matplotlib currently does not support", UserWarning)
        yield


def data_uri(fig: Figure | Axes, dpi: int = 200) -> str:
    """Render a figure as a ``data:image/png;base64,...`` address."""
    return "data:image/png;base64," + base64.b64encode(png(fig, dpi)).decode("ascii")


def size_of(image: bytes) -> tuple[int, int]:
    """Width and height in pixels of a PNG."""
    width, height = struct.unpack(">II", image[16:24])
    return int(width), int(height)


def bundle(fig: Figure | Axes, dpi: int = 200) -> tuple[dict[str, Any], dict[str, Any]]:
    """MIME bundle and metadata of a figure: PNG and its alternative text, nothing else."""
    image, alt = png(fig, dpi), alt_text(_figure(fig))
    width, height = size_of(image)
    data = {"image/png": base64.b64encode(image).decode("ascii"), "text/plain": alt}
    # Half size: the picture has two pixels for each CSS pixel.
    look = {"alt": alt, "width": round(width * 100 / dpi), "height": round(height * 100 / dpi)}
    return data, {"image/png": look}


def show(fig: Figure | Axes, dpi: int = 200) -> None:
    """Show a figure as the output of a notebook cell, with its alternative text; close it.

    Outside of IPython there is nothing to show it on: the alternative text is printed.

    Examples
    --------
    >>> from rbkit.show.style import set_alt
    >>> figure = Figure()
    >>> set_alt(figure.subplots(), "An empty square.")
    >>> show(figure)
    An empty square.
    """
    from IPython.core.getipython import get_ipython
    from IPython.display import display

    if get_ipython() is None:
        print(alt_text(_figure(fig)))
    else:
        data, metadata = bundle(fig, dpi)
        display(data, metadata=metadata, raw=True)  # type: ignore[no-untyped-call]
    _close(_figure(fig))


def _figure(where: Figure | Axes) -> Figure:
    if isinstance(where, Figure):
        return where
    figure = where.get_figure(root=True)
    if figure is None:
        raise ValueError("these axes belong to no figure")
    return figure


def _close(fig: Figure) -> None:
    # Figures made by pyplot would be shown once more by the inline backend.
    import sys

    if pyplot := sys.modules.get("matplotlib.pyplot"):
        pyplot.close(fig)
