"""What every mixer must do, and what R&B's rule is."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from rbkit.balance import GramEstimate, Observation
from rbkit.balance.mixers import MIXERS, mixer_by_name
from rbkit.balance.mixers.base import Mixer, normalise
from rbkit.balance.mixers.check import (
    check_in_run,
    check_mixer,
    made_up_run,
    run_through,
    saved_and_read,
)
from rbkit.balance.mixers.rnb import RnB, effective_number, lambda_for_effective_domains, tilt
from rbkit.balance.signals import SIGNALS
from rbkit.errors import InputError

QUICK_ADO = {"start_steps": 3, "ignore_steps": 0, "refit_steps": 7, "every": 1, "grid": "coarse"}
VARIANTS = [
    ("Stratified", {}),
    ("Proportional", {}),
    ("Target", {}),
    ("RnB", {}),
    ("RnB", {"lam": 30.0}),
    ("RnB", {"prior": "target"}),
    ("RnB", {"prior": "previous"}),
    ("RnB", {"floor": 0.2}),
    ("RnB", {"effective_domains": 2.5}),
    ("RnB", {"diagonal": "debiased"}),
    ("RnB", {"form": "plain", "eta": 0.1}),
    ("RnB", {"smoothing": 0.5}),
    ("SkillIt", {}),
    ("SkillIt", {"eta": 5.0, "window": 1, "normalise": True}),
    ("SkillIt", {"decay": True, "halve_edges": True}),
    ("Aioli", {}),
    ("Aioli", {"ema": 0.1, "lp_rounds": 2, "one_hot": 1.0}),
    ("Aioli", {"normalise": False, "eta": 3.0, "lead_steps": 1}),
    ("DGA", {}),
    ("DGA", {"ema": 0.3}),
    ("DoGE", {}),
    ("DoGE", {"target": "eval", "smoothing": 0.1}),
    ("DoGE", {"diagonal": "dropped"}),
    ("DoReMi", {}),
    ("DoReMi", {"acts": "sampling", "normalise_loss": False}),
    ("GroupDRO", {}),
    ("GroupDRO", {"eta": 1.0, "adjustment": 2.0}),
    ("ODM", {}),
    ("ODM", {"version": "code"}),
    ("ODM", {"version": "fms", "warmup_steps": 3}),
    ("ADO", {}),
    ("ADO", QUICK_ADO),
    ("ADO", {**QUICK_ADO, "same_step_size": False, "credit": "variance", "prior": "uniform"}),
    ("MGDA", {}),
    ("UPGrad", {}),
    ("UPGrad", {"preference": "target"}),
]
DRAW_AN_ORDER = {"Aioli"}
each_mixer = pytest.mark.parametrize(("name", "options"), VARIANTS, ids=str)


@each_mixer
def test_a_mixer_passes_the_public_checks(name, options):
    check_mixer(
        lambda: mixer_by_name(name, options),
        runs=2 if options.get("grid") else 12,
        equivariant=name not in DRAW_AN_ORDER,
    )


@pytest.mark.parametrize(
    ("name", "options"), [v for v in VARIANTS if v[1].get("grid") is None], ids=str
)
@given(seed=st.integers(0, 2**32), m=st.integers(1, 9), rounds=st.integers(1, 7))
@settings(max_examples=8)
def test_a_mixer_behaves_in_any_made_up_run(name, options, seed, m, rounds):
    run = made_up_run(seed, n_domains=m, rounds=rounds)
    equivariant = name not in DRAW_AN_ORDER
    check_in_run(lambda: mixer_by_name(name, options), run, equivariant=equivariant)


@each_mixer
def test_options_make_the_same_mixer_again(name, options):
    mixer = mixer_by_name(name, options)
    assert mixer.options() == {**mixer.options(), **options}
    assert mixer_by_name(name, mixer.options()).options() == mixer.options()
    assert json.loads(json.dumps(mixer.options())) == mixer.options()


@pytest.mark.parametrize("name", sorted(MIXERS))
def test_every_mixer_says_where_it_is_from_and_what_it_costs(name):
    assert MIXERS[name].paper
    assert MIXERS[name].cost
    assert set(MIXERS[name].signals) <= set(SIGNALS)


def test_every_published_rule_is_in_the_registry():
    assert set(MIXERS) == {
        "Stratified",
        "Proportional",
        "Target",
        "Fixed",
        "UniMax",
        "RnB",
        "RepeatAware",
        "SkillIt",
        "Aioli",
        "DGA",
        "DoGE",
        "DoReMi",
        "ADO",
        "ODM",
        "GroupDRO",
        "MGDA",
        "UPGrad",
    }


def test_a_mixture_given_by_hand_is_renormalised_over_the_domains_with_data():
    fixed, sizes = mixer_by_name("Fixed", {"p": [1, 1, 2]}), np.array([5, 0, 9])
    p = fixed.start(np.full(3, 1 / 3), sizes)
    np.testing.assert_allclose(p, [1 / 3, 0, 2 / 3])
    seen = Observation(0, p, np.full(3, 1 / 3), sizes)
    np.testing.assert_array_equal(fixed.update(seen), p)
    with pytest.raises(InputError, match="2 domains"):
        fixed.start(np.full(2, 0.5), np.array([1, 1]))
    with pytest.raises(InputError, match="without training data"):
        mixer_by_name("Fixed", {"p": [0, 1]}).start(np.full(2, 0.5), np.array([1, 0]))


def named(rule, names):
    rule.domain_names = names
    return rule


BY_NAME = {"math": 1, "code": 2, "wiki": 5}


@pytest.mark.parametrize("given", [BY_NAME, pd.Series(BY_NAME)], ids=["mapping", "series"])
def test_a_mixture_may_be_given_by_the_names_of_the_domains_in_any_order(given):
    rule, sizes = mixer_by_name("Fixed", {"p": given}), np.array([9, 9, 9])
    p = named(rule, ["wiki", "code", "math"]).start(np.full(3, 1 / 3), sizes)
    np.testing.assert_allclose(p, [5 / 8, 2 / 8, 1 / 8])
    p = named(rule, ["code", "math", "wiki"]).start(np.full(3, 1 / 3), np.array([9, 9, 0]))
    np.testing.assert_allclose(p, [2 / 3, 1 / 3, 0])  # another run, and nothing to draw from wiki
    assert rule.options() == {"p": BY_NAME}
    assert json.loads(json.dumps(rule.options())) == rule.options()
    again = mixer_by_name("Fixed", rule.options())
    assert named(again, list(BY_NAME)).start(np.full(3, 1 / 3), sizes).tolist() == [
        1 / 8,
        0.25,
        5 / 8,
    ]


def test_a_series_of_numbered_shares_is_a_vector():
    assert mixer_by_name("Fixed", {"p": pd.Series([1.0, 3.0])}).options() == {"p": [1.0, 3.0]}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"wiki": 1}, r"Fixed\(p=...\): nothing for 'code'; .* the domains are 'wiki', 'code'"),
        (
            {"Wiki": 1, "code": 1},
            r"called 'Wiki' \(did you mean 'wiki'\?\); the domains are",
        ),
        (
            {"wiki": 1, "code": 1, "x": 1, 0: 2},
            r"called 'x', nor 0; the domains are 'wiki',",
        ),
    ],
)
def test_a_name_that_no_domain_has_or_that_is_missing_is_refused(given, message):
    rule = named(mixer_by_name("Fixed", {"p": given}), ["wiki", "code"])
    with pytest.raises(InputError, match=message):
        rule.start(np.full(2, 0.5), np.array([9, 9]))


def test_where_the_names_are_not_known_the_remedy_is():
    with pytest.raises(InputError, match=r"set mixer.domain_names = domains.names before start"):
        mixer_by_name("Fixed", {"p": BY_NAME}).start(np.full(3, 1 / 3), np.array([9, 9, 9]))


def test_the_targets_of_skill_it_may_be_named():
    run, paths = made_up_run(3, n_domains=3), []
    for targets in ([2, 0], ["c", "a"]):
        rule = named(mixer_by_name("SkillIt", {"targets": targets}), list("abc"))
        assert rule.options()["targets"] == targets
        paths.append(run_through(rule, run))
    np.testing.assert_array_equal(*paths)
    with pytest.raises(InputError, match=r"no domain is called 'd'; the domains are 'a', 'b', 'c'"):
        named(mixer_by_name("SkillIt", {"targets": ["d"]}), list("abc")).start(run.q, run.sizes)


def test_the_cap_and_the_smoothing_reach_the_trainer():
    rule = RnB(max_epochs=4, smoothing=0.5)
    assert rule.max_epochs == 4
    assert rule.gram_decay == 0.5
    assert RnB().max_epochs is None
    assert RnB().gram_decay == 0


@pytest.mark.parametrize("name", ["MGDA", "UPGrad"])
def test_a_missing_package_is_named_with_the_command_that_installs_it(name, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchjd.aggregation", None)
    with pytest.raises(InputError, match=r"pip install rbkit\[torchjd\]"):
        mixer_by_name(name)


# ------------------------------------------------------------------ a rule of one's own


def own_mixer():
    path = Path(__file__).parents[2] / "examples" / "own_mixer.py"
    spec = importlib.util.spec_from_file_location("own_mixer", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Stalled, path


def test_a_rule_of_ones_own_in_one_short_file_passes_the_same_checks():
    rule, path = own_mixer()
    check_mixer(rule)
    check_mixer(lambda: rule(rate=4.0), seed=100)
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 45


def test_the_rule_of_ones_own_weighs_up_what_has_stalled():
    rule, q, sizes = own_mixer()[0](rate=2.0), np.full(2, 0.5), np.array([9, 9])
    p = rule.start(q, sizes)
    for t, losses in enumerate([[3.0, 3.0], [2.0, 3.0]]):
        p = rule.update(Observation(t, p, q, sizes, eval_losses=np.array(losses)))
    np.testing.assert_allclose(p, [1 / 3, 2 / 3])


class Growing(Mixer):
    """Weighs domains by their eval losses, summed over rounds; each flaw below breaks it."""

    signals = frozenset({"eval_losses"})

    def start(self, q, sizes):
        self.total = np.zeros(len(q))
        return super().start(q, sizes)

    def update(self, seen):
        self.total = self.total + np.nan_to_num(seen.eval_losses)
        return self.weigh(self.total, seen)

    def weigh(self, total, seen):
        return normalise(1 + total, seen.available)

    def state_dict(self):
        return {"total": self.total}

    def load_state_dict(self, state):
        self.total = state["total"]


class Forgetful(Growing):
    def state_dict(self):
        return {"total": 0 * self.total}


class Unforgetting(Growing):
    def start(self, q, sizes):
        first = Mixer.start(self, q, sizes)
        self.total = getattr(self, "total", np.zeros(len(q)))
        return first


class Everywhere(Growing):
    def weigh(self, total, seen):
        return normalise(1 + total, np.ones(len(total), bool))


class Counting(Growing):
    def weigh(self, total, seen):
        return normalise(np.where(seen.available, 1 + total / len(total), 0), seen.available)


class FirstFirst(Growing):
    def weigh(self, total, seen):
        return normalise(1 + total + np.where(np.cumsum(seen.available) == 1, 1, 0), seen.available)


class Helpless(Growing):
    def update(self, seen):
        return normalise(seen.eval_losses, seen.available)


class Meddling(Growing):
    def update(self, seen):
        seen.eval_losses[:] = np.nan_to_num(seen.eval_losses)
        return super().update(seen)


class Unsaved(Growing):
    def state_dict(self):
        return {"total": self.total, "kind": {1, 2}}


class Undeclared(Growing):
    signals = frozenset({"weather"})


class Unrecorded(Growing):
    def options(self):
        return {"scale": np.float32(1)}


class Lottery(Growing):
    def weigh(self, total, seen):
        return normalise(np.random.default_rng().random(len(total)), seen.available)


class Endless(Growing):
    def round_length(self, round_steps):
        return 0


def test_the_checks_pass_a_sound_rule():
    check_mixer(Growing)


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (Forgetful, "decides otherwise after it was restored"),
        (Unforgetting, "second run"),
        (Everywhere, "without training data must be 0"),
        (FirstFirst, "the order of domains"),
        (Counting, "domains without training data change"),
        (Helpless, "raises ValueError: no usable weight"),
        (Meddling, "changed its observation"),
        (Unsaved, "values that are not JSON"),
        (Undeclared, "unknown signals"),
        (Unrecorded, "options"),
        (Lottery, "decides otherwise"),
        (Endless, r"round_length\(10000\) is 0"),
    ],
)
def test_the_checks_name_what_is_wrong_with_an_unsound_rule(rule, message):
    with pytest.raises(AssertionError, match=message):
        check_mixer(rule)


def test_rules_that_draw_an_order_may_depend_on_that_of_the_domains():
    check_mixer(FirstFirst, equivariant=False)


# ------------------------------------------------------------------ options


@pytest.mark.parametrize(
    ("name", "options", "word"),
    [
        ("RnB", {"lam": -1}, "lam"),
        ("RnB", {"lam": float("nan")}, "lam"),
        ("RnB", {"lam": "3"}, "lam"),
        ("RnB", {"lam": True}, "lam"),
        ("RnB", {"prior": "p"}, "prior"),
        ("RnB", {"floor": 1.5}, "floor"),
        ("RnB", {"effective_domains": 0.5}, "effective_domains"),
        ("RnB", {"diagonal": "none"}, "diagonal"),
        ("RnB", {"lambda": 3}, "lambda"),
        ("RnB", {"form": "printed"}, "form"),
        ("RnB", {"smoothing": 1.0}, "smoothing"),
        ("RnB", {"max_epochs": 0}, "max_epochs"),
        ("RnB", {"eta": -1}, "eta"),
        ("SkillIt", {"window": 0}, "window"),
        ("SkillIt", {"window": 2.5}, "window"),
        ("SkillIt", {"decay": 1}, "decay"),
        ("SkillIt", {"targets": "ab"}, "targets"),
        ("SkillIt", {"graph_steps": 0}, "graph_steps"),
        ("Aioli", {"one_hot": 0}, "one_hot"),
        ("Aioli", {"ema": 1}, "ema"),
        ("Aioli", {"lp_rounds": 0}, "lp_rounds"),
        ("DGA", {"eta": None}, "eta"),
        ("DoGE", {"mu": 0}, "mu"),
        ("DoGE", {"target": "q"}, "target"),
        ("DoReMi", {"acts": "both"}, "acts"),
        ("DoReMi", {"reference_steps": 0}, "reference_steps"),
        ("DoReMi", {"smoothing": 2}, "smoothing"),
        ("ADO", {"grid": "fine"}, "grid"),
        ("ADO", {"refit_steps": 0}, "refit_steps"),
        ("ODM", {"version": "exp3"}, "version"),
        ("ODM", {"gamma": 1.1}, "gamma"),
        ("GroupDRO", {"eta": -0.1}, "eta"),
        ("MGDA", {"epsilon": 0}, "epsilon"),
        ("UPGrad", {"preference": "p"}, "preference"),
        ("Fixed", {"p": [0, 0]}, "p="),
        ("Fixed", {"p": [-1, 2]}, "p="),
        ("Fixed", {"p": []}, "p="),
        ("Fixed", {"p": {}}, "p="),
        ("Fixed", {"p": {"a": -1, "b": 2}}, "p="),
        ("Fixed", {"p": {"a": "many"}}, "p="),
        ("Fixed", {"p": 0.5}, "p="),
        ("Fixed", {"p": "ab"}, "p="),
        ("Fixed", {"p": {1, 2}}, "p="),  # which has no order
        ("SkillIt", {"targets": 1}, "targets"),
        ("SkillIt", {"targets": [0, "a"]}, "targets"),
    ],
    ids=str,
)
def test_a_wrong_option_is_named(name, options, word):
    with pytest.raises(InputError, match=word) as error:
        mixer_by_name(name, options)
    assert name in str(error.value)


def test_a_state_of_another_rule_is_refused():
    with pytest.raises(ValueError, match="DGA has no state"):
        mixer_by_name("DGA").load_state_dict({"gram": np.eye(2)})


@pytest.mark.parametrize(
    "name",
    [
        "RnB",
        "SkillIt",
        "Aioli",
        "DGA",
        "DoGE",
        "DoReMi",
        "ADO",
        "ODM",
        "GroupDRO",
        "MGDA",
        "UPGrad",
    ],
)
def test_an_observation_without_the_signal_is_refused(name):
    mixer, q, sizes = mixer_by_name(name), np.full(2, 0.5), np.array([9, 9])
    seen = Observation(0, mixer.start(q, sizes), q, sizes)
    with pytest.raises(ValueError, match="signal"):
        mixer.update(seen)


# ------------------------------------------------------------------ R&B


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


@given(seen=observations(), then=st.integers(0, 99))
@settings(max_examples=25)
def test_a_restored_rule_keeps_the_products_of_domains_unseen_since(seen, then):
    first, second = RnB(), RnB()
    first.update(seen)
    second.load_state_dict(saved_and_read(first.state_dict()))
    rng, m = np.random.default_rng(then), len(seen.q)
    gram = np.where(rng.random((m, m)) < 0.4, np.nan, rng.normal(size=(m, m)))
    nan = np.full(m, np.nan)
    later = Observation(
        4, seen.p, seen.q, seen.sizes, gram=GramEstimate(gram, seen.gram.counts, nan, nan)
    )
    np.testing.assert_array_equal(first.update(later), second.update(later))


@given(observations(full=True), st.floats(1e-6, 1e6))
@settings(max_examples=40)
def test_rnb_does_not_depend_on_the_scale_of_the_gradients(seen, scale):
    g = seen.gram
    scaled = GramEstimate(g.gram * scale, g.counts, g.diagonal_debiased, g.noise_floor)
    other = Observation(3, seen.p, seen.q, seen.sizes, gram=scaled)
    np.testing.assert_allclose(RnB().update(other), RnB().update(seen), rtol=1e-6)


@given(observations(full=True))
@settings(max_examples=60)
def test_rnb_is_never_below_uniform_to_first_order(seen):
    gain = seen.q @ seen.gram.gram
    p, uniform = RnB().update(seen), np.full(len(seen.q), 1 / len(seen.q))
    assert gain @ p >= gain @ uniform - 1e-9 * np.abs(gain).max()


@given(observations(full=True))
@settings(max_examples=30)
def test_lambda_0_gives_the_prior_and_a_large_one_the_best_domain(seen):
    np.testing.assert_allclose(RnB(lam=0).update(seen), 1 / len(seen.q))
    np.testing.assert_allclose(RnB(lam=0, prior="target").update(seen), seen.q)
    v = seen.gram.gram @ seen.q
    top = np.sort(v)
    assume(len(v) == 1 or top[-1] - top[-2] > 1e-3 * np.linalg.norm(v))
    assert RnB(lam=1e5).update(seen).argmax() == v.argmax()


@given(observations(full=True), st.floats(1, 6))
@settings(max_examples=60)
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
@settings(max_examples=30)
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
    seen = Observation(
        0, np.full(3, 1 / 3), q, sizes, gram=GramEstimate(gram, np.array([1, 1, 0]), nan, nan)
    )
    v = np.array([2.5, 1.5, 2.0])
    z = np.exp(3 * v / np.linalg.norm(v))
    np.testing.assert_allclose(RnB().update(seen), z / z.sum())


def test_gq_of_zero_keeps_the_proportions():
    nan, p = np.full(2, np.nan), np.array([0.9, 0.1])
    gram = GramEstimate(np.zeros((2, 2)), np.array([3, 3]), nan, nan)
    seen = Observation(0, p, np.array([0.5, 0.5]), np.array([9, 9]), gram=gram)
    np.testing.assert_array_equal(RnB().update(seen), p)


@given(arrays(float, 4, elements=st.floats(-700, 700)), st.floats(0, 100))
@settings(max_examples=50)
def test_tilting_never_overflows(score, lam):
    p = tilt(np.full(4, 0.25), score, lam)
    assert np.isfinite(p).all()
    assert p.sum() == pytest.approx(1)


@pytest.mark.parametrize("name", ["rnb", "RNB", "RnB"])
def test_a_mixer_is_known_in_any_case_wherever_it_is_named(name):
    assert mixer_by_name(name, {"lam": 2.0}).options() == RnB(lam=2.0).options()
