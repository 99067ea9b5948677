"""The product of Regroup: the domain of every example, and what each domain is about."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from html import escape
from itertools import count, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import ArrayLike, NDArray

from rbkit.errors import InputError, RbkitWarning
from rbkit.files import (
    atomic_path,
    check_folder,
    check_memory,
    free_name,
    json_ready,
    own,
    read_json,
    regular,
    saving,
    sha256_of_file,
    write_json,
)
from rbkit.text import one_line

if TYPE_CHECKING:
    import pandas as pd
    from datasets import Dataset, DatasetDict

    from rbkit.regroup.preparation import Material

_FORMAT = "rbkit-domains/1"
_HEADER, _ASSIGNMENTS, _CENTROIDS = "domains.json", "assignments.parquet", "centroids.parquet"
_KEYS = ("original_row", "id")  # columns that join examples to the data they came from
_REMEDY = "restore it from a copy, or regroup again"
_CSS = (  # JupyterLab aligns all tables right, by a more special rule
    "<style>table.rbkit-domains{border-collapse:collapse;font:13px/1.5 system-ui,sans-serif;"
    "margin:0!important}table.rbkit-domains :is(th,td){padding:3px 12px 3px 0;vertical-align:top;"
    "text-align:left!important;border-bottom:1px solid #8884;"
    "font-variant-numeric:tabular-nums}table.rbkit-domains td.n{text-align:right!important}"
    ".rbkit-domains td.s{white-space:nowrap}.rbkit-domains td.s span{display:inline-block;"
    "width:3.4em;text-align:right}.rbkit-domains i{display:inline-block;height:9px;"
    "background:#3b75af;margin-left:6px}.rbkit-domains td.s+td.s i{background:#d1813a}"
    ".rbkit-domains summary{cursor:pointer}.rbkit-domains blockquote{margin:4px 0 4px 12px;"
    "opacity:.75;max-width:70ch}</style>"
)


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
        Domain of every example, 0 to m - 1; -1 for an example in none, which is left out.
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
    keys : pyarrow.Table or None
        Columns ``original_row`` and, if the corpus has it, ``id``; train first, then eval.
        None if the corpus does not come from :func:`rbkit.data.load_corpus`, and for domains of
        packed rows.
    count_outside : bool
        Whether eval examples in no domain count in the overall eval loss, and in metrics. They are
        never in q, nor in the loss of a domain.

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
    keys: pa.Table | None = None
    count_outside: bool = False

    def __post_init__(self) -> None:
        self.names = [str(name) for name in self.names]
        if not self.names:
            raise InputError("names", "there are no domains", "give at least one")
        if twice := sorted({name for name in self.names if self.names.count(name) > 1}):
            what = f"{twice[0]!r} occurs twice"
            raise InputError("names", what, "give every domain its own name")
        self.train_labels = _checked_labels("train_labels", self.train_labels, self.m)
        self.eval_labels = _checked_labels("eval_labels", self.eval_labels, self.m)
        if self.centroids is not None:
            self._check_centroids()
        if len(self.cards) not in (0, self.m):
            what = f"{len(self.cards)} cards for {self.m} domains"
            raise InputError("cards", what, "give one per domain, or none")
        n = len(self.train_labels) + len(self.eval_labels)
        if self.keys is not None and len(self.keys) != n:  # packed: no longer rows of the corpus
            self.keys = None

    def _check_centroids(self) -> None:
        self.centroids = centroids = np.asarray(self.centroids, dtype=np.float32)
        owners = self.centroid_domains
        if owners is None and centroids.ndim == 2 and len(centroids) == self.m:
            owners = np.arange(self.m, dtype=np.int32)
        if owners is None or centroids.ndim != 2 or len(centroids) != len(owners):
            what = f"shape {centroids.shape} for {self.m} domains"
            raise InputError("centroids", what, "give one row per domain, or centroid_domains")
        self.centroid_domains = owners = np.asarray(owners, dtype=np.int32)
        if ((owners < 0) | (owners >= self.m)).any():
            raise InputError("centroid_domains", f"not in 0 to {self.m - 1}", "check them")

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
            `centroids`, `method`, `quality`, `cards`, `keys`, `count_outside`.
        """
        more.setdefault("method", {"name": "by hand", "params": {}, "embedder": None, "seed": None})
        domains = cls(list(names), np.asarray(train_labels), np.asarray(eval_labels), **more)
        share = domains.eval_sizes / max(1, domains.eval_sizes.sum())
        for at in np.flatnonzero(domains.sizes == 0):
            message = (
                f"domain {domains.names[at]!r} has no training example: its proportion stays 0, "
                f"with {share[at]:.1%} of the eval set"
            )
            warnings.warn(message, RbkitWarning, stacklevel=2)
        return domains

    @property
    def m(self) -> int:
        """Number of domains."""
        return len(self.names)

    @property
    def sizes(self) -> NDArray[np.int64]:
        """Training examples per domain: int64, shape (m,)."""
        return np.bincount(self.train_labels[self.train_labels >= 0], minlength=self.m)

    @property
    def eval_sizes(self) -> NDArray[np.int64]:
        """Eval examples per domain: int64, shape (m,)."""
        return np.bincount(self.eval_labels[self.eval_labels >= 0], minlength=self.m)

    @property
    def outside(self) -> int:
        """Eval examples that count in the overall loss without a domain."""
        return int((self.eval_labels < 0).sum()) if self.count_outside else 0

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

    @property
    def edits(self) -> dict[str, Any] | None:
        """The log of how they were made and edited, to be replayed; None if not known."""
        return self.method.get("edits")

    def to_pandas(self) -> pd.DataFrame:
        """Return a table with a row for each example, to be joined to the data it came from.

        Returns
        -------
        pandas.DataFrame
            ``split``; ``row`` in that split; ``domain``, a name, missing if it was dropped; and
            ``original_row`` and ``id``, as in :func:`rbkit.data.load_corpus`, where known.

        Examples
        --------
        >>> table = Domains.from_labels(["wiki", "code"], [0, 1, -1], [1]).to_pandas()
        >>> table["domain"].fillna("-").to_list()
        ['wiki', 'code', '-', 'code']
        """
        table = self._assignments()
        names = [*self.names, None]
        named = pa.array([names[at] for at in table["domain"].to_pylist()], pa.string())
        frame: pd.DataFrame = table.set_column(2, "domain", named).to_pandas()
        return frame.astype({"split": object, "domain": object})

    def _assignments(self) -> pa.Table:
        n_train, n_eval = len(self.train_labels), len(self.eval_labels)
        split = pa.array(["train"] * n_train + ["eval"] * n_eval, pa.string())
        columns: dict[str, Any] = {
            "split": split.dictionary_encode(),
            "row": np.concatenate([np.arange(n, dtype=np.int64) for n in (n_train, n_eval)]),
            "domain": np.concatenate([self.train_labels, self.eval_labels]),
        }
        if self.keys is not None:
            columns |= {name: self.keys[name] for name in self.keys.column_names}
        return pa.table(columns)

    def attach(self, corpus: Any, **options: Any) -> Self:
        """Bring the corpus and its vectors back to loaded domains, from the cache if possible.

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
        from rbkit.regroup.preparation import prepare  # it brings scikit-learn

        described = self.method.get("embedder") or {}
        options.setdefault("embedder", described or "minilm")
        if "vectors" not in options:
            options.setdefault("embed", described.get("embed"))
        material, _ = prepare(corpus, **options)
        self.check_origin(material.origin)
        self.material = material
        return self

    def check_origin(self, corpus: DatasetDict | str) -> None:
        """Refuse another corpus, or its fingerprint, than the one that the domains were made from.

        Domains that do not know theirs, as of those made by hand, refuse none.
        """
        origin = self.method.get("corpus")
        if origin in (None, ""):
            return
        if not isinstance(corpus, str):
            from rbkit.data.corpus import about  # it brings datasets

            corpus = str(about(corpus)["fingerprint"])
        if origin != corpus:
            what = f"made from the corpus {origin}, not from this one ({corpus})"
            remedy = "regroup this corpus, or load that one with the same seed and sizes as before"
            raise InputError("domains", what, remedy)

    def split(self, data: Dataset | DatasetDict, which: str = "train") -> dict[str, Dataset]:
        """Divide the rows that were regrouped by domain.

        Parameters
        ----------
        data : datasets.Dataset or DatasetDict
            The corpus that the domains were made from, or one of its splits: the same rows in the
            same order, with any further columns. Texts are compared where a corpus is given, or
            is at hand (:meth:`attach`); where neither is, only the number of rows.
        which : {"train", "eval"}
            The split.

        Returns
        -------
        dict of str to datasets.Dataset
            By the name of each domain, in their order. A domain without rows has no entry, and an
            example in no domain is left out.

        Raises
        ------
        InputError
            Other rows than those that were regrouped.

        Examples
        --------
        >>> from datasets import Dataset
        >>> rows = Dataset.from_dict({"text": ["oak", "def f():", "elm", "??"]})
        >>> domains = Domains(["wiki", "code"], [0, 1, 0, -1], [0, 1])
        >>> {name: part["text"][:] for name, part in domains.split(rows).items()}
        {'wiki': ['oak', 'elm'], 'code': ['def f():']}
        """
        both = {"train": self.train_labels, "eval": self.eval_labels}
        if which not in both:
            raise InputError("which", f"{which!r} is unknown", 'use "train" or "eval"')
        if isinstance(data, dict):
            self.check_origin(data)
            data = data[which]
        labels = both[which]
        if not (hasattr(data, "select") and hasattr(data, "__len__")):
            remedy = "give a datasets.Dataset, or a DatasetDict"
            raise InputError("data", f"{type(data).__name__} has no rows to select", remedy)
        if len(data) != len(labels):
            what = f"{len(data):,} rows, but {len(labels):,} {which} examples were regrouped"
            raise InputError("data", what, f'give the split "{which}" of the corpus')
        if self.material is not None:
            _check_texts(data, self.material.corpus[which])
        order = np.argsort(labels, kind="stable")
        ends = np.searchsorted(labels[order], np.arange(self.m + 1))
        parts = (order[start:end] for start, end in pairwise(ends))
        named = zip(self.names, parts, strict=True)
        return {name: data.select(rows) for name, rows in named if len(rows)}

    def save(self, folder: str | Path, *, overwrite: bool = False) -> Path:
        """Write ``assignments.parquet``, ``centroids.parquet`` and ``domains.json`` to `folder`.

        Domains that are there are replaced, but not those edited by hand, unless these are what
        their edits led to, or `overwrite` is true.

        ``domains.json`` comes last and holds the checksums of the others, so that after a
        kill the folder holds all of it or, to :meth:`load`, nothing. Parquet and JSON, never
        pickle: a folder may come from a stranger.
        """
        folder = Path(folder)
        check_folder("folder", folder)
        if not overwrite:
            self._check_edits(folder)
        with saving(folder):
            self._write(folder)
        return folder

    def _write(self, folder: Path) -> None:
        (folder / _HEADER).unlink(missing_ok=True)
        tables = {_ASSIGNMENTS: self._assignments()}
        if self.centroids is None:
            (folder / _CENTROIDS).unlink(missing_ok=True)
        else:
            flat, width = pa.array(self.centroids.ravel()), self.centroids.shape[1]
            matrix = pa.FixedSizeListArray.from_arrays(flat, width)
            tables[_CENTROIDS] = pa.table({"domain": self.centroid_domains, "centroid": matrix})
        for name, table in tables.items():
            with atomic_path(folder / name) as tmp:
                pq.write_table(table, tmp)
        facts = {
            "format": _FORMAT,
            "names": self.names,
            "n_train": len(self.train_labels),
            "n_eval": len(self.eval_labels),
            "method": self.method,
            "quality": self.quality,
            "cards": [asdict(card) for card in self.cards],
            "sha256": {name: sha256_of_file(folder / name) for name in tables},
        }
        if self.count_outside:
            facts["count_outside"] = True
        write_json(folder / _HEADER, json_ready(facts))

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Read what :meth:`save` wrote.

        Raises
        ------
        InputError
            A file is missing, cut short or otherwise damaged: it names the file.
        """
        folder = regular(folder, or_folder=True)
        header = folder / _HEADER
        if not header.is_file():
            what = "no such file, so no saved domains"
            raise InputError(str(header), what, "give another folder, or regroup")
        facts = read_json(header)
        if not isinstance(facts, dict) or facts.get("format") != _FORMAT:
            raise InputError(str(header), f"not of the format {_FORMAT}", _REMEDY)
        centroids = owners = None
        try:
            # Two known names, not whatever the header lists: it may come from a stranger.
            sums = facts["sha256"]
            table = _read_table(folder, _ASSIGNMENTS, sums[_ASSIGNMENTS])
            labels = table["domain"].to_numpy()
            train = np.asarray(table["split"].to_pylist(), dtype=str) == "train"
            known = [name for name in _KEYS if name in table.column_names]  # none in older folders
            keys = table.select(known) if known else None
            if _CENTROIDS in sums:
                table = _read_table(folder, _CENTROIDS, sums[_CENTROIDS])
                flat = table["centroid"].combine_chunks().flatten()
                flat = flat.to_numpy(zero_copy_only=False)
                centroids = flat.reshape(len(table), len(flat) // max(1, len(table)))
                owners = table["domain"].to_numpy()
            _check_header(facts)
            return cls(
                names=facts["names"],
                train_labels=labels[train],
                eval_labels=labels[~train],
                centroids=centroids,
                centroid_domains=owners,
                method=facts["method"],
                quality=facts["quality"],
                cards=[Card(**card) for card in facts["cards"]],
                keys=keys,
                count_outside=facts.get("count_outside", False),
            )
        except InputError as error:
            where = error.where if str(folder) in error.where else f"{folder}, {error.where}"
            raise InputError(where, error.what, _REMEDY) from error
        except (*_DAMAGE, pa.ArrowException) as error:
            what = f"damaged ({type(error).__name__}: {error})"
            raise InputError(str(folder), what, _REMEDY) from error

    def _check_edits(self, folder: Path) -> None:
        """Refuse to replace domains that were edited by hand by others than their successors."""
        try:
            facts = read_json(folder / _HEADER)
            there = list(facts["method"]["edits"]["ops"])
        except _DAMAGE:  # none, or of which nothing can be told
            return
        ours = json_ready((self.edits or {}).get("ops") or [])
        if len(there) > 1 and ours[: len(there)] != there:
            count = f"{len(there) - 1} edit{'s' * (len(there) > 2)}"
            what = f"{folder} holds domains with {count} made by hand"
            remedy = f"give overwrite=True to lose them, or {free_name(folder)}"
            raise InputError("folder", what, remedy)

    def _title(self) -> str:
        """One line: how many domains, over which examples, made how, how good."""
        examples = f"{len(self.train_labels):,} train and {len(self.eval_labels):,} eval examples"
        parts = [f"{self.m} domains over {examples}"]
        with suppress(*_DAMAGE):  # of what a stranger's file says of itself
            parts += self._properties()
        return one_line(" · ".join(parts))

    def _properties(self) -> list[str]:
        parts = [str(self.method.get("name", "by hand"))]
        if (score := self.quality.get("silhouette")) is not None:
            parts.append(f"silhouette {score:.3f}")
        if (score := self.quality.get("stability_ari")) is not None:
            parts.append(f"reseed ARI {score:.2f}")
        steps = len((self.edits or {}).get("ops", [])) - 1
        if steps > 0:
            parts.append(f"edited by hand ({steps} {'step' if steps == 1 else 'steps'})")
        if noise := self.quality.get("noise"):
            where = NOISE_POLICIES.get(str(noise.get("policy")), "")
            parts.append(f"noise {noise['share']:.1%} {where}".rstrip())
        far = self.quality.get("far_eval", {})
        if far.get("apart") and not self.count_outside:
            parts.append(f"{far['far']:,} far eval examples kept apart")
        return parts

    def _shares(self) -> NDArray[np.float64]:
        """Shares of each domain in train and in eval: (m, 2)."""
        both = [counts / max(1, counts.sum()) for counts in (self.sizes, self.eval_sizes)]
        return np.stack(both, axis=1)

    def __repr__(self) -> str:
        width = min(40, max(len(name) for name in self.names))
        lines = [self._title(), f"{'domain':<{width}}  {'train':>8}  {'share':>6}  {'q':>6}"]
        for name, size, (p, q) in zip(self.names, self.sizes, self._shares(), strict=True):
            shown = one_line(name)[:width]
            lines.append(f"{shown:<{width}}  {size:>8,}  {p:>6.1%}  {q:>6.1%}")
        if self.outside:
            lines.append(f"outside: {self.outside:,} eval examples, in the overall loss alone")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        shares = self._shares()
        widest = max(float(shares.max()), 1e-9)
        rows = []
        for at, name in enumerate(self.names):
            bars = "".join(
                f'<td class="s"><span>{share:.1%}</span>'
                f'<i style="width:{60 * share / widest:.0f}px"></i></td>'
                for share in shares[at]
            )
            card = _card_html(self.cards[at]) if self.cards else ""
            rows.append(
                f'<tr><td>{escape(name)}</td><td class="n">{self.sizes[at]:,}</td>{bars}'
                f"<td>{card}</td></tr>"
            )
        if self.outside:
            about = f"{self.outside:,} eval examples, in the overall loss alone"
            rows.append(
                f'<tr><td>outside</td><td class="n">0</td><td></td><td></td><td>{about}</td>'
            )
        columns = ("domain", "train", "share", "eval share q", "about")
        head = "".join(f"<th>{column}</th>" for column in columns)
        return (
            f"{_CSS}<p>{escape(self._title())}</p><table class="
            f'"rbkit-domains"><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table>'
            "<p>next: <code>rb.explore(domains)</code>, "
            "<code>rb.train(corpus, domains, run_dir=...)</code></p>"
        )


# What becomes of noise under each policy, in words.
NOISE_POLICIES = {
    "nearest": "to the nearest domain",
    "own": "a domain of its own",
    "drop": "left out",
}


def _check_texts(data: Dataset, regrouped: Dataset) -> None:
    """Refuse rows with other texts than those that were regrouped, if they have any."""
    if "text" not in data.column_names:
        return
    kind = getattr(data.features["text"], "dtype", type(data.features["text"]).__name__)
    if kind not in ("string", "large_string", "string_view"):
        what = f"the column 'text' holds {kind}, not text"
        raise InputError("data", what, "give the rows as they were, and change the parts")
    both = (
        rows.select_columns(["text"]).with_format("arrow").iter(batch_size=10_000)
        for rows in (data, regrouped)
    )
    for start, batches in zip(count(step=10_000), zip(*both, strict=True)):
        texts, expected = (
            batch.column(0).cast(pa.large_string()).combine_chunks() for batch in batches
        )
        if not texts.equals(expected):
            pairs = zip(texts.to_pylist(), expected.to_pylist(), strict=True)
            row = start + next(at for at, (a, b) in enumerate(pairs) if a != b)
            what = f"row {row} has another text than the example that was regrouped"
            raise InputError("data", what, "give the rows as they were, and change the parts")


def _card_html(card: Card) -> str:
    terms = escape(", ".join(card.terms[:8]))
    sources = ", ".join(f"{name} {share:.0%}" for name, share in list(card.sources.items())[:4])
    quotes = "".join(f"<blockquote>{escape(text)}</blockquote>" for text in card.nearest)
    return f"<details><summary>{terms or 'examples'}</summary>{escape(sources)}{quotes}</details>"


_DAMAGE: tuple[type[Exception], ...] = (ValueError, TypeError, LookupError, AttributeError)
_DAMAGE += (ArithmeticError, OSError, MemoryError)


def _check_header(facts: dict[str, Any]) -> None:
    """Refuse a header of other types than :meth:`Domains.save` writes."""
    kinds: dict[str, Any] = {"names": list, "method": dict, "quality": dict, "cards": list}
    kinds["count_outside"] = bool
    kinds |= {"name": str, "size": int, "eval_size": int, "sources": dict}
    kinds |= dict.fromkeys(("terms", "nearest", "strangest"), list)
    for part in (facts, *facts["cards"]):
        for name, value in part.items():
            texts = isinstance(value, list) and name != "cards"
            if not isinstance(value, kinds.get(name, object)) or (
                texts and name in kinds and not all(isinstance(item, str) for item in value)
            ):
                raise TypeError(f"{name} is not what it should be")
    for card in facts["cards"]:
        if not all(isinstance(share, int | float) for share in card.get("sources", {}).values()):
            raise TypeError("sources are not shares")


def _read_table(folder: Path, name: str, sha256: str) -> pa.Table:
    path = own(folder, name)
    if not path.is_file():
        raise InputError(str(path), "no such file", _REMEDY)
    if sha256_of_file(path) != sha256:
        raise InputError(str(path), "damaged: it is not the file that was saved", _REMEDY)
    # Not read_table, which takes folders called "domain=3" for columns.
    with pq.ParquetFile(regular(path)) as file:
        # Equal values take no room in a file; decoded, each is a number.
        check_memory(8 * file.metadata.num_rows * file.metadata.num_columns)
        return file.read()


def _checked_labels(where: str, labels: ArrayLike, m: int) -> NDArray[np.int32]:
    array = np.asarray(labels)
    if array.size == 0:
        array = array.astype(np.int32)
    if array.ndim != 1 or not np.issubdtype(array.dtype, np.integer):
        what = f"shape {array.shape} and type {array.dtype}"
        raise InputError(where, what, "give one whole number per example")
    wrong = np.flatnonzero((array < -1) | (array >= m))
    if wrong.size:
        what = f"example {wrong[0]} is in domain {array[wrong[0]]} of {m}"
        raise InputError(where, what, f"use 0 to {m - 1}, or -1 for examples to leave out")
    return array.astype(np.int32)
