"""Losses of tokens, examples and domains, in training and evaluation; fresh gradients of them.

Two means of the same losses: *per token* pools all tokens (as perplexity does), *per example*
gives each document the same weight, however long. Fresh gradients (DGA, DoGE) are those of all
parameters on one batch per domain and one of the eval set, at the current weights. Their batches
are a function of (seed, round, domain), independent of the sequence that trains.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from rbkit.balance.signals import FloatArray, FreshGradients, TrainLosses, VisitLosses
from rbkit.errors import InputError
from rbkit.text import progress_bar
from rbkit.train.parallel import all_sum, is_first, processes, rank
from rbkit.train.run import PER_EXAMPLE, PER_TOKEN

LossOf = Callable[[Any, dict[str, Any]], tuple[Tensor, Tensor]]
IGNORED = -100  # the label of what is not predicted


Total = Callable[[Tensor], Tensor]  # sums values of tokens, (B, T), by example


def by_row(values: Tensor) -> Tensor:
    """Sum values of tokens, (B, T), where each row is an example."""
    return values.sum(1)


def by_example(values: Tensor, examples: Tensor, number: int) -> Tensor:
    """Sum values of tokens, (R, T), where rows hold several examples, of `number` in all.

    `examples` says which one each token belongs to, -1 none. Where the values are those of
    predictions, which a causal LM makes of all tokens but a row's first, the last columns count.

    Examples
    --------
    >>> examples = torch.tensor([[0, 0, 2, 2], [1, 1, 1, -1]])
    >>> by_example(torch.tensor([[5, 0, 7], [1, 2, 0]]), examples, 3)
    tensor([5, 3, 7])
    """
    at = examples[:, -values.shape[1] :].to(values.device)
    kind = torch.int64 if values.dtype == torch.bool else values.dtype
    sums = torch.zeros(number + 1, dtype=kind, device=values.device)
    return sums.index_add(0, at.flatten() % (number + 1), values.flatten().to(kind))[:number]


Kind = Literal["next token", "token", "class", "values", "labels"]


@dataclass(frozen=True)
class Objective:
    """The loss of a model of transformers, divided among the tokens or examples of a batch.

    Attributes
    ----------
    kind : str
        ``"next token"``: each token is predicted at the one before it, as causal LMs do.
        ``"token"``: at its own place, as by masked LMs, token classifiers and seq2seq models.
        ``"class"``: each example has one label. ``"values"``: each has numbers, and the loss is
        their mean squared error. ``"labels"``: each has several binary labels.
    smoothing : float
        ``label_smoothing_factor``.
    with_labels : bool
        Whether the model needs the labels for its input, as seq2seq models do.

    Examples
    --------
    >>> batch = {"labels": torch.tensor([[5, 6, -100], [5, 6, 7]])}
    >>> Objective("next token").counts(batch), Objective("token").counts(batch)
    (tensor([1, 2]), tensor([2, 3]))
    """

    kind: Kind
    smoothing: float = 0.0
    with_labels: bool = False

    def __call__(self, model: Any, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Return the summed loss and the number of predictions of each example, (B,) each."""
        losses, valid = self.by_token(model, batch)
        return losses.sum(1), valid.sum(1)

    def by_token(self, model: Any, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Return the loss of each prediction, in nats, and which are predictions, (B, T) each."""
        return self.split(self.output(model, batch).logits, batch)

    def output(self, model: Any, batch: dict[str, Any]) -> Any:
        """Return the model's output, with its own loss only where that cannot be avoided."""
        labels = ("labels",) if not self.with_labels else ()
        return model(**{name: value for name, value in batch.items() if name not in labels})

    def split(self, logits: Tensor, batch: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
        """Return what :meth:`by_token` does, of given logits."""
        if self.kind in ("values", "labels"):
            rows = logits.flatten(1).float()
            each = F.mse_loss if self.kind == "values" else F.binary_cross_entropy_with_logits
            losses = each(rows, batch["labels"].reshape(rows.shape).float(), reduction="none")
            mean = losses.mean(1, keepdim=True)
            return mean, torch.ones_like(mean, dtype=torch.bool)
        targets = self._targets(batch)
        if self.kind == "next token" and targets.shape[1] < logits.shape[1]:
            logits = logits[:, :-1]
        losses = F.cross_entropy(
            logits.reshape(-1, logits.shape[-1]).float(),
            targets.flatten(),
            reduction="none",
            ignore_index=IGNORED,
            label_smoothing=self.smoothing,
        )
        return losses.view(targets.shape), targets != IGNORED

    def counts(self, batch: Mapping[str, Any], total: Total | None = None) -> Tensor:
        """Return the number of predictions of each row, (B,), or of what `total` sums up."""
        if "labels" not in batch or self.kind in ("values", "labels"):
            rows = next(len(value) for value in batch.values() if isinstance(value, Tensor))
            return torch.ones(rows, dtype=torch.int64)
        return (total or by_row)(self._targets(batch) != IGNORED).cpu()

    @property
    def unit(self) -> str:
        """What its losses are measured in."""
        per_row = {"class": PER_EXAMPLE, "values": "squared error per example"}
        return {**per_row, "labels": "nats per label"}.get(self.kind, PER_TOKEN)

    def fits(self, logits: Tensor, batch: Mapping[str, Any]) -> bool:
        """Whether labels and logits have the shapes of this kind."""
        labels = batch["labels"]
        if self.kind in ("values", "labels"):
            floats = self.kind == "values" or labels.is_floating_point()
            return floats and logits.numel() == labels.numel() and not self.smoothing
        if labels.is_floating_point():
            return False
        if self.kind == "class":
            return logits.ndim == 2 and labels.numel() == len(logits) and logits.shape[1] > 1
        return labels.ndim == 2 and logits.ndim == 3 and logits.shape[:2] == labels.shape

    def _targets(self, batch: Mapping[str, Any]) -> Tensor:
        labels: Tensor = batch["labels"]
        if self.kind == "class" or labels.ndim == 1:
            return labels.reshape(-1, 1)
        if self.kind == "token":
            return labels
        return batch["shift_labels"] if "shift_labels" in batch else labels[:, 1:]


def likely_objectives(model: Any, labels: Tensor | None, smoothing: float = 0.0) -> list[Objective]:
    """Return the objectives that a model may have with such labels, the likeliest first.

    Of a model that is not from transformers a causal LM or a classifier is supposed.
    """
    model = unwrapped(model)
    config = getattr(model, "config", None)
    kinds: list[Kind]
    if labels is not None and labels.is_floating_point():
        problem, outputs = (getattr(config, name, None) for name in ("problem_type", "num_labels"))
        kinds = ["values", "labels"]
        if problem == "multi_label_classification" or (problem is None and outputs != 1):
            kinds.reverse()
    elif labels is not None and labels.ndim == 1:
        kinds = ["class", "values"]
        if getattr(config, "num_labels", None) == 1:
            kinds.reverse()
    else:
        kinds = ["next token", "token"]
        if not _shifts(model):
            kinds.reverse()
        kinds += ["class", "values"]
    # The library takes the labels away from the model where it smooths them.
    with_labels = bool(getattr(config, "is_encoder_decoder", False)) and not smoothing
    return [Objective(kind, smoothing, with_labels) for kind in kinds]


def find_objective(
    model: Any, batch: dict[str, Any], own: float, smoothing: float, tolerance: float
) -> Objective | None:
    """Return the objective whose mean over `batch` is the model's `own` loss; None if none is.

    A loss that is not a finite number decides nothing: the likeliest is then taken.
    """
    labels = batch.get("labels")
    if not isinstance(labels, Tensor):
        return None
    candidates = likely_objectives(model, labels, smoothing)
    logits = getattr(candidates[0].output(model, batch), "logits", None)
    for objective in candidates:
        if not isinstance(logits, Tensor) or not objective.fits(logits, batch):
            continue
        losses, valid = objective.split(logits, batch)
        mean = float(losses.sum() / valid.sum())
        if not np.isfinite(own) or abs(mean - own) <= tolerance * max(abs(own), 1e-6):
            return objective
    return None


def unwrapped(model: Any) -> Any:
    """Return the model itself, without DDP, torch.compile and adapters."""
    for name in ("module", "_orig_mod"):
        model = getattr(model, name, model)
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _shifts(model: Any) -> bool:
    """Whether transformers lets this model's labels be shifted by one; True if not known."""
    from transformers.loss.loss_utils import LOSS_MAPPING, ForCausalLMLoss
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    if getattr(getattr(model, "config", None), "is_encoder_decoder", False):
        return False
    if type(model).__name__ in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values():
        return True
    own = LOSS_MAPPING.get(getattr(model, "loss_type", None))
    return own is None or own is ForCausalLMLoss


def token_losses(model: Any, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Return the loss of each predicted token, in nats, and which are predictions, (B, T) each.

    Labels are shifted by one for a causal LM, and for no other model; for a classifier with
    labels of shape (B,) each example is one "token".
    """
    return likely_objectives(model, batch["labels"])[0].by_token(model, batch)


def example_losses(model: Any, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Return the summed loss and the number of predicted tokens of each example, (B,) each.

    Where a model's own loss cannot be divided so, give the trainer a function like this one.
    """
    losses, valid = token_losses(model, batch)
    return losses.sum(1), valid.sum(1)


def reference_excess(
    model: Any,
    reference: Any,
    batch: dict[str, Any],
    loss_of: LossOf,
    watch: Callable[[], AbstractContextManager[Any]] = nullcontext,
    total: Total = by_row,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return (B,) each: summed loss, tokens, and summed ``max(loss - reference loss, 0)``.

    Clipped token by token, as DoReMi (arXiv 2305.10429) does; example by example for a
    custom `loss_of`, which gives no losses of tokens. `total` sums up by example. The reference's
    pass runs inside ``watch()``.
    """
    of_tokens = isinstance(loss_of, Objective)
    losses = loss_of.by_token if isinstance(loss_of, Objective) else loss_of
    mine, count = losses(model, batch)
    with torch.no_grad(), watch():
        theirs, _ = losses(reference, batch)
    excess = (mine.detach() - theirs).clamp(min=0)
    if of_tokens:
        return total(mine), total(count), total(excess)
    return mine, count, excess


class StepLosses:
    """Sums of training losses by step of a round and domain, kept on the device.

    Examples
    --------
    >>> losses = StepLosses(n_domains=2)
    >>> losses.add(0, torch.tensor([0, 1, 0]), torch.tensor([2., 9., 4.]), torch.tensor([1, 3, 1]))
    >>> losses.collect(steps=1, device=torch.device("cpu")).loss
    array([[3., 3.]])
    """

    def __init__(self, n_domains: int, *, with_excess: bool = False) -> None:
        self.n_domains, self.with_excess = n_domains, with_excess
        self._rows: dict[int, Tensor] = {}  # step -> (4, m): losses, excess, tokens, examples

    def add(
        self,
        step: int,
        domains: Tensor,
        losses: Tensor,
        tokens: Tensor,
        excess: Tensor | None = None,
    ) -> None:
        """Add a micro-batch of step `step` of the round: (B,) domains, summed losses, tokens."""
        if len(domains) != len(losses):
            raise InputError(
                "batch",
                f"losses of {len(losses)} rows for {len(domains)} examples",
                "per-example losses need one row per example: do not pack examples",
            )
        at = domains.to(losses.device)
        in_domain = at >= 0
        zeros = torch.zeros_like(losses) if excess is None else excess
        values = torch.stack([losses.detach(), zeros, tokens, torch.ones_like(tokens)])
        values = values.to(torch.float32 if losses.device.type == "mps" else torch.float64)
        row = self._rows.get(step)
        if row is None:
            row = values.new_zeros(4, self.n_domains)
        row = row.to(values)  # after a resume it is on the CPU
        self._rows[step] = row.index_add(1, at[in_domain], values[:, in_domain])

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
        """Load pooled sums: the first process has them, the others begin at zero."""
        if is_first():
            self._rows = {step: torch.from_numpy(np.array(row)) for step, row in enumerate(sums)}
        else:
            self._rows = {}

    def clear(self) -> None:
        """Begin a new round."""
        self._rows.clear()


class VisitSums:
    """Sums of a round's training losses, of first visits and of repeats of each domain.

    Examples
    --------
    >>> sums = VisitSums(n_domains=2)
    >>> one, zero = torch.tensor(1), torch.tensor(0)
    >>> losses, tokens, visits = torch.tensor([8., 6.]), torch.tensor([2, 2]), torch.tensor([0, 3])
    >>> sums.add(torch.tensor([1, 1]), visits, losses, tokens)
    >>> seen = sums.collect(torch.device("cpu"))
    >>> seen.first, seen.repeat, seen.visits
    (array([nan,  4.]), array([nan,  3.]), array([nan,  3.]))
    """

    def __init__(self, n_domains: int) -> None:
        # As of 2m domains in one long step, and the number of visits in the place of the excess.
        self._sums = StepLosses(2 * n_domains, with_excess=True)
        self.pool, self.load, self.clear = self._sums.pool, self._sums.load, self._sums.clear

    def add(self, domains: Tensor, visits: Tensor, losses: Tensor, tokens: Tensor) -> None:
        """Add a micro-batch: (B,) domains, earlier visits, summed losses, tokens."""
        kind = torch.where(visits > 0, domains + self._sums.n_domains // 2, domains)
        kind = torch.where(domains >= 0, kind, -1)
        self._sums.add(0, kind, losses, tokens, visits.to(losses.device))

    def collect(self, device: torch.device) -> VisitLosses:
        """Return the round's losses, summed over processes."""
        loss, visits, tokens, examples = self.pool(1, device)[0].reshape(4, 2, -1)
        first, repeat = loss / np.where(tokens > 0, tokens, np.nan)
        counts = examples.astype(np.int64)
        earlier = visits[1] / np.where(counts[1] > 0, counts[1], np.nan)
        return VisitLosses(first, repeat, counts[0], counts[1], earlier)


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
            sums = all_sum(np.append(local, self._tokens_here), self.device)
            world = all_sum(np.ones(1), self.device)[0]
            self.losses += (sums[:-1] / world).tolist()
            self.tokens += int(sums[-1])
            self._here, self._tokens_here = [], 0
        return self.losses


@dataclass(frozen=True)
class EvalLosses:
    """Losses of one evaluation, in the unit of the objective: nats, mostly.

    Attributes
    ----------
    token, example : float
        Mean over all tokens; mean over examples of their own mean.
    by_domain_token, by_domain_example : ndarray of shape (m,)
        The same within each domain; NaN for a domain without eval examples.
    per_example : ndarray of shape (n,)
        Mean loss per token of each example, in the order of the eval set.
    outside_token, outside_example : float
        The same of examples that count in the overall loss without a domain; NaN if there are none.
    """

    token: float
    example: float
    by_domain_token: FloatArray
    by_domain_example: FloatArray
    per_example: FloatArray
    outside_token: float = float("nan")
    outside_example: float = float("nan")


@torch.no_grad()
def evaluate(
    model: Any,
    batches: Iterable[tuple[np.ndarray[Any, Any], dict[str, Any]]],
    labels: np.ndarray[Any, Any],
    n_domains: int,
    *,
    loss_of: LossOf = example_losses,
    count_outside: bool = False,
    progress: bool = False,
) -> EvalLosses:
    """Evaluate `model` on batches of (row numbers, inputs), by domain.

    Each row is in one batch of one process. A batch without row numbers is run and forgotten:
    sharded models need all processes to run as many batches. A negative row number is that of an
    example whose loss does not count. `labels` (n,) are the domains of the eval examples; -1
    leaves one out, also of the overall loss unless `count_outside`.
    """
    total, count = np.zeros(len(labels)), np.zeros(len(labels))
    training = model.training
    model.eval()
    try:
        for rows, batch in progress_bar(batches, "evaluating", disable=not progress, mininterval=1):
            loss, tokens = loss_of(model, batch)
            if not len(rows):
                continue
            if len(loss) != len(rows):
                raise InputError(
                    "eval batch",
                    f"losses of {len(loss)} rows for {len(rows)} examples",
                    "give an eval_collator that does not pack examples",
                )
            counts = rows >= 0
            total[rows[counts]] = loss.double().cpu().numpy()[counts]
            count[rows[counts]] = tokens.cpu().numpy()[counts]
    finally:
        model.train(training)
    device = next(model.parameters()).device
    total, count = all_sum(np.stack([total, count]), device)
    return summarise(total, count, labels, n_domains, count_outside=count_outside)


def summarise(
    total: FloatArray,
    count: FloatArray,
    labels: np.ndarray[Any, Any],
    n_domains: int,
    *,
    count_outside: bool = False,
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

    # Examples left out of all domains count nowhere, unless they are to.
    overall = averages(labels >= (-1 if count_outside else 0))
    outside = averages((labels < 0) & count_outside)
    by_domain = np.array([averages(labels == i) for i in range(n_domains)]).reshape(-1, 2)
    return EvalLosses(*overall, by_domain[:, 0], by_domain[:, 1], mean, *outside)


def length_batches(lengths: np.ndarray[Any, Any], batch_size: int) -> list[np.ndarray[Any, Any]]:
    """Row numbers in batches of similar length: little padding, a fixed order.

    Examples
    --------
    >>> [b.tolist() for b in length_batches(np.array([3, 9, 2, 8]), 2)]
    [[2, 0], [3, 1]]
    """
    order = np.argsort(lengths, kind="stable")
    return [order[i : i + batch_size] for i in range(0, len(order), batch_size)]


def shuffled_batches(keys: Sequence[str], batch_size: int) -> list[np.ndarray[Any, Any]]:
    """Row numbers in batches of one size, in the order of their `keys`: for losses in a batch.

    With hashes as keys, of a seed and the content of each row, the batches are random ones, and
    the same whatever the order of the rows. So each example meets as many others. What the last
    batch lacks is taken from the first; such rows, whose losses must not count twice, are given as
    ``~row``, which is negative. Of fewer rows than a batch takes all are in one.

    Examples
    --------
    >>> [b.tolist() for b in shuffled_batches(["c", "a", "b"], 2)]
    [[1, 2], [0, -2]]
    """
    order = np.array(sorted(range(len(keys)), key=keys.__getitem__), dtype=np.int64)
    filled = np.append(order, ~order[: -len(order) % batch_size])
    filled = order if len(order) < batch_size else filled
    return [filled[i : i + batch_size] for i in range(0, len(filled), batch_size)]


def examples_meet(loss_of: LossOf, model: Any, batch: dict[str, Any]) -> bool:
    """Whether the losses of a batch's first half depend on its other half, as contrastive ones do.

    Where that cannot be found out they are taken to.

    Examples
    --------
    >>> batch = {"x": torch.tensor([1.0, 2.0])}
    >>> examples_meet(lambda _, batch: (batch["x"], torch.ones(2)), None, batch)
    False
    >>> examples_meet(lambda _, batch: (batch["x"].softmax(0), torch.ones(2)), None, batch)
    True
    """
    whole, _ = loss_of(model, batch)
    size, first = len(whole), len(whole) // 2
    if not first:
        return False
    rows = {n: v for n, v in batch.items() if isinstance(v, Tensor) and v.ndim and len(v) == size}
    try:
        half, _ = loss_of(model, {**batch, **{name: value[:first] for name, value in rows.items()}})
        return not torch.allclose(whole[:first].float(), half.float(), rtol=1e-3, atol=1e-6)
    except Exception:  # whatever it is: the function is the user's own
        return True


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


_STREAM = 2  # keeps this use of a seed apart from those of the sampler
_TARGET = 1 << 20  # in place of a domain's number


@dataclass
class FreshBatches:
    """Draws batches of single domains, or of the eval set, that training does not see.

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
        return self.collated(
            self.rows(round_, domain, self.batch_size)[rank() :: processes()],
            evaluation=domain is None,
        )

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

    The model is not sharded, and dropout is off meanwhile. `among`: products among domains too,
    so that all m gradients are held at once. `target`: products with the eval set's gradient.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    m = len(batches.members)
    norms = np.full(m, np.nan)
    aims: np.ndarray[Any, Any] | None = np.full(m, np.nan) if target else None
    gradients: list[Tensor | None] = []
    training = model.training
    model.eval()
    try:
        aim = _gradient(model, parameters, batches.draw(round_, None), loss_of) if target else None
        for domain in range(m):
            if not len(batches.members[domain]):
                gradients.append(None)
                continue
            gradient = _gradient(model, parameters, batches.draw(round_, domain), loss_of)
            norms[domain] = float(gradient.norm())
            if aim is not None and aims is not None:
                aims[domain] = float(gradient.double() @ aim.double())
            gradients.append(gradient if among else None)
    finally:
        model.train(training)
    number = sum(p.numel() for p in parameters)
    held = (m if among else 1) + (1 if target else 0)
    gram = _products(gradients) if among else None
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
        flat = torch.cat(
            [
                torch.zeros_like(p).flatten() if g is None else g.flatten()
                for p, g in zip(parameters, parts, strict=True)
            ]
        ).float()
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
