"""RegMix (arXiv 2407.01492): learn from small runs which mixture leaves which loss."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rbkit.balance.signals import FloatArray
from rbkit.errors import InputError
from rbkit.files import write_text
from rbkit.regroup.domains import Domains
from rbkit.train.propose.mixtures import MixtureSpace, draw_candidates, draw_mixtures
from rbkit.train.propose.proposal import Proposal, cost_of
from rbkit.train.propose.regression import Fitted, choose, fit, spearman
from rbkit.train.propose.small_runs import check_options, train_all
from rbkit.train.record import Run

# One evaluation at the end is all that is needed of a small run.
_DEFAULTS = {"steps": 100, "eval_rounds": 10**9, "save_model": False}


def regmix(
    corpus: Any,
    domains: Domains,
    folder: str | Path,
    *,
    n: int = 32,
    holdout: float = 0.25,
    weights: Sequence[float] | None = None,
    per_domain: bool = False,
    regressor: str = "auto",
    max_epochs: float = 15.0,
    budget: float | None = None,
    temperature: float = 0.5,
    strengths: Sequence[float] | None = None,
    minimum: float = 2e-4,
    candidates: int = 100_000,
    best: int = 128,
    seed: int = 0,
    progress: bool = True,
    **train_options: Any,
) -> Proposal:
    """Propose a mixture from a regression on `n` small runs (RegMix, arXiv 2407.01492).

    Published: 512 runs of 1,000 steps of a 1M-parameter model, LightGBM. Here far fewer by
    default, and cross-validation on the runs that are not held out chooses the regression
    (LightGBM takes part where it is installed). It is judged by rank correlation on the runs held
    out, which took no part in its fit, its choice or its early stopping: RegMix's own code stops on
    the very runs that it reports. Then the chosen one is fitted to all runs.

    Parameters
    ----------
    corpus : datasets.DatasetDict
    domains : Domains
    folder : path
        Holds a run folder per mixture (``run-000`` and so on), ``swarm.csv`` with mixtures and
        losses, and ``proposal.json``. A second call goes on where the first was stopped, and
        may ask for more runs.
    n : int
        Small runs, at least 5.
    holdout : float
        Share of them held out.
    weights : sequence of m floats, optional
        Weights of the domains' eval losses in the loss to minimise. Not given: the eval set's own
        loss per token, or with `per_domain` the target proportions q.
    per_domain : bool
        Predict each domain's eval loss by a regression of its own, as RegMix does, instead of the
        weighted sum.
    regressor : str
        ``auto``, ``ridge``, ``log``, ``quadratic``, ``boosting`` or ``lightgbm``.
    max_epochs : float
        Passes over a domain that a run of `budget` examples may make.
    budget : float, optional
        Examples of the run that will use the mixture; as many as the corpus has if not given.
    temperature, strengths, minimum
        Of the mixtures that are drawn; see :class:`~rbkit.train.propose.mixtures.MixtureSpace`.
    candidates, best : int
        The proposal is the mean of the `best` of so many drawn candidates by predicted loss.
    seed : int
        Of mixtures and runs.
    progress : bool
        Show a bar over the runs.
    **train_options
        Options of :func:`rbkit.train.run.train` for the small runs; 100 steps by default.

    Returns
    -------
    Proposal
        Diagnostics: ``spearman`` on the held-out runs with its 95 % interval, ``regressor`` and
        every candidate's ``cv_error`` (root mean square, nats), ``held_out_error``, predictions for
        the corpus' own proportions and for q, and the best loss among the small runs.

    Raises
    ------
    InputError
        For options that cannot work, or a folder that holds runs of something else.
    KeyboardInterrupt
        If it was stopped; the same call goes on.
    """
    if n < 5:
        raise InputError("n", f"{n} runs", "give at least 5, to fit with some and judge by others")
    if not 0 < holdout < 1:
        raise InputError("holdout", f"{holdout} is no share", "try 0.25")
    if not 1 <= best <= candidates:
        raise InputError("best", f"{best} of {candidates} candidates", "try 128 of 100000")
    options = check_options(train_options, _DEFAULTS | {"seed": seed})
    of_domains = _weights(weights, domains) if weights is not None or per_domain else None
    shape = {"temperature": temperature, "minimum": minimum}
    shape |= {} if strengths is None else {"strengths": tuple(strengths)}  # type: ignore[dict-item]
    space = MixtureSpace.of(
        np.asarray(domains.sizes), max_epochs=max_epochs, budget=budget, **shape
    )
    folder = Path(folder)
    mixtures = draw_mixtures(space, n, seed=seed)
    names = [f"run-{i:03d}" for i in range(n)]
    runs = train_all(corpus, domains, folder, mixtures, options, names=names, progress=progress)
    losses, weigh = _losses(runs, of_domains, per_domain)
    held = _held_out(n, holdout, seed)
    judged, errors = choose(regressor, mixtures[~held], losses[~held], weigh, seed=seed)
    truth, guess = (losses @ weigh)[held], judged.predict(mixtures[held])
    final = fit(judged.name, mixtures, losses, weigh)
    p = best_mean(final, draw_candidates(space, candidates, seed=seed), best)
    _write_swarm(folder / "swarm.csv", names, held, mixtures, runs, domains.names)
    rank, interval = spearman(guess, truth)
    q = np.asarray(domains.q, dtype=np.float64)
    proposal = Proposal(
        p, "RegMix", tuple(domains.names), float(final.predict(p[None])[0]),
        diagnostics={
            "spearman": rank, "spearman_interval": interval, "held_out": int(held.sum()),
            "held_out_error": float(np.sqrt(np.mean((guess - truth) ** 2))),
            "regressor": judged.name, "cv_error": errors,
            "predicted_loss_of_corpus": float(final.predict(space.prior[None])[0]),
            "predicted_loss_of_target": float(final.predict(q[None])[0]),
            "best_loss_of_a_run": float((losses @ weigh).min()),
        },
        cost=cost_of(runs),
        options={
            "n": n, "holdout": holdout, "per_domain": per_domain, "seed": seed,
            "weights": None if weights is None else np.asarray(weights).tolist(),
            "candidates": candidates, "best": best, **space.options(),
            "train": {name: str(value) for name, value in options.items()},
        },
    )  # fmt: skip
    proposal.save(folder / "proposal.json")
    return proposal


def best_mean(fitted: Fitted, mixtures: FloatArray, best: int) -> FloatArray:
    """Return the mean of the `best` mixtures by predicted loss, (m,)."""
    order = np.argsort(fitted.predict(mixtures), kind="stable")
    mean = mixtures[order[:best]].mean(axis=0)
    p: FloatArray = mean / mean.sum()
    return p


def _held_out(n: int, share: float, seed: int) -> np.ndarray[Any, Any]:
    """Which runs are held out, (n,) bool; at least 2, and at least 3 are not."""
    number = min(max(2, round(share * n)), n - 3)
    held = np.zeros(n, dtype=bool)
    held[np.random.default_rng([seed, 4]).permutation(n)[:number]] = True
    return held


def _weights(weights: Sequence[float] | None, domains: Domains) -> FloatArray:
    found = np.asarray(domains.q if weights is None else weights, dtype=np.float64)
    if found.shape != (domains.m,):
        raise InputError(
            "weights", f"{found.size} weights for {domains.m} domains", "give one per domain"
        )
    if not (np.isfinite(found).all() and (found >= 0).all() and found.sum() > 0):
        raise InputError("weights", f"{found} are no weights", "give numbers >= 0")
    empty = np.flatnonzero((found > 0) & (np.asarray(domains.eval_sizes) == 0))
    if empty.size:
        raise InputError(
            "weights", f"{domains.names[empty[0]]} has no eval example", "give it weight 0"
        )
    scaled: FloatArray = found / found.sum()
    return scaled


def _losses(
    runs: Sequence[Run], weights: FloatArray | None, per_domain: bool
) -> tuple[FloatArray, FloatArray]:
    """Losses of the runs, (n, c), and weights (c,) that make them one number."""
    if weights is None:
        return np.array([[run.info["final"]["loss_token"]] for run in runs]), np.ones(1)
    asked = weights > 0
    rows = [np.array(run.info["final"]["by_domain_token"], dtype=np.float64)[asked] for run in runs]
    if per_domain:
        return np.array(rows), weights[asked]
    return np.array(rows) @ weights[asked][:, None], np.ones(1)


def _write_swarm(
    path: Path, names: Sequence[str], held: np.ndarray[Any, Any], mixtures: FloatArray,
    runs: Sequence[Run], domains: Sequence[str],
) -> None:  # fmt: skip
    """Write mixtures and losses as a table that any regression can start from."""
    out = io.StringIO()
    table = csv.writer(out, lineterminator="\n")
    table.writerow(["run", "held_out", *(f"p: {d}" for d in domains), "loss per token",
                    *(f"loss: {d}" for d in domains)])  # fmt: skip
    for name, is_held, p, run in zip(names, held, mixtures, runs, strict=True):
        final = run.info["final"]
        table.writerow([name, int(is_held), *p.tolist(), final["loss_token"],
                        *final["by_domain_token"]])  # fmt: skip
    write_text(path, out.getvalue())
