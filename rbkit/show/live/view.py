"""What the live views share: a run folder that is followed, scales that stay, frames, the end."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from rbkit.show.live.facts import LiveFacts, live_facts
from rbkit.show.live.frame import alt, frame_html
from rbkit.show.live.scale import Kind, Scale
from rbkit.show.live.told import printable
from rbkit.train.follow import Follower


class Output(NamedTuple):
    """What a cell shows: data by MIME type, and their metadata."""

    data: dict[str, Any]
    metadata: dict[str, Any]


class View:
    """A run folder as frames.

    Parameters
    ----------
    path : path
        The run folder.
    kind : {"cosine", "raw"}
        How the Gram matrix is shown; may be changed between frames.

    Attributes
    ----------
    run : Follower
    """

    def __init__(self, path: str | Path, kind: Kind = "cosine") -> None:
        self.run, self.kind = Follower(path), kind
        self._scales: dict[Kind, Scale] = {}
        self._began: Any = None

    @property
    def running(self) -> bool:
        """Whether there is more to come."""
        return self.run.status in ("running", "waiting")

    def frame(self, hint: str = "") -> Output:
        """Draw the run as it was when it was last looked at."""
        facts = printable(live_facts(self.run))
        # Only the first look needs the words: repeated, they would fill the notebook's file.
        html = frame_html(facts, self.kind, self._scale(facts), hint)
        return Output({"text/html": html, "text/plain": alt(facts, self.kind)}, {})

    def figure(self) -> Output:
        """Draw the figure with which a view ends."""
        from rbkit.show.display import bundle
        from rbkit.show.live.final import final_figure

        return Output(*bundle(final_figure(self.run)))

    def _scale(self, facts: LiveFacts) -> float:
        began = (self.run.info.get("started"), len(self.run.info.get("resumed") or ()))
        if began != self._began:  # another run in this folder, or one cut back
            self._began, self._scales = began, {}
        scale = self._scales.setdefault(self.kind, Scale(self.kind))
        return scale.follow(self.run.history)


def stop_hint(path: Path) -> str:
    """Say how to end the training of a run folder."""
    return f"To stop and keep what was learned: a file named STOP in {path}"
