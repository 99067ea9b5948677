"""The static twin of the scrubber: small multiples of rounds, proportions and losses."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from rbkit.errors import InputError
from rbkit.show.facts import Array, mixer_of
from rbkit.show.figures.gram import gram_frames
from rbkit.show.figures.losses import loss_curves
from rbkit.show.figures.mixture import proportions, replay_labels
from rbkit.show.gram_layout import Kind, values
from rbkit.show.scrub.rounds import Rounds, scales
from rbkit.show.style import (
    OTHERS,
    alt_text,
    domain_colours,
    mixer_colour,
    rbkit_style,
    set_alt,
    shorten,
)
from rbkit.train.counterfactual import Replay


def frozen(
    runs: Sequence[Rounds], labels: Sequence[str], replayed: Replay | None, n: int, kind: Kind
) -> Figure:
    """Draw `n` Gram matrices of each run on one scale; proportions and losses below them.

    `replayed` is what another mixer would have chosen in the first run.
    """
    if isinstance(n, bool) or not isinstance(n, int) or n < 1:
        raise InputError("n", f"{n!r} rounds cannot be drawn", "use a whole number from 1")
    tracked = [pair for pair in zip(runs, labels, strict=True) if pair[0].has_gram]
    below = len(runs) + (replayed is not None)
    m = max(len(rounds.keys) for rounds in runs)
    side = float(np.clip(0.13 * m, 2.3, 3.6))
    low = float(np.clip(1.4 + 0.15 * m, 3.4, 6.0))
    size = (max(2.2 * n + 2.6, 4.1 * below + 4.6), (side + 0.7) * len(tracked) + low + 0.9)
    heights = [*[side + 0.7] * len(tracked), low + 0.6]
    side = min(side, (size[0] - 2.6) / n)  # of a matrix, next to names and scale
    with rbkit_style():
        figure = Figure(figsize=size, layout="constrained")
        parts = figure.subfigures(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0]
        scale = scales(runs)[kind]
        for (rounds, label), part in zip(tracked, parts, strict=False):
            _grams(part, rounds, label, n, scale, kind, side)
        grid = parts[-1].subplots(1, below + 1, width_ratios=[*[1.0] * below, 1.15])
        for i, (rounds, label) in enumerate(zip(runs, labels, strict=True)):
            _proportions(grid[i], rounds, rounds.p, f"{label}: proportions")
        if replayed is not None:
            label = f"replayed on {labels[0]}: {replay_labels([replayed])[0]}"
            _proportions(grid[below - 1], runs[0], runs[0].shown(replayed.p), label)
        _losses(grid[-1], runs, labels)
    texts = [alt_text(ax) for ax in figure.get_axes() if ax.get_label() != "<colorbar>"]
    if replayed is not None:
        share = f"{replayed.elsewhere:.0%} of the examples"
        texts.append(f"{replayed.mixer} would have drawn {share} from other domains.")
    set_alt(figure, f"Rounds of {' and '.join(labels)}. {' '.join(texts)}")
    return figure


def _grams(
    part: SubFigure, rounds: Rounds, label: str, n: int, scale: float, kind: Kind, side: float
) -> None:
    grams, at = rounds.grams(n)
    axes = part.subplots(1, len(at), squeeze=False)[0]
    order, steps = np.arange(len(rounds.keys)), rounds.edges[at + 1]
    shown = values(grams, kind)
    gram_frames(axes, shown, steps, rounds.names, order, scale, kind=kind, side=side)
    part.suptitle(
        shorten(f"{label}: Gram matrices ({kind})", 90),
        x=0.01,
        ha="left",
        fontsize=11,
        fontweight="bold",
        parse_math=False,
    )


def _proportions(ax: Axes, rounds: Rounds, p: Array, title: str) -> None:
    names, q = rounds.names, rounds.q
    if len(names) < rounds.total:  # one more layer for the domains that are not shown
        names = [*names, f"{rounds.total - len(names):,} others"]
        p = np.column_stack([p, np.clip(1 - p.sum(axis=1), 0, 1)])
        q = None if q is None else np.append(q, max(0.0, 1 - q.sum()))
    run, recorded = rounds.run, len(names) > 0 and bool(np.isfinite(p).all())
    shown = run.with_(
        history={**run.history, **({"p": p, "step": rounds.edges[1:]} if recorded else {"p": []})},
        info={**run.info, "domains": {"names": names, "q": None if q is None else q.tolist()}},
    )
    palette = domain_colours(rounds.total)
    colours = [*(palette[i] for i in rounds.domain_indices), OTHERS][: len(names)]
    proportions(
        shown,
        ax,
        order=range(len(names))[::-1],  # from the top down, as the rows of the matrices
        title=shorten(title, 44),
        colours=colours,
        names=len(names) <= 40,
    )


def _losses(ax: Axes, runs: Sequence[Rounds], labels: Sequence[str]) -> None:
    """Eval loss of each run, and dashed that of its worst domain."""
    loss_curves([rounds.run for rounds in runs], "eval", ax)
    for rounds, label in zip(runs, labels, strict=True):
        if rounds.worst >= 0:
            losses = rounds.by_domain[:, rounds.worst]
            colour = mixer_colour(mixer_of(rounds.run))
            whose = f"{label}, worst" if len(runs) > 1 else "worst domain"
            worst = f"{whose}: {shorten(rounds.names[rounds.worst], 30)}"
            ax.plot(rounds.evaluation[0], losses, color=colour, lw=1.2, ls=(0, (4, 2)), label=worst)
    if ax.get_legend_handles_labels()[0]:
        for text in ax.legend(loc="upper right", frameon=False, fontsize=8.5).get_texts():
            text.set_parse_math(False)
    ax.margins(y=0.08)
    ax.autoscale_view()
