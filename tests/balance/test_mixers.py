"""What every mixer must do, and what R&B's rule is."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from rbkit.balance.mixers.registry import MIXERS, mixer_by_name
from rbkit.balance.mixers.rnb import RnB, effective_number, lambda_for_effective_domains, tilt
from rbkit.balance.signals import GramEstimate, Observation
from rbkit.errors import InputError

VARIANTS = [
    ("Stratified", {}), ("Proportional", {}), ("Target", {}), ("RnB", {}), ("RnB", {"lam": 30.0}),
    ("RnB", {"prior": "target"}), ("RnB", {"prior": "previous"}), ("RnB", {"floor": 0.2}),
    ("RnB", {"effective_domains": 2.5}), ("RnB", {"diagonal": "debiased"}),
]  # fmt: skip
each_mixer = pytest.mark.parametrize(("name", "options"), VARIANTS)


@st.composite
def observations(draw, max_m=6, full=False):
    m = draw(st.integers(1, max_m))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    a = rng.normal(size=(m, draw(st.integers(1, 8)))) * 10.0 ** draw(st.integers(-6, 6))
    sizes = rng.integers(1, 50, m)
    counts = rng.integers(1, 9, m)
    if not full:
        sizes[rng.random(m) < 0.2] = 0
        counts[(rng.random(m) < 0.3) | (sizes == 0)] = 0
    assume((sizes > 0).any())
    q = rng.dirichlet(np.ones(m))
    assume(q[sizes > 0].sum() > 1e-6)
    gram = a @ a.T
    gram[counts == 0] = np.nan
    gram[:, counts == 0] = np.nan
    half = np.where(counts > 1, np.diag(gram) * 0.7, np.nan)
    estimate = GramEstimate(gram, counts, half, half * 0.1)
    p = np.where(sizes > 0, 1.0, 0.0)
    return Observation(3, p / p.sum(), q, sizes, gram=estimate)


def permuted(seen, order):
    g = seen.gram
    return Observation(
        seen.round, seen.p[order], seen.q[order], seen.sizes[order],
        gram=GramEstimate(g.gram[np.ix_(order, order)], g.counts[order],
                          g.diagonal_debiased[order], g.noise_floor[order]),
    )  # fmt: skip


@each_mixer
@given(seen=observations())
@settings(max_examples=40, deadline=None)
def test_proportions_are_finite_on_the_simplex_and_zero_without_data(name, options, seen):
    mixer = mixer_by_name(name, options)
    for p in (mixer.start(seen.q, seen.sizes), mixer.update(seen)):
        assert np.isfinite(p).all()
        assert (p >= 0).all()
        assert p.sum() == pytest.approx(1)
        assert (p[seen.sizes == 0] == 0).all()


@each_mixer
@given(seen=observations(), data=st.data())
@settings(max_examples=25, deadline=None)
def test_the_order_of_domains_does_not_matter(name, options, seen, data):
    order = np.array(data.draw(st.permutations(range(len(seen.q)))))
    plain = mixer_by_name(name, options).update(seen)
    other = mixer_by_name(name, options).update(permuted(seen, order))
    np.testing.assert_allclose(other, plain[order], rtol=1e-6, atol=1e-9)


@each_mixer
@given(seen=observations(), then=st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_a_restored_mixer_decides_the_same(name, options, seen, then):
    first = mixer_by_name(name, options)
    first.update(seen)
    saved = first.state_dict()
    second = mixer_by_name(name, options)
    second.load_state_dict(saved)
    rng = np.random.default_rng(then)
    m = len(seen.q)
    gram = np.where(rng.random((m, m)) < 0.4, np.nan, rng.normal(size=(m, m)))
    nan = np.full(m, np.nan)
    later = Observation(4, seen.p, seen.q, seen.sizes,
                        gram=GramEstimate(gram, seen.gram.counts, nan, nan))  # fmt: skip
    np.testing.assert_array_equal(first.update(later), second.update(later))


@each_mixer
def test_options_can_be_recorded_as_json(name, options):
    mixer = mixer_by_name(name, options)
    assert json.loads(json.dumps(mixer.options())) == mixer.options()
    assert mixer_by_name(name, mixer.options()).options() == mixer.options()


def test_the_hand_computed_case_of_algorithm_1():
    """G = [[2,1],[1,1]], q = (1/2, 1/2): Gq = (1.5, 1), norm sqrt(3.25)."""
    nan = np.full(2, np.nan)
    g = GramEstimate(np.array([[2.0, 1.0], [1.0, 1.0]]), np.array([4, 4]), nan, nan)
    seen = Observation(0, np.full(2, 0.5), np.full(2, 0.5), np.array([9, 9]), gram=g)
    weight = np.exp(3 * 0.5 / np.sqrt(3.25))
    np.testing.assert_allclose(RnB(lam=3).update(seen), [weight / (1 + weight), 1 / (1 + weight)])


@given(observations(full=True), st.floats(1e-6, 1e6))
@settings(max_examples=40, deadline=None)
def test_rnb_does_not_depend_on_the_scale_of_the_gradients(seen, scale):
    g = seen.gram
    scaled = GramEstimate(g.gram * scale, g.counts, g.diagonal_debiased, g.noise_floor)
    other = Observation(3, seen.p, seen.q, seen.sizes, gram=scaled)
    np.testing.assert_allclose(RnB().update(other), RnB().update(seen), rtol=1e-6)


@given(observations(full=True))
@settings(max_examples=60, deadline=None)
def test_rnb_is_never_below_uniform_to_first_order(seen):
    gain = seen.q @ seen.gram.gram
    p, uniform = RnB().update(seen), np.full(len(seen.q), 1 / len(seen.q))
    assert gain @ p >= gain @ uniform - 1e-9 * np.abs(gain).max()


@given(observations(full=True))
@settings(max_examples=30, deadline=None)
def test_lambda_0_gives_the_prior_and_a_large_one_the_best_domain(seen):
    np.testing.assert_allclose(RnB(lam=0).update(seen), 1 / len(seen.q))
    np.testing.assert_allclose(RnB(lam=0, prior="target").update(seen), seen.q)
    v = seen.gram.gram @ seen.q
    top = np.sort(v)
    assume(len(v) == 1 or top[-1] - top[-2] > 1e-3 * np.linalg.norm(v))
    assert RnB(lam=1e5).update(seen).argmax() == v.argmax()


@given(observations(full=True), st.floats(1, 6))
@settings(max_examples=60, deadline=None)
def test_the_effective_number_of_domains_is_the_one_asked_for(seen, wanted):
    m = len(seen.q)
    v = seen.gram.gram @ seen.q
    top = np.sort(v)[::-1]
    assume(m == 1 or top[0] - top[1] > 1e-6 * np.linalg.norm(v))
    found = effective_number(RnB(effective_domains=wanted).update(seen))
    assert found == pytest.approx(min(wanted, m), rel=1e-4)


def test_ties_at_the_top_bound_the_effective_number_from_below():
    uniform, score = np.full(4, 0.25), np.array([1.0, 1.0, 0.0, 0.0])
    lam = lambda_for_effective_domains(1.5, uniform, score)
    assert effective_number(tilt(uniform, score, lam)) == pytest.approx(2, rel=1e-6)


@given(observations(), st.floats(0, 1))
@settings(max_examples=30, deadline=None)
def test_no_domain_with_data_falls_below_the_floor(seen, floor):
    mixer = RnB(lam=50, floor=floor)
    if not np.any(np.nan_to_num(mixer.alignment(seen))[seen.available]):
        return
    p = RnB(lam=50, floor=floor).update(seen)
    assert p[seen.available].min() >= floor / seen.available.sum() - 1e-12


def two_rounds(second_gram):
    nan, q, sizes = np.full(3, np.nan), np.array([0.5, 0.3, 0.2]), np.array([9, 9, 9])
    first = np.array([[2.0, 0.5, 0.1], [0.5, 1.0, 0.2], [0.1, 0.2, 3.0]])
    mixer, uniform = RnB(), np.full(3, 1 / 3)
    seen = [
        Observation(t, uniform, q, sizes, gram=GramEstimate(g, np.ones(3, int), nan, nan))
        for t, g in enumerate([first, second_gram])
    ]
    return mixer.update(seen[0]), mixer.update(seen[1]), first, q


def test_a_domain_unseen_in_a_round_keeps_its_last_products():
    absent = np.full((3, 3), np.nan)
    absent[:2, :2] = [[4.0, 1.0], [1.0, 2.0]]
    _, after, first, q = two_rounds(absent)
    merged = first.copy()
    merged[:2, :2] = absent[:2, :2]
    v = merged @ q
    z = np.exp(3 * v / np.linalg.norm(v))
    np.testing.assert_allclose(after, z / z.sum())


def test_a_round_without_any_gradient_changes_nothing():
    before, after, _, _ = two_rounds(np.full((3, 3), np.nan))
    np.testing.assert_array_equal(before, after)


def test_a_domain_never_seen_gets_the_mean_score():
    nan = np.full(3, np.nan)
    gram = np.full((3, 3), np.nan)
    gram[:2, :2] = [[4.0, 1.0], [1.0, 2.0]]
    q, sizes = np.array([0.5, 0.5, 0.0]), np.array([9, 9, 9])
    seen = Observation(0, np.full(3, 1 / 3), q, sizes,
                       gram=GramEstimate(gram, np.array([1, 1, 0]), nan, nan))  # fmt: skip
    v = np.array([2.5, 1.5, 2.0])
    z = np.exp(3 * v / np.linalg.norm(v))
    np.testing.assert_allclose(RnB().update(seen), z / z.sum())


def test_gq_of_zero_keeps_the_proportions():
    nan, p = np.full(2, np.nan), np.array([0.9, 0.1])
    gram = GramEstimate(np.zeros((2, 2)), np.array([3, 3]), nan, nan)
    seen = Observation(0, p, np.array([0.5, 0.5]), np.array([9, 9]), gram=gram)
    np.testing.assert_array_equal(RnB().update(seen), p)


@given(arrays(float, 4, elements=st.floats(-700, 700)), st.floats(0, 100))
@settings(max_examples=50, deadline=None)
def test_tilting_never_overflows(score, lam):
    p = tilt(np.full(4, 0.25), score, lam)
    assert np.isfinite(p).all()
    assert p.sum() == pytest.approx(1)


@pytest.mark.parametrize(
    ("options", "word"),
    [({"lam": -1}, "lam"), ({"lam": float("nan")}, "lam"), ({"prior": "p"}, "prior"),
     ({"floor": 1.5}, "floor"), ({"effective_domains": 0.5}, "effective_domains"),
     ({"diagonal": "none"}, "diagonal"), ({"lambda": 3}, "lambda")],
)  # fmt: skip
def test_a_wrong_option_is_named(options, word):
    with pytest.raises(InputError, match=word):
        mixer_by_name("RnB", options)


def test_every_published_name_is_in_the_registry():
    assert set(MIXERS) == {"Stratified", "Proportional", "Target", "RnB"}
