"""Domains and proportions as sampling weights that any training loop can use.

An example of domain i gets the weight p_i / n_i: drawn with these weights, with replacement,
the domains come in the proportions p. The weights go out as ``weights.json``, as columns of a
data set, as Parquet, or as an array for ``torch.utils.data.WeightedRandomSampler``.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rbkit.errors import InputError, RbkitWarning
from rbkit.files import atomic_path, fingerprint, read_json, write_json
from rbkit.regroup.distances import Floats
from rbkit.regroup.tokens import tokens_by_domain

if TYPE_CHECKING:
    from datasets import Dataset

    from rbkit.regroup.domains import Domains

FORMAT = "rbkit-weights/1"
COLUMNS = ("domain", "weight")


def proportions_of(domains: Domains, p: ArrayLike | str = "target") -> Floats:
    """Return proportions over domains, checked: on the simplex, 0 where there is no training data.

    Parameters
    ----------
    domains : Domains
    p : array of shape (m,), or {"target", "uniform", "proportional"}
        Or by name: q, 1 / m, or the share of the training examples.

    Raises
    ------
    InputError
        Not m finite shares that sum to 1, or a share for a domain that has no examples.

    Warns
    -----
    RbkitWarning
        q wants a domain that has no training examples: its share goes to the others.

    Examples
    --------
    >>> from rbkit.regroup.domains import Domains
    >>> domains = Domains.from_labels(["wiki", "code"], [0, 0, 1], [0, 1])
    >>> proportions_of(domains).tolist(), proportions_of(domains, "proportional").round(2).tolist()
    ([0.5, 0.5], [0.67, 0.33])
    """
    there = domains.sizes > 0
    if isinstance(p, str):
        named = {"target": domains.eval_sizes, "uniform": there, "proportional": domains.sizes}
        if p not in named:
            raise InputError("p", f"{p!r} is unknown", f"use one of {', '.join(named)}, or shares")
        wanted = np.asarray(named[p], dtype=np.float64)
        if not wanted[there].sum():
            what = "no eval example lies in a domain that has training examples"
            raise InputError("p", what, 'use "uniform" or "proportional"')
        if lost := wanted[~there].sum() / wanted.sum():
            told = f"{lost:.1%} of the target lies in domains without a training example"
            warnings.warn(f"{told}; it goes to the others", RbkitWarning, stacklevel=2)
        found: Floats = np.where(there, wanted, 0.0) / wanted[there].sum()
        return found
    shares: Floats = np.asarray(p, dtype=np.float64)
    if shares.shape != (domains.m,):
        what = f"shape {shares.shape} for {domains.m} domains"
        raise InputError("p", what, "give one share per domain")
    if not np.isfinite(shares).all() or (shares < 0).any() or abs(shares.sum() - 1) > 1e-6:
        what = f"sums to {shares.sum():.6g}, from {shares.min():.3g} to {shares.max():.3g}"
        raise InputError("p", what, "give shares from 0 to 1 that sum to 1")
    if (shares[~there] > 0).any():
        at = int(np.flatnonzero(~there & (shares > 0))[0])
        what = f"{shares[at]:.1%} for {domains.names[at]!r}, which has no training example"
        raise InputError("p", what, "set it to 0 and share it among the others")
    exact: Floats = shares / shares.sum()
    return exact


@dataclass(frozen=True, eq=False, repr=False)
class Weights:
    """Sampling weights of the domains of one corpus.

    Attributes
    ----------
    names : list of str, length m
    sizes : ndarray of int64, shape (m,)
        Training examples per domain.
    tokens : ndarray of int64, shape (m,), or None
        Their tokens, where they were counted.
    q, p : ndarray of shape (m,)
        Target proportions, and those to train with.
    corpus : str or None
        Fingerprint of the corpus (:func:`rbkit.data.about`).
    labels_hash : str
        Hash of the domain of every training example.
    """

    names: list[str]
    sizes: NDArray[np.int64]
    tokens: NDArray[np.int64] | None
    q: Floats
    p: Floats
    corpus: str | None
    labels_hash: str

    @property
    def per_example(self) -> Floats:
        """Weight of one example of each domain, p_i / n_i: shape (m,); 0 for an empty domain."""
        return np.where(self.sizes > 0, self.p / np.maximum(self.sizes, 1), 0.0)

    def of(self, labels: ArrayLike) -> Floats:
        """Weight of every training example, given the domain of each: float64, shape (n,).

        They sum to 1; an example in no domain (-1) has weight 0. For
        ``WeightedRandomSampler(weights.of(domains.train_labels), num_samples)``.

        Raises
        ------
        InputError
            Labels other than those the weights were made for.
        """
        found = np.asarray(labels)
        if _hash(found) != self.labels_hash:
            what = f"{len(found)} labels, not those that the weights were made for"
            raise InputError("labels", what, "use the domains of the weights, or make them anew")
        weights: Floats = np.append(self.per_example, 0.0)[found]  # -1 finds the last
        return weights

    def save(self, path: str | Path) -> Path:
        """Write ``weights.json``, whole or not at all; a folder gets a file of that name."""
        path = Path(path)
        path = path / "weights.json" if path.is_dir() or not path.suffix else path
        facts = {
            "format": FORMAT,
            "corpus": self.corpus,
            "labels": self.labels_hash,
            "names": self.names,
            "sizes": self.sizes.tolist(),
            "tokens": None if self.tokens is None else self.tokens.tolist(),
            "q": self.q.tolist(),
            "p": self.p.tolist(),
            "weight": self.per_example.tolist(),
        }
        write_json(path, facts)
        return path

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what :meth:`save` wrote; an :class:`InputError` names a file that is damaged."""
        path = Path(path)
        path = path / "weights.json" if path.is_dir() else path
        if not path.is_file():
            raise InputError(str(path), "no such file", "write it with Weights.save")
        facts = read_json(path)
        remedy = "export the weights again"
        if not isinstance(facts, dict) or facts.get("format") != FORMAT:
            raise InputError(str(path), f"not of the format {FORMAT}", remedy)
        try:
            tokens = facts["tokens"]
            found = cls(
                names=[str(name) for name in facts["names"]],
                sizes=np.asarray(facts["sizes"], dtype=np.int64),
                tokens=None if tokens is None else np.asarray(tokens, dtype=np.int64),
                q=np.asarray(facts["q"], dtype=np.float64),
                p=np.asarray(facts["p"], dtype=np.float64),
                corpus=None if facts["corpus"] is None else str(facts["corpus"]),
                labels_hash=str(facts["labels"]),
            )
            weight = np.asarray(facts["weight"], dtype=np.float64)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise InputError(str(path), f"not what was saved ({error!r})", remedy) from error
        lengths = {len(found.names), *map(np.size, (found.sizes, found.q, found.p, weight))}
        sound = len(lengths) == 1 and np.isfinite(found.p).all() and (found.p >= 0).all()
        if not sound or abs(found.p.sum() - 1) > 1e-6 or not np.allclose(weight, found.per_example):
            raise InputError(str(path), "its numbers do not fit together", remedy)
        return found

    def __repr__(self) -> str:
        counted = "" if self.tokens is None else f", {self.tokens.sum():,} tokens"
        top = " · ".join(
            f"{self.names[i][:30]} {self.p[i]:.1%}" for i in np.argsort(-self.p, kind="stable")[:3]
        )
        return f"Weights({len(self.names)} domains, {self.sizes.sum():,} examples{counted}: {top})"


def sampling_weights(
    domains: Domains, p: ArrayLike | str = "target", *, tokens: ArrayLike | None = None
) -> Weights:
    """Make sampling weights from domains and proportions.

    Parameters
    ----------
    domains : Domains
    p : array of shape (m,), or {"target", "uniform", "proportional"}
        As in :func:`proportions_of`; ``run.history["p"][-1]`` for those a run ended with.
    tokens : int array of shape (n_train,) or (m,), optional
        Tokens of each training example (:func:`token_counts`), or of each domain.

    Returns
    -------
    Weights

    Examples
    --------
    >>> from rbkit.regroup.domains import Domains
    >>> domains = Domains.from_labels(["wiki", "code"], [0, 0, 1], [0, 1])
    >>> weights = sampling_weights(domains)
    >>> weights.of(domains.train_labels).tolist()
    [0.25, 0.25, 0.5]
    """
    origin = domains.method.get("corpus")
    return Weights(
        names=list(domains.names),
        sizes=domains.sizes,
        tokens=None if tokens is None else domain_tokens(domains, tokens),
        q=domains.eval_sizes / max(1, domains.eval_sizes.sum()),
        p=proportions_of(domains, p),
        corpus=None if origin is None else str(origin),
        labels_hash=_hash(domains.train_labels),
    )


def domain_tokens(domains: Domains, tokens: ArrayLike) -> NDArray[np.int64]:
    """Return tokens per domain from those of each training example, or of each domain."""
    found = np.asarray(tokens)
    if len(found) == len(domains.train_labels):
        return tokens_by_domain(found, domains.train_labels, domains.m)
    if found.shape != (domains.m,):
        what = f"{len(found)} counts for {len(domains.train_labels)} training examples"
        raise InputError("tokens", what, "count the tokens of the training split")
    return found.astype(np.int64)


def add_weights(
    dataset: Dataset,
    domains: Domains,
    p: ArrayLike | str = "target",
    *,
    columns: tuple[str, str] = COLUMNS,
) -> Dataset:
    """Return the training split with the name of each example's domain and its sampling weight.

    Parameters
    ----------
    dataset : datasets.Dataset
        The training split that the domains were made from.
    domains, p
        As in :func:`sampling_weights`.
    columns : (str, str)
        Names of the two new columns.

    Returns
    -------
    datasets.Dataset
        `domain` is null and `weight` 0 for an example in no domain.

    Raises
    ------
    InputError
        Another number of rows, or columns of these names.

    Examples
    --------
    >>> from datasets import Dataset
    >>> from rbkit.regroup.domains import Domains
    >>> domains = Domains.from_labels(["wiki", "code"], [0, -1, 1], [0, 1])
    >>> rows = Dataset.from_dict({"text": ["oak", "??", "def"]})
    >>> add_weights(rows, domains).to_dict()["domain"]
    ['wiki', None, 'code']
    """
    if len(dataset) != len(domains.train_labels):
        what = f"{len(dataset)} rows, but the domains hold {len(domains.train_labels)}"
        raise InputError("dataset", what, 'give the split "train" of their corpus')
    if taken := [name for name in columns if name in dataset.column_names]:
        what = f"has a column {taken[0]!r} already"
        raise InputError("dataset", what, "remove it, or pass other names as `columns`")
    weights = sampling_weights(domains, p).of(domains.train_labels)
    names = [*domains.names, None]
    with_names = dataset.add_column(columns[0], [names[i] for i in domains.train_labels.tolist()])
    return with_names.add_column(columns[1], weights)


def write_weighted(
    path: str | Path,
    dataset: Dataset,
    domains: Domains,
    p: ArrayLike | str = "target",
    *,
    columns: tuple[str, str] = COLUMNS,
) -> Path:
    """Write the training split with its two new columns as one Parquet file, piece by piece.

    Parameters are those of :func:`add_weights`; the file is whole or absent.
    """
    import pyarrow.parquet as pq

    path = Path(path)
    weighted = add_weights(dataset, domains, p, columns=columns)
    schema = weighted.features.arrow_schema
    with atomic_path(path) as tmp, pq.ParquetWriter(tmp, schema) as writer:
        for piece in weighted.with_format("arrow").iter(batch_size=10_000):
            writer.write_table(piece.cast(schema))
    return path


def _hash(labels: NDArray[Any]) -> str:
    return fingerprint(np.ascontiguousarray(labels, dtype=np.int32).tobytes())
