"""What the explorer shows and does, without a widget: a session on an editor.

The session answers in plain values: bytes for what there is per example, lists and dicts for
what there is per domain. The widget only passes them on, so everything here can be tested,
and run in a batch job, without a browser.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rbkit.errors import InputError
from rbkit.regroup.clusterings import Progress
from rbkit.regroup.editor import Editor
from rbkit.regroup.grouping import Grouping
from rbkit.regroup.operations import pack
from rbkit.show.explorer.colouring import Colouring
from rbkit.show.explorer.look import label_places, thumbnail, to_unit_square
from rbkit.show.explorer.palette import domain_palette

SHOWN = 200_000  # points on the map: more are sampled
_TEXT = 2_000  # characters of a text that are sent to be read
_READ = 50  # examples sent at once
_NONE = 65_535
_SOURCES = 60  # rows of the table


class Session:
    """One person's work on one corpus.

    Parameters
    ----------
    editor : Editor
    seed : int
        Of the map, and of the sample of examples that it shows.
    neighbours, min_dist
        Of UMAP (McInnes et al. 2018): how local the map is, how tight its groups.
    """

    def __init__(
        self, editor: Editor, *, seed: int = 0, neighbours: int = 15, min_dist: float = 0.1
    ) -> None:
        self.editor, self.seed = editor, seed
        self.neighbours, self.min_dist = neighbours, min_dist
        n = len(editor.material.train)
        self.shown = np.arange(n)
        if n > SHOWN:
            self.shown = np.sort(np.random.default_rng(seed).choice(n, SHOWN, replace=False))
        self.coordinates: NDArray[np.float32] | None = None
        self.colouring = Colouring(self)
        self.preview: Grouping | None = None
        self._leaf: NDArray[np.float64] | None = None

    # --- the map ------------------------------------------------------------------------

    @property
    def sampled(self) -> bool:
        """Whether the map shows only some of the training examples."""
        return len(self.shown) < len(self.editor.material.train)

    def project(self, on_progress: Progress | None = None, cache: bool = True) -> None:
        """Lay out train and eval examples on a map in the unit square (cached on disk)."""
        from rbkit.regroup.projection import umap_coordinates  # slow: compiles with numba

        material = self.editor.material
        X = np.concatenate([
            np.asarray(material.train[self.shown], dtype=np.float32),
            np.asarray(material.eval, dtype=np.float32),
        ])  # fmt: skip
        found = umap_coordinates(
            X, n_components=2, n_neighbors=self.neighbours, min_dist=self.min_dist,
            seed=self.seed, cache=cache, on_progress=on_progress,
        )  # fmt: skip
        self.coordinates = to_unit_square(found)

    def lay_out(self) -> None:
        """Lay out a first map by principal components, in a moment: UMAP takes its time."""
        material = self.editor.material
        X = np.asarray(material.train[self.shown], dtype=np.float32)
        middle = X.mean(axis=0)
        part = X[:: max(1, len(X) // 20_000)] - middle
        axes = np.linalg.eigh((part.T @ part).astype(np.float64))[1][:, ::-1][:, :2]
        if axes.shape[1] < 2:
            axes = np.pad(axes, ((0, 0), (0, 2 - axes.shape[1])))
        both = np.concatenate([X, np.asarray(material.eval, dtype=np.float32)])
        self.coordinates = to_unit_square((both - middle) @ axes)

    @property
    def xy(self) -> NDArray[np.float32]:
        """Places of the shown train examples, then of the eval examples: (n, 2)."""
        if self.coordinates is None:
            self.project()
        assert self.coordinates is not None
        return self.coordinates

    # --- what is shown now --------------------------------------------------------------

    @property
    def now(self) -> Grouping:
        """What the map shows: a preview while a slider moves, else the editor's state."""
        return self.preview if self.preview is not None else self.editor.grouping

    def labels(self) -> NDArray[np.uint16]:
        """Domain of each point of the map; 65,535 for none."""
        both = np.concatenate([self.now.labels[self.shown], self.now.eval_labels])
        return np.where(both < 0, _NONE, both).astype(np.uint16)

    def domains(self) -> list[dict[str, Any]]:
        """Return what a card shows, for every domain."""
        now, light = self.now, self.preview is not None
        cards = self.editor.cards(now, n_shown=0) if light else self.editor.cards(now)
        sizes, eval_sizes = now.sizes, np.bincount(
            now.eval_labels[now.eval_labels >= 0], minlength=now.m
        )  # fmt: skip
        order = self._order(now)
        colours = dict(zip(order, domain_palette(now.m, sizes[order]), strict=True))
        labels = self.labels()[: len(self.shown)]
        places = label_places(self.xy[: len(self.shown)], labels, now.m)
        tokens = self._tokens(now)
        rank = {int(domain): at for at, domain in enumerate(order)}
        return [
            {
                "id": at, "name": card.name, "colour": colours[at],
                "size": int(sizes[at]), "eval_size": int(eval_sizes[at]),
                "share": float(sizes[at] / max(1, sizes.sum())),
                "q": float(eval_sizes[at] / max(1, eval_sizes.sum())),
                "tokens": int(tokens[at]), "terms": card.terms,
                "sources": [[name, share] for name, share in list(card.sources.items())[:8]],
                "nearest": card.nearest, "strangest": card.strangest,
                "x": float(places[at][0]), "y": float(places[at][1]), "order": rank[at],
                "kind": "noise" if at == now.noise_domain else "domain",
                "thumbs": [] if light else self._thumbs(now, at),
            }
            for at, card in enumerate(cards)
        ]  # fmt: skip

    def sources(self) -> list[dict[str, str]]:
        """Name and colour of every source."""
        names = self._sources[0]
        colours = domain_palette(len(names))
        return [{"name": name, "colour": colours[at]} for at, name in enumerate(names)]

    def source_ids(self) -> NDArray[np.uint16]:
        """Source of each point of the map."""
        _, train, evals = self._sources
        return np.concatenate([train[self.shown], evals]).astype(np.uint16)

    def crosstab(self) -> dict[str, Any]:
        """Return the training examples by source and domain."""
        names, codes, _ = self._sources
        labels, m = self.now.labels, self.now.m
        inside = labels >= 0
        flat = np.bincount(codes[inside] * m + labels[inside], minlength=len(names) * m)
        return {"rows": names, "counts": flat.reshape(len(names), m).tolist()}

    @cached_property
    def _sources(self) -> tuple[list[str], NDArray[np.int64], NDArray[np.int64]]:
        """Sources as the material has them; of very many, the largest and the rest as one.

        A column of addresses is a source of its own for each example: nobody reads such a table.
        """
        names, train, evals = self.editor.material.source_ids
        if len(names) <= _SOURCES:
            return names, train, evals
        largest = np.argsort(-np.bincount(train, minlength=len(names)), kind="stable")
        number = np.full(len(names), _SOURCES - 1)
        number[largest[: _SOURCES - 1]] = np.arange(_SOURCES - 1)
        kept = [names[int(at)] for at in largest[: _SOURCES - 1]]
        return [*kept, f"{len(names) - len(kept):,} other sources"], number[train], number[evals]

    def history(self) -> dict[str, Any]:
        """Return the log in words, and what undo and redo would do."""
        return {
            "undo": self.editor.undoable, "redo": self.editor.redoable,
            "log": str(self.editor.log).splitlines(),
        }  # fmt: skip

    # --- what is asked ------------------------------------------------------------------

    def look(self, method: str, **params: Any) -> None:
        """Show a cut without making it: what a moving slider does."""
        cut = {"method": method, "seed": self.seed, **params}
        self.preview = self.editor.clusterings.cut(cut)

    def apply(
        self, op: dict[str, Any], selection: NDArray[np.int64], on_progress: Progress | None = None
    ) -> None:
        """Carry out an operation; a move takes the selected examples."""
        self.preview = None
        if op.get("op") == "move":
            op = op | {"rows": pack(self.rows(selection))}
        if op.get("op") == "cut" and op.get("method") not in ("sources", "column", "labels"):
            op = {"seed": self.seed} | op
        self.editor.apply(op, on_progress)

    def rows(self, points: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
        """Return the training rows behind points of the map; eval points are left out."""
        if self.sampled:
            n = len(self.editor.material.train)
            what = f"the map shows {len(self.shown):,} of {n:,} examples, so a lasso sees a part"
            raise InputError("move", what, "split, merge or drop whole domains instead")
        return self.shown[np.asarray(points)[np.asarray(points) < len(self.shown)]]

    def read(self, points: Sequence[int]) -> list[dict[str, Any]]:
        """Return texts, sources, domains and distances of points of the map."""
        found = []
        for point in list(points)[:_READ]:
            split, row = self._place(int(point))
            text = self.editor.material.texts(split, [row])[0]
            labels = self.now.labels if split == "train" else self.now.eval_labels
            item = {
                "row": int(point), "split": split, "domain": int(labels[row]),
                "text": text if len(text) <= _TEXT else text[: _TEXT - 1] + "…",
                "length": len(text), "source": self.editor.material.sources(split)[row],
                "distance": self.colouring.distance(int(point)),
            }  # fmt: skip
            if self.editor.material.has_images:
                item["image"] = thumbnail(self.editor.material.image(split, row), 256)
            found.append(item)
        return found

    def more(self, domain: int, kind: str, wanted: int = 10) -> list[dict[str, Any]]:
        """Return the nearest, strangest or random examples of a domain."""
        members = np.flatnonzero(self.labels()[: len(self.shown)] == domain)
        if kind == "random":
            rng = np.random.default_rng([self.seed, domain, len(members)])
            return self.read(np.sort(rng.permutation(members)[:wanted]).tolist())
        distances = self.now.distances("train", self.editor.material.train)[self.shown[members]]
        order = np.argsort(distances if kind == "nearest" else -distances, kind="stable")
        return self.read(members[order[:wanted]].tolist())

    def search(self, query: str) -> NDArray[np.int64]:
        """Return the points whose text contains `query`, whatever the case."""
        wanted = query.casefold().strip()
        if not wanted:
            return np.zeros(0, dtype=np.int64)
        material, found, first = self.editor.material, [], 0
        for split, rows in (("train", self.shown), ("eval", np.arange(len(material.eval)))):
            for start in range(0, len(rows), 10_000):
                part = material.texts(split, rows[start : start + 10_000])
                hits = [at for at, text in enumerate(part) if wanted in text.casefold()]
                found += [first + start + at for at in hits]
            first += len(rows)
        return np.asarray(found, dtype=np.int64)

    def summary(self) -> str:
        """One line: how many domains over how many examples."""
        material = self.editor.material
        return (
            f"{self.now.m} domains over {len(material.train):,} train and "
            f"{len(material.eval):,} eval examples"
        )

    # --- helpers ------------------------------------------------------------------------

    def _place(self, point: int) -> tuple[str, int]:
        if point < len(self.shown):
            return "train", int(self.shown[point])
        return "eval", point - len(self.shown)

    def _order(self, now: Grouping) -> list[int]:
        """Return the domains along the leaves of the hierarchy: related ones are neighbours.

        The leaves stay what they are, however the corpus is cut, so that a topic keeps about
        its colour from one cut to the next.
        """
        if self._leaf is None:
            tree = self.editor.clusterings.tree(seed=self.seed)
            place = np.empty(len(tree.leaf_order_))
            place[tree.leaf_order_] = np.arange(len(place))
            self._leaf = place[tree.micro_labels_]
        inside = now.labels >= 0
        labels = now.labels[inside]
        total = np.bincount(labels, weights=self._leaf[inside], minlength=now.m)
        mean = total / np.maximum(np.bincount(labels, minlength=now.m), 1)
        return [int(at) for at in np.argsort(mean, kind="stable")]

    def _tokens(self, now: Grouping) -> NDArray[np.int64]:
        # About four characters a token in English prose: an estimate, and shown as one.
        lengths = self.editor.material.lengths("train") / 4
        inside = now.labels >= 0
        counted = np.bincount(now.labels[inside], weights=lengths[inside], minlength=now.m)
        return counted.astype(np.int64)

    def _thumbs(self, now: Grouping, domain: int) -> list[str]:
        material = self.editor.material
        if not material.has_images:
            return []
        members = now.members(domain)
        near = np.argsort(now.distances("train", material.train)[members], kind="stable")[:4]
        return [thumbnail(material.image("train", int(row)), 64) for row in members[near]]
