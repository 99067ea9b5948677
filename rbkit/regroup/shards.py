"""Embed a corpus larger than memory, shard by shard.

:class:`ShardWork` does one shard: read its texts from Arrow, embed them, write them. It is
called by a loop, by the processes of ``datasets.map`` (`num_proc`), or by the workers of Ray
(:mod:`rbkit.regroup.ray_job`). Shards that are on disk are not computed again.

The whole job for a corpus of millions, with `KMeans` on a subset of the vectors:

>>> from datasets import Dataset
>>> from rbkit.regroup import KMeans, TfidfEmbedder
>>> import tempfile
>>> rows = Dataset.from_dict({"text": ["oak elm", "elm oak", "car bus"] * 9})
>>> embedder, folder = TfidfEmbedder(dim=2).fit(rows["text"]), tempfile.mkdtemp()
>>> vectors = embed_shards(rows, embedder, folder, rows_per_shard=8, progress=False)
>>> vectors.shape, KMeans(2).fit_predict(vectors)[:3].tolist()
((27, 2), [0, 0, 1])
"""

from __future__ import annotations

import hashlib
import json
import operator
import os
import sys
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
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from rbkit.data.corpus import about
from rbkit.data.files import quiet
from rbkit.errors import InputError, RbkitWarning, as_count
from rbkit.files import atomic_path, cache_dir, fingerprint, read_json, regular, write_json
from rbkit.regroup.embedding import Embedder, embed
from rbkit.text import progress_bar

_FORMAT = "rbkit-shards/1"
_AGAIN = "embed again: this shard is then recomputed, the others are kept"
# 6 MB at 384 numbers; a kill costs about a minute of a small model on a slow CPU.
ROWS_PER_SHARD = 8_192
# An embedder that learns from the corpus (TF-IDF) is fitted on this many rows at most.
_FIT_ROWS = 200_000
# A mapped file costs a descriptor, of which a process has 1,024 or fewer.
_MAPPED = 32


@dataclass(frozen=True)
class ShardHeader:
    """Whose vectors a folder holds, and how they are cut into shards.

    `embedder` is the embedder's `identity`, `corpus` a fingerprint of the texts.
    """

    embedder: dict[str, Any]
    corpus: str
    rows: int
    rows_per_shard: int

    @property
    def key(self) -> str:
        """Hash of all fields: written into every shard, so that none is taken for another's."""
        return fingerprint(json.dumps(asdict(self), sort_keys=True))

    @property
    def shards(self) -> int:
        """Number of shards."""
        return -(-self.rows // self.rows_per_shard)

    def span(self, shard: int) -> tuple[int, int]:
        """Return the first row of a shard, and the one after its last."""
        start = shard * self.rows_per_shard
        return start, min(self.rows, start + self.rows_per_shard)


class ShardFolder:
    """Shards on disk, each whole or absent: ``vectors-00000.npy`` and, written after it, ``.json``.

    The JSON file names the owner (the header's key), shape, checksum and seconds. A shard counts
    once it is there: a killed run loses only the shards in progress, several processes may write
    into one folder, and damage is noticed before the vectors are used.
    """

    def __init__(self, folder: str | Path, header: ShardHeader) -> None:
        self.folder, self.header = Path(folder), header

    @classmethod
    def open(cls, folder: str | Path) -> Self:
        """Open a folder by its ``shards.json``."""
        path = Path(folder) / "shards.json"
        if not path.exists():
            raise InputError(str(folder), "holds no shards", "make them with embed_shards")
        facts = read_json(path)
        remedy = "delete the folder, and embed again"
        if not isinstance(facts, dict) or facts.pop("format", None) != _FORMAT:
            raise InputError(str(path), f"not a header of {_FORMAT}", remedy)
        try:
            header = ShardHeader(**facts)
            sound = header.rows >= 1 and header.rows_per_shard >= 1
        except TypeError as error:
            raise InputError(str(path), f"not a header of shards ({error})", remedy) from error
        if not sound or not isinstance(header.embedder, dict):
            raise InputError(str(path), "not a header of shards", remedy)
        return cls(folder, header)

    @classmethod
    def claim(cls, folder: str | Path, header: ShardHeader) -> Self:
        """Open a folder for these vectors; an existing one keeps its rows per shard."""
        path = Path(folder) / "shards.json"
        if not path.exists():
            write_json(path, {"format": _FORMAT, **asdict(header)})
            return cls(folder, header)
        existing = cls.open(folder)
        for field in ("embedder", "corpus", "rows"):
            ours, theirs = (
                json.dumps(getattr(each, field), sort_keys=True)
                for each in (header, existing.header)
            )
            if ours != theirs:
                what = f"holds vectors of another {field} ({theirs[:120]}, not {ours[:120]})"
                raise InputError(str(folder), what, "choose another folder, or delete this one")
        return existing

    def write(self, shard: int, vectors: NDArray[np.float16], seconds: float = 0.0) -> None:
        """Write one shard: `vectors` of shape (rows of the shard, d), and the time they took."""
        vectors = np.ascontiguousarray(vectors, dtype=np.float16)
        facts = self._path(shard, "json")
        facts.unlink(missing_ok=True)
        with atomic_path(self._path(shard, "npy")) as tmp:
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

    def facts(self, shard: int) -> dict[str, Any]:
        """Read the JSON file of a shard; raise :class:`InputError` if it is not of this header."""
        path = self._path(shard, "json")
        if not path.exists():
            raise InputError(str(self._path(shard, "npy")), "is missing", _AGAIN)
        facts = read_json(path)
        if isinstance(facts, dict) and facts.get("of", self.header.key) != self.header.key:
            raise InputError(str(path), "is of another embedder or corpus", _AGAIN)
        start, stop = self.header.span(shard)
        try:
            length, width = facts["shape"]
            sound = length == stop - start and width >= 1
            sound = sound and {"of", "crc32", "seconds"} <= set(facts)
        except (KeyError, TypeError, ValueError):
            sound = False
        if not sound:
            raise InputError(str(path), "does not describe this shard", _AGAIN)
        return dict(facts)

    def read(
        self, shard: int, facts: dict[str, Any] | None = None, *, crc: bool = True
    ) -> NDArray[np.float16]:
        """Map one shard into memory; raise :class:`InputError` if it is not as described."""
        facts = self.facts(shard) if facts is None else facts
        path = self._path(shard, "npy")
        try:
            vectors: NDArray[np.float16]
            whole = np.load(regular(path), mmap_mode="r", allow_pickle=False)
            vectors = whole.view(np.ndarray)
        except (OSError, ValueError, EOFError) as error:
            raise InputError(str(path), f"damaged shard ({error})", _AGAIN) from error
        if vectors.dtype != np.float16 or list(vectors.shape) != facts["shape"]:
            what = f"damaged shard ({vectors.dtype}, {vectors.shape})"
            raise InputError(str(path), what, _AGAIN)
        if crc and zlib.crc32(vectors.data) != facts["crc32"]:
            what = "damaged shard (its checksum is not the one written)"
            raise InputError(str(path), what, _AGAIN)
        return vectors

    def missing(self) -> tuple[list[int], list[str]]:
        """Return the shards to be computed, and the defects of those that are there."""
        todo, defects = [], []
        for shard in range(self.header.shards):
            if not self._path(shard, "json").exists():
                todo.append(shard)
                continue
            try:
                self.read(shard)
            except InputError as error:
                todo.append(shard)
                defects.append(f"{error.where}: {error.what}")
        return todo, defects

    def _path(self, shard: int, suffix: str) -> Path:
        return self.folder / f"vectors-{shard:05d}.{suffix}"


class ShardedVectors:
    """A folder of shards as one array of shape (n, d), float16, which stays on disk.

    It is indexed by rows, as an array is: with a number, a slice, row numbers or a mask. Rows
    within one shard come without a copy. :class:`~rbkit.regroup.KMeans` and
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
        Time to compute them, summed over all processes.

    Raises
    ------
    InputError
        A shard is missing, damaged (noticed when it is first read) or another corpus's.

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
        self._files = ShardFolder.open(folder)
        self.header = self._files.header
        self._facts = [self._files.facts(shard) for shard in range(self.header.shards)]
        widths = {facts["shape"][1] for facts in self._facts}
        if len(widths) != 1:
            raise InputError(str(folder), f"has vectors of {sorted(widths)} numbers", _AGAIN)
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
            return self._take(np.array([operator.index(rows)])).reshape(-1)
        wanted = np.asarray(rows)
        if wanted.dtype == bool:
            if wanted.shape != (n,):
                raise IndexError(f"a mask of shape {wanted.shape} for {n} rows")
            return self._take(np.flatnonzero(wanted))
        if wanted.ndim != 1 or not (np.issubdtype(wanted.dtype, np.integer) or not wanted.size):
            raise IndexError("rows are chosen by a list of whole numbers, or by a mask")
        return self._take(wanted.astype(np.int64))

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
        wrapped = np.where(rows < 0, rows + len(self), rows)
        outside = (wrapped < 0) | (wrapped >= len(self))
        if outside.any():
            raise IndexError(f"row {rows[outside][0]} of {len(self)}")
        taken = np.empty((len(rows), self.shape[1]), dtype=np.float16)
        # By shard, whatever the order asked for, so that each file is mapped once.
        order = np.argsort(wrapped, kind="stable")
        ordered = wrapped[order]
        size = self.header.rows_per_shard
        for shard in np.unique(ordered // size):
            low, high = np.searchsorted(ordered, [shard * size, (shard + 1) * size])
            taken[order[low:high]] = self._shard(int(shard))[ordered[low:high] - shard * size]
        return taken

    def _shard(self, shard: int) -> NDArray[np.float16]:
        with self._one_reader:  # the explorer reads from two threads
            if shard not in self._mapped:
                check = shard not in self._checked  # once: it reads the whole file
                self._mapped[shard] = self._files.read(shard, self._facts[shard], crc=check)
                self._checked.add(shard)
                if len(self._mapped) > _MAPPED:
                    self._mapped.popitem(last=False)
            self._mapped.move_to_end(shard)
            return self._mapped[shard]


@dataclass
class ShardWork:
    """The work on every shard; calling it with a shard's number does that one.

    It travels to other processes: `dataset` as the names of its files if it is memory-mapped,
    `embedder` without the model it has loaded.
    """

    dataset: Dataset
    column: str
    embedder: Embedder
    folder: ShardFolder
    threads: int = 1  # of a worker process

    @classmethod
    def claim(
        cls,
        dataset: Dataset,
        embedder: Embedder,
        folder: str | Path,
        column: str = "text",
        corpus: str | None = None,
        rows_per_shard: int = ROWS_PER_SHARD,
    ) -> Self:
        """Check the arguments of :func:`embed_shards`, and claim the folder."""
        if column not in dataset.column_names:
            what = f"no column {column!r}; it has {', '.join(map(repr, dataset.column_names))}"
            raise InputError("dataset", what, "name the column of the texts")
        if not len(dataset):
            raise InputError("dataset", "has no rows", "give at least one")
        rows_per_shard = as_count("rows_per_shard", rows_per_shard, least=1)
        header = ShardHeader(
            _identity_of(embedder),
            corpus or _text_fingerprint(dataset, column),
            len(dataset),
            rows_per_shard,
        )
        texts = dataset.select_columns([column])  # no other column travels to a worker
        return cls(texts, column, embedder, ShardFolder.claim(folder, header))

    def __call__(self, shard: int) -> int:
        """Embed and write one shard, if it is missing or damaged; return its number of rows."""
        start, stop = self.folder.header.span(shard)
        try:
            self.folder.read(shard)
        except InputError:  # missing or damaged
            self._embed(shard, start, stop)
        return stop - start

    def for_workers(self, threads: int = 1) -> Self:
        """Return the same work to be sent away: without a loaded model."""
        return replace(self, embedder=portable(self.embedder), threads=threads)

    def in_worker(self, row: dict[str, int]) -> dict[str, int]:
        """Do the shard that `row` names, in a worker process."""
        _prepare_worker(self.threads)
        return {"rows": self(row["shard"])}

    def todo(self, stacklevel: int) -> list[int]:
        """Return the shards that are not done; warn of damaged ones, `stacklevel` calls up."""
        missing, defects = self.folder.missing()
        if defects:
            more = f" (and {len(defects) - 1} more)" if len(defects) > 1 else ""
            message = f"{defects[0]}{more}; computing it again"
            warnings.warn(message, RbkitWarning, stacklevel=stacklevel)
        return missing

    def rows_of(self, shards: Sequence[int]) -> int:
        """Return the number of rows in some shards."""
        spans = map(self.folder.header.span, shards)
        return sum(stop - start for start, stop in spans)

    def _embed(self, shard: int, start: int, stop: int) -> None:
        began = time.perf_counter()
        texts = self.dataset.select_columns([self.column])[start:stop][self.column]
        for row, text in enumerate(texts, start):
            if not isinstance(text, str):
                what = f"row {row} is {type(text).__name__}, not a string"
                raise InputError(f"column {self.column!r}", what, "drop or convert it")
        vectors = embed(texts, self.embedder, cache=None, progress=False).astype(np.float16)
        try:
            self.folder.write(shard, vectors, time.perf_counter() - began)
        except OSError as error:
            what = f"cannot be written ({error.strerror or error})"
            remedy = "make room there and call again; finished shards are kept"
            raise InputError(str(self.folder.folder), what, remedy) from error


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
        parameters and fitted attributes; a model is loaded once in each.
    folder : path
        Of these vectors alone.
    column : str
        Of the texts.
    corpus : str, optional
        Fingerprint of the texts, as ``about(corpus)["fingerprint"]``; by default one pass over
        the texts makes it.
    rows_per_shard : int
        For a new folder; an existing one keeps its own.
    num_proc : int
        Processes on this machine, of one thread each; by ``datasets.map``. A GPU wants 1.
    progress : bool

    Returns
    -------
    ShardedVectors
        float16, shape (n, d): the same vectors as :func:`~rbkit.regroup.embed` gives.

    Raises
    ------
    InputError
        The folder is of another embedder or corpus, a row is not a text, the disk is full, a
        worker died. Shards that were written are kept: call again.

    Warns
    -----
    RbkitWarning
        A damaged or foreign shard is computed again.
    """
    work = ShardWork.claim(dataset, embedder, folder, column, corpus, rows_per_shard)
    _do_all(work, num_proc, progress)
    return ShardedVectors(folder)


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
    name = fingerprint(json.dumps(_identity_of(embedder), sort_keys=True))
    root = cache_dir() / "shards" if folder is None else Path(folder)
    return {
        split: embed_shards(
            corpus[split],
            embedder,
            root / f"{origin}-{name}" / split,
            corpus=f"{origin} {split}",
            rows_per_shard=rows_per_shard,
            num_proc=num_proc,
            progress=progress,
        )
        for split in ("train", "eval")
    }


def portable(embedder: Embedder) -> Embedder:
    """Return a copy for other processes: parameters and fitted attributes, without a loaded model.

    By scikit-learn's convention fitted attributes have names that end with an underscore.
    """
    if not hasattr(embedder, "get_params"):
        return embedder
    copy: Any = clone(embedder)
    for name, value in vars(embedder).items():
        if name.endswith("_") and not name.startswith("_"):
            setattr(copy, name, value)
    return copy if _identity_of(copy) == _identity_of(embedder) else embedder


def _identity_of(embedder: Embedder) -> dict[str, Any]:
    identity: dict[str, Any] | None = getattr(embedder, "identity", None)
    if identity is None:
        remedy = "give it a dict `identity` that changes whenever its vectors would"
        raise InputError(
            type(embedder).__name__, "cannot be distinguished from other embedders", remedy
        )
    # As it will be read back from JSON, so that it can be compared.
    as_read: dict[str, Any] = json.loads(json.dumps(identity))
    return as_read


def _text_fingerprint(dataset: Dataset, column: str = "text") -> str:
    """Content hash of a column of texts, in one pass that holds few of them at a time."""
    digest = hashlib.sha256()
    for batch in dataset.select_columns([column]).iter(batch_size=1_000):
        digest.update(fingerprint(map(str, batch[column])).encode())
    return digest.hexdigest()[:16]


def _do_all(work: ShardWork, num_proc: int = 1, progress: bool = True) -> None:
    """Do all shards that are not done, here or in `num_proc` processes."""
    num_proc = as_count("num_proc", num_proc, least=1)
    todo = work.todo(stacklevel=4)
    if num_proc > 1 and len(todo) > 1:
        _in_processes(work, todo, min(num_proc, len(todo)), progress)
        return
    rows = work.rows_of(todo)
    with progress_bar(total=rows, desc="embed", unit="doc", disable=not (progress and todo)) as bar:
        for shard in todo:
            bar.update(work(shard))


def _in_processes(work: ShardWork, todo: Sequence[int], num_proc: int, progress: bool) -> None:
    with quiet(progress), warnings.catch_warnings(), _forks_leave_with_us():
        # Python 3.12 and later: a fork of a process with threads. Workers keep to one thread.
        warnings.filterwarnings("ignore", "This process.*fork", DeprecationWarning)
        try:
            Dataset.from_dict({"shard": list(todo)}).map(
                work.for_workers().in_worker,
                num_proc=num_proc,
                desc=f"embed, {num_proc} processes",
                # The folder shows which shards are done, not this table's history.
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


_prepared: int | None = None  # the process in which _prepare_worker was done
_owner: int | None = None  # the process whose forks leave with it


def _prepare_worker(threads: int) -> None:
    """Keep a worker to its threads, and let it go when the process that started it is gone."""
    global _prepared
    if _prepared == os.getpid():
        return
    # A forked process that wakes a second OpenMP thread hangs, and workers share the cores.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    threadpool_limits(threads)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)
    _leave_when_gone(os.getppid())
    _prepared = os.getpid()


@contextmanager
def _forks_leave_with_us() -> Iterator[None]:
    """Have all that is forked in the block end when this process does, even if it is killed.

    A pool starts more than workers: the process that keeps their queue runs no code of ours,
    and would wait for its killed owner for ever.
    """
    global _owner
    before, _owner = _owner, os.getpid()
    try:
        yield
    finally:
        _owner = before


def _after_fork() -> None:
    if _owner is not None and _owner == os.getppid():
        _leave_when_gone(_owner)


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_after_fork)


def _leave_when_gone(parent: int) -> None:
    def wait() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
