"""Find runs: those of sweeps, with how their jobs ended, and those made interactively.

Only files are read, and only inside the folders that were given: a link that leads out of
them is not followed.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from rbkit.errors import InputError, RbkitWarning
from rbkit.files import is_within, regular
from rbkit.report.sweep.folder import (
    JOB_FILE,
    SWEEP_FILE,
    job_status,
    read_job,
    read_sweep,
    run_ids,
)
from rbkit.train.run import Run

# What is read of a run folder.
_READ = ["run.json", JOB_FILE, "metrics.jsonl", "timings.jsonl", "history.npz", "final.npz"]
_READ += ["run.ipynb", "run.html", "domains"]


def collect_runs(paths: str | Path | Sequence[str | Path]) -> list[Run]:
    """Return the runs in some folders, each once.

    Parameters
    ----------
    paths : path or sequence of paths
        Each is a sweep (its runs come in its order), a run folder, or a folder that holds runs
        and sweeps at any depth (runs that were made interactively come last, by their start).

    Returns
    -------
    list of Run
        A run of a sweep has the status, error and parameters of its job, which knows more than
        the run where the run was killed, or recorded nothing.

    Raises
    ------
    InputError
        A path that is not a folder.

    Warns
    -----
    RbkitWarning
        For each run that is damaged (it is returned without numbers, with the status
        ``damaged``), and each that is left out: not begun, or linked from elsewhere.

    Examples
    --------
    >>> import tempfile
    >>> from rbkit.train import Recorder
    >>> folder = Path(tempfile.mkdtemp())
    >>> recorder = Recorder(folder / "runs" / "first")
    >>> recorder.start(parameters={"mixer": "RnB"})
    >>> collect_runs(folder)
    [Run('...first', RnB, running...)]
    """
    given = [paths] if isinstance(paths, str | Path) else list(paths)
    found: dict[Path, Run] = {}
    for folder in (regular(path, or_folder=True) for path in given):
        if not folder.is_dir():
            raise InputError(
                str(folder), "no run folder in there", "give the folder that holds runs"
            )
        root = folder.resolve()
        opened = [_open(run_folder, root) for run_folder in _run_folders(folder, root)]
        runs = [run for run in opened if run is not None]
        alone = [run for run in runs if not run.job]
        alone.sort(key=lambda run: (str(run.info.get("started")), run.path.name))
        for run in (*(run for run in runs if run.job), *alone):
            found.setdefault(run.path.resolve(), run)
    return list(found.values())


def _run_folders(folder: Path, root: Path) -> Iterator[Path]:
    if _is_run(folder):
        yield folder
    elif (folder / SWEEP_FILE).exists():
        try:
            ids = read_sweep(folder)["jobs"]
        except InputError as error:
            # Its list is lost; the runs are there.
            warnings.warn(f"{error}; its runs are taken by name", RbkitWarning, stacklevel=2)
            ids = run_ids(folder)
        for id in ids:
            if _is_run(folder / "runs" / id):
                yield folder / "runs" / id
            else:
                _leave_out(folder / "runs" / id, "is planned, but not there")
    else:
        for entry in sorted(folder.iterdir()):
            if entry.name.startswith(".") or not entry.is_dir():
                continue
            if entry.is_symlink() and not is_within(entry, root):
                _leave_out(entry, f"is a link that leads out of {root.name}")
            elif not entry.is_symlink():  # a link inside leads to what is found anyway
                yield from _run_folders(entry, root)


def _is_run(folder: Path) -> bool:
    return any((folder / name).exists() for name in (JOB_FILE, "run.json"))


def _open(folder: Path, root: Path) -> Run | None:
    """Open a run folder, or warn that it is left out."""
    domains = folder / "domains"
    files = domains.iterdir() if domains.is_dir() and is_within(domains, root) else ()
    for path in (folder, *(folder / name for name in _READ), *files):
        if not is_within(path, root):
            _leave_out(path, f"is a link that leads out of {root.name}")
            return None
    try:
        run = _of_sweep(folder) if (folder / JOB_FILE).exists() else Run.open(folder)
        run.metrics("train"), run.history
        return run
    except Exception as error:  # files break in many ways, and the other runs are to be shown
        return damaged(folder, error)


def damaged(folder: Path, error: Exception) -> Run:
    """Return a run whose files cannot be read, without numbers, as its job still knows it."""
    known = isinstance(error, InputError | OSError)
    why = str(error) if known else f"its files make no sense ({type(error).__name__}: {error})"
    why = why if str(folder) in why else f"{folder}: {why}"
    warnings.warn(f"damaged run: {why}", RbkitWarning, stacklevel=2)
    job, info = dict[str, Any](), dict[str, Any]()
    with suppress(Exception):
        info = Run.open(folder).info
    with suppress(Exception):
        job = read_job(folder)
        ended = f"it had {job['status']}: {job['error']}" if job["error"] else ""
        job |= {"error": f"{why}; {ended}" if ended else why}
    parameters: dict[str, Any] = {}
    for given in (job.get("parameters"), info.get("parameters")):
        parameters |= given if isinstance(given, dict) else {}
    about = {name: job.get(name) for name in ("started", "ended", "host")}
    about |= {"parameters": parameters, "status": "damaged", "error": why, "final": None}
    view = Run.follow(folder).with_(domains=None, job=job, info=about, history={}, status="damaged")
    return view.with_(metrics=[], timings=[])


def _of_sweep(folder: Path) -> Run:
    """Return a run with the status of its job, and what only the job knows."""
    job = read_job(folder)
    if (folder / "run.json").is_file():
        run = Run.open(folder)
    else:  # killed before it could begin, or a notebook that trains nothing
        run = Run.follow(folder).with_(domains=None)
    status = job_status(job, folder)
    info: dict[str, Any] = {
        **{name: job[name] for name in ("started", "ended", "host", "seconds")},
        "final": None,
        **run.info,
        "status": status,
        "error": job["error"] or run.info.get("error"),
        "parameters": {**job["parameters"], **(run.info.get("parameters") or {})},
    }
    return run.with_(job=job, info=info, status=status)


def _leave_out(folder: Path, why: str) -> None:
    reason = why if str(folder) in why else f"{folder}: {why}"
    warnings.warn(f"run left out: {reason}", RbkitWarning, stacklevel=2)
