"""The one interface of all mixers, and the arithmetic that rules share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import Field, fields
from typing import Any, ClassVar, Literal, cast

import numpy as np
from numpy.typing import NDArray

from rbkit.balance.signals import FloatArray, IntArray, Observation, ProbeRuns
from rbkit.errors import InputError, as_count, as_number, domain_numbers


class Mixer(ABC):
    """A rule that turns what a round showed into the proportions of the next.

    To write your own, subclass it with an :meth:`update` and declare in `signals`
    what it needs (see :data:`rbkit.balance.signals.SIGNALS`); the trainer produces just
    that, and the ledger records its price. The trainer checks the result: finite,
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
    reserve : float
        Share of each domain that the sampler's first pass leaves out, so that first visits
        also occur late: see :class:`~rbkit.balance.sampler.MixtureSampler`.
    budget : int or None
        Examples that the whole run will draw, for rules that plan with them: set before
        :meth:`start`, by the trainer. In a loop of your own, ``mixer.budget = steps * batch``.
    domain_names : sequence of str or None
        Names of the domains, in their order, for rules that take domains by name: set before
        :meth:`start`, by the trainer and by a replay. In a loop of your own,
        ``mixer.domain_names = domains.names``.
    paper, cost : str
        Where the rule is from, and what its signals cost, in a few words.

    Examples
    --------
    Train more on domains that are still badly predicted:

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
    knows_repetition: ClassVar[bool] = False  # so that many epochs of a domain are its own choice
    gram_decay: float = 0.0
    reference_steps: int | None = None
    max_epochs: float | None = None
    reserve: float = 0.0
    budget: int | None = None
    domain_names: Sequence[str] | None = None
    paper: ClassVar[str] = ""
    cost: ClassVar[str] = "none"

    @property
    def name(self) -> str:
        """Name shown in tables and legends."""
        return type(self).__name__

    def start(self, q: FloatArray, sizes: IntArray) -> FloatArray:
        """Begin a run: forget any earlier one, and return the proportions of the first round.

        Uniform over the domains with data, (m,), unless a rule overrides it.
        """
        return normalise(np.ones(len(q)), np.asarray(sizes) > 0)

    def probe_steps(self) -> int:
        """Return the steps of each probe run, for rules with the signal ``"probe_runs"``."""
        raise NotImplementedError(f"{self.name} needs probe runs: define how long they are")

    def prepare(self, probes: ProbeRuns) -> FloatArray:
        """Take up the probe runs, made after :meth:`start`; return the first proportions."""
        raise NotImplementedError(f"{self.name} needs probe runs: define how they are used")

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

    def _numbers(self, option: str, given: Iterable[str], m: int, *, every: bool) -> list[int]:
        """Return the numbers, of 0 to m - 1, of domains that an option gives by name."""
        where = f"{self.name}({option}=...)"
        if self.domain_names is None or len(self.domain_names) != m:
            what = "given by name, and the names of the domains are not known here"
            raise InputError(where, what, "set mixer.domain_names = domains.names before start()")
        return domain_numbers(where, given, self.domain_names, every=every)

    def _budget(self) -> int:
        if self.budget is None:
            raise InputError(
                self.name,
                "how many examples the run draws is not known here",
                "set mixer.budget = steps * batch_size before start()",
            )
        return self.budget

    def state_dict(self) -> dict[str, Any]:
        """State that must survive a restart: arrays and JSON values, by name."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume from a state saved by :meth:`state_dict`."""
        if state:
            raise ValueError(f"{self.name} has no state, but was given {sorted(state)}")

    def options(self) -> dict[str, Any]:
        """Options that define the rule, as JSON values, for the record of a run."""
        return {}


class Rule(Mixer):
    """A mixer written as a dataclass: public fields are options, ``_fields`` are its memory.

    The memory (fields with ``init=False`` and a plain default) is forgotten by :meth:`start`,
    and saved and loaded under the fields' names without the underscore.

    Examples
    --------
    >>> from dataclasses import dataclass, field
    >>> @dataclass(eq=False)
    ... class Counting(Rule):
    ...     eta: float = 1.0
    ...     _rounds: int = field(default=0, init=False, repr=False)
    ...     def update(self, seen):
    ...         self._rounds += 1
    ...         return seen.p
    >>> rule = Counting()
    >>> rule._rounds = 3
    >>> rule.options(), rule.state_dict()
    ({'eta': 1.0}, {'rounds': 3})
    """

    def start(self, q: FloatArray, sizes: IntArray) -> FloatArray:
        """Begin a run: forget any earlier one, and return uniform proportions."""
        self._forget()
        return super().start(q, sizes)

    def state_dict(self) -> dict[str, Any]:
        """Return the memory: arrays and JSON values, by name."""
        memory = {f.name: getattr(self, f.name) for f in self._fields(public=False)}
        return {
            name.removeprefix("_"): value.copy() if isinstance(value, np.ndarray) else value
            for name, value in memory.items()
            if value is not None
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume from a memory saved by :meth:`state_dict`."""
        names = {f.name.removeprefix("_") for f in self._fields(public=False)}
        if unknown := set(state) - names:
            raise ValueError(f"{self.name} has no state {sorted(unknown)}")
        self._forget()
        for name, value in state.items():
            setattr(self, f"_{name}", value.copy() if isinstance(value, np.ndarray) else value)

    def options(self) -> dict[str, Any]:
        """Return the parameters of the rule."""
        return {f.name: getattr(self, f.name) for f in self._fields(public=True)}

    def _forget(self) -> None:
        for each in self._fields(public=False):
            setattr(self, each.name, each.default)

    def _fields(self, *, public: bool) -> list[Field[Any]]:
        return [f for f in fields(cast(Any, self)) if f.name.startswith("_") is not public]

    def _check_number(
        self,
        name: str,
        *,
        least: float = -np.inf,
        most: float = np.inf,
        try_: str,
        positive: bool = False,
        below: float = np.inf,
        whole: bool = False,
        optional: bool = False,
    ) -> None:
        """Refuse an option that is not a number in ``[least, most]`` and below `below`."""
        value = getattr(self, name)
        if value is None and optional:
            return
        where, remedy = f"{self.name}({name}=...)", f"try {name}={try_}"
        if whole:  # its range is checked below
            value = as_count(where, value, least=None, remedy=remedy)
        elif isinstance(value, bool) or not isinstance(value, int | float | np.integer):
            value = as_number(where, value, remedy)
        if not (np.isfinite(value) and least <= value <= most and value < below):
            span = f"{least} or more"
            if below < np.inf:
                span = f"in [{least}, {below})"
            elif most < np.inf:
                span = f"in [{least}, {most}]"
            raise InputError(where, f"{value} is not {span}", remedy)
        if positive and value <= 0:
            raise InputError(where, f"{value} is not above 0", remedy)
        setattr(self, name, int(value) if isinstance(value, np.integer) else value)

    def _check_choice(self, name: str, *choices: str) -> None:
        value = getattr(self, name)
        if value not in choices:
            listed = ", ".join(choices[:-1]) + f" or {choices[-1]}"
            raise InputError(f"{self.name}({name}=...)", f"{value!r} is unknown", f"use {listed}")

    def _check_flag(self, name: str) -> None:
        value = getattr(self, name)
        if not isinstance(value, bool):
            raise InputError(
                f"{self.name}({name}=...)", f"{value!r} is not a boolean", "use True or False"
            )


# ------------------------------------------------------------------------ proportions


def normalise(weights: FloatArray, available: NDArray[np.bool_]) -> FloatArray:
    """Scale non-negative `weights`, (m,), to proportions over the `available` domains.

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


def tilt(prior: FloatArray, score: FloatArray, lam: float) -> FloatArray:
    """Return ``prior * exp(lam * score)``, normalised, (m,); zero where the prior is zero.

    Examples
    --------
    >>> tilt(np.array([.5, .5, 0.]), np.array([0., np.log(3), 9.]), 1.0)
    array([0.25, 0.75, 0.  ])
    """
    inside = prior > 0
    logits = lam * score[inside] + np.log(prior[inside])
    # Shifting by the largest keeps exp from overflowing; it cancels.
    weights = np.zeros(len(prior))
    weights[inside] = np.exp(logits - logits.max())
    total: FloatArray = weights / weights.sum()
    return total


def effective_number(p: FloatArray) -> float:
    """Return ``exp(H(p))``: m for uniform proportions, 1 when one domain has them all.

    Examples
    --------
    >>> round(effective_number(np.array([.25, .25, .25, .25, 0.])), 6)
    4.0
    """
    p = np.asarray(p, dtype=np.float64)
    inside = p[p > 0]
    return float(np.exp(-(inside * np.log(inside)).sum()))


def limit(p: FloatArray, most: FloatArray) -> FloatArray:
    """Return `p` with no entry above `most`; the excess goes to the others, in proportion.

    If `most` sums to less than 1, which nothing on the simplex can satisfy, the result is
    `most` scaled up.

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


def spread(prior: FloatArray, sizes: IntArray, max_epochs: float, budget: int) -> FloatArray:
    """Return `prior`, (m,), cut so that no domain is seen over `max_epochs` times in a run.

    `budget` examples are drawn in all. What is cut goes to the others in proportion.

    >>> spread(np.array([0.5, 0.4, 0.1]), np.array([10, 100, 100]), max_epochs=4, budget=200)
    array([0.2 , 0.64, 0.16])
    """
    most = max_epochs * np.asarray(sizes, dtype=np.float64) / budget
    if most.sum() < 1:
        raise InputError(
            "max_epochs",
            f"{max_epochs:g} epochs of all domains are {most.sum() * budget:,.0f} examples, and "
            f"the run draws {budget:,}",
            "allow more epochs, or train for fewer steps",
        )
    return limit(prior, most)


def check_proportions(p: FloatArray, available: NDArray[np.bool_]) -> FloatArray:
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


# ----------------------------------------------------- domains that a round did not show


def fill_unknown(score: FloatArray, among: NDArray[np.bool_]) -> FloatArray:
    """Return `score` with each NaN replaced by the mean of the finite scores in `among`.

    So a domain without evidence is neither favoured nor dropped for want of it. All zeros
    where no score is finite.

    >>> fill_unknown(np.array([1., np.nan, 3., 9.]), np.array([True, True, True, False]))
    array([1., 2., 3., 0.])
    """
    known = among & np.isfinite(score)
    middle = score[known].mean() if known.any() else 0.0
    return np.where(known, score, np.where(among, middle, 0.0))


def remember(last: FloatArray | None, fresh: FloatArray) -> FloatArray:
    """Return the Gram matrix `fresh`, (m, m), with the last finite products where it has NaN.

    >>> nan = np.nan
    >>> remember(np.array([[1., 2.], [2., 8.]]), np.array([[3., nan], [nan, nan]]))
    array([[3., 2.],
           [2., 8.]])
    """
    if last is None or last.shape != fresh.shape:
        last = np.full(fresh.shape, np.nan)
    return np.where(np.isfinite(fresh), fresh, last)


def ever_seen(gram: FloatArray) -> NDArray[np.bool_]:
    """Return which domains a remembered Gram matrix knows, (m,)."""
    known: NDArray[np.bool_] = np.isfinite(np.diag(gram))
    return known
