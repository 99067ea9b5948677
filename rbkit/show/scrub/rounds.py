"""What one run recorded, round by round, in the order and the amount that can be looked at."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rbkit.show.curves import smooth
from rbkit.show.facts import Array, RunLike, as_floats, domain_names, target
from rbkit.show.gram_figure import domain_order
from rbkit.show.live.series import Series, of_evaluations, of_training
from rbkit.train.tracked_values import effective_domains, noise_share

#: Domains that are shown: of more, those with the largest shares.
MOST_DOMAINS = 200
#: Rounds that are shown: of more, evenly spread ones and the last.
MOST_ROUNDS = 1000
MOST_TRAIN_POINTS = 1500
_HUGE = 1e100
_NUMBERS = 20_000_000  # of Gram matrices that are looked at together, to order the domains

Key = tuple[str, int]


@dataclass(frozen=True)
class Rounds:
    """One run for the scrubber; domains are in the order in which they are drawn.

    Attributes
    ----------
    run : RunLike
    keys : tuple of (str, int)
        Name of each shown domain, and which one of that name it is.
    kept : int array of shape (m,)
        Where each shown domain stands in the run.
    total : int
        Domains of the run.
    at : int array of shape (T,)
        Which of the run's rounds are shown.
    edges : array of shape (T + 1,)
        Step at which each round begins, and the last one ends.
    p : array of shape (T + 1, m)
        Row t is in force in round t; the last one would come next.
    q : array of shape (m,) or None
    has_gram : bool
    score : array of shape (T, m) or None
        ``Gq / ||Gq||``: what the paper's rule exponentiates.
    noise : array of shape (T,) or None
        Noise floor as a share of the recorded diagonal of G, over all domains.
    effective : array of shape (T + 1,)
        ``exp(H(p))`` over all domains.
    train, evaluation : array of shape (3, N) and (2, E)
        Steps, losses (and smoothed losses), in nats per token.
    by_domain : array of shape (E, m)
        Eval losses, NaN where unknown.
    notes : tuple of str
        What is not shown, or could not be read.
    """

    run: RunLike
    keys: tuple[Key, ...]
    kept: NDArray[np.int64]
    total: int
    at: NDArray[np.int64]
    edges: Array
    p: Array
    q: Array | None
    has_gram: bool
    score: Array | None
    noise: Array | None
    effective: Array
    train: Array
    evaluation: Array
    by_domain: Array
    notes: tuple[str, ...]

    @property
    def names(self) -> list[str]:
        """Name of each shown domain."""
        return [name for name, _ in self.keys]

    def gram(self, t: int) -> Array:
        """Gram matrix of a shown round, (m, m)."""
        return _sane(self.run.history["gram"][self.at[t]])[np.ix_(self.kept, self.kept)]

    def rows(self, values: Any) -> Array:
        """Cut an array over all rounds and domains, (T + 1, all), to what is shown."""
        ends = np.append(self.at, len(values) - 1)
        cut: Array = np.asarray(values, dtype=np.float64)[ends][:, self.kept]
        return cut

    @property
    def worst(self) -> int:
        """The shown domain with the highest loss at the last evaluation, or -1."""
        for row in self.by_domain[::-1]:
            if np.isfinite(row).any():
                return int(np.nanargmax(row))
        return -1


def rounds_of(run: RunLike, like: Sequence[Key] = ()) -> Rounds:
    """Read a run; domains found in `like` come first, in that order.

    Damaged or missing parts are left out and named in ``notes``; nothing is raised for them.

    Parameters
    ----------
    run : RunLike
    like : sequence of keys, optional
        ``Rounds.keys`` of the run that this one is compared with.
    """
    history, notes = run.history, []
    names = domain_names(run)
    p, ends = _mixture(history, len(names))
    m = p.shape[1]
    keys = _keys(names if len(names) == m else [f"domain {i}" for i in range(m)])
    at = _spread(len(ends), MOST_ROUNDS)
    if len(at) < len(ends):
        notes.append(f"{len(at):,} of {len(ends):,} rounds are shown, evenly spread.")
    q = target(run)
    q = q if q is not None and q.shape == (m,) and np.isfinite(q).all() else None
    gram = history.get("gram")
    if gram is not None and np.shape(gram) != (len(ends), m, m):
        notes.append(f"The Gram matrices have the shape {np.shape(gram)} and are left out.")
        gram = None
    elif gram is None and len(ends):
        notes.append("This run recorded no Gram matrix: its mixer did not need one.")
    if not len(ends):
        notes.append("No round has ended yet.")
    if run.status != "ok":
        notes.append(f"The run is {run.status}; what it recorded until then is shown.")
    kept = _largest(p, q)
    if len(kept) < m:
        notes.append(f"{len(kept)} of {m:,} domains are shown: those with the largest shares.")
    kept = kept[_order(gram, kept, [keys[i] for i in kept], like)]
    evaluation, by_domain = _evaluations(run, m)
    shown = np.append(at, len(p) - 1) if len(ends) else np.array([0])
    return Rounds(
        run, tuple(keys[i] for i in kept), kept, m, at, np.append(0.0, ends[at]), p[shown][:, kept],
        None if q is None else q[kept], gram is not None and len(at) > 0,
        _scores(gram, q, at, kept), _noise(history, gram, at),
        np.array([effective_domains(row) if np.isfinite(row).all() else np.nan
                  for row in p[shown]]),
        _train(run), evaluation, by_domain[:, kept], tuple(notes),
    )  # fmt: skip


def _mixture(history: Any, m: int) -> tuple[Array, Array]:
    """Return p, (T + 1, m), and the last step of each round, (T,); NaN if none is there yet."""
    p = np.asarray(history.get("p", []), dtype=np.float64)
    if p.ndim != 2 or not p.size:
        return np.full((1, m), np.nan), np.zeros(0)
    told = ~np.isnan(p).all(axis=1, keepdims=True)  # else nobody said what they were
    p = np.where(told, np.clip(np.nan_to_num(p), 0.0, 1.0), np.nan)
    ends = np.asarray(history.get("step", []), dtype=np.float64).ravel()[: len(p)]
    if len(p) == len(ends):  # a run stopped between the end of a round and the next p
        p = np.vstack([p, p[-1:]])
    return p[: len(ends) + 1], ends


def _keys(names: Sequence[str]) -> list[Key]:
    """Tell domains of the same name apart by their number."""
    seen: Counter[str] = Counter()
    keys = []
    for name in names:
        keys.append((name, seen[name]))
        seen[name] += 1
    return keys


def _spread(n: int, most: int) -> NDArray[np.int64]:
    return np.unique(np.linspace(0, n - 1, min(n, most)).round().astype(np.int64)) if n else (
        np.zeros(0, dtype=np.int64))  # fmt: skip


def _largest(p: Array, q: Array | None) -> NDArray[np.int64]:
    most = np.nan_to_num(p).max(axis=0)
    weight = most if q is None else np.fmax(most, q)
    return np.sort(np.argsort(-weight, kind="stable")[:MOST_DOMAINS])


def _order(
    gram: Any, kept: NDArray[np.int64], keys: list[Key], like: Sequence[Key]
) -> NDArray[np.int64]:
    """Order by similarity of gradients; what the other run has, as it has it."""
    order = np.arange(len(kept))
    if gram is not None and len(gram):
        some = _spread(len(gram), max(1, _NUMBERS // max(len(kept), 1) ** 2))
        order = domain_order({"gram": np.stack([_sane(gram[t])[np.ix_(kept, kept)] for t in some])})
    place = {key: i for i, key in enumerate(like)}
    return np.array(
        sorted(order, key=lambda i: place.get(keys[i], len(place))), dtype=np.int64
    )  # a stable sort: those that are new keep the order of similarity


def _sane(gram: Any) -> Array:
    """NaN for what is no product of gradients: infinities, and what would overflow when squared."""
    found: Array = np.asarray(gram, dtype=np.float64)
    return np.where(np.abs(found) < _HUGE, found, np.nan)


def _scores(
    gram: Any, q: Array | None, at: NDArray[np.int64], kept: NDArray[np.int64]
) -> Array | None:
    if gram is None or q is None or not len(at):
        return None
    rows = []
    for t in at:
        score = np.nan_to_num(_sane(gram[t])) @ q
        norm = float(np.linalg.norm(score))
        seen = np.isfinite(np.diagonal(_sane(gram[t])))
        rows.append(np.where(seen, score / norm if norm else 0.0, np.nan)[kept])
    return np.array(rows)


def _noise(history: Any, gram: Any, at: NDArray[np.int64]) -> Array | None:
    floor = np.asarray(history.get("noise_floor", []), dtype=np.float64)
    if gram is None or not len(at) or floor.shape != np.shape(gram)[:2]:
        return None
    return as_floats([noise_share(_sane(gram[t]), floor[t]) for t in at])


def _train(run: RunLike) -> Array:
    steps, values = _known(of_training(run))
    some = _spread(len(steps), MOST_TRAIN_POINTS)
    return np.stack([steps[some], values[some], smooth(values)[some] if len(values) else values])


def _known(series: Series) -> Array:
    known = np.isfinite(series.values)
    return np.stack([series.steps[known], series.values[known]])


def _evaluations(run: RunLike, m: int) -> tuple[Array, Array]:
    rows = run.metrics("eval")  # once: a run that goes on has more of them the next time
    evaluation = of_evaluations(rows)
    by_domain = np.full((len(rows), m), np.nan)
    for i, row in enumerate(rows):
        found = as_floats(row.get("by_domain_token") or [])
        if len(found) == m:
            by_domain[i] = found
    return np.stack(evaluation), by_domain
