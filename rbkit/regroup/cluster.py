"""k-means with scikit-learn's conventions and faiss's speed (R&B, Algorithm 2)."""

from __future__ import annotations

import sys
import warnings
from typing import Any, Self

import faiss
import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClusterMixin, TransformerMixin
from sklearn.cluster import kmeans_plusplus
from sklearn.metrics.pairwise import euclidean_distances
from sklearn.utils.validation import check_is_fitted, validate_data

from rbkit.errors import InputError, RbkitWarning

if sys.platform == "darwin":
    # torch and faiss each bring their own OpenMP; with both awake faiss crashes on macOS
    # (faiss-wheels issue 73).
    faiss.omp_set_num_threads(1)

_START_ROWS = 20


class KMeans(TransformerMixin, ClusterMixin, BaseEstimator):  # type: ignore[misc]
    """Lloyd's k-means: 10,000 vectors into 32 domains in a third of a second.

    The partition depends on the vectors and the seed, not on the order of the rows;
    clusters are numbered from the largest to the smallest.

    Parameters
    ----------
    n_clusters : int
    seed : int
    n_init : int
        Restarts from other k-means++ centroids; the one with the least inertia is kept.
    n_iter : int
        Iterations per restart.
    spherical : bool
        Keep centroids at unit length. Off by default, also for unit vectors: with
        background examples between the clusters it costs quality, since a centroid may no
        longer shrink towards the origin and gather them.
    max_train : int
        Above this many rows, centroids are found on a random subset of this size; every
        row is assigned all the same.

    Attributes
    ----------
    cluster_centers_ : ndarray of float32, shape (n_clusters, d)
    labels_ : ndarray of int32, shape (n,)
    inertia_ : float
        Sum of squared distances to the assigned centroids.
    n_features_in_ : int

    Examples
    --------
    >>> X = np.array([[0.0, 0.1], [0.0, 0.2], [0.0, 0.0], [9.0, 9.1], [9.0, 9.2]])
    >>> kmeans = KMeans(n_clusters=2).fit(X)
    >>> kmeans.labels_.tolist(), kmeans.predict([[8.0, 8.0]]).tolist()
    ([0, 0, 0, 1, 1], [1])
    """

    def __init__(
        self,
        n_clusters: int = 16,
        *,
        seed: int = 0,
        n_init: int = 3,
        n_iter: int = 25,
        spherical: bool = False,
        max_train: int = 500_000,
    ) -> None:
        self.n_clusters = n_clusters
        self.seed = seed
        self.n_init = n_init
        self.n_iter = n_iter
        self.spherical = spherical
        self.max_train = max_train

    def fit(self, X: ArrayLike, y: None = None) -> Self:
        """Find the centroids of `X`, shape (n, d).

        Raises
        ------
        InputError
            More clusters than rows.
        ValueError
            NaN or infinity in `X` (scikit-learn's check).
        """
        rows: NDArray[Any] = validate_data(self, X, dtype=[np.float32, np.float64])
        n = len(rows)
        if not 1 <= self.n_clusters <= n:
            what = f"{self.n_clusters} domains asked of n_samples={n} training examples"
            raise InputError("k (n_clusters)", what, f"choose 1 <= k <= {n}")
        # Centred: faiss computes |x|^2 - 2xc + |c|^2 in float32, which loses the distance
        # between vectors that all lie far from the origin. Cosines need the origin.
        offset = np.zeros(rows.shape[1]) if self.spherical else rows.mean(axis=0, dtype=np.float64)
        Z = np.ascontiguousarray(rows - offset, dtype=np.float32)
        centers = self._train(_canonical(Z))
        labels, distances = _nearest(Z, centers)
        centers, labels, distances = _fill_empty(Z, centers, labels, distances)
        largest_first = np.argsort(-np.bincount(labels, minlength=len(centers)), kind="stable")
        rank = np.argsort(largest_first)
        self.cluster_centers_ = (centers[largest_first] + offset).astype(np.float32)
        self.labels_ = rank[labels].astype(np.int32)
        self.inertia_ = float(distances.sum(dtype=np.float64))
        return self

    def predict(self, X: ArrayLike) -> NDArray[np.int32]:
        """Return the nearest centroid of every row of `X`: int32, shape (n,)."""
        check_is_fitted(self)
        rows = validate_data(self, X, dtype=[np.float32, np.float64], reset=False)
        return assign(rows, self.cluster_centers_)[0]

    def transform(self, X: ArrayLike) -> NDArray[np.floating[Any]]:
        """Return the distances to all centroids, shape (n, n_clusters), in the type of `X`."""
        check_is_fitted(self)
        rows = validate_data(self, X, dtype=[np.float32, np.float64], reset=False)
        distances: NDArray[np.floating[Any]] = euclidean_distances(rows, self.cluster_centers_)
        return distances

    @property
    def _n_features_out(self) -> int:
        return len(self.cluster_centers_)

    def _train(self, Z: NDArray[np.float32]) -> NDArray[np.float32]:
        rng = np.random.default_rng(self.seed)
        per_centroid = max(1, -(-self.max_train // self.n_clusters))
        best: Any = None
        for _ in range(self.n_init):
            engine: Any = faiss.Kmeans(
                Z.shape[1],
                self.n_clusters,
                niter=self.n_iter,
                seed=int(rng.integers(1, 2**31)),
                spherical=self.spherical,
                # By default faiss trains on 256 rows per centroid, and prints a complaint
                # on stderr below 39.
                max_points_per_centroid=per_centroid,
                min_points_per_centroid=1,
            )
            engine.train(Z, init_centroids=self._start(Z, rng))
            if best is None or engine.obj[-1] < best.obj[-1]:
                best = engine
        return np.array(best.centroids, dtype=np.float32)

    def _start(self, Z: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
        """Return starting centroids by k-means++ (Arthur and Vassilvitskii 2007)."""
        # Random rows, faiss's way, miss whole groups where groups lie far apart. A few rows
        # per centroid are enough to see the groups, and keep this cheaper than the rest.
        size = min(len(Z), max(1_000, _START_ROWS * self.n_clusters))
        rows = np.sort(rng.choice(len(Z), size, replace=False))
        state = int(rng.integers(2**31))
        centers: NDArray[np.float32] = kmeans_plusplus(
            Z[rows], self.n_clusters, random_state=state, n_local_trials=1
        )[0]
        return np.ascontiguousarray(centers, dtype=np.float32)


def assign(
    X: NDArray[np.floating[Any]], centers: NDArray[np.float32]
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Return the nearest of `centers` for every row of `X`, and the squared distance to it.

    Parameters
    ----------
    X : ndarray of shape (n, d)
    centers : ndarray of shape (m, d)

    Returns
    -------
    labels : ndarray of int32, shape (n,)
    distances : ndarray of float32, shape (n,)

    Examples
    --------
    >>> labels, distances = assign(np.array([[0.0], [7.0]]), np.array([[1.0], [5.0]]))
    >>> labels.tolist(), distances.tolist()
    ([0, 1], [1.0, 4.0])
    """
    offset = centers.mean(axis=0, dtype=np.float64)
    return _nearest((X - offset).astype(np.float32), (centers - offset).astype(np.float32))


def _nearest(
    Z: NDArray[np.float32], centers: NDArray[np.float32]
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    index: Any = faiss.IndexFlatL2(Z.shape[1])
    index.add(np.ascontiguousarray(centers))
    distances, labels = index.search(np.ascontiguousarray(Z), 1)
    return labels.ravel().astype(np.int32), distances.ravel().clip(min=0)


def _canonical(Z: NDArray[np.float32]) -> NDArray[np.float32]:
    # Sorted by content, so that the seed picks the same starting points in a shuffled corpus.
    rows = Z.view(np.dtype((np.void, Z.dtype.itemsize * Z.shape[1]))).ravel()
    return np.ascontiguousarray(Z[np.argsort(rows)])


def _fill_empty(
    Z: NDArray[np.float32],
    centers: NDArray[np.float32],
    labels: NDArray[np.int32],
    distances: NDArray[np.float32],
) -> tuple[NDArray[np.float32], NDArray[np.int32], NDArray[np.float32]]:
    """Move every empty centroid onto the row farthest from its own."""
    while (empty := np.setdiff1d(np.arange(len(centers)), labels)).size:
        worst = int(np.argmax(distances))
        if distances[worst] <= 1e-12:  # every row sits on a centroid already
            what = f"{empty.size} of {len(centers)} domains are empty"
            advice = f"the examples have only {len(centers) - empty.size} different vectors"
            warnings.warn(f"KMeans: {what}; {advice}", RbkitWarning, stacklevel=4)
            break
        centers[empty[0]] = Z[worst]
        labels, distances = _nearest(Z, centers)
    return centers, labels, distances
