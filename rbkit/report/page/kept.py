"""A run as the page sees it: looked at once, so that all parts of the page agree, and in order.

Run folders may be damaged, or written by a stranger: what does not make sense is left out
here, so that nothing after this has to ask.
"""

from __future__ import annotations

import warnings
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from rbkit.errors import InputError, RbkitWarning
from rbkit.show.facts import RunLike
from rbkit.text import clean

_MAPPINGS = ("parameters", "domains", "corpus", "ledger", "versions", "final", "model", "progress")
_COLUMNS = ("seconds", "flops_counted", "flops_modelled", "bytes", "calls")
_BY_ROUND = ("gram", "counts", "noise_floor", "diagonal_debiased")
_EXACT = 2**53  # integers beyond are not exact as numbers of JSON, nor do they fit a table


class Kept:
    """What a run said when the page was begun; its evaluations are read once, not ten times.

    Parameters
    ----------
    run : RunLike
        A run, or a run of a sweep, which has a ``job`` besides.
    """

    def __init__(self, run: RunLike) -> None:
        self._run = run
        self.path: Path = Path(run.path)
        self.status: str = run.status  # before the numbers: they may only be newer
        self.info = _orderly(clean(dict(run.info or {})))
        self.job: dict[str, Any] | None = getattr(run, "job", None)

    @cached_property
    def _evaluated(self) -> list[dict[str, Any]]:
        return _records(self._run.metrics("eval"))

    def metrics(self, kind: str) -> list[dict[str, Any]]:
        """Rows of one kind. Those of training are many, and asked for once: they are not kept."""
        return self._evaluated if kind == "eval" else _records(self._run.metrics(kind))

    @cached_property
    def history(self) -> dict[str, Any]:
        """Arrays by round; none if their shapes do not fit each other."""
        history = dict(self._run.history)
        if history and not _fits(history):
            warnings.warn(
                f"{self.path / 'history.npz'}: arrays that do not fit each other, "
                "left out of the report",
                RbkitWarning,
                stacklevel=2,
            )
            return {}
        return history

    @cached_property
    def domains(self) -> Any:
        """The domains of the run, or None; a damaged file is told of."""
        try:
            found = self._run.domains
        except (InputError, OSError) as error:
            warnings.warn(f"domains left out of the report: {error}", RbkitWarning, stacklevel=2)
            return None
        if found is not None:  # half a character in a name is more than a figure can draw
            found.names = [name.encode("utf-8", "replace").decode() for name in found.names]
        return found

    def __repr__(self) -> str:
        return f"Kept({self._run!r})"


def _orderly(info: dict[str, Any]) -> dict[str, Any]:
    """Return ``run.json`` with mappings where mappings belong, and numbers where numbers do."""
    for name in _MAPPINGS:
        if not isinstance(info.get(name), dict):
            info[name] = {}
    if isinstance(info["parameters"].get("mixer"), str):  # it names lines in every figure
        info["parameters"]["mixer"] = info["parameters"]["mixer"][:40]
    entries = info["ledger"].get("entries")
    kept = [
        {**e, "name": e["name"][:60], **{c: _number(e.get(c)) for c in _COLUMNS}}
        for e in (entries if isinstance(entries, list) else [])
        if isinstance(e, dict) and isinstance(e.get("name"), str)
    ]
    info["ledger"] = {**info["ledger"], "entries": kept}
    domains = info["domains"]
    names = domains.get("names")
    domains["names"] = [str(name) for name in names] if isinstance(names, list) else []
    q = domains.get("q")
    if not isinstance(q, list) or None in map(_number, q):
        domains.pop("q", None)
    info["final"] = _record(info["final"])
    losses = info["final"].get("by_domain_token") or []
    if losses and len(losses) != len(domains["names"]):  # nobody knows whose they are
        domains["names"] = [f"domain {i}" for i in range(len(losses))]
    return info


def _records(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        _record(row)
        for row in rows
        if isinstance(row, dict) and isinstance(row.get("step"), int) and abs(row["step"]) < _EXACT
    ]


def _record(row: dict[str, Any]) -> dict[str, Any]:
    """Return a record whose losses are numbers, or lists of numbers, or None."""
    found = dict(row)
    for name, what in row.items():
        if name.startswith("by_domain"):
            found[name] = [_number(v) for v in what] if isinstance(what, list) else []
        elif name.startswith("loss"):
            found[name] = _number(what)
    return found


def _number(what: Any) -> Any:
    """Return a finite number as it is (if huge, as a float), everything else as None."""
    if not isinstance(what, int | float) or isinstance(what, bool) or not abs(what) < 1e300:
        return None
    return what if abs(what) < _EXACT else float(what)


def _fits(history: dict[str, Any]) -> bool:
    """Whether the arrays of a history are of the same rounds and the same domains."""
    p = np.asarray(history.get("p", np.empty((0, 0))))
    step = np.asarray(history.get("step", np.empty(0)))
    numbers = all(np.asarray(a).dtype.kind in "fiub" for a in history.values())
    if not numbers or p.ndim != 2 or step.ndim != 1 or (len(step) and len(p) < len(step)):
        return False
    m = p.shape[1]
    for name in _BY_ROUND:
        array = np.asarray(history.get(name, np.empty((0, m))))
        if len(array.shape) < 2 or set(array.shape[1:]) != {m} or len(array) > len(step):
            return False
    gram, q = np.asarray(history.get("gram", np.empty((0, m, m)))), history.get("q")
    return gram.ndim == 3 and (q is None or np.asarray(q).shape == (m,))
