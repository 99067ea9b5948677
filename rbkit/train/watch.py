"""Those who look at a run folder while it is written: a panel, a tracker, or your own.

Training knows no screen: the panel of a notebook is found through the entry point ``panel``
of the group ``rbkit.watcher``.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from rbkit.errors import InputError, RbkitWarning


@runtime_checkable
class Watcher(Protocol):
    """Something that looks at a run folder while it is written, in the process that trains."""

    def begin(self, path: Path) -> None:
        """Take up the run folder `path`, whose ``run.json`` says that it is running."""

    def look(self) -> None:
        """Look, after a step; return at once where it is too early to look again."""

    def end(self) -> None:
        """Look for the last time: ``run.json`` is final."""


Live = bool | str | Watcher | Sequence[bool | str | Watcher]


def watchers(live: Live = False, report_to: str | Sequence[str] = "none") -> list[Watcher]:
    """Return those who are to watch a run, or say at once why that is not possible.

    Parameters
    ----------
    live : bool, str, Watcher, or a sequence of them
        True: the live panel, in the mode that ``$RBKIT_DISPLAY`` says. ``"live"``,
        ``"batch"``, ``"final"`` or ``"off"``: in that mode. Or a watcher of your own.
    report_to : str or sequence of str
        Names of trackers: see :class:`rbkit.train.tracking.TrackerWatcher`.

    Examples
    --------
    >>> watchers(live=False, report_to="none")
    []
    """
    from rbkit.train.tracking import TrackerWatcher, tracker_names

    found: list[Watcher] = []
    for one in live if isinstance(live, list | tuple) else [live]:
        if isinstance(one, bool | str):
            if one and one != "off":
                found.append(_panel(None if one is True else one))
        elif isinstance(one, Watcher):
            found.append(one)
        else:
            raise InputError("live", f"{type(one).__name__} cannot watch", "give True or False")
    return [*found, *(TrackerWatcher(name) for name in tracker_names(report_to))]


def _panel(mode: str | None) -> Watcher:
    for entry in entry_points(group="rbkit.watcher", name="panel"):
        panel: Watcher = entry.load()(mode)
        return panel
    raise InputError("live", "no panel is installed", "install rbkit again: pip install -e .")


def shows_progress(watcher: Watcher) -> bool:
    """Whether a watcher shows how far training is, so that a bar would be one too many."""
    return bool(getattr(watcher, "shows_progress", False))


class Audience:
    """The watchers of one run: timed, and kept from harming it.

    A watcher that raises is dropped with one :class:`RbkitWarning`; training goes on.

    Attributes
    ----------
    seconds : float
        What watching took so far.

    Examples
    --------
    >>> class Clock:
    ...     def begin(self, path): print("a run in", path)
    ...     def look(self): print("a step")
    ...     def end(self): print("done")
    >>> audience = Audience([Clock()])
    >>> audience.begin(Path("runs")); audience.look(); audience.end()
    a run in runs
    a step
    done
    """

    def __init__(self, watchers: Sequence[Watcher] = ()) -> None:
        self._watchers = list(watchers)
        self.seconds = 0.0

    def begin(self, path: Path) -> None:
        """Tell all that a run has begun."""
        self._tell("begin", path)

    def look(self) -> None:
        """Let all look."""
        self._tell("look")

    def end(self) -> None:
        """Tell all that the run has ended; a later call says nothing."""
        self._tell("end")
        self._watchers.clear()

    def _tell(self, what: str, *args: Any) -> None:
        if not self._watchers:
            return
        with self._timed():
            for watcher in list(self._watchers):
                try:
                    getattr(watcher, what)(*args)
                except Exception as error:
                    self._watchers.remove(watcher)
                    warnings.warn(
                        f"{type(watcher).__name__} stopped watching, training goes on: "
                        f"{type(error).__name__}: {error}",
                        RbkitWarning, stacklevel=2,
                    )  # fmt: skip

    @contextmanager
    def _timed(self) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            self.seconds += time.perf_counter() - began


class Throttle:
    """When to look again, so that looking takes less than `share` of the time.

    A look that took r seconds is followed by at least r / `share` seconds without one,
    by `least` seconds in any case, and by no more than `most`.

    Parameters
    ----------
    share : float
        Of the time, for looking.
    least, most : float
        Seconds between two looks; with `most`, `share` is no longer certain.

    Examples
    --------
    >>> throttle = Throttle(share=0.01, least=30)
    >>> for _ in range(3):
    ...     if throttle.due():
    ...         with throttle.looking():
    ...             print("a look")
    a look
    """

    def __init__(self, share: float = 0.01, least: float = 0.5, most: float = float("inf")) -> None:
        self.share, self.least, self.most = share, least, most
        self._due = 0.0

    def due(self) -> bool:
        """Whether it is time to look."""
        return time.monotonic() >= self._due

    @contextmanager
    def looking(self) -> Iterator[None]:
        """Time a look: it decides when the next one is due."""
        began = time.monotonic()
        try:
            yield
        finally:
            now = time.monotonic()
            self._due = now + min(self.most, max(self.least, (now - began) / self.share))
