"""How many domains? Algorithm 2's silhouette over a grid, with other criteria beside it.

On real text the silhouette is nearly flat in k, so its maximum alone says little. Hence more
numbers: how well two clusterings with other seeds agree (adjusted Rand index), Davies and
Bouldin's index, the regret bound of the paper's Lemma 1, the smallest domain; and a verdict
in words, which says so when they disagree or when there is nothing to choose by.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import clone
from sklearn.metrics import adjusted_rand_score
from tqdm import tqdm

from rbkit.errors import InputError
from rbkit.regroup.cluster import KMeans
from rbkit.regroup.criteria import davies_bouldin, explained_share, inertia, silhouettes
from rbkit.regroup.regret_bound import alignments, regret
from rbkit.regroup.verdict import RULES, Verdict, judge

DEFAULT_GRID = (5, 8, 12, 16, 20, 25, 30, 40)
_SEEDS_APART = 1000
Labels = NDArray[np.int32]


@dataclass(frozen=True)
class KChoice:
    """The chosen number of domains, and what each k of the grid scored.

    Attributes
    ----------
    k : int
    rule : str
        "silhouette" or "stability".
    grid : list of dict
        A row for each k, see :func:`choose_k`.
    """

    k: int
    rule: str
    grid: list[dict[str, Any]] = field(repr=False)

    @property
    def best(self) -> dict[str, Any]:
        """The row of the grid that was chosen."""
        return next(row for row in self.grid if row["k"] == self.k)

    @property
    def judged(self) -> Verdict:
        """Whether the choice is clear, with the best k of each criterion."""
        return judge(self.grid, self.k, self.rule)

    @property
    def verdict(self) -> str:
        """The same in words: "clear: ...", "criteria disagree: ...", "too flat ...", "only ..."."""
        return self.judged.words

    def __repr__(self) -> str:
        return f"KChoice(k={self.k}, rule={self.rule!r}, verdict={self.verdict!r})"


def choose_k(
    X: ArrayLike,
    grid: Sequence[int] = DEFAULT_GRID,
    *,
    eval_vectors: ArrayLike | None = None,
    gradients: tuple[ArrayLike, ArrayLike] | None = None,
    tree: Any = None,
    seed: int = 0,
    n_seeds: int = 3,
    sample: int = 10_000,
    rule: str = "silhouette",
    progress: bool = True,
    **kmeans: Any,
) -> KChoice:
    """Choose k by clustering with every k of `grid` under several seeds.

    Parameters
    ----------
    X : array of shape (n, d)
        Vectors of the **training** examples.
    grid : sequence of int
    eval_vectors : array of shape (n_eval, d), optional
        Vectors of the eval examples: gives the regret bound, with the product of embeddings
        in the place of that of gradients.
    gradients : pair of arrays of shapes (n, s) and (n_eval, s), optional
        Gradient sketches of the train and eval examples
        (:func:`rbkit.train.gradient_sketches`): gives the regret bound on them, and the
        share of their variance that lies between domains.
    tree : estimator with ``cut(k)``, optional
        A fitted hierarchy of `X`, such as :class:`WardTree`: k is then chosen among its cuts.
        For stability it is cloned and fitted anew with other seeds.
    seed, n_seeds : int
        Seeds ``seed, seed + 1000, ...``: the first is the clustering :func:`regroup` uses.
    sample : int
        Above this many rows silhouette and Davies-Bouldin are those of a random sample of
        this size, the same for all k.
    rule : {"silhouette", "stability"}
        What to maximise; ties go to the smaller k.
    **kmeans
        Passed to :class:`KMeans`.

    Returns
    -------
    KChoice
        Its rows have ``k``, ``silhouette``, ``stability_ari``, ``davies_bouldin`` and, where
        asked for, ``regret_bound``, ``gradient_regret_bound`` and ``gradient_explained``:
        means over seeds, with ``..._sd`` over them (for stability, over pairs of seeds);
        ``smallest_domain``, the fewest examples that any domain of any seed has, and
        ``inertia``, the least of any. Of the regret (in standard deviations of the
        alignment, see :class:`rbkit.regroup.regret_bound.Regret`) there are ``regret_worst``,
        ``regret_lemma`` and ``regret_exact`` too.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> X = np.concatenate([rng.normal(at, 0.1, (40, 2)) for at in (0, 5, 10)])
    >>> choice = choose_k(X, [2, 3, 4, 6], progress=False)
    >>> choice.k, choice.verdict
    (3, 'clear: silhouette, stability (ARI) and Davies-Bouldin are best at or near k = 3')
    """
    X = np.asarray(X)
    ks = _checked_grid(grid, len(X))
    if rule not in ("silhouette", "stability"):
        raise InputError("rule", f"{rule!r} is unknown", 'use "silhouette" or "stability"')
    measures = _measures(X, eval_vectors, gradients)
    cuts = (_by_kmeans if tree is None else _by_tree)(
        X, ks, [seed + _SEEDS_APART * at for at in range(n_seeds)], tree, progress, kmeans
    )
    rows = np.arange(len(X))
    if len(X) > sample:
        rows = np.sort(np.random.default_rng(seed).choice(len(X), sample, replace=False))
    part = X[rows]
    flat = [labels[rows] for k in ks for labels, _ in cuts[k]]
    scores = iter(silhouettes(part, flat))
    table = []
    for k in ks:
        found = [
            {
                "silhouette": next(scores),
                "davies_bouldin": davies_bouldin(part, labels[rows]),
                **{name: value for of in measures for name, value in of(labels).items()},
            }
            for labels, _ in cuts[k]
        ]
        table.append(_row(k, cuts[k], found))
    key = RULES[rule]
    best = max(table, key=lambda row: (row[key], -row["k"]))
    return KChoice(k=best["k"], rule=rule, grid=table)


def _by_kmeans(
    X: NDArray[Any], ks: list[int], seeds: list[int], _: Any, progress: bool, options: Any
) -> dict[int, list[tuple[Labels, float]]]:
    """Return labels and inertia of every k and seed."""
    cuts: dict[int, list[tuple[Labels, float]]] = {k: [] for k in ks}
    jobs = [(k, seed) for k in ks for seed in seeds]
    for k, seed in tqdm(jobs, desc="choose k", unit="fit", mininterval=1, disable=not progress):
        fit = KMeans(k, seed=seed, **options).fit(X)
        cuts[k].append((fit.labels_, fit.inertia_))
    return cuts


def _by_tree(
    X: NDArray[Any], ks: list[int], seeds: list[int], tree: Any, progress: bool, options: Any
) -> dict[int, list[tuple[Labels, float]]]:
    if options:
        raise InputError(next(iter(options)), "is an option of k-means", "leave it out with a tree")
    trees = [tree]
    for seed in tqdm(seeds[1:], desc="choose k", unit="fit", mininterval=1, disable=not progress):
        trees.append(clone(tree).set_params(seed=seed).fit(X))
    cuts = {k: [np.asarray(each.cut(k)) for each in trees] for k in ks}
    if wrong := next((k for k in ks if len(cuts[k][0]) != len(X)), None):
        what = f"cuts {len(cuts[wrong][0])} rows, but there are {len(X)} vectors"
        raise InputError("tree", what, "fit it on these vectors")
    return {k: [(labels, inertia(X, labels)) for labels in found] for k, found in cuts.items()}


def _measures(
    X: NDArray[Any], eval_vectors: ArrayLike | None, gradients: tuple[ArrayLike, ArrayLike] | None
) -> list[Callable[[Labels], dict[str, float]]]:
    """Return functions of labels that give columns of the table."""
    found: list[Callable[[Labels], dict[str, float]]] = []
    if eval_vectors is not None:
        found.append(_regrets("", alignments(X, eval_vectors)))
    if gradients is not None:
        sketches = np.asarray(gradients[0])
        if len(sketches) != len(X):
            what = f"{len(sketches)} gradient sketches for {len(X)} vectors"
            raise InputError("gradients", what, "sketch the training examples, in their order")
        found.append(_regrets("gradient_", alignments(sketches, gradients[1])))
        found.append(lambda labels: {"gradient_explained": explained_share(sketches, labels)})
    return found


def _regrets(prefix: str, a: NDArray[np.float64]) -> Callable[[Labels], dict[str, float]]:
    return lambda labels: {
        f"{prefix}regret_{name}": value for name, value in vars(regret(labels, a)).items()
    }


def _row(
    k: int, cuts: list[tuple[Labels, float]], found: list[dict[str, float | None]]
) -> dict[str, Any]:
    agreement = [adjusted_rand_score(a, b) for (a, _), (b, _) in combinations(cuts, 2)]
    row: dict[str, Any] = {"k": k}
    for name in found[0]:
        known = [value for each in found if (value := each[name]) is not None]
        row[name] = float(np.mean(known)) if known else None
        row[name + "_sd"] = float(np.std(known)) if known else None
    row["stability_ari"] = float(np.mean(agreement)) if agreement else 1.0
    row["stability_ari_sd"] = float(np.std(agreement)) if agreement else 0.0
    row["smallest_domain"] = int(min(np.bincount(c, minlength=k).min() for c, _ in cuts))
    row["inertia"] = min(value for _, value in cuts)
    return row


def _checked_grid(grid: Sequence[int], n: int) -> list[int]:
    ks = sorted({int(k) for k in grid})
    if not ks:
        raise InputError("k", "the grid is empty", "give at least one number of domains")
    if ks[0] < 1 or ks[-1] > n:
        wrong = ks[0] if ks[0] < 1 else ks[-1]
        what = f"{wrong} domains asked of {n} training examples"
        raise InputError("k", what, f"choose 1 <= k <= {n}")
    return ks
