"""Domains in the making: cells of examples, and the domain that each cell belongs to.

A cell is a group that stays together: a cluster, a micro-cluster of the hierarchy, or rows
that were moved by hand. A domain is a union of cells, so a merge forgets nothing: an eval
example goes to the domain of the nearest *cell*, not to a mean between two far ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rbkit.errors import InputError
from rbkit.regroup.kmeans import assign

Labels = NDArray[np.int32]
_BLOCK = 65_536


@dataclass(frozen=True, eq=False)
class Grouping:
    """Which cell every example is in, and which domain every cell is in.

    Attributes
    ----------
    cells : ndarray of int32, shape (n_train,)
        Cell of every training example; -1 for one that is in none (dropped noise).
    eval_cells : ndarray of int32, shape (n_eval,)
    centers : ndarray of float32, shape (C, d)
        Mean vector of every cell.
    owners : ndarray of int32, shape (C,)
        Domain of every cell, 0 to m - 1; -1 where the cell is empty or was dropped.
    names : tuple of str or None, length m
        Names that a person gave; None for a domain that is named by its terms.
    noise : ndarray of bool, shape (n_train,), or None
        Examples that the clusterer left as noise and that were not moved by hand since.
    noise_domain : int or None
        The domain that holds the noise, under the policy "own".
    by_source : bool
        Eval examples keep the cell of their source or label, or stay in none, until it is gone.

    Examples
    --------
    >>> X = np.array([[0.0], [1.0], [9.0]])
    >>> grouping = Grouping.of(np.array([0, 0, 1]), X, np.array([[8.0]]))
    >>> grouping.m, grouping.labels.tolist(), grouping.eval_labels.tolist()
    (2, [0, 0, 1], [1])
    """

    cells: Labels
    eval_cells: Labels
    centers: NDArray[np.float32]
    owners: Labels
    names: tuple[str | None, ...]
    noise: NDArray[np.bool_] | None = None
    noise_domain: int | None = None
    by_source: bool = False

    @classmethod
    def of(
        cls,
        labels: NDArray[np.integer[Any]],
        X: Any,
        X_eval: Any,
        *,
        m: int | None = None,
        centers: NDArray[np.floating[Any]] | None = None,
        names: Sequence[str | None] | None = None,
        by_source: bool = False,
    ) -> Grouping:
        """Make a grouping of one cell per domain from labels 0 to m - 1, and -1."""
        m = int(np.max(labels, initial=-1)) + 1 if m is None else m
        made = cls(
            np.asarray(labels, dtype=np.int32),
            np.zeros(len(X_eval), dtype=np.int32),
            means(X, labels, m) if centers is None else np.asarray(centers, dtype=np.float32),
            np.arange(m, dtype=np.int32),
            (None,) * m if names is None else tuple(names),
            by_source=by_source,
        )
        return made.compact().place_eval(X_eval)

    @property
    def m(self) -> int:
        """Number of domains."""
        return len(self.names)

    @property
    def labels(self) -> Labels:
        """Domain of every training example, -1 for none."""
        return _owners_of(self.cells, self.owners)

    @property
    def eval_labels(self) -> Labels:
        """Domain of every eval example, -1 for none."""
        return _owners_of(self.eval_cells, self.owners)

    @property
    def live(self) -> NDArray[np.int64]:
        """Cells that belong to a domain."""
        return np.flatnonzero(self.owners >= 0)

    @property
    def sizes(self) -> NDArray[np.int64]:
        """Training examples of every domain."""
        labels = self.labels
        return np.bincount(labels[labels >= 0], minlength=self.m)

    def members(self, domain: int) -> NDArray[np.int64]:
        """Return the training examples of a domain."""
        return np.flatnonzero(self.labels == domain)

    def distances(self, split: str, vectors: Any) -> NDArray[np.float32]:
        """Return the squared distance of every example of a split to the centre of its cell."""
        cells = self.cells if split == "train" else self.eval_cells
        distances = np.full(len(cells), np.nan, dtype=np.float32)
        for start in range(0, len(cells), _BLOCK):
            own = cells[start : start + _BLOCK]
            inside = own >= 0
            gaps = np.asarray(vectors[start : start + _BLOCK], dtype=np.float32)[inside]
            gaps -= self.centers[own[inside]]
            distances[start : start + _BLOCK][inside] = np.sum(gaps**2, axis=1)
        return distances

    def compact(self) -> Grouping:
        """Return the same without empty cells' domains, domains numbered without gaps."""
        filled = np.bincount(self.cells[self.cells >= 0], minlength=len(self.owners)) > 0
        owners = np.where(filled, self.owners, -1).astype(np.int32)
        filled_domains = np.unique(owners[owners >= 0])
        if not len(filled_domains):
            raise InputError("domains", "none would be left", "keep at least one")
        number = np.full(len(self.names), -1, dtype=np.int32)
        number[filled_domains] = np.arange(len(filled_domains))
        noise = self.noise_domain
        return replace(
            self,
            owners=_owners_of(owners, number),
            names=tuple(self.names[int(at)] for at in filled_domains),
            noise_domain=None if noise is None or number[noise] < 0 else int(number[noise]),
        )

    def with_cells(
        self,
        X: Any,
        parts: NDArray[np.integer[Any]],
        rows: NDArray[np.int64],
        owners: Sequence[int],
    ) -> Grouping:
        """Move rows from their cells into new ones: part i becomes a cell of ``owners[i]``."""
        first = len(self.owners)
        cells = self.cells.copy()
        left = np.unique(cells[rows])
        cells[rows] = first + np.asarray(parts, dtype=np.int32)
        centers = np.concatenate(
            [self.centers, means(X[rows], np.asarray(parts), len(owners))]
        ).astype(np.float32)
        for cell in left[left >= 0]:  # the rest of a cell has another mean
            rest = np.flatnonzero(cells == cell)
            if len(rest):
                centers[cell] = np.asarray(X[rest], dtype=np.float32).mean(axis=0)
        noise = self.noise
        if noise is not None:
            noise = noise.copy()
            noise[rows] = False
        return replace(
            self,
            cells=cells,
            centers=centers,
            noise=noise,
            owners=np.concatenate([self.owners, np.asarray(owners, dtype=np.int32)]),
        )

    def place_eval(self, X_eval: Any, touched: NDArray[np.bool_] | None = None) -> Grouping:
        """Send eval examples to the nearest live cell.

        With `by_source` only those of `touched` or dead cells move: the others' source is known.
        """
        live = self.live
        eval_cells = self.eval_cells.copy()
        rows = np.arange(len(eval_cells))
        if self.by_source and touched is not None:
            gone = np.ones(len(self.owners), dtype=bool)
            gone[live] = False
            gone[: len(touched)] |= touched
            rows = rows[(eval_cells >= 0) & gone[eval_cells]]
        if len(rows):
            eval_cells[rows] = live[assign(np.asarray(X_eval)[rows], self.centers[live])[0]]
        return replace(self, eval_cells=eval_cells)


def means(X: Any, labels: NDArray[np.integer[Any]], m: int) -> NDArray[np.float32]:
    """Return the mean of the rows of each label: float32, shape (m, d); 0 where there are none.

    Examples
    --------
    >>> means(np.array([[1.0], [3.0], [8.0]]), np.array([0, 0, -1]), 2).tolist()
    [[2.0], [0.0]]
    """
    labels = np.asarray(labels)
    totals = np.zeros((m, X.shape[1]))
    for start in range(0, len(labels), _BLOCK):
        own = labels[start : start + _BLOCK]
        part = np.asarray(X[start : start + _BLOCK], dtype=np.float32)
        order = np.argsort(own, kind="stable")
        order = order[own[order] >= 0]
        if len(order):
            present, first = np.unique(own[order], return_index=True)
            totals[present] += np.add.reduceat(part[order].astype(np.float64), first, axis=0)
    counts = np.bincount(labels[labels >= 0], minlength=m)
    return (totals / np.maximum(counts, 1)[:, None]).astype(np.float32)


def _owners_of(cells: Labels, owners: Labels) -> Labels:
    # One more entry at the end, so that -1 (no cell) means -1 (no domain).
    return np.append(owners, np.int32(-1))[cells].astype(np.int32)
