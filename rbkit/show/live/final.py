"""The static twin with which a live view ends: one figure of what the run came to."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rbkit.show.facts import Array, RunLike
from rbkit.show.figures.gram import gram
from rbkit.show.figures.mixture import proportions
from rbkit.show.gram_layout import short_ids, to_cosine
from rbkit.show.live.facts import (
    LiveFacts,
    Series,
    live_facts,
    numbers,
    printable,
    progress_said,
    status_said,
    went_wrong,
)
from rbkit.show.live.frame import Scale
from rbkit.show.style import (
    INK,
    MUTED,
    alt_text,
    label_line_ends,
    rbkit_style,
    set_alt,
    shorten,
    tidy,
    without_glyph_warnings,
)
from rbkit.text import number

_NAMED = 40  # domains whose rows and layers can be told apart
_LAYERS = 24  # layers that stand for more domains than that
_TRAIN, _EVAL, _WORST, _ALARM = "#8c959f", "#0072B2", "#D55E00", "#B3261E"


def final_figure(run: RunLike) -> Figure:
    """Draw a run as it stands: Gram matrix, proportions, losses and numbers on one page.

    Runs that did not end well say so in the headline; what a run does not have (a Gram
    matrix under ``Stratified``, evaluations) is said to be missing, not an error.

    Parameters
    ----------
    run : Run
        Finished or not.

    Returns
    -------
    matplotlib Figure
        With an alternative text.
    """
    facts = printable(live_facts(run))
    with rbkit_style(
        font_size=9, axes_titlesize=10.5, axes_labelsize=9, xtick_labelsize=8.5, ytick_labelsize=8.5
    ):
        figure = Figure(figsize=(10.6, 7.2), layout="constrained")
        rows = figure.add_gridspec(2, 1, height_ratios=(4.0, 3.0))
        # Grids of their own: names at the edge of one row take no room from the other.
        grids = [rows[i].subgridspec(1, 2, width_ratios=(1.05, 1)) for i in (0, 1)]
        matrix, layers, losses, table = (figure.add_subplot(g[i]) for g in grids for i in (0, 1))
        said = _headline(figure, facts)
        _matrix(matrix, run, facts)
        _losses(losses, facts)
        _numbers(table, facts)
        with without_glyph_warnings():
            figure.draw_without_rendering()  # names beside layers are placed by their height
        _layers(layers, run, facts)
    set_alt(figure, " ".join([said, *map(alt_text, (matrix, layers, losses, table))]))
    return figure


def _headline(figure: Figure, facts: LiveFacts) -> str:
    """Write name, status and error above everything; return them as a sentence."""
    wrong = went_wrong(facts)
    said = f"{status_said(facts)} at {progress_said(facts)}"
    top = 0.90 if facts.error else 0.935
    figure.get_layout_engine().set(rect=(0, 0, 1, top), w_pad=0.08, h_pad=0.06)  # type: ignore[union-attr, call-arg]
    figure.text(0.008, 0.985, shorten(facts.name, 60), fontsize=14, fontweight="bold", va="top")
    badge = {"boxstyle": "round,pad=0.35", "fc": _ALARM, "ec": "none"} if wrong else None
    figure.text(
        0.985,
        0.983,
        said,
        fontsize=11.5,
        fontweight="bold",
        va="top",
        ha="right",
        color="white" if wrong else INK,
        bbox=badge,
    )
    if not facts.error:
        return f"Run {facts.name}: {said}."
    figure.text(0.008, 0.94, shorten(facts.error, 140), color=_ALARM, va="top")
    return f"Run {facts.name}: {said}. {facts.error.rstrip('.')}."


def _matrix(ax: Axes, run: RunLike, facts: LiveFacts) -> None:
    if facts.gram is None:
        ax.set_title("Cosines of domain gradients")
        _nothing(ax, "no Gram matrix recorded")
        set_alt(ax, "No Gram matrix recorded.")
        return
    title = f"Cosines of domain gradients, round {facts.rounds:,}"
    scale = Scale("cosine").follow(run.history)  # of all rounds, as in the live view
    names = [shorten(name, 24) for name in facts.names]
    gram(to_cosine(facts.gram), names, ax, scale, order=facts.order, title=title)
    ax.tick_params(labelsize=max(4.5, min(8.5, 190 / facts.m)))
    # Columns are in the order of the rows: names that must stand upright say nothing new.
    if facts.m > 16 or max(map(len, short_ids(facts.names))) > 3:
        ax.tick_params(labelbottom=False)
    if facts.m > _NAMED:
        ax.tick_params(labelleft=False)
        ax.set_xlabel(f"{facts.m:,} domains, similar ones side by side")


def _layers(ax: Axes, run: RunLike, facts: LiveFacts) -> None:
    shown = _in_groups(facts)
    view: Any = _Shown(run, shown)
    proportions(view, ax, order=shown.order, title="Proportions p, and target q")
    if len(shown.p) and shown.edges[0] > 0:
        set_alt(ax, f"{alt_text(ax)} Nobody told them before step {shown.edges[0]:g}.")


def _losses(ax: Axes, facts: LiveFacts) -> None:
    ax.set_title("Loss (nats per token)")
    ends: list[tuple[float, float, str, str]] = []
    said = []
    curves = (
        ("train", facts.train, _TRAIN, ""),
        ("eval", facts.evaluation, _EVAL, "o"),
        ("worst domain", facts.worst, _WORST, "v"),
    )
    for name, curve, colour, marker in curves:
        steps, values = _known(curve)
        if not len(steps):
            continue
        ax.plot(
            steps,
            values,
            color=colour,
            marker=marker,
            markersize=4,
            markeredgecolor="white",
            linewidth=1.0 if not marker else 1.8,
            markevery=max(1, len(steps) // 14),
        )
        ends.append(
            (float(steps[-1]), float(values[-1]), f"{name} {number(values[-1], 2)}", colour)
        )
        said.append(f"{name} from {number(values[0], 2)} to {number(values[-1])}")
    tidy(ax)
    ax.set_xlabel("optimizer step")
    ax.margins(x=0.02)
    if not ends:
        _nothing(ax, "no loss recorded")
    edge = max((x for x, *_ in ends), default=0.0)  # a label inside would lie on a longer line
    label_line_ends(ax, [(edge, y, text, colour) for _, y, text, colour in ends], 8.5)
    worst = f" Worst domain: {facts.worst_name}." if facts.worst_name else ""
    set_alt(ax, f"Loss by step: {'; '.join(said) or 'none recorded'}.{worst}")


def _numbers(ax: Axes, facts: LiveFacts) -> None:
    ax.axis("off")
    told = numbers(facts)
    for row, (what, value, beside) in enumerate(told):
        y = 1 - (row + 0.5) / len(told)
        ax.text(0.33, y, what, color=MUTED, ha="right", va="center", transform=ax.transAxes)
        ax.text(0.36, y, value, fontweight="bold", va="center", transform=ax.transAxes)
        ax.text(0.56, y, beside, color=MUTED, va="center", transform=ax.transAxes)
    set_alt(ax, "; ".join(f"{what} {value} {beside}".strip() for what, value, beside in told) + ".")


def _in_groups(facts: LiveFacts) -> LiveFacts:
    """Put neighbours in the order together, where there are too many domains to tell apart."""
    if facts.m <= _NAMED or not len(facts.p):
        return facts
    groups = np.array_split(facts.order, _LAYERS)
    weight = facts.p.mean(axis=0)
    largest = [int(group[np.argmax(weight[group])]) for group in groups]
    names = tuple(
        f"{shorten(facts.names[i], 20)} (+{len(group) - 1:,})"
        for i, group in zip(largest, groups, strict=True)
    )

    def summed(shares: Array) -> Array:
        return np.stack([shares[..., group].sum(axis=-1) for group in groups], axis=-1)

    return replace(
        facts,
        names=names,
        order=np.arange(len(names)),
        p=summed(facts.p),
        q=None if facts.q is None else summed(facts.q),
    )


@dataclass
class _Shown:
    """A run whose proportions are those of `facts`, the round in progress included."""

    run: RunLike
    facts: LiveFacts

    @property
    def path(self) -> Path:
        return Path(self.run.path)

    @property
    def status(self) -> str:
        return str(self.run.status)

    @property
    def domains(self) -> Any:
        return None

    @property
    def info(self) -> dict[str, Any]:
        q = self.facts.q
        domains = {"names": list(self.facts.names), "q": None if q is None else q.tolist()}
        return {**self.run.info, "domains": domains}

    @property
    def history(self) -> dict[str, Any]:
        p, edges = self.facts.p, self.facts.edges
        if len(p) and edges[0] > 0:  # not told from the beginning: nothing is drawn there
            return {"p": np.vstack([np.zeros_like(p[:1]), p]), "step": edges}
        return {"p": p, "step": edges[1:]}

    def metrics(self, kind: str) -> list[dict[str, Any]]:
        return list(self.run.metrics(kind))


def _known(curve: Series) -> Series:
    known = np.isfinite(curve.values)
    return Series(curve.steps[known], curve.values[known])


def _nothing(ax: Axes, text: str) -> None:
    ax.text(0.5, 0.5, text, transform=ax.transAxes, ha="center", va="center", color=MUTED)
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
