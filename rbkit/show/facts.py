"""Numbers that figures, panels and pages read out of runs: labels, losses, proportions, costs.

Runs may be unfinished, killed or not written by rbkit, so nothing is taken for granted: what is
missing comes back as None, NaN or an empty list.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rbkit.text import number
from rbkit.train.run import PER_TOKEN, Run

Array = NDArray[np.float64]

# ------------------------------------------------------------------------ names and comparability


def parameter(run: Run, name: str, default: Any = None) -> Any:
    """Value of one parameter of a run."""
    return (run.info.get("parameters") or {}).get(name, default)


def mixer_of(run: Run) -> str:
    """Name of the mixer of a run, or of its folder."""
    return str(parameter(run, "mixer") or run.path.name)


def labels(runs: Sequence[Run]) -> list[str]:
    """Name each run by its mixer, and by seed or folder only where that is not enough."""
    names = [mixer_of(run) for run in runs]
    for extra in (lambda run: f"seed {parameter(run, 'seed')}", lambda run: run.path.name):
        twice = {name for name, count in Counter(names).items() if count > 1}
        names = [
            f"{name}, {extra(run)}" if name in twice else name
            for name, run in zip(names, runs, strict=True)
        ]
    return names


def domain_names(run: Run, m: int | None = None) -> list[str]:
    """Names of the domains of a run, as recorded; of `m` domains numbers if it has not so many."""
    names = [str(name) for name in (run.info.get("domains") or {}).get("names") or []]
    return names if m in (None, len(names)) else [f"domain {i}" for i in range(m or 0)]


def same_corpus(run: Run, other: Run) -> bool:
    """Whether two runs had the same corpus, split alike; unknown counts as the same."""
    prints = [(r.info.get("corpus") or {}).get("fingerprint") for r in (run, other)]
    return None in prints or prints[0] == prints[1]


def same_domains(run: Run, other: Run) -> bool:
    """Whether two runs had the same domains, by their names."""
    return domain_names(run) == domain_names(other)


def same_machine(run: Run, other: Run) -> bool:
    """Whether two runs were timed on the same host and device; unknown counts as the same."""
    return all(
        None in (pair := (run.info.get(name), other.info.get(name))) or pair[0] == pair[1]
        for name in ("host", "device")
    )


def seed_of(run: Run) -> str:
    """Seed of a run as text, so that it can be compared whatever was recorded."""
    return repr(parameter(run, "seed"))


def pairs_by_seed(runs: Sequence[Run], others: Sequence[Run]) -> list[tuple[Run, Run]]:
    """Pair runs of the same seed; two runs without a known seed pair only if each is alone."""
    by_seed: dict[str, list[Run]] = {}
    for other in others:
        by_seed.setdefault(seed_of(other), []).append(other)
    ours = Counter(seed_of(run) for run in runs)
    return [
        (run, by_seed[seed][0])
        for run in runs
        if ours[seed := seed_of(run)] == 1 and len(by_seed.get(seed, ())) == 1
    ]


# ---------------------------------------------------------------------------------------- losses


@dataclass(frozen=True)
class Losses:
    """Final eval losses, in nats mostly: per token, per example, and by domain (per token).

    Where losses are of examples and not of tokens, "per token" is per example: see
    :func:`loss_unit`.
    """

    token: float | None
    example: float | None
    by_domain: Array
    worst: int | None


def loss_unit(runs: Iterable[Run]) -> str:
    """Return what the losses of runs are measured in: for axes, captions and sentences.

    Examples
    --------
    >>> loss_unit([])
    'nats per token'
    """
    units = list(dict.fromkeys(getattr(run, "loss_unit", PER_TOKEN) for run in runs)) or [PER_TOKEN]
    return units[0] if len(units) == 1 else f"{', '.join(units[:-1])} or {units[-1]}"


def losses(run: Run) -> Losses:
    """Return the final eval losses, or those of the last evaluation of an unfinished run."""
    record: Mapping[str, Any] = run.info.get("final") or {}
    if not record:
        evaluated = run.metrics("eval")
        record = evaluated[-1] if evaluated else {}
    by_domain = as_floats(record.get("by_domain_token") or [])
    known = np.isfinite(by_domain)
    worst = int(np.nanargmax(np.where(known, by_domain, -np.inf))) if known.any() else None
    return Losses(
        finite(record.get("loss_token")), finite(record.get("loss_example")), by_domain, worst
    )


def loss_series(run: Run, split: str) -> tuple[Array, Array]:
    """Return steps and finite losses of a run, of the split ``"eval"`` or ``"train"``."""
    key = "loss" if split == "train" else "loss_token"
    return _points(run.metrics(split), key)


def _points(records: Sequence[Mapping[str, Any]], key: str) -> tuple[Array, Array]:
    rows = [(row.get("step"), row.get(key)) for row in records]
    points = [row for row in rows if all(finite(value) is not None for value in row)]
    steps, values = np.array(points, dtype=np.float64).reshape(-1, 2).T
    return steps, values


@dataclass(frozen=True)
class Measure:
    """What runs are compared by: their eval loss, or a metric recorded beside it.

    Attributes
    ----------
    metric : str or None
        Name of the metric; None is the loss.
    higher_is_better : bool
    loss_unit : str
        What losses are measured in.

    Examples
    --------
    >>> Measure().title, Measure("exact_match", True).title
    ('eval loss', 'exact_match')
    """

    metric: str | None = None
    higher_is_better: bool = False
    loss_unit: str = PER_TOKEN

    @property
    def title(self) -> str:
        """What it is called in a title."""
        return self.metric or "eval loss"

    @property
    def noun(self) -> str:
        """What it is called in a sentence."""
        return self.metric or "loss"

    @property
    def unit(self) -> str:
        """Unit of its differences; a metric has its name."""
        return self.metric or self.loss_unit.partition(" per ")[0]

    def text(self, value: float | None) -> str:
        """Write a value: ``2.310 nats per token`` or ``exact_match 0.420``."""
        shown = number(value)
        return f"{self.metric} {shown}" if self.metric else f"{shown} {self.loss_unit}"

    @property
    def axis(self) -> str:
        """What it is called at an axis."""
        return self.metric or f"eval loss ({self.loss_unit})"

    def final(self, run: Run) -> float | None:
        """Return the last value of a run; of a metric, None where it was not evaluated."""
        if self.metric is None:
            return losses(run).token
        return finite(_last_metric(run, self.metric).get("value"))

    def by_domain(self, run: Run) -> Array:
        """Return the last values by domain, (m,); empty where there are none."""
        if self.metric is None:
            return losses(run).by_domain
        values = as_floats(_last_metric(run, self.metric).get("by_domain") or [])
        return values if len(values) == len(domain_names(run)) else np.empty(0)

    def examples(self, run: Run) -> Any:
        """Return how many eval examples were asked, for a metric: others are not comparable."""
        return _last_metric(run, self.metric).get("rows") if self.metric else None

    def series(self, run: Run) -> tuple[Array, Array]:
        """Return steps and finite values."""
        if self.metric is None:
            return loss_series(run, "eval")
        return _points(metric_rows(run, self.metric), "value")

    def cost(self, value: float | None) -> float:
        """Return a value such that lower is better, and infinity if it is unknown."""
        if value is None or not np.isfinite(value):
            return np.inf
        return -value if self.higher_is_better else value

    @property
    def better(self) -> str:
        """In which direction it is better, in a word."""
        return "higher" if self.higher_is_better else "lower"

    @property
    def best(self) -> str:
        """What the best one is: the highest or the lowest."""
        return "highest" if self.higher_is_better else "lowest"

    @property
    def better_side(self) -> str:
        """Where it is better along a horizontal axis."""
        return "right" if self.higher_is_better else "left"


def measure_of(
    runs: Sequence[Run], metric: str | None = None, higher_is_better: bool | None = None
) -> Measure:
    """Return what to compare `runs` by; the direction of a metric is as it was recorded."""
    unit = loss_unit(runs)
    if metric is None:
        return Measure(loss_unit=unit)
    if higher_is_better is None:
        recorded = [_last_metric(run, metric).get("higher_is_better") for run in runs]
        higher_is_better = False not in recorded
    return Measure(metric, bool(higher_is_better), unit)


def metric_names(runs: Sequence[Run]) -> list[str]:
    """Names of the metrics that any of the runs recorded, in the order of their records."""
    names: dict[str, None] = {}
    for run in runs:
        if final := run.info.get("final"):
            names |= dict.fromkeys(final.get("metrics") or {})
        else:  # many rows: they are read only where they have to be
            names |= dict.fromkeys(str(row["name"]) for row in run.metrics("metric"))
    return list(names)


def metric_rows(run: Run, name: str) -> list[dict[str, Any]]:
    """Rows of a metric in the record of a run."""
    return [row for row in run.metrics("metric") if row.get("name") == name]


def _last_metric(run: Run, name: str) -> Mapping[str, Any]:
    """Return the final record of a metric, or the last of an unfinished run."""
    final = (run.info.get("final") or {}).get("metrics") or {}
    rows = [] if final else metric_rows(run, name)
    return dict(final.get(name) or (rows[-1] if rows else {}))


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


def as_floats(values: Sequence[float | None]) -> Array:
    """Array of floats, NaN where JSON has null."""
    return np.array([np.nan if v is None else float(v) for v in values], dtype=np.float64)


def finite(value: Any) -> float | None:
    """Return a number as it is, and None for everything else, NaN and infinity included."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and np.isfinite(value) else None


# ----------------------------------------------------------------------------------- proportions


def target(run: Run) -> Array | None:
    """Target proportions q of a run, shape (m,)."""
    q = (run.info.get("domains") or {}).get("q")
    if q is None and "q" in run.history:
        q = run.history["q"]
    return None if q is None else np.asarray(q, dtype=np.float64)


def proportions_in_force(run: Run) -> tuple[Array, Array]:
    """Return p in force in each round (T, m), and the steps where rounds begin and end (T+1,)."""
    history = run.history
    p = np.asarray(history.get("p", np.empty((0, 0))), dtype=np.float64)
    recorded: NDArray[np.bool_] = np.asarray(np.isfinite(p).all(axis=-1))
    if not len(p) or not recorded.any():
        return np.empty((0, 0)), np.empty(0)
    p = np.where(recorded[:, None], p, 0.0)  # blank where they were not recorded
    ends = np.asarray(history.get("step", []), dtype=np.float64)
    if not len(ends):  # a run whose first round has not ended
        return p[:1], np.array([0.0, 1.0])
    return p[: len(ends)], np.concatenate([[0.0], ends])


# ----------------------------------------------------------------------------------------- costs

# Ledger entries that are not there for the rule: training itself, curves, checks, files, Regroup.
NOT_ADAPTING = ("step", "eval", "metrics", "fidelity", "record", "embed", "cluster")
# Paid before the first step, so in full by a run that stops early.
_BEFORE = ("probe_runs", "reference_run")

Unit = Literal["seconds", "flops"]


def ledger(run: Run) -> list[dict[str, Any]]:
    """Entries of the ledger of a run, as recorded."""
    return list((run.info.get("ledger") or {}).get("entries") or [])


@dataclass(frozen=True)
class Overhead:
    """Price of adapting p, in percent of the plain training steps; None if not measured."""

    flops: float | None
    seconds: float | None


def overhead(run: Run) -> Overhead:
    """Sum up tracking, Gram matrix and mixer, in percent of the plain training steps."""

    def share(unit: Unit) -> float | None:
        step, added = _paid(run, unit)
        return 100.0 * sum(added.values()) / step if step and added is not None else None

    return Overhead(share("flops"), share("seconds"))


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


def spent(run: Run, unit: Unit) -> Spent | None:
    """Cost of a run with the overhead of its rule; None where it was not measured.

    Evaluation for the curves, checks, writing files and Regroup are not part of it.
    """
    step, added = _paid(run, unit)
    if not step or added is None:
        return None
    before = sum(added.get(name, 0.0) for name in _BEFORE)
    return Spent(before, step + sum(added.values()) - before)


def _paid(run: Run, unit: Unit) -> tuple[float | None, dict[str, float] | None]:
    """Cost of the plain steps, and of each thing that was done for the rule; None if unknown.

    FLOPs are those counted, or those modelled where nothing could count them. What was done and
    not counted is not free, but unknown, and so is the sum; only the rules themselves, some
    thousand operations, are never counted. An entry with an unknown name is there for the rule:
    nothing is hidden by a name.
    """
    columns = ("seconds",) if unit == "seconds" else ("flops_counted", "flops_modelled")
    prices = {
        entry["name"]: next((v for c in columns if (v := finite(entry.get(c))) is not None), None)
        for entry in ledger(run)
        if entry.get("calls") != 0
    }
    added = {name: price for name, price in prices.items() if name not in NOT_ADAPTING}
    unknown = any(price is None for name, price in added.items() if name != "mixer")
    return prices.get("step"), None if unknown else {name: p or 0.0 for name, p in added.items()}
