"""A folder of shards of vectors: each whole or absent, its owner and checksum beside it.

``shards.json`` says whose vectors these are (embedder, corpus, rows). A shard is
``vectors-<number>.npy``, float16, then ``vectors-<number>.json`` with its CRC-32, written last:
it counts once that is there. So a killed run loses the shards in progress and nothing else,
several processes may write into one folder, and damage is found before it is used.
"""

from __future__ import annotations

import json
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from rbkit.errors import InputError
from rbkit.files import atomic_path, fingerprint, read_json, write_json

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
