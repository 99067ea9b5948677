"""``rb.scrub``: move through the rounds of a finished run, or of one that still trains."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin, get_type_hints

import anywidget
import numpy as np
import traitlets

from rbkit.balance.mixers.registry import MIXERS
from rbkit.errors import InputError
from rbkit.show.facts import labels, mixer_of, parameter
from rbkit.show.scrub.rounds import (
    Rounds,
    notices,
    packed_gram,
    rounds_of,
    run_payload,
    scales,
    together,
)
from rbkit.show.style import display_mode
from rbkit.show.widgets import joined, output, packed
from rbkit.text import one_line
from rbkit.train.counterfactual import Replay, replay, why_not
from rbkit.train.run import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from rbkit.balance.mixers.base import Mixer

# Depends on which examples were drawn, which a replay does not know.
_NOT_REPLAYED = ("max_epochs",)
_FIELD_KINDS = {float: "number", int: "whole", bool: "flag"}


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
    run: Run | str | Path,
    other: Run | str | Path | None = None,
    *,
    display: str | bool | None = None,
) -> Scrubber:
    """Move through the rounds of a run: Gram matrix, proportions, losses, numbers, all linked.

    In JupyterLab and Notebook it is a widget with a slider; in a batch run it is a figure.
    Unfinished and killed runs are shown too, with what they recorded.

    Parameters
    ----------
    run : Run, or path of a run folder
    other : Run or path, optional
        A second run next to it: the same slider (by step) and the same scales. Domains are
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
    >>> from rbkit.train import Recorder
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
        The mixer that is drawn next to the first run's own.
    widget : ScrubberWidget
    """

    def __init__(
        self,
        run: Run | str | Path,
        other: Run | str | Path | None = None,
        *,
        display: str | bool | None = None,
    ) -> None:
        self.display = display_mode(display)
        self.replayed: Replay | None = None
        self.runs: list[Rounds] = []
        self._at = 0  # where there is no widget
        self._show([run] if other is None else [run, other])

    @cached_property
    def widget(self) -> ScrubberWidget:
        """The widget; a figure needs none, whose state would be saved with the notebook."""
        widget = ScrubberWidget()
        widget.on_msg(self._on_message)
        return widget

    @property
    def at(self) -> int:
        """Stop of the slider, from 0; the last one at the start."""
        return int(self.widget.at) if self.display == "live" else self._at

    @at.setter
    def at(self, value: int) -> None:
        stops = len(self.stops)
        if not -stops <= value < max(stops, 1):
            raise InputError("at", f"{value} of {stops} rounds", f"use 0 to {max(stops - 1, 0)}")
        self._at = value % stops if stops else 0
        if self.display == "live":
            self.widget.at = self._at

    @property
    def stops(self) -> list[int]:
        """Steps at which a round ends, in either run."""
        return [int(step) for step in self._together.stops]

    def compare(self, other: Run | str | Path | None) -> Scrubber:
        """Put another run next to the first; None takes it away."""
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
        """Remove the replay."""
        self.replayed = None
        self._send_replay()
        return self

    def refresh(self) -> Scrubber:
        """Read the runs again: a run that still trains has recorded more by now."""
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

        kind: Any = self.widget.kind if self.display == "live" else "cosine"
        return frozen(self.runs, self._labels, self.replayed, n, kind)

    def _show(self, runs: list[Run | str | Path]) -> None:
        opened = [Run.open(run) if isinstance(run, str | Path) else run for run in runs]
        first = rounds_of(opened[0])
        self.runs = [first, *(rounds_of(run, first.keys) for run in opened[1:])]
        names = labels(opened)
        if len(set(names)) < len(names):  # the same run twice, or a copy of its folder
            names = [f"{name} ({letter})" for name, letter in zip(names, "AB", strict=False)]
        self._labels = [name[:120] for name in names]
        self._together = together(self.runs)
        if self.replayed is not None:  # on the run as it is now
            try:
                self.replayed = replay(first.run, self.replayed.mixer, self.replayed.options)
            except InputError:
                self.replayed = None
        self._at = max(len(self.stops) - 1, 0)
        if self.display == "live":
            self._send()

    def _send(self) -> None:
        widget, both = self.widget, self._together
        payloads = zip(self.runs, self._labels, both.ids, strict=True)
        with widget.hold_sync():
            widget.title = " and ".join(self._labels)
            widget.domains, widget.stops = both.domains, self.stops
            widget.runs = [run_payload(rounds, label, ids) for rounds, label, ids in payloads]
            widget.scale, widget.menu = scales(self.runs), []
            widget.notices = notices(self.runs, self._labels, both.shared)
            widget.at = self._at
            widget.selected = -1
        self._send_replay()

    def _send_replay(self) -> None:
        result, rounds = self.replayed, self.runs[0]
        if self.display != "live":
            return
        if result is None:
            self.widget.replay = {}
            return
        from rbkit.show.figures.mixture import replay_labels

        ends = np.append(rounds.round_indices, len(result.p) - 1)
        self.widget.replay = {
            "label": replay_labels([result])[0],
            "p": packed(rounds.shown(result.p), "f4"),
            "distance": packed(result.distance[ends], "f4"),
            "effective": packed(result.effective_domains[ends], "f4"),
        }

    def _on_message(self, _: Any, content: Any, buffers: Any) -> None:
        kind = content.get("type") if isinstance(content, dict) else None
        try:
            if kind == "replay":
                began = time.monotonic()
                name = str(content.get("mixer"))
                self.replay(name, **options_from(name, dict(content.get("fields") or {})))
                self._answer(content, "replayed", seconds=round(time.monotonic() - began, 3))
            elif kind == "menu":  # only on demand: some rules import torch to say if they can
                self.widget.menu = menu(self.runs[0].run)
            elif kind == "forget":
                self.forget()
            elif kind == "gram":
                which, t = int(content["run"]), int(content["round"])
                parts = packed_gram(self.runs[which].gram(t))
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

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        widget = self.widget if self.display == "live" else None
        return output(self.display, widget, repr(self), self.freeze, kwargs)

    def __repr__(self) -> str:
        parts = []
        for label, rounds in zip(self._labels, self.runs, strict=True):
            n = len(rounds.round_indices)
            parts.append(f"{label}: {n:,} round{'s' * (n != 1)}, {rounds.total:,} domains")
        return one_line("Scrubber of " + " and ".join(parts))


# ----------------------------------------------------------------- the menu of other mixers


def menu(run: Run) -> list[dict[str, Any]]:
    """Entries of the menu: ``name``, ``reason`` (empty if it can be replayed), ``options``.

    The run's own mixer begins with the run's own options.
    """
    entries = []
    for name in MIXERS:
        own = parameter(run, "mixer_options") if name == mixer_of(run) else None
        fields = option_fields(name, own if isinstance(own, Mapping) else {})
        if name == "Fixed":
            reason = "it needs its shares: scrubber.replay('Fixed', p=[...])"
        else:
            reason = why_not(run, name, {field["name"]: field["value"] for field in fields})
        entries.append({"name": name, "reason": reason, "options": [] if reason else fields})
    return sorted(entries, key=lambda entry: bool(entry["reason"]))


def option_fields(name: str, given: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the options of a rule that a simple field can hold.

    Examples
    --------
    >>> option_fields("RnB", {"lam": 2.0})[0]
    {'name': 'lam', 'kind': 'number', 'value': 2.0, 'optional': False, 'choices': []}
    """
    rule: Any = MIXERS[name]
    if not dataclasses.is_dataclass(rule):
        return []
    hints = get_type_hints(rule)
    fields = []
    for field in dataclasses.fields(rule):
        if field.name.startswith("_") or not field.init or field.name in _NOT_REPLAYED:
            continue
        hint = hints[field.name]
        types, literal = get_args(hint), get_origin(hint) is Literal
        optional = NoneType in types
        plain = next(each for each in types if each is not NoneType) if optional else hint
        kind = "choice" if literal else _FIELD_KINDS.get(plain)
        if kind is not None:
            fields.append(
                {
                    "name": field.name,
                    "kind": kind,
                    "value": given.get(field.name, field.default),
                    "optional": optional,
                    "choices": list(map(str, types)) if literal else [],
                }
            )
    return fields


def options_from(name: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Turn the contents of fields into options: empty ones are None, whole numbers int.

    Examples
    --------
    >>> options_from("RnB", {"lam": 1, "effective_domains": "", "prior": "target", "x": 1})
    {'lam': 1.0, 'prior': 'target', 'effective_domains': None}
    """
    options: dict[str, Any] = {}
    for field in option_fields(name, {}) if name in MIXERS else []:
        if field["name"] not in values:
            continue
        value, kind = values[field["name"]], field["kind"]
        if value == "" and field["optional"]:
            value = None
        elif kind == "number" and isinstance(value, int | float) and not isinstance(value, bool):
            value = float(value)
        elif kind == "whole" and isinstance(value, float) and value.is_integer():
            value = int(value)
        options[field["name"]] = value
    return options
