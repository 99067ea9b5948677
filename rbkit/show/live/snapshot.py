"""One run at one moment: the curves, matrices and numbers that every view of training shows.

The folder may be that of a run that has not begun, or that was killed: what is unknown is None,
NaN or empty. Names and errors are safe to show: they cannot move a cursor or turn text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import ArrayLike

from rbkit.balance.mixers.base import effective_number
from rbkit.balance.mixers.registry import MIXERS
from rbkit.balance.signals import noise_share
from rbkit.show.facts import (
    Array,
    Overhead,
    as_floats,
    domain_names,
    finite,
    labels,
    metric_names,
    metric_rows,
    mixer_of,
    overhead,
    target,
)
from rbkit.show.gram_layout import Kind, Order, common_scale, domain_order, round_up, values
from rbkit.show.style import shorten
from rbkit.text import UNKNOWN, duration, number, one_line, percent
from rbkit.train.run import PER_TOKEN, Run

_MOST_METRICS = 4  # in the list of numbers
_RECENT = 20  # logged losses that speed is measured over
_PERCENTILE = 95.0  # of |G|: a few pairs of a first, noisy round must not bleach all the others
_STATUS = {
    "waiting": "waiting to begin",
    "running": "running",
    "ok": "finished",
    "failed": "FAILED",
    "interrupted": "INTERRUPTED",
    "killed": "KILLED",
}


class Series(NamedTuple):
    """Values by optimizer step, both of shape (n,)."""

    steps: Array
    values: Array

    def finite(self) -> Series:
        """Without the steps whose value is unknown."""
        finite = np.isfinite(self.values)
        return Series(self.steps[finite], self.values[finite])

    @property
    def last(self) -> float | None:
        """The last finite value."""
        values = self.values[np.isfinite(self.values)]
        return float(values[-1]) if len(values) else None


class Speed(NamedTuple):
    """Steps, tokens and examples per second of wall-clock time; None if unknown, or not counted."""

    steps: float | None = None
    tokens: float | None = None
    examples: float | None = None


class Number(NamedTuple):
    """A number of a run: its name, its value, and what to compare it with."""

    name: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class Snapshot:
    """A run at one moment.

    Attributes
    ----------
    name : str
        The mixer, or the folder.
    status : str
        waiting, running, ok, failed, interrupted or killed.
    step, steps : int
        Optimizer steps made, and in all (0 if unknown).
    names : tuple of m str
    order : ndarray of int64, shape (m,)
        Similar domains side by side; the same for long stretches of a run.
    rounds : int
        Rounds that have ended.
    tracks : bool
        Whether there is a Gram matrix, or will be after the first round.
    gram : ndarray of shape (m, m), or None
        Of the last round that has one; rows of domains without an example are NaN.
    p : ndarray of shape (T, m)
        Proportions in force, round by round, the one in progress included; rounds before the
        first known proportions are left out.
    edges : ndarray of shape (T + 1,)
        Steps at which those rounds begin and end.
    q : ndarray of shape (m,), or None
        Target proportions.
    train, evaluation, worst : Series
        Loss, in `loss_unit`: training, eval, and eval of the domain `worst_name`, which has the
        highest one now.
    metrics : dict of str to Series
        Metrics that were evaluated beside the loss.
    effective, effective_target : float or None
        Effective number of domains, exp(H), of the proportions now and of q.
    noise_share : float or None
        Share of the diagonal of G that is sampling noise.
    tokens_per_second, eta_seconds, seconds : float or None
    overhead : Overhead
        Price of adapting p, in percent of plain training steps.
    watch_percent : float or None
        Share of the seconds that views took.
    error : str or None
        Why it failed.
    loss_unit : str
    counted : str
        What speed is of: tokens, or examples where tokens are not counted.
    examples_per_second : float or None
    """

    name: str
    status: str
    step: int
    steps: int
    names: tuple[str, ...]
    order: Order
    rounds: int
    tracks: bool
    gram: Array | None
    p: Array
    edges: Array
    q: Array | None
    train: Series
    evaluation: Series
    worst: Series
    worst_name: str | None
    metrics: dict[str, Series]
    effective: float | None
    effective_target: float | None
    noise_share: float | None
    tokens_per_second: float | None
    eta_seconds: float | None
    seconds: float | None
    overhead: Overhead
    watch_percent: float | None
    error: str | None
    loss_unit: str = PER_TOKEN
    counted: str = "tokens"
    examples_per_second: float | None = None

    @property
    def m(self) -> int:
        """Number of domains."""
        return len(self.names)

    @property
    def metrics_drawn(self) -> dict[str, Series]:
        """Metrics that share an axis: the first, and others with it if all are shares."""
        known = {name: curve for name, curve in self.metrics.items() if curve.last is not None}
        shares = [
            name
            for name, (_, values) in known.items()
            if np.nanmin(values) >= 0 and np.nanmax(values) <= 1
        ]
        first = list(known)[:1]
        return {name: known[name] for name in (shares if first == shares[:1] else first)[:3]}

    @property
    def unfinished(self) -> bool:
        """Whether there is more to come."""
        return self.status in ("waiting", "running")

    @property
    def ended_badly(self) -> bool:
        """Whether the run ended in another way than by making all its steps."""
        return not self.unfinished and self.status != "ok"

    @property
    def status_text(self) -> str:
        """The status in a word; in capitals if the run ended badly."""
        return _STATUS.get(self.status, self.status)

    @property
    def progress_text(self) -> str:
        """How far the run is, and how long it will take."""
        text = f"step {self.step:,}" + (f" of {self.steps:,}" if self.steps else "")
        if self.status == "running" and self.eta_seconds:
            return f"{text}, {duration(self.eta_seconds)} to go"
        return text


def snapshot(run: Run) -> Snapshot:
    """Read a run as it is now; one that is followed is brought up to date by ``run.refresh()``.

    Examples
    --------
    >>> import tempfile
    >>> from rbkit.train import Recorder
    >>> recorder = Recorder(tempfile.mkdtemp())
    >>> recorder.start(parameters={"mixer": "RnB", "steps": 40})
    >>> recorder.log({"kind": "train", "step": 10, "loss": 5.2})
    >>> now = snapshot(Run.open(recorder.path))
    >>> now.name, now.step, now.steps, now.train.values
    ('RnB', 10, 40, array([5.2]))
    """
    info, history, status = run.info, run.history, run.status
    names, p, begins = _proportions(run)
    m, q = len(names), target(run)
    q = q if q is not None and len(q) == m else None
    gram = _last_row(history, "gram", (m, m))
    floor = _last_row(history, "noise_floor", (m,))
    step, steps = _progress(run)
    p, edges = _end_round(p, begins, step)
    running = status == "running"
    pace = speed(run)
    rows = run.metrics("eval")
    worst = _worst_domain(rows, m)
    seconds = finite(info.get("seconds"))
    watched = finite((info.get("watch") or {}).get("seconds"))
    return Snapshot(
        name=_safe(labels([run])[0]),
        status=_safe(status),
        step=step,
        steps=steps,
        names=tuple(map(_safe, names)),
        order=_order(run, m, whole=not running),
        rounds=len(history.get("step", ())),
        tracks=gram is not None or _will_track(run),
        gram=gram,
        p=p,
        edges=edges,
        q=q,
        train=training_loss(run),
        evaluation=eval_loss(rows),
        worst=_series(rows, [_of_domain(row, worst) for row in rows] if worst is not None else []),
        worst_name=None if worst is None else _safe(names[worst]),
        metrics={
            name: _series(rows_of := metric_rows(run, name), [row.get("value") for row in rows_of])
            for name in metric_names([run])
        },
        effective=effective_number(p[-1]) if len(p) else None,
        effective_target=None if q is None else effective_number(q),
        noise_share=None if gram is None or floor is None else noise_share(gram, floor),
        tokens_per_second=pace.tokens,
        eta_seconds=(steps - step) / pace.steps if running and steps and pace.steps else None,
        seconds=seconds,
        overhead=overhead(run),
        watch_percent=100 * watched / seconds if watched is not None and seconds else None,
        error=None if info.get("error") is None else _safe(str(info["error"])),
        loss_unit=run.loss_unit,
        counted=_counted(run.metrics("train")),
        examples_per_second=pace.examples,
    )


def _will_track(run: Run) -> bool:
    """Whether a run that has not ended a round has a rule that needs the Gram matrix."""
    begins = run.status in ("waiting", "running") and not len(run.history.get("step", ()))
    rule = MIXERS.get(mixer_of(run))
    return begins and (rule is None or "gram" in rule.signals)


# ------------------------------------------------------------------------------------- curves


def training_loss(run: Run) -> Series:
    """Training loss."""
    rows = run.metrics("train")
    return _series(rows, [row.get("loss") for row in rows])


def eval_loss(rows: Sequence[Mapping[str, Any]]) -> Series:
    """Eval loss, per token or in the run's own unit, of rows of the kind ``eval``."""
    return _series(rows, [row.get("loss_token") for row in rows])


def _series(rows: Sequence[Mapping[str, Any]], losses: Sequence[float | None]) -> Series:
    steps = [row.get("step", 0) for row in rows[: len(losses)]]
    return Series(np.array(steps, dtype=np.float64), as_floats(losses))


def _worst_domain(rows: Sequence[Mapping[str, Any]], m: int) -> int | None:
    """Index of the domain with the highest eval loss in the last evaluation."""
    losses = as_floats((rows[-1].get("by_domain_token") if rows else None) or [])
    return int(np.nanargmax(losses)) if len(losses) == m and np.isfinite(losses).any() else None


def _of_domain(row: Mapping[str, Any], domain: int) -> float | None:
    losses = row.get("by_domain_token") or []
    return losses[domain] if domain < len(losses) else None


# ------------------------------------------------------------------------- progress and speed


def _progress(run: Run) -> tuple[int, int]:
    """Return the steps made, and those in all (0 if unknown)."""
    progress = run.info.get("progress") or {}
    rows = run.metrics("train")[-1:] + run.metrics("eval")[-1:]
    steps = progress.get("steps") or (run.info.get("parameters") or {}).get("steps") or 0
    return max(int(row.get("step") or 0) for row in (progress, *rows)), int(steps)


def speed(run: Run) -> Speed:
    """Measure the speed of the last 20 logged losses, evaluations included.

    Never across a resume: the work lost between checkpoint and kill took time, and left no row.
    """
    rows = run.metrics("train")
    timed = [timing for timing in run.timings() if timing.get("kind") == "train"]
    n = min(len(rows), len(timed))  # the time of a row may not have been written yet
    try:
        resumed = max(run.info.get("resumed_seconds") or [0.0])
        recent = range(max(0, n - 1 - _RECENT), n)
        since = [i for i in recent if timed[i]["seconds"] >= resumed]
        if len(since) < 2:
            return Speed()
        first, last = since[0], since[-1]
        seconds = timed[last]["seconds"] - timed[first]["seconds"]
        steps = rows[last]["step"] - rows[first]["step"]
        tokens, examples = (
            (rows[last].get(name) or 0) - (rows[first].get(name) or 0)
            for name in ("tokens", "examples")
        )
        examples = 0 if _counted(rows) == "tokens" else examples
    except (KeyError, TypeError):  # not written by rbkit
        return Speed()
    if not (seconds > 0 and steps > 0):
        return Speed()
    return Speed(
        steps / seconds,
        tokens / seconds if tokens > 0 else None,
        examples / seconds if examples > 0 else None,
    )


def _counted(rows: Sequence[Mapping[str, Any]]) -> str:
    return "examples" if rows and "examples" in rows[-1] and "tokens" not in rows[-1] else "tokens"


# -------------------------------------------------------------------- proportions and matrices


def _proportions(run: Run) -> tuple[list[str], Array, Array]:
    """Return names (m,), p of the rounds and of the next one, and the steps where rounds begin."""
    names = domain_names(run)
    p = np.asarray(run.history.get("p", np.empty((0, 0))), dtype=np.float64)
    ends = np.asarray(run.history.get("step", ()), dtype=np.float64)
    if p.ndim != 2 or (names and p.shape[1] != len(names)):
        p = np.empty((0, len(names)))
    p = p[: len(ends) + 1]
    begins = np.concatenate([[0.0], ends])[: len(p)]
    recorded = np.isfinite(p).all(axis=1)
    first = int(np.argmax(recorded)) if recorded.any() else len(p)
    return names or [f"domain {i}" for i in range(p.shape[1])], p[first:], begins[first:]


def _end_round(p: Array, begins: Array, step: int) -> tuple[Array, Array]:
    """End the last round at `step`, or leave it out if it has not begun; return p and edges."""
    if len(begins) and begins[-1] > 0 and step <= begins[-1]:
        return p[:-1], begins
    return p, np.append(begins, max(float(step), 1.0)) if len(begins) else begins


def _last_row(history: Mapping[str, Any], name: str, shape: tuple[int, ...]) -> Array | None:
    rows = history.get(name)
    if rows is None or not len(rows) or rows.shape[1:] != shape:
        return None
    with_estimate = (row for row in rows[::-1] if np.isfinite(row).any())
    return np.asarray(next(with_estimate, rows[-1]), dtype=np.float64)


_orders: WeakKeyDictionary[Run, tuple[Any, Order]] = WeakKeyDictionary()


def _order(run: Run, m: int, *, whole: bool) -> Order:
    """Order of the domains by all Gram matrices, or, of a running run, by its first 1, 2, 4, ...

    So rows change places ever more rarely, and the work (m^2 log m) is hardly ever done.
    """
    grams = run.history.get("gram", np.empty((0, 0, 0)))
    if grams.ndim != 3 or not len(grams) or grams.shape[1:] != (m, m):
        return np.arange(m)
    if whole:
        return domain_order(run.history)
    used = 1 << (len(grams).bit_length() - 1)
    key = (used, m, beginning(run))
    cached = _orders.get(run)
    if cached is None or cached[0] != key:
        cached = _orders[run] = (key, domain_order({"gram": grams[:used]}))
    return cached[1]


def beginning(run: Run) -> tuple[Any, int]:
    """Return what changes when another run begins in the folder, or this one is cut back."""
    return run.info.get("started"), len(run.info.get("resumed") or ())


class Scale:
    """A colour scale from -limit to limit that starts at a round number and grows in round steps.

    Round are 1, 2 and 5 times a power of ten: colours keep their meaning from frame to frame, and
    where they change, the number at the scale changes visibly. It depends on the rounds, and not
    on when someone began to watch them. `limit` is None before the first matrix.

    Examples
    --------
    >>> scale = Scale("raw")
    >>> [scale.include([[[9.0, g], [g, 9.0]]]) for g in (0.13, 0.01, 0.3)]
    [0.2, 0.2, 0.5]
    """

    def __init__(self, kind: Kind = "cosine") -> None:
        self.kind: Kind = kind
        self.limit: float | None = None
        self.rounds = 0

    def include(self, grams: ArrayLike) -> float:
        """Grow to fit Gram matrices (T, m, m); return the limit."""
        for gram in np.asarray(grams, dtype=np.float64):
            self.rounds += 1
            shown = values(gram, self.kind)
            if np.isfinite(shown[~np.eye(len(shown), dtype=bool)]).any():
                self.limit = max(self.limit or 0.0, round_up(common_scale(shown, _PERCENTILE)))
        return self.limit or 1.0

    def follow(self, history: Mapping[str, Any]) -> float:
        """Grow to fit the new rounds of a ``history``; return the limit."""
        grams = history.get("gram", np.empty((0, 0, 0)))
        if grams.ndim != 3 or grams.shape[1] != grams.shape[2]:
            return self.limit or 1.0
        if len(grams) < self.rounds:  # cut back by a resume
            self.limit, self.rounds = None, 0
        return self.include(grams[self.rounds :])


# ------------------------------------------------------------------------------ numbers as text


def numbers(snap: Snapshot) -> list[Number]:
    """List the numbers of a run in a fixed order; unknown ones are dashes, so no view jumps."""
    time = f"{percent(snap.overhead.seconds)} of the time"
    q = number(snap.effective_target, 1)
    rows = [
        Number("eval loss", number(snap.evaluation.last), snap.loss_unit),
        Number("worst domain", number(snap.worst.last), shorten(snap.worst_name or "", 32)),
        Number("training loss", number(snap.train.last), snap.loss_unit),
        *(
            Number(name, number(curve.last), "on the eval set")
            for name, curve in list(snap.metrics.items())[:_MOST_METRICS]
        ),
        Number("effective domains", number(snap.effective, 1), f"of {snap.m:,}; target {q}"),
        Number("noise floor", noise_text(snap), "of the diagonal of G"),
        Number(rate_name(snap), rate_text(snap)),
        Number("time", duration(snap.seconds)),
        Number("price of adapting", percent(snap.overhead.flops), f"of the FLOPs; {time}"),
        Number("views", percent(snap.watch_percent), "of the time"),
    ]
    return [row if row.value != UNKNOWN else Number(row.name, UNKNOWN) for row in rows]


def noise_text(snap: Snapshot) -> str:
    """Write the share of the diagonal of G that is noise."""
    return percent(None if snap.noise_share is None else 100 * snap.noise_share)


def rate_name(snap: Snapshot) -> str:
    """Return what the speed of a run is counted in."""
    return f"{snap.counted} per second"


def rate_text(snap: Snapshot) -> str:
    """Write tokens, or examples, per second without decimals, with commas."""
    rate = snap.tokens_per_second or snap.examples_per_second
    return UNKNOWN if rate is None else f"{rate:,.0f}"


def _safe(text: str) -> str:
    return " ".join(one_line(text).split()) or "?"
