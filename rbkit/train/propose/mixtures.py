"""Mixtures to try: Dirichlet draws around the corpus' own proportions (RegMix).

As published (arXiv 2407.01492 and its code): the prior is tempered by a power of 1/2, the
strength is one of 15 from 0.1 (nearly one domain) to 5 (nearly the prior), mixtures that repeat a
domain too often are rejected, and shares below 2e-4 become 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from rbkit.balance.mixers.base import normalise
from rbkit.balance.signals import FloatArray, IntArray
from rbkit.errors import InputError

_STREAM = 3  # keeps this use of a seed apart from those of training
_TRIES = 2000  # draws for one accepted mixture before we say that the cap leaves none


@dataclass(frozen=True)
class MixtureSpace:
    """Which mixtures are worth trying.

    Attributes
    ----------
    prior : ndarray of shape (m,), float64
        The corpus' own proportions.
    most : ndarray of shape (m,), float64
        Largest share of each domain, so that none is repeated too often.
    temperature : float
        Power of the prior, when mixtures for runs are drawn.
    strengths : sequence of float
        Concentrations, one of which is picked for each draw.
    minimum : float
        Smaller shares become 0; the others are rounded to multiples of it.
    """

    prior: FloatArray
    most: FloatArray
    temperature: float = 0.5
    strengths: Sequence[float] = tuple(np.geomspace(0.1, 5.0, 15).tolist())
    minimum: float = 2e-4

    def __post_init__(self) -> None:
        if not (len(self.strengths) and min(self.strengths) > 0):
            raise InputError("strengths", f"{self.strengths} are none", "give numbers above 0")
        if not 0 <= self.minimum < 1 / max(len(self.prior), 1):
            raise InputError(
                "minimum", f"{self.minimum} leaves no mixture of {len(self.prior)} domains",
                "try 2e-4",
            )  # fmt: skip
        if not 0 <= self.temperature <= 1:
            raise InputError("temperature", f"{self.temperature} is no power", "try 0.5")

    @classmethod
    def of(
        cls, sizes: IntArray, *, max_epochs: float = 15.0, budget: float | None = None,
        **options: Any,
    ) -> MixtureSpace:  # fmt: skip
        """Make the space for domains with `sizes` training examples.

        Parameters
        ----------
        sizes : int array of shape (m,)
        max_epochs : float
            No domain may be seen more often than this in a run of `budget` examples.
        budget : float, optional
            Examples of the run that will use the mixture; by default as many as there are, as
            in RegMix's code.

        Examples
        --------
        >>> MixtureSpace.of(np.array([10, 90]), max_epochs=4).most
        array([0.4, 1. ])
        """
        counts: FloatArray = np.asarray(sizes, dtype=np.float64)
        budget = float(counts.sum()) if budget is None else float(budget)
        if not (max_epochs > 0 and budget > 0):
            raise InputError(
                "max_epochs, budget", f"{max_epochs} and {budget} leave nothing",
                "give numbers above 0",
            )  # fmt: skip
        most = np.minimum(max_epochs * counts / budget, 1.0)
        if most.sum() < 1:
            raise InputError(
                "max_epochs", f"{max_epochs} passes over {counts.sum():.0f} examples fall short of "
                f"the budget of {budget:.0f}", "allow more passes, or give a smaller budget",
            )  # fmt: skip
        return cls(normalise(counts, counts > 0), most, **options)

    def options(self) -> dict[str, Any]:
        """Options as JSON values."""
        values = {name: value for name, value in asdict(self).items() if name != "prior"}
        return values | {"most": self.most.tolist(), "strengths": list(self.strengths)}


def draw_mixtures(space: MixtureSpace, n: int, *, seed: int = 0) -> FloatArray:
    """Draw `n` different mixtures to train small runs on, (n, m).

    The first ones stay the same when more are drawn, so that a swarm of runs can grow.

    Raises
    ------
    InputError
        If nearly every draw repeats a domain too often.

    Examples
    --------
    >>> space = MixtureSpace.of(np.array([100, 300, 0]))
    >>> draw_mixtures(space, 2, seed=1).round(3).tolist()
    [[0.0, 1.0, 0.0], [0.033, 0.967, 0.0]]
    """
    if n < 1:
        raise InputError("n", f"{n} mixtures", "give at least 1")
    rng = np.random.default_rng([seed, _STREAM])
    known = space.prior > 0
    tempered = space.prior[known] ** space.temperature
    tempered /= tempered.sum()
    found: dict[bytes, FloatArray] = {}
    for _ in range(_TRIES * n):
        drawn = np.zeros(len(space.prior))
        # With a small concentration all of numpy's gamma draws can underflow to 0: draw again.
        drawn[known] = rng.dirichlet(tempered * rng.choice(space.strengths))
        if not np.isfinite(drawn).all():
            continue
        p = _rounded(drawn, space.minimum)
        if (p <= space.most + 1e-12).all():
            found.setdefault(p.tobytes(), p)
        if len(found) == n:
            return np.array(list(found.values()))
    raise InputError(
        "n", f"only {len(found)} different mixtures found that repeat no domain too often, not {n}",
        "ask for fewer, allow more max_epochs, or give a smaller budget",
    )  # fmt: skip


def draw_candidates(space: MixtureSpace, n: int, *, seed: int = 0) -> FloatArray:
    """Draw at most `n` mixtures to ask a regression about, (<= n, m).

    From a Dirichlet of the untempered prior; those that repeat a domain too often are left out.
    """
    rng = np.random.default_rng([seed, _STREAM, 1])
    known = space.prior > 0
    drawn = np.zeros((n, len(space.prior)))
    drawn[:, known] = rng.dirichlet(space.prior[known], n)
    kept = drawn[np.isfinite(drawn).all(axis=1) & (drawn <= space.most + 1e-12).all(axis=1)]
    if not len(kept):
        raise InputError(
            "max_epochs", f"all of {n} candidates repeat a domain too often", "allow more passes"
        )
    return kept


def _rounded(p: FloatArray, minimum: float) -> FloatArray:
    """Return `p` with shares below `minimum` set to 0 and the rest rounded to multiples of it."""
    if minimum:
        p = np.where(p < minimum, 0.0, p)
        p = np.round(p / p.sum() / minimum) * minimum
    scaled: FloatArray = p / p.sum()
    return scaled
