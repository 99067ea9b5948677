"""The one interface of all mixers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import numpy as np

from rbkit.balance.signals import FloatArray, IntArray, Observation, ProbeRuns


class Mixer(ABC):
    """A rule that turns what a round showed into the proportions of the next.

    A rule of one's own is a subclass with an :meth:`update`. It declares in `signals`
    what it needs (see :data:`rbkit.balance.signals.SIGNALS`); the trainer produces just
    that, and the ledger writes down its price. The trainer checks what comes back: finite,
    on the simplex, zero where a domain has no training data.

    Attributes
    ----------
    signals : frozenset of str
        What the rule needs.
    acts : {"sampling", "loss"}
        How its proportions act: examples are *sampled* from p, or they are sampled uniformly
        over domains and the *loss* of an example of domain i is weighted by ``p_i`` over its
        sampling probability.
    normalise_loss : bool
        With ``acts="loss"``: divide by the sum of the weights of the step's tokens instead
        of by their number.
    per_step : bool
        The published rule updates after every step: use ``round_steps=1`` for it. With
        longer rounds the rule goes through the round's steps one by one, while p stays.
    gram_decay : float
        With the signal ``"gram"``: share, in [0, 1), of the earlier rounds' sums of gradients
        that is kept when a round ends.
    reference_steps : int or None
        With the signal ``"excess_losses"``: steps of the reference model's training; as many
        as the run's if None.
    max_epochs : float or None
        Repetition cap: no domain is seen more often than this in a run.
    paper, cost : str
        Where the rule is from, and what its signals cost, in a few words.

    Examples
    --------
    Train more on what is still badly predicted:

    >>> class LossSeeking(Mixer):
    ...     signals = frozenset({"eval_losses"})
    ...     def update(self, seen):
    ...         return normalise(np.exp(seen.eval_losses), seen.available)
    >>> seen = Observation(0, p=np.full(2, .5), q=np.full(2, .5), sizes=np.array([9, 9]),
    ...                    eval_losses=np.log([1.0, 3.0]))
    >>> LossSeeking().update(seen)
    array([0.25, 0.75])
    """

    signals: frozenset[str] = frozenset()
    acts: Literal["sampling", "loss"] = "sampling"
    normalise_loss: bool = False
    per_step: ClassVar[bool] = False
    gram_decay: float = 0.0
    reference_steps: int | None = None
    max_epochs: float | None = None
    paper: ClassVar[str] = ""
    cost: ClassVar[str] = "none"

    @property
    def name(self) -> str:
        """Name shown in tables and legends."""
        return type(self).__name__

    def start(self, q: FloatArray, sizes: IntArray) -> FloatArray:
        """Begin a run: forget any earlier one, and return the proportions of the first round.

        Uniform over the domains with data, (m,), unless a rule says otherwise.
        """
        return normalise(np.ones(len(q)), np.asarray(sizes) > 0)

    def probe_steps(self) -> int:
        """Return the steps of each probe run, for rules with the signal ``"probe_runs"``."""
        raise NotImplementedError(f"{self.name} asks for probe runs: say how long")

    def prepare(self, found: ProbeRuns) -> FloatArray:
        """Take up the probe runs, made after :meth:`start`; return the first proportions."""
        raise NotImplementedError(f"{self.name} asks for probe runs: say what they mean")

    def round_length(self, round_steps: int) -> int:
        """Return how many steps the coming round has; `round_steps` unless planned finer.

        Called once after :meth:`start` (and :meth:`prepare`) and after each :meth:`update`.
        """
        return round_steps

    def proposal(self) -> FloatArray | None:
        """Return the fixed mixture that the run so far proposes for another training run.

        None for rules whose product is the run itself.
        """
        return None

    @abstractmethod
    def update(self, seen: Observation) -> FloatArray:
        """Return the proportions of the next round, (m,), from what this one showed."""

    def state_dict(self) -> dict[str, Any]:
        """State that must survive a restart: arrays and JSON values, by name."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up a state saved by :meth:`state_dict`."""
        if state:
            raise ValueError(f"{self.name} has no state, but was given {sorted(state)}")

    def options(self) -> dict[str, Any]:
        """Options that define the rule, as JSON values, for the record of a run."""
        return {}


def normalise(weights: FloatArray, available: np.ndarray[Any, np.dtype[np.bool_]]) -> FloatArray:
    """Scale non-negative `weights` to proportions over the `available` domains.

    Examples
    --------
    >>> normalise(np.array([2.0, 1.0, 1.0]), np.array([True, True, False])).round(3)
    array([0.667, 0.333, 0.   ])
    """
    weights = np.where(available, np.asarray(weights, dtype=np.float64), 0.0)
    total = weights.sum()
    if not (np.isfinite(total) and total > 0):
        raise ValueError(f"no usable weight on a domain with training data: {weights}")
    p: FloatArray = weights / total
    return p


def limit(p: FloatArray, most: FloatArray) -> FloatArray:
    """Return `p` with no entry above `most`; what is cut off goes to the others, in proportion.

    If `most` sums to less than 1, which nothing on the simplex can satisfy, the result is
    `most` scaled up.

    Examples
    --------
    >>> limit(np.array([0.6, 0.3, 0.1]), np.array([0.2, 1.0, 1.0]))
    array([0.2, 0.6, 0.2])
    """
    p, most = np.asarray(p, dtype=np.float64), np.asarray(most, dtype=np.float64)
    if most.sum() <= 1:
        scaled_up: FloatArray = most / most.sum()
        return scaled_up
    limited = np.zeros(len(p), dtype=bool)
    scaled = p
    while (over := ~limited & (scaled > most)).any():
        limited |= over
        rest = p[~limited].sum()
        left = 1 - most[limited].sum()
        if rest > 0:
            scaled = np.where(limited, most, p * (left / rest))
        else:  # only domains without a share are left: by what they may still give
            room = np.where(limited, 0.0, most)
            scaled = np.where(limited, most, room * (left / room.sum()))
    return scaled


def check_proportions(p: FloatArray, available: np.ndarray[Any, np.dtype[np.bool_]]) -> FloatArray:
    """Return `p` as float64 if it is on the simplex and zero where nothing can be sampled."""
    p = np.asarray(p, dtype=np.float64)
    if p.shape != available.shape:
        raise ValueError(
            f"proportions have shape {p.shape}, but there are {len(available)} domains"
        )
    if not np.isfinite(p).all() or (p < 0).any() or abs(p.sum() - 1) > 1e-9:
        raise ValueError(f"proportions must be finite, non-negative and sum to 1: {p}")
    if (p[~available] > 0).any():
        raise ValueError(f"proportions of domains without training data must be 0: {p[~available]}")
    return p
