"""Replays side by side: what several rules would have sampled in one recorded run."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rbkit.balance.mixers.registry import MIXERS
from rbkit.show.facts import Altered, RunLike, labels
from rbkit.show.gram_figure import domain_order
from rbkit.show.mixture import proportions
from rbkit.show.style import (
    label_line_ends,
    mixer_colour,
    mixer_marker,
    new_axes,
    rbkit_style,
    set_alt,
    tidy,
)

if TYPE_CHECKING:
    from rbkit.balance.mixers.base import Mixer
    from rbkit.train.replayed import Replay

_MOST_IN_A_ROW = 4
# Those of the house first: blue is R&B's, orange Target's. None is close to another.
_INKS = ("#A23B7C", "#8A6D00", "#00835F", "#7A4FBF", "#59636e", "#0072B2", "#D55E00")


def replays(run: RunLike, mixers: Sequence[Mixer | str | Replay]) -> Figure:
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
    found = _replayed(run, mixers)
    shown = [(f"sampled: {labels([run])[0]}", np.asarray(run.history["p"]))]
    shown += [(label, r.p) for label, r in zip(replay_labels(found), found, strict=True)]
    columns = min(len(shown), _MOST_IN_A_ROW)
    rows = -(-len(shown) // columns)
    with rbkit_style():
        m = shown[0][1].shape[1]
        height = max(3.0, 1.2 + 0.15 * m)
        figure = Figure(figsize=(2.5 * columns + 2.4, height * rows + 2.5), layout="constrained")
        grid = figure.add_gridspec(rows + 1, columns, height_ratios=[*[height] * rows, 2.5])
        order = domain_order(run.history) if "gram" in run.history else np.arange(m)
        for i, (title, p) in enumerate(shown):
            ax = figure.add_subplot(grid[divmod(i, columns)])
            name, _, options = title.partition("(")
            proportions(
                Altered(run, {"p": p}),
                ax,
                order=order,
                names=i % columns == columns - 1,
                title=name,
            )
            # Above the "q" at the right, and options on a line of their own: panels are narrow.
            wrapped = textwrap.fill(options.removesuffix(")"), 30)
            ax.set_title("\n".join(filter(None, [name, wrapped])), fontsize=10, pad=17)
            if i % columns:
                ax.tick_params(labelleft=False)
        replay_distance(found, figure.add_subplot(grid[rows, :]))
    return figure


def replay_distance(found: Sequence[Replay], ax: Axes | None = None) -> Axes:
    """Total variation distance of replays to what their run sampled, round by round.

    It is the share of the examples that a rule would have drawn from other domains.

    Parameters
    ----------
    found : sequence of Replay
    ax : matplotlib Axes, optional

    Returns
    -------
    matplotlib Axes
    """
    with rbkit_style():
        ax = new_axes(ax, 6.4, 2.8)
        ends, said = [], []
        looks = _looks(found)
        for i, (label, each) in enumerate(zip(replay_labels(found), found, strict=True)):
            steps = np.concatenate([[0], each.step])
            colour, marker = looks[i]
            ax.plot(steps, each.distance, color=colour, marker=marker, ms=4.5, mec="white")
            ends.append((float(steps[-1]), float(each.distance[-1]), label, colour))
            said.append(f"{label} {each.elsewhere:.0%} on average")
        tidy(ax)
        ax.set_ylim(bottom=0)
        ax.margins(x=0.02)
        ticks = ax.get_yticks()
        ax.set_yticks(ticks, [f"{100 * tick:.3g} %" for tick in ticks])
        ax.set_ylim(bottom=0)
        ax.set_xlabel("optimizer step")
        ax.set_title("Share of examples that would have come from other domains")
        label_line_ends(ax, ends)
        set_alt(
            ax, "Total variation distance to what was sampled, by round: "
            f"{'; '.join(said) or 'no replay'}.",
        )  # fmt: skip
    return ax


def replay_labels(found: Sequence[Replay]) -> list[str]:
    """Name each replay by its rule and the options that are not at their defaults."""
    result = []
    for each in found:
        rule = MIXERS.get(each.mixer)
        # From the fields, not from an instance: some rules need a package, or an argument.
        declared = getattr(rule, "__dataclass_fields__", None)
        usual = {} if rule is None else each.options
        if declared is not None:
            usual = {name: field.default for name, field in declared.items()}
        told = ", ".join(f"{k}={v}" for k, v in each.options.items() if usual.get(k) != v)
        result.append(f"{each.mixer}({told})" if told else each.mixer)
    return result


def _replayed(run: RunLike, mixers: Sequence[Mixer | str | Replay]) -> list[Replay]:
    from rbkit.train.replayed import Replay, replay

    return [each if isinstance(each, Replay) else replay(run, each) for each in mixers]


def _looks(found: Sequence[Replay]) -> list[tuple[str, str]]:
    """Colour and marker of each: the house's colour of a rule, once, and others far from it."""
    colours: list[str] = []
    for each in found:
        own = mixer_colour(each.mixer)
        free = [ink for ink in (own, *_INKS) if ink in _INKS and ink not in colours]
        colours.append(free[0] if free else own)
    return [(colour, mixer_marker(r.mixer)) for colour, r in zip(colours, found, strict=True)]
