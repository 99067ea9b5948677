"""Losses of single tokens and examples, and how a mixture may weigh them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from rbkit.balance.signals import FloatArray, TrainLosses
from rbkit.errors import InputError
from rbkit.train.parallel import all_sum, is_first

LossOf = Callable[[Any, dict[str, Any]], tuple[Tensor, Tensor]]


def token_losses(model: Any, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Return the loss of each predicted token, in nats, and which are predictions, (B, T) each.

    For a causal LM, labels are shifted by one; for a classifier with labels of shape (B,)
    each example is one "token".
    """
    labels = batch["labels"]
    logits = model(**{k: v for k, v in batch.items() if k != "labels"}).logits
    if labels.ndim == 1:
        losses = F.cross_entropy(logits.float(), labels, reduction="none")
        return losses[:, None], torch.ones_like(losses, dtype=torch.bool)[:, None]
    targets = labels[:, 1:]
    losses = F.cross_entropy(
        logits[:, :-1].flatten(0, 1).float(), targets.flatten(),
        reduction="none", ignore_index=-100,
    ).view(len(labels), -1)  # fmt: skip
    return losses, targets != -100


def example_losses(model: Any, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Return the summed loss and the number of predicted tokens of each example, (B,) each.

    For models that are neither causal LMs nor classifiers, give the trainer a function like
    this one.
    """
    losses, valid = token_losses(model, batch)
    return losses.sum(1), valid.sum(1)


def reference_excess(
    model: Any, reference: Any, batch: dict[str, Any], loss_of: LossOf,
    watch: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Return (B,) each: summed loss, tokens, and summed ``max(loss - reference loss, 0)``.

    Clipped token by token, as DoReMi (arXiv 2305.10429) does; example by example for a
    `loss_of` of one's own, which gives no losses of tokens. The reference's pass runs inside
    ``watch()``.
    """
    of_tokens = loss_of is example_losses
    mine, count = token_losses(model, batch) if of_tokens else loss_of(model, batch)
    with torch.no_grad(), watch():
        theirs, _ = token_losses(reference, batch) if of_tokens else loss_of(reference, batch)
    excess = (mine.detach() - theirs).clamp(min=0)
    if of_tokens:
        return mine.sum(1), count.sum(1), excess.sum(1)
    return mine, count, excess


class StepLosses:
    """Sums of training losses by step of a round and domain, kept on the device.

    Examples
    --------
    >>> kept = StepLosses(n_domains=2)
    >>> kept.add(0, torch.tensor([0, 1, 0]), torch.tensor([2., 9., 4.]), torch.tensor([1, 3, 1]))
    >>> kept.collect(steps=1, device=torch.device("cpu")).loss
    array([[3., 3.]])
    """

    def __init__(self, n_domains: int, *, with_excess: bool = False) -> None:
        self.n_domains, self.with_excess = n_domains, with_excess
        self._rows: dict[int, Tensor] = {}  # step -> (4, m): losses, excess, tokens, examples

    def add(
        self, step: int, domains: Tensor, losses: Tensor, tokens: Tensor,
        excess: Tensor | None = None,
    ) -> None:  # fmt: skip
        """Add a micro-batch of step `step` of the round: (B,) domains, summed losses, tokens."""
        if len(domains) != len(losses):
            raise InputError(
                "batch", f"losses of {len(losses)} rows for {len(domains)} examples",
                "per-example losses need one row per example: do not pack examples",
            )  # fmt: skip
        at = domains.to(losses.device)
        known = at >= 0
        zeros = torch.zeros_like(losses) if excess is None else excess
        values = torch.stack([losses.detach(), zeros, tokens, torch.ones_like(tokens)])
        values = values.to(torch.float32 if losses.device.type == "mps" else torch.float64)
        row = self._rows.get(step)
        if row is None:
            row = values.new_zeros(4, self.n_domains)
        row = row.to(values)  # after a resume it is on the CPU
        self._rows[step] = row.index_add(1, at[known], values[:, known])

    def collect(self, steps: int, device: torch.device) -> TrainLosses:
        """Return the round's losses, summed over processes; `steps` is the round's length."""
        sums = self.pool(steps, device)
        loss, excess, tokens, examples = np.moveaxis(sums, 1, 0)
        seen = np.where(tokens > 0, tokens, np.nan)
        return TrainLosses(
            loss / seen,
            tokens.astype(np.int64),
            examples.astype(np.int64),
            excess / seen if self.with_excess else None,
        )

    def pool(self, steps: int, device: torch.device) -> FloatArray:
        """Return the sums of all processes over the first `steps` steps, (steps, 4, m)."""
        empty = torch.zeros(4, self.n_domains)
        rows = [self._rows.get(step, empty).double().cpu() for step in range(steps)]
        if not rows:
            return np.zeros((0, 4, self.n_domains))
        return all_sum(torch.stack(rows).numpy(), device)

    def load(self, sums: FloatArray) -> None:
        """Take up pooled sums: the first process has them, the others begin at zero."""
        if is_first():
            self._rows = {step: torch.from_numpy(np.array(row)) for step, row in enumerate(sums)}
        else:
            self._rows = {}

    def clear(self) -> None:
        """Begin a new round."""
        self._rows.clear()


class Window:
    """Losses of the steps since the last logged one; those of several processes are averaged.

    Examples
    --------
    >>> window = Window(torch.device("cpu"))
    >>> window.add(torch.tensor(2.0), tokens=5)
    >>> window.pool()
    [2.0]
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.losses: list[float] = []  # of all processes
        self.tokens = 0  # of the whole run, all processes
        self._here: list[Tensor] = []
        self._tokens_here = 0

    def add(self, loss: Tensor, tokens: int) -> None:
        """Add a step: its mean loss and its tokens in this process."""
        self._here.append(loss)
        self._tokens_here += tokens

    def pool(self) -> list[float]:
        """Return the mean losses over processes; one transfer from the device, not one per step."""
        if self._here:
            local = torch.stack(self._here).double().cpu().numpy()
            found = all_sum(np.append(local, self._tokens_here), self.device)
            world = all_sum(np.ones(1), self.device)[0]
            self.losses += (found[:-1] / world).tolist()
            self.tokens += int(found[-1])
            self._here, self._tokens_here = [], 0
        return self.losses
