"""What is in memory, or comes row by row, as Arrow data sets: lists, frames, tables, streams.

A column that Arrow cannot hold, such as one of numbers and texts, is left out: whether that is an
error depends on whether it is needed, which is not known here.
"""

from __future__ import annotations

import bisect
import glob
import itertools
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa

from rbkit.data.files import KNOWN, Opened, checked_path, reason, suffix
from rbkit.errors import InputError
from rbkit.text import progress_bar

Unread = dict[str, InputError]  # columns that had to be left out, and why

_SPLITS = ("train", "eval", "validation", "valid", "val", "dev", "test")
_COLUMN = (list, tuple, np.ndarray, pd.Series, pa.Array, pa.ChunkedArray)
_CHUNK = 10_000  # rows that come one by one and are put into Arrow together


def in_memory(where: Any, progress: bool) -> Any:
    """Open what is in memory or comes row by row; return the rest, places to load from."""
    kind, unread = type(where).__name__, Unread()
    if isinstance(where, Mapping):
        return _mapping(where, kind, progress, unread)
    data = _table(where, kind, progress, unread)
    if not isinstance(data, datasets.Dataset):
        return _checked_places(data)
    unit = "texts" if isinstance(where, _COLUMN) and data.column_names == ["text"] else "rows"
    return Opened({"train": data}, f"{kind} of {len(data):,} {unit}", unread=unread, in_memory=True)


def _mapping(where: Mapping[Any, Any], kind: str, progress: bool, unread: Unread) -> Any:
    """Open a mapping: rows of each split, or lists that are columns; else it is of files."""
    if not set(where) <= set(_SPLITS) and all(isinstance(v, _COLUMN) for v in where.values()):
        columns = {str(name): _listed_values(values) for name, values in where.items()}
        if not all(map(_could_be_file, (v for values in columns.values() for v in values[:1]))):
            short, long = (pick(columns, key=lambda n: len(columns[n])) for pick in (min, max))
            if len(columns[short]) != len(columns[long]):
                numbers = f"{len(columns[long])} values in {long!r}, {len(columns[short])}"
                what = f"{numbers} in {short!r}"
                raise InputError(kind, what, "give columns of one length")
            data = _from_columns(columns, kind, unread)
            return Opened(
                {"train": data}, f"{kind} of {len(data):,} rows", unread=unread, in_memory=True
            )
    splits = {str(n): _table(given, f"{kind}, {n}", progress, unread) for n, given in where.items()}
    rows = {n: data for n, data in splits.items() if isinstance(data, datasets.Dataset)}
    if rows and (others := [name for name in splits if name not in rows]):
        what = f"{next(iter(rows))!r} is rows in memory, {others[0]!r} is not"
        raise InputError(kind, what, "give rows of each split, files of each, or columns")
    return Opened(rows, kind, unread=unread, in_memory=True) if rows else _checked_places(splits)


def _table(given: Any, kind: str, progress: bool, unread: Unread) -> Any:
    """Return rows in memory as a ``Dataset``; whatever else is given as it is, read into a list."""
    if isinstance(given, datasets.Dataset | str | bytes | bytearray | Path | Mapping):
        return given
    if isinstance(given, pd.DataFrame):
        return _from_frame(given, kind, unread)
    if isinstance(given, np.ndarray) and given.ndim != 1:
        what = f"is an array of shape {given.shape}"
        raise InputError(kind, what, "give one text per item, in one dimension")
    if isinstance(given, pd.Series | np.ndarray | pa.Array | pa.ChunkedArray):
        return _from_columns({"text": _listed_values(given)}, kind, unread)
    if hasattr(given, "__arrow_c_stream__") or isinstance(given, pa.RecordBatch):
        return _from_arrow(given, kind, unread)
    if not isinstance(given, Iterable):
        return given
    if not isinstance(given, list | tuple):
        items = iter(given)
        if not (first := list(itertools.islice(items, 1))):
            raise InputError(kind, "gives no rows", "give texts, rows or files")
        items = itertools.chain(first, items)
        if isinstance(first[0], Mapping):
            features = given.features if isinstance(given, datasets.IterableDataset) else None
            return from_stream(items, kind, features, progress, unread)
        given = list(items)
    first = [item for item in given if item is not None][:1]
    if first and isinstance(first[0], Mapping):
        return _from_rows(given, kind, unread)
    if first and isinstance(first[0], str) and not _are_files(given, kind):
        return _from_columns({"text": list(given)}, kind, unread)
    return list(given)


def _are_files(items: Sequence[Any], kind: str) -> bool:
    """Whether a list of strings is of files, or of texts; a mixture of both is refused."""
    could_be = [_could_be_file(item) for item in items]
    if any(could_be) and not all(could_be):
        what = f"{items[could_be.index(True)]!s:.60} looks like a file and "
        what += f"{items[could_be.index(False)]!s:.60} does not"
        remedy = 'give texts as a column, {"text": [...]}, and files as Path objects'
        raise InputError(f"{kind} of {len(items):,} strings", what, remedy)
    return all(could_be)


def _could_be_file(item: Any) -> bool:
    """Whether an item of a list is there as a file, is called as one, or is a pattern."""
    if not isinstance(item, str):
        return isinstance(item, Path)
    if "\n" in item or not item.strip():
        return False
    if os.path.exists(item):
        return True
    pattern = glob.has_magic(item)
    if " " in item:
        return pattern and "/" in item and suffix(item) in KNOWN
    return suffix(item) in KNOWN or (pattern and _matches_data(item))


def _matches_data(pattern: str) -> bool:
    """Whether there is a data file to match; ``[deleted]``, ``why?`` and ``***`` are texts."""
    named = set("*/") & set(pattern) and any(map(str.isalnum, pattern))
    return bool(named) and any(suffix(match) in KNOWN for match in glob.iglob(pattern))


def _listed_values(values: Any) -> list[Any]:
    if isinstance(values, np.ndarray) and values.ndim == 0:
        return [values.item()]
    listed = values.to_pylist() if hasattr(values, "to_pylist") else list(values)
    return [None if value is pd.NA or value is pd.NaT else value for value in listed]


def _from_frame(frame: pd.DataFrame, kind: str, unread: Unread) -> datasets.Dataset:
    names = pd.Index([str(name) for name in frame.columns])
    if names.has_duplicates:
        what = f"has two columns {names[names.duplicated()][0]!r}"
        raise InputError(kind, what, "rename one of them")
    try:
        return datasets.Dataset.from_pandas(frame, preserve_index=False)
    except (pa.ArrowException, TypeError, ValueError):  # a column holds values of several types
        values = {name: _listed_values(frame.iloc[:, at]) for at, name in enumerate(names)}
        return _from_columns(values, kind, unread)


def _from_arrow(given: Any, kind: str, unread: Unread) -> datasets.Dataset:
    """Take over a table of Arrow, or of a library that hands out such tables."""
    try:
        try:
            table = pa.table(given)
        except (pa.ArrowException, TypeError):  # a column of its own
            table = pa.table({"text": pa.chunked_array(given)})
        for name in table.column_names if len(table.column_names) > 1 else ():
            try:
                datasets.Dataset(table.select([name]))
            except Exception as error:  # of a type that `datasets` does not have
                unread[name] = _unreadable(kind, name, reason(error))
        return datasets.Dataset(table.drop_columns([n for n in table.column_names if n in unread]))
    except Exception as error:  # anything that says it is Arrow
        raise InputError(kind, reason(error), "convert the column, or leave it out") from error


def from_stream(
    rows: Iterable[Any], kind: str, features: Any, progress: bool, unread: Unread
) -> datasets.Dataset:
    """Put rows that come one by one into Arrow."""
    tables, start = [], 0
    with progress_bar(
        desc="reading", unit=" rows", mininterval=1, delay=2, disable=not progress
    ) as bar:
        while some := list(itertools.islice(rows, _CHUNK)):
            tables.append(_from_rows(some, kind, unread, features, start).data.table)
            start += len(some)
            bar.update(len(some))
    # what `datasets` noted about the first table need not hold for all
    bare = tables if features else [table.replace_schema_metadata(None) for table in tables]
    for name in dict.fromkeys(name for table in bare for name in table.column_names):
        if name not in unread and (row := _first_of_another_type(bare, name)) is not None:
            unread[name] = _unreadable(kind, name, f"row {row} is of another type than before")
    bare = [table.drop_columns([n for n in table.column_names if n in unread]) for table in bare]
    return datasets.Dataset(pa.concat_tables(bare, promote_options="permissive"))


def _first_of_another_type(tables: Sequence[pa.Table], name: str) -> int | None:
    """Return the first row whose value cannot follow those before; None if all can."""
    parts: list[pa.Table] = []
    start, before = 0, None
    for table in tables:
        if name in table.column_names:
            values = datasets.Dataset(part := table.select([name]))[name][:]
            try:
                pa.concat_tables([*parts, part], promote_options="permissive")
            except pa.ArrowException:
                return start + _first_unreadable(values, before)
            parts.append(part)
            before = next((value for value in values if value is not None), before)
        start += len(table)
    return None


def _from_rows(
    rows: Sequence[Any], kind: str, unread: Unread, features: Any = None, start: int = 0
) -> datasets.Dataset:
    """Put dicts into Arrow; a key that only some of them have is missing in the others."""
    for at, row in enumerate(rows, start):
        if not isinstance(row, Mapping):
            what = f"item {at} is {type(row).__name__}, not a dict as others are"
            raise InputError(kind, what, "give a dict for each row")
    names = features or dict.fromkeys(name for row in rows for name in row)
    columns = {str(name): [row.get(name) for row in rows] for name in names}
    return _from_columns(columns, kind, unread, features, start)


def _from_columns(
    columns: Mapping[str, list[Any]],
    kind: str,
    unread: Unread,
    features: Any = None,
    start: int = 0,
) -> datasets.Dataset:
    columns = {
        # not a number: how pandas marks a missing text
        name: [None if isinstance(value, float) and value != value else value for value in values]
        for name, values in columns.items()
    }
    try:
        return _arrow_of(columns, features)
    except Exception as error:
        bad = [name for name in columns if _reason_against(columns[name])]
        for name in bad:
            row = start + _first_unreadable(columns[name])
            what = _reason_against(columns[name])
            unread[name] = _unreadable(kind, name, f"{what}, row {row}")
        good = {name: values for name, values in columns.items() if name not in bad}
        if bad and good and not features:
            return _arrow_of(good)
        where = kind if not bad or len(columns) == 1 else f"{kind}, column {bad[0]!r}"
        raise InputError(where, reason(error), _ONE_TYPE) from error


_ONE_TYPE = "make it of one type that Arrow has, or leave it out"


def _unreadable(kind: str, name: str, why: str) -> InputError:
    return InputError(f"{kind}, column {name!r}", why, _ONE_TYPE)


def _arrow_of(columns: Mapping[str, list[Any]], features: Any = None) -> datasets.Dataset:
    try:
        return datasets.Dataset.from_dict(columns, features)
    except Exception as error:
        try:  # values of several types in a column: newer releases have a type for these
            return datasets.Dataset.from_dict(columns, features, on_mixed_types="use_json")
        except Exception:
            raise error from None  # what older releases say is of the call


def _reason_against(values: list[Any]) -> str:
    """Return why Arrow cannot hold some values; "" if it can."""
    try:
        _arrow_of({"column": values})
    except Exception as error:  # as above
        return reason(error)
    return ""


def _first_unreadable(values: list[Any], before: Any = None) -> int:
    """Return the first row that cannot be in one column with those before it, by bisection."""

    def is_odd(at: int) -> bool:
        try:
            return not datasets.Dataset.from_dict({"column": [before, *values[: at + 1]]})
        except Exception:  # as above
            return True

    return bisect.bisect_left(range(len(values)), True, key=is_odd)


def _checked_places(where: Any) -> Any:
    """Return a list or a mapping of files; anything else is not a place to load from."""
    groups = list(where.values()) if isinstance(where, Mapping) else [where]
    for group in groups:
        for item in group if isinstance(group, list | tuple) else [group]:
            if not isinstance(item, str | Path):
                what = f"{item!r:.60} is not a place to load from"
                remedy = "give texts, rows, a path, a list of paths, a name or a hub id"
                raise InputError("where", what, remedy)
            checked_path(item)
    return where
