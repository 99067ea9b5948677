"""Do the domains still fit what comes in? New examples against those that made the domains.

Nothing but what is saved with the domains is needed: the training examples' distances and
their counts by nearest prototype. New examples are measured in the same way, and every number
stands beside what the chance of sampling alone would give.
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rbkit.errors import InputError
from rbkit.files import json_ready
from rbkit.regroup.distances import (
    TOLERATED,
    Floats,
    assign_new,
    at_least,
    distance_gap,
    noise_of_shares,
    share_gaps,
)

if TYPE_CHECKING:
    import pandas as pd

    from rbkit.regroup.domains import Domains

# What makes a refit due, beyond chance in each case. One new example in twenty is far (one in
# a hundred is normal); in one domain, one in five; half of the new examples lie where only
# the farthest quarter of the training set does; a quarter of the corpus has changed its domain.
_FAR_IN_DOMAIN = 0.20
_OUTER_HALF = 0.50
_MOVED = 0.25


@dataclass(frozen=True, eq=False, repr=False)
class Drift:
    """What has changed since the domains were made, and whether they should be made anew.

    Attributes
    ----------
    names : list of str, length m
    n, n_reference : int
        New examples, and those they are compared with.
    counts, reference_counts : ndarray of int64, shape (m,)
        Of new and of reference examples, by nearest prototype.
    far_counts : ndarray of int64, shape (m,)
        New examples that are far, by the limits of the distance profile.
    far_expected : float
        Share of far ones among the training examples themselves.
    level : float
    outer_share : float
        Share of new examples beyond the distance that a quarter of training lies beyond.
    ks, ks_noise : float
        Largest gap between the distributions of distances (Kolmogorov-Smirnov), and what
        chance stays below 99 times in 100.
    tv, tv_noise : float
        Total variation between the domains' shares, and the same of chance.
    psi, psi_noise : float
        Population stability index of the shares, and the same of chance.
    reasons : list of str
        Why a refit is due, in words; empty if it is not.
    advice : list of str
        What else has changed.
    distances : ndarray of float32, shape (n,)
    nearest : ndarray of shape (201,)
        Quantiles of the training distances.
    """

    names: list[str]
    n: int
    n_reference: int
    counts: NDArray[np.int64]
    reference_counts: NDArray[np.int64]
    far_counts: NDArray[np.int64]
    far_expected: float
    level: float
    outer_share: float
    ks: float
    ks_noise: float
    tv: float
    tv_noise: float
    psi: float
    psi_noise: float
    reasons: list[str]
    advice: list[str]
    distances: NDArray[np.float32]
    nearest: Floats

    @property
    def due(self) -> bool:
        """Whether the domains should be made anew."""
        return bool(self.reasons)

    @property
    def far_share(self) -> float:
        """Share of the new examples that lie far from every domain."""
        return float(self.far_counts.sum() / self.n)

    @property
    def table(self) -> pd.DataFrame:
        """A row per domain: shares then and now, the change and its noise band, far share."""
        import pandas as pd

        then, now = self.reference_counts / self.n_reference, self.counts / self.n
        return pd.DataFrame(
            {
                "domain": self.names,
                "then": then,
                "now": now,
                "change": now - then,
                "noise": noise_of_shares(then, self.n, self.n_reference),
                "new": self.counts,
                "far": self.far_counts,
                "far_share": self.far_counts / np.maximum(self.counts, 1),
            }
        ).set_index("domain")

    def to_dict(self) -> dict[str, Any]:
        """JSON values: all numbers, the reasons, and the table by columns."""
        names = (
            "n",
            "n_reference",
            "due",
            "reasons",
            "advice",
            "far_share",
            "far_expected",
            "level",
            "outer_share",
            "ks",
            "ks_noise",
            "tv",
            "tv_noise",
            "psi",
            "psi_noise",
        )
        table = self.table.reset_index().to_dict("list")
        found: dict[str, Any] = json_ready(
            {**{name: getattr(self, name) for name in names}, "by_domain": table}
        )
        return found

    def __repr__(self) -> str:
        head = f"{self.n:,} new examples against {self.n_reference:,}"
        if not self.reasons:
            head += ": no refit is due"
        lines = [head, *self.reasons, *self.advice]
        lines += [f"{what:<34}{value:>8}   {noise}" for what, value, noise in self._numbers()]
        moved = self.table.reindex(self.table["change"].abs().sort_values(ascending=False).index)
        for name, row in moved.head(5).iterrows():
            change = f"{row['then']:.1%} -> {row['now']:.1%}"
            lines.append(f"  {str(name)[:40]:<40}  {change:<18} noise ±{row['noise']:.1%}")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        said = "".join(f"<p><b>{escape(line)}</b></p>" for line in self.reasons)
        said = said or f"<p>No refit is due ({self.n:,} new examples).</p>"
        said += "".join(f"<p>{escape(line)}</p>" for line in self.advice)
        numbers = "".join(
            f"<tr><td>{escape(what)}</td><td>{value}</td><td>{escape(noise)}</td></tr>"
            for what, value, noise in self._numbers()
        )
        table = self.table
        order = np.argsort(-np.abs(table["change"].to_numpy()), kind="stable")
        rows = "".join(
            f"<tr><td>{escape(self.names[i])}</td><td>{row['then']:.1%}</td>"
            f"<td>{row['now']:.1%}</td><td>{row['change']:+.1%}</td><td>±{row['noise']:.1%}</td>"
            f"<td>{row['far_share']:.0%}</td></tr>"
            for i, row in ((i, table.iloc[i]) for i in order)
        )
        head = "".join(f"<th>{t}</th>" for t in ("domain", "then", "now", "change", "noise", "far"))
        return f"{said}<table>{numbers}</table><table><thead><tr>{head}</tr></thead>{rows}</table>"

    def _numbers(self) -> list[tuple[str, str, str]]:
        far = f"{self.far_expected:.1%} expected"
        below = "noise below {:.3f}".format
        return [
            ("far from every domain", f"{self.far_share:.1%}", far),
            ("beyond training's outer quartile", f"{self.outer_share:.1%}", "25.0% expected"),
            ("distances, largest gap (KS)", f"{self.ks:.3f}", below(self.ks_noise)),
            ("shares, total variation", f"{self.tv:.3f}", below(self.tv_noise)),
            ("shares, stability index (PSI)", f"{self.psi:.3f}", below(self.psi_noise)),
        ]


def drift_report(
    domains: Domains, vectors: ArrayLike, *, reference: str = "train", seed: int = 0
) -> Drift:
    """Compare new examples with those that the domains were made from; say if a refit is due.

    Parameters
    ----------
    domains : Domains
        With centroids and ``quality["distances"]`` (:func:`distance_profile`), as loaded.
    vectors : array of shape (n, d)
        Of the new examples, from the embedder of the domains.
    reference : {"train", "eval"}
        Whose shares the new ones are compared with. Distances are always compared with train.
    seed : int
        Of the draws that tell what chance alone would give.

    Returns
    -------
    Drift
        ``due``, ``reasons``, ``advice``, ``table``, ``to_dict()``.

    Raises
    ------
    InputError
        No new examples, or domains without vectors or profile.

    Notes
    -----
    The noise of total variation and PSI is that of two multinomial samples of the sizes at
    hand from the pooled shares, 1,000 times. A refit is due, each time beyond chance, when
    5 % of the new examples are far, or 20 % of those in one domain (Bonferroni over domains), or
    half of all lie beyond the training distances' upper quartile, or a quarter of the corpus has
    changed its domain. Smaller changes of shares are told as advice: the domains still fit,
    their proportions do not.

    Examples
    --------
    >>> from rbkit.regroup.distances import distance_profile
    >>> from rbkit.regroup.domains import Domains
    >>> X = np.random.default_rng(0).normal(size=(400, 8)).astype("float32")
    >>> centre, labels = X.mean(axis=0, keepdims=True), np.zeros(400, int)
    >>> domains = Domains(["all"], labels, [0], centroids=centre,
    ...                   quality={"distances": distance_profile(X, labels, centre)})
    >>> drift_report(domains, X[:100]).due
    False
    >>> print(drift_report(domains, X[:100] + 3).reasons[0])
    refit is due: 100% of the new examples lie farther from every domain than 99% of the
    training set (1.0% expected)
    """
    placed = assign_new(domains, vectors)
    profile, n, m = domains.quality.get("distances"), len(placed.labels), domains.m
    if not n:
        raise InputError("vectors", "there are no new examples", "give at least one")
    if placed.far is None or profile is None:
        what = "no distances of the training examples are saved with them"
        raise InputError("domains", what, "store distance_profile(...) in quality['distances']")
    if reference not in ("train", "eval"):
        raise InputError("reference", f"{reference!r} is unknown", 'use "train" or "eval"')
    then = profile["assigned"] if reference == "train" else domains.eval_sizes
    then = np.asarray(then, dtype=np.int64)
    if not then.sum():
        raise InputError("reference", f"there are no {reference} examples", 'use "train"')
    counts = np.bincount(placed.labels, minlength=m).astype(np.int64)
    far_counts = np.bincount(placed.labels[placed.far], minlength=m).astype(np.int64)
    nearest = np.asarray(profile["nearest"], dtype=np.float64)
    n_train = int(np.sum(profile["assigned"]))
    ks, ks_noise = distance_gap(placed.distances, nearest, n_train)
    outer = int((placed.distances > nearest[150] * (1 + 2e-6)).sum())
    tv, psi, noise = share_gaps(counts, then, seed)
    expected = max(float(profile["far_share"]), 1 - float(profile["level"]))
    found = Drift(
        names=list(domains.names),
        n=n,
        n_reference=int(then.sum()),
        counts=counts,
        reference_counts=then,
        far_counts=far_counts,
        far_expected=expected,
        level=float(profile["level"]),
        outer_share=outer / n,
        ks=ks,
        ks_noise=ks_noise,
        tv=tv,
        tv_noise=noise[0],
        psi=psi,
        psi_noise=noise[1],
        reasons=[],
        advice=[],
        distances=placed.distances,
        nearest=nearest,
    )
    found.reasons.extend(_reasons(found, outer))
    found.advice.extend(_advice(found))
    return found


def _reasons(found: Drift, outer: int) -> list[str]:
    reasons, level = [], f"{found.level:.0%}"
    k = int(found.far_counts.sum())
    if at_least(k, found.n) > max(TOLERATED, 2 * found.far_expected):
        reasons.append(
            f"refit is due: {found.far_share:.0%} of the new examples lie farther from every "
            f"domain than {level} of the training set ({found.far_expected:.1%} expected)"
        )
    else:
        sure = 1 - 0.05 / max(1, int((found.counts > 0).sum()))
        for i in np.argsort(-found.far_counts, kind="stable"):
            far, new = int(found.far_counts[i]), int(found.counts[i])
            if at_least(far, new, sure) > max(_FAR_IN_DOMAIN, 2 * found.far_expected):
                reasons.append(
                    f"refit is due: in {found.names[i]!r}, {far:,} of {new:,} new examples lie "
                    f"farther from it than {level} of its training examples"
                )
    if not reasons and at_least(outer, found.n) > _OUTER_HALF:
        reasons.append(
            f"refit is due: {found.outer_share:.0%} of the new examples lie at distances that "
            "only the farthest 25% of the training set lie at"
        )
    if found.tv - found.tv_noise > _MOVED:
        reasons.append(
            f"refit is due: {found.tv:.0%} of the new examples would have to change their domain "
            f"to give the shares of before (chance alone: below {found.tv_noise:.0%}); "
            f"{_mover(found)}"
        )
    return reasons


def _advice(found: Drift) -> list[str]:
    if found.tv <= found.tv_noise or found.tv - found.tv_noise > _MOVED:
        return []
    return [
        f"the shares have moved by {found.tv:.1%} (chance alone: below {found.tv_noise:.1%}); "
        f"{_mover(found)}: weigh the domains anew"
    ]


def _mover(found: Drift) -> str:
    then, now = found.reference_counts / found.n_reference, found.counts / found.n
    i = int(np.argmax(np.abs(now - then)))
    return f"most: {found.names[i]!r} from {then[i]:.1%} to {now[i]:.1%}"
