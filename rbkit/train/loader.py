"""The data loader of a mixture: batches in the sampler's order, never read ahead of p."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from rbkit.balance.sampler import MixtureSampler

DOMAIN = "rbkit_domain"  # key under which a batch carries the domain of each example


class MixtureLoader:
    """Endless batches drawn by a :class:`MixtureSampler`, each with its domain ids.

    The rows of a whole round are planned when it begins, since p is constant within it;
    worker processes may fetch ahead up to its end, but never past a change of p. The
    sampler moves on only as batches are handed out, so its state is always that of the
    training loop.

    Parameters
    ----------
    dataset : map-style dataset
        Aligned with ``sampler.labels``.
    sampler : MixtureSampler
    batch_size : int
    batches_per_round : int
        After so many batches p may change.
    collate : callable
        Makes a batch (a dict) of a list of rows.
    workers : int
        Processes that fetch rows; 0 fetches in this one.
    """

    def __init__(
        self,
        dataset: Any,
        sampler: MixtureSampler,
        *,
        batch_size: int,
        batches_per_round: int,
        collate: Callable[[list[Any]], dict[str, Any]],
        workers: int = 0,
        pin_memory: bool = False,
    ) -> None:
        self.dataset, self.sampler, self.collate = dataset, sampler, collate
        self.batch_size, self.batches_per_round = batch_size, batches_per_round
        self.workers, self.pin_memory = workers, pin_memory

    def __iter__(self) -> Iterator[dict[str, Any]]:
        while True:
            done = self.sampler.position // self.batch_size % self.batches_per_round
            count = self.batches_per_round - done
            rows, _ = self.sampler.peek(count * self.batch_size)
            plan = rows.reshape(count, self.batch_size).tolist()
            loader: DataLoader[Any] = DataLoader(
                _WithIndex(self.dataset),
                batch_sampler=plan,
                collate_fn=self._collate,
                num_workers=self.workers,
                pin_memory=self.pin_memory,
                # Its own generator: a loader must not touch the random state of the model.
                generator=torch.Generator(),
            )
            for batch in loader:
                self.sampler.take(self.batch_size)
                yield batch

    def _collate(self, items: Sequence[tuple[int, Any]]) -> dict[str, Any]:
        batch = dict(self.collate([row for _, row in items]))
        batch[DOMAIN] = torch.as_tensor(self.sampler.labels[[index for index, _ in items]])
        return batch


class _WithIndex(Dataset[tuple[int, Any]]):
    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[int, Any]:
        return index, self.dataset[index]
