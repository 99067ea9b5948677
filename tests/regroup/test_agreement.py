"""Domains against gradients: what agrees is told apart from what does not."""

from __future__ import annotations

import numpy as np
import pytest

from rbkit.errors import InputError
from rbkit.regroup.agreement import gradient_agreement
from rbkit.regroup.choose import explained_share
from rbkit.regroup.regret_bound import alignments, regret


def world(strength, m=4, each=60, s=16, seed=0):
    """Gradients with domains of their own, and an eval set that likes the first of them."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(m, s))
    labels = rng.permutation(np.repeat(np.arange(m), each))
    sketches = strength * centres[labels] + rng.normal(size=(m * each, s))
    aim = strength * centres[np.zeros(30, int)] + rng.normal(size=(30, s))
    return labels, sketches, aim


def test_domains_of_gradients_are_recognised():
    found = gradient_agreement(*world(3.0), progress=False)
    assert found.explained > 10 * found.explained_random.high
    assert found.regret_bound < found.regret_bound_random.low
    assert found.regret_exact < found.regret_exact_random.low
    assert found.ami == pytest.approx(1)
    assert found.ami_ceiling == pytest.approx(1)
    assert "more than chance" in found.answer
    assert "no lower" not in found.answer


def test_domains_that_have_nothing_to_do_with_gradients_are_called_so():
    labels, sketches, aim = world(3.0)
    shuffled = np.random.default_rng(5).permutation(labels)
    found = gradient_agreement(shuffled, sketches, aim, progress=False)
    assert abs(found.ami) < 0.05 < found.ami_ceiling
    assert "no more than chance" in found.answer
    assert "no lower" in found.answer


def test_random_domains_explain_what_theory_says():
    labels, sketches, _ = world(0.5)
    found = gradient_agreement(labels, sketches, progress=False)
    assert found.explained_random.mean == pytest.approx(3 / 239, rel=0.15)
    assert found.explained_random.low < found.explained_random.mean < found.explained_random.high


def test_chance_is_rarely_beaten_by_chance():
    outside = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        found = gradient_agreement(
            rng.integers(3, size=60), rng.normal(size=(60, 5)), permutations=60, progress=False
        )
        outside += found.explained > found.explained_random.high
    assert outside <= 5


def test_figures_are_those_of_the_single_functions_and_noise_is_left_out():
    labels, sketches, aim = world(1.0)
    found = gradient_agreement(labels, sketches, aim, progress=False)
    assert found.explained == pytest.approx(explained_share(sketches, labels), rel=1e-4)
    expected = regret(labels, alignments(sketches, aim))
    assert found.regret_bound == pytest.approx(expected.bound, rel=1e-4)
    assert found.regret_exact == pytest.approx(expected.exact, rel=1e-4)
    noisy = gradient_agreement(
        np.r_[labels, -1], np.r_[sketches, sketches[:1] * 1e3], aim, progress=False
    )
    assert noisy.explained == pytest.approx(found.explained)
    assert (noisy.n, noisy.m) == (240, 4)


def test_without_an_eval_set_there_is_no_regret():
    found = gradient_agreement(*world(1.0)[:2], progress=False)
    assert found.regret_bound is found.regret_bound_random is None
    assert "regret" not in found.answer


def test_one_large_gradient_does_not_decide_over_directions():
    labels, sketches, _ = world(2.0)
    sketches[0] *= 1e3
    raw = gradient_agreement(labels, sketches, progress=False)
    unit = gradient_agreement(labels, sketches, directions=True, progress=False)
    assert raw.explained < 0.1 < unit.explained


@pytest.mark.parametrize(
    ("labels", "sketches", "message"),
    [
        ([0, 0], np.ones((2, 2)), "fewer than two domains"),
        ([-1, -1], np.ones((2, 2)), "fewer than two domains"),
        ([0, 1], np.ones((3, 2)), "one row per training example"),
        ([0, 1], np.full((2, 2), np.nan), "not all numbers are finite"),
    ],
)
def test_what_cannot_be_compared_is_refused(labels, sketches, message):
    with pytest.raises(InputError, match=message):
        gradient_agreement(labels, sketches, progress=False)
