"""From texts to vectors: any embedder, with progress and a cache that survives a kill."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, Self, cast

import numpy as np
from datasets import DatasetDict
from numpy.typing import NDArray
from tqdm import tqdm

from rbkit.errors import InputError
from rbkit.files import cache_dir, fingerprint
from rbkit.regroup.store import VectorStore, picture_keys, text_keys

# Texts given to the embedder at once: many full batches, yet a bar that moves.
_CHUNK = 256
# A shard is written after this many seconds or texts: what a kill can cost.
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
    texts = list(texts)
    keys, first, inverse = np.unique(
        _keys_of(texts, embedder), return_index=True, return_inverse=True
    )
    store = _store(embedder, cache)
    found = np.zeros(len(keys), dtype=bool)
    vectors: NDArray[np.float32] | None = None
    if store is not None:
        found, vectors = store.read(keys)
    # Longest first: batches hold texts of one length, memory peaks at the start and not
    # after an hour, and the estimate of the time left errs on the safe side.
    lengths = np.array([_length(texts[at]) for at in first])
    missing = np.flatnonzero(~found)
    todo = missing[np.argsort(-lengths[missing], kind="stable")]
    pending: list[NDArray[np.float16]] = []
    saved, written, spent = 0, time.monotonic(), 0.0
    with tqdm(
        total=len(todo), desc="embed", unit="doc", mininterval=1,
        disable=not (progress and len(todo)),
    ) as bar:  # fmt: skip
        for start in range(0, len(todo), _CHUNK):
            chunk = todo[start : start + _CHUNK]
            began = time.monotonic()
            fresh = _as_float16(embedder.transform([texts[first[at]] for at in chunk]), embedder)
            spent += time.monotonic() - began
            if vectors is None:
                vectors = np.zeros((len(keys), fresh.shape[1]), dtype=np.float32)
            vectors[chunk] = fresh
            pending.append(fresh)
            bar.update(len(chunk))
            done = start + len(chunk)
            late = time.monotonic() - written > _SECONDS_PER_SHARD
            if store is not None and (
                late or done - saved >= _TEXTS_PER_SHARD or done == len(todo)
            ):
                store.append(keys[todo[saved:done]], np.concatenate(pending), spent)
                pending, saved, written, spent = [], done, time.monotonic(), 0.0
    assert vectors is not None  # there is at least one text, read or computed
    return vectors[inverse]


def embedding_seconds(
    texts: Sequence[str], embedder: Embedder, *, cache: Path | str | bool | None = True
) -> float:
    """Return what computing the cached vectors of `texts` took, in seconds, whenever that was.

    A second run reads them in no time; what regrouping costs is this. 0 without a cache.
    """
    store = _store(embedder, cache)
    return 0.0 if store is None else store.seconds(_keys_of(list(texts), embedder))


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
    texts = {split: list(corpus[split][column]) for split in ("train", "eval")}
    embedder.fit(texts["train"])
    # One call for both, so that a person sees one bar, and a repeated text is computed once.
    both = embed(texts["train"] + texts["eval"], embedder, cache=cache, progress=progress)
    cut = len(texts["train"])
    return {"train": both[:cut], "eval": both[cut:]}


def _store(embedder: Embedder, cache: Path | str | bool | None) -> VectorStore | None:
    identity = getattr(embedder, "identity", None)
    if not cache or not getattr(embedder, "cacheable", True) or identity is None:
        return None
    root = cache_dir() / "embeddings" if cache is True else Path(cache)
    store = VectorStore(root / fingerprint(json.dumps(identity, sort_keys=True)))
    store.describe(cast("dict[str, Any]", identity))
    return store


def _keys_of(items: Sequence[Any], embedder: Embedder) -> NDArray[np.bytes_]:
    """Return content hashes of texts, or of pictures, each checked for being one."""
    reads = getattr(embedder, "reads", "text")
    if not items:
        raise InputError(f"{reads}s", "there are none", f"give at least one {reads}")
    kind, name = (str, "a string") if reads == "text" else (object, "a picture")
    for row, item in enumerate(items):
        if item is None or not isinstance(item, kind):
            what = f"row {row} is {type(item).__name__}, not {name}"
            raise InputError(f"{reads}s", what, "drop the row, or convert it")
    return text_keys(items) if reads == "text" else picture_keys(items)


def _length(item: Any) -> int:
    return len(item) if isinstance(item, str) else 0


def _as_float16(vectors: NDArray[np.float32], embedder: Embedder) -> NDArray[np.float16]:
    with np.errstate(over="ignore"):  # reported below, by name
        rounded = np.asarray(vectors).astype(np.float16)
    if not np.isfinite(rounded).all():
        bad = int((~np.isfinite(rounded)).any(axis=1).sum())
        what = f"gave vectors that are not finite, or above 65504, for {bad} texts"
        raise InputError(type(embedder).__name__, what, "use normalize=True or another model")
    return rounded
