"""``rb.explore``: see a corpus on a map, cut it into domains, name them, and train on them."""

from __future__ import annotations

import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sized
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from datasets import DatasetDict
from numpy.typing import ArrayLike, NDArray

from rbkit.data.corpus import about
from rbkit.data.files import quiet
from rbkit.errors import InputError, RbkitError, as_count
from rbkit.files import inside
from rbkit.regroup.domains import Domains
from rbkit.regroup.editor import Editor
from rbkit.regroup.operations import EditLog
from rbkit.regroup.pipeline import measured_domains
from rbkit.regroup.preparation import as_corpus, prepare
from rbkit.regroup.weights import sampling_weights, write_weighted
from rbkit.show.explorer.session import Session
from rbkit.show.explorer.widget import ExplorerWidget
from rbkit.show.figures.map import domain_map
from rbkit.show.style import bundle, display_mode
from rbkit.show.widgets import output, packed
from rbkit.text import one_line

Report = Callable[[float, str], None]

# Traits of the widget that change together.
_CUT = ("labels", "domains")
_COLOURS = ("values", "colour")
_GUIDANCE = ("controls", "notices")
_EDIT = (*_CUT, "crosstab", "history", *_GUIDANCE, *_COLOURS)
_CORPUS = ("xy", "n_train", "source_ids", "sources", "images", "title")


def explore(
    what: Any,
    corpus: DatasetDict | None = None,
    *,
    k: int | None = None,
    embedder: Any = "minilm",
    embed: str | None = None,
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
    what : Domains, or datasets.DatasetDict, list of texts, DataFrame, file, ...
        Domains from :func:`rbkit.regroup`, or a corpus, or what becomes one as in
        :func:`rbkit.regroup`: it is embedded, and cut into `k`.
    corpus : datasets.DatasetDict, optional
        The corpus of domains that were loaded from disk.
    k : int, optional
        Domains to begin with, for a corpus. About one for 400 examples, from 8 to 24.
    embedder, embed, vectors, seed, progress
        As for :func:`rbkit.regroup`.
    edits : EditLog or path, optional
        Begin where a saved log ends, with the log's embedder unless another one is given.
    display : {"live", "batch", "final", "off"}, optional
        Widget, or figure: see :mod:`rbkit.show.style`.

    Returns
    -------
    Explorer
        ``.domains``, ``.save(folder)``, ``.log``, ``.freeze()``.

    Raises
    ------
    InputError
        Neither domains nor a corpus; loaded domains without their corpus; a log of another one.

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
    if not isinstance(what, Domains):
        if not isinstance(what, Iterable | Sized | Path):
            remedy = "give domains from rb.regroup, or a corpus from rb.load_corpus"
            raise InputError("explore", f"{type(what).__name__} cannot be explored", remedy)
        what = as_corpus(what, seed=seed, progress=progress)
        if log is not None and log.embedder and embedder == "minilm":  # the default
            embedder = log.embedder
        if log is not None and vectors is None:
            embed = embed or log.embedder.get("embed")
        material, _ = prepare(what, embedder, embed=embed, vectors=vectors, progress=progress)
        editor = Editor(material)
        if log is None:
            n = len(material.train)
            if k is None:  # no more than can be distinguished, in a small corpus or one of copies
                k = min(int(np.clip(n // 400, 8, 24)), editor.clusterings.tree(seed=seed).n_micro_)
            editor.cut("ward", k=min(as_count("k", k, least=1), n), seed=seed)
    else:
        if embed is not None:
            what_is = "domains know what was embedded for them"
            raise InputError("embed", what_is, "leave it out, or regroup the corpus")
        if what.material is None:
            if corpus is None:
                remedy = "give it: rb.explore(domains, corpus)"
                raise InputError("corpus", "loaded domains do not bring their texts", remedy)
            options = {} if vectors is None else {"vectors": vectors}
            what.attach(corpus, progress=progress, **options)
        assert what.material is not None
        editor = Editor(what.material, what)
        if what.quality.get("far_eval", {}).get("apart"):
            far = "outside" if what.count_outside else "apart"
    if log is not None:
        editor.replay(log)
    return Explorer(editor, display=display, seed=seed, far=far)


class Explorer:
    """A session of regrouping by hand: the widget, and the same for programs.

    Parameters
    ----------
    editor : Editor
    display : {"live", "batch", "final", "off"}, optional
    seed : int
        Of the map and of cuts.
    far : {"keep", "apart", "outside"}
        Eval examples that lie far from all domains: as in :func:`rbkit.regroup`.

    Attributes
    ----------
    editor : Editor
        Cut, merge, split, move, rename, drop, undo: the same operations as in the widget.
        Call :meth:`refresh` after using it directly.
    session : Session
    widget : ExplorerWidget
    """

    def __init__(
        self, editor: Editor, *, display: str | None = None, seed: int = 0, far: str = "keep"
    ) -> None:
        self.display = display_mode(display)
        self.editor, self.far = editor, far
        self.session = Session(editor, seed=seed)
        self._background = Background(self._show_status)
        self._lock = threading.RLock()
        self._saved: set[str] = set()  # folders that hold an earlier state of this explorer
        self._domains: tuple[Any, Domains] | None = None
        if self.display == "live":
            self.session.lay_out_by_pca()
            self.refresh()
            self._lay_out()
            self._background.start("judging the number of domains", self._advise)

    @cached_property
    def widget(self) -> ExplorerWidget:
        """The widget; a figure needs none, whose state would be saved with the notebook."""
        widget = ExplorerWidget()
        widget.on_msg(lambda _widget, message, _buffers: self.answer(message))
        return widget

    # --- for programs -------------------------------------------------------------------

    @property
    def domains(self) -> Domains:
        """The domains as they are now, ready for training."""
        grouping = self.editor.grouping
        if self._domains is None or self._domains[0] is not grouping:
            self._domains = (grouping, measured_domains(self.editor, far=self.far, warn=False))
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

    def save(self, folder: str | Path, *, overwrite: bool = False) -> Path:
        """Write domains, log and sampling weights to a folder.

        What this explorer saved there before is replaced; other domains that were edited by hand
        are refused, unless `overwrite` is true.

        ``domains.json``, ``assignments.parquet`` and ``centroids.parquet``
        (:meth:`Domains.load`), ``edits.json`` (the log), ``weights.json`` (p = q) and, unless
        the examples are images, ``train.parquet`` (texts with their domain and weight).
        """
        domains, folder, material = self.domains, Path(folder), self.editor.material
        mine = str(folder.resolve())
        domains.save(folder, overwrite=overwrite or mine in self._saved)
        self._saved.add(mine)
        self.log.save(folder / "edits.json")
        weights = sampling_weights(domains, tokens=material.lengths("train") // 4)
        weights.save(folder / "weights.json")
        if not material.has_images:
            with quiet(False):  # a second bar, for a moment, would be noise
                write_weighted(folder / "train.parquet", material.corpus["train"], domains)
        return folder

    def show_run(self, run: Any, mode: str = "gram") -> Explorer:
        """Colour the map by a run on these domains: its Gram matrix, or its ``"loss"``."""
        self.session.show_run(run)
        self.session.colour_by(mode)
        self._show(*_COLOURS)
        return self

    def refresh(self) -> Explorer:
        """Show everything as it is now: after using `editor` directly."""
        self._show(*_CORPUS, *_EDIT)
        return self

    def wait(self, seconds: float | None = None) -> Explorer:
        """Wait until the map and everything else in the background is done."""
        self._background.wait(seconds)
        return self

    def freeze(self, ax: Any = None) -> Any:
        """Draw the map as a figure, as it is coloured now; return its axes."""
        session = self.session
        n, mode = len(session.shown), session.colour_mode
        groups, labels = session.domains(), session.grouping.labels[session.shown]
        colouring: dict[str, Any] = {}
        if mode == "source":
            groups, labels = session.sources(), session.source_ids()[:n].astype(np.int64)
        if mode in ("domain", "source"):
            colouring["colours"] = [group["colour"] for group in groups]
        else:
            _, legend = session.colours()
            colouring = {"values": session.colour_values()[:n], "value_label": legend["title"]}
            colouring["centre"] = 0.0 if mode == "gram" else None
        names = [group["name"] for group in groups]
        return domain_map(session.xy[:n], labels, names, ax, **colouring)

    # --- in a notebook ------------------------------------------------------------------

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        # A picture of thousands of points is large.
        widget = self.widget if self.display == "live" else None
        return output(self.display, widget, repr(self), self.freeze, kwargs, dpi=140)

    def _ipython_display_(self) -> None:
        """Display the widget, and below it a picture that only a saved notebook shows.

        A widget is gone when its kernel is; while it is there its style sheet hides the picture.
        """
        from IPython.display import display

        data, metadata = _with_metadata(self._repr_mimebundle_())
        display(data, metadata=metadata, raw=True)  # type: ignore[no-untyped-call]
        if self.display == "live":
            data, metadata = bundle(self.freeze(), dpi=140)
            display(data, metadata=metadata, raw=True)  # type: ignore[no-untyped-call]

    def __repr__(self) -> str:
        material = self.editor.material
        return one_line(
            f"Explorer of {about(material.corpus)['name']}: {self.session.grouping.m} domains "
            f"over {len(material.train):,} train and {len(material.eval):,} eval examples"
        )

    # --- to the widget ------------------------------------------------------------------

    def _show(self, *traits: str) -> None:
        """Set traits of the widget from the session; called from two threads."""
        if self.display in ("batch", "final") and "widget" not in self.__dict__:
            return  # a figure, which needs none
        session, material = self.session, self.editor.material
        values: dict[str, Callable[[], Any]] = {
            "xy": lambda: packed(session.xy, "f4"),
            "n_train": lambda: len(session.shown),
            "source_ids": lambda: packed(session.source_ids(), "u2"),
            "sources": session.sources,
            "images": lambda: material.has_images,
            "title": lambda: str(about(material.corpus)["name"]),
            "labels": lambda: packed(session.labels(), "u2"),
            "domains": session.domains,
            "crosstab": session.crosstab,
            "history": session.history,
            "controls": session.controls,
            "notices": session.notices,
            "values": lambda: packed(colours[0], "u1"),
            "colour": lambda: colours[1],
        }
        with self._lock, self.widget.hold_sync():
            if "colour" in traits:
                colours = session.colours()
            for trait in traits:
                setattr(self.widget, trait, values[trait]())

    def _show_status(self, status: dict[str, Any]) -> None:
        with self._lock:
            self.widget.status = {key: status[key] for key in ("busy", "text", "fraction")}
            if status["error"]:
                self.widget.send({"type": "error", "text": status["error"]})

    # --- messages of the widget ---------------------------------------------------------

    def answer(self, message: Any) -> None:
        """Do what a message of the widget asks for; an error goes back as one line."""
        message = message if isinstance(message, dict) else {}
        kind = str(message.get("type", ""))
        handler: Callable[[dict[str, Any]], None] | None = getattr(self, f"_on_{kind}", None)
        try:
            if handler is None:
                raise InputError("message", f"{kind!r} is unknown", "reload the page")
            handler(message)
        except InputError as error:
            self._reply(message, "error", text=str(error))
        except (KeyError, TypeError, ValueError, IndexError) as error:
            self._reply(message, "error", text=f"{kind}: {type(error).__name__}: {error}")

    def _reply(self, message: dict[str, Any], kind: str, **content: Any) -> None:
        self.widget.send({"type": kind, "token": message.get("token"), **content})

    def _on_preview(self, message: dict[str, Any]) -> None:
        self.session.show_cut(str(message.get("method", "ward")), k=int(message["k"]))
        self._show(*_CUT, "notices")
        self.widget.send({"type": "previewed", "k": message["k"]})

    def _on_op(self, message: dict[str, Any]) -> None:
        op = dict(message["op"])
        method = op.get("method")
        if op.get("op") == "cut" and method != "ward":  # may take seconds, or minutes
            title = "HDBSCAN" if method == "hdbscan" else str(method)
            self._background.start(f"cutting with {title}", lambda report: self._cut(op, report))
            return
        self.session.apply(op, self.widget.selected_rows)
        if op.get("op") in ("move", "merge", "split", "drop"):
            self.widget.selected_domains = []
        self._show(*_EDIT)

    def _on_undo(self, message: dict[str, Any]) -> None:
        self.session.undo()
        self._show(*_EDIT)

    def _on_redo(self, message: dict[str, Any]) -> None:
        self.session.redo()
        self._show(*_EDIT)

    def _on_colour(self, message: dict[str, Any]) -> None:
        self.session.colour_by(str(message["mode"]))
        self._show(*_COLOURS)

    def _on_map(self, message: dict[str, Any]) -> None:
        n_neighbors, min_dist = int(message["n_neighbors"]), float(message["min_dist"])
        self.session.n_neighbors = int(np.clip(n_neighbors, 2, 200))
        self.session.min_dist = float(np.nan_to_num(np.clip(min_dist, 0.0, 0.99)))
        self._lay_out()

    def _on_cancel(self, message: dict[str, Any]) -> None:
        self._background.cancel()

    def _on_read(self, message: dict[str, Any]) -> None:
        items = self.session.read([int(row) for row in message["rows"]])
        self._reply(message, "texts", items=items)

    def _on_more(self, message: dict[str, Any]) -> None:
        items = self.session.more(int(message["domain"]), str(message["kind"]))
        self._reply(message, "texts", items=items)

    def _on_search(self, message: dict[str, Any]) -> None:
        points = self.session.search(str(message["query"]))
        with self._lock:
            self.widget.selection = packed(points, "u4")
        self._reply(message, "found", count=len(points))

    def _on_export(self, message: dict[str, Any]) -> None:
        # A page may only write below the notebook's folder.
        folder = self.save(inside(Path.cwd(), str(message.get("folder") or "domains")))
        files = sorted(path.name for path in folder.iterdir() if path.is_file())
        relative = str(folder.relative_to(Path.cwd().resolve()))
        code = f"rb.train(corpus, rb.Domains.load({relative!r}), run_dir='reports/first')"
        self._reply(message, "exported", folder=relative, files=files, next=code)

    # --- in the background --------------------------------------------------------------

    def _lay_out(self) -> None:
        def work(report: Report) -> None:
            self.session.lay_out_by_umap(report)
            self._show("xy", "domains", "controls")

        self._background.start("laying out the map", work)

    def _advise(self, report: Report) -> None:
        self.session.advise(report)
        self._show(*_GUIDANCE)

    def _cut(self, op: dict[str, Any], report: Report) -> None:
        self.session.apply(op, np.zeros(0, dtype=np.int64), report)
        with suppress(Cancelled):  # the cut is made: the widget must show that cut
            report(0.97, "naming the domains")
        self._show(*_EDIT)


def _with_metadata(made: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    return made if isinstance(made, tuple) else (made, {})


class Cancelled(RbkitError):
    """Raised inside a job whose result is no longer wanted."""


class Background:
    """A queue of jobs with one thread; a newer job replaces an older one of the same name.

    The kernel's main thread answers the widget; slow work (UMAP, HDBSCAN) runs here. A newer job
    cancels the running one too: nobody wants the map of a slider's last position but one.

    `on_status` is called with ``{"busy", "text", "fraction", "error"}`` whenever that changes.

    >>> texts = []
    >>> background = Background(lambda status: texts.append(status["text"]))
    >>> background.start("count", lambda report: report(1.0, "done"))
    >>> background.wait()
    >>> texts
    ['count', 'count: done', '']
    """

    def __init__(self, on_status: Callable[[dict[str, Any]], None]) -> None:
        self.on_status = on_status
        self._waiting: deque[tuple[str, Callable[[Report], Any]]] = deque()
        self._running = ""
        self._stop = threading.Event()
        self._idle = threading.Condition()
        self._thread: threading.Thread | None = None
        self._reported = 0.0

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
                self._tell(self._running)
                work(self._report)
            except Cancelled:
                pass
            except RbkitError as problem:
                error = str(problem)
            except Exception as problem:  # no caller would see it
                error = f"{self._running}: {type(problem).__name__}: {problem}"
                traceback.print_exc()
            finally:  # whatever ended the job, nobody waits for it any more
                with self._idle:
                    self._running = ""
                    if error or not self._waiting:
                        self._tell("", error=error, busy=bool(self._waiting))
                    self._idle.notify_all()

    def _report(self, fraction: float, text: str = "") -> None:
        if self._stop.is_set():
            raise Cancelled(self._running)
        if time.monotonic() - self._reported > 0.1 or fraction >= 1:
            self._tell(f"{self._running}: {text}" if text else self._running, fraction)

    def _tell(
        self, text: str, fraction: float | None = None, error: str = "", busy: bool = True
    ) -> None:
        self._reported = time.monotonic()
        fraction = None if fraction is None else min(1.0, max(0.0, float(fraction)))
        self.on_status({"busy": busy, "text": text, "fraction": fraction, "error": error})
