"""Which rows of a batch belong to which domain and half of the round.

Work on a batch depends on its size alone, not on the number of domains.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from rbkit.balance.signals import FloatArray, IntArray
from rbkit.errors import InputError

Ids = Tensor | Sequence[int] | IntArray
_HALVES = 2


@dataclass(frozen=True)
class Groups:
    """The ids of a batch, sorted by (half, domain).

    Attributes
    ----------
    size : int
        Number of ids in the batch, with those left out.
    shape : tuple of int
        Shape of the ids: (B,) for examples, (B, T) for tokens.
    order : ndarray of shape (n,), int64
        Places of the ids, one group after the other; ids of -1 are not among them.
    keys : ndarray of shape (g, 2), int64
        Half and domain of each group.
    bounds : ndarray of shape (g + 1,), int64
        Where the groups begin in `order`; at the end, n.

    Examples
    --------
    >>> groups = Groups.of(np.array([4, 2, -1, 4]), np.array([0, 0, 0, 1]))
    >>> groups.keys.tolist(), groups.order.tolist(), groups.bounds.tolist()
    ([[0, 2], [0, 4], [1, 4]], [1, 0, 3], [0, 1, 2, 3])
    """

    shape: tuple[int, ...]
    order: IntArray
    keys: IntArray
    bounds: IntArray

    @classmethod
    def of(cls, ids: IntArray, halves: IntArray) -> Groups:
        """Sort `ids`, with the half of each, into groups."""
        flat = ids.ravel()
        span = int(flat.max(initial=0)) + 1
        inside = np.flatnonzero(flat >= 0)
        key = halves.ravel()[inside].astype(np.int64) * span + flat[inside]
        order = np.argsort(key, kind="stable")
        found, starts = np.unique(key[order], return_index=True)
        keys = np.stack(np.divmod(found, span), axis=1)
        return cls(ids.shape, inside[order], keys, np.append(starts, len(order)))

    @property
    def size(self) -> int:
        """Number of ids, with those left out."""
        return int(np.prod(self.shape))

    @property
    def lengths(self) -> IntArray:
        """Number of ids in each group, (g,)."""
        return np.diff(self.bounds)

    def tokens(self, each: int, share: float = 1.0, start: float = 0.0) -> tuple[Tensor, IntArray]:
        """Return rows of tokens, sorted by group, and where the groups begin.

        Parameters
        ----------
        each : int
            Tokens per id: the length of an example, or 1.
        share : float
            Take every ``1 / share``-th of the sorted tokens, so each with this probability
            and from each group its part.
        start : float
            In [0, 1): where to begin; random, for an unbiased sample.
        """
        rows = (self.order[:, None] * each + np.arange(each)).ravel()
        bounds = self.bounds * each
        if share < 1:
            picked = np.floor((np.arange(len(rows) * share + 1) + start) / share).astype(np.int64)
            picked = picked[picked < len(rows)]
            rows, bounds = rows[picked], np.searchsorted(picked, bounds)
        return torch.from_numpy(rows), bounds


def check_ids(domains: Ids, n_domains: int) -> IntArray:
    """Return the ids of a batch as an integer array, (B,) or (B, T), or say what is wrong."""
    ids = torch.as_tensor(domains).detach().cpu().numpy()
    if ids.ndim not in (1, 2) or not np.issubdtype(ids.dtype, np.integer):
        raise InputError(
            "domains", f"shape {ids.shape}, dtype {ids.dtype}",
            "give one integer per example, or per token as (examples, tokens)",
        )  # fmt: skip
    if ids.size and not (ids.min() >= -1 and ids.max() < n_domains):
        raise InputError(
            "domains", f"ids from {ids.min()} to {ids.max()} for {n_domains} domains",
            "give 0 to m - 1, or -1 to leave an example or token out",
        )  # fmt: skip
    return ids.astype(np.int64)


def check_halves(halves: Ids, ids: IntArray) -> IntArray:
    """Return the given halves of a batch, of the same shape as its ids."""
    given = torch.as_tensor(halves).detach().cpu().numpy()
    if given.shape != ids.shape or not np.isin(given[ids >= 0], (0, 1)).all():
        raise InputError(
            "halves", f"shape {given.shape} for domains of shape {ids.shape}, or not all 0 or 1",
            "give 0 or 1 for each domain id",
        )  # fmt: skip
    return given.astype(np.int64)


def alternate(ids: IntArray, turn: IntArray, first: int = 0) -> IntArray:
    """Send the examples of each domain by turns to half 0 and half 1; return the halves.

    Where ids are of tokens, documents take turns: runs of equal ids within a row, which are
    never divided. (Two documents of one domain that touch count as one.)

    Parameters
    ----------
    ids : ndarray of shape (B,) or (B, T), int64
    turn : ndarray of shape (m,), int64
        How many each domain has had so far; brought up to date here.
    first : int
        Half of the first one.

    Examples
    --------
    >>> alternate(np.array([7, 7, 3, 7]), np.zeros(8, dtype=np.int64))
    array([0, 1, 0, 0])
    >>> alternate(np.array([[7, 7, 3, 7]]), np.zeros(8, dtype=np.int64))
    array([[0, 0, 0, 1]])
    """
    begins = np.ones(ids.shape, dtype=bool)
    if ids.ndim > 1:
        begins[:, 1:] = ids[:, 1:] != ids[:, :-1]
    domain = ids[begins]
    order = np.argsort(domain, kind="stable")
    sorted_ = domain[order]
    place = np.empty(len(domain), dtype=np.int64)  # of a document among those of its domain
    place[order] = np.arange(len(domain)) - np.searchsorted(sorted_, sorted_)
    half = (first + place + turn[domain]) % _HALVES
    np.add.at(turn, domain[domain >= 0], 1)
    each: IntArray = half[np.cumsum(begins.ravel()) - 1].reshape(ids.shape)
    return each


def amounts(groups: Groups, counts: ArrayLike | Tensor | None, m: int) -> FloatArray:
    """Return what each group adds to n, (g,): its ids, or its part of the given `counts`.

    Counts of shape (2, m) are those of the two halves. Counts of shape (m,) are shared
    between a domain's halves as its ids are.
    """
    if counts is None:
        return groups.lengths.astype(np.float64)
    given: Any = counts.detach().cpu().numpy() if isinstance(counts, Tensor) else counts
    given = np.asarray(given, dtype=np.float64)
    if given.shape not in ((m,), (_HALVES, m)) or not (given >= 0).all():
        raise InputError(
            "counts", f"shape {given.shape} for {m} domains, or negative",
            "give the examples of each domain, (m,), or of each half and domain, (2, m)",
        )  # fmt: skip
    half, domain = groups.keys.T
    if given.ndim > 1:
        part, without = given[half, domain], given.copy()
        without[half, domain] = 0
    else:
        names, which = np.unique(domain, return_inverse=True)
        ids = np.bincount(which, groups.lengths, len(names))
        part, without = given[domain] * groups.lengths / ids[which], given.copy()
        without[domain] = 0
    if without.any():
        raise InputError(
            "counts", f"examples of domain {int(np.flatnonzero(without)[0] % m)}, but no id of it",
            "count the examples that this batch has",
        )  # fmt: skip
    return np.asarray(part)
