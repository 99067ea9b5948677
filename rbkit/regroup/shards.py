"""Vectors larger than memory: a folder of shards opened as one array."""

from __future__ import annotations

import operator
import threading
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from rbkit.errors import InputError
from rbkit.files import fingerprint
from rbkit.regroup.shard_files import AGAIN, read_facts, read_header, read_shard

# A mapped file costs a descriptor, of which a process has 1,024 or fewer.
_MAPPED = 32


class ShardedVectors:
    """A folder of shards as one array of shape (n, d), float16, which stays on disk.

    It is indexed by rows, as an array is: with a number, a slice, row numbers or a mask. What
    lies within one shard comes without a copy. :class:`~rbkit.regroup.KMeans` and
    :func:`~rbkit.regroup.cluster.assign` take it as it is; ``np.asarray`` reads all of it.

    Parameters
    ----------
    folder : path
        As :func:`~rbkit.regroup.shard_job.embed_shards` made it.

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
    >>> from rbkit.regroup.shard_files import ShardFolder, ShardHeader
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
