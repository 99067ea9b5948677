"""The log of a regroup made by hand: plain JSON that papermill can replay.

A log begins with a cut of the corpus (clusterer, parameters, seed) and goes on with what a
person did: merge, split, move, rename, drop, noise. With the same corpus and embedder it
gives the same domains; the end states of both are compared, and a difference is told.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rbkit.errors import InputError
from rbkit.files import fingerprint, read_json, write_json
from rbkit.regroup.domains_io import plain
from rbkit.regroup.operations import HAND, describe

FORMAT = "rbkit-edits/1"
_REMEDY = "save it again from the explorer, or repair it"


@dataclass
class EditLog:
    """How domains were made, from the first cut to the last edit.

    Attributes
    ----------
    ops : list of dict
        ``{"op": "cut", "method", ...}`` first, then one dict per edit.
    embedder : dict
        ``{"name", ...}``: class and parameters of the embedder.
    corpus : str
        Fingerprint of the corpus.
    result : dict
        ``{"labels", "sizes", "names"}`` at the end: what a replay is compared with.

    Examples
    --------
    >>> log = EditLog([{"op": "cut", "method": "ward", "k": 8}, {"op": "drop", "domain": 2}])
    >>> print(log)
    1. hierarchy: 8 domains
    2. drop domain 2
    """

    ops: list[dict[str, Any]]
    embedder: dict[str, Any] = field(default_factory=dict)
    corpus: str = ""
    result: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.ops, list) or not self.ops:
            raise InputError("edits", "there are no operations", "begin with a cut")
        for at, op in enumerate(self.ops):
            kind = op.get("op") if isinstance(op, Mapping) else op
            if kind != "cut" and not (isinstance(kind, str) and kind in HAND):
                known = ", ".join(["cut", *HAND])
                raise InputError(f"edits, step {at + 1}", f"{kind!r} is unknown", f"use {known}")
        if self.ops[0]["op"] != "cut":
            raise InputError("edits", "the first operation is no cut", "begin with a cut")

    def save(self, path: str | Path) -> Path:
        """Write the log as JSON, whole or not at all."""
        write_json(path, self.to_dict())
        return Path(path)

    @classmethod
    def load(cls, path: str | Path) -> EditLog:
        """Read a log: a file that :meth:`save` wrote, or a folder of saved domains.

        Raises
        ------
        InputError
            No such file, or not a log.
        """
        path = Path(path)
        if path.is_dir():
            header = path / "domains.json"
            facts = read_json(header) if header.is_file() else {}
            found = facts.get("method", {}).get("edits") if isinstance(facts, dict) else None
            if not found:
                raise InputError(str(path), "no domains with a log there", "give a log's file")
            return cls.of(found, str(header))
        if not path.is_file():
            raise InputError(str(path), "no such file", "give a log saved by the explorer")
        return cls.of(read_json(path), str(path))

    @classmethod
    def of(cls, facts: Any, where: str = "edits") -> EditLog:
        """Make a log of what JSON says; `where` names it in errors."""
        if not isinstance(facts, Mapping) or facts.get("format") != FORMAT:
            raise InputError(where, f"not of the format {FORMAT}", _REMEDY)
        try:
            return cls(
                [dict(op) for op in facts["ops"]], dict(facts.get("embedder", {})),
                str(facts.get("corpus", "")), dict(facts.get("result", {})),
            )  # fmt: skip
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(where, f"not what was saved ({error!r})", _REMEDY) from error

    def to_dict(self) -> dict[str, Any]:
        """Return the log as plain JSON values."""
        facts = {"format": FORMAT, "corpus": self.corpus, "embedder": self.embedder,
                 "ops": self.ops, "result": self.result}  # fmt: skip
        found: dict[str, Any] = plain(facts)
        return found

    @property
    def by_hand(self) -> int:
        """Number of operations after the first cut."""
        return len(self.ops) - 1

    def __str__(self) -> str:
        return "\n".join(f"{at}. {describe(op)}" for at, op in enumerate(self.ops, start=1))


def result_of(labels: NDArray[np.integer[Any]], names: Sequence[str]) -> dict[str, Any]:
    """Describe an end state: a hash of the labels, sizes and names.

    Examples
    --------
    >>> result_of(np.array([0, 1, 1]), ["a", "b"])["sizes"]
    [1, 2]
    """
    inside = labels[labels >= 0]
    return {
        "labels": fingerprint(np.ascontiguousarray(labels, dtype="<i4").tobytes()),
        "sizes": np.bincount(inside, minlength=len(names)).tolist(),
        "names": list(names),
    }


def noise_policy(ops: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the policy in force: that of the cut, or of the last operation on noise."""
    found: dict[str, Any] = {"policy": "nearest", "max_noise": None}
    for op in ops:
        if op["op"] == "cut":
            found = {"policy": op.get("noise") or "nearest", "max_noise": op.get("max_noise")}
        elif op["op"] == "noise":
            found = {"policy": op.get("policy"), "max_noise": op.get("max_noise")}
    return found
