"""Differences are paired by seed, carry an interval, and say no more than they can."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ttest_rel

from rbkit.report.compare import (
    compare,
    difference_of,
    differences,
    multiplicity,
    reach_baseline,
)
from rbkit.report.compare.paired import holm, student

LOSS = st.floats(1.0, 9.0)


def run(mixer, seed, loss, by_domain=(), names=(), corpus=None):
    final = {"loss_token": loss, "loss_example": loss + 1, "by_domain_token": list(by_domain)}
    return SimpleNamespace(
        path=Path(f"/runs/{mixer}-{seed}"),
        status="ok",
        history={},
        domains=None,
        metrics=lambda kind: [],
        info={
            "parameters": {"mixer": mixer, "seed": seed},
            "final": final,
            "corpus": {"fingerprint": corpus},
            "domains": {"names": list(names)},
        },
    )


def two(ours, theirs):
    return [
        run(mixer, seed, loss)
        for mixer, values in (("RnB", ours), ("Stratified", theirs))
        for seed, loss in enumerate(values)
    ]


def gap_of(ours, theirs):
    return differences(compare(two(ours, theirs)))["RnB"]


@given(st.lists(st.tuples(LOSS, LOSS), min_size=2, max_size=6), st.randoms())
def test_pairing_does_not_depend_on_the_order_of_the_runs(pairs, random):
    runs = two(*zip(*pairs, strict=True))
    before = differences(compare(runs))
    random.shuffle(runs)
    assert differences(compare(runs)) == before


@given(st.lists(st.tuples(LOSS, LOSS), min_size=1, max_size=6))
def test_a_difference_the_other_way_round_has_the_other_sign(pairs):
    theirs, ours = compare(two(*zip(*pairs, strict=True))).variants
    there, back = difference_of(ours, theirs), difference_of(theirs, ours)
    assert there.values == tuple(-value for value in back.values)
    assert there.mean == -back.mean
    assert there.half_width == back.half_width
    assert there.p_value == back.p_value


@given(st.lists(st.tuples(LOSS, LOSS), min_size=2, max_size=6), st.floats(-3, 3))
def test_what_a_seed_adds_to_both_does_not_matter(pairs, shift):
    ours, theirs = map(np.array, zip(*pairs, strict=True))
    seeds = shift * np.arange(len(ours))
    assert gap_of(ours + seeds, theirs + seeds).mean == pytest.approx(gap_of(ours, theirs).mean)


def test_the_interval_and_p_value_are_those_of_the_paired_t_test():
    ours, theirs = [4.0, 4.2, 3.9, 4.4], [4.1, 4.25, 4.2, 4.45]
    gap, known = gap_of(ours, theirs), ttest_rel(ours, theirs)
    interval = known.confidence_interval(0.95)
    assert (gap.low, gap.high) == pytest.approx((interval.low, interval.high))
    assert gap.p_value == pytest.approx(known.pvalue)


@pytest.mark.parametrize("n", [2, 3, 5, 10])
def test_the_interval_covers_the_truth_in_95_of_100_cases(n):
    rng = np.random.default_rng(n)
    draws = rng.normal(0.3, 1.0, (20_000, n))
    # The half width is a multiple of the standard deviation: take the multiple from one case.
    factor = student(draws[0])[0] / draws[0].std(ddof=1)
    covered = np.abs(draws.mean(axis=1) - 0.3) <= factor * draws.std(axis=1, ddof=1)
    assert covered.mean() == pytest.approx(0.95, abs=0.005)


def test_it_is_said_in_words():
    assert gap_of([4.45, 4.46, 4.44], [4.5, 4.5, 4.5]).sentence() == (
        "RnB ended 0.050 below Stratified (95 % interval −0.075 to −0.025, 3 paired seeds)."
    )
    assert gap_of([4.6, 4.3], [4.5, 4.5]).than().endswith(": not told apart")
    assert gap_of([4.6], [4.5]).sentence() == (
        "RnB ended 0.100 above Stratified, with one seed and so no interval."
    )
    assert gap_of([4.5, 4.5], [4.5, 4.5]).than().startswith("equal to Stratified (all 2 pairs")
    assert "0.000040 below" in gap_of([4.49996], [4.5]).than()


def test_one_seed_has_no_interval_and_no_verdict():
    gap = gap_of([4.6], [4.5])
    assert (gap.half_width, gap.p_value, gap.adjusted, gap.told_apart) == (None,) * 4


@pytest.mark.parametrize("theirs", [4.5, 4.0])
def test_pairs_that_are_all_the_same_have_no_interval_and_no_p_value(theirs):
    gap = gap_of([4.0, 4.0], [theirs, theirs])
    assert (gap.half_width, gap.p_value, gap.told_apart) == (None,) * 3
    assert "all 2 pairs are the same: the seed changed nothing" in gap.sentence()
    assert "one seed" not in gap.sentence()


def test_seconds_of_other_machines_are_said_not_to_compare():
    runs = two([4.0, 4.1], [4.5, 4.5])
    for each in runs:
        each.info |= {"host": "a", "device": "cuda" if "RnB" in each.path.name else "cpu"}
    assert "another machine" in " ".join(map(str, compare(runs).cautions()))
    runs[0].info["device"] = runs[1].info["device"] = "cpu"
    assert "machine" not in " ".join(map(str, compare(runs).cautions()))


def test_seeds_that_only_one_has_are_left_out():
    runs = two([4.0, 4.1, 4.2], [4.5, 4.5, 4.5])
    assert differences(compare(runs[1:]))["RnB"].seeds == (1, 2)
    assert differences(compare([runs[0], runs[-1]]))["RnB"] is None


def test_losses_on_other_corpora_are_never_subtracted():
    runs = [
        run("RnB", 0, 4.0, corpus="a"),
        run("Stratified", 0, 4.5, corpus="b"),
        run("RnB", 1, 4.0, corpus="c"),
        run("Stratified", 1, 4.6, corpus="c"),
    ]
    found = compare(runs)
    assert differences(found)["RnB"].seeds == (1,)
    assert "different corpora" in " ".join(map(str, found.cautions()))


def test_the_worst_domain_is_compared_only_where_domains_are_the_same():
    same = [run("RnB", 0, 4.0, (3.0, 5.0), "ab"), run("Stratified", 0, 4.5, (6.0, 4.0), "ab")]
    assert differences(compare(same), "worst")["RnB"].mean == -1.0
    assert differences(compare(same), "example")["RnB"].mean == -0.5
    other = [same[0], run("Stratified", 0, 4.5, (6.0, 4.0), "xy")]
    assert differences(compare(other), "worst")["RnB"] is None
    assert differences(compare(other))["RnB"].mean == -0.5
    assert "different domains" in " ".join(map(str, compare(other).cautions()))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_adjusted_p_values_are_never_smaller_nor_in_another_order(p):
    adjusted = np.array(holm(p))
    assert (adjusted >= np.array(p)).all()
    assert (adjusted <= 1).all()
    assert (np.diff(adjusted[np.argsort(p, kind="stable")]) >= 0).all()


def test_how_many_comparisons_were_made_is_said():
    rng = np.random.default_rng(0)
    runs = [
        run(mixer, seed, 4 + 0.01 * rng.normal() - (mixer == "RnB"))
        for mixer in ("Stratified", "RnB", "ADO", "DoGE")
        for seed in range(4)
    ]
    found = differences(compare(runs))
    assert list(found) == ["ADO", "DoGE", "RnB"]
    assert found["RnB"].p_value < found["RnB"].adjusted < 0.05
    said = multiplicity(found)
    assert said.startswith("3 comparisons, each with a 95 % interval of its own and not jointly")
    assert "about 0.2 of them" in said
    assert multiplicity({"RnB": found["RnB"]}) == ""
    assert "names 2 more, in none" in multiplicity({"RnB": found["RnB"]}, 2)


def test_differences_of_a_metric_are_those_of_its_final_values(write_run, tmp_path):
    scores = {"Stratified": (0.5, 0.55, 0.6), "RnB": (0.6, 0.67, 0.71)}
    runs = [
        write_run(tmp_path / f"{m}{s}", m, s, rounds=4, metrics={"exact_match": value})
        for m, values in scores.items()
        for s, value in enumerate(values)
    ]
    by_loss, by_metric = compare(runs), compare(runs, metric="exact_match")
    gap = differences(by_metric)["RnB"]
    assert gap.values == pytest.approx((0.1, 0.12, 0.11))
    assert gap.is_better
    assert gap.sentence().startswith("In exact_match, RnB ended 0.110 above Stratified (95 %")
    assert differences(by_loss, "exact_match")["RnB"].values == gap.values
    assert differences(by_loss)["RnB"].values == differences(by_metric, "token")["RnB"].values
    # A rule that ends higher is there sooner.
    reach = reach_baseline(by_metric)["RnB"]
    assert reach.reached == 3
    assert reach.steps.mean < 1
    assert "reached the final exact_match of Stratified in 3 of 3 pairs" in reach.sentence()
    runs[0].info["final"]["metrics"]["exact_match"]["rows"] = 7  # of other examples
    assert len(differences(by_metric)["RnB"].values) == 2
