"""Domains and proportions as sampling weights that any training loop can use.

An example of domain i gets the weight p_i / n_i: drawn with these weights, with replacement,
the domains come in the proportions p. The weights go out as ``weights.json``, as columns of a
data set, as Parquet, or as an array for ``torch.utils.data.WeightedRandomSampler``. A training
loop of another library may load this file, so it imports nothing heavy.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rbkit.errors import InputError, RbkitWarning, as_count, as_number, by_name, domain_numbers
from rbkit.files import atomic_path, fingerprint, read_json, regular, saving, write_json
from rbkit.text import one_line, progress_bar

if TYPE_CHECKING:
    import pandas as pd
    from datasets import Dataset

    from rbkit.regroup.domains import Domains

Floats = NDArray[np.float64]
Shares = ArrayLike | Mapping[str, float] | str  # as in `proportions_of`

_FORMAT = "rbkit-weights/1"
_COLUMNS = ("domain", "weight")
DOMAIN_IDS = "domain_ids"  # the column of the domain of each token
# Bytes of UTF-8 and not characters: a Chinese character is 3 bytes and about one token, as a
# short English word is. English, German and code have 3.5 to 4.5 bytes per token of a BPE.
_BYTES_PER_TOKEN = 4
# Up to four epochs, repeated text is worth about as much as new text; after that its worth
# decays (Muennighoff et al. 2023, arXiv 2305.16264).
_MAX_EPOCHS = 4.0
_MIN_BATCHES = 4  # that a domain can fill: below it the domain is a handful of texts


def proportions_of(domains: Domains, p: Shares = "target") -> Floats:
    """Return proportions over domains, checked: on the simplex, 0 where there is no training data.

    Parameters
    ----------
    domains : Domains
    p : array of shape (m,), mapping of m names, or {"target", "uniform", "proportional"}
        Shares, or by name: q, 1 / m, or the share of the training examples.

    Raises
    ------
    InputError
        Not m finite shares that sum to 1, a share for a domain that has no examples, or a name
        that no domain has.

    Warns
    -----
    RbkitWarning
        q wants a domain that has no training examples: its share goes to the others.

    Examples
    --------
    >>> from rbkit.regroup import Domains
    >>> domains = Domains(["wiki", "code"], [0, 0, 1], [0, 1])
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
            message = f"{lost:.1%} of the target lies in domains without a training example"
            warnings.warn(f"{message}; it goes to the others", RbkitWarning, stacklevel=2)
        named_shares: Floats = np.where(there, wanted, 0.0) / wanted[there].sum()
        return named_shares
    if (pairs := by_name(p)) is not None:
        order = domain_numbers("p", pairs, domains.names, every=True)
        given = [as_number("p", share, "give shares from 0 to 1") for share in pairs.values()]
        p = np.array(given)[np.argsort(order)]
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
        array = np.asarray(labels)
        if _hash(array) != self.labels_hash:
            what = f"{len(array)} labels, not those that the weights were made for"
            raise InputError("labels", what, "use the domains of the weights, or make new weights")
        weights: Floats = np.append(self.per_example, 0.0)[array]  # -1 finds the last
        return weights

    def save(self, path: str | Path) -> Path:
        """Write ``weights.json``, whole or not at all; a folder gets a file of that name."""
        path = Path(path)
        path = path / "weights.json" if path.is_dir() or not path.suffix else path
        facts = {
            "format": _FORMAT,
            "corpus": self.corpus,
            "labels": self.labels_hash,
            "names": self.names,
            "sizes": self.sizes.tolist(),
            "tokens": None if self.tokens is None else self.tokens.tolist(),
            "q": self.q.tolist(),
            "p": self.p.tolist(),
            "weight": self.per_example.tolist(),
        }
        with saving(path):
            write_json(path, facts)
        return path

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what :meth:`save` wrote; an :class:`InputError` names a file that is damaged."""
        path = regular(path, or_folder=True)
        path = path / "weights.json" if path.is_dir() else path
        if not path.is_file():
            raise InputError(str(path), "no such file", "write it with Weights.save")
        facts = read_json(path)
        remedy = "export the weights again"
        if not isinstance(facts, dict) or facts.get("format") != _FORMAT:
            raise InputError(str(path), f"not of the format {_FORMAT}", remedy)
        try:
            tokens = facts["tokens"]
            loaded = cls(
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
            raise InputError(str(path), f"damaged ({error!r})", remedy) from error
        p = loaded.p
        lengths = {len(loaded.names), *map(np.size, (loaded.sizes, loaded.q, p, weight))}
        sound = len(lengths) == 1 and np.isfinite(p).all() and (p >= 0).all()
        if not sound or abs(p.sum() - 1) > 1e-6 or not np.allclose(weight, loaded.per_example):
            raise InputError(str(path), "its numbers do not fit together", remedy)
        return loaded

    def __repr__(self) -> str:
        counted = "" if self.tokens is None else f", {self.tokens.sum():,} tokens"
        top = " · ".join(
            f"{one_line(self.names[i])[:30]} {self.p[i]:.1%}"
            for i in np.argsort(-self.p, kind="stable")[:3]
        )
        return f"Weights({len(self.names)} domains, {self.sizes.sum():,} examples{counted}: {top})"


def sampling_weights(
    domains: Domains, p: Shares = "target", *, tokens: ArrayLike | None = None
) -> Weights:
    """Make sampling weights from domains and proportions.

    Parameters
    ----------
    domains : Domains
    p : array of shape (m,), mapping of m names, or {"target", "uniform", "proportional"}
        As in :func:`proportions_of`; ``run.mixture()`` for those a run ended with.
    tokens : int array of shape (n_train,) or (m,), optional
        Tokens of each training example (:func:`token_counts`), or of each domain.

    Returns
    -------
    Weights

    Examples
    --------
    >>> from rbkit.regroup import Domains
    >>> domains = Domains(["wiki", "code"], [0, 0, 1], [0, 1])
    >>> weights = sampling_weights(domains)
    >>> weights.of(domains.train_labels).tolist()
    [0.25, 0.25, 0.5]
    """
    origin = domains.method.get("corpus")
    return Weights(
        names=list(domains.names),
        sizes=domains.sizes,
        tokens=None if tokens is None else tokens_by_domain(domains, tokens),
        q=domains.eval_sizes / max(1, domains.eval_sizes.sum()),
        p=proportions_of(domains, p),
        corpus=None if origin is None else str(origin),
        labels_hash=_hash(domains.train_labels),
    )


def add_weights(
    dataset: Dataset,
    domains: Domains,
    p: Shares = "target",
    *,
    columns: tuple[str, str] = _COLUMNS,
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
    >>> from rbkit.regroup import Domains
    >>> domains = Domains(["wiki", "code"], [0, -1, 1], [0, 1])
    >>> from datasets import Dataset
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


def add_domain_ids(dataset: Dataset, labels: ArrayLike) -> Dataset:
    """Return a tokenized split with the domain of each token: a column that can be packed.

    Whatever packs ``input_ids`` packs the column ``domain_ids`` with them: ``group_texts`` of
    transformers' ``run_clm``, or ``pack_dataset`` of TRL.

    Parameters
    ----------
    dataset : datasets.Dataset
        With a column ``input_ids``; a row is one example.
    labels : int array of shape (n,)
        ``domains.train_labels`` or ``domains.eval_labels``; -1 leaves an example out.

    Returns
    -------
    datasets.Dataset
        With the column ``domain_ids``, of lists as long as ``input_ids``.

    Raises
    ------
    InputError
        Another number of rows, no column ``input_ids``, or a column ``domain_ids`` already.

    Notes
    -----
    *In your own loop* the ids of a batch, (B, T), go to the tracker, which counts tokens::

        with tracker.batch(batch.pop("domain_ids"), scale=tokens):

    TRL's collator leaves the column out. With ``padding_free=True`` the ids of its batch are
    ``torch.tensor([[i for row in rows for i in row["domain_ids"]]])``.

    :class:`~rbkit.train.trainer.MixtureTrainer` *draws rows by domain*: each domain is packed by
    itself, and the trainer finds the domains of the packed rows in the column. Sizes and q are
    then those of packed rows::

        rows = add_domain_ids(tokenized, domains.train_labels)
        packed = concatenate_datasets(
            [
                pack_dataset(rows.select(np.flatnonzero(domains.train_labels == i)), 1024)
                for i in np.unique(domains.train_labels)
            ]
        )

    TRL's collator takes such rows with ``remove_unused_columns=False``, for their
    ``seq_lengths``. Its ``SFTTrainer(packing=True)`` is of no use here: it packs by itself, drops
    the column, and its loss goes around the head.

    Examples
    --------
    >>> from datasets import Dataset
    >>> rows = Dataset.from_dict({"input_ids": [[5, 6, 7], [8, 9]]})
    >>> add_domain_ids(rows, [1, 0])["domain_ids"][:]
    [[1, 1, 1], [0, 0]]
    """
    ids = np.asarray(labels)
    if ids.ndim != 1 or not np.issubdtype(ids.dtype, np.integer) or len(ids) != len(dataset):
        what = f"shape {ids.shape}, dtype {ids.dtype} for {len(dataset)} rows"
        raise InputError("labels", what, "give one integer for each row, such as train_labels")
    if "input_ids" not in dataset.column_names or DOMAIN_IDS in dataset.column_names:
        what = f"columns {', '.join(map(repr, dataset.column_names))}"
        raise InputError("dataset", what, f"give one with 'input_ids', and without {DOMAIN_IDS!r}")

    def by_token(batch: dict[str, Any], rows: list[int]) -> dict[str, Any]:
        lengths = map(len, batch["input_ids"])
        return {DOMAIN_IDS: [[int(ids[row])] * n for row, n in zip(rows, lengths, strict=True)]}

    return dataset.map(by_token, batched=True, with_indices=True, desc="domain of each token")


def write_weighted(
    path: str | Path,
    dataset: Dataset,
    domains: Domains,
    p: Shares = "target",
    *,
    columns: tuple[str, str] = _COLUMNS,
) -> Path:
    """Write the training split with its two new columns as one Parquet file, piece by piece.

    Parameters are those of :func:`add_weights`; the file is whole or absent.
    """
    import pyarrow.parquet as pq

    path = Path(path)
    weighted = add_weights(dataset, domains, p, columns=columns)
    schema = weighted.features.arrow_schema
    with saving(path), atomic_path(path) as tmp, pq.ParquetWriter(tmp, schema) as writer:
        for piece in weighted.with_format("arrow").iter(batch_size=10_000):
            writer.write_table(piece.cast(schema))
    return path


def _hash(labels: NDArray[Any]) -> str:
    return fingerprint(np.ascontiguousarray(labels, dtype=np.int32).tobytes())


def token_counts(
    texts: Iterable[str],
    tokenizer: Callable[..., Any] | None = None,
    *,
    context: int | None = None,
    progress: bool = True,
) -> NDArray[np.int64]:
    """Count the tokens that each text gives to training.

    Parameters
    ----------
    texts : iterable of str
    tokenizer : transformers tokenizer, optional
        Counted as :func:`rbkit.train.models.tokenize` cuts: without special tokens, one more for
        the end of the text. Without a tokenizer, estimated: four bytes of UTF-8 to a token.
    context : int, optional
        Tokens per example at most, as in training; the rest of a text gives nothing.
    progress : bool
        Show a bar while a tokenizer works.

    Returns
    -------
    ndarray of int64, shape (n,)

    Examples
    --------
    >>> token_counts(["an oak", "", "漢字"]).tolist()
    [3, 1, 3]
    >>> token_counts(["word " * 100], context=96).tolist()
    [96]
    """
    if context is not None:
        remedy = "give that of training, or None"
        context = as_count("context", context, least=1, remedy=remedy)
    if tokenizer is None:
        sizes = [len(text.encode("utf-8", "surrogatepass")) for text in texts]
        counts = -(-np.array(sizes, dtype=np.int64) // _BYTES_PER_TOKEN) + 1
    else:
        end = int(getattr(tokenizer, "eos_token_id", None) is not None)
        lengths: list[int] = []
        total = len(texts) if isinstance(texts, Sequence) else None
        rest = iter(texts)
        with progress_bar(
            total=total, desc="counting tokens", disable=not progress, delay=2
        ) as bar:
            while piece := list(islice(rest, 1000)):
                rows = tokenizer(piece, add_special_tokens=False)["input_ids"]
                lengths += [len(row) + end for row in rows]
                bar.update(len(piece))
        counts = np.array(lengths, dtype=np.int64)
    return counts if context is None else np.minimum(counts, context)


def tokens_by_domain(domains: Domains, tokens: ArrayLike) -> NDArray[np.int64]:
    """Return tokens per domain, (m,), from those of each training example, or of each domain.

    Examples
    --------
    >>> from rbkit.regroup import Domains
    >>> tokens_by_domain(Domains(["a", "b"], [0, 1, 0, -1], [0]), [5, 7, 9, 1]).tolist()
    [14, 7]
    """
    counts, labels = np.asarray(tokens, dtype=np.int64), domains.train_labels
    if counts.shape == labels.shape:
        sums = np.zeros(domains.m, dtype=np.int64)
        np.add.at(sums, labels[labels >= 0], counts[labels >= 0])
        return sums
    if counts.shape != (domains.m,):
        what = f"{len(counts)} counts for {len(labels)} training examples"
        raise InputError("tokens", what, "count the tokens of the training split")
    return counts


def training_table(
    domains: Domains,
    p: Shares = "target",
    *,
    steps: int,
    batch_size: int,
    tokens: ArrayLike | None = None,
    round_steps: int | None = None,
    max_epochs: float = _MAX_EPOCHS,
    min_batches: float = _MIN_BATCHES,
    warn: bool = True,
) -> pd.DataFrame:
    """Return, for each domain, how much training with the proportions p would take from it.

    Parameters
    ----------
    domains : Domains
    p : array of shape (m,), mapping of m names, or {"target", "uniform", "proportional"}
        As in :func:`proportions_of`.
    steps, batch_size : int
        Optimizer steps, and examples per step over all processes and micro-batches.
    tokens : int array of shape (n_train,) or (m,), optional
        Tokens of each training example (:func:`token_counts`), or of each domain.
    round_steps : int, optional
        Steps of a round, for the examples of each domain that a round sees.
    max_epochs : float
        Repetitions from which to warn.
    min_batches : float
        Batches that a domain should be able to fill.
    warn : bool
        Warn with :class:`RbkitWarning`; the table's `note` has the same.

    Returns
    -------
    pandas.DataFrame
        A row per domain, by name: ``examples, share, q, p``; ``drawn``, the examples expected
        to be drawn; ``epochs``, drawn / examples; ``batches``, how many it can fill;
        ``lasts``, the steps until it has been seen once; with `tokens` also ``tokens``,
        ``tokens_seen`` and ``token_share``; with `round_steps` also ``per_round``; ``note``.

    Raises
    ------
    InputError
        Steps or batch size below 1, or impossible proportions.

    Warns
    -----
    RbkitWarning
        Domains that would be repeated more than `max_epochs` times, or that cannot fill
        `min_batches` batches.

    Examples
    --------
    >>> from rbkit.regroup import Domains
    >>> domains = Domains(["wiki", "code"], [0] * 90 + [1] * 10, [0, 1])
    >>> table = training_table(domains, steps=10, batch_size=20, min_batches=0, warn=False)
    >>> table["epochs"].round(1).tolist(), table["note"].tolist()
    ([1.1, 10.0], ['', 'seen 10 times'])
    """
    import pandas as pd

    steps = as_count("steps", steps, least=1, remedy="give at least 1")
    batch_size = as_count("batch_size", batch_size, least=1, remedy="give at least 1")
    if round_steps is not None:
        round_steps = as_count("round_steps", round_steps, least=1)
    shares, sizes = proportions_of(domains, p), domains.sizes
    drawn = shares * steps * batch_size
    there = sizes > 0
    epochs = np.divide(drawn, sizes, out=np.zeros(domains.m), where=there)
    lasts = np.divide(sizes, shares * batch_size, out=np.full(domains.m, np.inf), where=shares > 0)
    table = pd.DataFrame(
        {
            "examples": sizes,
            "share": sizes / max(1, sizes.sum()),
            "q": domains.eval_sizes / max(1, domains.eval_sizes.sum()),
            "p": shares,
            "drawn": drawn,
            "epochs": epochs,
            "batches": sizes / batch_size,
            "lasts": lasts,
        },
        index=pd.Index(list(map(one_line, domains.names)), name="domain"),
    )
    if tokens is not None:
        inside = tokens_by_domain(domains, tokens)
        seen = epochs * inside
        table["tokens"] = inside
        table["tokens_seen"] = seen
        table["token_share"] = seen / max(float(seen.sum()), 1e-300)
    if round_steps is not None:
        table["per_round"] = shares * batch_size * round_steps
    often = epochs > max_epochs * (1 + 1e-9)
    # A share of 0 needs no examples; an empty domain was reported by its share.
    small = (sizes < min_batches * batch_size) & there & (shares > 0)
    notes = []
    for at, fills in enumerate(sizes / batch_size):
        note = [f"seen {epochs[at]:.3g} times"] if often[at] else []
        if small[at]:
            note.append(f"fills {fills:.2g} batches" if fills >= 1 else "fills no batch")
        notes.append(", ".join(note))
    table["note"] = notes
    if warn and (message := repetition(domains.names, epochs, max_epochs)):
        warnings.warn(message, RbkitWarning, stacklevel=2)
    if warn and small.any():
        few = table[small].sort_values("examples", kind="stable")["examples"]
        listed = _listed([f"{name!r} {value:,} examples" for name, value in few.items()])
        message = (
            f"{_domains(small)} cannot fill {min_batches:g} batches of {batch_size} ({listed}); "
            "merge them, or drop them"
        )
        warnings.warn(message, RbkitWarning, stacklevel=2)
    return table


def repetition(names: Sequence[str], epochs: NDArray[np.float64], most: float = _MAX_EPOCHS) -> str:
    """Return what to say of domains that are read over and over; nothing, if none is.

    Up to 4 epochs, repeats are nearly as good as new text (arXiv 2305.16264).

    Examples
    --------
    >>> print(repetition(["wiki", "code"], np.array([1.0, 10.0])))
    1 domain would be seen more than 4 times ('code' 10 times): repeated text teaches less; \
train for fewer steps, lower their shares, merge them, or take Target(max_epochs=4) or RepeatAware()
    """
    often = epochs > most * (1 + 1e-9)
    worst = [i for i in np.argsort(-epochs, kind="stable") if often[i]]
    if not worst:
        return ""
    listed = _listed([f"{one_line(names[i])!r} {epochs[i]:.3g} times" for i in worst])
    return (
        f"{_domains(often)} would be seen more than {most:g} times ({listed}): repeated text "
        "teaches less; train for fewer steps, lower their shares, merge them, or take "
        f"Target(max_epochs={most:g}) or RepeatAware()"
    )


def _domains(which: NDArray[np.bool_]) -> str:
    return f"{which.sum()} domain{'s' if which.sum() > 1 else ''}"


def _listed(parts: list[str], most: int = 4) -> str:
    return ", ".join(parts[:most]) + (", ..." if len(parts) > most else "")
