"""What the loss of a step is: sums over tokens, their weights, and what they are divided by.

``transformers.Trainer`` divides by the tokens of the whole step where the model takes that
number, else by those of the micro-batch; and where DDP averages gradients over processes
that it wants summed, it multiplies the loss by their number.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from rbkit.train.loader import DOMAIN
from rbkit.train.parallel import all_sum

if TYPE_CHECKING:
    from rbkit.train.trainer import MixtureTrainer


class Weighing:
    """The losses of a trainer's steps, weighed by domain if its mixer acts that way."""

    def __init__(self, trainer: MixtureTrainer) -> None:
        self.trainer = trainer
        self.by_domain = trainer.mixer.acts == "loss"
        self._total = 1.0  # weights of all tokens of the step, over all processes

    def plan(self, batches: list[dict[str, Any]]) -> None:
        """Take in the micro-batches of the coming step, before the first is trained on."""
        if not (self.by_domain and self.trainer.mixer.normalise_loss):
            return
        weights = self.trainer.mixture.weights
        total = sum(float((weights(b[DOMAIN]) * predictions(b)).sum()) for b in batches)
        self._total = float(all_sum(np.array([total]), self.trainer.args.device)[0])

    def loss(self, losses: Tensor, tokens: Tensor, domains: Tensor, items: Any) -> Tensor:
        """Return the loss of a micro-batch, from the sums and tokens of its examples, (B,) each."""
        trainer, args = self.trainer, self.trainer.args
        of_step = items is not None and trainer.model_accepts_loss_kwargs
        if self.by_domain:
            losses = losses * trainer.mixture.weights(domains).to(losses.device)
            if trainer.mixer.normalise_loss:
                # Not told of the step's items, the library divides by its micro-batches.
                parts = 1 if of_step else trainer.current_gradient_accumulation_steps
                total: Tensor = losses.sum() / self._total * args.world_size * parts
                return total
        mean: Tensor = losses.sum() / (items / self._processes if of_step else tokens.sum())
        return mean

    def divisor(self, inputs: Mapping[str, Any], items: Any) -> float:
        """Return what the summed loss of a micro-batch was divided by before ``backward``."""
        trainer = self.trainer
        scaler = getattr(trainer.accelerator, "scaler", None)
        gain = float(scaler.get_scale()) if scaler is not None else 1.0  # of fp16's loss scaling
        of_step = trainer.model_accepts_loss_kwargs or trainer.compute_loss_func is not None
        if items is not None and of_step:
            return float(items) / self._processes / gain
        here = int(predictions(inputs).sum())
        return float(here * trainer.current_gradient_accumulation_steps / gain)

    @property
    def _processes(self) -> int:
        args = self.trainer.args
        return int(args.world_size) if args.average_tokens_across_devices else 1


def predictions(inputs: Mapping[str, Any]) -> Tensor:
    """Return the number of predictions in each row of a batch, (B,).

    Examples
    --------
    >>> predictions({"labels": torch.tensor([[5, 6, -100], [5, 6, 7]])})
    tensor([1, 2])
    """
    labels = inputs.get("labels")
    if labels is None or labels.ndim == 1:
        return torch.ones(len(next(iter(inputs.values()))), dtype=torch.int64)
    counts: Tensor = (labels[:, 1:] != -100).sum(1).cpu()
    return counts
