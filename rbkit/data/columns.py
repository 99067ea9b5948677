"""Columns ``text`` and ``source`` out of any data set: checked, scanned once, selected.

The scan keeps 32 bytes per row in memory and no text. Where the wanted columns are plain
strings already, taking rows copies nothing; otherwise ``map`` rewrites them on disk.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from rbkit.data.files import Opened, quiet, reason
from rbkit.data.images import IMAGE, image_keys
from rbkit.data.shapes import (
    TEXTS,
    Shape,
    chat,
    field_of,
    is_text,
    item_of,
    joined,
    kind_of,
    last_answer,
    messages_of,
    steps,
    turn_of,
    usual_shape,
)
from rbkit.errors import InputError, RbkitWarning
from rbkit.files import fingerprint
from rbkit.text import listed, progress_bar, truncate, value_text

UInt64s = NDArray[np.uint64]
Ints = NDArray[np.int64]

UNKNOWN = "unknown"
ORIGINAL_ROW = "original_row"
CORPUS_FORMAT = "rbkit-corpus/1"
PAIR = ("prompt", "completion")
_BATCH = 1000
_ALLOWED = {"text": TEXTS, "source": (*TEXTS, "integer", "label"), "id": ("string", "integer")}
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
    shape: Shape | None = None  # of which prompts and completions are made
    images: bool = False  # whether there is a column of images; it is kept
    roots: tuple[Path, ...] | None = None  # as in what was opened
    group: str | None = None

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
        there = features.keys() | opened.unread.keys()
        by_default = source == "source" and "source" not in there
        category = None  # the default requires nothing
        if messages is not None and text != "text":
            raise InputError("messages", "is given beside text", "give one of the two")
        shape = usual_shape(features)
        if messages is None and text == "text" and "text" not in there and shape is not None:
            text, messages, category = shape.text or "text", shape.messages, shape.source
            used = f"text={text!r}" if messages is None else f"messages={messages!r}"
            used += f", source={category!r}" if by_default and category else ""
            warnings.warn(
                f"{opened.name}: has no column 'text', but those of {shape.name}: read with {used}",
                RbkitWarning,
                stacklevel=3,
            )
        columns = cls([], category if by_default else source, id=id, group=opened.group)
        columns.images, columns.roots = has_images(features), opened.roots
        if messages is not None:
            columns.shape = Shape("a chat", messages=messages)
        elif shape is not None and isinstance(text, Sequence) and shape.text == tuple(text):
            columns.shape = shape if shape.completion else None  # a caption is no prompt
        if columns.shape is not None and (own := [n for n in PAIR if n in there]):
            if shape is None or shape.text != PAIR:
                what = f"has a column {own[0]!r} of its own: none are made of {columns.shape.name}"
                warnings.warn(f"{opened.name}: {what}", RbkitWarning, stacklevel=3)
            columns.shape = None
        if messages is not None:
            columns.text, columns.reads = partial(chat, messages), messages
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
            if (feature := field_of(data.features, name)) is None:
                column = steps(name, [*data.features, *opened.unread])[0]
                raise opened.unread.get(column) or no_column(data, where, role, name)
            kind = kind_of(feature)
            if role == "messages":
                if turn_of(feature) is None and "Json" not in (kind, kind_of(item_of(feature))):
                    what = f"column {name!r} holds {kind}, not a chat"
                    remedy = "choose one of lists of {role, content} or {from, value}"
                    raise InputError(where, what, remedy)
                continue
            if role == "text" and kind == "Json":  # how `datasets` reads values of several types
                rows = data.select_columns(steps(name, data.features)[:1])
                kinds = (type(field_of(row, name)).__name__ for row in rows)
                odd = next(((at, k) for at, k in enumerate(kinds) if k not in ("str", "NoneType")))
                what = f"row {odd[0]} of column {name!r} holds {odd[1]}, not a text"
                raise InputError(where, what, "make all of it text, or leave the row out")
            if kind not in _ALLOWED[role] and not (role == "text" and is_text(feature)):
                remedy = f"choose another {role}="
                if role == "text" and turn_of(feature) is not None:
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
        return list(dict.fromkeys(steps(name, data.column_names)[0] for name in read))

    def labels(self, data: datasets.Dataset) -> list[str] | None:
        """Return the names of a source column of numbered labels."""
        feature = field_of(data.features, self.source) if self.source is not None else None
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
        with progress_bar(
            total=len(data),
            desc="reading",
            unit=" rows",
            mininterval=1,
            disable=not progress or len(data) < (2_000 if self.images else 100_000),
        ) as bar:
            more = [IMAGE] * self.images + ([] if self.group is None else [self.group])
            names = list(dict.fromkeys([*self.names(data), *more]))
            wanted = data.select_columns(names).with_format("arrow")
            for batch in wanted.iter(batch_size=_BATCH // (20 if self.images else 1)):
                if self.images:  # before a function sees the rows
                    images = batch.column(IMAGE).to_pylist()
                    keys = image_keys(images, where, start, self.roots, check=not keep_empty)
                try:
                    texts = _texts(batch, self.text, wanted.features, where, start)
                    sources = _sources(batch, self.source, labels)
                except UnicodeDecodeError as error:
                    row = start + _first_undecodable(batch, names)
                    what = f"row {row} is not UTF-8 ({error.reason} at byte {error.start})"
                    raise InputError(where, what, "write the file again in UTF-8") from error
                some = [i for i, text in enumerate(texts) if keep_empty or text.strip()]
                rows.append(start + np.array(some, dtype=np.int64))
                sides = texts  # what decides the side of the split
                if self.images:
                    sides = [image.hex() for image in keys]
                    texts = [f"{text} {side}" for text, side in zip(texts, sides, strict=True)]
                if self.group is not None:
                    sides = [str(value) for value in batch.column(self.group).to_pylist()]
                hashes.append(content_hash(sides[i] for i in some))
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
        kept: Mapping[str, str],
    ) -> datasets.Dataset:
        """Return these rows: text, source, row in `data`, id, and those that are `kept`.

        `key` is of texts and sources.
        """
        keys = {ORIGINAL_ROW: pa.array(np.arange(len(data)))}
        if _has_rows(data):
            known = data.select_columns([ORIGINAL_ROW]).with_format("arrow")
            keys[ORIGINAL_ROW] = known[:].column(0)
        if self.id is not None:
            column = steps(self.id, data.column_names)[:1]
            keys["id"] = _column(data.select_columns(column).with_format("arrow")[:], self.id)
        table = pa.table(keys)
        others = data.select_columns([n for n in kept if n in data.column_names])
        others = others.rename_columns({n: kept[n] for n in others.column_names})
        chosen = data.select(rows)
        pair = [name for name in PAIR if self.shape is not None and name in kept]
        source, text = self.source, self.text
        # If nothing has to be joined, converted or filled in, no text is copied.
        if (
            not callable(text)
            and len(text) == 1
            and source not in (None, *text)
            and all(kind_of(data.features.get(name)) == "string" for name in (*text, source))
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
            further = [others.select(rows)]
            if pair:
                assert self.shape is not None
                of_pairs = fingerprint(key, rows.tobytes(), repr(self.shape))
                pairs = _pairs(chosen, self.shape, of_pairs)
                further.append(pairs.select_columns(pair))
            return _beside(made, table.take(pa.array(rows)), *further)

    def kept(self, opened: Opened, split: str, keep: bool | Sequence[str]) -> dict[str, str]:
        """Return the further columns of a corpus, by their names in the data.

        A column with the name of one that every corpus has gets another.
        """
        data = opened.splits[split]
        own = ["text", "source", ORIGINAL_ROW, *(["id"] if self.id is not None else [])]
        made = PAIR if self.shape is not None else ()
        names = [*data.column_names, *made]
        if isinstance(keep, bool):
            same = {"text": self.text == ["text"], "source": self.source == "source"}
            same |= {ORIGINAL_ROW: _has_rows(data), "id": self.id == "id"}
            kept = [n for n in names if keep and not (n in own and same[n])]
            free = {n: f"given_{n}" for n in own}
            while taken := [n for n in own if free[n] in names]:
                free |= {n: f"given_{free[n]}" for n in taken}
            return {n: free.get(n, n) for n in kept} | ({IMAGE: IMAGE} if self.images else {})
        if isinstance(keep, str):
            raise InputError("keep", f"{keep!r} is one name", f"give a list, [{keep!r}]")
        for name in keep:
            if name in own:
                raise InputError("keep", f"{name!r} is a column of every corpus", "leave it out")
            if name not in names:
                raise opened.unread.get(name) or no_column(data, "corpus", "keep", name)
        return dict(zip(keep, keep, strict=True)) | ({IMAGE: IMAGE} if self.images else {})


def _has_rows(data: datasets.Dataset) -> bool:
    """Whether a corpus was given, which knows the rows of the data that it was made from."""
    is_corpus = CORPUS_FORMAT in (data.info.description or "")
    return is_corpus and kind_of(data.features.get(ORIGINAL_ROW)) == "integer"


def _pairs(data: datasets.Dataset, shape: Shape, key: str) -> datasets.Dataset:
    """Return the prompts and completions of all rows: texts, or messages of a chat."""
    columns = list(shape.text) if shape.messages is None else [shape.messages]
    columns = list(dict.fromkeys(steps(name, data.column_names)[0] for name in columns))
    part: Any = datasets.Value("string")
    if shape.messages is not None:
        part = [{"role": datasets.Value("string"), "content": datasets.Value("string")}]
    chosen: datasets.Dataset = data.select_columns(columns).with_format(None)
    return chosen.map(
        _pair,
        remove_columns=columns,
        fn_kwargs={"shape": shape},
        features=datasets.Features(dict.fromkeys(PAIR, part)),
        new_fingerprint=key,
    )


def _pair(row: dict[str, Any], shape: Shape) -> dict[str, Any]:
    if shape.messages is not None:
        turns = messages_of(field_of(row, shape.messages))
        return dict(zip(PAIR, last_answer(turns), strict=True))
    prompt, completion = (
        joined([joined(field_of(row, name)) for name in names])
        for names in (shape.prompt, shape.completion)
    )
    # So that the two together are the text.
    return {"prompt": prompt + "\n\n" * bool(prompt and completion), "completion": completion}


def _beside(data: datasets.Dataset, table: pa.Table, *others: datasets.Dataset) -> datasets.Dataset:
    """Put columns in memory, and further ones, beside those of a data set."""
    parts = [data, datasets.Dataset(table)]
    parts += [other.with_format(None) for other in others if other.column_names]
    return datasets.concatenate_datasets(parts, axis=1)


def has_images(features: Mapping[str, Any]) -> bool:
    """Whether there is a column of images."""
    return isinstance(features.get(IMAGE), datasets.Image)


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
    parts = [map(joined, _values(batch, name)) for name in text]
    return list(parts[0]) if len(parts) == 1 else list(map(joined, zip(*parts, strict=True)))


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
        raise InputError(where, reason(error), "mend the rows, or leave them out") from error
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
        what = f"{reason(error, f'no text can be made of row {at}')}"
        raise InputError(where, what, "mend the function, or leave the row out") from error
    return text or ""


def _column(batch: pa.Table, name: str) -> pa.ChunkedArray:
    column, *fields = steps(name, batch.column_names)
    values = batch.column(column)
    for field in fields:
        values = pc.struct_field(values, [values.type.get_field_index(field)])
    return values


def _values(batch: pa.Table, name: str) -> list[Any]:
    values: list[Any] = _column(batch, name).to_pylist()
    return values


# ------------------------------------------------------------------------ no such column


def no_column(data: datasets.Dataset, where: str, role: str, name: str) -> InputError:
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
        """Hash the texts and sources of two splits, in order; sources of no row do not count."""
        present = np.unique(self.codes[np.concatenate([train, held])])
        codes = np.searchsorted(present, self.codes)
        parts: list[NDArray[Any]] = []
        for chosen in (train, held):
            parts += [self.exact[chosen].astype("<u8"), codes[chosen].astype("<i8")]
        names = [self.names[code] for code in present]
        return fingerprint(*(part.tobytes() for part in parts), names)
