"""How k was chosen: a small panel for each criterion, all over the same k."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator

from rbkit.regroup.criteria import CRITERIA, Criterion
from rbkit.regroup.regret_bound import QUANTILE
from rbkit.regroup.verdict import RULES, judge
from rbkit.show.style import INK, MUTED, mixer_colour, new_axes, number, rbkit_style, set_alt, tidy

Grid = Sequence[Mapping[str, Any]]
_PANEL, _GAP = 0.82, 0.44  # inches: a panel, and between panels
_NAME, _AROUND, _WIDTH = 0.24, 1.15, 6.4  # room for the first panel's name; for title and k
_LETTERS = 16.3  # per inch, of small text
_BESIDE, _NARROW = 36, 80  # letters beside a panel's name; of a figure that is narrow
_LOG_FROM = 6.0  # ratio of the largest k to the smallest
_LEAST = 0.045  # of the width, between two labelled k
_LINE = mixer_colour("RnB")
_ENDS = ("gap_low", "gap_high")
_NAMES = {
    "silhouette": "Silhouette",
    "stability_ari": "Stability under reseeding (ARI)",
    "davies_bouldin": "Davies-Bouldin",
    "regret_bound": f"Regret bound (sd; radius: {QUANTILE} quantile)",
    "gradient_regret_bound": f"Gradients' regret bound (sd; radius: {QUANTILE} quantile)",
    "smallest_domain": "Smallest domain (examples, log scale)",
    "loss": "Eval loss of short training (nats)",
}


def k_choice(
    grid: Grid, ax: Axes | None = None, chosen: int | None = None, *, rule: str | None = None
) -> Axes:
    """Draw all criteria against the number of domains k, the best k of each, and the choice.

    A panel for each criterion that the grid has. In it a ring marks the best k, named at the
    right; the dashed line through all panels is the chosen k. Bands are one standard deviation
    over seeds; bars of the eval loss are 95 % intervals of the gap to the best k, paired by
    seed. Below the regret bound a dotted line shows the regret itself. The title says whether
    the criteria agree.

    Parameters
    ----------
    grid : sequence of {"k", "silhouette", "stability_ari", ...}
        ``domains.quality["grid"]``, ``choose_k(...).grid`` or ``sweep_k(...).grid``; missing
        values and columns are left out.
    ax : matplotlib Axes, optional
        Its place is divided among the panels.
    chosen : int, optional
        The k that was taken; the best by `rule` if not given.
    rule : {"silhouette", "stability", "loss"}, optional
        What it was chosen by; the loss where there is one, else the silhouette.

    Returns
    -------
    Axes
        The frame around the panels, which are its ``child_axes``.

    Examples
    --------
    >>> ax = k_choice([{"k": 5, "silhouette": 0.1}, {"k": 9, "silhouette": 0.3}])
    >>> ax.get_title(loc="left")
    'Choice of k: 9 is clear'
    """
    ks = [int(row["k"]) for row in grid]
    shown = [c for c in CRITERIA if c.values(grid)]
    if rule is None:
        rule = "loss" if any(c.key == "loss" for c in shown) else "silhouette"
    if chosen is None:
        chosen = next((c.best(grid) for c in shown if c.key == RULES[rule]), None)
    with rbkit_style():
        inside = len(shown) * (_PANEL + _GAP) - _GAP + _NAME if shown else 1.0
        frame = new_axes(ax, _WIDTH, inside + _AROUND)
        frame.set_axis_off()
        width = _WIDTH - 0.4 if ax is None else frame.get_window_extent().width / _dpi(frame)
        letters = int(_LETTERS * width)
        verdict = _title(frame, grid, chosen, rule, letters)
        panels = _panels(frame, len(shown))
        log = bool(ks) and max(ks) >= _LOG_FROM * max(1, min(ks))
        for panel, of in zip(panels, shown, strict=True):
            _draw(panel, of, grid, letters)
            _k_axis(panel, ks, chosen, log, labels=panel is panels[-1])
            if chosen is not None:
                panel.axvline(chosen, color=INK, linewidth=1.1, linestyle=(0, (4, 2)), zorder=1)
        if panels:
            text = "number of domains k" + (" (log scale)" if log else "")
            mark = f"; dashed: k = {chosen}" if chosen is not None else ""
            bands = "; bands: one sd over seeds" if any(p.collections for p in panels) else ""
            panels[-1].set_xlabel(text + mark + (bands if letters > _NARROW else ""))
        set_alt(frame, f"Choice of k between {min(ks, default=0)} and {max(ks, default=0)}: "
                       f"{_said(shown, grid)}; chosen k = {chosen}. {verdict}")  # fmt: skip
    return frame


def _title(frame: Axes, grid: Grid, chosen: int | None, rule: str, letters: int) -> str:
    """Write the verdict above the panels; return it."""
    if chosen is None:
        frame.set_title("Choice of k")
        return ""
    verdict = judge(grid, chosen, rule)
    head = {
        "clear": f"{chosen} is clear",
        "disagree": f"{chosen}, but the criteria disagree",
        "flat": f"{chosen}, but the curve is too flat to choose by",
        "single": f"only {chosen} was tried",
    }[verdict.kind]
    rest = verdict.words.partition(": ")[2]
    lines = textwrap.wrap(rest[:1].upper() + rest[1:], max(letters, 30))
    frame.set_title(f"Choice of k: {head}", pad=9 + 12.5 * len(lines))
    frame.annotate("\n".join(lines), (0, 1), (0, 5), xycoords="axes fraction",
                   textcoords="offset points", va="bottom", fontsize=9, color=MUTED,
                   linespacing=1.25)  # fmt: skip
    return verdict.words[:1].upper() + verdict.words[1:] + "."


def _dpi(frame: Axes) -> float:
    return float(frame.get_figure(root=True).dpi)  # type: ignore[union-attr]


def _panels(frame: Axes, count: int) -> list[Axes]:
    """Divide the place of `frame` into `count` panels, one below the other."""
    whole = count * (_PANEL + _GAP) - _GAP + _NAME
    tops = [1 - (_NAME + at * (_PANEL + _GAP)) / whole for at in range(count)]
    return [frame.inset_axes((0, top - _PANEL / whole, 1, _PANEL / whole)) for top in tops]


def _draw(panel: Axes, of: Criterion, grid: Grid, letters: int) -> None:
    values, name = of.values(grid), _NAMES.get(of.key, of.name)
    ks, ys = list(values), np.array(list(values.values()))
    tidy(panel)
    if of.key == "smallest_domain" and ys.min() > 0 and ys.max() / ys.min() > 3:
        panel.set_yscale("log")
        panel.yaxis.set_minor_locator(NullLocator())
        panel.yaxis.set_major_locator(FixedLocator(_decades(ys)))
        panel.yaxis.set_major_formatter(lambda y, _: f"{y:,.0f}")
    else:
        panel.yaxis.set_major_locator(MaxNLocator(3, integer=of.key == "smallest_domain"))
        name = name.replace(", log scale", "")
    rows = {int(row["k"]): row for row in grid}
    if of.key == "loss":
        known = [k for k in ks if rows[k].get("gap_low") is not None]
        ends = [[values[k] + rows[k][end] - rows[k]["gap"] for end in _ENDS] for k in known]
        if known:
            panel.plot(np.repeat(known, 3), [y for e in ends for y in (*e, np.nan)], "-",
                       color=_LINE, linewidth=1.3, zorder=2)  # fmt: skip
            name = name.removesuffix(")") + "; bars: 95 % of the gap)"
    else:
        sd = np.array([rows[k].get(of.key + "_sd") or 0.0 for k in ks])
        if sd.any():
            panel.fill_between(ks, ys - sd, ys + sd, color=_LINE, alpha=0.16, linewidth=0)
    panel.plot(ks, ys, "o-", color=_LINE, mec="white", ms=5.5, zorder=3)
    exact = of.key.replace("_bound", "_exact")
    if exact != of.key and all(rows[k].get(exact) is not None for k in ks):
        panel.plot(ks, [rows[k][exact] for k in ks], ":", color=MUTED, zorder=2)
        name = name.removesuffix(")") + "; dotted: regret)"
    panel.margins(y=0.22)
    way = "higher" if of.higher_is_better else "lower"
    if len(name) + _BESIDE > letters:
        name = name.partition(" (")[0]
    panel.annotate(f"{name}: {way} is better", (0, 1), (0, 4), xycoords="axes fraction",
                   textcoords="offset points", va="bottom", fontsize=9.5, color=INK)  # fmt: skip
    best = of.best(grid)
    if best is not None and len(ks) > 1:
        panel.plot(best, values[best], "o", mfc="none", mec=INK, mew=1.4, ms=11, zorder=4,
                   clip_on=False)  # fmt: skip
        panel.annotate(f"best: k = {best}", (1, 1), (0, 4), xycoords="axes fraction",
                       textcoords="offset points", ha="right", va="bottom", fontsize=9.5,
                       fontweight="bold", color=INK)  # fmt: skip


def _k_axis(panel: Axes, ks: list[int], chosen: int | None, log: bool, *, labels: bool) -> None:
    if log:
        panel.set_xscale("log")
    panel.xaxis.set_minor_locator(NullLocator())
    low, high = min(ks), max(ks)
    place = np.log if log else np.asarray
    if high > low:
        margin = 0.04 * (place(high) - place(low))
        ends = np.array([place(low) - margin, place(high) + margin])
        panel.set_xlim(*(np.exp(ends) if log else ends))
    ticks = _thinned(sorted(set(ks)), chosen, place)
    panel.xaxis.set_major_locator(FixedLocator(ticks))
    panel.xaxis.set_major_formatter(lambda x, _: f"{x:.0f}")
    panel.tick_params(axis="x", labelbottom=labels)
    if labels:
        for tick, k in zip(panel.get_xticklabels(), ticks, strict=True):
            tick.set_fontweight("bold" if k == chosen else "normal")


def _thinned(ks: list[int], chosen: int | None, place: Any) -> list[int]:
    """Return the k to label: none closer to another than its label is wide."""
    span = float(place(ks[-1]) - place(ks[0])) or 1.0

    def clear(k: int, others: list[int]) -> bool:
        return all(abs(float(place(k) - place(o))) >= _LEAST * span for o in others)

    kept: list[int] = [chosen] if chosen in ks and chosen is not None else []
    for k in [ks[0], ks[-1], *ks]:
        if k not in kept and clear(k, kept):
            kept.append(k)
    return sorted(kept)


def _decades(ys: Any) -> list[float]:
    """Return round numbers for a log axis, at most four."""
    low, high = np.log10(ys.min()), np.log10(ys.max())
    powers = np.arange(np.floor(low), np.ceil(high) + 1)
    found = [10.0**p * f for p in powers for f in ((1, 3) if high - low < 2 else (1,))]
    return [y for y in found if 0.7 * ys.min() <= y <= 1.4 * ys.max()] or [float(ys.min())]


def _said(shown: Sequence[Criterion], grid: Grid) -> str:
    parts = []
    for of in shown:
        values = of.values(grid)
        first, last = (values[k] for k in (min(values), max(values)))
        digits = 0 if of.key == "smallest_domain" else 3
        best = f", best at k = {of.best(grid)}" if len(values) > 1 else ""
        parts.append(f"{of.name} from {number(first, digits)} to {number(last, digits)}{best}")
    return "; ".join(parts) or "nothing measured"
