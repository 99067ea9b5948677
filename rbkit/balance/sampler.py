"""Which example comes next: a function of (seed, history of p, position) alone.

At position s a domain is drawn from the proportions in force there, then the next example
of that domain in its shuffled order: without replacement until the domain is used up, then
reshuffled. The random number of position s and the order of epoch e of domain i come from
counters, not from a running generator, so a restored sampler, or one on another number of
workers, continues with the identical sequence.
"""

from __future__ import annotations

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
        self, labels: ArrayLike, p: ArrayLike, seed: int = 0, max_epochs: float | None = None
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
        rows, _, drawn = self._next(count)
        return rows, drawn

    def plan(self, count: int) -> tuple[IntArray, IntArray]:
        """Return the next `count` rows, and the half that each belongs to, without advancing.

        The examples of a domain go alternately to half 0 and half 1.
        """
        rows, halves, _ = self._next(count)
        return rows, halves

    def _next(self, count: int) -> tuple[IntArray, IntArray, IntArray]:
        count = as_count("count", count)
        domains, uniform = self._domains(self.position, count)
        drawn = self.drawn.copy()
        rows = np.empty(count, dtype=np.int64)
        halves = np.empty(count, dtype=np.int64)
        for s, i in enumerate(domains.tolist()):
            if drawn[i] >= self.most[i]:
                i = self._another(i, uniform[s], drawn)
            epoch, place = divmod(int(drawn[i]), len(self.members[i]))
            rows[s], halves[s] = self._order(i, epoch)[place], drawn[i] % 2
            drawn[i] += 1
        return rows, halves, drawn

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

    def _shuffled(self, domain: int, epoch: int) -> IntArray:
        rng = np.random.default_rng([self.seed, _ORDER_STREAM, domain, epoch])
        return rng.permutation(self.members[domain])

    def state_dict(self) -> dict[str, Any]:
        """State as plain arrays: position, examples drawn per domain, history of p."""
        return {
            "seed": self.seed,
            "data": self._data(),
            "position": self.position,
            "drawn": self.drawn.copy(),
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
        self.seed, self.position = int(state["seed"]), int(state["position"])
        self.drawn = np.array(state["drawn"], dtype=np.int64)
        starts = np.asarray(state["starts"]).tolist()
        self.history = [
            (int(s), check_proportions(p, self.sizes > 0))
            for s, p in zip(starts, proportions, strict=True)
        ]
        self._order.cache_clear()
        self._uniform.cache_clear()
