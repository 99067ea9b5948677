"""Mixtures that never change: the baselines that any adaptive rule must beat."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from rbkit.balance.mixers.base import Mixer, normalise, spread
from rbkit.balance.signals import FloatArray, IntArray, Observation
from rbkit.errors import InputError, as_number, by_name


class _Fixed(Mixer):
    cost: ClassVar[str] = "none"

    def update(self, seen: Observation) -> FloatArray:
        """Keep the proportions."""
        return seen.p


class Stratified(_Fixed):
    """Uniform over domains, whatever their size: the baseline of the R&B paper.

    Examples
    --------
    >>> import numpy as np
    >>> Stratified().start(q=np.array([.9, .1]), sizes=np.array([10, 1000]))
    array([0.5, 0.5])
    """

    paper: ClassVar[str] = "baseline of R&B, arXiv 2505.00358"


class Proportional(_Fixed):
    """Share of each domain in the training corpus: sampling as if there were no domains.

    Examples
    --------
    >>> import numpy as np
    >>> Proportional().start(q=np.array([.9, .1]), sizes=np.array([10, 30]))
    array([0.25, 0.75])
    """

    paper: ClassVar[str] = "sampling without domains"

    def start(self, q: FloatArray, sizes: IntArray) -> FloatArray:
        """Return ``n_i / n``."""
        return normalise(sizes.astype(float), sizes > 0)


class Target(_Fixed):
    """Share of each domain in the eval set, ``p = q``: the baseline the R&B paper leaves out.

    It is strong: since `q` is all that R&B knows of the target, much of what an adaptive
    rule gains over :class:`Stratified` may be just this. But it knows no repetition: a small
    domain of a large share is read over and over.

    Parameters
    ----------
    max_epochs : float, optional
        See no domain more often than this in a run; what is cut from its share goes to the
        others in proportion, from the first step on.

    Examples
    --------
    >>> import numpy as np
    >>> Target().start(q=np.array([.9, .1]), sizes=np.array([10, 1000]))
    array([0.9, 0.1])
    >>> mixer = Target(max_epochs=4)
    >>> mixer.budget = 100  # a trainer does that
    >>> mixer.start(q=np.array([.9, .1]), sizes=np.array([10, 1000]))
    array([0.4, 0.6])
    """

    paper: ClassVar[str] = "baseline left out by R&B"

    def __init__(self, max_epochs: float | None = None) -> None:
        self.max_epochs = _epochs("Target", max_epochs)

    def start(self, q: FloatArray, sizes: IntArray) -> FloatArray:
        """Return `q`, renormalised over the domains that have training data, and cut."""
        p = normalise(q, sizes > 0)
        return p if self.max_epochs is None else spread(p, sizes, self.max_epochs, self._budget())

    def options(self) -> dict[str, Any]:
        """Return the cap, if there is one."""
        return {} if self.max_epochs is None else {"max_epochs": self.max_epochs}


class UniMax(_Fixed):
    """As even as a cap on repetition allows (arXiv 2304.09151): small domains are seen less.

    The budget of a run is spread evenly over domains; one that would be seen more than
    `max_epochs` times gives the excess to the others. The paper does so for languages, and
    reports little difference between caps of 1, 5 and 10. The eval set plays no part.

    Parameters
    ----------
    max_epochs : float
        The cap, N in the paper.

    Examples
    --------
    >>> import numpy as np
    >>> mixer = UniMax(max_epochs=4)
    >>> mixer.budget = 200  # a trainer does that
    >>> mixer.start(q=np.array([.9, .1]), sizes=np.array([10, 1000]))
    array([0.2, 0.8])
    """

    paper: ClassVar[str] = "UniMax, arXiv 2304.09151"

    def __init__(self, max_epochs: float = 4.0) -> None:
        self.max_epochs = _epochs("UniMax", max_epochs)

    def start(self, q: FloatArray, sizes: IntArray) -> FloatArray:
        """Return uniform proportions over the domains with training data, cut."""
        even = normalise(np.ones(len(q)), np.asarray(sizes) > 0)
        assert self.max_epochs is not None
        return spread(even, sizes, self.max_epochs, self._budget())

    def options(self) -> dict[str, Any]:
        """Return the cap."""
        return {"max_epochs": self.max_epochs}


def _epochs(rule: str, value: Any) -> float | None:
    where, remedy = f"{rule}(max_epochs=...)", "try 4"
    if value is not None and not 0 < as_number(where, value, remedy) < np.inf:
        raise InputError(where, f"{value} is not positive and finite", remedy)
    return value if value is None else float(value)


class Fixed(_Fixed):
    """A mixture given by hand, or proposed by another method.

    Parameters
    ----------
    p : sequence of m floats, or mapping of m names to floats
        Shares, scaled to sum to 1 over the domains with training data; in the order of the
        domains, or by their names, in any order.

    Examples
    --------
    >>> import numpy as np
    >>> Fixed([3, 1]).start(q=np.array([.5, .5]), sizes=np.array([10, 30]))
    array([0.75, 0.25])
    >>> mixer = Fixed({"code": 1, "wiki": 3})
    >>> mixer.domain_names = ["wiki", "code"]  # a trainer does that
    >>> mixer.start(q=np.array([.5, .5]), sizes=np.array([10, 30]))
    array([0.75, 0.25])
    """

    paper: ClassVar[str] = "a mixture given by hand"

    def __init__(self, p: Sequence[float] | Mapping[str, float]) -> None:
        where, remedy, named = "Fixed(p=...)", "give numbers >= 0", by_name(p)
        if not hasattr(p, "__iter__") or isinstance(p, str | bytes | set):
            raise InputError(where, f"{p!r} are not shares", f"{remedy}, one for each domain")
        shares = [
            as_number(where, share, remedy) for share in (p if named is None else named.values())
        ]
        self.p = shares if named is None else dict(zip(named, shares, strict=True))
        if not (np.isfinite(shares).all() and np.min(shares, initial=0) >= 0 and sum(shares) > 0):
            raise InputError(where, f"{self.p} are not shares", remedy)

    def start(self, q: FloatArray, sizes: IntArray) -> FloatArray:
        """Return the mixture, renormalised over the domains that have training data."""
        shares, available = self._by_domain(len(q)), np.asarray(sizes) > 0
        if not shares[available].sum() > 0:
            raise InputError(
                "Fixed(p=...)",
                "all shares are on domains without training data",
                "give a domain with data a share",
            )
        return normalise(shares, available)

    def _by_domain(self, m: int) -> FloatArray:
        if isinstance(self.p, dict):
            shares = np.zeros(m)
            shares[self._numbers("p", self.p, m, every=True)] = list(self.p.values())
            return shares
        if len(self.p) != m:
            raise InputError(
                "Fixed(p=...)", f"{len(self.p)} shares for {m} domains", "give one per domain"
            )
        return np.array(self.p)

    def options(self) -> dict[str, Any]:
        """Return the mixture, as it was given."""
        return {"p": self.p}
