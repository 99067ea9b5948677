"""The loop of a sweep: begins runs, listens to them, and writes down how they stand."""

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
from types import FrameType
from typing import Any

from rbkit.errors import InputError
from rbkit.files import read_json
from rbkit.processes import GRACE, process_identity, signal_name
from rbkit.report.notebooks import read_notebook
from rbkit.report.parameters import declared
from rbkit.report.sweep.folder import (
    FOLDER,
    cannot_write,
    code_sha,
    launching,
    now,
    stops_all,
    sweep_lock,
    tail_of,
    write_job,
)
from rbkit.report.sweep.machine import (
    GpuSlots,
    cores,
    gpu_environment,
    gpu_slots,
    oom_kills,
    slots,
    thread_environment,
)
from rbkit.report.sweep.plan import Plan, clear, clear_halves, requeue
from rbkit.report.sweep.worker import LOG, Event, LocalWorkers, Message, Workers
from rbkit.text import last_lines, one_line, shorten


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
        said = ", ".join(f"{count} {status}" for status, count in self.counts.items())
        ended = ", interrupted" if self.interrupted else ""
        return f"SweepResult({self.out.name}: {said or 'no runs'}{ended})"


@dataclass
class Board:
    """Progress of a sweep on stderr.

    Parameters
    ----------
    total : int
        Runs of the sweep.
    done : int
        Those that were done before.
    at_once : int
        Runs at the same time.
    shown : bool
    """

    total: int
    done: int
    at_once: int
    shown: bool
    counts: Counter[str] = field(default_factory=Counter)
    _seconds: list[float] = field(default_factory=list)
    _running: dict[str, tuple[Path, float]] = field(default_factory=dict)
    _live: Any = None
    _due: float = 0.0
    _width: int = 0

    def __enter__(self) -> Board:
        self._width = len(str(self.total))
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

    def ended(self, id: str, status: str, seconds: float, error: str | None) -> None:
        """Take note of a run that has ended."""
        self.counts[status] += 1
        self._seconds.append(seconds)
        if not self.shown:
            return
        so_far = self.done + sum(self.counts.values())
        why = f"  {one_line(shorten(error))}" if error else ""
        line = f"[{so_far:>{self._width}}/{self.total}] {id}  {status}  {seconds:.1f} s{why}"
        self._running.pop(id, None)
        if self._live is not None:
            self._live.update(self._table())
            self._live.console.print(line, markup=False, highlight=False, overflow="ellipsis")
            return
        try:
            print(line, file=sys.stderr, flush=True)
        except OSError:  # nobody reads any more: no reason to stop the runs
            self.shown = False

    def again(self, status: str) -> None:
        """Take note that a run which ended with `status` is to be tried again."""
        self.counts[status] -= 1

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
            table.add_row(Text(f"  {id}"), Text(f"{seconds:.0f} s"), Text(progress_of(run_dir)))
        so_far = [seconds for _, seconds in self._running.values()]
        return Group(Text(self.headline(so_far), style="bold"), table)

    def headline(self, running: Sequence[float]) -> str:
        """Say in one line how the sweep stands; `running` has the seconds of runs in progress.

        Examples
        --------
        >>> board = Board(total=10, done=4, at_once=2, shown=False)
        >>> board.ended("a", "ok", 60.0, None); board.ended("b", "failed", 60.0, "ValueError")
        >>> board.headline([30.0, 30.0])
        '5 ok, 1 failed, 2 running of 10, about 90 s to go'
        """
        ok = self.done + self.counts["ok"]
        bad = [f"{n} {status}" for status, n in sorted(self.counts.items()) if status != "ok" and n]
        left = self.total - self.done - sum(self.counts.values())
        said = ", ".join([f"{ok} ok", *bad, f"{len(running)} running of {self.total}"])
        if not self._seconds or not left:
            return said
        usual = sum(self._seconds) / len(self._seconds)
        work = usual * left - sum(min(seconds, usual) for seconds in running)
        return f"{said}, about {_duration(work / self.at_once)} to go"


def progress_of(run_dir: Path) -> str:
    """Say how far a run is by its own record: steps and loss; empty if it keeps none."""
    try:
        info = read_json(run_dir / "run.json")
        if info["status"] != "running":
            return ""
        progress = info["progress"]
        step, steps, loss = progress["step"], progress["steps"], progress["loss"]
    except (OSError, InputError, KeyError, TypeError):
        return ""
    said = f"step {step}/{steps}" if steps else f"step {step}"
    return one_line(shorten(f"{said}  loss {loss:.3f}" if isinstance(loss, float) else said, 80))


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


class Stopping:
    """How often the launcher was asked to stop.

    Examples
    --------
    >>> stopping = Stopping()
    >>> with stopping.listening():
    ...     signal.raise_signal(signal.SIGINT)
    >>> stopping.asked
    1
    """

    def __init__(self) -> None:
        self.asked = 0

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Count signals in the block; outside of the main thread none arrive."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def on_signal(_number: int, _frame: FrameType | None) -> None:
            self.asked += 1

        before = {
            number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)
        }
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


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
    why = {
        "timeout": f"ran longer than the limit of {limit:g} s" if limit else "timeout",
        "interrupted": "interrupted",
    }
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


_BEAT = 5.0  # seconds between two heartbeats
_PATIENCE = GRACE + 5  # seconds from an interrupt to the kill


@dataclass
class Task:
    """A run that is to be done, and how it goes.

    Attributes
    ----------
    info : dict
        Its ``job.json``.
    tries : int
        Attempts of this call.
    began : float or None
        When its worker started; None while it waits for one.
    asked : str or None
        Why it was made to stop: ``timeout`` or ``interrupted``.
    kill_at : float or None
        When it will be killed if it has not stopped.
    broken : str or None
        Why its folder takes nothing any more.
    """

    id: str
    run_dir: Path
    parameters: Mapping[str, Any]
    info: dict[str, Any]
    tries: int = 0
    began: float | None = None
    asked: str | None = None
    kill_at: float | None = None
    beat: float = 0.0
    oom: int | None = None
    broken: str | None = None

    def write(self, **changes: Any) -> None:
        """Change some fields of the ``job.json``; OSError if it cannot be written."""
        self.info.update(changes)
        self.beat = time.monotonic()
        write_job(self.run_dir, self.info)

    @property
    def seconds(self) -> float:
        """Wall time of this attempt."""
        return 0.0 if self.began is None else time.monotonic() - self.began


class Launcher:
    """Do tasks with workers; see :func:`~rbkit.report.sweep.launcher.run_plan`."""

    def __init__(
        self,
        workers: Workers,
        tasks: Sequence[Task],
        *,
        out: Path,
        template: Path,
        resumable: bool,
        at_once: int,
        board: Board,
        gpus: GpuSlots | None = None,
        env: Mapping[str, str] | None = None,
        threads: int | None = None,
        timeout: float | None = None,
        retries: int = 0,
    ) -> None:
        self.workers, self.queue, self.active = workers, deque(tasks), dict[str, Task]()
        self.out, self.template = out, template
        self.resumable, self.at_once = resumable, at_once
        self.gpus, self.env, self.threads = gpus, dict(env or {}), threads
        self.timeout, self.retries, self.board = timeout, retries, board
        self.statuses = {task.id: "queued" for task in tasks}
        self.stopping, self.started, self._seen = Stopping(), 0, 0

    @property
    def stopped(self) -> bool:
        """Whether somebody asked it to stop."""
        return self.stopping.asked > 0

    def run(self) -> dict[str, str]:
        """Do all tasks; return how each stands, by id.

        Raises
        ------
        InputError
            The sweep's folder takes nothing any more. All runs have been killed then.
        """
        try:
            with launching(), self.board, self.stopping.listening():
                while self.active or (self.queue and not self.stopped):
                    self._fill()
                    for event in self.workers.events(0.25):
                        self._heed(event)
                    self._stop()
                    self._watch()
                    self.board.update({t.id: (t.run_dir, t.seconds) for t in self._running()})
        finally:
            self.workers.close()
        return self.statuses

    def _running(self) -> list[Task]:
        return [task for task in self.active.values() if task.began is not None]

    def _fill(self) -> None:
        while self.queue and len(self.active) < self.at_once and not self.stopped:
            task = self.queue.popleft()
            again = self.resumable and task.info["attempts"] > 0
            try:  # only what was half written goes if the run goes on
                clear_halves(task.run_dir) if again else clear(task.run_dir)
            except OSError as error:
                self._give_up(task, error)
                self._end(task, Verdict("failed", task.broken))
                continue
            gpu = self.gpus.take() if self.gpus else None
            task.info["gpu"] = gpu
            task.began = task.asked = task.kill_at = None
            task.tries += 1
            self.started += 1
            self.active[task.id] = task
            self.workers.start(
                {
                    "id": task.id,
                    "template": str(self.template.resolve()),
                    "parameters": {
                        **task.parameters,
                        **({"resume": again} if self.resumable else {}),
                    },
                    "run_dir": str(task.run_dir.resolve()),
                    "cwd": os.getcwd(),
                    "env": {**self.env, **gpu_environment("auto", gpu), "RBKIT_DISPLAY": "batch"},
                }
            )

    def _heed(self, event: Event) -> None:
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
            if task.asked:  # while it was waiting to be born
                self.workers.interrupt(task.id)
        elif event.kind == "kernel":
            self._write(task, kernel=event.data["kernel"], heartbeat=now())
        else:
            self._ended(task, event.data["result"], event.data["code"])

    def _ended(self, task: Task, result: Mapping[str, Any] | None, code: int | None) -> None:
        del self.active[task.id]
        if self.gpus and task.info["gpu"] is not None:
            self.gpus.give_back(task.info["gpu"])
        try:
            if result is None:
                keep_evidence(task.run_dir)
            found = judge(
                task.run_dir,
                None if result is None else dict(result),
                code,
                asked=task.asked,
                limit=self.timeout,
                oom=self._memory_ran_out(task),
            )
        except OSError as error:
            self._give_up(task, error)
        self._end(task, Verdict("failed", task.broken) if task.broken else found)

    def _end(self, task: Task, found: Verdict) -> None:
        again = (
            found.status in ("killed", "timeout")
            and task.tries <= self.retries
            and not self.stopped
        )
        status = "queued" if again else found.status
        self._write(
            task,
            status=status,
            ended=now(),
            heartbeat=now(),
            seconds=round(task.seconds, 3),
            error=found.error,
            cell=found.cell,
            tail=list(found.tail),
            worker=None,
            kernel=None,
        )
        if task.broken and found.status != "failed":  # what it did cannot be written down
            again, status, found = False, "failed", Verdict("failed", task.broken)
        self.statuses[task.id] = status
        self.board.ended(task.id, found.status, task.seconds, found.error)
        if again:
            self.board.again(found.status)
            self.queue.append(task)

    def _write(self, task: Task, **changes: Any) -> None:
        try:
            task.write(**changes)
        except OSError as error:
            self._give_up(task, error)

    def _give_up(self, task: Task, error: OSError) -> None:
        """Let a run go whose folder takes nothing; all of them if no folder does.

        Its ``job.json`` stays as it was: it does not say ok, and is done again by the next call.
        """
        if stops_all(self.out, error):
            raise cannot_write(task.run_dir, error) from error
        if task.broken is None and task.id in self.active:
            self.workers.kill(task.id)
        why = error.strerror or type(error).__name__
        task.broken = task.broken or f"the folder of the run cannot be written ({why})"

    def _memory_ran_out(self, task: Task) -> bool:
        count = oom_kills()
        return task.oom is not None and count is not None and count > task.oom

    def _stop(self) -> None:
        """Heed Ctrl-C: the first interrupts the runs, a second kills them."""
        while self._seen < self.stopping.asked:
            self._seen += 1
            for task in list(self.active.values()):
                self._ask(task, "interrupted", patience=_PATIENCE if self._seen == 1 else 0)

    def _watch(self) -> None:
        """Keep runs to their time, and show that they live."""
        for task in list(self.active.values()):
            if self.timeout is not None and task.seconds > self.timeout and not task.asked:
                self._ask(task, "timeout", patience=_PATIENCE)
            if task.kill_at is not None and time.monotonic() > task.kill_at:
                task.kill_at = None
                self.workers.kill(task.id)
            elif (
                task.began is not None and not task.broken and time.monotonic() - task.beat > _BEAT
            ):
                self._write(task, heartbeat=now())

    def _ask(self, task: Task, why: str, patience: float) -> None:
        if task.asked is None and patience:
            self.workers.interrupt(task.id)
        task.asked = task.asked or why
        task.kill_at = time.monotonic() + patience


__all__ = ["SweepResult", "run_plan"]


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
        A live table on stderr; a line for each ended run where that is no terminal.
    ray : str, optional
        ``local`` or the address of a Ray cluster (``auto``: the one this machine belongs to):
        runs are done there. All machines see the sweep's folder by the same path.

    Returns
    -------
    SweepResult

    Raises
    ------
    InputError
        A number that cannot be; another launcher works on the folder; or the folder cannot be
        written, now or later. All that is not done can be resumed then.
    """
    _check(jobs, timeout, retries, gpus)
    with sweep_lock(plan.out):
        try:
            return _run(plan, jobs, resume, timeout, retries, gpus, progress, ray)
        finally:
            _release(plan)


def _run(
    plan: Plan,
    jobs: int,
    resume: bool,
    timeout: float | None,
    retries: int,
    gpus: str,
    progress: bool,
    ray: str | None,
) -> SweepResult:
    try:
        template = _template(plan)
        plan.write()
        todo = requeue(plan, resume=resume)
    except OSError as error:
        raise cannot_write(plan.out, error) from error
    statuses = dict.fromkeys(todo.done, "ok")
    if not todo.jobs:
        return SweepResult(plan.out, statuses)
    resumable = "resume" in declared(read_notebook(template))
    hands = _hands(min(jobs, len(todo.jobs)), gpus, ray)
    launcher = Launcher(
        hands.workers,
        [Task(job.id, job.run_dir, job.given, info) for job, info in todo.jobs],
        out=plan.out,
        template=template,
        resumable=resumable,
        at_once=hands.at_once,
        gpus=GpuSlots(hands.slots) if hands.slots else None,
        env={**thread_environment(hands.threads), **gpu_environment(gpus, None)},
        threads=hands.threads,
        timeout=timeout,
        retries=retries,
        board=Board(len(plan.jobs), len(todo.done), hands.at_once, progress),
    )
    statuses |= launcher.run()
    ended = {job.id: statuses[job.id] for job in plan.jobs}
    return SweepResult(plan.out, ended, launcher.stopped, launcher.started)


@dataclass(frozen=True)
class _Hands:
    """Who does the runs, how many at once, with how many threads each, and on which GPUs."""

    workers: Workers
    at_once: int
    threads: int
    slots: list[str]


def _hands(jobs: int, gpus: str, ray: str | None) -> _Hands:
    if ray is not None:
        from rbkit.report.sweep.ray_workers import RayWorkers

        cluster = RayWorkers(ray, jobs=jobs, gpus=gpus)
        return _Hands(cluster, cluster.at_once, cluster.threads, [])
    at_once = slots(jobs, gpus)
    return _Hands(LocalWorkers(), at_once, max(1, cores() // at_once), gpu_slots(gpus))


def _check(jobs: int, timeout: float | None, retries: int, gpus: str) -> None:
    if os.name != "posix":
        raise InputError("sweep", "needs process groups", "run it on Linux or macOS")
    for name, value, least in (("jobs", jobs, 1), ("retries", retries, 0)):
        if value < least:
            raise InputError(name, f"is {value}", f"give {least} or more")
    if timeout is not None and not timeout > 0:
        raise InputError("timeout", f"is {timeout} s", "give a number above 0")
    gpu_slots(gpus)  # whether it can be read


def _template(plan: Plan) -> Path:
    """Copy the notebook: an edit while the sweep goes on must not change half of its runs."""
    copy = plan.out / FOLDER / plan.template.name
    shutil.copyfile(plan.template, copy)
    if code_sha(read_notebook(copy)) != plan.template_sha:
        raise InputError(
            str(plan.template),
            "was changed after the runs were planned, whose names its code is part of",
            "run the same command again",
        )
    return copy


def _release(plan: Plan) -> None:
    with suppress(OSError, InputError):  # full: the name of a process that has gone, then
        plan.release()
