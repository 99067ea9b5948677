"""From a corpus and an embedder to vectors: what every regrouping starts from."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset, DatasetDict, Image
from numpy.typing import ArrayLike, NDArray
from sklearn.exceptions import NotFittedError

from rbkit.data.columns import ORIGINAL_ROW
from rbkit.data.corpus import about, load_corpus
from rbkit.data.shapes import chat_text, is_text, joined, kind_of, messages_of, turn_of
from rbkit.errors import InputError, as_count
from rbkit.files import json_ready
from rbkit.regroup.embedders import AnyEmbedder, make_embedder, params_of
from rbkit.regroup.embedding import embed as embed_texts
from rbkit.regroup.embedding import embed_corpus, embedding_seconds
from rbkit.regroup.kmeans import vectors_of
from rbkit.regroup.shards import embed_corpus_sharded
from rbkit.text import listed

_BATCH = 10_000
_IN_MEMORY = 200_000  # examples; the vectors of more stay on disk


class Material:
    """A corpus with the vectors of its examples; columns are read once.

    Texts stay in Arrow and are read by row. It is never saved: vectors come back from the
    cache of embeddings.

    Parameters
    ----------
    corpus : datasets.DatasetDict
        Splits ``train`` and ``eval`` with a column ``text`` and, perhaps, ``source`` and
        ``image``.
    train, eval : array of shape (n_train, d) and (n_eval, d)
        In memory, or a memory map of float16.
    embedder : mapping
        ``{"name", ...}``: class and parameters of the embedder that made the vectors.
    origin : str
        Fingerprint of the corpus (:func:`rbkit.data.corpus.about`).

    Examples
    --------
    >>> from datasets import Dataset
    >>> rows = Dataset.from_dict({"text": ["oak", "elm tree"], "source": ["a", "b"]})
    >>> corpus = DatasetDict({"train": rows, "eval": rows.select([1])})
    >>> material = Material(corpus, np.eye(2), np.eye(2)[1:], embedder={}, origin="")
    >>> material.texts("train", [1]), material.lengths("train").tolist()
    (['elm tree'], [3, 8])
    """

    def __init__(
        self,
        corpus: DatasetDict,
        train: Any,
        eval: Any,
        *,
        embedder: Mapping[str, Any],
        origin: str,
    ) -> None:
        self.corpus, self.train, self.eval = corpus, train, eval
        self.embedder, self.origin = dict(embedder), origin
        self._sources: dict[str, list[str]] = {}
        self._lengths: dict[str, NDArray[np.int64]] = {}
        for split, vectors in (("train", train), ("eval", eval)):
            if len(vectors) != len(corpus[split]):
                what = f"{len(vectors)} vectors for the {len(corpus[split])} examples of {split!r}"
                raise InputError("vectors", what, "give one vector per example, in their order")

    def vectors(self, split: str) -> Any:
        """Return the vectors of one split."""
        return self.train if split == "train" else self.eval

    def texts(self, split: str, rows: Sequence[int] | NDArray[np.integer[Any]]) -> list[str]:
        """Return the texts of some rows, in their order."""
        at = np.asarray(rows, dtype=np.int64)
        texts = self.corpus[split].select_columns(["text"])  # no picture beside them is read
        return [str(text) for text in texts[at]["text"]] if len(at) else []

    def sources(self, split: str) -> list[str]:
        """Return the source of every example; "unknown" where the corpus has no sources."""
        if split not in self._sources:
            self._sources[split] = label_column(self.corpus, split, "source")
        return self._sources[split]

    def lengths(self, split: str) -> NDArray[np.int64]:
        """Return the number of characters of every text."""
        if split not in self._lengths:
            texts = self.corpus[split].select_columns(["text"]).with_format("arrow")
            parts = [
                pc.utf8_length(pc.fill_null(table.column(0).cast(pa.large_string()), ""))
                for table in texts.iter(batch_size=_BATCH)
            ]
            self._lengths[split] = np.concatenate([np.zeros(0, np.int64), *parts])
        return self._lengths[split]

    @property
    def has_images(self) -> bool:
        """Whether the examples are images."""
        return isinstance(self.corpus["train"].features.get("image"), Image)

    def image(self, split: str, row: int) -> Any:
        """Return the picture of one example: a :class:`PIL.Image.Image`, or None."""
        images = self.corpus[split].select_columns(["image"]) if self.has_images else None
        return None if images is None else images[int(row)]["image"]

    @cached_property
    def keys(self) -> pa.Table | None:
        """What joins train and eval, in this order, to the data they came from; None if nothing."""
        both = [self.corpus[split] for split in ("train", "eval")]
        kinds = [{n: kind_of(data.features.get(n)) for n in (ORIGINAL_ROW, "id")} for data in both]
        known = ("integer", "string")  # other ids join nothing
        names = [n for n, kind in kinds[0].items() if kind == kinds[1][n] and kind in known]
        parts = [data.select_columns(names).with_format("arrow")[:] for data in both if names]
        return pa.concat_tables(parts, promote_options="permissive") if names else None

    @cached_property
    def key(self) -> str:
        """Content hash of the training vectors, for caches."""
        digest = hashlib.sha256(str(self.train.shape).encode())
        for start in range(0, len(self.train), _BATCH):
            part = np.ascontiguousarray(self.train[start : start + _BATCH], dtype=np.float32)
            digest.update(part.tobytes())
        return digest.hexdigest()[:16]

    @cached_property
    def source_ids(self) -> tuple[list[str], NDArray[np.int64], NDArray[np.int64]]:
        """Names of the sources, and the source number of each train and eval example."""
        train, both = self.sources("train"), self.sources("train") + self.sources("eval")
        names, codes = np.unique(np.asarray(both, dtype=str), return_inverse=True)
        return [str(name) for name in names], codes[: len(train)], codes[len(train) :]


def prepare(
    corpus: DatasetDict,
    embedder: AnyEmbedder = "minilm",
    *,
    embed: str | None = None,
    vectors: Mapping[str, ArrayLike] | None = None,
    cache: Path | str | bool | None = True,
    num_proc: int = 1,
    progress: bool = True,
) -> tuple[Material, dict[str, float]]:
    """Embed a corpus, or take the vectors given; also return the seconds that it cost.

    Parameters
    ----------
    corpus, embedder, embed, vectors, cache, num_proc, progress
        As in :func:`rbkit.regroup.regroup`; an embedder may also be given by its description
        in ``domains.method["embedder"]``, which has the column that it read.

    Examples
    --------
    >>> from datasets import Dataset
    >>> rows = Dataset.from_dict({"text": ["oak tree", "elm tree", "car engine"]})
    >>> material, seconds = prepare(DatasetDict({"train": rows, "eval": rows}), "tfidf",
    ...                             progress=False)
    >>> material.train.shape, material.embedder["name"]
    ((3, 2), 'TfidfEmbedder')
    """
    check_columns(corpus)
    num_proc = as_count("num_proc", num_proc, least=1)
    origin = about(corpus)["fingerprint"]
    if vectors is not None:
        if embed is not None:
            raise InputError("embed", "decides nothing where vectors are given", "leave it out")
        train, eval_ = (_checked_vectors(vectors, split) for split in ("train", "eval"))
        if train.shape[1] != eval_.shape[1]:
            what = f"{train.shape[1]} numbers for train and {eval_.shape[1]} for eval"
            raise InputError("vectors", what, "give both in one space")
        description = {"name": "vectors", "shape": list(train.shape)}
        return Material(corpus, train, eval_, embedder=description, origin=origin), {}
    tool = make_embedder(embedder)
    column = getattr(tool, "reads", "text")
    if embed is None and isinstance(embedder, Mapping):
        embed = embedder.get("embed")
    view = corpus
    if embed not in (None, column):
        if column != "text":
            what = f"{embed!r}, but {type(tool).__name__} reads the column {column!r}"
            raise InputError("embed", what, "leave it out, or use an embedder of texts")
        view = DatasetDict({s: texts_of(corpus[s], str(embed), s) for s in ("train", "eval")})
    both: Mapping[str, Any]
    if cache and column == "text" and (num_proc > 1 or len(corpus["train"]) > _IN_MEMORY):
        folder = Path(cache) if isinstance(cache, str | Path) else None
        shards = embed_corpus_sharded(view, tool, folder, num_proc=num_proc, progress=progress)
        both, seconds = shards, shards["train"].seconds + shards["eval"].seconds
    else:
        began = perf_counter()
        both = embed_corpus(view, tool, cache=cache, progress=progress)
        seconds = perf_counter() - began
        items = [item for split in ("train", "eval") for item in view[split][column]]
        seconds = max(seconds, embedding_seconds(items, tool, cache=cache))
    description = json_ready({"name": type(tool).__name__, **params_of(tool)})
    if view is not corpus:
        description["embed"] = embed
    material = Material(corpus, both["train"], both["eval"], embedder=description, origin=origin)
    return material, {"embed": seconds}


def embed_new(
    data: Dataset, described: Mapping[str, Any], material: Material | None
) -> NDArray[np.float32]:
    """Embed new rows as the examples of domains were: by the same embedder, of the same column."""
    tool, reads = make_embedder(described), described.get("embed", "text")
    if getattr(tool, "reads", "text") != "text":
        what = f"{type(tool).__name__} reads no texts"
        raise InputError("vectors", what, "embed these examples yourself, and give their vectors")
    if material is not None:
        tool.fit(texts_of(material.corpus["train"], reads)["text"][:])
    try:
        return embed_texts(texts_of(data, reads)["text"][:], tool, progress=False)
    except NotFittedError as error:
        what = f"their {type(tool).__name__} learnt from the corpus, which is not at hand"
        raise InputError("domains", what, "attach it: domains.attach(corpus)") from error


def texts_of(data: Dataset, column: str, split: str = "") -> Dataset:
    """Return what is embedded of each row as a column ``text``: texts, lists of them, or chats.

    >>> rows = Dataset.from_dict({"prompt": [[{"role": "user", "content": "Why?"}]]})
    >>> texts_of(rows, "prompt")["text"][:]
    ['User: Why?']
    """
    if column not in data.column_names:
        where = f" in the split {split!r}" if split else ""
        what = f"no column {column!r}{where}; it has {listed(data.column_names)}"
        raise InputError("embed", what, "name one of these, or keep it when the corpus is loaded")
    feature, bare = data.features[column], data.select_columns([column]).with_format(None)
    if kind_of(feature) == "string":
        return bare.rename_column(column, "text") if column != "text" else bare
    if turn_of(feature) is None and not is_text(feature):
        what = f"the column {column!r} holds {kind_of(feature)}, not texts or chats"
        raise InputError("embed", what, "name another column")
    write = joined if turn_of(feature) is None else lambda turns: chat_text(messages_of(turns))
    texts = [write(value) for batch in bare.iter(_BATCH) for value in batch[column]]
    return Dataset.from_dict({"text": texts})


def as_corpus(given: Any, *, seed: int = 0, progress: bool = True) -> DatasetDict:
    """Return a corpus as it is, and whatever else ``load_corpus`` takes as a corpus.

    >>> as_corpus(["an oak", "an elm", "a car"]).keys()
    dict_keys(['train', 'eval'])
    """
    loaded = isinstance(given, Mapping) and all(isinstance(v, Dataset) for v in given.values())
    return given if loaded else load_corpus(given, seed=seed, progress=progress)


def check_columns(corpus: DatasetDict) -> None:
    """Raise :class:`InputError` where a corpus lacks a split, examples, or the column ``text``."""
    remedy = "make the corpus with rbkit.data.load_corpus"
    for split in ("train", "eval"):
        if split not in corpus:
            raise InputError("corpus", f"no split {split!r}", remedy)
        if not len(corpus[split]):
            raise InputError("corpus", f"the split {split!r} is empty", "give it examples")
        if "text" not in corpus[split].column_names:
            raise InputError("corpus", f"no column 'text' in the split {split!r}", remedy)
        where = f"corpus, {split}"
        feature = corpus[split].features["text"]
        if getattr(feature, "dtype", "") not in ("string", "large_string", "string_view"):
            kind = getattr(feature, "dtype", type(feature).__name__)
            raise InputError(where, f"the column 'text' holds {kind}, not text", remedy)
        if (row := _first_missing(corpus[split])) is not None:
            raise InputError(where, f"row {row} has no text (None)", f"drop the row, or {remedy}")


def _first_missing(data: Dataset) -> int | None:
    """Return the first row without a text; the counts of Arrow's blocks are read first."""
    if not data.data.column("text").null_count:
        return None
    start = 0
    for table in data.select_columns(["text"]).with_format("arrow").iter(batch_size=_BATCH):
        if table.column(0).null_count:
            return start + int(np.argmax(pc.is_null(table.column(0)).to_numpy()))
        start += len(table)
    return None


def label_column(corpus: DatasetDict, split: str, column: str) -> list[str]:
    """Return a column as labels; a missing ``source`` is "unknown" throughout."""
    data = corpus[split]
    if column not in data.column_names:
        if column == "source":
            return ["unknown"] * len(data)
        have = ", ".join(data.column_names)
        raise InputError("column", f"no {column!r} in the split {split!r}", f"it has {have}")
    return ["unknown" if value is None else str(value) for value in data[column]]


def _checked_vectors(vectors: Mapping[str, ArrayLike], split: str) -> Any:
    if split not in vectors:
        raise InputError("vectors", f"none for the split {split!r}", "give train and eval")
    return vectors_of(vectors[split], f"vectors, {split}")
