"""A map of a corpus: UMAP with exact neighbours, computed once and kept on disk."""

from __future__ import annotations

import hashlib
import json
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.decomposition import PCA
from tqdm import tqdm

from rbkit.errors import InputError, RbkitWarning
from rbkit.files import atomic_path, cache_dir, fingerprint, read_npz
from rbkit.regroup.neighbours import NeighbourIndex, Report, exact_neighbours, unit
from rbkit.regroup.umap_graph import fuzzy_graph, lay_out

__all__ = ["Projection", "content_key", "exact_neighbours", "project", "umap_coordinates"]

_VERSION = 2  # of the method: part of the cache's key
_BLOCK = 16_384


@dataclass(frozen=True)
class Projection:
    """Where UMAP puts every example, and which examples it saw.

    Attributes
    ----------
    coordinates : ndarray of float32, shape (n, n_components)
    anchors : ndarray of int32, shape (n,)
        For every example the nearest one that UMAP saw: itself, if it was in the sample.
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
    X: ArrayLike,
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
        Called now and then with (fraction done, what is being done), from this thread; an
        exception that it raises stops the work and leaves nothing behind.

    Raises
    ------
    InputError
        NaN or infinity in `X`, no rows, or impossible parameters.
    """
    X = np.asanyarray(X)
    if n_epochs is None:
        n_epochs = 200 if min(len(X), sample) <= 20_000 else 100
    _check(X, n_components, n_neighbors, n_epochs, sample)
    path = None
    if cache:
        parameters = {
            "components": n_components, "neighbors": n_neighbors, "min_dist": min_dist,
            "epochs": n_epochs, "seed": seed, "version": _VERSION,
            "sample": sample if sample < len(X) else None,
        }  # fmt: skip
        name = fingerprint(key or content_key(X), json.dumps(parameters, sort_keys=True))
        path = cache_dir() / "projections" / f"umap-{name}.npz"
        if (kept := _read(path, (len(X), n_components))) is not None:
            return kept
    with tqdm(total=100, desc="umap", unit="%", delay=2, disable=not progress) as bar:

        def report(done: float, what: str) -> None:
            bar.set_postfix_str(what, refresh=False)
            bar.update(int(100 * done) - bar.n)
            if on_progress:
                on_progress(done, what)

        result = _project(X, n_components, n_neighbors, min_dist, n_epochs, seed, sample, report)
    if path is not None:
        with atomic_path(path) as tmp:
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
    seen = np.asarray(X[rows], dtype=np.float32)
    _check_finite(seen)
    k = min(n_neighbors, len(seen))
    indices, distances = exact_neighbours(
        seen, k, on_progress=lambda done, what: report(0.4 * done, what)
    )
    laid = lay_out(
        fuzzy_graph(indices, distances),
        _start(seen, n_components, seed),
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
        vectors = np.asarray(X[block], dtype=np.float32)
        _check_finite(vectors)
        near, _ = index.search(vectors, min(5, k))
        anchors[block] = rows[near[:, 0]]
        coordinates[block] = laid[near].mean(axis=1)
        report(0.9 + 0.1 * (start + len(block)) / len(rest), "placing the rest")
    return Projection(coordinates, anchors)


def content_key(X: NDArray[Any]) -> str:
    """Content hash of an array, read in blocks: 32 hex digits.

    Examples
    --------
    >>> content_key(np.zeros((2, 3))) == content_key(np.zeros((3, 2)))
    False
    """
    digest = hashlib.blake2b(f"{X.dtype.str} {X.shape}".encode(), digest_size=16)
    for start in range(0, len(X), _BLOCK):
        digest.update(np.ascontiguousarray(X[start : start + _BLOCK]).tobytes())
    return digest.hexdigest()


def _start(X: NDArray[np.float32], n_components: int, seed: int) -> NDArray[np.float32]:
    """First principal components, a little shaken so that duplicates can part."""
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


def _check(
    X: NDArray[Any], n_components: int, n_neighbors: int, n_epochs: int, sample: int
) -> None:
    if X.ndim != 2 or not len(X):
        raise InputError("X", f"an array of shape {X.shape}", "give vectors of shape (n, d), n > 0")
    for name, value, least in (
        ("n_components", n_components, 1),
        ("n_neighbors", n_neighbors, 2),
        ("n_epochs", n_epochs, 1),
        ("sample", sample, 2),
    ):
        if value < least:
            raise InputError(name, f"{value} is too few", f"choose at least {least}")


def _check_finite(X: NDArray[np.float32]) -> None:
    if not np.isfinite(X).all():
        raise InputError("X", "NaN or infinity in the vectors", "look for what the embedder broke")


def _read(path: Path, shape: tuple[int, int]) -> Projection | None:
    if not path.exists():
        return None
    try:
        arrays = read_npz(path, "it is computed again")
        kept = Projection(arrays["coordinates"], arrays["anchors"])
        whole = kept.coordinates.shape == shape and kept.anchors.shape == shape[:1]
        if not whole or not np.isfinite(kept.coordinates).all():
            raise InputError(str(path), "not a projection of these vectors", "it is computed again")
    except (InputError, KeyError, OSError) as error:
        warnings.warn(f"damaged cache file: {error}", RbkitWarning, stacklevel=4)
        return None
    return kept
