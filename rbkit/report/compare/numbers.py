"""All numbers of a comparison as tables: CSV for spreadsheets, Parquet for programs."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from rbkit.files import atomic_path
from rbkit.report.compare.paired import LOSSES, UNITS, differences, final_loss, reach_baseline
from rbkit.report.compare.variants import Comparison, is_finished
from rbkit.show.facts import (
    Measure,
    as_floats,
    domain_names,
    finite,
    losses,
    metric_names,
    overhead,
    parameter,
    proportions_in_force,
    spent,
    target,
)
from rbkit.train.run import Run

# Also their full-width twins, which some spreadsheets take for the same, and white space in
# front, which some of them strip.
_RISKY = re.compile(r"'*(?:\s*[=+\-@\uff1d\uff0b\uff0d\uff20]|[\t\r\n])")
_TEXT_COLUMNS = ("kind", "metric", "domain")
_INTEGER_COLUMNS = ("step", "round")
_Columns = Mapping[str, Any]  # lists or arrays of one length, by name


def cell(text: str) -> str:
    """Return `text` as it may stand in a CSV file: no spreadsheet takes it for a formula.

    Spreadsheets run a cell that begins with ``=``, ``+``, ``-`` or ``@``, and names of domains
    come from a corpus. An apostrophe in front means "this is text"; text that already looks
    escaped gets one more, so that nothing is lost.

    >>> cell("=HYPERLINK(...)"), cell("recipes = food")
    ("'=HYPERLINK(...)", 'recipes = food')
    """
    text = _whole(text)
    return f"'{text}" if _RISKY.match(text) else text


def write_numbers(comparison: Comparison, folder: str | Path) -> list[Path]:
    """Write the numbers of a comparison to `folder`, each table as ``.csv`` and ``.parquet``.

    Parameters
    ----------
    comparison : Comparison
    folder : path
        Made if absent. Files of the same names are replaced.

    Returns
    -------
    list of Path
        ``runs`` (one row per run, in any state), ``metrics`` (one per run, step and number),
        ``by_domain`` (final losses, q and the last p), ``proportions`` (p of each round) and
        ``comparisons`` (paired differences, and ratios of reaching the baseline).

    Notes
    -----
    Losses are in nats; metrics have ``metric_`` before their names. What is unknown is empty
    (null). Text that a spreadsheet would run as a formula has an apostrophe in front in the CSV.
    """
    named = metric_names(comparison.runs)
    tables = {
        "runs": pa.table(_arrays(_runs(comparison))),
        "metrics": _stacked(comparison, _metrics),
        "by_domain": _stacked(comparison, partial(_by_domain, metrics=named)),
        "proportions": _stacked(comparison, _proportions),
        "comparisons": pa.table(_arrays(_comparisons(comparison))),
    }
    written = []
    for name, table in tables.items():
        for suffix, write in ((".csv", _write_csv), (".parquet", _write_parquet)):
            path = Path(folder) / f"{name}{suffix}"
            with atomic_path(path) as tmp:
                write(table, tmp)
            written.append(path)
    return written


# --------------------------------------------------------------------- rows of the small tables


def _folders(comparison: Comparison) -> list[str]:
    """Name each run by the shortest path that distinguishes it, never one of this machine."""
    paths = [run.path.resolve() for run in comparison.runs]
    root = os.path.commonpath([path.parent for path in paths]) if paths else ""
    return [path.relative_to(root).as_posix() for path in paths]


def _runs(comparison: Comparison) -> list[dict[str, Any]]:
    repeated = {id(run) for run in comparison.repeated}
    metrics, rows = metric_names(comparison.runs), []
    for folder, run in zip(_folders(comparison), comparison.runs, strict=True):
        variant, final, price = comparison.variant_of(run), losses(run), overhead(run)
        names, worst = domain_names(run), final.worst
        seconds, flops = spent(run, "seconds"), spent(run, "flops")
        rows.append(
            {
                "run": folder,
                "variant": variant.label,
                "mixer": variant.mixer,
                "seed": parameter(run, "seed"),
                "status": run.status,
                "compared": is_finished(run, comparison.measure) and id(run) not in repeated,
                "is_baseline": comparison.is_baseline(variant),
                **{f"parameter {key}": comparison.setting(run, key) for key in comparison.varied},
                "loss_token": final.token,
                "loss_example": final.example,
                "loss_worst": final_loss(run, "worst"),
                **{f"metric_{name}": Measure(name).final(run) for name in metrics},
                "worst_domain": names[worst] if worst is not None and worst < len(names) else None,
                "seconds": None if seconds is None else seconds.total,
                "flops": None if flops is None else flops.total,
                "overhead_seconds_percent": price.seconds,
                "overhead_flops_percent": price.flops,
                "started": run.info.get("started"),
                "ended": run.info.get("ended"),
                "error": run.info.get("error"),
            }
        )
    return rows


def _comparisons(comparison: Comparison) -> list[dict[str, Any]]:
    rows = []
    for metric in (*LOSSES, *metric_names(comparison.runs)):
        for gap in filter(None, differences(comparison, metric).values()):
            rows.append(
                {
                    "variant": gap.label,
                    "mixer": gap.mixer,
                    "baseline": gap.baseline,
                    "metric": f"metric_{metric}" if gap.measure.metric else f"loss_{metric}",
                    "unit": f"difference in {gap.measure.unit}"
                    if gap.measure.metric is None
                    else "difference",
                    "pairs": len(gap.values),
                    "reached": None,
                    "mean": gap.mean,
                    "low": gap.low,
                    "high": gap.high,
                    "p_value": gap.p_value,
                    "p_value_holm": gap.adjusted,
                    "told_apart": gap.told_apart,
                    "seeds": _text(list(gap.seeds)),
                    "values": _text(list(gap.values)),
                }
            )
    for reach in filter(None, reach_baseline(comparison).values()):
        for unit in UNITS:
            ratio = getattr(reach, unit)
            known = ratio is not None and ratio.low is not None
            rows.append(
                {
                    "variant": reach.label,
                    "mixer": reach.mixer,
                    "baseline": reach.baseline,
                    "metric": f"{unit}_to_reach",
                    "unit": "ratio to the baseline",
                    "pairs": reach.pairs,
                    "reached": reach.reached,
                    "mean": ratio and ratio.mean,
                    "low": ratio and ratio.low,
                    "high": ratio and ratio.high,
                    "p_value": None,
                    "p_value_holm": None,
                    "told_apart": (ratio.low > 1 or ratio.high < 1) if known else None,
                    "seeds": None,
                    "values": ratio and _text(list(ratio.values)),
                }
            )
    return rows


# ------------------------------------------------------------------- columns of the large tables


def _metrics(run: Run) -> _Columns:
    kinds, steps, names, values = list[str](), list[int](), list[str](), list[float]()
    for kind in ("train", "eval", "metric"):
        for row in run.metrics(kind):
            step = row.get("step")
            if not isinstance(step, int):
                continue
            if kind == "metric":
                row = {f"metric_{row['name']}": row.get("value")}
            for name, value in row.items():
                if name not in ("kind", "step") and isinstance(value, int | float):
                    kinds.append(kind)
                    steps.append(step)
                    names.append(name)
                    values.append(float(value))
    return {"kind": kinds, "step": steps, "metric": names, "value": values}


def _by_domain(run: Run, metrics: Sequence[str]) -> _Columns:
    names, (p, _) = domain_names(run), proportions_in_force(run)
    final = run.info.get("final") or {}
    columns: dict[str, Any] = {
        "q": target(run),
        "p": p[-1] if len(p) else None,
        "loss_token": losses(run).by_domain,
        "loss_example": as_floats(final.get("by_domain_example") or []),
        **{f"metric_{name}": Measure(name).by_domain(run) for name in metrics},
    }
    missing = np.full(len(names), np.nan)
    columns = {
        name: values if values is not None and len(values) == len(names) else missing
        for name, values in columns.items()
    }
    if finite(final.get("outside_token")) is not None:  # which only the overall loss counts
        outside = {"loss_token": "outside_token", "loss_example": "outside_example"}
        last = {name: as_floats([final.get(outside.get(name, ""))]) for name in columns}
        columns = {name: np.append(values, last[name]) for name, values in columns.items()}
        names = [*names, "outside"]
    return {"domain": names} | columns


def _proportions(run: Run) -> _Columns:
    p, edges = proportions_in_force(run)
    if not p.size:
        return {name: [] for name in ("round", "step", "domain", "p")}
    rounds, m = p.shape
    names = domain_names(run)
    names = names if len(names) == m else [f"domain {i}" for i in range(m)]
    return {
        "round": np.repeat(np.arange(rounds), m),
        "step": np.repeat(edges[:-1], m),
        "domain": names * rounds,
        "p": p.ravel(),
    }


def _stacked(comparison: Comparison, columns_of: Callable[[Run], _Columns]) -> pa.Table:
    """Put the rows of all runs below each other, with the run's name, variant and seed.

    Names are stored once and referred to by number: millions of rows stay small.
    """
    runs = comparison.runs
    parts = [columns_of(run) for run in runs]
    counts = [len(next(iter(part.values()))) for part in parts]
    which = pa.array(np.repeat(np.arange(len(runs)), counts).astype(np.int32))
    labels = [_whole(comparison.variant_of(run).label) for run in runs]
    seeds = _array([parameter(run, "seed") for run in runs])
    made: dict[str, Any] = {
        "run": pa.DictionaryArray.from_arrays(which, pa.array(map(_whole, _folders(comparison)))),
        "variant": pa.DictionaryArray.from_arrays(which, pa.array(labels)),
        "seed": pa.DictionaryArray.from_arrays(which, seeds).dictionary_decode(),
    }
    for name in parts[0] if parts else ():
        values = [part[name] for part in parts]
        if name in _TEXT_COLUMNS:
            texts = pa.array([_whole(text) for part in values for text in part], pa.string())
            made[name] = texts.dictionary_encode()
        else:
            kind = np.int64 if name in _INTEGER_COLUMNS else np.float64
            flat = np.concatenate([np.asarray(part, dtype=kind) for part in values])
            made[name] = pa.array(flat, from_pandas=True)  # NaN: unknown
    return pa.table(made)


# ------------------------------------------------------------------------- values and files


def _arrays(rows: Sequence[Mapping[str, Any]]) -> dict[str, pa.Array]:
    return {name: _array([row[name] for row in rows]) for name in (rows[0] if rows else ())}


def _array(values: Sequence[Any]) -> pa.Array:
    """Array of the one type that all values have, else of their JSON texts."""
    known = [value for value in values if value is not None]
    if known and all(isinstance(value, bool) for value in known):
        return pa.array(values, pa.bool_())
    if known and all(isinstance(v, int | float) and not isinstance(v, bool) for v in known):
        if all(isinstance(value, int) and abs(value) < 2**63 for value in known):
            return pa.array(values, pa.int64())
        floats = [None if value is None else float(value) for value in values]
        return pa.array(floats, pa.float64(), from_pandas=True)
    return pa.array(map(_text, values), pa.string())


def _text(value: Any) -> str | None:
    if value is None:
        return None
    return _whole(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


def _whole(text: str) -> str:
    """Replace lone surrogates, which UTF-8 cannot hold."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _write_parquet(table: pa.Table, path: Path) -> None:
    pq.write_table(table, path, compression="zstd")


def _write_csv(table: pa.Table, path: Path) -> None:
    columns = [_escaped(table.column(name)) for name in table.column_names]
    pa_csv.write_csv(pa.table(columns, names=table.column_names), path)


def _escaped(column: pa.ChunkedArray) -> pa.Array:
    """Escape the texts of a column, each different one once."""
    if not (pa.types.is_string(column.type) or pa.types.is_dictionary(column.type)):
        return column
    coded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    chunks = []
    for chunk in coded.chunks:
        texts = [None if text is None else cell(text) for text in chunk.dictionary.to_pylist()]
        escaped = pa.DictionaryArray.from_arrays(chunk.indices, pa.array(texts, pa.string()))
        chunks.append(escaped.dictionary_decode())
    return pa.chunked_array(chunks, pa.string())
