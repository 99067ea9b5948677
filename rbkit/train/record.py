"""The run folder: everything one run wrote, in open formats. The folder is the truth.

::

    run.json        parameters, versions, status, heartbeat, domains, ledger, final losses
    metrics.jsonl   a line per logged step or evaluation; no wall-clock, so runs compare
                    byte for byte
    timings.jsonl   seconds since the start, by step
    final.npz       final eval loss of each example
    history.npz     p, q, gram, counts, noise_floor, diagonal_debiased over the rounds
    domains/        the domains that the run trained on
    checkpoints/    what a resume starts from

``run.json`` and ``history.npz`` are replaced atomically, the ``.jsonl`` files only grow:
a reader, or a killed writer, never leaves half a file.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from rbkit.errors import InputError
from rbkit.files import atomic_path, read_json, write_json
from rbkit.train.run_folder import FORMAT, load_history
from rbkit.train.run_folder import Run as Run
from rbkit.train.run_folder import list_runs as list_runs
from rbkit.train.watch import Audience, Watcher

_OF_ESTIMATE = ("gram", "counts", "noise_floor", "diagonal_debiased")
_PER_ROUND = ("step", *_OF_ESTIMATE)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


class Recorder:
    """Write a run folder as the run goes.

    Parameters
    ----------
    path : path
        The run folder; made if absent.
    resume : bool
        Continue the record that is there instead of starting a new one.
    active : bool
        Whether to write at all: of several processes, only the first does.
    watchers : sequence of Watcher
        Who looks at the folder meanwhile; the seconds that takes are recorded as ``watch``.

    Examples
    --------
    >>> import tempfile
    >>> recorder = Recorder(tempfile.mkdtemp())
    >>> recorder.start(parameters={"seed": 0})
    >>> recorder.log({"kind": "train", "step": 10, "loss": 5.2})
    >>> recorder.finish("ok")
    >>> Run.open(recorder.path).metrics("train")
    [{'kind': 'train', 'step': 10, 'loss': 5.2}]
    """

    def __init__(
        self,
        path: str | Path,
        *,
        resume: bool = False,
        active: bool = True,
        watchers: Sequence[Watcher] = (),
    ) -> None:
        self.path, self.active = Path(path), active
        self._audience = Audience(watchers if active else ())
        if active:
            self.path.mkdir(parents=True, exist_ok=True)
        self.info: dict[str, Any] = {}
        self.arrays: dict[str, list[Any]] = {name: [] for name in (*_PER_ROUND, "p")}
        self.q: np.ndarray[Any, Any] | None = None
        self._resuming = resume
        self._began, self._last_beat = time.monotonic(), 0.0
        self._seconds_before = self._watched_before = 0.0
        self._history_due = 0.0  # when history.npz may be written again

    def start(self, **info: Any) -> None:
        """Write ``run.json`` with status ``running``; a fresh record drops older metrics."""
        known = self._resuming and (self.path / "run.json").exists()
        old: dict[str, Any] = read_json(self.path / "run.json") if known else {}
        timed = _last_timing(self.path / "timings.jsonl") if self._resuming else 0.0
        # The last heartbeat of a killed run may be older than its last row.
        self._seconds_before = max(float(old.get("seconds") or 0.0), timed)
        self._watched_before = float((old.get("watch") or {}).get("seconds") or 0.0)
        resumed = [*old.get("resumed_seconds", []), round(self.seconds, 3)]
        self.info = {
            "format": FORMAT,
            "status": "running",
            "error": None,
            "started": old.get("started", _now()),
            "resumed": [*old.get("resumed", []), _now()] if self._resuming else [],
            "resumed_seconds": resumed if self._resuming else [],
            "heartbeat": _now(),
            "ended": None,
            "seconds": self._seconds_before,
            "pid": os.getpid(),
            "host": platform.node(),
            "versions": versions(),
            "progress": {"step": 0, "steps": None, "loss": None},
            **info,
            "final": None,
        }
        if self.active and not self._resuming:
            self._drop_older_record()
        self._write_info()
        self._audience.begin(self.path)

    # ------------------------------------------------------------------ as it goes

    @property
    def seconds(self) -> float:
        """Seconds of running so far, those before a resume included."""
        return self._seconds_before + time.monotonic() - self._began

    def log(self, row: Mapping[str, Any]) -> None:
        """Append one row to ``metrics.jsonl``, and its time to ``timings.jsonl``."""
        if not self.active:
            return
        clean = {k: _plain(v) for k, v in row.items()}
        _append(self.path / "metrics.jsonl", clean)
        timing = {"kind": row.get("kind"), "step": row["step"], "seconds": round(self.seconds, 3)}
        _append(self.path / "timings.jsonl", timing)

    def round(self, *, step: int, p: Any, estimate: Any | None) -> None:
        """Record the end of a round: its Gram estimate, if any, and the next `p`.

        ``history.npz`` is written anew with all rounds, so with very short rounds not each time,
        but such that writing stays below a twentieth of the time; a checkpoint and the end
        always write it.

        Once any round had an estimate, all have a row: NaN, and no example, where there was none.
        """
        for name in _OF_ESTIMATE:
            rows = self.arrays[name]
            if estimate is not None:
                row = np.asarray(getattr(estimate, name))
                missing = len(self.arrays["step"]) - len(rows)
                rows += [_nothing_like(row)] * missing + [row]
            elif rows:
                rows.append(_nothing_like(rows[-1]))
        self.arrays["step"].append(step)
        self.arrays["p"].append(np.asarray(p, dtype=np.float64))
        self._write_history_if_due()

    def amend(self, p: Any) -> None:
        """Say that the round in progress is made of `p`, and not of what its beginning said."""
        self.arrays["p"][-1] = np.asarray(p, dtype=np.float64)
        self._write_history_if_due()

    def fidelity(self, found: Mapping[str, Any]) -> None:
        """Add a check of the tracked layers to ``metrics.jsonl``, as a row of kind ``fidelity``."""
        self.log({"kind": "fidelity", **found})

    def save_arrays(self, name: str, **arrays: np.ndarray[Any, Any]) -> None:
        """Write `arrays` as the file `name` (.npz) of the folder."""
        if not self.active:
            return
        with atomic_path(self.path / name) as tmp:
            np.savez_compressed(tmp, **arrays)  # type: ignore[arg-type]

    def beat(self, *, every: float = 5.0, **progress: Any) -> None:
        """Show that the run is alive, at most every `every` seconds."""
        now = time.monotonic()
        if now - self._last_beat >= every:
            self._last_beat = now
            self.info["heartbeat"], self.info["seconds"] = _now(), round(self.seconds, 3)
            self.info["progress"] = {k: _plain(v) for k, v in progress.items()}
            self._write_info()
        self._audience.look()

    def finish(self, status: str, *, error: str | None = None, **info: Any) -> None:
        """Write the last ``run.json``: status ``ok``, ``failed`` or ``interrupted``."""
        self.info.update(info)
        self.info.update(
            status=status, error=error, ended=_now(), heartbeat=_now(), seconds=self.seconds
        )
        if status != "failed":  # the disk may be why it failed
            self._write_history()
        self._write_info()
        self._audience.end()

    def _drop_older_record(self) -> None:
        """Remove what an earlier run wrote here: views would show it as this run's."""
        for name in ("metrics.jsonl", "timings.jsonl", "history.npz", "final.npz"):
            (self.path / name).unlink(missing_ok=True)
        if not (self.path / "run.json").exists():
            return  # then the rest is not a run's
        (self.path / "figures" / "live.png").unlink(missing_ok=True)
        if (self.path / "domains" / "domains.json").exists():
            shutil.rmtree(self.path / "domains")
        for state in (self.path / "trackers").glob("*/state.json"):
            shutil.rmtree(state.parent)

    # -------------------------------------------------------------------- resuming

    def state_dict(self) -> dict[str, Any]:
        """Lengths of the files at a checkpoint: a resume cuts off what came after."""
        self._write_history()
        return {"metrics": _size(self.path / "metrics.jsonl"),
                "timings": _size(self.path / "timings.jsonl"),
                "rounds": len(self.arrays["step"])}  # fmt: skip

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Cut the record back to a checkpoint, so that the continued run writes it once."""
        logs = {self.path / f"{name}.jsonl": int(state[name]) for name in ("metrics", "timings")}
        for path, size in logs.items():
            if _size(path) < size:
                raise InputError(
                    str(path), f"has {_size(path)} bytes, but {size} at the checkpoint",
                    "start the run anew in another folder",
                )  # fmt: skip
        history, rounds = load_history(self.path / "history.npz"), int(state["rounds"])
        if rounds and len(history.get("step", [])) < rounds:
            raise InputError(
                str(self.path / "history.npz"), f"has fewer than the checkpoint's {rounds} rounds",
                "start the run anew in another folder",
            )  # fmt: skip
        for name in _PER_ROUND:
            self.arrays[name] = list(history.get(name, []))[:rounds]
        self.arrays["p"] = list(history.get("p", []))[: rounds + 1] or self.arrays["p"]
        for path, size in logs.items():  # everything is there: now cut
            if self.active and path.exists():
                os.truncate(path, size)
        if self.active and not rounds:
            (self.path / "history.npz").unlink(missing_ok=True)
        self._write_history()

    # ---------------------------------------------------------------------- writing

    def _write_info(self) -> None:
        if self.active:
            watched = self._watched_before + self._audience.seconds
            self.info["watch"] = {"seconds": round(watched, 4)}
            self.info["rounds"] = len(self.arrays["step"])  # history.npz may not have all yet
            write_json(self.path / "run.json", _plain(self.info))

    def _write_history_if_due(self) -> None:
        if time.monotonic() >= self._history_due:
            self._write_history()

    def _write_history(self) -> None:
        arrays = {name: np.array(rows) for name, rows in self.arrays.items() if len(rows)}
        if self.q is not None:
            arrays["q"] = self.q
        began = time.monotonic()
        if arrays.keys() - {"p", "q"}:  # a round has ended
            self.save_arrays("history.npz", **arrays)
        self._history_due = time.monotonic() + 20 * (time.monotonic() - began)


def versions() -> dict[str, str]:
    """Versions that a result may depend on."""
    names = ("rbkit", "torch", "transformers", "datasets", "numpy", "faiss-cpu", "tokenizers")
    found = {"python": platform.python_version()}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def _append(path: Path, row: Mapping[str, Any]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row, allow_nan=False) + "\n")


def _nothing_like(row: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return a row for a round without an estimate: NaN, or 0 examples."""
    return np.zeros_like(row) if row.dtype.kind in "iu" else np.full_like(row, np.nan)


def _last_timing(path: Path) -> float:
    """Seconds in the last whole line of ``timings.jsonl``; 0 if there is none."""
    lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    try:
        return float(json.loads(lines[-1])["seconds"]) if lines else 0.0
    except (ValueError, KeyError, TypeError):
        return 0.0  # damaged: it only dates what comes after


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _plain(value: Any) -> Any:
    """JSON values only: arrays to lists, NaN and infinity to null, paths to text."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int | str) else str(value)
