"""Does an example belong to any domain? Its distance, against those of the training set.

Every example is measured in the same way: the Euclidean distance to the nearest of all
prototypes. A training example helped to make its prototype and so lies nearer to it than a new
one would; without it (leave-one-out) the prototype stands n / (n - 1) times as far away. With
this correction examples of the training's own kind are *far* one time in a hundred, as the
99 % level says, also in small domains and in many dimensions.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rbkit.errors import InputError, RbkitWarning, as_count, as_number

if TYPE_CHECKING:
    from datasets import Dataset

    from rbkit.regroup.domains import Domains

Floats = NDArray[np.float64]

LEVEL = 0.99
# A share of far examples is worth a warning if it is above this with 95 % confidence: one far
# example in twenty is then the least that the data agree with, where one in a hundred is normal.
TOLERATED = 0.05
_OWN = 400  # training examples from which a domain has its own 99.5 % quantile
_PRIOR = 10  # a smaller domain's typical distance counts as much as this many examples of all
_LEAST = 0.1  # of the overall median: in a domain of copies, nearly the same is not far
_ROWS = 65_536  # rows of a memory map that are read at once
_AT = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)


def distance_profile(
    vectors: ArrayLike,
    labels: ArrayLike,
    centroids: ArrayLike,
    centroid_domains: ArrayLike | None = None,
    *,
    m: int | None = None,
    level: float = LEVEL,
) -> dict[str, Any]:
    """Summarise how far training examples lie from their prototypes, to be saved with domains.

    Parameters
    ----------
    vectors : array of shape (n, d)
        Of the training examples; a memory map is read in pieces.
    labels : int array of shape (n,)
        Domain of each; those at -1 set no threshold, but count in the share expected of new ones.
    centroids : array of shape (P, d)
        Prototypes.
    centroid_domains : int array of shape (P,), optional
        Domain of each prototype; prototype i is that of domain i if not given.
    m : int, optional
        Number of domains, where the last ones have no prototype.
    level : float
        Share of a domain's training examples that is not far.

    Returns
    -------
    dict
        JSON values only: ``level``; ``thresholds`` (m,), the distance from which an example is
        far; ``counts`` (m,) and ``quantiles`` ``{"at", "by_domain" (m, 8)}`` of the training
        examples in a domain; ``assigned`` (m,), ``far_share`` and ``nearest`` (201 quantiles),
        of all of them: the reference for new examples. Under ``domains.quality["distances"]``
        it is read by :func:`assign_new`, :func:`far_eval` and :func:`drift_report`.

    Notes
    -----
    An example is far that lies beyond one of two limits, each of which takes half of the false
    alarms that the level allows: that of its domain, since a distance that is far for a tight
    domain is near for a wide one, and that of all training examples together, since a wide
    domain that gathers the rest would let anything in. A limit is the conformal quantile, the
    ``ceil((n + 1) * level)``-th smallest distance, which a further example of the same kind
    exceeds with a probability of at most 1 - level. A domain of fewer than 400 examples has too
    few beyond it: it borrows the quantile of distance / typical distance from all, times its own
    typical distance, which leans towards the overall one the fewer examples there are.

    Examples
    --------
    >>> X = np.random.default_rng(0).normal(size=(1000, 8))
    >>> profile = distance_profile(X, np.zeros(1000, int), X.mean(axis=0, keepdims=True))
    >>> [round(t, 1) for t in profile["thresholds"]], 0 < profile["far_share"] < 0.01
    ([4.6], True)
    """
    vectors = _matrix("vectors", vectors)
    centroids = _matrix("centroids", centroids).astype(np.float32)
    owners = _owners(centroids, centroid_domains)
    labels = np.asarray(labels, dtype=np.int64)
    if len(labels) != len(vectors):
        what = f"{len(labels)} for {len(vectors)} vectors"
        raise InputError("labels", what, "give one per training example")
    if not 0.5 <= (level := as_number("level", level, "use 0.99")) < 1:
        raise InputError("level", f"{level} is not a share that is near", "use 0.99")
    m = max(int(owners.max()) + 1, 0 if m is None else as_count("m", m))
    if not (labels >= 0).any():
        raise InputError("labels", "no example is in any domain", "regroup again")
    placed, distances = _leave_one_out(vectors, labels, centroids, owners)
    finite = np.isfinite(distances)
    used = (labels >= 0) & finite
    thresholds = _thresholds(placed[used], distances[used], m, level)
    inside = [distances[used & (placed == i)] for i in range(m)]
    return {
        "level": level,
        "metric": "euclidean",
        "thresholds": _rounded(thresholds),
        "counts": [len(own) for own in inside],
        "quantiles": {
            "at": list(_AT),
            "by_domain": [_rounded(np.quantile(d, _AT)) if len(d) else None for d in inside],
        },
        "assigned": np.bincount(placed, minlength=m).tolist(),
        "far_share": float(np.mean(_is_far(distances, placed, thresholds))),
        "nearest": _rounded(np.quantile(distances[finite], np.linspace(0, 1, 201))),
    }


def _leave_one_out(
    vectors: NDArray[Any],
    labels: NDArray[np.int64],
    centroids: NDArray[np.float32],
    owners: NDArray[np.int64],
) -> tuple[NDArray[np.int64], Floats]:
    """Domain and distance of every training example, as if it had not made its prototype."""
    near, gaps = nearest_prototypes(vectors, centroids, k=2)
    distances: Floats = gaps.astype(np.float64)
    first = near[:, 0]
    made = owners[first] == labels  # it is among those whose mean the prototype is
    members = np.bincount(first[made], minlength=len(centroids))[first]
    with np.errstate(divide="ignore", invalid="ignore"):
        factor = np.where(made, members / np.maximum(members - 1, 0), 1.0)
    own = np.where(factor < np.inf, distances[:, 0] * np.minimum(factor, 1e9), np.inf)
    second = distances[:, 1] < own  # without it, another prototype is nearer
    placed = owners[np.where(second, near[:, 1], first)]
    return placed, np.minimum(own, distances[:, 1])


def _thresholds(placed: NDArray[np.int64], distances: Floats, m: int, level: float) -> Floats:
    if not len(distances):
        raise InputError("vectors", "a single example sets no distance", "regroup more examples")
    middle = float(np.median(distances))
    inside = [distances[placed == i] for i in range(m)]
    typical = np.array(
        [
            (len(d) * np.median(d) + _PRIOR * middle) / (len(d) + _PRIOR) if len(d) else middle
            for d in inside
        ]
    )
    typical = np.maximum(typical, np.finfo(np.float64).tiny)
    level = (1 + level) / 2  # half of the false alarms to each of two limits
    stretch = _conformal_quantile(distances / typical[placed], level)
    limits = [
        _conformal_quantile(d, level) if len(d) >= _OWN else stretch * t
        for d, t in zip(inside, typical, strict=True)
    ]
    limits = np.minimum(np.array(limits), _conformal_quantile(distances, level))
    thresholds: Floats = np.maximum(limits, _LEAST * middle)
    return thresholds


def _conformal_quantile(values: Floats, level: float) -> float:
    # The largest value where there are too few for the level.
    rank = min(int(np.ceil((len(values) + 1) * level)), len(values))
    return float(np.partition(values, rank - 1)[rank - 1])


def _is_far(
    distances: Floats, labels: NDArray[np.integer[Any]], thresholds: Floats
) -> NDArray[np.bool_]:
    # Thresholds are saved with six digits: equal must stay equal.
    return np.asarray(distances > thresholds[labels] * (1 + 2e-6) + 1e-6, dtype=np.bool_)


class Placed(NamedTuple):
    """New examples in domains, from :func:`assign_new`; ``far`` is None without a profile."""

    labels: NDArray[np.int32]
    distances: NDArray[np.float32]
    far: NDArray[np.bool_] | None


def assign_new(domains: Domains, vectors: ArrayLike | Dataset) -> Placed:
    """Place new examples in existing domains, without refitting: the nearest prototype decides.

    Parameters
    ----------
    domains : Domains
        With centroids; with ``quality["distances"]`` for `far`.
    vectors : array of shape (n, d), or datasets.Dataset
        From the embedder of the domains. Or rows, which it then embeds: the column that it read
        of the corpus. One that learns from the corpus needs :meth:`Domains.attach`.

    Returns
    -------
    labels : ndarray of int32, shape (n,)
        Domain of the nearest prototype.
    distances : ndarray of float32, shape (n,)
        Euclidean distance to it.
    far : ndarray of bool, shape (n,), or None
        Farther than 99 % of the training examples, by the limits of
        :func:`distance_profile`; None where the domains carry no distance profile.

    Raises
    ------
    InputError
        Domains that were not made from vectors, vectors of another length, or rows without the
        column that was embedded.

    Examples
    --------
    >>> from rbkit.regroup import Domains
    >>> domains = Domains(["low", "high"], [0, 1], [0], centroids=[[0.0, 0.0], [4.0, 0.0]])
    >>> assign_new(domains, [[1.0, 0.0], [4.0, 3.0]])
    Placed(labels=array([0, 1], dtype=int32), distances=array([1., 3.], dtype=float32), far=None)
    """
    if domains.centroids is None:
        what = f"made by {domains.method.get('name', 'hand')}, without vectors to compare with"
        raise InputError("domains", what, "regroup with an embedder and a clusterer")
    centroids = _matrix("centroids", domains.centroids).astype(np.float32)
    owners = _owners(centroids, domains.centroid_domains)
    if hasattr(vectors, "column_names"):
        from rbkit.regroup.preparation import embed_new  # it brings scikit-learn

        vectors = embed_new(vectors, domains.method.get("embedder") or {}, domains.material)
    prototypes, gaps = nearest_prototypes(_matrix("vectors", vectors), centroids)
    labels, distances = owners[prototypes[:, 0]].astype(np.int32), gaps[:, 0]
    profile = domains.quality.get("distances")
    far = None
    if profile is not None:
        thresholds = np.asarray(profile["thresholds"], dtype=np.float64)
        if len(thresholds) != domains.m:
            what = f"profile of {len(thresholds)} domains for {domains.m}"
            remedy = "make it again with distance_profile"
            raise InputError("quality['distances']", what, remedy)
        far = _is_far(distances.astype(np.float64), labels, thresholds)
    return Placed(labels, distances, far)


def assign_with_profile(domains: Domains, vectors: ArrayLike) -> tuple[Placed, dict[str, Any]]:
    """As :func:`assign_new`, for domains that must carry a distance profile; also return it."""
    placed = assign_new(domains, vectors)
    profile = domains.quality.get("distances")
    if profile is None:
        what = "no distances of the training examples are saved with them"
        raise InputError("domains", what, "store distance_profile(...) in quality['distances']")
    return placed, profile


def nearest_prototypes(
    vectors: NDArray[Any], centroids: NDArray[np.float32], k: int = 1
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the `k` nearest prototypes of every row and their Euclidean distances, (n, k) each.

    Fewer than `k` prototypes leave columns of -1 and infinity.
    """
    import faiss

    if vectors.shape[1] != centroids.shape[1]:
        what = f"{vectors.shape[1]} numbers each, but the prototypes have {centroids.shape[1]}"
        raise InputError("vectors", what, "use the embedder of the domains")
    centre = centroids.mean(axis=0, dtype=np.float64).astype(np.float32)
    index: Any = faiss.IndexFlatL2(centroids.shape[1])
    index.add(np.ascontiguousarray(centroids - centre))
    near = np.empty((len(vectors), k), dtype=np.int64)
    distances = np.full((len(vectors), k), np.inf, dtype=np.float32)
    for start in range(0, len(vectors), _ROWS):
        rows = slice(start, start + _ROWS)
        piece = np.asarray(vectors[rows], dtype=np.float32)
        if not np.isfinite(piece).all():
            raise InputError("vectors", "NaN or infinity in them", "embed these examples again")
        near[rows] = index.search(np.ascontiguousarray(piece - centre), k)[1]
        for j in range(k):  # faiss gives |x|^2 - 2xc + |c|^2, which is noise for near copies
            there = near[rows, j] >= 0
            gap = piece[there] - centroids[near[rows, j][there]]
            distances[rows, j][there] = np.sqrt(np.einsum("nd,nd->n", gap, gap))
    return near, distances


def _matrix(where: str, values: ArrayLike) -> NDArray[Any]:
    # A memory map or shards stay on disk.
    array: Any = values if hasattr(values, "chunks") else np.asarray(values)
    if array.ndim != 2 or array.dtype.kind not in "fiu":
        what = f"shape {array.shape} and type {array.dtype}"
        raise InputError(where, what, "give numbers of shape (n, d)")
    matrix: NDArray[Any] = array
    return matrix


def _owners(centroids: NDArray[Any], centroid_domains: ArrayLike | None) -> NDArray[np.int64]:
    if centroid_domains is None:
        return np.arange(len(centroids))
    owners = np.asarray(centroid_domains, dtype=np.int64)
    if owners.shape != (len(centroids),) or (owners < 0).any():
        what = f"shape {owners.shape} for {len(centroids)} prototypes"
        raise InputError("centroid_domains", what, "give the domain of every prototype")
    return owners


def _rounded(values: Floats) -> list[float]:
    # Six significant digits: the JSON of a thousand domains stays small.
    return [float(f"{value:.6g}") for value in values.tolist()]


def at_least(k: int, n: int, confidence: float = 0.95) -> float:
    """Return the least share that `k` of `n` agrees with: one-sided Clopper-Pearson bound.

    Examples
    --------
    >>> round(at_least(5, 50), 3), at_least(0, 50), round(at_least(10, 10), 2)
    (0.04, 0.0, 0.74)
    """
    from scipy.stats import beta

    return float(beta.ppf(1 - confidence, k, n - k + 1)) if k else 0.0


@dataclass(frozen=True, eq=False, repr=False)
class FarEval:
    """Which eval examples lie far from all domains, and how q changes if they are kept apart.

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
    """

    names: list[str]
    labels: NDArray[np.int32]
    distances: NDArray[np.float32]
    far: NDArray[np.bool_]
    thresholds: Floats
    level: float = LEVEL

    @property
    def n(self) -> int:
        """Number of eval examples that are in a domain."""
        return int((self.labels >= 0).sum())

    @property
    def expected(self) -> float:
        """Share that would be far if the eval set were of the training set's kind."""
        return 1 - self.level

    @property
    def share(self) -> float:
        """Share of the placed eval examples that are far."""
        return float(self.far[self.labels >= 0].mean()) if self.n else 0.0

    @property
    def certain_share(self) -> float:
        """The least share that the data agree with: 95 % Clopper-Pearson bound."""
        return at_least(int(self.far_sizes.sum()), self.n)

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
        """Report in numbers how many are far, and in which domains most of them are."""
        far = self.far_sizes
        text = (
            f"{far.sum():,} of {self.n:,} eval examples ({self.share:.0%}) lie farther from every "
            f"domain than {self.level:.0%} of the training examples do "
            f"({self.expected:.1%} expected)"
        )
        most = [i for i in np.argsort(-far, kind="stable")[:3] if far[i]]
        where = ", ".join(f"{self.names[i]!r} {far[i]:,} of {self.sizes[i]:,}" for i in most)
        return f"{text}; most in {where}" if most else text

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
            "n": self.n,
            "far": int(self.far_sizes.sum()),
            "share": self.share,
            "certain_share": self.certain_share,
            "expected": self.expected,
            "level": self.level,
            "by_domain": self.far_sizes.tolist(),
            "q": self.q.tolist(),
            "q_apart": self.q_apart.tolist(),
            "q_moved": self._q_moved,
        }

    @property
    def _q_moved(self) -> float:
        """Total variation between q with and without the far examples."""
        return float(np.abs(self.q - self.q_apart).sum() / 2)

    def __repr__(self) -> str:
        return f"FarEval: {self.message()}; keeping them apart moves q by {self._q_moved:.1%} (TV)"

    def _repr_html_(self) -> str:
        far, sizes, q, q_apart = self.far_sizes, self.sizes, self.q, self.q_apart
        rows = "".join(
            f"<tr><td>{escape(self.names[i])}</td><td>{far[i]:,} of {sizes[i]:,}"
            f"</td><td>{q[i]:.1%}</td><td>{q_apart[i]:.1%}</td></tr>"
            for i in np.argsort(-far, kind="stable")
            if far[i]
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
    >>> from rbkit.regroup import Domains
    >>> X = np.random.default_rng(0).normal(size=(400, 8)).astype("float32")
    >>> centre, labels = X.mean(axis=0, keepdims=True), np.zeros(400, int)
    >>> domains = Domains(["all"], labels, labels[:40], centroids=centre,
    ...                   quality={"distances": distance_profile(X, labels, centre)})
    >>> far_eval(domains, X[:40] + 9).share
    1.0
    """
    if vectors is None:
        if domains.material is None:
            raise InputError("vectors", "none given", "give the vectors of the eval examples")
        vectors = domains.material.eval
    placed, profile = assign_with_profile(domains, vectors)
    assert placed.far is not None
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
    )
