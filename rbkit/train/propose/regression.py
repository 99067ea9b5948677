"""RegMix (arXiv 2407.01492): learn from small runs which mixture leaves which loss.

Mixtures are drawn as published: the corpus' own proportions, tempered by a power of 1/2, are the
mean of Dirichlet draws whose strength is one of 15 from 0.1 (nearly one domain) to 5 (nearly the
prior); mixtures that repeat a domain too often are rejected, and shares below 2e-4 become 0.
RegMix fits LightGBM, which wants hundreds of runs; few machines have time for these, so simpler
regressions of scikit-learn compete with it, and cross-validation chooses.
"""

from __future__ import annotations

import csv
import importlib
import importlib.util
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats
from sklearn.ensemble import GradientBoostingRegressor
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import KFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, PolynomialFeatures, StandardScaler

from rbkit.balance.mixers.base import normalise
from rbkit.balance.signals import FloatArray, IntArray
from rbkit.errors import InputError, as_count, as_number, as_seed
from rbkit.files import write_text
from rbkit.regroup.domains import Domains
from rbkit.train.propose.runs import Proposal, check_options, cost_of, train_all
from rbkit.train.run import Run

_STREAM = 3  # keeps this use of a seed apart from those of training
_TRIES = 2000  # draws for one accepted mixture before the cap counts as leaving none


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
            raise InputError(
                "strengths", f"{self.strengths} are not concentrations", "give numbers above 0"
            )
        for name, value in (("minimum", 2e-4), ("temperature", 0.5)):
            as_number(name, getattr(self, name), f"try {value}")
        if not 0 <= self.minimum < 1 / max(len(self.prior), 1):
            raise InputError(
                "minimum",
                f"{self.minimum} leaves no mixture of {len(self.prior)} domains",
                "try 2e-4",
            )
        if not 0 <= self.temperature <= 1:
            raise InputError(
                "temperature", f"{self.temperature} is not a power from 0 to 1", "try 0.5"
            )

    @classmethod
    def of(
        cls,
        sizes: IntArray,
        *,
        max_epochs: float = 15.0,
        budget: float | None = None,
        **options: Any,
    ) -> MixtureSpace:
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
                "max_epochs, budget",
                f"{max_epochs} and {budget} leave nothing",
                "give numbers above 0",
            )
        most = np.minimum(max_epochs * counts / budget, 1.0)
        if most.sum() < 1:
            raise InputError(
                "max_epochs",
                f"{max_epochs} passes over {counts.sum():.0f} examples fall short of "
                f"the budget of {budget:.0f}",
                "allow more passes, or give a smaller budget",
            )
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
    if (n := as_count("n", n, least=None)) < 1:
        raise InputError("n", f"{n} mixtures", "give at least 1")
    rng = np.random.default_rng([as_seed(seed), _STREAM])
    has_data = space.prior > 0
    tempered = space.prior[has_data] ** space.temperature
    tempered /= tempered.sum()
    mixtures: dict[bytes, FloatArray] = {}
    for _ in range(_TRIES * n):
        drawn = np.zeros(len(space.prior))
        # With a small concentration all of numpy's gamma draws can underflow to 0: draw again.
        drawn[has_data] = rng.dirichlet(tempered * rng.choice(space.strengths))
        if not np.isfinite(drawn).all():
            continue
        p = _rounded(drawn, space.minimum)
        if (p <= space.most + 1e-12).all():
            mixtures.setdefault(p.tobytes(), p)
        if len(mixtures) == n:
            return np.array(list(mixtures.values()))
    raise InputError(
        "n",
        f"only {len(mixtures)} different mixtures found that repeat no domain too often, not {n}",
        "ask for fewer, allow more max_epochs, or give a smaller budget",
    )


def draw_candidates(space: MixtureSpace, n: int, *, seed: int = 0) -> FloatArray:
    """Draw at most `n` mixtures to ask a regression about, (<= n, m).

    From a Dirichlet of the untempered prior; those that repeat a domain too often are left out.
    """
    n, rng = as_count("n", n, least=1), np.random.default_rng([as_seed(seed), _STREAM, 1])
    has_data = space.prior > 0
    drawn = np.zeros((n, len(space.prior)))
    drawn[:, has_data] = rng.dirichlet(space.prior[has_data], n)
    allowed = drawn[np.isfinite(drawn).all(axis=1) & (drawn <= space.most + 1e-12).all(axis=1)]
    if not len(allowed):
        raise InputError(
            "max_epochs", f"all of {n} candidates repeat a domain too often", "allow more passes"
        )
    return allowed


def _rounded(p: FloatArray, minimum: float) -> FloatArray:
    """Return `p` with shares below `minimum` set to 0 and the rest rounded to multiples of it."""
    if minimum:
        p = np.where(p < minimum, 0.0, p)
        p = np.round(p / p.sum() / minimum) * minimum
    scaled: FloatArray = p / p.sum()
    return scaled


_FOLDS = 5
_EARLY = 0.2  # share of the runs by which LightGBM stops


@dataclass(frozen=True, eq=False)
class Fitted:
    """A regression of each column of the losses, added up with `weights`."""

    name: str
    models: tuple[Any, ...]
    weights: FloatArray

    def predict(self, mixtures: FloatArray) -> FloatArray:
        """Return the predicted loss of each mixture, (n,), in nats per token."""
        columns = np.stack([model.predict(mixtures) for model in self.models], axis=1)
        predicted: FloatArray = columns @ self.weights
        return predicted


def regressors() -> dict[str, Callable[[], Any]]:
    """Return the available regressions by name; each call makes a fresh one.

    ``ridge`` : linear in p. ``log`` : linear in log(p + 0.01), for gains that fade. ``quadratic`` :
    with products of shares. ``boosting`` : scikit-learn's trees. ``lightgbm`` : RegMix's, if
    installed.
    """
    made: dict[str, Callable[[], Any]] = {
        "ridge": lambda: make_pipeline(StandardScaler(), _ridge()),
        "log": lambda: make_pipeline(FunctionTransformer(_log), StandardScaler(), _ridge()),
        "quadratic": lambda: make_pipeline(
            PolynomialFeatures(2, include_bias=False), StandardScaler(), _ridge()
        ),
        "boosting": lambda: GradientBoostingRegressor(
            learning_rate=0.05, n_estimators=200, max_depth=2, subsample=0.8, random_state=0
        ),
    }
    if importlib.util.find_spec("lightgbm") is not None:
        made["lightgbm"] = LightGBM
    return made


class LightGBM:
    """RegMix's regression: gbdt, rate 0.01, at most 1,000 trees, patience 3.

    A fifth of the runs decides when to stop; then it is fitted to all of them, with as many
    trees. RegMix's own code stops on the runs by which it is judged.
    """

    def fit(self, mixtures: FloatArray, losses: FloatArray) -> LightGBM:
        """Fit to mixtures (n, m) and losses (n,)."""
        lgb = importlib.import_module("lightgbm")
        held = np.random.default_rng(0).permutation(len(losses)) < max(1, _EARLY * len(losses))
        # The library's 20 runs to a leaf are for RegMix's 512: with few runs no tree could split.
        options = {
            "objective": "regression",
            "metric": "l2",
            "learning_rate": 0.01,
            "verbosity": -1,
            "seed": 42,
            "num_threads": 1,
            "min_data_in_leaf": min(20, max(2, len(losses) // 10)),
        }
        inside = lgb.Dataset(mixtures[~held], losses[~held])
        first = lgb.train(
            options,
            inside,
            1000,
            valid_sets=[lgb.Dataset(mixtures[held], losses[held], inside)],
            callbacks=[lgb.early_stopping(3, verbose=False)],
        )
        trees = max(1, first.best_iteration)
        self._model = lgb.train(options, lgb.Dataset(mixtures, losses), trees)
        return self

    def predict(self, mixtures: FloatArray) -> FloatArray:
        """Return the predicted losses, (n,)."""
        return np.asarray(self._model.predict(np.asarray(mixtures)), dtype=np.float64)


def fit(name: str, mixtures: FloatArray, losses: FloatArray, weights: FloatArray) -> Fitted:
    """Fit the regression `name` to each column of `losses` (n, c)."""
    make = regressors()[name]
    models = tuple(make().fit(mixtures, column) for column in losses.T)
    return Fitted(name, models, np.asarray(weights, dtype=np.float64))


def choose(
    wanted: str, mixtures: FloatArray, losses: FloatArray, weights: FloatArray, *, seed: int = 0
) -> tuple[Fitted, dict[str, float]]:
    """Choose a regression by cross-validation on the runs given, and fit it to them.

    `wanted` is ``auto`` or a name; mixtures (n, m) predict ``losses @ weights``, (n, c) and (c,).
    Also returns each candidate's root mean squared error out of fold, in nats.
    """
    available = regressors()
    if wanted == "lightgbm" and wanted not in available:
        raise InputError("regressor", "LightGBM is not installed", "pip install rbkit[regmix]")
    if wanted != "auto" and wanted not in available:
        raise InputError(
            "regressor", f"{wanted!r} is unknown", f"use auto or one of {', '.join(available)}"
        )
    if len(mixtures) < 3:
        raise InputError("n", f"{len(mixtures)} runs to fit a regression to", "give more runs")
    truth = losses @ weights
    errors = {}
    for name in available if wanted == "auto" else [wanted]:
        guess = np.empty(len(truth))
        folds = KFold(min(_FOLDS, len(truth)), shuffle=True, random_state=seed)
        for inside, outside in folds.split(mixtures):
            guess[outside] = fit(name, mixtures[inside], losses[inside], weights).predict(
                mixtures[outside]
            )
        errors[name] = float(np.sqrt(np.mean((guess - truth) ** 2)))
    best = min(errors, key=lambda name: errors[name])
    return fit(best, mixtures, losses, weights), errors


def spearman(guess: FloatArray, truth: FloatArray) -> tuple[float | None, list[float] | None]:
    """Return Spearman's rank correlation and its 95 % interval; None where there is none.

    The interval is Fisher's, with the standard error of Bonett and Wright (2000).

    Examples
    --------
    >>> rank, interval = spearman(np.arange(9.0), np.array([0, 2, 1, 4, 3, 6, 5, 8, 7.0]))
    >>> round(rank, 2), [round(end, 2) for end in interval]
    (0.93, [0.62, 0.99])
    """
    if len(truth) < 2 or np.ptp(guess) == 0 or np.ptp(truth) == 0:
        return None, None
    rank = float(stats.spearmanr(guess, truth).statistic)
    if len(truth) < 5:  # any order is likely by chance
        return rank, None
    middle = math.atanh(min(max(rank, -0.999999), 0.999999))
    half = 1.959964 * math.sqrt((1 + rank**2 / 2) / (len(truth) - 3))
    return rank, [math.tanh(middle - half), math.tanh(middle + half)]


def _ridge() -> RidgeCV:
    return RidgeCV(alphas=np.logspace(-4, 4, 17))


def _log(mixtures: FloatArray) -> FloatArray:
    return np.log(mixtures + 0.01)


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
        losses, and ``proposal.json``. A second call continues where the first was stopped, and
        may ask for more runs.
    n : int
        Small runs, at least 5.
    holdout : float
        Share of them held out.
    weights : sequence of m floats, optional
        Weights of the domains' eval losses in the loss to minimise. Not given: the eval set's own
        loss per token, or with `per_domain` the target proportions q.
    per_domain : bool
        Predict each domain's eval loss by its own regression, as RegMix does, instead of the
        weighted sum.
    regressor : str
        ``auto``, ``ridge``, ``log``, ``quadratic``, ``boosting`` or ``lightgbm``.
    max_epochs : float
        Passes over a domain that a run of `budget` examples may make.
    budget : float, optional
        Examples of the run that will use the mixture; as many as the corpus has if not given.
    temperature, strengths, minimum
        Of the mixtures that are drawn; see :class:`~rbkit.train.propose.regression.MixtureSpace`.
    candidates, best : int
        The proposal is the mean of the `best` of so many drawn candidates by predicted loss.
    seed : int
        Of mixtures and runs.
    progress : bool
        Show a bar over the runs.
    **train_options
        Options of :func:`rbkit.train.training.train` for the small runs; 100 steps by default.

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
        If it was stopped; the same call continues.
    """
    seed, best = as_seed(seed), as_count("best", best)
    candidates = as_count("candidates", candidates)
    if (n := as_count("n", n)) < 5:
        raise InputError("n", f"{n} runs", "give at least 5, to fit with some and judge by others")
    if not 0 < as_number("holdout", holdout, "try 0.25") < 1:
        raise InputError("holdout", f"{holdout} is not a share between 0 and 1", "try 0.25")
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
        p,
        "RegMix",
        tuple(domains.names),
        float(final.predict(p[None])[0]),
        diagnostics={
            "spearman": rank,
            "spearman_interval": interval,
            "held_out": int(held.sum()),
            "held_out_error": float(np.sqrt(np.mean((guess - truth) ** 2))),
            "regressor": judged.name,
            "cv_error": errors,
            "predicted_loss_of_corpus": float(final.predict(space.prior[None])[0]),
            "predicted_loss_of_target": float(final.predict(q[None])[0]),
            "best_loss_of_a_run": float((losses @ weigh).min()),
        },
        cost=cost_of(runs),
        options={
            "n": n,
            "holdout": holdout,
            "per_domain": per_domain,
            "seed": seed,
            "weights": None if weights is None else np.asarray(weights).tolist(),
            "candidates": candidates,
            "best": best,
            **space.options(),
            "train": {name: str(value) for name, value in options.items()},
        },
    )
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
    given = np.asarray(domains.q if weights is None else weights, dtype=np.float64)
    if given.shape != (domains.m,):
        raise InputError(
            "weights", f"{given.size} weights for {domains.m} domains", "give one per domain"
        )
    if not (np.isfinite(given).all() and (given >= 0).all() and given.sum() > 0):
        raise InputError("weights", f"{given} are not weights", "give numbers >= 0")
    empty = np.flatnonzero((given > 0) & (np.asarray(domains.eval_sizes) == 0))
    if empty.size:
        raise InputError(
            "weights", f"{domains.names[empty[0]]} has no eval example", "give it weight 0"
        )
    scaled: FloatArray = given / given.sum()
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
    path: Path,
    names: Sequence[str],
    held: np.ndarray[Any, Any],
    mixtures: FloatArray,
    runs: Sequence[Run],
    domains: Sequence[str],
) -> None:
    """Write mixtures and losses as a table that any regression can start from."""
    out = io.StringIO()
    table = csv.writer(out, lineterminator="\n")
    table.writerow(
        [
            "run",
            "held_out",
            *(f"p: {d}" for d in domains),
            "loss per token",
            *(f"loss: {d}" for d in domains),
        ]
    )
    for name, is_held, p, run in zip(names, held, mixtures, runs, strict=True):
        final = run.info["final"]
        table.writerow(
            [name, int(is_held), *p.tolist(), final["loss_token"], *final["by_domain_token"]]
        )
    write_text(path, out.getvalue())
