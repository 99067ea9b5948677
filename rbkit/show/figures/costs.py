"""What was paid beside the plain training steps, entry by entry of the ledger."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from rbkit.show.facts import RunLike, labels, ledger, mixer_of
from rbkit.show.style import (
    MUTED,
    legend_above,
    mixer_colour,
    mixer_marker,
    new_axes,
    plain_ticks,
    rbkit_style,
    set_alt,
    tidy,
)

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
    "record": "writing the record",
    "embed": "embedding, once",
    "cluster": "clustering, once",
}
_ORDER = {name: i for i, name in enumerate(MEANING)}


def costs(runs: Sequence[RunLike], ax: Axes | None = None) -> Axes:
    """Seconds of each ledger entry on a logarithmic axis, one mark per run.

    The share of the plain steps' seconds stands beside the most expensive mark of a row.
    """
    with rbkit_style():
        present = {entry["name"] for run in runs for entry in ledger(run)}
        names: list[str] = [n for n in MEANING if n in present] + sorted(present - MEANING.keys())
        ax = new_axes(ax, 6.8, 1.4 + 0.42 * max(len(names), 3))
        most: dict[str, tuple[float, float]] = {}
        for run, label in zip(runs, labels(runs), strict=True):
            seconds = {e["name"]: float(e.get("seconds") or 0) for e in ledger(run)}
            shown = [(names.index(n), s) for n, s in seconds.items() if s > 0]
            if not shown:
                continue
            rows, values = zip(*shown, strict=True)
            ax.plot(
                values,
                rows,
                mixer_marker(mixer_of(run)),
                color=mixer_colour(mixer_of(run)),
                ms=8,
                mec="white",
                label=label,
                alpha=0.9,
            )
            for name, value in seconds.items():
                share = value / seconds["step"] if seconds.get("step") else np.nan
                most[name] = max(most.get(name, (0.0, np.nan)), (value, share))
        for row, name in enumerate(names):
            value, share = most.get(name, (0.0, np.nan))
            if name != "step" and value > 0 and np.isfinite(share):
                ax.annotate(
                    f"{_percent(share)} of the steps",
                    (value, row),
                    (9, 0),
                    va="center",
                    textcoords="offset points",
                    fontsize=8.5,
                    color=MUTED,
                )
        ax.set_xscale("log")
        ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: _seconds(x)))
        ax.minorticks_off()
        tidy(ax, "x")
        plain_ticks(ax.yaxis, [str(MEANING.get(n, n)) for n in names])
        ax.tick_params(axis="y", length=0)
        ax.invert_yaxis()
        ax.margins(x=0.08, y=0.1)
        ax.set_xlabel("seconds (logarithmic)")
        ax.set_title("Measured time by ledger entry")
        if len(runs) > 1 and most:
            legend_above(ax)
        said = "; ".join(
            f"{MEANING.get(n, n)} up to {_seconds(v)}" for n, (v, _) in most.items() if v > 0
        )
        set_alt(ax, f"Measured time by ledger entry: {said or 'nothing measured'}.")
    return ax


def cost_table(runs: Sequence[RunLike]) -> list[dict[str, Any]]:
    """Return the ledgers of all runs as rows, with each entry's share of the plain steps.

    Returns
    -------
    list of dict
        ``run, name, meaning, seconds, seconds_share, flops_counted, flops_modelled,
        flops_share, bytes, calls``; None where something was not measured.
    """
    rows = []
    for run, label in zip(runs, labels(runs), strict=True):
        step: dict[str, Any] = next((e for e in ledger(run) if e["name"] == "step"), {})
        entries = [entry for entry in ledger(run) if entry.get("calls") != 0]
        for entry in sorted(entries, key=lambda e: _ORDER.get(e["name"], len(_ORDER))):
            row = {"run": label, "name": entry["name"], "meaning": MEANING.get(entry["name"], "")}
            for key in ("seconds", "flops_counted", "flops_modelled", "bytes", "calls"):
                row[key] = entry.get(key)
            row["seconds_share"] = _share(entry.get("seconds"), step.get("seconds"))
            row["flops_share"] = _share(entry.get("flops_counted"), step.get("flops_counted"))
            rows.append(row)
    return rows


def _share(value: float | None, of: float | None) -> float | None:
    return None if value is None or not of else float(value) / float(of)


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %" if share < 0.995 else f"{100 * share:.0f} %"


def _seconds(value: float) -> str:
    if value >= 120:
        return f"{value / 60:.3g} min"
    if value >= 1:
        return f"{value:.3g} s"
    return f"{value * 1e3:.3g} ms" if value >= 1e-3 else f"{value * 1e6:.3g} µs"
