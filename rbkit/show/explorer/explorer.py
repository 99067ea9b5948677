"""``rb.explore``: see a corpus on a map, cut it into domains, name them, and take them along."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from datasets import DatasetDict
from numpy.typing import ArrayLike, NDArray

from rbkit.data.corpus import about
from rbkit.data.read import quiet
from rbkit.errors import InputError
from rbkit.regroup.domains import Domains
from rbkit.regroup.editor import Editor
from rbkit.regroup.edits import EditLog
from rbkit.regroup.finish import finish
from rbkit.regroup.preparation import prepare
from rbkit.regroup.weights import sampling_weights, write_weighted
from rbkit.show.explorer.jobs import Jobs
from rbkit.show.explorer.session import Session
from rbkit.show.explorer.talk import Talk
from rbkit.show.explorer.view import View
from rbkit.show.explorer.widget import ExplorerWidget
from rbkit.show.modes import display_mode
from rbkit.show.widgets.output import output


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
        Widget, or figure: see :mod:`rbkit.show.modes`.
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
            self._domains = (now, finish(self.editor, far=self.far, warn=False))
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
