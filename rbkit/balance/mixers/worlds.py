"""Made-up runs that show a mixer every signal, for :func:`check_mixer`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from rbkit.balance.signals import (
    FloatArray,
    FreshGradients,
    GramEstimate,
    IntArray,
    Observation,
    ProbeRuns,
    TrainLosses,
)

_STEPS = 4  # of a round


@dataclass(frozen=True)
class World:
    """What a run of a few rounds would show, apart from the proportions that a mixer chooses.

    Some domains have no training data, some no eval examples; in some rounds and steps some
    are not drawn, and gradients are as small or as large as they get.

    Attributes
    ----------
    q : ndarray of shape (m,)
        Target proportions.
    sizes : int array of shape (m,)
        Training examples.
    probes : ProbeRuns
        What short runs on single domains would find.
    rounds : tuple of Observation
        The rounds; their `p` is to be replaced.
    """

    q: FloatArray
    sizes: IntArray
    probes: ProbeRuns
    rounds: tuple[Observation, ...]

    @property
    def available(self) -> Any:
        """Which domains have training data, (m,)."""
        return self.sizes > 0

    def take(self, index: Any) -> World:
        """Return the world of the domains `index`, in that order."""
        index = np.asarray(index)
        pair = np.ix_(index, index)
        probes = ProbeRuns(self.probes.before[index], self.probes.after[pair], self.probes.steps)
        rounds = tuple(_taken(seen, index, pair) for seen in self.rounds)
        return World(self.q[index], self.sizes[index], probes, rounds)

    def blank(self) -> World:
        """Return the world in which nothing could be measured: all signals are NaN."""
        nothing = np.full(len(self.q), np.nan)
        probes = ProbeRuns(nothing, np.full_like(self.probes.after, np.nan), self.probes.steps)
        return replace(self, probes=probes, rounds=tuple(_blank(seen) for seen in self.rounds))


def made_up_world(seed: int, n_domains: int | None = None, rounds: int = 5) -> World:
    """Return a world that is a function of `seed`; 1 to 6 domains unless `n_domains` is given.

    Examples
    --------
    >>> world = made_up_world(0, n_domains=3)
    >>> len(world.rounds), world.rounds[0].gram.gram.shape
    (5, (3, 3))
    """
    rng = np.random.default_rng(seed)
    m = int(rng.integers(1, 7)) if n_domains is None else n_domains
    sizes = rng.integers(1, 50, m)
    empty = rng.random(m) < 0.25
    empty[rng.integers(m)] = False  # something must be there to train on
    sizes[empty] = 0
    q = rng.dirichlet(np.ones(m))
    without_eval = rng.random(m) < 0.2
    without_eval[np.flatnonzero(~empty)[0]] = False
    q[empty | without_eval] = 0.0
    q = q / q.sum()
    scale = 10.0 ** rng.integers(-3, 3)
    losses = rng.uniform(2, 4, m)
    losses[q == 0] = np.nan
    after = losses - rng.normal(0.2, 0.3, (m, m))
    after[empty] = np.nan
    observed = [_made_up_round(rng, t, q, sizes, scale, losses - 0.1 * t) for t in range(rounds)]
    return World(q, sizes, ProbeRuns(losses, after, 20), tuple(observed))


def _made_up_round(
    rng: np.random.Generator, t: int, q: FloatArray, sizes: IntArray, scale: float,
    losses: FloatArray,
) -> Observation:  # fmt: skip
    m = len(q)
    has_data, nan = sizes > 0, np.nan
    counts = np.where(has_data & (rng.random(m) < 0.7), rng.integers(1, 9, m), 0)
    seen = np.outer(counts, counts) > 0
    vectors = scale * (rng.normal(size=(m, 8)) + rng.normal(size=8))
    gram = vectors @ vectors.T
    squares = np.where(counts > 1, np.diag(gram), nan)
    estimate = GramEstimate(np.where(seen, gram, nan), counts, 0.7 * squares, 0.1 * squares)
    fresh, aim = scale * (rng.normal(size=(m, 8)) + 1), scale * rng.normal(size=8)
    data = np.where(has_data, 1.0, nan)
    gradients = FreshGradients(
        np.linalg.norm(fresh, axis=1) * data, fresh @ aim * data, float(np.linalg.norm(aim)),
        fresh @ fresh.T * np.outer(data, data),
    )  # fmt: skip
    steps = int(rng.integers(1, _STEPS + 1))
    examples = np.where(has_data & (rng.random((steps, m)) < 0.7), rng.integers(1, 5, m), 0)
    level = np.where(examples > 0, rng.uniform(1, 4) + rng.normal(0, 0.3, (steps, m)), nan)
    excess = np.maximum(level - 2.0, 0.0)
    return Observation(
        t, np.zeros(m), q, sizes, gram=estimate,
        eval_losses=losses + rng.normal(0, 0.05, m), gradients=gradients,
        train_losses=TrainLosses(level, examples * 10, examples, excess),
        step=_STEPS * (t + 1), steps=100, learning_rate=1e-3 / (t + 1), peak_learning_rate=1e-3,
    )  # fmt: skip


def _taken(seen: Observation, index: Any, pair: Any) -> Observation:
    gram, losses, fresh = seen.gram, seen.train_losses, seen.gradients
    assert gram is not None
    assert losses is not None
    assert losses.excess is not None
    assert seen.eval_losses is not None
    assert fresh is not None
    assert fresh.target is not None
    assert fresh.gram is not None
    return replace(
        seen, p=seen.p[index], q=seen.q[index], sizes=seen.sizes[index],
        gram=GramEstimate(gram.gram[pair], gram.counts[index], gram.diagonal_debiased[index],
                          gram.noise_floor[index]),
        eval_losses=seen.eval_losses[index],
        train_losses=TrainLosses(losses.loss[:, index], losses.tokens[:, index],
                                 losses.examples[:, index], losses.excess[:, index]),
        gradients=FreshGradients(fresh.norms[index], fresh.target[index], fresh.target_norm,
                                 fresh.gram[pair]),
    )  # fmt: skip


def _blank(seen: Observation) -> Observation:
    m = len(seen.q)
    nothing, square, zeros = np.full(m, np.nan), np.full((m, m), np.nan), np.zeros(m, np.int64)
    assert seen.train_losses is not None
    rows = np.full((len(seen.train_losses.loss), m), np.nan)
    none = np.zeros(rows.shape, np.int64)
    return replace(
        seen, gram=GramEstimate(square, zeros, nothing, nothing), eval_losses=nothing,
        train_losses=TrainLosses(rows, none, none, rows),
        gradients=FreshGradients(nothing, nothing, float("nan"), square),
        learning_rate=float("nan"), peak_learning_rate=float("nan"),
    )  # fmt: skip
