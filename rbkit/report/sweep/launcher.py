"""The loop of a sweep: begins runs, listens to them, and records how they end.

The launcher, this process, is the only one that writes ``job.json``. It may be killed at any
moment: what runs then is killed with it (see :mod:`~rbkit.report.sweep.worker`), what was done
stays done, and the next call does the rest.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rbkit.errors import InputError, as_count, as_number
from rbkit.files import read_json, regular
from rbkit.processes import GRACE, process_identity, signal_name
from rbkit.report.notebooks import read_notebook
from rbkit.report.sweep.folder import (
    LAUNCHER_FOLDER,
    cannot_write,
    clear,
    error_tail,
    is_unwritable,
    launcher_at_work,
    now,
    sweep_lock,
    write_job,
)
from rbkit.report.sweep.machine import (
    cores,
    gpu_environment,
    gpu_slots,
    oom_kills,
    runs_at_once,
    thread_environment,
)
from rbkit.report.sweep.plan import Plan, code_sha, queue_unfinished
from rbkit.report.sweep.worker import LOG, Event, LocalWorkers, Message, Workers
from rbkit.text import duration, last_lines, one_line, truncate


@dataclass(frozen=True)
class SweepResult:
    """How a sweep ended: in counts, by run, and as an exit code.

    Attributes
    ----------
    out : Path
        Folder of the sweep.
    statuses : dict of str to str
        Status of each run, by id; ``queued`` if it was not begun.
    interrupted : bool
        Whether the sweep was stopped by Ctrl-C or SIGTERM.
    started : int
        Runs that this call began; the others were done before.

    Examples
    --------
    >>> result = SweepResult(Path("reports/s"), {"a": "ok", "b": "failed"})
    >>> result
    SweepResult(s: 1 ok, 1 failed)
    >>> result.exit_code
    1
    """

    out: Path
    statuses: dict[str, str]
    interrupted: bool = False
    started: int = 0

    @property
    def counts(self) -> dict[str, int]:
        """Number of runs by status."""
        return dict(Counter(self.statuses.values()))

    @property
    def exit_code(self) -> int:
        """0: all ok; 1: some are not; 130: interrupted before all were."""
        if all(status == "ok" for status in self.statuses.values()):
            return 0
        return 130 if self.interrupted else 1

    def __repr__(self) -> str:
        counts = ", ".join(f"{count} {status}" for status, count in self.counts.items())
        ended = ", interrupted" if self.interrupted else ""
        return one_line(f"SweepResult({self.out.name}: {counts or 'no runs'}{ended})")


def run_plan(
    plan: Plan,
    *,
    jobs: int = 1,
    resume: bool = True,
    timeout: float | None = None,
    retries: int = 0,
    gpus: str = "auto",
    progress: bool = True,
    ray: str | None = None,
) -> SweepResult:
    """Do the runs of `plan` that are not done.

    Parameters
    ----------
    plan : Plan
        Of :func:`~rbkit.report.sweep.plan.make_plan`.
    jobs : int
        Runs at the same time, each in a process of its own; where there are GPUs, no more
        than there are slots. The cores are shared out.
    resume : bool
        Leave what is ``ok`` as it is, and begin the others again, each from its checkpoint if
        the notebook declares a parameter ``resume``. False: begin all from nothing.
    timeout : float, optional
        Seconds of wall time that a run may take. It is interrupted then, and killed if that
        does not end it.
    retries : int
        How often a run that was killed or ran out of time is begun again.
    gpus : str
        ``auto``, ``none``, or ids with commas: each run gets one of them to itself.
    progress : bool
        A live table on stderr; a line for each ended run where that is not a terminal.
    ray : str, optional
        ``local`` or the address of a Ray cluster (``auto``: the one this machine belongs to):
        runs are done there. All machines see the sweep's folder by the same path.

    Raises
    ------
    InputError
        An impossible number; another launcher works on the folder; or the folder cannot be
        written, now or later. All that is not done can be resumed then.
    """
    if os.name != "posix":
        raise InputError("sweep", "needs process groups", "run it on Linux or macOS")
    jobs, retries = as_count("jobs", jobs, least=1), as_count("retries", retries)
    if timeout is not None:
        remedy = "give a number above 0"
        if not (timeout := as_number("timeout", timeout, remedy)) > 0:
            raise InputError("timeout", f"is {timeout:g} s", remedy)
    gpu_slots(gpus)  # whether it can be read
    with sweep_lock(plan.out), _released_at_end(plan):
        try:
            template = _copy_template(plan)
            plan.write(progress=progress)
            queued, done = queue_unfinished(plan, resume=resume)
        except OSError as error:
            raise cannot_write(plan.out, error) from error
        statuses = dict.fromkeys(done, "ok")
        if not queued:
            return SweepResult(plan.out, statuses)
        jobs = min(jobs, len(queued))
        if ray is None:
            workers: Workers = LocalWorkers()
            at_once, free_gpus = runs_at_once(jobs, gpus), gpu_slots(gpus)
            threads = max(1, cores() // at_once)
        else:
            from rbkit.report.sweep.ray_workers import RayWorkers

            workers = cluster = RayWorkers(ray, jobs=jobs, gpus=gpus)  # which hands out GPUs
            at_once, free_gpus, threads = cluster.at_once, [], cluster.threads
        launcher = Launcher(
            workers,
            [Task(job.id, job.run_dir, job.given, info) for job, info in queued],
            out=plan.out,
            template=template,
            resumable="resume" in plan.declared,
            at_once=at_once,
            gpus=free_gpus,
            env={**thread_environment(threads), **gpu_environment(gpus, None)},
            threads=threads,
            timeout=timeout,
            retries=retries,
            board=Board(len(plan.jobs), len(done), at_once, progress),
        )
        statuses |= launcher.run()
    ended = {job.id: statuses[job.id] for job in plan.jobs}
    return SweepResult(plan.out, ended, launcher.stop_requests > 0, launcher.started)


@contextmanager
def _released_at_end(plan: Plan) -> Iterator[None]:
    try:
        yield
    finally:
        with suppress(OSError, InputError):  # full: it names a process that has gone, then
            plan.release()


def _copy_template(plan: Plan) -> Path:
    """Copy the notebook: an edit while the sweep works must not change half of its runs."""
    copy = plan.out / LAUNCHER_FOLDER / plan.template.name
    shutil.copyfile(plan.template, copy)
    if code_sha(read_notebook(copy)) != plan.template_sha:
        raise InputError(
            str(plan.template),
            "was changed after the runs were planned, whose names its code is part of",
            "run the same command again",
        )
    return copy


# ----------------------------------------------------------------------------------- the loop

_BEAT = 5.0  # seconds between two heartbeats
_PATIENCE = GRACE + 5  # seconds from an interrupt to the kill


@dataclass
class Task:
    """A run that is to be done, and its progress."""

    id: str
    run_dir: Path
    parameters: Mapping[str, Any]
    info: dict[str, Any]  # its job.json
    tries: int = 0  # of this call
    began: float | None = None  # None while it waits for its worker
    stop_reason: str | None = None  # why it was made to stop: timeout or interrupted
    kill_at: float | None = None  # if it has not stopped until then
    beat: float = 0.0
    oom: int | None = None
    broken: str | None = None  # why its folder cannot be written any more

    def write(self, **changes: Any) -> None:
        """Change some fields of the ``job.json``; OSError if it cannot be written."""
        self.info.update(changes)
        self.beat = time.monotonic()
        write_job(self.run_dir, self.info)

    @property
    def seconds(self) -> float:
        """Wall time of this attempt."""
        return 0.0 if self.began is None else time.monotonic() - self.began


@dataclass
class Launcher:
    """Does tasks with workers; see :func:`run_plan`."""

    workers: Workers
    tasks: Sequence[Task]
    out: Path
    template: Path
    resumable: bool
    at_once: int
    board: Board
    gpus: Sequence[str] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    threads: int | None = None
    timeout: float | None = None
    retries: int = 0
    # Ctrl-C or SIGTERM: the first one interrupts the runs, a second kills them.
    stop_requests: int = 0
    started: int = 0

    def __post_init__(self) -> None:
        self.queue, self.active = deque(self.tasks), dict[str, Task]()
        self.free_gpus = deque(self.gpus)
        self.statuses = {task.id: "queued" for task in self.tasks}
        self._stops_handled = 0

    def run(self) -> dict[str, str]:
        """Do all tasks; return the status of each, by id.

        If the sweep's folder cannot be written any more, all runs are killed.
        """
        try:
            with launcher_at_work(), self.board, self._counting_signals():
                while self.active or (self.queue and not self.stop_requests):
                    self._start_next()
                    for event in self.workers.events(0.25):
                        self._handle(event)
                    self._pass_on_stop_requests()
                    self._check_time()
                    running = [t for t in self.active.values() if t.began is not None]
                    self.board.update({t.id: (t.run_dir, t.seconds) for t in running})
        finally:
            self.workers.close()
        return self.statuses

    @contextmanager
    def _counting_signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():  # signals go there
            yield
            return

        def on_signal(*_: object) -> None:
            self.stop_requests += 1

        before = {
            number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)
        }
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _start_next(self) -> None:
        while self.queue and len(self.active) < self.at_once and not self.stop_requests:
            task = self.queue.popleft()
            again = self.resumable and task.info["attempts"] > 0
            try:
                if again:  # from its checkpoint: only what was half written goes
                    for path in task.run_dir.glob(".tmp-*"):
                        path.unlink(missing_ok=True)
                else:
                    clear(task.run_dir)
            except OSError as error:
                self._give_up(task, error)
                self._end(task, Verdict("failed", task.broken))
                continue
            gpu = self.free_gpus.popleft() if self.gpus else None
            task.info["gpu"] = gpu
            task.began = task.stop_reason = task.kill_at = None
            task.tries += 1
            self.started += 1
            self.active[task.id] = task
            resume = {"resume": again} if self.resumable else {}
            self.workers.start(
                {
                    "id": task.id,
                    "template": str(self.template.resolve()),
                    "parameters": {**task.parameters, **resume},
                    "run_dir": str(task.run_dir.resolve()),
                    "cwd": os.getcwd(),
                    "env": {**self.env, **gpu_environment("auto", gpu), "RBKIT_DISPLAY": "batch"},
                }
            )

    def _handle(self, event: Event) -> None:
        task = self.active[event.id]
        if event.kind == "started":
            task.began, task.oom = time.monotonic(), oom_kills()
            self._write(
                task,
                **{"gpu": task.info["gpu"], **event.data},
                status="running",
                threads=self.threads,
                attempts=task.info["attempts"] + 1,
                started=now(),
                heartbeat=now(),
                ended=None,
                seconds=None,
                error=None,
                cell=None,
                tail=[],
                kernel=None,
                launcher=process_identity(),
            )
            if task.stop_reason:  # while it was waiting to be forked
                self.workers.interrupt(task.id)
        elif event.kind == "kernel":
            self._write(task, kernel=event.data["kernel"], heartbeat=now())
        else:
            self._judge(task, event.data["result"], event.data["code"])

    def _judge(self, task: Task, result: Message | None, code: int | None) -> None:
        del self.active[task.id]
        if self.gpus and task.info["gpu"] is not None:
            self.free_gpus.append(task.info["gpu"])
        kills = oom_kills()
        verdict = Verdict("failed")
        try:
            if result is None:
                rescue_notebook(task.run_dir)
            verdict = judge(
                task.run_dir,
                result,
                code,
                stop_reason=task.stop_reason,
                limit=self.timeout,
                oom=task.oom is not None and kills is not None and kills > task.oom,
            )
        except OSError as error:
            self._give_up(task, error)
        self._end(task, Verdict("failed", task.broken) if task.broken else verdict)

    def _end(self, task: Task, verdict: Verdict) -> None:
        retry = (
            verdict.status in ("killed", "timeout")
            and task.tries <= self.retries
            and not self.stop_requests
        )
        status = "queued" if retry else verdict.status
        self._write(
            task,
            status=status,
            ended=now(),
            heartbeat=now(),
            seconds=round(task.seconds, 3),
            error=verdict.error,
            cell=verdict.cell,
            tail=list(verdict.tail),
            worker=None,
            kernel=None,
        )
        if task.broken and verdict.status != "failed":  # its end cannot be recorded
            retry, status, verdict = False, "failed", Verdict("failed", task.broken)
        self.statuses[task.id] = status
        self.board.ended(task.id, verdict.status, task.seconds, verdict.error, retry=retry)
        if retry:
            self.queue.append(task)

    def _write(self, task: Task, **changes: Any) -> None:
        try:
            task.write(**changes)
        except OSError as error:
            self._give_up(task, error)

    def _give_up(self, task: Task, error: OSError) -> None:
        """Drop a run whose folder cannot be written; all of them if no folder can.

        Its ``job.json`` stays as it was: it is not recorded as ok, and the next call does it again.
        """
        if is_unwritable(self.out, error):
            raise cannot_write(task.run_dir, error) from error
        if task.broken is None and task.id in self.active:
            self.workers.kill(task.id)
        why = error.strerror or type(error).__name__
        task.broken = task.broken or f"the folder of the run cannot be written ({why})"

    def _pass_on_stop_requests(self) -> None:
        while self._stops_handled < self.stop_requests:
            self._stops_handled += 1
            for task in self.active.values():
                first = self._stops_handled == 1
                self._request_stop(task, "interrupted", patience=_PATIENCE if first else 0)

    def _check_time(self) -> None:
        """Stop runs that take too long, and write the heartbeats of the others."""
        for task in list(self.active.values()):
            if self.timeout is not None and task.seconds > self.timeout and not task.stop_reason:
                self._request_stop(task, "timeout", patience=_PATIENCE)
            if task.kill_at is not None and time.monotonic() > task.kill_at:
                task.kill_at = None
                self.workers.kill(task.id)
            elif (
                task.began is not None and not task.broken and time.monotonic() - task.beat > _BEAT
            ):
                self._write(task, heartbeat=now())

    def _request_stop(self, task: Task, reason: str, patience: float) -> None:
        if task.stop_reason is None and patience:
            self.workers.interrupt(task.id)
        task.stop_reason = task.stop_reason or reason
        task.kill_at = time.monotonic() + patience


# -------------------------------------------------------------------------- how a run has ended

_OUT_OF_MEMORY = "out of memory: the system killed a process to get some back"
_LOG_BYTES = 2**16  # of the end of a log


@dataclass(frozen=True)
class Verdict:
    """Status of a run that has ended, and what went wrong: headline, cell, last lines."""

    status: str
    error: str | None = None
    cell: str | None = None
    tail: tuple[str, ...] = ()


def judge(
    run_dir: Path,
    result: Message | None,
    code: int | None,
    *,
    stop_reason: str | None = None,
    limit: float | None = None,
    oom: bool = False,
) -> Verdict:
    """Decide how a run ended; only what worker, notebook and record agree on is ok.

    A killed worker reports nothing, a notebook can end well though its training did not, and
    papermill marks every cell of a killed kernel as completed.

    `result` is what the worker reported at its end (None if it could not), `code` its exit code
    (negative for a signal), `stop_reason` why the launcher made it stop, ``timeout`` or
    ``interrupted``, `limit` the seconds that it had, and `oom` whether memory ran out meanwhile.
    """
    reasons = {
        "timeout": f"ran longer than the limit of {limit:g} s" if limit else "timeout",
        "interrupted": "interrupted",
    }
    if result is None:
        if stop_reason:
            return Verdict(stop_reason, reasons[stop_reason], None, _log_tail(run_dir))
        if oom:
            error = _OUT_OF_MEMORY
        elif code is None:
            error = "the worker is gone"
        elif code < 0:
            error = f"the worker was killed by {signal_name(-code)}"
        else:
            error = f"the worker left with exit code {code} and without a report"
        return Verdict("killed", error, None, _log_tail(run_dir))
    cell, tail = result["cell"], tuple(result["tail"])
    if result["status"] != "ok":
        if stop_reason and result["status"] in ("interrupted", "killed"):
            return Verdict(stop_reason, reasons[stop_reason], cell, tail)
        error = result["error"]
        # Not by the launcher, but by a STOP file or a signal: its own record tells.
        if "KeyboardInterrupt" in (error or "") and _recorded_status(run_dir) == "interrupted":
            return Verdict("interrupted", reasons["interrupted"], cell, tail)
        error = f"{_OUT_OF_MEMORY} ({error})" if result["oom"] else error
        return Verdict(result["status"], error, cell, tail)
    if not _is_executed(run_dir / "run.ipynb"):
        return Verdict("failed", "run.ipynb is not there, or not executed to its end")
    recorded = _recorded_status(run_dir)
    if recorded in (None, "ok"):
        return Verdict("ok")
    if recorded == "interrupted":
        status = stop_reason or "interrupted"
        return Verdict(status, reasons[status])
    return Verdict("failed", f"the notebook ended, but run.json says {recorded}")


def rescue_notebook(run_dir: Path) -> None:
    """Give the notebook of a killed worker its final name, if it is whole."""
    partial = run_dir / ".tmp-run.ipynb"
    if _read_object(partial) is not None:
        partial.replace(run_dir / "run.ipynb")


def _is_executed(path: Path) -> bool:
    notebook = _read_object(path)
    if notebook is None:
        return False
    about = notebook.get("metadata", {}).get("papermill", {})
    cells = [c for c in notebook.get("cells", []) if c.get("cell_type") == "code"]
    states = [c.get("metadata", {}).get("papermill", {}).get("status") for c in cells]
    complete = set(states) <= {"completed"}
    return bool(about.get("end_time") and not about.get("exception") and complete)


def _recorded_status(run_dir: Path) -> str | None:
    """Return the status in ``run.json``; None if there is none."""
    path = run_dir / "run.json"
    if not path.exists():
        return None
    info = _read_object(path)
    return "nothing: it is damaged" if info is None else truncate(info.get("status"), 40)


def _read_object(path: Path) -> dict[str, Any] | None:
    try:
        value = json.loads(regular(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _log_tail(run_dir: Path) -> tuple[str, ...]:
    try:
        with regular(run_dir / LOG).open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _LOG_BYTES))  # the rest may be gigabytes
            text = file.read().decode("utf-8", errors="replace")
    except (OSError, InputError):
        return ()
    return tuple(error_tail(last_lines([text])))


# ---------------------------------------------------------------------------- progress on stderr


@dataclass
class Board:
    """Progress on stderr of a sweep of `total` runs, of which `done` were done before."""

    total: int
    done: int
    at_once: int
    shown: bool
    counts: Counter[str] = field(default_factory=Counter)
    _seconds: list[float] = field(default_factory=list)
    _running: dict[str, tuple[Path, float]] = field(default_factory=dict)
    _live: Any = None
    _due: float = 0.0

    def __enter__(self) -> Board:
        if self.shown and sys.stderr.isatty():
            from rich.console import Console
            from rich.live import Live

            self._live = Live(console=Console(stderr=True), auto_refresh=False, transient=True)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def ended(
        self, id: str, status: str, seconds: float, error: str | None, *, retry: bool = False
    ) -> None:
        """Show a run that has ended; one that is to be tried again does not count yet."""
        self._seconds.append(seconds)
        self.counts[status] += 1
        done = self.done + sum(self.counts.values())
        if retry:
            self.counts[status] -= 1
        if not self.shown:
            return
        why = f"  {truncate(error)}" if error else ""
        width = len(str(self.total))
        line = one_line(f"[{done:>{width}}/{self.total}] {id}  {status}  {seconds:.1f} s{why}")
        self._running.pop(id, None)
        if self._live is not None:
            self._live.update(self._table())
            self._live.console.print(line, markup=False, highlight=False, overflow="ellipsis")
            return
        try:
            print(line, file=sys.stderr, flush=True)
        except OSError:  # nobody reads any more: not a reason to stop the runs
            self.shown = False

    def update(self, running: dict[str, tuple[Path, float]]) -> None:
        """Show the runs in progress: id -> (run folder, seconds so far); twice a second."""
        if self._live is None or time.monotonic() < self._due:
            return
        self._due = time.monotonic() + 0.5
        self._running = running
        self._live.update(self._table(), refresh=True)

    def _table(self) -> Any:
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        table = Table.grid(padding=(0, 2))
        for id, (run_dir, seconds) in sorted(self._running.items()):
            name = f"  {one_line(id)}"
            table.add_row(Text(name), Text(f"{seconds:.0f} s"), Text(progress_of(run_dir)))
        so_far = [seconds for _, seconds in self._running.values()]
        return Group(Text(self.headline(so_far), style="bold"), table)

    def headline(self, running: Sequence[float]) -> str:
        """Summarise the sweep in one line; `running` has the seconds of runs in progress.

        Examples
        --------
        >>> board = Board(total=10, done=4, at_once=2, shown=False)
        >>> board.ended("a", "ok", 60.0, None); board.ended("b", "failed", 60.0, "ValueError")
        >>> board.headline([30.0, 30.0])
        '5 ok, 1 failed, 2 running of 10, about 1 min 30 s to go'
        """
        ok = self.done + self.counts["ok"]
        bad = [f"{n} {status}" for status, n in sorted(self.counts.items()) if status != "ok" and n]
        left = self.total - self.done - sum(self.counts.values())
        summary = ", ".join([f"{ok} ok", *bad, f"{len(running)} running of {self.total}"])
        if not self._seconds or not left:
            return summary
        usual = sum(self._seconds) / len(self._seconds)
        work = usual * left - sum(min(seconds, usual) for seconds in running)
        return f"{summary}, about {duration(work / self.at_once)} to go"


def progress_of(run_dir: Path) -> str:
    """Return steps and loss of a run by its own record; empty if it keeps none."""
    try:
        info = read_json(run_dir / "run.json")
        if info["status"] != "running":
            return ""
        progress = info["progress"]
        step, steps, loss = progress["step"], progress["steps"], progress["loss"]
    except (OSError, InputError, KeyError, TypeError):
        return ""
    text = f"step {step}/{steps}" if steps else f"step {step}"
    return one_line(truncate(f"{text}  loss {loss:.3f}" if isinstance(loss, float) else text, 80))
