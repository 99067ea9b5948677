"""UMAP's graph of a corpus and its layout, from neighbours that are already known.

umap-learn finds neighbours with code that numba compiles anew in every process, half a
minute of it, and its graph costs another seven seconds of compilation. Here the graph is
twenty lines of numpy, and umap-learn lays it out.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix, csr_matrix

_one_layout_at_a_time = threading.Lock()


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
    on_progress: Callable[[float, str], None] | None = None,
) -> NDArray[np.float32]:
    """Lay the graph out from the coordinates `start`, with umap-learn's gradient descent.

    Parameters
    ----------
    graph : csr_matrix of shape (n, n)
    start : ndarray of shape (n, n_components)
    min_dist : float
    n_epochs : int
    seed : int
    on_progress : callable, optional
        Called after every epoch; an exception that it raises stops the layout.

    Returns
    -------
    ndarray of float32, shape (n, n_components)
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
def _epochs_reported(on_progress: Callable[[float, str], None] | None) -> Iterator[None]:
    """Let umap-learn's loop over epochs call `on_progress`.

    It offers no callback but a tqdm bar, which in a notebook is a widget of its own. So the
    bar is replaced for the time; should a release keep it elsewhere, nothing is reported.
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
