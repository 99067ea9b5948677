"""The R&B paper's own way to choose k: train a little with every k, and take the best loss.

Section 3 of arXiv 2505.00358: for each k of a grid, regroup, train with *uniform* proportions
under several seeds, keep the k of the lowest eval loss. Clustering criteria cost seconds and
this costs runs, but it measures what they only hope to predict (in the paper the silhouette
explains between 5 % and 90 % of the loss, by the corpus).

Runs of one seed share initial weights and, but for the domains, the order of examples, so
values of k are compared within seeds.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from rbkit.balance.mixers.fixed import Stratified
from rbkit.errors import InputError, RbkitWarning, as_count, as_seed
from rbkit.files import write_json
from rbkit.regroup.choose import Verdict, choose_k, judge
from rbkit.regroup.domains import Domains
from rbkit.regroup.kmeans import KMeans
from rbkit.regroup.pipeline import regroup
from rbkit.regroup.preparation import prepare
from rbkit.text import progress_bar
from rbkit.train.propose.runs import check_options, cost_of, train_once
from rbkit.train.run import Run

FORMAT = "rbkit-k-sweep/1"
_DEFAULTS = {"eval_rounds": 10**9, "save_model": False}
_LEVEL = 0.95


@dataclass(frozen=True)
class KSweep:
    """The result of :func:`sweep_k`.

    Attributes
    ----------
    k : int
        Of the lowest mean eval loss.
    grid : list of dict
        The rows of :func:`rbkit.regroup.choose_k`, and for each k ``loss`` (final eval loss
        in nats per token, mean over seeds), ``losses`` (by seed), ``loss_sd`` (over seeds,
        after subtracting the mean of all k for the seed), ``gap`` (mean loss above
        that of the best k), ``gap_low`` and ``gap_high`` (its 95 % interval, paired by
        seed; None for the best k, or one seed) and ``smallest_epochs``, how often the
        smallest domain was gone through.
    seeds : list of int
    cost : dict
        ``runs``, ``flops`` and ``seconds`` of all training, by the runs' own ledgers.
    domains : dict of int to Domains
    runs : list of Run
    """

    k: int
    grid: list[dict[str, Any]] = field(repr=False)
    seeds: list[int]
    cost: dict[str, float]
    domains: dict[int, Domains] = field(repr=False)
    runs: list[Run] = field(repr=False)

    @property
    def best(self) -> dict[str, Any]:
        """The row of the grid that was chosen."""
        return next(row for row in self.grid if row["k"] == self.k)

    @property
    def tied(self) -> list[int]:
        """Values of k whose loss cannot be distinguished from the best one's.

        The best of many is best partly by luck, so that intervals against it are too narrow:
        the others are certainly not fewer than these.
        """
        others = [r for r in self.grid if r["k"] != self.k]
        return [r["k"] for r in others if r["gap_low"] is None or r["gap_low"] <= 0]

    @property
    def judged(self) -> Verdict:
        """Whether the choice is clear, and what the clustering criteria would have chosen."""
        return judge(self.grid, self.k, "loss")

    @property
    def verdict(self) -> str:
        """The same in words."""
        return self.judged.words

    @property
    def silhouette_r2(self) -> float | None:
        """Share of the loss's variance over k that the silhouette explains; None below three k."""
        pairs = np.array([[row["silhouette"], row["loss"]] for row in self.grid])
        if len(pairs) < 3 or (np.ptp(pairs, axis=0) == 0).any():
            return None
        return float(np.corrcoef(pairs.T)[0, 1] ** 2)


def sweep_k(
    corpus: Any,
    grid: Sequence[int],
    *,
    run_dir: str | Path,
    seeds: int | Sequence[int] = 3,
    steps: int = 300,
    embedder: Any = "minilm",
    domain_seed: int = 0,
    cache: Any = True,
    progress: bool = True,
    **train_options: Any,
) -> KSweep:
    """Choose k by short training on uniform proportions (R&B, Section 3).

    Parameters
    ----------
    corpus : datasets.DatasetDict
    grid : sequence of int
        Numbers of domains to try.
    run_dir : path
        Holds a run folder for each k and seed (``k-012/seed-0``) and ``k_sweep.json``. The
        same call continues where a killed one stopped; finished runs are only read.
    seeds : int or sequence of int
        Training seeds, or how many: 0, 1, ...
    steps : int
        Optimizer steps of each run.
    embedder, cache
        As for :func:`rbkit.regroup.regroup`; the corpus is embedded once.
    domain_seed : int
        Seed of k-means: the domains of one k are the same in all runs.
    progress : bool
        Show bars.
    **train_options
        Options of :func:`rbkit.train.training.train` for the runs.

    Returns
    -------
    KSweep

    Raises
    ------
    InputError
        For options that cannot work, or a folder that holds runs of something else.
    KeyboardInterrupt
        If it was stopped; the same call continues.

    Warns
    -----
    RbkitWarning
        What :func:`rbkit.regroup.regroup` warns of, for the domains of the chosen k.
    """
    if hasattr(seeds, "__iter__") and not isinstance(seeds, str | bytes):
        numbers = [as_seed(seed, "seeds") for seed in seeds]
    else:
        numbers = list(range(as_count("seeds", seeds)))
    domain_seed = as_seed(domain_seed, "domain_seed")
    if not numbers or len(set(numbers)) < len(numbers):
        raise InputError("seeds", f"{seeds} are not different seeds", "give 3, or a list")
    if "seed" in train_options:
        raise InputError("seed", "one run has one seed", "give seeds=, and domain_seed=")
    options = check_options({**train_options, "steps": steps}, _DEFAULTS)
    folder = Path(run_dir)
    material, _ = prepare(corpus, embedder, cache=cache, progress=progress)
    vectors = {"train": material.train, "eval": material.eval}
    table = choose_k(
        material.train, grid, eval_vectors=material.eval, seed=domain_seed, progress=progress
    ).grid
    domains, warned = {}, {}
    for row in table:
        cluster = KMeans(row["k"], seed=domain_seed)
        with warnings.catch_warnings(record=True) as warned[row["k"]]:
            warnings.simplefilter("always", RbkitWarning)
            made = regroup(
                corpus, vectors=vectors, cluster=cluster, seed=domain_seed, progress=False
            )
        made.method["embedder"] = material.embedder
        domains[row["k"]] = made
    # Seed by seed, so that what a killed sweep has made can be compared already.
    jobs = [(seed, k) for seed in numbers for k in domains]
    runs = {
        (seed, k): train_once(
            corpus,
            domains[k],
            folder / f"k-{k:03d}" / f"seed-{seed}",
            Stratified(),
            {**options, "seed": seed},
        )
        for seed, k in progress_bar(jobs, desc="sweep k", unit="run", disable=not progress)
    }
    losses = np.array(
        [[runs[seed, k].info["final"]["loss_token"] for seed in numbers] for k in domains]
    )
    drawn = {k: _examples(runs[numbers[0], k]) / k / domains[k].sizes.min() for k in domains}
    rows = [
        {**row, **more, "smallest_epochs": float(drawn[row["k"]])}
        for row, more in zip(table, compare_losses(losses), strict=True)
    ]
    k = min(rows, key=lambda row: (row["loss"], row["k"]))["k"]
    done = [runs[job] for job in jobs]
    cost = cost_of(done)
    sweep = KSweep(k, rows, numbers, cost, domains, done)
    write_json(
        folder / "k_sweep.json",
        {
            "format": FORMAT,
            "k": k,
            "verdict": sweep.verdict,
            "seeds": numbers,
            "cost": cost,
            "silhouette_r2": sweep.silhouette_r2,
            "grid": rows,
        },
    )
    for warning in warned[k]:  # only those of the chosen domains matter
        warnings.warn(warning.message, warning.category, stacklevel=2)
    return sweep


def compare_losses(losses: NDArray[np.float64]) -> list[dict[str, Any]]:
    """Return a row for each k: its mean loss, and the paired gap to the best.

    Parameters
    ----------
    losses : ndarray of shape (grid, seeds)

    Examples
    --------
    >>> rows = compare_losses(np.array([[3.0, 3.2], [3.1, 3.3]]))
    >>> [round(row["gap"], 2) for row in rows]
    [0.0, 0.1]
    """
    grid, seeds = losses.shape
    best = int(losses.mean(axis=1).argmin())
    # A seed's weights and order of examples move all k alike: that is not noise of a comparison.
    own = losses - losses.mean(axis=0)
    has_spread = seeds > 1 and grid > 1
    rows = []
    for at in range(grid):
        gaps = losses[at] - losses[best]
        low = high = None
        if at != best and seeds > 1:
            half = stats.t.ppf((1 + _LEVEL) / 2, seeds - 1) * gaps.std(ddof=1) / np.sqrt(seeds)
            low, high = float(gaps.mean() - half), float(gaps.mean() + half)
        rows.append(
            {
                "loss": float(losses[at].mean()),
                "losses": losses[at].tolist(),
                "loss_sd": float(own[at].std(ddof=1)) if has_spread else None,
                "gap": float(gaps.mean()),
                "gap_low": low,
                "gap_high": high,
            }
        )
    return rows


def _examples(run: Run) -> int:
    asked: Mapping[str, Any] = run.info["parameters"]
    return int(asked["steps"] * asked["micro_batch_size"] * asked["accumulate"])
