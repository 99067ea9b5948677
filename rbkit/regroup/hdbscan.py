"""Density clusters: HDBSCAN on UMAP's coordinates, cut again from a tree that is kept."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClusterMixin
from sklearn.utils.validation import check_is_fitted

from rbkit.errors import InputError, RbkitWarning, as_count
from rbkit.regroup.grouping import means
from rbkit.regroup.kmeans import Copies, assign, checked_rows
from rbkit.regroup.umap import Report, project
from rbkit.regroup.ward import leaf_order


class UmapHDBSCAN(ClusterMixin, BaseEstimator):  # type: ignore[misc]
    """HDBSCAN (Campello et al. 2013) on a UMAP of few dimensions, as BERTopic does it.

    On embeddings themselves HDBSCAN calls nearly everything noise, hence the UMAP; k-means
    needs none. The number of clusters follows from the data and `min_cluster_size`, and
    some examples belong to none (-1): see :func:`settle_noise`.

    The slow part, UMAP and the single-linkage tree, is done once and cut for any
    `min_cluster_size` in a third of a second for 50,000 examples. Clusters are numbered along
    the tree, so that neighbours in number are neighbours in density. The seed decides the
    result together with the order of the rows.

    Parameters
    ----------
    min_cluster_size : int or None
        Smaller groups of examples are noise. None: half the square root of
        their number, at least 10: 45 of 8,000 and 112 of 50,000.
    min_samples : int
        Neighbours that make an example dense; more of them make more noise.
    n_components, n_neighbors, min_dist, n_epochs :
        Of UMAP (:func:`project`). More than 50 epochs only look better. Agreement with labels
        does not grow with them, one seed each: NMI 0.919, 0.917 and 0.916 at 30, 50 and 100
        epochs on 50,000 synthetic vectors; 0.41, 0.45, 0.43, 0.42 and 0.43 at 30, 50, 100,
        200 and 500 on the built-in wiki corpus.
    seed : int
    sample : int
        Above this many rows UMAP and HDBSCAN see a random sample of this size; every other
        example has the label of its nearest one there. `min_cluster_size` counts examples of
        the whole corpus all the same. All pairs of the sample are compared: half of 50,000
        took 0.6 of the time, at NMI 0.907 instead of 0.914.
    cache : bool
        Keep UMAP's coordinates on disk.

    Attributes
    ----------
    labels_ : ndarray of int32, shape (n,)
        -1 for noise.
    coordinates_ : ndarray of float32, shape (n, n_components)
    cluster_centers_ : ndarray of float32, shape (k, d)
        Mean vectors of the clusters.
    min_cluster_size_ : int
    anchors_ : ndarray of int32, shape (n,)
        The example in the sample that each one takes its label from.
    tree_ : ndarray of float64, shape (s - 1, 4)
        Single-linkage tree of the sample, in SciPy's format.
    n_features_in_ : int

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(3, 8))[rng.integers(3, size=150)] * 9 + rng.normal(size=(150, 8))
    >>> clusters = UmapHDBSCAN(cache=False).fit(X)
    >>> len(clusters.cluster_centers_), len(set(clusters.cut(20)) - {-1})
    (3, 3)
    """

    def __init__(
        self,
        min_cluster_size: int | None = None,
        *,
        min_samples: int = 10,
        n_components: int = 5,
        n_neighbors: int = 15,
        min_dist: float = 0.0,
        n_epochs: int = 50,
        seed: int = 0,
        sample: int = 25_000,
        cache: bool = True,
    ) -> None:
        self.min_cluster_size = min_cluster_size
        self.min_samples = min_samples
        self.n_components = n_components
        self.n_neighbors = n_neighbors
        self.min_dist = min_dist
        self.n_epochs = n_epochs
        self.seed = seed
        self.sample = sample
        self.cache = cache

    def fit(
        self,
        X: ArrayLike,
        y: None = None,
        *,
        key: str | None = None,
        progress: bool = False,
        on_progress: Report | None = None,
    ) -> Self:
        """Project `X`, shape (n, d), build the tree and cut it.

        Parameters
        ----------
        key, progress, on_progress :
            As in :func:`project`.

        Raises
        ------
        InputError
            `min_cluster_size` below 2, or parameters that UMAP cannot work with.
        ValueError
            NaN or infinity in `X` (scikit-learn's check).
        """
        rows = checked_rows(self, X, reset=True)
        min_samples = as_count("min_samples", self.min_samples, least=None)
        if min_samples < 1:
            raise InputError("min_samples", f"{min_samples} is too few", "choose at least 1")
        size = self.min_cluster_size
        usual = max(10, round(len(rows) ** 0.5 / 2))
        self.min_cluster_size_ = usual if size is None else _checked_size(size)
        report: Report = on_progress or (lambda done, what: None)
        placed = project(
            rows,
            n_components=self.n_components,
            n_neighbors=self.n_neighbors,
            min_dist=self.min_dist,
            n_epochs=self.n_epochs,
            seed=self.seed,
            sample=self.sample,
            cache=self.cache,
            key=key,
            progress=progress,
            on_progress=lambda done, what: report(0.9 * done, what),
        )
        self.coordinates_, self.anchors_ = placed.coordinates, placed.anchors
        report(0.9, "building the tree")
        seen = placed.seen
        self.tree_ = _single_linkage(self.coordinates_[seen], min_samples)
        order = leaf_order(self.tree_[:, :2].astype(np.int64))
        self._place = np.empty(len(order), dtype=np.int64)  # of every leaf, from left to right
        self._place[order] = np.arange(len(order))
        self._position = np.searchsorted(seen, self.anchors_)
        self._swept: dict[int, dict[str, Any]] = {}
        self._copies = Copies.of(rows)
        self.labels_ = self.cut(self.min_cluster_size_)
        many = np.bincount(self._copies.number)
        if many.max() >= self.min_cluster_size_:
            raw = self._raw_labels(self.min_cluster_size_)[self._copies.number == many.argmax()]
            if (spread := len(np.unique(raw[raw >= 0]))) > 1:
                what = f"{many.max():,} examples have identical vectors"
                message = f"{what}, which UMAP spread over {spread} clusters; they are put in one"
                warnings.warn(message, RbkitWarning, stacklevel=2)
        self.cluster_centers_ = means(rows, self.labels_, int(self.labels_.max()) + 1)
        report(1.0, "done")
        return self

    def cut(self, min_cluster_size: int) -> NDArray[np.int32]:
        """Return the labels for another `min_cluster_size`, as a new fit would give them.

        Returns
        -------
        ndarray of int32, shape (n,)
            -1 for noise.
        """
        check_is_fitted(self)
        labels = _with_copies(self._raw_labels(_checked_size(min_cluster_size)), self._copies)
        # A cluster of nothing but copies of others' vectors is gone: no gap stays behind.
        number = np.append(np.cumsum(np.bincount(labels[labels >= 0]) > 0) - 1, -1)
        return number.astype(np.int32)[labels]

    def _raw_labels(self, min_cluster_size: int) -> NDArray[np.int32]:
        """Cut the tree, in which UMAP has placed copies of one vector apart."""
        s, n = len(self._place), len(self.anchors_)
        labels = _condensed_labels(self.tree_, max(2, round(min_cluster_size * s / n)))
        first = np.full(int(labels.max(initial=-1)) + 1, s)
        np.minimum.at(first, labels[labels >= 0], self._place[labels >= 0])
        number = np.append(np.argsort(np.argsort(first)), -1).astype(np.int32)
        return number[labels][self._position]

    def sweep(self, sizes: Sequence[int]) -> list[dict[str, Any]]:
        """Cut with every `min_cluster_size` of `sizes`.

        Returns
        -------
        list of dict
            ``{"min_cluster_size", "k", "noise_share", "largest_share"}``; the last two are
            shares of all examples. :func:`cliff` looks for a sudden fall of k in it.
        """
        return [self._row(_checked_size(size)) for size in sizes]

    def size_for(self, k: int) -> int:
        """Return the `min_cluster_size` whose number of clusters comes nearest to `k`.

        Of several the one with the least noise, then the smallest. The search is coarse
        first, then between the two sizes on either side of `k`: about twenty cuts.
        """
        check_is_fitted(self)
        n, k = len(self.anchors_), as_count("k", k, least=1)
        sizes = sorted({*np.geomspace(2, max(2, n // 2), 12).round().astype(int).tolist()})
        rows = self.sweep(sizes)
        # Sizes thin the clusters out, if not strictly so: the last that still gives k of them.
        low = max((row["min_cluster_size"] for row in rows if row["k"] >= k), default=sizes[0])
        high = min((size for size in sizes if size > low), default=low)
        while high - low > 1:
            middle = (low + high) // 2
            rows.append(self._row(middle))
            low, high = (middle, high) if rows[-1]["k"] >= k else (low, middle)
        best = min(
            rows, key=lambda row: (abs(row["k"] - k), row["noise_share"], row["min_cluster_size"])
        )
        return int(best["min_cluster_size"])

    def predict(self, X: ArrayLike) -> NDArray[np.int32]:
        """Return the cluster whose mean is nearest to every row of `X`: int32, shape (n,).

        New examples are never noise.

        Raises
        ------
        InputError
            There is no cluster.
        """
        check_is_fitted(self)
        rows = checked_rows(self, X, reset=False)
        if not len(self.cluster_centers_):
            what = f"min_cluster_size={self.min_cluster_size_} left every example as noise"
            raise InputError("UmapHDBSCAN", what, "fit with a smaller one")
        return assign(rows, self.cluster_centers_)[0]

    def _row(self, size: int) -> dict[str, Any]:
        if size not in self._swept:
            labels = self.cut(size)
            counts = np.bincount(labels + 1)
            self._swept[size] = {
                "min_cluster_size": size,
                "k": len(counts) - 1,
                "noise_share": float(counts[0] / len(labels)),
                "largest_share": float(counts[1:].max(initial=0) / len(labels)),
            }
        return dict(self._swept[size])


def _checked_size(min_cluster_size: Any) -> int:
    size = as_count("min_cluster_size", min_cluster_size, least=None)
    if size < 2:
        what = f"{size} examples do not make a cluster"
        raise InputError("min_cluster_size", what, "choose at least 2")
    return size


def _with_copies(labels: NDArray[np.int32], copies: Copies) -> NDArray[np.int32]:
    """Put all copies of a vector into the cluster that most of them are in, if any is in one."""
    if copies.different == len(labels):
        return labels
    inside = np.flatnonzero(labels >= 0)
    pairs, votes = np.unique(
        np.stack([copies.number[inside], labels[inside]]), axis=1, return_counts=True
    )
    of_vector = np.full(copies.different, -1, dtype=np.int32)
    order = np.argsort(votes, kind="stable")  # the last entry stands: the one with most votes
    of_vector[pairs[0, order]] = pairs[1, order]
    return of_vector[copies.number]


def _single_linkage(Y: NDArray[np.float32], min_samples: int) -> NDArray[np.float64]:
    if len(Y) < 3:
        # Too few for HDBSCAN; a tree without a cluster of two.
        return np.array([[0, 1, 0, 2]], dtype=np.float64)[: len(Y) - 1]
    from hdbscan import HDBSCAN

    # One process: starting more takes longer than what they do.
    engine = HDBSCAN(min_samples=min(min_samples, len(Y) - 1), core_dist_n_jobs=1).fit(Y)
    tree: NDArray[np.float64] = engine.single_linkage_tree_.to_numpy()
    return tree


def _condensed_labels(tree: NDArray[np.float64], min_cluster_size: int) -> NDArray[np.int64]:
    """Cut a single-linkage tree by excess of mass, the last step of `HDBSCAN.fit`.

    hdbscan has no public way to do this without a fit, only a private module; it is used in
    this function alone.
    """
    if len(tree) < 2:
        return np.full(len(tree) + 1, -1)
    try:
        from hdbscan._hdbscan_tree import compute_stability, condense_tree, get_clusters

        condensed = condense_tree(tree, min_cluster_size)
        labels: NDArray[np.int64] = get_clusters(condensed, compute_stability(condensed))[0]
    except (ImportError, TypeError) as error:
        what = f"this version of hdbscan cuts its trees in another way ({error})"
        raise InputError("hdbscan", what, 'pip install "hdbscan==0.8.44"') from error
    return labels
