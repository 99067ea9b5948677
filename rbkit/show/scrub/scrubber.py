"""``rb.scrub``: move through the rounds of a run that was made."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anywidget
import numpy as np
import traitlets

from rbkit.errors import InputError
from rbkit.show.facts import RunLike, labels
from rbkit.show.scrub.rounds import (
    Rounds,
    asked,
    cosines,
    menu,
    notices,
    rounds_of,
    run_payload,
    scales,
    together,
)
from rbkit.show.style import display_mode
from rbkit.show.widgets import joined, output, packed
from rbkit.train.counterfactual import Replay, replay
from rbkit.train.run import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from rbkit.balance.mixers.base import Mixer


class ScrubberWidget(anywidget.AnyWidget):
    """Gram matrix, proportions, losses and numbers of a round, linked by one slider.

    It computes nothing. Messages are dicts with a ``type``: ``"menu"`` (which mixers there
    are), ``"replay"`` (``mixer``, ``fields``), ``"forget"`` and ``"gram"`` (``run``,
    ``round``), with a ``token`` that the answer repeats.
    """

    _esm = joined("js", "scrubber")
    _css = joined("css", "scrubber")

    title = traitlets.Unicode("").tag(sync=True)
    domains: Any = traitlets.List().tag(sync=True)
    runs: Any = traitlets.List().tag(sync=True)
    stops: Any = traitlets.List().tag(sync=True)
    scale = traitlets.Dict().tag(sync=True)
    menu: Any = traitlets.List().tag(sync=True)
    notices: Any = traitlets.List().tag(sync=True)
    replay = traitlets.Dict().tag(sync=True)
    at = traitlets.Int(0).tag(sync=True)
    kind = traitlets.Enum(["cosine", "raw"], "cosine").tag(sync=True)
    selected = traitlets.Int(-1).tag(sync=True)


def scrub(
    run: RunLike | str | Path,
    other: RunLike | str | Path | None = None,
    *,
    display: str | bool | None = None,
) -> Scrubber:
    """Move through the rounds of a run: Gram matrix, proportions, losses, numbers, all linked.

    In JupyterLab and Notebook it is a widget with a slider; in a batch run it is a figure. It
    takes unfinished and killed runs too, and shows what they recorded.

    Parameters
    ----------
    run : Run, or path of a run folder
    other : Run or path, optional
        A second run beside it: the same slider (by step) and the same scales. Domains are
        matched by name.
    display : {"live", "batch", "final", "off"} or bool, optional
        Widget, or figure. ``$RBKIT_DISPLAY`` if not given; see
        :func:`rbkit.show.style.display_mode`.

    Returns
    -------
    Scrubber
        ``.at``, ``.compare(run)``, ``.replay(mixer, **options)``, ``.freeze()``.

    Raises
    ------
    InputError
        If there is no run in the folder.

    Examples
    --------
    >>> import tempfile
    >>> from rbkit.train.recorder import Recorder
    >>> recorder = Recorder(tempfile.mkdtemp())
    >>> recorder.start(parameters={"mixer": "Stratified"},
    ...                domains={"names": ["a", "b"], "sizes": [9, 9], "q": [0.8, 0.2]})
    >>> recorder.arrays["p"] = [np.full(2, 0.5)]
    >>> recorder.round(step=10, p=np.full(2, 0.5), estimate=None)
    >>> recorder.finish("ok")
    >>> scrubber = scrub(recorder.path, display="off")
    >>> scrubber
    Scrubber of Stratified: 1 round, 2 domains
    >>> scrubber.replay("Target").distance
    array([0.3, 0.3])
    """
    return Scrubber(run, other, display=display)


class Scrubber:
    """One run, or two, and a place in them.

    Attributes
    ----------
    runs : list of Rounds
        What is shown of each run.
    replayed : Replay or None
        The mixer that is drawn beside the first run's own.
    widget : ScrubberWidget
    """

    def __init__(
        self,
        run: RunLike | str | Path,
        other: RunLike | str | Path | None = None,
        *,
        display: str | bool | None = None,
    ) -> None:
        self.display = display_mode(display)
        self.widget = ScrubberWidget()
        self.replayed: Replay | None = None
        self.runs: list[Rounds] = []
        self.widget.on_msg(self._on_message)
        self._show([run] if other is None else [run, other])

    # --- for programs -------------------------------------------------------------------

    @property
    def at(self) -> int:
        """Stop of the slider, from 0; the last one at the start."""
        return int(self.widget.at)

    @at.setter
    def at(self, value: int) -> None:
        stops = len(self.stops)
        if not -stops <= value < max(stops, 1):
            raise InputError("at", f"{value} of {stops} rounds", f"use 0 to {max(stops - 1, 0)}")
        self.widget.at = value % stops if stops else 0

    @property
    def stops(self) -> list[int]:
        """Steps at which a round ends, in either run."""
        return [int(step) for step in self._together.stops]

    def compare(self, other: RunLike | str | Path | None) -> Scrubber:
        """Put another run beside the first; None takes it away."""
        first = self.runs[0].run
        self._show([first] if other is None else [first, other])
        return self

    def replay(self, mixer: Mixer | str, **options: Any) -> Replay:
        """Draw what another mixer would have chosen, on the same Gram matrices.

        Parameters
        ----------
        mixer : Mixer or str
            A rule, or its name.
        **options
            Options of a rule given by name.

        Returns
        -------
        Replay
            Its ``p``, and its total variation ``distance`` to the run's.

        Raises
        ------
        InputError
            If the run did not record what the rule needs.
        """
        self.replayed = replay(self.runs[0].run, mixer, options or None)
        self._send_replay()
        return self.replayed

    def forget(self) -> Scrubber:
        """Take the replay away."""
        self.replayed = None
        self.widget.replay = {}
        return self

    def refresh(self) -> Scrubber:
        """Read the runs anew: of a run that goes on, there is more by now."""
        self._show([each.run.path for each in self.runs])
        return self

    def freeze(self, n: int = 6) -> Figure:
        """Draw `n` rounds as small multiples, with proportions and losses below.

        Parameters
        ----------
        n : int
            Gram matrices of each run, spread over its rounds, on one colour scale.

        Returns
        -------
        matplotlib Figure
        """
        from rbkit.show.scrub.frozen import frozen

        kind: Any = self.widget.kind
        return frozen(self.runs, self._labels, self.replayed, n, kind)

    # --- to and from the widget ---------------------------------------------------------

    def _show(self, runs: list[RunLike | str | Path]) -> None:
        opened = [Run.open(run) if isinstance(run, str | Path) else run for run in runs]
        first = rounds_of(opened[0])
        self.runs = [first, *(rounds_of(run, first.keys) for run in opened[1:])]
        self._labels = _labels(self.runs)
        self._together = together(self.runs)
        if self.replayed is not None:  # on the run as it is now
            self.replayed = self._replayed_anew(self.replayed)
        if self.display == "live":
            self._send()

    def _replayed_anew(self, old: Replay) -> Replay | None:
        try:
            return replay(self.runs[0].run, old.mixer, old.options)
        except InputError:
            return None

    def _send(self) -> None:
        widget, both = self.widget, self._together
        with widget.hold_sync():
            widget.title = " and ".join(self._labels)
            widget.domains, widget.stops = both.domains, self.stops
            widget.runs = [
                run_payload(rounds, label, ids)
                for rounds, label, ids in zip(self.runs, self._labels, both.ids, strict=True)
            ]
            widget.scale, widget.menu = scales(self.runs), []
            widget.notices = notices(self.runs, self._labels, both.shared)
            widget.at = max(len(both.stops) - 1, 0)
            widget.selected = -1
        self._send_replay()

    def _send_replay(self) -> None:
        done, rounds = self.replayed, self.runs[0]
        if done is None or self.display != "live":
            self.widget.replay = {}
            return
        from rbkit.show.figures.mixture import replay_labels

        ends = np.append(rounds.at, len(done.p) - 1)
        self.widget.replay = {
            "label": replay_labels([done])[0],
            "mixer": done.mixer,
            "p": packed(rounds.rows(done.p), "f4"),
            "distance": packed(done.distance[ends], "f4"),
            "effective": packed(done.effective_domains[ends], "f4"),
        }

    def _on_message(self, _: Any, content: Any, buffers: Any) -> None:
        kind = content.get("type") if isinstance(content, dict) else None
        try:
            if kind == "replay":
                began = time.monotonic()
                name = str(content.get("mixer"))
                self.replay(name, **asked(name, dict(content.get("fields") or {})))
                self._answer(content, "replayed", seconds=round(time.monotonic() - began, 3))
            elif kind == "menu":  # asked for: some rules import torch to say whether they can
                self.widget.menu = menu(self.runs[0].run)
            elif kind == "forget":
                self.forget()
            elif kind == "gram":
                which, t = int(content["run"]), int(content["round"])
                parts = cosines(self.runs[which].gram(t))
                self._answer(content, "gram", list(parts), run=which, round=t)
            else:
                raise InputError("message", f"{kind!r} is unknown", "reload the page")
        except InputError as error:
            self._answer(content, "error", text=str(error))
        except (KeyError, TypeError, ValueError, IndexError, ArithmeticError) as error:
            self._answer(content, "error", text=f"{kind}: {type(error).__name__}: {error}")

    def _answer(self, content: Any, kind: str, buffers: Any = None, **more: Any) -> None:
        token = content.get("token") if isinstance(content, dict) else None
        self.widget.send({"type": kind, "token": token, **more}, buffers=buffers)

    # --- in a notebook ------------------------------------------------------------------

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        return output(self.display, self.widget, repr(self), self.freeze, kwargs)

    def __repr__(self) -> str:
        parts = []
        for label, rounds in zip(self._labels, self.runs, strict=True):
            n = len(rounds.at)
            parts.append(f"{label}: {n:,} round{'s' * (n != 1)}, {rounds.total:,} domains")
        return "Scrubber of " + " and ".join(parts)


def _labels(runs: list[Rounds]) -> list[str]:
    found = labels([rounds.run for rounds in runs])
    if len(set(found)) < len(found):  # the same run twice, or a copy of its folder
        found = [f"{name} ({letter})" for name, letter in zip(found, "AB", strict=False)]
    return [name[:120] for name in found]
