"""Edit domains step by step: every step is logged, can be undone, and can be replayed."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rbkit.errors import InputError, RbkitWarning
from rbkit.files import json_ready
from rbkit.regroup.cards import CardMaker
from rbkit.regroup.clusterings import Clusterings, Progress
from rbkit.regroup.domains import Card, Domains
from rbkit.regroup.grouping import Grouping, Labels
from rbkit.regroup.noise import NoiseOutcome
from rbkit.regroup.operations import (
    HAND,
    EditLog,
    describe,
    noise_policy,
    pack,
    pack_labels,
    result_of,
)
from rbkit.regroup.prepare import Material

_MADE_BY = {
    "ward": "WardTree",
    "kmeans": "KMeans",
    "hdbscan": "UmapHDBSCAN",
    "sources": "SourceLabels",
    "column": "SourceLabels",
    "labels": "by hand",
}
_BULKY = ("op", "method", "names", "labels", "eval_labels")
_MOST_STEPS = 100  # kept for undo


@dataclass(frozen=True)
class _Step:
    op: dict[str, Any]
    grouping: Grouping


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
        self.clusterings = clusterings or Clusterings(material)
        self.maker = CardMaker(material)
        self._done: list[_Step] = []
        self._undone: list[_Step] = []
        self._forgotten: list[dict[str, Any]] = []  # operations too old to be undone
        if domains is not None:
            self._begin(domains)

    # --- what there is ------------------------------------------------------------------

    @property
    def grouping(self) -> Grouping:
        """The present state."""
        if not self._done:
            raise InputError("editor", "there are no domains yet", "begin with .cut(...)")
        return self._done[-1].grouping

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
        known = self._cards
        if known is not None and known[0] is now and not options:
            return known[1]
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

    _cards: tuple[Grouping, list[Card]] | None = None

    # --- what can be done ---------------------------------------------------------------

    def cut(self, method: str, **params: Any) -> Editor:
        """Cut the corpus anew: ``ward``, ``kmeans``, ``hdbscan``, ``sources``, ...

        Edits made before are gone from the state (not from the undo stack). Parameters:
        :meth:`~rbkit.regroup.clusterings.Clusterings.cut`.
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
        """Move training examples to a domain, or to a new one."""
        return self.apply({"op": "move", "rows": pack(rows), "to": to, "name": name})

    def rename(self, domain: int, name: str) -> Editor:
        """Name a domain; an empty name goes back to its terms."""
        return self.apply({"op": "rename", "domain": domain, "name": name})

    def drop(self, domain: int) -> Editor:
        """Leave a domain out of training."""
        return self.apply({"op": "drop", "domain": domain})

    def settle(self, policy: str = "nearest", max_noise: float | None = None) -> Editor:
        """Say what becomes of noise: to the ``nearest`` domain, its ``own``, or ``drop``."""
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
        elif kind in HAND:
            given = {key: value for key, value in op.items() if key not in ("op", "names")}
            try:
                grouping = HAND[kind](self.grouping, self.material, **given)
            except InputError:
                raise
            except (TypeError, ValueError, OverflowError) as error:
                raise InputError(kind, str(error), "check its parameters") from error
            named = self._named(json_ready(op))
        else:
            known = ", ".join(["cut", *HAND])
            raise InputError("op", f"{kind!r} is unknown", f"use {known}")
        self._done.append(_Step(named, grouping))
        self._forgotten += [step.op for step in self._done[:-_MOST_STEPS]]
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
        """Do again what was undone; False if there is nothing."""
        if not self._undone:
            return False
        self._done.append(self._undone.pop())
        return True

    @property
    def undoable(self) -> str:
        """What :meth:`undo` would take back, in words; empty if nothing."""
        return describe(self._done[-1].op) if len(self._done) > 1 else ""

    @property
    def redoable(self) -> str:
        """What :meth:`redo` would do, in words; empty if nothing."""
        return describe(self._undone[-1].op) if self._undone else ""

    # --- what comes of it ---------------------------------------------------------------

    @property
    def ops(self) -> list[dict[str, Any]]:
        """Operations that lead to the present state: the last cut and what followed it."""
        done = self._forgotten + [step.op for step in self._done]
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
        params = {k: v for k, v in first.items() if k not in _BULKY}
        params = {"n_clusters" if key == "k" else key: value for key, value in params.items()}
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
            raise InputError("edits", what, "load that corpus, with the seed and sizes of then")
        for at, op in enumerate(log.ops, start=1):
            try:
                self.apply(op if op["op"] == "cut" else op | {"names": None})
            except InputError as error:
                where = f"edits, step {at} ({describe(op)})"
                raise InputError(where, f"{error.where}: {error.what}", error.remedy) from error
        now = result_of(self.labels, self.names)
        if log.result and now["labels"] != log.result.get("labels"):
            then = log.result.get("sizes", [])
            told = f"the replay gives domains of {now['sizes']} examples, recorded were {then}"
            warnings.warn(
                f"{told}: another version of a library, or another machine's embedding",
                RbkitWarning,
                stacklevel=2,
            )
        return self

    @property
    def noise_effect(self) -> NoiseOutcome | None:
        """What the policy did to the sizes: None where the clusterer knows no noise."""
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
            told = (
                "the vectors at hand give other domains than those saved; these are kept as labels"
            )
            warnings.warn(
                f"{told}: another embedder, or another version of a library",
                RbkitWarning,
                stacklevel=4,
            )
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
        concerned = op.get("domains", [op.get("domain", op.get("to"))])
        known = self.names
        valid = [at for at in concerned if isinstance(at, int) and 0 <= at < len(known)]
        op["names"] = [known[at] for at in valid]
        return op
