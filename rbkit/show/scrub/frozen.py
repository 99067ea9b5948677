"""The static twin of the scrubber: small multiples of rounds, proportions and losses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from rbkit.errors import InputError
from rbkit.show.facts import Altered, Array, mixer_of
from rbkit.show.figures.gram import gram_frames
from rbkit.show.figures.losses import loss_curves
from rbkit.show.figures.mixture import proportions, replay_labels
from rbkit.show.gram_layout import to_cosine
from rbkit.show.scrub.rounds import Rounds, scales
from rbkit.show.style import alt_text, domain_colours, mixer_colour, rbkit_style, set_alt, shorten
from rbkit.train.counterfactual import Replay


def frozen(
    runs: Sequence[Rounds],
    labels: Sequence[str],
    replayed: Replay | None,
    n: int,
    kind: Literal["cosine", "raw"],
) -> Figure:
    """Draw `n` Gram matrices of each run on one scale; proportions and losses below them.

    Parameters
    ----------
    runs, labels : sequence of Rounds and str
    replayed : Replay or None
        What another mixer would have chosen in the first run.
    n : int
    kind : {"cosine", "raw"}
    """
    if isinstance(n, bool) or not isinstance(n, int) or n < 1:
        raise InputError("n", f"{n!r} rounds cannot be drawn", "use a whole number from 1")
    tracked = [
        (rounds, label) for rounds, label in zip(runs, labels, strict=True) if rounds.has_gram
    ]
    below = len(runs) + (replayed is not None)
    m = max(len(rounds.keys) for rounds in runs)
    side = float(np.clip(0.13 * m, 2.3, 3.6))
    low = float(np.clip(1.4 + 0.15 * m, 3.4, 6.0))
    wide = side + 0.7
    with rbkit_style():
        figure = Figure(
            figsize=(max(2.2 * n + 2.6, 4.1 * below + 4.6), wide * len(tracked) + low + 0.9),
            layout="constrained",
        )
        parts = figure.subfigures(
            len(tracked) + 1, 1, squeeze=False, height_ratios=[*[wide] * len(tracked), low + 0.6]
        )[:, 0]
        scale = scales(runs)[kind]
        for (rounds, label), part in zip(tracked, parts, strict=False):
            at = np.unique(np.linspace(0, len(rounds.at) - 1, min(n, len(rounds.at))).round())
            _grams(
                part.subplots(1, len(at), squeeze=False)[0],
                rounds,
                at.astype(int),
                scale,
                kind,
                side,
            )
            part.suptitle(
                shorten(f"{label}: Gram matrices ({kind})", 90),
                x=0.01,
                ha="left",
                fontsize=11,
                fontweight="bold",
                parse_math=False,
            )
        grid = parts[-1].subplots(1, below + 1, width_ratios=[*[1.0] * below, 1.15])
        for i, (rounds, label) in enumerate(zip(runs, labels, strict=True)):
            _proportions(grid[i], rounds, rounds.p, f"{label}: proportions")
        if replayed is not None:
            label = f"replayed on {labels[0]}: {replay_labels([replayed])[0]}"
            _proportions(grid[below - 1], runs[0], runs[0].rows(replayed.p), label)
        _losses(grid[-1], runs, labels)
    said = [alt_text(ax) for ax in figure.get_axes() if ax.get_label() != "<colorbar>"]
    if replayed is not None:
        said.append(
            f"{replayed.mixer} would have drawn {replayed.elsewhere:.0%} of the "
            "examples from other domains."
        )
    set_alt(figure, f"Rounds of {' and '.join(labels)}. {' '.join(said)}")
    return figure


def _grams(
    axes: NDArray[np.object_],
    rounds: Rounds,
    at: NDArray[np.int64],
    scale: float,
    kind: Literal["cosine", "raw"],
    side: float,
) -> None:
    grams = np.stack([rounds.gram(int(t)) for t in at])
    grams = to_cosine(grams) if kind == "cosine" else grams
    order = np.arange(len(rounds.keys))
    gram_frames(axes, grams, rounds.edges[at + 1], rounds.names, order, scale, kind=kind, side=side)


def _proportions(ax: Axes, rounds: Rounds, p: Array, title: str) -> None:
    names, q = rounds.names, rounds.q
    if len(names) < rounds.total:  # what is not shown by name makes a stack whole
        names = [*names, f"{rounds.total - len(names):,} others"]
        p = np.column_stack([p, np.clip(1 - p.sum(axis=1), 0, 1)])
        q = None if q is None else np.append(q, max(0.0, 1 - q.sum()))
    known = {"names": names, "q": None if q is None else q.tolist()}
    seen = Altered(rounds.run, {"p": p, "step": rounds.edges[1:]}, {"domains": known})
    if not names or not np.isfinite(p).all():
        seen = Altered(rounds.run, {"p": []}, {"domains": known})
    # From the top down, as the rows of the matrices, in the widget's colours.
    colours = [*domain_colours(max(len(rounds.keys), 1)), (0.6, 0.62, 0.65)][: len(names)]
    order = list(range(len(names)))[::-1]
    proportions(
        seen,
        ax,
        order=order,
        title=shorten(title, 44),
        colours=colours[::-1],
        names=len(names) <= 40,
    )


def _losses(ax: Axes, runs: Sequence[Rounds], labels: Sequence[str]) -> None:
    """Eval loss of each run, and dashed that of its worst domain."""
    loss_curves([rounds.run for rounds in runs], "eval", ax)
    for rounds, label in zip(runs, labels, strict=True):
        if rounds.worst >= 0:
            values = rounds.by_domain[:, rounds.worst]
            colour = mixer_colour(mixer_of(rounds.run))
            whose = f"{label}, worst" if len(runs) > 1 else "worst domain"
            worst = f"{whose}: {shorten(rounds.names[rounds.worst], 30)}"
            ax.plot(rounds.evaluation[0], values, color=colour, lw=1.2, ls=(0, (4, 2)), label=worst)
    if ax.get_legend_handles_labels()[0]:
        for text in ax.legend(loc="upper right", frameon=False, fontsize=8.5).get_texts():
            text.set_parse_math(False)
    ax.margins(y=0.08)
    ax.autoscale_view()
