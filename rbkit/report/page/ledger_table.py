"""The ledgers of many runs as one table: run by run while they are few, else means by variant."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from rbkit.report.compare.variants import Comparison
from rbkit.show.cost_figure import cost_table

_RUNS = 6  # ledgers shown one by one
_COLUMNS = ("seconds", "flops_counted", "flops_modelled", "bytes", "calls",
            "seconds_share", "flops_share")  # fmt: skip


def ledger_rows(comparison: Comparison) -> tuple[list[dict[str, Any]], bool]:
    """Return the rows of the table, and whether they are means over the runs of a variant.

    Returns
    -------
    list of dict
        As of :func:`rbkit.show.cost_figure.cost_table`.
    bool
    """
    few = len(comparison.runs) <= _RUNS
    if few or all(len(variant.runs) <= 1 for variant in comparison.variants):
        return cost_table(list(comparison.runs)), False
    rows: list[dict[str, Any]] = []
    for variant in comparison.variants:
        entries: dict[str, list[dict[str, Any]]] = {}
        for run in variant.runs:
            for row in cost_table([run]):
                entries.setdefault(row["name"], []).append(row)
        rows += [_mean_of(variant.label, found) for found in entries.values()]
    return rows, True


def _mean_of(label: str, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    mean = {column: _mean(row[column] for row in rows) for column in _COLUMNS}
    if mean["calls"] is not None:
        mean["calls"] = round(mean["calls"])
    return {"run": label, "name": rows[0]["name"], "meaning": rows[0]["meaning"], **mean}


def _mean(values: Iterable[Any]) -> float | None:
    known = [float(v) for v in values if isinstance(v, int | float) and math.isfinite(v)]
    return sum(known) / len(known) if known else None
