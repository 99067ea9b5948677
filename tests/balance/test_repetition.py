"""Rules that know how often examples are repeated."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rbkit.balance.mixers import RepeatAware, Target, UniMax, check_mixer
from rbkit.balance.signals import Observation, VisitLosses
from rbkit.errors import InputError

domains = st.lists(st.tuples(st.floats(0.01, 1), st.integers(1, 500)), min_size=1, max_size=8)


def started(rule, q, sizes, budget):
    rule.budget = budget
    return rule.start(np.asarray(q, float) / np.sum(q), np.asarray(sizes))


@pytest.mark.parametrize(
    "make", [RepeatAware, lambda: RepeatAware(repeats=15), UniMax, lambda: Target(max_epochs=4)]
)
def test_rules_that_know_repetition_pass_the_suite_of_all_mixers(make):
    check_mixer(make)


@given(domains, st.integers(1, 5000), st.floats(0.5, 60))
@settings(max_examples=100, deadline=None)
def test_marginal_values_are_equal_at_the_end_of_the_planned_run(given_, budget, worth):
    q, sizes = (np.array(part, float) for part in zip(*given_, strict=True))
    q, sizes = q / q.sum(), sizes.astype(int)
    p = started(RepeatAware(repeats=worth), q, sizes, budget)
    assert p.sum() == pytest.approx(1)
    repeats = np.maximum(p * budget / sizes - 1, 0)
    wanted = np.maximum(q * budget / sizes - 1, 0)
    rho = 0.3 * (1 - q @ np.exp(-wanted / worth))
    value = ((1 - rho) * q + rho * sizes / sizes.sum()) * np.exp(-repeats / worth) / p
    np.testing.assert_allclose(value, value[0], rtol=1e-6)
    if (wanted == 0).all():
        np.testing.assert_allclose(p, q, rtol=1e-12)


@given(domains, st.integers(1, 2000), st.floats(0.2, 9))
@settings(max_examples=60, deadline=None)
def test_a_cap_is_kept_and_what_it_cuts_goes_to_the_others_in_proportion(given_, budget, most):
    q, sizes = (np.array(part, float) for part in zip(*given_, strict=True))
    sizes = sizes.astype(int)
    if most * sizes.sum() < budget:
        with pytest.raises(InputError, match="allow more epochs"):
            started(Target(most), q, sizes, budget)
        return
    for p, prior in (
        (started(Target(most), q, sizes, budget), q / q.sum()),
        (started(UniMax(most), q, sizes, budget), np.full(len(q), 1 / len(q))),
    ):
        assert p.sum() == pytest.approx(1)
        assert (p * budget <= most * sizes * (1 + 1e-9) + 1e-9).all()
        free = p * budget < most * sizes * (1 - 1e-9)
        ratio = (p / prior)[free]
        np.testing.assert_allclose(ratio, ratio[:1].repeat(len(ratio)), rtol=1e-9)


def test_unimax_spreads_a_budget_as_its_paper_does():
    """By hand, Algorithm 1 of arXiv 2304.09151: from the smallest language on."""
    sizes, budget, cap = np.array([10, 400, 25, 90]), 300, 2.0
    expected, left = np.zeros(4), float(budget)
    order = np.argsort(sizes)
    for done, i in enumerate(order):
        expected[i] = min(left / (len(order) - done), cap * sizes[i])
        left -= expected[i]
    p = started(UniMax(cap), np.ones(4), sizes, budget)
    np.testing.assert_allclose(p, expected / expected.sum())


def seen(rule, p, q, sizes, drawn, losses):
    return Observation(
        0, p, q, np.asarray(sizes), visit_losses=losses, drawn=np.asarray(drawn), step=1, steps=9
    )


def visits(gap, earlier=(2.0, 2.0), pairs=5000):
    counts = np.full(2, 2 * pairs)
    return VisitLosses(
        np.array([3.0, 3.0]), 3.0 - np.asarray(gap), counts, counts, np.array(earlier)
    )


def test_what_is_remembered_sets_how_much_a_repeat_is_worth():
    q, sizes, drawn = np.array([0.9, 0.1]), np.array([20, 2000]), np.array([60, 20])
    shares, worth = [], []
    for kappa in (0.0, 0.01, 0.05, 0.1):
        rule = RepeatAware()
        p = started(rule, q, sizes, 400)
        shares.append(rule.update(seen(rule, p, q, sizes, drawn, visits(2 * kappa)))[0])
        worth.append(rule.worth)
    np.testing.assert_allclose(worth, [100, 20, 4, 2], rtol=0.01)  # 0.2 / kappa, at most 100
    assert (np.diff(shares) < 0).all()


def test_without_evidence_the_prior_stands_and_noise_moves_it_little():
    rule = RepeatAware()
    p = started(rule, [0.9, 0.1], [20, 2000], 400)
    assert rule.worth == pytest.approx(12)
    nan, none = np.full(2, np.nan), np.zeros(2, int)
    q, sizes = np.array([0.9, 0.1]), np.array([20, 2000])
    rule.update(seen(rule, p, q, sizes, [9, 9], VisitLosses(nan, nan, none, none, nan)))
    assert rule.worth == pytest.approx(12)
    rule.update(seen(rule, p, q, sizes, [9, 9], visits(np.array([0.3, -0.2]), (1.0, 1.0), pairs=1)))
    assert 8 < rule.worth < 20


def test_a_rule_that_plans_says_when_the_budget_is_unknown():
    for rule in (RepeatAware(), UniMax(), Target(max_epochs=2)):
        with pytest.raises(InputError, match=r"mixer\.budget"):
            rule.start(np.array([0.5, 0.5]), np.array([3, 4]))
    assert Target().options() == {}
    assert Target(max_epochs=2).options() == {"max_epochs": 2.0}


@pytest.mark.parametrize("value", [0, -1, float("inf"), float("nan"), "four", True])
@pytest.mark.parametrize("rule", [Target, UniMax])
def test_a_cap_is_a_positive_number(rule, value):
    with pytest.raises(InputError, match="max_epochs"):
        rule(max_epochs=value)
