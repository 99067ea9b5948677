"""Do the domains still fit new examples? New ones against those that made the domains.

It needs only data saved with the domains: the training examples' distances and their counts
by nearest prototype. New examples are measured in the same way, and every number is given
with the value that the chance of sampling alone would give.
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rbkit.errors import InputError, as_seed
from rbkit.files import json_ready
from rbkit.regroup.distances import TOLERATED, Floats, assign_with_profile, at_least
from rbkit.text import one_line

if TYPE_CHECKING:
    import pandas as pd

    from rbkit.regroup.domains import Domains

Counts = NDArray[np.int64]

# What makes a refit due, beyond chance in each case. One new example in twenty is far (one in
# a hundred is normal); in one domain, one in five; half of the new examples lie where only
# the farthest quarter of the training set does; a quarter of the corpus has changed its domain.
_FAR_IN_DOMAIN = 0.20
_OUTER_HALF = 0.50
_MOVED = 0.25
_DRAWS = 1000
_CONFIDENCE = 0.99  # of the noise bands: one report in a hundred would be a false alarm


@dataclass(frozen=True, eq=False, repr=False)
class Drift:
    """What has changed since the domains were made, and whether a refit is due.

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
        Largest gap between the distributions of distances (Kolmogorov-Smirnov), and the value
        that chance stays below 99 times in 100.
    tv, tv_noise : float
        Total variation between the domains' shares, and the same of chance.
    psi, psi_noise : float
        Population stability index of the shares, and the same of chance.
    distances : ndarray of float32, shape (n,)
    nearest : ndarray of shape (201,)
        Quantiles of the training distances.
    """

    names: list[str]
    n: int
    n_reference: int
    counts: Counts
    reference_counts: Counts
    far_counts: Counts
    far_expected: float
    level: float
    outer_share: float
    ks: float
    ks_noise: float
    tv: float
    tv_noise: float
    psi: float
    psi_noise: float
    distances: NDArray[np.float32]
    nearest: Floats

    @property
    def due(self) -> bool:
        """Whether the domains should be refitted."""
        return bool(self.reasons)

    @property
    def reasons(self) -> list[str]:
        """Why a refit is due, in words; empty if it is not."""
        reasons, level, least = [], f"{self.level:.0%}", 2 * self.far_expected
        if at_least(int(self.far_counts.sum()), self.n) > max(TOLERATED, least):
            reasons.append(
                f"refit is due: {self.far_share:.0%} of the new examples lie farther from every "
                f"domain than {level} of the training set ({self.far_expected:.1%} expected)"
            )
        else:
            sure = 1 - 0.05 / max(1, int((self.counts > 0).sum()))
            for i in np.argsort(-self.far_counts, kind="stable"):
                far, new = int(self.far_counts[i]), int(self.counts[i])
                if at_least(far, new, sure) > max(_FAR_IN_DOMAIN, least):
                    reasons.append(
                        f"refit is due: in {self.names[i]!r}, {far:,} of {new:,} new examples "
                        f"lie farther from it than {level} of its training examples"
                    )
        if not reasons and at_least(round(self.outer_share * self.n), self.n) > _OUTER_HALF:
            reasons.append(
                f"refit is due: {self.outer_share:.0%} of the new examples lie at distances that "
                "only the farthest 25% of the training set lie at"
            )
        if self.tv - self.tv_noise > _MOVED:
            reasons.append(
                f"refit is due: {self.tv:.0%} of the new examples would have to change their "
                f"domain to give the shares of before (chance alone: below {self.tv_noise:.0%}); "
                f"{self._largest_move()}"
            )
        return reasons

    @property
    def advice(self) -> list[str]:
        """Other changes, that need no refit."""
        if self.tv <= self.tv_noise or self.tv - self.tv_noise > _MOVED:
            return []
        return [
            f"the shares have moved by {self.tv:.1%} (chance alone: below {self.tv_noise:.1%}); "
            f"{self._largest_move()}: set the domains' proportions again"
        ]

    def _largest_move(self) -> str:
        then, now = self.reference_counts / self.n_reference, self.counts / self.n
        i = int(np.argmax(np.abs(now - then)))
        return f"most: {self.names[i]!r} from {then[i]:.1%} to {now[i]:.1%}"

    @property
    def far_share(self) -> float:
        """Share of the new examples that lie far from every domain."""
        return float(self.far_counts.sum() / self.n)

    @property
    def table(self) -> pd.DataFrame:
        """A row per domain: shares then and now, the change and its noise band, far share.

        The band holds 95 % of the changes of a share by chance alone.
        """
        import pandas as pd

        then, now = self.reference_counts / self.n_reference, self.counts / self.n
        variance = np.maximum(then * (1 - then), 1 / self.n / 4)
        return pd.DataFrame(
            {
                "domain": list(map(one_line, self.names)),
                "then": then,
                "now": now,
                "change": now - then,
                "noise": 1.96 * np.sqrt(variance * (1 / self.n + 1 / self.n_reference)),
                "new": self.counts,
                "far": self.far_counts,
                "far_share": self.far_counts / np.maximum(self.counts, 1),
            }
        ).set_index("domain")

    def to_dict(self) -> dict[str, Any]:
        """JSON values: all numbers, the reasons, and the table by columns."""
        names = "n n_reference due reasons advice far_share far_expected level outer_share"
        names += " ks ks_noise tv tv_noise psi psi_noise"
        facts = {name: getattr(self, name) for name in names.split()}
        table = self.table.reset_index().to_dict("list")
        as_json: dict[str, Any] = json_ready(facts | {"by_domain": table})
        return as_json

    def __repr__(self) -> str:
        head = f"{self.n:,} new examples against {self.n_reference:,}"
        lines = [head if self.reasons else f"{head}: no refit is due", *self.reasons, *self.advice]
        lines += [f"{what:<34}{value:>8}   {noise}" for what, value, noise in self._numbers()]
        moved = self.table.reindex(self.table["change"].abs().sort_values(ascending=False).index)
        for name, row in moved.head(5).iterrows():
            change = f"{row['then']:.1%} -> {row['now']:.1%}"
            lines.append(f"  {str(name)[:40]:<40}  {change:<18} noise ±{row['noise']:.1%}")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        text = "".join(f"<p><b>{escape(line)}</b></p>" for line in self.reasons)
        text = text or f"<p>No refit is due ({self.n:,} new examples).</p>"
        text += "".join(f"<p>{escape(line)}</p>" for line in self.advice)
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
        return f"{text}<table>{numbers}</table><table><thead><tr>{head}</tr></thead>{rows}</table>"

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
    """Compare new examples with those that the domains were made from; report if a refit is due.

    Parameters
    ----------
    domains : Domains
        With centroids and ``quality["distances"]`` (:func:`distance_profile`), as loaded.
    vectors : array of shape (n, d)
        Of the new examples, from the embedder of the domains.
    reference : {"train", "eval"}
        Whose shares the new ones are compared with. Distances are always compared with train.
    seed : int
        Of the draws that show the effect of chance alone.

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
    changed its domain. Smaller changes of shares are reported as advice: the domains still fit,
    their proportions do not.

    Examples
    --------
    >>> from rbkit.regroup import Domains
    >>> from rbkit.regroup import distance_profile
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
    seed = as_seed(seed)
    placed, profile = assign_with_profile(domains, vectors)
    n, m = len(placed.labels), domains.m
    if not n:
        raise InputError("vectors", "there are no new examples", "give at least one")
    if reference not in ("train", "eval"):
        raise InputError("reference", f"{reference!r} is unknown", 'use "train" or "eval"')
    then = profile["assigned"] if reference == "train" else domains.eval_sizes
    then = np.asarray(then, dtype=np.int64)
    if not then.sum():
        raise InputError("reference", f"there are no {reference} examples", 'use "train"')
    counts = np.bincount(placed.labels, minlength=m).astype(np.int64)
    nearest = np.asarray(profile["nearest"], dtype=np.float64)
    ks, ks_noise = distance_gap(placed.distances, nearest, int(np.sum(profile["assigned"])))
    tv, psi, (tv_noise, psi_noise) = share_gaps(counts, then, seed)
    return Drift(
        names=list(domains.names),
        n=n,
        n_reference=int(then.sum()),
        counts=counts,
        reference_counts=then,
        far_counts=np.bincount(placed.labels[placed.far], minlength=m).astype(np.int64),
        far_expected=max(float(profile["far_share"]), 1 - float(profile["level"])),
        level=float(profile["level"]),
        outer_share=int((placed.distances > nearest[150] * (1 + 2e-6)).sum()) / n,
        ks=ks,
        ks_noise=ks_noise,
        tv=tv,
        tv_noise=tv_noise,
        psi=psi,
        psi_noise=psi_noise,
        distances=placed.distances,
        nearest=nearest,
    )


def distance_gap(
    new: NDArray[np.floating[Any]], nearest: Floats, n_train: int
) -> tuple[float, float]:
    """Return the gap between new distances and saved quantiles, and its bound under chance.

    The Kolmogorov-Smirnov statistic against `n_train` distances of which only evenly spaced
    quantiles were kept, and Smirnov's two-sample bound at 99 %, plus half a step of those.
    """
    values = np.sort(new.astype(np.float64))
    levels = np.linspace(0, 1, len(nearest))
    # Equal quantiles (copies) are one step: below it the lowest level, above it the highest.
    steps, first = np.unique(nearest, return_index=True)
    last = len(nearest) - 1 - np.unique(nearest[::-1], return_index=True)[1]
    tolerance = 2e-6 * max(float(nearest[-1]), 1e-12)
    below = np.interp(values, steps, levels[first]), np.interp(values, steps, levels[last])
    outside = values > nearest[-1] + tolerance, values < nearest[0] - tolerance
    low, high = (np.where(outside[0], 1.0, np.where(outside[1], 0.0, b)) for b in below)
    ranks = np.arange(1, len(values) + 1) / len(values)
    gap = max(float((ranks - high).max()), float((low - ranks + 1 / len(values)).max()), 0.0)
    c = np.sqrt(-np.log((1 - _CONFIDENCE) / 2) / 2)
    noise = float(c * np.sqrt(1 / len(values) + 1 / n_train) + 0.5 / (len(nearest) - 1))
    return gap, noise


def share_gaps(new: Counts, then: Counts, seed: int) -> tuple[float, float, tuple[float, float]]:
    """Return total variation, PSI, and the values both stay below 99 times in 100 by chance.

    Chance: two multinomial samples of the sizes at hand from the pooled shares.
    """
    rng = np.random.default_rng(seed)
    pooled = (new + then) / (new.sum() + then.sum())
    drawn = rng.multinomial(int(new.sum()), pooled, size=_DRAWS)
    before = rng.multinomial(int(then.sum()), pooled, size=_DRAWS)
    noise = (
        float(np.quantile(measure(drawn, before), _CONFIDENCE))
        for measure in (total_variation, stability_index)
    )
    tv, psi = float(total_variation(new, then)), float(stability_index(new, then))
    return tv, psi, (next(noise), next(noise))


def total_variation(a: Counts, b: Counts) -> Floats:
    """Return the total variation between the shares of counts (..., m)."""
    s, t = (x / x.sum(axis=-1, keepdims=True) for x in (a, b))
    total: Floats = np.abs(s - t).sum(axis=-1) / 2
    return total


def stability_index(a: Counts, b: Counts) -> Floats:
    """Return the population stability index of counts (..., m): symmetric Kullback-Leibler."""
    # Half an example more everywhere: an empty domain would make the index infinite.
    s, t = ((x + 0.5) / (x + 0.5).sum(axis=-1, keepdims=True) for x in (a, b))
    total: Floats = ((s - t) * np.log(s / t)).sum(axis=-1)
    return total
