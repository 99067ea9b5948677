"""Open files, folders, hub ids and what is in memory as Arrow data sets, or say why not.

Files, globs, folders and hub ids all go through ``datasets.load_dataset``; no code that comes
with a data set is ever run. When that fails, the faulty file is searched for, because
the library's own error names neither the file nor the row.

Then columns ``text`` and ``source`` come out of any data set: checked, scanned once, selected.
The scan keeps 32 bytes per row in memory and no text. Where the wanted columns are plain
strings already, taking rows copies nothing; otherwise ``map`` rewrites them on disk.
"""

from __future__ import annotations

import errno
import gc
import glob
import hashlib
import inspect
import itertools
import json
import os
import re
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import fsspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from tqdm import tqdm

from rbkit.data.builtin import BUILTIN
from rbkit.errors import InputError, RbkitWarning
from rbkit.files import CACHE_REMEDY, cache_dir, fingerprint, inside, read_json, regular
from rbkit.text import listed, truncate, value_text

UInt64s = NDArray[np.uint64]
Ints = NDArray[np.int64]

_READERS = {
    ".csv": "csv",
    ".tsv": "csv",
    ".json": "json",
    ".jsonl": "json",
    ".ndjson": "json",
    ".parquet": "parquet",
    ".txt": "text",
    ".md": "text",
}
_COMPRESSED = (".gz", ".zst", ".xz", ".bz2")
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_JSON_KINDS: dict[type, str] = {str: "text", bool: "a boolean", int: "a number"}
_JSON_KINDS |= {float: "a number", list: "a list", dict: "an object"}
_BIG = 64e6  # bytes above which reading is worth a progress bar


@dataclass
class Opened:
    """Data sets by split name, what to call them, and whom to credit."""

    splits: dict[str, datasets.Dataset]
    name: str
    credits: list[dict[str, str]]


def open_data(
    where: Any,
    *,
    config: str | None = None,
    split: str | None = None,
    progress: bool = True,
    options: Mapping[str, Any] | None = None,
) -> Opened:
    """Open a built-in corpus, files, a folder, a hub id, or a data set that is already open.

    For the arguments see :func:`~rbkit.data.corpus.load_corpus`.
    """
    options = dict(options or {})
    if options.pop("streaming", False):
        what = "a corpus is counted and split, so it must be whole"
        raise InputError("streaming", what, "leave it out: texts stay on disk, memory-mapped")
    if options.pop("trust_remote_code", False):
        what = "no code that comes with data is run"
        raise InputError("trust_remote_code", what, "convert the data to Parquet")
    in_memory = _in_memory(where, progress)
    where = where if isinstance(in_memory, Opened) else in_memory
    path = _path(where) if isinstance(where, str | Path) else None
    built_in = isinstance(where, str) and where in BUILTIN
    if path and not (built_in or path.exists() or _looks_like_files(str(where))):
        return _open_hub(str(where), config, split, progress, options)
    if config is not None:
        what = "only data sets of the hub have configurations"
        raise InputError("config", what, "leave it out, and name the files")
    if isinstance(in_memory, Opened):
        opened = in_memory
        if options:
            remedy = f"{opened.name} takes no options: leave it out"
            raise InputError(next(iter(options)), "is an option for reading files", remedy)
    else:
        opened = _open_local(where, path, progress, options)
    if split is None:
        return opened
    if split not in opened.splits:
        what = f"{opened.name} has no split {split!r}"
        raise InputError("split", what, f"it has {', '.join(opened.splits)}")
    return Opened({"train": opened.splits[split]}, opened.name, opened.credits)


def _open_local(where: Any, path: Path | None, progress: bool, options: dict[str, Any]) -> Opened:
    if isinstance(where, str) and where in BUILTIN:
        return _open_builtin(where, progress, options)
    if given := [name for name in ("data_files", "data_dir") if name in options]:
        remedy = "give the files themselves, or a mapping of split name to files"
        raise InputError(given[0], "is an option of data sets of the hub", remedy)
    if path is not None and path.is_dir():
        return _open_folder(path, progress, options)
    if isinstance(where, Mapping):
        files = {str(name): _files(value) for name, value in where.items()}
        return _open_files(files, _name(next(iter(where.values()), "")), progress, options)
    return _open_files({"train": _files(where)}, _name(where), progress, options)


# ------------------------------------------------------------------------------ in memory

_SPLITS = ("train", "eval", "validation", "valid", "val", "dev", "test")
_COLUMN = (list, tuple, np.ndarray, pd.Series, pa.Array, pa.ChunkedArray)
_CHUNK = 10_000  # rows that come one by one and are put into Arrow together


def _in_memory(where: Any, progress: bool) -> Any:
    """Open what is in memory or comes row by row; return the rest, places to load from."""
    kind = type(where).__name__
    if isinstance(where, Mapping):
        return _mapping(where, kind, progress)
    data = _table(where, kind, progress)
    if not isinstance(data, datasets.Dataset):
        return _checked_places(data)
    unit = "texts" if isinstance(where, _COLUMN) and data.column_names == ["text"] else "rows"
    return Opened({"train": data}, f"{kind} of {len(data):,} {unit}", [])


def _mapping(where: Mapping[Any, Any], kind: str, progress: bool) -> Any:
    """Open a mapping: rows of each split, or lists that are columns; else it is of files."""
    if not set(where) <= set(_SPLITS) and all(isinstance(v, _COLUMN) for v in where.values()):
        columns = {str(name): _listed_values(values) for name, values in where.items()}
        if not all(map(_could_be_file, (v for values in columns.values() for v in values[:1]))):
            short, long = (pick(columns, key=lambda n: len(columns[n])) for pick in (min, max))
            if len(columns[short]) != len(columns[long]):
                numbers = f"{len(columns[long])} values in {long!r}, {len(columns[short])}"
                what = f"{numbers} in {short!r}"
                raise InputError(kind, what, "give columns of one length")
            data = _from_columns(columns, kind)
            return Opened({"train": data}, f"{kind} of {len(data):,} rows", [])
    splits = {str(n): _table(given, f"{kind}, {n}", progress) for n, given in where.items()}
    rows = {n: data for n, data in splits.items() if isinstance(data, datasets.Dataset)}
    if rows and (others := [name for name in splits if name not in rows]):
        what = f"{next(iter(rows))!r} is rows in memory, {others[0]!r} is not"
        raise InputError(kind, what, "give rows of each split, files of each, or columns")
    return Opened(rows, kind, []) if rows else _checked_places(splits)


def _table(given: Any, kind: str, progress: bool) -> Any:
    """Return rows in memory as a ``Dataset``; whatever else is given as it is, read into a list."""
    if isinstance(given, datasets.Dataset | str | bytes | bytearray | Path | Mapping):
        return given
    if isinstance(given, pd.DataFrame):
        return _from_frame(given, kind)
    if isinstance(given, np.ndarray) and given.ndim != 1:
        what = f"is an array of shape {given.shape}"
        raise InputError(kind, what, "give one text per item, in one dimension")
    if isinstance(given, pd.Series | np.ndarray | pa.Array | pa.ChunkedArray):
        return _from_columns({"text": _listed_values(given)}, kind)
    if hasattr(given, "__arrow_c_stream__") or isinstance(given, pa.RecordBatch):
        return _from_arrow(given, kind)
    if not isinstance(given, Iterable):
        return given
    if not isinstance(given, list | tuple):
        items = iter(given)
        if not (first := list(itertools.islice(items, 1))):
            raise InputError(kind, "gives no rows", "give texts, rows or files")
        items = itertools.chain(first, items)
        if isinstance(first[0], Mapping):
            features = given.features if isinstance(given, datasets.IterableDataset) else None
            return _from_stream(items, kind, features, progress)
        given = list(items)
    first = [item for item in given if item is not None][:1]
    if first and isinstance(first[0], Mapping):
        return _from_rows(given, kind)
    if first and isinstance(first[0], str) and not _are_files(given, kind):
        return _from_columns({"text": list(given)}, kind)
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
        return pattern and "/" in item and _suffix(item) in _READERS
    return _suffix(item) in _READERS or (pattern and _matches_data(item))


def _matches_data(pattern: str) -> bool:
    """Whether there is a data file to match; ``[deleted]``, ``why?`` and ``***`` are texts."""
    named = set("*/") & set(pattern) and any(map(str.isalnum, pattern))
    return bool(named) and any(_suffix(match) in _READERS for match in glob.iglob(pattern))


def _listed_values(values: Any) -> list[Any]:
    if isinstance(values, np.ndarray) and values.ndim == 0:
        return [values.item()]
    listed = values.to_pylist() if hasattr(values, "to_pylist") else list(values)
    return [None if value is pd.NA or value is pd.NaT else value for value in listed]


def _from_frame(frame: pd.DataFrame, kind: str) -> datasets.Dataset:
    names = pd.Index([str(name) for name in frame.columns])
    if names.has_duplicates:
        what = f"has two columns {names[names.duplicated()][0]!r}"
        raise InputError(kind, what, "rename one of them")
    try:
        return datasets.Dataset.from_pandas(frame, preserve_index=False)
    except (pa.ArrowException, TypeError, ValueError):  # a column holds values of several types
        values = {name: _listed_values(frame.iloc[:, at]) for at, name in enumerate(names)}
        return _from_columns(values, kind)


def _from_arrow(given: Any, kind: str) -> datasets.Dataset:
    """Take over a table of Arrow, or of a library that hands out such tables."""
    try:
        try:
            table = pa.table(given)
        except (pa.ArrowException, TypeError):  # a column of its own
            table = pa.table({"text": pa.chunked_array(given)})
        return datasets.Dataset(table)
    except Exception as error:  # anything that says it is Arrow
        raise InputError(kind, _reason(error), "convert the column, or leave it out") from error


def _from_stream(rows: Iterable[Any], kind: str, features: Any, progress: bool) -> datasets.Dataset:
    """Put rows that come one by one into Arrow."""
    tables, start = [], 0
    with tqdm(desc="reading", unit=" rows", mininterval=1, delay=2, disable=not progress) as bar:
        while some := list(itertools.islice(rows, _CHUNK)):
            tables.append(_from_rows(some, kind, features, start).data.table)
            start += len(some)
            bar.update(len(some))
    try:
        # what `datasets` noted about the first table need not hold for all
        bare = tables if features else [table.replace_schema_metadata(None) for table in tables]
        return datasets.Dataset(pa.concat_tables(bare, promote_options="permissive"))
    except pa.ArrowException as error:
        raise InputError(kind, _reason(error), "make each column of one type") from error


def _from_rows(
    rows: Sequence[Any], kind: str, features: Any = None, start: int = 0
) -> datasets.Dataset:
    """Put dicts into Arrow; a key that only some of them have is missing in the others."""
    for at, row in enumerate(rows, start):
        if not isinstance(row, Mapping):
            what = f"item {at} is {type(row).__name__}, not a dict as others are"
            raise InputError(kind, what, "give a dict for each row")
    names = features or dict.fromkeys(name for row in rows for name in row)
    columns = {str(name): [row.get(name) for row in rows] for name in names}
    return _from_columns(columns, kind, features)


def _from_columns(
    columns: Mapping[str, list[Any]], kind: str, features: Any = None
) -> datasets.Dataset:
    columns = {
        # not a number: how pandas marks a missing text
        name: [None if isinstance(value, float) and value != value else value for value in values]
        for name, values in columns.items()
    }
    try:
        return datasets.Dataset.from_dict(columns, features)
    except Exception as error:
        try:  # values of several types in a column: newer releases have a type for these
            return datasets.Dataset.from_dict(columns, features, on_mixed_types="use_json")
        except Exception:
            bad = next((name for name in columns if not _is_readable(columns[name])), None)
            where = kind if bad is None or len(columns) == 1 else f"{kind}, column {bad!r}"
            remedy = "make it of one type that Arrow has, or leave it out"
            raise InputError(where, _reason(error), remedy) from error


def _is_readable(values: list[Any]) -> bool:
    try:
        return bool(datasets.Dataset.from_dict({"column": values}))
    except Exception:  # as above
        return False


def _checked_places(where: Any) -> Any:
    """Return a list or a mapping of files; anything else is not a place to load from."""
    groups = list(where.values()) if isinstance(where, Mapping) else [where]
    for group in groups:
        for item in group if isinstance(group, list | tuple) else [group]:
            if not isinstance(item, str | Path):
                what = f"{item!r:.60} is not a place to load from"
                remedy = "give texts, rows, a path, a list of paths, a name or a hub id"
                raise InputError("where", what, remedy)
            _path(item)
    return where


def _path(where: str | Path) -> Path:
    """Return a path that the system can take."""
    if not str(where).strip():
        raise InputError("where", "is empty", "give a file, a folder, a hub id or a built-in name")
    try:
        str(where).encode("utf-8")
    except UnicodeEncodeError as error:
        what = "is not UTF-8, which the reading library needs"
        raise InputError(str(where)[:200], what, "rename it") from error
    try:
        path = Path(where).expanduser()
    except RuntimeError as error:  # ~ of a user that there is not
        raise InputError(str(where)[:200], str(error), "check the path") from error
    if "::" in str(path):  # fsspec would take what follows it for another place
        raise InputError(str(where)[:200], "has :: in its name", "rename it")
    return path if glob.has_magic(str(where)) else regular(path, or_folder=True)


def _open_builtin(name: str, progress: bool, options: dict[str, Any]) -> Opened:
    reader = BUILTIN[name]
    accepted = [key for key in inspect.signature(reader).parameters if key != "progress"]
    if unknown := [key for key in options if key not in accepted]:
        remedy = f"it takes {', '.join(accepted)}" if accepted else "it takes no options"
        raise InputError(unknown[0], f"not an option of the corpus {name!r}", remedy)
    texts = reader(progress=progress, **options)
    columns = {"text": texts.text, "source": texts.source, **texts.columns}
    held = [source in texts.held_out for source in texts.source]
    splits = {
        split: datasets.Dataset.from_dict(
            {
                k: [x for x, h in zip(v, held, strict=True) if h == is_held]
                for k, v in columns.items()
            }
        )
        for split, is_held in (("train", False), ("test", True))
        if is_held in held
    }
    return Opened(splits, name, texts.credits)


# ---------------------------------------------------------------------------------- files


def _suffix(path: str | Path) -> str:
    name = Path(path).name.lower()
    for compressed in _COMPRESSED:
        name = name.removesuffix(compressed)
    return Path(name).suffix


def _looks_like_files(where: str) -> bool:
    return bool(_suffix(where) in _READERS or glob.has_magic(where) or where.startswith((".", "/")))


def _name(where: Any) -> str:
    if isinstance(where, str | Path):
        return Path(where).name
    items = list(where)
    return f"{Path(items[0]).name} and {len(items) - 1} more" if items else "nothing"


def _files(where: str | Path | Sequence[str | Path]) -> list[Path]:
    if isinstance(where, str | Path):
        path = Path(where).expanduser()
        if path.is_file():
            return [path.resolve()]
        if glob.has_magic(str(where)):
            files = [Path(match).resolve() for match in sorted(set(_matches(str(path))))]
            if files := [file for file in dict.fromkeys(files) if file.is_file()]:
                return files
            raise InputError(str(where), "no file matches", f"check it (from {Path.cwd()})")
        raise InputError(str(where), "no such file", f"check the path (from {Path.cwd()})")
    if not where:
        raise InputError("where", "is an empty list", "give texts, rows or files")
    return [file for item in where for file in _files(item)]


def _matches(pattern: str) -> Iterator[str]:
    """Yield the paths that match; ``**`` does not follow links, which may lead back to it."""
    if pattern == "**" or pattern.endswith("/**"):
        pattern += "/*"
    head, star, tail = ("/" + pattern).partition("/**/")
    if not star:
        yield from glob.glob(pattern)
        return
    for base in glob.glob(head[1:] + "/") if head else [""]:
        for folder, folders, _ in os.walk(base or "."):
            folders[:] = [name for name in folders if not name.startswith(".")]
            yield from _matches(os.path.join(glob.escape(folder), tail))


def _open_files(
    files: Mapping[str, list[Path]], name: str, progress: bool, options: dict[str, Any]
) -> Opened:
    everything = [file for group in files.values() for file in group]
    if not everything:
        raise InputError("where", "no files", "give at least one file")
    kinds = {_suffix(file) for file in everything}
    for file in everything:
        if _suffix(file) not in _READERS:
            known = ", ".join(_READERS)
            raise InputError(str(file), "unknown kind of file", f"give one of {known}, or .gz")
        if _path(file).stat().st_size == 0:
            raise InputError(str(file), "is empty", "remove it or write it again")
    readers = {_READERS[kind] for kind in kinds}
    if len(readers) > 1 or len(kinds & {".csv", ".tsv"}) > 1:
        raise InputError(name, f"mixes {' and '.join(sorted(kinds))}", "load one kind at a time")
    reader = readers.pop()
    by_default = "document" if ".md" in kinds else "line"
    if reader == "text" and options.get("sample_by", by_default) == "document":
        root = Path(os.path.commonpath([file.parent for file in everything]))
        return _open_documents(files, root, name, progress, options)
    if reader != "parquet" and "encoding" not in options:
        for file in everything:
            _check_lines(file, reader == "json")
    try:
        if reader == "csv":
            options = _csv_options(everything, options)
        loaded = _load_files(reader, files, progress, options)
    except InputError:
        raise
    except Exception as error:  # anything at all: each reader brings its own libraries
        bad = _diagnose(reader, everything, options)
        if bad is None and not options.get("download_mode"):
            # The files are good, so it may be their copy in the cache: make it again, once.
            again = {**options, "download_mode": "force_redownload"}
            return _open_files(files, name, progress, again)
        culprit, what = bad or (name, _reason(error))
        remedy = "repair it or leave it out"
        if getattr(error, "errno", 0) in _FULL or "Not enough disk space" in str(error):
            culprit, what = cache_dir() / "datasets", "cannot be written (no space left)"
            remedy = CACHE_REMEDY
        if "zstandard" in what:
            what, remedy = "is compressed with zstd", "pip install zstandard"
        raise InputError(str(culprit), what, remedy) from error
    return Opened(dict(loaded), name, [])


_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


def _load_files(
    reader: str, files: Mapping[str, list[Path]], progress: bool, options: Mapping[str, Any]
) -> Any:
    size = sum(file.stat().st_size for group in files.values() for file in group)
    with quiet(progress and size > _BIG):
        return datasets.load_dataset(
            reader,
            # load_dataset takes patterns, not names
            data_files={k: [glob.escape(str(f)) for f in v] for k, v in files.items()},
            cache_dir=str(cache_dir() / "datasets"),
            **options,
        )


def _csv_options(files: Sequence[Path], options: dict[str, Any]) -> dict[str, Any]:
    # Every column is read as text: pandas guesses types per chunk, and a column of numbers that
    # has its first word in row 10,001 would fail. And the text "NA" is not a missing value.
    options = {"keep_default_na": False, **options}
    if _suffix(files[0]) == ".tsv":
        options.setdefault("sep", "\t")
    if "features" not in options:
        passed = _for_pandas(options)
        columns = pd.read_csv(files[0], nrows=0, **passed).columns
        options["features"] = datasets.Features(
            {str(column): datasets.Value("string") for column in columns}
        )
    return options


def _for_pandas(options: Mapping[str, Any]) -> dict[str, Any]:
    known = inspect.signature(pd.read_csv).parameters
    return {key: value for key, value in options.items() if key in known}


def _reason(error: BaseException, failed: str = "could not be read") -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    if "corresponds to no data" in str(error):
        return "has no rows"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{failed} ({type(error).__name__}: {lines[0][:300] if lines else ''})"


def _diagnose(
    reader: str, files: Sequence[Path], options: Mapping[str, Any]
) -> tuple[Path, str] | None:
    """Return the first file that cannot be read on its own, and what is wrong with it."""
    for file in files:
        try:
            if reader == "parquet":
                for group in range((parquet := pq.ParquetFile(file)).num_row_groups):
                    parquet.read_row_group(group)
            elif reader == "json":
                if what := _bad_json(file):
                    return file, what
            elif reader == "csv":
                # all files must have the columns of the first
                wanted = list(options.get("features") or [])
                with pd.read_csv(
                    file, chunksize=10_000, dtype=str, **_for_pandas(options)
                ) as chunks:
                    for chunk in chunks:
                        if missing := [c for c in wanted if c not in chunk.columns]:
                            what = f"has no column {missing[0]!r}, which {files[0].name} has"
                            return file, what
            else:
                with fsspec.open(str(file), "rt", compression="infer", encoding="utf-8") as lines:
                    for _ in lines:
                        pass
        except pa.ArrowInvalid as error:
            return file, f"truncated, or not Parquet ({str(error).splitlines()[0][:200]})"
        except Exception as error:  # whatever it is, this file raised it
            return file, _reason(error)
    return None


_DEEPEST = 100  # levels of JSON; Arrow's reader ends the process at some tens of thousands
# Possessive, and to the end of the line where it is not closed: time is proportional to length.
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"?')
_STEPS = np.zeros(256, dtype=np.int8)
_STEPS[list(b"[{")], _STEPS[list(b"]}")] = 1, -1


def _check_lines(file: Path, is_json: bool) -> None:
    """Refuse a file that is not UTF-8, or JSON nested so deep that it would end the process."""
    depth = naive = 0  # naive: also brackets in strings, which is quick to count
    number = 0
    try:
        with fsspec.open(str(file), "rb", compression="infer") as lines:
            for number, line in enumerate(lines, 1):
                if not line.isascii():
                    line.decode("utf-8")
                if not is_json:
                    continue
                opened = line.count(b"[") + line.count(b"{")
                closed = line.count(b"]") + line.count(b"}")
                naive = max(0, naive + opened - closed)
                if opened > _DEEPEST or naive or depth:
                    bare = np.frombuffer(_STRING.sub(b"", line), dtype=np.uint8)
                    levels = depth + np.cumsum(_STEPS[bare], dtype=np.int64)
                    depth = max(0, int(levels[-1])) if len(levels) else depth
                    if levels.max(initial=0) > _DEEPEST:
                        what = f"line {number} is nested more than {_DEEPEST} deep"
                        raise InputError(str(file), what, "flatten it, or leave it out")
    except UnicodeDecodeError as error:
        what = f"line {number} is not UTF-8 ({error.reason} at byte {error.start})"
        raise InputError(
            str(file), what, "convert it, e.g. with iconv, or give its encoding=..."
        ) from error
    except InputError:
        raise
    except Exception:  # damaged or unknown compression: reading it says more
        return


def _bad_json(file: Path) -> str | None:
    kinds: dict[str, tuple[str, int]] = {}  # of each column's values so far, and the line
    with fsspec.open(str(file), "rt", compression="infer", encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if number == 1 and line.lstrip()[:1] == "[":
                break
            try:
                row = json.loads(line) if line.strip() else {}
            except json.JSONDecodeError as error:
                return f"line {number} is not valid JSON ({error.msg} at column {error.colno})"
            except ValueError as error:  # an integer of thousands of digits
                return f"line {number} is not valid JSON ({error})"
            if not isinstance(row, dict):
                return f"line {number} is not a JSON object"
            for name, value in row.items():
                kind = _JSON_KINDS.get(type(value))
                if kind and kind != (before := kinds.setdefault(name, (kind, number)))[0]:
                    return f"line {number} has {kind} in {name!r}, line {before[1]} {before[0]}"
        else:
            return None
    with fsspec.open(str(file), "rt", compression="infer", encoding="utf-8") as whole:
        try:
            json.load(whole)
        except json.JSONDecodeError as error:
            return f"not valid JSON ({error})"
    return None


# -------------------------------------------------------------------- folders and the hub


def _open_folder(path: Path, progress: bool, options: dict[str, Any]) -> Opened:
    """Open the data files of a folder, and nothing that another file of it points to."""
    if (path / "dataset_dict.json").is_file() or (path / "state.json").is_file():
        _check_saved(path)
        try:
            saved = datasets.load_from_disk(str(path))
        except Exception as error:
            raise InputError(str(path), _reason(error), "save the data set again") from error
        splits = dict(saved) if isinstance(saved, datasets.DatasetDict) else {"train": saved}
        return Opened(splits, path.name, [])
    root = path.resolve()
    # A snapshot in the hub's cache is made of links to the files of its own repository.
    home = root.parents[1] if root.parent.name == "snapshots" else root
    data = []
    for match in sorted(_matches(f"{glob.escape(str(root))}/**/*")):
        file = Path(match)
        about = file.name in _ABOUT_DATA or file == root / "README.md"
        if file.is_file() and _suffix(file) in _READERS and not about:
            inside(home, file.resolve())
            data.append(file)
    texts = [file for file in data if _READERS[_suffix(file)] == "text"]
    if len(texts) < len(data):  # then texts are licences and the like
        data = [file for file in data if file not in texts]
    elif _are_documents(texts, path, options):
        return _open_documents(_document_splits(texts, root), root, path.name, progress, options)
    if not data:
        raise InputError(str(path), "no data file in it", f"put in one of {', '.join(_READERS)}")
    groups: dict[str, list[Path]] = {}
    for file in data:
        groups.setdefault(_split_of(file.relative_to(root)), []).append(file)
    return _open_files(groups, path.name, progress, options)


def _are_documents(texts: Sequence[Path], folder: Path, options: Mapping[str, Any]) -> bool:
    """Whether each text file of a folder is one example; by default, if there are several."""
    if "sample_by" in options:
        return bool(texts) and options["sample_by"] == "document"
    words = [re.split(r"[^a-z]+", file.name.lower()) for file in texts]
    named = [{_SPLIT_OF[word] for word in name if word in _SPLIT_OF} for name in words]
    if len(texts) < 2 or (all(named) and {"train"} in named):  # lines: train.txt and valid.txt
        return False
    what = f"each of its {len(texts):,} text files is one example"
    warnings.warn(f"{folder}: {what} (sample_by='line' reads lines)", RbkitWarning, stacklevel=6)
    return True


def _document_splits(files: Sequence[Path], root: Path) -> dict[str, list[Path]]:
    """Sort documents by the folder of their split; without a folder for train, all are train."""
    of = [_SPLIT_OF.get(file.relative_to(root).parts[0].lower(), "train") for file in files]
    own = any(_SPLIT_OF.get(file.relative_to(root).parts[0].lower()) == "train" for file in files)
    groups: dict[str, list[Path]] = {}
    for file, split in zip(files, of, strict=True):
        groups.setdefault(split if own else "train", []).append(file)
    return groups


def _open_documents(
    files: Mapping[str, list[Path]],
    root: Path,
    name: str,
    progress: bool,
    options: Mapping[str, Any],
) -> Opened:
    """Read each file as one example, whose source is the first folder below `root`."""
    known = ("sample_by", "encoding", "encoding_errors")
    if unknown := [option for option in options if option not in known]:
        remedy = f"they take {', '.join(known)}"
        raise InputError(unknown[0], "is not an option for documents", remedy)
    inner = {file: file.relative_to(root) for group in files.values() for file in group}
    tops = {path.parts[0].lower() for path in inner.values()}
    depth = len(files) > 1 or tops <= set(_SPLIT_OF)  # whether folders of splits come first

    def row(file: Path) -> dict[str, str | None]:
        folders = inner[file].parts[int(depth and inner[file].parts[0].lower() in _SPLIT_OF) : -1]
        source = folders[0] if folders else None
        return {"text": _document(file, options), "source": source, "file": str(inner[file])}

    splits = {
        split: _from_stream(map(row, group), name, _DOCUMENTS, progress)
        for split, group in files.items()
    }
    return Opened(splits, name, [])


_DOCUMENTS = datasets.Features(dict.fromkeys(("text", "source", "file"), datasets.Value("string")))


def _document(file: Path, options: Mapping[str, Any]) -> str:
    if "encoding" not in options:
        _check_lines(_path(file), False)
    encoding, errors = options.get("encoding", "utf-8"), options.get("encoding_errors")
    try:
        with fsspec.open(
            str(_path(file)), "rt", compression="infer", encoding=encoding, errors=errors
        ) as lines:
            return str(lines.read())
    except Exception as error:  # damaged or unknown compression, another encoding
        raise InputError(str(file), _reason(error), "repair it or leave it out") from error


# What `datasets` writes about data, beside them.
_ABOUT_DATA = ("config.json", "dataset_info.json", "dataset_infos.json", "dataset_dict.json")
# Words of a file's or a folder's name that say which split it is, as `datasets` reads them.
_SPLIT_WORDS = {"train": "train training", "test": "test testing eval evaluation"}
_SPLIT_WORDS["validation"] = "validation valid dev val"
_SPLIT_OF = {word: split for split, words in _SPLIT_WORDS.items() for word in words.split()}


def _split_of(file: Path) -> str:
    """Return the split that a file's path names, ``train`` if it names none.

    >>> _split_of(Path("data/test-00000-of-00001.parquet")), _split_of(Path("contest.csv"))
    ('test', 'train')
    """
    for part in [file.name, *reversed(file.parts[:-1])]:
        words = re.split(r"[^a-z]+", part.lower())
        for split, names in _SPLIT_WORDS.items():
            if set(words) & set(names.split()):
                return split
    return "train"


def _check_saved(path: Path) -> None:
    """Refuse a saved data set that names files outside its folder, or that are not files."""
    folders = [path]
    if (path / "dataset_dict.json").is_file():
        facts = read_json(path / "dataset_dict.json")
        splits = facts.get("splits", []) if isinstance(facts, dict) else []
        folders = [inside(path, str(split)) for split in splits]
    for folder in folders:
        regular(folder / "dataset_info.json")
        if not (folder / "state.json").is_file():
            continue  # `datasets` says what is missing
        state = read_json(folder / "state.json")
        files = state.get("_data_files") if isinstance(state, dict) else None
        for entry in files if isinstance(files, list) else []:
            name = entry.get("filename") if isinstance(entry, dict) else None
            regular(inside(path, folder.resolve() / str(name)))


def _open_hub(
    hub_id: str, config: str | None, split: str | None, progress: bool, options: dict[str, Any]
) -> Opened:
    remedy = f"give a file, a folder, a hub id (owner/name) or one of {', '.join(BUILTIN)}"
    if not _HUB_ID.fullmatch(hub_id):
        raise InputError(hub_id, "no such file or built-in corpus, and not a hub id", remedy)
    try:
        splits, licence = _load(hub_id, config, split, progress, options)
    except InputError:
        raise
    except Exception as error:
        raise InputError(
            hub_id, f"not a local file, and the hub: {_reason(error)}", remedy
        ) from error
    url = f"https://huggingface.co/datasets/{hub_id}"
    credit = {
        "asset": hub_id,
        "licence": licence or "see its page",
        "attribution": f"the authors of {hub_id}",
        "url": url,
    }
    return Opened(splits, hub_id, [credit])


def _load(
    where: str, config: str | None, split: str | None, progress: bool, options: dict[str, Any]
) -> tuple[dict[str, datasets.Dataset], str]:
    with quiet(progress):
        loaded = datasets.load_dataset(
            where, config, split=split, cache_dir=str(cache_dir() / "datasets"), **options
        )
    if isinstance(loaded, datasets.Dataset):
        return {"train": loaded}, loaded.info.license
    return dict(loaded), next(iter(loaded.values())).info.license


@contextmanager
def quiet(progress: bool) -> Iterator[None]:
    """Keep ``datasets``' logging, and its bars unless `progress`, off the screen for a while.

    Its log repeats in a page what our error says in a line.
    """
    verbosity = datasets.utils.logging.get_verbosity()
    bars_were_off = datasets.utils.are_progress_bars_disabled()
    datasets.utils.logging.set_verbosity(datasets.utils.logging.CRITICAL)
    if not progress:
        datasets.utils.disable_progress_bars()
    try:
        with warnings.catch_warnings():
            # a reader that fails leaves its files and sockets to the collector
            warnings.simplefilter("ignore", ResourceWarning)
            try:
                yield
            except BaseException as error:
                _clear_frames(error)
                gc.collect()  # reference cycles, too
                raise
    finally:
        datasets.utils.logging.set_verbosity(verbosity)
        if not bars_were_off:
            datasets.utils.enable_progress_bars()


def _clear_frames(error: BaseException | None) -> None:
    """Drop the local variables of an error's frames, so that open files are closed now."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


# ---------------------------------------------------------------------- texts and sources

UNKNOWN = "unknown"
ORIGINAL_ROW = "original_row"
_BATCH = 1000
_TEXTS = ("string", "null")
_ALLOWED = {"text": _TEXTS, "source": (*_TEXTS, "integer", "label"), "id": ("string", "integer")}
_STRINGS = datasets.Features({"text": datasets.Value("string"), "source": datasets.Value("string")})


@dataclass
class Scan:
    """One pass over a data set: which rows have a text, and their hashes and sources."""

    rows: Ints  # rows that have a text
    hashes: UInt64s  # blind to whitespace, for the split
    exact: UInt64s  # of the very text, for the fingerprint
    codes: Ints  # number of each row's source
    names: list[str]  # of the sources
    dropped: int  # rows without text


Function = Callable[[dict[str, Any]], "str | None"]


@dataclass
class Columns:
    """Where text and source come from: columns, fields of columns (``doc.body``), a function."""

    text: list[str] | Function  # joined, or called with a row
    source: str | None
    reads: str | None = None  # the column that the function reads; by default, all of them
    id: str | None = None  # the column that tells rows apart, for whoever made the data

    @classmethod
    def find(
        cls,
        opened: Opened,
        split: str,
        text: str | Sequence[str] | Function,
        source: str | None,
        messages: str | None = None,
        id: str | None = None,
    ) -> Columns:
        """Find the requested columns in a split; by default, also those of usual data sets."""
        features = opened.splits[split].features
        by_default = source == "source" and "source" not in features
        category = None  # the default requires nothing
        if messages is not None and text != "text":
            raise InputError("messages", "is given beside text", "give one of the two")
        unnamed = messages is None and text == "text" and "text" not in features
        if unnamed and (shape := _usual_columns(features)) is not None:
            kind, text, messages, category = shape
            used = f"text={text!r}" if messages is None else f"messages={messages!r}"
            used += f", source={category!r}" if by_default and category else ""
            warnings.warn(
                f"{opened.name}: has no column 'text', but those of {kind}: read with {used}",
                RbkitWarning,
                stacklevel=3,
            )
        columns = cls([], category if by_default else source, id=id)
        if messages is not None:
            columns.text, columns.reads = partial(_chat, messages), messages
        elif callable(text):
            columns.text = text
        else:
            several = isinstance(text, Sequence) and not isinstance(text, str)
            columns.text = list(text) if several else [text]  # type: ignore[list-item]
            if not columns.text:
                raise InputError("text", "no column", "name at least one")
        columns.check(opened, split)
        return columns

    def check(self, opened: Opened, split: str) -> None:
        """Raise an InputError if a column is not in `split`, or is of another kind."""
        data = opened.splits[split]
        where = opened.name if len(opened.splits) == 1 else f"{opened.name}, split {split}"
        wanted = [] if callable(self.text) else [("text", name) for name in self.text]
        wanted += [("messages", self.reads)] if self.reads is not None else []
        wanted += [("source", self.source)] if self.source is not None else []
        wanted += [("id", self.id)] if self.id is not None else []
        for role, name in wanted:
            if not isinstance(name, str):
                raise InputError(role, f"{name!r:.60} is not a column's name", "give a string")
            if (feature := _field(data.features, name)) is None:
                raise _no_column(data, where, role, name)
            kind = _kind(feature)
            if role == "messages":
                if _turn(feature) is None and "Json" not in (kind, _kind(_item(feature))):
                    what = f"column {name!r} holds {kind}, not a chat"
                    remedy = "choose one of lists of {role, content} or {from, value}"
                    raise InputError(where, what, remedy)
                continue
            if role == "text" and kind == "Json":  # how `datasets` reads values of several types
                rows = data.select_columns(_steps(name, data.features)[:1])
                kinds = (type(_field(row, name)).__name__ for row in rows)
                odd = next(((at, k) for at, k in enumerate(kinds) if k not in ("str", "NoneType")))
                what = f"row {odd[0]} of column {name!r} holds {odd[1]}, not a text"
                raise InputError(where, what, "make all of it text, or leave the row out")
            if kind not in _ALLOWED[role]:
                remedy = f"choose another {role}="
                if role == "text" and _turn(feature) is not None:
                    remedy = f"give messages={name!r}"
                elif isinstance(feature, dict):
                    kind = f"fields {listed(list(feature))}"
                    remedy = f"name one, as in {role}={f'{name}.{next(iter(feature), None)}'!r}"
                article = "an" if role == "id" else "a"
                what = f"column {name!r} holds {kind}, not {article} {role}"
                raise InputError(where, what, remedy)

    def names(self, data: datasets.Dataset) -> list[str]:
        """Each column once: one may be part of the text and the source as well."""
        if callable(self.text):
            read = data.column_names if self.reads is None else [self.reads]
        else:
            read = list(self.text)
        read = [*read, *([] if self.source is None else [self.source])]
        return list(dict.fromkeys(_steps(name, data.column_names)[0] for name in read))

    def labels(self, data: datasets.Dataset) -> list[str] | None:
        """Return the names of a source column of numbered labels."""
        feature = _field(data.features, self.source) if self.source is not None else None
        return list(feature.names) if isinstance(feature, datasets.ClassLabel) else None

    def scan(
        self,
        data: datasets.Dataset,
        progress: bool,
        keep_empty: bool = False,
        where: str = "corpus",
    ) -> Scan:
        """Hash every text and number every source; rows without text only if `keep_empty`."""
        rows, hashes, exact = [np.zeros(0, np.int64)], [content_hash([])], [content_hash([])]
        codes: list[int] = []
        numbers: dict[str, int] = {}
        start, labels = 0, self.labels(data)
        with tqdm(
            total=len(data),
            desc="reading",
            unit=" rows",
            mininterval=1,
            disable=not progress or len(data) < 100_000,
        ) as bar:
            wanted = data.select_columns(names := self.names(data)).with_format("arrow")
            for batch in wanted.iter(batch_size=_BATCH):
                try:
                    texts = _texts(batch, self.text, wanted.features, where, start)
                    sources = _sources(batch, self.source, labels)
                except UnicodeDecodeError as error:
                    row = start + _first_undecodable(batch, names)
                    what = f"row {row} is not UTF-8 ({error.reason} at byte {error.start})"
                    raise InputError(where, what, "write the file again in UTF-8") from error
                some = [i for i, text in enumerate(texts) if keep_empty or text.strip()]
                rows.append(start + np.array(some, dtype=np.int64))
                hashes.append(content_hash(texts[i] for i in some))
                exact.append(_hashes(texts[i] for i in some))
                codes += [numbers.setdefault(sources[i], len(numbers)) for i in some]
                start += len(texts)
                bar.update(len(texts))
        return Scan(
            np.concatenate(rows),
            np.concatenate(hashes),
            np.concatenate(exact),
            np.array(codes, dtype=np.int64),
            list(numbers),
            start - len(codes),
        )

    def take(
        self,
        data: datasets.Dataset,
        rows: Ints,
        progress: bool,
        key: str,
        keep: bool | Sequence[str] = (),
    ) -> datasets.Dataset:
        """Return these rows: text, source, row in `data`, id, and those to `keep`.

        `key` is of texts and sources.
        """
        keys = {ORIGINAL_ROW: pa.array(np.arange(len(data)))}
        if self.id is not None:
            column = _steps(self.id, data.column_names)[:1]
            keys["id"] = _column(data.select_columns(column).with_format("arrow")[:], self.id)
        table = pa.table(keys)
        others = data.select_columns(self._kept(data, keep, ["text", "source", *keys]))
        chosen = data.select(rows)
        source, text = self.source, self.text
        # If nothing has to be joined, converted or filled in, no text is copied.
        if (
            not callable(text)
            and len(text) == 1
            and source not in (None, *text)
            and all(_kind(data.features.get(name)) == "string" for name in (*text, source))
            and not _has_blanks(chosen.select_columns([source]))
        ):
            renamed = dict(zip([*text, source], ["text", "source"], strict=True))
            renamed_data = data.select_columns(list(renamed)).rename_columns(renamed)
            return _beside(renamed_data.with_format(None), table, others).select(rows)
        names = self.names(data)
        with quiet(progress and len(chosen) > 100_000):
            made = (
                chosen.select_columns(names)
                .with_format("arrow")
                .map(
                    _as_table,
                    batched=True,
                    batch_size=_BATCH,
                    remove_columns=names,
                    fn_kwargs={"columns": self, "labels": self.labels(data), "of": data.features},
                    features=_STRINGS,
                    # Of the content: whether a function can be hashed, and all of it, is unsure.
                    new_fingerprint=key,
                )
                .with_format(None)
            )
            return _beside(made, table.take(pa.array(rows)), others.select(rows))

    @staticmethod
    def _kept(
        data: datasets.Dataset, keep: bool | Sequence[str], taken: Sequence[str]
    ) -> list[str]:
        if isinstance(keep, bool):
            return [name for name in data.column_names if keep and name not in taken]
        if isinstance(keep, str):
            raise InputError("keep", f"{keep!r} is one name", f"give a list, [{keep!r}]")
        for name in keep:
            if name in taken:
                raise InputError("keep", f"{name!r} is a column of every corpus", "leave it out")
            if name not in data.column_names:
                raise _no_column(data, "corpus", "keep", name)
        return list(dict.fromkeys(keep))


def _beside(data: datasets.Dataset, table: pa.Table, others: datasets.Dataset) -> datasets.Dataset:
    """Put columns in memory, and further ones, beside those of a data set."""
    parts = [data, datasets.Dataset(table)]
    parts += [others.with_format(None)] if others.column_names else []
    return datasets.concatenate_datasets(parts, axis=1)


def _kind(feature: Any) -> str:
    if isinstance(feature, datasets.ClassLabel):
        return "label"
    if not isinstance(feature, datasets.Value):
        return type(feature).__name__
    if feature.dtype in ("string", "large_string", "string_view"):
        return "string"
    if feature.dtype.startswith(("int", "uint", "bool")):
        return "integer"
    return str(feature.dtype)


def _has_blanks(column: datasets.Dataset) -> bool:
    for batch in column.with_format("arrow").iter(batch_size=10 * _BATCH):
        values = batch.column(0)
        trimmed = pc.utf8_trim_whitespace(values)
        if values.null_count or pc.any(pc.equal(trimmed, "")).as_py():
            return True
    return False


def _texts(
    batch: pa.Table,
    text: list[str] | Function,
    features: datasets.Features,
    where: str = "corpus",
    start: int = 0,
) -> list[str]:
    """Return the texts of a batch whose first row has the number `start`."""
    if callable(text):
        rows = enumerate(_rows(batch, features, where), start)
        return [_called(text, row, where, at) for at, row in rows]
    parts = [_values(batch, name) for name in text]
    if len(parts) == 1:
        return [value or "" for value in parts[0]]
    return [
        "\n\n".join(part for part in row if part and part.strip())
        for row in zip(*parts, strict=True)
    ]


def _sources(batch: pa.Table, source: str | None, labels: list[str] | None) -> list[str]:
    if source is None:
        return [UNKNOWN] * len(batch)
    values = _values(batch, source)
    if labels is not None:  # -1 is how `datasets` marks a missing label
        return [labels[v] if v is not None and v >= 0 else UNKNOWN for v in values]
    return [str(v) if v is not None and str(v).strip() else UNKNOWN for v in values]


def _rows(batch: pa.Table, features: datasets.Features, where: str) -> Iterator[dict[str, Any]]:
    """Yield the rows of a batch as ``datasets`` would give them."""
    columns = batch.to_pydict()
    try:
        columns = features.decode_batch(columns)
    except Exception as error:  # a damaged picture, among others
        raise InputError(where, _reason(error), "mend the rows, or leave them out") from error
    for values in zip(*columns.values(), strict=True):
        yield dict(zip(columns, values, strict=True))


def _called(function: Function, row: dict[str, Any], where: str, at: int) -> str:
    """Return the text that a function makes of a row; nothing is an empty one."""
    try:
        text = function(row)
        if text is not None and not isinstance(text, str):
            raise TypeError(f"it gives {type(text).__name__}, not a text")
        (text or "").encode()
    except Exception as error:  # anything at all: it is the user's own
        what = f"{_reason(error, f'no text can be made of row {at}')}"
        raise InputError(where, what, "mend the function, or leave the row out") from error
    return text or ""


def _steps(name: str, columns: Iterable[str]) -> list[str]:
    """Return the column and the fields inside it that a name stands for.

    >>> _steps("doc.body", ["doc"]), _steps("doc.body", ["doc", "doc.body"])
    (['doc', 'body'], ['doc.body'])
    """
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        if (column := ".".join(parts[:end])) in columns:
            return [column, *parts[end:]]
    return [name]


def _column(batch: pa.Table, name: str) -> pa.ChunkedArray:
    column, *fields = _steps(name, batch.column_names)
    values = batch.column(column)
    for field in fields:
        values = pc.struct_field(values, [values.type.get_field_index(field)])
    return values


def _values(batch: pa.Table, name: str) -> list[Any]:
    values: list[Any] = _column(batch, name).to_pylist()
    return values


def _field(row: Mapping[str, Any], name: str) -> Any:
    """Return the value of a column or field in a row, or its type in features; else None."""
    value: Any = row
    for step in _steps(name, row):
        value = value.get(step) if isinstance(value, Mapping) else None
    return value


# ------------------------------------------------------------------- shapes of usual data sets

# The columns that make the text, in order, and the one that is the source.
_USUAL = {
    "Dolly": (("instruction", "context", "response"), "category"),
    "Alpaca": (("instruction", "input", "output"), None),
    "prompts and completions": (("prompt", "completion"), None),
    "questions and answers": (("question", "answer"), None),
}
_TURNS = {"OpenAI's chats": ("role", "content"), "ShareGPT": ("from", "value")}
_ROLES = {"human": "user", "gpt": "assistant"}  # ShareGPT's


def _usual_columns(features: Mapping[str, Any]) -> tuple[str, Any, str | None, str | None] | None:
    """Return the name of the shape, and text, messages and source in it; None if there is none."""
    for column in ("messages", "conversations"):
        if (kind := _turn(features.get(column))) is not None:
            return kind, "text", column, None
    for kind, (text, source) in _USUAL.items():
        if all(_kind(features.get(name)) in _TEXTS for name in text):
            return kind, text, None, source if source in features else None
    return None


def _turn(feature: Any) -> str | None:
    """Return the kind of chat that a column holds: lists of turns, or turns of lists."""
    turn = _item(feature)
    if isinstance(feature, dict) and all(_item(part) is not None for part in feature.values()):
        turn = feature
    for kind, fields in _TURNS.items():
        if isinstance(turn, dict) and all(field in turn for field in fields):
            return kind
    return None


def _item(feature: Any) -> Any:
    """Return the type of a list's items; None if it is not a list."""
    if isinstance(feature, list):
        return feature[0]
    return getattr(feature, "feature", None)


def _chat(column: str, row: dict[str, Any]) -> str:
    r"""Return a chat as a text.

    >>> turns = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Because."}]
    >>> _chat("messages", {"messages": turns})
    'User: Why?\n\nAssistant: Because.'
    """
    turns = _field(row, column) or []
    if isinstance(turns, Mapping):
        turns = [dict(zip(turns, turn, strict=True)) for turn in zip(*turns.values(), strict=True)]
    return "\n\n".join(filter(None, map(_turn_text, turns)))


def _turn_text(turn: Any) -> str:
    if not isinstance(turn, Mapping):
        raise TypeError(f"a turn is {type(turn).__name__}, not a dict")
    given = (fields for fields in _TURNS.values() if turn.get(fields[1]) is not None)
    role, content = next(given, ("", ""))
    said = turn.get(content)
    if isinstance(said, list):  # parts, of which pictures and calls of tools have no text
        said = "\n".join(part["text"] for part in said if part.get("text"))
    if said is None or not said.strip():
        return ""
    who = str(turn.get(role) or "")
    who = _ROLES.get(who, who).capitalize()
    return f"{who}: {said.strip()}" if who else said.strip()


# ------------------------------------------------------------------------ no such column


def _no_column(data: datasets.Dataset, where: str, role: str, name: str) -> InputError:
    """Return the error, with the columns, the likeliest one and the first row."""
    names = data.column_names
    remedy = f"name the column by {role}=..."
    separators = [sign for sign in ";|\t" if len(names) == 1 and sign in names[0]]
    if similar := _similar(name, data.features):
        remedy = f"did you mean {similar!r}? {remedy}"
    elif separators:
        remedy = f"give sep={separators[0]!r}, or {remedy}"
    if preview := _first_row(data):
        remedy += f" (first row: {preview})"
    return InputError(where, f"no column {name!r}; it has {listed(names)}", remedy)


def _similar(name: str, features: Mapping[str, Any]) -> str | None:
    """Return the column or field that differs by case, blanks and the like, or is further in."""

    def bare(text: str) -> str:
        return "".join(filter(str.isalnum, text.casefold())) or text

    fields = list(_fields(features))
    same = [field for field in fields if bare(field) == bare(name)]
    same += [field for field in fields if bare(field.rsplit(".", 1)[-1]) == bare(name)]
    return same[0] if same else None


def _fields(features: Mapping[str, Any], before: str = "") -> Iterator[str]:
    """Yield the names of all columns and of the fields inside them.

    >>> list(_fields({"id": 0, "doc": {"body": 0}}))
    ['id', 'doc', 'doc.body']
    """
    for name, feature in features.items():
        yield before + name
        if isinstance(feature, dict):
            yield from _fields(feature, f"{before}{name}.")


def _first_row(data: datasets.Dataset) -> str:
    """Return the first row, shortened: enough to recognise the columns."""
    try:
        rows = data.with_format("arrow")[:1].to_pylist() if len(data) else [{}]
    except (UnicodeDecodeError, pa.ArrowException):  # damaged
        return ""
    shown = []
    for name, value in list(rows[0].items())[:8]:
        value = f"{len(value):,} bytes" if isinstance(value, bytes) else value
        value = value_text(value[:200] if isinstance(value, str) else value)
        shown.append(f"{truncate(name, 30)} = {truncate(value, 40)}")
    return ", ".join(shown)


# ------------------------------------------------------------------------------- hashes


def _first_undecodable(batch: pa.Table, names: Sequence[str]) -> int:
    """Return the first row of which a column is not UTF-8; Parquet's readers do not check it."""
    for row in range(len(batch)):
        for name in names:
            try:
                batch.column(name)[row].as_py()
            except UnicodeDecodeError:
                return row
    return 0


def _as_table(
    batch: pa.Table, columns: Columns, labels: list[str] | None, of: datasets.Features
) -> pa.Table:
    of = datasets.Features({name: of[name] for name in batch.column_names})
    strings = _texts(batch, columns.text, of), _sources(batch, columns.source, labels)
    return pa.table([pa.array(s, pa.string()) for s in strings], names=["text", "source"])


def content_hash(texts: Iterable[str]) -> UInt64s:
    r"""64-bit hashes of texts, blind to differences in whitespace.

    >>> a, b, c = content_hash(["one two", " one\n two", "one, two"])
    >>> bool(a == b), bool(a == c)
    (True, False)
    """
    return _hashes(" ".join(text.split()) for text in texts)


def _hashes(texts: Iterable[str]) -> UInt64s:
    raw = b"".join(
        hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        for text in texts
    )
    return np.frombuffer(raw, dtype="<u8").astype(np.uint64)


@dataclass
class Rows:
    """The rows of all scans, one after the other, with common source numbers."""

    position: Ints  # row in its data set
    hashes: UInt64s
    exact: UInt64s
    codes: Ints
    names: list[str]

    @classmethod
    def of(cls, scans: Sequence[Scan]) -> Rows:
        """Put scans one after the other, sources numbered by name."""
        names = sorted({name for scan in scans for name in scan.names})
        number = {name: i for i, name in enumerate(names)}
        codes = [
            np.array([number[name] for name in scan.names], dtype=np.int64)[scan.codes]
            for scan in scans
        ]
        return cls(
            np.concatenate([scan.rows for scan in scans]),
            np.concatenate([scan.hashes for scan in scans]),
            np.concatenate([scan.exact for scan in scans]),
            np.concatenate(codes),
            names,
        )

    def fingerprint(self, train: Ints, held: Ints) -> str:
        """Hash the texts and sources of two splits, in order."""
        parts: list[NDArray[Any]] = []
        for chosen in (train, held):
            parts += [self.exact[chosen].astype("<u8"), self.codes[chosen].astype("<i8")]
        return fingerprint(*(part.tobytes() for part in parts), self.names)
