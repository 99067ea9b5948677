"""Checks that every mixer must pass, for rules of one's own too."""

from __future__ import annotations

import copy
import io
import json
from collections.abc import Callable
from typing import Any

import numpy as np

from rbkit.balance.mixers.base import Mixer, check_proportions
from rbkit.balance.mixers.worlds import World, made_up_world
from rbkit.balance.signals import SIGNALS, FloatArray, Observation

_LONG_ROUND = 10_000  # steps: enough for any rule that plans finer


def check_mixer(
    make: Callable[[], Mixer], *, worlds: int = 20, seed: int = 0, equivariant: bool = True
) -> None:
    """Check that a mixer does what trainers, checkpoints and replays rely on.

    In `worlds` made-up runs of a few rounds, with domains that lack training data, eval
    examples, or a draw in some round:

    - its proportions are finite, on the simplex, and 0 where there is no training data;
    - it leaves what it is shown as it was;
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
    worlds : int
        Made-up runs to check in.
    seed : int
        Of the made-up runs.
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
    for number in range(seed, seed + worlds):
        world = made_up_world(number)
        try:
            check_in_world(make, world, equivariant=equivariant)
        except AssertionError as error:
            raise AssertionError(f"{make().name}: {error} (made-up run {number})") from None
        except Exception as error:
            what = f"{type(error).__name__}: {error}"
            raise AssertionError(f"{make().name}: raises {what} (made-up run {number})") from error


def check_in_world(make: Callable[[], Mixer], world: World, *, equivariant: bool = True) -> None:
    """Make the checks of :func:`check_mixer` that concern one made-up run."""
    mixer = make()
    path = run_through(mixer, world)
    _same(path, run_through(mixer, world), 0, "decides otherwise in a second run: start() forgets")
    _same(path, run_through(make(), world), 0, "another instance decides otherwise")
    at = int(world.sizes.sum()) % len(world.rounds)  # any round, but the same one each time
    restored = run_through(make(), world, restart_at=(at, make))
    _same(path, restored, 0, f"decides otherwise after it was restored in round {at}")
    kept = np.flatnonzero(world.available)
    alone = run_through(make(), world.take(kept))
    _same(path[:, kept], alone, 1e-6, "domains without training data change the others' shares")
    run_through(make(), world.blank())
    if equivariant:
        order = np.random.default_rng(len(path)).permutation(len(world.q))
        other = run_through(make(), world.take(order))
        _same(path[:, order], other, 1e-5, "the order of domains matters")


def run_through(
    mixer: Mixer, world: World, restart_at: tuple[int, Callable[[], Mixer]] | None = None
) -> FloatArray:
    """Return the proportions that `mixer` chooses in `world`, (rounds + 1, m), checking each.

    ``restart_at=(t, make)``: before round t, go on with a new mixer that takes up the saved
    state, as a killed run would.
    """
    path = [_checked(mixer.start(world.q.copy(), world.sizes.copy()), world, "start()")]
    if "probe_runs" in mixer.signals:
        if mixer.probe_steps() < 1:
            raise AssertionError(f"probe_steps() is {mixer.probe_steps()}")
        path[0] = _checked(mixer.prepare(copy.deepcopy(world.probes)), world, "prepare()")
    for t, shown in enumerate(world.rounds):
        if restart_at is not None and restart_at[0] == t:
            state = saved_and_read(mixer.state_dict())
            mixer = restart_at[1]()
            # As a trainer that resumes: it starts every run, then loads.
            mixer.start(world.q.copy(), world.sizes.copy())
            mixer.load_state_dict(state)
        length = mixer.round_length(_LONG_ROUND)
        if not 1 <= length <= _LONG_ROUND:
            raise AssertionError(f"round_length({_LONG_ROUND}) is {length}")
        seen = Observation(**{**vars(shown), "p": path[-1]})
        before = copy.deepcopy(seen)
        path.append(_checked(mixer.update(seen), world, f"update() of round {t}"))
        if not _equal(vars(seen), vars(before)):
            raise AssertionError(f"update() of round {t} changed what it was shown")
        path[-1] = path[-1].copy()
    proposed = mixer.proposal()
    if proposed is not None:
        _checked(proposed, world, "proposal()")
    return np.array(path)


def saved_and_read(state: dict[str, Any]) -> dict[str, Any]:
    """Return `state` after a way through files: arrays in npz, everything else in JSON."""
    arrays = {name: value for name, value in state.items() if isinstance(value, np.ndarray)}
    rest = {name: value for name, value in state.items() if name not in arrays}
    file = io.BytesIO()
    np.savez(file, **arrays)  # type: ignore[arg-type]
    file.seek(0)
    try:
        values: dict[str, Any] = json.loads(json.dumps(rest, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise AssertionError(f"state_dict() has values that are no JSON ({error})") from error
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
        raise AssertionError(f"{mixer.name}: options() are no JSON values ({error})") from error
    if not same:
        raise AssertionError(f"{mixer.name}: options() change on the way through JSON")


def _checked(p: Any, world: World, where: str) -> FloatArray:
    try:
        return check_proportions(p, world.available)
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
