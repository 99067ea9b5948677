"""``rb.explore``: see a corpus on a map, cut it into domains, name them, and take them along."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from datasets import DatasetDict
from numpy.typing import ArrayLike, NDArray

from rbkit.data.corpus import about
from rbkit.data.read import quiet
from rbkit.errors import InputError
from rbkit.files import inside
from rbkit.regroup.domains import Domains
from rbkit.regroup.editor import Editor
from rbkit.regroup.operations import EditLog, noise_policy
from rbkit.regroup.pipeline import measured_domains
from rbkit.regroup.preparation import prepare
from rbkit.regroup.weights import sampling_weights, write_weighted
from rbkit.show.explorer.session import Cancelled, Guide, Jobs, Session
from rbkit.show.explorer.widget import ExplorerWidget, packed
from rbkit.show.style import display_mode
from rbkit.show.widgets import output


class View:
    """Set the traits of a widget from a session; safe to call from two threads.

    Parameters
    ----------
    session : Session
    widget : ExplorerWidget
    """

    def __init__(self, session: Session, widget: ExplorerWidget) -> None:
        self.session, self.widget = session, widget
        self.guide = Guide(session)
        self._lock = threading.RLock()

    def everything(self) -> None:
        """Set all traits: at the start."""
        session = self.session
        with self._lock, self.widget.hold_sync():
            self.widget.xy = packed(session.xy, "f4")
            self.widget.n_train = len(session.shown)
            self.widget.source_ids = packed(session.source_ids(), "u2")
            self.widget.sources = session.sources()
            self.widget.images = session.editor.material.has_images
            self.widget.title = str(about(session.editor.material.corpus)["name"])
        self.changed()

    def changed(self, light: bool = False) -> None:
        """Send changed domains; `light` while a slider moves: no texts, no crosstab."""
        session = self.session
        with self._lock, self.widget.hold_sync():
            self.widget.labels = packed(session.labels(), "u2")
            self.widget.domains = session.domains()
            if not light:
                self.widget.crosstab = session.crosstab()
                self.widget.history = session.history()
                self.widget.controls = self.guide.controls()
                self.widget.notices = self.guide.notices()
                self._set_colours()

    def places(self) -> None:
        """Send a map that was laid out anew."""
        with self._lock, self.widget.hold_sync():
            self.widget.xy = packed(self.session.xy, "f4")
            self.widget.domains = self.session.domains()
            self.widget.controls = self.guide.controls()

    def controls(self) -> None:
        """Send sliders, recommendations and notices."""
        with self._lock, self.widget.hold_sync():
            self.widget.controls = self.guide.controls()
            self.widget.notices = self.guide.notices()

    def colours(self) -> None:
        """Send what colours the map."""
        with self._lock, self.widget.hold_sync():
            self._set_colours()

    def select(self, points: NDArray[np.int64]) -> None:
        """Select points of the map."""
        with self._lock:
            self.widget.selection = packed(points, "u4")

    def status(self, status: dict[str, Any]) -> None:
        """Show what goes on in the background."""
        with self._lock:
            self.widget.status = {key: status[key] for key in ("busy", "text", "fraction")}
            if status["error"]:
                self.widget.send({"type": "error", "text": status["error"]})

    def freeze(self, ax: Any = None) -> Any:
        """Draw the map as it is coloured now; return the axes."""
        from rbkit.show.figures.map import domain_map

        session = self.session
        n, mode = len(session.shown), session.colouring.mode
        names = [card.name for card in session.editor.cards()]
        labels: NDArray[np.integer[Any]] = session.now.labels[session.shown]
        if mode in ("domain", "source"):
            entries = session.domains() if mode == "domain" else session.sources()
            if mode == "source":
                names = session.editor.material.source_ids[0]
                labels = session.editor.material.source_ids[1][session.shown]
            colours = [entry["colour"] for entry in entries]
            return domain_map(session.xy[:n], labels, names, ax, colours=colours)
        values, info = session.colouring.raw()
        centre = 0.0 if mode == "gram" else None
        return domain_map(
            session.xy[:n],
            labels,
            names,
            ax,
            values=values[:n],
            value_label=info["title"],
            centre=centre,
        )

    def _set_colours(self) -> None:
        values, info = self.session.colouring.values()
        self.widget.values = packed(values, "u1")
        self.widget.colour = info


class Talk:
    """Answer the messages of an explorer's widget; errors go back as one line.

    Parameters
    ----------
    explorer : Explorer
    """

    def __init__(self, explorer: Explorer) -> None:
        self.explorer, self.widget = explorer, explorer.widget
        self.session, self.editor = explorer.session, explorer.editor
        self.view = explorer.view
        self.widget.on_msg(self._on_message)

    def lay_out(self) -> None:
        """Make the map in the background."""
        self._jobs.start("laying out the map", self._project)

    def advise(self) -> None:
        """Judge the number of domains in the background."""
        self._jobs.start("judging the number of domains", self._advise)

    @property
    def _jobs(self) -> Any:
        return self.explorer.jobs

    def _on_message(self, _: Any, content: Any, buffers: Any) -> None:
        kind = str(content.get("type", "")) if isinstance(content, dict) else ""
        answer: Callable[[dict[str, Any]], None] | None = getattr(self, f"_do_{kind}", None)
        try:
            if answer is None:
                raise InputError("message", f"{kind!r} is unknown", "reload the page")
            answer(content)
        except InputError as error:
            self.widget.send({"type": "error", "text": str(error), "token": content.get("token")})
        except (KeyError, TypeError, ValueError, IndexError) as error:
            text = f"{kind}: {type(error).__name__}: {error}"
            self.widget.send({"type": "error", "text": text, "token": content.get("token")})

    def _do_preview(self, content: dict[str, Any]) -> None:
        self.session.look(str(content.get("method", "ward")), k=int(content["k"]))
        self.view.changed(light=True)
        self.widget.send({"type": "previewed", "k": content["k"]})

    def _do_op(self, content: dict[str, Any]) -> None:
        op = dict(content["op"])
        points = self.widget.selected_rows
        if op.get("op") == "cut" and op.get("method") != "ward":
            if op.get("method") == "hdbscan":
                op = self._as_before(op)
            title = "HDBSCAN" if op.get("method") == "hdbscan" else str(op.get("method"))
            self._jobs.start(f"cutting with {title}", lambda report: self._cut(op, report))
            return
        self.session.apply(op, points)
        if op.get("op") in ("move", "merge", "split", "drop"):
            self.widget.selected_domains = []
        self.view.changed()

    def _as_before(self, op: dict[str, Any]) -> dict[str, Any]:
        """Keep density and noise policy when the smallest size of HDBSCAN changes."""
        first = self.editor.ops[0]
        if first.get("method") != "hdbscan":
            return op
        kept = {name: first[name] for name in ("min_samples",) if name in first}
        policy = noise_policy(self.editor.ops)
        return {**kept, "noise": policy["policy"], "max_noise": policy["max_noise"], **op}

    def _do_undo(self, content: dict[str, Any]) -> None:
        self.session.preview = None
        self.editor.undo()
        self.view.changed()

    def _do_redo(self, content: dict[str, Any]) -> None:
        self.session.preview = None
        self.editor.redo()
        self.view.changed()

    def _do_colour(self, content: dict[str, Any]) -> None:
        self.session.colouring.choose(str(content["mode"]))
        self.view.colours()

    def _do_map(self, content: dict[str, Any]) -> None:
        self.session.neighbours = int(np.clip(int(content["n_neighbors"]), 2, 200))
        self.session.min_dist = float(np.nan_to_num(np.clip(float(content["min_dist"]), 0.0, 0.99)))
        self.lay_out()

    def _do_cancel(self, content: dict[str, Any]) -> None:
        self._jobs.cancel()

    def _do_read(self, content: dict[str, Any]) -> None:
        items = self.session.read([int(row) for row in content["rows"]])
        self.widget.send({"type": "texts", "token": content.get("token"), "items": items})

    def _do_more(self, content: dict[str, Any]) -> None:
        items = self.session.more(int(content["domain"]), str(content["kind"]))
        self.widget.send({"type": "texts", "token": content.get("token"), "items": items})

    def _do_search(self, content: dict[str, Any]) -> None:
        found = self.session.search(str(content["query"]))
        self.view.select(found)
        self.widget.send({"type": "found", "token": content.get("token"), "count": len(found)})

    def _do_export(self, content: dict[str, Any]) -> None:
        # What a page asks for stays below the notebook's folder.
        folder = self.explorer.save(inside(Path.cwd(), str(content.get("folder") or "domains")))
        files = sorted(path.name for path in folder.iterdir() if path.is_file())
        shown = str(folder.relative_to(Path.cwd().resolve()))
        self.widget.send(
            {"type": "exported", "token": content.get("token"), "folder": shown, "files": files}
        )

    # --- in the background --------------------------------------------------------------

    def _project(self, report: Callable[[float, str], None]) -> None:
        self.session.project(report)
        self.view.places()

    def _cut(self, op: dict[str, Any], report: Callable[[float, str], None]) -> None:
        try:
            self.session.apply(op, np.zeros(0, dtype=np.int64), report)
        except InputError as error:
            self.widget.send({"type": "error", "text": str(error)})
            return
        with suppress(Cancelled):  # the cut is made: what the widget shows must be that cut
            report(0.97, "naming the domains")
        self.view.changed()

    def _advise(self, report: Callable[[float, str], None]) -> None:
        self.view.guide.advise(report)
        self.view.controls()


def explore(
    what: Domains | DatasetDict,
    corpus: DatasetDict | None = None,
    *,
    k: int | None = None,
    embedder: Any = "minilm",
    vectors: Mapping[str, ArrayLike] | None = None,
    edits: EditLog | str | Path | None = None,
    display: str | None = None,
    seed: int = 0,
    progress: bool = True,
) -> Explorer:
    """Open the explorer on domains, or on a corpus that has none yet.

    In JupyterLab and Notebook it is a widget: a map with a lasso, a slider that re-cuts the
    hierarchy, cards of the domains, and operations that are logged and can be undone. In a
    batch run it is a figure.

    Parameters
    ----------
    what : Domains or datasets.DatasetDict
        Domains from :func:`rbkit.regroup`, or a corpus: it is embedded, and cut into `k`.
    corpus : datasets.DatasetDict, optional
        The corpus of domains that were loaded from disk.
    k : int, optional
        Domains to begin with, for a corpus. About one for 400 examples, from 8 to 24.
    embedder, vectors, seed, progress
        As for :func:`rbkit.regroup`.
    edits : EditLog or path, optional
        Begin where a saved log ends; it also says by which embedder, unless one is given.
    display : {"live", "batch", "final", "off"}, optional
        Widget, or figure: see :mod:`rbkit.show.style`.
    seed : int

    Returns
    -------
    Explorer
        ``.domains``, ``.save(folder)``, ``.log``, ``.freeze()``.

    Examples
    --------
    >>> import rbkit as rb
    >>> from datasets import Dataset
    >>> texts = ["oak and elm", "an elm tree", "an oak", "car engine", "fast car", "a car"]
    >>> corpus = rb.load_corpus(Dataset.from_dict({"text": texts}), eval_size=1)
    >>> explorer = rb.explore(corpus, k=2, embedder="tfidf", display="off", progress=False)
    >>> explorer.domains.m
    2
    """
    log = edits if edits is None or isinstance(edits, EditLog) else EditLog.load(edits)
    far = "keep"
    if isinstance(what, DatasetDict):
        if log is not None and log.embedder and embedder == "minilm":
            embedder = log.embedder  # nothing was asked for: what the log says
        material, _ = prepare(what, embedder, vectors=vectors, progress=progress)
        editor = Editor(material)
        if log is None:
            n = len(material.train)
            if k is None:  # as many as can be told apart, of a small corpus or one of copies
                k = min(int(np.clip(n // 400, 8, 24)), editor.clusterings.tree(seed=seed).n_micro_)
            editor.cut("ward", k=min(k, n), seed=seed)
    elif isinstance(what, Domains):
        if what.material is None:
            if corpus is None:
                remedy = "give it: rb.explore(domains, corpus)"
                raise InputError("corpus", "loaded domains do not bring their texts", remedy)
            options = {} if vectors is None else {"vectors": vectors}
            what.attach(corpus, progress=progress, **options)
        assert what.material is not None
        editor = Editor(what.material, what)
        far = "apart" if what.quality.get("far_eval", {}).get("apart") else "keep"
    else:
        remedy = "give domains from rb.regroup, or a corpus from rb.load_corpus"
        raise InputError("explore", f"{type(what).__name__} cannot be explored", remedy)
    if log is not None:
        editor.replay(log)
    return Explorer(editor, display=display, seed=seed, far=far)


class Explorer:
    """A session of regrouping by hand: what the widget shows, and what a program may do.

    Attributes
    ----------
    editor : Editor
        Cut, merge, split, move, rename, drop, undo: the same operations as in the widget.
        Call :meth:`refresh` after using it directly.
    far : {"keep", "apart"}
        Eval examples that lie far from all domains: as :func:`rbkit.regroup` was told.
    widget : ExplorerWidget
    """

    def __init__(
        self, editor: Editor, *, display: str | None = None, seed: int = 0, far: str = "keep"
    ) -> None:
        self.display = display_mode(display)
        self.editor, self.far = editor, far
        self.session = Session(editor, seed=seed)
        self.widget = ExplorerWidget()
        self.view = View(self.session, self.widget)
        self.jobs = Jobs(self.view.status)
        self._domains: tuple[Any, Domains] | None = None
        self.talk = Talk(self)
        if self.display == "live":
            self.session.lay_out()
            self.view.everything()
            self.talk.lay_out()
            self.talk.advise()

    # --- for programs -------------------------------------------------------------------

    @property
    def domains(self) -> Domains:
        """The domains as they are now, ready for training."""
        now = self.editor.grouping
        if self._domains is None or self._domains[0] is not now:
            self._domains = (now, measured_domains(self.editor, far=self.far, warn=False))
        return self._domains[1]

    @property
    def log(self) -> EditLog:
        """Everything done so far, as JSON that ``rb.regroup(corpus, edits=...)`` replays."""
        return self.editor.log

    @property
    def selection(self) -> NDArray[np.int64]:
        """Rows of the selected training examples."""
        points = self.widget.selected_rows
        shown = self.session.shown
        return shown[points[points < len(shown)]]

    def save(self, folder: str | Path) -> Path:
        """Write domains, log and sampling weights to a folder.

        ``domains.json``, ``assignments.parquet`` and ``centroids.parquet``
        (:meth:`Domains.load`), ``edits.json`` (the log), ``weights.json`` (p = q) and
        ``train.parquet`` (texts with their domain and weight).
        """
        domains, folder = self.domains, Path(folder)
        domains.save(folder)
        self.log.save(folder / "edits.json")
        sampling_weights(domains, tokens=self.editor.material.lengths("train") // 4).save(
            folder / "weights.json"
        )
        material = self.editor.material
        if not material.has_images:
            with quiet(False):  # a second bar, for a moment, would be noise
                write_weighted(folder / "train.parquet", material.corpus["train"], domains)
        return folder

    def show_run(self, run: Any, mode: str = "gram") -> Explorer:
        """Colour the map by a run on these domains: its Gram matrix, or its losses."""
        self.session.colouring.show_run(run)
        self.session.colouring.choose(mode)
        self.view.colours()
        return self

    def refresh(self) -> Explorer:
        """Show what was done through `editor`."""
        self.view.changed()
        return self

    def wait(self, seconds: float | None = None) -> Explorer:
        """Wait until the map and everything else in the background is done."""
        self.jobs.wait(seconds)
        return self

    def freeze(self, ax: Any = None) -> Any:
        """Draw the map as a figure, as it is coloured now; return its axes."""
        return self.view.freeze(ax)

    # --- in a notebook ------------------------------------------------------------------

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        # A picture of thousands of points is large.
        return output(self.display, self.widget, repr(self), self.freeze, kwargs, dpi=140)

    def __repr__(self) -> str:
        name = about(self.editor.material.corpus)["name"]
        return f"Explorer of {name}: {self.session.summary()}"
