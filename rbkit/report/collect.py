"""Find runs: those of sweeps, with how their jobs ended, and those made interactively.

Only files are read, and only inside the folders that were given: a link that leads out of
them is not followed.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from rbkit.errors import InputError, RbkitWarning
from rbkit.report.sweep.folder import JOB_FILE, SWEEP_FILE, job_status, read_job, read_sweep
from rbkit.show.facts import RunLike
from rbkit.train.run import Run

# What is read of a run folder.
_READ = (
    "run.json",
    "job.json",
    "metrics.jsonl",
    "timings.jsonl",
    "history.npz",
    "final.npz",
    "run.ipynb",
    "run.html",
    "domains",
)


class SweepRun:
    """A run of a sweep: what it recorded, if it trained, and how its job stands.

    Attributes
    ----------
    path : Path
        The run folder.
    job : dict
        ``job.json``; see :mod:`rbkit.report.sweep.folder`.
    info : dict
        ``run.json``, with all parameters of the job, and status, error and seconds of the job
        where the run could not write its own.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.job = read_job(self.path)
        self._run = Run(self.path) if (self.path / "run.json").is_file() else None
        recorded: dict[str, Any] = self._run.info if self._run else {}
        job = self.job
        self.info: dict[str, Any] = {
            "started": job["started"],
            "ended": job["ended"],
            "host": job["host"],
            "final": None,
            "seconds": job["seconds"],
            **recorded,
            "status": self.status,
            "error": job["error"] or recorded.get("error"),
            "parameters": {**job["parameters"], **(recorded.get("parameters") or {})},
        }

    @property
    def name(self) -> str:
        """Mixer of the run, or the folder's name."""
        return str(self.info["parameters"].get("mixer") or self.path.name)

    @property
    def status(self) -> str:
        """Status of the job, as it is and not as it was last written."""
        return job_status(self.job)

    def metrics(self, kind: str | None = None) -> list[dict[str, Any]]:
        """Rows of ``metrics.jsonl``; none for a notebook that trains nothing."""
        return self._run.metrics(kind) if self._run else []

    def timings(self) -> list[dict[str, Any]]:
        """Rows of ``timings.jsonl``."""
        return self._run.timings() if self._run else []

    @property
    def history(self) -> dict[str, Any]:
        """Arrays of ``history.npz``; empty if there are none."""
        return self._run.history if self._run else {}

    @cached_property
    def domains(self) -> Any | None:
        """The run's domains, or None."""
        return self._run.domains if self._run else None

    def __repr__(self) -> str:
        return f"SweepRun({self.path.name!r}, {self.status})"


def collect_runs(paths: str | Path | Sequence[str | Path]) -> list[RunLike]:
    """Return the runs in some folders, each once.

    Parameters
    ----------
    paths : path or sequence of paths
        Each is a sweep (its runs come in its order), a run folder, or a folder that holds runs
        and sweeps at any depth (runs that were made interactively come last, by their start).

    Returns
    -------
    list of Run and SweepRun

    Raises
    ------
    InputError
        A path that is no folder.

    Warns
    -----
    RbkitWarning
        For each run that is left out: damaged, not begun, or linked from elsewhere.

    Examples
    --------
    >>> import tempfile
    >>> from rbkit.train import Recorder
    >>> folder = Path(tempfile.mkdtemp())
    >>> recorder = Recorder(folder / "runs" / "first")
    >>> recorder.start(parameters={"mixer": "RnB"})
    >>> collect_runs(folder)
    [Run('first', RnB, running)]
    """
    given = [paths] if isinstance(paths, str | Path) else list(paths)
    found: dict[Path, RunLike] = {}
    for each in map(Path, given):
        if not each.is_dir():
            raise InputError(str(each), "no run folder in there", "give the folder that holds runs")
        swept, alone = list[RunLike](), list[RunLike]()
        for run_dir in _run_folders(each, each.resolve()):
            run = _open(run_dir, each.resolve())
            if run is not None:
                (swept if isinstance(run, SweepRun) else alone).append(run)
        alone.sort(key=lambda run: (str(run.info.get("started")), run.path.name))
        for run in (*swept, *alone):
            found.setdefault(run.path.resolve(), run)
    return list(found.values())


def _run_folders(folder: Path, root: Path) -> Iterator[Path]:
    if _is_run(folder):
        yield folder
    elif (folder / SWEEP_FILE).exists():
        yield from _of_sweep(folder)
    else:
        for entry in sorted(folder.iterdir()):
            if entry.name.startswith(".") or not entry.is_dir():
                continue
            if entry.is_symlink() and not _inside(entry, root):
                _leave_out(entry, f"is a link that leads out of {root.name}")
            elif not entry.is_symlink():  # what it leads to comes by itself
                yield from _run_folders(entry, root)


def _of_sweep(folder: Path) -> Iterator[Path]:
    try:
        ids = read_sweep(folder)["jobs"]
    except InputError as error:
        # What it lists is lost; the runs are there.
        warnings.warn(f"{error}; its runs are taken by name", RbkitWarning, stacklevel=2)
        runs = folder / "runs"
        ids = sorted(os.listdir(runs)) if runs.is_dir() else []
    for id in ids:
        if _is_run(folder / "runs" / id):
            yield folder / "runs" / id
        else:
            _leave_out(folder / "runs" / id, "is planned, but not there")


def _is_run(folder: Path) -> bool:
    return any((folder / name).exists() for name in (JOB_FILE, "run.json"))


def _open(folder: Path, root: Path) -> RunLike | None:
    kept = folder / "domains"
    read = ["", *_READ, *(kept.iterdir() if kept.is_dir() and _inside(kept, root) else ())]
    for name in read:
        if not _inside(folder / name, root):
            _leave_out(folder / name, f"is a link that leads out of {root.name}")
            return None
    try:
        run: RunLike = SweepRun(folder) if (folder / JOB_FILE).exists() else Run.open(folder)
        run.metrics("train"), run.history
        return run
    except (InputError, OSError) as error:
        _leave_out(folder, str(error))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        _leave_out(folder, f"run.json makes no sense ({type(error).__name__}: {error})")
    return None


def _inside(path: Path, root: Path) -> bool:
    resolved = path.resolve()
    return resolved == root or root in resolved.parents


def _leave_out(folder: Path, why: str) -> None:
    said = why if str(folder) in why else f"{folder}: {why}"
    warnings.warn(f"run left out: {said}", RbkitWarning, stacklevel=2)
