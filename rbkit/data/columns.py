"""Columns ``text`` and ``source`` out of any data set: checked, scanned once, then selected.

The scan keeps 32 bytes per row in memory and no text. Where the wanted columns are plain
strings already, taking rows copies nothing; otherwise they are rewritten on disk by ``map``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from tqdm import tqdm

from rbkit.data.read import Opened, quiet
from rbkit.data.split import Ints, UInt64s, content_hash
from rbkit.errors import InputError
from rbkit.files import fingerprint

UNKNOWN = "unknown"
_BATCH = 1000


@dataclass
class Scan:
    """One pass over a data set: which rows have a text, and their hashes and sources."""

    rows: Ints  # rows that have a text
    hashes: UInt64s  # blind to whitespace, for the split
    exact: UInt64s  # of the very text, for the fingerprint
    codes: Ints
    names: list[str]
    dropped: int


@dataclass
class Columns:
    """Where text and source come from, and how to get them from a batch."""

    text: list[str]
    source: str | None

    @classmethod
    def find(
        cls, opened: Opened, split: str, text: str | Sequence[str], source: str | None
    ) -> Columns:
        """Find the columns asked for in a split, or say which there are."""
        names = opened.splits[split].column_names
        if source == "source" and "source" not in names:
            source = None  # the default asks for nothing
        columns = cls([text] if isinstance(text, str) else list(text), source)
        if not columns.text:
            raise InputError("text", "no column", "name at least one")
        columns.check(opened, split)
        return columns

    def check(self, opened: Opened, split: str) -> None:
        """Raise :class:`InputError` if a column is not in `split`, or holds something else."""
        features = opened.splits[split].features
        where = opened.name if len(opened.splits) == 1 else f"{opened.name}, split {split}"
        wanted = [("text", name) for name in self.text]
        wanted += [("source", self.source)] if self.source is not None else []
        for role, name in wanted:
            if name not in features:
                raise InputError(
                    where,
                    f"no column {name!r}; it has {', '.join(map(repr, features))}",
                    f"name the column by {role}=...",
                )
            kind = _kind(features[name])
            if kind not in _ALLOWED[role]:
                raise InputError(
                    where, f"column {name!r} holds {kind}, not a {role}", f"choose another {role}="
                )

    def scan(self, data: datasets.Dataset, progress: bool, keep: bool = False) -> Scan:
        """Hash every text and number every source; rows without text only if `keep`."""
        kept: list[Ints] = []
        hashes: list[UInt64s] = []
        exact: list[bytes] = []
        codes: list[int] = []
        numbers: dict[str, int] = {}
        start = 0
        label = _labels(data, self.source)
        wanted = data.select_columns(_wanted(self.text, self.source)).with_format("arrow")
        with tqdm(
            total=len(data),
            desc="reading",
            unit=" rows",
            mininterval=1,
            disable=not progress or len(data) < 100_000,
        ) as bar:
            for batch in wanted.iter(batch_size=_BATCH):
                texts = _joined(batch, self.text)
                sources = _sources(batch, self.source, label)
                has_text = [i for i, value in enumerate(texts) if keep or value.strip()]
                kept.append(start + np.array(has_text, dtype=np.int64))
                hashes.append(content_hash(texts[i] for i in has_text))
                exact += [_exact(texts[i]) for i in has_text]
                codes += [numbers.setdefault(sources[i], len(numbers)) for i in has_text]
                start += len(texts)
                bar.update(len(texts))
        rows = np.concatenate(kept) if kept else np.zeros(0, np.int64)
        return Scan(
            rows,
            np.concatenate(hashes) if hashes else np.zeros(0, np.uint64),
            np.frombuffer(b"".join(exact), dtype="<u8").astype(np.uint64),
            np.array(codes, dtype=np.int64),
            list(numbers),
            start - len(rows),
        )

    def take(self, data: datasets.Dataset, rows: Ints, progress: bool) -> datasets.Dataset:
        """Return these rows with the columns ``text`` and ``source``."""
        chosen = data.select(rows)
        source, columns = self.source, [*self.text, self.source]
        # If nothing has to be joined, converted or filled in, no text is copied.
        if (
            len(self.text) == 1
            and source not in (None, *self.text)
            and all(_kind(data.features[name]) == "string" for name in columns)
            and not _has_blanks(chosen.select_columns([source]))
        ):
            names = dict(zip(columns, ["text", "source"], strict=True))
            return chosen.select_columns(columns).rename_columns(names)
        return _mapped(chosen, self.text, source, _labels(data, source), progress)


def _has_blanks(column: datasets.Dataset) -> bool:
    for batch in column.with_format("arrow").iter(batch_size=10 * _BATCH):
        values = batch.column(0)
        trimmed = pc.utf8_trim_whitespace(values)
        if values.null_count or pc.any(pc.equal(trimmed, "")).as_py():
            return True
    return False


_TEXTS = ("string", "null")
_ALLOWED = {"text": _TEXTS, "source": (*_TEXTS, "integer", "label")}


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


def _labels(data: datasets.Dataset, source: str | None) -> list[str] | None:
    feature = data.features[source] if source is not None else None
    return list(feature.names) if isinstance(feature, datasets.ClassLabel) else None


def _wanted(text: Sequence[str], source: str | None) -> list[str]:
    # each once: a column may be part of the text and the source as well
    return list(dict.fromkeys([*text, *([source] if source is not None else [])]))


def _joined(batch: pa.Table, columns: Sequence[str]) -> list[str]:
    values = [batch.column(name).to_pylist() for name in columns]
    if len(values) == 1:
        return [value or "" for value in values[0]]
    return ["\n\n".join(v for v in row if v and v.strip()) for row in zip(*values, strict=True)]


def _sources(batch: pa.Table, column: str | None, labels: list[str] | None) -> list[str]:
    if column is None:
        return [UNKNOWN] * len(batch)
    values = batch.column(column).to_pylist()
    if labels is not None:  # -1 is how `datasets` marks a missing label
        return [labels[v] if v is not None and v >= 0 else UNKNOWN for v in values]
    return [str(v) if v is not None and str(v).strip() else UNKNOWN for v in values]


def _exact(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()


def _columns_of(
    batch: pa.Table, text: Sequence[str], source: str | None, labels: list[str] | None
) -> pa.Table:
    strings = [_joined(batch, text), _sources(batch, source, labels)]
    return pa.table([pa.array(s, pa.string()) for s in strings], names=["text", "source"])


def _mapped(
    data: datasets.Dataset,
    text: Sequence[str],
    source: str | None,
    labels: list[str] | None,
    progress: bool,
) -> datasets.Dataset:
    columns = _wanted(text, source)
    with quiet(progress and len(data) > 100_000):
        made = data.select_columns(columns).with_format("arrow")
        return made.map(
            _columns_of,
            batched=True,
            batch_size=_BATCH,
            remove_columns=columns,
            fn_kwargs={"text": list(text), "source": source, "labels": labels},
            features=datasets.Features(
                {"text": datasets.Value("string"), "source": datasets.Value("string")}
            ),
        ).with_format(None)


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
