"""No regrouping: the domains are the human labels that the examples came with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Self

import numpy as np
from datasets import DatasetDict
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClusterMixin
from sklearn.utils.validation import check_is_fitted

from rbkit.data.corpus import about
from rbkit.errors import InputError
from rbkit.regroup.cards import CardMaker
from rbkit.regroup.domains import Domains
from rbkit.regroup.grouping import means
from rbkit.regroup.kmeans import assign
from rbkit.regroup.preparation import Material, check_columns, label_column


class SourceLabels(ClusterMixin, BaseEstimator):  # type: ignore[misc]
    """One domain per source: the baseline that regrouping is compared with.

    A clusterer that looks at `sources` and ignores the vectors. Domains are numbered from
    the largest source to the smallest, then by name.

    Parameters
    ----------
    column : str
        Column of the corpus with the labels; ``"source"``, or any other.

    Attributes
    ----------
    sources_ : list of str
        Name of every domain.
    labels_ : ndarray of int32, shape (n,)

    Examples
    --------
    >>> labels = SourceLabels().fit(sources=["wiki", "code", "wiki"])
    >>> labels.sources_, labels.labels_.tolist(), labels.match(["code", "mail"]).tolist()
    (['wiki', 'code'], [0, 1, 0], [1, -1])
    """

    def __init__(self, column: str = "source") -> None:
        self.column = column

    def fit(self, X: object = None, sources: Sequence[str] | None = None) -> Self:
        """Learn which sources there are; `X` is ignored."""
        if sources is None or len(sources) == 0:
            raise InputError("sources", "there are none", "give the source of every example")
        names, counts = np.unique(np.asarray(sources, dtype=str), return_counts=True)
        largest_first = np.lexsort((names, -counts))
        self.sources_ = [str(name) for name in names[largest_first]]
        self.labels_ = self.match(sources)
        return self

    def fit_predict(
        self, X: object = None, sources: Sequence[str] | None = None
    ) -> NDArray[np.int32]:
        """Fit, and return the domain of every example."""
        return self.fit(X, sources).labels_

    def match(self, sources: Sequence[str]) -> NDArray[np.int32]:
        """Return the domain of every source, -1 where it was not seen in training."""
        check_is_fitted(self)
        place = {name: at for at, name in enumerate(self.sources_)}
        return np.array([place.get(str(source), -1) for source in sources], dtype=np.int32)

    def predict(self, X: object = None, sources: Sequence[str] | None = None) -> NDArray[np.int32]:
        """Return the domain of every source: int32, shape (n,).

        Raises
        ------
        InputError
            A source that training lacks: it names all of them, and their share.
        """
        labels = self.match(sources or [])
        if (labels < 0).any():
            unseen = sorted({str(s) for s, at in zip(sources or [], labels, strict=True) if at < 0})
            shown = ", ".join(map(repr, unseen[:8])) + (", ..." if len(unseen) > 8 else "")
            what = f"{(labels < 0).mean():.1%} of its examples come from sources that training"
            remedy = 'pass unseen="drop" to leave them out, unseen="nearest" or "outside" to '
            remedy += "evaluate them, or regroup with KMeans, which places every example"
            raise InputError("eval", f"{what} lacks ({shown})", remedy)
        return labels


def by_source(
    corpus: DatasetDict,
    cluster: SourceLabels,
    unseen: str,
    seed: int,
    embed: Callable[[], tuple[Material, dict[str, float]]],
) -> Domains:
    """Make a domain of every label; eval examples follow their own label.

    `embed` gives the vectors by which sources that training lacks find the nearest that it has.
    """
    check_columns(corpus)
    train, eval_ = (label_column(corpus, split, cluster.column) for split in ("train", "eval"))
    clusters = SourceLabels(cluster.column).fit(sources=train)
    eval_labels = clusters.predict(sources=eval_) if unseen == "error" else clusters.match(eval_)
    lost = eval_labels < 0
    nearest: dict[str, str] = {}
    made: dict[str, Any] = {"embedder": None}
    if unseen == "nearest" and lost.any():
        vectors, seconds = embed()
        made = {"embedder": vectors.embedder, "seconds": seconds}
        names, codes = np.unique(np.asarray(eval_, dtype=str)[lost], return_inverse=True)
        theirs = means(np.asarray(vectors.eval)[lost], codes, len(names))
        ours = means(vectors.train, clusters.labels_, len(clusters.sources_))
        places = assign(theirs, ours)[0]
        eval_labels[lost] = places[codes]
        nearest = {str(n): clusters.sources_[at] for n, at in zip(names, places, strict=True)}
    elif lost.all():
        what = "all of its examples come from sources that training lacks"
        remedy = 'pass unseen="nearest", or regroup with KMeans, which places every example'
        raise InputError("eval", what, remedy)
    m = len(clusters.sources_)
    origin = about(corpus)["fingerprint"]
    no_vectors = (np.zeros((len(corpus[split]), 0)) for split in ("train", "eval"))
    material = Material(corpus, *no_vectors, embedder={}, origin=origin)
    cards = CardMaker(material, seed=seed).cards(
        clusters.labels_,
        m,
        names=clusters.sources_,
        live=False,
        eval_sizes=np.bincount(eval_labels[eval_labels >= 0], minlength=m),
    )
    params = {"unseen": unseen} | ({"column": cluster.column} if cluster.column != "source" else {})
    return Domains.from_labels(
        clusters.sources_,
        clusters.labels_,
        eval_labels,
        method={
            "name": "SourceLabels",
            "params": params,
            **made,
            "seed": seed,
            "corpus": origin,
        },
        quality={
            "silhouette": None,
            "grid": [],
            "eval_dropped_share": float(unseen != "outside" and (eval_labels < 0).mean()),
            **({"unseen": nearest} if nearest else {}),
        },
        cards=cards,
        keys=material.keys,
        count_outside=unseen == "outside",
    )
