"""What a run paid to be trained: plain steps and what its rule added, from the ledger."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

# Ledger entries that are not there for the rule: training itself, curves, checks, files, Regroup.
NOT_ADAPTING = ("step", "eval", "fidelity", "record", "embed", "cluster")
_FLOPS = ("flops_counted", "flops_modelled")


class RunLike(Protocol):
    """What is needed of :class:`rbkit.train.run.Run`."""

    @property
    def path(self) -> Path:
        """The run folder."""

    @property
    def info(self) -> dict[str, Any]:
        """What ``run.json`` says."""

    @property
    def status(self) -> str:
        """One of running, ok, failed, interrupted, killed."""

    @property
    def history(self) -> dict[str, Any]:
        """Arrays by round (``history.npz``); empty if there are none."""

    @property
    def domains(self) -> Any:
        """The :class:`rbkit.regroup.domains.Domains` of the run, or None."""

    def metrics(self, kind: str) -> list[dict[str, Any]]:
        """Return the records of ``metrics.jsonl`` of one kind: ``train`` or ``eval``."""


@dataclass(frozen=True)
class Altered:
    """A run that looks as if it had recorded other `arrays`, with `changes` in its info."""

    run: RunLike
    arrays: Mapping[str, Any]
    changes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def path(self) -> Path:
        """The run folder."""
        return self.run.path

    @property
    def info(self) -> dict[str, Any]:
        """What ``run.json`` says, with the changes."""
        return {**self.run.info, **self.changes}

    @property
    def status(self) -> str:
        """One of running, ok, failed, interrupted, killed."""
        return self.run.status

    @property
    def history(self) -> dict[str, Any]:
        """Arrays by round, with the others in their place."""
        return {**self.run.history, **self.arrays}

    @property
    def domains(self) -> Any:
        """Those of the run."""
        return self.run.domains

    def metrics(self, kind: str) -> list[dict[str, Any]]:
        """Return the records of the run."""
        return self.run.metrics(kind)


@dataclass(frozen=True)
class Losses:
    """Final eval losses in nats: per token, per example, and by domain (per token)."""

    token: float | None
    example: float | None
    by_domain: Array
    worst: int | None


@dataclass(frozen=True)
class Overhead:
    """Price of adapting p, in percent of the plain training steps; None if not measured."""

    flops: float | None
    seconds: float | None


def parameter(run: RunLike, name: str, default: Any = None) -> Any:
    """Value of one parameter of a run."""
    return (run.info.get("parameters") or {}).get(name, default)


def mixer_of(run: RunLike) -> str:
    """Name of the mixer of a run."""
    return str(parameter(run, "mixer") or run.path.name)


def labels(runs: Sequence[RunLike]) -> list[str]:
    """Name each run by its mixer, and by seed or folder only where that is not enough."""
    names = [mixer_of(run) for run in runs]
    for extra in (lambda run: f"seed {parameter(run, 'seed')}", lambda run: run.path.name):
        twice = {name for name, count in Counter(names).items() if count > 1}
        names = [
            f"{name}, {extra(run)}" if name in twice else name
            for name, run in zip(names, runs, strict=True)
        ]
    return names


def domain_names(run: RunLike) -> list[str]:
    """Names of the domains of a run."""
    return [str(name) for name in (run.info.get("domains") or {}).get("names") or []]


def same_corpus(run: RunLike, other: RunLike) -> bool:
    """Whether two runs had the same corpus, split alike; unknown counts as the same."""
    prints = [(r.info.get("corpus") or {}).get("fingerprint") for r in (run, other)]
    return None in prints or prints[0] == prints[1]


def same_domains(run: RunLike, other: RunLike) -> bool:
    """Whether two runs had the same domains, by their names."""
    return domain_names(run) == domain_names(other)


def same_machine(run: RunLike, other: RunLike) -> bool:
    """Whether two runs were timed on the same host and device; unknown counts as the same."""
    return all(
        None in (pair := (run.info.get(name), other.info.get(name))) or pair[0] == pair[1]
        for name in ("host", "device")
    )


def pairs_by_seed(
    runs: Sequence[RunLike], others: Sequence[RunLike]
) -> list[tuple[RunLike, RunLike]]:
    """Pair runs of the same seed; two runs without a known seed pair only if each is alone."""
    by_seed: dict[str, list[RunLike]] = {}
    for other in others:
        by_seed.setdefault(seed_of(other), []).append(other)
    ours = Counter(seed_of(run) for run in runs)
    return [
        (run, by_seed[seed][0])
        for run in runs
        if ours[seed := seed_of(run)] == 1 and len(by_seed.get(seed, ())) == 1
    ]


def seed_of(run: RunLike) -> str:
    """Seed of a run as text, so that it can be compared whatever was recorded."""
    return repr(parameter(run, "seed"))


def target(run: RunLike) -> Array | None:
    """Target proportions q of a run, shape (m,)."""
    q = (run.info.get("domains") or {}).get("q")
    if q is None and "q" in run.history:
        q = run.history["q"]
    return None if q is None else np.asarray(q, dtype=np.float64)


def losses(run: RunLike) -> Losses:
    """Return the final eval losses, or those of the last evaluation of an unfinished run."""
    record: Mapping[str, Any] = run.info.get("final") or {}
    if not record:
        evaluated = run.metrics("eval")
        record = evaluated[-1] if evaluated else {}
    by_domain = as_floats(record.get("by_domain_token") or [])
    known = np.isfinite(by_domain)
    worst = int(np.nanargmax(np.where(known, by_domain, -np.inf))) if known.any() else None
    return Losses(
        _finite(record.get("loss_token")), _finite(record.get("loss_example")), by_domain, worst
    )


def as_floats(values: Sequence[float | None]) -> Array:
    """Array of floats, NaN where JSON said null."""
    return np.array([np.nan if v is None else float(v) for v in values], dtype=np.float64)


def _finite(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and np.isfinite(value) else None


def ledger(run: RunLike) -> list[dict[str, Any]]:
    """Entries of the ledger of a run, as written."""
    return list((run.info.get("ledger") or {}).get("entries") or [])


def overhead(run: RunLike) -> Overhead:
    """Sum up tracking, Gram matrix and mixer, in percent of the plain training steps.

    FLOPs are those counted, or those modelled where nothing could count them; None if
    there are neither for something that was done.
    """
    entries = {entry["name"]: entry for entry in ledger(run) if entry.get("calls") != 0}
    step = entries.get("step", {})
    # Whatever is not known to be something else is there for the rule: nothing is hidden by a name.
    extra = {name: entry for name, entry in entries.items() if name not in NOT_ADAPTING}
    flops = {name: _first(entry, *_FLOPS) for name, entry in extra.items()}
    # What was done and nobody counted is not free, but unknown. The rules themselves, some
    # thousand operations, are never counted.
    unknown = any(value is None for name, value in flops.items() if name != "mixer")
    of_flops = None if unknown else _first(step, *_FLOPS)
    seconds = [_finite(entry.get("seconds")) for entry in extra.values()]
    of_seconds = _finite(step.get("seconds"))
    return Overhead(_percent(list(flops.values()), of_flops), _percent(seconds, of_seconds))


def _first(entry: Mapping[str, Any], *columns: str) -> float | None:
    return next((v for c in columns if (v := _finite(entry.get(c))) is not None), None)


def _percent(parts: Sequence[float | None], whole: float | None) -> float | None:
    return 100.0 * sum(part or 0.0 for part in parts) / whole if whole else None


Unit = Literal["seconds", "flops"]

# Paid before the first step, so in full by a run that stops early.
_BEFORE = ("probe_runs", "reference_run")


@dataclass(frozen=True)
class Spent:
    """Cost of training in one unit: before the first step, and over all steps."""

    before: float
    during: float

    @property
    def total(self) -> float:
        """Cost of the whole run."""
        return self.before + self.during

    def at(self, share: float) -> float:
        """Cost up to a `share` of the steps: each step is taken to cost the same.

        Examples
        --------
        >>> Spent(before=10.0, during=100.0).at(0.5)
        60.0
        """
        return self.before + share * self.during


def spent(run: RunLike, unit: Unit) -> Spent | None:
    """Cost of a run with the overhead of its rule; None where it was not measured.

    FLOPs are those counted, or those modelled where nothing could count them. Evaluation for
    the curves, checks, writing files and Regroup are nobody's overhead, so they are left out.

    Parameters
    ----------
    run : Run
    unit : {"seconds", "flops"}
    """
    entries = {entry["name"]: entry for entry in ledger(run) if entry.get("calls") != 0}
    step = _price(entries.get("step", {}), unit)
    if not step:
        return None
    extra = {
        name: _price(entry, unit) for name, entry in entries.items() if name not in NOT_ADAPTING
    }
    # What was done and nobody counted is not free, but unknown. The rules themselves, some
    # thousand operations, are never counted; all that is timed has its seconds.
    if any(value is None for name, value in extra.items() if name != "mixer"):
        return None
    before = sum(extra.get(name) or 0.0 for name in _BEFORE)
    return Spent(before, step + sum(value or 0.0 for value in extra.values()) - before)


def _price(entry: dict[str, Any], unit: Unit) -> float | None:
    columns = ("seconds",) if unit == "seconds" else ("flops_counted", "flops_modelled")
    values = (entry.get(column) for column in columns)
    return next((float(v) for v in values if isinstance(v, int | float)), None)


def smooth(values: Array, share: float = 0.012) -> Array:
    """Average over neighbours with a Gaussian of `share` of the records; centred, so no lag."""
    width = max(0.4, share * len(values))
    reach = np.arange(-int(3 * width) - 1, int(3 * width) + 2)
    kernel = np.exp(-0.5 * (reach / width) ** 2)
    # Divide by the weight that is really there: less at both ends.
    total = np.convolve(values, kernel)[len(reach) // 2 :][: len(values)]
    weight = np.convolve(np.ones_like(values), kernel)[len(reach) // 2 :][: len(values)]
    average: Array = total / weight
    return average


def loss_series(run: RunLike, split: str) -> tuple[Array, Array]:
    """Return steps and finite losses of a run, of the split ``"eval"`` or ``"train"``."""
    key = "loss" if split == "train" else "loss_token"
    rows = [(r.get("step"), r.get(key)) for r in run.metrics(split)]
    points = [row for row in rows if all(_is_number(value) for value in row)]
    steps, values = np.array(points, dtype=np.float64).reshape(-1, 2).T
    finite = np.isfinite(values)
    return steps[finite], values[finite]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def proportions_in_force(run: RunLike) -> tuple[Array, Array]:
    """Return p in force in each round (T, m), and the steps where rounds begin and end (T+1,)."""
    history = run.history
    if "p" not in history or not len(history["p"]):
        return np.empty((0, 0)), np.empty(0)
    p = np.asarray(history["p"], dtype=np.float64)
    told: NDArray[np.bool_] = np.asarray(np.isfinite(p).all(axis=1))
    if not told.any():
        return np.empty((0, 0)), np.empty(0)
    p = np.where(told[:, None], p, 0.0)  # blank where nobody told them
    ends = np.asarray(history.get("step", []), dtype=np.float64)
    if not len(ends):  # a run whose first round has not ended
        return p[:1], np.array([0.0, 1.0])
    return p[: len(ends)], np.concatenate([[0.0], ends])
