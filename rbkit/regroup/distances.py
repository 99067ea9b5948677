"""Does an example belong to any domain? Its distance, against those of the training set.

Every example is measured in the same way: the Euclidean distance to the nearest of all
prototypes. A training example helped to make its prototype and so lies nearer to it than a new
one would; without it (leave-one-out) the prototype stands n / (n - 1) times as far away. With
this correction examples of the training's own kind are *far* one time in a hundred, as the
99 % level says, also in small domains and in many dimensions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rbkit.errors import InputError

if TYPE_CHECKING:
    from rbkit.regroup.domains import Domains

Floats = NDArray[np.float64]

LEVEL = 0.99
_OWN = 400  # training examples from which a domain has a 99.5 % quantile of its own
_PRIOR = 10  # a smaller domain's typical distance counts as much as this many examples of all
_LEAST = 0.1  # of the overall median: in a domain of copies, nearly the same is not far
_ROWS = 65_536  # rows of a memory map that are read at once
_AT = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)


class Placed(NamedTuple):
    """New examples, placed.

    Attributes
    ----------
    labels : ndarray of int32, shape (n,)
        Domain of the nearest prototype.
    distances : ndarray of float32, shape (n,)
        Euclidean distance to it.
    far : ndarray of bool, shape (n,), or None
        Farther than 99 % of the training examples, by the limits of
        :func:`distance_profile`; None where the domains carry no distance profile.
    """

    labels: NDArray[np.int32]
    distances: NDArray[np.float32]
    far: NDArray[np.bool_] | None


def distance_profile(
    vectors: ArrayLike,
    labels: ArrayLike,
    centroids: ArrayLike,
    centroid_domains: ArrayLike | None = None,
    *,
    m: int | None = None,
    level: float = LEVEL,
) -> dict[str, Any]:
    """Summarise how far training examples lie from their prototypes: what to save with domains.

    Parameters
    ----------
    vectors : array of shape (n, d)
        Of the training examples; a memory map is read in pieces.
    labels : int array of shape (n,)
        Domain of each; those at -1 set no threshold, but count in what is expected of new ones.
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
        of all of them: what new examples are compared with. Under ``domains.quality["distances"]``
        it is found by :func:`assign_new`, :func:`far_eval` and :func:`drift_report`.

    Notes
    -----
    An example is far that lies beyond one of two limits, each of which takes half of the false
    alarms that the level allows: that of its domain, since what is far from a tight domain is
    near to a wide one, and that of all training examples together, since a wide domain that
    gathers the rest would let anything in. A limit is the conformal quantile, the
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
    if not 0.5 <= level < 1:
        raise InputError("level", f"{level} is no share that is near", "use 0.99")
    m = max(int(owners.max()) + 1, m or 0)
    if not (labels >= 0).any():
        raise InputError("labels", "no example is in any domain", "regroup again")
    placed, distances = _left_out(vectors, labels, centroids, owners)
    known = (labels >= 0) & np.isfinite(distances)
    thresholds = _thresholds(placed[known], distances[known], m, level)
    inside = [distances[known & (placed == i)] for i in range(m)]
    return {
        "level": level,
        "metric": "euclidean",
        "thresholds": _rounded(thresholds),
        "counts": [len(found) for found in inside],
        "quantiles": {
            "at": list(_AT),
            "by_domain": [_rounded(np.quantile(d, _AT)) if len(d) else None for d in inside],
        },
        "assigned": np.bincount(placed, minlength=m).tolist(),
        "far_share": float(np.mean(_is_far(distances, placed, thresholds))),
        "nearest": _rounded(np.quantile(_finite(distances), np.linspace(0, 1, 201))),
    }


def assign_new(domains: Domains, vectors: ArrayLike) -> Placed:
    """Place new examples in existing domains, without refitting: the nearest prototype decides.

    Parameters
    ----------
    domains : Domains
        With centroids; with ``quality["distances"]`` for `far`.
    vectors : array of shape (n, d)
        From the embedder of the domains.

    Returns
    -------
    Placed
        ``labels, distances, far``.

    Raises
    ------
    InputError
        Domains that were not made from vectors, or vectors of another length.

    Examples
    --------
    >>> from rbkit.regroup.domains import Domains
    >>> domains = Domains(["low", "high"], [0, 1], [0], centroids=[[0.0, 0.0], [4.0, 0.0]])
    >>> assign_new(domains, [[1.0, 0.0], [4.0, 3.0]])
    Placed(labels=array([0, 1], dtype=int32), distances=array([1., 3.], dtype=float32), far=None)
    """
    if domains.centroids is None:
        what = f"made by {domains.method.get('name', 'hand')}, without vectors to compare with"
        raise InputError("domains", what, "regroup with an embedder and a clusterer")
    centroids = _matrix("centroids", domains.centroids).astype(np.float32)
    owners = _owners(centroids, getattr(domains, "centroid_domains", None))
    found = _matrix("vectors", vectors)
    prototypes, distances = nearest_prototypes(found, centroids)
    labels = owners[prototypes[:, 0]].astype(np.int32)
    profile = domains.quality.get("distances")
    far = None
    if profile is not None:
        thresholds = np.asarray(profile["thresholds"], dtype=np.float64)
        if len(thresholds) != domains.m:
            what = f"profile of {len(thresholds)} domains for {domains.m}"
            raise InputError("quality['distances']", what, "make it anew with distance_profile")
        far = _is_far(distances[:, 0].astype(np.float64), labels, thresholds)
    return Placed(labels, distances[:, 0], far)


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
    for rows in _pieces(len(vectors)):
        piece = np.asarray(vectors[rows], dtype=np.float32)
        if not np.isfinite(piece).all():
            raise InputError("vectors", "NaN or infinity in them", "embed these examples again")
        near[rows] = index.search(np.ascontiguousarray(piece - centre), k)[1]
        for j in range(k):  # faiss gives |x|^2 - 2xc + |c|^2, which is noise for near copies
            there = near[rows, j] >= 0
            gap = piece[there] - centroids[near[rows, j][there]]
            distances[rows, j][there] = np.sqrt(np.einsum("nd,nd->n", gap, gap))
    return near, distances


def _left_out(
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
    stretch = _quantile(distances / typical[placed], level)
    found = [
        _quantile(d, level) if len(d) >= _OWN else stretch * t
        for d, t in zip(inside, typical, strict=True)
    ]
    limits = np.minimum(np.array(found), _quantile(distances, level))
    thresholds: Floats = np.maximum(limits, _LEAST * middle)
    return thresholds


def _quantile(values: Floats, level: float) -> float:
    """Conformal quantile; the largest value where there are too few for the level."""
    rank = min(int(np.ceil((len(values) + 1) * level)), len(values))
    return float(np.partition(values, rank - 1)[rank - 1])


def _is_far(
    distances: Floats, labels: NDArray[np.integer[Any]], thresholds: Floats
) -> NDArray[np.bool_]:
    # Thresholds are saved with six digits: equal must stay equal.
    return np.asarray(distances > thresholds[labels] * (1 + 2e-6) + 1e-6, dtype=np.bool_)


def _pieces(n: int) -> Iterator[slice]:
    for start in range(0, n, _ROWS):
        yield slice(start, min(n, start + _ROWS))


def _matrix(where: str, values: ArrayLike) -> NDArray[Any]:
    # What lies on disk stays there: a memory map, or shards.
    found: Any = values if hasattr(values, "chunks") else np.asarray(values)
    if found.ndim != 2 or found.dtype.kind not in "fiu":
        what = f"shape {found.shape} and type {found.dtype}"
        raise InputError(where, what, "give numbers of shape (n, d)")
    matrix: NDArray[Any] = found
    return matrix


def _owners(centroids: NDArray[Any], centroid_domains: ArrayLike | None) -> NDArray[np.int64]:
    if centroid_domains is None:
        return np.arange(len(centroids))
    owners = np.asarray(centroid_domains, dtype=np.int64)
    if owners.shape != (len(centroids),) or (owners < 0).any():
        what = f"shape {owners.shape} for {len(centroids)} prototypes"
        raise InputError("centroid_domains", what, "give the domain of every prototype")
    return owners


def _finite(values: Floats) -> Floats:
    return values[np.isfinite(values)]


def _rounded(values: Sequence[float] | Floats) -> list[float]:
    # Six significant digits: the JSON of a thousand domains stays small.
    return [float(f"{value:.6g}") for value in np.asarray(values).tolist()]
