"""What one run recorded, round by round, in the order and the amount that can be looked at."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

import numpy as np
from numpy.typing import NDArray

from rbkit.balance.mixers.base import effective_number
from rbkit.balance.mixers.registry import MIXERS
from rbkit.balance.signals import noise_share
from rbkit.show.facts import (
    Array,
    RunLike,
    as_floats,
    domain_names,
    mixer_of,
    parameter,
    smooth,
    target,
)
from rbkit.show.gram_layout import common_scale, domain_order, to_cosine
from rbkit.show.live.facts import Series, of_evaluations, of_training
from rbkit.show.style import domain_colours
from rbkit.show.widgets import packed
from rbkit.train.counterfactual import why_not

# Depends on what was drawn, which a replay does not know.
_NOT_REPLAYED = ("max_epochs",)
_KINDS = {float: "number", int: "whole", bool: "flag"}


def menu(run: RunLike) -> list[dict[str, Any]]:
    """Entries of the menu: ``name``, ``reason`` (empty if it can be replayed), ``options``.

    The run's own mixer begins with the run's own options.
    """
    entries = []
    for name in MIXERS:
        mine = parameter(run, "mixer_options") if name == mixer_of(run) else None
        options = options_of(name, mine if isinstance(mine, Mapping) else {})
        given = {option["name"]: option["value"] for option in options}
        if name == "Fixed":
            reason = "it needs its shares: scrubber.replay('Fixed', p=[...])"
        else:
            reason = why_not(run, name, given)
        entries.append({"name": name, "reason": reason, "options": [] if reason else options})
    return sorted(entries, key=lambda entry: bool(entry["reason"]))


def options_of(name: str, given: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the options of a rule that a simple field can hold.

    Examples
    --------
    >>> options_of("RnB", {"lam": 2.0})[0]
    {'name': 'lam', 'kind': 'number', 'value': 2.0, 'optional': False, 'choices': []}
    """
    rule: Any = MIXERS[name]
    if not dataclasses.is_dataclass(rule):
        return []
    hints = get_type_hints(rule)
    found = []
    for field in dataclasses.fields(rule):
        if field.name.startswith("_") or not field.init or field.name in _NOT_REPLAYED:
            continue
        hint = hints[field.name]
        kinds = [kind for kind in get_args(hint) if kind is not NoneType]
        optional = NoneType in get_args(hint)
        choices = [str(choice) for choice in get_args(hint)] if get_origin(hint) is Literal else []
        kind = "choice" if choices else _KINDS.get(kinds[0] if optional else hint)
        if kind is not None:
            value = given.get(field.name, field.default)
            found.append(
                {
                    "name": field.name,
                    "kind": kind,
                    "value": value,
                    "optional": optional,
                    "choices": choices,
                }
            )
    return found


def asked(name: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Turn what stands in the fields into options: empty ones are None, whole numbers whole.

    Examples
    --------
    >>> asked("RnB", {"lam": 1, "effective_domains": "", "prior": "target", "not": "mine"})
    {'lam': 1.0, 'prior': 'target', 'effective_domains': None}
    """
    made: dict[str, Any] = {}
    for option in options_of(name, {}) if name in MIXERS else []:
        if option["name"] not in fields:
            continue
        value, kind = fields[option["name"]], option["kind"]
        if value == "" or value is None:
            value = None if option["optional"] else value
        elif kind == "number" and isinstance(value, int | float) and not isinstance(value, bool):
            value = float(value)
        elif kind == "whole" and isinstance(value, float) and value.is_integer():
            value = int(value)
        made[option["name"]] = value
    return made


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
        run,
        tuple(keys[i] for i in kept),
        kept,
        m,
        at,
        np.append(0.0, ends[at]),
        p[shown][:, kept],
        None if q is None else q[kept],
        gram is not None and len(at) > 0,
        _scores(gram, q, at, kept),
        _noise(history, gram, at),
        np.array([effective_number(row) if np.isfinite(row).all() else np.nan for row in p[shown]]),
        _train(run),
        evaluation,
        by_domain[:, kept],
        tuple(notes),
    )


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
    return (
        np.unique(np.linspace(0, n - 1, min(n, most)).round().astype(np.int64))
        if n
        else (np.zeros(0, dtype=np.int64))
    )


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


#: Bytes of Gram matrices that are sent at once; the browser asks for the others.
GRAM_BYTES = 4_000_000
_FOR_SCALE = 24  # rounds that the colour scale is made from
_LONGEST_NAME = 500  # characters of a name that travel


def cosines(gram: Array) -> tuple[bytes, bytes]:
    """Upper triangle of G_ij / (n_i n_j) as float16, and the diagonal of G as float32.

    ``n_i`` is the square root of the diagonal, or 1 where that is not positive.

    Examples
    --------
    >>> triangle, diagonal = cosines(np.array([[4.0, -2.0], [-2.0, 9.0]]))
    >>> np.frombuffer(triangle, "<f2").round(2), np.frombuffer(diagonal, "<f4")
    (array([ 1.  , -0.33,  1.  ], dtype=float16), array([4., 9.], dtype=float32))
    """
    diagonal = np.diagonal(gram)
    norm = np.sqrt(np.where(diagonal > 0, diagonal, 1.0))
    with np.errstate(over="ignore"):  # of damaged matrices: infinity is drawn as unseen
        triangle = packed((gram / np.outer(norm, norm))[np.triu_indices(len(gram))], "f2")
        return triangle, packed(diagonal, "f4")


def sent_rounds(rounds: Rounds) -> NDArray[np.int64]:
    """Return the rounds whose matrix is sent at once: as many as fit, evenly spread."""
    if not rounds.has_gram:
        return np.zeros(0, dtype=np.int64)
    m, n = len(rounds.keys), len(rounds.at)
    fit = max(2, GRAM_BYTES // (m * (m + 1) + 4 * m))
    return np.unique(np.linspace(0, n - 1, min(fit, n)).round().astype(np.int64))


def run_payload(rounds: Rounds, label: str, ids: Sequence[int]) -> dict[str, Any]:
    """Pack one run for the widget; `ids` are its domains in the list of all domains."""
    sent = sent_rounds(rounds)
    pairs = [cosines(rounds.gram(t)) for t in sent]
    arrays = {
        "edges": rounds.edges,
        "p": rounds.p,
        "q": rounds.q,
        "score": rounds.score,
        "noise": rounds.noise,
        "effective": rounds.effective,
        "train": rounds.train,
        "evaluation": rounds.evaluation,
        "by_domain": rounds.by_domain,
    }
    return {
        "label": label,
        "status": rounds.run.status,
        "ids": list(ids),
        "total": rounds.total,
        "gram": rounds.has_gram,
        "worst": rounds.worst,
        "sent": sent.tolist(),
        "grams": b"".join(triangle for triangle, _ in pairs),
        "diagonals": b"".join(diagonal for _, diagonal in pairs),
        "places": rounds.at.tolist() if len(rounds.notes) else [],
        **{name: b"" if a is None else packed(a, "f4") for name, a in arrays.items()},
    }


@dataclass(frozen=True)
class Together:
    """One or two runs over one list of domains and one row of stops.

    Attributes
    ----------
    domains : list of dict
        Name and colour of each domain of either run, those of the first run first.
    ids : list of list of int
        Domains of each run in that list.
    stops : array of shape (S,)
        Steps at which a round of either run ends.
    shared : int
        Domains that both runs have.
    """

    domains: list[dict[str, str]]
    ids: list[list[int]]
    stops: Array
    shared: int


def together(runs: Sequence[Rounds]) -> Together:
    """Match domains by name and rounds by step."""
    keys: list[Key] = list(dict.fromkeys(key for rounds in runs for key in rounds.keys))
    place = {key: i for i, key in enumerate(keys)}
    colours = domain_colours(max(len(keys), 1))
    domains = [
        {"name": name[:_LONGEST_NAME], "colour": _hex(colour)}
        for (name, _), colour in zip(keys, colours, strict=False)
    ]
    ids = [[place[key] for key in rounds.keys] for rounds in runs]
    stops = np.unique(np.concatenate([rounds.edges[1:] for rounds in runs]))
    return Together(domains, ids, stops, sum(map(len, ids)) - len(keys) if len(runs) > 1 else 0)


def scales(runs: Sequence[Rounds]) -> dict[str, float]:
    """Largest colour of cosines and of inner products, over all rounds of all runs."""
    found: dict[str, list[float]] = {"cosine": [], "raw": []}
    for rounds in runs:
        if rounds.has_gram:
            n = len(rounds.at)
            some = np.unique(np.linspace(0, n - 1, min(n, _FOR_SCALE)).astype(int))
            grams = np.stack([rounds.gram(int(t)) for t in some])
            found["cosine"].append(common_scale(to_cosine(grams)))
            found["raw"].append(common_scale(grams))
    return {kind: max(values, default=1.0) for kind, values in found.items()}


def _hex(colour: tuple[float, float, float]) -> str:
    return "#" + "".join(f"{round(255 * channel):02x}" for channel in colour)


def notices(runs: Sequence[Rounds], labels: Sequence[str], shared: int) -> list[str]:
    """Say what is to be known of one run, or two that share `shared` domains."""
    said = []
    for rounds, label in zip(runs, labels, strict=True):
        of = f"{label}: " if len(runs) > 1 else ""
        said += [of + note for note in rounds.notes]
        sent, n = len(sent_rounds(rounds)), len(rounds.at)
        if rounds.has_gram and sent < n:
            said.append(
                f"{of}{sent} of {n:,} Gram matrices are here (4 MB); the others come when the "
                "slider rests on them, while the kernel is free."
            )
    return said + (_differences(runs[0], runs[1], shared) if len(runs) > 1 else [])


def _differences(first: Rounds, second: Rounds, shared: int) -> list[str]:
    said = []
    if not len(first.keys) == len(second.keys) == shared:
        said.append(
            f"The runs share {shared} of {len(first.keys)} and {len(second.keys)} domains, by "
            "name; differences are of these."
        )
    if not np.array_equal(first.edges, second.edges):
        said.append(
            f"Rounds differ: {len(first.at)} up to step {first.edges[-1]:,.0f}, and "
            f"{len(second.at)} up to step {second.edges[-1]:,.0f}. The slider goes by step."
        )
    return said
