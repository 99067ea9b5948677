"""The engine itself: papermill's, but truthful about dead kernels, time-outs and Ctrl-C.

papermill marks a cell whose kernel was killed as completed, and with it all the cells
that never ran. Here such a cell is failed, the later ones stay pending, and the notebook
says ``exception: true``. Kernels talk over IPC sockets where the system has them, because
notebooks started in parallel race for TCP ports (nteract/papermill#511).
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from typing import Any

from jupyter_client.manager import AsyncKernelManager
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbclient.util import ensure_async, run_sync
from nbformat.v4 import new_output
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import NBClientEngine

from rbkit.processes import GRACE, signal_name

_PATIENCE = 60  # seconds that outputs may take to arrive after the end of a cell without a limit


class IPCKernelManager(AsyncKernelManager):
    """A kernel manager that talks over sockets in a private folder instead of TCP ports."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._folder: str | None = None
        if sys.platform != "win32":
            # A socket's path has some 107 characters at most; $TMPDIR may be long.
            long = len(tempfile.gettempdir()) > 60
            self._folder = tempfile.mkdtemp(prefix="rbkit-", dir="/tmp" if long else None)
            self.transport = "ipc"
            self.ip = os.path.join(self._folder, "k")

    async def _async_cleanup_resources(self, restart: bool = False) -> None:
        await super()._async_cleanup_resources(restart=restart)
        if self._folder and not restart:
            shutil.rmtree(self._folder, ignore_errors=True)

    cleanup_resources = _async_cleanup_resources


class HonestClient(PapermillNotebookClient):  # type: ignore[misc]
    """papermill's client, which says which cell failed when the kernel did not survive it."""

    on_cell: Callable[[int, Any, str], None] | None = None
    on_kernel: Callable[[int], None] | None = None
    join_streams = True
    _process: Any = None

    def start_new_kernel(self, **kwargs: Any) -> None:
        """Start the kernel, and report its process number while it is still starting."""
        super().start_new_kernel(**kwargs)
        # The manager forgets a process that has ended, whose exit status is wanted then.
        self._process = getattr(self.km.provisioner, "process", None)
        if self.on_kernel is not None and self._process is not None:
            self.on_kernel(int(self._process.pid))

    def start_new_kernel_client(self) -> Any:
        """Wait for the kernel; one that dies before it is ready is reported as dead."""
        try:
            return super().start_new_kernel_client()
        except RuntimeError as error:
            if self._process is None or self._process.poll() is None:
                raise
            raise DeadKernelError(
                f"the kernel died before the first cell: {_cause_of_death(self._process)}"
            ) from error

    def ensure_ended(self) -> None:
        """Kill the kernel if it still runs: its manager stops waiting after five seconds."""
        process = self._process
        if process is not None and process.poll() is None:
            with suppress(ProcessLookupError, PermissionError):
                # It leads a session, so what it started goes too.
                os.killpg(process.pid, signal.SIGKILL) if os.name == "posix" else process.kill()
            process.wait(GRACE)

    def papermill_execute_cells(self) -> None:
        """Run the cells in order; the first that does not end well ends the run."""
        last = max((i for i, c in enumerate(self.nb.cells) if c.cell_type == "code"), default=None)
        for index, cell in enumerate(self.nb.cells):
            self.nb_man.cell_start(cell, index)
            self._report(index, cell, "")
            try:
                run_sync(self._execute_in_time)(cell, index)
                if index == last:  # what it left to be done counts as its own
                    run_sync(self._until_idle)(cell)
            except CellExecutionError as error:
                self.nb_man.cell_exception(cell, cell_index=index, exception=error)
                break  # papermill raises from the outputs, after saving
            except (DeadKernelError, CellTimeoutError, KeyboardInterrupt) as error:
                if isinstance(error, KeyboardInterrupt):
                    # A second Ctrl-C, or a kernel that has gone: do not wait.
                    with suppress(KeyboardInterrupt, RuntimeError):
                        run_sync(self._let_cell_end)()
                self._fail(cell, index, error)
                raise
            finally:
                if self.join_streams and cell.cell_type == "code":
                    cell.outputs = joined_streams(cell.outputs)
                self.nb_man.cell_complete(cell, cell_index=index)

    async def _execute_in_time(self, cell: Any, index: int) -> None:
        # nbclient's own limit ends with the kernel's reply; outputs may arrive long after it.
        await self._in_time(self.async_execute_cell(cell, index), cell)

    async def _until_idle(self, cell: Any) -> None:
        await self._in_time(self.async_wait_for_reply(self.kc.kernel_info()), cell)

    async def _in_time(self, work: Coroutine[Any, Any, Any], cell: Any) -> None:
        limit = self._get_timeout(cell)
        try:
            async with asyncio.timeout(limit) as scope:
                await work
        except (
            DeadKernelError,
            TimeoutError,
        ) as error:  # nbclient takes a cancellation for a death
            if not scope.expired() or isinstance(error, CellTimeoutError):
                raise
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()
            raise CellTimeoutError(f"longer than {limit} s") from error

    def process_message(self, msg: Any, cell: Any, cell_index: int) -> Any:
        """Look for progress bars on their way into the notebook."""
        if msg.get("msg_type") == "stream" and msg["content"].get("name") == "stderr":
            self._report(cell_index, cell, msg["content"].get("text", ""))
        return super().process_message(msg, cell, cell_index)

    def _report(self, index: int, cell: Any, text: str) -> None:
        if self.on_cell is not None:
            self.on_cell(index, cell, text)

    async def _let_cell_end(self) -> None:
        # The kernel has its own session and did not see the Ctrl-C: pass it on, so that
        # training can write its last record. What waits for the cell is still on this loop
        # and continues to collect its outputs.
        await ensure_async(self.km.interrupt_kernel())
        waiting = asyncio.all_tasks() - {asyncio.current_task()}
        if waiting:
            done, _ = await asyncio.wait(waiting, timeout=GRACE)
            for task in done:
                if not task.cancelled():
                    task.exception()  # retrieved: the interrupt is what gets reported

    def _fail(self, cell: Any, index: int, error: BaseException) -> None:
        if isinstance(error, DeadKernelError):
            cause = _cause_of_death(self._process)
            name, text = "DeadKernelError", f"the kernel died while this cell ran: {cause}"
        elif isinstance(error, CellTimeoutError):
            name = "CellTimeoutError"
            text = f"this cell ran longer than the limit of {self.timeout} s"
            if self.timeout is None:
                text = f"no end of this cell's output {self.iopub_timeout} s after its own end"
        else:
            name, text = "KeyboardInterrupt", "interrupted while this cell ran"
        if cell.cell_type == "code":
            # Last, so that it is the headline: a time-out first brings a KeyboardInterrupt.
            make_output: Any = new_output  # untyped in nbformat
            cell.outputs.append(
                make_output("error", ename=name, evalue=text, traceback=[f"{name}: {text}"])
            )
        self.nb_man.cell_exception(cell, cell_index=index, exception=error)


class HonestEngine(NBClientEngine):  # type: ignore[misc]
    """papermill engine that runs a notebook with :class:`HonestClient`."""

    @classmethod
    def execute_managed_notebook(
        cls,
        nb_man: Any,
        kernel_name: str,
        log_output: bool = False,
        stdout_file: Any = None,
        stderr_file: Any = None,
        start_timeout: int = 60,
        execution_timeout: int | None = None,
        *,
        env: Mapping[str, str] | None = None,
        on_cell: Callable[[int, Any, str], None] | None = None,
        on_kernel: Callable[[int], None] | None = None,
        names: tuple[str, str] | None = None,
        **kwargs: Any,
    ) -> Any:
        """Run the notebook of `nb_man` in a fresh kernel; `names` are of what went in and out."""
        kwargs.pop("input_path", None)
        if names is not None:
            # papermill was given a node, and would write all of it where its path belongs; the
            # output's path is a temporary one.
            about = nb_man.nb.metadata.papermill
            about["input_path"], about["output_path"] = names
        timeout = execution_timeout or kwargs.pop("timeout", None)
        kwargs.setdefault("kernel_manager_class", IPCKernelManager)
        # A progress bar is one line, not hundreds. Not by nbclient, whose regular expression takes
        # time that grows with the square of the longest line.
        join_streams = kwargs.pop("coalesce_streams", True)
        client = HonestClient(
            nb_man,
            timeout=timeout,
            iopub_timeout=max(_PATIENCE, timeout or 0),
            startup_timeout=start_timeout,
            kernel_name=kernel_name,
            log_output=log_output,
            stdout_file=stdout_file,
            stderr_file=stderr_file,
            shutdown_kernel="immediate",  # all cells have ended, or will not: nothing to wait for
            **kwargs,
        )
        client.on_cell, client.on_kernel = on_cell, on_kernel
        client.join_streams = join_streams
        # No warning about frozen modules in every notebook, no debugger in a batch run.
        quiet = {"PYDEVD_DISABLE_FILE_VALIDATION": "1"}
        try:
            return client.execute(env={**os.environ, **quiet, **(env or {})})
        finally:
            client.ensure_ended()


def joined_streams(outputs: Sequence[Any]) -> list[Any]:
    """Join what a cell wrote to stdout, and to stderr, each at the place where it began.

    Of a line that was written over after a carriage return, the last state stays.
    """
    joined: list[Any] = []
    texts: dict[str, list[str]] = {}
    for output in outputs:
        if output.output_type != "stream":
            joined.append(output)
        elif output.name in texts:
            texts[output.name].append(output.text)
        else:
            texts[output.name] = [output.text]
            joined.append(output)
    for at, output in enumerate(joined):
        if output.output_type == "stream":
            lines = "".join(texts[output.name]).split("\n")
            output.text = "\n".join(line[line.rfind("\r", 0, -1) + 1 :] for line in lines)
            # Both at one place: their order is chance, so it is always the same.
            if output.name == "stderr" and [o.get("name") for o in joined[at + 1 : at + 2]] == [
                "stdout"
            ]:
                joined[at], joined[at + 1] = joined[at + 1], joined[at]
    return joined


def _cause_of_death(process: Any) -> str:
    code = None if process is None else process.poll()
    if code is None:
        return "killed, out of memory, or crashed"
    if code >= 0:
        return f"it left with exit code {code}"
    why = " (by somebody, or out of memory)" if code == -9 else ""
    return f"killed by {signal_name(-code)}{why}"
