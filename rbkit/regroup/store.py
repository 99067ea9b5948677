"""A store of vectors on disk, addressed by the text that they were computed from.

One folder per embedder, holding shards ``shard-<hash>.npz``: 16-byte text hashes and
float16 vectors. Shards are only ever added, each whole or absent, so a killed run loses
the shard it was computing and nothing else, and two processes may share a folder.
A text that occurs in two corpora is computed once.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rbkit.errors import InputError
from rbkit.files import atomic_path, fingerprint, write_json

KEY_BYTES = 16  # 128 bits: among 10^9 texts two agree by chance with probability 10^-21


def text_keys(texts: Sequence[str]) -> NDArray[np.bytes_]:
    """Content hash of every text: an array of shape (n,) of 16-byte strings.

    Examples
    --------
    >>> keys = text_keys(["a", "b", "a"])
    >>> bool(keys[0] == keys[2]), bool(keys[0] == keys[1])
    (True, False)
    """
    # Corpora scraped from the web hold lone surrogates; they must not stop the run.
    digests = [
        hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=KEY_BYTES).digest()
        for text in texts
    ]
    return np.array(digests, dtype=f"S{KEY_BYTES}")


def picture_keys(pictures: Sequence[Any]) -> NDArray[np.bytes_]:
    """Content hash of every picture (:class:`PIL.Image.Image`), as :func:`text_keys`."""
    digests = []
    for picture in pictures:
        digest = hashlib.blake2b(f"{picture.mode} {picture.size}".encode(), digest_size=KEY_BYTES)
        digest.update(picture.tobytes())
        digests.append(digest.digest())
    return np.array(digests, dtype=f"S{KEY_BYTES}")


class VectorStore:
    """Vectors of one embedder, kept in `folder`.

    Parameters
    ----------
    folder : path
        Created when the first shard is written.

    Examples
    --------
    >>> import tempfile
    >>> store = VectorStore(tempfile.mkdtemp())
    >>> keys = text_keys(["sun", "moon"])
    >>> store.append(keys[:1], np.ones((1, 3), dtype=np.float16))
    >>> found, vectors = store.read(keys)
    >>> found.tolist(), vectors[0].tolist()
    ([True, False], [1.0, 1.0, 1.0])
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def describe(self, identity: dict[str, Any]) -> None:
        """Write beside the shards, for people, whose vectors these are."""
        path = self.folder / "embedder.json"
        if not path.exists():
            write_json(path, identity)

    def append(
        self, keys: NDArray[np.bytes_], vectors: NDArray[np.float16], seconds: float = 0.0
    ) -> None:
        """Add one shard: `keys` (n,), `vectors` (n, d) in float16, and what they took."""
        path = self.folder / f"shard-{fingerprint(keys.tobytes())}.npz"
        with atomic_path(path) as tmp:
            # A zip archive carries a CRC-32 of each array: damage is found when reading.
            np.savez(
                tmp, keys=keys.view(np.uint8).reshape(-1, KEY_BYTES), vectors=vectors,
                seconds=np.float64(seconds),
            )  # fmt: skip

    def read(
        self, keys: NDArray[np.bytes_]
    ) -> tuple[NDArray[np.bool_], NDArray[np.float32] | None]:
        """Return what the store has for `keys`.

        Parameters
        ----------
        keys : ndarray of shape (n,)
            From :func:`text_keys`, without repetitions.

        Returns
        -------
        found : ndarray of bool, shape (n,)
        vectors : ndarray of float32, shape (n, d), or None
            Zero where not found; None while the store is empty.

        Raises
        ------
        InputError
            A shard is damaged, or does not fit the others.
        """
        order = np.argsort(keys)
        wanted = keys[order]
        found = np.zeros(len(keys), dtype=bool)
        vectors: NDArray[np.float32] | None = None
        for path in sorted(self.folder.glob("shard-*.npz")):
            shard_keys, shard_vectors, _ = _read_shard(path)
            if vectors is None:
                vectors = np.zeros((len(keys), shard_vectors.shape[1]), dtype=np.float32)
            elif vectors.shape[1] != shard_vectors.shape[1]:
                what = f"vectors of {shard_vectors.shape[1]} numbers among {vectors.shape[1]}"
                raise InputError(str(path), what, _REMEDY)
            at = np.searchsorted(wanted, shard_keys).clip(max=len(keys) - 1)
            hit = wanted[at] == shard_keys
            rows = order[at[hit]]
            vectors[rows] = shard_vectors[hit]
            found[rows] = True
        return found, vectors

    def seconds(self, keys: NDArray[np.bytes_]) -> float:
        """Return how long computing the vectors of `keys` took, whenever that was."""
        total = 0.0
        for path in sorted(self.folder.glob("shard-*.npz")):
            shard_keys, _, seconds = _read_shard(path)
            total += seconds * float(np.isin(shard_keys, keys).mean())
        return total


_REMEDY = "delete this file; its vectors will be computed again"


def _read_shard(path: Path) -> tuple[NDArray[np.bytes_], NDArray[np.float16], float]:
    try:
        # Opened here: np.load leaves its own handle open when the archive is broken.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            keys, vectors = archive["keys"], archive["vectors"]
            seconds = float(archive["seconds"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(str(path), f"damaged cache file ({error})", _REMEDY) from error
    if (
        keys.dtype != np.uint8
        or vectors.dtype != np.float16
        or keys.shape != (len(vectors), KEY_BYTES)
        or vectors.ndim != 2
        or not np.isfinite(vectors).all()
    ):
        raise InputError(str(path), "damaged cache file (not a shard of vectors)", _REMEDY)
    return np.ascontiguousarray(keys).view(f"S{KEY_BYTES}").reshape(-1), vectors, seconds
