"""A replay is the rule itself, fed with what was recorded."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rbkit.balance import GramEstimate, Observation, Proportional, Stratified, Target
from rbkit.balance.mixers.base import Mixer, normalise
from rbkit.balance.mixers.rnb import RnB, tilt
from rbkit.balance.replay import replay_history
from rbkit.errors import InputError

PARTS = ("gram", "counts", "diagonal_debiased", "noise_floor")
SIZES = np.array([30, 20, 10, 0])
Q = np.array([0.5, 0.3, 0.1, 0.1])


def made_up(rounds, seed=0, m=4):
    rng = np.random.default_rng(seed)
    g = rng.normal(size=(rounds, m, 6))
    counts = rng.integers(1, 9, (rounds, m)) * (SIZES > 0)
    gram = np.where(counts[:, :, None] * counts[:, None] > 0, g @ g.mT, np.nan)
    squares = np.diagonal(gram, axis1=1, axis2=2)
    return {
        "q": Q,
        "step": 5 * np.arange(1, rounds + 1),
        "gram": gram,
        "counts": counts,
        "diagonal_debiased": 0.6 * squares,
        "noise_floor": 0.1 * squares,
    }


class LossSeeking(Mixer):
    signals = frozenset({"eval_losses"})

    def update(self, seen):
        return normalise(np.exp(np.nan_to_num(seen.eval_losses)), seen.available)


class Accumulating(Mixer):
    """Multiplies its own last proportions: shows whether these are fed back."""

    signals = frozenset({"gram"})

    def update(self, seen):
        return tilt(seen.p, np.nan_to_num(seen.gram.gram) @ seen.q, 0.1)


OPTIONS = [
    {},
    {"lam": 8.0},
    {"prior": "previous"},
    {"floor": 0.2},
    {"diagonal": "debiased"},
    {"effective_domains": 2.0},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@given(seed=st.integers(0, 99), rounds=st.integers(1, 5))
@settings(max_examples=25)
def test_a_replay_is_the_rule_applied_round_by_round(options, seed, rounds):
    history, rule = made_up(rounds, seed), RnB(**options)
    p = [rule.start(Q, SIZES)]
    for t in range(rounds):
        estimate = GramEstimate(*(history[name][t] for name in PARTS))
        p.append(rule.update(Observation(t, p[-1], Q, SIZES, gram=estimate)))
    np.testing.assert_array_equal(replay_history(history, RnB(**options), sizes=SIZES), p)


def test_the_rules_own_proportions_are_fed_back_and_not_the_recorded_ones():
    history = made_up(6)
    p = replay_history({**history, "p": np.tile(Q, (7, 1))}, Accumulating(), sizes=SIZES)
    total = np.nan_to_num(history["gram"]).sum(axis=0) @ Q
    np.testing.assert_allclose(p[-1], tilt(normalise(np.ones(4), SIZES > 0), total, 0.1))


@pytest.mark.parametrize("rule", [Stratified(), Proportional(), Target()])
def test_fixed_rules_need_nothing_recorded(rule):
    p = replay_history({"q": Q, "step": np.array([5, 10])}, rule, sizes=SIZES)
    np.testing.assert_array_equal(p, np.tile(rule.start(Q, SIZES), (3, 1)))


def test_eval_losses_are_handed_to_rules_that_ask_for_them():
    losses = np.array([[1.0, 2.0, 3.0, np.nan], [3.0, 2.0, 1.0, np.nan]])
    p = replay_history(
        {"q": Q, "step": np.array([5, 10])}, LossSeeking(), sizes=SIZES, eval_losses=losses
    )
    assert p[1].argmax() == 2
    assert p[2].argmax() == 0
    assert (p[:, 3] == 0).all()


def test_the_rule_that_is_given_keeps_its_state():
    rule = RnB()
    rule.start(Q, SIZES)
    rule._gram = np.eye(4)
    first = replay_history(made_up(3), rule, sizes=SIZES)
    np.testing.assert_array_equal(rule._gram, np.eye(4))
    np.testing.assert_array_equal(first, replay_history(made_up(3), rule, sizes=SIZES))


class Decaying(Accumulating):
    gram_decay = 0.5


class Capped(Accumulating):
    max_epochs = 4.0


class Planning(LossSeeking):
    def round_length(self, round_steps):
        return round_steps // 5


class Wanting(LossSeeking):
    signals = frozenset({"probe_runs", "target_gradient", "gram"})


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (LossSeeking(), "it needs 'eval_losses' .*, and the run recorded gram"),
        (Wanting(), "it needs 'probe_runs' .*; 'target_gradient' .*train with Wanting"),
        (Decaying(), r"gram_decay=0.5 needs the sums .* replay it with gram_decay=0.0"),
        (Capped(), r"max_epochs=4.0 depends on what was drawn"),
    ],
)
def test_what_was_not_recorded_cannot_be_replayed(rule, message):
    with pytest.raises(InputError, match=message):
        replay_history(made_up(2), rule, sizes=SIZES)


def test_sums_that_decayed_alike_can_be_replayed():
    same = replay_history(made_up(2), Decaying(), sizes=SIZES, gram_decay=0.5)
    np.testing.assert_array_equal(same, replay_history(made_up(2), Accumulating(), sizes=SIZES))
    with pytest.raises(InputError, match=r"made with gram_decay=0\.5"):
        replay_history(made_up(2), Accumulating(), sizes=SIZES, gram_decay=0.5)


def test_a_rule_that_plans_finer_rounds_needs_them():
    losses = np.ones((4, 4))
    history = {"q": Q, "step": np.arange(5, 25, 5)}
    with pytest.raises(InputError, match="plans a round of 1 steps where the run's has 5"):
        replay_history(history, Planning(), sizes=SIZES, eval_losses=losses)
    p = replay_history(history, Planning(), sizes=SIZES, eval_losses=losses, round_steps=25)
    assert len(p) == 5


def test_arrays_of_another_shape_are_told_of():
    history = made_up(3)
    with pytest.raises(InputError, match=r"history\['counts'\]: shape \(2, 4\) instead of \(3, 4"):
        replay_history({**history, "counts": history["counts"][:2]}, RnB(), sizes=SIZES)
