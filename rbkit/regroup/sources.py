"""No regrouping: the domains are the human labels that the examples came with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import numpy as np
from datasets import DatasetDict
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClusterMixin
from sklearn.utils.validation import check_is_fitted

from rbkit.data.corpus import about
from rbkit.errors import InputError
from rbkit.regroup.cards import CardMaker
from rbkit.regroup.domains import Domains
from rbkit.regroup.prepare import Material, check_columns


class SourceLabels(ClusterMixin, BaseEstimator):  # type: ignore[misc]
    """One domain per source: what regrouping is compared with.

    A clusterer that looks at `sources` and ignores the vectors. Domains are numbered from
    the largest source to the smallest, then by name.

    Parameters
    ----------
    column : str
        Column of the corpus with the labels; ``"source"``, or one of your own.

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
            unseen = [str(s) for s, label in zip(sources or [], labels, strict=True) if label < 0]
            raise InputError("eval", unseen_sources(unseen, len(labels)), _REMEDY)
        return labels


_REMEDY = 'pass unseen="drop" to leave them out, or regroup with KMeans, which places every example'


def unseen_sources(unseen: Sequence[str], total: int) -> str:
    """Say which sources training lacks, and how much of the eval set they are.

    Examples
    --------
    >>> unseen_sources(["mail", "mail", "chat"], 6)
    "50.0% of its examples come from sources that training lacks ('chat', 'mail')"
    """
    names = sorted(set(unseen))
    shown = ", ".join(repr(name) for name in names[:8]) + (", ..." if len(names) > 8 else "")
    share = f"{len(unseen) / total:.1%}"
    return f"{share} of its examples come from sources that training lacks ({shown})"


def by_source(corpus: DatasetDict, cluster: SourceLabels, unseen: str, seed: int) -> Domains:
    """Make a domain of every label; eval examples go where their label says.

    Raises
    ------
    InputError
        A missing column, an unknown option, or eval labels that training lacks.
    """
    if unseen not in ("error", "drop"):
        raise InputError("unseen", f"{unseen!r} is unknown", 'use "error" or "drop"')
    check_columns(corpus)
    labels = {split: label_column(corpus, split, cluster.column) for split in ("train", "eval")}
    clusters = SourceLabels(cluster.column).fit(sources=labels["train"])
    if unseen == "error":
        eval_labels = clusters.predict(sources=labels["eval"])
    else:
        eval_labels = clusters.match(labels["eval"])
        if (eval_labels < 0).all():
            what = "all of its examples come from sources that training lacks"
            raise InputError("eval", what, "regroup with KMeans, which places every example")
    m = len(clusters.sources_)
    origin = about(corpus)["fingerprint"]
    nothing = (np.zeros((len(corpus[split]), 0)) for split in ("train", "eval"))
    maker = CardMaker(Material(corpus, *nothing, embedder={}, origin=origin), seed=seed)
    cards = maker.cards(
        clusters.labels_,
        m,
        names=clusters.sources_,
        live=False,
        eval_sizes=np.bincount(eval_labels[eval_labels >= 0], minlength=m),
    )
    params = {"unseen": unseen} | ({"column": cluster.column} if cluster.column != "source" else {})
    return Domains(
        names=clusters.sources_,
        train_labels=clusters.labels_,
        eval_labels=eval_labels,
        method={
            "name": "SourceLabels",
            "params": params,
            "embedder": None,
            "seed": seed,
            "corpus": origin,
        },
        quality={
            "silhouette": None,
            "grid": [],
            "eval_dropped_share": float((eval_labels < 0).mean()),
        },
        cards=cards,
    )


def label_column(corpus: DatasetDict, split: str, column: str) -> list[str]:
    """Return a column as labels; a missing ``source`` is "unknown" throughout."""
    data = corpus[split]
    if column not in data.column_names:
        if column == "source":
            return ["unknown"] * len(data)
        have = ", ".join(data.column_names)
        raise InputError("column", f"no {column!r} in the split {split!r}", f"it has {have}")
    return ["unknown" if value is None else str(value) for value in data[column]]
