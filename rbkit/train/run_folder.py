"""Read run folders: what :mod:`rbkit.train.record` wrote, finished or not."""

from __future__ import annotations

import json
import platform
import warnings
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from rbkit.errors import InputError, RbkitWarning
from rbkit.files import read_json, read_npz

FORMAT = "rbkit-run/1"
_STALE = 120.0  # seconds without a heartbeat after which a run on another machine counts as killed


class Run:
    """Read one run folder.

    Attributes
    ----------
    path : Path
        The folder.
    info : dict
        ``run.json``.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.info: dict[str, Any] = read_json(self.path / "run.json")
        if self.info.get("format") != FORMAT:
            raise InputError(
                str(self.path / "run.json"),
                f"format {self.info.get('format')!r} instead of {FORMAT!r}",
                "give the folder of a run made by rbkit",
            )
        if missing := {"status", "parameters", "heartbeat", "pid"} - set(self.info):
            raise InputError(
                str(self.path / "run.json"), f"lacks {', '.join(sorted(missing))}",
                "repair it, or run again",
            )  # fmt: skip
        try:
            status_of(self.info)
        except (TypeError, ValueError, OverflowError) as error:
            raise InputError(
                str(self.path / "run.json"), f"heartbeat or pid cannot be read ({error})",
                "repair it, or run again",
            ) from error  # fmt: skip

    @classmethod
    def open(cls, path: str | Path) -> Run:
        """Open the run folder `path`; :class:`InputError` if there is none."""
        if not (Path(path) / "run.json").is_file():
            raise InputError(str(path), "no run.json there", "give the folder of a run")
        return cls(path)

    @property
    def name(self) -> str:
        """Mixer of the run, or the folder's name."""
        return str(self.info.get("parameters", {}).get("mixer") or self.path.name)

    @property
    def status(self) -> str:
        """``ok``, ``failed``, ``interrupted``, ``running``, or ``killed``.

        A run that says it is running but whose process is gone, or whose heartbeat is
        stale, was killed: a dead process cannot say so itself.
        """
        return status_of(self.info)

    def metrics(self, kind: str | None = None) -> list[dict[str, Any]]:
        """Rows of ``metrics.jsonl``, of one `kind` (``train`` or ``eval``) if given."""
        return [r for r in self._rows("metrics.jsonl") if kind is None or r.get("kind") == kind]

    def timings(self) -> list[dict[str, Any]]:
        """Rows of ``timings.jsonl``: seconds since the start, by kind and step."""
        return self._rows("timings.jsonl")

    @cached_property
    def history(self) -> dict[str, np.ndarray[Any, Any]]:
        """Arrays of ``history.npz``; empty if no round has ended yet."""
        return load_history(self.path / "history.npz")

    @cached_property
    def domains(self) -> Any | None:
        """The run's :class:`~rbkit.regroup.domains.Domains`, or None."""
        from rbkit.regroup.domains import Domains

        folder = self.path / "domains"
        return Domains.load(folder) if folder.is_dir() else None

    def _rows(self, name: str) -> list[dict[str, Any]]:
        path = self.path / name
        if not path.exists():
            return []
        lines = path.read_text(encoding="utf-8").split("\n")
        # A line without its newline is still being written: it is not there yet.
        try:
            return [json.loads(line) for line in lines[:-1] if line]
        except json.JSONDecodeError as error:
            raise InputError(str(path), f"a line is not JSON ({error})", "repair it") from error

    def __repr__(self) -> str:
        return f"Run({self.path.name!r}, {self.name}, {self.status})"


def list_runs(folder: str | Path) -> list[Run]:
    """Return the runs directly inside `folder`, by time of their start.

    A folder that cannot be read is told of with an :class:`RbkitWarning` and left out.
    """
    found = []
    for path in Path(folder).glob("*/run.json"):
        try:
            run = Run(path.parent)
            run.metrics(), run.history
            found.append(run)
        except InputError as error:
            warnings.warn(f"run left out: {error}", RbkitWarning, stacklevel=2)
    return sorted(found, key=lambda run: (str(run.info.get("started")), run.path.name))


def status_of(info: Mapping[str, Any]) -> str:
    """Status of a run by its ``run.json``, corrected where its process is gone.

    Examples
    --------
    >>> status_of({"status": "ok"})
    'ok'
    """
    status = str(info["status"])
    if status != "running":
        return status
    beat = datetime.fromisoformat(info["heartbeat"])
    if info.get("host") == platform.node():
        return "running" if _alive(int(info["pid"]), beat) else "killed"
    return "running" if (datetime.now(UTC) - beat).total_seconds() < _STALE else "killed"


def load_history(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    """Arrays of ``history.npz``; empty if there is none."""
    return read_npz(path, "delete it, or run again") if path.exists() else {}


def _alive(pid: int, beat: datetime) -> bool:
    """Whether the process that gave the heartbeat lives: a later one may have its number."""
    try:
        born = psutil.Process(pid).create_time()
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:  # somebody else's: it lives
        return True
    return bool(born <= beat.timestamp() + 1)  # heartbeats are whole seconds
