"""Data files: which there are, how ``datasets`` is asked to read them, what is wrong with one.

When reading fails, the faulty file is searched for, because the library's own error names
neither the file nor the row.
"""

from __future__ import annotations

import gc
import glob
import inspect
import itertools
import json
import os
import re
import tarfile
import traceback
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import datasets
import fsspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from rbkit.data.images import IMAGE_FILES, image_column, stored_images
from rbkit.errors import InputError
from rbkit.files import cache_dir, regular

READERS = {
    ".csv": "csv",
    ".tsv": "csv",
    ".json": "json",
    ".jsonl": "json",
    ".ndjson": "json",
    ".parquet": "parquet",
    ".txt": "text",
    ".md": "text",
    ".tar": "webdataset",
}
KNOWN = (*READERS, *IMAGE_FILES)
_COMPRESSED = (".gz", ".zst", ".xz", ".bz2")
_JSON_KINDS: dict[type, str] = {str: "text", bool: "a boolean", int: "a number"}
_JSON_KINDS |= {float: "a number", list: "a list", dict: "an object"}
_BIG = 64e6  # bytes above which reading is worth a progress bar


@dataclass
class Opened:
    """Data sets by split name, what to call them, and whom to credit."""

    splits: dict[str, datasets.Dataset]
    name: str
    credits: list[dict[str, str]] = field(default_factory=list)
    unread: dict[str, InputError] = field(default_factory=dict)  # columns left out, and why
    in_memory: bool = False  # so that its name loads nothing
    roots: tuple[Path, ...] | None = None  # where files of images may lie; None: anywhere
    group: str | None = None  # the column whose equal values stay on one side of the split

    def with_images(self, image: str | None) -> Opened:
        """Store images, where there are any, in a column ``image`` of ``datasets.Image``."""
        made, root = {}, self.roots[0] if self.roots else None
        for split, data in self.splits.items():
            column = image_column(data, image, self.name, root)
            made[split] = data if column is None else stored_images(data, column, self.name, root)
        return replace(self, splits=made)


def checked_path(where: str | Path) -> Path:
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


def suffix(path: str | Path) -> str:
    name = Path(path).name.lower()
    for compressed in _COMPRESSED:
        name = name.removesuffix(compressed)
    return Path(name).suffix


def looks_like_files(where: str) -> bool:
    return bool(suffix(where) in KNOWN or glob.has_magic(where) or where.startswith((".", "/")))


def files_at(where: str | Path | Sequence[str | Path]) -> list[Path]:
    if isinstance(where, str | Path):
        path = Path(where).expanduser()
        if path.is_file():
            return [path.resolve()]
        if glob.has_magic(str(where)):
            files = [Path(match).resolve() for match in sorted(set(matches(str(path))))]
            if files := [file for file in dict.fromkeys(files) if file.is_file()]:
                return files
            raise InputError(str(where), "no file matches", f"check it (from {Path.cwd()})")
        raise InputError(str(where), "no such file", f"check the path (from {Path.cwd()})")
    if not where:
        raise InputError("where", "is an empty list", "give texts, rows or files")
    return [file for item in where for file in files_at(item)]


def matches(pattern: str) -> Iterator[str]:
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
            yield from matches(os.path.join(glob.escape(folder), tail))


def load_files(
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


def csv_options(files: Sequence[Path], options: dict[str, Any]) -> dict[str, Any]:
    # Every column is read as text: pandas guesses types per chunk, and a column of numbers that
    # has its first word in row 10,001 would fail. And the text "NA" is not a missing value.
    options = {"keep_default_na": False, **options}
    if suffix(files[0]) == ".tsv":
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


def reason(error: BaseException, failed: str = "could not be read") -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    if "corresponds to no data" in str(error):
        return "has no rows"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{failed} ({type(error).__name__}: {lines[0][:300] if lines else ''})"


def diagnose(
    reader: str, files: Sequence[Path], options: Mapping[str, Any]
) -> tuple[Path, str] | None:
    """Return the first file that cannot be read on its own, and what is wrong with it."""
    for file in files:
        try:
            if reader == "webdataset":
                with tarfile.open(file) as archive:
                    archive.getmembers()
            elif reader == "parquet":
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
            return file, reason(error)
    return None


_DEEPEST = 100  # levels of JSON; Arrow's reader ends the process at some tens of thousands
# Possessive, and to the end of the line where it is not closed: time is proportional to length.
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"?')
_STEPS = np.zeros(256, dtype=np.int8)
_STEPS[list(b"[{")], _STEPS[list(b"]}")] = 1, -1


def check_lines(file: Path, is_json: bool) -> None:
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


def json_rows(files: Sequence[Path]) -> Iterator[Any]:
    """Yield what Python reads of JSON files, row by row."""
    for file in files:
        with fsspec.open(str(file), "rt", compression="infer", encoding="utf-8") as lines:
            first = next((line for line in lines if line.strip()), "")
            if first.lstrip()[:1] == "[":
                yield from json.loads(first + lines.read())
            else:
                rows = itertools.chain([first], lines)
                yield from (json.loads(line) for line in rows if line.strip())


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
