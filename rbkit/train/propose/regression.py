"""From mixtures and the losses that they left to a function that predicts the loss of any other.

RegMix uses LightGBM. It wants hundreds of runs, which few machines have time for, so simpler
regressions of scikit-learn stand beside it and cross-validation chooses.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats
from sklearn.ensemble import GradientBoostingRegressor
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import KFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, PolynomialFeatures, StandardScaler

from rbkit.balance.signals import FloatArray
from rbkit.errors import InputError

_FOLDS = 5
_EARLY = 0.2  # share of the runs that tell LightGBM when to stop


@dataclass(frozen=True, eq=False)
class Fitted:
    """A regression of each column of the losses, added up with `weights`."""

    name: str
    models: tuple[Any, ...]
    weights: FloatArray

    def predict(self, mixtures: FloatArray) -> FloatArray:
        """Return the predicted loss of each mixture, (n,), in nats per token."""
        columns = np.stack([model.predict(mixtures) for model in self.models], axis=1)
        found: FloatArray = columns @ self.weights
        return found


def regressors() -> dict[str, Callable[[], Any]]:
    """Return the regressions that can be had here, by name; each call makes a fresh one.

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

    A fifth of the runs it is given tells when to stop; then it is fitted to all of them, with
    as many trees. RegMix's own code stops on the runs by which it is judged.
    """

    def fit(self, mixtures: FloatArray, losses: FloatArray) -> LightGBM:
        """Fit to mixtures (n, m) and losses (n,)."""
        lgb = importlib.import_module("lightgbm")
        held = np.random.default_rng(0).permutation(len(losses)) < max(1, _EARLY * len(losses))
        # The library's 20 runs to a leaf are for RegMix's 512: with few runs no tree could split.
        options = {
            "objective": "regression", "metric": "l2", "learning_rate": 0.01, "verbosity": -1,
            "seed": 42, "num_threads": 1, "min_data_in_leaf": min(20, max(2, len(losses) // 10)),
        }  # fmt: skip
        inside = lgb.Dataset(mixtures[~held], losses[~held])
        first = lgb.train(
            options, inside, 1000, valid_sets=[lgb.Dataset(mixtures[held], losses[held], inside)],
            callbacks=[lgb.early_stopping(3, verbose=False)],
        )  # fmt: skip
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

    Parameters
    ----------
    wanted : str
        ``auto``, or the name of one.
    mixtures : ndarray of shape (n, m)
    losses : ndarray of shape (n, c)
    weights : ndarray of shape (c,)
        What is predicted is ``losses @ weights``.

    Returns
    -------
    Fitted, dict
        And each candidate's root mean squared error out of fold, in nats.

    Raises
    ------
    InputError
        For an unknown name, one that is not installed, or fewer than 3 runs.
    """
    known = regressors()
    if wanted == "lightgbm" and wanted not in known:
        raise InputError("regressor", "LightGBM is not installed", "pip install rbkit[regmix]")
    if wanted != "auto" and wanted not in known:
        raise InputError(
            "regressor", f"{wanted!r} is unknown", f"use auto or one of {', '.join(known)}"
        )
    if len(mixtures) < 3:
        raise InputError("n", f"{len(mixtures)} runs to fit a regression to", "give more runs")
    truth = losses @ weights
    errors = {}
    for name in known if wanted == "auto" else [wanted]:
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
    found = float(stats.spearmanr(guess, truth).statistic)
    if len(truth) < 5:  # any order is likely by chance
        return found, None
    middle = math.atanh(min(max(found, -0.999999), 0.999999))
    half = 1.959964 * math.sqrt((1 + found**2 / 2) / (len(truth) - 3))
    return found, [math.tanh(middle - half), math.tanh(middle + half)]


def _ridge() -> RidgeCV:
    return RidgeCV(alphas=np.logspace(-4, 4, 17))


def _log(mixtures: FloatArray) -> FloatArray:
    return np.log(mixtures + 0.01)
