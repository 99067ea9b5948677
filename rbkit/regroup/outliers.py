"""Eval examples that belong to no domain: how many, where, and what q is without them."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rbkit.errors import InputError, RbkitWarning
from rbkit.regroup.chance import at_least
from rbkit.regroup.distances import LEVEL, Floats, assign_new

if TYPE_CHECKING:
    from rbkit.regroup.domains import Domains

# A share of far examples is worth a warning if it is above this with 95 % confidence: one far
# example in twenty is then the least that the data agree with, where one in a hundred is normal.
TOLERATED = 0.05


@dataclass(frozen=True, eq=False, repr=False)
class FarEval:
    """Which eval examples lie far from all domains, and what it changes to keep them apart.

    Attributes
    ----------
    names : list of str, length m
    labels : ndarray of int32, shape (n,)
        Domain of every eval example, the far ones too; -1 for one that is in none.
    distances : ndarray of float32, shape (n,)
        To the nearest prototype.
    far : ndarray of bool, shape (n,)
    thresholds : ndarray of shape (m,)
    level : float
    expected : float
        Share that would be far if the eval set were of the training set's kind.
    """

    names: list[str]
    labels: NDArray[np.int32]
    distances: NDArray[np.float32]
    far: NDArray[np.bool_]
    thresholds: Floats
    level: float = LEVEL
    expected: float = 1 - LEVEL

    @property
    def share(self) -> float:
        """Share of the placed eval examples that are far."""
        return float(self.far[self.labels >= 0].mean()) if (self.labels >= 0).any() else 0.0

    @property
    def certain_share(self) -> float:
        """The least share that the data agree with: 95 % Clopper-Pearson bound."""
        return at_least(int(self.far[self.labels >= 0].sum()), int((self.labels >= 0).sum()))

    @property
    def serious(self) -> bool:
        """Whether more than one in twenty is far, beyond what chance could do."""
        return self.certain_share > max(TOLERATED, self.expected)

    @property
    def sizes(self) -> NDArray[np.int64]:
        """Eval examples per domain, the far ones too: (m,)."""
        return np.bincount(self.labels[self.labels >= 0], minlength=len(self.names))

    @property
    def far_sizes(self) -> NDArray[np.int64]:
        """Far eval examples per domain: (m,)."""
        return np.bincount(self.labels[self.far & (self.labels >= 0)], minlength=len(self.names))

    @property
    def q(self) -> Floats:
        """Target proportions with the far examples: (m,)."""
        return np.asarray(self.sizes / max(1, self.sizes.sum()), dtype=np.float64)

    @property
    def q_apart(self) -> Floats:
        """Target proportions without them: (m,)."""
        near = self.sizes - self.far_sizes
        return np.asarray(near / max(1, near.sum()), dtype=np.float64)

    def apart(self) -> NDArray[np.int32]:
        """Return the eval labels with -1 for the far examples: they then take no part in q.

        Raises
        ------
        InputError
            Every eval example is far.
        """
        labels = np.where(self.far, -1, self.labels).astype(np.int32)
        if not (labels >= 0).any():
            what = "all of its examples lie far from every domain"
            raise InputError("eval", what, "add training data like it")
        return labels

    def message(self) -> str:
        """Say in numbers how many are far, and in which domains most of them are."""
        n, k = int((self.labels >= 0).sum()), int(self.far_sizes.sum())
        told = (
            f"{k:,} of {n:,} eval examples ({self.share:.0%}) lie farther from every domain than "
            f"{self.level:.0%} of the training examples do ({self.expected:.1%} expected)"
        )
        most = [i for i in np.argsort(-self.far_sizes, kind="stable")[:3] if self.far_sizes[i]]
        where = ", ".join(
            f"{self.names[i]!r} {self.far_sizes[i]:,} of {self.sizes[i]:,}" for i in most
        )
        return f"{told}; most in {where}" if most else told

    def warn(self, stacklevel: int = 2) -> None:
        """Warn if the share is :attr:`serious`."""
        if self.serious:
            advice = (
                "the eval set is of another kind in part: add training data like it, "
                "keep these examples apart, or read q with care"
            )
            warnings.warn(f"{self.message()}; {advice}", RbkitWarning, stacklevel=stacklevel + 1)

    def to_dict(self) -> dict[str, Any]:
        """JSON values: counts, shares, q with and without, the distance between the two."""
        return {
            "n": int((self.labels >= 0).sum()),
            "far": int(self.far_sizes.sum()),
            "share": self.share,
            "certain_share": self.certain_share,
            "expected": self.expected,
            "level": self.level,
            "by_domain": self.far_sizes.tolist(),
            "q": self.q.tolist(),
            "q_apart": self.q_apart.tolist(),
            "q_moved": float(np.abs(self.q - self.q_apart).sum() / 2),
        }

    def __repr__(self) -> str:
        moved = self.to_dict()["q_moved"]
        return f"FarEval: {self.message()}; keeping them apart moves q by {moved:.1%} (TV)"

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{escape(self.names[i])}</td><td>{self.far_sizes[i]:,} of {self.sizes[i]:,}"
            f"</td><td>{self.q[i]:.1%}</td><td>{self.q_apart[i]:.1%}</td></tr>"
            for i in np.argsort(-self.far_sizes, kind="stable")
            if self.far_sizes[i]
        )
        head = "<tr><th>domain</th><th>far</th><th>q</th><th>q without them</th></tr>"
        return f"<p>{escape(repr(self))}</p><table>{head}{rows}</table>"


def far_eval(domains: Domains, vectors: ArrayLike | None = None) -> FarEval:
    """Find the eval examples that lie far from every domain.

    Parameters
    ----------
    domains : Domains
        With centroids and ``quality["distances"]`` (:func:`distance_profile`).
    vectors : array of shape (n_eval, d), optional
        Of the eval examples; those of ``domains.material`` if not given.

    Returns
    -------
    FarEval
        ``far``, ``share``, ``far_sizes``; ``warn()`` warns with numbers if they are many,
        ``apart()`` gives eval labels without them.

    Raises
    ------
    InputError
        Domains without vectors or profile, or a number of vectors that is not that of the
        eval labels.

    Examples
    --------
    >>> from rbkit.regroup.distances import distance_profile
    >>> from rbkit.regroup.domains import Domains
    >>> X = np.random.default_rng(0).normal(size=(400, 8)).astype("float32")
    >>> centre, labels = X.mean(axis=0, keepdims=True), np.zeros(400, int)
    >>> domains = Domains(["all"], labels, labels[:40], centroids=centre,
    ...                   quality={"distances": distance_profile(X, labels, centre)})
    >>> far_eval(domains, X[:40] + 9).share
    1.0
    """
    if vectors is None:
        material = getattr(domains, "material", None)
        if material is None:
            raise InputError("vectors", "none given", "give the vectors of the eval examples")
        vectors = material.eval
    placed = assign_new(domains, vectors)
    profile = domains.quality.get("distances")
    if placed.far is None or profile is None:
        what = "no distances of the training examples are saved with them"
        raise InputError("domains", what, "store distance_profile(...) in quality['distances']")
    if len(placed.labels) != len(domains.eval_labels):
        what = f"{len(placed.labels)} for {len(domains.eval_labels)} eval examples"
        raise InputError("vectors", what, "give one per eval example")
    labels = domains.eval_labels  # those that q is made of: some may have been moved by hand
    return FarEval(
        names=list(domains.names),
        labels=labels,
        distances=placed.distances,
        far=placed.far & (labels >= 0),
        thresholds=np.asarray(profile["thresholds"], dtype=np.float64),
        level=float(profile["level"]),
        expected=1 - float(profile["level"]),
    )
