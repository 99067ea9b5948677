"""First cuts of a corpus: each clusterer fitted once, then cut again as often as asked.

A hierarchy is fitted once per corpus and kept on disk; HDBSCAN's tree and the coordinates of
UMAP are kept as well. So a slider, an undo, or a rerun in a new process is cheap.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rbkit.errors import InputError, RbkitWarning
from rbkit.files import atomic_path, cache_dir, fingerprint, read_npz
from rbkit.regroup.grouping import Grouping, means
from rbkit.regroup.kmeans import KMeans, assign
from rbkit.regroup.noise import settle_noise
from rbkit.regroup.operations import unpack_labels, with_noise
from rbkit.regroup.prepare import Material
from rbkit.regroup.sources import SourceLabels, label_column
from rbkit.regroup.ward import WardTree

if TYPE_CHECKING:
    from rbkit.regroup.hdbscan import UmapHDBSCAN

Progress = Callable[[float, str], None]
_TREE = ("micro_labels_", "micro_centers_", "micro_sizes_", "children_", "heights_", "leaf_order_")
_VERSION = 2  # of WardTree's method: another one must not find the trees of the last
DENSITY = ("min_samples", "n_components", "n_neighbors", "min_dist", "seed", "sample")
METHODS = ("ward", "kmeans", "hdbscan", "sources", "column", "labels")


class Clusterings:
    """All first cuts of one corpus.

    Parameters
    ----------
    material : Material
    cache : bool
        Keep fitted trees in ``cache_dir()/hierarchies``.

    Examples
    --------
    >>> from datasets import Dataset, DatasetDict
    >>> rows = Dataset.from_dict({"text": list("abcde"), "source": list("xxxyy")})
    >>> X = np.array([[0.0], [1.0], [1.5], [8.0], [9.0]], dtype=np.float32)
    >>> material = Material(DatasetDict({"train": rows, "eval": rows}), X, X,
    ...                     embedder={}, origin="")
    >>> cuts = Clusterings(material, cache=False)
    >>> cuts.cut({"method": "kmeans", "k": 2}).labels.tolist()
    [0, 0, 0, 1, 1]
    >>> cuts.cut({"method": "sources"}).names
    ('x', 'y')
    """

    def __init__(self, material: Material, *, cache: bool = True) -> None:
        self.material, self.cache = material, cache
        self._kept: dict[str, Any] = {}

    def cut(self, op: Mapping[str, Any], on_progress: Progress | None = None) -> Grouping:
        """Cut as an operation says: ``{"method", ...}`` with the parameters of the method.

        ``ward``: k, seed, n_micro; ``kmeans``: k, seed; ``hdbscan``: min_cluster_size,
        min_samples, n_neighbors, min_dist, n_components, seed, noise, max_noise;
        ``sources``; ``column``: column; ``labels``: labels (:func:`pack_labels`), eval_labels,
        names, noise, max_noise.

        Raises
        ------
        InputError
            An unknown method, or parameters that it cannot work with.
        """
        given = {name: value for name, value in op.items() if name not in ("op", "method")}
        makers: dict[str, Callable[..., Grouping]] = {
            "ward": self._ward,
            "kmeans": self._kmeans,
            "hdbscan": self._hdbscan,
            "sources": self._sources,
            "column": self._sources,
            "labels": self._labels,
        }
        method = op.get("method")
        if not isinstance(method, str) or method not in makers:
            raise InputError("method", f"{method!r} is unknown", f"use {', '.join(METHODS)}")
        if method == "hdbscan":
            given["on_progress"] = on_progress
        try:
            return makers[method](**given)
        except InputError:
            raise
        except (TypeError, ValueError, OverflowError) as error:
            raise InputError(f"cut, {method}", str(error), "check its parameters") from error

    def complete(self, op: Mapping[str, Any]) -> dict[str, Any]:
        """Return a cut with every default that decides its outcome written out."""
        full = dict(op)
        method = op.get("method")
        if method in ("ward", "kmeans", "hdbscan"):
            full.setdefault("seed", 0)
        if method == "ward" and full.get("n_micro") is None:
            full["n_micro"] = self.tree(seed=full["seed"], least=int(op["k"])).n_micro
        if method == "hdbscan":
            fitted = self.density(**{name: full[name] for name in DENSITY if name in full})
            full |= {name: getattr(fitted, name) for name in DENSITY}
            if full.get("min_cluster_size") is None:
                full["min_cluster_size"] = int(fitted.min_cluster_size_)
            full.setdefault("noise", "nearest")
        return full

    def tree(self, *, seed: int = 0, n_micro: int | None = None, least: int = 1) -> WardTree:
        """Return the hierarchy, fitted once; `least` is the largest k that it must give."""
        n = len(self.material.train)
        if n_micro is None:
            # One tree for all usual k, so that its cuts nest; a finer one only if it must be.
            n_micro = min(n, 1000, max(100, n // 40))
            n_micro = n_micro if least <= n_micro else min(n, max(least, min(4 * least, 8_000)))
        key = f"ward-{_VERSION}-{self.material.key}-{seed}-{n_micro}"
        if key not in self._kept:
            self._kept[key] = self._fitted(key, WardTree(1, n_micro=n_micro, seed=seed))
        tree: WardTree = self._kept[key]
        return tree

    def density(self, *, on_progress: Progress | None = None, **params: Any) -> UmapHDBSCAN:
        """Return UMAP and HDBSCAN with these parameters, fitted once."""
        from rbkit.regroup.hdbscan import UmapHDBSCAN

        if unknown := set(params) - set(DENSITY):
            known = f"use {', '.join(DENSITY)}"
            raise InputError("hdbscan", f"no parameter {sorted(unknown)[0]!r}", known)
        made = UmapHDBSCAN(cache=self.cache, **params)
        key = f"hdbscan-{sorted(made.get_params().items())}"
        if key not in self._kept:
            self._kept[key] = made.fit(
                self.material.train, key=self.material.key, on_progress=on_progress
            )
        fitted: UmapHDBSCAN = self._kept[key]
        return fitted

    def _ward(self, *, k: int, seed: int = 0, n_micro: int | None = None) -> Grouping:
        tree = self.tree(seed=seed, n_micro=n_micro, least=k)
        placed = f"eval-{seed}-{tree.n_micro}"
        if placed not in self._kept:  # the nearest micro-cluster does not depend on k
            self._kept[placed] = assign(np.asarray(self.material.eval), tree.micro_centers_)[0]
        owners = tree.cut_micro(k)
        return Grouping(
            tree.micro_labels_, self._kept[placed], tree.micro_centers_, owners, (None,) * k
        )

    def _kmeans(self, *, k: int, seed: int = 0) -> Grouping:
        fitted = KMeans(k, seed=seed).fit(self.material.train)
        return Grouping.of(
            fitted.labels_,
            self.material.train,
            self.material.eval,
            centers=fitted.cluster_centers_,
        )

    def _hdbscan(
        self,
        *,
        min_cluster_size: int | None = None,
        noise: str = "nearest",
        max_noise: float | None = None,
        on_progress: Progress | None = None,
        **params: Any,
    ) -> Grouping:
        fitted = self.density(on_progress=on_progress, **params)
        size = fitted.min_cluster_size_ if min_cluster_size is None else min_cluster_size
        labels = np.asarray(fitted.cut(size), dtype=np.int32)
        if not (labels >= 0).any():
            what = f"min_cluster_size={size} leaves every example as noise"
            raise InputError("hdbscan", what, "choose a smaller one")
        return self._settled(labels, noise, max_noise)

    def _settled(
        self,
        labels: NDArray[np.int32],
        noise: str,
        max_noise: float | None,
        names: Sequence[str | None] | None = None,
    ) -> Grouping:
        """Make a grouping of labels with noise (-1), which goes where the policy says."""
        X, m = self.material.train, int(labels.max()) + 1
        given = tuple(names) if names is not None else (None,) * m
        bare = Grouping(
            labels,
            np.zeros(len(self.material.eval), dtype=np.int32),
            means(X, labels, m),
            np.arange(m, dtype=np.int32),
            given,
            noise=labels < 0,
        )
        outcome = settle_noise(labels, X, noise, max_noise=max_noise)
        return with_noise(bare, self.material, outcome, noise)

    def _sources(self, *, column: str = "source") -> Grouping:
        found = [label_column(self.material.corpus, split, column) for split in ("train", "eval")]
        clusters = SourceLabels().fit(sources=found[0])
        made = Grouping.of(
            clusters.labels_,
            self.material.train,
            self.material.eval,
            names=clusters.sources_,
            by_source=True,
        )
        known = clusters.match(found[1])
        eval_cells = np.where(known >= 0, known, made.eval_cells).astype(np.int32)
        return replace(made, eval_cells=eval_cells)

    def _labels(
        self,
        *,
        labels: str,
        names: Sequence[str | None] | None = None,
        eval_labels: str | None = None,
        noise: str | None = None,
        max_noise: float | None = None,
    ) -> Grouping:
        n = len(self.material.train)
        found = unpack_labels(labels, n)
        if not -1 <= found.min() <= found.max() < n:  # a stranger's could ask for any memory
            what = f"{found.min()} to {found.max()} for {n} examples"
            raise InputError("labels", what, "number domains from 0, and use -1 for none")
        if names is not None:
            given = [name for name in names if name is not None]
            if len(names) <= found.max(initial=-1) or len(set(map(str, given))) < len(given):
                what = f"{len(names)} names, {len(set(map(str, given)))} different ones"
                raise InputError("names", what, "give every domain its own name")
            names = [None if name is None else str(name) for name in names]
        if (found < 0).any() and noise is not None:
            return self._settled(found, noise, max_noise, names)
        made = Grouping.of(found, self.material.train, self.material.eval, names=names)
        if eval_labels is None:
            return made
        cells = unpack_labels(eval_labels, len(self.material.eval))
        # A domain without training examples is none here: the nearest takes its eval examples.
        known = np.isin(cells, [-1, *made.live])
        return replace(made, eval_cells=np.where(known, cells, made.eval_cells), by_source=True)

    def _fitted(self, key: str, tree: WardTree) -> WardTree:
        path = cache_dir() / "hierarchies" / f"{fingerprint(key)}.npz"
        if self.cache and path.is_file() and (arrays := _kept_tree(path)):
            for name in _TREE:
                setattr(tree, name, arrays[name])
            tree.n_features_in_ = arrays["micro_centers_"].shape[1]
            tree.n_clusters_ = 1
            tree.labels_, tree.cluster_centers_ = tree.cut(1), tree.centers(1)
            return tree
        tree.fit(self.material.train)
        if self.cache:
            _keep(path, {name: getattr(tree, name) for name in _TREE})
        return tree


def _kept_tree(path: Path) -> dict[str, Any]:
    """Return a tree's arrays; what is damaged is told, and made again: a cache is no input."""
    try:
        arrays = read_npz(path, "delete it")
    except InputError as error:
        warnings.warn(f"{error}; the hierarchy is made again", RbkitWarning, stacklevel=2)
        return {}
    return arrays if set(_TREE) <= set(arrays) else {}


def _keep(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    with atomic_path(path) as tmp:
        np.savez(tmp, **dict(arrays))  # type: ignore[arg-type]
