"""Edits of domains: merge, split, move, rename, drop, settle noise, refine; and their log.

Each operation is a function of a grouping, its material and plain JSON values; it returns a
new grouping and changes nothing. So a session can be undone, and replayed.
"""

from __future__ import annotations

import base64
import unicodedata
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from rbkit.errors import InputError, as_count
from rbkit.files import fingerprint, json_ready, own, read_json, regular, saving, write_json
from rbkit.regroup.domains import NOISE_POLICIES
from rbkit.regroup.grouping import Grouping, means
from rbkit.regroup.kmeans import KMeans, assign
from rbkit.regroup.noise import settle_noise
from rbkit.regroup.preparation import Material
from rbkit.text import one_line

_LONGEST_NAME = 200
_DIRECTION_MARKS = "\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"


def merge(
    now: Grouping, material: Material, *, domains: Sequence[int], name: str | None = None
) -> Grouping:
    """Make one domain of several; it takes the lowest number."""
    chosen = sorted({_domain(now, at) for at in domains})
    if len(chosen) < 2:
        raise InputError("merge", f"{len(chosen)} domain given", "choose at least two domains")
    names = list(now.names)
    # Under several names the new domain needs a new one: from its terms, unless given.
    names[chosen[0]] = _name(now, name, free=chosen) if name is not None else None
    owners = np.where(np.isin(now.owners, chosen), chosen[0], now.owners)
    noise_domain = None if now.noise_domain in chosen else now.noise_domain
    return replace(
        now, owners=owners.astype(np.int32), names=tuple(names), noise_domain=noise_domain
    ).compact()


def split(
    now: Grouping, material: Material, *, domain: int, parts: int = 2, seed: int = 0
) -> Grouping:
    """Cut one domain into `parts` by k-means; the parts take its place and the next numbers."""
    domain, parts = _domain(now, domain), as_count("parts", parts)
    rows = now.members(domain)
    if not 2 <= parts <= len(rows):
        what = f"{parts} parts of a domain of {len(rows)} examples"
        raise InputError("split", what, f"choose 2 to {len(rows)}")
    X = np.asarray(material.train[rows], dtype=np.float32)
    labels = KMeans(parts, seed=seed).fit(X).labels_
    if (filled := len(np.unique(labels))) < parts:
        what = f"the domain's examples have only {filled} different vectors"
        remedy = f"choose {filled} parts" if filled > 1 else "leave it whole"
        raise InputError("split", what, remedy)
    later = now.owners > domain
    owners = np.where(later, now.owners + parts - 1, now.owners).astype(np.int32)
    names = (*now.names[:domain], *[None] * parts, *now.names[domain + 1 :])
    noise = now.noise_domain
    if noise is not None:  # its parts are domains like others
        noise = None if noise == domain else noise + (parts - 1) * (noise > domain)
    moved = replace(now, owners=owners, names=names, noise_domain=noise).with_cells(
        material.train, labels, rows, range(domain, domain + parts)
    )
    touched = now.owners == domain
    return moved.compact().place_eval(material.eval, touched)


def move(
    now: Grouping,
    material: Material,
    *,
    rows: Any,
    to: int | None = None,
    name: str | None = None,
) -> Grouping:
    """Move training examples to a domain, or (`to` is None) to a new one at the end."""
    n = len(now.cells)
    at = unpack(rows, n) if isinstance(rows, str) else selected(rows, n)
    if not len(at):
        raise InputError("move", "no examples are selected", "select some on the map")
    names = now.names
    if to is None:
        to = now.m
        names = (*now.names, None if name is None else _name(now, name))
    else:
        to = _domain(now, to)
    touched = np.zeros(len(now.owners), dtype=bool)
    touched[np.unique(now.cells[at][now.cells[at] >= 0])] = True
    moved = replace(now, names=names).with_cells(
        material.train, np.zeros(len(at), dtype=np.int32), at, [to]
    )
    return moved.compact().place_eval(material.eval, touched)


def rename(now: Grouping, material: Material, *, domain: int, name: str) -> Grouping:
    """Name a domain; an empty name goes back to its terms."""
    domain = _domain(now, domain)
    names = list(now.names)
    names[domain] = _name(now, name, free=[domain]) if str(name).strip() else None
    return replace(now, names=tuple(names))


def drop(now: Grouping, material: Material, *, domain: int) -> Grouping:
    """Leave a domain out of training; its eval examples go to the nearest of the others."""
    domain = _domain(now, domain)
    if now.m == 1:
        raise InputError("drop", "it is the only domain", "keep at least one")
    touched = now.owners == domain
    owners = np.where(touched, -1, now.owners).astype(np.int32)
    # Dropped examples are no longer noise: a later noise policy must not bring them back.
    noise = None if now.noise is None else now.noise & (now.labels != domain)
    dropped = replace(now, owners=owners, noise=noise)
    return dropped.compact().place_eval(material.eval, touched)


def settle(
    now: Grouping, material: Material, *, policy: str = "nearest", max_noise: float | None = None
) -> Grouping:
    """Treat what the clusterer left as noise by another policy (:func:`settle_noise`)."""
    if now.noise is None or not now.noise.any():
        raise InputError("noise", "this grouping has no noise", "cut with HDBSCAN to get some")
    cells = now.cells.copy()
    cells[now.noise] = -1
    bare = replace(now, cells=cells, noise_domain=None).compact()
    outcome = settle_noise(
        bare.labels, material.train, policy, max_noise=max_noise, noise=now.noise
    )
    return with_noise(bare, material, outcome, policy)


def with_noise(bare: Grouping, material: Material, outcome: Any, policy: str) -> Grouping:
    """Put noise into domains as :func:`settle_noise` decided; in `bare` it has no cell."""
    assert bare.noise is not None
    labels, noise = outcome.labels, bare.noise
    cells = bare.cells.copy()
    joined = np.flatnonzero(noise & (labels >= 0) & (labels < bare.m))
    if len(joined):  # to the nearest cell, whose centre stays that of its dense examples
        live = bare.live
        X = np.asarray(material.train[joined], dtype=np.float32)
        cells[joined] = live[assign(X, bare.centers[live])[0]]
    made = replace(bare, cells=cells)
    own = np.flatnonzero(noise & (labels >= bare.m))
    if len(own):
        free = (f"noise ({nth})" if nth > 1 else "noise" for nth in range(1, made.m + 2))
        name = next(name for name in free if name not in made.names)
        made = replace(made, names=(*made.names, name), noise_domain=made.m)
        made = made.with_cells(material.train, np.zeros(len(own), int), own, [made.m - 1])
        made = replace(made, noise=noise)
    return made.place_eval(material.eval)


def refine(now: Grouping, material: Material) -> Grouping:
    """Run k-means from the means of the domains: the partition becomes k-means' own.

    A cut of the hierarchy is made of whole micro-clusters; this moves the examples between
    them. Domains keep their numbers and names.
    """
    X = np.ascontiguousarray(material.train, dtype=np.float32)
    engine: Any = faiss.Kmeans(
        X.shape[1],
        now.m,
        niter=25,
        seed=1,
        max_points_per_centroid=len(X),
        min_points_per_centroid=1,
    )
    inside = now.labels >= 0  # dropped examples stay out
    engine.train(X[inside], init_centroids=means(X, now.labels, now.m))
    labels = np.full(len(X), -1, dtype=np.int32)
    labels[inside] = assign(X[inside], np.array(engine.centroids))[0]
    return Grouping.of(labels, X, material.eval, m=now.m, names=now.names)


EDITS: dict[str, Callable[..., Grouping]] = {
    "merge": merge,
    "split": split,
    "move": move,
    "rename": rename,
    "drop": drop,
    "noise": settle,
    "refine": refine,
}


def selected(rows: Any, n: int) -> NDArray[np.int64]:
    """Return the sorted numbers of the rows, of `n`, that a person selected.

    Parameters
    ----------
    rows : sequence, array, Series or tensor
        Row numbers, or a boolean mask of length `n`.

    Raises
    ------
    InputError
        Anything else: numbers with a fraction, text, a mask of another length or order, rows
        that there are not.

    Examples
    --------
    >>> selected([4, 2, 4], 5).tolist(), selected([False, True, True], 3).tolist()
    ([2, 4], [1, 2])
    """
    remedy = f"give whole numbers from 0 to {n - 1}, or a mask of {n} booleans"
    shown = " ".join(str(rows).split())[:40]
    index = getattr(rows, "index", None)  # of a Series: a mask in another order means other rows
    if hasattr(rows, "detach"):
        rows = rows.detach().cpu()
    given = np.asarray(rows if hasattr(rows, "__array__") else _items(rows, shown, remedy))
    if given.dtype == object:  # a list, or a Series that may hold missing values
        booleans = [isinstance(value, bool | np.bool_) for value in given.ravel()]
        if all(booleans):
            given = given.astype(bool)
        else:
            counts = [as_count("rows", value, least=None, remedy=remedy) for value in given.ravel()]
            given = np.array(counts, dtype=object).reshape(given.shape)
    elif given.dtype.kind not in "biu":
        raise InputError("rows", f"{shown} are not row numbers", remedy)
    if given.ndim != 1:
        raise InputError("rows", f"{shown} has {given.ndim} dimensions", remedy)
    if given.dtype == bool:
        if len(given) != n:
            what = f"a mask of {len(given)} booleans for {n} training examples"
            raise InputError("rows", what, remedy)
        if hasattr(index, "equals") and not np.array_equal(np.asarray(index), np.arange(n)):
            what = "a mask whose index is not 0, 1, 2, ..."
            raise InputError("rows", what, "sort it as the training examples are; .to_numpy()")
        return np.flatnonzero(given)
    if outside := [int(row) for row in (given.min(initial=0), given.max(initial=0)) if row]:
        outside = [row for row in outside if not 0 <= row < n]
    if outside:
        raise InputError("move", f"row {outside[0]} of {n} training examples", remedy)
    return np.unique(given.astype(np.int64))


def _items(rows: Any, shown: str, remedy: str) -> NDArray[Any]:
    """Return the items of a sequence as they are: numpy makes 1 of a True among numbers."""
    if isinstance(rows, str | bytes | Mapping) or not hasattr(rows, "__iter__"):
        raise InputError("rows", f"{shown} are not row numbers", remedy)
    rows = list(rows)
    if any(isinstance(row, float) for row in rows):
        raise InputError("rows", f"{shown} are not row numbers", remedy)
    items = np.empty(len(rows), dtype=object)
    items[:] = [row.item() if getattr(row, "ndim", 1) == 0 else row for row in rows]
    return items


def pack(rows: NDArray[np.integer[Any]] | Sequence[int]) -> str:
    """Write rows as ranges: short where they are neighbours, and readable in a diff.

    Examples
    --------
    >>> pack([3, 4, 5, 9]), unpack("3-5,9", n=10).tolist()
    ('3-5,9', [3, 4, 5, 9])
    """
    at = np.unique(np.asarray(rows, dtype=np.int64))
    if not len(at):
        return ""
    breaks = np.flatnonzero(np.diff(at) > 1)
    firsts, lasts = at[np.append(0, breaks + 1)], at[np.append(breaks, len(at) - 1)]
    return ",".join(f"{a}" if a == b else f"{a}-{b}" for a, b in zip(firsts, lasts, strict=True))


def unpack(ranges: str, n: int) -> NDArray[np.int64]:
    """Read rows, of `n`, that :func:`pack` wrote."""
    chosen = np.zeros(n, dtype=bool)
    for first, last in _spans(ranges):
        if last >= n:  # before anything of that size is made: the text may come from a stranger
            what = f"row {last} of {n} training examples"
            raise InputError("rows", what, "give rows of the train split")
        chosen[first : last + 1] = True
    return np.flatnonzero(chosen)


def _spans(ranges: str) -> list[tuple[int, int]]:
    """Return first and last row of each range in ``"3-5,9"``."""
    spans = []
    for part in filter(None, ranges.split(",")):
        first, _, last = part.partition("-")
        if not (first.isdecimal() and (last or first).isdecimal() and len(part) < 40):
            raise InputError("rows", f"{part[:40]!r} is not a range", "write 3-5,9")
        spans.append((int(first), int(last or first)))
    return spans


def pack_labels(labels: NDArray[np.integer[Any]]) -> str:
    """Write a label per example as compressed text, for a log.

    Examples
    --------
    >>> unpack_labels(pack_labels(np.array([0, 2, -1])), 3).tolist()
    [0, 2, -1]
    """
    raw = np.ascontiguousarray(labels, dtype="<i4").tobytes()
    return base64.b64encode(zlib.compress(raw, 9)).decode("ascii")


def unpack_labels(packed: str, n: int) -> NDArray[np.int32]:
    """Read the labels of `n` examples that :func:`pack_labels` wrote."""
    try:
        # Never more than n labels: the text may come from a stranger.
        raw = zlib.decompressobj().decompress(base64.b64decode(packed, validate=True), 4 * n + 4)
    except (ValueError, zlib.error) as error:
        raise InputError("labels", f"cannot be read ({error})", "save the log again") from None
    if len(raw) != 4 * n:
        what = f"{len(raw) // 4} or more labels for {n} examples"
        raise InputError("labels", what, "use the log with its own corpus")
    return np.frombuffer(raw, dtype="<i4").astype(np.int32)


def describe(op: Mapping[str, Any]) -> str:
    """Describe an operation in words, for a log and for the undo button.

    Examples
    --------
    >>> describe({"op": "rename", "domain": 3, "name": "war", "names": ["army"]})
    'rename army to war'
    """
    try:
        return one_line(_cut_in_words(op) if op["op"] == "cut" else _edit_in_words(op))
    except (TypeError, ValueError, KeyError, AttributeError):  # a log that somebody wrote by hand
        return one_line(f"{op.get('op')}, with parameters that it does not have")


def _cut_in_words(op: Mapping[str, Any]) -> str:
    method = str(op.get("method"))
    if method == "hdbscan":
        return f"HDBSCAN, at least {op.get('min_cluster_size') or 'n/200'} examples a domain"
    if method == "column":
        return f"column {op.get('column')}"
    if method in ("sources", "labels"):
        return method
    title = {"ward": "hierarchy", "kmeans": "k-means"}.get(method, method)
    return f"{title}: {op.get('k')} domains"


def _edit_in_words(op: Mapping[str, Any]) -> str:
    kind = op["op"]
    names = " + ".join(str(name) for name in op.get("names", []))
    names = names or f"domain {op.get('domain', '')}".strip()
    match kind:
        case "move":
            rows = op["rows"]
            spans = _spans(rows) if isinstance(rows, str) else [(1, len(rows))]
            count = sum(last - first + 1 for first, last in spans)
            new = f"a new domain {op.get('name') or ''}"
            return (
                f"move {count:,} examples to {names if op.get('to') is not None else new}".strip()
            )
        case "noise":
            limit = op.get("max_noise")
            most = "" if limit is None else f", at most {limit:.0%} left"
            return f"noise: {NOISE_POLICIES.get(op.get('policy', 'nearest'), '?')}{most}"
        case "rename":
            return f"rename {names} to {op.get('name') or 'its terms'}"
        case "split":
            return f"split {names} into {op.get('parts', 2)}"
        case "refine":
            return "refine with k-means"
    return f"{kind} {names}"


def _domain(now: Grouping, at: Any) -> int:
    remedy = f"give 0 to {now.m - 1}"
    number = as_count("domain", at, least=None, remedy=remedy)
    if not 0 <= number < now.m:
        raise InputError("domain", f"{at!r} is not one of the {now.m}", remedy)
    return number


def _name(now: Grouping, name: str, free: Sequence[int] = ()) -> str:
    # Control and direction marks could hide a name, or reverse the text next to it; the
    # joiners that make one emoji of several may stay.
    clean = "".join(
        " " if c in _DIRECTION_MARKS or unicodedata.category(c) in ("Cc", "Cs") else c
        for c in str(name)
    )
    clean = " ".join(clean.split())
    if not clean or len(clean) > _LONGEST_NAME:
        what = "it is empty" if not clean else f"{len(clean)} characters"
        raise InputError("name", what, f"give 1 to {_LONGEST_NAME} characters")
    others = {now.names[at] for at in range(now.m) if at not in free}
    if clean in others:
        raise InputError("name", f"{clean!r} is taken", "give every domain its own name")
    return clean


_FORMAT = "rbkit-edits/1"
_REMEDY = "save it again from the explorer, or repair it"


@dataclass
class EditLog:
    """How domains were made, from the first cut to the last edit.

    It is plain JSON, which a batch job can replay. With the same corpus and embedder it gives the
    same domains; a replay compares its end with the recorded one and warns of a difference.

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
            if kind != "cut" and not (isinstance(kind, str) and kind in EDITS):
                remedy = f"use {', '.join(['cut', *EDITS])}"
                raise InputError(f"edits, step {at + 1}", f"{kind!r} is unknown", remedy)
        if self.ops[0]["op"] != "cut":
            raise InputError("edits", "the first operation is not a cut", "begin with a cut")

    def save(self, path: str | Path) -> Path:
        """Write the log as JSON, whole or not at all."""
        with saving(path):
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
        path = regular(path, or_folder=True)
        if path.is_dir():
            header = own(path, "domains.json")
            facts = read_json(header) if header.is_file() else {}
            method = facts.get("method") if isinstance(facts, dict) else None
            edits = method.get("edits") if isinstance(method, dict) else None
            if not edits:
                raise InputError(str(path), "no domains with a log there", "give a log's file")
            return cls.of(edits, str(header))
        if not path.is_file():
            raise InputError(str(path), "no such file", "give a log saved by the explorer")
        return cls.of(read_json(path), str(path))

    @classmethod
    def of(cls, facts: Any, where: str = "edits") -> EditLog:
        """Make a log from JSON values; `where` names it in errors."""
        if not isinstance(facts, Mapping) or facts.get("format") != _FORMAT:
            raise InputError(where, f"not of the format {_FORMAT}", _REMEDY)
        try:
            return cls(
                [dict(op) for op in facts["ops"]],
                dict(facts.get("embedder", {})),
                str(facts.get("corpus", "")),
                dict(facts.get("result", {})),
            )
        except InputError:
            raise
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(where, f"damaged ({error!r})", _REMEDY) from error

    def to_dict(self) -> dict[str, Any]:
        """Return the log as plain JSON values."""
        facts = {
            "format": _FORMAT,
            "corpus": self.corpus,
            "embedder": self.embedder,
            "ops": self.ops,
            "result": self.result,
        }
        as_json: dict[str, Any] = json_ready(facts)
        return as_json

    @property
    def by_hand(self) -> int:
        """Number of operations after the first cut."""
        return len(self.ops) - 1

    def __str__(self) -> str:
        return "\n".join(f"{at}. {describe(op)}" for at, op in enumerate(self.ops, start=1))


def result_of(labels: NDArray[np.integer[Any]], names: Sequence[str]) -> dict[str, Any]:
    """Describe an end state: a hash of the labels, sizes and names."""
    inside = labels[labels >= 0]
    return {
        "labels": fingerprint(np.ascontiguousarray(labels, dtype="<i4").tobytes()),
        "sizes": np.bincount(inside, minlength=len(names)).tolist(),
        "names": list(names),
    }


def noise_policy(ops: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the policy in force: that of the cut, or of the last operation on noise."""
    policy: dict[str, Any] = {"policy": "nearest", "max_noise": None}
    for op in ops:
        if op["op"] == "cut":
            policy = {"policy": op.get("noise") or "nearest", "max_noise": op.get("max_noise")}
        elif op["op"] == "noise":
            policy = {"policy": op.get("policy"), "max_noise": op.get("max_noise")}
    return policy
