"""The sampler: a function of (seed, history of p, position) alone."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rbkit.balance import MixtureSampler
from rbkit.errors import InputError

LABELS = np.repeat([0, 1, 2, -1], [5, 40, 9, 6])
proportions = st.lists(st.floats(0.01, 1), min_size=3, max_size=3).map(
    lambda w: np.array(w) / np.sum(w)
)
plans = st.lists(st.tuples(st.integers(0, 60), proportions), min_size=1, max_size=5)


def run(sampler, plan, chunk=None):
    rows = []
    for count, p in plan:
        sampler.set_proportions(p)
        sizes = [count] if chunk is None else [1] * count
        rows += [sampler.take(size) for size in sizes]
    return np.concatenate([np.empty(0, int), *rows])


@given(plans, st.integers(0, 2**32))
@settings(max_examples=40, deadline=None)
def test_the_sequence_depends_only_on_seed_history_and_position(plan, seed):
    at_once = run(MixtureSampler(LABELS, np.full(3, 1 / 3), seed), plan)
    one_by_one = run(MixtureSampler(LABELS, np.full(3, 1 / 3), seed), plan, chunk=1)
    np.testing.assert_array_equal(at_once, one_by_one)


@given(plans, plans, st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_a_restored_sampler_goes_on_with_the_identical_sequence(before, after, seed):
    whole = MixtureSampler(LABELS, np.full(3, 1 / 3), seed)
    run(whole, before)
    restored = MixtureSampler(LABELS, np.full(3, 1 / 3), seed=12345)
    restored.load_state_dict(whole.state_dict())
    np.testing.assert_array_equal(run(whole, after), run(restored, after))
    np.testing.assert_array_equal(whole.drawn, restored.drawn)


@given(proportions, st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_no_example_comes_twice_before_its_domain_is_used_up(p, seed):
    sampler = MixtureSampler(LABELS, p, seed)
    rows = sampler.take(300)
    for domain in range(3):
        mine = rows[LABELS[rows] == domain]
        size = (domain == LABELS).sum()
        for start in range(0, len(mine), size):
            epoch = mine[start : start + size]
            assert len(set(epoch.tolist())) == len(epoch)
    assert (LABELS[rows] >= 0).all()


def test_shares_follow_the_proportions():
    p = np.array([0.2, 0.7, 0.1])
    sampler = MixtureSampler(LABELS, p, seed=0)
    n = 20_000
    sampler.take(n)
    assert np.abs(sampler.drawn / n - p).max() < 4 * np.sqrt(0.25 / n)
    np.testing.assert_allclose(sampler.epochs, sampler.drawn / [5, 40, 9])


@pytest.mark.parametrize("order", list(permutations(range(4))))
def test_the_share_of_used_up_domains_goes_to_the_others_in_proportion(order):
    """Two small domains are used up at once; the others keep 1 : 3, wherever they all stand."""
    p, sizes = np.array([0.4, 0.2, 0.1, 0.3]), np.array([4, 2, 20_000, 60_000])
    place = np.argsort(order)
    labels = np.repeat(place, sizes)
    sampler = MixtureSampler(labels, p[list(order)], seed=1, max_epochs=1)
    n = 20_000
    sampler.take(n)
    drawn = sampler.drawn[place]
    assert drawn[:2].tolist() == [4, 2]
    assert abs(drawn[2] / (n - 6) - 0.25) < 4 * np.sqrt(0.25 * 0.75 / n)


def test_a_domain_with_proportion_zero_is_never_drawn():
    sampler = MixtureSampler(LABELS, [0.0, 0.5, 0.5], seed=0)
    sampler.take(5000)
    assert sampler.drawn[0] == 0


def test_peeking_does_not_move():
    sampler = MixtureSampler(LABELS, np.full(3, 1 / 3), seed=4)
    seen, _ = sampler.peek(10)
    assert sampler.position == 0
    np.testing.assert_array_equal(seen, sampler.take(10))


def test_other_seeds_give_other_sequences():
    draws = [MixtureSampler(LABELS, np.full(3, 1 / 3), s).take(50).tolist() for s in range(5)]
    assert len({tuple(d) for d in draws}) == 5


def test_proportions_on_an_empty_domain_are_refused():
    with pytest.raises(ValueError, match="without training data must be 0"):
        MixtureSampler([0, 0, 2], [0.5, 0.25, 0.25])


def test_labels_out_of_range_are_refused():
    with pytest.raises(InputError, match="one id from -1 to 1"):
        MixtureSampler([0, 1, 2], [0.5, 0.5])


def test_a_state_of_another_number_of_domains_is_refused():
    saved = MixtureSampler([0, 1], [0.5, 0.5]).state_dict()
    with pytest.raises(InputError, match="saved for 2 domains, not 3"):
        MixtureSampler(LABELS, np.full(3, 1 / 3)).load_state_dict(saved)


@pytest.mark.parametrize("other", [[0, 1, 1], [1, 0], [0, 1, 0, 1]])
def test_a_state_of_other_data_is_refused(other):
    saved = MixtureSampler([0, 1], [0.5, 0.5]).state_dict()
    with pytest.raises(InputError, match="number or labels are others"):
        MixtureSampler(other, [0.5, 0.5]).load_state_dict(saved)


@given(proportions, st.integers(0, 99), st.floats(0.0, 0.9))
@settings(max_examples=40, deadline=None)
def test_visits_are_counted_and_a_reserve_is_let_in_slowly(p, seed, reserve):
    sampler = MixtureSampler(LABELS, p, seed, reserve=reserve)
    seen = np.zeros(len(LABELS), int)
    for _ in range(30):
        visits = sampler.plan(40)[2]
        for row, visit in zip(sampler.take(40), visits, strict=True):
            assert seen[row] == visit
            seen[row] += 1
    for domain, size in enumerate(sampler.sizes.tolist()):
        mine, kept = seen[domain == LABELS], int(reserve * size)
        drawn = int(sampler.drawn[domain])
        # The first pass is the domain without its reserve, each example once.
        assert (mine > 0).sum() >= min(drawn, size - kept)
        assert mine.max() <= 1 or drawn > size - kept
        if not kept:
            assert mine.max() - mine.min() <= 1


def test_first_visits_still_occur_late_with_a_reserve():
    labels = np.zeros(100, int)
    plain, kept = MixtureSampler(labels, [1.0]), MixtureSampler(labels, [1.0], reserve=0.2)
    assert (plain.take(80) == kept.take(80)).all()  # until the reserve is met
    for pass_ in range(1, 8):
        rows, _, visits = kept.plan(kept.passes[0].length(pass_))
        assert len(set(rows.tolist())) == len(rows)
        assert (visits == 0).sum() > 0
        kept.take(len(rows))
    assert (plain.plan(700)[2][20:] > 0).all()


def test_a_sampler_with_a_reserve_is_restored_with_it():
    whole = MixtureSampler(LABELS, np.full(3, 1 / 3), 4, reserve=0.3)
    whole.take(123)
    restored = MixtureSampler(LABELS, np.full(3, 1 / 3), 9)
    restored.load_state_dict(whole.state_dict())
    for one, other in zip(whole.plan(99), restored.plan(99), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("reserve", [-0.1, 1.0, float("nan"), "much"])
def test_a_reserve_is_a_share(reserve):
    with pytest.raises(InputError, match="reserve"):
        MixtureSampler(LABELS, np.full(3, 1 / 3), reserve=reserve)
