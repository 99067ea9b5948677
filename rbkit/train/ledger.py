"""The ledger: what everything beyond a plain training step cost.

Three kinds of price stand side by side: FLOPs *modelled* by a formula, FLOPs *counted*
with torch's own counter on probe steps (the first of each round) and scaled to all steps
by tokens (by examples, where there are no tokens), and seconds *measured*. Torch counts matrix
products only; the tracker's model adds the sign and the addition of each sketched number, so it
may exceed the counted FLOPs.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

NOTE = (
    "FLOPs of a step are counted by torch on the first of a round, at most every 25 steps, and "
    "scaled to all steps by padded tokens; of other work on its first call, and taken for each. "
    "Seconds are wall-clock on this machine, of all calls that were not counted, scaled to all. "
    "Compiled code cannot be counted. With several processes FLOPs and bytes are those of the "
    "first, times their number. 'step' is the plain training step; 'embed' and 'cluster' are "
    "Regroup's, once for all runs of a corpus; 'eval' is for the curves only, 'eval_losses' for "
    "the mixer."
)
_OF_METRICS = (
    " 'metrics' are the functions beside the loss: their FLOPs are modelled, two for each weight "
    "and token that the model was called with, and not known where it reads no tokens."
)
_WITHIN = ("track", "reference")  # happen inside a step, and are not training
_PAID_ELSEWHERE = ("embed", "cluster", "record")  # once for all runs of a corpus, or for files
_PROBE_EVERY = 25  # steps at least between two probes: torch's counter makes a step slow


@dataclass
class Entry:
    """One line of the ledger."""

    name: str
    seconds: float = 0.0
    calls: int = 0
    probes: int = 0  # calls under torch's counter, which is slow: not part of `seconds`
    probe_seconds: float = 0.0  # theirs, which stand only while no other call was timed
    flops_counted: int | None = None
    flops_modelled: int | None = None
    bytes: int | None = None


class Ledger:
    """Collect costs by name.

    Examples
    --------
    >>> ledger = Ledger()
    >>> with ledger.time("gram"):
    ...     _ = torch.ones(2) @ torch.ones(2)
    >>> ledger["gram"].calls
    1
    """

    def __init__(self, processes: int = 1) -> None:
        self.processes = processes
        self.entries: dict[str, Entry] = {}
        self._events: list[tuple[str, Any, Any]] = []
        self._counting = False
        self._counted: dict[str, int] = {}
        self._probe_tokens = 0
        self._next_probe = 0
        self._once: dict[str, int] = {}  # FLOPs of a call, where all are alike
        self._side: dict[str, dict[str, list[float]]] = {}
        self.tokens = 0  # or examples, as `counts_tokens` says
        self.counts_tokens: bool | None = None  # None before the first batch

    def __getitem__(self, name: str) -> Entry:
        return self.entries.setdefault(name, Entry(name))

    @contextmanager
    def time(self, name: str, device: torch.device | None = None) -> Iterator[None]:
        """Add the seconds of the block to `name`.

        On CUDA the block is timed by events on the stream, read later: waiting for the GPU
        here would itself slow training down.
        """
        entry = self[name]
        entry.calls += 1
        if self._counting:
            entry.probes += 1
            yield
        elif device is not None and device.type == "cuda":
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            try:
                yield
            finally:
                end.record()
                self._events.append((name, start, end))
        else:
            began = time.perf_counter()
            try:
                yield
            finally:
                entry.seconds += time.perf_counter() - began

    def settle(self) -> None:
        """Read the CUDA events so far; waits for the GPU, so once per round."""
        if self._events:
            torch.cuda.synchronize()
        for name, start, end in self._events:
            self[name].seconds += start.elapsed_time(end) / 1000
        self._events.clear()

    @contextmanager
    def count(self, name: str) -> Iterator[None]:
        """Count the FLOPs of the block for `name`; those counted inside it for others are left out.

        Inner blocks count only inside an outer one: the outer is the probe.
        """
        before = sum(self._counted.values())
        with FlopCounterMode(display=False) as counter:
            yield
        inner = sum(self._counted.values()) - before
        self._counted[name] = (
            self._counted.get(name, 0) + self.processes * counter.get_total_flops() - inner
        )

    @contextmanager
    def count_all(self, name: str) -> Iterator[None]:
        """Count the FLOPs of a block that is counted every time, so needs no scaling."""
        with FlopCounterMode(display=False) as counter:
            yield
        counted = self.processes * counter.get_total_flops()
        self[name].flops_counted = (self[name].flops_counted or 0) + counted

    @contextmanager
    def measure(self, name: str) -> Iterator[None]:
        """Count the first call's FLOPs and take them for each call's; time all the others."""
        entry = self[name]
        if name in self._once:
            with self.time(name):
                yield
        else:
            began = time.perf_counter()
            with FlopCounterMode(display=False) as counter:
                yield
            self._once[name] = self.processes * counter.get_total_flops()
            entry.calls, entry.probes = entry.calls + 1, entry.probes + 1
            entry.probe_seconds += time.perf_counter() - began
        entry.flops_counted = (entry.flops_counted or 0) + self._once[name]

    def probe_due(self, step: int) -> bool:
        """Whether the FLOPs of step `step`, from 0, the first of a round, should be counted."""
        return step >= self._next_probe

    @contextmanager
    def probe(self, tokens: int) -> Iterator[None]:
        """Count the FLOPs of a micro-batch of `tokens` padded tokens, or examples."""
        self._counting = True
        self._probe_tokens += tokens
        try:
            with self.count("step"):
                yield
        finally:
            self._counting = False

    def probed(self, step: int) -> None:
        """End the probe of step `step`: the next is due some steps later."""
        self._next_probe = step + _PROBE_EVERY

    def model(self, name: str, flops: float) -> None:
        """Add FLOPs that a formula gives for `name`."""
        self[name].flops_modelled = (self[name].flops_modelled or 0) + round(flops)

    def hold(self, name: str, held: int) -> None:
        """Note that `name` takes `held` bytes in each process now; the peak is kept."""
        self[name].bytes = max(self[name].bytes or 0, held * self.processes)

    def absorb(self, name: str, key: str, other: Mapping[str, Any]) -> None:
        """Take the price of another run, ``Ledger.to_json()``, as the part `key` of `name`."""
        entry = self[name]
        entries = [e for e in other["entries"] if e["name"] not in _PAID_ELSEWHERE]
        seconds = sum(e["seconds"] for e in entries)
        flops = sum(e["flops_counted"] or 0 for e in entries)
        parts = self._side.setdefault(name, {})
        before = parts.get(key)  # a resumed run looks at its side runs again
        entry.calls += before is None
        entry.seconds += seconds - (before[0] if before else 0.0)
        entry.flops_counted = (entry.flops_counted or 0) + round(flops - (before or [0, 0])[1])
        parts[key] = [seconds, flops]

    def add(self, name: str, seconds: float, *, probe: bool) -> None:
        """Add one call that was timed elsewhere."""
        entry = self[name]
        entry.calls += 1
        entry.probes += probe
        if probe:
            entry.probe_seconds += seconds
        else:
            entry.seconds += seconds

    @contextmanager
    def within(self, name: str, device: torch.device) -> Iterator[None]:
        """Watch work inside a step that is not training's: FLOPs on probes, else time."""
        if self._counting:
            began = time.perf_counter()
            with self.count(name):
                yield
            entry = self[name]
            entry.calls, entry.probes = entry.calls + 1, entry.probes + 1
            entry.probe_seconds += time.perf_counter() - began
        else:
            with self.time(name, device):
                yield

    def track(self, device: torch.device) -> AbstractContextManager[None]:
        """Watch the work of a Gram tracker."""
        return self.within("track", device)

    def scaled(self) -> dict[str, int]:
        """Return the counted FLOPs of the probes, scaled to all tokens seen."""
        if not self._probe_tokens:
            return {}
        factor = self.tokens / self._probe_tokens
        return {name: round(flops * factor) for name, flops in self._counted.items()}

    def to_json(self) -> dict[str, Any]:
        """Return entries and note as JSON values; 'step' is without the tracker's part."""
        for name, flops in self.scaled().items():
            self[name].flops_counted = flops
        entries = [asdict(entry) for entry in self.entries.values()]
        for entry in entries:
            timed = entry["calls"] - entry.pop("probes")
            slow = entry.pop("probe_seconds")
            entry["seconds"] = entry["seconds"] * entry["calls"] / timed if timed else slow
        by_name = {entry["name"]: entry for entry in entries}
        if "step" in by_name:  # its seconds hold those of the work inside it
            inside = sum(by_name[name]["seconds"] for name in _WITHIN if name in by_name)
            by_name["step"]["seconds"] -= min(inside, by_name["step"]["seconds"])
        note = NOTE + _OF_METRICS if "metrics" in by_name else NOTE
        by = "padded tokens" if self.counts_tokens is not False else "examples"
        return {"entries": entries, "note": note.replace("padded tokens", by)}

    def state_dict(self) -> dict[str, Any]:
        """Everything, as JSON values."""
        self.settle()
        return {
            "entries": {name: asdict(entry) for name, entry in self.entries.items()},
            "counted": dict(self._counted),
            "probe_tokens": self._probe_tokens,
            "tokens": self.tokens,
            "counts_tokens": self.counts_tokens,
            "next_probe": self._next_probe,
            "side": self._side,
            "once": dict(self._once),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a state saved by :meth:`state_dict`."""
        self.entries = {name: Entry(**entry) for name, entry in state["entries"].items()}
        self._counted = {name: int(n) for name, n in state["counted"].items()}
        self._probe_tokens, self.tokens = int(state["probe_tokens"]), int(state["tokens"])
        self.counts_tokens = state.get("counts_tokens")
        self._next_probe, self._side = int(state["next_probe"]), dict(state["side"])
        self._once = {name: int(n) for name, n in state["once"].items()}
