"""Regroup a corpus from end to end (R&B, arXiv 2505.00358, Algorithm 2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import clone

from rbkit.errors import InputError, as_count, as_seed
from rbkit.files import json_ready
from rbkit.regroup.choose import DEFAULT_GRID, choose_k
from rbkit.regroup.distances import distance_profile, far_eval
from rbkit.regroup.domains import Domains
from rbkit.regroup.editor import Editor
from rbkit.regroup.embedders import AnyEmbedder, params_of
from rbkit.regroup.noise import warn_of_shape
from rbkit.regroup.operations import EditLog, pack_labels
from rbkit.regroup.preparation import as_corpus, check_columns, prepare, texts_of
from rbkit.regroup.sources import SourceLabels, by_source


def regroup(
    corpus: Any,
    *,
    embedder: AnyEmbedder = "minilm",
    embed: str | None = None,
    cluster: Any = "kmeans",
    k: int | Sequence[int] | Literal["auto"] | None = None,
    rule: str = "silhouette",
    min_cluster_size: int | None = None,
    noise: str | None = None,
    max_noise: float | None = None,
    far: str = "keep",
    edits: EditLog | str | Path | None = None,
    vectors: Mapping[str, ArrayLike] | None = None,
    seed: int = 0,
    unseen: str = "error",
    cache: Path | str | bool | None = True,
    num_proc: int = 1,
    progress: bool = True,
) -> Domains:
    """Group the training examples of a corpus into domains, and place the eval examples.

    Train is embedded and clustered; every eval example goes to the domain whose centroid
    is nearest, which gives the target proportions q. Clusters come from train and not from
    eval, so that no domain lacks training data.

    Parameters
    ----------
    corpus : datasets.DatasetDict, or list of texts, DataFrame, file, ...
        From :func:`rbkit.data.load_corpus`: splits ``train`` and ``eval`` with columns
        ``text`` and ``source``. Whatever else that function takes is loaded with `seed` and
        its defaults; to train on it afterwards, load it first.
    embedder : {"minilm", "tfidf", "pixels"}, hub id, folder, Embedder, model or callable
        A SentenceTransformer, or a function from a list of texts to (n, d) numbers, will do; they
        are run each time, the others' vectors are kept. Not used (and not run) with
        ``cluster="sources"``, but for ``unseen="nearest"``. Of images the captions are embedded by
        default; ``"pixels"`` looks at colours and outlines, a folder of a CLIP or a
        :class:`ClipEmbedder` at what they show.
    embed : str, optional
        Column that the embedder reads in place of ``text``: ``"prompt"`` is the prompt alone of
        data that has one (:func:`~rbkit.data.load_corpus` makes it of usual shapes), and any
        other column may hold texts, lists of them, or chats. Terms and quotes are of the text.
        Recorded in ``method["embedder"]``, and so obeyed by whatever embeds for these domains.
    cluster : {"kmeans", "ward", "hdbscan", "sources"} or estimator
        k-means is the paper's; ``ward`` is a hierarchy that can be cut again at any k;
        ``hdbscan`` finds dense groups on a UMAP, and noise. An estimator has scikit-learn's
        `fit` and `labels_`; it is cloned. ``SourceLabels(column=...)`` takes any column of labels.
    k : int, sequence of int or "auto", optional
        Number of domains, or the grid to choose it from. By default ("auto") 5 to 40, up to one
        domain per 20 training examples. With ``hdbscan`` an int asks for the
        `min_cluster_size` that comes nearest to it.
    rule : {"silhouette", "stability"}
        How to choose from the grid (:func:`choose_k`).
    min_cluster_size : int, optional
        Of HDBSCAN.
    noise : {"nearest", "own", "drop"}, optional
        Examples that the clusterer leaves as noise join the nearest domain, make one of
        their own, or take no part. ``nearest`` for ``hdbscan``; for
        another estimator that leaves noise it has to be given.
    max_noise : float, optional
        At most this share of all examples stays noise: the nearest ones join their domain
        first, the rest follow `noise`.
    far : {"keep", "apart", "outside"}
        Eval examples that lie far from all domains: in q; apart (label -1), and not evaluated; or
        outside (label -1), in the overall eval loss alone.
    edits : EditLog or path, optional
        A log of edits made by hand, to be repeated, with its first cut and its embedder.
    vectors : mapping, optional
        ``{"train": (n_train, d), "eval": (n_eval, d)}``, instead of an embedder's.
    seed : int
    unseen : {"error", "drop", "nearest", "outside"}
        With ``cluster="sources"``, of eval examples whose source training lacks: an error; left
        out; each such source to the train source whose mean vector is nearest to its own
        (``quality["unseen"]``), for which the corpus is embedded; or in the overall eval loss
        without a domain.
    cache : path, bool or None
        Where embeddings are kept (:func:`embed`).
    num_proc : int
        Processes that embed.
    progress : bool

    Returns
    -------
    Domains

    Raises
    ------
    InputError
        An empty or incomplete corpus, more domains than examples, a damaged cache file,
        a log of another corpus, or eval examples of sources that training lacks.

    Warns
    -----
    RbkitWarning
        Many eval examples lie far from all domains; a domain holds more than half of the
        corpus; a replayed log gives other domains than those recorded.

    Examples
    --------
    >>> from datasets import Dataset, DatasetDict
    >>> texts = ["oak and elm", "an elm tree", "an oak tree", "car engine", "fast car"]
    >>> rows = Dataset.from_dict({"text": texts, "source": ["web"] * 5})
    >>> corpus = DatasetDict({"train": rows, "eval": rows.select([0, 3])})
    >>> regroup(corpus, embedder="tfidf", k=2, progress=False).q.tolist()
    [0.5, 0.5]
    """
    seed = as_seed(seed)
    check_columns(corpus := as_corpus(corpus, seed=seed, progress=progress))
    automatic = k is None or (isinstance(k, str) and k == "auto")
    grid = None if automatic else _as_grid(k)
    if far not in ("keep", "apart", "outside"):
        raise InputError("far", f"{far!r} is unknown", 'use "keep", "apart" or "outside"')
    if unseen not in ("error", "drop", "nearest", "outside"):
        remedy = 'use "error", "drop", "nearest" or "outside"'
        raise InputError("unseen", f"{unseen!r} is unknown", remedy)
    if isinstance(cluster, str):
        if cluster == "sources":
            cluster = SourceLabels()
        elif cluster not in ("kmeans", "ward", "hdbscan"):
            remedy = 'use "kmeans", "ward", "hdbscan", "sources" or an estimator'
            raise InputError("cluster", f"{cluster!r} is unknown", remedy)
    if embed is not None:  # also where nothing is embedded, in the end
        texts_of(corpus["train"].select([0]), embed, "train")
    options: dict[str, Any] = {"cache": cache, "num_proc": num_proc, "progress": progress}
    options |= {"embed": embed, "vectors": vectors}
    if isinstance(cluster, SourceLabels) and edits is None:
        return by_source(
            corpus, cluster, unseen, seed, partial(prepare, corpus, embedder, **options)
        )
    log = None
    if edits is not None:
        log = edits if isinstance(edits, EditLog) else EditLog.load(edits)
        if embedder == "minilm" and log.embedder:  # the default: then the log's own
            embedder = log.embedder
        if vectors is None:
            options["embed"] = embed or log.embedder.get("embed")
    material, seconds = prepare(corpus, embedder, **options)
    editor = Editor(material)
    began = perf_counter()
    quality: dict[str, Any] = {"silhouette": None, "grid": []}
    if log is not None:
        editor.replay(log)
    elif isinstance(cluster, str):
        if cluster == "hdbscan":
            _cut_by_density(editor, grid, min_cluster_size, noise, max_noise, seed)
        elif noise is not None or max_noise is not None:
            remedy = 'leave noise and max_noise out, or use "hdbscan"'
            raise InputError("noise", f"{cluster} leaves none", remedy)
        else:
            quality |= _cut_by_k(editor, cluster, grid, rule, seed, progress)
    else:
        try:
            estimator = clone(cluster)
        except TypeError as error:
            remedy = 'use "kmeans", "ward", "hdbscan", "sources" or an estimator'
            raise InputError("cluster", f"cannot be cloned ({error})", remedy) from error
        _cut_by_estimator(editor, estimator, noise, max_noise)
    seconds["cluster"] = perf_counter() - began
    domains = measured_domains(editor, quality, seconds=seconds, far=far)
    if log is None and not isinstance(cluster, str):
        name, params = type(cluster).__name__, params_of(cluster)
        domains.method |= {"name": name, "params": params, "seed": seed}
    return domains


def _as_grid(k: Any) -> list[int]:
    """Return the numbers of domains to choose from: one, or several."""
    several = hasattr(k, "__iter__") and not isinstance(k, str | bytes) and getattr(k, "ndim", True)
    return [as_count("k", each, least=1) for each in (k if several else [k])]


def _cut_by_density(
    editor: Editor,
    grid: list[int] | None,
    min_cluster_size: int | None,
    noise: str | None,
    max_noise: float | None,
    seed: int,
) -> None:
    fitted = editor.clusterings.density(seed=seed)
    if min_cluster_size is None and grid is not None:
        if len(grid) != 1:
            remedy = "give one k, or min_cluster_size"
            raise InputError("k", "HDBSCAN takes no grid of k", remedy)
        min_cluster_size = fitted.size_for(grid[0])
    size = fitted.min_cluster_size_ if min_cluster_size is None else min_cluster_size
    noise = noise or "nearest"
    editor.cut("hdbscan", min_cluster_size=size, seed=seed, noise=noise, max_noise=max_noise)


def _cut_by_k(
    editor: Editor,
    cluster: str,
    grid: list[int] | None,
    rule: str,
    seed: int,
    progress: bool,
) -> dict[str, Any]:
    """Cut by k-means or Ward's tree with the best k of the grid; return the grid's measures."""
    X, X_eval = editor.material.train, editor.material.eval
    if grid is None:
        grid = [at for at in DEFAULT_GRID if at <= len(X) // 20] or [min(2, len(X))]
    tree = (
        editor.clusterings.tree(seed=seed, least=max(grid, default=1))
        if cluster == "ward"
        else None
    )
    choice = choose_k(
        X, grid, tree=tree, eval_vectors=X_eval, seed=seed, rule=rule, progress=progress
    )
    if tree is None:
        editor.cut("kmeans", k=choice.k, seed=seed)
    else:
        editor.cut("ward", k=choice.k, seed=seed, n_micro=tree.n_micro)
    best = {**choice.best, "rule": rule, "grid": choice.grid}
    return best | ({"verdict": choice.verdict} if len(grid) > 1 else {})


def _cut_by_estimator(
    editor: Editor, estimator: Any, noise: str | None, max_noise: float | None
) -> None:
    """Cut by the user's estimator; its labels go into the log."""
    labels = np.asarray(estimator.fit(editor.material.train).labels_)
    if labels.shape != (n := (len(editor.material.train),)) or labels.dtype.kind not in "iu":
        what = f"{type(estimator).__name__} gives labels of shape {labels.shape}, {labels.dtype}"
        raise InputError("cluster", what, f"it must give one integer per example: shape {n}")
    outside = labels < 0
    if outside.any() and noise is None:
        what = f"{type(estimator).__name__} leaves {np.mean(outside):.1%} of the examples as noise"
        remedy = 'give noise="nearest", "own" or "drop"; or use an estimator that places all'
        raise InputError("cluster", what, remedy)
    full = np.full(len(labels), -1, dtype=np.int32)
    full[~outside] = np.unique(labels[~outside], return_inverse=True)[1]  # 0 to m - 1, no gaps
    editor.cut("labels", labels=pack_labels(full), noise=noise, max_noise=max_noise)


def measured_domains(
    editor: Editor,
    quality: Mapping[str, Any] | None = None,
    *,
    seconds: Mapping[str, float] | None = None,
    far: str = "keep",
    warn: bool = True,
) -> Domains:
    """Return the editor's domains with distances, noise and far eval examples measured.

    `quality` holds measures made before, such as the grid that k was chosen from; `seconds`
    is ``{"embed", "cluster"}``; `far` as in :func:`regroup`; `warn` of a domain that holds
    half of the corpus, and of many far examples.
    """
    domains = editor.domains(quality)
    if seconds is not None:
        domains.method["seconds"] = dict(seconds)
    assert domains.centroids is not None
    domains.quality["distances"] = distance_profile(
        editor.material.train,
        domains.train_labels,
        domains.centroids,
        domains.centroid_domains,
        m=domains.m,
    )
    effect, noise = editor.noise_effect, editor.grouping.noise
    if effect is not None and noise is not None:
        n = len(effect.labels)
        domains.quality["noise"] = json_ready(
            {
                "share": effect.noise_before / n,
                "left": float(np.mean(noise & (effect.labels < 0))),
                "policy": effect.policy,
                "max_noise": effect.max_noise,
                "sizes_before": effect.sizes_before,
                "sizes_after": effect.sizes_after,
            }
        )
    domains.quality["dropped_share"] = float(np.mean(domains.train_labels < 0))
    if warn:
        warn_of_shape(domains.sizes)
    examples = far_eval(domains)
    domains.quality["far_eval"] = json_ready(examples.to_dict())
    domains.quality["eval_far_share"] = examples.share
    if warn and far == "keep":
        examples.warn(stacklevel=3)
    if far != "keep":
        labels = examples.apart()
        sizes = np.bincount(labels[labels >= 0], minlength=domains.m)
        cards = [
            replace(card, eval_size=int(n)) for card, n in zip(domains.cards, sizes, strict=True)
        ]
        outside = domains.count_outside or far == "outside"
        domains = replace(domains, eval_labels=labels, cards=cards, count_outside=outside)
        domains.quality["far_eval"]["apart"] = True
    return domains
