"""Embed a corpus larger than memory, shard by shard, and place every row in a domain.

One function, :class:`ShardWork`, does one shard: read its texts from Arrow, embed them, write
them, assign them. What differs is who calls it: a loop, the processes of ``datasets.map``
(`num_proc`), or the workers of Ray (:mod:`rbkit.regroup.ray_job`). What is on disk is not
computed again, whoever wrote it.

The whole job for a corpus of millions, with `KMeans` on a subset of the vectors:

>>> from datasets import Dataset
>>> from rbkit.regroup import KMeans, TfidfEmbedder
>>> import tempfile
>>> rows = Dataset.from_dict({"text": ["oak elm", "elm oak", "car bus"] * 9})
>>> embedder, folder = TfidfEmbedder(dim=2).fit(rows["text"]), tempfile.mkdtemp()
>>> vectors = embed_shards(rows, embedder, folder, rows_per_shard=8, progress=False)
>>> centroids = KMeans(2).fit(vectors).cluster_centers_
>>> labels, distances = assign_shards(rows, embedder, folder, centroids, progress=False)
>>> vectors.shape, labels[:3].tolist()
((27, 2), [0, 0, 1])
"""

from __future__ import annotations

import hashlib
import json
import operator
import threading
import time
import uuid
import warnings
import zlib
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from datasets import Dataset, DatasetDict
from numpy.typing import NDArray
from sklearn.base import clone
from tqdm import tqdm

from rbkit.data.corpus import about
from rbkit.data.read import quiet
from rbkit.errors import InputError, RbkitWarning
from rbkit.files import atomic_path, cache_dir, fingerprint, read_json, read_npz, write_json
from rbkit.regroup.embedding import Embedder, embed
from rbkit.regroup.kmeans import assign
from rbkit.regroup.workers import forks_leave_with_us, prepare_worker

_FORMAT = "rbkit-shards/1"
AGAIN = "embed again: this shard is computed anew, the others are kept"


@dataclass(frozen=True)
class ShardHeader:
    """Whose vectors a folder holds, and how they are cut into shards.

    Parameters
    ----------
    embedder : dict
        The embedder's `identity`.
    corpus : str
        Fingerprint of the texts.
    rows, rows_per_shard : int
    """

    embedder: dict[str, Any]
    corpus: str
    rows: int
    rows_per_shard: int

    @property
    def key(self) -> str:
        """Hash of all this: written into every shard, so that none is taken for another's."""
        return fingerprint(json.dumps(asdict(self), sort_keys=True))

    @property
    def shards(self) -> int:
        """How many there are."""
        return -(-self.rows // self.rows_per_shard)

    def span(self, shard: int) -> tuple[int, int]:
        """Return the first row of a shard, and the one after its last."""
        start = shard * self.rows_per_shard
        return start, min(self.rows, start + self.rows_per_shard)


class ShardFolder:
    """The writing side of a folder of shards; :class:`ShardedVectors` is the reading side.

    Parameters
    ----------
    folder : path
    header : ShardHeader

    Raises
    ------
    InputError
        The folder belongs to another embedder or corpus.
    """

    def __init__(self, folder: str | Path, header: ShardHeader) -> None:
        self.folder, self.header = Path(folder), header

    @classmethod
    def claim(cls, folder: str | Path, header: ShardHeader) -> Self:
        """Open a folder for these vectors; one that is there keeps its rows per shard."""
        path = Path(folder) / "shards.json"
        if not path.exists():
            write_json(path, {"format": _FORMAT, **asdict(header)})
            return cls(folder, header)
        found = read_header(folder)
        for what in ("embedder", "corpus", "rows"):
            ours, theirs = getattr(header, what), getattr(found, what)
            if ours != theirs:
                told = f"holds vectors of another {what} ({_short(theirs)}, not {_short(ours)})"
                raise InputError(str(folder), told, "choose another folder, or delete this one")
        return cls(folder, found)

    def write(self, shard: int, vectors: NDArray[np.float16], seconds: float = 0.0) -> None:
        """Write one shard: `vectors` of shape (rows of the shard, d), and what they took."""
        vectors = np.ascontiguousarray(vectors, dtype=np.float16)
        facts = _facts_path(self.folder, shard)
        facts.unlink(missing_ok=True)
        with atomic_path(_vectors_path(self.folder, shard)) as tmp:
            np.save(tmp, vectors)
        write_json(
            facts,
            {
                "of": self.header.key,
                "shape": list(vectors.shape),
                "crc32": zlib.crc32(vectors.data),
                "seconds": seconds,
            },
        )

    def read(self, shard: int) -> NDArray[np.float16]:
        """Return one shard, memory-mapped and checked."""
        return read_shard(self.folder, shard, read_facts(self.folder, self.header, shard))

    def missing(self) -> tuple[list[int], list[str]]:
        """Return the shards to be computed, and what is wrong with those that are there."""
        todo, wrong = [], []
        for shard in range(self.header.shards):
            if not _facts_path(self.folder, shard).exists():
                todo.append(shard)
                continue
            try:
                self.read(shard)
            except InputError as error:
                todo.append(shard)
                wrong.append(f"{error.where}: {error.what}")
        return todo, wrong


def read_header(folder: str | Path) -> ShardHeader:
    """Read ``shards.json``; raise :class:`InputError` if it is no header of shards."""
    path = Path(folder) / "shards.json"
    if not path.exists():
        raise InputError(str(folder), "holds no shards", "make them with embed_shards")
    found = read_json(path)
    remedy = "delete the folder, and embed again"
    if not isinstance(found, dict) or found.pop("format", None) != _FORMAT:
        raise InputError(str(path), f"not a header of {_FORMAT}", remedy)
    try:
        header = ShardHeader(**found)
        sound = header.rows >= 1 and header.rows_per_shard >= 1
    except TypeError as error:
        raise InputError(str(path), f"not a header of shards ({error})", remedy) from error
    if not sound or not isinstance(header.embedder, dict):
        raise InputError(str(path), "not a header of shards", remedy)
    return header


def read_facts(folder: Path, header: ShardHeader, shard: int) -> dict[str, Any]:
    """Read what is written beside a shard, and refuse what does not belong to `header`."""
    path = _facts_path(folder, shard)
    if not path.exists():
        raise InputError(str(_vectors_path(folder, shard)), "is missing", AGAIN)
    facts = read_json(path)
    rows = np.subtract(*header.span(shard)[::-1])
    if isinstance(facts, dict) and facts.get("of", header.key) != header.key:
        raise InputError(str(path), "is of another embedder or corpus", AGAIN)
    try:
        length, width = facts["shape"]
        sound = length == rows and width >= 1 and {"of", "crc32", "seconds"} <= set(facts)
    except (KeyError, TypeError, ValueError):
        sound = False
    if not sound:
        raise InputError(str(path), "does not describe this shard", AGAIN)
    return dict(facts)


def read_shard(
    folder: Path, shard: int, facts: dict[str, Any], crc: bool = True
) -> NDArray[np.float16]:
    """Map one shard into memory; raise :class:`InputError` if it is not what `facts` say."""
    path = _vectors_path(folder, shard)
    try:
        vectors: NDArray[np.float16]
        vectors = np.load(path, mmap_mode="r", allow_pickle=False).view(np.ndarray)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(str(path), f"damaged shard ({error})", AGAIN) from error
    if vectors.dtype != np.float16 or list(vectors.shape) != facts["shape"]:
        raise InputError(str(path), f"damaged shard ({vectors.dtype}, {vectors.shape})", AGAIN)
    if crc and zlib.crc32(vectors.data) != facts["crc32"]:
        raise InputError(str(path), "damaged shard (its checksum is not the one written)", AGAIN)
    return vectors


def _vectors_path(folder: Path, shard: int) -> Path:
    return folder / f"vectors-{shard:05d}.npy"


def _facts_path(folder: Path, shard: int) -> Path:
    return folder / f"vectors-{shard:05d}.json"


def _short(value: Any) -> str:
    text = json.dumps(value, sort_keys=True) if isinstance(value, dict) else str(value)
    return text if len(text) <= 120 else text[:117] + "..."


# A mapped file costs a descriptor, of which a process has 1,024 or fewer.
_MAPPED = 32


class ShardedVectors:
    """A folder of shards as one array of shape (n, d), float16, which stays on disk.

    It is indexed by rows, as an array is: with a number, a slice, row numbers or a mask. What
    lies within one shard comes without a copy. :class:`~rbkit.regroup.KMeans` and
    :func:`~rbkit.regroup.kmeans.assign` take it as it is; ``np.asarray`` reads all of it.

    Parameters
    ----------
    folder : path
        As :func:`~rbkit.regroup.shards.embed_shards` made it.

    Attributes
    ----------
    shape, dtype, ndim, size
        As of an array.
    header : ShardHeader
    key : str
        Content hash of all vectors, from the checksums.
    seconds : float
        What computing them took, in all processes together.

    Raises
    ------
    InputError
        A shard is missing, damaged (found when it is first read) or another corpus's.

    Examples
    --------
    >>> import tempfile
    >>> from rbkit.regroup.shards import ShardFolder, ShardHeader
    >>> header = ShardHeader({"embedder": "none"}, "corpus", rows=5, rows_per_shard=2)
    >>> folder = ShardFolder.claim(tempfile.mkdtemp(), header)
    >>> X = np.arange(10.0).reshape(5, 2)
    >>> for shard in range(3):
    ...     folder.write(shard, X[slice(*header.span(shard))])
    >>> vectors = ShardedVectors(folder.folder)
    >>> vectors.shape, vectors[1:4].tolist(), vectors[[4, 0]].tolist()
    ((5, 2), [[2.0, 3.0], [4.0, 5.0], [6.0, 7.0]], [[8.0, 9.0], [0.0, 1.0]])
    """

    dtype = np.dtype(np.float16)
    ndim = 2

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.header = read_header(folder)
        self._facts = [
            read_facts(self.folder, self.header, shard) for shard in range(self.header.shards)
        ]
        widths = {facts["shape"][1] for facts in self._facts}
        if len(widths) != 1:
            raise InputError(str(folder), f"has vectors of {sorted(widths)} numbers", AGAIN)
        self.shape = (self.header.rows, widths.pop())
        self.size = self.shape[0] * self.shape[1]
        self.key = fingerprint(self.header.key, [str(facts["crc32"]) for facts in self._facts])
        self.seconds = float(sum(facts["seconds"] for facts in self._facts))
        self._one_reader = threading.Lock()
        self._checked: set[int] = set()
        self._mapped: OrderedDict[int, NDArray[np.float16]] = OrderedDict()

    def __reduce__(self) -> tuple[type[Self], tuple[Path]]:
        return type(self), (self.folder,)

    def __repr__(self) -> str:
        return f"ShardedVectors({str(self.folder)!r}, shape={self.shape})"

    def __len__(self) -> int:
        return self.shape[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        if copy is False:
            raise ValueError("shards on disk cannot become one array without a copy")
        return np.array(self[:], dtype=dtype)

    def __getitem__(self, rows: Any) -> NDArray[np.float16]:
        if isinstance(rows, tuple) and len(rows) == 1:
            rows = rows[0]
        n = len(self)
        if isinstance(rows, slice):
            start, stop, step = rows.indices(n)
            if step == 1:
                return self._range(start, max(start, stop))
            return self._take(np.arange(start, stop, step))
        if isinstance(rows, tuple) or rows is None or rows is Ellipsis:
            raise IndexError("shards are indexed by rows: read them, then take the columns")
        if not isinstance(rows, list | np.ndarray):
            row = _in_bounds(np.array([operator.index(rows)]), n)
            return self._take(row).reshape(-1)
        wanted = np.asarray(rows)
        if wanted.dtype == bool:
            if wanted.shape != (n,):
                raise IndexError(f"a mask of shape {wanted.shape} for {n} rows")
            return self._take(np.flatnonzero(wanted))
        if wanted.ndim != 1 or not (np.issubdtype(wanted.dtype, np.integer) or not wanted.size):
            raise IndexError("rows are chosen by a list of whole numbers, or by a mask")
        return self._take(_in_bounds(wanted.astype(np.int64), n))

    def chunks(self) -> Iterator[tuple[int, NDArray[np.float16]]]:
        """Yield, shard by shard, the number of the first row and the rows, without a copy."""
        for shard in range(self.header.shards):
            yield self.header.span(shard)[0], self._shard(shard)

    def sample(self, n: int, seed: int = 0) -> tuple[NDArray[np.int64], NDArray[np.float16]]:
        """Return `n` random rows, at most all: their sorted numbers, (n,), and vectors, (n, d)."""
        rng = np.random.default_rng(seed)
        rows = np.sort(rng.choice(len(self), min(n, len(self)), replace=False))
        return rows, self._take(rows)

    def _range(self, start: int, stop: int) -> NDArray[np.float16]:
        size = self.header.rows_per_shard
        parts = []
        for shard in range(start // size, -(-stop // size) if stop > start else 0):
            first = shard * size
            parts.append(self._shard(shard)[max(0, start - first) : stop - first])
        if not parts:
            return np.empty((0, self.shape[1]), dtype=np.float16)
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _take(self, rows: NDArray[np.int64]) -> NDArray[np.float16]:
        taken = np.empty((len(rows), self.shape[1]), dtype=np.float16)
        # By shard, whatever the order asked for, so that each file is mapped once.
        order = np.argsort(rows, kind="stable")
        ordered = rows[order]
        size = self.header.rows_per_shard
        for shard in np.unique(ordered // size):
            low, high = np.searchsorted(ordered, [shard * size, (shard + 1) * size])
            taken[order[low:high]] = self._shard(int(shard))[ordered[low:high] - shard * size]
        return taken

    def _shard(self, shard: int) -> NDArray[np.float16]:
        with self._one_reader:  # the explorer reads from two threads
            if shard not in self._mapped:
                check = shard not in self._checked  # once: it reads the whole file
                self._mapped[shard] = read_shard(self.folder, shard, self._facts[shard], crc=check)
                self._checked.add(shard)
                if len(self._mapped) > _MAPPED:
                    self._mapped.popitem(last=False)
            self._mapped.move_to_end(shard)
            return self._mapped[shard]


def _in_bounds(rows: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    wrapped = np.where(rows < 0, rows + n, rows)
    bad = (wrapped < 0) | (wrapped >= n)
    if bad.any():
        raise IndexError(f"row {rows[bad][0]} of {n}")
    return wrapped


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


# 6 MB at 384 numbers; a minute of a small model on a slow CPU is what a kill can cost.
ROWS_PER_SHARD = 8_192
# What an embedder that learns from the corpus (TF-IDF) is fitted on, at most.
_FIT_ROWS = 200_000


def embed_shards(
    dataset: Dataset,
    embedder: Embedder,
    folder: str | Path,
    *,
    column: str = "text",
    corpus: str | None = None,
    rows_per_shard: int = ROWS_PER_SHARD,
    num_proc: int = 1,
    progress: bool = True,
) -> ShardedVectors:
    """Embed every row of a data set into a folder of shards, computing only what is missing.

    Parameters
    ----------
    dataset : datasets.Dataset
        Memory-mapped, if it is large: texts are read shard by shard.
    embedder : Embedder
        Fitted, if it needs fitting, and with an `identity`. It reaches other processes by its
        parameters and what it learnt; a model is loaded once in each.
    folder : path
        Of these vectors alone.
    column : str
        Of the texts.
    corpus : str, optional
        Fingerprint of the texts, as ``about(corpus)["fingerprint"]``; by default one pass over
        the texts makes it.
    rows_per_shard : int
        For a new folder; one that is there keeps its own.
    num_proc : int
        Processes on this machine, of one thread each; by ``datasets.map``. A GPU wants 1.
    progress : bool

    Returns
    -------
    ShardedVectors
        float16, shape (n, d). Vectors are those of :func:`~rbkit.regroup.embed`.

    Raises
    ------
    InputError
        The folder is of another embedder or corpus, a row is no text, the disk is full, a
        worker died. Shards that were written are kept: call again.

    Warns
    -----
    RbkitWarning
        A damaged or foreign shard is computed anew.
    """
    work = make_work(dataset, embedder, folder, column, corpus, rows_per_shard)
    drive(work, num_proc, progress)
    return ShardedVectors(folder)


def assign_shards(
    dataset: Dataset,
    embedder: Embedder,
    folder: str | Path,
    centroids: NDArray[np.floating[Any]],
    *,
    column: str = "text",
    corpus: str | None = None,
    rows_per_shard: int = ROWS_PER_SHARD,
    num_proc: int = 1,
    progress: bool = True,
) -> Assignment:
    """Embed what is missing and return the nearest of `centroids` for every row.

    Parameters
    ----------
    centroids : ndarray, shape (m, d)
    dataset, embedder, folder, column, corpus, rows_per_shard, num_proc, progress
        As in :func:`embed_shards`.

    Returns
    -------
    labels : ndarray of int32, shape (n,)
    distances : ndarray of float32, shape (n,)
        Squared distances to the centroid, as :func:`~rbkit.regroup.kmeans.assign` gives them.
        Both are kept in the folder, under the hash of the centroids.
    """
    work = make_work(dataset, embedder, folder, column, corpus, rows_per_shard, centroids)
    drive(work, num_proc, progress)
    return work.assignment()


def embed_corpus_sharded(
    corpus: DatasetDict,
    embedder: Embedder,
    folder: str | Path | None = None,
    *,
    rows_per_shard: int = ROWS_PER_SHARD,
    num_proc: int = 1,
    progress: bool = True,
) -> dict[str, ShardedVectors]:
    """Embed both splits of a corpus larger than memory: `embed_corpus` for millions of rows.

    The embedder is fitted on ``train`` alone, on at most 200,000 rows of it.

    Parameters
    ----------
    corpus : datasets.DatasetDict
        With splits ``train`` and ``eval`` and a column ``text``.
    embedder : Embedder
    folder : path, optional
        Where folders of shards are kept, one for each corpus and embedder, named by their
        hashes; by default ``cache_dir()/shards``.
    rows_per_shard, num_proc, progress
        As in :func:`embed_shards`.

    Returns
    -------
    dict
        ``{"train": ShardedVectors, "eval": ShardedVectors}``.
    """
    train = corpus["train"]
    if len(train) > _FIT_ROWS:
        rows = np.random.default_rng(0).choice(len(train), _FIT_ROWS, replace=False)
        train = train.select(np.sort(rows))
    embedder.fit(train["text"])  # a column is read as it is walked through
    origin = str(about(corpus)["fingerprint"])
    name = fingerprint(json.dumps(identity_of(embedder), sort_keys=True))
    root = cache_dir() / "shards" if folder is None else Path(folder)
    vectors = {}
    for split in ("train", "eval"):
        vectors[split] = embed_shards(
            corpus[split],
            embedder,
            root / f"{origin}-{name}" / split,
            corpus=f"{origin} {split}",
            rows_per_shard=rows_per_shard,
            num_proc=num_proc,
            progress=progress,
        )
    return vectors


def drive(work: ShardWork, num_proc: int = 1, progress: bool = True) -> None:
    """Do all shards that are not done, here or in `num_proc` processes."""
    if num_proc < 1:
        raise InputError("num_proc", f"is {num_proc}", "give the number of processes, 1 or more")
    todo = work.todo()
    if num_proc > 1 and len(todo) > 1:
        _in_processes(work, todo, min(num_proc, len(todo)), progress)
        return
    header = work.folder.header
    rows = sum(stop - start for start, stop in map(header.span, todo))
    with tqdm(total=rows, desc="embed", unit="doc", disable=not (progress and todo)) as bar:
        for shard in todo:
            bar.update(work(shard))


def _in_processes(work: ShardWork, todo: Sequence[int], num_proc: int, progress: bool) -> None:
    with quiet(progress), warnings.catch_warnings(), forks_leave_with_us():
        # Python 3.12 and later: a fork of a process with threads. Workers keep to one thread.
        warnings.filterwarnings("ignore", "This process.*fork", DeprecationWarning)
        try:
            Dataset.from_dict({"shard": list(todo)}).map(
                InWorker(work.for_workers()),
                num_proc=num_proc,
                desc=f"embed, {num_proc} processes",
                # What is done is known from the folder, not from this table's history.
                new_fingerprint=uuid.uuid4().hex,
                load_from_cache_file=False,
            )
        except RuntimeError as error:
            if "forked subprocess" in str(error):  # torch, of CUDA
                what = "a GPU cannot be used in forked processes"
                raise InputError("num_proc", what, "use num_proc=1, or Ray") from error
            if "abruptly died" not in str(error):
                raise
            what = "a worker died; it may have been killed for its memory"
            remedy = "call again, with fewer processes if so; finished shards are kept"
            raise InputError(f"num_proc={num_proc}", what, remedy) from error
