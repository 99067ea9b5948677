"""The figure with which a live view ends: what one run came to, on one page."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rbkit.show.facts import Array
from rbkit.show.figures.gram import gram
from rbkit.show.figures.mixture import proportions
from rbkit.show.gram_layout import short_ids, to_cosine
from rbkit.show.live.snapshot import Scale, Series, Snapshot, numbers, snapshot
from rbkit.show.style import (
    INK,
    MUTED,
    alt_text,
    domain_colours,
    label_line_ends,
    note,
    rbkit_style,
    say_nothing,
    set_alt,
    shorten,
    tidy,
    without_glyph_warnings,
)
from rbkit.text import number
from rbkit.train.run import Run

_NAMED = 40  # domains whose rows and layers can be told apart
_LAYERS = 24  # layers that stand for more domains than that
_TRAIN, _EVAL, _WORST, _ALARM = "#8c959f", "#0072B2", "#D55E00", "#B3261E"
_METRICS = ("#00835F", "#7B4EA3", "#96562A")


def final_figure(run: Run) -> Figure:
    """Draw a run as it stands: Gram matrix, proportions, losses and numbers on one page.

    The headline says so if the run did not end well; what a run does not have (a Gram matrix
    under ``Stratified``, evaluations) is named as missing and is not an error.

    Parameters
    ----------
    run : Run
        Finished or not.

    Returns
    -------
    matplotlib Figure
        With an alternative text.
    """
    snap = snapshot(run)
    with rbkit_style(
        font_size=9, axes_titlesize=10.5, axes_labelsize=9, xtick_labelsize=8.5, ytick_labelsize=8.5
    ):
        figure = Figure(figsize=(10.6, 7.2), layout="constrained")
        rows = figure.add_gridspec(2, 1, height_ratios=(4.0, 3.0))
        # Separate grids: names at the edge of one row take no room from the other.
        grids = [rows[i].subgridspec(1, 2, width_ratios=(1.05, 1)) for i in (0, 1)]
        matrix = figure.add_subplot(grids[0][0]) if snap.gram is not None else None
        layers = figure.add_subplot(grids[0][:] if matrix is None else grids[0][1])
        # Metrics have an axis of their own below the losses.
        n_curves = 1 + bool(snap.metrics_drawn)
        curves = grids[1][0].subgridspec(n_curves, 1)
        losses, *metrics = (figure.add_subplot(curves[i]) for i in range(n_curves))
        table = figure.add_subplot(grids[1][1])
        headline = _headline(figure, snap)
        if matrix is not None:
            _matrix(matrix, run, snap)
        _losses(losses, snap)
        for ax in metrics:
            _metrics(ax, snap)
            losses.tick_params(labelbottom=False)
            losses.set_xlabel("")
            ax.set_xlim(losses.get_xlim() if losses.lines else ax.get_xlim())
        _numbers(table, snap)
        with without_glyph_warnings():
            figure.draw_without_rendering()  # names next to layers are placed by their height
        _layers(layers, run, snap)
        if matrix is None:  # a rule without gradients: no empty square
            missing = "no Gram matrix recorded"
            note(layers, missing, (0.94, 1), (0, 9), ha="right", va="bottom", fontsize=9)
    shown = (matrix, layers, losses, *metrics, table)
    parts = [alt_text(ax) for ax in shown if ax is not None]
    if matrix is None:
        parts.insert(0, "No Gram matrix recorded.")
    set_alt(figure, " ".join([headline, *parts]))
    return figure


def _headline(figure: Figure, snap: Snapshot) -> str:
    """Write name, status and error above everything; return them as a sentence."""
    status = f"{snap.status_text} at {snap.progress_text}"
    top = 0.90 if snap.error else 0.935
    figure.get_layout_engine().set(rect=(0, 0, 1, top), w_pad=0.08, h_pad=0.06)  # type: ignore[union-attr, call-arg]
    figure.text(0.008, 0.985, shorten(snap.name, 60), fontsize=14, fontweight="bold", va="top")
    figure.text(
        0.985,
        0.983,
        status,
        fontsize=11.5,
        fontweight="bold",
        va="top",
        ha="right",
        color="white" if snap.ended_badly else INK,
        bbox={"boxstyle": "round,pad=0.35", "fc": _ALARM, "ec": "none"}
        if snap.ended_badly
        else None,
    )
    if not snap.error:
        return f"Run {snap.name}: {status}."
    figure.text(0.008, 0.94, shorten(snap.error, 140), color=_ALARM, va="top")
    return f"Run {snap.name}: {status}. {snap.error.rstrip('.')}."


def _matrix(ax: Axes, run: Run, snap: Snapshot) -> None:
    assert snap.gram is not None
    title = f"Cosines of domain gradients, round {snap.rounds:,}"
    scale = Scale("cosine").follow(run.history)  # of all rounds, as in the live view
    names = [shorten(name, 24) for name in snap.names]
    gram(to_cosine(snap.gram), names, ax, scale, order=snap.order, title=title)
    ax.tick_params(labelsize=max(4.5, min(8.5, 190 / snap.m)))
    # Columns are in the order of the rows: names that must stand upright add nothing.
    if snap.m > 16 or max(map(len, short_ids(snap.names))) > 3:
        ax.tick_params(labelbottom=False)
    if snap.m > _NAMED:
        ax.tick_params(labelleft=False)
        ax.set_xlabel(f"{snap.m:,} domains, similar ones side by side")


def _layers(ax: Axes, run: Run, whole: Snapshot) -> None:
    snap, colours = _grouped(whole)
    p, steps = snap.p, snap.edges[1:]
    late = len(p) > 0 and snap.edges[0] > 0
    if late:  # nothing is drawn before the first known proportions
        p, steps = np.vstack([np.zeros_like(p[:1]), p]), snap.edges
    domains = {"names": list(snap.names), "q": None if snap.q is None else snap.q.tolist()}
    # The round in progress is included, which the recorded history does not have.
    shown = run.with_(info={**run.info, "domains": domains}, history={"p": p, "step": steps})
    order = snap.order[::-1]  # from the top down, as the rows of the matrix
    proportions(shown, ax, order=order, title="Proportions p, and target q", colours=colours)
    if late:
        set_alt(ax, f"{alt_text(ax)} They are unknown before step {snap.edges[0]:g}.")


def _grouped(snap: Snapshot) -> tuple[Snapshot, list[tuple[float, float, float]]]:
    """Put neighbours in the order together, where there are too many domains to tell apart.

    Returned with the colours of the layers: those of their largest domains.
    """
    palette = domain_colours(snap.m)
    if snap.m <= _NAMED or not len(snap.p):
        return snap, palette
    groups = np.array_split(snap.order, _LAYERS)
    weight = snap.p.mean(axis=0)
    largest = [int(group[np.argmax(weight[group])]) for group in groups]
    names = [
        f"{shorten(snap.names[i], 20)} (+{len(group) - 1:,})"
        for i, group in zip(largest, groups, strict=True)
    ]

    def summed(shares: Array) -> Array:
        return np.stack([shares[..., group].sum(axis=-1) for group in groups], axis=-1)

    q = None if snap.q is None else summed(snap.q)
    order = np.arange(len(groups))
    grouped = replace(snap, names=tuple(names), order=order, p=summed(snap.p), q=q)
    return grouped, [palette[i] for i in largest]


def _losses(ax: Axes, snap: Snapshot) -> None:
    ax.set_title(f"Loss ({snap.loss_unit})")
    curves = (
        ("train", snap.train, _TRAIN, ""),
        ("eval", snap.evaluation, _EVAL, "o"),
        ("worst domain", snap.worst, _WORST, "v"),
    )
    described = _draw(ax, curves, 2)
    if not described:
        _leave_empty(ax, "no loss recorded")
    worst = f" Worst domain: {snap.worst_name}." if snap.worst_name else ""
    set_alt(ax, f"Loss by step: {described or 'none recorded'}.{worst}")


def _metrics(ax: Axes, snap: Snapshot) -> None:
    drawn = snap.metrics_drawn
    ax.set_title(" and ".join(drawn) if len(drawn) < 3 else "Metrics")
    curves = [
        (name, curve, colour, "s")
        for (name, curve), colour in zip(drawn.items(), _METRICS, strict=False)
    ]
    set_alt(ax, f"Metrics by step: {_draw(ax, curves, 3)}.")


def _draw(ax: Axes, curves: Iterable[tuple[str, Series, str, str]], digits: int) -> str:
    """Draw curves (name, values, colour, marker), named at their ends; return them in words."""
    ends: list[tuple[float, float, str, str]] = []
    descriptions = []
    for name, curve, colour, marker in curves:
        steps, values = curve.finite()
        if not len(steps):
            continue
        ax.plot(
            steps,
            values,
            color=colour,
            marker=marker,
            markersize=4,
            markeredgecolor="white",
            linewidth=1.8 if marker else 1.0,
            markevery=max(1, len(steps) // 14),
        )
        label = f"{name} {number(values[-1], digits)}"
        ends.append((float(steps[-1]), float(values[-1]), label, colour))
        descriptions.append(f"{name} from {number(values[0], 2)} to {number(values[-1])}")
    tidy(ax)
    ax.set_xlabel("optimizer step")
    ax.margins(x=0.02)
    edge = max((x for x, *_ in ends), default=0.0)  # a label inside would lie on a longer line
    label_line_ends(ax, [(edge, y, text, colour) for _, y, text, colour in ends], 8.5)
    return "; ".join(descriptions)


def _numbers(ax: Axes, snap: Snapshot) -> None:
    ax.axis("off")
    rows = numbers(snap)
    for i, (name, value, remark) in enumerate(rows):
        y = 1 - (i + 0.5) / len(rows)
        ax.text(0.33, y, name, color=MUTED, ha="right", va="center", transform=ax.transAxes)
        ax.text(0.36, y, value, fontweight="bold", va="center", transform=ax.transAxes)
        ax.text(0.56, y, remark, color=MUTED, va="center", transform=ax.transAxes)
    set_alt(ax, "; ".join(f"{name} {value} {remark}".strip() for name, value, remark in rows) + ".")


def _leave_empty(ax: Axes, reason: str) -> None:
    say_nothing(ax, reason)
    ax.spines[:].set_visible(False)
