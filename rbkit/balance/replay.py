"""Counterfactual replay: the proportions of another rule, from recorded signals alone.

A run that tracked the Gram matrix holds all that a Gram-based rule uses, so the
proportions that it would have chosen cost no training. But the *signals* stay
those of the run that was made. A model trained on other proportions would have shown other
gradients, so a replay shows how rules read the same evidence, not which would have won.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np

from rbkit.balance.mixers.base import Mixer, check_proportions
from rbkit.balance.signals import SIGNALS, FloatArray, GramEstimate, IntArray, Observation
from rbkit.errors import InputError, as_count

_OF_GRAM = ("gram", "counts", "diagonal_debiased", "noise_floor")


def replay_history(
    history: Mapping[str, Any],
    mixer: Mixer,
    *,
    sizes: IntArray,
    eval_losses: FloatArray | None = None,
    gram_decay: float = 0.0,
    round_steps: int | None = None,
    steps: int = 0,
) -> FloatArray:
    """Return the proportions that `mixer` would have chosen, (T + 1, m), round by round.

    The rule's own proportions are fed back as the `p` of the next round; everything else is
    as recorded.

    Parameters
    ----------
    history : mapping of arrays
        ``q`` (m,) and ``step`` (T,), the last step of each round; for rules with the signal
        ``"gram"`` also ``gram`` (T, m, m), ``counts``, ``diagonal_debiased`` and
        ``noise_floor`` (T, m): a run's ``history.npz``.
    mixer : Mixer
        The rule; a copy of it is used, so its state stays as it is.
    sizes : int array of shape (m,)
        Training examples of each domain.
    eval_losses : array of shape (T, m), optional
        Eval loss of each domain at the end of each round, in nats.
    gram_decay : float
        That of the mixer whose run was recorded.
    round_steps : int, optional
        K of the recorded run, for rules that plan their rounds themselves; the longest
        round's steps if not given.
    steps : int
        Optimizer steps that the run was planned for; 0 if unknown.

    Returns
    -------
    ndarray of shape (T + 1, m)
        Row t is in force in round t; the last one is what would come next.

    Raises
    ------
    InputError
        If a signal of the rule was not recorded, or an option needs more than was.

    Examples
    --------
    >>> from rbkit.balance.mixers.rnb import RnB
    >>> nan = np.full((1, 2), np.nan)
    >>> history = {"q": np.full(2, .5), "step": np.array([10]), "counts": np.full((1, 2), 8),
    ...            "gram": np.diag([3., 4.])[None], "diagonal_debiased": nan,
    ...            "noise_floor": nan}
    >>> replay_history(history, RnB(lam=1), sizes=np.array([9, 9])).round(4)
    array([[0.5   , 0.5   ],
           [0.4502, 0.5498]])
    """
    mixer, steps = copy.deepcopy(mixer), as_count("steps", steps)
    mixer.budget = None  # a plan by what was drawn: the draws of this rule are not known
    if round_steps is not None:
        round_steps = as_count("round_steps", round_steps)
    ends = np.asarray(history.get("step", []), dtype=np.int64)
    q, sizes = np.asarray(history["q"], dtype=np.float64), np.asarray(sizes, dtype=np.int64)
    shapes = {"gram": (len(ends), len(q), len(q))}
    recorded = {name: np.asarray(history[name]) for name in _OF_GRAM if name in history}
    if eval_losses is not None:
        recorded["eval_losses"] = np.asarray(eval_losses, dtype=np.float64)
    for name, array in recorded.items():
        expected = shapes.get(name, (len(ends), len(q)))
        if array.shape != expected:
            raise InputError(
                f"history[{name!r}]",
                f"shape {array.shape} instead of {expected}",
                "give one row per round, for the domains of q",
            )
    _check_signals(mixer, recorded)
    _check_options(mixer, gram_decay)
    available, lengths = sizes > 0, np.diff(ends, prepend=0)
    p = [check_proportions(mixer.start(q, sizes), available)]
    for t, end in enumerate(ends):
        _check_length(mixer, int(lengths[t]), round_steps or int(lengths.max()))
        seen = Observation(
            t,
            p[-1],
            q,
            sizes,
            gram=GramEstimate(*(recorded[name][t] for name in _OF_GRAM))
            if "gram" in mixer.signals
            else None,
            eval_losses=recorded["eval_losses"][t] if "eval_losses" in mixer.signals else None,
            step=int(end),
            steps=steps,
        )
        p.append(check_proportions(mixer.update(seen), available))
    return np.array(p)


def _check_signals(mixer: Mixer, recorded: Mapping[str, Any]) -> None:
    available = {"eval_losses"} & recorded.keys()
    if set(_OF_GRAM) <= recorded.keys():
        available.add("gram")
    if missing := sorted(set(mixer.signals) - available):
        what = "; ".join(f"{name!r} ({SIGNALS.get(name, 'unknown')})" for name in missing)
        signals = " and ".join(sorted(available)) or "no signal at all"
        raise InputError(
            f"replay of {mixer.name}",
            f"it needs {what}, and the run recorded {signals}",
            f"train with {mixer.name}, or replay a rule that needs no more than was recorded",
        )


def _check_options(mixer: Mixer, gram_decay: float) -> None:
    if "gram" in mixer.signals and mixer.gram_decay != gram_decay:
        raise InputError(
            f"replay of {mixer.name}",
            f"gram_decay={mixer.gram_decay} needs the sums of gradients, but the run recorded "
            f"only their products, made with gram_decay={gram_decay}",
            f"replay it with gram_decay={gram_decay}",
        )
    if mixer.max_epochs is not None:
        raise InputError(
            f"replay of {mixer.name}",
            f"max_epochs={mixer.max_epochs} depends on what was drawn",
            f"train with {mixer.name}, or replay it without the cap",
        )


def _check_length(mixer: Mixer, length: int, round_steps: int) -> None:
    """Refuse a rule that plans its rounds itself where its plan is not the run's."""
    if type(mixer).round_length is Mixer.round_length:
        return  # takes rounds as they come
    planned = mixer.round_length(round_steps)
    if planned != length:
        raise InputError(
            f"replay of {mixer.name}",
            f"it plans a round of {planned} steps where the run's has {length}",
            f"train with {mixer.name}",
        )
