"""A map of a corpus: UMAP with exact neighbours, computed once and kept on disk.

umap-learn finds neighbours with code that numba compiles again in every process, for half a
minute, and its graph takes another seven seconds of compilation. Here faiss finds the
neighbours, numpy builds the graph, and umap-learn only lays it out.
"""

from __future__ import annotations

import hashlib
import json
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import coo_matrix, csr_matrix
from sklearn.decomposition import PCA

from rbkit.errors import InputError, RbkitWarning, as_count, as_seed
from rbkit.files import atomic_path, cache_dir, fingerprint, keeping, read_npz
from rbkit.regroup.kmeans import vectors_of
from rbkit.text import progress_bar

Report = Callable[[float, str], None]

_VERSION = 2  # of the method: part of the cache's key
_BLOCK = 8_192
# Below this many vectors a full search is faster than building an index.
_INDEXED = 10_000
_one_layout_at_a_time = threading.Lock()


@dataclass(frozen=True)
class Projection:
    """Where UMAP puts every example, (n, n_components), and which examples it saw.

    `anchors` (n,) has for every example the nearest one that UMAP saw: itself, if it was in
    the sample.
    """

    coordinates: NDArray[np.float32]
    anchors: NDArray[np.int32]

    @property
    def seen(self) -> NDArray[np.int64]:
        """Rows of the sample, in increasing order."""
        return np.flatnonzero(self.anchors == np.arange(len(self.anchors)))


def umap_coordinates(X: ArrayLike, *, n_components: int = 2, **options: Any) -> NDArray[np.float32]:
    """Coordinates of :func:`project`, which has the options.

    Returns
    -------
    ndarray of float32, shape (n, n_components)

    Examples
    --------
    >>> umap_coordinates(np.ones((1, 8)), cache=False).tolist()  # no neighbours, no map
    [[0.0, 0.0]]
    """
    return project(X, n_components=n_components, **options).coordinates


def project(
    X: Any,
    *,
    n_components: int = 2,
    n_neighbors: int = 15,
    min_dist: float = 0.1,
    n_epochs: int | None = None,
    seed: int = 0,
    sample: int = 50_000,
    cache: bool = True,
    key: str | None = None,
    progress: bool = False,
    on_progress: Report | None = None,
) -> Projection:
    """Project `X` with UMAP (arXiv 1802.03426), by cosine.

    Neighbours are exact (faiss) and the start is the first principal components. The same
    rows and seed give the same coordinates, but the order of the rows matters.

    Parameters
    ----------
    X : array of shape (n, d)
        May be a memory map, of any float type.
    n_components : int
    n_neighbors : int
        Including the example itself; fewer where there are fewer examples.
    min_dist : float
        How closely points may lie; 0 for clustering, 0.1 for looking at.
    n_epochs : int or None
        Of the layout. None: 200, and 100 above 20,000 rows.
    seed : int
    sample : int
        Above this many rows UMAP sees a random sample of this size, and the others are put
        at the mean of their neighbours in it. The time for neighbours grows with its square.
    cache : bool
        Keep the result in ``cache_dir() / "projections"`` by content and parameters. A
        damaged file is computed again, with a warning: it costs a minute, and a night of
        batch runs should not end for it.
    key : str, optional
        Content hash of `X`, if known: else it is computed, a second per GB.
    progress : bool
        Show a bar, if it takes longer than two seconds.
    on_progress : callable, optional
        Called now and then with (fraction done, the step being done), from this thread; an
        exception that it raises stops the work and leaves nothing behind.

    Raises
    ------
    InputError
        NaN or infinity in `X`, no rows, or impossible parameters.
    """
    X = vectors_of(X, "X")
    if not len(X):
        raise InputError("X", f"an array of shape {X.shape}", "give vectors of shape (n, d), n > 0")
    given = {"n_components": (n_components, 1), "n_neighbors": (n_neighbors, 2)}
    given |= {"n_epochs": (200 if n_epochs is None else n_epochs, 1), "sample": (sample, 2)}
    for name, (value, low) in given.items():
        if as_count(name, value, least=None) < low:
            raise InputError(name, f"{value} is too few", f"choose at least {low}")
    n_components, n_neighbors, sample = int(n_components), int(n_neighbors), int(sample)
    seed = as_seed(seed)
    if n_epochs is None:
        n_epochs = 200 if min(len(X), sample) <= 20_000 else 100
    n_epochs = int(n_epochs)
    path = None
    if cache:
        parameters = {
            "components": n_components,
            "neighbors": n_neighbors,
            "min_dist": min_dist,
            "epochs": n_epochs,
            "seed": seed,
            "version": _VERSION,
            "sample": sample if sample < len(X) else None,
        }
        name = fingerprint(key or _content_key(X), json.dumps(parameters, sort_keys=True))
        path = cache_dir() / "projections" / f"umap-{name}.npz"
        if (cached := _read(path, (len(X), n_components))) is not None:
            return cached
    with progress_bar(total=100, desc="umap", unit="%", delay=2, disable=not progress) as bar:

        def report(done: float, what: str) -> None:
            bar.set_postfix_str(what, refresh=False)
            bar.update(int(100 * done) - bar.n)
            if on_progress:
                on_progress(done, what)

        result = _project(X, n_components, n_neighbors, min_dist, n_epochs, seed, sample, report)
    if path is not None:
        with keeping("the projection"), atomic_path(path) as tmp:
            np.savez(tmp, coordinates=result.coordinates, anchors=result.anchors)
    return result


def _project(
    X: NDArray[Any],
    n_components: int,
    n_neighbors: int,
    min_dist: float,
    n_epochs: int,
    seed: int,
    sample: int,
    report: Report,
) -> Projection:
    n = len(X)
    anchors = np.arange(n, dtype=np.int32)
    if n == 1:
        return Projection(np.zeros((1, n_components), dtype=np.float32), anchors)
    rng = np.random.default_rng(seed)
    rows = np.sort(rng.choice(n, sample, replace=False)) if n > sample else anchors
    seen = _finite(X[rows])
    k = min(n_neighbors, len(seen))
    indices, distances = exact_neighbours(
        seen, k, on_progress=lambda done, what: report(0.4 * done, what)
    )
    laid = lay_out(
        fuzzy_graph(indices, distances),
        _principal_components(seen, n_components, seed),
        min_dist=min_dist,
        n_epochs=n_epochs,
        seed=seed,
        on_progress=lambda done, what: report(0.4 + 0.5 * done, what),
    )
    if n == len(seen):
        report(1.0, "done")
        return Projection(laid, anchors)
    coordinates = np.empty((n, n_components), dtype=np.float32)
    coordinates[rows] = laid
    index = NeighbourIndex(seen, seed=seed)
    rest = np.setdiff1d(anchors, rows)
    for start in range(0, len(rest), _BLOCK):
        block = rest[start : start + _BLOCK]
        near, _ = index.search(_finite(X[block]), min(5, k))
        anchors[block] = rows[near[:, 0]]
        coordinates[block] = laid[near].mean(axis=1)
        report(0.9 + 0.1 * (start + len(block)) / len(rest), "placing the rest")
    return Projection(coordinates, anchors)


def _finite(X: NDArray[Any]) -> NDArray[np.float32]:
    vectors = np.asarray(X, dtype=np.float32)
    if not np.isfinite(vectors).all():
        raise InputError("X", "NaN or infinity in the vectors", "check what the embedder returned")
    return vectors


def _principal_components(
    X: NDArray[np.float32], n_components: int, seed: int
) -> NDArray[np.float32]:
    """First principal components, slightly perturbed so that duplicates can part."""
    start = np.random.default_rng(seed).normal(scale=1e-4, size=(len(X), n_components))
    c = min(n_components, *X.shape)
    # The directions from 20,000 rows: enough for a start, and the time does not grow.
    Z = unit(X)
    some = Z[:: max(1, len(Z) // 20_000)]
    pca = PCA(c, svd_solver="randomized", random_state=seed) if c < min(some.shape) else PCA(c)
    with np.errstate(invalid="ignore", divide="ignore"):  # variance shares of equal rows: 0 / 0
        parts = pca.fit(some).transform(Z)
    start[:, :c] += 10 * parts / max(float(np.abs(parts).max()), 1e-6)
    return start.astype(np.float32)


def _content_key(X: NDArray[Any]) -> str:
    """Content hash of an array, read in blocks: 32 hex digits."""
    digest = hashlib.blake2b(f"{X.dtype.str} {X.shape}".encode(), digest_size=16)
    for start in range(0, len(X), _BLOCK):
        digest.update(np.ascontiguousarray(X[start : start + _BLOCK]).tobytes())
    return digest.hexdigest()


def _read(path: Path, shape: tuple[int, int]) -> Projection | None:
    if not path.exists():
        return None
    try:
        arrays = read_npz(path, "it is computed again")
        cached = Projection(arrays["coordinates"], arrays["anchors"])
        whole = cached.coordinates.shape == shape and cached.anchors.shape == shape[:1]
        if not whole or not np.isfinite(cached.coordinates).all():
            raise InputError(str(path), "not a projection of these vectors", "it is computed again")
    except (InputError, KeyError, OSError) as error:
        warnings.warn(f"damaged cache file: {error}", RbkitWarning, stacklevel=4)
        return None
    return cached


def exact_neighbours(
    X: NDArray[np.floating[Any]], k: int, *, on_progress: Report | None = None
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Find the `k` nearest rows of every row by cosine distance, itself first.

    All pairs are compared, in blocks (faiss): 13 s for 50,000 vectors of length 384 on two
    cores. Zero vectors, which TF-IDF gives to texts without a known word, are alike among
    themselves and at distance 1 from all others.

    Parameters
    ----------
    X : ndarray of shape (n, d)
    k : int
        Including the row itself; at most n.
    on_progress : callable, optional
        Called with (fraction done, the step being done).

    Returns
    -------
    indices : ndarray of int32, shape (n, k)
    distances : ndarray of float32, shape (n, k)
        ``1 - cos``, increasing along each row, 0 in the first column.

    Raises
    ------
    InputError
        `k` is not in 1..n.

    Examples
    --------
    >>> indices, distances = exact_neighbours(np.array([[1.0, 0.0], [0.0, 1.0], [3.0, 1.0]]), 2)
    >>> indices.tolist(), (100 * distances).round().tolist()
    ([[0, 2], [1, 2], [2, 0]], [[0.0, 5.0], [0.0, 68.0], [0.0, 5.0]])
    """
    n = len(X)
    if not 1 <= k <= n:
        raise InputError("k", f"{k} neighbours asked among {n} examples", f"choose 1 <= k <= {n}")
    Z = unit(X)
    indices = np.empty((n, k), dtype=np.int32)
    distances = np.empty((n, k), dtype=np.float32)
    for start in range(0, n, _BLOCK):
        rows = slice(start, min(n, start + _BLOCK))
        cosines, near = faiss.knn(Z[rows], Z, k, metric=faiss.METRIC_INNER_PRODUCT)
        own = np.arange(rows.start, rows.stop)[:, None]
        # Among many duplicates a row may not find itself: then it takes the last place.
        lost = ~(near == own).any(axis=1)
        near[lost, -1] = own[lost, 0]
        itself = near == own
        cosines[itself] = 1
        order = np.argsort(~itself, axis=1, kind="stable")
        indices[rows] = np.take_along_axis(near, order, axis=1)
        distances[rows] = (1 - np.take_along_axis(cosines, order, axis=1)).clip(0, 2)
        if on_progress:
            on_progress(rows.stop / n, "finding neighbours")
    return indices, distances


class NeighbourIndex:
    """Finds, for new vectors, near ones among those it was built of.

    Above 10,000 vectors it looks only into the nearest 32 of some hundred cells (faiss's
    inverted file): on 50,000 vectors of 60 clusters it finds 99 % of the true neighbours,
    and 62 % of those of background examples, whose neighbours are random anyway. That is
    enough for placing; UMAP's own graph gets exact ones, which part background from clusters.

    Examples
    --------
    >>> index = NeighbourIndex(np.array([[1.0, 0.0], [0.0, 1.0]]))
    >>> index.search(np.array([[5.0, 4.0]]), 1)[0].tolist()
    [[0]]
    """

    def __init__(self, X: NDArray[np.floating[Any]], *, seed: int = 0) -> None:
        Z = unit(X)
        d = Z.shape[1]
        self._index: Any = faiss.IndexFlatIP(d)
        if len(Z) > _INDEXED:
            cells = int(4 * np.sqrt(len(Z)))
            self._coarse = self._index  # faiss keeps no reference of its own
            self._index = faiss.IndexIVFFlat(self._coarse, d, cells, faiss.METRIC_INNER_PRODUCT)
            self._index.cp.seed = seed + 1
            self._index.cp.niter = 6
            self._index.cp.max_points_per_centroid = 64
            self._index.cp.min_points_per_centroid = 1  # no complaint on stderr
            self._index.nprobe = 32
            self._index.train(Z)
        self._index.add(Z)

    def search(
        self, X: NDArray[np.floating[Any]], k: int
    ) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """Return indices and cosine distances of `k` near vectors, each of shape (n, k)."""
        k = min(k, self._index.ntotal)
        cosines, near = self._index.search(unit(X, self._index.d), k)
        # Fewer than k vectors in all cells looked into: repeat the nearest.
        missing = near < 0
        near = np.where(missing, near[:, :1], near)
        cosines = np.where(missing, cosines[:, :1], cosines)
        return near.astype(np.int32), (1 - cosines).clip(0, 2).astype(np.float32)


def unit(X: NDArray[np.floating[Any]], width: int | None = None) -> NDArray[np.float32]:
    """Return float32 rows of unit length; a zero row, if there is one, gets its own column.

    So zero vectors have a direction, which no other vector has. `width` is d or d + 1, without
    or with that column (as needed by default).

    Examples
    --------
    >>> unit(np.array([[2.0, 0.0], [0.0, 0.0]])).tolist()
    [[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]
    """
    n, d = X.shape
    Z = np.array(X, dtype=np.float32)
    for start in range(0, n, _BLOCK):
        rows = Z[start : start + _BLOCK]
        lengths = np.sqrt(np.einsum("nd,nd->n", rows, rows, dtype=np.float64))
        rows /= np.maximum(lengths, 1e-30)[:, None]
    zero: NDArray[np.bool_] = np.logical_not(Z.any(axis=1))
    if width == d or (width is None and not zero.any()):
        return Z
    return np.concatenate([Z, zero[:, None].astype(np.float32)], axis=1)


def fuzzy_graph(indices: NDArray[np.integer[Any]], distances: NDArray[np.float32]) -> csr_matrix:
    """UMAP's fuzzy simplicial set (McInnes, Healy, Melville, arXiv 1802.03426, section 3.1).

    Row i is joined to its neighbour j by ``exp(-(d_ij - rho_i) / sigma_i)``, where rho_i is
    the distance to the nearest and sigma_i makes the weights of a row add up to log2(k);
    then ``A + A^T - A * A^T``.

    Parameters
    ----------
    indices : ndarray of int, shape (n, k)
        Neighbours of every row, the first itself.
    distances : ndarray of float32, shape (n, k)

    Returns
    -------
    csr_matrix of float32, shape (n, n)
        As `umap.umap_.fuzzy_simplicial_set` gives it.

    Examples
    --------
    >>> indices = np.array([[0, 1], [1, 0], [2, 1]])
    >>> fuzzy_graph(indices, np.float32([[0, 1], [0, 1], [0, 3]])).toarray().tolist()
    [[0.0, 1.0, 0.0], [1.0, 0.0, 1.0], [0.0, 1.0, 0.0]]
    """
    n, k = indices.shape
    d = distances.astype(np.float64)
    rho = np.where(d > 0, d, np.inf).min(axis=1)
    rho[np.isinf(rho)] = 0
    sigma = _bandwidths((d[:, 1:] - rho[:, None]).clip(min=0), np.log2(k))
    # UMAP's guard: no bandwidth below a thousandth of the mean distance (of the row, or of all
    # where a row has only copies of itself).
    sigma = np.maximum(sigma, 1e-3 * np.where(rho > 0, d.mean(axis=1), d.mean()))
    excess = (d - rho[:, None]).clip(min=0)
    weights = np.exp(-excess / np.maximum(sigma, 1e-300)[:, None]).astype(np.float32)
    weights[indices == np.arange(n)[:, None]] = 0
    rows = np.repeat(np.arange(n), k)
    graph = coo_matrix((weights.ravel(), (rows, indices.ravel())), shape=(n, n)).tocsr()
    graph.eliminate_zeros()
    both = graph + graph.T - graph.multiply(graph.T)
    return csr_matrix(both)


def _bandwidths(excess: NDArray[np.float64], target: float) -> NDArray[np.float64]:
    """Solve ``sum_j exp(-excess_ij / sigma_i) = target`` for sigma by bisection."""
    n = len(excess)
    low, high, sigma = np.zeros(n), np.full(n, np.inf), np.ones(n)
    todo = np.arange(n)
    for _ in range(64):
        total = np.exp(-excess[todo] / sigma[todo, None]).sum(axis=1)
        todo, total = todo[far := np.abs(total - target) >= 1e-5], total[far]
        if not todo.size:
            break
        over = total > target
        high[todo[over]] = sigma[todo[over]]
        low[todo[~over]] = sigma[todo[~over]]
        open_ended = np.isinf(high[todo])
        sigma[todo] = np.where(open_ended, 2 * sigma[todo], (low[todo] + high[todo]) / 2)
    return sigma


def lay_out(
    graph: csr_matrix,
    start: NDArray[np.floating[Any]],
    *,
    min_dist: float,
    n_epochs: int,
    seed: int,
    on_progress: Report | None = None,
) -> NDArray[np.float32]:
    """Lay the graph out from the coordinates `start`, with umap-learn's gradient descent.

    `graph` is sparse, (n, n); `start` and the coordinates returned (float32) are (n,
    n_components). `on_progress` is called after every epoch; an exception that it raises stops
    the layout.
    """
    umap_, _ = umap_learn()
    a, b = umap_.find_ab_params(1.0, min_dist)
    with _epochs_reported(on_progress):
        embedding, _ = umap_.simplicial_set_embedding(
            data=start,
            graph=graph,
            n_components=start.shape[1],
            initial_alpha=1.0,
            a=a,
            b=b,
            gamma=1.0,
            negative_sample_rate=5,
            n_epochs=n_epochs,
            init=start,
            random_state=np.random.RandomState(seed),
            metric="euclidean",
            metric_kwds={},
            densmap=False,
            densmap_kwds={},
            output_dens=False,
            parallel=False,  # in parallel the same seed gives other coordinates
        )
    return np.asarray(embedding, dtype=np.float32)


def umap_learn() -> tuple[Any, Any]:
    """Import umap-learn's modules ``umap_`` and ``layouts``: two seconds, the first time."""
    with warnings.catch_warnings():
        # Its one remark at import is about a variant that needs a library nobody asked for.
        warnings.filterwarnings("ignore", "Tensorflow not installed", ImportWarning)
        from umap import layouts, umap_
    return umap_, layouts


@contextmanager
def _epochs_reported(on_progress: Report | None) -> Iterator[None]:
    """Let umap-learn's loop over epochs call `on_progress`.

    It offers no callback but a tqdm bar, which in a notebook is a widget of its own. So the
    bar is replaced meanwhile; should a release keep it elsewhere, nothing is reported.
    """
    _, layouts = umap_learn()

    def reporting(epochs: Any, **_: Any) -> Iterator[int]:
        for epoch in epochs:
            yield epoch
            if on_progress:
                on_progress((epoch + 1) / len(epochs), "laying out")

    with _one_layout_at_a_time:
        bar = getattr(layouts, "tqdm", None)
        layouts.tqdm = reporting
        try:
            yield
        finally:
            layouts.tqdm = bar
