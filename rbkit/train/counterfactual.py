"""``replay(run, mixer)``: what another rule would have sampled, from a run folder alone."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from rbkit.balance.mixers.base import Mixer, effective_number
from rbkit.balance.mixers.registry import MIXERS, mixer_by_name
from rbkit.balance.replay import replay_history
from rbkit.balance.signals import FloatArray, IntArray
from rbkit.errors import InputError
from rbkit.train.run import Run


@dataclass(frozen=True)
class Replay:
    """Proportions that a rule would have chosen, and those of the recorded run.

    Attributes
    ----------
    mixer : str
        Name of the rule.
    options : dict
        Its options.
    p : ndarray of shape (T + 1, m)
        Row t is in force in round t; the last one comes after the last round.
    recorded : ndarray of shape (T + 1, m)
        The same of the run.
    step : int array of shape (T,)
        Last step of each round.
    names : list of str
        Names of the domains.
    """

    mixer: str
    options: dict[str, Any]
    p: FloatArray
    recorded: FloatArray
    step: IntArray
    names: list[str]

    @property
    def distance(self) -> FloatArray:
        """Total variation distance to the run's proportions, (T + 1,), in [0, 1].

        The share of the examples that the rule would have drawn from other domains; NaN where
        the run's own are unknown.
        """
        distance: FloatArray = 0.5 * np.abs(self.p - self.recorded).sum(axis=1)
        return distance

    @property
    def elsewhere(self) -> float:
        """Share of all the run's examples that the rule would have drawn from other domains.

        The mean of :attr:`distance` over the steps, where it is known: the row after the last
        round made none.
        """
        distance = self.distance[:-1]
        lengths = np.where(np.isfinite(distance), np.diff(self.step, prepend=0), 0)
        return float(np.nan_to_num(distance) @ lengths / max(int(lengths.sum()), 1))

    @property
    def effective_domains(self) -> FloatArray:
        """``exp(H(p))`` of each row, (T + 1,)."""
        return np.array([effective_number(row) for row in self.p])

    def __repr__(self) -> str:
        return (
            f"Replay({self.mixer}, {len(self.step)} rounds, {self.p.shape[1]} domains, "
            f"{self.elsewhere:.1%} of the examples elsewhere)"
        )


def replay(run: Run, mixer: Mixer | str, options: Mapping[str, Any] | None = None) -> Replay:
    """Return what `mixer` would have chosen in each round of a recorded run.

    Rules that look at the Gram matrix (``RnB``, ``MGDA``, ``UPGrad``, the fixed ones) can be
    replayed on any run that tracked it; rules that look at eval losses on any run that
    evaluated every round. The model and its gradients stay those of the run, so this shows how
    rules read the same evidence, not which would have won.

    Parameters
    ----------
    run : Run
        A run folder with at least one finished round.
    mixer : Mixer or str
        The rule, or its name.
    options : mapping, optional
        Options of a rule given by name.

    Returns
    -------
    Replay

    Raises
    ------
    InputError
        If the run did not record what the rule needs.

    Examples
    --------
    >>> import tempfile
    >>> from rbkit.train import Recorder, Run
    >>> recorder = Recorder(tempfile.mkdtemp())
    >>> recorder.start(parameters={"mixer": "Stratified"},
    ...                domains={"names": ["a", "b"], "sizes": [9, 9], "q": [0.8, 0.2]})
    >>> recorder.q = np.array([0.8, 0.2])
    >>> recorder.arrays["p"] = [np.full(2, 0.5)]
    >>> recorder.round(step=10, p=np.full(2, 0.5), estimate=None)
    >>> recorder.finish("ok")
    >>> replay(Run.open(recorder.path), "Target")
    Replay(Target, 1 rounds, 2 domains, 30.0% of the examples elsewhere)
    """
    if isinstance(mixer, str):
        mixer = mixer_by_name(mixer, options)
    elif options:
        raise InputError(
            "options", "given for a mixer that has been made already", "leave them out"
        )
    p = _replayed(run, mixer, None)
    history, domains = run.history, run.info["domains"]
    return Replay(
        mixer.name,
        mixer.options(),
        p,
        np.asarray(history["p"])[: len(p)],
        np.asarray(history["step"]),
        [str(name) for name in domains.get("names", [])],
    )


def why_not(run: Run, mixer: Mixer | str, options: Mapping[str, Any] | None = None) -> str:
    """Return why `mixer` cannot be replayed on a run, without replaying it; empty if it can.

    Examples
    --------
    >>> import tempfile
    >>> from rbkit.train import Recorder, Run
    >>> recorder = Recorder(tempfile.mkdtemp())
    >>> recorder.start(parameters={"mixer": "Stratified"})
    >>> recorder.finish("ok")
    >>> why_not(Run.open(recorder.path), "Target")
    'no finished round recorded'
    """
    try:
        mixer = mixer_by_name(mixer, options) if isinstance(mixer, str) else mixer
        _replayed(run, mixer, 0)
    except InputError as error:
        return error.what
    return ""


def _replayed(run: Run, mixer: Mixer, rounds: int | None) -> FloatArray:
    """Replay the first `rounds` of a run (all if None): 0 checks that it could be done."""
    history, domains = run.history, run.info.get("domains") or {}
    if not len(history.get("step", [])) or not {"sizes", "q"} <= domains.keys():
        raise InputError(str(run.path), "no finished round recorded", "give a run with a history")
    # Only `distance` needs those of the first round.
    if not np.isfinite(np.asarray(history["p"], dtype=np.float64)[1:]).all():
        raise InputError(
            str(run.path),
            "its proportions are not all recorded",
            "give rb.live(...) p= or sampler=",
        )
    if domains["q"] is None:
        raise InputError(
            str(run.path), "its target proportions are not recorded", "give rb.live(...) q="
        )
    mixer = copy.deepcopy(mixer)  # as it was, whatever becomes of it here
    mixer.domain_names = domains.get("names")
    parameters = run.info.get("parameters") or {}
    q = np.asarray(domains["q"], dtype=np.float64)
    there = _rounds_with_estimate(history) if "gram" in mixer.signals else None
    arrays = {
        name: history[name] if there is None else np.asarray(history[name])[there]
        for name in history
        if name not in ("q", "p")
    }
    arrays = {name: rows[:rounds] for name, rows in arrays.items()}
    losses = _eval_losses(run) if "eval_losses" in mixer.signals else None
    if losses is not None and there is not None:
        losses = losses[there]
    p = replay_history(
        {**arrays, "q": q},
        mixer,
        sizes=_sizes(run, mixer, q),
        eval_losses=None if losses is None else losses[:rounds],
        gram_decay=_gram_decay(parameters),
        round_steps=parameters.get("round_steps"),
        steps=int(parameters.get("steps") or 0),
    )
    if there is None or rounds is not None:
        return p
    # Rounds without an estimate changed nothing.
    return p[np.searchsorted(there, np.arange(len(history["step"]) + 1))]


def _rounds_with_estimate(history: Mapping[str, Any]) -> IntArray | None:
    """Return the rounds that recorded a Gram matrix; None if all did, or none did."""
    counts = np.asarray(history.get("counts", ()))
    if counts.ndim != 2 or len(counts) != len(history["step"]):
        return None
    there = np.flatnonzero(counts.any(axis=1))
    return there if 0 < len(there) < len(counts) else None


def _sizes(run: Run, mixer: Mixer, q: FloatArray) -> IntArray:
    """Training examples of each domain; ones where they are unknown and make no difference."""
    sizes = run.info["domains"]["sizes"]
    if sizes is not None:
        return np.asarray(sizes, dtype=np.int64)
    ones = np.ones(len(q), dtype=np.int64)
    alike, other = (mixer.start(q, size) for size in (ones, ones + np.arange(len(q))))
    if not np.array_equal(alike, other) or getattr(mixer, "adjustment", False):
        raise InputError(
            str(run.path),
            f"{mixer.name} needs the sizes of the domains, which are not recorded",
            "give rb.live(...) the Domains instead of their names",
        )
    return ones


def _gram_decay(parameters: Mapping[str, Any]) -> float:
    """Share of earlier rounds' sums in the recorded matrices: an option of the run's mixer."""
    name, options = parameters.get("mixer"), parameters.get("mixer_options") or {}
    if name in MIXERS:
        return mixer_by_name(name, options).gram_decay
    return float(options.get("gram_decay") or 0.0)  # a rule that rbkit does not have


def _eval_losses(run: Run) -> FloatArray | None:
    """Eval losses by domain at the end of each round, (T, m); None if a round has none."""
    by_step = {row["step"]: row["by_domain_token"] for row in run.metrics("eval")}
    rows = [by_step.get(int(step)) for step in run.history["step"]]
    if any(row is None for row in rows):
        return None
    return np.array(rows, dtype=np.float64)  # null becomes NaN: no eval example
