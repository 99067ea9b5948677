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

import json
import uuid
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset, DatasetDict
from numpy.typing import NDArray
from tqdm import tqdm

from rbkit.data.corpus import about
from rbkit.data.read import quiet
from rbkit.errors import InputError
from rbkit.files import cache_dir, fingerprint
from rbkit.regroup.embedding import Embedder
from rbkit.regroup.shard_work import (
    Assignment,
    InWorker,
    ShardWork,
    identity_of,
    make_work,
)
from rbkit.regroup.shards import ShardedVectors
from rbkit.regroup.workers import forks_leave_with_us

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
        Squared distances to the centroid, as :func:`~rbkit.regroup.cluster.assign` gives them.
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
