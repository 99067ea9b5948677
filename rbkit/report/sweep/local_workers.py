"""Runs on this machine: a process for each, forked from the nursery."""

from __future__ import annotations

import platform
import selectors
import shutil
import subprocess
import time
import uuid
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rbkit.report.sweep.channel import Channel, Message
from rbkit.report.sweep.nursery import ask_for_worker, start_nursery
from rbkit.report.sweep.processes import is_alive, kill_group, process_identity
from rbkit.report.sweep.workers import Event


@dataclass
class _Worker:
    id: str
    channel: Channel
    identity: Mapping[str, Any] | None = None
    kernel: Mapping[str, Any] | None = None
    result: Message | None = None
    later: list[Event] = field(default_factory=list)


class LocalWorkers:
    """See :class:`~rbkit.report.sweep.workers.Workers`."""

    def __init__(self) -> None:
        self._nursery: subprocess.Popen[bytes] | None = None
        self._control: Channel | None = None
        self._scratch: Path | None = None
        self._workers: dict[str, _Worker] = {}
        self._unborn: deque[_Worker] = deque()  # asked for, in the order they will be forked
        self._stillborn: list[Event] = []
        self._mark = uuid.uuid4().hex  # by which what they leave is known, after their death too

    def start(self, request: Message) -> None:
        """Begin the run ``request["id"]``."""
        try:
            if self._control is None:
                self._nursery, self._control, self._scratch = start_nursery(self._mark)
            worker = _Worker(request["id"], ask_for_worker(self._control))
        except OSError as error:  # it costs this run, not those that go on
            self._stillborn.append(_not_begun(request["id"], error.strerror or str(error)))
            return
        worker.channel.send(request)
        self._workers[worker.id] = worker
        self._unborn.append(worker)

    def events(self, timeout: float) -> list[Event]:
        """Return what happened; wait at most `timeout` seconds for something."""
        found, self._stillborn = self._stillborn, []
        if found:
            return found
        speaking = [w for w in self._workers.values() if not w.channel.ended]
        channels = [w.channel for w in speaking] + ([self._control] if self._control else [])
        if not channels:
            time.sleep(timeout)
            return []
        ready = _ready(channels, timeout)
        for worker in speaking:
            if worker.channel in ready:
                found += self._heard(worker, worker.channel.pending())
        if self._control in ready and self._control is not None:
            for message in self._control.pending():
                found += self._of_nursery(message)
            if self._control.ended:
                found += self._nursery_is_gone()
        return found

    def interrupt(self, id: str) -> None:
        """Have the run interrupt its notebook."""
        if id in self._workers:
            self._workers[id].channel.send({"say": "interrupt"})

    def kill(self, id: str) -> None:
        """Kill the run and all its processes; that it has ended is told as always."""
        worker = self._workers.get(id)
        if worker is not None:
            kill_group(worker.kernel)
            if not kill_group(worker.identity):
                worker.channel.hang_up()  # not forked yet: it will find nobody there

    def close(self) -> None:
        """Kill whatever still runs, and end the nursery."""
        for worker in self._workers.values():
            kill_group(worker.kernel)
            kill_group(worker.identity)
            worker.channel.close()
        self._workers.clear()
        self._unborn.clear()
        self._end_nursery()

    def _heard(self, worker: _Worker, messages: list[Message]) -> list[Event]:
        found = []
        for message in messages:
            if "kernel" in message:
                worker.kernel = {**message["kernel"], "mark": self._mark}
                found.append(Event("kernel", worker.id, {"kernel": worker.kernel}))
            if "result" in message:
                worker.result = message["result"]
        if worker.identity is None:  # it may speak before the nursery does
            worker.later += found
            return []
        return found

    def _of_nursery(self, message: Message) -> list[Event]:
        if "forked" in message:
            worker = self._unborn.popleft()
            if message["forked"] is None:
                worker.channel.close()
                self._workers.pop(worker.id, None)
                return [_not_begun(worker.id, message["error"])]
            worker.identity = {**process_identity(int(message["forked"])), "mark": self._mark}
            data = {"worker": worker.identity, "host": platform.node()}
            earlier, worker.later = worker.later, []
            return [Event("started", worker.id, data), *earlier]
        ended = [w for w in self._workers.values()
                 if w.identity and w.identity["pid"] == message["ended"]]  # fmt: skip
        return [event for worker in ended for event in self._end(worker, message["code"])]

    def _end(self, worker: _Worker, code: int | None) -> list[Event]:
        found = self._heard(worker, worker.channel.rest())
        kill_group(worker.kernel)  # where the nursery cannot adopt what is left of it
        worker.channel.close()
        self._workers.pop(worker.id, None)
        return [*found, Event("ended", worker.id, {"result": worker.result, "code": code})]

    def _nursery_is_gone(self) -> list[Event]:
        # Nobody collects its workers any more: they go too, each with all that it started. The
        # next run gets a new nursery.
        for worker in self._workers.values():
            worker.channel.hang_up()
        end = time.monotonic() + 5
        found = []
        for worker in list(self._workers.values()):
            while is_alive(worker.identity) and time.monotonic() < end:
                time.sleep(0.02)
            kill_group(worker.kernel)
            kill_group(worker.identity)
            found += self._end(worker, None)
        self._unborn.clear()
        self._end_nursery()
        return found

    def _end_nursery(self) -> None:
        if self._control is not None:
            self._control.close()
        if self._nursery is not None:
            try:
                self._nursery.wait(timeout=10)
            except subprocess.TimeoutExpired:
                self._nursery.kill()
                self._nursery.wait()
        if self._scratch is not None:
            shutil.rmtree(self._scratch, ignore_errors=True)
        self._nursery = self._control = self._scratch = None


def _not_begun(id: str, why: str) -> Event:
    error = f"no process could be started for it ({why})"
    result: dict[str, Any] = {"status": "killed", "error": error, "cell": None, "tail": []}
    return Event("ended", id, {"result": {**result, "oom": False}, "code": None})


def _ready(channels: list[Channel], timeout: float) -> list[Channel]:
    # Not select(): a process with many files open has numbers that it cannot take.
    with selectors.DefaultSelector() as selector:
        for channel in channels:
            selector.register(channel, selectors.EVENT_READ)
        found: list[Channel] = [key.fileobj for key, _ in selector.select(timeout)]  # type: ignore[misc]
    return found
