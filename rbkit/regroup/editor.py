"""First cuts of a corpus, and edits by hand: logged, undone and replayed step by step.

A hierarchy is fitted once per corpus and kept on disk; HDBSCAN's tree and the coordinates of
UMAP are kept as well. So a slider, an undo, or a rerun in a new process is cheap.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rbkit.errors import InputError, RbkitWarning, as_count
from rbkit.files import atomic_path, cache_dir, fingerprint, json_ready, keeping, read_npz
from rbkit.regroup.cards import CardMaker
from rbkit.regroup.domains import Card, Domains
from rbkit.regroup.grouping import Grouping, Labels, means
from rbkit.regroup.hdbscan import UmapHDBSCAN
from rbkit.regroup.kmeans import KMeans, assign
from rbkit.regroup.noise import NoiseOutcome, settle_noise
from rbkit.regroup.operations import (
    EDITS,
    EditLog,
    describe,
    noise_policy,
    pack,
    pack_labels,
    result_of,
    selected,
    unpack_labels,
    with_noise,
)
from rbkit.regroup.preparation import Material, label_column
from rbkit.regroup.sources import SourceLabels
from rbkit.regroup.ward import WardTree

Progress = Callable[[float, str], None]
DENSITY = ("min_samples", "n_components", "n_neighbors", "min_dist", "seed", "sample")
_TREE = ("micro_labels_", "micro_centers_", "micro_sizes_", "children_", "heights_", "leaf_order_")
_VERSION = 2  # of WardTree's method: another one must not find the trees of the last
_MADE_BY = {
    "ward": "WardTree",
    "kmeans": "KMeans",
    "hdbscan": "UmapHDBSCAN",
    "sources": "SourceLabels",
    "column": "SourceLabels",
    "labels": "by hand",
}
_NOT_PARAMETERS = ("op", "method", "names", "labels", "eval_labels")
_COUNTS = {"k": 1, "seed": 0, "n_micro": 1, "min_cluster_size": 2, "min_samples": 1}
_COUNTS |= {"n_components": 1, "n_neighbors": 2, "sample": 2}
_MOST_STEPS = 100  # that can be undone


def _counts_of(op: Mapping[str, Any]) -> dict[str, int]:
    """Return the counts among an operation's parameters, checked, as a log keeps them."""
    given = {name: op[name] for name in _COUNTS if op.get(name) is not None}
    return {name: as_count(name, value, least=_COUNTS[name]) for name, value in given.items()}


class Clusterings:
    """First cuts of one corpus: each clusterer is fitted once, then cut again as often as asked.

    With `cache`, fitted trees are kept in ``cache_dir()/hierarchies``.

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
        self._trees: dict[str, WardTree] = {}
        self._placed: dict[str, Labels] = {}  # nearest micro-cluster of every eval example
        self._densities: dict[str, UmapHDBSCAN] = {}

    def cut(self, op: Mapping[str, Any], on_progress: Progress | None = None) -> Grouping:
        """Make the grouping of an operation ``{"method", ...}`` with the method's parameters.

        ``ward``: k, seed, n_micro; ``kmeans``: k, seed; ``hdbscan``: min_cluster_size,
        min_samples, n_neighbors, min_dist, n_components, seed, noise, max_noise;
        ``sources``; ``column``: column; ``labels``: labels (:func:`pack_labels`), eval_labels,
        names, noise, max_noise.

        Raises
        ------
        InputError
            An unknown method, or parameters that it cannot work with.
        """
        params = {name: value for name, value in op.items() if name not in ("op", "method")}
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
            raise InputError("method", f"{method!r} is unknown", f"use {', '.join(makers)}")
        params |= _counts_of(op)
        if method == "hdbscan":
            params["on_progress"] = on_progress
        try:
            return makers[method](**params)
        except InputError:
            raise
        except (TypeError, ValueError, OverflowError) as error:
            raise InputError(f"cut, {method}", str(error), "check its parameters") from error

    def complete(self, op: Mapping[str, Any]) -> dict[str, Any]:
        """Return a cut with every default that decides its outcome written out."""
        full = {**op, **_counts_of(op)}
        method = op.get("method")
        if method in ("ward", "kmeans", "hdbscan"):
            full.setdefault("seed", 0)
        if method == "ward" and full.get("n_micro") is None:
            full["n_micro"] = self.tree(seed=full["seed"], least=full["k"]).n_micro
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
        if key not in self._trees:
            self._trees[key] = self._fit_tree(key, WardTree(1, n_micro=n_micro, seed=seed))
        return self._trees[key]

    def density(self, *, on_progress: Progress | None = None, **params: Any) -> UmapHDBSCAN:
        """Return UMAP and HDBSCAN with these parameters, fitted once."""
        if unknown := set(params) - set(DENSITY):
            what = f"no parameter {sorted(unknown)[0]!r}"
            raise InputError("hdbscan", what, f"use {', '.join(DENSITY)}")
        made = UmapHDBSCAN(cache=self.cache, **params)
        key = str(sorted(made.get_params().items()))
        if key not in self._densities:
            self._densities[key] = made.fit(
                self.material.train, key=self.material.key, on_progress=on_progress
            )
        return self._densities[key]

    def _ward(self, *, k: int, seed: int = 0, n_micro: int | None = None) -> Grouping:
        tree = self.tree(seed=seed, n_micro=n_micro, least=k)
        key = f"{seed}-{tree.n_micro}"
        if key not in self._placed:  # the nearest micro-cluster does not depend on k
            self._placed[key] = assign(np.asarray(self.material.eval), tree.micro_centers_)[0]
        if k > tree.n_micro_ and tree.n_micro_ < min(tree.n_micro or 1, len(self.material.train)):
            what = f"{k} domains asked, but only {tree.n_micro_} vectors differ"
            warnings.warn(f"ward: {what}", RbkitWarning, stacklevel=2)
            k = tree.n_micro_
        owners = tree.cut_micro(k)
        return Grouping(
            tree.micro_labels_, self._placed[key], tree.micro_centers_, owners, (None,) * k
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
        """Make a grouping of labels with noise (-1), settled by the policy."""
        X, m = self.material.train, int(labels.max()) + 1
        bare = Grouping(
            labels,
            np.zeros(len(self.material.eval), dtype=np.int32),
            means(X, labels, m),
            np.arange(m, dtype=np.int32),
            (None,) * m if names is None else tuple(names),
            noise=labels < 0,
        )
        outcome = settle_noise(labels, X, noise, max_noise=max_noise)
        return with_noise(bare, self.material, outcome, noise)

    def _sources(self, *, column: str = "source") -> Grouping:
        corpus = self.material.corpus
        clusters = SourceLabels().fit(sources=label_column(corpus, "train", column))
        made = Grouping.of(
            clusters.labels_,
            self.material.train,
            self.material.eval,
            names=clusters.sources_,
            by_source=True,
        )
        known = clusters.match(label_column(corpus, "eval", column))
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
        own = unpack_labels(labels, n)
        if not -1 <= own.min() <= own.max() < n:  # a stranger's could ask for any memory
            what = f"{own.min()} to {own.max()} for {n} examples"
            raise InputError("labels", what, "number domains from 0, and use -1 for none")
        if names is not None:
            names = [None if name is None else str(name) for name in names]
            given = [name for name in names if name is not None]
            if len(names) <= own.max(initial=-1) or len(set(given)) < len(given):
                what = f"{len(names)} names, {len(set(given))} different ones"
                raise InputError("names", what, "give every domain its own name")
        if (own < 0).any() and noise is not None:
            return self._settled(own, noise, max_noise, names)
        made = Grouping.of(own, self.material.train, self.material.eval, names=names)
        if eval_labels is None:
            return made
        cells = unpack_labels(eval_labels, len(self.material.eval))
        # A domain without training examples does not exist here: its eval examples are placed.
        known = np.isin(cells, [-1, *made.live])
        return replace(made, eval_cells=np.where(known, cells, made.eval_cells), by_source=True)

    def _fit_tree(self, key: str, tree: WardTree) -> WardTree:
        path = cache_dir() / "hierarchies" / f"{fingerprint(key)}.npz"
        arrays: dict[str, Any] = {}
        if self.cache and path.is_file():
            try:
                arrays = read_npz(path, "delete it")
            except InputError as error:  # a cache is not input: warn, and make it again
                message = f"{error}; the hierarchy is made again"
                warnings.warn(message, RbkitWarning, stacklevel=2)
        if set(_TREE) <= set(arrays):
            for name in _TREE:
                setattr(tree, name, arrays[name])
            tree.n_features_in_ = arrays["micro_centers_"].shape[1]
            tree.n_clusters_ = 1
            tree.labels_, tree.cluster_centers_ = tree.cut(1), tree.centers(1)
            return tree
        tree.fit(self.material.train)
        if self.cache:
            with keeping("the hierarchy"), atomic_path(path) as tmp:
                np.savez(tmp, **{name: getattr(tree, name) for name in _TREE})
        return tree


class Editor:
    """A corpus on the workbench: cut it, then edit the domains by hand.

    Every call that changes something is one operation, with plain JSON values: see
    :attr:`log`. Domains are named by their terms until somebody names them.

    Parameters
    ----------
    material : Material
    domains : Domains, optional
        Where to begin: the operations that made them if they still do, else their labels.
        Without them begin with :meth:`cut`.
    clusterings : Clusterings, optional
        First cuts, shared with other editors.

    Examples
    --------
    >>> from datasets import Dataset, DatasetDict
    >>> texts = ["oak and elm", "elm tree", "oak", "car engine", "fast car"]
    >>> rows = Dataset.from_dict({"text": texts, "source": ["web"] * 5})
    >>> X = np.array([[0.0], [1.0], [1.5], [8.0], [9.0]], dtype=np.float32)
    >>> material = Material(DatasetDict({"train": rows, "eval": rows}), X, X,
    ...                     embedder={}, origin="")
    >>> editor = Editor(material).cut("kmeans", k=2).merge([0, 1], "all")
    >>> editor.names, editor.undo(), editor.labels.tolist()
    (['all'], True, [0, 0, 0, 1, 1])
    """

    def __init__(
        self,
        material: Material,
        domains: Domains | None = None,
        *,
        clusterings: Clusterings | None = None,
    ) -> None:
        self.material = material
        self.count_outside = domains is not None and domains.count_outside
        self.clusterings = clusterings or Clusterings(material)
        self.maker = CardMaker(material)
        self._done: list[tuple[dict[str, Any], Grouping]] = []  # operations and their outcomes
        self._undone: list[tuple[dict[str, Any], Grouping]] = []
        self._forgotten: list[dict[str, Any]] = []  # operations too old to be undone
        self._cards: tuple[Grouping, list[Card]] | None = None  # of the grouping shown last
        if domains is not None:
            self._begin(domains)

    @property
    def grouping(self) -> Grouping:
        """The present state."""
        if not self._done:
            raise InputError("editor", "there are no domains yet", "begin with .cut(...)")
        return self._done[-1][1]

    @property
    def labels(self) -> Labels:
        """Domain of every training example, -1 for none: int32, shape (n_train,)."""
        return self.grouping.labels

    @property
    def eval_labels(self) -> Labels:
        """Domain of every eval example: int32, shape (n_eval,)."""
        return self.grouping.eval_labels

    @property
    def names(self) -> list[str]:
        """Name of every domain."""
        return [card.name for card in self.cards()]

    def cards(self, grouping: Grouping | None = None, **options: Any) -> list[Card]:
        """Return a card per domain of the present state, or of another grouping."""
        now = self.grouping if grouping is None else grouping
        if self._cards is not None and self._cards[0] is now and not options:
            return self._cards[1]
        eval_labels = now.eval_labels
        made = self.maker.cards(
            now.labels,
            now.m,
            names=now.names,
            eval_sizes=np.bincount(eval_labels[eval_labels >= 0], minlength=now.m),
            distances=now.distances("train", self.material.train),
            **options,
        )
        if not options:
            self._cards = (now, made)
        return made

    def cut(self, method: str, **params: Any) -> Editor:
        """Cut the corpus: ``ward``, ``kmeans``, ``hdbscan``, ``sources``, ...

        Edits made before are gone from the state (not from the undo stack). Parameters:
        :meth:`~rbkit.regroup.editor.Clusterings.cut`.
        """
        return self.apply({"op": "cut", "method": method, **params})

    def merge(self, domains: Sequence[int], name: str | None = None) -> Editor:
        """Make one domain of several."""
        return self.apply({"op": "merge", "domains": list(domains), "name": name})

    def split(self, domain: int, parts: int = 2, seed: int = 0) -> Editor:
        """Cut one domain into parts by k-means."""
        return self.apply({"op": "split", "domain": domain, "parts": parts, "seed": seed})

    def move(
        self, rows: Sequence[int] | NDArray[Any], to: int | None = None, name: str | None = None
    ) -> Editor:
        """Move training examples to a domain, or to a new one.

        `rows` are numbers of training examples, or a boolean mask over all of them: a list, an
        array, a Series or a tensor.
        """
        at = selected(rows, len(self.material.train))
        return self.apply({"op": "move", "rows": pack(at), "to": to, "name": name})

    def rename(self, domain: int, name: str) -> Editor:
        """Name a domain; an empty name goes back to its terms."""
        return self.apply({"op": "rename", "domain": domain, "name": name})

    def drop(self, domain: int) -> Editor:
        """Leave a domain out of training."""
        return self.apply({"op": "drop", "domain": domain})

    def settle(self, policy: str = "nearest", max_noise: float | None = None) -> Editor:
        """Settle noise: to the ``nearest`` domain, to one of its ``own``, or ``drop``."""
        return self.apply({"op": "noise", "policy": policy, "max_noise": max_noise})

    def refine(self) -> Editor:
        """Run k-means from the means of the domains."""
        return self.apply({"op": "refine"})

    def apply(self, op: Mapping[str, Any], on_progress: Progress | None = None) -> Editor:
        """Carry out one operation, given as plain JSON values.

        Raises
        ------
        InputError
            An operation that is unknown or not possible; nothing has changed then.
        """
        kind = str(op.get("op"))
        if kind == "cut":
            grouping = self.clusterings.cut(op, on_progress)
            named = json_ready(self.clusterings.complete(op))
        elif kind in EDITS:
            given = {key: value for key, value in op.items() if key not in ("op", "names")}
            try:
                grouping = EDITS[kind](self.grouping, self.material, **given)
            except InputError:
                raise
            except (TypeError, ValueError, OverflowError) as error:
                raise InputError(kind, str(error), "check its parameters") from error
            named = self._named(json_ready(op))
        else:
            raise InputError("op", f"{kind!r} is unknown", f"use {', '.join(['cut', *EDITS])}")
        self._done.append((named, grouping))
        self._forgotten += [op for op, _ in self._done[:-_MOST_STEPS]]
        del self._done[:-_MOST_STEPS]
        self._undone.clear()
        return self

    def undo(self) -> bool:
        """Take back the last operation; False if there is none but the first cut."""
        if len(self._done) < 2:
            return False
        self._undone.append(self._done.pop())
        return True

    def redo(self) -> bool:
        """Repeat the operation undone last; False if there is none."""
        if not self._undone:
            return False
        self._done.append(self._undone.pop())
        return True

    @property
    def undoable(self) -> str:
        """What :meth:`undo` would take back, in words; empty if nothing."""
        return describe(self._done[-1][0]) if len(self._done) > 1 else ""

    @property
    def redoable(self) -> str:
        """What :meth:`redo` would do, in words; empty if nothing."""
        return describe(self._undone[-1][0]) if self._undone else ""

    @property
    def ops(self) -> list[dict[str, Any]]:
        """Operations that lead to the present state: the last cut and what followed it."""
        done = self._forgotten + [op for op, _ in self._done]
        cuts = [at for at, op in enumerate(done) if op["op"] == "cut"]
        return done[cuts[-1] :] if cuts else done

    @property
    def log(self) -> EditLog:
        """Everything that a replay needs."""
        return EditLog(
            self.ops,
            json_ready(self.material.embedder),
            self.material.origin,
            result_of(self.labels, self.names),
        )

    def domains(self, quality: Mapping[str, Any] | None = None) -> Domains:
        """Return the present state as domains to train on."""
        now = self.grouping
        cards = self.cards(live=False)
        live = now.live
        first = self.ops[0]
        params = {
            "n_clusters" if name == "k" else name: value
            for name, value in first.items()
            if name not in _NOT_PARAMETERS
        }
        method = {
            "name": _MADE_BY[first["method"]],
            "params": params,
            "seed": first.get("seed"),
            "embedder": self.material.embedder,
            "corpus": self.material.origin,
            "edits": self.log.to_dict(),
        }
        return Domains(
            names=[card.name for card in cards],
            train_labels=now.labels,
            eval_labels=now.eval_labels,
            centroids=now.centers[live],
            centroid_domains=now.owners[live],
            method=json_ready(method),
            quality=json_ready(dict(quality or {})),
            cards=cards,
            material=self.material,
            keys=self.material.keys,
            count_outside=self.count_outside,
        )

    def replay(self, log: EditLog) -> Editor:
        """Carry out all operations of a log; warn if the end is not what was recorded.

        Raises
        ------
        InputError
            The log is of another corpus, or an operation is not possible; it says which.
        """
        if log.corpus and self.material.origin and log.corpus != self.material.origin:
            what = f"made on the corpus {log.corpus}, not on this one ({self.material.origin})"
            raise InputError("edits", what, "load that corpus, with the same seed and sizes")
        for at, op in enumerate(log.ops, start=1):
            try:
                self.apply(op if op["op"] == "cut" else op | {"names": None})
            except InputError as error:
                where = f"edits, step {at} ({describe(op)})"
                raise InputError(where, f"{error.where}: {error.what}", error.remedy) from error
        now = result_of(self.labels, self.names)
        if log.result and now["labels"] != log.result.get("labels"):
            then = log.result.get("sizes", [])
            message = (
                f"the replay gives domains of {now['sizes']} examples, recorded were {then}: "
                "another version of a library, or another machine's embedding"
            )
            warnings.warn(message, RbkitWarning, stacklevel=2)
        return self

    @property
    def noise_effect(self) -> NoiseOutcome | None:
        """Effect of the policy on the sizes; None where the clusterer leaves no noise."""
        now = self.grouping
        if now.noise is None:
            return None
        labels, m, own = now.labels, now.m, now.noise_domain
        last = own is not None and own == m - 1
        joined = now.noise & (labels >= 0) & (labels != (-1 if own is None else own))
        before = np.bincount(labels[(labels >= 0) & ~now.noise], minlength=m)
        policy = noise_policy(self.ops)
        return NoiseOutcome(
            labels,
            str(policy["policy"]),
            policy["max_noise"],
            int(now.noise.sum()),
            int((now.noise & ~joined).sum()),
            before[: m - 1] if last else before,
            now.sizes,
            joined,
        )

    def crosstab(self, grouping: Grouping | None = None) -> NDArray[np.int64]:
        """Training examples by source and domain: int64, shape (n_sources, m)."""
        now = self.grouping if grouping is None else grouping
        names, codes, _ = self.material.source_ids
        labels = now.labels
        inside = labels >= 0
        flat = codes[inside] * now.m + labels[inside]
        return np.bincount(flat, minlength=len(names) * now.m).reshape(len(names), now.m)

    def _begin(self, domains: Domains) -> None:
        edits = domains.method.get("edits")
        for op in EditLog.of(edits).ops if edits else []:
            self.apply(op)
        if edits and np.array_equal(self.labels, domains.train_labels):
            return
        if edits:
            message = (
                "the vectors at hand give other domains than those saved; these are kept as "
                "labels: another embedder, or another version of a library"
            )
            warnings.warn(message, RbkitWarning, stacklevel=4)
            self._done.clear()
        self.apply(
            {
                "op": "cut",
                "method": "labels",
                "names": domains.names,
                "labels": pack_labels(domains.train_labels),
                "eval_labels": pack_labels(domains.eval_labels),
            }
        )

    def _named(self, op: dict[str, Any]) -> dict[str, Any]:
        """Add the names of the domains concerned: numbers decide, names are for readers."""
        for name in ("domain", "to", "parts", "seed"):
            if op.get(name) is not None:
                op[name] = int(op[name])
        concerned = op.get("domains", [op.get("domain", op.get("to"))])
        op["names"] = [self.names[int(at)] for at in concerned if at is not None]
        return op
