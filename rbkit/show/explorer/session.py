"""What the explorer shows and does, without a widget: a session on an editor.

The session answers in plain values: arrays for what there is per example, lists and dicts for
what there is per domain. The widget only passes them on, so everything here can be tested,
and run in a batch job, without a browser.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
from matplotlib.colors import to_hex
from numpy.typing import NDArray

from rbkit.errors import InputError
from rbkit.regroup.editor import DENSITY, Editor, Progress
from rbkit.regroup.grouping import Grouping
from rbkit.regroup.noise import cliff
from rbkit.regroup.operations import noise_policy, pack
from rbkit.show.explorer.colours import (
    CATEGORIES,
    MODES,
    NEED_RUN,
    alignment_by_example,
    loss_by_example,
    to_bytes,
)
from rbkit.show.style import domain_colours
from rbkit.text import truncate

#: Label of a point in no domain (dropped, or noise).
NO_DOMAIN = 65_535

_MOST_POINTS = 200_000  # on the map: of more examples a sample is shown
_MOST_CHARACTERS = 2_000  # of a text that is sent to be read
_MOST_READ = 50  # examples sent at once
_MOST_SOURCES = 60  # rows of the table
_MOST_DOMAINS = 300  # that the slider goes up to
_SMALL = 30  # examples: a domain of fewer is used up in a few steps
_METHODS = ["ward", "kmeans", "hdbscan", "sources"]


class Session:
    """One person's work on one corpus.

    Points of the map are the shown training examples, then all eval examples.

    Parameters
    ----------
    editor : Editor
    seed : int
        Of the map, of cuts, and of the sample of examples that a large map shows.

    Attributes
    ----------
    shown : ndarray of int64
        Rows of the training examples on the map.
    n_neighbors, min_dist
        Of UMAP (McInnes et al. 2018): how local the map is, how tight its groups.
    preview : Grouping or None
        A cut that a moving slider shows; it is not made yet.
    colour_mode : str
    run : Run or None
        Whose losses and gradients can colour the map.
    """

    def __init__(self, editor: Editor, *, seed: int = 0) -> None:
        self.editor, self.seed = editor, seed
        self.n_neighbors, self.min_dist = 15, 0.1
        n = len(editor.material.train)
        self.shown = np.arange(n)
        if n > _MOST_POINTS:
            rng = np.random.default_rng(seed)
            self.shown = np.sort(rng.choice(n, _MOST_POINTS, replace=False))
        self.preview: Grouping | None = None
        self.colour_mode = "domain"
        self.run: Any = None
        self._xy: NDArray[np.float32] | None = None
        self._distances: tuple[Grouping, NDArray[np.float32]] | None = None
        self._advised: dict[str, Any] | None = None
        self._no_advice = ""
        self._cliff: tuple[dict[str, Any] | None, str] = (None, "")

    # --- the map ------------------------------------------------------------------------

    @property
    def xy(self) -> NDArray[np.float32]:
        """Places of the points in the unit square, (n, 2); by UMAP if there are none yet."""
        if self._xy is None:
            self.lay_out_by_umap()
        assert self._xy is not None
        return self._xy

    def lay_out_by_umap(self, on_progress: Progress | None = None) -> None:
        """Lay out the map by UMAP (cached on disk)."""
        from rbkit.regroup.umap import umap_coordinates

        coordinates = umap_coordinates(
            np.concatenate(self._vectors()),
            n_components=2,
            n_neighbors=self.n_neighbors,
            min_dist=self.min_dist,
            seed=self.seed,
            on_progress=on_progress,
        )
        self._xy = to_unit_square(coordinates)

    def lay_out_by_pca(self) -> None:
        """Lay out a first map by principal components, in a moment: UMAP takes its time."""
        train, evals = self._vectors()
        middle = train.mean(axis=0)
        part = train[:: max(1, len(train) // 20_000)] - middle
        axes = np.linalg.eigh((part.T @ part).astype(np.float64))[1][:, ::-1][:, :2]
        axes = np.pad(axes, ((0, 0), (0, 2 - axes.shape[1])))  # vectors of one dimension
        self._xy = to_unit_square((np.concatenate([train, evals]) - middle) @ axes)

    def _vectors(self) -> list[NDArray[np.float32]]:
        material = self.editor.material
        return [
            np.asarray(X, dtype=np.float32) for X in (material.train[self.shown], material.eval)
        ]

    @property
    def sampled(self) -> bool:
        """Whether the map shows only some of the training examples."""
        return len(self.shown) < len(self.editor.material.train)

    # --- what is shown now --------------------------------------------------------------

    @property
    def grouping(self) -> Grouping:
        """The preview while a slider moves, else the editor's state."""
        return self.editor.grouping if self.preview is None else self.preview

    def labels(self) -> NDArray[np.uint16]:
        """Return the domain of each point, `NO_DOMAIN` for none."""
        grouping = self.grouping
        labels = np.concatenate([grouping.labels[self.shown], grouping.eval_labels])
        return np.where(labels < 0, NO_DOMAIN, labels).astype(np.uint16)

    def domains(self) -> list[dict[str, Any]]:
        """Return the contents of a card for every domain; of a preview, without texts."""
        grouping, final = self.grouping, self.preview is None
        m, sizes, evals = grouping.m, grouping.sizes, grouping.eval_labels
        cards = self.editor.cards(grouping, **({} if final else {"n_shown": 0}))
        eval_sizes = np.bincount(evals[evals >= 0], minlength=m)
        order = self._similarity_order(grouping)
        colours = [to_hex(colour) for colour in domain_colours(m)]
        ranks = np.argsort(order)
        places = label_places(self.xy[: len(self.shown)], self.labels()[: len(self.shown)], m)
        # About four characters a token in English prose: an estimate, and shown as one.
        inside = grouping.labels >= 0
        lengths = self.editor.material.lengths("train")[inside] / 4
        tokens = np.bincount(grouping.labels[inside], weights=lengths, minlength=m)
        return [
            {
                "id": domain,
                "name": card.name,
                "colour": colours[domain],
                "size": int(sizes[domain]),
                "eval_size": int(eval_sizes[domain]),
                "share": float(sizes[domain] / max(1, sizes.sum())),
                "q": float(eval_sizes[domain] / max(1, eval_sizes.sum())),
                "tokens": int(tokens[domain]),
                "terms": card.terms,
                "sources": [[name, share] for name, share in list(card.sources.items())[:8]],
                "nearest": card.nearest,
                "strangest": card.strangest,
                "x": float(places[domain][0]),
                "y": float(places[domain][1]),
                "order": int(ranks[domain]),
                "kind": "noise" if domain == grouping.noise_domain else "domain",
                "thumbs": self._thumbnails(grouping, domain) if final else [],
            }
            for domain, card in enumerate(cards)
        ]

    def sources(self) -> list[dict[str, str]]:
        """Return name and colour of every source."""
        names = self._sources[0]
        palette = [to_hex(colour) for colour in domain_colours(len(names))]
        return [
            {"name": name, "colour": colour} for name, colour in zip(names, palette, strict=True)
        ]

    def source_ids(self) -> NDArray[np.uint16]:
        """Return the source of each point."""
        _, train, evals = self._sources
        return np.concatenate([train[self.shown], evals]).astype(np.uint16)

    def crosstab(self) -> dict[str, Any]:
        """Return the number of training examples by source and domain."""
        names, codes, _ = self._sources
        labels, m = self.grouping.labels, self.grouping.m
        inside = labels >= 0
        flat = np.bincount(codes[inside] * m + labels[inside], minlength=len(names) * m)
        return {"rows": names, "counts": flat.reshape(len(names), m).tolist()}

    @cached_property
    def _sources(self) -> tuple[list[str], NDArray[np.int64], NDArray[np.int64]]:
        """Names of the sources, and that of each example; of very many, the rest as one.

        A column of addresses gives each example its own source: nobody reads such a table.
        """
        names, train, evals = self.editor.material.source_ids
        if len(names) <= _MOST_SOURCES:
            return names, train, evals
        by_size = np.argsort(-np.bincount(train, minlength=len(names)), kind="stable")
        largest = by_size[: _MOST_SOURCES - 1]
        number = np.full(len(names), len(largest))
        number[largest] = np.arange(len(largest))
        rest = f"{len(names) - len(largest):,} other sources"
        return [*(names[int(at)] for at in largest), rest], number[train], number[evals]

    def history(self) -> dict[str, Any]:
        """Return the log in words, and what undo and redo would do."""
        return {
            "undo": self.editor.undoable,
            "redo": self.editor.redoable,
            "log": str(self.editor.log).splitlines(),
        }

    # --- colours ------------------------------------------------------------------------

    def show_run(self, run: Any) -> None:
        """Let losses and gradients of a run on these domains colour the map."""
        n = len(self.editor.material.train)
        if run.domains is None or len(run.domains.train_labels) != n:
            what = "it was not trained on domains of this corpus"
            raise InputError("run", what, "give a run of these domains")
        self.run = run

    def colour_by(self, mode: str) -> None:
        """Choose the quantity that colours the map."""
        if mode not in self._colour_modes:
            remedy = f"use {', '.join(self._colour_modes)}"
            more = "; loss and gram need a run: explorer.show_run(run)"
            raise InputError("colour", f"{mode!r} is unknown", remedy + more)
        self.colour_mode = mode

    @property
    def _colour_modes(self) -> list[str]:
        return [mode for mode in MODES if self.run is not None or mode not in NEED_RUN]

    def colour_values(self) -> NDArray[np.float64]:
        """Return the quantity of a continuous colour mode for each point, NaN if unknown."""
        if self.colour_mode == "loss":
            return loss_by_example(self.run, self.shown)
        if self.colour_mode == "gram":
            return alignment_by_example(self.run, self.shown)
        if self.colour_mode == "distance":
            return self.distances().astype(np.float64)
        material = self.editor.material
        lengths = [material.lengths("train")[self.shown], material.lengths("eval")]
        return np.asarray(np.log(np.maximum(np.concatenate(lengths), 1)))

    def colours(self) -> tuple[NDArray[np.uint8], dict[str, Any]]:
        """Return a value for each point (0 to 254; 255 unknown), and what a legend needs.

        Domains and sources have no values: their colours come with :meth:`domains` and
        :meth:`sources`.
        """
        mode = self.colour_mode
        legend: dict[str, Any] = {
            "mode": mode,
            "modes": [
                {
                    "id": name,
                    "label": "gradient" if name == "gram" else name,
                    "continuous": name not in CATEGORIES,
                }
                for name in self._colour_modes
            ],
            "title": MODES[mode] + (f", {self.run.loss_unit}" if mode == "loss" else ""),
            "low": "",
            "high": "",
        }
        if mode in CATEGORIES:
            return np.zeros(0, dtype=np.uint8), legend
        values, ends = to_bytes(self.colour_values(), symmetric=mode == "gram")
        if ends is not None:
            low, high = np.exp(ends) if mode == "length" else ends
            legend |= {"low": _two_digits(float(low)), "high": _two_digits(float(high))}
        return values, legend

    def distances(self) -> NDArray[np.float32]:
        """Return the distance of each point to the centre of its cell; NaN in no domain."""
        grouping, material = self.grouping, self.editor.material
        if self._distances is None or self._distances[0] is not grouping:
            train = grouping.distances("train", material.train)[self.shown]
            squared = np.concatenate([train, grouping.distances("eval", material.eval)])
            self._distances = (grouping, np.sqrt(squared))
        return self._distances[1]

    # --- what can be done ---------------------------------------------------------------

    def show_cut(self, method: str, **params: Any) -> None:
        """Show a cut without making it: what a moving slider does."""
        cut = {"method": method, "seed": self.seed, **params}
        self.preview = self.editor.clusterings.cut(cut)

    def apply(
        self, op: dict[str, Any], points: NDArray[np.int64], on_progress: Progress | None = None
    ) -> None:
        """Carry out an operation; a move takes the selected points."""
        self.preview = None
        if op.get("op") == "move":
            op = op | {"rows": pack(self.rows(points))}
        if op.get("op") == "cut" and op.get("method") not in ("sources", "column", "labels"):
            op = {"seed": self.seed} | op
        first = self.editor.ops[0]
        if op.get("op") == "cut" and op.get("method") == first["method"] == "hdbscan":
            # Density and noise policy stay when only the smallest size changes.
            policy = noise_policy(self.editor.ops)
            same = {"noise": policy["policy"], "max_noise": policy["max_noise"]}
            op = {"min_samples": first["min_samples"]} | same | op
        self.editor.apply(op, on_progress)

    def undo(self) -> None:
        """Take back the last operation, if any."""
        self.preview = None
        self.editor.undo()

    def redo(self) -> None:
        """Repeat the operation that was undone last, if any."""
        self.preview = None
        self.editor.redo()

    def rows(self, points: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
        """Return the training rows behind points of the map; eval points are left out."""
        if self.sampled:
            n = len(self.editor.material.train)
            what = f"the map shows {len(self.shown):,} of {n:,} examples, so a lasso sees a part"
            raise InputError("move", what, "split, merge or drop whole domains instead")
        return np.asarray(self.shown[points[points < len(self.shown)]])

    # --- what can be asked --------------------------------------------------------------

    def read(self, points: Sequence[int]) -> list[dict[str, Any]]:
        """Return texts, sources, domains and distances of points of the map."""
        material, grouping, items = self.editor.material, self.grouping, []
        for point in map(int, list(points)[:_MOST_READ]):
            train = point < len(self.shown)
            split = "train" if train else "eval"
            row = int(self.shown[point]) if train else point - len(self.shown)
            text = material.texts(split, [row])[0]
            distance = float(self.distances()[point])
            item = {
                "row": point,
                "split": split,
                "domain": int((grouping.labels if train else grouping.eval_labels)[row]),
                "text": truncate(text, _MOST_CHARACTERS),
                "length": len(text),
                "source": material.sources(split)[row],
                "distance": distance if np.isfinite(distance) else None,
            }
            if material.has_images:
                item["image"] = thumbnail(material.image(split, row), 256)
            items.append(item)
        return items

    def more(self, domain: int, kind: str, wanted: int = 10) -> list[dict[str, Any]]:
        """Return the nearest, strangest or random training examples of a domain."""
        members = np.flatnonzero(self.labels()[: len(self.shown)] == domain)
        if kind == "random":
            rng = np.random.default_rng([self.seed, domain, len(members)])
            return self.read(np.sort(rng.permutation(members)[:wanted]).tolist())
        distances = self.distances()[members]
        order = np.argsort(distances if kind == "nearest" else -distances, kind="stable")
        return self.read(members[order[:wanted]].tolist())

    def search(self, query: str) -> NDArray[np.int64]:
        """Return the points whose text contains `query`, whatever the case."""
        wanted = query.casefold().strip()
        if not wanted:
            return np.zeros(0, dtype=np.int64)
        material, hits, first = self.editor.material, list[int](), 0
        for split, rows in (("train", self.shown), ("eval", np.arange(len(material.eval)))):
            for start in range(0, len(rows), 10_000):
                texts = material.texts(split, rows[start : start + 10_000])
                at = (i for i, text in enumerate(texts) if wanted in text.casefold())
                hits += [first + start + i for i in at]
            first += len(rows)
        return np.asarray(hits, dtype=np.int64)

    # --- guidance -----------------------------------------------------------------------

    def controls(self) -> dict[str, Any]:
        """Return where the sliders stand, how far they go, and which k is advised."""
        first, noise = self.editor.ops[0], self.grouping.noise
        policy = noise_policy(self.editor.ops)
        n = len(self.editor.material.train)
        noise_share = 0.0 if noise is None else float(noise.mean())
        return {
            "method": first["method"] if first["method"] in _METHODS else "hand",
            "methods": _METHODS,
            "k": self.grouping.m,
            "k_max": min(self._tree.n_micro_, _MOST_DOMAINS),
            "min_cluster_size": first.get("min_cluster_size") or max(10, round(np.sqrt(n) / 2)),
            "min_samples": first.get("min_samples", 10),
            "size_max": max(20, n // 5),
            "noise": policy.get("policy") or "nearest",
            "max_noise": policy.get("max_noise"),
            "n_neighbors": self.n_neighbors,
            "min_dist": self.min_dist,
            "recommended": self._advised if self._has_k else None,
            "noise_share": noise_share,
            "noise_text": self._noise_effect() if noise_share else "",
            "by_hand": self.editor.log.by_hand,
        }

    @property
    def _has_k(self) -> bool:
        """Whether the number of domains is chosen, not found by density or given by sources."""
        return self.editor.ops[0]["method"] not in ("hdbscan", "sources")

    def notices(self) -> list[dict[str, str]]:
        """Return what a person should know before training on these domains."""
        sizes, warnings, notes = self.grouping.sizes, [], []
        largest = int(np.argmax(sizes))
        share = sizes[largest] / max(1, sizes.sum())
        if len(sizes) > 1 and share > (0.9 if len(sizes) == 2 else 0.5):
            name = self.editor.cards()[largest].name
            warnings.append(f"{name} holds {share:.0%} of the examples: split it, or cut finer")
        if small := int((sizes < _SMALL).sum()):
            warnings.append(f"{small} domains have fewer than {_SMALL} examples")
        warnings.append(self._cliff_nearby())
        if edits := self.editor.log.by_hand:
            what, them = ("1 edit", "it") if edits == 1 else (f"{edits:,} edits", "them")
            replaced = f"{what} will be replaced; undo brings {them} back"
            if self.preview is None:
                notes.append(f"with a new cut {replaced}")
            else:
                warnings.append(replaced)
        notes.append(self._no_advice if self._has_k else "")
        if self.sampled:
            n = len(self.editor.material.train)
            notes.append(f"the map shows {len(self.shown):,} of {n:,} examples")
        levels = (("warn", warnings), ("info", notes))
        return [{"level": level, "text": text} for level, texts in levels for text in texts if text]

    def advise(self, on_progress: Progress | None = None) -> None:
        """Judge the number of domains: the silhouette, its stability, and whether they agree."""
        from rbkit.regroup.choose import DEFAULT_GRID, choose_k

        material = self.editor.material
        most = min(self._tree.n_micro_, len(material.train) // 20)
        grid = [k for k in DEFAULT_GRID if k <= most]
        if len(grid) < 2:
            return
        choice = choose_k(
            material.train,
            grid,
            tree=self._tree,
            eval_vectors=material.eval,
            seed=self.seed,
            n_seeds=2,
            sample=4_000,
            progress=False,
        )
        if choice.judged.kind == "clear":
            self._advised, self._no_advice = {"k": choice.k, "text": choice.verdict}, ""
        else:  # no number is better than one that the data do not support
            self._advised, self._no_advice = None, f"no k stands out: {choice.verdict}"

    def _noise_effect(self) -> str:
        """Say how much noise there is, and which domain grew most by it."""
        effect = self.editor.noise_effect
        if effect is None:
            return ""
        text = f"{effect.noise_before / len(effect.labels):.0%} of the examples are noise"
        if effect.joined.any():
            most = int(np.argmax(effect.growth))
            name = self.editor.cards()[most].name
            text += f"; {name} grew {effect.growth[most]:.1f} times"
        return text

    def _cliff_nearby(self) -> str:
        """Say if a small change of min_cluster_size near the present one makes another cut."""
        first = self.editor.ops[0]
        if first.get("method") != "hdbscan":
            return ""
        if self._cliff[0] != first:
            params = {name: first[name] for name in DENSITY if name in first}
            around = np.round(first["min_cluster_size"] * np.geomspace(0.6, 1.6, 7))
            sizes = sorted({max(2, int(size)) for size in around})
            fall = cliff(self.editor.clusterings.density(**params).sweep(sizes), warn=False)
            text = fall and (
                f"near a cliff: at least {fall['from_size']} examples give {fall['from_k']} "
                f"domains, at least {fall['to_size']} give {fall['to_k']}"
            )
            self._cliff = (first, text or "")
        return self._cliff[1]

    # --- helpers ------------------------------------------------------------------------

    @property
    def _tree(self) -> Any:
        return self.editor.clusterings.tree(seed=self.seed)

    @cached_property
    def _leaf_places(self) -> NDArray[np.int64]:
        """Place of each training example along the leaves of the hierarchy."""
        tree = self._tree
        return np.asarray(np.argsort(tree.leaf_order_)[tree.micro_labels_])

    def _similarity_order(self, grouping: Grouping) -> NDArray[np.int64]:
        """Return the domains along the leaves of the hierarchy: related ones are neighbours.

        The leaves do not depend on how the corpus is cut, so that a topic keeps about its
        place from one cut to the next.
        """
        inside = grouping.labels >= 0
        labels, places = grouping.labels[inside], self._leaf_places[inside]
        total = np.bincount(labels, weights=places, minlength=grouping.m)
        mean = total / np.maximum(np.bincount(labels, minlength=grouping.m), 1)
        return np.argsort(mean, kind="stable")

    def _thumbnails(self, grouping: Grouping, domain: int) -> list[str]:
        material = self.editor.material
        if not material.has_images:
            return []
        members = grouping.members(domain)
        distances = grouping.distances("train", material.train)[members]
        nearest = members[np.argsort(distances, kind="stable")[:4]]
        return [thumbnail(material.image("train", int(row)), 64) for row in nearest]


def to_unit_square(xy: NDArray[np.floating[Any]], margin: float = 0.03) -> NDArray[np.float32]:
    """Scale places into the unit square, keeping proportions.

    >>> to_unit_square(np.array([[0.0, 0.0], [4.0, 2.0]]), margin=0).tolist()
    [[0.0, 0.25], [1.0, 0.75]]
    """
    # UMAP sometimes throws a handful of points far away, which would squeeze all others.
    ends = (0.001, 0.999) if len(xy) > 2000 else (0.0, 1.0)
    low, high = np.quantile(xy.astype(np.float64), ends, axis=0)
    span = float(np.max(high - low)) or 1.0
    scaled = 0.5 + (xy.astype(np.float64) - (low + high) / 2) / span * (1 - 2 * margin)
    return np.asarray(np.clip(scaled, 0.0, 1.0), dtype=np.float32)


def label_places(
    xy: NDArray[np.floating[Any]], labels: NDArray[np.integer[Any]], m: int
) -> NDArray[np.float64]:
    """Return a place for the name of each domain: its point nearest to the median. (m, 2).

    The median itself may lie between two islands, where no example is.

    >>> xy = np.array([[0.0, 0.0], [0.1, 0.0], [9.0, 9.0]])
    >>> label_places(xy, np.array([0, 0, 1]), 2).tolist()
    [[0.0, 0.0], [9.0, 9.0]]
    """
    places = np.full((m, 2), 0.5)
    order = np.argsort(labels, kind="stable")
    ends = np.searchsorted(labels[order], np.arange(m + 1))
    for domain in range(m):
        points = xy[order[ends[domain] : ends[domain + 1]]]
        if len(points):
            middle = np.median(points, axis=0)
            places[domain] = points[np.argmin(((points - middle) ** 2).sum(axis=1))]
    return places


def thumbnail(picture: Any, size: int) -> str:
    """Return a picture as a small ``data:image/png`` address; empty where there is none."""
    if picture is None:
        return ""
    small = picture.convert("RGBA")
    small.thumbnail((size, size))
    buffer = io.BytesIO()
    small.save(buffer, format="PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _two_digits(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.2g}".replace("-", "−")
