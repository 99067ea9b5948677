"""The loop of a sweep: begins runs, listens to them, and writes down how they stand."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rbkit.report.signals import GRACE
from rbkit.report.sweep.board import Board
from rbkit.report.sweep.gpus import GpuSlots, gpu_environment
from rbkit.report.sweep.jobfile import launching, now, write_job
from rbkit.report.sweep.lock import cannot_write, stops_all
from rbkit.report.sweep.memory import oom_kills
from rbkit.report.sweep.processes import process_identity
from rbkit.report.sweep.requeue import clear, clear_halves
from rbkit.report.sweep.stopping import Stopping
from rbkit.report.sweep.verdict import Verdict, judge, keep_evidence
from rbkit.report.sweep.workers import Event, Workers

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
    """Do tasks with workers; see :func:`~rbkit.report.sweep.pool.run_plan`."""

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
                    "id": task.id, "template": str(self.template.resolve()),
                    "parameters": {
                        **task.parameters, **({"resume": again} if self.resumable else {})
                    },
                    "run_dir": str(task.run_dir.resolve()), "cwd": os.getcwd(),
                    "env": {**self.env, **gpu_environment("auto", gpu), "RBKIT_DISPLAY": "batch"},
                }
            )  # fmt: skip

    def _heed(self, event: Event) -> None:
        task = self.active[event.id]
        if event.kind == "started":
            task.began, task.oom = time.monotonic(), oom_kills()
            self._write(
                task, **{"gpu": task.info["gpu"], **event.data}, status="running",
                threads=self.threads, attempts=task.info["attempts"] + 1, started=now(),
                heartbeat=now(), ended=None, seconds=None, error=None, cell=None, tail=[],
                kernel=None, launcher=process_identity(),
            )  # fmt: skip
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
                task.run_dir, None if result is None else dict(result), code, asked=task.asked,
                limit=self.timeout, oom=self._memory_ran_out(task),
            )  # fmt: skip
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
            task, status=status, ended=now(), heartbeat=now(), seconds=round(task.seconds, 3),
            error=found.error, cell=found.cell, tail=list(found.tail), worker=None, kernel=None,
        )  # fmt: skip
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
