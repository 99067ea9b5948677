"""Eval loss per domain and overall, per token and per example.

Two means of the same losses: *per token* pools all tokens (what perplexity is made of),
*per example* gives each document the same weight, however long.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from tqdm import tqdm

from rbkit.balance.signals import FloatArray
from rbkit.errors import InputError
from rbkit.train.losses import LossOf, example_losses
from rbkit.train.parallel import all_sum, processes, rank

if TYPE_CHECKING:
    from rbkit.train.trainer import MixtureTrainer


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
    batches : iterable
        Of this process: each row in one batch of one process. A batch with no row numbers is
        run and forgotten: sharded models need all processes to run as many batches.
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
            if not len(rows):
                continue
            if len(loss) != len(rows):
                raise InputError(
                    "eval batch", f"losses of {len(loss)} rows for {len(rows)} examples",
                    "give an eval_collator that does not pack examples",
                )  # fmt: skip
            total[rows] = loss.double().cpu().numpy()
            count[rows] = tokens.cpu().numpy()
    finally:
        model.train(training)
    device = next(model.parameters()).device
    total, count = all_sum(np.stack([total, count]), device)
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


def shares(plan: list[np.ndarray[Any, Any]]) -> Iterator[tuple[np.ndarray[Any, Any], bool]]:
    """Yield this process' batches of a plan, and whether each counts; as many in each process.

    Examples
    --------
    >>> [(rows.tolist(), counts) for rows, counts in shares([np.array([3, 1]), np.array([2])])]
    [([3, 1], True), ([2], True)]
    """
    world, me = processes(), rank()
    for start in range(0, len(plan), world):
        mine = start + me
        # Where batches run out, another is run once more, and forgotten.
        yield plan[min(mine, len(plan) - 1)], mine < len(plan)


class DomainEvaluator:
    """Evaluates a trainer's model on its eval set, by domain, in all processes together."""

    def __init__(self, trainer: MixtureTrainer) -> None:
        self.trainer = trainer
        self._plan: list[np.ndarray[Any, Any]] | None = None  # rows of each batch

    def measure(self, name: str | None = None) -> EvalLosses:
        """Evaluate now; the price goes to the ledger entry `name`.

        By default to the mixer, if it asks for eval losses, or to the curves.
        """
        trainer = self.trainer
        if trainer.eval_dataset is None:
            raise InputError("eval_dataset", "none was given", "give one, or set eval_rounds=0")
        wanted = "eval_losses" in trainer.mixer.signals
        entry = name or ("eval_losses" if wanted else "eval")
        with ExitStack() as watching:
            watching.enter_context(trainer.compute_loss_context_manager())
            if name:  # one of several parts of an entry
                watching.enter_context(trainer.ledger.time(entry))
                watching.enter_context(trainer.ledger.count_all(entry))
            else:
                watching.enter_context(trainer.ledger.measure(entry))
            return evaluate(
                trainer.model, self._batches(), np.asarray(trainer.domains.eval_labels),
                trainer.domains.m, loss_of=trainer.loss_of,
            )  # fmt: skip

    def metrics(self) -> dict[str, float]:
        """Evaluate, and return the losses by name."""
        losses = self.measure()
        metrics = {"eval_loss": losses.token, "eval_loss_example": losses.example}
        for name, value in zip(self.trainer.domains.names, losses.by_domain_token, strict=True):
            metrics[f"eval_loss/{name}"] = float(value)
        return metrics

    def _batches(self) -> Iterator[tuple[np.ndarray[Any, Any], dict[str, Any]]]:
        trainer = self.trainer
        data = trainer._used_columns(trainer.eval_dataset, "evaluation")
        if self._plan is None:
            lengths = [len(row["input_ids"]) if "input_ids" in row else 0 for row in data]
            self._plan = length_batches(np.array(lengths), trainer.args.eval_batch_size)
        for rows, counts in shares(self._plan):
            batch = trainer.eval_collator([data[int(i)] for i in rows])
            yield rows if counts else rows[:0], trainer._prepare_inputs(dict(batch))
