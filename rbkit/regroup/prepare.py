"""From a corpus and an embedder to the material of a regrouping."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset, DatasetDict
from numpy.typing import ArrayLike, NDArray

from rbkit.data.corpus import about
from rbkit.errors import InputError
from rbkit.files import json_ready
from rbkit.regroup.embedding import Embedder, embed_corpus, embedding_seconds

_BATCH = 10_000


class Material:
    """A corpus with the vectors of its examples; what is asked of both, computed once.

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
        ``{"name", ...}``: class and parameters of what made the vectors.
    origin : str
        Fingerprint of the corpus (:func:`rbkit.data.corpus.about`).

    Examples
    --------
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
        self._kept: dict[tuple[str, str], Any] = {}
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
        return [str(text) for text in self._data(split)[at]["text"]] if len(at) else []

    def sources(self, split: str) -> list[str]:
        """Return the source of every example; "unknown" where the corpus has no sources."""
        found: list[str] = self._keep("sources", split, self._read_sources)
        return found

    def lengths(self, split: str) -> NDArray[np.int64]:
        """Return the number of characters of every text."""
        found: NDArray[np.int64] = self._keep("lengths", split, self._read_lengths)
        return found

    @property
    def has_images(self) -> bool:
        """Whether the examples are images."""
        return "image" in self._data("train").column_names

    def image(self, split: str, row: int) -> Any:
        """Return the picture of one example: a :class:`PIL.Image.Image`, or None."""
        return self._data(split)[int(row)]["image"] if self.has_images else None

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
        both = [self.sources(split) for split in ("train", "eval")]
        names, codes = np.unique(np.asarray(both[0] + both[1], dtype=str), return_inverse=True)
        return [str(name) for name in names], codes[: len(both[0])], codes[len(both[0]) :]

    def _data(self, split: str) -> Dataset:
        return self.corpus[split]

    def _keep(self, what: str, split: str, read: Any) -> Any:
        if (what, split) not in self._kept:
            self._kept[what, split] = read(split)
        return self._kept[what, split]

    def _read_sources(self, split: str) -> list[str]:
        data = self._data(split)
        if "source" not in data.column_names:
            return ["unknown"] * len(data)
        return ["unknown" if source is None else str(source) for source in data["source"]]

    def _read_lengths(self, split: str) -> NDArray[np.int64]:
        data = self._data(split).select_columns(["text"]).with_format("arrow")
        parts = [
            pc.utf8_length(pc.fill_null(table.column(0).cast(pa.large_string()), ""))
            for table in data.iter(batch_size=_BATCH)
        ]
        found = [np.asarray(part, dtype=np.int64) for part in parts]
        return np.concatenate(found) if found else np.zeros(0, dtype=np.int64)


_IN_MEMORY = 200_000  # examples; the vectors of more stay on disk
_REMEDY = "make the corpus with rbkit.data.load_corpus"


def prepare(
    corpus: DatasetDict,
    embedder: str | Mapping[str, Any] | Embedder = "minilm",
    *,
    vectors: Mapping[str, ArrayLike] | None = None,
    cache: Path | str | bool | None = True,
    num_proc: int = 1,
    progress: bool = True,
) -> tuple[Material, dict[str, float]]:
    """Embed a corpus, or take the vectors given; also return the seconds that it cost.

    Parameters
    ----------
    corpus, embedder, vectors, cache, num_proc, progress
        As in :func:`rbkit.regroup.regroup`; an embedder may also be what
        ``domains.method["embedder"]`` says.

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
    origin = about(corpus)["fingerprint"]
    if vectors is not None:
        both = {split: _checked(vectors, split) for split in ("train", "eval")}
        made = {"name": "vectors", "shape": list(both["train"].shape)}
        return Material(corpus, both["train"], both["eval"], embedder=made, origin=origin), {}
    tool = make_embedder(embedder)
    column = getattr(tool, "reads", "text")
    began = perf_counter()
    large = num_proc > 1 or len(corpus["train"]) > _IN_MEMORY
    if cache and column == "text" and large:
        from rbkit.regroup.shards import embed_corpus_sharded

        folder = Path(cache) if isinstance(cache, str | Path) else None
        shards = embed_corpus_sharded(corpus, tool, folder, num_proc=num_proc, progress=progress)
        found: Mapping[str, Any] = shards
        seconds = {"embed": shards["train"].seconds + shards["eval"].seconds}
    else:
        found = embed_corpus(corpus, tool, cache=cache, progress=progress)
        spent = perf_counter() - began
        items = [item for split in ("train", "eval") for item in corpus[split][column]]
        seconds = {"embed": max(spent, embedding_seconds(items, tool, cache=cache))}
    described = json_ready({"name": type(tool).__name__, **params_of(tool)})
    material = Material(corpus, found["train"], found["eval"], embedder=described, origin=origin)
    return material, seconds


def make_embedder(embedder: str | Mapping[str, Any] | Embedder) -> Embedder:
    """Return the embedder that a name or a description stands for.

    Parameters
    ----------
    embedder : str, mapping or Embedder
        ``"tfidf"``, ``"minilm"``, ``"pixels"``, a folder or a hub id; or ``{"name": class,
        **parameters}``, as in saved domains; or an embedder, which is returned.
    """
    if isinstance(embedder, Mapping):
        return _described(embedder)
    if not isinstance(embedder, str):
        return embedder
    name = {"tfidf": "TfidfEmbedder", "pixels": "PixelEmbedder"}.get(embedder)
    return _class(name)() if name else _class("TransformerEmbedder")(embedder)


def params_of(tool: Any) -> dict[str, Any]:
    """Return the parameters of an estimator; none of what has no ``get_params``."""
    return dict(tool.get_params()) if hasattr(tool, "get_params") else {}


def check_columns(corpus: DatasetDict) -> None:
    """Say what a corpus lacks: a split, examples, or the column ``text``."""
    for split in ("train", "eval"):
        if split not in corpus:
            raise InputError("corpus", f"no split {split!r}", _REMEDY)
        if not len(corpus[split]):
            raise InputError("corpus", f"the split {split!r} is empty", "give it examples")
        if "text" not in corpus[split].column_names:
            raise InputError("corpus", f"no column 'text' in the split {split!r}", _REMEDY)


_EMBEDDERS = {"TfidfEmbedder", "TransformerEmbedder", "PixelEmbedder", "ClipEmbedder"}


def _described(facts: Mapping[str, Any]) -> Embedder:
    params = {key: value for key, value in facts.items() if key != "name"}
    name = str(facts.get("name"))
    if name not in _EMBEDDERS:
        what = f"{name!r} cannot be made from its name"
        raise InputError("embedder", what, "pass embedder= or vectors= of then")
    if params.get("trust_remote_code"):  # a saved file must not switch that on
        what = f"{name} of {params.get('model')!r} ran code that came with the model"
        raise InputError("embedder", what, "pass that embedder yourself if you trust it")
    try:
        return _class(name)(**params)
    except TypeError as error:
        raise InputError("embedder", f"{name}: {error}", "pass embedder= yourself") from error


def _class(name: str) -> Callable[..., Embedder]:
    from rbkit.regroup import embedders  # late: it imports torch

    made: Callable[..., Embedder] = getattr(embedders, name)
    return made


def _checked(vectors: Mapping[str, ArrayLike], split: str) -> Any:
    if split not in vectors:
        raise InputError("vectors", f"none for the split {split!r}", "give train and eval")
    found: Any = vectors[split]
    if not hasattr(found, "shape"):
        found = np.asarray(found, dtype=np.float32)
    if len(found.shape) != 2:
        raise InputError("vectors", f"{split!r} has shape {found.shape}", "give (n, d)")
    return found
