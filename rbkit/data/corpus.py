"""``load_corpus``: examples of any format, as one ``DatasetDict`` with train and eval.

Texts stay in Arrow, memory-mapped: one pass over them makes a content hash and a source number
per row, the split is decided on these small arrays, and its rows are
selected without copying a text. Facts about a corpus (name, licences, counts) travel
in ``dataset.info.description`` as JSON and are read with :func:`about`.

Which side of the split a row is on is a function of (seed, its text) alone. So adding or
reordering rows moves no other row across the split, and two copies of a text are never on
different sides.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import datasets
import numpy as np
from numpy.typing import NDArray

from rbkit.data.columns import (
    CORPUS_FORMAT,
    ORIGINAL_ROW,
    Columns,
    Ints,
    Rows,
    Scan,
    UInt64s,
    has_images,
)
from rbkit.data.files import Opened
from rbkit.data.read import open_data
from rbkit.errors import InputError, RbkitWarning, as_count, as_number, as_seed
from rbkit.text import listed

_EVAL_NAMES = ("eval", "validation", "valid", "val", "dev", "test")


def load_corpus(
    where: Any,
    *,
    text: str | Sequence[str] | Callable[[dict[str, Any]], str | None] = "text",
    messages: str | None = None,
    source: str | None = "source",
    id: str | None = None,
    image: str | None = "image",
    keep: bool | Sequence[str] = True,
    eval_share: float = 0.1,
    eval_size: int | None = None,
    eval_sources: Mapping[str, float] | None = None,
    max_examples: int | None = None,
    seed: int = 0,
    config: str | None = None,
    split: str | None = None,
    drop_duplicates: bool = True,
    progress: bool = True,
    **options: Any,
) -> datasets.DatasetDict:
    """Load a corpus as a ``DatasetDict`` with splits ``train`` and ``eval``.

    Data with a split called eval, validation, valid, val, dev or test (the first of
    these that exists) keeps it. Otherwise the split is a function of `seed` and each row's
    text alone: adding rows moves no other row across, and copies of a text stay together.

    Parameters
    ----------
    where : str, path, list, mapping, Dataset, DatasetDict, DataFrame, array, iterator, ...
        A built-in corpus (``wiki``, ``recipes``, ``code``, ``demo``, ``docstrings``; with columns
        ``prompt`` and ``completion`` also ``instruct``, ``tasks``, ``tasks-ood``, ``reasoning``;
        ``emoji``: images with their names);
        a CSV, TSV, JSON, JSONL, Parquet or text file, a glob or a list of these, compressed (.gz,
        .bz2, .xz, .zst) or not; a mapping of split name to files; a folder; or a hub id such as
        ``databricks/databricks-dolly-15k``. A local folder called ``wiki`` is ``./wiki``.
        Original task files of Super-NaturalInstructions (``tasks/task001_....json``) have the
        source ``task``; ``source="Categories"`` or ``"Domains"`` takes what they say of it, and
        ``positive_examples=2`` puts so many into the prompt; of several outputs the first is
        the completion. In a folder of several ``.txt`` and ``.md`` files, and in a list with
        ``.md``, each file is one example, and its source the subfolder; lines are examples in
        other ``.txt`` files. ``sample_by="document"`` or ``"line"`` asks for one of the two.
        In a folder of images (``.png``, ``.jpg``, ...) each is one example; its caption is the
        file's name, or stands in ``metadata.csv`` or ``.jsonl`` (``file_name`` and ``caption``)
        or in a text file of the same name; its source is the subfolder. A ``.tar`` is read as a
        WebDataset.
        Or what is in memory: a list, tuple, Series or array of texts; a pandas frame, a list
        of dicts, a dict of columns, an Arrow table; a data set, also one that streams, or an
        iterator of texts or dicts, which is read to its end; a mapping of split name to any of
        these. Strings in a list are files if each of them exists, ends as a data file does
        (``.csv``, ``.jsonl``, ...) or is a pattern; texts if none does; otherwise refused.
    text : str, sequence of str, or callable
        Column of the texts, or a field of one (``"doc.body"``). Several are joined by a blank
        line; empty ones are left out. A callable gets each row as a dict, and returns its text
        or None; it is called twice, and its text must depend on the row alone. A column of lists
        of texts is joined, too. If there is no column ``text``, those of Dolly, Alpaca,
        Super-NaturalInstructions, S1, prompts and completions, questions and answers, ShareGPT or
        OpenAI's chats are taken, with a warning that says so. Of images it is the caption:
        ``caption``, or ``txt`` of a WebDataset.
    messages : str, optional
        Column of chats, instead of `text`: lists of ``{role, content}`` or ``{from, value}``,
        written as ``User: ...`` and ``Assistant: ...`` with a blank line between turns. As data
        of the shapes above, they get columns ``prompt`` and ``completion``, unless the data has
        one of these: texts that make up the text, or, of a chat, the messages up to the
        assistant's last one, and this.
    source : str or None
        Column of the human labels, or a field of one. If there is none, every source is
        ``"unknown"``.
    id : str, optional
        Column of strings or integers, or a field of one, that is kept as ``id``.
    image : str or None
        Column of images (``datasets.Image``), of their bytes, or of paths: of files below the
        folder of the data, or anywhere if the data are in memory. It is kept as ``image``, and
        decides the side of the split in place of the text. By default a column ``image``, or the
        only one of images, if there is one; None: images are not read.
    keep : bool or sequence of str
        Further columns to keep beside the text, ``prompt`` and ``completion`` included; True: all
        of them, () or False: none. Those that are called ``text``, ``source``, ``original_row``
        or, with `id`, ``id``, and are not the corpus's own, are kept as ``given_text`` and so on.
        A column that Arrow cannot hold is left out, with a warning, unless it is asked for.
    eval_share : float
        Share of the texts to hold out, in (0, 1).
    eval_size : int, optional
        Examples to hold out, instead of a share.
    eval_sources : mapping of str to float, optional
        Shares of the sources in the eval split: a target that differs from the training mix.
        Rows that were held out for it and not drawn are in neither split, so that training
        data do not depend on the target.
    max_examples : int, optional
        At most so many training examples: a deterministic subsample, sources in proportion.
    seed : int
        Seed of the split and of the subsample.
    config, split : str, optional
        Configuration and split of a hub data set; ``split`` takes one split as the whole corpus.
    drop_duplicates : bool
        Leave training examples out whose text is also in the eval split that came with the data.
    progress : bool
        Show progress bars for what takes long.
    **options
        Passed to the built-in corpus (``uncategorized`` for wiki and demo; ``libraries`` and
        ``per_library`` for docstrings) or to ``datasets.load_dataset``.

    Returns
    -------
    datasets.DatasetDict
        Splits ``train`` and ``eval``, each with string columns ``text`` and ``source``, and
        ``original_row``: the row in the data as given, from 0, before rows were left out; if
        the data has an eval split of its own, the row in that split; if it is a corpus that was
        saved, what was its ``original_row``. And ``id``, if asked for, further columns, and
        ``image``, if there are images: an image without a text is left out.

    Raises
    ------
    InputError
        In one line: no such file, a damaged file or image (with its row), an image that is too
        large to be decoded or lies outside the data, a missing column, an empty corpus, too few
        examples for the eval split, an unknown source.
    AssetError
        A built-in corpus that cannot be fetched.

    Examples
    --------
    >>> corpus = load_corpus([f"text {i}" for i in range(50)], eval_size=5)
    >>> len(corpus["train"]), len(corpus["eval"]), corpus["train"].column_names
    (45, 5, ['text', 'source', 'original_row'])
    """
    remedy = "give a number between 0 and 1"
    if not 0 < (eval_share := as_number("eval_share", eval_share, remedy)) < 1:
        raise InputError("eval_share", f"is {eval_share}", remedy)
    seed = as_seed(seed)
    eval_size = None if eval_size is None else as_count("eval_size", eval_size)
    max_examples = None if max_examples is None else as_count("max_examples", max_examples)
    opened = open_data(where, config=config, split=split, progress=progress, options=options)
    opened = opened.with_images(image)
    train_name, eval_name = _split_names(opened)
    columns = Columns.find(opened, train_name, text, source, messages, id)
    if eval_name:
        columns.check(opened, eval_name)
    kept = {name: columns.kept(opened, name, keep) for name in (train_name, eval_name) if name}
    _warn_of_columns(opened, columns, kept[train_name], keep)
    scans = [columns.scan(opened.splits[train_name], progress, where=opened.name)]
    if eval_name:
        scans.append(columns.scan(opened.splits[eval_name], progress, where=opened.name))
    rows = Rows.of(scans)
    if len(rows.hashes) == 0:
        raise InputError(opened.name, "no example with a text in it", "check the data and `text`")
    _warn_of_dropped_rows(opened.name, scans)

    if eval_name:
        first_eval = len(scans[0].rows)
        train = np.arange(first_eval)
        pool = np.arange(first_eval, len(rows.hashes))
        held = _draw(pool, rows, eval_size, eval_sources, seed, f"{opened.name}, {eval_name}")
        held_back = 0
    else:
        train, held, held_back = _split(rows, eval_share, eval_size, eval_sources, seed)
    copies = np.isin(rows.hashes[train], rows.hashes[held])
    duplicates = int(copies.sum())
    if not eval_name or drop_duplicates:
        train = train[~copies]
    if eval_name and duplicates:
        done = "left out of train" if drop_duplicates else "kept in both"
        warnings.warn(
            f"{opened.name}: {duplicates} training examples are also in the split {eval_name!r}; "
            f"they are {done} (drop_duplicates={drop_duplicates})",
            RbkitWarning,
            stacklevel=2,
        )
    if max_examples is not None:
        train = subsample(train, rows.codes, rows.hashes, max_examples, seed)
    for name, chosen in (("train", train), ("eval", held)):
        if len(chosen) == 0:
            raise InputError(opened.name, f"no example is left for {name}", "give more examples")

    corpus = datasets.DatasetDict()
    for name, chosen in (("train", train), ("eval", held)):
        own = (eval_name if name == "eval" else None) or train_name
        key = rows.fingerprint(chosen, chosen[:0])
        at = rows.position[chosen]
        corpus[name] = columns.take(opened.splits[own], at, progress, key, kept[own])
    facts = {
        "format": CORPUS_FORMAT,
        "name": opened.name,
        "licences": opened.credits,
        "n_train": len(train),
        "n_eval": len(held),
        "duplicates": duplicates,
        "dropped": sum(scan.dropped for scan in scans),
        "held_back": held_back,
        "sources": [rows.names[i] for i in np.unique(rows.codes[train])],
        "seed": seed,
        "fingerprint": rows.fingerprint(train, held),
        **({"in_memory": True} if opened.in_memory else {}),
    }
    return _attach(corpus, facts)


def about(corpus: datasets.DatasetDict) -> dict[str, Any]:
    """Return the facts about a corpus: name, licences, counts, duplicates, fingerprint.

    Returns
    -------
    dict
        ``name`` : str; ``licences`` : list of {asset, licence, attribution, url}; ``n_train``,
        ``n_eval`` : int; ``duplicates`` : training examples that are also in the eval split;
        ``dropped`` : rows without text; ``held_back`` : rows in neither split (see
        `eval_sources`); ``sources`` : list of str; ``seed`` : int; ``fingerprint`` : hash of all
        texts and sources; ``in_memory`` : True for data without a place to be loaded from. For a
        corpus that rbkit did not load, or that has been changed since,
        counts and fingerprint are computed again.

    Examples
    --------
    >>> rows = datasets.Dataset.from_dict({"text": ["a", "b", "c"]})
    >>> about(load_corpus(rows, eval_size=1))["n_train"]
    2
    """
    missing = [split for split in ("train", "eval") if split not in corpus]
    if missing:
        raise InputError("corpus", f"no split {missing[0]!r}", "make it with load_corpus")
    facts: dict[str, Any] = {"name": "unnamed", "licences": [], "seed": None}
    facts |= _attached(corpus["train"])
    stamps = facts.pop("stamps", None)
    facts.pop("format", None)
    if stamps == _stamps(corpus):
        return facts
    for split in ("train", "eval"):
        if "text" not in corpus[split].column_names:
            raise InputError(f"corpus, {split}", "needs a column text", "make it with load_corpus")
    sourced = all("source" in corpus[split].column_names for split in ("train", "eval"))
    columns = Columns(["text"], "source" if sourced else None)
    columns.images = all(has_images(corpus[split].features) for split in ("train", "eval"))
    rows = Rows.of(
        [columns.scan(corpus[split], False, keep_empty=True) for split in ("train", "eval")]
    )
    train, held = np.split(np.arange(len(rows.hashes)), [len(corpus["train"])])
    return facts | {
        "n_train": len(train),
        "n_eval": len(held),
        "duplicates": int(np.isin(rows.hashes[train], rows.hashes[held]).sum()),
        "dropped": facts.get("dropped", 0),
        "held_back": facts.get("held_back", 0),
        "sources": [rows.names[i] for i in np.unique(rows.codes[train])],
        "fingerprint": rows.fingerprint(train, held),
    }


def part_of(
    corpus: datasets.DatasetDict,
    sizes: Mapping[str, int],
    seed: int = 0,
    labels: Mapping[str, NDArray[Any]] | None = None,
) -> dict[str, Ints]:
    """Choose rows of both splits, at most `sizes`, each source (or label) in proportion.

    Each is there at least once, if there is room; of those that train has, the eval part has only
    such as the train part has, too.

    >>> corpus = load_corpus([{"text": f"{i}", "source": "ab"[i > 90]} for i in range(99)])
    >>> rows = part_of(corpus, {"train": 9, "eval": 3})
    >>> sorted(set(corpus["train"][rows["train"]]["source"]))
    ['a', 'b']
    """
    sourced = all("source" in corpus[split].column_names for split in ("train", "eval"))
    columns = Columns(["text"], "source" if sourced else None)
    splits = [columns.scan(corpus[split], False, keep_empty=True) for split in ("train", "eval")]
    rows = Rows.of(splits)
    n = len(corpus["train"])
    codes = rows.codes
    if labels is not None:  # -1 is a group as well
        codes = np.concatenate([labels["train"], labels["eval"]]).astype(np.int64) + 1
    train = subsample(np.arange(n), codes, rows.hashes, sizes["train"], seed)
    held = np.arange(n, len(codes))
    held = held[np.isin(codes[held], codes[train]) | ~np.isin(codes[held], codes[:n])]
    if not len(held):
        held = np.arange(n, len(codes))
    return {"train": train, "eval": subsample(held, codes, rows.hashes, sizes["eval"], seed) - n}


def corpus_of(
    corpus: datasets.DatasetDict, rows: Mapping[str, Sequence[int] | Ints]
) -> datasets.DatasetDict:
    """Return the corpus of some rows of both splits."""
    return datasets.DatasetDict({split: corpus[split].select(rows[split]) for split in rows})


def _attach(corpus: datasets.DatasetDict, facts: dict[str, Any]) -> datasets.DatasetDict:
    description = json.dumps({**facts, "stamps": _stamps(corpus)}, ensure_ascii=False)
    for data in corpus.values():
        data.info.description = description
    return corpus


def _attached(data: datasets.Dataset) -> dict[str, Any]:
    try:
        facts = json.loads(data.info.description or "{}")
    except json.JSONDecodeError:
        return {}  # a data set's own description: prose
    return facts if isinstance(facts, dict) and facts.get("format") == CORPUS_FORMAT else {}


def _stamps(corpus: datasets.DatasetDict) -> list[str]:
    # `datasets` changes a data set's fingerprint with every operation, and keeps it on disk.
    return [str(corpus[split]._fingerprint) for split in ("train", "eval")]


def _split_names(opened: Opened) -> tuple[str, str | None]:
    names = list(opened.splits)
    train = "train" if "train" in names else names[0] if len(names) == 1 else None
    if train is None:
        raise InputError(
            opened.name, f"has the splits {', '.join(names)} and no train", "choose one by split="
        )
    return train, next((name for name in _EVAL_NAMES if name in names and name != train), None)


def _warn_of_columns(
    opened: Opened, columns: Columns, kept: Mapping[str, str], keep: bool | Sequence[str]
) -> None:
    """Tell of columns that are left out, or kept under another name."""
    for error in opened.unread.values() if keep is True else ():
        message = f"{error.where}: left out, for it {error.what}"
        warnings.warn(message, RbkitWarning, stacklevel=3)
    read = set(columns.names(next(iter(opened.splits.values())))) - {ORIGINAL_ROW}
    for old, new in kept.items():
        if old != new and old not in read:  # what the corpus's own is made of is no surprise
            message = f"its column {old!r} is kept as {new!r}, for a corpus has its own {old!r}"
            warnings.warn(f"{opened.name}: {message}", RbkitWarning, stacklevel=3)


def _warn_of_dropped_rows(name: str, scans: Sequence[Scan]) -> None:
    dropped = sum(scan.dropped for scan in scans)
    if dropped:
        total = dropped + sum(len(scan.rows) for scan in scans)
        warnings.warn(
            f"{name}: {dropped} of {total} rows have no text and were left out",
            RbkitWarning,
            stacklevel=3,
        )


def _draw(
    pool: Ints,
    rows: Rows,
    size: int | None,
    shares: Mapping[str, float] | None,
    seed: int,
    where: str,
) -> Ints:
    """Draw the eval split from the rows of the data's own one."""
    if size is not None and not 1 <= size <= len(pool):
        raise InputError("eval_size", f"{size} of {len(pool)} examples in {where}", "ask for fewer")
    if shares is not None:
        return draw_sources(pool, rows.codes, rows.hashes, rows.names, shares, size, seed)
    if size is None:
        return pool
    order = np.argsort(uniform(rows.hashes[pool], seed, "split"), kind="stable")
    return np.sort(pool[order[:size]])


def _split(
    rows: Rows,
    share: float,
    size: int | None,
    shares: Mapping[str, float] | None,
    seed: int,
) -> tuple[Ints, Ints, int]:
    """Split by content hash; return train rows, eval rows and how many are in neither."""
    if shares is None:
        mask = hold_out(rows.hashes, share, size, seed)
        return np.flatnonzero(~mask), np.flatnonzero(mask), 0
    target = source_shares(rows.names, shares)
    mask = hold_out(rows.hashes, share, None, seed)
    if size is not None:
        _hold_out_more(mask, rows, apportion(size, target), seed)
    pool = np.flatnonzero(mask)
    held = draw_sources(pool, rows.codes, rows.hashes, rows.names, shares, size, seed)
    return np.flatnonzero(~mask), held, len(pool) - len(held)


def _hold_out_more(mask: NDArray[np.bool_], rows: Rows, needed: Ints, seed: int) -> None:
    u = uniform(rows.hashes, seed, "split")
    for code in np.flatnonzero(needed):
        of_source = np.flatnonzero(rows.codes == code)
        if needed[code] * 2 > len(of_source):
            raise InputError(
                "eval_sources",
                f"{needed[code]} of the {len(of_source)} examples of source "
                f"{rows.names[code]!r} would be held out",
                "ask for at most half of them: lower its share or eval_size",
            )
        first = of_source[np.argsort(u[of_source], kind="stable")[: needed[code]]]
        mask[first] = True


# ---------------------------------------------------- splits and subsamples of hashed rows


def uniform(hashes: UInt64s, seed: int, purpose: str) -> NDArray[np.float64]:
    """Pseudo-random numbers in [0, 1), one per hash; independent between seeds and purposes."""
    salt = hashlib.blake2b(f"{seed}/{purpose}".encode(), digest_size=8).digest()
    x = hashes ^ np.uint64(int.from_bytes(salt, "little"))
    # splitmix64's finaliser (Steele, Lea & Flood 2014): every input bit reaches every output bit
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    x = x ^ (x >> np.uint64(31))
    return (x >> np.uint64(11)).astype(np.float64) * 2.0**-53


def apportion(total: int, shares: NDArray[np.float64]) -> Ints:
    """Split `total` into whole numbers in proportion to `shares` (largest remainder).

    >>> apportion(10, np.array([0.55, 0.25, 0.2])).tolist()
    [6, 2, 2]
    """
    exact = total * shares / shares.sum()
    whole: Ints = np.floor(exact + 1e-9).astype(np.int64)
    left = total - int(whole.sum())
    whole[np.argsort(whole - exact, kind="stable")[:left]] += 1
    return whole


def hold_out(hashes: UInt64s, share: float, size: int | None, seed: int) -> NDArray[np.bool_]:
    """Mask of the rows to hold out: a `share` of the texts, or the `size` rows that come first.

    At least one text is held out and at least one is left, whatever `share` says. With `size`,
    adding rows to the corpus can only push held-out rows back: no other row ever gets held out.
    All copies of a text share its fate, so there may be a few more than `size`.
    """
    u = uniform(hashes, seed, "split")
    unique = np.unique(u)
    if len(unique) < 2:
        raise InputError(
            "corpus", "needs at least two different texts to be split", "give it more examples"
        )
    if size is None:
        cut = float(np.clip(share, unique[1], unique[-1]))
    else:
        ordered = np.sort(u)
        if not 1 <= size < len(ordered):
            raise InputError(
                "eval_size",
                f"{size} of {len(ordered)} examples",
                "hold out at least 1, and fewer than there are",
            )
        # the first value beyond the wanted rows; the last text always stays in train
        cut = float(min(np.nextafter(ordered[size - 1], 1.0), unique[-1]))
    return u < cut


def draw_sources(
    candidates: Ints,
    codes: Ints,
    hashes: UInt64s,
    names: Sequence[str],
    shares: Mapping[str, float],
    size: int | None,
    seed: int,
) -> Ints:
    """Draw rows from `candidates` so that their sources have the given shares; return them sorted.

    `codes` and `hashes` are the source number and content hash of every row of the corpus, and
    sources that `shares` does not name get none. Without a `size`, as many are drawn as every
    source has enough for.
    """
    target = source_shares(names, shares)
    have = np.bincount(codes[candidates], minlength=len(names))
    wanted = np.flatnonzero(target)
    most = int(np.floor((have[wanted] / target[wanted]).min() + 1e-9))
    if size is None:
        size = most
        counts = np.floor(size * target + 1e-9).astype(np.int64)
    else:
        counts = apportion(size, target)
    lacking = wanted[have[wanted] < np.maximum(counts[wanted], 1)]
    if len(lacking):
        i = int(lacking[0])
        raise InputError(
            "eval_sources",
            f"{max(int(counts[i]), 1)} held-out examples of source {names[i]!r} are needed, "
            f"there are {int(have[i])}",
            f"lower its share, raise eval_share, or ask for eval_size <= {most}"
            if most
            else "lower its share or raise eval_share",
        )
    return _first_of_each(candidates, codes, counts, uniform(hashes, seed, "eval_sources"))


def source_shares(names: Sequence[str], shares: Mapping[str, float]) -> NDArray[np.float64]:
    """Return shares as an array over `names` that sums to 1."""
    unknown = [name for name in shares if name not in names]
    if unknown:
        raise InputError(
            "eval_sources", f"no source {unknown[0]!r}", f"the sources are {listed(names)}"
        )
    target = np.array([float(shares.get(name, 0.0)) for name in names], dtype=np.float64)
    if not np.all(np.isfinite(target)) or target.min(initial=0) < 0 or target.sum() <= 0:
        raise InputError(
            "eval_sources", f"{dict(shares)} are not shares", "give numbers >= 0, not all zero"
        )
    scaled: NDArray[np.float64] = target / target.sum()
    return scaled


def subsample(rows: Ints, codes: Ints, hashes: UInt64s, size: int, seed: int) -> Ints:
    """Take `size` of `rows`, each source in proportion and, if there is room, at least once.

    Returns sorted row numbers; all of `rows` if there are no more than `size`.
    """
    if size < 1:
        raise InputError("max_examples", f"is {size}", "give at least 1")
    if size >= len(rows):
        return np.sort(rows)
    have = np.bincount(codes[rows])
    present = have > 0
    counts = np.zeros(len(have), dtype=np.int64)
    if size >= present.sum():
        # one each, then the rest in proportion to what is left of each source
        counts[present] = 1
        if left := size - int(counts.sum()):
            counts += apportion(left, (have - counts).astype(np.float64))
    else:
        counts = apportion(size, have.astype(np.float64))
    return _first_of_each(rows, codes, counts, uniform(hashes, seed, "subsample"))


def _first_of_each(rows: Ints, codes: Ints, counts: Ints, u: NDArray[np.float64]) -> Ints:
    ordered = rows[np.argsort(u[rows], kind="stable")]
    taken = []
    for source in np.flatnonzero(counts):
        of_source = ordered[codes[ordered] == source]
        taken.append(of_source[: counts[source]])
    return np.sort(np.concatenate(taken)) if taken else np.zeros(0, dtype=np.int64)
