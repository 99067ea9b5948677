"""What a view of a run in training shows, read out of its folder: curves, rates, matrices.

The folder may be that of a run that has not begun, or that was killed: what is not known
is None, NaN or empty.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from rbkit.balance.mixers.base import effective_number
from rbkit.balance.signals import noise_share
from rbkit.show.facts import Array, Overhead, RunLike, as_floats, domain_names, labels, target
from rbkit.show.facts import overhead as overhead_of
from rbkit.show.gram_layout import domain_order
from rbkit.show.style import shorten
from rbkit.text import duration, number, percent

_RECENT = 20  # logged losses that speed is measured over


class Series(NamedTuple):
    """Values by optimizer step, both of shape (n,)."""

    steps: Array
    values: Array


class Pace(NamedTuple):
    """Steps and tokens per second, by the clock on the wall; None if not known."""

    steps: float | None = None
    tokens: float | None = None


def of_training(run: RunLike) -> Series:
    """Training loss per token."""
    rows = run.metrics("train")
    return _series(rows, [row.get("loss") for row in rows])


def by_evaluation(run: RunLike) -> Series:
    """Eval loss per token."""
    return of_evaluations(run.metrics("eval"))


def of_evaluations(rows: Sequence[Mapping[str, Any]]) -> Series:
    """Eval loss per token out of rows of the record."""
    return _series(rows, [row.get("loss_token") for row in rows])


def worst(run: RunLike, m: int) -> int | None:
    """Index of the domain with the highest eval loss in the last evaluation."""
    rows = run.metrics("eval")
    losses = as_floats((rows[-1].get("by_domain_token") if rows else None) or [])
    if len(losses) != m or not np.isfinite(losses).any():
        return None
    return int(np.nanargmax(losses))


def of_domain(run: RunLike, domain: int | None) -> Series:
    """Eval loss per token of one domain."""
    if domain is None:
        return _series([], [])
    rows = run.metrics("eval")
    losses = [row.get("by_domain_token") or [] for row in rows]
    return _series(rows, [row[domain] if domain < len(row) else None for row in losses])


def pace(run: RunLike) -> Pace:
    """Measure the speed of the last 20 logged losses, evaluations and all.

    Never across a resume: what was lost between checkpoint and kill took time, and left no row.
    """
    timings: Any = getattr(run, "timings", ())
    timings = timings() if callable(timings) else timings
    rows, timed = run.metrics("train"), [t for t in timings if t.get("kind") == "train"]
    n = min(len(rows), len(timed))  # a row's time may not have been written yet
    try:
        resumed = max(run.info.get("resumed_seconds") or [0.0])
        recent = range(max(0, n - 1 - _RECENT), n)
        here = [i for i in recent if timed[i]["seconds"] >= resumed]
        if len(here) < 2:
            return Pace()
        first, last = here[0], here[-1]
        seconds = timed[last]["seconds"] - timed[first]["seconds"]
        steps = rows[last]["step"] - rows[first]["step"]
        tokens = (rows[last].get("tokens") or 0) - (rows[first].get("tokens") or 0)
    except (KeyError, TypeError):  # written by somebody else
        return Pace()
    if not (seconds > 0 and steps > 0):
        return Pace()
    return Pace(steps / seconds, tokens / seconds if tokens > 0 else None)  # or not told


def progress(run: RunLike) -> tuple[int, int]:
    """Return the steps made, and those in all (0 if not known)."""
    said = run.info.get("progress") or {}
    rows = run.metrics("train")[-1:] + run.metrics("eval")[-1:]
    made = [int(row.get("step") or 0) for row in (said, *rows)]
    steps = said.get("steps") or (run.info.get("parameters") or {}).get("steps") or 0
    return max(made), int(steps)


def _series(rows: Sequence[Mapping[str, Any]], values: Sequence[float | None]) -> Series:
    steps = np.array([row.get("step", 0) for row in rows], dtype=np.float64)
    return Series(steps, as_floats(values))


@dataclass(frozen=True)
class LiveFacts:
    """A run at one moment.

    Attributes
    ----------
    name : str
        What to call the run: its mixer, or its folder.
    status : str
        waiting, running, ok, failed, interrupted or killed.
    step, steps : int
        Optimizer steps made, and in all (0 if not known).
    names : tuple of m str
    order : ndarray of int64, shape (m,)
        Similar domains side by side; the same for long stretches of a run.
    rounds : int
        Rounds that have ended.
    gram : ndarray of shape (m, m), or None
        Of the last round that has one; rows of domains without an example are NaN.
    p : ndarray of shape (T, m)
        Proportions in force, round by round, the one in progress included; without those before
        anybody told them.
    edges : ndarray of shape (T + 1,)
        Steps at which those rounds begin and end.
    q : ndarray of shape (m,), or None
        Target proportions.
    train, evaluation, worst : Series
        Loss per token in nats: training, eval, and eval of the domain `worst_name`, which has
        the highest one now.
    effective, effective_target : float or None
        Effective number of domains, exp(H), of the proportions now and of q.
    noise_floor : ndarray of shape (m,), or None
        Squared norm that sampling noise puts into each domain gradient of the last round.
    noise_share : float or None
        Its share of the diagonal of G.
    tokens_per_second, eta_seconds, seconds : float or None
    overhead : Overhead
        Price of adapting p, in percent of plain training steps.
    watch_percent : float or None
        Share of the seconds that views took.
    error : str or None
        Why it failed.
    """

    name: str
    mixer: str
    status: str
    step: int
    steps: int
    names: tuple[str, ...]
    order: NDArray[np.int64]
    rounds: int
    gram: Array | None
    p: Array
    edges: Array
    q: Array | None
    train: Series
    evaluation: Series
    worst: Series
    worst_name: str | None
    effective: float | None
    effective_target: float | None
    noise_floor: Array | None
    noise_share: float | None
    tokens_per_second: float | None
    eta_seconds: float | None
    seconds: float | None
    overhead: Overhead
    watch_percent: float | None
    error: str | None

    @property
    def m(self) -> int:
        """Number of domains."""
        return len(self.names)


def live_facts(run: RunLike) -> LiveFacts:
    """Read the facts of a run at this moment.

    Parameters
    ----------
    run : Run
        A followed run is brought up to date by its own ``refresh()``.

    Examples
    --------
    >>> import tempfile
    >>> from rbkit.train import Recorder, Run
    >>> recorder = Recorder(tempfile.mkdtemp())
    >>> recorder.start(parameters={"mixer": "RnB", "steps": 40})
    >>> recorder.log({"kind": "train", "step": 10, "loss": 5.2})
    >>> facts = live_facts(Run.open(recorder.path))
    >>> facts.name, facts.step, facts.steps, facts.train.values
    ('RnB', 10, 40, array([5.2]))
    """
    info, history, status = run.info, run.history, run.status
    names, p, edges = _proportions(run)
    m, q = len(names), target(run)
    q = q if q is not None and len(q) == m else None
    gram = _last(history, "gram", (m, m))
    floor = _last(history, "noise_floor", (m,))
    step, steps = progress(run)
    hardest, speed = worst(run, m), pace(run)
    edges, p = _in_progress(p, edges, step)
    running = status == "running"
    seconds = _number(info.get("seconds"))
    watched = _number((info.get("watch") or {}).get("seconds"))
    return LiveFacts(
        name=labels([run])[0],
        mixer=str((info.get("parameters") or {}).get("mixer") or "–"),
        status=status,
        step=step,
        steps=steps,
        names=tuple(names),
        order=_order(run, m, whole=not running),
        rounds=len(history.get("step", ())),
        gram=gram,
        p=p,
        edges=edges,
        q=q,
        train=of_training(run),
        evaluation=by_evaluation(run),
        worst=of_domain(run, hardest),
        worst_name=None if hardest is None else names[hardest],
        effective=effective_number(p[-1]) if len(p) else None,
        effective_target=None if q is None else effective_number(q),
        noise_floor=floor,
        noise_share=None if gram is None or floor is None else noise_share(gram, floor),
        tokens_per_second=speed.tokens,
        eta_seconds=(steps - step) / speed.steps if running and steps and speed.steps else None,
        seconds=seconds,
        overhead=overhead_of(run),
        watch_percent=100 * watched / seconds if watched is not None and seconds else None,
        error=None if info.get("error") is None else str(info["error"]),
    )


def _proportions(run: RunLike) -> tuple[list[str], Array, Array]:
    """Return names (m,), p of the rounds and of the next one, and the steps where rounds begin."""
    names = domain_names(run)
    p = np.asarray(run.history.get("p", np.empty((0, 0))), dtype=np.float64)
    ends = np.asarray(run.history.get("step", ()), dtype=np.float64)
    if p.ndim != 2 or (names and p.shape[1] != len(names)):
        p = np.empty((0, len(names)))
    p = p[: len(ends) + 1]
    begins = np.concatenate([[0.0], ends])[: len(p)]
    told = np.isfinite(p).all(axis=1)
    first = int(np.argmax(told)) if told.any() else len(p)
    return names or [f"domain {i}" for i in range(p.shape[1])], p[first:], begins[first:]


def _in_progress(p: Array, begins: Array, step: int) -> tuple[Array, Array]:
    """End the last round at `step`, or leave it out if it has not begun."""
    if len(begins) and begins[-1] > 0 and step <= begins[-1]:
        return begins, p[:-1]
    return np.append(begins, max(float(step), 1.0)) if len(begins) else begins, p


def _last(history: Mapping[str, Any], name: str, shape: tuple[int, ...]) -> Array | None:
    values = history.get(name)
    if values is None or not len(values) or values.shape[1:] != shape:
        return None
    for row in values[::-1]:
        if np.isfinite(row).any():  # a round may have had no estimate
            return np.asarray(row, dtype=np.float64)
    return np.asarray(values[-1], dtype=np.float64)


_orders: WeakKeyDictionary[Any, tuple[Any, NDArray[np.int64]]] = WeakKeyDictionary()


def _order(run: RunLike, m: int, *, whole: bool) -> NDArray[np.int64]:
    """Order of the domains by all Gram matrices, or, of a running run, by its first 1, 2, 4, ...

    So rows change places ever more rarely, and the work (m^2 log m) is hardly ever done.
    """
    grams = run.history.get("gram", np.empty((0, 0, 0)))
    if grams.ndim != 3 or not len(grams) or grams.shape[1:] != (m, m):
        return np.arange(m)
    if whole:
        return domain_order(run.history)
    used = 1 << (len(grams).bit_length() - 1)
    key = (used, m, run.info.get("started"), len(run.info.get("resumed") or ()))
    known = _orders.get(run)
    if known is None or known[0] != key:
        known = _orders[run] = (key, domain_order({"gram": grams[:used]}))
    return known[1]


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and np.isfinite(value) else None


UNKNOWN = "–"
_SAID = {
    "waiting": "waiting to begin",
    "running": "running",
    "ok": "finished",
    "failed": "FAILED",
    "interrupted": "INTERRUPTED",
    "killed": "KILLED",
}


class Told(NamedTuple):
    """A number of a run: what it is, how much, and what to compare it with."""

    what: str
    value: str
    beside: str = ""


def printable(facts: LiveFacts) -> LiveFacts:
    """Return facts whose names and error cannot move a cursor, turn text or hide in it."""
    return replace(
        facts,
        name=_printable(facts.name),
        mixer=_printable(facts.mixer),
        names=tuple(_printable(name) for name in facts.names),
        worst_name=None if facts.worst_name is None else _printable(facts.worst_name),
        error=None if facts.error is None else _printable(facts.error),
    )


def _printable(text: str) -> str:
    return "".join(c for c in " ".join(text.split()) if c.isprintable()) or "?"


def status_said(facts: LiveFacts) -> str:
    """Status of a run in a word; in capitals if it did not end well."""
    return _SAID.get(facts.status, facts.status)


def went_wrong(facts: LiveFacts) -> bool:
    """Whether a run ended otherwise than by making all its steps."""
    return facts.status not in ("waiting", "running", "ok")


def progress_said(facts: LiveFacts) -> str:
    """Say how far a run is, and how long it will take."""
    steps = f"step {facts.step:,}" + (f" of {facts.steps:,}" if facts.steps else "")
    if facts.status == "running":
        return f"{steps}, {duration(facts.eta_seconds)} to go" if facts.eta_seconds else steps
    return steps


def numbers(facts: LiveFacts) -> list[Told]:
    """Return what there is to say of a run in numbers, in a fixed order.

    What is not known is a dash, so that a view does not jump.
    """
    q = number(facts.effective_target, 1)
    flops, seconds = percent(facts.overhead.flops), percent(facts.overhead.seconds)
    share = None if facts.noise_share is None else 100 * facts.noise_share
    told = [
        Told("eval loss", last(facts.evaluation), "nats per token"),
        Told("worst domain", last(facts.worst), shorten(facts.worst_name or "", 32)),
        Told("training loss", last(facts.train), "nats per token"),
        Told("effective domains", number(facts.effective, 1), f"of {facts.m:,}; target {q}"),
        Told("noise floor", percent(share), "of the diagonal of G"),
        Told("tokens per second", whole(facts.tokens_per_second)),
        Told("time", duration(facts.seconds)),
        Told("price of adapting", flops, f"of the FLOPs; {seconds} of the time"),
        Told("views", percent(facts.watch_percent), "of the time"),
    ]
    return [line if line.value != UNKNOWN else Told(line.what, UNKNOWN) for line in told]


def last(series: Series) -> str:
    """Last known value of a curve, with three digits."""
    values = [value for value in series.values[-50:].tolist() if value == value]
    return number(values[-1] if values else None)


def whole(value: float | None) -> str:
    """Write a rate without decimals, with commas."""
    return UNKNOWN if value is None else f"{value:,.0f}"
