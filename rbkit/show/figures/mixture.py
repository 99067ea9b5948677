"""Proportions over time: of one run, of several, and as other rules would have chosen them."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from rbkit.balance.mixers.registry import MIXERS
from rbkit.show.facts import Array, domain_names, labels, proportions_in_force, target
from rbkit.show.gram_layout import domain_order
from rbkit.show.style import (
    INK,
    MUTED,
    domain_colours,
    fit_title,
    label_line_ends,
    mixer_colour,
    mixer_marker,
    new_axes,
    rbkit_style,
    say_nothing,
    set_alt,
    shorten,
    spread,
    tidy,
    width_of,
)
from rbkit.train.run import Run

if TYPE_CHECKING:
    from rbkit.balance.mixers.base import Mixer
    from rbkit.train.counterfactual import Replay

_Colours = Sequence[tuple[float, float, float]]


def proportions(
    run: Run,
    ax: Axes | None = None,
    *,
    order: Sequence[int] | NDArray[np.int64] | None = None,
    names: bool = True,
    title: str | None = None,
    colours: _Colours | None = None,
) -> Axes:
    """Proportions p of each round as a stacked area, with q as a bar at the right edge.

    Parameters
    ----------
    run : Run
        A run with a history.
    ax : matplotlib Axes, optional
    order : sequence of int, optional
        Order of the domains from bottom to top; if not given, by similarity of gradients, from
        the top down as the rows of a Gram matrix.
    names : bool
        Whether to write the names of the domains (the biggest, if not all fit) next to q.
    title : str, optional
    colours : sequence of RGB, optional
        Colours of the domains by index, if not those of :func:`domain_colours`.

    Returns
    -------
    matplotlib Axes
    """
    with rbkit_style():
        ax = new_axes(ax, 8.4, 4.2)
        p, edges = proportions_in_force(run)
        rule = labels([run])[0]
        ax.set_title(title or f"Proportions under {rule}")
        if not len(p):
            say_nothing(ax, "no history recorded")
            set_alt(ax, "Proportions over time: no history recorded.")
            return ax
        m = p.shape[1]
        domains = domain_names(run, m)
        order = list(domain_order(run.history)[::-1] if order is None else order)
        colours = domain_colours(m) if colours is None else colours
        colours = [colours[i] for i in order]
        stacked = np.vstack([np.zeros(len(p)), np.cumsum(p[:, order], axis=1).T])
        for row, colour in enumerate(colours):
            low, high = (np.append(s, s[-1]) for s in (stacked[row], stacked[row + 1]))
            ax.fill_between(edges, low, high, step="post", color=colour, lw=0)
            ax.step(edges, high, where="post", color="white", lw=0.7 if m <= 60 else 0)
        span = float(edges[-1] - edges[0]) or 1.0
        q = target(run)
        q = None if q is None or len(q) != m else q[order]
        if q is not None:
            _target_bar(ax, q, colours, float(edges[-1]) + 0.02 * span, 0.05 * span)
        if names:
            # Where there is no q, the names go next to the last p.
            shares = np.asarray(run.history["p"], dtype=np.float64)[-1][order] if q is None else q
            weight = np.maximum(p[-1], p.mean(axis=0))[order]
            middles = np.cumsum(shares) - shares / 2
            _names(ax, [domains[i] for i in order], middles, weight, edges[-1] + 0.08 * span)
        tidy(ax, None)
        ax.set_xlim(edges[0], edges[-1] + 0.075 * span)
        ax.set_ylim(0, 1)
        ax.spines[["left", "bottom"]].set_visible(False)
        ax.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0", "25", "50", "75", "100 %"])
        # No tick under the bar of q, which is not a step.
        ax.set_xticks([tick for tick in ax.get_xticks() if edges[0] <= tick <= edges[-1]])
        ax.set_xlabel("optimizer step")
        fit_title(ax, 0 if q is None else 14 + names * _width_of_names(ax))
        top = np.argsort(p[-1])[::-1][:3]
        largest = ", ".join(f"{domains[i]} {p[0, i]:.0%} to {p[-1, i]:.0%}" for i in top)
        set_alt(
            ax,
            f"Proportions of {m} domains over {len(p)} rounds under {rule}; "
            f"largest at the end: {largest}. A bar at the right edge shows the target "
            "proportions q.",
        )
    return ax


def _target_bar(ax: Axes, q: Array, colours: _Colours, left: float, width: float) -> None:
    bottoms = np.cumsum(q) - q
    ax.bar(left, q, width, bottoms, align="edge", color=colours, edgecolor="white", linewidth=0.7)
    bold = {"color": INK, "fontstyle": "italic", "fontweight": "bold"}
    ax.text(left + width / 2, 1.015, "q", ha="center", va="bottom", **bold)  # type: ignore[arg-type]


def _names(ax: Axes, names: list[str], middles: Array, weight: Array, x: float) -> None:
    """Write as many names as fit, those of the largest weight, each with a line to its layer."""
    height = ax.get_window_extent().height * 72 / ax.figure.dpi  # points
    room = max(int(height / 10.2), 1)
    named = sorted(np.argsort(weight, kind="stable")[::-1][:room])
    gap = 10.2 / height
    places = np.array(spread([float(middles[i]) for i in named], gap))
    places += max(0.0, gap / 2 - places[0])  # stay above the lower edge
    places -= max(0.0, places[-1] - (1 - gap / 2))
    line = {"arrowstyle": "-", "color": MUTED, "lw": 0.5, "shrinkA": 1, "shrinkB": 0}
    for i, y in zip(named, places, strict=True):
        ax.annotate(
            shorten(names[i], 30),
            (x, middles[i]),
            xytext=(x * 1.025, y),
            va="center",
            ha="left",
            fontsize=8.5,
            color=INK,
            annotation_clip=False,
            arrowprops={**line, "relpos": (0, 0.5)},
        )


def _width_of_names(ax: Axes) -> float:
    """Points that the names at the right edge take from the width of the axes."""
    return 72 * max(map(width_of, ax.texts), default=0.0) / ax.figure.dpi


def proportions_side_by_side(runs: Sequence[Run]) -> Figure:
    """Proportions of several runs in one row, domains in the same order and colour in all."""
    runs = [run for run in runs if len(proportions_in_force(run)[0])]
    sizes = [proportions_in_force(run)[0].shape[1] for run in runs]
    n = max(len(runs), 1)
    with rbkit_style():
        # High enough for the names of all domains.
        height = max(4.3, 1.4 + 0.15 * max(sizes, default=0))
        figure = Figure(figsize=(3.1 * n + 2.6, height), layout="constrained")
        axes = np.atleast_1d(figure.subplots(1, n, sharey=True))
        tracked = [run for run in runs if "gram" in run.history] or runs
        order = domain_order(tracked[0].history)[::-1] if tracked else np.arange(0)
        for i, (run, m, title) in enumerate(zip(runs, sizes, labels(runs), strict=True)):
            same = order if len(order) == m else None
            proportions(run, axes[i], order=same, names=i == n - 1, title=title)
            if i:
                axes[i].tick_params(labelleft=False)
    return figure


# --------------------------------------------------------------------------------------- replays

_MOST_IN_A_ROW = 4
# The fixed colours of mixers first: blue is R&B's, orange Target's. None is close to another.
_LINE_COLOURS = ("#A23B7C", "#8A6D00", "#00835F", "#7A4FBF", "#59636e", "#0072B2", "#D55E00")


def replays(run: Run, mixers: Sequence[Mixer | str | Replay]) -> Figure:
    """Draw what each rule would have chosen, from the signals of one run, without training.

    Small multiples of the proportions, the run's own first, domains in one order and colour;
    below them, the total variation distance of each rule to what was sampled.

    Parameters
    ----------
    run : Run
        A run folder that recorded what the rules need.
    mixers : sequence of Mixer, str or Replay
        Rules, their names, or replays that were made already.

    Returns
    -------
    matplotlib Figure

    Raises
    ------
    InputError
        If the run did not record what a rule needs.
    """
    from rbkit.train.counterfactual import Replay, replay

    made = [each if isinstance(each, Replay) else replay(run, each) for each in mixers]
    own = labels([run])[0]
    shown = [(f"sampled: {own}", own, np.asarray(run.history["p"]))]
    shown += [(rule, rule, each.p) for rule, each in zip(replay_labels(made), made, strict=True)]
    columns = min(len(shown), _MOST_IN_A_ROW)
    rows = -(-len(shown) // columns)
    with rbkit_style():
        m = shown[0][2].shape[1]
        height = max(3.0, 1.2 + 0.15 * m)
        figure = Figure(figsize=(2.5 * columns + 2.4, height * rows + 2.5), layout="constrained")
        grid = figure.add_gridspec(rows + 1, columns, height_ratios=[*[height] * rows, 2.5])
        order = domain_order(run.history)[::-1] if "gram" in run.history else np.arange(m)[::-1]
        for i, (title, rule, p) in enumerate(shown):
            ax = figure.add_subplot(grid[divmod(i, columns)])
            name, _, options = title.partition("(")
            # The alternative text names the rule of the panel.
            parameters = {**(run.info.get("parameters") or {}), "mixer": rule}
            info = {**run.info, "parameters": parameters}
            view = run.with_(info=info, history={**run.history, "p": p})
            proportions(view, ax, order=order, names=i % columns == columns - 1, title=name)
            # Above the "q" at the right, and options on a line of their own: panels are narrow.
            wrapped = textwrap.fill(options.removesuffix(")"), 30)
            ax.set_title("\n".join(filter(None, [name, wrapped])), fontsize=10, pad=17)
            fit_title(ax)
            if i % columns:
                ax.tick_params(labelleft=False)
        replay_distance(made, figure.add_subplot(grid[rows, :]))
    return figure


def replay_distance(replays: Sequence[Replay], ax: Axes | None = None) -> Axes:
    """Total variation distance of replays to what their run sampled, round by round.

    It is the share of the examples that a rule would have drawn from other domains.

    Parameters
    ----------
    replays : sequence of Replay
    ax : matplotlib Axes, optional

    Returns
    -------
    matplotlib Axes
    """
    with rbkit_style():
        ax = new_axes(ax, 6.4, 2.8)
        ends, words, used = [], [], list[str]()
        for label, each in zip(replay_labels(replays), replays, strict=True):
            # The colour of the rule, once; the others get those far from it.
            own = mixer_colour(each.mixer)
            free = [c for c in (own, *_LINE_COLOURS) if c in _LINE_COLOURS and c not in used]
            used.append(colour := free[0] if free else own)
            steps = np.concatenate([[0], each.step])
            marker = mixer_marker(each.mixer)
            ax.plot(steps, each.distance, color=colour, marker=marker, ms=4.5, mec="white")
            ends.append((float(steps[-1]), float(each.distance[-1]), label, colour))
            words.append(f"{label} {each.elsewhere:.0%} on average")
        tidy(ax)
        ax.set_ylim(bottom=0)
        ax.margins(x=0.02)
        ticks = ax.get_yticks()
        ax.set_yticks(ticks, [f"{100 * tick:.3g} %" for tick in ticks])
        ax.set_ylim(bottom=0)
        ax.set_xlabel("optimizer step")
        ax.set_title("Share of examples that would have come from other domains")
        label_line_ends(ax, ends)
        summary = "; ".join(words) or "no replay"
        set_alt(ax, f"Total variation distance to what was sampled, by round: {summary}.")
    return ax


def replay_labels(replays: Sequence[Replay]) -> list[str]:
    """Name each replay by its rule and the options that are not at their defaults."""
    result = []
    for each in replays:
        rule = MIXERS.get(each.mixer)
        # From the fields, not from an instance: some rules need a package, or an argument.
        declared = getattr(rule, "__dataclass_fields__", None)
        usual = {} if rule is None else each.options
        if declared is not None:
            usual = {name: field.default for name, field in declared.items()}
        options = ", ".join(f"{k}={v}" for k, v in each.options.items() if usual.get(k) != v)
        result.append(f"{each.mixer}({options})" if options else each.mixer)
    return result
