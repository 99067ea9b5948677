"""Do domains made from embeddings behave as domains of gradients? An answer in numbers.

R&B assumes it. A sketch of every example's gradient can show it: how much of the gradients'
variance lies between the domains, how much a mixer of these domains may regret (Lemma 1), and
whether gradients would have been cut in the same way. Each number means something only against
that of random domains of the same sizes, which is given with it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_array
from sklearn.metrics import adjusted_mutual_info_score

from rbkit.errors import InputError, as_count
from rbkit.regroup.kmeans import KMeans
from rbkit.regroup.regret_bound import QUANTILE, alignments, regret
from rbkit.text import progress_bar


@dataclass(frozen=True)
class Baseline:
    """The same number for random domains of the same sizes: mean, and where 95 % of them lie."""

    mean: float
    low: float
    high: float

    def __format__(self, form: str) -> str:
        return f"{self.mean:{form}} ({self.low:{form}} to {self.high:{form}})"


@dataclass(frozen=True)
class GradientAgreement:
    """How far domains are domains of gradients too.

    Attributes
    ----------
    m, n : int
        Domains, and examples in them.
    explained : float
        Share of the gradients' variance that lies between domains.
    explained_random : Baseline
    regret_bound : float or None
        Mean regret bound in gradient space, in standard deviations of the alignment, with
        a quantile for the radius (:mod:`rbkit.regroup.regret_bound`); None without eval sketches.
    regret_bound_random : Baseline or None
    regret_exact : float or None
        Mean regret itself.
    regret_exact_random : Baseline or None
    ami : float
        Adjusted mutual information with k-means on the sketches, k = m: 1 the same domains,
        0 as random ones.
    ami_ceiling : float
        That of two such k-means of different seeds: the best that could be reached.
    """

    m: int
    n: int
    explained: float
    explained_random: Baseline
    regret_bound: float | None
    regret_bound_random: Baseline | None
    regret_exact: float | None
    regret_exact_random: Baseline | None
    ami: float
    ami_ceiling: float

    @property
    def answer(self) -> str:
        """The numbers in three sentences."""
        more = self.explained > self.explained_random.high
        sentences = [
            f"The {self.m} domains explain {self.explained:.2%} of the gradients' variance, "
            f"random ones {self.explained_random:.2%}: "
            f"{'more than chance' if more else 'no more than chance'}."
        ]
        if self.regret_bound is not None and self.regret_bound_random is not None:
            less = self.regret_bound < self.regret_bound_random.low
            sentences.append(
                f"The regret bound is {self.regret_bound:.2f} sd, of random ones "
                f"{self.regret_bound_random:.2f}: {'lower' if less else 'no lower'}."
            )
        sentences.append(
            f"AMI with clusters of gradients is {self.ami:.2f}; two seeds of those have "
            f"{self.ami_ceiling:.2f}."
        )
        return " ".join(sentences)


def gradient_agreement(
    labels: ArrayLike,
    sketches: ArrayLike,
    eval_sketches: ArrayLike | None = None,
    *,
    directions: bool = False,
    permutations: int = 200,
    quantile: float = QUANTILE,
    seed: int = 0,
    progress: bool = True,
) -> GradientAgreement:
    """Compare domains with the gradients of their examples.

    Parameters
    ----------
    labels : array of int, shape (n,)
        Domain of every training example; those below 0 are left out.
    sketches : array of shape (n, s)
        :func:`rbkit.train.gradient_sketches` of the same examples. The noise of a sketch adds
        to the variance within domains and between them alike, so that shares stay right.
    eval_sketches : array of shape (n_eval, s), optional
        Of the eval set, with the same seed: for the regret.
    directions : bool
        Scale every training sketch to unit length first, so that a few large gradients do
        not decide.
    permutations : int
        Random domains that make the baselines: the labels, shuffled.
    quantile : float
        Radius of the regret bound; 1 is the lemma's own.
    seed : int
    progress : bool
        Show a progress bar.

    Raises
    ------
    InputError
        Fewer than two domains, or shapes that do not fit.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> labels = np.repeat([0, 1, 2], 50)
    >>> sketches = 3 * np.eye(3)[labels] + rng.normal(size=(150, 3))
    >>> result = gradient_agreement(labels, sketches, progress=False)
    >>> result.explained > result.explained_random.high, result.ami > 0.5
    (True, True)
    """
    given, S = np.asarray(labels), np.asarray(sketches)
    if given.ndim != 1 or S.ndim != 2 or len(S) != len(given):
        what = f"shape {S.shape} for labels of shape {given.shape}"
        raise InputError("sketches", what, "give one row per training example")
    if not np.isfinite(S).all():
        raise InputError("sketches", "not all numbers are finite", "check the model's loss")
    seed = as_count("seed", seed, most=2**32 - 1001)  # 1,000 is added to it below
    if (permutations := as_count("permutations", permutations)) < 20:
        raise InputError("permutations", f"{permutations} give no interval", "use 200")
    own = np.unique(given[given >= 0], return_inverse=True)[1].astype(np.int64)
    m = int(own.max(initial=-1)) + 1
    if m < 2:
        raise InputError("labels", "there are fewer than two domains", "give at least two")
    S = np.asarray(S[given >= 0], dtype=np.float32)
    if directions:
        norms = np.linalg.norm(S, axis=1, keepdims=True)
        S = S / np.where(norms > 0, norms, 1)
    a = None if eval_sketches is None else alignments(S, eval_sketches)
    centred = S - S.mean(axis=0)
    total = float(np.square(centred).sum(dtype=np.float64)) or 1.0

    def measures(by: NDArray[np.int64]) -> list[float]:
        members = csr_array((np.ones(len(by), np.float32), (by, np.arange(len(by)))))
        sums = np.asarray(members @ centred, dtype=np.float64)
        between = float((np.square(sums).sum(axis=1) / np.bincount(by)).sum())
        if a is None:
            return [between / total]
        pairs = regret(by, a, quantile=quantile, seed=seed)
        return [between / total, pairs.bound, pairs.exact]

    rng = np.random.default_rng(seed)
    rounds = progress_bar(
        range(permutations), desc="random domains", unit="draw", mininterval=1, disable=not progress
    )
    random = np.array([measures(rng.permutation(own)) for _ in rounds])
    low, high = np.quantile(random, (0.025, 0.975), axis=0)
    baselines = [
        Baseline(*map(float, each)) for each in zip(random.mean(axis=0), low, high, strict=True)
    ]
    values = measures(own)
    cuts = [KMeans(m, seed=at).fit(S).labels_ for at in (seed, seed + 1000)]
    return GradientAgreement(
        m=m,
        n=len(own),
        explained=values[0],
        explained_random=baselines[0],
        regret_bound=values[1] if a is not None else None,
        regret_bound_random=baselines[1] if a is not None else None,
        regret_exact=values[2] if a is not None else None,
        regret_exact_random=baselines[2] if a is not None else None,
        ami=float(adjusted_mutual_info_score(own, cuts[0])),
        ami_ceiling=float(adjusted_mutual_info_score(*cuts)),
    )
