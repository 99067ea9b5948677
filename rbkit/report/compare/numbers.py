"""All numbers of a comparison as tables: CSV for spreadsheets, Parquet for programs."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from rbkit.files import atomic_path
from rbkit.report.compare.paired import METRICS, UNITS, differences, reach_baseline
from rbkit.report.compare.variants import Comparison, Variant, is_finished
from rbkit.show.facts import (
    RunLike,
    as_floats,
    domain_names,
    losses,
    overhead,
    parameter,
    proportions_in_force,
    spent,
    target,
)

# Also their full-width twins, which some spreadsheets take for the same, and white space in
# front, which some of them strip.
_RISKY = re.compile(r"'*(?:\s*[=+\-@\uff1d\uff0b\uff0d\uff20]|[\t\r\n])")


def cell(text: str) -> str:
    """Return `text` as it may stand in a CSV file.

    Examples
    --------
    >>> cell("=HYPERLINK(...)"), cell("recipes = food")
    ("'=HYPERLINK(...)", 'recipes = food')
    """
    whole = text.encode("utf-8", "replace").decode("utf-8")  # a lone surrogate is no text
    return f"'{whole}" if _RISKY.match(whole) else whole


def from_cell(text: str) -> str:
    """Return the text that :func:`cell` was given.

    Examples
    --------
    >>> from_cell(cell("'-5 °C"))
    "'-5 °C"
    """
    return text[1:] if text.startswith("'") and _RISKY.match(text) else text


_Columns = Mapping[str, Any]  # lists or arrays of one length, by name


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
    Losses are in nats. What is not known is empty (null). Text that a spreadsheet would run as
    a formula has an apostrophe in front in the CSV, see :mod:`rbkit.report.compare.numbers`.
    """
    folder = Path(folder)
    written = []
    for name, table in tables(comparison).items():
        for suffix, write in ((".csv", _write_csv), (".parquet", _write_parquet)):
            with atomic_path(folder / f"{name}{suffix}") as tmp:
                write(table, tmp)
            written.append(folder / f"{name}{suffix}")
    return written


def tables(comparison: Comparison) -> dict[str, pa.Table]:
    """Return the tables that :func:`write_numbers` writes, by name."""
    known = list(_runs_with_names(comparison))
    return {
        "runs": pa.table(_arrays(_runs(comparison, known))),
        "metrics": _stacked(known, _metrics),
        "by_domain": _stacked(known, _by_domain),
        "proportions": _stacked(known, _proportions),
        "comparisons": pa.table(_arrays(_comparisons(comparison))),
    }


_Known = tuple[str, Variant, RunLike]  # name of a run's folder, its variant, the run
_TEXT = ("kind", "metric", "domain")
_WHOLE = ("step", "round")


def _runs_with_names(comparison: Comparison) -> Iterator[_Known]:
    """All runs with the shortest path that tells them apart, never one of this machine."""
    owner = {
        id(run): variant
        for variant in (*comparison.variants, *comparison.lost)
        for run in (*variant.runs, *variant.unfinished, *variant.repeated)
    }
    paths = [run.path.resolve() for run in comparison.runs]
    root = os.path.commonpath([path.parent for path in paths]) if paths else ""
    for run, path in zip(comparison.runs, paths, strict=True):
        yield path.relative_to(root).as_posix(), owner[id(run)], run


def _runs(comparison: Comparison, known: Sequence[_Known]) -> list[dict[str, Any]]:
    repeated = {id(run) for run in comparison.repeated}
    rows = []
    for name, variant, run in known:
        final, price = losses(run), overhead(run)
        worst = None if final.worst is None else float(final.by_domain[final.worst])
        names = domain_names(run)
        seconds, flops = spent(run, "seconds"), spent(run, "flops")
        rows.append(
            {
                "run": name,
                "variant": variant.label,
                "mixer": variant.mixer,
                "seed": parameter(run, "seed"),
                "status": run.status,
                "compared": is_finished(run) and id(run) not in repeated,
                "is_baseline": comparison.is_baseline(variant),
                **{f"parameter {key}": comparison.setting(run, key) for key in comparison.varied},
                "loss_token": final.token,
                "loss_example": final.example,
                "loss_worst": worst,
                "worst_domain": names[final.worst]
                if final.worst is not None and final.worst < len(names)
                else None,
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
    for metric in METRICS:
        for gap in differences(comparison, metric).values():
            if gap is not None:
                rows.append(
                    {
                        "variant": gap.label,
                        "mixer": gap.mixer,
                        "baseline": gap.baseline,
                        "metric": f"loss_{metric}",
                        "unit": "difference in nats",
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
    for found in filter(None, reach_baseline(comparison).values()):
        for unit in UNITS:
            ratio = getattr(found, unit)
            rows.append(
                {
                    "variant": found.label,
                    "mixer": found.mixer,
                    "baseline": found.baseline,
                    "metric": f"{unit}_to_reach",
                    "unit": "ratio to the baseline",
                    "pairs": found.pairs,
                    "reached": found.reached,
                    "mean": ratio and ratio.mean,
                    "low": ratio and ratio.low,
                    "high": ratio and ratio.high,
                    "p_value": None,
                    "p_value_holm": None,
                    "told_apart": None
                    if ratio is None or ratio.low is None
                    else ratio.low > 1 or ratio.high < 1,
                    "seeds": None,
                    "values": ratio and _text(list(ratio.values)),
                }
            )
    return rows


def _metrics(run: RunLike) -> _Columns:
    found: dict[str, list[Any]] = {"kind": [], "step": [], "metric": [], "value": []}
    for kind in ("train", "eval"):
        for row in run.metrics(kind):
            step = row.get("step")
            for name, value in row.items() if isinstance(step, int) else ():
                if name not in ("kind", "step") and isinstance(value, int | float):
                    found["kind"].append(kind)
                    found["step"].append(step)
                    found["metric"].append(name)
                    found["value"].append(float(value))
    return found


def _by_domain(run: RunLike) -> _Columns:
    names, q, (p, _) = domain_names(run), target(run), proportions_in_force(run)
    final = run.info.get("final") or {}
    m = len(names)
    columns = {
        "q": q,
        "p": p[-1] if len(p) else None,
        "loss_token": losses(run).by_domain,
        "loss_example": as_floats(final.get("by_domain_example") or []),
    }
    missing = np.full(m, np.nan)
    return {
        "domain": names,
        **{
            name: values if values is not None and len(values) == m else missing
            for name, values in columns.items()
        },
    }


def _proportions(run: RunLike) -> _Columns:
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


def _stacked(known: Sequence[_Known], columns_of: Callable[[RunLike], _Columns]) -> pa.Table:
    """Put the rows of all runs below each other, with the run's name, variant and seed.

    Names are stored once and referred to by number: millions of rows stay small.
    """
    parts = [columns_of(run) for _, _, run in known]
    counts = [len(next(iter(part.values()))) for part in parts]
    which = np.repeat(np.arange(len(known)), counts).astype(np.int32)

    def by_run(values: Sequence[Any]) -> pa.Array:
        return pa.DictionaryArray.from_arrays(pa.array(which), _array(values)).dictionary_decode()

    made: dict[str, Any] = {
        "run": _coded(which, [name for name, _, _ in known]),
        "variant": _coded(which, [variant.label for _, variant, _ in known]),
        "seed": by_run([parameter(run, "seed") for _, _, run in known]),
    }
    for name in parts[0] if parts else ():
        values = [part[name] for part in parts]
        if name in _TEXT:
            made[name] = pa.array([_clean(v) for part in values for v in part], pa.string())
            made[name] = made[name].dictionary_encode()
        else:
            kind = np.int64 if name in _WHOLE else np.float64
            flat = np.concatenate([np.asarray(part, dtype=kind) for part in values])
            made[name] = pa.array(flat, from_pandas=True)  # NaN: not known
    return pa.table(made)


def _coded(which: np.ndarray[Any, Any], values: Sequence[str]) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(pa.array(which), pa.array(map(_clean, values)))


def _arrays(rows: Sequence[Mapping[str, Any]]) -> dict[str, pa.Array]:
    return {name: _array([row[name] for row in rows]) for name in (rows[0] if rows else ())}


def _array(values: Sequence[Any]) -> pa.Array:
    """Array of the one type that all values have, else of their JSON texts."""
    known = [value for value in values if value is not None]
    if known and all(isinstance(value, bool) for value in known):
        return pa.array(values, pa.bool_())
    plain = all(isinstance(value, int | float) and not isinstance(value, bool) for value in known)
    if known and plain:
        whole = all(isinstance(value, int) and abs(value) < 2**63 for value in known)
        return (
            pa.array(values, pa.int64())
            if whole
            else pa.array(
                [None if value is None else float(value) for value in values],
                pa.float64(),
                from_pandas=True,
            )
        )
    return pa.array([_text(value) for value in values], pa.string())


def _text(value: Any) -> str | None:
    if value is None:
        return None
    return _clean(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


def _clean(text: str) -> str:
    return text.encode("utf-8", "replace").decode("utf-8")  # a lone surrogate is no text


def _write_parquet(table: pa.Table, path: Path) -> None:
    pq.write_table(table, path, compression="zstd")


def _write_csv(table: pa.Table, path: Path) -> None:
    columns = [_safe(table.column(name)) for name in table.column_names]
    pa_csv.write_csv(pa.table(columns, names=table.column_names), path)


def _safe(column: pa.ChunkedArray) -> pa.Array:
    """Escape the texts of a column, each different one once."""
    if not (pa.types.is_string(column.type) or pa.types.is_dictionary(column.type)):
        return column
    coded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    chunks = [
        pa.DictionaryArray.from_arrays(
            chunk.indices,
            pa.array(
                [None if t is None else cell(t) for t in chunk.dictionary.to_pylist()], pa.string()
            ),
        ).dictionary_decode()
        for chunk in coded.chunks
    ]
    return pa.chunked_array(chunks, pa.string())
