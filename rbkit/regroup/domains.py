"""The product of Regroup: which example is in which domain, and what each domain is about."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rbkit.errors import InputError, RbkitWarning
from rbkit.regroup import domains_io
from rbkit.regroup.material import Material
from rbkit.regroup.table import as_html, as_text

DROPPED = -1  # label of an example that is in no domain and takes no part


@dataclass
class Card:
    """What one domain is about.

    Attributes
    ----------
    name : str
    size, eval_size : int
        Training and eval examples in it.
    terms : list of str
        The terms that set it apart, by class-based TF-IDF, best first.
    nearest, strangest : list of str
        Beginnings of the training examples nearest to its centroid, and farthest from it.
    sources : dict of str to float
        Share of its training examples that came from each source, largest first.
    """

    name: str
    size: int
    eval_size: int
    terms: list[str] = field(default_factory=list)
    nearest: list[str] = field(default_factory=list)
    sources: dict[str, float] = field(default_factory=dict)
    strangest: list[str] = field(default_factory=list)


@dataclass(eq=False, repr=False)
class Domains:
    """m domains over the training and eval examples of one corpus.

    Attributes
    ----------
    names : list of str, length m
        Unique.
    train_labels, eval_labels : ndarray of int32, shapes (n_train,) and (n_eval,)
        Domain of every example, 0 to m - 1; -1 for an example that was dropped.
    centroids : ndarray of float32, shape (P, d), or None
        An example belongs to the domain of the nearest one. One per domain (P = m) where
        domains come straight from k-means; more after a merge or a move by hand. None where
        domains are not made from vectors.
    centroid_domains : ndarray of int32, shape (P,), or None
        Domain of every centroid; 0 to m - 1 in order if not given.
    method : dict
        ``{"name", "params", "embedder", "seed"}``: how they were made.
    quality : dict
        ``{"silhouette", "grid", ...}``: how good the grouping is, where it was measured.
    cards : list of Card, length m or 0
    material : Material or None
        The corpus and its vectors, where they are at hand: never saved; see :meth:`attach`.

    Raises
    ------
    InputError
        Labels out of range, names that are not unique, or lengths that do not fit.

    Examples
    --------
    >>> domains = Domains.from_labels(["wiki", "code"], [0, 0, 1], [0, 1])
    >>> domains.m, domains.sizes.tolist(), domains.q.tolist()
    (2, [2, 1], [0.5, 0.5])
    """

    names: list[str]
    train_labels: NDArray[np.int32]
    eval_labels: NDArray[np.int32]
    centroids: NDArray[np.float32] | None = None
    method: dict[str, Any] = field(default_factory=dict)
    quality: dict[str, Any] = field(default_factory=dict)
    cards: list[Card] = field(default_factory=list)
    centroid_domains: NDArray[np.int32] | None = None
    material: Material | None = None

    def __post_init__(self) -> None:
        self.names = [str(name) for name in self.names]
        if not self.names:
            raise InputError("names", "there are no domains", "give at least one")
        if twice := sorted({name for name in self.names if self.names.count(name) > 1}):
            raise InputError(
                "names", f"{twice[0]!r} occurs twice", "give every domain its own name"
            )
        self.train_labels = _checked_labels("train_labels", self.train_labels, self.m)
        self.eval_labels = _checked_labels("eval_labels", self.eval_labels, self.m)
        if self.centroids is not None:
            self.centroids = np.asarray(self.centroids, dtype=np.float32)
            self.centroid_domains = self._checked_owners(self.centroids)
        if len(self.cards) not in (0, self.m):
            what = f"{len(self.cards)} cards for {self.m} domains"
            raise InputError("cards", what, "give one per domain, or none")

    def _checked_owners(self, centroids: NDArray[np.float32]) -> NDArray[np.int32]:
        owners = self.centroid_domains
        if owners is None and centroids.ndim == 2 and len(centroids) == self.m:
            return np.arange(self.m, dtype=np.int32)
        if owners is None or centroids.ndim != 2 or len(centroids) != len(owners):
            what = f"shape {centroids.shape} for {self.m} domains"
            raise InputError("centroids", what, "give one row per domain, or centroid_domains")
        owners = np.asarray(owners, dtype=np.int32)
        if ((owners < 0) | (owners >= self.m)).any():
            raise InputError("centroid_domains", f"not in 0 to {self.m - 1}", "check them")
        return owners

    @classmethod
    def from_labels(
        cls, names: Sequence[str], train_labels: ArrayLike, eval_labels: ArrayLike, **more: Any
    ) -> Self:
        """Make domains by hand, from a label per example; warns of domains without training data.

        Parameters
        ----------
        names : sequence of str, length m
        train_labels, eval_labels : array of int
            From 0 to m - 1; -1 leaves an example out.
        **more
            `centroids`, `method`, `quality`, `cards`.
        """
        more.setdefault("method", {"name": "by hand", "params": {}, "embedder": None, "seed": None})
        labels = [np.asarray(train_labels), np.asarray(eval_labels)]
        domains = cls(list(names), labels[0], labels[1], **more)
        domains.warn_of_gaps()
        return domains

    @property
    def m(self) -> int:
        """Number of domains."""
        return len(self.names)

    @property
    def sizes(self) -> NDArray[np.int64]:
        """Training examples per domain: int64, shape (m,)."""
        return _counts(self.train_labels, self.m)

    @property
    def eval_sizes(self) -> NDArray[np.int64]:
        """Eval examples per domain: int64, shape (m,)."""
        return _counts(self.eval_labels, self.m)

    @property
    def q(self) -> NDArray[np.float64]:
        """Target proportions, the share of each domain in the eval set: float64, shape (m,).

        Raises
        ------
        InputError
            No eval example is in any domain.
        """
        sizes = self.eval_sizes
        if not sizes.sum():
            raise InputError("eval_labels", "no eval example is in any domain", "give an eval set")
        return np.asarray(sizes / sizes.sum(), dtype=np.float64)

    def warn_of_gaps(self) -> None:
        """Warn of every domain that holds no training example."""
        share = self.eval_sizes / max(1, self.eval_sizes.sum())
        for at in np.flatnonzero(self.sizes == 0):
            told = f"domain {self.names[at]!r} has no training example: its proportion stays 0"
            warnings.warn(
                f"{told}, with {share[at]:.1%} of the eval set", RbkitWarning, stacklevel=3
            )

    def save(self, folder: str | Path) -> Path:
        """Write ``assignments.parquet``, ``centroids.parquet`` and ``domains.json`` to `folder`.

        ``domains.json`` comes last and holds the checksums of the others, so that after a
        kill the folder holds all of it or, to :meth:`load`, nothing.
        """
        return domains_io.save(self, Path(folder))

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Read what :meth:`save` wrote.

        Raises
        ------
        InputError
            A file is missing, cut short or otherwise damaged: it names the file.
        """
        parts = domains_io.load(Path(folder))
        try:
            parts["cards"] = [Card(**card) for card in parts["cards"]]
            return cls(**parts)
        except (InputError, TypeError) as error:
            raise InputError(str(folder), str(error), domains_io.REMEDY) from error

    @property
    def edits(self) -> dict[str, Any] | None:
        """The log of how they were made and edited, to be replayed; None if not known."""
        found: dict[str, Any] | None = self.method.get("edits")
        return found

    def attach(self, corpus: Any, **options: Any) -> Self:
        """Bring the corpus and its vectors back to loaded domains: from the cache, if they can.

        Parameters
        ----------
        corpus : datasets.DatasetDict
            That the domains were made from.
        **options
            Of :func:`rbkit.regroup.prepare`, such as `vectors` or `embedder`.

        Raises
        ------
        InputError
            Another corpus.
        """
        from rbkit.regroup.preparation import prepare

        options.setdefault("embedder", self.method.get("embedder") or "minilm")
        material, _ = prepare(corpus, **options)
        made_from = self.method.get("corpus")
        if made_from not in (None, "", material.origin):
            what = f"made from the corpus {made_from}, not from this one ({material.origin})"
            remedy = "load that corpus, with the seed and sizes of then"
            raise InputError("domains", what, remedy)
        self.material = material
        return self

    def __repr__(self) -> str:
        return as_text(self)

    def _repr_html_(self) -> str:
        return as_html(self)


def _counts(labels: NDArray[np.int32], m: int) -> NDArray[np.int64]:
    return np.bincount(labels[labels >= 0], minlength=m).astype(np.int64)


def _checked_labels(where: str, labels: ArrayLike, m: int) -> NDArray[np.int32]:
    found = np.asarray(labels)
    if found.size == 0:
        found = found.astype(np.int32)
    if found.ndim != 1 or not np.issubdtype(found.dtype, np.integer):
        what = f"shape {found.shape} and type {found.dtype}"
        raise InputError(where, what, "give one whole number per example")
    wrong = np.flatnonzero((found < DROPPED) | (found >= m))
    if wrong.size:
        what = f"example {wrong[0]} is in domain {found[wrong[0]]} of {m}"
        raise InputError(where, what, f"use 0 to {m - 1}, or -1 for examples to leave out")
    return found.astype(np.int32)
