"""Checks that every mixer must pass, including your own."""

from __future__ import annotations

import copy
import io
import json
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rbkit.balance.mixers.base import Mixer, check_proportions
from rbkit.balance.signals import (
    SIGNALS,
    FloatArray,
    FreshGradients,
    GramEstimate,
    IntArray,
    Observation,
    ProbeRuns,
    TrainLosses,
    VisitLosses,
)
from rbkit.errors import as_count

_STEPS = 4  # of a round
_LONG_ROUND = 10_000  # steps: enough for any rule that plans finer


def check_mixer(
    make: Callable[[], Mixer], *, runs: int = 20, seed: int = 0, equivariant: bool = True
) -> None:
    """Check that a mixer does what trainers, checkpoints and replays rely on.

    In a number of made-up runs of a few rounds, with domains that lack training data, eval
    examples, or a draw in some round:

    - its proportions are finite, on the simplex, and 0 where there is no training data;
    - it leaves its observations unchanged;
    - it decides the same again after :meth:`~rbkit.balance.mixers.base.Mixer.start`, and in
      another instance;
    - saved in the middle of a run, as arrays and JSON, and restored, it decides the same;
    - domains without training data change nothing for the others;
    - it survives rounds in which nothing could be measured;
    - the order of domains does not matter (unless ``equivariant=False``);
    - its options are JSON values, and its signals known ones.

    Parameters
    ----------
    make : callable
        Makes a mixer: a class, or a function without arguments.
    runs : int
        Number of made-up runs.
    seed : int
        Seed of the first run; each later run adds 1.
    equivariant : bool
        Whether to check the order; False for rules that draw an order themselves.

    Raises
    ------
    AssertionError
        With what is wrong, and in which made-up run.

    Examples
    --------
    >>> from rbkit.balance.mixers.rnb import RnB
    >>> check_mixer(RnB)
    >>> class Leaky(RnB):
    ...     def state_dict(self):
    ...         return {}
    >>> check_mixer(Leaky)
    Traceback (most recent call last):
        ...
    AssertionError: Leaky: decides otherwise after it was restored ... (made-up run ...)
    """
    _check_declarations(make())
    seed, runs = as_count("seed", seed), as_count("runs", runs, least=1)
    for number in range(seed, seed + runs):
        try:
            check_in_run(make, made_up_run(number), equivariant=equivariant)
        except AssertionError as error:
            raise AssertionError(f"{make().name}: {error} (made-up run {number})") from None
        except Exception as error:
            what = f"{type(error).__name__}: {error}"
            raise AssertionError(f"{make().name}: raises {what} (made-up run {number})") from error


def check_in_run(make: Callable[[], Mixer], run: MadeUpRun, *, equivariant: bool = True) -> None:
    """Make the checks of :func:`check_mixer` that concern one made-up run."""
    mixer = make()
    path = run_through(mixer, run)
    _same(path, run_through(mixer, run), 0, "decides otherwise in a second run: start() forgets")
    _same(path, run_through(make(), run), 0, "another instance decides otherwise")
    at = int(run.sizes.sum()) % len(run.rounds)  # any round, but the same one each time
    restored = run_through(make(), run, restart_at=(at, make))
    _same(path, restored, 0, f"decides otherwise after it was restored in round {at}")
    with_data = np.flatnonzero(run.available)
    alone = run_through(make(), run.take(with_data))
    _same(path[:, with_data], alone, 1e-6, "domains without training data change the others' p")
    run_through(make(), run.blank())
    if equivariant:
        order = np.random.default_rng(len(path)).permutation(len(run.q))
        other = run_through(make(), run.take(order))
        _same(path[:, order], other, 1e-5, "the order of domains matters")


def run_through(
    mixer: Mixer, run: MadeUpRun, restart_at: tuple[int, Callable[[], Mixer]] | None = None
) -> FloatArray:
    """Return the proportions that `mixer` chooses in `run`, (rounds + 1, m), checking each.

    ``restart_at=(t, make)``: before round t, continue with a new mixer that loads the saved
    state, as a killed run would.
    """
    mixer.budget = run.budget
    path = [_checked(mixer.start(run.q.copy(), run.sizes.copy()), run, "start()")]
    if "probe_runs" in mixer.signals:
        if mixer.probe_steps() < 1:
            raise AssertionError(f"probe_steps() is {mixer.probe_steps()}")
        path[0] = _checked(mixer.prepare(copy.deepcopy(run.probes)), run, "prepare()")
    for t, observed in enumerate(run.rounds):
        if restart_at is not None and restart_at[0] == t:
            state = saved_and_read(mixer.state_dict())
            mixer = restart_at[1]()
            # As a trainer that resumes: it starts every run, then loads.
            mixer.budget = run.budget
            mixer.start(run.q.copy(), run.sizes.copy())
            mixer.load_state_dict(state)
        length = mixer.round_length(_LONG_ROUND)
        if not 1 <= length <= _LONG_ROUND:
            raise AssertionError(f"round_length({_LONG_ROUND}) is {length}")
        seen = replace(observed, p=path[-1])
        before = copy.deepcopy(seen)
        path.append(_checked(mixer.update(seen), run, f"update() of round {t}"))
        if not _equal(vars(seen), vars(before)):
            raise AssertionError(f"update() of round {t} changed its observation")
        path[-1] = path[-1].copy()
    proposed = mixer.proposal()
    if proposed is not None:
        _checked(proposed, run, "proposal()")
    return np.array(path)


def saved_and_read(state: dict[str, Any]) -> dict[str, Any]:
    """Return `state` after a round trip through files: arrays in npz, everything else in JSON."""
    arrays = {name: value for name, value in state.items() if isinstance(value, np.ndarray)}
    rest = {name: value for name, value in state.items() if name not in arrays}
    file = io.BytesIO()
    np.savez(file, **arrays)  # type: ignore[arg-type]
    file.seek(0)
    try:
        values: dict[str, Any] = json.loads(json.dumps(rest, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise AssertionError(f"state_dict() has values that are not JSON ({error})") from error
    with np.load(file, allow_pickle=False) as read:
        return {**values, **{name: read[name] for name in read.files}}


def _check_declarations(mixer: Mixer) -> None:
    if unknown := set(mixer.signals) - set(SIGNALS):
        raise AssertionError(f"{mixer.name}: unknown signals {sorted(unknown)}")
    if mixer.acts not in ("sampling", "loss"):
        raise AssertionError(f"{mixer.name}: acts is {mixer.acts!r}, not 'sampling' or 'loss'")
    try:
        same = json.loads(json.dumps(mixer.options(), allow_nan=False)) == mixer.options()
    except (TypeError, ValueError) as error:
        raise AssertionError(f"{mixer.name}: options() are not JSON values ({error})") from error
    if not same:
        raise AssertionError(f"{mixer.name}: options() change on the way through JSON")


def _checked(p: Any, run: MadeUpRun, where: str) -> FloatArray:
    try:
        return check_proportions(p, run.available)
    except (TypeError, ValueError) as error:
        raise AssertionError(f"{where}: {error}") from error


def _same(one: FloatArray, other: FloatArray, tolerance: float, wrong: str) -> None:
    far = np.abs(one - other).max(axis=1)
    if (far > tolerance).any():
        t = int(np.argmax(far > tolerance))
        raise AssertionError(f"{wrong}: p differs by {far[t]:.2g} after {t} rounds")


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, np.ndarray):
        return np.array_equal(one, other, equal_nan=one.dtype.kind == "f")
    if isinstance(one, dict):
        return all(_equal(one[name], other[name]) for name in one)
    if hasattr(one, "__dict__"):
        return _equal(vars(one), vars(other))
    return bool(one == other or (one != one and other != other))


# ------------------------------------------------------------------------ made-up runs


@dataclass(frozen=True)
class MadeUpRun:
    """What a run of a few rounds would show, apart from the proportions that a mixer chooses.

    Some domains have no training data, some no eval examples; in some rounds and steps some
    are not drawn, and gradients are as small or as large as they get.

    Attributes
    ----------
    q : ndarray of shape (m,)
        Target proportions.
    sizes : int array of shape (m,)
        Training examples.
    probes : ProbeRuns
        What short runs on single domains would find.
    rounds : tuple of Observation
        The rounds; their `p` is to be replaced.
    """

    q: FloatArray
    sizes: IntArray
    probes: ProbeRuns
    rounds: tuple[Observation, ...]

    @property
    def budget(self) -> int:
        """Examples that the run draws: about three epochs of the training data."""
        return int(3 * self.sizes.sum())

    @property
    def available(self) -> NDArray[np.bool_]:
        """Which domains have training data, (m,)."""
        return np.asarray(self.sizes > 0)

    def take(self, index: Any) -> MadeUpRun:
        """Return the run of the domains `index`, in that order."""
        pair = np.ix_(index, index)

        def taken(name: str, value: Any) -> Any:
            if not isinstance(value, np.ndarray):
                return value
            return value[pair] if name in ("gram", "after") else value[..., index]

        taken_run: MadeUpRun = _mapped(self, taken)
        return taken_run

    def blank(self) -> MadeUpRun:
        """Return the run in which nothing could be measured: all signals are NaN."""

        def blank(name: str, value: Any) -> Any:
            if isinstance(value, np.ndarray):
                return np.full_like(value, np.nan if value.dtype.kind == "f" else 0)
            return np.nan if isinstance(value, float) else value

        signals = ("gram", "eval_losses", "train_losses", "visit_losses", "gradients")
        rates = ("learning_rate", "peak_learning_rate")
        rounds = tuple(
            replace(seen, **{n: _mapped(getattr(seen, n), blank, n) for n in (*signals, *rates)})
            for seen in self.rounds
        )
        return replace(self, probes=_mapped(self.probes, blank), rounds=rounds)


def _mapped(value: Any, change: Callable[[str, Any], Any], name: str = "") -> Any:
    """Return `value` with ``change(field name, leaf)`` in place of each leaf."""
    if isinstance(value, tuple):
        return tuple(_mapped(item, change) for item in value)
    if is_dataclass(value) and not isinstance(value, type):
        parts = {f.name: _mapped(getattr(value, f.name), change, f.name) for f in fields(value)}
        return replace(value, **parts)
    return change(name, value)


def made_up_run(seed: int, n_domains: int | None = None, rounds: int = 5) -> MadeUpRun:
    """Return a run that is a function of `seed`; 1 to 6 domains unless `n_domains` is given.

    Examples
    --------
    >>> run = made_up_run(0, n_domains=3)
    >>> len(run.rounds), run.rounds[0].gram.gram.shape
    (5, (3, 3))
    """
    rng = np.random.default_rng(seed)
    m = int(rng.integers(1, 7)) if n_domains is None else n_domains
    sizes = rng.integers(1, 50, m)
    empty = rng.random(m) < 0.25
    empty[rng.integers(m)] = False  # there must be something to train on
    sizes[empty] = 0
    q = rng.dirichlet(np.ones(m))
    without_eval = rng.random(m) < 0.2
    without_eval[np.flatnonzero(~empty)[0]] = False
    q[empty | without_eval] = 0.0
    q = q / q.sum()
    scale = 10.0 ** rng.integers(-3, 3)
    losses = rng.uniform(2, 4, m)
    losses[q == 0] = np.nan
    after = losses - rng.normal(0.2, 0.3, (m, m))
    after[empty] = np.nan
    observed = [_made_up_round(rng, t, q, sizes, scale, losses - 0.1 * t) for t in range(rounds)]
    return MadeUpRun(q, sizes, ProbeRuns(losses, after, 20), tuple(observed))


def _made_up_round(
    rng: np.random.Generator,
    t: int,
    q: FloatArray,
    sizes: IntArray,
    scale: float,
    losses: FloatArray,
) -> Observation:
    m = len(q)
    has_data, nan = sizes > 0, np.nan
    counts = np.where(has_data & (rng.random(m) < 0.7), rng.integers(1, 9, m), 0)
    seen = np.outer(counts, counts) > 0
    vectors = scale * (rng.normal(size=(m, 8)) + rng.normal(size=8))
    gram = vectors @ vectors.T
    squares = np.where(counts > 1, np.diag(gram), nan)
    estimate = GramEstimate(np.where(seen, gram, nan), counts, 0.7 * squares, 0.1 * squares)
    fresh, aim = scale * (rng.normal(size=(m, 8)) + 1), scale * rng.normal(size=8)
    data = np.where(has_data, 1.0, nan)
    gradients = FreshGradients(
        np.linalg.norm(fresh, axis=1) * data,
        fresh @ aim * data,
        float(np.linalg.norm(aim)),
        fresh @ fresh.T * np.outer(data, data),
    )
    steps = int(rng.integers(1, _STEPS + 1))
    examples = np.where(has_data & (rng.random((steps, m)) < 0.7), rng.integers(1, 5, m), 0)
    loss = np.where(examples > 0, rng.uniform(1, 4) + rng.normal(0, 0.3, (steps, m)), nan)
    repeats = np.where(has_data, rng.integers(0, 20, m), 0)
    visit_losses = VisitLosses(
        losses + 0.1,
        np.where(repeats > 0, losses - 0.1 * t, nan),
        np.where(has_data, rng.integers(1, 20, m), 0),
        repeats,
        np.where(repeats > 0, rng.uniform(1, t + 2, m), nan),
    )
    return Observation(
        t,
        np.zeros(m),
        q,
        sizes,
        gram=estimate,
        eval_losses=losses + rng.normal(0, 0.05, m),
        gradients=gradients,
        train_losses=TrainLosses(loss, examples * 10, examples, np.maximum(loss - 2.0, 0.0)),
        visit_losses=visit_losses,
        drawn=(0.2 * (t + 1) * sizes).astype(np.int64),
        step=_STEPS * (t + 1),
        steps=100,
        learning_rate=1e-3 / (t + 1),
        peak_learning_rate=1e-3,
    )
