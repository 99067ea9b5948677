"""What the launcher asks of those who do the runs: on this machine, or elsewhere."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from rbkit.report.sweep.channel import Message


@dataclass(frozen=True)
class Event:
    """Something that happened to a run.

    ``started`` (identity of the worker, its host, its GPU), ``kernel`` (identity of the
    notebook's kernel), or ``ended`` (``result``: what the worker said, or None if it could
    not; ``code``: its exit code, negative for a signal, None if nobody knows it).
    """

    kind: Literal["started", "kernel", "ended"]
    id: str
    data: dict[str, Any] = field(default_factory=dict)


class Workers(Protocol):
    """Those who do runs; every method returns at once but :meth:`events`."""

    def start(self, request: Message) -> None:
        """Begin the run ``request["id"]``."""

    def events(self, timeout: float) -> list[Event]:
        """Return what happened; wait at most `timeout` seconds for something."""

    def interrupt(self, id: str) -> None:
        """Have the run interrupt its notebook, which may write a checkpoint."""

    def kill(self, id: str) -> None:
        """Kill the run and all its processes."""

    def close(self) -> None:
        """Kill whatever still runs, and let go of everything."""
