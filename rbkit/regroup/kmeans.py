"""k-means with scikit-learn's conventions and faiss's speed (R&B, Algorithm 2)."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self

import faiss
import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClusterMixin, TransformerMixin
from sklearn.cluster import kmeans_plusplus
from sklearn.metrics.pairwise import euclidean_distances
from sklearn.utils.validation import check_is_fitted, validate_data

from rbkit.errors import InputError, RbkitWarning, as_count

if sys.platform == "darwin":
    # torch and faiss each bring their own OpenMP; with both awake faiss crashes on macOS
    # (faiss-wheels issue 73).
    faiss.omp_set_num_threads(1)

_START_ROWS = 20
# Rows handled at once, so that vectors on disk are never all in memory: 100 MB at 384 numbers.
_CHUNK = 65_536
_LARGEST = 1e12  # of a vector's numbers: the sum of a corpus' squared distances stays in float32


class KMeans(TransformerMixin, ClusterMixin, BaseEstimator):  # type: ignore[misc]
    """Lloyd's k-means: 10,000 vectors into 32 domains in a third of a second.

    The partition depends on the vectors and the seed, not (up to `max_train` rows) on the
    order of the rows; clusters are numbered from the largest to the smallest.

    Vectors may stay on disk: a memory map or :class:`~rbkit.regroup.shards.ShardedVectors`,
    also of float16, is read chunk by chunk, and only `max_train` rows of it are held.

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
        row is assigned all the same. For 1,000 domains 256 rows per centroid are enough.

    Attributes
    ----------
    cluster_centers_ : ndarray of float32, shape (n_clusters, d)
        Fewer where fewer vectors differ: copies of a vector are always in one cluster.
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
            More clusters than rows, or numbers so large that their squares are not finite.
        ValueError
            NaN or infinity in `X` (scikit-learn's check).
        """
        rows = checked_rows(self, X, reset=True)
        n = len(rows)
        k = self._check_options(n)
        copies: Copies | None = Copies.of(rows)
        assert copies is not None
        different = copies.different
        if k > different:
            what = f"{k - different} of {k} domains are empty"
            advice = f"the examples have only {different} different vectors"
            warnings.warn(f"KMeans: {what}; {advice}", RbkitWarning, stacklevel=2)
        # Centred: faiss computes |x|^2 - 2xc + |c|^2 in float32, which loses the distance
        # between vectors that all lie far from the origin. Cosines need the origin.
        offset = np.zeros(rows.shape[1]) if self.spherical else _mean(rows)
        if k < different == n:
            copies = None  # there are none, and of a large corpus their numbers take memory
        if k >= different:
            assert copies is not None
            # Every vector is a centroid; training could only put two of them on one spot.
            centers = _centred(np.asarray(rows[np.sort(copies.first)]), offset)
            labels, distances = _nearest_to(rows, centers, offset)
        else:
            subset = _subset(rows, self.max_train, self.seed)
            centers = self._train(_canonical(_centred(subset, offset)), k)
            labels, distances = _nearest_to(rows, centers, offset)
        if copies is not None:
            labels, distances = copies.share(labels), copies.share(distances)
        centers, labels, distances = _fill_empty(rows, offset, centers, labels, distances)
        largest_first = np.argsort(-np.bincount(labels, minlength=len(centers)), kind="stable")
        rank = np.argsort(largest_first)
        self.cluster_centers_ = (centers[largest_first] + offset).astype(np.float32)
        self.labels_ = rank[labels].astype(np.int32)
        self.inertia_ = float(distances.sum(dtype=np.float64))
        return self

    def predict(self, X: ArrayLike) -> NDArray[np.int32]:
        """Return the nearest centroid of every row of `X`: int32, shape (n,)."""
        check_is_fitted(self)
        return assign(checked_rows(self, X, reset=False), self.cluster_centers_)[0]

    def transform(self, X: ArrayLike) -> NDArray[np.floating[Any]]:
        """Return the distances to all centroids, shape (n, n_clusters), in the type of `X`."""
        check_is_fitted(self)
        rows = validate_data(self, X, dtype=[np.float32, np.float64], reset=False)
        distances: NDArray[np.floating[Any]] = euclidean_distances(rows, self.cluster_centers_)
        return distances

    @property
    def _n_features_out(self) -> int:
        return len(self.cluster_centers_)

    def _check_options(self, n: int) -> int:
        """Return the number of clusters, once all options are what they must be."""
        for name, least in {"seed": 0, "n_init": 1, "n_iter": 1, "max_train": 1}.items():
            as_count(name, getattr(self, name), least=least)
        k = as_count("k (n_clusters)", self.n_clusters, remedy=f"choose 1 <= k <= {n}")
        if not 1 <= k <= n:
            what = f"{k} domains asked of n_samples={n} training examples"
            raise InputError("k (n_clusters)", what, f"choose 1 <= k <= {n}")
        return k

    def _train(self, Z: NDArray[np.float32], k: int) -> NDArray[np.float32]:
        rng = np.random.default_rng(int(self.seed))
        per_centroid = max(1, -(-int(self.max_train) // k))
        best: Any = None
        for _ in range(int(self.n_init)):
            engine: Any = faiss.Kmeans(
                Z.shape[1],
                k,
                niter=int(self.n_iter),
                seed=int(rng.integers(1, 2**31)),
                spherical=self.spherical,
                # By default faiss trains on 256 rows per centroid, and prints a complaint
                # on stderr below 39.
                max_points_per_centroid=per_centroid,
                min_points_per_centroid=1,
            )
            engine.train(Z, init_centroids=self._start(Z, k, rng))
            if best is None or engine.obj[-1] < best.obj[-1]:
                best = engine
        return np.array(best.centroids, dtype=np.float32)

    def _start(
        self, Z: NDArray[np.float32], k: int, rng: np.random.Generator
    ) -> NDArray[np.float32]:
        """Return starting centroids by k-means++ (Arthur and Vassilvitskii 2007)."""
        # Random rows, faiss's way, miss whole groups where groups lie far apart. A few rows
        # per centroid are enough to see the groups, and keep this cheaper than the rest.
        size = min(len(Z), max(1_000, _START_ROWS * k))
        rows = np.sort(rng.choice(len(Z), size, replace=False))
        state = int(rng.integers(2**31))
        centers: NDArray[np.float32] = kmeans_plusplus(
            Z[rows], k, random_state=state, n_local_trials=1
        )[0]
        return np.ascontiguousarray(centers, dtype=np.float32)


@dataclass(frozen=True)
class Copies:
    """Which rows are copies of one vector: decided by their bytes, not by a rounded distance.

    Attributes
    ----------
    first : ndarray of int64, shape (different,)
        The first row of each vector.
    number : ndarray of int64, shape (n,)
        Which of them every row is a copy of.
    """

    first: NDArray[np.int64]
    number: NDArray[np.int64]

    @classmethod
    def of(cls, X: Any) -> Copies:
        """Find the copies among the rows of `X`, in memory or on disk."""
        hashes = np.empty(len(X), dtype=np.uint64)
        for start, chunk in _chunks(X):
            hashes[start : start + len(chunk)] = _row_hashes(chunk)
        ordered = np.sort(hashes)
        if (ordered[1:] != ordered[:-1]).all():  # as a rule: then in a fifth of the memory
            del hashes, ordered
            rows = np.arange(len(X))
            return cls(rows, rows)
        _, first, number = np.unique(hashes, return_index=True, return_inverse=True)
        return cls(first, number)

    @property
    def different(self) -> int:
        """Number of different vectors."""
        return len(self.first)

    def share(self, values: NDArray[Any]) -> NDArray[Any]:
        """Give every row what the first copy of its vector has."""
        if self.different == len(values):
            return values
        shared: NDArray[Any] = values[self.first][self.number]
        return shared


def _row_hashes(rows: NDArray[Any]) -> NDArray[np.uint64]:
    """64-bit hashes of the rows; 0.0 and -0.0 are the same number."""
    words = np.ascontiguousarray(rows + rows.dtype.type(0)).view(f"u{rows.dtype.itemsize}")
    if not words.shape[1]:
        return np.zeros(len(words), dtype=np.uint64)
    factors: NDArray[np.uint64]
    factors = np.random.default_rng(0).integers(2**64, size=(words.shape[1],), dtype=np.uint64)
    hashes = np.zeros(len(words), dtype=np.uint64)
    factors |= np.uint64(1)
    for at, factor in enumerate(factors):  # a column at a time: little memory
        mixed = words[:, at].astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        # The low bits of short numbers are all 0, and would stay so in a mere product.
        hashes += (mixed ^ (mixed >> np.uint64(32))) * factor
    return hashes


def vectors_of(X: Any, where: str = "vectors") -> Any:
    """Return vectors of any library, type and device as a float array (n, d), or name the row.

    Arrays on disk (memory maps, :class:`~rbkit.regroup.shards.ShardedVectors`) stay there.

    Raises
    ------
    InputError
        Not numbers, not (n, d), rows of different lengths, and NaN, infinity or a number so
        large that its square is not finite, with the row.

    Examples
    --------
    >>> vectors_of([[1, 2], [3, 4]]).dtype.name
    'float64'
    >>> vectors_of([[1.0, 2.0], [3.0]])
    Traceback (most recent call last):
        ...
    rbkit.errors.InputError: vectors: row 1 has 1 numbers, row 0 has 2; give (n, d) numbers
    """
    remedy = "give (n, d) numbers"
    if not callable(getattr(X, "chunks", None)):
        X = _as_array(X, where, remedy)
    if len(X.shape) != 2:
        raise InputError(where, f"an array of shape {tuple(X.shape)}", remedy)
    for start, chunk in _chunks(X):
        refuse_rows(chunk, where, start)
    return X


def _as_array(X: Any, where: str, remedy: str) -> NDArray[Any]:
    """Return what another library holds as an array of numpy's own floats."""
    try:
        if isinstance(X, np.ma.MaskedArray):
            X = np.ma.filled(X.astype(np.float64), np.nan)
        if hasattr(X, "detach"):  # torch: also on a device, with a gradient, or in bfloat16
            X = X.detach().cpu()
            X = X.to_dense() if X.layout is not None and "sparse" in str(X.layout) else X
            X = X.float() if str(X.dtype) in _TORCH_ONLY else X
        elif hasattr(X, "toarray"):  # scipy's sparse ones
            X = X.toarray()
        elif type(X).__module__.partition(".")[0] == "cupy":
            X = X.get()
        given = np.asanyarray(X)
        kind = given.dtype.kind
        if kind in "cMm" or given.dtype.names:
            raise InputError(where, f"not vectors ({given.dtype})", remedy)
        if kind in "SU":
            raise TypeError(f"they are {given.dtype}")
        if kind == "f" and given.dtype.itemsize <= 8:
            return given if isinstance(given, np.memmap) else np.asarray(given)
        # Integers of up to 16 bits fit into float32; JAX's bfloat16 is of kind V.
        small = (kind in "biu" and given.dtype.itemsize <= 2) or kind == "V"
        return np.asarray(given).astype(np.float32 if small else np.float64)
    except InputError:
        raise
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise InputError(where, _faulty_row(X, error), remedy) from error


_TORCH_ONLY = ("torch.bfloat16", "torch.float8_e4m3fn", "torch.float8_e5m2")


def _faulty_row(X: Any, error: Exception) -> str:
    """Say which row of `X` does not become numbers."""
    length: int | None = None
    try:
        rows = X.to_numpy() if hasattr(X, "iloc") else X
        for at, row in enumerate(rows):
            try:
                numbers = np.asarray(row, dtype=np.float64)
            except (TypeError, ValueError, OverflowError):
                return f"row {at} is not numbers ({str(row)[:40]})"
            if numbers.ndim != 1:
                return f"row {at} is not a row of numbers ({str(row)[:40]})"
            length = len(numbers) if length is None else length
            if len(numbers) != length:
                return f"row {at} has {len(numbers)} numbers, row 0 has {length}"
    except TypeError:
        pass  # it has no rows
    return f"not vectors ({str(error).splitlines()[0][:120]})"


def refuse_rows(rows: NDArray[Any], where: str, start: int = 0) -> None:
    """Raise an InputError for the first row that is not finite, or too large to be squared.

    A finite number whose square overflows float32 ends the process inside faiss.
    """
    most = min(_LARGEST, float(np.finfo(rows.dtype).max)) if rows.dtype.kind == "f" else _LARGEST
    with np.errstate(invalid="ignore"):
        good = np.abs(rows).max(axis=1, initial=0) <= most
    if not good.all():
        at = int(np.argmin(good))
        worst = np.abs(rows[at]).max()
        what = f"{worst:.0e}" if np.isfinite(worst) else "NaN or infinity"
        remedy = f"give finite numbers, up to {_LARGEST:.0e}: scale them, or leave the row out"
        raise InputError(where, f"{what} in row {start + at}", remedy)


def checked_rows(estimator: Any, X: Any, *, reset: bool) -> Any:
    """Check `X` for an estimator; an array on disk is checked chunk by chunk, and stays there."""
    if not _on_disk(X):
        if hasattr(X, "detach"):
            X = vectors_of(X, "X")
        rows = validate_data(estimator, X, dtype=[np.float32, np.float64], reset=reset)
        refuse_rows(rows, "X")
        return rows
    if len(X):  # one row, for the number of features; scikit-learn's check takes a copy
        validate_data(estimator, X[:1], dtype=[np.float32, np.float64], reset=reset)
    for start, chunk in _chunks(X):
        refuse_rows(chunk, "X", start)
    return X


def assign(
    X: NDArray[np.floating[Any]], centers: NDArray[np.float32]
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Return the nearest of `centers` for every row of `X`, and the squared distance to it.

    `X` (n, d) may have any floating type, in memory or on disk; it is read chunk by chunk.

    Examples
    --------
    >>> labels, distances = assign(np.array([[0.0], [7.0]]), np.array([[1.0], [5.0]]))
    >>> labels.tolist(), distances.tolist()
    ([0, 1], [1.0, 4.0])
    """
    offset = centers.mean(axis=0, dtype=np.float64)
    return _nearest_to(X, (centers - offset).astype(np.float32), offset)


def _on_disk(X: Any) -> bool:
    # float16 counts, wherever it lies: as float32 it would take twice its memory.
    half = isinstance(X, np.ndarray) and X.dtype == np.float16
    return half or isinstance(X, np.memmap) or hasattr(X, "chunks")


def _chunks(X: Any) -> Iterator[tuple[int, NDArray[Any]]]:
    """Yield the first row number and the rows of every chunk."""
    for start in range(0, len(X), _CHUNK):
        yield start, np.asarray(X[start : start + _CHUNK])


def _mean(X: Any) -> NDArray[np.float64]:
    means, sizes = zip(
        *((chunk.mean(axis=0, dtype=np.float64), len(chunk)) for _, chunk in _chunks(X)),
        strict=True,
    )
    mean: NDArray[np.float64] = np.average(means, axis=0, weights=sizes)
    return mean if len(means) > 1 else means[0]  # one chunk: to the last bit


def _centred(rows: NDArray[Any], offset: NDArray[np.float64]) -> NDArray[np.float32]:
    Z = np.empty(rows.shape, dtype=np.float32)
    # Taken in float64, piece by piece: as an array of its own it would be twice the size of Z.
    np.subtract(rows, offset, out=Z, dtype=np.float64, casting="same_kind")
    return Z


def _subset(X: Any, size: int, seed: int) -> NDArray[Any]:
    if len(X) <= size:
        return np.asarray(X[:])
    rows = np.random.default_rng(seed).choice(len(X), size, replace=False)
    return np.asarray(X[np.sort(rows)])


def _nearest_to(
    X: Any, centers: NDArray[np.float32], offset: NDArray[np.float64]
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Return labels and squared distances of ``X - offset`` to `centers`."""
    index: Any = faiss.IndexFlatL2(centers.shape[1])
    index.add(np.ascontiguousarray(centers))
    labels = np.empty(len(X), dtype=np.int32)
    distances = np.empty(len(X), dtype=np.float32)
    for start, chunk in _chunks(X):
        squared, nearest = index.search(_centred(chunk, offset), 1)
        if (nearest < 0).any():  # no distance of it is a number
            refuse_rows(chunk, "vectors", start)
        labels[start : start + len(chunk)] = nearest.ravel()
        distances[start : start + len(chunk)] = squared.ravel().clip(min=0)
    return labels, distances


def _canonical(Z: NDArray[np.float32]) -> NDArray[np.float32]:
    # Sorted by content, so that the seed picks the same starting points in a shuffled corpus.
    rows = Z.view(np.dtype((np.void, Z.dtype.itemsize * Z.shape[1]))).ravel()
    return np.ascontiguousarray(Z[np.argsort(rows)])


def _fill_empty(
    X: Any,
    offset: NDArray[np.float64],
    centers: NDArray[np.float32],
    labels: NDArray[np.int32],
    distances: NDArray[np.float32],
) -> tuple[NDArray[np.float32], NDArray[np.int32], NDArray[np.float32]]:
    """Move every empty centroid onto the row farthest from its own."""
    tiny = 1e-12 * float(np.square(centers).sum(axis=1).max())  # of what a distance may round to
    while (empty := np.setdiff1d(np.arange(len(centers)), labels)).size:
        worst = int(np.argmax(distances))
        if distances[worst] <= tiny:  # every row sits on a centroid already
            what = f"{empty.size} of {len(centers)} domains are empty"
            advice = "the other examples differ by no more than rounding"
            warnings.warn(f"KMeans: {what}; {advice}", RbkitWarning, stacklevel=3)
            break
        moved = int(empty[0])
        centers[moved] = _centred(np.asarray(X[worst : worst + 1]), offset)
        # The others did not move, so only nearer rows change: one pass, not one per centroid.
        for start, chunk in _chunks(X):
            own = slice(start, start + len(chunk))
            squared = np.square(_centred(chunk, offset) - centers[moved]).sum(axis=1)
            nearer = squared < distances[own]
            labels[own][nearer] = moved
            distances[own][nearer] = squared[nearer]
    return centers, labels, distances
