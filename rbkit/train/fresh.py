"""Gradients of all parameters on batches drawn for the purpose: what DGA and DoGE ask for.

One batch of training data per domain, and one of the eval set, at the current weights. The
batches are a function of (seed, round, domain), apart from the sequence that trains. They
cost a forward and a backward pass each, which is what the ledger writes down.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rbkit.balance.signals import FreshGradients
from rbkit.train.losses import LossOf
from rbkit.train.parallel import all_sum, processes, rank

_STREAM = 2  # keeps this use of a seed apart from those of the sampler
_TARGET = 1 << 20  # in place of a domain's number


@dataclass
class FreshBatches:
    """Where the batches come from.

    Attributes
    ----------
    train, evaluation : map-style dataset
        Evaluation may be None if no target is asked for.
    members : sequence of int arrays
        Rows of `train`, by domain.
    eval_rows : int array
        Rows of `evaluation` that belong to a domain.
    collate : callable
        Makes a batch of rows, on the device.
    batch_size : int
        Examples of a batch, of all processes together.
    seed : int
    """

    train: Any
    evaluation: Any
    members: Sequence[np.ndarray[Any, Any]]
    eval_rows: np.ndarray[Any, Any]
    collate: Callable[[list[Any]], dict[str, Any]]
    batch_size: int
    seed: int

    def draw(self, round_: int, domain: int | None) -> dict[str, Any] | None:
        """Return this process' part of a batch; None if the batch is too small for all."""
        return self.collated(self.rows(round_, domain, self.batch_size)[rank() :: processes()],
                             evaluation=domain is None)  # fmt: skip

    def rows(self, round_: int, domain: int | None, count: int) -> np.ndarray[Any, Any]:
        """Return at most `count` different rows of a domain, or (None) of the eval set."""
        rows = self.eval_rows if domain is None else self.members[domain]
        number = _TARGET if domain is None else domain
        rng = np.random.default_rng([self.seed, _STREAM, round_, number])
        return rng.choice(rows, min(count, len(rows)), replace=False)

    def collated(
        self, rows: np.ndarray[Any, Any], *, evaluation: bool = False
    ) -> dict[str, Any] | None:
        """Return the batch of `rows`; None if there are none."""
        data = self.evaluation if evaluation else self.train
        return self.collate([data[int(row)] for row in rows]) if len(rows) else None


def fresh_gradients(
    model: Any, batches: FreshBatches, round_: int, *, loss_of: LossOf, among: bool, target: bool
) -> tuple[FreshGradients, int]:
    """Return the products of fresh gradients, and the bytes that they took at most.

    Parameters
    ----------
    model : nn.Module
        Not sharded: every process has all parameters. Dropout is off meanwhile.
    round_ : int
        Which batches to draw.
    among : bool
        Products among domains too: all m gradients are held at once.
    target : bool
        Products with the gradient of the eval set.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    m = len(batches.members)
    norms = np.full(m, np.nan)
    aims: np.ndarray[Any, Any] | None = np.full(m, np.nan) if target else None
    kept: list[Tensor | None] = []
    training = model.training
    model.eval()
    try:
        aim = _gradient(model, parameters, batches.draw(round_, None), loss_of) if target else None
        for domain in range(m):
            if not len(batches.members[domain]):
                kept.append(None)
                continue
            found = _gradient(model, parameters, batches.draw(round_, domain), loss_of)
            norms[domain] = float(found.norm())
            if aim is not None and aims is not None:
                aims[domain] = float(found.double() @ aim.double())
            kept.append(found if among else None)
    finally:
        model.train(training)
    number = sum(p.numel() for p in parameters)
    held = (m if among else 1) + (1 if target else 0)
    gram = _products(kept) if among else None
    norm = float(aim.norm()) if aim is not None else None
    return FreshGradients(norms, aims, norm, gram), 4 * number * held


def _gradient(
    model: Any, parameters: list[Tensor], batch: dict[str, Any] | None, loss_of: LossOf
) -> Tensor:
    """Gradient of the mean loss per token, over all processes, flat and float32."""
    device = parameters[0].device
    flat = torch.zeros(sum(p.numel() for p in parameters), device=device)
    tokens = 0.0
    if batch is not None:
        with torch.enable_grad():
            losses, counts = loss_of(model, batch)
            # Not backward(): that would touch .grad, and make DDP talk.
            parts = torch.autograd.grad(losses.sum(), parameters, allow_unused=True)
        tokens = float(counts.sum())
        flat = torch.cat([
            torch.zeros_like(p).flatten() if g is None else g.flatten()
            for p, g in zip(parameters, parts, strict=True)
        ]).float()  # fmt: skip
    total = all_sum(np.array([tokens]), device)[0]
    if processes() > 1:
        torch.distributed.all_reduce(flat)
    mean: Tensor = flat / max(total, 1.0)
    return mean


def _products(gradients: list[Tensor | None]) -> np.ndarray[Any, Any]:
    m = len(gradients)
    gram = np.full((m, m), np.nan)
    for i, left in enumerate(gradients):
        for j, right in enumerate(gradients[: i + 1]):
            if left is not None and right is not None:
                gram[i, j] = gram[j, i] = float(left.double() @ right.double())
    return gram
