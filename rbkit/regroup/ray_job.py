"""The embedding job on Ray Data, for more than one machine (extra ``rbkit[ray]``).

Every worker loads the model once and does shard after shard, by the same function as one
process does (:class:`~rbkit.regroup.shards.ShardWork`), so the result is the same. A worker
that dies is replaced and its shard done again. Machines share the folder and the data set by
path: both lie where all of them see them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray

from rbkit.errors import InputError, as_count
from rbkit.ray_cluster import connected_ray, quiet_ray_data
from rbkit.regroup.embedding import Embedder
from rbkit.regroup.shards import ROWS_PER_SHARD, ShardedVectors, ShardWork
from rbkit.text import progress_bar


def embed_shards_on_ray(
    dataset: Dataset,
    embedder: Embedder,
    folder: str | Path,
    *,
    workers: int = 2,
    num_cpus: float = 1,
    num_gpus: float = 0,
    address: str | None = None,
    column: str = "text",
    corpus: str | None = None,
    rows_per_shard: int = ROWS_PER_SHARD,
    progress: bool = True,
) -> ShardedVectors:
    """:func:`~rbkit.regroup.shards.embed_shards`, by workers of Ray Data.

    Parameters
    ----------
    workers : int
    num_cpus, num_gpus : float
        Of each worker.
    address : str, optional
        Of a Ray cluster (``"auto"``: the one this machine belongs to). By default the Ray that
        this process is connected to, else one on this machine, on 127.0.0.1 and without its
        dashboard and statistics, which ends with the job.
    dataset, embedder, folder, column, corpus, rows_per_shard, progress
        As in :func:`~rbkit.regroup.shards.embed_shards`.

    Returns
    -------
    ShardedVectors

    Raises
    ------
    InputError
        Ray is not installed, or as in :func:`~rbkit.regroup.shards.embed_shards`.
    """
    workers = as_count("workers", workers, least=1)
    work = ShardWork.claim(dataset, embedder, folder, column, corpus, rows_per_shard)
    todo = work.todo(stacklevel=3)
    if not todo:
        return ShardedVectors(folder)
    rows = work.rows_of(todo)
    job = work.for_workers(threads=max(1, int(num_cpus)))
    with (
        connected_ray(address, cpus=workers * num_cpus + 1, gpus=workers * num_gpus) as ray,
        quiet_ray_data(ray),
        progress_bar(
            total=rows, desc=f"embed, {workers} workers", unit="doc", disable=not progress
        ) as bar,
    ):
        shards = ray.data.from_items(
            [{"shard": shard} for shard in todo], override_num_blocks=len(todo)
        )
        done = shards.map_batches(
            _Worker,
            fn_constructor_args=(job,),
            batch_size=1,
            # A fixed number of actors; Ray Data restarts them and repeats what they were doing.
            compute=ray.data.ActorPoolStrategy(size=min(workers, len(todo))),
            num_cpus=num_cpus,
            num_gpus=num_gpus,
        )
        for row in done.iter_rows():
            if row["failed"]:
                raise InputError(*json.loads(row["failed"]))
            bar.update(int(row["rows"]))
    return ShardedVectors(folder)


class _Worker:
    """Lives in a Ray actor: the model stays loaded from shard to shard."""

    def __init__(self, job: ShardWork) -> None:
        self.job = job

    def __call__(self, batch: dict[str, NDArray[np.int64]]) -> dict[str, list[Any]]:
        rows, failed = 0, ""
        try:
            rows = self.job.in_worker({"shard": int(batch["shard"][0])})["rows"]
        except InputError as error:  # as data: Ray would wrap it and lose the message
            failed = json.dumps([error.where, error.what, error.remedy])
        return {"rows": [rows], "failed": [failed]}
