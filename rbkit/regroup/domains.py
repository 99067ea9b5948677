"""The product of Regroup: which example is in which domain, and what each domain is about."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from html import escape
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import ArrayLike, NDArray

from rbkit.errors import InputError, RbkitWarning
from rbkit.files import atomic_path, json_ready, read_json, sha256_of_file, write_json
from rbkit.regroup.prepare import Material

_CSS = (
    "<style>table.rbkit-domains{border-collapse:collapse;font:13px/1.5 system-ui,sans-serif}"
    "table.rbkit-domains :is(th,td){padding:3px 12px 3px 0;text-align:left;vertical-align:top;"
    "border-bottom:1px solid #8884}table.rbkit-domains td.n{text-align:right;"
    "font-variant-numeric:tabular-nums;white-space:nowrap}.rbkit-domains i{display:inline-block;"
    "height:9px;background:#3b75af;margin-left:6px}.rbkit-domains td.n+td.n i{background:#d1813a}"
    ".rbkit-domains summary{cursor:pointer}.rbkit-domains blockquote{margin:4px 0 4px 12px;"
    "opacity:.75;max-width:70ch}</style>"
)

_WHERE = {"nearest": "to the nearest domain", "own": "a domain of its own", "drop": "left out"}


def title(domains: Domains) -> str:
    """One line: how many domains, over what, made how, how good."""
    made = domains.method.get("name", "by hand")
    examples = f"{len(domains.train_labels):,} train and {len(domains.eval_labels):,} eval examples"
    parts = [f"{domains.m} domains over {examples}", made]
    if (score := domains.quality.get("silhouette")) is not None:
        parts.append(f"silhouette {score:.3f}")
    if (score := domains.quality.get("stability_ari")) is not None:
        parts.append(f"reseed ARI {score:.2f}")
    steps = len((domains.method.get("edits") or {}).get("ops", [])) - 1
    if steps > 0:
        parts.append(f"edited by hand ({steps} {'step' if steps == 1 else 'steps'})")
    if noise := domains.quality.get("noise"):
        where = _WHERE.get(str(noise.get("policy")), "")
        parts.append(f"noise {noise['share']:.1%} {where}".rstrip())
    far = domains.quality.get("far_eval", {})
    if far.get("apart"):
        parts.append(f"{far['far']:,} far eval examples kept apart")
    return " · ".join(parts)


def as_text(domains: Domains) -> str:
    """Return the title and one line per domain."""
    shares = _shares(domains)
    width = min(40, max(len(name) for name in domains.names))
    lines = [f"{'domain':<{width}}  {'train':>8}  {'share':>6}  {'q':>6}"]
    for name, size, (p, q) in zip(domains.names, domains.sizes, shares, strict=True):
        lines.append(f"{name[:width]:<{width}}  {size:>8,}  {p:>6.1%}  {q:>6.1%}")
    return "\n".join([title(domains), *lines])


def as_html(domains: Domains) -> str:
    """Return an HTML table; whatever comes from the corpus is escaped."""
    shares = _shares(domains)
    widest = max(float(shares.max()), 1e-9)
    rows = []
    for at, name in enumerate(domains.names):
        bars = "".join(
            f'<td class="n">{share:.1%}<i style="width:{60 * share / widest:.0f}px"></i></td>'
            for share in shares[at]
        )
        about = _about(domains.cards[at]) if domains.cards else ""
        rows.append(
            f'<tr><td>{escape(name)}</td><td class="n">{domains.sizes[at]:,}</td>{bars}'
            f"<td>{about}</td></tr>"
        )
    head = "<tr><th>domain</th><th>train</th><th>share</th><th>eval share q</th><th>about</th></tr>"
    return (
        f"{_CSS}<p>{escape(title(domains))}</p>"
        f'<table class="rbkit-domains"><thead>{head}</thead><tbody>{"".join(rows)}</tbody></table>'
    )


def _about(card: Card) -> str:
    terms = escape(", ".join(card.terms[:8]))
    sources = ", ".join(f"{name} {share:.0%}" for name, share in list(card.sources.items())[:4])
    quotes = "".join(f"<blockquote>{escape(text)}</blockquote>" for text in card.nearest)
    return f"<details><summary>{terms or 'examples'}</summary>{escape(sources)}{quotes}</details>"


def _shares(domains: Domains) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    pairs = [counts / max(1, counts.sum()) for counts in (domains.sizes, domains.eval_sizes)]
    return np.stack(pairs, axis=1)


FORMAT = "rbkit-domains/1"
_ASSIGNMENTS, _CENTROIDS = "assignments.parquet", "centroids.parquet"
REMEDY = "restore it from a copy, or regroup again"


def save(domains: Domains, folder: Path) -> Path:
    """Write `domains` to `folder`; the JSON file, written last, makes them valid."""
    header = folder / "domains.json"
    header.unlink(missing_ok=True)
    split = ["train"] * len(domains.train_labels) + ["eval"] * len(domains.eval_labels)
    lengths = (len(domains.train_labels), len(domains.eval_labels))
    assignments = pa.table(
        {
            "split": pa.array(split, pa.string()).dictionary_encode(),
            "row": np.concatenate([np.arange(n, dtype=np.int64) for n in lengths]),
            "domain": np.concatenate([domains.train_labels, domains.eval_labels]),
        }
    )
    files = {_ASSIGNMENTS: assignments}
    if domains.centroids is None:
        (folder / _CENTROIDS).unlink(missing_ok=True)
    else:
        files[_CENTROIDS] = _table_of(domains.centroids, domains.centroid_domains)
    for name, table in files.items():
        with atomic_path(folder / name) as tmp:
            pq.write_table(table, tmp)
    facts = {
        "format": FORMAT,
        "names": domains.names,
        "n_train": lengths[0],
        "n_eval": lengths[1],
        "method": domains.method,
        "quality": domains.quality,
        "cards": [asdict(card) for card in domains.cards],
        "sha256": {name: sha256_of_file(folder / name) for name in files},
    }
    write_json(header, json_ready(facts))
    return folder


def load(folder: Path) -> dict[str, Any]:
    """Read the arguments of :class:`Domains` from `folder`, checked against their hashes."""
    header = folder / "domains.json"
    if not header.is_file():
        raise InputError(
            str(header), "no such file, so no saved domains", "give another folder, or regroup"
        )
    facts = read_json(header)
    if not isinstance(facts, dict) or facts.get("format") != FORMAT:
        raise InputError(str(header), f"not of the format {FORMAT}", REMEDY)
    try:
        # Two known names, not whatever the header lists: it may come from a stranger.
        sums = facts["sha256"]
        assignments = _read(folder / _ASSIGNMENTS, sums[_ASSIGNMENTS])
        centroids = _read(folder / _CENTROIDS, sums[_CENTROIDS]) if _CENTROIDS in sums else None
        labels = assignments["domain"].to_numpy()
        train = np.asarray(assignments["split"].to_pylist(), dtype=str) == "train"
        return {
            "names": facts["names"],
            "train_labels": labels[train],
            "eval_labels": labels[~train],
            "centroids": None if centroids is None else _matrix_of(centroids),
            "centroid_domains": None if centroids is None else centroids["domain"].to_numpy(),
            "method": facts["method"],
            "quality": facts["quality"],
            "cards": facts["cards"],
        }
    except (KeyError, TypeError, AttributeError, pa.ArrowException) as error:
        raise InputError(str(header), f"not what was saved ({error!r})", REMEDY) from error


def _read(path: Path, sha256: str) -> pa.Table:
    if not path.is_file():
        raise InputError(str(path), "no such file", REMEDY)
    if sha256_of_file(path) != sha256:
        raise InputError(str(path), "damaged: it is not the file that was saved", REMEDY)
    return pq.read_table(path)


def _table_of(matrix: NDArray[np.float32], owners: NDArray[np.int32] | None) -> pa.Table:
    rows = pa.FixedSizeListArray.from_arrays(pa.array(matrix.ravel()), matrix.shape[1])
    return pa.table({"domain": owners, "centroid": rows})


def _matrix_of(table: pa.Table) -> NDArray[np.float32]:
    column = table["centroid"].combine_chunks()
    flat = column.flatten().to_numpy(zero_copy_only=False)
    return np.asarray(flat.reshape(len(table), -1), dtype=np.float32)


DROPPED = -1  # label of an example that is in no domain and takes no part


@dataclass
class Card:
    """What one domain is about.

    Attributes
    ----------
    name : str
    size, eval_size : int
        Training and eval examples in it.
    terms : list of str
        The terms that set it apart, by class-based TF-IDF, best first.
    nearest, strangest : list of str
        Beginnings of the training examples nearest to its centroid, and farthest from it.
    sources : dict of str to float
        Share of its training examples that came from each source, largest first.
    """

    name: str
    size: int
    eval_size: int
    terms: list[str] = field(default_factory=list)
    nearest: list[str] = field(default_factory=list)
    sources: dict[str, float] = field(default_factory=dict)
    strangest: list[str] = field(default_factory=list)


@dataclass(eq=False, repr=False)
class Domains:
    """m domains over the training and eval examples of one corpus.

    Attributes
    ----------
    names : list of str, length m
        Unique.
    train_labels, eval_labels : ndarray of int32, shapes (n_train,) and (n_eval,)
        Domain of every example, 0 to m - 1; -1 for an example that was dropped.
    centroids : ndarray of float32, shape (P, d), or None
        An example belongs to the domain of the nearest one. One per domain (P = m) where
        domains come straight from k-means; more after a merge or a move by hand. None where
        domains are not made from vectors.
    centroid_domains : ndarray of int32, shape (P,), or None
        Domain of every centroid; 0 to m - 1 in order if not given.
    method : dict
        ``{"name", "params", "embedder", "seed"}``: how they were made.
    quality : dict
        ``{"silhouette", "grid", ...}``: how good the grouping is, where it was measured.
    cards : list of Card, length m or 0
    material : Material or None
        The corpus and its vectors, where they are at hand: never saved; see :meth:`attach`.

    Raises
    ------
    InputError
        Labels out of range, names that are not unique, or lengths that do not fit.

    Examples
    --------
    >>> domains = Domains.from_labels(["wiki", "code"], [0, 0, 1], [0, 1])
    >>> domains.m, domains.sizes.tolist(), domains.q.tolist()
    (2, [2, 1], [0.5, 0.5])
    """

    names: list[str]
    train_labels: NDArray[np.int32]
    eval_labels: NDArray[np.int32]
    centroids: NDArray[np.float32] | None = None
    method: dict[str, Any] = field(default_factory=dict)
    quality: dict[str, Any] = field(default_factory=dict)
    cards: list[Card] = field(default_factory=list)
    centroid_domains: NDArray[np.int32] | None = None
    material: Material | None = None

    def __post_init__(self) -> None:
        self.names = [str(name) for name in self.names]
        if not self.names:
            raise InputError("names", "there are no domains", "give at least one")
        if twice := sorted({name for name in self.names if self.names.count(name) > 1}):
            raise InputError(
                "names", f"{twice[0]!r} occurs twice", "give every domain its own name"
            )
        self.train_labels = _checked_labels("train_labels", self.train_labels, self.m)
        self.eval_labels = _checked_labels("eval_labels", self.eval_labels, self.m)
        if self.centroids is not None:
            self.centroids = np.asarray(self.centroids, dtype=np.float32)
            self.centroid_domains = self._checked_owners(self.centroids)
        if len(self.cards) not in (0, self.m):
            what = f"{len(self.cards)} cards for {self.m} domains"
            raise InputError("cards", what, "give one per domain, or none")

    def _checked_owners(self, centroids: NDArray[np.float32]) -> NDArray[np.int32]:
        owners = self.centroid_domains
        if owners is None and centroids.ndim == 2 and len(centroids) == self.m:
            return np.arange(self.m, dtype=np.int32)
        if owners is None or centroids.ndim != 2 or len(centroids) != len(owners):
            what = f"shape {centroids.shape} for {self.m} domains"
            raise InputError("centroids", what, "give one row per domain, or centroid_domains")
        owners = np.asarray(owners, dtype=np.int32)
        if ((owners < 0) | (owners >= self.m)).any():
            raise InputError("centroid_domains", f"not in 0 to {self.m - 1}", "check them")
        return owners

    @classmethod
    def from_labels(
        cls, names: Sequence[str], train_labels: ArrayLike, eval_labels: ArrayLike, **more: Any
    ) -> Self:
        """Make domains by hand, from a label per example; warns of domains without training data.

        Parameters
        ----------
        names : sequence of str, length m
        train_labels, eval_labels : array of int
            From 0 to m - 1; -1 leaves an example out.
        **more
            `centroids`, `method`, `quality`, `cards`.
        """
        more.setdefault("method", {"name": "by hand", "params": {}, "embedder": None, "seed": None})
        labels = [np.asarray(train_labels), np.asarray(eval_labels)]
        domains = cls(list(names), labels[0], labels[1], **more)
        domains.warn_of_gaps()
        return domains

    @property
    def m(self) -> int:
        """Number of domains."""
        return len(self.names)

    @property
    def sizes(self) -> NDArray[np.int64]:
        """Training examples per domain: int64, shape (m,)."""
        return _counts(self.train_labels, self.m)

    @property
    def eval_sizes(self) -> NDArray[np.int64]:
        """Eval examples per domain: int64, shape (m,)."""
        return _counts(self.eval_labels, self.m)

    @property
    def q(self) -> NDArray[np.float64]:
        """Target proportions, the share of each domain in the eval set: float64, shape (m,).

        Raises
        ------
        InputError
            No eval example is in any domain.
        """
        sizes = self.eval_sizes
        if not sizes.sum():
            raise InputError("eval_labels", "no eval example is in any domain", "give an eval set")
        return np.asarray(sizes / sizes.sum(), dtype=np.float64)

    def warn_of_gaps(self) -> None:
        """Warn of every domain that holds no training example."""
        share = self.eval_sizes / max(1, self.eval_sizes.sum())
        for at in np.flatnonzero(self.sizes == 0):
            told = f"domain {self.names[at]!r} has no training example: its proportion stays 0"
            warnings.warn(
                f"{told}, with {share[at]:.1%} of the eval set", RbkitWarning, stacklevel=3
            )

    def save(self, folder: str | Path) -> Path:
        """Write ``assignments.parquet``, ``centroids.parquet`` and ``domains.json`` to `folder`.

        ``domains.json`` comes last and holds the checksums of the others, so that after a
        kill the folder holds all of it or, to :meth:`load`, nothing.
        """
        return save(self, Path(folder))

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Read what :meth:`save` wrote.

        Raises
        ------
        InputError
            A file is missing, cut short or otherwise damaged: it names the file.
        """
        parts = load(Path(folder))
        try:
            parts["cards"] = [Card(**card) for card in parts["cards"]]
            return cls(**parts)
        except (InputError, TypeError) as error:
            raise InputError(str(folder), str(error), REMEDY) from error

    @property
    def edits(self) -> dict[str, Any] | None:
        """The log of how they were made and edited, to be replayed; None if not known."""
        found: dict[str, Any] | None = self.method.get("edits")
        return found

    def attach(self, corpus: Any, **options: Any) -> Self:
        """Bring the corpus and its vectors back to loaded domains: from the cache, if they can.

        Parameters
        ----------
        corpus : datasets.DatasetDict
            That the domains were made from.
        **options
            Of :func:`rbkit.regroup.prepare`, such as `vectors` or `embedder`.

        Raises
        ------
        InputError
            Another corpus.
        """
        from rbkit.regroup.prepare import prepare

        options.setdefault("embedder", self.method.get("embedder") or "minilm")
        material, _ = prepare(corpus, **options)
        made_from = self.method.get("corpus")
        if made_from not in (None, "", material.origin):
            what = f"made from the corpus {made_from}, not from this one ({material.origin})"
            remedy = "load that corpus, with the seed and sizes of then"
            raise InputError("domains", what, remedy)
        self.material = material
        return self

    def __repr__(self) -> str:
        return as_text(self)

    def _repr_html_(self) -> str:
        return as_html(self)


def _counts(labels: NDArray[np.int32], m: int) -> NDArray[np.int64]:
    return np.bincount(labels[labels >= 0], minlength=m).astype(np.int64)


def _checked_labels(where: str, labels: ArrayLike, m: int) -> NDArray[np.int32]:
    found = np.asarray(labels)
    if found.size == 0:
        found = found.astype(np.int32)
    if found.ndim != 1 or not np.issubdtype(found.dtype, np.integer):
        what = f"shape {found.shape} and type {found.dtype}"
        raise InputError(where, what, "give one whole number per example")
    wrong = np.flatnonzero((found < DROPPED) | (found >= m))
    if wrong.size:
        what = f"example {wrong[0]} is in domain {found[wrong[0]]} of {m}"
        raise InputError(where, what, f"use 0 to {m - 1}, or -1 for examples to leave out")
    return found.astype(np.int32)
