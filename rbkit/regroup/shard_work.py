"""What is done for one shard, and how that travels to another process."""

from __future__ import annotations

import hashlib
import json
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray
from sklearn.base import clone

from rbkit.errors import InputError, RbkitWarning
from rbkit.files import atomic_path, fingerprint, read_npz
from rbkit.regroup.cluster import assign
from rbkit.regroup.embedding import Embedder, embed
from rbkit.regroup.shard_files import ShardFolder, ShardHeader
from rbkit.regroup.workers import prepare_worker

Assignment = tuple[NDArray[np.int32], NDArray[np.float32]]


@dataclass
class ShardWork:
    """What has to be done for a shard; calling it with the shard's number does it.

    It travels to other processes: `dataset` as the names of its files if it is memory-mapped,
    `embedder` without the model it has loaded.
    """

    dataset: Dataset
    column: str
    embedder: Embedder
    folder: ShardFolder
    centroids: NDArray[np.float32] | None = None

    def __call__(self, shard: int) -> int:
        """Embed, write and assign one shard, as far as that is missing; return its rows."""
        start, stop = self.folder.header.span(shard)
        try:
            vectors = self.folder.read(shard)
        except InputError:  # missing or damaged
            vectors = self._embed(shard, start, stop)
        if self.centroids is not None:
            if vectors.shape[1] != self.centroids.shape[1]:
                what = f"have {self.centroids.shape[1]} numbers, the vectors {vectors.shape[1]}"
                raise InputError("centroids", what, "find them on these vectors")
            labels, distances = assign(vectors, self.centroids)
            with self._writing(), atomic_path(self._assigned(shard)) as tmp:
                np.savez(tmp, labels=labels, distances=distances)
        return stop - start

    def for_workers(self) -> Self:
        """Return the same work to be sent away: without a loaded model."""
        return replace(self, embedder=portable(self.embedder))

    def todo(self) -> list[int]:
        """Return the shards that are not done; warn of those that are there and no good."""
        missing, wrong = self.folder.missing()
        if wrong:
            more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
            told = f"{wrong[0]}{more}; computing it anew"
            warnings.warn(told, RbkitWarning, stacklevel=4)
        if self.centroids is None:
            return missing
        done = set(range(self.folder.header.shards)) - set(missing)
        return missing + [shard for shard in sorted(done) if not self._is_assigned(shard)]

    def assignment(self) -> Assignment:
        """Return labels and distances of all rows, from the files."""
        parts = [self._read_assigned(at) for at in range(self.folder.header.shards)]
        return (
            np.concatenate([part["labels"] for part in parts]),
            np.concatenate([part["distances"] for part in parts]),
        )

    def _embed(self, shard: int, start: int, stop: int) -> NDArray[np.float16]:
        began = time.perf_counter()
        texts = self.dataset.select_columns([self.column])[start:stop][self.column]
        for row, text in enumerate(texts, start):
            if not isinstance(text, str):
                what = f"row {row} is {type(text).__name__}, not a string"
                raise InputError(f"column {self.column!r}", what, "drop or convert it")
        vectors = embed(texts, self.embedder, cache=None, progress=False).astype(np.float16)
        with self._writing():
            self.folder.write(shard, vectors, time.perf_counter() - began)
        return vectors

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            what = f"cannot be written ({error.strerror or error})"
            remedy = "make room there and call again; finished shards are kept"
            raise InputError(str(self.folder.folder), what, remedy) from error

    def _assigned(self, shard: int) -> Path:
        assert self.centroids is not None
        name = fingerprint(str(self.centroids.shape), self.centroids.tobytes())
        return self.folder.folder / f"domains-{name}" / f"{shard:05d}.npz"

    def _read_assigned(self, shard: int) -> dict[str, NDArray[Any]]:
        path = self._assigned(shard)
        found = read_npz(path, "delete it and call again")
        rows = np.subtract(*self.folder.header.span(shard)[::-1])
        if {name: len(part) for name, part in found.items()} != dict.fromkeys(_ASSIGNED, rows):
            raise InputError(str(path), "is of other vectors", "delete it and call again")
        return found

    def _is_assigned(self, shard: int) -> bool:
        try:
            self._read_assigned(shard)
        except (InputError, OSError):
            return False
        return True


_ASSIGNED = ("labels", "distances")


def make_work(
    dataset: Dataset,
    embedder: Embedder,
    folder: str | Path,
    column: str = "text",
    corpus: str | None = None,
    rows_per_shard: int = 8_192,
    centroids: NDArray[np.floating[Any]] | None = None,
) -> ShardWork:
    """Check what :func:`embed_shards` was given, claim the folder, return the work."""
    if column not in dataset.column_names:
        what = f"no column {column!r}; it has {', '.join(map(repr, dataset.column_names))}"
        raise InputError("dataset", what, "name the column of the texts")
    if not len(dataset):
        raise InputError("dataset", "has no rows", "give at least one")
    if rows_per_shard < 1:
        raise InputError("rows_per_shard", f"is {rows_per_shard}", "give at least 1")
    header = ShardHeader(
        identity_of(embedder),
        corpus or text_fingerprint(dataset, column),
        len(dataset),
        rows_per_shard,
    )
    if centroids is not None:
        centroids = np.ascontiguousarray(centroids, dtype=np.float32)
        if centroids.ndim != 2 or not np.isfinite(centroids).all():
            raise InputError("centroids", f"of shape {centroids.shape}", "give finite (m, d)")
    return ShardWork(dataset, column, embedder, ShardFolder.claim(folder, header), centroids)


@dataclass
class InWorker:
    """:class:`ShardWork` as a worker process runs it: in one thread."""

    work: ShardWork
    threads: int = 1

    def __call__(self, row: dict[str, int]) -> dict[str, int]:
        """Do the shard that `row` names."""
        prepare_worker(self.threads)
        return {"rows": self.work(row["shard"])}


def portable(embedder: Embedder) -> Embedder:
    """Return a copy for other processes: parameters and what was learnt, no loaded model.

    By scikit-learn's convention what was learnt has a name that ends with an underscore.
    """
    if not hasattr(embedder, "get_params"):
        return embedder
    copy: Any = clone(embedder)
    for name, value in vars(embedder).items():
        if name.endswith("_") and not name.startswith("_"):
            setattr(copy, name, value)
    return copy if identity_of(copy) == identity_of(embedder) else embedder


def text_fingerprint(dataset: Dataset, column: str = "text") -> str:
    """Content hash of a column of texts, in one pass that holds few of them at a time.

    Examples
    --------
    >>> rows = Dataset.from_dict({"text": ["a", "b"]})
    >>> text_fingerprint(rows) == text_fingerprint(rows.select([1, 0]))
    False
    """
    digest = hashlib.sha256()
    for batch in dataset.select_columns([column]).iter(batch_size=1_000):
        digest.update(fingerprint(map(str, batch[column])).encode())
    return digest.hexdigest()[:16]


def identity_of(embedder: Embedder) -> dict[str, Any]:
    """Return an embedder's `identity`, or raise :class:`InputError` if it has none."""
    identity: dict[str, Any] | None = getattr(embedder, "identity", None)
    if identity is None:
        remedy = "give it a dict `identity` that changes whenever its vectors would"
        raise InputError(type(embedder).__name__, "cannot be told from other embedders", remedy)
    # As it will be read back from JSON, so that it can be compared.
    plain: dict[str, Any] = json.loads(json.dumps(identity))
    return plain
