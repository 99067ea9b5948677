"""Runs on a Ray cluster: more than this machine has (extra ``rbkit[ray]``).

For each run at a time a Ray actor does on its machine what the launcher does on this one: it
forks workers from a fork server (:class:`~rbkit.report.sweep.worker.LocalWorkers`). So a run
is the same wherever it is done, and when Ray's process is killed its runs go with it. The
launcher stays the only one that writes ``job.json``; all machines see the folder by its path.
"""

from __future__ import annotations

import os
import time
from collections import deque
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from rbkit.errors import InputError
from rbkit.ray_cluster import connected_ray
from rbkit.report.sweep.machine import CUDA_VARIABLE, cores, gpu_slots
from rbkit.report.sweep.worker import Event, LocalWorkers, Message

_LISTEN = 0.5  # seconds that an actor waits for events


class RunActor:
    """Lives in a Ray actor; does one run after the other."""

    def __init__(self) -> None:
        self.workers = LocalWorkers()

    def start(self, request: Message) -> None:
        """Begin a run."""
        self.workers.start(request)

    def events(self, timeout: float) -> list[tuple[str, str, dict[str, Any]]]:
        """Return what happened, with the GPU that Ray gave to this process."""
        gpu = os.environ.get(CUDA_VARIABLE) or None
        return [
            (e.kind, e.id, {**e.data, **({"gpu": gpu} if e.kind == "started" else {})})
            for e in self.workers.events(timeout)
        ]

    def interrupt(self, id: str) -> None:
        """Have the run interrupt its notebook."""
        self.workers.interrupt(id)

    def close(self) -> None:
        """Kill whatever still runs, and clean up."""
        self.workers.close()


@dataclass
class _ActiveRun:
    id: str
    actor: Any
    pending: Any  # the call of its `events`


class RayWorkers:
    """:class:`~rbkit.report.sweep.worker.Workers` of a Ray cluster (``local``: a new one here).

    `at_once` is how many runs the cluster has room for at the same time, at most `jobs`, and
    `threads` the cores of each. With `gpus` ``auto`` each has a GPU if the cluster has any.
    """

    def __init__(self, address: str, *, jobs: int, gpus: str = "auto") -> None:
        if gpus not in ("auto", "none"):
            raise InputError("gpus", f"is {gpus!r}, but Ray hands them out", "give auto or none")
        here = len(gpu_slots("auto")) if gpus == "auto" else 0
        self._stack = ExitStack()
        self._ray = self._stack.enter_context(
            connected_ray(None if address == "local" else address, max(cores(), jobs), here)
        )
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        cpus = [int(node.get("CPU", 0)) for node in nodes if node.get("CPU", 0) >= 1]
        slots = int(sum(node.get("GPU", 0) for node in nodes)) if gpus == "auto" else 0
        if not cpus:
            self._stack.close()
            raise InputError("Ray", "the cluster has no CPUs", "add a machine to it")
        self.threads = max(1, min(cpus) // -(-jobs // len(cpus)))
        room = sum(n // self.threads for n in cpus)
        # More would wait for ever for what others hold.
        self.at_once = min(jobs, room, slots or jobs)
        self._options = {"num_cpus": self.threads, "num_gpus": 1 if slots else 0, "max_restarts": 0}
        self._idle: deque[Any] = deque()
        self._active: dict[str, _ActiveRun] = {}

    def start(self, request: Message) -> None:
        """Begin the run ``request["id"]``, on an idle actor or a new one."""
        actor = (
            self._idle.popleft()
            if self._idle
            else self._ray.remote(RunActor).options(**self._options).remote()
        )
        actor.start.remote(request)
        id = request["id"]
        self._active[id] = _ActiveRun(id, actor, actor.events.remote(_LISTEN))

    def events(self, timeout: float) -> list[Event]:
        calls = [run.pending for run in self._active.values()]
        if not calls:
            time.sleep(timeout)
            return []
        self._ray.wait(calls, num_returns=1, timeout=timeout)
        ready, _ = self._ray.wait(calls, num_returns=len(calls), timeout=0)
        return [
            event
            for run in list(self._active.values())
            if run.pending in ready
            for event in self._events_of(run)
        ]

    def interrupt(self, id: str) -> None:
        if id in self._active:
            self._active[id].actor.interrupt.remote(id)

    def kill(self, id: str) -> None:
        if id in self._active:  # with its actor, which may still be waiting for a place
            self._ray.kill(self._active[id].actor)

    def close(self) -> None:
        actors = [*self._idle, *(run.actor for run in self._active.values())]
        if actors:  # those that can, clean up first
            self._ray.wait(
                [actor.close.remote() for actor in actors], num_returns=len(actors), timeout=5
            )
        for actor in actors:
            self._ray.kill(actor)
        self._idle.clear()
        self._active.clear()
        self._stack.close()

    def _events_of(self, run: _ActiveRun) -> list[Event]:
        try:
            events = [Event(kind, id, data) for kind, id, data in self._ray.get(run.pending)]
        except self._ray.exceptions.RayActorError:  # killed, or its machine is gone
            del self._active[run.id]
            self._ray.kill(run.actor)  # if it is only unreachable: it must not continue alone
            return [Event("ended", run.id, {"result": None, "code": None})]
        if any(event.kind == "ended" for event in events):
            del self._active[run.id]
            self._idle.append(run.actor)
        else:
            run.pending = run.actor.events.remote(_LISTEN)
        return events
