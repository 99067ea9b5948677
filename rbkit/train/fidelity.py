"""Is the tracked layer enough? Its Gq and p compared with those of all parameters.

R&B takes the gradient of one layer for the whole. That is not automatically faithful, so it
can be measured in a run: fresh examples of each domain in two halves, and from the same
examples the Gram matrix of the tracked layers and that of all parameters. Two figures, each
with its noise floor, the same figure between the two halves of one scope: the correlation of
``G q``, and the total variation distance of p. A distance within the noise is no evidence
against the layer; one far above it is.

Where the examples of a batch meet in the loss, as in :func:`rbkit.train.contrastive_losses`, the
tracked layers see batches of all domains, whose gradient is split by rows as in training, and all
parameters see batches of one domain: the comparison is then also one of these two ways. Domains
are in the mixed batches in equal parts.

The halves have half the examples each, so their distance is about twice the noise of the
whole; and both carry the bias of the plug-in diagonal, which their distance does not show.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rbkit.balance.gram import GramTracker
from rbkit.balance.mixers.base import Mixer
from rbkit.balance.mixers.rnb import RnB
from rbkit.balance.signals import FloatArray, GramEstimate, IntArray, Observation
from rbkit.train.losses import FreshBatches, LossOf
from rbkit.train.parallel import processes, rank

_WIDTH = 1 << 20  # numbers that the gradient of all parameters is folded to
_FLOATS = 1 << 28  # that all folded gradients together may take
_CHUNK = 16  # examples per pass
_MIXED = 3  # keeps this use of a seed apart from those of the sampler and of fresh batches


@dataclass(frozen=True)
class Fidelity:
    """How close the tracked layers come to all parameters.

    Attributes
    ----------
    step : int
        When it was measured.
    examples : int
        Fresh examples of each domain, at most; half of them in each half.
    correlation : float
        Of Gq, over the domains: tracked layers against all parameters.
    tv : float
        Total variation distance of p between the two, in [0, 1].
    noise_correlation_layer, noise_correlation_all : float
        Of Gq between the two halves, within each scope.
    noise_tv_layer, noise_tv_all : float
        Distance of p between the two halves, within each scope.
    """

    step: int
    examples: int
    correlation: float
    tv: float
    noise_correlation_layer: float
    noise_correlation_all: float
    noise_tv_layer: float
    noise_tv_all: float


def measure_fidelity(
    model: Any,
    layers: Sequence[nn.Module],
    batches: FreshBatches,
    seen: Observation,
    *,
    loss_of: LossOf,
    rule: Mixer | None = None,
    examples: int = 32,
    mixed: bool = False,
) -> Fidelity:
    """Compare tracked `layers` with all parameters of `model`, at its present weights.

    Parameters
    ----------
    batches : FreshBatches
        Where examples are drawn from.
    seen : Observation
        Its round, step, p, q and sizes are used.
    rule : Mixer, optional
        Gram-based rule for p; the paper's by default.
    examples : int
        Of each domain; half of them in each half.
    mixed : bool
        Whether the tracked layers see batches of all domains: of a loss in which examples meet.
    """
    m = len(batches.members)
    rule = rule or RnB()
    parameters = [p for p in model.parameters() if p.requires_grad]
    fold = _Fold(parameters, min(_WIDTH, _FLOATS // (2 * m)), batches.seed)
    folded = torch.zeros(2, m, fold.width, device=parameters[0].device)
    counts = np.zeros((2, m))
    trackers = [GramTracker(list(layers), m, buckets=256, seed=batches.seed) for _ in range(3)]
    training = model.training
    model.eval()
    try:
        for domain in range(m):
            if not len(batches.members[domain]):
                continue
            rows = batches.rows(seen.round, domain, examples)
            for half in (0, 1):
                mine = rows[half::2][rank() :: processes()]
                counts[half, domain] = len(rows[half::2])
                for start in range(0, len(mine), _CHUNK):
                    some = mine[start : start + _CHUNK]
                    ids = torch.full((len(some),), domain)
                    with ExitStack() as watching:
                        for tracker in (trackers[half], trackers[2]) if not mixed else ():
                            watching.enter_context(tracker.batch(ids))
                        folded[half, domain] += fold(model, batches.collated(some), loss_of)
        for half, some, ids in _mixed_batches(batches, seen.round, examples) if mixed else ():
            with ExitStack() as watching:
                for tracker in (trackers[half], trackers[2]):
                    watching.enter_context(tracker.batch(ids))
                batch: Any = batches.collated(some)
                with torch.enable_grad():
                    losses, _ = loss_of(model, batch)
                    torch.autograd.grad(losses.sum(), parameters, allow_unused=True)
        estimates = [tracker.estimate() for tracker in trackers]
    finally:
        model.train(training)
        for tracker in trackers:
            tracker.remove()
    if processes() > 1:
        torch.distributed.all_reduce(folded)
    whole = [_gram(folded[h], counts[h]) for h in (0, 1)] + [_gram(folded.sum(0), counts.sum(0))]
    return Fidelity(
        seen.step,
        examples,
        *_compare(estimates[2], whole[2], seen, rule),
        *(
            value
            for pair in zip(
                _compare(estimates[0], estimates[1], seen, rule),
                _compare(whole[0], whole[1], seen, rule),
                strict=True,
            )
            for value in pair
        ),
    )


def _mixed_batches(
    batches: FreshBatches, round_: int, examples: int
) -> Iterator[tuple[int, IntArray, Tensor]]:
    """Yield this process' batches of all domains: their half, rows, and domains."""
    m = len(batches.members)
    drawn = [batches.rows(round_, i, examples) for i in range(m)]
    rng = np.random.default_rng([batches.seed, _MIXED, round_])
    for half in (0, 1):
        rows = np.concatenate([some[half::2] for some in drawn]).astype(np.int64)
        domains = np.repeat(np.arange(m), [len(some[half::2]) for some in drawn])
        order = rng.permutation(len(rows))[rank() :: processes()]
        for start in range(0, len(order), _CHUNK):
            at = order[start : start + _CHUNK]
            yield half, rows[at], torch.from_numpy(domains[at])


class _Fold:
    """The gradient of all parameters as one vector, folded with random signs if it is long."""

    def __init__(self, parameters: list[Tensor], width: int, seed: int) -> None:
        self.parameters = parameters
        size = sum(p.numel() for p in parameters)
        self.width = min(size, width)
        self._pad = -size % self.width
        generator = torch.Generator().manual_seed(seed)
        signs = torch.randint(0, 2, (size if self.width < size else 1,), generator=generator)
        self._signs = (2 * signs - 1).to(torch.int8).to(parameters[0].device)

    def __call__(self, model: Any, batch: Any, loss_of: LossOf) -> Tensor:
        with torch.enable_grad():
            losses, _ = loss_of(model, batch)
            parts = torch.autograd.grad(losses.sum(), self.parameters, allow_unused=True)
        flat = torch.cat(
            [
                torch.zeros_like(p).flatten() if g is None else g.flatten()
                for p, g in zip(self.parameters, parts, strict=True)
            ]
        ).float()
        if len(flat) == self.width:
            return flat
        return nn.functional.pad(flat * self._signs, (0, self._pad)).view(-1, self.width).sum(0)


def _gram(sums: Tensor, counts: FloatArray) -> GramEstimate:
    """Gram matrix of mean gradients, in the form of a tracker's estimate."""
    n = np.where(counts > 0, counts, np.nan)
    products = sums.double() @ sums.double().T if sums.device.type != "mps" else sums @ sums.T
    nothing = np.full(len(counts), np.nan)
    gram = products.cpu().numpy() / np.outer(n, n)
    return GramEstimate(gram, counts.astype(np.int64), nothing, nothing)


def _compare(
    one: GramEstimate, other: GramEstimate, seen: Observation, rule: Mixer
) -> tuple[float, float]:
    """Return the correlation of Gq and the distance of p between two estimates."""
    scores, mixtures = [], []
    for estimate in (one, other):
        scores.append(np.nan_to_num(estimate.gram) @ seen.q)
        rule.start(seen.q, seen.sizes)  # it must not remember the other estimate
        mixtures.append(rule.update(Observation(seen.round, seen.p, seen.q, seen.sizes, estimate)))
    both = np.isfinite(np.diag(one.gram)) & np.isfinite(np.diag(other.gram))
    varies = both.sum() > 1 and all(np.ptp(score[both]) > 0 for score in scores)
    correlation = np.corrcoef(scores[0][both], scores[1][both])[0, 1] if varies else np.nan
    return float(correlation), float(0.5 * np.abs(mixtures[0] - mixtures[1]).sum())
