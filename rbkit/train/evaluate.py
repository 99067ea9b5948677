"""Eval loss per domain and overall, per token and per example.

Two means of the same losses: *per token* pools all tokens (what perplexity is made of),
*per example* gives each document the same weight, however long.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F
from tqdm import tqdm

from rbkit.balance.signals import FloatArray

LossOf = Callable[[Any, dict[str, Any]], tuple[torch.Tensor, torch.Tensor]]


@dataclass(frozen=True)
class EvalLosses:
    """Losses of one evaluation, in nats.

    Attributes
    ----------
    token, example : float
        Mean over all tokens; mean over examples of their own mean.
    by_domain_token, by_domain_example : ndarray of shape (m,)
        The same within each domain; NaN for a domain without eval examples.
    per_example : ndarray of shape (n,)
        Mean loss per token of each example, in the order of the eval set.
    """

    token: float
    example: float
    by_domain_token: FloatArray
    by_domain_example: FloatArray
    per_example: FloatArray


def example_losses(model: Any, batch: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the summed loss and the number of predicted tokens of each example, (B,) each.

    For a causal LM, labels are shifted by one; for a classifier with labels of shape (B,)
    each example is one "token". Other models: give the trainer a function like this one.
    """
    labels = batch["labels"]
    logits = model(**{k: v for k, v in batch.items() if k != "labels"}).logits
    if labels.ndim == 1:
        losses = F.cross_entropy(logits.float(), labels, reduction="none")
        return losses, torch.ones_like(losses)
    losses = F.cross_entropy(
        logits[:, :-1].flatten(0, 1).float(), labels[:, 1:].flatten(),
        reduction="none", ignore_index=-100,
    ).view(len(labels), -1)  # fmt: skip
    return losses.sum(1), (labels[:, 1:] != -100).sum(1)


@torch.no_grad()
def evaluate(
    model: Any,
    batches: Iterable[tuple[np.ndarray[Any, Any], dict[str, Any]]],
    labels: np.ndarray[Any, Any],
    n_domains: int,
    *,
    loss_of: LossOf = example_losses,
    progress: bool = False,
) -> EvalLosses:
    """Evaluate `model` on batches of (row numbers, inputs), by domain.

    Parameters
    ----------
    labels : int array of shape (n,)
        Domain of each eval example; -1 leaves it out, also of the overall loss.
    n_domains : int
        m.
    """
    total, count = np.zeros(len(labels)), np.zeros(len(labels))
    training = model.training
    model.eval()
    try:
        for rows, batch in tqdm(batches, "evaluating", disable=not progress, mininterval=1):
            loss, tokens = loss_of(model, batch)
            total[rows] = loss.double().cpu().numpy()
            count[rows] = tokens.cpu().numpy()
    finally:
        model.train(training)
    return summarise(total, count, labels, n_domains)


def summarise(
    total: FloatArray, count: FloatArray, labels: np.ndarray[Any, Any], n_domains: int
) -> EvalLosses:
    """Average summed losses `total` over `count` tokens, overall and by domain.

    Examples
    --------
    >>> e = summarise(np.array([2., 9.]), np.array([2., 3.]), np.array([0, 1]), 2)
    >>> e.token, e.example, e.by_domain_token
    (2.2, 2.0, array([1., 3.]))
    """
    valid = count > 0
    mean = np.divide(total, count, out=np.full(len(total), np.nan), where=valid)

    def averages(rows: np.ndarray[Any, Any]) -> tuple[float, float]:
        rows = rows & valid
        if not rows.any():
            return float("nan"), float("nan")
        return float(total[rows].sum() / count[rows].sum()), float(mean[rows].mean())

    overall = averages(labels >= 0)  # examples left out of all domains count nowhere
    by_domain = np.array([averages(labels == i) for i in range(n_domains)]).reshape(-1, 2)
    return EvalLosses(*overall, by_domain[:, 0], by_domain[:, 1], mean)


def length_batches(lengths: np.ndarray[Any, Any], batch_size: int) -> list[np.ndarray[Any, Any]]:
    """Row numbers in batches of similar length: little padding, a fixed order.

    Examples
    --------
    >>> [b.tolist() for b in length_batches(np.array([3, 9, 2, 8]), 2)]
    [[2, 0], [3, 1]]
    """
    order = np.argsort(lengths, kind="stable")
    return [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
