"""Which example comes next: a function of (seed, history of p, position) alone.

At position s a domain is drawn from the proportions in force there, then the next example
of that domain in its shuffled order: without replacement until the domain is used up, then
reshuffled. A *reserve* of each domain can be left out of its first pass and let in a few
examples at a time, so that first visits also occur late in a run that repeats. The random
number of position s and the order of epoch e of domain i come from counters, not from a
running generator, so a restored sampler, or one on another number of workers, continues with
the identical sequence.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rbkit.balance.mixers.base import check_proportions
from rbkit.balance.signals import FloatArray, IntArray
from rbkit.errors import InputError, as_count, as_number
from rbkit.files import fingerprint

_BLOCK = 4096  # positions whose random numbers are made at once
_DOMAIN_STREAM, _ORDER_STREAM = 0, 1  # keeps the two uses of a seed apart
_LET_IN = 0.2  # share of what is left of a reserve that each later pass lets in


class _Passes:
    """How long each pass through a domain of `size` examples is, while its reserve is let in.

    >>> passes = _Passes(size=10, reserve=4)
    >>> passes.lengths(9).tolist()  # of the passes 0 to 9
    [6, 7, 8, 8, 9, 9, 9, 10, 10, 10]
    >>> passes.of(5), passes.of(6), passes.of(13)  # pass and place of a draw
    ((0, 5), (1, 0), (2, 0))
    """

    def __init__(self, size: int, reserve: int) -> None:
        self.size, self.reserve = size, reserve
        self._starts = [0]  # draws before each pass, as far as they were asked for

    def length(self, epoch: int) -> int:
        return self.size - int(self.reserve * (1 - _LET_IN) ** epoch)

    def lengths(self, last: int) -> IntArray:
        return np.array([self.length(epoch) for epoch in range(last + 1)])

    def of(self, draw: int) -> tuple[int, int]:
        if not self.reserve:
            return divmod(draw, self.size)
        while self._starts[-1] <= draw:
            self._starts.append(self._starts[-1] + self.length(len(self._starts) - 1))
        epoch = bisect_right(self._starts, draw) - 1
        return epoch, draw - self._starts[epoch]


class MixtureSampler:
    """Draw training examples from a mixture of domains that may change at any position.

    Parameters
    ----------
    labels : int array of shape (n,)
        Domain of each training example; -1 is never drawn.
    p : array of shape (m,)
        Proportions to begin with.
    seed : int
        Seed of the sequence.
    max_epochs : float, optional
        Repetition cap: a domain is drawn at most this often its size (rounded down to whole
        examples); after that its share goes to the others. Raises once all are used up.
    reserve : float
        Share, in [0, 1), of each domain that its first pass leaves out (rounded down); each
        later pass lets in a fifth of what is left. With 0 every pass is the whole domain.

    Attributes
    ----------
    position : int
        Number of examples drawn so far.
    drawn : ndarray of shape (m,), int64
        Examples drawn so far from each domain.
    history : list of (int, ndarray)
        Every change of proportions, with the position from which it held.

    Examples
    --------
    >>> sampler = MixtureSampler([0, 0, 0, 1], p=[0.5, 0.5], seed=1)
    >>> first = sampler.take(6)
    >>> saved = sampler.state_dict()
    >>> then = sampler.take(6)
    >>> again = MixtureSampler([0, 0, 0, 1], p=[0.5, 0.5], seed=1)
    >>> again.load_state_dict(saved)
    >>> (again.take(6) == then).all()
    np.True_
    """

    def __init__(
        self,
        labels: ArrayLike,
        p: ArrayLike,
        seed: int = 0,
        max_epochs: float | None = None,
        reserve: float = 0.0,
    ) -> None:
        self.labels: IntArray = np.asarray(labels, dtype=np.int64)
        p = np.asarray(p, dtype=np.float64)
        if self.labels.ndim != 1 or (self.labels >= len(p)).any() or (self.labels < -1).any():
            raise InputError(
                "labels", f"must be one id from -1 to {len(p) - 1} per example", "check the domains"
            )
        self.seed = as_count("seed", seed)
        self.members = [np.flatnonzero(self.labels == i) for i in range(len(p))]
        self.sizes: IntArray = np.array([len(members) for members in self.members])
        if max_epochs is not None and not as_number("max_epochs", max_epochs, "try 4") > 0:
            raise InputError("max_epochs", f"{max_epochs} is not positive", "try 4")
        cap = np.inf if max_epochs is None else max_epochs * (1 + 1e-12)
        self.most: FloatArray = np.zeros(len(p))  # examples that each domain may give in all
        self.most[self.sizes > 0] = np.floor(self.sizes[self.sizes > 0] * cap)
        if not 0 <= as_number("reserve", reserve, "try 0.2") < 1:
            raise InputError("reserve", f"{reserve} is not in [0, 1)", "try 0.2")
        self.passes = [_Passes(size, int(reserve * size)) for size in self.sizes.tolist()]
        self.position = 0
        self.drawn: IntArray = np.zeros(len(p), dtype=np.int64)
        self.history: list[tuple[int, FloatArray]] = [(0, check_proportions(p, self.sizes > 0))]
        # Only the current epoch's order of a domain is needed; a few more cost little.
        self._order = lru_cache(maxsize=2 * len(p) + 2)(self._shuffled)
        self._uniform = lru_cache(maxsize=4)(self._uniform_block)

    @property
    def p(self) -> FloatArray:
        """Proportions in force now, (m,)."""
        return self.history[-1][1]

    @property
    def epochs(self) -> FloatArray:
        """How many times each domain has been seen, (m,); NaN for an empty domain."""
        return np.where(self.sizes > 0, self.drawn / np.maximum(self.sizes, 1), np.nan)

    def set_proportions(self, p: ArrayLike) -> None:
        """Draw from `p` from the current position on."""
        p = check_proportions(np.asarray(p), self.sizes > 0)
        if self.history[-1][0] == self.position:
            self.history.pop()
        self.history.append((self.position, p))

    def take(self, count: int) -> IntArray:
        """Return the row numbers of the next `count` examples, and advance."""
        rows, drawn = self.peek(count)
        self.position, self.drawn = self.position + len(rows), drawn
        return rows

    def peek(self, count: int) -> tuple[IntArray, IntArray]:
        """Return the next `count` rows, and `drawn` after them, without advancing."""
        rows, _, _, drawn = self._next(count)
        return rows, drawn

    def plan(self, count: int) -> tuple[IntArray, IntArray, IntArray]:
        """Return the next `count` rows, the half and the earlier visits of each, (count,) each.

        Does not advance. The examples of a domain go alternately to half 0 and half 1; an
        example that was drawn three times before has 3 earlier visits.
        """
        rows, halves, visits, _ = self._next(count)
        return rows, halves, visits

    def _next(self, count: int) -> tuple[IntArray, IntArray, IntArray, IntArray]:
        count = as_count("count", count)
        domains, uniform = self._domains(self.position, count)
        drawn = self.drawn.copy()
        rows = np.empty(count, dtype=np.int64)
        halves = np.empty(count, dtype=np.int64)
        visits = np.empty(count, dtype=np.int64)
        for s, i in enumerate(domains.tolist()):
            if drawn[i] >= self.most[i]:
                i = self._another(i, uniform[s], drawn)
            epoch, place = self.passes[i].of(int(drawn[i]))
            order, before = self._order(i, epoch)
            rows[s], halves[s], visits[s] = order[place], drawn[i] % 2, before[place]
            drawn[i] += 1
        return rows, halves, visits, drawn

    def _another(self, used_up: int, uniform: float, drawn: IntArray) -> int:
        """Return the domain of a position whose own is used up, by the same random number."""
        left = drawn < self.most
        if not left.any():
            raise InputError(
                "max_epochs",
                f"all examples are used up after {int(drawn.sum())} draws",
                "allow more epochs, or train for fewer steps",
            )
        # Where the number lies within the used-up domain's interval is uniform again, so that
        # the others take its share in proportion, wherever they stand.
        low, high = np.concatenate([[0.0], self._edges()])[used_up : used_up + 2]
        p = np.where(left, self.p, 0.0)
        others = np.cumsum(p if p.sum() > 0 else left.astype(np.float64))
        inside = min((uniform - low) / (high - low), np.nextafter(1, 0)) * others[-1]
        return int(np.flatnonzero(others > inside)[0])

    def __iter__(self) -> Iterator[int]:
        """Yield row numbers endlessly."""
        while True:
            yield int(self.take(1)[0])

    def _domains(self, start: int, count: int) -> tuple[NDArray[np.int64], FloatArray]:
        """Return the domains of `count` positions, and the random numbers that chose them."""
        blocks = range(start // _BLOCK, (start + count - 1) // _BLOCK + 1)
        uniform = np.concatenate([self._uniform(block) for block in blocks] or [np.empty(0)])
        offset = start - blocks.start * _BLOCK
        uniform = uniform[offset : offset + count]
        return np.searchsorted(self._edges(), uniform, side="right"), uniform

    def _edges(self) -> FloatArray:
        """Upper ends of the intervals of [0, 1) that stand for the domains."""
        edges: FloatArray = np.cumsum(self.p)
        # The last domain with p > 0 takes what rounding leaves above the cumulative sum.
        edges[np.flatnonzero(self.p)[-1] :] = 1.0
        return edges

    def _uniform_block(self, block: int) -> FloatArray:
        return np.random.default_rng([self.seed, _DOMAIN_STREAM, block]).random(_BLOCK)

    def _shuffled(self, domain: int, epoch: int) -> tuple[IntArray, IntArray]:
        """Return the rows of a pass in their order, and how often each was drawn before."""
        members, passes = self.members[domain], self.passes[domain]
        order = self._rng(domain, epoch).permutation(len(members))
        if not passes.reserve:
            return members[order], np.full(len(order), epoch)
        # Who is let in first is the order of the first pass.
        rank = np.empty_like(order)
        rank[self._rng(domain, 0).permutation(len(members))] = np.arange(len(members))
        order = order[rank[order] < passes.length(epoch)]
        since = np.searchsorted(passes.lengths(epoch), rank[order], side="right")
        return members[order], epoch - since

    def _rng(self, domain: int, epoch: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, _ORDER_STREAM, domain, epoch])

    def state_dict(self) -> dict[str, Any]:
        """State as plain arrays: position, examples drawn per domain, history of p."""
        return {
            "seed": self.seed,
            "data": self._data(),
            "position": self.position,
            "drawn": self.drawn.copy(),
            "reserves": np.array([passes.reserve for passes in self.passes]),
            "starts": np.array([start for start, _ in self.history]),
            "proportions": np.array([p for _, p in self.history]),
        }

    def _data(self) -> str:
        return fingerprint(np.asarray(self.labels, dtype=np.int64).tobytes())

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume exactly where the saved sampler stood; that of other data is refused."""
        proportions = np.asarray(state["proportions"], dtype=np.float64)
        if proportions.shape[1] != len(self.sizes):
            raise InputError(
                "sampler state",
                f"saved for {proportions.shape[1]} domains, not {len(self.sizes)}",
                "resume with the domains of the checkpoint",
            )
        if state.get("data", self._data()) != self._data():
            raise InputError(
                "sampler state",
                "saved for examples whose number or labels are others",
                "resume with the data of the checkpoint",
            )
        sizes, reserves = self.sizes.tolist(), state.get("reserves", np.zeros_like(self.sizes))
        self.passes = [_Passes(*pair) for pair in zip(sizes, map(int, reserves), strict=True)]
        self.seed, self.position = int(state["seed"]), int(state["position"])
        self.drawn = np.array(state["drawn"], dtype=np.int64)
        starts = np.asarray(state["starts"]).tolist()
        self.history = [
            (int(s), check_proportions(p, self.sizes > 0))
            for s, p in zip(starts, proportions, strict=True)
        ]
        self._order.cache_clear()
        self._uniform.cache_clear()
