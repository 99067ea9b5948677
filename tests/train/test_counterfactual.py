"""Replaying a run folder: its own rule gives its own proportions, others say what they lack."""

from __future__ import annotations

import json

import numpy as np
import pytest
from job import make

from rbkit.balance.mixers.aioli import Aioli
from rbkit.balance.mixers.base import Mixer, normalise
from rbkit.balance.mixers.fixed import Fixed, Stratified, Target, UniMax
from rbkit.balance.mixers.registry import MIXERS
from rbkit.balance.mixers.repeat_aware import RepeatAware
from rbkit.balance.mixers.rnb import RnB
from rbkit.balance.signals import GramEstimate
from rbkit.errors import InputError
from rbkit.train import Recorder, Run
from rbkit.train.counterfactual import Replay, replay, why_not


class LossSeeking(Mixer):
    signals = frozenset({"eval_losses"})

    def update(self, seen):
        return normalise(np.exp(seen.eval_losses), seen.available)


RULES = [
    RnB(),
    RnB(lam=8, prior="previous", floor=0.1),
    RnB(diagonal="debiased"),
    RnB(smoothing=0.5),
    LossSeeking(),
    Aioli(lp_steps=1, lead_steps=2),
    Stratified(),
    Target(),
]


def trained(folder, rule):
    make(folder, steps=24, round_steps=8, accumulate=1, mixer=rule).train()
    return Run.open(folder)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("run"), RnB())


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_replaying_a_runs_own_rule_gives_its_proportions_exactly(rule, tmp_path):
    found = replay(trained(tmp_path, rule), rule)
    np.testing.assert_array_equal(found.p, found.recorded)
    assert (found.distance == 0).all()


def test_other_rules_read_the_same_evidence_differently(run):
    sharp, mild = replay(run, RnB(lam=9)), replay(run, "RnB", {"lam": 1.0})
    assert sharp.p.shape == mild.p.shape == run.history["p"].shape
    assert (sharp.effective_domains[1:] < mild.effective_domains[1:]).all()
    assert (sharp.distance[1:] > 0).all()
    assert sharp.distance.max() <= 1
    assert "RnB, 3 rounds, 4 domains" in repr(sharp)


def test_rules_of_eval_losses_are_replayed_where_every_round_was_evaluated(run):
    found = replay(run, LossSeeking())
    for row in run.metrics("eval"):
        after = int(row["step"]) // 8
        if after:
            expected = np.exp(row["by_domain_token"])
            np.testing.assert_allclose(found.p[after], expected / expected.sum())


def test_a_round_without_evaluation_is_told_of(tmp_path):
    make(tmp_path, steps=8, round_steps=4, accumulate=1, eval_rounds=2).train()
    with pytest.raises(InputError, match=r"needs 'eval_losses'.* and the run recorded gram"):
        replay(Run.open(tmp_path), LossSeeking())


def test_a_run_that_tracked_nothing_can_replay_fixed_rules_only(tmp_path):
    run = trained(tmp_path, "Stratified")
    assert replay(run, "Target").distance.max() > 0.1
    with pytest.raises(InputError, match=r"needs 'gram' .* the run recorded no signal at all"):
        replay(run, "RnB")


def test_a_run_without_a_finished_round_is_told_of(run, tmp_path):
    info = {k: v for k, v in run.info.items() if k != "final"}
    (tmp_path / "run.json").write_text(json.dumps(info))
    with pytest.raises(InputError, match="no finished round recorded"):
        replay(Run.open(tmp_path), "Target")


def test_other_sums_of_gradients_cannot_be_replayed(run, tmp_path):
    with pytest.raises(InputError, match=r"needs the sums of gradients.* with gram_decay=0\.0"):
        replay(run, RnB(smoothing=0.5))
    smooth = trained(tmp_path, RnB(smoothing=0.5))
    with pytest.raises(InputError, match=r"replay it with gram_decay=0\.5"):
        replay(smooth, RnB())


@pytest.mark.parametrize("rule", ["UPGrad", "MGDA"])
def test_rules_of_the_gram_matrix_can_be_replayed_on_any_run_that_has_it(run, rule):
    pytest.importorskip("torchjd")
    found = replay(run, rule)
    assert np.isfinite(found.p).all()
    np.testing.assert_allclose(found.p.sum(axis=1), 1)


@pytest.mark.parametrize(
    "rule", ["DGA", "DoGE", "DoReMi", "ADO", "ODM", "GroupDRO", "SkillIt", "RepeatAware"]
)
def test_rules_of_other_signals_say_which_they_lack(run, rule):
    (lacking,) = MIXERS[rule].signals - {"eval_losses"}
    with pytest.raises(InputError, match=rf"replay of {rule}: it needs '{lacking}' \("):
        replay(run, rule)


@pytest.mark.parametrize(
    "rule", [UniMax(), Target(max_epochs=2), RepeatAware(repeats=15)], ids=lambda rule: rule.name
)
def test_rules_that_plan_by_what_is_drawn_are_not_replayed(run, rule):
    rule.budget = 100
    with pytest.raises(InputError, match=r"depends on what was drawn|draws is not known"):
        replay(run, rule)


def test_a_mixture_by_name_is_replayed_whatever_is_known_of_the_domains(run, tmp_path):
    found = replay(run, "Fixed", {"p": {"d": 3, "a": 1, "b": 0, "c": 0}})
    np.testing.assert_allclose(found.p, [[0.25, 0, 0, 0.75]] * len(found.p))
    unsized = loop(tmp_path)  # its run records no sizes
    rule = Fixed({"car": 3, "oak": 1})
    np.testing.assert_allclose(replay(unsized, rule).p[-1], [0.25, 0.75])
    assert rule.domain_names is None  # a copy was used
    assert why_not(unsized, Fixed({"car": 1})).startswith("nothing for 'oak'")


def test_options_go_with_a_name(run):
    with pytest.raises(InputError, match="options: given for a mixer that has been made already"):
        replay(run, RnB(), {"lam": 2.0})


# -------------------------------------------------------------------- loops of one's own

P = np.array([0.3, 0.7])


def loop(folder, *, q=(0.4, 0.6), p=P, later=P, grams=(1, 1), steps=(10, 20)):
    """Record a loop that knows its domains by name only, with a matrix in some of its rounds."""
    recorder = Recorder(folder)
    recorder.start(parameters={}, domains={"names": ["oak", "car"], "sizes": None, "q": q})
    recorder.arrays["p"] = [p]
    for t, (step, seen) in enumerate(zip(steps, grams, strict=True)):
        G, ones = np.array([[2.0 + t, 0.5], [0.5, 1.0]]), np.ones(2)
        estimate = GramEstimate(G, np.array([4, 4]), ones, ones) if seen else None
        recorder.round(step=step, p=later, estimate=estimate)
    recorder.finish("ok")
    return Run.open(folder)


def test_domains_known_by_name_only_are_enough_for_rules_that_need_no_sizes(tmp_path):
    run = loop(tmp_path)
    assert replay(run, "Target").p[0].tolist() == [0.4, 0.6]
    assert np.isfinite(replay(run, "RnB").p).all()
    for rule in ("Proportional", "ADO"):
        assert "the sizes of the domains, which are not recorded" in why_not(run, rule)


def test_rounds_without_a_matrix_change_nothing(tmp_path):
    some = loop(tmp_path / "some", grams=(0, 1, 0, 1), steps=(10, 20, 30, 40))
    all_ = loop(tmp_path / "all", grams=(1, 1), steps=(20, 40))
    matrix = all_.history["gram"]
    matrix[:] = some.history["gram"][[1, 3]]
    np.testing.assert_array_equal(replay(some, "RnB").p, replay(all_, "RnB").p[[0, 0, 1, 1, 2]])


@pytest.mark.parametrize(
    ("lacking", "said"),
    [
        ({"q": None}, "its target proportions are not recorded"),
        ({"later": np.full(2, np.nan)}, "its proportions are not all recorded"),
    ],
)
def test_what_a_loop_did_not_tell_is_named(tmp_path, lacking, said):
    assert why_not(loop(tmp_path, **lacking), "Target") == said


def test_a_first_round_that_nobody_told_the_proportions_of_is_left_out(tmp_path):
    found = replay(loop(tmp_path, p=np.full(2, np.nan)), "Target")
    assert np.isnan(found.distance[0])
    assert found.elsewhere == pytest.approx(0.1)


def test_the_share_of_other_examples_is_weighted_with_the_steps_of_the_rounds():
    p = np.array([[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]])
    found = Replay("mine", {}, p, np.tile([1.0, 0.0], (3, 1)), np.array([30, 40]), ["a", "b"])
    assert found.elsewhere == pytest.approx(0.5 * 10 / 40)
