"""How many domains? Algorithm 2's silhouette over a grid, and other criteria.

On real text the silhouette is nearly flat in k, so its maximum alone says little. Hence more
numbers: how well two clusterings with other seeds agree (adjusted Rand index), Davies and
Bouldin's index, the regret bound of the paper's Lemma 1, the smallest domain; and a verdict
in words, also when the criteria disagree or are too flat to choose by.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import clone
from sklearn.metrics import adjusted_rand_score, davies_bouldin_score, pairwise_distances_chunked

from rbkit.errors import InputError, RbkitWarning, as_count
from rbkit.regroup.kmeans import Copies, KMeans, vectors_of
from rbkit.regroup.regret_bound import alignments, regret
from rbkit.text import progress_bar

Labels = NDArray[np.integer[Any]]


Grid = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Criterion:
    """A column of the grid over k: its key in a row (its sd over seeds is ``key + "_sd"``).

    If it varies over the grid by less than `flat`, nothing can be chosen by it. Criteria that
    improve with every further domain (the smallest domain's size, backwards) do not vote: their
    best k may not contradict the chosen one.
    """

    key: str
    name: str
    higher_is_better: bool
    flat: float
    votes: bool = True

    def values(self, grid: Grid) -> dict[int, float]:
        """Return its value by k, where it is known."""
        values = {int(row["k"]): row.get(self.key) for row in grid}
        return {k: float(v) for k, v in values.items() if v is not None and np.isfinite(v)}

    def best(self, grid: Grid) -> int | None:
        """Return its best k, the smaller of equals; None where it is not known."""
        sign = 1 if self.higher_is_better else -1
        values = self.values(grid)
        return max(values, key=lambda k: (sign * values[k], -k)) if values else None

    def spread(self, grid: Grid) -> float:
        """Return by how much it varies over the grid."""
        values = self.values(grid).values()
        return max(values) - min(values) if values else 0.0

    def noise(self, grid: Grid) -> float:
        """Return its standard deviation over seeds, the median over the grid; 0 if not known."""
        sds = sorted(float(sd) for row in grid if (sd := row.get(self.key + "_sd")) is not None)
        return sds[len(sds) // 2] if sds else 0.0

    def is_flat(self, grid: Grid) -> bool:
        """Whether it varies too little to choose by."""
        return self.spread(grid) < max(_NOISES * self.noise(grid), self.flat)

    def contradicts(self, grid: Grid, chosen: int) -> bool:
        """Whether every k that is as good as its best, within its noise, is far from `chosen`."""
        sign = 1 if self.higher_is_better else -1
        values = {k: sign * value for k, value in self.values(grid).items()}
        good = max(values.values()) - self.noise(grid)
        ks = [k for k, value in values.items() if value >= good]
        return all(max(k, chosen) >= _FAR * min(k, chosen) for k in ks)


CRITERIA = (
    Criterion("silhouette", "silhouette", True, flat=0.01),
    Criterion("stability_ari", "stability (ARI)", True, flat=0.05),
    Criterion("davies_bouldin", "Davies-Bouldin", False, flat=0.05),
    Criterion("regret_bound", "regret bound", False, flat=0.02, votes=False),
    Criterion("gradient_regret_bound", "regret bound of gradients", False, flat=0.02, votes=False),
    Criterion("smallest_domain", "smallest domain", True, flat=0, votes=False),
    Criterion("loss", "eval loss", False, flat=0.002),
)


RULES = {"silhouette": "silhouette", "stability": "stability_ari", "loss": "loss"}
_FAR = 2.0  # two k are far apart from this ratio on: 8 and 12 tell the same story, 8 and 16 do not
_NOISES = 2.0  # a curve of pure noise over eight k, means of three seeds, spans 1.6 sd


def silhouettes(X: NDArray[np.floating[Any]], labelings: Sequence[Labels]) -> list[float]:
    """Mean silhouette (Rousseeuw 1987) of several labelings of the same rows.

    Distances are what a silhouette costs and they do not depend on the labels, so all
    labelings share one pass over them; chunks keep the memory under 200 MB.

    Parameters
    ----------
    X : ndarray of shape (n, d)
    labelings : sequence of ndarray of int, shape (n,)

    Returns
    -------
    list of float
        Equal to :func:`sklearn.metrics.silhouette_score`; 0 for a single domain.

    Examples
    --------
    >>> X = np.array([[0.0], [0.1], [5.0], [5.1]])
    >>> [round(score, 2) for score in silhouettes(X, [np.array([0, 0, 1, 1])])]
    [0.98]
    """
    compact = [np.unique(labels, return_inverse=True)[1] for labels in labelings]
    widths = [int(labels.max()) + 1 for labels in compact]
    # One column per domain of every labeling: D @ members sums distances by domain.
    members = np.zeros((len(X), sum(widths)), dtype=np.float32)
    starts = np.cumsum([0, *widths[:-1]])
    for labels, start in zip(compact, starts, strict=True):
        members[np.arange(len(X)), start + labels] = 1
    counts = members.sum(axis=0, dtype=np.float64)
    totals = np.zeros(len(labelings))

    def add(distances: NDArray[np.floating[Any]], first: int) -> None:
        sums = (distances.astype(np.float32) @ members).astype(np.float64)
        row = np.arange(first, first + len(distances))
        for at, (labels, start, width) in enumerate(zip(compact, starts, widths, strict=True)):
            if width < 2:
                continue
            own, size = labels[row], counts[start : start + width]
            of_domain = sums[:, start : start + width]
            ours = np.arange(len(row)), own
            within = of_domain[ours] / np.maximum(size[own] - 1, 1)
            of_others = of_domain / size
            of_others[ours] = np.inf
            between = of_others.min(axis=1)
            scale = np.maximum(within, between)
            score = np.divide(between - within, scale, out=np.zeros_like(scale), where=scale > 0)
            totals[at] += score[size[own] > 1].sum()  # by definition 0 for a domain of one

    for _ in pairwise_distances_chunked(X, reduce_func=add, working_memory=128):
        pass
    return [float(total / len(X)) for total in totals]


def davies_bouldin(X: NDArray[np.floating[Any]], labels: Labels) -> float | None:
    """Davies-Bouldin index (1979): mean over domains of scatter against separation; less is better.

    None for a single domain, or one domain for each row, where it says nothing.
    """
    if not 2 <= len(np.unique(labels)) < len(X):
        return None
    return float(davies_bouldin_score(X, labels))


def explained_share(X: NDArray[np.floating[Any]], labels: Labels) -> float:
    """Share of the variance of the rows that lies between domains, in [0, 1].

    ``n`` random labels of m domains have about ``(m - 1) / (n - 1)``, whatever `X`.

    Examples
    --------
    >>> explained_share(np.array([[0.0], [0.0], [2.0], [2.0]]), np.array([0, 0, 1, 1]))
    1.0
    """
    total = inertia(X, np.zeros(len(X), dtype=np.int64))
    return 1.0 - inertia(X, labels) / total if total > 0 else 0.0


def inertia(X: NDArray[np.floating[Any]], labels: Labels) -> float:
    """Sum of squared distances of the rows to the mean of their domain.

    Examples
    --------
    >>> inertia(np.array([[0.0], [2.0], [5.0]]), np.array([0, 0, 1]))
    2.0
    """
    total = 0.0
    for label in np.unique(labels):
        part = np.asarray(X[labels == label], dtype=np.float64)
        total += float(np.square(part - part.mean(axis=0)).sum())
    return total


@dataclass(frozen=True)
class Verdict:
    """What the grid shows about the chosen k.

    Attributes
    ----------
    kind : {"clear", "disagree", "flat", "single"}
        "single": there was nothing to choose from.
    words : str
        The same as a sentence, with numbers.
    best : dict of str to int
        Best k of each criterion that is known, by its name.
    """

    kind: str
    words: str
    best: dict[str, int]

    def __str__(self) -> str:
        return self.words


def judge(grid: Sequence[Mapping[str, Any]], chosen: int, rule: str = "silhouette") -> Verdict:
    """Judge a choice of k.

    *Flat*: over the grid, the criterion that was maximised varies by less than twice its
    standard deviation over seeds, or by less than a small number of its own
    (:data:`rbkit.regroup.choose.CRITERIA`). *Disagree*: a criterion that is not flat is
    best far from the chosen k, by a factor of 2 or more, and no k nearer by does as well
    within a standard deviation. Else *clear*. Missing values are left out.

    Parameters
    ----------
    grid : sequence of mapping
        Rows of :func:`choose_k` or :func:`rbkit.train.sweep_k`.
    chosen : int
    rule : {"silhouette", "stability", "loss"}
        The rule that chose it.

    Examples
    --------
    >>> rows = [{"k": 5, "silhouette": 0.2, "stability_ari": 0.9},
    ...         {"k": 20, "silhouette": 0.4, "stability_ari": 0.5}]
    >>> print(judge(rows, 20))
    criteria disagree: silhouette is best at k = 20, stability (ARI) at 5; k = 20 is the last tried
    """
    leading = next(each for each in CRITERIA if each.key == RULES[rule])
    best = {c.name: k for c in CRITERIA if (k := c.best(grid)) is not None}
    ks = sorted(leading.values(grid))
    if len(ks) < 2:
        return Verdict("single", f"only k = {chosen} was tried", best)
    voters = [c for c in CRITERIA if c.votes and c.name in best and not c.is_flat(grid)]
    if leading.is_flat(grid):
        words = f"too flat to choose by: the {leading.name} varies by {leading.spread(grid):.3f}"
        words += f" over k = {ks[0]} to {ks[-1]}"
        noise = leading.noise(grid)
        words += f", and by {noise:.3f} from seed to seed" if noise > 0 else ""
        others = [f"{c.name} is best at k = {best[c.name]}" for c in voters]
        return Verdict("flat", "; ".join([words, *others]), best)
    edge = ""
    if chosen in (ks[0], ks[-1]):
        edge = f"; k = {chosen} is the {'first' if chosen == ks[0] else 'last'} tried"
    if any(c.contradicts(grid, chosen) for c in voters):
        first, *rest = sorted(voters, key=lambda c: c is not leading)
        words = f"criteria disagree: {first.name} is best at k = {best[first.name]}"
        words += "".join(f", {c.name} at {best[c.name]}" for c in rest)
        return Verdict("disagree", words + edge, best)
    names = [c.name for c in voters]
    listed = " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
    is_ = "is" if len(names) == 1 else "are"
    return Verdict("clear", f"clear: {listed} {is_} best at or near k = {chosen}{edge}", best)


DEFAULT_GRID = (5, 8, 12, 16, 20, 25, 30, 40)


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
    X: Any,
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
        For stability it is cloned and fitted with other seeds.
    seed, n_seeds : int
        Seeds ``seed, seed + 1000, ...``: the first is the clustering :func:`regroup` uses.
    sample : int
        Above this many rows silhouette and Davies-Bouldin are those of a random sample of
        this size, the same for all k.
    rule : {"silhouette", "stability"}
        The criterion to maximise; ties go to the smaller k.
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
    X = vectors_of(X, "X")[:]
    seed, n_seeds = as_count("seed", seed), as_count("n_seeds", n_seeds, least=1)
    sample = as_count("sample", sample, least=2)
    ks = sorted({as_count("k", k) for k in grid})
    if not ks:
        raise InputError("k", "the grid is empty", "give at least one number of domains")
    if ks[0] < 1 or ks[-1] > len(X):
        what = f"{ks[0] if ks[0] < 1 else ks[-1]} domains asked of {len(X)} training examples"
        raise InputError("k", what, f"choose 1 <= k <= {len(X)}")
    if rule not in ("silhouette", "stability"):
        raise InputError("rule", f"{rule!r} is unknown", 'use "silhouette" or "stability"')
    if ks[-1] > (different := Copies.of(X).different):
        left_out = [k for k in ks if k > different]
        ks = [k for k in ks if k <= different] or [different]
        message = (
            f"the examples have only {different} different vectors: no {left_out[0]} domains "
            f"can be made of them; k is chosen from {', '.join(map(str, ks))}"
        )
        warnings.warn(message, RbkitWarning, stacklevel=2)
    measures = _measures(X, eval_vectors, gradients)
    seeds = [seed + 1000 * at for at in range(n_seeds)]
    if tree is None:
        cuts = _cut_by_kmeans(X, ks, seeds, progress, kmeans)
    elif kmeans:
        raise InputError(next(iter(kmeans)), "is an option of k-means", "leave it out with a tree")
    else:
        cuts = _cut_by_tree(X, ks, seeds, progress, tree)
    rows = np.arange(len(X))
    if len(X) > sample:
        rows = np.sort(np.random.default_rng(seed).choice(len(X), sample, replace=False))
    part = X[rows]
    scores = iter(silhouettes(part, [labels[rows] for k in ks for labels, _ in cuts[k]]))
    table = []
    for k in ks:
        columns = [
            {
                "silhouette": next(scores),
                "davies_bouldin": davies_bouldin(part, labels[rows]),
                **{name: value for of in measures for name, value in of(labels).items()},
            }
            for labels, _ in cuts[k]
        ]
        table.append(_row(k, cuts[k], columns))
    key = RULES[rule]
    best = max(table, key=lambda row: (row[key], -row["k"]))
    return KChoice(k=best["k"], rule=rule, grid=table)


Cuts = dict[int, list[tuple[Labels, float]]]  # by k, for every seed: labels and inertia


def _cut_by_kmeans(
    X: NDArray[Any], ks: list[int], seeds: list[int], progress: bool, options: Any
) -> Cuts:
    cuts: Cuts = {k: [] for k in ks}
    what = "choose k" if len(ks) > 1 else "cluster"
    jobs = [(k, seed) for k in ks for seed in seeds]
    for k, seed in progress_bar(
        jobs, desc=what, unit="fit", delay=1, mininterval=1, disable=not progress
    ):
        fit = KMeans(k, seed=seed, **options).fit(X)
        cuts[k].append((fit.labels_, fit.inertia_))
    return cuts


def _cut_by_tree(
    X: NDArray[Any], ks: list[int], seeds: list[int], progress: bool, tree: Any
) -> Cuts:
    trees, what = [tree], "choose k" if len(ks) > 1 else "cluster"
    for seed in progress_bar(
        seeds[1:], desc=what, unit="fit", delay=1, mininterval=1, disable=not progress
    ):
        trees.append(clone(tree).set_params(seed=seed).fit(X))
    cuts = {k: [np.asarray(each.cut(k)) for each in trees] for k in ks}
    if wrong := next((k for k in ks if len(cuts[k][0]) != len(X)), None):
        what = f"cuts {len(cuts[wrong][0])} rows, but there are {len(X)} vectors"
        raise InputError("tree", what, "fit it on these vectors")
    return {k: [(labels, inertia(X, labels)) for labels in each] for k, each in cuts.items()}


def _measures(
    X: NDArray[Any], eval_vectors: ArrayLike | None, gradients: tuple[ArrayLike, ArrayLike] | None
) -> list[Callable[[Labels], dict[str, float]]]:
    """Return functions of labels that give columns of the table."""

    def regrets(prefix: str, a: NDArray[np.float64]) -> Callable[[Labels], dict[str, float]]:
        return lambda labels: {
            f"{prefix}regret_{name}": value for name, value in vars(regret(labels, a)).items()
        }

    measures: list[Callable[[Labels], dict[str, float]]] = []
    if eval_vectors is not None:
        measures.append(regrets("", alignments(X, eval_vectors)))
    if gradients is not None:
        sketches = np.asarray(gradients[0])
        if len(sketches) != len(X):
            what = f"{len(sketches)} gradient sketches for {len(X)} vectors"
            raise InputError("gradients", what, "sketch the training examples, in their order")
        measures.append(regrets("gradient_", alignments(sketches, gradients[1])))
        measures.append(lambda labels: {"gradient_explained": explained_share(sketches, labels)})
    return measures


def _row(
    k: int, cuts: list[tuple[Labels, float]], columns: list[dict[str, float | None]]
) -> dict[str, Any]:
    """Return a row of the grid: means and standard deviations over seeds."""
    agreement = [adjusted_rand_score(a, b) for (a, _), (b, _) in combinations(cuts, 2)]
    row: dict[str, Any] = {"k": k}
    for name in columns[0]:
        known = [value for each in columns if (value := each[name]) is not None]
        row[name] = float(np.mean(known)) if known else None
        row[name + "_sd"] = float(np.std(known)) if known else None
    row["stability_ari"] = float(np.mean(agreement)) if agreement else 1.0
    row["stability_ari_sd"] = float(np.std(agreement)) if agreement else 0.0
    row["smallest_domain"] = int(min(np.bincount(c, minlength=k).min() for c, _ in cuts))
    row["inertia"] = min(value for _, value in cuts)
    return row
