"""One frame of the live view: a picture of a run in training, and the words that stand for it.

The picture is SVG inside ``<img src="data:...">``: inline SVG is stripped from notebooks that
are not trusted, and widgets are blank there and in exported pages.
"""

from __future__ import annotations

import base64
from html import escape

import numpy as np

from rbkit.show.gram_figure import extremes
from rbkit.show.live.facts import LiveFacts
from rbkit.show.live.gram_part import gram_part
from rbkit.show.live.loss_part import loss_part
from rbkit.show.live.mixture_part import mixture_part
from rbkit.show.live.scale import Kind, Scale, values
from rbkit.show.live.svg import document, path, rect, text
from rbkit.show.live.told import duration, percent, status_said, whole
from rbkit.show.style import INK, MUTED, RULE, number

WIDTH, HEIGHT = 1040, 520
_STATUS = {"running": "#0072B2", "ok": "#00835F", "failed": "#B3403A", "killed": "#B3403A",
           "interrupted": "#96562A", "waiting": MUTED}  # fmt: skip


def frame_svg(facts: LiveFacts, kind: Kind = "cosine", scale: float | None = None) -> str:
    """Draw a run as it is now.

    Parameters
    ----------
    facts : LiveFacts
    kind : {"cosine", "raw"}
        Cosines of the domain gradients, or inner products as the mixer saw them.
    scale : float, optional
        Colours go from -scale to scale; by the matrix of these facts alone if not given.

    Returns
    -------
    str
        An SVG document.
    """
    if scale is None:
        scale = Scale(kind).see([] if facts.gram is None else [facts.gram])
    return document(WIDTH, HEIGHT, [
        *_head(facts),
        *gram_part(facts, kind, scale, 182, 92, 316),
        *mixture_part(facts, 560, 78, 270, 142),
        *loss_part(facts, 560, 276, 270, 146),
        *_numbers(facts),
    ])  # fmt: skip


def frame_html(
    facts: LiveFacts, kind: Kind = "cosine", scale: float | None = None, hint: str = ""
) -> str:
    """Write a frame as the output of a cell: the picture, its alternative text, and a hint."""
    image = base64.b64encode(frame_svg(facts, kind, scale).encode("utf-8")).decode("ascii")
    # Width and height keep the place of the picture while the next one is decoded: no flicker.
    return (
        f'<img src="data:image/svg+xml;base64,{image}" alt="{escape(alt(facts, kind))}" '
        f'width="{WIDTH}" height="{HEIGHT}" style="max-width:100%;height:auto">'
        f'<div style="font-size:12px;min-height:18px">{escape(hint)}</div>'
    )


def alt(facts: LiveFacts, kind: Kind = "cosine") -> str:
    """Say in words what a frame shows."""
    said = [f"{facts.name}, {facts.status}, step {facts.step:,} of {facts.steps or '?'}"]
    for what, series in (("training loss", facts.train), ("eval loss", facts.evaluation)):
        if len(series.values):
            said.append(f"{what} {number(float(series.values[-1]))}")
    if facts.worst_name is not None:
        said.append(f"highest in {facts.worst_name} {number(float(facts.worst.values[-1]))}")
    if len(facts.p):
        top = np.argsort(facts.p[-1])[::-1][:3]
        shares = ", ".join(f"{facts.names[i]} {facts.p[-1][i]:.0%}" for i in top)
        said.append(f"largest domains {shares}")
        said.append(f"{number(facts.effective, 1)} effective domains")
    if facts.gram is not None:
        what = "cosines" if kind == "cosine" else "inner products"
        said.append(
            f"{what} of domain gradients: {extremes(values(facts.gram, kind), facts.names)}"
        )
    if facts.error:
        said.append(facts.error)
    return "; ".join(said) + "."


def _head(facts: LiveFacts) -> list[str]:
    colour = _STATUS.get(facts.status, INK)
    of = f" of {facts.steps:,}" if facts.steps else ""
    parts = [
        text(22, 32, facts.name, size=19, bold=True, width=34),
        text(498, 32, f"step {facts.step:,}{of}", size=14, anchor="end"),
        text(WIDTH - 20, 32, status_said(facts), size=14, anchor="end", colour=colour, bold=True),
    ]
    if facts.steps:
        done = min(1.0, facts.step / facts.steps)
        parts += [rect(560, 22, 270, 8, RULE, rx=4), rect(560, 22, 270 * done, 8, colour, rx=4)]
        parts.append(text(842, 32, f"{done:.0%}", size=14, colour=MUTED))
    if facts.error:
        parts.append(text(22, 52, facts.error, size=11.5, colour=_STATUS["failed"], width=90))
    return parts


def _numbers(facts: LiveFacts) -> list[str]:
    """Write the row of numbers at the bottom, each with what it is."""
    target = f"q: {_effective(facts.effective_target)}"
    noise = None if facts.noise_share is None else 100 * facts.noise_share
    shown = [
        ("effective domains", _effective(facts.effective), target),
        ("noise in G's diagonal", percent(noise), ""),
        ("tokens per second", whole(facts.tokens_per_second), ""),
        ("time left", duration(facts.eta_seconds), ""),
        ("price of adapting p", percent(facts.overhead.seconds), "of time"),
        ("", percent(facts.overhead.flops), "of FLOPs"),
        ("this view", percent(facts.watch_percent), "of time"),
    ]
    parts = [path(f"M22 {HEIGHT - 58}H{WIDTH - 20}", RULE, 1)]
    places = (22, 172, 318, 446, 575, 715, 880)
    for at, (what, value, beside) in zip(places, shown, strict=True):
        parts.append(text(at, HEIGHT - 38, what, size=11.5, colour=MUTED))
        parts.append(text(at, HEIGHT - 17, value, size=16, bold=True, more=beside))
    return parts


def _effective(value: float | None) -> str:
    return number(value, 1 if value is not None and value < 100 else 0)
