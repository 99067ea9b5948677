"""What trackers are told of a run: its record as named numbers, step by step.

Names follow the habit of ``transformers``: ``train/loss``, ``eval/loss``, and below ``rb/``
what a mixture adds to it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

DOMAINS_BY_NAME = 100  # of more domains the largest: nobody reads a list of a thousand curves
_LONGEST = 80  # characters of a name; some trackers refuse more than 250 in all
_TRAIN = {"loss": "train/loss", "lr": "train/learning_rate", "examples": "train/examples"}
_EVAL = {"loss_token": "eval/loss", "loss_example": "eval/loss_per_example"}
_FIDELITY = {"correlation": "rb/fidelity", "tv": "rb/fidelity_distance"}


def tag_names(names: Sequence[str]) -> list[str]:
    """Names of domains as trackers take them: letters, digits, ``_``, ``-`` and ``.``.

    If two then look the same, all get their number in front.

    Examples
    --------
    >>> tag_names(["c++", "c#", "film/tv"])
    ['00_c', '01_c', '02_film_tv']
    """
    clean = [re.sub(r"[^\w.-]+", "_", name).strip("_")[:_LONGEST] for name in names]
    if all(clean) and len(set(clean)) == len(clean):
        return clean
    return [f"{i:02d}_{name}".rstrip("_") for i, name in enumerate(clean)]


class TrackedValues:
    """Turn rows and rounds of a record into numbers with names.

    Parameters
    ----------
    info : mapping
        ``run.json``.

    Examples
    --------
    >>> values = TrackedValues({"domains": {"names": ["code", "film"]}})
    >>> row = {"kind": "eval", "loss_token": 3.0, "by_domain_token": [2.5, None]}
    >>> values.row(row)
    {'eval/loss': 3.0, 'eval/loss/code': 2.5, 'eval/loss_worst': 2.5}
    """

    def __init__(self, info: Mapping[str, Any]) -> None:
        domains = info.get("domains") or {}
        self.tags = tag_names([str(name) for name in domains.get("names") or []])
        size = np.asarray(domains.get("sizes") or [], dtype=np.float64)
        if len(size) != len(self.tags):
            size = np.zeros(len(self.tags))
        shown = np.argsort(-size, kind="stable")[:DOMAINS_BY_NAME]
        self._shown = np.sort(shown)

    def row(self, row: Mapping[str, Any]) -> dict[str, float]:
        """Numbers of one line of ``metrics.jsonl``."""
        kind = row.get("kind")
        if kind == "train":
            return _named(row, _TRAIN)
        if kind == "fidelity":
            return _named(row, _FIDELITY)
        if kind != "eval":
            return {}
        found = _named(row, _EVAL)
        by_domain = [_finite(v) for v in row.get("by_domain_token") or []]
        found |= self._by_domain("eval/loss", by_domain)
        if known := [v for v in by_domain if v is not None]:
            found["eval/loss_worst"] = max(known)
        return found

    def round(self, history: Mapping[str, NDArray[Any]], t: int) -> dict[str, float]:
        """Numbers of round `t`: the p that it was made of, and the Gram matrix at its end."""
        found: dict[str, float] = {}
        p = history.get("p", np.empty(0))
        if t < len(p):
            found |= self._by_domain("rb/p", [_finite(v) for v in p[t]])
            if np.isfinite(p[t]).all():  # else nobody told
                found["rb/effective_domains"] = effective_domains(p[t])
        gram = history.get("gram", np.empty(0))
        if len(gram) == len(history["step"]):  # else it cannot be said whose they are
            found |= _of_gram(gram[t])
            floor = history.get("noise_floor", np.empty(0))
            if len(floor) == len(gram):
                share = noise_share(gram[t], floor[t])
                found |= {} if share is None else {"rb/noise_share": share}
        return found

    def _by_domain(self, group: str, values: Sequence[float | None]) -> dict[str, float]:
        if len(values) != len(self.tags):
            return {}
        pairs = ((self.tags[i], values[i]) for i in self._shown)
        return {f"{group}/{tag}": value for tag, value in pairs if value is not None}


def hyperparameters(info: Mapping[str, Any]) -> dict[str, bool | int | float | str]:
    """Parameters of a run, flat and in the types that every tracker takes.

    Examples
    --------
    >>> hyperparameters({"parameters": {"k": [8, 12], "mixer_options": {"lam": 3.0}}})
    {'k': '[8, 12]', 'mixer_options.lam': 3.0}
    """
    found = _flat(info.get("parameters") or {})
    if names := (info.get("domains") or {}).get("names"):
        found["n_domains"] = len(names)
    if rbkit := (info.get("versions") or {}).get("rbkit"):
        found["rbkit"] = str(rbkit)
    return found


def effective_domains(p: NDArray[Any]) -> float:
    """Effective number of domains exp(H(p)) of proportions p, shape (m,)."""
    p = np.asarray(p, dtype=np.float64)
    p = p[p > 0]
    return float(np.exp(-(p * np.log(p)).sum()))


def noise_share(gram: NDArray[Any], noise_floor: NDArray[Any]) -> float | None:
    """Share of the diagonal of G (m, m) that is noise of the examples drawn; None if unknown."""
    diagonal = np.diagonal(np.asarray(gram, dtype=np.float64))
    floor = np.asarray(noise_floor, dtype=np.float64)
    known = np.isfinite(diagonal) & np.isfinite(floor)
    whole = float(diagonal[known].sum())
    return float(floor[known].sum()) / whole if whole > 0 else None


def _of_gram(gram: NDArray[Any]) -> dict[str, float]:
    seen = np.isfinite(np.diagonal(gram))
    G = np.asarray(gram, dtype=np.float64)[np.ix_(seen, seen)]
    if not G.size or not np.isfinite(G).all():
        return {}
    return {"rb/gram_min_eig": float(np.linalg.eigvalsh(G)[0]), "rb/gram_trace": float(np.trace(G))}


def _named(row: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, float]:
    found = ((name, _finite(row.get(key))) for key, name in names.items())
    return {name: value for name, value in found if value is not None}


def _finite(value: Any) -> float | None:
    known = isinstance(value, int | float | np.number) and np.isfinite(value)
    return float(value) if known else None


def _flat(values: Mapping[str, Any], above: str = "") -> dict[str, bool | int | float | str]:
    found: dict[str, bool | int | float | str] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{above}{key}.")
        elif value is not None:
            plain = isinstance(value, bool | int | float)
            found[f"{above}{key}"] = value if plain else str(value)[:250]
    return found
