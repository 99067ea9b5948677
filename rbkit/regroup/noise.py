"""Noise is a stated policy: where the examples of no cluster go, and how domains change.

HDBSCAN leaves a part of a corpus outside all clusters. Given silently to the nearest domain it
inflates some of them; dropped silently it shrinks the corpus. So the policy has a name, and
the outcome reports the sizes before and after.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rbkit.errors import InputError, RbkitWarning, as_number
from rbkit.regroup.grouping import means
from rbkit.regroup.kmeans import assign

POLICIES = ("nearest", "own", "drop")
_BLOCK = 16_384


@dataclass(frozen=True)
class NoiseOutcome:
    """Labels after a policy, and its effect.

    Attributes
    ----------
    labels : ndarray of int32, shape (n,)
        Domain of every example; -1 for those left out.
    policy : str
    max_noise : float or None
    noise_before, noise_after : int
        Noise points before, and after those near enough joined a domain. The latter make the
        domain ``m`` under "own" and have label -1 under "drop".
    sizes_before, sizes_after : ndarray of int64
        Examples of every domain; under "own" the last of `sizes_after` is that of the noise.
    joined : ndarray of bool, shape (n,)
        Noise points that joined a domain.
    """

    labels: NDArray[np.int32] = field(repr=False)
    policy: str
    max_noise: float | None
    noise_before: int
    noise_after: int
    sizes_before: NDArray[np.int64] = field(repr=False)
    sizes_after: NDArray[np.int64] = field(repr=False)
    joined: NDArray[np.bool_] = field(repr=False)

    @property
    def growth(self) -> NDArray[np.float64]:
        """By which factor each domain grew, shape (m,)."""
        m = len(self.sizes_before)
        grown: NDArray[np.float64] = self.sizes_after[:m] / np.maximum(self.sizes_before, 1)
        return grown

    def __str__(self) -> str:
        n, joined = len(self.labels), int(self.joined.sum())
        parts = [f"noise: {self.noise_before:,} of {n:,} examples ({self.noise_before / n:.1%})"]
        if joined:
            most = int(np.argmax(self.growth))
            parts.append(
                f"{joined:,} joined the nearest domain "
                f"(domain {most} grew most, {self.growth[most]:.2f} times)"
            )
        if self.noise_after:
            where = {"own": "are a domain of their own", "drop": "are left out"}[self.policy]
            parts.append(f"{self.noise_after:,} ({self.noise_after / n:.1%}) {where}")
        return "; ".join(parts)


def settle_noise(
    labels: ArrayLike,
    X: NDArray[np.floating[Any]],
    policy: str = "nearest",
    *,
    max_noise: float | None = None,
    noise: NDArray[np.bool_] | None = None,
) -> NoiseOutcome:
    """Treat the examples that belong to no domain.

    Parameters
    ----------
    labels : array of int, shape (n,)
        Domains 0..m-1, and -1.
    X : array of shape (n, d)
        Vectors; may be a memory map.
    policy : {"nearest", "own", "drop"}
        Join the domain whose mean is nearest (Euclidean); make one more domain, numbered m;
        or keep the label -1.
    max_noise : float, optional
        At most this share of all examples stays noise: of the noise points, those nearest to
        a domain join it first, whatever the policy, which treats the rest.
    noise : ndarray of bool, shape (n,), optional
        Which of the examples labelled -1 are noise; others of that label stay as they are.

    Returns
    -------
    NoiseOutcome
        Examples with a domain keep it.

    Raises
    ------
    InputError
        An unknown policy, a share outside 0..1, shapes that differ, or no domain to join.

    Examples
    --------
    >>> X = np.array([[0.0], [0.2], [5.0], [5.2], [1.0], [2.5]])
    >>> labels = [0, 0, 1, 1, -1, -1]
    >>> settle_noise(labels, X).labels.tolist()
    [0, 0, 1, 1, 0, 0]
    >>> outcome = settle_noise(labels, X, "own", max_noise=0.2)
    >>> outcome.labels.tolist()
    [0, 0, 1, 1, 0, 2]
    >>> print(outcome)
    noise: 2 of 6 examples (33.3%); 1 joined the nearest domain (domain 0 grew most, 1.50
    times); 1 (16.7%) are a domain of their own
    """
    given = np.asarray(labels, dtype=np.int32)
    is_noise = given < 0 if noise is None else (given < 0) & np.asarray(noise, dtype=bool)
    _check(given, X, policy, max_noise)
    m = int(given.max(initial=-1)) + 1
    rows = np.flatnonzero(is_noise)
    allowed = 0 if policy == "nearest" else len(rows)
    if max_noise is not None:
        # Rounded: 0.29 * 100 is 28.999999999999996.
        allowed = min(allowed, int(np.floor(round(max_noise * len(given), 9))))
    settled = given.copy()
    joined = np.zeros(len(given), dtype=bool)
    if joining := len(rows) - allowed:
        if m == 0:
            what = "all examples are noise: there is no domain to join"
            raise InputError("labels", what, "choose a smaller min_cluster_size")
        filled = np.unique(given[given >= 0])
        centers = means(X, given, m)[filled]
        parts = [
            assign(np.asarray(X[rows[at : at + _BLOCK]], dtype=np.float32), centers)
            for at in range(0, len(rows), _BLOCK)
        ]
        nearest = filled[np.concatenate([part[0] for part in parts])]
        distances = np.concatenate([part[1] for part in parts])
        first = np.argsort(distances, kind="stable")[:joining]
        settled[rows[first]] = nearest[first]
        joined[rows[first]] = True
    if policy == "own" and allowed:
        settled[is_noise & ~joined] = m
    return NoiseOutcome(
        labels=settled,
        policy=policy,
        max_noise=max_noise,
        noise_before=len(rows),
        noise_after=len(rows) - joining,
        sizes_before=np.bincount(given[given >= 0], minlength=m),
        sizes_after=np.bincount(settled[settled >= 0], minlength=m),
        joined=joined,
    )


def warn_of_shape(sizes: ArrayLike, *, largest: float = 0.5, stacklevel: int = 2) -> bool:
    """Warn when one of several domains holds more than the share `largest`; whether it did.

    Examples
    --------
    >>> warn_of_shape([30, 40, 30])
    False
    """
    counts = np.asarray(sizes)
    # Of two domains one always holds at least half: that alone is not worth a warning.
    limit = max(largest, 0.9) if len(counts) == 2 else largest
    if len(counts) < 2 or not counts.sum() or counts.max() <= limit * counts.sum():
        return False
    most = int(np.argmax(counts))
    message = (
        f"domain {most} holds {counts[most] / counts.sum():.0%} of the examples "
        f"({counts[most]:,} of {counts.sum():,}) and {len(counts) - 1} others the rest; split "
        "it, cut finer (k, min_cluster_size), or look at the noise that joined it"
    )
    warnings.warn(message, RbkitWarning, stacklevel=stacklevel + 1)
    return True


def cliff(
    sweep: Sequence[Mapping[str, Any]], *, warn: bool = True, stacklevel: int = 2
) -> dict[str, Any] | None:
    """Find the steepest fall in the number of clusters along a sweep, if it is a cliff.

    Clusters should thin out in proportion as `min_cluster_size` grows. Where k falls to less
    than half of that, by 3 or more, or where the largest cluster suddenly gains another
    quarter of the corpus, a small change of the parameter makes another regrouping.

    Parameters
    ----------
    sweep : sequence of mappings
        ``{"min_cluster_size", "k", "noise_share", "largest_share"}``, as
        :meth:`UmapHDBSCAN.sweep` gives it.
    warn : bool
        Warn of it.

    Returns
    -------
    dict or None
        ``{"from_size", "to_size", "from_k", "to_k", "largest_share"}``.

    Examples
    --------
    >>> rows = [{"min_cluster_size": 150, "k": 53, "largest_share": 0.1},
    ...         {"min_cluster_size": 160, "k": 3, "largest_share": 0.8}]
    >>> cliff(rows, warn=False)["to_k"]
    3
    """
    rows = sorted(sweep, key=lambda row: row["min_cluster_size"])
    worst, steepest = None, np.inf
    for before, after in pairwise(rows):
        expected = before["k"] * before["min_cluster_size"] / after["min_cluster_size"]
        fall = after["k"] / max(expected, 1e-9)
        swallowed = after["largest_share"] - before["largest_share"]
        falls = fall < 0.5 and before["k"] - after["k"] >= 3
        swallows = swallowed > 0.25 and after["k"] < before["k"] and before["k"] >= 3
        if (falls or swallows) and fall < steepest:
            worst, steepest = (before, after), fall
    if worst is None:
        return None
    before, after = worst
    if warn:
        message = (
            f"a cliff: min_cluster_size {before['min_cluster_size']} gives {before['k']} clusters "
            f"and {after['min_cluster_size']} gives {after['k']}, the largest with "
            f"{after['largest_share']:.0%} of the examples; keep well below it, or use k-means"
        )
        warnings.warn(message, RbkitWarning, stacklevel=stacklevel + 1)
    return {
        "from_size": before["min_cluster_size"],
        "to_size": after["min_cluster_size"],
        "from_k": before["k"],
        "to_k": after["k"],
        "largest_share": after["largest_share"],
    }


def _check(labels: NDArray[np.int32], X: Any, policy: str, max_noise: float | None) -> None:
    if policy not in POLICIES:
        raise InputError("noise policy", f"{policy!r} is unknown", f"use {', '.join(POLICIES)}")
    if max_noise is not None and not 0 <= as_number("max_noise", max_noise, "try 0.1") <= 1:
        raise InputError("max_noise", f"{max_noise} is not a share", "choose 0 <= max_noise <= 1")
    if labels.ndim != 1 or len(labels) != len(X) or not len(labels):
        what = f"labels of shape {labels.shape} for {len(X)} vectors"
        raise InputError("labels", what, "give one label per example")
