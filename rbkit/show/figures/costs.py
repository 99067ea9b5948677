"""Costs of training on top of the plain steps, entry by entry of the ledger."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from rbkit.show.facts import Unit, labels, ledger, mixer_of
from rbkit.show.style import (
    label_rows,
    legend_above,
    mixer_colour,
    mixer_marker,
    new_axes,
    note,
    rbkit_style,
    set_alt,
)
from rbkit.text import percent
from rbkit.train.run import Run

MEANING = {
    "step": "plain training steps",
    "track": "tracking gradients",
    "gram": "Gram matrix",
    "eval_losses": "evaluation, for the rule",
    "target_gradient": "fresh gradients",
    "domain_gradients": "fresh gradients",
    "probe_runs": "runs on single domains",
    "reference_run": "training a reference",
    "reference": "losses of the reference",
    "fidelity": "checking the layer",
    "mixer": "next proportions",
    "eval": "evaluation",
    "metrics": "metrics",
    "record": "writing the record",
    "embed": "embedding, once",
    "cluster": "clustering, once",
}


def costs(runs: Sequence[Run], ax: Axes | None = None) -> Axes:
    """Seconds of each ledger entry on a logarithmic axis, one mark per run.

    The share of the plain steps' seconds is written next to the most expensive mark of a row.

    Parameters
    ----------
    runs : sequence of Run
    ax : matplotlib Axes, optional

    Returns
    -------
    matplotlib Axes
    """
    with rbkit_style():
        names = _in_order({entry["name"] for run in runs for entry in ledger(run)})
        ax = new_axes(ax, 6.8, 1.4 + 0.42 * max(len(names), 3))
        most: dict[str, tuple[float, float]] = {}  # seconds, and their share of the steps
        for run, label in zip(runs, labels(runs), strict=True):
            seconds = {e["name"]: float(e.get("seconds") or 0) for e in ledger(run)}
            shown = [(names.index(n), s) for n, s in seconds.items() if s > 0]
            if not shown:
                continue
            rows, values = zip(*shown, strict=True)
            mixer = mixer_of(run)
            mark: dict[str, Any] = {"color": mixer_colour(mixer), "mec": "white", "alpha": 0.9}
            ax.plot(values, rows, mixer_marker(mixer), ms=8, label=label, **mark)
            for name, value in seconds.items():
                share = value / seconds["step"] if seconds.get("step") else np.nan
                most[name] = max(most.get(name, (0.0, np.nan)), (value, share))
        for row, name in enumerate(names):
            value, share = most.get(name, (0.0, np.nan))
            if name != "step" and value > 0 and np.isfinite(share):
                text = f"{percent(100 * share)} of the steps"
                note(ax, text, (value, row), (9, 0), xycoords="data", fontsize=8.5, va="center")
        ax.set_xscale("log")
        ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: short_cost(x, "seconds")))
        ax.minorticks_off()
        label_rows(ax, [MEANING.get(name, name) for name in names])
        ax.invert_yaxis()
        ax.margins(x=0.08, y=0.1)
        ax.set_xlabel("seconds (logarithmic)")
        ax.set_title("Measured time by ledger entry")
        if len(runs) > 1 and most:
            legend_above(ax)
        words = "; ".join(
            f"{MEANING.get(name, name)} up to {short_cost(value, 'seconds')}"
            for name, (value, _) in most.items()
            if value > 0
        )
        set_alt(ax, f"Measured time by ledger entry: {words or 'nothing measured'}.")
    return ax


def cost_table(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Return the ledgers of all runs as rows, with each entry's share of the plain steps.

    Returns
    -------
    list of dict
        ``run, name, meaning, seconds, seconds_share, flops_counted, flops_modelled,
        flops_share, bytes, calls``; None where something was not measured.
    """
    rows = []
    for run, label in zip(runs, labels(runs), strict=True):
        entries = {entry["name"]: entry for entry in ledger(run)}
        step: dict[str, Any] = entries.get("step", {})
        for name in _in_order(n for n, entry in entries.items() if entry.get("calls") != 0):
            row: dict[str, Any] = {"run": label, "name": name, "meaning": MEANING.get(name, "")}
            for key in ("seconds", "flops_counted", "flops_modelled", "bytes", "calls"):
                row[key] = entries[name].get(key)
            for share, key in (("seconds_share", "seconds"), ("flops_share", "flops_counted")):
                value, of = row[key], step.get(key)
                row[share] = None if value is None or not of else float(value) / float(of)
            rows.append(row)
    return rows


def _in_order(names: Iterable[str]) -> list[str]:
    """Entries of a ledger in the order of their meanings, unknown ones last, by name."""
    order = list(MEANING)
    return sorted(names, key=lambda n: (order.index(n) if n in MEANING else len(order), n))


# From how much on each unit is used, how large it is, and its name.
_UNITS: dict[Unit, list[tuple[float, float, str]]] = {
    "seconds": [(7200, 3600, "h"), (300, 60, "min"), (1, 1, "s"), (1e-3, 1e-3, "ms")],
    "flops": [(1000.0**n, 1000.0**n, " kMGTPE"[n]) for n in range(6, 0, -1)],
}


def short_cost(value: float, unit: Unit, digits: int = 3) -> str:
    """Write a cost for an axis.

    Examples
    --------
    >>> short_cost(0.001, "seconds"), short_cost(9000, "seconds"), short_cost(2.4e12, "flops")
    ('1 ms', '2.5 h', '2.4 T')
    """
    least = (1e-6, "µs") if unit == "seconds" else (1.0, "")
    size, name = next(((s, n) for start, s, n in _UNITS[unit] if value >= start), least)
    return f"{value / size:.{digits}g} {name}".rstrip()
