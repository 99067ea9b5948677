"""A run's rounds on their way to the browser: numbers as bytes, and how many of them.

A Gram matrix travels as the upper triangle of its cosines in half precision and its diagonal in
single: from these the browser has cosines and inner products alike, whatever their magnitude.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rbkit.show.facts import Array
from rbkit.show.gram_figure import common_scale, to_cosine
from rbkit.show.scrub.rounds import Key, Rounds
from rbkit.show.style import domain_colours
from rbkit.show.widgets.wire import packed

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
        "edges": rounds.edges, "p": rounds.p, "q": rounds.q, "score": rounds.score,
        "noise": rounds.noise, "effective": rounds.effective, "train": rounds.train,
        "evaluation": rounds.evaluation, "by_domain": rounds.by_domain,
    }  # fmt: skip
    return {
        "label": label, "status": rounds.run.status, "ids": list(ids), "total": rounds.total,
        "gram": rounds.has_gram, "worst": rounds.worst, "sent": sent.tolist(),
        "grams": b"".join(triangle for triangle, _ in pairs),
        "diagonals": b"".join(diagonal for _, diagonal in pairs),
        "places": rounds.at.tolist() if len(rounds.notes) else [],
        **{name: b"" if a is None else packed(a, "f4") for name, a in arrays.items()},
    }  # fmt: skip


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
