"""Replaying a run folder: its own rule gives its own proportions, others say what they lack."""

from __future__ import annotations

import json

import numpy as np
import pytest
from job import make

from rbkit.balance.mixers.aioli import Aioli
from rbkit.balance.mixers.base import Mixer, normalise
from rbkit.balance.mixers.fixed import Stratified, Target
from rbkit.balance.mixers.registry import MIXERS
from rbkit.balance.mixers.rnb import RnB
from rbkit.errors import InputError
from rbkit.train.record import Run
from rbkit.train.replayed import replay


class LossSeeking(Mixer):
    signals = frozenset({"eval_losses"})

    def update(self, seen):
        return normalise(np.exp(seen.eval_losses), seen.available)


RULES = [RnB(), RnB(lam=8, prior="previous", floor=0.1), RnB(diagonal="debiased"),
         RnB(smoothing=0.5), LossSeeking(), Aioli(lp_steps=1, lead_steps=2), Stratified(),
         Target()]  # fmt: skip


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


@pytest.mark.parametrize("rule", ["DGA", "DoGE", "DoReMi", "ADO", "ODM", "GroupDRO", "SkillIt"])
def test_rules_of_other_signals_say_which_they_lack(run, rule):
    (lacking,) = MIXERS[rule].signals - {"eval_losses"}
    with pytest.raises(InputError, match=rf"replay of {rule}: it needs '{lacking}' \("):
        replay(run, rule)


def test_options_go_with_a_name(run):
    with pytest.raises(InputError, match="options: given for a mixer that is made already"):
        replay(run, RnB(), {"lam": 2.0})
