"""What a view of a run in training shows, read out of its folder: curves, rates, matrices.

The folder may be that of a run that has not begun, or that was killed: what is not known
is None, NaN or empty.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from rbkit.show.facts import Array, Overhead, RunLike, domain_names, labels, target
from rbkit.show.facts import overhead as overhead_of
from rbkit.show.gram_figure import domain_order
from rbkit.show.live.series import (
    Series,
    by_evaluation,
    of_domain,
    of_training,
    pace,
    progress,
    worst,
)
from rbkit.train.tracked_values import effective_domains, noise_share


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
    run : Follower or Run
        A Follower is brought up to date by its own ``look()``.

    Examples
    --------
    >>> import tempfile
    >>> from rbkit.train.record import Recorder, Run
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
        status=status, step=step, steps=steps, names=tuple(names),
        order=_order(run, m, whole=not running),
        rounds=len(history.get("step", ())), gram=gram, p=p, edges=edges, q=q,
        train=of_training(run), evaluation=by_evaluation(run),
        worst=of_domain(run, hardest),
        worst_name=None if hardest is None else names[hardest],
        effective=effective_domains(p[-1]) if len(p) else None,
        effective_target=None if q is None else effective_domains(q),
        noise_floor=floor,
        noise_share=None if gram is None or floor is None else noise_share(gram, floor),
        tokens_per_second=speed.tokens,
        eta_seconds=(steps - step) / speed.steps if running and steps and speed.steps else None,
        seconds=seconds, overhead=overhead_of(run),
        watch_percent=100 * watched / seconds if watched is not None and seconds else None,
        error=None if info.get("error") is None else str(info["error"]),
    )  # fmt: skip


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
