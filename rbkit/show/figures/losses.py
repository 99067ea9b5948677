"""Losses over time and by domain: what training reached, mixer by mixer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from matplotlib.axes import Axes

from rbkit.show.facts import (
    Array,
    RunLike,
    domain_names,
    labels,
    loss_series,
    losses,
    mixer_of,
    parameter,
    same_corpus,
    seed_of,
    smooth,
)
from rbkit.show.style import (
    INK,
    MUTED,
    label_line_ends,
    legend_above,
    mixer_colour,
    mixer_marker,
    new_axes,
    plain_ticks,
    rbkit_style,
    set_alt,
    shorten,
    tidy,
)
from rbkit.text import number, signed

_End = tuple[RunLike, str, float, float]  # a run, its label, and where its line ends


def loss_curves(
    runs: Sequence[RunLike], split: Literal["eval", "train"] = "eval", ax: Axes | None = None
) -> Axes:
    """Loss per token against the step, one colour per mixer, named at the line ends.

    Parameters
    ----------
    runs : sequence of Run
        Runs to compare; those without records of this kind are left out.
    split : {"eval", "train"}
        Eval loss with a mark at each evaluation, or training loss, faint as recorded and
        bold as its moving average.
    ax : matplotlib Axes, optional

    Returns
    -------
    matplotlib Axes
    """
    with rbkit_style():
        ax = new_axes(ax)
        ends: list[_End] = []
        said = []
        for run, name in zip(runs, labels(runs), strict=True):
            steps, values = loss_series(run, split)
            if not len(steps):
                continue
            if split == "train":
                ax.plot(steps, values, color=mixer_colour(mixer_of(run)), alpha=0.18, linewidth=0.9)
                values = smooth(values)
            _line(ax, run, steps, values, marks=split == "eval" or len(steps) == 1)
            ends.append((run, name, float(steps[-1]), float(values[-1])))
            said.append(f"{name} from {number(values[0], 2)} to {number(values[-1])}")
        tidy(ax)
        ax.set_xlabel("optimizer step")
        ax.set_ylabel(f"{split} loss (nats per token)")
        ax.set_title(f"{split.capitalize()} loss")
        if not ends:
            _nothing(ax, f"no {split} loss recorded")
        ax.margins(x=0.02)
        label_line_ends(ax, _end_labels(ends))
        set_alt(ax, f"{split.capitalize()} loss by step: {'; '.join(said) or 'none recorded'}.")
    return ax


def loss_gap(runs: Sequence[RunLike], baseline: str = "Stratified", ax: Axes | None = None) -> Axes:
    """Eval loss of each run minus that of the baseline run at the same step.

    Curves that lie on top of each other in :func:`loss_curves` are told apart here.
    Seeds are paired: a run is compared with the baseline run of its own seed, and left out if
    there is none, or if that had another corpus.
    """
    with rbkit_style():
        ax = new_axes(ax)
        ends: list[_End] = []
        said = []
        for run, name in zip(runs, labels(runs), strict=True):
            base = _baseline(runs, run, baseline)
            if base is None or mixer_of(run) == baseline:
                continue
            reference = dict(zip(*map(np.ndarray.tolist, loss_series(base, "eval")), strict=True))
            steps, values = loss_series(run, "eval")
            both = np.array([step in reference for step in steps], dtype=bool)
            if not both.any():
                continue
            gaps = values[both] - np.array([reference[step] for step in steps[both]])
            _line(ax, run, steps[both], gaps)
            ends.append((run, name, float(steps[both][-1]), float(gaps[-1])))
            said.append(f"{name} ends at {signed(gaps[-1])}")
        ax.axhline(0, color=mixer_colour(baseline), linewidth=1.2, linestyle=(0, (4, 2)))
        tidy(ax)
        ax.set_xlabel("optimizer step")
        ax.set_ylabel("difference (nats per token)")
        ax.set_title(f"Eval loss minus {baseline}: below 0 is better")
        if not ends:
            _nothing(ax, f"no two runs to compare with {baseline}")
        ax.margins(x=0.02)
        label_line_ends(ax, _end_labels(ends, with_value=True))
        said_of = "; ".join(said) or "nothing to compare"
        set_alt(ax, f"Eval loss minus that of {baseline}, below 0 is better: {said_of}.")
    return ax


def loss_by_domain(
    runs: Sequence[RunLike], baseline: str = "Stratified", ax: Axes | None = None
) -> Axes:
    """Draw the final eval loss of each domain, as the difference from the baseline run.

    Of the same seed and corpus; without one the losses themselves are drawn. Domains are sorted by
    the value of the first run that is not the baseline.
    """
    with rbkit_style():
        finished = [run for run in runs if losses(run).by_domain.size]
        names = domain_names(finished[0]) if finished else []
        runs = [run for run in finished if domain_names(run) == names]
        ax = new_axes(ax, 6.4, 1.3 + 0.27 * max(len(names), 4))
        bases = {id(run): _baseline(runs, run, baseline) for run in runs}
        compared = [run for run in runs if mixer_of(run) != baseline and bases[id(run)]]
        relative = bool(compared)
        shown = compared if relative else runs
        values = [
            losses(run).by_domain - (losses(bases[id(run)]).by_domain if relative else 0)  # type: ignore[arg-type]
            for run in shown
        ]
        order = np.argsort(values[0], kind="stable")[::-1] if values else np.arange(0)
        best = ""
        rows = np.arange(len(order))
        if values:
            reach = np.vstack([*values, 0 * values[0]] if relative else values)[:, order]
            low, high = reach.min(axis=0), reach.max(axis=0)
            ax.hlines(rows, low, high, "#c9d0d7", linewidth=1.6, zorder=1)
            ax.set_ylim(-0.7, len(order) - 0.3)
        for run, name, value in zip(shown, labels(shown), values, strict=True):
            colour, marker = mixer_colour(mixer_of(run)), mixer_marker(mixer_of(run))
            ax.plot(value[order], rows, marker, color=colour, mec="white", ms=7, label=name)
            if np.isfinite(value).any():
                least, most = int(np.nanargmin(value)), int(np.nanargmax(value))
                best += (
                    f" {name}: best in {names[least]} ({signed(value[least])}),"
                    f" worst in {names[most]} ({signed(value[most])})."
                )
        if relative:
            ax.axvline(0, color=mixer_colour(baseline), linewidth=1.2, linestyle=(0, (4, 2)))
        tidy(ax, "x")
        ax.grid(True, axis="y", color="#f0f2f4", linewidth=0.7)
        plain_ticks(ax.yaxis, [shorten(names[i], 34) for i in order])
        ax.tick_params(axis="y", length=0)
        what = f"difference from {baseline}, left is better" if relative else "lower is better"
        ax.set_title("Final eval loss by domain")
        ax.set_xlabel(f"nats per token ({what})")
        if len(shown) > 1:
            legend_above(ax, 3)  # the names of domains leave it little room
        if not shown:
            _nothing(ax, "no final losses recorded")
        set_alt(ax, f"Final eval loss of {len(names)} domains, {what}.{best}")
    return ax


def _line(ax: Axes, run: RunLike, steps: Array, values: Array, marks: bool = True) -> None:
    ax.plot(
        steps,
        values,
        color=mixer_colour(mixer_of(run)),
        marker=mixer_marker(mixer_of(run)) if marks else "",
        markersize=4.5,
        markeredgecolor="white",
        markevery=max(1, len(steps) // 14),  # one per evaluation, as long as they stand apart
    )


def _end_labels(
    ends: Sequence[_End], with_value: bool = False
) -> list[tuple[float, float, str, str]]:
    """One label per run; one per mixer, at the mean, where runs differ only in their seed."""
    groups: dict[str, list[_End]] = {}
    for end in ends:
        groups.setdefault(mixer_of(end[0]), []).append(end)
    found = []
    for mixer, members in groups.items():
        seeds = {parameter(run, "seed") for run, *_ in members}
        together = len(seeds) == len(members)
        for _, name, x, y in members[:1] if together else members:
            y = float(np.mean([end[3] for end in members])) if together else y
            text = mixer if together else name
            found.append((x, y, f"{text} {signed(y)}" if with_value else text, mixer_colour(mixer)))
    return found


def _baseline(runs: Sequence[RunLike], run: RunLike, baseline: str) -> RunLike | None:
    """Return the run of the baseline's mixer with the seed and the corpus of `run`, or None."""
    return next(
        (
            other
            for other in runs
            if mixer_of(other) == baseline
            and seed_of(other) == seed_of(run)
            and same_corpus(other, run)
        ),
        None,
    )


def _nothing(ax: Axes, text: str) -> None:
    ax.text(0.5, 0.5, text, transform=ax.transAxes, ha="center", va="center", color=MUTED)
    ax.tick_params(labelbottom=False, labelleft=False, colors=INK)
