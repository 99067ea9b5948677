"""One look for all figures, their alternative texts, and how they are shown.

The style is a context manager: nothing global changes when it ends. Every figure
function builds an alternative text from its data (``set_alt``), which notebooks, HTML
exports and reports show to people who cannot see the picture.
"""

from __future__ import annotations

import base64
import functools
import io
import os
import struct
import sys
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from html import escape
from typing import Any, Literal, cast, get_args
from weakref import WeakKeyDictionary

import matplotlib
import numpy as np
from matplotlib import font_manager
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure, SubFigure
from matplotlib.text import Text
from matplotlib.ticker import Locator, LogFormatter
from numpy.typing import NDArray

from rbkit.errors import InputError
from rbkit.text import visible

OTHERS = (0.6, 0.62, 0.65)  # colour of several small domains drawn as one
INK, MUTED, RULE, PAPER = "#1f2933", "#5b6673", "#dfe3e8", "#ffffff"
DASHED: Any = (0, (4, 2))  # of baselines, choices and fronts: lines that are not data

# Okabe and Ito's colours, darkened where needed so that a label in the colour of its
# line keeps a contrast of at least 3:1 on white. A marker goes with each: never colour alone.
_MIXERS: dict[str, tuple[str, str]] = {
    "RnB": ("#0072B2", "o"),
    "Target": ("#D55E00", "D"),
    "Stratified": ("#59636e", "s"),
    "Proportional": ("#00835F", "^"),
    "Fixed": ("#8c959f", "p"),
    "SkillIt": ("#A23B7C", "v"),
    "Aioli": ("#8A6D00", "P"),
    "DGA": ("#3B8EC2", "X"),
    "DoGE": ("#7A4FBF", "<"),
    "DoReMi": ("#B3403A", ">"),
    "ADO": ("#4C7A1F", "h"),
    "ODM": ("#C2557F", "d"),
    "GroupDRO": ("#5B6BB5", "8"),
    "MGDA": ("#1B7F8C", "H"),
    "UPGrad": ("#96562A", "*"),
    "UniMax": ("#6B7F2A", "$U$"),
    "RepeatAware": ("#008A9A", "$R$"),
}
_OTHERS = [("#A23B7C", "v"), ("#8A6D00", "P"), ("#3B8EC2", "X"), ("#7A4FBF", "<"), ("#B3403A", ">")]

# The later ones are for names of a corpus in scripts that the first ones lack.
_FONTS = (
    "Inter, Helvetica Neue, Arial, Liberation Sans, DejaVu Sans, Noto Sans CJK JP, "
    "Noto Sans CJK SC, Hiragino Sans, PingFang SC, Yu Gothic, Microsoft YaHei, Malgun Gothic, "
    "WenQuanYi Micro Hei, Noto Sans Arabic, Noto Sans Hebrew, Noto Sans Devanagari, "
    "Noto Sans Thai, Arial Unicode MS"
)

_ALT: WeakKeyDictionary[Artist, str] = WeakKeyDictionary()


@contextmanager
def rbkit_style(**overrides: Any) -> Iterator[None]:
    """Draw in the look of rbkit inside the block; outside it nothing has changed.

    Parameters
    ----------
    **overrides
        rcParams with ``_`` for ``.``, for this block only, e.g. ``font_size=12``.

    Examples
    --------
    >>> before = matplotlib.rcParams["axes.grid"]
    >>> with rbkit_style(font_size=12):
    ...     matplotlib.rcParams["font.size"]
    12.0
    >>> matplotlib.rcParams["axes.grid"] == before
    True
    """
    extra = {name.replace("_", ".", 1): value for name, value in overrides.items()}
    settings: Any = _settings() | extra
    with matplotlib.rc_context(settings):
        yield


@functools.cache
def _settings() -> dict[str, Any]:
    # Only installed fonts: matplotlib logs a line for each name that it cannot find.
    installed = set(font_manager.get_font_names())
    return {
        "font.family": [name for name in _FONTS.split(", ") if name in installed] or ["sans-serif"],
        "font.size": 10,
        "axes.titlesize": 11.5,
        "axes.titleweight": "bold",
        "axes.titlelocation": "left",
        "axes.titlepad": 9,
        "axes.labelsize": 10,
        "axes.labelcolor": MUTED,
        "axes.edgecolor": "#9aa3ad",
        "axes.linewidth": 0.8,
        "axes.facecolor": PAPER,
        "axes.axisbelow": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.unicode_minus": True,
        "text.color": INK,
        "text.parse_math": False,  # names come from a corpus: "$" is a dollar, not mathematics
        "xtick.color": MUTED,
        "ytick.color": MUTED,
        "xtick.labelcolor": INK,
        "ytick.labelcolor": INK,
        "xtick.labelsize": 9,
        "ytick.labelsize": 9,
        "xtick.major.size": 3,
        "ytick.major.size": 3,
        "grid.color": RULE,
        "grid.linewidth": 0.7,
        "lines.linewidth": 1.9,
        "lines.solid_capstyle": "round",
        "figure.facecolor": PAPER,  # opaque: a transparent figure vanishes in dark mode
        "figure.dpi": 100,
        "savefig.facecolor": PAPER,
        "hatch.linewidth": 0.6,
    }


def new_axes(
    ax: Axes | None, width: float = 6.4, height: float = 3.6, *, square: bool = False
) -> Axes:
    """Return `ax`, or axes of a new figure of the given size in inches, unknown to pyplot.

    `square` is for axes of a fixed aspect: the layout leaves no room beside them.
    """
    if ax is not None:
        return ax
    # Not plt.figure(), which would have to be closed.
    layout: Any = "compressed" if square else "constrained"
    axes: Axes = Figure(figsize=(width, height), layout=layout).subplots()
    return axes


def tidy(ax: Axes, grid: str | None = "y") -> None:
    """Quiet spines and grid, also on axes that were made outside of :func:`rbkit_style`."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(False)
    if grid:
        ax.grid(True, axis=grid, color=RULE, linewidth=0.7)  # type: ignore[arg-type]
    ax.set_axisbelow(True)


def plain_ticks(axis: Axis, names: Sequence[str], **kwargs: Any) -> None:
    """Label ticks 0, 1, ... with `names` as they are: no ``$...$`` mathematics in them."""
    axis.set_ticks(range(len(names)))
    for tick in axis.set_ticklabels(list(names), **kwargs):
        tick.set_parse_math(False)


def label_rows(ax: Axes, names: Sequence[str]) -> None:
    """Make axes a chart of rows: names at the left, no ticks, a grid for the values."""
    tidy(ax, "x")
    plain_ticks(ax.yaxis, names)
    ax.tick_params(axis="y", length=0)


def note(ax: Axes, text: str, at: tuple[float, float], by: tuple[float, float], **how: Any) -> None:
    """Write small text `by` so many points off a place, in fractions of the axes if not `how`."""
    usual: dict[str, Any] = {"xycoords": "axes fraction", "fontsize": 8, "color": MUTED}
    ax.annotate(text, at, by, textcoords="offset points", **usual | {"parse_math": False} | how)


def say_nothing(ax: Axes, text: str) -> None:
    """Write `text` in empty axes, whose ticks would mean nothing."""
    ax.text(0.5, 0.5, text, transform=ax.transAxes, ha="center", va="center", color=MUTED)
    ax.set(xticks=[], yticks=[])


def colour_bar(
    image: Any,
    axes: Axes | list[Axes],
    label: str = "",
    *,
    ticks: Locator | None = None,
    **how: Any,
) -> None:
    """Explain the colours of `image` at the right of `axes`, in small type."""
    first = axes if isinstance(axes, Axes) else axes[0]
    usual = {"shrink": 0.75, "aspect": 22, "pad": 0.02}
    bar = first.figure.colorbar(image, ax=axes, **usual | how)
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=0, labelsize=8)
    if ticks is not None:
        bar.locator = ticks
        bar.update_ticks()
    bar.set_label(label, fontsize=8.5, parse_math=False)


def shorten(text: str, width: int = 28) -> str:
    """Cut `text` to `width` characters, the last one an ellipsis.

    Examples
    --------
    >>> shorten("03 species, genus, bird", 12)
    '03 species…'
    """
    text = " ".join(text.split())
    return text if len(text) <= width else text[: width - 1].rstrip(" ,;·-") + "…"


def mixer_colour(mixer: str) -> str:
    """Colour of a mixer, the same in every figure of every report."""
    return _mixer_look(mixer)[0]


def mixer_marker(mixer: str) -> str:
    """Marker of a mixer: what tells mixers apart without colour."""
    return _mixer_look(mixer)[1]


def _mixer_look(mixer: str) -> tuple[str, str]:
    # Of an unknown mixer by the letters of its name, not by the order of appearance: it is stable.
    return _MIXERS.get(mixer) or _OTHERS[sum(map(ord, mixer)) % len(_OTHERS)]


# Lightness and chroma of three neighbours; the dark level between two light ones.
_LEVELS = ((0.70, 0.135), (0.52, 0.150), (0.62, 0.145))
_FIRST_HUE = 250.0  # blue, the colour of the project


def domain_colours(m: int) -> list[tuple[float, float, float]]:
    """Colours of `m` domains by their index, the same in every figure, panel, widget and page.

    They follow the order in which a run or :class:`~rbkit.regroup.Domains` lists its domains,
    never the order in which a picture happens to draw them. They are made in OKLCH (Björn
    Ottosson, 2020), where equal steps look equal. Three levels of lightness alternate, so that
    neighbours differ without hue as well; each has a contrast of at least 2.5:1 with white and
    with black paper.

    Examples
    --------
    >>> [matplotlib.colors.to_hex(colour) for colour in domain_colours(2)]
    ['#57a3ef', '#915c07']
    >>> len(set(domain_colours(300)))
    300
    """
    hues = _FIRST_HUE + 360.0 * np.arange(m) / max(m, 1)
    level = np.array([_LEVELS[i % len(_LEVELS)] for i in range(m)]).reshape(m, 2)
    rgb = _srgb(level[:, 0], level[:, 1], np.deg2rad(hues))
    return [(float(r) / 255, float(g) / 255, float(b) / 255) for r, g, b in rgb]


def _srgb(
    lightness: NDArray[np.float64], chroma: NDArray[np.float64], hue: NDArray[np.float64]
) -> NDArray[np.uint8]:
    """OKLCH to 8-bit sRGB; a colour outside the gamut loses chroma until it fits."""
    for _ in range(20):
        a, b = chroma * np.cos(hue), chroma * np.sin(hue)
        long = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
        medium = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
        short = (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3
        linear = np.stack(
            [
                4.0767416621 * long - 3.3077115913 * medium + 0.2309699292 * short,
                -1.2684380046 * long + 2.6097574011 * medium - 0.3413193965 * short,
                -0.0041960863 * long - 0.7034186147 * medium + 1.7076147010 * short,
            ],
            axis=1,
        )
        outside = ((linear < 0) | (linear > 1)).any(axis=1)
        if not outside.any():
            break
        chroma = np.where(outside, 0.94 * chroma, chroma)
    linear = np.clip(linear, 0, 1)
    gamma = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.asarray(np.rint(255 * gamma), dtype=np.uint8)


def readable(colour: Any) -> str:
    """Darken a colour until text in it has a contrast of 4.5:1 with white (WCAG AA).

    Examples
    --------
    >>> readable("#0072B2"), readable("#3B8EC2")
    ('#0072b2', '#337ba8')
    """
    rgb = np.array(matplotlib.colors.to_rgb(colour))
    while contrast(rgb, (1.0, 1.0, 1.0)) < 4.5:
        rgb = 0.98 * rgb
    return matplotlib.colors.to_hex(tuple(rgb))


def contrast(one: Any, other: Any) -> float:
    """Contrast ratio of two colours as the WCAG define it, from 1 to 21.

    Examples
    --------
    >>> round(contrast("black", "white"), 1)
    21.0
    """
    rgb = np.array([matplotlib.colors.to_rgb(colour) for colour in (one, other)])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    low, high = sorted(linear @ [0.2126, 0.7152, 0.0722])
    return float((high + 0.05) / (low + 0.05))


def label_line_ends(
    ax: Axes, ends: Sequence[tuple[float, float, str, str]], size: float = 9.5
) -> None:
    """Write (x, y, text, colour) to the right of line ends, moved apart where they collide."""
    if not ends:
        return
    ax.autoscale_view()  # lazily put off by matplotlib: without it the limits are not yet true
    order = sorted(range(len(ends)), key=lambda i: ends[i][1])
    to_pixels = ax.transData.transform
    height = ax.get_figure(root=True).dpi * size * 1.25 / 72  # type: ignore[union-attr]
    wanted = [float(to_pixels((ends[i][0], ends[i][1]))[1]) for i in order]
    for i, y in zip(order, spread(wanted, height), strict=True):
        x_data, y_data, text, colour = ends[i]
        offset = (y - float(to_pixels((x_data, y_data))[1])) * 72 / ax.figure.dpi
        type_: dict[str, Any] = {"color": readable(colour), "fontsize": size}
        type_["fontweight"] = "bold"
        place: dict[str, Any] = {"xycoords": "data", "va": "center", "annotation_clip": False}
        note(ax, text, (x_data, y_data), (7, offset), **type_, **place)


def spread(positions: Sequence[float], gap: float) -> list[float]:
    """Move sorted positions as little as needed to be at least `gap` apart.

    Examples
    --------
    >>> spread([0.0, 0.0, 10.0], 2.0)
    [-1.0, 1.0, 10.0]
    """
    # Pool neighbours that collide and centre each pool on its mean (isotonic regression
    # of the positions minus i * gap).
    pools: list[tuple[float, int]] = []
    for i, position in enumerate(positions):
        mean, size = position - i * gap, 1
        while pools and pools[-1][0] > mean:
            other, count = pools.pop()
            mean, size = (mean * size + other * count) / (size + count), size + count
        pools.append((mean, size))
    flat = [mean for mean, size in pools for _ in range(size)]
    return [value + i * gap for i, value in enumerate(flat)]


def legend_above(ax: Axes) -> None:
    """Legend on the line of the title, at the right; else in rows of its own below the title.

    It covers neither a mark nor the title. Call it after the title is set.
    """
    handles, names = ax.get_legend_handles_labels()
    title, room = _left_title(ax), _room(ax)
    type_: dict[str, Any] = {"frameon": False, "fontsize": 9, "borderaxespad": 0.2}
    type_ |= {"handletextpad": 0.3, "columnspacing": 1.2}
    for columns in range(len(names), 0, -1):
        place: dict[str, Any] = {"loc": "lower right", "bbox_to_anchor": (1.0, 1.0)}
        # With handles: labels alone would go to whatever was drawn first, named or not.
        shown = [shorten(name, 34) for name in names]
        legend = ax.legend(handles, shown, ncols=columns, **place, **type_)
        for text in legend.get_texts():
            text.set_parse_math(False)
        with without_glyph_warnings():
            box = legend.get_window_extent()
        if box.width + width_of(title) + 12 <= room:
            return
        if box.width <= max(room, 0.9 * _cell(ax)) or columns == 1:
            break
    _raise_title(ax, box.height * 72 / ax.figure.dpi + 3)


def fit_title(ax: Axes, beside: float = 0.0) -> None:
    """Break the title of a panel into lines that fit its width, and end the third with "…".

    Parameters
    ----------
    ax : Axes
        With its labels of the y-axis in place.
    beside : float
        Points at the right end of the title's line that something else stands on; a title that
        needs them is raised above it.
    """
    title, room = _left_title(ax), _room(ax)
    text, width = title.get_text(), width_of(title)
    if width > room:
        letters = max(int(len(max(text.split("\n"), key=len)) * room / width), 8)
        lines = [part for line in text.split("\n") for part in textwrap.wrap(line, letters)]
        if len(lines) > 3:
            lines[2:] = [shorten(" ".join(lines[2:]), letters)]
        title.set_text("\n".join(lines))
        width = width_of(title)
    if beside and width + beside * ax.figure.dpi / 72 > room:
        _raise_title(ax, 12)


def width_of(text: Text) -> float:
    """Width of a text in pixels, without the arrow of an annotation."""
    with without_glyph_warnings():
        return Text.get_window_extent(text).width


def _left_title(ax: Axes) -> Text:
    # There is no public way to the object, which knows how wide it is.
    return cast(Text, ax._left_title)  # type: ignore[attr-defined]


def _raise_title(ax: Axes, points: float) -> None:
    title = _left_title(ax)
    look: dict[str, Any] = {
        "fontproperties": title.get_fontproperties(),
        "color": title.get_color(),
    }
    ax.set_title(title.get_text(), loc="left", pad=6 + points, **look)


def _cell(ax: Axes) -> float:
    """Width in pixels of the part of the figure that axes have, labels included."""
    spec, figure = ax.get_subplotspec(), ax.figure
    if spec is None:
        return ax.get_window_extent().width
    # Before the layout, only the share is right: the margins are those of another layout.
    whole = spec.get_gridspec().figure.subplotpars  # type: ignore[attr-defined]
    share = spec.get_position(figure).width / (whole.right - whole.left)  # type: ignore[arg-type]
    return float(share * figure.bbox.width)


def _room(ax: Axes) -> float:
    """Width in pixels that axes will have for sure once they are laid out."""
    labels = [width_of(label) for label in ax.get_yticklabels() if label.get_visible()]
    at_the_left = max(labels, default=0.0) + (20 if ax.get_ylabel() else 0)
    return _cell(ax) - at_the_left - 0.2 * ax.figure.dpi


Box = tuple[float, float, float, float]  # left, bottom, right, top, in pixels


def overlap(a: Box, b: Box) -> bool:
    """Whether two boxes share more than an edge."""
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def has_room(box: Box, ax: Axes, taken: Sequence[Box]) -> bool:
    """Whether `box` lies inside `ax` and on none of the boxes `taken`."""
    frame = ax.get_window_extent()
    inside = frame.x0 <= box[0] and box[2] <= frame.x1 and frame.y0 <= box[1] and box[3] <= frame.y1
    return inside and not any(overlap(box, other) for other in taken)


def set_alt(where: Axes | Figure | SubFigure, text: str) -> None:
    """Set the alternative text of axes or of a whole figure."""
    _ALT[where] = " ".join(text.split())


def alt_text(where: Axes | Figure | SubFigure) -> str:
    """Alternative text: as set, else that of the figure's axes one after the other.

    Examples
    --------
    >>> figure = Figure()
    >>> set_alt(figure.subplots(), "Two lines that cross at step 40.")
    >>> alt_text(figure)
    'Two lines that cross at step 40.'
    """
    if where in _ALT:
        return _ALT[where]
    if isinstance(where, Axes):
        return f"Figure: {where.get_title(loc='left') or where.get_title() or 'untitled'}."
    parts = [_ALT[ax] for ax in where.axes if ax in _ALT]
    return " ".join(parts) or " ".join(alt_text(ax) for ax in where.axes[:1]) or "Empty figure."


Mode = Literal["live", "batch", "final", "off"]
_MODES: tuple[str, ...] = get_args(Mode)


def display_mode(given: str | bool | None = None) -> Mode:
    """Return the mode: as given, else ``$RBKIT_DISPLAY``, else ``live`` in an IPython kernel.

    ``live`` shows things while they happen, and widgets; ``batch``, for a notebook that is run
    unattended, a picture now and then and no widgets; ``final`` one figure at the end; ``off``
    nothing. A kernel cannot know whether anyone is watching, so this is never guessed: tools
    that run notebooks in batches set the variable, as ``rbkit run`` and ``rbkit sweep`` do.

    Parameters
    ----------
    given : {"live", "batch", "final", "off"} or bool, optional
        False is ``off``; True and None leave it to the variable, and without one to the
        default, which outside of a kernel is ``final``.

    Examples
    --------
    >>> display_mode("batch"), display_mode(False)
    ('batch', 'off')
    >>> display_mode("hologram")
    Traceback (most recent call last):
        ...
    rbkit.errors.InputError: display: 'hologram' is unknown; use live, batch, final, off
    """
    if given is False:
        return "off"
    where, mode = "display", given
    if given is None or given is True:
        where, mode = "RBKIT_DISPLAY", os.environ.get("RBKIT_DISPLAY")
    if not mode:
        return "live" if in_kernel() else "final"
    if mode not in _MODES:
        raise InputError(where, f"{mode!r} is unknown", f"use {', '.join(_MODES)}")
    return cast(Mode, mode)


def in_kernel() -> bool:
    """Whether this process is an IPython kernel, which can show pictures at all."""
    if "IPython" not in sys.modules:  # then there cannot be one
        return False
    from IPython.core.getipython import get_ipython

    return getattr(get_ipython(), "kernel", None) is not None


def png(fig: Figure | Axes, dpi: int = 200) -> bytes:
    """Render a figure (or the figure of some axes) as PNG, the same bytes each time."""
    buffer, figure = io.BytesIO(), _figure(fig)
    for axis in (axis for ax in figure.axes for axis in (ax.xaxis, ax.yaxis)):
        # Powers of ten are made by matplotlib, as mathematics: no names of a corpus.
        if isinstance(axis.get_major_formatter(), LogFormatter):
            for tick in axis.get_ticklabels(which="both"):
                tick.set_parse_math(True)
    with without_glyph_warnings():
        figure.savefig(
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
    """Silence matplotlib on scripts that the fonts lack: that a box is drawn is not news."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
        warnings.filterwarnings("ignore", "Matplotlib currently does not support", UserWarning)
        yield


def size_of(image: bytes) -> tuple[int, int]:
    """Width and height in pixels of a PNG."""
    width, height = struct.unpack(">II", image[16:24])
    return int(width), int(height)


# Lightness turned round, hues kept: what is drawn on white paper then lies on #141414.
_ON_DARK = "invert(0.92) hue-rotate(180deg)"


def picture_html(address: str, alt: str, width: int, height: int) -> str:
    """Write an image that follows the theme of JupyterLab, Notebook 7 and VS Code.

    In a notebook that is not trusted the style is taken away, and the paper stays white.

    Examples
    --------
    >>> picture_html("data:,", "<b>", 4, 3)[-72:]
    'alt="&lt;b&gt;" width="4" height="3" style="max-width:100%;height:auto">'
    """
    dark = '[data-jp-theme-light="false"] .rbkit-picture,.vscode-dark .rbkit-picture'
    return (
        f"<style>{dark}{{filter:{_ON_DARK}}}</style>"
        f'<img class="rbkit-picture" src="{address}" alt="{escape(alt)}" '
        f'width="{width}" height="{height}" style="max-width:100%;height:auto">'
    )


def bundle(fig: Figure | Axes, dpi: int = 200) -> tuple[dict[str, Any], dict[str, Any]]:
    """MIME bundle and metadata of a figure: PNG and its alternative text.

    Inline SVG and widgets would be blank in notebooks that are not trusted and in offline HTML.
    Where someone looks on (mode ``live``), the PNG stands in HTML as well, which knows the theme.
    """
    image, alt = png(fig, dpi), alt_text(_figure(fig))
    width, height = size_of(image)
    data = {"image/png": base64.b64encode(image).decode("ascii"), "text/plain": alt}
    # Half size: the picture has two pixels for each CSS pixel.
    size = {"width": round(width * 100 / dpi), "height": round(height * 100 / dpi)}
    if display_mode() == "live":
        data["text/html"] = picture_html(f"data:image/png;base64,{data['image/png']}", alt, **size)
    return data, {"image/png": {"alt": alt, **size}}


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

    figure = _figure(fig)
    if get_ipython() is None:
        print(visible(alt_text(figure)))
    else:
        data, metadata = bundle(figure, dpi)
        display(data, metadata=metadata, raw=True)  # type: ignore[no-untyped-call]
    # Figures made by pyplot would be shown once more by the inline backend.
    if pyplot := sys.modules.get("matplotlib.pyplot"):
        pyplot.close(figure)


def _figure(where: Figure | Axes) -> Figure:
    figure = where if isinstance(where, Figure) else where.get_figure(root=True)
    if figure is None:
        raise ValueError("these axes belong to no figure")
    return figure
