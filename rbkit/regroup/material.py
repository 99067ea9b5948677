"""What a regrouping works on: a corpus and one vector per example."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset, DatasetDict
from numpy.typing import NDArray

from rbkit.errors import InputError

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
        parts = [pc.utf8_length(pc.fill_null(table.column(0).cast(pa.large_string()), ""))
                 for table in data.iter(batch_size=_BATCH)]  # fmt: skip
        found = [np.asarray(part, dtype=np.int64) for part in parts]
        return np.concatenate(found) if found else np.zeros(0, dtype=np.int64)
