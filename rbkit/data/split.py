"""Deterministic splits and subsamples from content hashes: pure arithmetic on arrays.

Where a row goes is a function of (seed, its text) alone. So adding or reordering rows moves
no other row across the split, and two copies of a text are never on different sides.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from rbkit.errors import InputError

UInt64s = NDArray[np.uint64]
Ints = NDArray[np.int64]


def content_hash(texts: Iterable[str]) -> UInt64s:
    r"""64-bit hashes of texts, blind to differences in whitespace.

    Examples
    --------
    >>> a, b, c = content_hash(["one two", " one\n two", "one, two"])
    >>> bool(a == b), bool(a == c)
    (True, False)
    """
    raw = b"".join(
        hashlib.blake2b(
            " ".join(text.split()).encode("utf-8", "surrogatepass"), digest_size=8
        ).digest()
        for text in texts
    )
    return np.frombuffer(raw, dtype="<u8").astype(np.uint64)


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

    Examples
    --------
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
    """Draw rows from `candidates` so that their sources have the given shares.

    Parameters
    ----------
    candidates : ndarray of shape (n,), int64
        Rows that may be drawn.
    codes, hashes : ndarray of shape (n_rows,)
        Source number and content hash of every row of the corpus.
    names : sequence of str
        Name of each source number.
    shares : mapping of str to float
        Source -> share; scaled to sum to 1. Sources that are not named get none.
    size : int or None
        Rows to draw; as many as there are enough for, if None.
    seed : int
        Seed of the order in which a source's rows are drawn.

    Returns
    -------
    ndarray of int64
        Sorted row numbers.

    Raises
    ------
    InputError
        Unknown source, bad share, or too few rows of a source.
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
    short = wanted[have[wanted] < np.maximum(counts[wanted], 1)]
    if len(short):
        i = int(short[0])
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
    """Shares as an array over `names` that sums to 1; :class:`InputError` if they are no shares."""
    unknown = [name for name in shares if name not in names]
    if unknown:
        raise InputError(
            "eval_sources", f"no source {unknown[0]!r}", f"the sources are {_listed(names)}"
        )
    target = np.array([float(shares.get(name, 0.0)) for name in names], dtype=np.float64)
    if not np.all(np.isfinite(target)) or target.min(initial=0) < 0 or target.sum() <= 0:
        raise InputError(
            "eval_sources", f"{dict(shares)} are not shares", "give numbers >= 0, not all zero"
        )
    scaled: NDArray[np.float64] = target / target.sum()
    return scaled


def _listed(names: Sequence[str], most: int = 30) -> str:
    shown = ", ".join(map(repr, names[:most]))
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


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
