"""What a view in a terminal is drawn with: coloured cells, bars, curves of blocks."""

from __future__ import annotations

import matplotlib
import numpy as np
from rich.cells import cell_len, set_cell_size
from rich.color import Color
from rich.style import Style
from rich.text import Text

from rbkit.show.live.series import Series

DIM, BAR = "dim", "#3B8EC2"
_EIGHTHS = " ▏▎▍▌▋▊▉█"
_LEVELS = "▁▂▃▄▅▆▇█"
_SIGNS = "=-·+#"  # from strong conflict to strong agreement, where there are no colours


def cell(value: float, scale: float, diagonal: bool, wide: int, colour: bool) -> Text:
    """Draw a cell of the Gram matrix: in a colour, or by a sign where there are none."""
    if not np.isfinite(value):
        return Text("░" * wide, DIM)
    share = float(np.clip(value / scale, -1, 1))
    if not colour:
        strength = 0 if abs(share) < 0.1 else 1 if abs(share) < 0.5 else 2
        sign = _SIGNS[2 + (strength if share > 0 else -strength)]
        return Text(diagonal_mark(wide) if diagonal else sign * wide)
    mark = diagonal_mark(wide) if diagonal else " " * wide
    ink = "white" if abs(share) > 0.6 else "black"
    return Text(mark, Style(color=ink, bgcolor=_colour(share)))


def diagonal_mark(wide: int) -> str:
    """Mark of the diagonal, which is another quantity than its neighbours."""
    return "[]" if wide == 2 else "\\"


def _colour(share: float) -> Color:
    red, green, blue = (255 * c for c in matplotlib.colormaps["RdBu_r"]((share + 1) / 2)[:3])
    return Color.from_rgb(red, green, blue)


def marked_bar(share: float, target: float | None, wide: int) -> Text:
    """Bar of `share` with a line at `target`, both in [0, 1]."""
    line = Text(bar(share, wide), BAR)
    if target is None:
        return line
    at = min(wide - 1, int(target * wide))
    inside = share * wide >= at + 1
    mark = Style(bgcolor=BAR, color="black", bold=True) if inside else Style(bold=True)
    return Text.assemble(line[:at], ("│", mark), line[at + 1 :])


def bar(share: float, wide: int) -> str:
    """Bar of `share` in [0, 1], to an eighth of a character.

    Examples
    --------
    >>> bar(0.4, 8)
    '███▎    '
    """
    eighths = round(8 * wide * min(1.0, max(0.0, share)))
    whole, rest = divmod(eighths, 8)
    return ("█" * whole + (_EIGHTHS[rest] if rest else "")).ljust(wide)


def spark(curve: Series, last: float, low: float, high: float, wide: int) -> str:
    """Draw a curve from step 0 to `last` as `wide` blocks whose heights go from low to high.

    Examples
    --------
    >>> spark(Series(np.array([0.0, 10.0]), np.array([8.0, 1.0])), 10, 1, 8, 8)
    '█▇▆▅▄▃▂▁'
    """
    at = np.linspace(0.0, last, wide)
    shown = at >= curve.steps[0] - last / wide  # a curve that begins late is not drawn earlier
    share = (np.interp(at, curve.steps, curve.values) - low) / ((high - low) or 1.0)
    level = np.rint(7 * np.clip(share, 0, 1)).astype(int)
    return "".join(_LEVELS[i] if s else " " for i, s in zip(level, shown, strict=True))


def fitted(text: str, wide: int) -> str:
    """Cut or pad `text` to `wide` columns of a terminal.

    Examples
    --------
    >>> fitted("日本語", 5), fitted("code", 5)
    ('日本…', 'code ')
    """
    if cell_len(text) > wide > 0:
        return set_cell_size(set_cell_size(text, wide - 1).rstrip() + "…", wide)
    return set_cell_size(text, wide)
