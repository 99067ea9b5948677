"""Domains: their sizes, the choice of k, sources against domains, noise, far examples, drift."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import (
    FixedLocator,
    MaxNLocator,
    NullLocator,
    StrMethodFormatter,
)
from numpy.typing import ArrayLike, NDArray

from rbkit.errors import InputError
from rbkit.regroup.choose import CRITERIA, RULES, Criterion, judge
from rbkit.regroup.regret_bound import QUANTILE
from rbkit.show.facts import Array
from rbkit.show.gram_layout import Order, seriate
from rbkit.show.style import (
    DASHED,
    INK,
    MUTED,
    PAPER,
    colour_bar,
    label_rows,
    legend_above,
    mixer_colour,
    new_axes,
    note,
    plain_ticks,
    rbkit_style,
    set_alt,
    shorten,
    tidy,
)
from rbkit.text import number

_BLUE, _ORANGE = mixer_colour("RnB"), mixer_colour("Target")
_BEFORE, _CHANCE, _MIDDLE = "#8c959f", "#e1e7ec", "#b9c6d3"
_MOST_ROWS = 40  # that still can be read


def domain_sizes(domains: Any, ax: Axes | None = None) -> Axes:
    """Share of each domain in the training set (bar) against the target proportions q (mark).

    Parameters
    ----------
    domains : Domains
    ax : matplotlib Axes, optional

    Returns
    -------
    matplotlib Axes
    """
    with rbkit_style():
        sizes = np.asarray(domains.sizes, dtype=np.float64)
        shares, q = sizes / max(sizes.sum(), 1.0), np.asarray(domains.q, dtype=np.float64)
        m = len(shares)
        ax = new_axes(ax, 6.8, 1.1 + 0.27 * max(m, 3))
        order, rows = np.argsort(shares, kind="stable"), np.arange(m)
        ax.barh(rows, 100 * shares[order], height=0.66, color="#9db4c8", label="train set")
        ax.plot(100 * q[order], rows, "D", color=_ORANGE, mec="white", ms=7, label="target q")
        label_rows(ax, [shorten(domains.names[i], 36) for i in order])
        ax.margins(y=0.02)
        ax.set_xlabel("share of examples (%)")
        ax.set_title("Size of each domain, and its target")
        legend_above(ax)
        widest = ""
        if m:
            i = int(np.argmax(np.abs(q - shares)))
            widest = (
                f"; widest gap {domains.names[i]}: {shares[i]:.1%} of the train set, "
                f"{q[i]:.1%} of the target"
            )
        set_alt(ax, f"Sizes of {m} domains against target proportions q{widest}.")
    return ax


def top_sources(sources: Mapping[str, float], n: int = 3) -> list[tuple[str, float]]:
    """Return the `n` sources with the largest share of a domain, as fractions of 1."""
    total = float(sum(sources.values())) or 1.0
    ranked = sorted(sources.items(), key=lambda item: (-item[1], item[0]))
    return [(str(name), float(share) / total) for name, share in ranked[:n] if share > 0]


# ----------------------------------------------------------------------------- the choice of k

Grid = Sequence[Mapping[str, Any]]
_PANEL, _GAP = 0.82, 0.44  # inches: a panel, and between panels
_NAME, _AROUND, _WIDTH = 0.24, 1.15, 6.4  # room for the first panel's name; for title and k
_LETTERS = 16.3  # per inch, of small text
_BEST, _NARROW = 36, 80  # letters kept free in the line of a panel's name; of a narrow figure
_LOG_FROM = 6.0  # ratio of the largest k to the smallest
_CLEARANCE = 0.045  # of the width, between two labelled k
_PANEL_NAMES = {
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
        inches = len(shown) * (_PANEL + _GAP) - _GAP + _NAME if shown else 1.0
        frame = new_axes(ax, _WIDTH, inches + _AROUND)
        frame.set_axis_off()
        dpi = frame.get_figure(root=True).dpi  # type: ignore[union-attr]
        width = _WIDTH - 0.4 if ax is None else frame.get_window_extent().width / dpi
        letters = int(_LETTERS * width)
        verdict = _verdict_above(frame, grid, chosen, rule, letters)
        tops = [1 - (_NAME + i * (_PANEL + _GAP)) / inches for i in range(len(shown))]
        panels = [frame.inset_axes((0, t - _PANEL / inches, 1, _PANEL / inches)) for t in tops]
        log = bool(ks) and max(ks) >= _LOG_FROM * max(1, min(ks))
        for panel, criterion in zip(panels, shown, strict=True):
            _draw_criterion(panel, criterion, grid, letters)
            _k_axis(panel, ks, chosen, log, labels=panel is panels[-1])
            if chosen is not None:
                panel.axvline(chosen, color=INK, linewidth=1.1, linestyle=DASHED, zorder=1)
        if panels:
            text = "number of domains k" + (" (log scale)" if log else "")
            text += f"; dashed: k = {chosen}" if chosen is not None else ""
            if letters > _NARROW and any(panel.collections for panel in panels):
                text += "; bands: one sd over seeds"
            panels[-1].set_xlabel(text)
        words = []
        for criterion in shown:
            values = criterion.values(grid)
            digits = 0 if criterion.key == "smallest_domain" else 3
            ends = [number(values[k], digits) for k in (min(values), max(values))]
            best = f", best at k = {criterion.best(grid)}" if len(values) > 1 else ""
            words.append(f"{criterion.name} from {ends[0]} to {ends[1]}{best}")
        set_alt(
            frame,
            f"Choice of k between {min(ks, default=0)} and {max(ks, default=0)}: "
            f"{'; '.join(words) or 'nothing measured'}; chosen k = {chosen}. {verdict}",
        )
    return frame


def _verdict_above(frame: Axes, grid: Grid, chosen: int | None, rule: str, letters: int) -> str:
    """Write the verdict above the panels; return it as a sentence."""
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
    note(frame, "\n".join(lines), (0, 1), (0, 5), va="bottom", fontsize=9, linespacing=1.25)
    return verdict.words[:1].upper() + verdict.words[1:] + "."


def _draw_criterion(panel: Axes, criterion: Criterion, grid: Grid, letters: int) -> None:
    key, values = criterion.key, criterion.values(grid)
    name = _PANEL_NAMES.get(key, criterion.name)
    ks, ys = list(values), np.array(list(values.values()))
    rows = {int(row["k"]): row for row in grid}
    tidy(panel)
    if key == "smallest_domain" and ys.min() > 0 and ys.max() / ys.min() > 3:
        panel.set_yscale("log")
        panel.yaxis.set_minor_locator(NullLocator())
        panel.yaxis.set_major_locator(FixedLocator(_round_ticks(ys)))
        panel.yaxis.set_major_formatter(lambda y, _: f"{y:,.0f}")
    else:
        panel.yaxis.set_major_locator(MaxNLocator(3, integer=key == "smallest_domain"))
        name = name.replace(", log scale", "")
    if key == "loss":
        compared = [k for k in ks if rows[k].get("gap_low") is not None]
        if compared:
            bars = []
            for k in compared:
                low, high = (
                    values[k] + rows[k][end] - rows[k]["gap"] for end in ("gap_low", "gap_high")
                )
                bars += [low, high, np.nan]
            panel.plot(np.repeat(compared, 3), bars, "-", color=_BLUE, linewidth=1.3, zorder=2)
            name = name.removesuffix(")") + "; bars: 95 % of the gap)"
    else:
        sd = np.array([rows[k].get(key + "_sd") or 0.0 for k in ks])
        if sd.any():
            panel.fill_between(ks, ys - sd, ys + sd, color=_BLUE, alpha=0.16, linewidth=0)
    panel.plot(ks, ys, "o-", color=_BLUE, mec="white", ms=5.5, zorder=3)
    exact = key.replace("_bound", "_exact")
    if exact != key and all(rows[k].get(exact) is not None for k in ks):
        panel.plot(ks, [rows[k][exact] for k in ks], ":", color=MUTED, zorder=2)
        name = name.removesuffix(")") + "; dotted: regret)"
    panel.margins(y=0.22)
    if len(name) + _BEST > letters:
        name = name.partition(" (")[0]
    way = "higher" if criterion.higher_is_better else "lower"
    line: dict[str, Any] = {"va": "bottom", "fontsize": 9.5, "color": INK}
    note(panel, f"{name}: {way} is better", (0, 1), (0, 4), **line)
    best = criterion.best(grid)
    if best is not None and len(ks) > 1:
        ring: dict[str, Any] = {"mfc": "none", "mec": INK, "mew": 1.4, "ms": 11}
        panel.plot(best, values[best], "o", zorder=4, clip_on=False, **ring)
        note(panel, f"best: k = {best}", (1, 1), (0, 4), ha="right", fontweight="bold", **line)


def _k_axis(panel: Axes, ks: list[int], chosen: int | None, log: bool, *, labels: bool) -> None:
    place: Callable[[Any], Any] = np.log if log else np.asarray
    if log:
        panel.set_xscale("log")
    panel.xaxis.set_minor_locator(NullLocator())
    low, high = min(ks), max(ks)
    if high > low:
        margin = 0.04 * (place(high) - place(low))
        ends = np.array([place(low) - margin, place(high) + margin])
        panel.set_xlim(*(np.exp(ends) if log else ends))
    ticks = thinned(sorted(set(ks)), chosen, place)
    panel.xaxis.set_major_locator(FixedLocator(ticks))
    panel.xaxis.set_major_formatter(lambda x, _: f"{x:.0f}")
    panel.tick_params(axis="x", labelbottom=labels)
    if labels:
        for tick, k in zip(panel.get_xticklabels(), ticks, strict=True):
            tick.set_fontweight("bold" if k == chosen else "normal")


def thinned(ks: list[int], chosen: int | None, place: Callable[[Any], Any]) -> list[int]:
    """Return the k to label: none closer to another than its label is wide, `chosen` always."""
    span = float(place(ks[-1]) - place(ks[0])) or 1.0
    labelled: list[int] = [chosen] if chosen in ks and chosen is not None else []
    for k in [ks[0], ks[-1], *ks]:
        clear = all(abs(float(place(k) - place(o))) >= _CLEARANCE * span for o in labelled)
        if clear and k not in labelled:
            labelled.append(k)
    return sorted(labelled)


def _round_ticks(ys: Array) -> list[float]:
    """Return round numbers for a log axis, at most four."""
    low, high = np.log10(ys.min()), np.log10(ys.max())
    powers = np.arange(np.floor(low), np.ceil(high) + 1)
    ticks = [10.0**p * f for p in powers for f in ((1, 3) if high - low < 2 else (1,))]
    return [y for y in ticks if 0.7 * ys.min() <= y <= 1.4 * ys.max()] or [float(ys.min())]


# --------------------------------------------------------------------- sources against domains

_MOST_NUMBERS = 400  # cells up to which a number is written into each
_CELLS = {
    "source": "share of the source (%)",
    "domain": "share of the domain (%)",
    "count": "examples",
}


def crosstab(
    sources: Sequence[str],
    labels: ArrayLike,
    names: Sequence[str],
    ax: Axes | None = None,
    *,
    of: Literal["source", "domain", "count"] = "source",
    most_sources: int = _MOST_ROWS,
) -> Axes:
    """Heat map of sources (rows) against domains (columns), the mass near the diagonal.

    Parameters
    ----------
    sources : sequence of n str
        Source of every training example.
    labels : int array of shape (n,)
        Domain of each; those at -1 have a column of their own.
    names : sequence of m str
    ax : matplotlib Axes, optional
    of : {"source", "domain", "count"}
        What a cell's share is a share of: its row, its column, or a plain count.
    most_sources : int
        Smaller sources are put together in a last row.

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    InputError
        Lengths that do not fit, or nothing to count.
    """
    if of not in _CELLS:
        raise InputError("of", f"{of!r} is unknown", f"use one of {', '.join(_CELLS)}")
    table, rows, columns = count_table(sources, labels, names, most_sources)
    shares = {
        "source": 100 * table / np.maximum(table.sum(axis=1, keepdims=True), 1),
        "domain": 100 * table / np.maximum(table.sum(axis=0, keepdims=True), 1),
        "count": table.astype(np.float64),
    }[of]
    n_rows, n_columns = table.shape
    few = n_columns <= 24
    with rbkit_style():
        wide, high = (0.36, 0.27) if few else (0.23, 0.21)
        ax = new_axes(ax, 3.4 + wide * max(n_columns, 4), 2.2 + high * max(n_rows, 4))
        blues = LinearSegmentedColormap.from_list("rbkit", [PAPER, "#9fc3e0", "#2b6ca3", "#0b2f52"])
        top = float(shares.max()) if of == "count" else 10 * np.ceil(shares.max() / 10)
        image = ax.imshow(shares, cmap=blues, vmin=0, vmax=top, aspect="auto")
        totals = [f"{shorten(rows[i], 30)}  {table[i].sum():,}" for i in range(n_rows)]
        plain_ticks(ax.yaxis, totals)
        slanted = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"}
        plain_ticks(ax.xaxis, [shorten(name, 26) for name in columns], **slanted)
        ax.set_xticks(np.arange(-0.5, n_columns), minor=True)
        ax.set_yticks(np.arange(-0.5, n_rows), minor=True)
        ax.grid(False)
        ax.grid(True, which="minor", color="#eceff2", linewidth=0.7)
        ax.tick_params(which="both", length=0, labelsize=9 if few else 7.5)
        ax.spines[:].set_visible(False)
        if table.size <= _MOST_NUMBERS:
            _write_numbers(ax, shares, table, of, top)
        colour_bar(image, ax, _CELLS[of], ticks=MaxNLocator(5, integer=True), shrink=0.8)
        ax.set_title("Sources against domains")
        main = table.argmax(axis=1)
        share = table.max(axis=1) / np.maximum(table.sum(axis=1), 1)
        together = table.max(axis=1).sum() / max(int(table.sum()), 1)
        i = int(np.argmin(share))
        set_alt(
            ax,
            f"{len(rows)} sources against {len(columns)} domains, {table.sum():,} examples. "
            f"{together:.0%} of the examples are in the main domain of their source; most "
            f"scattered: {rows[i]}, {share[i]:.0%} in {columns[main[i]]}.",
        )
    return ax


def _write_numbers(ax: Axes, shares: Array, table: NDArray[np.int64], of: str, top: float) -> None:
    for i, j in zip(*np.nonzero(table), strict=True):
        value = shares[i, j]
        text = f"{table[i, j]:,}" if of == "count" else f"{value:.0f}" if value >= 1 else "·"
        size = 7.5 if len(text) < 5 else 6.5
        colour = PAPER if value > 0.45 * top else INK if value >= 1 else MUTED
        ax.text(j, i, text, ha="center", va="center", fontsize=size, color=colour)


def count_table(
    sources: Sequence[str], labels: ArrayLike, names: Sequence[str], most_sources: int = _MOST_ROWS
) -> tuple[NDArray[np.int64], list[str], list[str]]:
    """Count examples by source and domain, ordered so that the mass lies near the diagonal.

    Small sources together are the last row ("12 more sources"), examples in no domain the last
    column, where there are any. Returned are the table (s, m) and the names of rows and columns.

    Examples
    --------
    >>> count_table(["a", "b", "b", "c"], [2, 0, 0, 1], ["x", "y", "z"])[0].tolist()
    [[1, 0, 0], [0, 2, 0], [0, 0, 1]]
    """
    domain = np.asarray(labels, dtype=np.int64)
    if len(sources) != len(domain) or not len(domain):
        what = f"{len(sources)} sources for {len(domain)} labels"
        raise InputError("sources", what, "give one of each per training example")
    m = len(names)
    if not -1 <= domain.min() <= domain.max() < m:
        what = f"from {domain.min()} to {domain.max()} for {m} names"
        raise InputError("labels", what, f"use -1 to {m - 1}")
    kinds, codes = np.unique(np.asarray(sources, dtype=str), return_inverse=True)
    table = np.zeros((len(kinds), m + 1), dtype=np.int64)
    np.add.at(table, (codes.ravel(), domain), 1)  # -1 counts in the last column
    rows = [str(kind) for kind in kinds]
    rest: NDArray[np.int64] | None = None
    if len(rows) > most_sources:
        large = np.sort(np.argsort(-table.sum(axis=1), kind="stable")[: most_sources - 1])
        rest = table.sum(axis=0) - table[large].sum(axis=0)
        hidden = len(rows) - len(large)
        table, rows = table[large], [rows[i] for i in large]
    by_row, by_column = diagonal_order(table[:, :m])
    table = table[by_row][:, np.append(by_column, m)]
    rows = [rows[i] for i in by_row]
    columns = [str(names[i]) for i in by_column]
    if rest is not None:
        table = np.vstack([table, rest[np.append(by_column, m)]])
        rows.append(f"{hidden} more sources")
    if table[:, m].any():
        columns.append("in no domain")
    return table[:, : len(columns)], rows, columns


def diagonal_order(table: ArrayLike) -> tuple[Order, Order]:
    """Order rows and columns of a table of counts so that the mass lies near the diagonal.

    Rows with like profiles stand side by side (average linkage, optimal leaf order); columns
    follow at the mean place of their mass, in which large cells count more.

    Examples
    --------
    >>> rows, columns = diagonal_order([[0, 9, 0], [0, 0, 7], [8, 0, 0]])
    >>> np.array([[0, 9, 0], [0, 0, 7], [8, 0, 0]])[rows][:, columns].tolist()
    [[8, 0, 0], [0, 7, 0], [0, 0, 9]]
    """
    counts = np.asarray(table, dtype=np.float64)
    profile = np.sqrt(counts / np.maximum(counts.sum(axis=1, keepdims=True), 1))
    rows = seriate(profile @ profile.T)
    shares = counts / np.maximum(counts.sum(axis=0, keepdims=True), 1)
    best = (np.inf, rows, np.arange(counts.shape[1]))
    for _ in range(8):
        columns = _by_mean_place(shares[rows].T)
        if (distance := diagonal_distance(counts[rows][:, columns])) < best[0]:
            best = (distance, rows, columns)
        rows = _by_mean_place((profile**2)[:, columns])
    return best[1], best[2]


def _by_mean_place(mass: Array) -> Order:
    """Order of the rows by the mean place of their mass; empty ones last."""
    heavy = mass**2
    total, place = heavy.sum(axis=1), np.full(len(mass), np.inf)
    np.divide(heavy @ np.arange(mass.shape[1]), total, out=place, where=total > 0)
    return np.argsort(place, kind="stable").astype(np.int64)


def diagonal_distance(counts: Array) -> float:
    """Mean squared distance of the mass from the diagonal of the unit square."""
    i, j = (np.linspace(0, 1, size) for size in counts.shape)
    return float((counts * (i[:, None] - j[None, :]) ** 2).sum() / max(counts.sum(), 1))


# ------------------------------------------------------------------- noise and far examples


def size_effect(outcome: Any, names: Sequence[str] | None = None, ax: Axes | None = None) -> Axes:
    """Sizes of the domains before and after a noise policy: the effect is shown, not silent.

    Parameters
    ----------
    outcome : NoiseOutcome
        With ``sizes_before`` (m,), ``sizes_after`` (m,) or (m + 1,) where noise became a domain
        of its own, ``policy``, ``noise_before`` and ``noise_after`` (:func:`settle_noise`).
    names : sequence of str, optional
        Of the domains after it.
    ax : matplotlib Axes, optional

    Returns
    -------
    matplotlib Axes
    """
    before = np.asarray(outcome.sizes_before, dtype=np.float64)
    after = np.asarray(outcome.sizes_after, dtype=np.float64)
    known, m = len(before), max(len(before), len(after))
    before, after = (np.pad(sizes, (0, m - len(sizes))) for sizes in (before, after))
    # Under "own" the noise is a domain, and so in a domain.
    left_out = 0 if len(outcome.sizes_after) > known else outcome.noise_after
    noise = float(outcome.noise_before), float(left_out)
    labels = list(names) if names is not None else [f"domain {i}" for i in range(known)]
    labels += ["noise, a domain now"] * (m - len(labels))
    order = np.argsort(-after, kind="stable")
    rows = order[_largest(np.abs(after - before)[order])]
    with rbkit_style():
        ax = new_axes(ax, 6.8, 1.5 + 0.24 * max(len(rows) + 1, 4))
        y = np.arange(len(rows) + 1)
        left, right = np.append(before[rows], noise[0]), np.append(after[rows], noise[1])
        ax.hlines(y, left, right, color=_MIDDLE, linewidth=3, zorder=1)
        hollow: dict[str, Any] = {"color": "white", "mec": _BEFORE, "mew": 1.6, "ms": 6.5}
        ax.plot(left, y, "o", label="before", zorder=2, **hollow)
        ax.plot(right, y, "o", color=_BLUE, mec="white", ms=7.5, label="after", zorder=3)
        label_rows(ax, [*(shorten(labels[i], 36) for i in rows), "in no domain"])
        ax.get_yticklabels()[-1].set_fontstyle("italic")
        ax.invert_yaxis()
        ax.margins(y=0.02)
        ax.set_xlim(left=min(0.0, -0.015 * float(max(left.max(), right.max()))))
        ax.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        ax.set_xlabel("training examples" + _hidden(m, rows, "domains that changed least"))
        ax.set_title(f"Noise policy “{outcome.policy}”", parse_math=False)
        legend_above(ax)
        total = max(float(before.sum()) + noise[0], 1.0)
        i = int(np.argmax(after - before))
        grown = f"{labels[i]} grows most, from {before[i]:,.0f} to {after[i]:,.0f}"
        set_alt(
            ax,
            f"Sizes of {m} domains before and after the noise policy {outcome.policy}: "
            f"in no domain {noise[0] / total:.1%} of the examples before, "
            f"{noise[1] / total:.1%} after; "
            f"{grown if after[i] > before[i] else 'no domain grows'}.",
        )
    return ax


def _largest(values: Array, most: int = _MOST_ROWS) -> NDArray[np.intp]:
    """Places of the `most` largest values, in their order."""
    return np.sort(np.argsort(-values, kind="stable")[:most])


def _hidden(m: int, rows: Sequence[int] | NDArray[Any], which: str) -> str:
    """Say how many of `m` domains have no row, for the end of a label."""
    return f"\n({m - len(rows)} {which} are not shown)" if m > len(rows) else ""


def eval_distances(domains: Any, far: Any, ax: Axes | None = None) -> Axes:
    """Distances of eval examples to their domains, over the spread of the training examples.

    Parameters
    ----------
    domains : Domains
        With ``quality["distances"]``, see :func:`rbkit.regroup.distances.distance_profile`.
    far : FarEval
        From :func:`rbkit.regroup.distances.far_eval`.
    ax : matplotlib Axes, optional

    Returns
    -------
    matplotlib Axes
        A row per domain, those with the largest share of far eval examples first; grey the
        5 % to 95 % and the middle half of training, a tick where far begins, eval as dots.
    """
    profile = domains.quality.get("distances")
    if profile is None:
        what = "no distances of the training examples are saved with them"
        raise InputError("domains", what, "store distance_profile(...) in quality['distances']")
    share = far.far_sizes / np.maximum(far.sizes, 1)
    order = np.lexsort((-far.sizes, -far.far_sizes, -share))[:_MOST_ROWS]
    with rbkit_style():
        ax = new_axes(ax, 7.6, 1.6 + 0.25 * max(len(order), 4))
        _draw_train_spread(ax, profile, order)
        _draw_eval_dots(ax, far, order)
        counts = [f"{far.far_sizes[i]:,}/{far.sizes[i]:,}" for i in order]
        names = [shorten(far.names[i], 32) for i in order]
        label_rows(ax, [f"{name}  {count}" for name, count in zip(names, counts, strict=True)])
        ax.set_ylim(len(order) - 0.4, -0.6)
        ax.set_xlim(left=0)
        text = "distance to the nearest prototype; tick: far from here on"
        ax.set_xlabel(text + _hidden(len(far.names), order, "more domains"))
        ax.set_title("Eval against train")
        legend_above(ax)
        set_alt(ax, f"Distances of eval examples to their domains. {far.message()}.")
    return ax


def _draw_train_spread(ax: Axes, profile: Mapping[str, Any], order: NDArray[np.intp]) -> None:
    at = [float(share) for share in profile["quantiles"]["at"]]
    bars = ((0.05, 0.95, _CHANCE, "train 5–95 %"), (0.25, 0.75, _MIDDLE, "25–75 %"))
    for row, i in enumerate(order):
        quantiles = profile["quantiles"]["by_domain"][i]
        if quantiles is None:
            continue
        for low, high, colour, label in bars:
            start, end = quantiles[at.index(low)], quantiles[at.index(high)]
            text = label if row == 0 else None
            ax.barh(row, end - start, 0.56, start, color=colour, label=text)
    limits, rows = np.asarray(profile["thresholds"], dtype=np.float64)[order], np.arange(len(order))
    ax.vlines(limits, rows - 0.38, rows + 0.38, color=INK, linewidth=1.1, zorder=3)


def _draw_eval_dots(ax: Axes, far: Any, order: NDArray[np.intp]) -> None:
    place = np.full(len(far.names), -1)
    place[order] = np.arange(len(order))
    rows: Array = np.where(far.labels >= 0, place[far.labels.clip(0)], -1).astype(np.float64)
    y = rows + np.random.default_rng(0).uniform(-0.2, 0.2, len(rows))
    size = 3.2 if len(rows) < 3000 else 1.8
    dots: dict[str, Any] = {"mew": 0, "alpha": 0.75, "zorder": 4, "rasterized": True}
    near, away = ~far.far & (rows >= 0), far.far & (rows >= 0)
    ax.plot(far.distances[near], y[near], "o", color=MUTED, ms=size, label="eval", **dots)
    ax.plot(far.distances[away], y[away], "D", color=_ORANGE, ms=size * 1.3, label="far", **dots)


# ------------------------------------------------------------------------------------- drift

_MOST_DRIFT = 30  # rows


def drift_shares(report: Any, ax: Axes | None = None) -> Axes:
    """Share of each domain then and now, with the band that chance alone would stay in.

    Parameters
    ----------
    report : Drift
        From :func:`rbkit.regroup.drift.drift_report`.
    ax : matplotlib Axes, optional

    Returns
    -------
    matplotlib Axes
        Domains by their change, growing ones first; a filled mark has left the band.
    """
    table = report.table
    change = table["change"].to_numpy()
    rows = _largest(np.abs(change), _MOST_DRIFT)
    rows = rows[np.argsort(-change[rows], kind="stable")]
    then, now, noise = (100 * table[name].to_numpy()[rows] for name in ("then", "now", "noise"))
    with rbkit_style():
        ax = new_axes(ax, 6.8, 1.5 + 0.25 * max(len(rows), 4))
        y = np.arange(len(rows))
        low = np.maximum(then - noise, 0)
        ax.barh(y, then + noise - low, 0.6, low, color=_CHANCE, label="chance, 95 %")
        ax.plot(then, y, "|", color=INK, ms=9, mew=1.6, label="then", ls="none")
        moved = np.abs(now - then) > noise
        ax.plot(now[moved], y[moved], "D", color=_ORANGE, mec="white", ms=7, label="now")
        ax.plot(now[~moved], y[~moved], "D", color="white", mec=_ORANGE, ms=5.5)
        label_rows(ax, [shorten(table.index[i], 36) for i in rows])
        ax.set_ylim(len(rows) - 0.4, -0.6)
        ax.set_xlim(left=0)
        hidden = _hidden(len(table), rows, "domains that moved less")
        ax.set_xlabel(f"share of the examples (%){hidden}")
        ax.set_title("Shares of the domains")
        legend_above(ax)
        i = int(np.argmax(np.abs(change)))
        most = f"{table.index[i]} from {table['then'].iloc[i]:.1%} to {table['now'].iloc[i]:.1%}"
        far = f"total variation {report.tv:.3f}, chance below {report.tv_noise:.3f}"
        set_alt(ax, f"Shares of {len(table)} domains then and now: {far}; most: {most}.")
    return ax


def drift_distances(report: Any, ax: Axes | None = None) -> Axes:
    """Distances to the nearest prototype, of training and of new examples: cumulated shares.

    Parameters
    ----------
    report : Drift
        From :func:`rbkit.regroup.drift.drift_report`.
    ax : matplotlib Axes, optional

    Returns
    -------
    matplotlib Axes
    """
    with rbkit_style():
        ax = new_axes(ax, 6.0, 3.4)
        shares = 100 * np.linspace(0, 1, len(report.nearest))
        low, high = (np.clip(shares + sign * 100 * report.ks_noise, 0, 100) for sign in (-1, 1))
        ax.fill_between(report.nearest, low, high, color=_CHANCE, lw=0, label="chance, 99 %")
        ax.plot(report.nearest, shares, color=_BEFORE, label="train", linestyle=(0, (5, 2)))
        new = np.sort(report.distances)
        if len(new) > 2000:
            new = np.quantile(new, np.linspace(0, 1, 2001))
        ax.plot(new, 100 * np.arange(1, len(new) + 1) / len(new), color=_ORANGE, label="new")
        beyond = float(report.nearest[198])
        ax.axvline(beyond, color=MUTED, linewidth=0.9, linestyle=(0, (1, 2)), zorder=1)
        place: dict[str, Any] = {"xycoords": ("data", "axes fraction"), "ha": "right"}
        note(ax, "99 % of train", (beyond, 0), (-4, 3), rotation=90, va="bottom", **place)
        tidy(ax)
        ax.set_ylim(0, 101)
        ax.set_xlim(left=min(float(new[0]), float(report.nearest[1])) * 0.98)
        ax.set_xlabel("distance to the nearest prototype")
        ax.set_ylabel("examples at most as far (%)")
        ax.set_title("Distances")
        legend_above(ax)
        set_alt(
            ax,
            f"Distances of {report.n:,} new examples and of training: largest gap "
            f"{report.ks:.3f}, chance below {report.ks_noise:.3f}; {report.far_share:.1%} "
            f"are far from every domain, {report.far_expected:.1%} expected.",
        )
    return ax


def drift(report: Any) -> Figure:
    """Both sides of a drift report in one figure, under its verdict."""
    with rbkit_style():
        rows = min(len(report.names), _MOST_DRIFT)
        figure = Figure(figsize=(12.0, max(4.2, 1.9 + 0.25 * rows)), layout="constrained")
        left, right = figure.subplots(1, 2, width_ratios=(1.15, 1))
        drift_shares(report, left)
        drift_distances(report, right)
        verdict = report.reasons[0] if report.due else "No refit is due"
        if not report.due and report.advice:
            verdict += f"; {report.advice[0]}"
        figure.suptitle(shorten(verdict, 150), x=0.01, ha="left", fontsize=10.5, parse_math=False)
    return figure
