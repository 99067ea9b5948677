"""Execute a notebook into a run folder, and report truthfully how it ended.

:func:`execute` runs a notebook with papermill through :class:`RbkitEngine`, writes
``run.ipynb`` whole or not at all, shows one line of progress, and raises
:class:`NotebookError` with the last line of the traceback if a cell failed. The engine
is also papermill's own: ``papermill --engine rbkit in.ipynb out.ipynb``.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rbkit.errors import InputError, RbkitError
from rbkit.files import check_folder, saving
from rbkit.processes import terminate_by_interrupt
from rbkit.report.notebooks import read_notebook
from rbkit.report.parameters import Parameters, declared
from rbkit.text import last_lines, one_line, truncate
from rbkit.train.recorder import check_free


def cell_name(source: str) -> str | None:
    """Return the name that a cell gives itself by ``# papermill_description=``, if any."""
    match = re.search(r"papermill_description=\s*(\S.*?)\s*$", source, re.M)
    return match.group(1).replace("_", " ") if match else None


class ProgressLine:
    """One line of progress for one notebook: its cells, and the bar inside the current one."""

    def __init__(self, node: Any, label: str, progress: bool) -> None:
        self._total, self._label, self._progress = len(node.cells), one_line(label), progress
        self._bar: Any = None
        self._doing, self._stop = "starting a kernel", threading.Event()

    def __enter__(self) -> ProgressLine:
        if self._progress:
            from tqdm import tqdm

            self._bar = tqdm(
                total=self._total, bar_format=self._format(""), file=sys.stderr, mininterval=1
            )
            # A long cell prints nothing: a ticking clock shows that it is alive.
            threading.Thread(target=self._tick, daemon=True).start()
        return self

    def __exit__(self, kind: Any, *_: object) -> None:
        self._stop.set()
        if self._bar is None:
            return
        if kind is None:
            self._bar.n, self._doing = self._total, "done"
        else:
            self._doing = f"stopped in: {self._doing}"
        self._bar.bar_format = self._format("")
        self._bar.close()

    def update(self, index: int, cell: Any, text: str) -> None:
        """Show a cell that starts (no text), or the progress bar in what it writes to stderr."""
        if self._bar is None:
            return
        inside, more = 0.0, ""
        if text:
            # Only the end: in a line of megabytes the search would take hours.
            bars = list(re.finditer(r"(?<!\d)(\d{1,3})%\|", text[-1000:]))
            if not bars:
                return
            before = re.split(r"[\r\n|]", text[-1000:][: bars[-1].start()])[-1]
            name, percent = one_line(before).strip(" :")[:24], int(bars[-1][1])
            inside, more = percent / 100, f" · {name} {percent} %".replace("  ", " ")
        else:
            first_code = self._doing == "starting a kernel" and cell.cell_type == "code"
            self._doing = one_line(cell_name(cell.source) or "") or (
                "running" if first_code else self._doing
            )
        # Progress inside a cell, of several bars one after the other, must not run backwards.
        step = max(self._bar.n, index + inside) - self._bar.n
        self._bar.bar_format = self._format(more)
        self._bar.update(step)

    def _format(self, more: str) -> str:
        label, doing = (
            text.replace("{", "{{").replace("}", "}}") for text in (self._label, self._doing + more)
        )
        return f"{label:<14} |{{bar:24}}| {{elapsed}}  {doing}"

    def _tick(self) -> None:
        # Without a terminal every refresh is a new line in a log.
        pause = 1.0 if sys.stderr.isatty() else 20.0
        while not self._stop.wait(pause):
            self._bar.refresh()


class NotebookError(RbkitError):
    """A notebook that did not run to its end.

    Attributes
    ----------
    status : {"failed", "killed", "timeout"}
        An exception in a cell; a dead kernel; a cell over its time limit.
    path : Path
        The notebook as far as it came, with the error in it.
    failure : Failure
        The cell that failed, the headline of its error, and its traceback.
    """

    def __init__(
        self, message: str, status: str, path: Path, failure: Failure | None = None
    ) -> None:
        self.status, self.path = status, path
        self.failure = failure or Failure(None, message, [])
        super().__init__(message)


@dataclass(frozen=True)
class Failure:
    """What went wrong in a notebook: the cell's name, the headline, the traceback's lines."""

    cell: str | None
    headline: str
    traceback: list[str]


class RbkitEngine:
    """papermill's way to :class:`rbkit.report.kernels.HonestEngine`.

    papermill loads its engines while it is itself being imported, so this class imports
    papermill only when it is used.
    """

    @classmethod
    def execute_notebook(cls, nb: Any, kernel_name: str, **kwargs: Any) -> Any:
        """Run a notebook; see ``papermill.engines.Engine.execute_notebook``."""
        from rbkit.report.kernels import HonestEngine

        return HonestEngine.execute_notebook(nb, kernel_name, **kwargs)

    @classmethod
    def nb_kernel_name(cls, nb: Any, name: str | None = None) -> str:
        """Kernel to use: as requested, else as the notebook says."""
        from papermill.utils import nb_kernel_name

        return str(nb_kernel_name(nb, name))

    @classmethod
    def nb_language(cls, nb: Any, language: str | None = None) -> str:
        """Language of the notebook."""
        from papermill.utils import nb_language

        return str(nb_language(nb, language))


def execute(
    notebook: str | Path,
    parameters: Parameters | Mapping[str, Any] | None,
    run_dir: str | Path,
    *,
    profile: str | None = None,
    env: Mapping[str, str] | None = None,
    timeout: int | None = None,
    progress: bool = True,
    label: str | None = None,
    on_kernel: Callable[[int], None] | None = None,
    overwrite: bool = False,
) -> Path:
    """Execute a notebook into ``run_dir/run.ipynb``.

    Parameters
    ----------
    notebook : path
        A notebook; one with parameters has a cell tagged ``parameters``.
    parameters : Parameters, mapping or None
        Values for that cell. ``run_dir`` and ``profile`` are filled in if it declares them.
    run_dir : path
        Made if missing. During the run the notebook is ``.tmp-run.ipynb`` in it.
    profile : str, optional
        Value for the parameter ``profile``.
    env : mapping, optional
        Environment variables for the kernel, in addition to those of this process.
        ``RBKIT_DISPLAY`` is ``batch`` unless it is set.
    timeout : int, optional
        Seconds that a single cell may take.
    progress : bool
        One line on stderr, with names from ``# papermill_description=`` comments.
    label : str, optional
        Name for that line; the notebook's by default.
    on_kernel : callable, optional
        Called with the process id of the kernel as soon as it has one.
    overwrite : bool
        Also into a folder that holds a run, as where the notebook has a parameter ``resume`` or
        ``overwrite`` that is on: whether that run is lost is up to the notebook.

    Returns
    -------
    Path
        The executed notebook.

    Raises
    ------
    InputError
        No such notebook, a parameter that it does not declare, or a value of another type
        than it declares; a folder whose run would be lost, or is in progress.
    NotebookError
        A cell failed, the kernel died, or a cell took too long. ``run.ipynb`` is there.
    """
    notebook, run_dir = Path(notebook), Path(run_dir).resolve()
    node = read_notebook(notebook)
    values, replace = _values(node, parameters, run_dir, profile)
    check_free(run_dir, replace=overwrite or replace, ways="resume or overwrite as True")
    check_folder("run_dir", run_dir)
    temporary, final = run_dir / ".tmp-run.ipynb", run_dir / "run.ipynb"
    with saving(run_dir):
        run_dir.mkdir(parents=True, exist_ok=True)
        # Of an earlier attempt; not before the parameters were checked, which loses nothing.
        for path in (temporary, final, final.with_suffix(".html")):
            path.unlink(missing_ok=True)
    for cell in node.cells:  # nothing that an earlier execution left
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    node.metadata.pop("papermill", None)
    node.metadata.pop("widgets", None)
    line = ProgressLine(node, label or notebook.stem, progress)
    options = {
        "parameters": values,
        "env": {"RBKIT_DISPLAY": "batch", **(env or {})},
        "execution_timeout": timeout,
        "on_cell": line.update,
        "on_kernel": on_kernel,
        "names": (notebook.name, final.name),
    }
    try:
        with terminate_by_interrupt(), line:
            _papermill(node, temporary, options)
            _check_ended(temporary)
    except Exception as error:
        if not temporary.exists():
            raise
        raise _notebook_error(error, notebook, temporary, final) from error
    finally:
        # Also after a failure, and after Ctrl-C: the error can be seen in the notebook.
        if temporary.exists():
            os.replace(temporary, final)
    return final


def _values(
    node: Any, parameters: Parameters | Mapping[str, Any] | None, run_dir: Path, profile: str | None
) -> tuple[dict[str, Any], bool]:
    """Return the values for the notebook, and whether it resumes or overwrites a run."""
    given = parameters.to_dict() if isinstance(parameters, Parameters) else dict(parameters or {})
    declaration = declared(node)
    if profile is not None and "profile" in declaration:
        given["profile"] = profile
    # JSON values: papermill writes a tuple as a string, a list arrives as a list.
    checked = declaration.check(given)
    values = {name: checked[name] for name in given}
    values |= {"run_dir": str(run_dir)} if "run_dir" in declaration else {}
    return values, bool(checked.get("resume") or checked.get("overwrite"))


def _papermill(node: Any, out: Path, options: Mapping[str, Any]) -> None:
    import papermill
    from papermill.engines import papermill_engines

    # Also where rbkit is on the path without being installed, and has no entry point.
    papermill_engines.register("rbkit", RbkitEngine)
    logger = logging.getLogger("papermill")
    level = logger.level
    logger.setLevel(logging.ERROR)  # it warns of every annotation that its regex cannot parse
    try:
        papermill.execute_notebook(
            node,
            str(out),
            engine_name="rbkit",
            kernel_name=node.metadata.get("kernelspec", {}).get("name") or "python3",
            language="python",  # parameters are read as Python; many notebooks do not say theirs
            progress_bar=False,
            **options,
        )
    finally:
        logger.setLevel(level)


def failure_in(ran: str | Path) -> Failure | None:
    """Return the last error in an executed notebook; None if it shows none, or is not whole."""
    try:
        cells = read_notebook(ran).cells
    except InputError:  # the disk was full
        return None
    failure = None
    for cell in cells:
        for output in cell.get("outputs", []):
            if output.output_type == "error":
                name = cell_name(cell.source) or f"In [{cell.execution_count or '*'}]"
                headline = f"{output.ename}: {output.evalue}".strip().splitlines()[0]
                failure = Failure(truncate(name), truncate(headline), last_lines(output.traceback))
    return failure


def _check_ended(ran: Path) -> None:
    """Refuse a notebook that stopped half-way: papermill does not report ``sys.exit(0)``."""
    node = read_notebook(ran)
    cells = [cell for cell in node.cells if cell.cell_type == "code"]
    states = [cell.metadata.get("papermill", {}).get("status") for cell in cells]
    if node.metadata.get("papermill", {}).get("exception") or set(states) - {"completed"}:
        raise RuntimeError("the notebook did not run to its end")


def _notebook_error(error: Exception, notebook: Path, ran: Path, final: Path) -> NotebookError:
    kind = type(error).__name__
    status = {"DeadKernelError": "killed", "CellTimeoutError": "timeout"}.get(kind, "failed")
    failure = failure_in(ran)
    if failure is None:  # before the first cell, or the notebook could not be written
        message = (str(error).strip().splitlines() or [""])[-1]
        failure = Failure(None, truncate(f"{kind}: {message}".rstrip(": ")), [])
    cell = failure.cell
    where = "" if cell is None else f", cell {cell if cell.startswith('In [') else repr(cell)}"
    message = f"{notebook.name}{where}: {failure.headline}; see {final}"
    return NotebookError(message, status, final, failure)
