"""Losses over time and by domain: what training reached, mixer by mixer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from matplotlib.axes import Axes

from rbkit.show.facts import (
    Array,
    Measure,
    domain_names,
    labels,
    loss_series,
    loss_unit,
    measure_of,
    mixer_of,
    parameter,
    same_corpus,
    seed_of,
    smooth,
)
from rbkit.show.style import (
    DASHED,
    label_line_ends,
    label_rows,
    legend_above,
    mixer_colour,
    mixer_marker,
    new_axes,
    rbkit_style,
    say_nothing,
    set_alt,
    shorten,
    tidy,
)
from rbkit.text import number, signed
from rbkit.train.run import Run

_End = tuple[Run, str, float, float]  # a run, its label, and where its line ends


def loss_curves(
    runs: Sequence[Run],
    split: Literal["eval", "train"] = "eval",
    ax: Axes | None = None,
    *,
    metric: str | None = None,
) -> Axes:
    """Loss, or a metric, against the step; a colour per mixer, named at the line ends.

    Parameters
    ----------
    runs : sequence of Run
        Runs to compare; those without records of this kind are left out.
    split : {"eval", "train"}
        Eval loss with a mark at each evaluation, or training loss, faint as recorded and
        bold as its moving average.
    ax : matplotlib Axes, optional
    metric : str, optional
        A metric that the runs recorded, in place of the eval loss.

    Returns
    -------
    matplotlib Axes
    """
    what = metric or f"{split} loss"
    split = "eval" if metric else split
    with rbkit_style():
        ax = new_axes(ax)
        ends: list[_End] = []
        words = []
        for run, name in zip(runs, labels(runs), strict=True):
            of_train = split == "train"
            steps, values = loss_series(run, split) if of_train else Measure(metric).series(run)
            if not len(steps):
                continue
            colour = mixer_colour(mixer_of(run))
            if split == "train":
                ax.plot(steps, values, color=colour, alpha=0.18, linewidth=0.9)
                values = smooth(values)
            ax.plot(
                steps,
                values,
                color=colour,
                marker=mixer_marker(mixer_of(run)) if split == "eval" or len(steps) == 1 else "",
                markersize=4.5,
                markeredgecolor="white",
                label=name,
                markevery=max(1, len(steps) // 14),  # one per evaluation while they have room
            )
            ends.append((run, name, float(steps[-1]), float(values[-1])))
            words.append(f"{name} from {number(values[0], 2)} to {number(values[-1])}")
        tidy(ax)
        ax.set_xlabel("optimizer step")
        ax.set_ylabel(metric or f"{split} loss ({loss_unit(run for run, *_ in ends)})")
        ax.set_title(metric or f"{split.capitalize()} loss")
        if not ends:
            say_nothing(ax, f"no {what} recorded")
        ax.margins(x=0.02)
        label_line_ends(ax, _end_labels(ends))
        title = metric or what.capitalize()
        set_alt(ax, f"{title} by step: {'; '.join(words) or 'none recorded'}.")
    return ax


def _end_labels(ends: Sequence[_End]) -> list[tuple[float, float, str, str]]:
    """One label per run; one per mixer, at the mean, where runs differ only in their seed."""
    groups: dict[str, list[_End]] = {}
    for end in ends:
        groups.setdefault(mixer_of(end[0]), []).append(end)
    placed = []
    for mixer, members in groups.items():
        colour = mixer_colour(mixer)
        if len({parameter(run, "seed") for run, *_ in members}) == len(members):
            y = float(np.mean([end[3] for end in members]))
            placed.append((members[0][2], y, mixer, colour))
        else:
            placed += [(x, y, name, colour) for _, name, x, y in members]
    return placed


def loss_by_domain(
    runs: Sequence[Run],
    baseline: str = "Stratified",
    ax: Axes | None = None,
    *,
    metric: str | None = None,
    higher_is_better: bool | None = None,
) -> Axes:
    """Draw the final eval loss or metric of each domain, as the difference from the baseline run.

    The baseline run is the one with the same seed and corpus; where there is none, the losses
    themselves are drawn. Domains are sorted by the value of the first run that is not the
    baseline.

    Parameters
    ----------
    runs : sequence of Run
        Those without final losses, or with other domains than the first, are left out.
    baseline : str
        Name of the baseline's mixer.
    ax : matplotlib Axes, optional
    metric : str, optional
        A metric that the runs recorded, in place of the loss.
    higher_is_better : bool, optional
        Of the metric; as recorded if not given.

    Returns
    -------
    matplotlib Axes
    """
    measure = measure_of(runs, metric, higher_is_better)
    with rbkit_style():
        finished = [run for run in runs if measure.by_domain(run).size]
        names = domain_names(finished[0]) if finished else []
        runs = [run for run in finished if domain_names(run) == names]
        ax = new_axes(ax, 6.4, 1.3 + 0.27 * max(len(names), 4))
        others = [run for run in runs if mixer_of(run) != baseline]
        gaps = [(run, _gap(runs, run, baseline, measure)) for run in others]
        compared = [(run, gap) for run, gap in gaps if gap is not None]
        relative = bool(compared)
        rows = compared or [(run, measure.by_domain(run)) for run in runs]
        shown, values = [run for run, _ in rows], [value for _, value in rows]
        order = np.argsort(values[0], kind="stable")[::-1] if values else np.arange(0)
        y = np.arange(len(order))
        if values:
            spans = np.vstack([*values, 0 * values[0]] if relative else values)[:, order]
            ax.hlines(y, spans.min(axis=0), spans.max(axis=0), "#c9d0d7", linewidth=1.6, zorder=1)
            ax.set_ylim(-0.7, len(order) - 0.3)
        words = ""
        for run, name, value in zip(shown, labels(shown), values, strict=True):
            colour, marker = mixer_colour(mixer_of(run)), mixer_marker(mixer_of(run))
            ax.plot(value[order], y, marker, color=colour, mec="white", ms=7, label=name)
            if np.isfinite(value).any():
                ends = [int(np.nanargmin(value)), int(np.nanargmax(value))]
                best, worst = ends[::-1] if measure.higher_is_better else ends
                words += (
                    f" {name}: best in {names[best]} ({signed(value[best])}),"
                    f" worst in {names[worst]} ({signed(value[worst])})."
                )
        if relative:
            ax.axvline(0, color=mixer_colour(baseline), linewidth=1.2, linestyle=DASHED)
        label_rows(ax, [shorten(names[i], 34) for i in order])
        ax.grid(True, axis="y", color="#f0f2f4", linewidth=0.7)
        what = f"{measure.better} is better"
        if relative:
            what = f"difference from {baseline}, {measure.better_side} is better"
        ax.set_title(f"Final {measure.title} by domain")
        ax.set_xlabel(f"{metric or loss_unit(shown)} ({what})")
        if len(shown) > 1:
            legend_above(ax)
        if not shown:
            say_nothing(ax, f"no final {metric} recorded" if metric else "no final losses recorded")
        set_alt(ax, f"Final {measure.title} of {len(names)} domains, {what}.{words}")
    return ax


def _gap(runs: Sequence[Run], run: Run, baseline: str, measure: Measure) -> Array | None:
    """Values by domain minus those of the baseline run of the same seed and corpus."""
    for base in runs:
        same = seed_of(base) == seed_of(run) and same_corpus(base, run)
        if same and mixer_of(base) == baseline:
            return measure.by_domain(run) - measure.by_domain(base)
    return None
