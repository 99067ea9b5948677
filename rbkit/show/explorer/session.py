"""What the explorer shows and does, without a widget: a session on an editor.

The session answers in plain values: bytes for what there is per example, lists and dicts for
what there is per domain. The widget only passes them on, so everything here can be tested,
and run in a batch job, without a browser.
"""

from __future__ import annotations

import base64
import io
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rbkit.errors import InputError, RbkitError
from rbkit.regroup.editor import DENSITY, Editor, Progress
from rbkit.regroup.grouping import Grouping
from rbkit.regroup.noise import cliff
from rbkit.regroup.operations import noise_policy, pack


def to_unit_square(xy: NDArray[np.floating[Any]], margin: float = 0.03) -> NDArray[np.float32]:
    """Scale places into the unit square, keeping proportions; a stray point does not rule.

    Examples
    --------
    >>> to_unit_square(np.array([[0.0, 0.0], [4.0, 2.0]]), margin=0).tolist()
    [[0.0, 0.25], [1.0, 0.75]]
    """
    found = np.asarray(xy, dtype=np.float64)
    # UMAP sometimes throws a handful of points far away, which would squeeze all others.
    low, high = (
        np.quantile(found, q, axis=0) for q in ((0.001, 0.999) if len(found) > 2000 else (0.0, 1.0))
    )
    span = float(np.max(high - low)) or 1.0
    middle = (low + high) / 2
    scaled = 0.5 + (found - middle) / span * (1 - 2 * margin)
    return np.clip(scaled, 0.0, 1.0).astype(np.float32)


def label_places(
    xy: NDArray[np.floating[Any]], labels: NDArray[np.integer[Any]], m: int
) -> NDArray[np.float64]:
    """Return a place for the name of each domain: its point nearest to the median. (m, 2).

    The median itself may lie between two islands, where no example is.

    Examples
    --------
    >>> xy = np.array([[0.0, 0.0], [0.1, 0.0], [9.0, 9.0]])
    >>> label_places(xy, np.array([0, 0, 1]), 2).tolist()
    [[0.0, 0.0], [9.0, 9.0]]
    """
    places = np.full((m, 2), 0.5)
    order = np.argsort(labels, kind="stable")
    ends = np.searchsorted(labels[order], np.arange(m + 1))
    for at in range(m):
        own = xy[order[ends[at] : ends[at + 1]]]
        if len(own):
            middle = np.median(own, axis=0)
            places[at] = own[np.argmin(((own - middle) ** 2).sum(axis=1))]
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


#: Lightness and chroma of three neighbours; the dark level between two light ones.
_LEVELS = ((0.70, 0.135), (0.52, 0.150), (0.62, 0.145))
_FIRST_HUE = 250.0  # blue, the colour of the project


def domain_palette(m: int, sizes: ArrayLike | None = None) -> list[str]:
    """Return `m` colours as ``#rrggbb``, for domains in order of similarity.

    Parameters
    ----------
    m : int
    sizes : array_like of shape (m,), optional
        Sizes in the same order: hue then follows the share of the corpus that comes before, so
        that the parts of a domain keep about its hue when a finer cut divides it.

    Examples
    --------
    >>> domain_palette(2)
    ['#57a3ef', '#915c07']
    >>> len(set(domain_palette(300)))
    300
    >>> domain_palette(3, sizes=[50, 25, 25])[0] == domain_palette(2, sizes=[50, 50])[0]
    True
    """
    share = np.ones(m) if sizes is None else np.asarray(sizes, dtype=np.float64)
    before = np.cumsum(share) - share
    hues = _FIRST_HUE + 360.0 * before / max(float(share.sum()), 1.0)
    level = np.array([_LEVELS[i % len(_LEVELS)] for i in range(m)]).reshape(m, 2)
    rgb = _srgb(level[:, 0], level[:, 1], np.deg2rad(hues))
    return ["#" + "".join(f"{channel:02x}" for channel in row) for row in rgb]


def _srgb(
    lightness: NDArray[np.float64], chroma: NDArray[np.float64], hue: NDArray[np.float64]
) -> NDArray[np.uint8]:
    """OKLCH to 8-bit sRGB; what lies outside the gamut loses chroma until it fits."""
    for _ in range(20):
        a, b = chroma * np.cos(hue), chroma * np.sin(hue)
        long = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
        medium = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
        short = (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3
        linear = np.stack(
            [
                4.0767416621 * long - 3.3077115913 * medium + 0.2309699292 * short,
                -1.2684380046 * long + 2.6097574011 * medium - 0.3413193965 * short,
                -0.0041960863 * long - 0.7034186147 * medium + 1.7076147010 * short,
            ],
            axis=1,
        )
        outside = ((linear < 0) | (linear > 1)).any(axis=1)
        if not outside.any():
            break
        chroma = np.where(outside, 0.94 * chroma, chroma)
    linear = np.clip(linear, 0, 1)
    gamma = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.asarray(np.rint(255 * gamma), dtype=np.uint8)


Report = Callable[[float, str], None]


class Cancelled(RbkitError):
    """Raised inside a job whose result is no longer wanted."""


class Jobs:
    """A queue of one thread.

    Parameters
    ----------
    on_status : callable
        Called with ``{"busy", "text", "fraction", "error"}`` whenever that changes.

    Examples
    --------
    >>> seen = []
    >>> jobs = Jobs(seen.append)
    >>> jobs.start("count", lambda report: report(0.5, "halfway"))
    >>> jobs.wait()
    >>> [s["text"] for s in seen]
    ['count', 'count: halfway', '']
    """

    def __init__(self, on_status: Callable[[dict[str, Any]], None]) -> None:
        self.on_status = on_status
        self._waiting: deque[tuple[str, Callable[[Report], Any]]] = deque()
        self._running = ""
        self._stop = threading.Event()
        self._idle = threading.Condition()
        self._thread: threading.Thread | None = None
        self._said = 0.0

    def start(self, name: str, work: Callable[[Report], Any]) -> None:
        """Queue `work`, which is called with a function ``report(fraction, text)``."""
        with self._idle:
            self._waiting = deque(job for job in self._waiting if job[0] != name)
            if self._running == name:
                self._stop.set()
            self._waiting.append((name, work))
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="rbkit-jobs", daemon=True)
                self._thread.start()

    def cancel(self) -> None:
        """Stop the running job at its next report, and forget the waiting ones."""
        with self._idle:
            self._waiting.clear()
            self._stop.set()

    def wait(self, seconds: float | None = None) -> None:
        """Block until nothing is left to do, or for so many seconds."""
        with self._idle:
            self._idle.wait_for(lambda: not self._waiting and not self._running, seconds)

    def _run(self) -> None:
        while True:
            with self._idle:
                if not self._waiting:
                    self._thread = None
                    return
                self._running, work = self._waiting.popleft()
                self._stop.clear()
            error = ""
            try:
                self._say(self._running, None)
                work(self._report)
            except Cancelled:
                error = ""
            except RbkitError as problem:
                error = str(problem)
            except Exception as problem:  # a thread has nobody above it to tell
                error = f"{self._running}: {type(problem).__name__}: {problem}"
                traceback.print_exc()
            finally:
                with self._idle:
                    last = not self._waiting
                    self._running = ""
                    if last:
                        self._thread = None
                    if last or error:
                        self._say("", None, error, busy=not last)
                    self._idle.notify_all()
            if last:
                return

    def _report(self, fraction: float, text: str = "") -> None:
        if self._stop.is_set():
            raise Cancelled(self._running)
        now = time.monotonic()
        if now - self._said > 0.1 or fraction >= 1 or fraction == 0.5:
            self._say(f"{self._running}: {text}" if text else self._running, fraction)

    def _say(
        self, text: str, fraction: float | None, error: str = "", busy: bool | None = None
    ) -> None:
        self._said = time.monotonic()
        shown = None if fraction is None else float(min(1.0, max(0.0, fraction)))
        self.on_status(
            {
                "busy": bool(text) if busy is None else busy,
                "text": text,
                "fraction": shown,
                "error": error,
            }
        )


_UNKNOWN = 255
_TITLES = {
    "domain": "domain",
    "source": "source",
    "distance": "distance to the domain's centre",
    "length": "characters of the text (log scale)",
    "loss": "eval loss, nats per token",
    "gram": "alignment of the domain's gradient with the target",
}


class Colouring:
    """The colour modes of a session, and their values.

    Parameters
    ----------
    session : Session
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        self.mode = "domain"
        self.run: Any = None
        self._distances: tuple[Any, NDArray[np.float32]] | None = None

    def modes(self) -> list[dict[str, Any]]:
        """Modes that there are data for."""
        found = ["domain", "source", "distance", "length"]
        found += ["loss", "gram"] if self.run is not None else []
        return [
            {
                "id": mode,
                "label": mode if mode != "gram" else "gradient",
                "continuous": mode not in ("domain", "source"),
            }
            for mode in found
        ]

    def choose(self, mode: str) -> None:
        """Colour by another quantity."""
        known = [entry["id"] for entry in self.modes()]
        if mode not in known:
            more = "; loss and gram need a run: explorer.show_run(run)"
            raise InputError("colour", f"{mode!r} is unknown", f"use {', '.join(known)}{more}")
        self.mode = mode

    def show_run(self, run: Any) -> None:
        """Take losses and Gram matrix from a run on these domains."""
        if run.domains is None or len(run.domains.train_labels) != len(
            self.session.editor.material.train
        ):
            what = "it was not trained on domains of this corpus"
            raise InputError("run", what, "give a run of these domains")
        self.run = run

    def distances(self) -> NDArray[np.float32]:
        """Distance of each point of the map to the centre of its cell; NaN for none."""
        session, now = self.session, self.session.now
        if self._distances is None or self._distances[0] is not now:
            material = session.editor.material
            train = now.distances("train", material.train)[session.shown]
            both = np.concatenate([train, now.distances("eval", material.eval)])
            self._distances = (now, np.sqrt(both))
        return self._distances[1]

    def distance(self, point: int) -> float | None:
        """Distance of one point, None where it is in no domain."""
        found = float(self.distances()[point])
        return found if np.isfinite(found) else None

    def values(self) -> tuple[NDArray[np.uint8], dict[str, Any]]:
        """Return the value of each point (0 to 254; 255 unknown), and what a legend needs."""
        info = {
            "mode": self.mode,
            "modes": self.modes(),
            "title": _TITLES[self.mode],
            "low": "",
            "high": "",
            "diverging": self.mode == "gram",
        }
        if self.mode in ("domain", "source"):
            return np.zeros(0, dtype=np.uint8), info
        raw, _ = self.raw()
        known = np.isfinite(raw)
        if not known.any():
            return np.full(len(raw), _UNKNOWN, dtype=np.uint8), info
        # A few extreme points must not take the whole scale.
        low, high = np.quantile(raw[known], [0.01, 0.99])
        if self.mode == "gram":
            high = max(abs(low), abs(high))
            low = -high
        span = (high - low) or 1.0
        scaled = np.clip((np.where(known, raw, low) - low) / span, 0, 1) * 254
        exact = np.exp if self.mode == "length" else float
        info |= {"low": _number(float(exact(low))), "high": _number(float(exact(high)))}
        return np.where(known, scaled, _UNKNOWN).astype(np.uint8), info

    def raw(self) -> tuple[NDArray[np.float64], dict[str, str]]:
        """Return the quantity itself, NaN where it is not known, and its title."""
        found = np.asarray(getattr(self, f"_{self.mode}")(), dtype=np.float64)
        return found, {"title": _TITLES[self.mode]}

    def _distance(self) -> NDArray[np.float32]:
        return self.distances()

    def _length(self) -> NDArray[np.float64]:
        material = self.session.editor.material
        lengths = [material.lengths("train")[self.session.shown], material.lengths("eval")]
        return np.log(np.maximum(np.concatenate(lengths), 1))

    def _loss(self) -> NDArray[np.float64]:
        """Eval examples: their own loss; training examples: that of their domain in the run."""
        from rbkit.files import read_npz

        final = read_npz(self.run.path / "final.npz", "train to the end: the losses come last")
        own = np.asarray(next(iter(final.values())), dtype=np.float64)
        trained = self.run.domains
        by_domain = np.full(trained.m + 1, np.nan)
        for at in range(trained.m):
            inside = own[trained.eval_labels == at]
            if np.isfinite(inside).any():
                by_domain[at] = np.nanmean(inside)
        return np.concatenate([by_domain[trained.train_labels[self.session.shown]], own])

    def _gram(self) -> NDArray[np.float64]:
        """Cosine of each domain's gradient with that of the target mixture, in the last round."""
        history = self.run.history
        if "gram" not in history or not len(history["gram"]):
            what = f"{self.run.name} tracked no gradients"
            raise InputError("gram", what, "train with a rule that does, such as RnB")
        seen = np.flatnonzero(np.isfinite(history["gram"]).any(axis=(1, 2)))  # NaN: no estimate
        last = history["gram"][seen[-1] if len(seen) else -1]
        G = np.nan_to_num(last.astype(np.float64))
        q = np.asarray(self.run.domains.q)
        norms = np.sqrt(np.maximum(np.diag(G), 1e-30) * max(float(q @ G @ q), 1e-30))
        aligned = np.append((G @ q) / norms, np.nan)
        trained = self.run.domains
        labels = np.concatenate([trained.train_labels[self.session.shown], trained.eval_labels])
        return np.asarray(aligned[labels])


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.2g}".replace("-", "−")


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
        from rbkit.regroup.umap import umap_coordinates

        material = self.editor.material
        X = np.concatenate(
            [
                np.asarray(material.train[self.shown], dtype=np.float32),
                np.asarray(material.eval, dtype=np.float32),
            ]
        )
        found = umap_coordinates(
            X,
            n_components=2,
            n_neighbors=self.neighbours,
            min_dist=self.min_dist,
            seed=self.seed,
            cache=cache,
            on_progress=on_progress,
        )
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
        sizes, eval_sizes = (
            now.sizes,
            np.bincount(now.eval_labels[now.eval_labels >= 0], minlength=now.m),
        )
        order = self._order(now)
        colours = dict(zip(order, domain_palette(now.m, sizes[order]), strict=True))
        labels = self.labels()[: len(self.shown)]
        places = label_places(self.xy[: len(self.shown)], labels, now.m)
        tokens = self._tokens(now)
        rank = {int(domain): at for at, domain in enumerate(order)}
        return [
            {
                "id": at,
                "name": card.name,
                "colour": colours[at],
                "size": int(sizes[at]),
                "eval_size": int(eval_sizes[at]),
                "share": float(sizes[at] / max(1, sizes.sum())),
                "q": float(eval_sizes[at] / max(1, eval_sizes.sum())),
                "tokens": int(tokens[at]),
                "terms": card.terms,
                "sources": [[name, share] for name, share in list(card.sources.items())[:8]],
                "nearest": card.nearest,
                "strangest": card.strangest,
                "x": float(places[at][0]),
                "y": float(places[at][1]),
                "order": rank[at],
                "kind": "noise" if at == now.noise_domain else "domain",
                "thumbs": [] if light else self._thumbs(now, at),
            }
            for at, card in enumerate(cards)
        ]

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
            "undo": self.editor.undoable,
            "redo": self.editor.redoable,
            "log": str(self.editor.log).splitlines(),
        }

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
                "row": int(point),
                "split": split,
                "domain": int(labels[row]),
                "text": text if len(text) <= _TEXT else text[: _TEXT - 1] + "…",
                "length": len(text),
                "source": self.editor.material.sources(split)[row],
                "distance": self.colouring.distance(int(point)),
            }
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


_SMALL = 30  # examples: a domain of fewer is used up in a few steps
_METHODS = ["ward", "kmeans", "hdbscan", "sources"]
_FINEST = 300  # domains that the slider goes up to


class Guide:
    """Controls, advice and notices of a session.

    Parameters
    ----------
    session : Session
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        self.advice: dict[str, Any] | None = None
        self.verdict = ""
        self._cliffs: tuple[Any, list[str]] = (None, [])

    def controls(self) -> dict[str, Any]:
        """Where the sliders stand, how far they go, and which k is advised."""
        op, now = self.session.editor.ops[0], self.session.now
        noise = 0.0 if now.noise is None else float(now.noise.mean())
        policy = noise_policy(self.session.editor.ops)
        n = len(self.session.editor.material.train)
        tree = self.session.editor.clusterings.tree(seed=self.session.seed)
        return {
            "method": op["method"] if op["method"] in _METHODS else "hand",
            "methods": _METHODS,
            "k": now.m,
            "k_max": min(len(tree.micro_sizes_), _FINEST),
            "min_cluster_size": op.get("min_cluster_size") or max(10, round(np.sqrt(n) / 2)),
            "min_samples": op.get("min_samples", 10),
            "size_max": max(20, n // 5),
            "noise": policy.get("policy") or "nearest",
            "max_noise": policy.get("max_noise"),
            "n_neighbors": self.session.neighbours,
            "min_dist": self.session.min_dist,
            "recommended": self.advice,
            "noise_share": noise,
            "noise_text": self._noise_effect() if noise else "",
            "by_hand": self.session.editor.log.by_hand,
        }

    def notices(self) -> list[dict[str, str]]:
        """Return what a person should know before training on this."""
        now, told = self.session.now, []
        sizes = now.sizes
        largest = int(np.argmax(sizes))
        if now.m > 1 and sizes[largest] > (0.9 if now.m == 2 else 0.5) * sizes.sum():
            share = sizes[largest] / sizes.sum()
            name = self.session.editor.cards()[largest].name
            told.append(
                ("warn", f"{name} holds {share:.0%} of the examples: split it, or cut finer")
            )
        small = int((sizes < _SMALL).sum())
        if small:
            told.append(("warn", f"{small} domains have fewer than {_SMALL} examples"))
        told += [("warn", text) for text in self._cliff()]
        if self.verdict:
            told.append(("info", self.verdict))
        if self.session.sampled:
            n = len(self.session.editor.material.train)
            told.append(("info", f"the map shows {len(self.session.shown):,} of {n:,} examples"))
        return [{"level": level, "text": text} for level, text in told]

    def advise(self, on_progress: Progress | None = None) -> None:
        """Judge the number of domains: the silhouette, its stability, and whether they agree."""
        from rbkit.regroup.choose import DEFAULT_GRID, choose_k

        material = self.session.editor.material
        tree = self.session.editor.clusterings.tree(seed=self.session.seed)
        grid = [
            k for k in DEFAULT_GRID if k <= min(len(tree.micro_sizes_), len(material.train) // 20)
        ]
        if len(grid) < 2:
            return
        choice = choose_k(
            material.train,
            grid,
            tree=tree,
            eval_vectors=material.eval,
            seed=self.session.seed,
            n_seeds=2,
            sample=4_000,
            progress=False,
        )
        if choice.judged.kind == "clear":
            self.advice, self.verdict = {"k": choice.k, "text": choice.verdict}, ""
        else:  # no number is better than one that the data do not support
            self.advice, self.verdict = None, f"no k stands out: {choice.verdict}"

    def _noise_effect(self) -> str:
        """Say how much noise there is, and which domain grew most by it."""
        editor = self.session.editor
        effect = editor.noise_effect
        if effect is None:
            return ""
        told = f"{effect.noise_before / len(effect.labels):.0%} of the examples are noise"
        if effect.joined.any():
            most = int(np.argmax(effect.growth))
            told += f"; {editor.cards()[most].name} grew {effect.growth[most]:.1f} times"
        return told

    def _cliff(self) -> list[str]:
        """Say if a small change of min_cluster_size near the present one makes another cut."""
        editor = self.session.editor
        first = editor.ops[0]
        if first.get("method") != "hdbscan":
            return []
        if self._cliffs[0] != first:
            given = {name: first[name] for name in DENSITY if name in first}
            fitted = editor.clusterings.density(**given)
            around = first["min_cluster_size"] * np.geomspace(0.6, 1.6, 7)
            sizes = sorted({max(2, int(size)) for size in np.round(around)})
            self._cliffs = (first, _in_words(cliff(fitted.sweep(sizes), warn=False)))
        return self._cliffs[1]


def _in_words(found: dict[str, Any] | None) -> list[str]:
    if found is None:
        return []
    return [
        f"near a cliff: at least {found['from_size']} examples give {found['from_k']} domains, "
        f"at least {found['to_size']} give {found['to_k']}"
    ]
