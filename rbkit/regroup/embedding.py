"""From texts to vectors: any embedder, with progress and a cache that survives a kill."""

from __future__ import annotations

import hashlib
import json
import time
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
from datasets import DatasetDict
from numpy.typing import NDArray

from rbkit.errors import InputError
from rbkit.files import atomic_path, cache_dir, fingerprint, keeping, regular, write_json
from rbkit.text import progress_bar

_KEY_BYTES = 16  # 128 bits: among 10^9 texts two agree by chance with probability 10^-21
# Texts given to the embedder at once: many full batches, yet a bar that moves.
_CHUNK = 256
# A shard is written after this many seconds or texts: a kill costs no more.
_SECONDS_PER_SHARD = 15.0
_TEXTS_PER_SHARD = 16_384


class Embedder(Protocol):
    """What :func:`embed` needs: scikit-learn's `fit` and `transform`, on texts.

    An embedder that also has `identity` (a JSON-able dict that changes whenever its
    vectors would) is cached, unless its `cacheable` is False.
    """

    def fit(self, texts: Sequence[str]) -> Self:
        """Learn from the training texts; most embedders have nothing to learn."""
        ...

    def transform(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return vectors of shape (n, d)."""
        ...


def text_keys(texts: Sequence[str]) -> NDArray[np.bytes_]:
    """Content hash of every text: an array of shape (n,) of 16-byte strings.

    Examples
    --------
    >>> keys = text_keys(["a", "b", "a"])
    >>> bool(keys[0] == keys[2]), bool(keys[0] == keys[1])
    (True, False)
    """
    # Corpora scraped from the web hold lone surrogates; they must not stop the run.
    return _keys(text.encode("utf-8", "surrogatepass") for text in texts)


def _keys(contents: Any) -> NDArray[np.bytes_]:
    digests = [hashlib.blake2b(each, digest_size=_KEY_BYTES).digest() for each in contents]
    return np.array(digests, dtype=f"S{_KEY_BYTES}")


class VectorStore:
    """Vectors of one embedder by content of the text, kept in `folder`.

    The files are ``shard-<hash>.npz``: 16-byte text hashes and float16 vectors. Shards are only
    added, each whole or absent, so a killed run loses only the shard that it was computing, and
    two processes may share a folder. A text that occurs in two corpora is computed once.

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
    >>> stored, vectors = store.read(keys)
    >>> stored.tolist(), vectors[0].tolist()
    ([True, False], [1.0, 1.0, 1.0])
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def append(
        self, keys: NDArray[np.bytes_], vectors: NDArray[np.float16], seconds: float = 0.0
    ) -> None:
        """Add one shard: `keys` (n,), `vectors` (n, d) in float16, and the time they took."""
        path = self.folder / f"shard-{fingerprint(keys.tobytes())}.npz"
        with atomic_path(path) as tmp:
            # A zip archive carries a CRC-32 of each array: damage shows when it is read.
            np.savez(
                tmp,
                keys=keys.view(np.uint8).reshape(-1, _KEY_BYTES),
                vectors=vectors,
                seconds=np.float64(seconds),
            )

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
        stored : ndarray of bool, shape (n,)
        vectors : ndarray of float32, shape (n, d), or None
            Zero where not stored; None while the store is empty.

        Raises
        ------
        InputError
            A shard is damaged, or does not fit the others.
        """
        order = np.argsort(keys)
        wanted = keys[order]
        stored = np.zeros(len(keys), dtype=bool)
        vectors: NDArray[np.float32] | None = None
        for path in self._shards():
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
            stored[rows] = True
        return stored, vectors

    def seconds(self, keys: NDArray[np.bytes_]) -> float:
        """Return how long computing the vectors of `keys` took, whenever that was."""
        shards = (_read_shard(path) for path in self._shards())
        return sum(
            seconds * float(np.isin(shard_keys, keys).mean()) for shard_keys, _, seconds in shards
        )

    def _shards(self) -> list[Path]:
        return sorted(self.folder.glob("shard-*.npz"))


_REMEDY = "delete this file; its vectors will be computed again"


def _read_shard(path: Path) -> tuple[NDArray[np.bytes_], NDArray[np.float16], float]:
    try:
        # Opened here: np.load leaves its own handle open when the archive is broken.
        with regular(path).open("rb") as file, np.load(file, allow_pickle=False) as archive:
            keys, vectors = archive["keys"], archive["vectors"]
            seconds = float(archive["seconds"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(str(path), f"damaged cache file ({error})", _REMEDY) from error
    if (
        keys.dtype != np.uint8
        or vectors.dtype != np.float16
        or keys.shape != (len(vectors), _KEY_BYTES)
        or vectors.ndim != 2
        or not np.isfinite(vectors).all()
    ):
        raise InputError(str(path), "damaged cache file (not a shard of vectors)", _REMEDY)
    return np.ascontiguousarray(keys).view(f"S{_KEY_BYTES}").reshape(-1), vectors, seconds


def embed(
    texts: Sequence[str],
    embedder: Embedder,
    *,
    cache: Path | str | bool | None = True,
    progress: bool = True,
) -> NDArray[np.float32]:
    """Return the vector of every text, computing only those not on disk yet.

    Parameters
    ----------
    texts : sequence of str, length n
    embedder : Embedder
        Fitted, if it needs fitting.
    cache : path, bool or None
        True: ``cache_dir()/embeddings``; a path: that folder; False or None: no cache.
    progress : bool
        Show a progress bar on stderr.

    Returns
    -------
    ndarray of float32, shape (n, d)
        Rounded to float16, whether computed or read back: a second call gives the same bits.

    Raises
    ------
    InputError
        No texts, a text that is not a string, vectors that are not finite, or a
        damaged cache file (which it names).

    Examples
    --------
    >>> from rbkit.regroup import TfidfEmbedder
    >>> texts = ["red wine and cheese", "white wine and bread", "bread and cheese"]
    >>> embed(texts, TfidfEmbedder(dim=2).fit(texts), progress=False).shape
    (3, 2)
    """
    texts = texts if isinstance(texts, str) else list(texts)
    keys, first, inverse = np.unique(
        _checked_keys(texts, embedder), return_index=True, return_inverse=True
    )
    store = _store_of(embedder, cache)
    stored, vectors = (
        store.read(keys) if store is not None else (np.zeros(len(keys), dtype=bool), None)
    )
    # Longest first: batches hold texts of one length, memory peaks at the start and not
    # after an hour, and the estimate of the time left errs on the safe side.
    items = [texts[at] for at in first]
    lengths = np.array([len(item) if isinstance(item, str) else 0 for item in items])
    missing = np.flatnonzero(~stored)
    todo = missing[np.argsort(-lengths[missing], kind="stable")]
    pending: list[NDArray[np.float16]] = []
    saved, written, spent = 0, time.monotonic(), 0.0
    model = None if hasattr(embedder, "_loaded") else getattr(embedder, "model", None)
    with progress_bar(
        total=len(todo),
        desc=f"loading {Path(str(model)).name}" if model and len(todo) else "embed",
        unit="doc",
        mininterval=1,
        disable=not (progress and len(todo)),
    ) as bar:
        for start in range(0, len(todo), _CHUNK):
            chunk = todo[start : start + _CHUNK]
            began = time.monotonic()
            made = embedder.transform([items[at] for at in chunk])
            fresh = _as_float16(made, embedder, len(chunk))
            spent += time.monotonic() - began
            bar.set_description("embed", refresh=False)
            if vectors is None:
                vectors = np.zeros((len(keys), fresh.shape[1]), dtype=np.float32)
            if fresh.shape[1] != vectors.shape[1]:
                what = f"gave vectors of {fresh.shape[1]} numbers after ones of {vectors.shape[1]}"
                remedy = "all texts must get vectors of one length; or change its `identity`"
                raise InputError(type(embedder).__name__, what, remedy)
            vectors[chunk] = fresh
            pending.append(fresh)
            bar.update(len(chunk))
            done = start + len(chunk)
            late = time.monotonic() - written > _SECONDS_PER_SHARD
            if store is not None and (
                late or done - saved >= _TEXTS_PER_SHARD or done == len(todo)
            ):
                with keeping("the cache of vectors"):
                    store.append(keys[todo[saved:done]], np.concatenate(pending), spent)
                pending, saved, written, spent = [], done, time.monotonic(), 0.0
    assert vectors is not None  # there is at least one text, read or computed
    return vectors[inverse]


def embedding_seconds(
    texts: Sequence[str], embedder: Embedder, *, cache: Path | str | bool | None = True
) -> float:
    """Return how long computing the cached vectors of `texts` took, in seconds, whenever it was.

    A second run reads them in no time; regrouping costs this. 0 without a cache.
    """
    store = _store_of(embedder, cache)
    return 0.0 if store is None else store.seconds(_checked_keys(list(texts), embedder))


def embed_corpus(
    corpus: DatasetDict,
    embedder: Embedder,
    *,
    cache: Path | str | bool | None = True,
    progress: bool = True,
) -> dict[str, NDArray[np.float32]]:
    """Embed both splits of a corpus; the embedder is fitted on ``train`` alone.

    Parameters
    ----------
    corpus : datasets.DatasetDict
        With splits ``train`` and ``eval`` and a column ``text``; an embedder of pictures
        (``embedder.reads == "image"``) takes the column ``image``.
    embedder : Embedder
    cache, progress
        As in :func:`embed`.

    Returns
    -------
    dict
        ``{"train": (n_train, d), "eval": (n_eval, d)}``, float32.
    """
    column = getattr(embedder, "reads", "text")
    for split in ("train", "eval"):
        if column not in corpus[split].column_names:
            what = f"no column {column!r} in the split {split!r}"
            raise InputError("corpus", what, f"{type(embedder).__name__} reads it: add it")
    train, eval_ = (list(corpus[split][column]) for split in ("train", "eval"))
    check_items(train, column)
    embedder.fit(train)
    # One call for both, so that a person sees one bar, and a repeated text is computed once.
    both = embed(train + eval_, embedder, cache=cache, progress=progress)
    return {"train": both[: len(train)], "eval": both[len(train) :]}


def _store_of(embedder: Embedder, cache: Path | str | bool | None) -> VectorStore | None:
    identity = getattr(embedder, "identity", None)
    if not cache or not getattr(embedder, "cacheable", True) or identity is None:
        return None
    root = cache_dir() / "embeddings" if cache is True else Path(cache)
    folder = root / fingerprint(json.dumps(identity, sort_keys=True))
    if not (folder / "embedder.json").exists():  # for people, who look whose vectors these are
        with keeping("the cache of vectors"):
            write_json(folder / "embedder.json", identity)
    return VectorStore(folder)


def check_items(items: Sequence[Any], reads: str = "text") -> None:
    """Raise an :class:`InputError` with the row of the first item that is not a text (picture)."""
    if isinstance(items, str | bytes):
        raise InputError(f"{reads}s", "one text, not a list of them", "put it in a list")
    if not len(items):
        raise InputError(f"{reads}s", "there are none", f"give at least one {reads}")
    kind, name = (str, "a string") if reads == "text" else (object, "a picture")
    for row, item in enumerate(items):
        if item is None or not isinstance(item, kind):
            what = f"row {row} is {type(item).__name__}, not {name}"
            raise InputError(f"{reads}s", what, "drop the row, or convert it")


def _checked_keys(items: Sequence[Any], embedder: Embedder) -> NDArray[np.bytes_]:
    """Return content hashes of texts, or of pictures (:class:`PIL.Image.Image`)."""
    reads = getattr(embedder, "reads", "text")
    check_items(items, reads)
    if reads == "text":
        return text_keys(items)
    return _keys(f"{item.mode} {item.size}".encode() + item.tobytes() for item in items)


def _as_float16(vectors: Any, embedder: Embedder, n: int) -> NDArray[np.float16]:
    """Return what an embedder gave for `n` items in float16, or say what is wrong with it."""
    name = type(embedder).__name__
    try:
        vectors = _numbers(vectors)
    except (TypeError, ValueError) as error:
        what = f"gave {type(vectors).__name__}, not vectors ({str(error)[:80]})"
        raise InputError(name, what, f"its transform must return {n} rows of numbers") from error
    if vectors.ndim != 2 or len(vectors) != n or not vectors.shape[1]:
        what = f"gave an array of shape {vectors.shape} for {n} texts"
        raise InputError(name, what, f"its transform must return shape ({n}, d)")
    with np.errstate(over="ignore"):  # reported below, by name
        rounded = np.asarray(vectors).astype(np.float16)
    if not np.isfinite(rounded).all():
        bad = int((~np.isfinite(rounded)).any(axis=1).sum())
        what = f"gave vectors that are not finite, or above 65504, for {bad} texts"
        raise InputError(type(embedder).__name__, what, "use normalize=True or another model")
    return rounded


def _numbers(vectors: Any) -> NDArray[Any]:
    if hasattr(vectors, "detach"):  # torch
        vectors = vectors.detach().float().cpu()
    numbers = np.asarray(vectors.toarray() if hasattr(vectors, "toarray") else vectors)
    return numbers if numbers.dtype.kind == "f" else numbers.astype(np.float64)
