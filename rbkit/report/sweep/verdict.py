"""How a run ended: ``ok`` only if everything that should say so does.

What a worker says is one witness of several. A killed worker says nothing, a notebook can
end well though its training did not, and papermill calls every cell of a killed kernel
completed.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rbkit.report.signals import signal_name
from rbkit.report.sweep.channel import Message
from rbkit.report.sweep.jobfile import tail_of
from rbkit.report.sweep.short import last_lines, shorten
from rbkit.report.sweep.worker import LOG

_MEMORY = "out of memory: the system killed a process to get some back"
_LOG_BYTES = 2**16  # of the end of a log


@dataclass(frozen=True)
class Verdict:
    """Status, and what went wrong: headline, cell, last lines."""

    status: str
    error: str | None = None
    cell: str | None = None
    tail: tuple[str, ...] = ()


def judge(
    run_dir: Path,
    result: Message | None,
    code: int | None,
    *,
    asked: str | None = None,
    limit: float | None = None,
    oom: bool = False,
) -> Verdict:
    """Say how a run ended.

    Parameters
    ----------
    run_dir : Path
    result : dict or None
        The worker's last word; None if it could not say it.
    code : int or None
        Its exit code, negative for a signal.
    asked : {"timeout", "interrupted"}, optional
        Why the launcher made it stop, if it did.
    limit : float, optional
        Seconds that it had.
    oom : bool
        Whether memory ran out meanwhile, by the launcher's count.
    """
    why = {"timeout": f"ran longer than the limit of {limit:g} s" if limit else "timeout",
           "interrupted": "interrupted"}  # fmt: skip
    if result is None:
        if asked:
            return Verdict(asked, why[asked], None, _log(run_dir))
        return Verdict("killed", _death(code, oom), None, _log(run_dir))
    cell, tail = result["cell"], tuple(result["tail"])
    if result["status"] != "ok":
        if asked and result["status"] in ("interrupted", "killed"):
            return Verdict(asked, why[asked], cell, tail)
        error = result["error"]
        # Not by the launcher, but by a STOP file or a signal: its own record says so.
        if "KeyboardInterrupt" in (error or "") and _status(run_dir / "run.json") == "interrupted":
            return Verdict("interrupted", why["interrupted"], cell, tail)
        return Verdict(
            result["status"], f"{_MEMORY} ({error})" if result["oom"] else error, cell, tail
        )
    if not _complete(run_dir / "run.ipynb"):
        return Verdict("failed", "run.ipynb is not there, or not executed to its end")
    said = _status(run_dir / "run.json")
    if said in (None, "ok"):
        return Verdict("ok")
    if said == "interrupted":
        status = asked or "interrupted"
        return Verdict(status, why[status])
    return Verdict("failed", f"the notebook ended, but run.json says {said}")


def keep_evidence(run_dir: Path) -> None:
    """Give the notebook of a killed worker the name by which it is found, if it is whole."""
    half = run_dir / ".tmp-run.ipynb"
    if _read(half) is not None:
        half.replace(run_dir / "run.ipynb")


def _death(code: int | None, oom: bool) -> str:
    if oom:
        return _MEMORY
    if code is None:
        return "the worker is gone"
    if code < 0:
        return f"the worker was killed by {signal_name(-code)}"
    return f"the worker left with exit code {code} and no word"


def _complete(path: Path) -> bool:
    notebook = _read(path)
    if notebook is None:
        return False
    ran = notebook.get("metadata", {}).get("papermill", {})
    cells = [c for c in notebook.get("cells", []) if c.get("cell_type") == "code"]
    states = [c.get("metadata", {}).get("papermill", {}).get("status") for c in cells]
    return bool(ran.get("end_time") and not ran.get("exception") and set(states) <= {"completed"})


def _status(path: Path) -> str | None:
    """Return what ``run.json`` says; None if there is none."""
    if not path.exists():
        return None
    info = _read(path)
    return "nothing: it is damaged" if info is None else shorten(info.get("status"), 40)


def _read(path: Path) -> dict[str, Any] | None:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _log(run_dir: Path) -> tuple[str, ...]:
    try:
        with (run_dir / LOG).open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _LOG_BYTES))  # the rest may be gigabytes
            text = file.read().decode("utf-8", errors="replace")
    except OSError:
        return ()
    return tuple(tail_of(last_lines([text])))
