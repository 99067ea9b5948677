"""What the widget asks, and what it is answered: one method for each kind of message."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rbkit.errors import InputError
from rbkit.files import inside
from rbkit.regroup.edits import noise_policy
from rbkit.show.explorer.jobs import Cancelled

if TYPE_CHECKING:
    from rbkit.show.explorer.explorer import Explorer


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
        self.widget.send({"type": "exported", "token": content.get("token"), "folder": shown,
                          "files": files})  # fmt: skip

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
