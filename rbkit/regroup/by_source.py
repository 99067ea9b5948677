"""Domains that are the sources, or any labels that the examples came with: no embedding."""

from __future__ import annotations

import numpy as np
from datasets import DatasetDict

from rbkit.data.corpus import about
from rbkit.errors import InputError
from rbkit.regroup.cards import CardMaker
from rbkit.regroup.domains import Domains
from rbkit.regroup.material import Material
from rbkit.regroup.preparation import check_columns
from rbkit.regroup.sources import SourceLabels


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
        clusters.labels_, m, names=clusters.sources_, live=False,
        eval_sizes=np.bincount(eval_labels[eval_labels >= 0], minlength=m),
    )  # fmt: skip
    params = {"unseen": unseen} | ({"column": cluster.column} if cluster.column != "source" else {})
    return Domains(
        names=clusters.sources_,
        train_labels=clusters.labels_,
        eval_labels=eval_labels,
        method={"name": "SourceLabels", "params": params, "embedder": None, "seed": seed,
                "corpus": origin},
        quality={"silhouette": None, "grid": [],
                 "eval_dropped_share": float((eval_labels < 0).mean())},
        cards=cards,
    )  # fmt: skip


def label_column(corpus: DatasetDict, split: str, column: str) -> list[str]:
    """Return a column as labels; a missing ``source`` is "unknown" throughout."""
    data = corpus[split]
    if column not in data.column_names:
        if column == "source":
            return ["unknown"] * len(data)
        have = ", ".join(data.column_names)
        raise InputError("column", f"no {column!r} in the split {split!r}", f"it has {have}")
    return ["unknown" if value is None else str(value) for value in data[column]]
