"""What one run recorded, round by round, in the order and the amount that can be looked at."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from matplotlib.colors import to_hex
from numpy.typing import NDArray

from rbkit.balance.mixers.base import effective_number
from rbkit.balance.signals import noise_share
from rbkit.show.facts import Array, as_floats, domain_names, smooth, target
from rbkit.show.gram_layout import Kind, Order, common_scale, domain_order, values
from rbkit.show.live.snapshot import eval_loss, training_loss
from rbkit.show.style import domain_colours
from rbkit.show.widgets import packed
from rbkit.train.run import Run

MOST_DOMAINS = 200  # that are shown: of more, those with the largest shares
MOST_ROUNDS = 1000  # that are shown: of more, evenly spread ones and the last
GRAM_BYTES = 4_000_000  # of Gram matrices that are sent at once; the browser asks for the others
_MOST_TRAIN_POINTS = 1500
_FOR_ORDER = 20_000_000  # numbers of the Gram matrices that the order of domains is made from
_FOR_SCALE = 24  # rounds that the colour scale is made from
_HUGE = 1e100
_LONGEST_NAME = 500  # characters of a name that are sent

Key = tuple[str, int]


@dataclass(frozen=True)
class Rounds:
    """One run for the scrubber; domains are in the order in which they are drawn.

    Attributes
    ----------
    run : Run
    keys : tuple of (str, int)
        Name of each shown domain, and which one of that name it is.
    domain_indices : int array of shape (m,)
        Place of each shown domain in the run.
    total : int
        Domains of the run.
    round_indices : int array of shape (T,)
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
    effective_target : float or None
        ``exp(H(q))``, if all domains are shown.
    train, evaluation : array of shape (3, N) and (2, E)
        Steps, losses (and smoothed losses), in the unit of the run.
    by_domain : array of shape (E, m)
        Eval losses, NaN where unknown.
    notes : tuple of str
        What is not shown, or could not be read.
    """

    run: Run
    keys: tuple[Key, ...]
    domain_indices: NDArray[np.int64]
    total: int
    round_indices: NDArray[np.int64]
    edges: Array
    p: Array
    q: Array | None
    has_gram: bool
    score: Array | None
    noise: Array | None
    effective: Array
    effective_target: float | None
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
        gram = self.run.history["gram"][self.round_indices[t]]
        return _sane(gram)[np.ix_(self.domain_indices, self.domain_indices)]

    def grams(self, most: int) -> tuple[Array, NDArray[np.int64]]:
        """Gram matrices of at most `most` shown rounds, evenly spread, and those rounds."""
        rounds = _spread(len(self.round_indices), most)
        return np.stack([self.gram(int(t)) for t in rounds]), rounds

    def shown(self, values: Any) -> Array:
        """Cut an array over all rounds and domains, (T + 1, all), to what is shown."""
        ends = np.append(self.round_indices, len(values) - 1)
        cut: Array = np.asarray(values, dtype=np.float64)[ends][:, self.domain_indices]
        return cut

    @property
    def worst(self) -> int:
        """The shown domain with the highest loss at the last evaluation, or -1."""
        for row in self.by_domain[::-1]:
            if np.isfinite(row).any():
                return int(np.nanargmax(row))
        return -1


def rounds_of(run: Run, like: Sequence[Key] = ()) -> Rounds:
    """Read a run; domains with a key in `like` come first, in that order.

    Damaged or missing parts are left out and named in ``notes``; nothing is raised for them.
    """
    history, notes = run.history, []
    names = domain_names(run)
    p, ends = _proportions(history, len(names))
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
    largest = _largest(p, q)
    if len(largest) < m:
        notes.append(f"{len(largest)} of {m:,} domains are shown: those with the largest shares.")
    domains = largest[_order(gram, largest, [keys[i] for i in largest], like)]
    evaluation, by_domain = _evaluations(run, m)
    in_force = p[np.append(at, len(p) - 1) if len(ends) else [0]]
    effective = [effective_number(row) if np.isfinite(row).all() else np.nan for row in in_force]
    return Rounds(
        run=run,
        keys=tuple(keys[i] for i in domains),
        domain_indices=domains,
        total=m,
        round_indices=at,
        edges=np.append(0.0, ends[at]),
        p=in_force[:, domains],
        q=None if q is None else q[domains],
        has_gram=gram is not None and len(at) > 0,
        score=_scores(gram, q, at, domains),
        noise=_noise(history, gram, at),
        effective=np.array(effective),
        effective_target=None if q is None or len(domains) < m else effective_number(q),
        train=_training(run),
        evaluation=evaluation,
        by_domain=by_domain[:, domains],
        notes=tuple(notes),
    )


def _proportions(history: Any, m: int) -> tuple[Array, Array]:
    """Return p, (T + 1, m), and the last step of each round, (T,); NaN if there is none yet."""
    p = np.asarray(history.get("p", []), dtype=np.float64)
    if p.ndim != 2 or not p.size:
        return np.full((1, m), np.nan), np.zeros(0)
    unknown = np.isnan(p).all(axis=1, keepdims=True)
    p = np.where(unknown, np.nan, np.clip(np.nan_to_num(p), 0.0, 1.0))
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
    """Return at most `most` of n indices, evenly spread, with the first and the last."""
    return np.unique(np.linspace(0, max(n - 1, 0), min(n, most)).round().astype(np.int64))


def _largest(p: Array, q: Array | None) -> NDArray[np.int64]:
    most = np.nan_to_num(p).max(axis=0)
    weight = most if q is None else np.fmax(most, q)
    return np.sort(np.argsort(-weight, kind="stable")[:MOST_DOMAINS])


def _order(gram: Any, domains: NDArray[np.int64], keys: list[Key], like: Sequence[Key]) -> Order:
    """Order by similarity of gradients; domains of the other run in the order they have there."""
    order = np.arange(len(domains))
    if gram is not None and len(gram):
        some = _spread(len(gram), max(1, _FOR_ORDER // max(len(domains), 1) ** 2))
        cells = np.ix_(domains, domains)
        order = domain_order({"gram": np.stack([_sane(gram[t])[cells] for t in some])})
    place = {key: i for i, key in enumerate(like)}
    # A stable sort: domains that only this run has keep the order of similarity.
    ordered = sorted(order, key=lambda i: place.get(keys[i], len(place)))
    return np.array(ordered, dtype=np.int64)


def _sane(gram: Any) -> Array:
    """NaN for what no product of gradients can be: infinities, and what overflows if squared."""
    gram = np.asarray(gram, dtype=np.float64)
    return np.where(np.abs(gram) < _HUGE, gram, np.nan)


def _scores(
    gram: Any, q: Array | None, at: NDArray[np.int64], domains: NDArray[np.int64]
) -> Array | None:
    if gram is None or q is None or not len(at):
        return None
    rows = []
    for t in at:
        sane = _sane(gram[t])
        score = np.nan_to_num(sane) @ q
        norm = float(np.linalg.norm(score))
        seen = np.isfinite(np.diagonal(sane))
        rows.append(np.where(seen, score / norm if norm else 0.0, np.nan)[domains])
    return np.array(rows)


def _noise(history: Any, gram: Any, at: NDArray[np.int64]) -> Array | None:
    floor = np.asarray(history.get("noise_floor", []), dtype=np.float64)
    if gram is None or not len(at) or floor.shape != np.shape(gram)[:2]:
        return None
    return as_floats([noise_share(_sane(gram[t]), floor[t]) for t in at])


def _training(run: Run) -> Array:
    steps, losses = training_loss(run).finite()
    some = _spread(len(steps), _MOST_TRAIN_POINTS)
    smoothed = smooth(losses) if len(losses) else losses
    return np.stack([steps[some], losses[some], smoothed[some]])


def _evaluations(run: Run, m: int) -> tuple[Array, Array]:
    rows = run.metrics("eval")  # once: a growing run has more of them the next time
    by_domain = np.full((len(rows), m), np.nan)
    for i, row in enumerate(rows):
        losses = as_floats(row.get("by_domain_token") or [])
        if len(losses) == m:
            by_domain[i] = losses
    return np.stack(eval_loss(rows)), by_domain


# ----------------------------------------------------------------------- what the browser gets


def run_payload(rounds: Rounds, label: str, ids: Sequence[int]) -> dict[str, Any]:
    """Pack one run for the widget; `ids` are its domains in the list of all domains."""
    sent = sent_rounds(rounds)
    pairs = [packed_gram(rounds.gram(t)) for t in sent]
    names = ("edges", "p", "q", "score", "noise", "effective", "train", "evaluation", "by_domain")
    arrays = {name: getattr(rounds, name) for name in names}
    return {
        "label": label,
        "unit": rounds.run.loss_unit,
        "ids": list(ids),
        "total": rounds.total,
        "gram": rounds.has_gram,
        "worst": rounds.worst,
        "effective_target": rounds.effective_target,
        "sent": sent.tolist(),
        "grams": b"".join(cosines for cosines, _ in pairs),
        "diagonals": b"".join(diagonal for _, diagonal in pairs),
        "places": rounds.round_indices.tolist() if len(rounds.notes) else [],
        **{name: b"" if a is None else packed(a, "f4") for name, a in arrays.items()},
    }


def sent_rounds(rounds: Rounds) -> NDArray[np.int64]:
    """Return the rounds whose matrix is sent at once: as many as fit, evenly spread."""
    if not rounds.has_gram:
        return np.zeros(0, dtype=np.int64)
    m = len(rounds.keys)
    return _spread(len(rounds.round_indices), max(2, GRAM_BYTES // (m * (m + 1) + 4 * m)))


def packed_gram(gram: Array) -> tuple[bytes, bytes]:
    """Upper triangle of G_ij / (n_i n_j) as float16, and the diagonal of G as float32.

    ``n_i`` is the square root of the diagonal, or 1 where that is not positive. From these the
    browser has cosines and inner products alike, whatever their magnitude.

    Examples
    --------
    >>> triangle, diagonal = packed_gram(np.array([[4.0, -2.0], [-2.0, 9.0]]))
    >>> np.frombuffer(triangle, "<f2").round(2), np.frombuffer(diagonal, "<f4")
    (array([ 1.  , -0.33,  1.  ], dtype=float16), array([4., 9.], dtype=float32))
    """
    diagonal = np.diagonal(gram)
    norm = np.sqrt(np.where(diagonal > 0, diagonal, 1.0))
    with np.errstate(over="ignore"):  # of damaged matrices: infinity is drawn as unseen
        cosines = (gram / np.outer(norm, norm))[np.triu_indices(len(gram))]
        return packed(cosines, "f2"), packed(diagonal, "f4")


class Together(NamedTuple):
    """One or two runs over one list of domains and one row of stops.

    `domains` has name and colour of each domain of either run, those of the first run first;
    `ids` the places of each run's domains in that list; `stops` (S,) the steps at which a round
    of either run ends; `shared` is the number of domains that both runs have.
    """

    domains: list[dict[str, str]]
    ids: list[list[int]]
    stops: Array
    shared: int


def together(runs: Sequence[Rounds]) -> Together:
    """Match domains by name and rounds by step."""
    colours: dict[Key, str] = {}
    for rounds in runs:
        palette = domain_colours(rounds.total)
        for key, i in zip(rounds.keys, rounds.domain_indices, strict=True):
            colours.setdefault(key, to_hex(palette[i]))  # those of the first run that has it
    keys = list(colours)
    place = {key: i for i, key in enumerate(keys)}
    domains = [{"name": key[0][:_LONGEST_NAME], "colour": colours[key]} for key in keys]
    ids = [[place[key] for key in rounds.keys] for rounds in runs]
    stops = np.unique(np.concatenate([rounds.edges[1:] for rounds in runs]))
    return Together(domains, ids, stops, sum(map(len, ids)) - len(keys) if len(runs) > 1 else 0)


def scales(runs: Sequence[Rounds]) -> dict[str, float]:
    """Largest colour of cosines and of inner products, over all rounds of all runs."""
    limits: dict[Kind, list[float]] = {"cosine": [], "raw": []}
    for rounds in runs:
        if rounds.has_gram:
            grams, _ = rounds.grams(_FOR_SCALE)
            for kind in limits:
                limits[kind].append(common_scale(values(grams, kind)))
    return {kind: max(each, default=1.0) for kind, each in limits.items()}


def notices(runs: Sequence[Rounds], labels: Sequence[str], shared: int) -> list[str]:
    """Say what a viewer must know of one run, or of two that share `shared` domains."""
    texts = []
    for rounds, label in zip(runs, labels, strict=True):
        of = f"{label}: " if len(runs) > 1 else ""
        texts += [of + note for note in rounds.notes]
        sent, n = len(sent_rounds(rounds)), len(rounds.round_indices)
        if rounds.has_gram and sent < n:
            texts.append(
                f"{of}{sent} of {n:,} Gram matrices are here (4 MB); the others come when the "
                "slider rests on them, while the kernel is free."
            )
    if len(runs) < 2:
        return texts
    first, second = runs
    if not len(first.keys) == len(second.keys) == shared:
        texts.append(
            f"The runs share {shared} of {len(first.keys)} and {len(second.keys)} domains, by "
            "name; differences are of these."
        )
    if not np.array_equal(first.edges, second.edges):
        ends = [f"{len(run.round_indices)} up to step {run.edges[-1]:,.0f}" for run in runs]
        texts.append(f"Rounds differ: {ends[0]}, and {ends[1]}. The slider goes by step.")
    return texts
