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

import errno
import json
import os
import platform
import shutil
import signal
import threading
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from types import FrameType
from typing import Any, Protocol, runtime_checkable
from weakref import WeakValueDictionary

import numpy as np
from filelock import FileLock

from rbkit.errors import InputError, RbkitWarning
from rbkit.files import (
    atomic_path,
    check_folder,
    free_name,
    json_ready,
    own,
    regular,
    write_json,
)
from rbkit.processes import take_lock
from rbkit.train.run import FORMAT, Run, load_history


@runtime_checkable
class Watcher(Protocol):
    """Follows a run folder while it is written, in the process that trains."""

    def begin(self, path: Path) -> None:
        """Begin with the run folder `path`, whose run has just started."""

    def look(self) -> None:
        """Look, after a step; return at once where it is too early to look again."""

    def end(self) -> None:
        """Look for the last time: ``run.json`` is final."""


Live = bool | str | Watcher | Sequence[bool | str | Watcher]


def shows_progress(watcher: Watcher) -> bool:
    """Whether a watcher shows how far training is, so that a bar would be one too many."""
    return bool(getattr(watcher, "shows_progress", False))


class Audience:
    """The watchers of one run: timed, and kept from harming it.

    A watcher that raises is dropped with one :class:`RbkitWarning`; training continues.

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
        """Announce that a run has begun."""
        self._call("begin", path)

    def look(self) -> None:
        """Let all look."""
        self._call("look")

    def end(self) -> None:
        """Announce that the run has ended; a later call does nothing."""
        self._call("end")
        self._watchers.clear()

    def _call(self, method: str, *args: Any) -> None:
        if not self._watchers:
            return
        with self._timed():
            for watcher in list(self._watchers):
                try:
                    getattr(watcher, method)(*args)
                except Exception as error:
                    self._watchers.remove(watcher)
                    warnings.warn(
                        f"{type(watcher).__name__} stopped watching, training continues: "
                        f"{type(error).__name__}: {error}",
                        RbkitWarning,
                        stacklevel=2,
                    )

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


_OF_ESTIMATE = ("gram", "counts", "noise_floor", "diagonal_debiased")
_PER_ROUND = ("step", *_OF_ESTIMATE)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


RESUME_OR_OVERWRITE = "resume=True to continue it, overwrite=True to replace it"


def check_free(run_dir: Path, *, replace: bool, ways: str = RESUME_OR_OVERWRITE) -> None:
    """Refuse a folder whose run is in progress, or would be lost though nobody asked for that.

    A run that has not made a step is no loss. One that this process left open is like others.

    Parameters
    ----------
    replace : bool
        Whether it was asked for: to resume counts, too.
    ways : str
        How to ask for it.
    """
    if not (run_dir / "run.json").exists():
        return
    what = "a finished run"
    try:
        run = Run.open(run_dir)
    except InputError as error:
        what = f"a run that cannot be read ({error.what})"
    else:
        step = (run.info.get("progress") or {}).get("step")
        if run.status == "running" and not _is_mine(run.info):
            raise _in_progress(run_dir)
        if step == 0 or (step is None and run.status != "ok"):
            return
        if run.status == "running":
            what = f"a run that this process has left open at step {step}"
        elif run.status != "ok":
            what = f"a run that is {run.status} at step {step}"
    if not replace:
        other = f"or another folder, such as {free_name(run_dir)}"
        raise InputError("run_dir", f"{run_dir} holds {what}", f"give {ways}, {other}")


def _is_mine(info: Mapping[str, Any]) -> bool:
    return (info.get("pid"), info.get("host")) == (os.getpid(), platform.node())


def _in_progress(run_dir: Path) -> InputError:
    who = "of a process that has just begun"
    with suppress(InputError):
        info = Run.open(run_dir).info
        if info["status"] == "running":
            by = "this process" if _is_mine(info) else f"process {info['pid']}"
            who = f"of {by} on {info.get('host')}, begun {info.get('started')}"
    return InputError(
        "run_dir",
        f"a run is in progress in {run_dir}, {who}",
        "stop it with a file STOP in there, or use another folder",
    )


MAKE_ROOM = "make room, then resume from the last checkpoint, if there is one"
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP)


def unwritable(error: BaseException | None) -> str | None:
    """Return why nothing can be written, if that is what led to `error`: a full disk, say.

    Examples
    --------
    >>> unwritable(OSError(errno.ENOSPC, "No space left on device")), unwritable(KeyError("p"))
    ('No space left on device', None)
    """
    while error is not None:
        if isinstance(error, OSError) and error.errno in _FULL:
            return str(error.strerror)
        # torch and safetensors write with libraries of their own.
        for text in ("No space left on device", "Disk quota exceeded", "File too large"):
            if text in str(error):
                return text
        if "PytorchStreamWriter" in str(error) or "inline_container" in str(error):
            return "a file could not be written to its end"
        error = error.__cause__ or error.__context__
    return None


_FILES = ("run.json", "metrics.jsonl", "timings.jsonl", "history.npz", "final.npz", "STOP", ".lock")
_FOLDERS = ("domains", "checkpoints", "figures", "trackers")
_WRITTEN = {**dict.fromkeys(_FILES, False), **dict.fromkeys(_FOLDERS, True)}  # whether a folder
_WRITERS: WeakValueDictionary[str, Recorder] = WeakValueDictionary()  # of this process, by folder


@contextmanager
def reserved(run_dir: Path, *, replace: bool) -> Iterator[None]:
    """Keep others out of a folder while a run is prepared, which may take long; leave no trace."""
    made = [path for path in (run_dir / ".lock", run_dir, *run_dir.parents) if not path.exists()]
    holder = Recorder(run_dir, overwrite=replace)
    try:
        yield
    finally:
        holder.leave()
        with suppress(OSError):
            for path in made:
                path.rmdir() if path.is_dir() else path.unlink(missing_ok=True)


class Recorder:
    """Write a run folder as the run goes.

    Parameters
    ----------
    path : path
        The run folder; made if absent.
    resume : bool
        Continue the record that is there instead of starting a new one.
    overwrite : bool
        Replace the run that is there. Without `resume` and `overwrite` it is refused, unless it
        has not made a step.
    active : bool
        Whether to write at all: of several processes, only the first does.
    ways : str
        How to resume or overwrite, for the message that refuses a folder.
    watchers : sequence of Watcher
        Follow the folder meanwhile; the seconds that takes are recorded as ``watch``.

    Attributes
    ----------
    in_use : bool
        Whether another recorder of this process is refused. Else it takes the folder over, where
        a run may be replaced.

    Raises
    ------
    InputError
        If another recorder writes the folder, in this process or another; the death of a
        process frees its folders. If a run there would be lost, or nothing can be written.

    Examples
    --------
    >>> import tempfile
    >>> recorder = Recorder(tempfile.mkdtemp())
    >>> recorder.start(parameters={"seed": 0})
    >>> recorder.log({"kind": "train", "step": 10, "loss": 5.2})
    >>> recorder.finish("ok")
    >>> from rbkit.train.run import Run
    >>> Run.open(recorder.path).metrics("train")
    [{'kind': 'train', 'step': 10, 'loss': 5.2}]
    """

    def __init__(
        self,
        path: str | Path,
        *,
        resume: bool = False,
        overwrite: bool = False,
        active: bool = True,
        watchers: Sequence[Watcher] = (),
        ways: str = RESUME_OR_OVERWRITE,
    ) -> None:
        self.path, self.active = Path(path), active
        self._audience = Audience(watchers if active else ())
        self.in_use = False
        self._lock: FileLock | None = None
        if active:
            # Before the folder is claimed too: a refusal must not end what this process left open.
            check_free(self.path, replace=resume or overwrite, ways=ways)
            self.claim()
            try:
                check_free(self.path, replace=resume or overwrite, ways=ways)
            except InputError:
                self.leave()
                raise
        self.info: dict[str, Any] = {}
        self.arrays: dict[str, list[Any]] = {name: [] for name in (*_PER_ROUND, "p")}
        self.q: np.ndarray[Any, Any] | None = None
        self._resuming = resume
        self._began, self._last_beat = time.monotonic(), 0.0
        self._seconds_before = self._watched_before = 0.0
        self._history_due = 0.0  # when history.npz may be written again

    def claim(self) -> None:
        """Become the only writer of the folder, which is made if absent."""
        check_folder("run_dir", self.path)
        folder = str(self.path.resolve())
        other = _WRITERS.get(folder)
        if other is not None and other is not self:
            if other.in_use:
                raise _in_progress(self.path)
            other.leave()
            other.active = False
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            for name, is_folder in _WRITTEN.items():
                written = own(self.path, name)
                if os.path.lexists(written) and written.is_dir() != is_folder:
                    what = "is not a folder" if is_folder else "is a folder"
                    raise InputError(str(written), what, "remove it, or use another folder")
            self._lock = self._lock or take_lock(self.path / ".lock")
        except NotImplementedError:
            pass  # a disk without locks: run.json says who writes
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                why = f"cannot be written ({error.strerror})"
                raise InputError(str(self.path), why, "make room, or use another folder") from error
        else:
            if self._lock is None:
                raise _in_progress(self.path)
        _WRITERS[folder] = self

    def leave(self) -> None:
        """Let others write the folder."""
        self.in_use = False
        folder = str(self.path.resolve())
        if _WRITERS.get(folder) is self:
            del _WRITERS[folder]
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def start(self, **info: Any) -> None:
        """Write ``run.json`` with status ``running``; a fresh record drops older metrics."""
        continued = self._resuming and (self.path / "run.json").exists()
        old: dict[str, Any] = Run.open(self.path).info if continued else {}
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
            "progress": old.get("progress") or {"step": 0, "steps": None, "loss": None},
            **({"resumed_without": old["resumed_without"]} if "resumed_without" in old else {}),
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
        clean = {k: json_ready(v) for k, v in row.items()}
        _append(self.path / "metrics.jsonl", clean)
        timing = {"kind": row.get("kind"), "step": row["step"], "seconds": round(self.seconds, 3)}
        _append(self.path / "timings.jsonl", timing)
        progress = self.info.get("progress") or {}
        progress["step"] = max(int(row["step"]), progress.get("step") or 0)

    def round(self, *, step: int, p: Any, estimate: Any | None) -> None:
        """Record the end of a round: its Gram estimate, if any, and the next `p`.

        ``history.npz`` is rewritten with all rounds, so not after each very short round, but such
        that writing stays below a twentieth of the time; a checkpoint and the end always write it.

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
        """Correct the proportions that the round in progress is made of."""
        self.arrays["p"][-1] = np.asarray(p, dtype=np.float64)
        self._write_history_if_due()

    def fidelity(self, figures: Mapping[str, Any]) -> None:
        """Add a check of the tracked layers to ``metrics.jsonl``, as a row of kind ``fidelity``."""
        self.log({"kind": "fidelity", **figures})

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
            self.info["progress"] = {k: json_ready(v) for k, v in progress.items()}
            self._write_info()
        self._audience.look()

    def finish(self, status: str, *, error: str | None = None, **info: Any) -> None:
        """Write the last ``run.json``: status ``ok``, ``failed`` or ``interrupted``."""
        self.info.update(info)
        self.info.update(
            status=status, error=error, ended=_now(), heartbeat=_now(), seconds=self.seconds
        )
        try:
            if status != "failed":  # the disk may be why it failed
                self._write_history()
            self._write_info()
        except OSError:
            if status != "failed":
                raise
            self._write_info_in_place()
        finally:
            self._audience.end()
            self.leave()

    def _drop_older_record(self) -> None:
        """Remove the files of an earlier run: views would show them as this run's."""
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
        return {
            "metrics": _size(self.path / "metrics.jsonl"),
            "timings": _size(self.path / "timings.jsonl"),
            "rounds": len(self.arrays["step"]),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Cut the record back to a checkpoint, so that the continued run writes it once."""
        logs = {self.path / f"{name}.jsonl": int(state[name]) for name in ("metrics", "timings")}
        for path, size in logs.items():
            if _size(path) < size:
                raise InputError(
                    str(path),
                    f"has {_size(path)} bytes, but {size} at the checkpoint",
                    "start the run again in another folder",
                )
        history, rounds = load_history(self.path), int(state["rounds"])
        if rounds and len(history.get("step", [])) < rounds:
            raise InputError(
                str(self.path / "history.npz"),
                f"has fewer than the checkpoint's {rounds} rounds",
                "start the run again in another folder",
            )
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
            write_json(self.path / "run.json", json_ready(self.info))

    def _write_info_in_place(self) -> None:
        """Write ``run.json`` where the old one is: on a full disk there is no other place."""
        new = json.dumps(json_ready(self.info), ensure_ascii=False)  # not indented, so shorter
        with suppress(OSError), (self.path / "run.json").open("r+b") as file:
            file.write(new.encode())
            file.truncate()

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
    installed = {"python": platform.python_version()}
    for name in names:
        try:
            installed[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            installed[name] = "not installed"
    return installed


def _append(path: Path, row: Mapping[str, Any]) -> None:
    with regular(path).open("a", encoding="utf-8") as file:
        file.write(json.dumps(row, allow_nan=False) + "\n")


def _nothing_like(row: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return a row for a round without an estimate: NaN, or 0 examples."""
    return np.zeros_like(row) if row.dtype.kind in "iu" else np.full_like(row, np.nan)


def _last_timing(path: Path) -> float:
    """Seconds in the last whole line of ``timings.jsonl``; 0 if there is none."""
    lines = regular(path).read_bytes().split(b"\n")[:-1] if path.exists() else []
    try:
        return float(json.loads(lines[-1])["seconds"]) if lines else 0.0
    except (ValueError, KeyError, TypeError):
        return 0.0  # damaged: it only dates what comes after


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


class StopRequest:
    """True once the run is asked to stop: by Ctrl-C, SIGTERM, a notebook's ■, or a STOP file."""

    def __init__(self, run_dir: Path) -> None:
        self._file = run_dir / "STOP"
        self._asked = False

    def __bool__(self) -> bool:
        return self._asked or self._file.exists()

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take the first Ctrl-C or SIGTERM of the block as a request; a second stops at once.

        Not SIGTERM where somebody else handles it already.
        """
        self._file.unlink(missing_ok=True)
        if threading.current_thread() is not threading.main_thread():
            yield  # only the main thread may set signal handlers; the STOP file still works
            return

        def on_signal(_number: int, _frame: FrameType | None) -> None:
            if self._asked:
                raise KeyboardInterrupt
            self._asked = True

        numbers = [signal.SIGINT]
        if signal.getsignal(signal.SIGTERM) in (signal.SIG_DFL, signal.default_int_handler):
            numbers.append(signal.SIGTERM)
        before = {number: signal.signal(number, on_signal) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            self._file.unlink(missing_ok=True)
