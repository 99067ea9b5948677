"""Regroup a corpus from end to end (R&B, arXiv 2505.00358, Algorithm 2)."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from datasets import DatasetDict
from numpy.typing import NDArray
from sklearn.base import clone

from rbkit.data.corpus import about
from rbkit.errors import InputError, RbkitWarning
from rbkit.regroup.cards import make_cards
from rbkit.regroup.choose import DEFAULT_GRID, choose_k
from rbkit.regroup.cluster import KMeans, assign
from rbkit.regroup.domains import Domains
from rbkit.regroup.domains_io import plain
from rbkit.regroup.embedding import Embedder, embed_corpus, embedding_seconds
from rbkit.regroup.sources import SourceLabels

# An eval example is "far" if it lies farther from its centroid than 99 of 100 training
# examples do from theirs. One in a hundred is expected; from one in ten on, the domains
# were made from data of another kind. Below 50 eval examples that could be chance.
_FAR_QUANTILE = 0.99
_FAR_SHARE = 0.10
_FAR_LEAST = 50


def regroup(
    corpus: DatasetDict,
    *,
    embedder: str | Embedder = "minilm",
    cluster: Any = "kmeans",
    k: int | Sequence[int] | None = None,
    rule: str = "silhouette",
    seed: int = 0,
    unseen: str = "error",
    cache: Path | str | bool | None = True,
    progress: bool = True,
) -> Domains:
    """Group the training examples of a corpus into domains, and place the eval examples.

    Train is embedded and clustered; every eval example goes to the domain whose centroid
    is nearest, which gives the target proportions q. Clusters come from train and not from
    eval, so that no domain lacks training data.

    Parameters
    ----------
    corpus : datasets.DatasetDict
        From :func:`rbkit.data.load_corpus`: splits ``train`` and ``eval`` with columns
        ``text`` and ``source``.
    embedder : {"minilm", "tfidf"}, hub id, folder or Embedder
        Not used (and not run) with ``cluster="sources"``.
    cluster : {"kmeans", "sources"} or estimator
        An estimator has scikit-learn's `fit` and `labels_`; it is cloned.
    k : int or sequence of int, optional
        Number of domains, or the grid to choose it from. By default 5 to 40, up to one
        domain per 20 training examples. Only for ``cluster="kmeans"``.
    rule : {"silhouette", "stability"}
        How to choose from the grid (:func:`choose_k`).
    seed : int
    unseen : {"error", "drop"}
        With ``cluster="sources"``: what to do with eval examples whose source training lacks.
    cache : path, bool or None
        Where embeddings are kept (:func:`embed`).
    progress : bool

    Returns
    -------
    Domains

    Raises
    ------
    InputError
        An empty or incomplete corpus, more domains than examples, a damaged cache file,
        or eval examples of sources that training lacks.

    Warns
    -----
    RbkitWarning
        More than a tenth of the eval set lies far from all domains.

    Examples
    --------
    >>> from datasets import Dataset, DatasetDict
    >>> texts = ["oak and elm", "an elm tree", "an oak tree", "car engine", "fast car"]
    >>> rows = Dataset.from_dict({"text": texts, "source": ["web"] * 5})
    >>> corpus = DatasetDict({"train": rows, "eval": rows.select([0, 3])})
    >>> regroup(corpus, embedder="tfidf", k=2, progress=False).q.tolist()
    [0.5, 0.5]
    """
    texts, sources = _columns(corpus)
    origin = about(corpus)["fingerprint"]
    if isinstance(cluster, str) and cluster == "sources":
        cluster = SourceLabels()
    if isinstance(cluster, SourceLabels):
        domains = _by_source(texts["train"], sources, unseen, seed)
        domains.method["corpus"] = origin
        return domains
    tool = make_embedder(embedder)
    began = perf_counter()
    vectors = embed_corpus(corpus, tool, cache=cache, progress=progress)
    embedding = perf_counter() - began
    everything = texts["train"] + texts["eval"]
    seconds = {"embed": max(embedding, embedding_seconds(everything, tool, cache=cache))}
    began = perf_counter()
    X = vectors["train"]
    if isinstance(cluster, str):
        if cluster != "kmeans":
            remedy = 'use "kmeans", "sources" or an estimator'
            raise InputError("cluster", f"{cluster!r} is unknown", remedy)
        grid = _grid(k, len(X))
        choice = choose_k(X, grid, seed=seed, rule=rule, progress=progress)
        estimator: Any = KMeans(choice.k, seed=seed)
        quality: dict[str, Any] = {**choice.best, "rule": rule, "grid": choice.grid}
    else:
        estimator, quality = clone(cluster), {"silhouette": None, "grid": []}
    labels, centroids = _cluster(estimator, X)
    eval_labels, eval_distances = assign(vectors["eval"], centroids)
    seconds["cluster"] = perf_counter() - began
    own = np.sum((X - centroids[labels]) ** 2, axis=1)
    quality["eval_far_share"] = _far_share(own, eval_distances)
    cards = make_cards(
        texts["train"],
        sources["train"],
        labels,
        len(centroids),
        eval_sizes=np.bincount(eval_labels, minlength=len(centroids)),
        distances=own,
        seed=seed,
    )
    embedded = {"name": type(tool).__name__, **_params(tool)}
    method = {"name": type(estimator).__name__, "params": _params(estimator), "seed": seed}
    return Domains(
        names=[card.name for card in cards],
        train_labels=labels,
        eval_labels=eval_labels,
        centroids=centroids,
        method=plain({**method, "embedder": embedded, "corpus": origin, "seconds": seconds}),
        quality=plain(quality),
        cards=cards,
    )


def make_embedder(embedder: str | Embedder) -> Embedder:
    """Return the embedder that a name stands for: "tfidf", "minilm", a folder or a hub id."""
    if not isinstance(embedder, str):
        return embedder
    if embedder == "tfidf":
        from rbkit.regroup.tfidf import TfidfEmbedder

        return TfidfEmbedder()
    from rbkit.regroup.transformer import TransformerEmbedder  # slow: imports torch

    return TransformerEmbedder(embedder)


def _columns(corpus: DatasetDict) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    remedy = "make the corpus with rbkit.data.load_corpus"
    texts, sources = {}, {}
    for split in ("train", "eval"):
        if split not in corpus:
            raise InputError("corpus", f"no split {split!r}", remedy)
        if not len(corpus[split]):
            raise InputError("corpus", f"the split {split!r} is empty", "give it examples")
        if "text" not in corpus[split].column_names:
            raise InputError("corpus", f"no column 'text' in the split {split!r}", remedy)
        texts[split] = list(corpus[split]["text"])
        # Sources only describe the domains, so a corpus of someone's own may lack them.
        has = "source" in corpus[split].column_names
        found = corpus[split]["source"] if has else ["unknown"] * len(texts[split])
        sources[split] = [str(source) for source in found]
    return texts, sources


def _by_source(texts: list[str], sources: dict[str, list[str]], unseen: str, seed: int) -> Domains:
    if unseen not in ("error", "drop"):
        raise InputError("unseen", f"{unseen!r} is unknown", 'use "error" or "drop"')
    clusters = SourceLabels().fit(sources=sources["train"])
    if unseen == "error":
        eval_labels = clusters.predict(sources=sources["eval"])
    else:
        eval_labels = clusters.match(sources["eval"])
        if (eval_labels < 0).all():
            what = "all of its examples come from sources that training lacks"
            raise InputError("eval", what, "regroup with KMeans, which places every example")
    m = len(clusters.sources_)
    cards = make_cards(
        texts,
        sources["train"],
        clusters.labels_,
        m,
        eval_sizes=np.bincount(eval_labels[eval_labels >= 0], minlength=m),
        names=clusters.sources_,
        seed=seed,
    )
    return Domains(
        names=clusters.sources_,
        train_labels=clusters.labels_,
        eval_labels=eval_labels,
        method={
            "name": "SourceLabels",
            "params": {"unseen": unseen},
            "embedder": None,
            "seed": seed,
        },
        quality={
            "silhouette": None,
            "grid": [],
            "eval_dropped_share": float((eval_labels < 0).mean()),
        },
        cards=cards,
    )


def _grid(k: int | Sequence[int] | None, n: int) -> list[int]:
    if k is None:
        return [at for at in DEFAULT_GRID if at <= n // 20] or [min(2, n)]
    return [k] if isinstance(k, int | np.integer) else list(k)


def _cluster(
    estimator: Any, X: NDArray[np.float32]
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Fit; return labels 0 to m - 1 without gaps, and the mean vector of every domain."""
    found = np.asarray(estimator.fit(X).labels_)
    if (found < 0).any():
        what = (
            f"{type(estimator).__name__} leaves {np.mean(found < 0):.1%} of the examples as noise"
        )
        raise InputError("cluster", what, "use an estimator that places every example, as KMeans")
    kept, labels = np.unique(found, return_inverse=True)
    if hasattr(estimator, "cluster_centers_"):
        centroids = np.asarray(estimator.cluster_centers_, dtype=np.float32)[kept]
    else:
        centroids = np.stack([X[labels == at].mean(axis=0) for at in range(len(kept))])
    return labels.astype(np.int32), centroids.astype(np.float32)


def _far_share(train: NDArray[np.floating[Any]], placed: NDArray[np.float32]) -> float:
    share = float(np.mean(placed > np.quantile(train, _FAR_QUANTILE, method="higher")))
    if share > _FAR_SHARE and len(placed) >= _FAR_LEAST:
        told = f"{share:.0%} of the eval examples lie farther from their domain than 99% of train"
        advice = "the eval set is of another kind: add training data like it, or read q with care"
        warnings.warn(f"{told}; {advice}", RbkitWarning, stacklevel=3)
    return share


def _params(estimator: Any) -> dict[str, Any]:
    return dict(estimator.get_params()) if hasattr(estimator, "get_params") else {}
