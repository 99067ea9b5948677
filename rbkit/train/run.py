"""Follow a run folder while another process, or this one, writes it."""

from __future__ import annotations

import json
import platform
import warnings
from collections import defaultdict
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
                str(self.path / "run.json"),
                f"lacks {', '.join(sorted(missing))}",
                "repair it, or run again",
            )
        try:
            status_of(self.info)
        except (TypeError, ValueError, OverflowError) as error:
            raise InputError(
                str(self.path / "run.json"),
                f"heartbeat or pid cannot be read ({error})",
                "repair it, or run again",
            ) from error

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


_NEEDED = {"status", "parameters", "heartbeat", "pid", "started"}


class Follower:
    """A run folder as it is now; :meth:`look` brings it up to date and reads only what is new.

    Nothing that a writer may leave behind in the middle makes it raise: what is missing or
    half written is not there yet. It has all that figures need of a
    :class:`~rbkit.train.recorder.Run`.

    Parameters
    ----------
    path : path
        The run folder; it need not be there yet.

    Attributes
    ----------
    path : Path
        The folder.
    info : dict
        ``run.json``; empty before the run began.
    rows, timings : list of dict
        Lines of ``metrics.jsonl`` and ``timings.jsonl``.
    history : dict of str to ndarray
        Arrays of ``history.npz``; empty before the first round has ended.

    Examples
    --------
    >>> import tempfile
    >>> from rbkit.train.recorder import Recorder
    >>> folder = tempfile.mkdtemp()
    >>> run, recorder = Follower(folder), Recorder(folder)
    >>> run.look(), run.status
    (False, 'waiting')
    >>> recorder.start(parameters={})
    >>> recorder.log({"kind": "train", "step": 10, "loss": 5.2})
    >>> run.look(), run.look(), run.status
    (True, False, 'running')
    >>> run.metrics("train")
    [{'kind': 'train', 'step': 10, 'loss': 5.2}]
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.info: dict[str, Any] = {}
        self.history: dict[str, np.ndarray[Any, Any]] = {}
        self._metrics, self._timings = (
            _Lines(self.path / f"{name}.jsonl") for name in ("metrics", "timings")
        )
        self._seen: dict[str, tuple[int, ...] | None] = {}  # what stat said of a file last time
        self._status = self.status

    def look(self) -> bool:
        """Read what is new; return whether anything is."""
        new = self._read_info()
        # Both lists must be read, so no `or`.
        new |= self._metrics.read()
        new |= self._timings.read()
        new |= self._read_history()
        before, self._status = self._status, self.status  # a killed run writes nothing
        return new or before != self._status

    @property
    def status(self) -> str:
        """``waiting`` before the run began, then as :attr:`rbkit.train.recorder.Run.status`."""
        return status_of(self.info) if self.info else "waiting"

    @property
    def rows(self) -> list[dict[str, Any]]:
        """All lines of ``metrics.jsonl`` so far."""
        return self._metrics.rows

    @property
    def timings(self) -> list[dict[str, Any]]:
        """All lines of ``timings.jsonl`` so far: seconds since the start, by kind and step."""
        return self._timings.rows

    def metrics(self, kind: str | None = None) -> list[dict[str, Any]]:
        """Lines of ``metrics.jsonl`` of one `kind` (``train`` or ``eval``), or all."""
        return self.rows if kind is None else self._metrics.by_kind[kind]

    @cached_property
    def domains(self) -> Any | None:
        """The run's :class:`~rbkit.regroup.domains.Domains`, or None."""
        from rbkit.regroup.domains import Domains

        folder = self.path / "domains"
        return Domains.load(folder) if folder.is_dir() else None

    def _read_info(self) -> bool:
        if not self._changed("run.json"):
            return False
        try:
            info = json.loads((self.path / "run.json").read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return False
        if not isinstance(info, dict) or info.get("format") != FORMAT or _NEEDED - info.keys():
            return False
        try:
            status_of(info)
        except (TypeError, ValueError, OverflowError):  # no usable heartbeat or pid
            return False
        beginnings = (info["started"], len(info.get("resumed") or []))
        if beginnings != (self.info.get("started"), len(self.info.get("resumed") or [])):
            # Another run in this folder, or one resumed and cut back: read all of it anew.
            for lines in (self._metrics, self._timings):
                lines.forget()
            self.history = {}
            self._seen.pop("history.npz", None)
            self.__dict__.pop("domains", None)
        self.info = info
        return True

    def _read_history(self) -> bool:
        if not self._changed("history.npz"):
            return False
        try:
            self.history = load_history(self.path / "history.npz")
        except (InputError, OSError):
            return False
        return True

    def _changed(self, name: str) -> bool:
        now = _stamp(self.path / name)
        before, self._seen[name] = self._seen.get(name), now
        return now is not None and now != before


class _Lines:
    """Lines of a ``.jsonl`` file that grows, or is cut back and grows again."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.forget()

    def forget(self) -> None:
        """Start from the first line again."""
        self.rows: list[dict[str, Any]] = []
        self.by_kind: dict[Any, list[dict[str, Any]]] = defaultdict(list)
        self._read, self._inode = 0, 0

    def read(self) -> bool:
        """Read the new whole lines; whether there were any, or the file was cut back."""
        stamp = _stamp(self.path)
        if stamp is None:
            return False
        _, size, inode = stamp
        cut = bool(self.rows) and (size < self._read or inode != self._inode)
        if cut:
            self.forget()
        self._inode = inode
        if size == self._read:
            return cut
        try:
            with self.path.open("rb") as file:
                file.seek(self._read)
                new = file.read()
        except OSError:
            return cut
        whole = new[: new.rfind(b"\n") + 1]  # the rest is still being written
        self._read += len(whole)
        for line in whole.splitlines():
            try:
                row = json.loads(line)
            except ValueError:
                continue  # a damaged line is no reason to lose sight of a run
            if isinstance(row, dict):
                self.rows.append(row)
                self.by_kind[row.get("kind")].append(row)
        return cut or bool(whole)


def _stamp(path: Path) -> tuple[int, int, int] | None:
    """Return what changes when a file is replaced or grows; None if it is not there."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
