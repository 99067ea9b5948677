"""How soon a variant came as low as its baseline ended."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rbkit.report.compare import compare, reach_baseline, reach_of
from rbkit.report.compare.paired import first_crossing, needed

CURVE = st.lists(st.floats(2.0, 9.0), min_size=2, max_size=6)


def run(mixer, values, seed=0, seconds=100.0, entries=(), every=10, final=None):
    rows = [{"step": every * i, "loss_token": v} for i, v in enumerate(values)]
    ledger = [{"name": "step", "seconds": seconds, "flops_counted": 1000.0}, *entries]
    steps = every * (len(values) - 1)
    return SimpleNamespace(
        path=Path(f"/runs/{mixer}-{seed}"),
        status="ok",
        history={},
        domains=None,
        metrics=lambda kind: rows if kind == "eval" else [],
        info={
            "parameters": {"mixer": mixer, "seed": seed, "steps": steps},
            "final": {"loss_token": values[-1] if final is None else final},
            "ledger": {"entries": ledger},
        },
    )


def found(*runs):
    return reach_baseline(compare(runs))["RnB"]


@given(CURVE.filter(lambda values: values[0] > values[-1]))
def test_the_baseline_reaches_itself_at_ratio_1(values):
    variant = compare([run("Stratified", values)]).variants[0]
    itself = reach_of(variant, variant)
    assert itself.reached == itself.pairs == 1
    assert (itself.steps.mean, itself.flops.mean, itself.seconds.mean) == (1.0, 1.0, 1.0)


def test_a_crossing_is_interpolated_between_evaluations():
    one = found(run("Stratified", [9.0, 7.0, 6.0]), run("RnB", [9.0, 5.0, 4.0]))
    assert one.steps.mean == pytest.approx(7.5 / 20)
    assert one.seconds.mean == pytest.approx(7.5 / 20)
    assert (one.pairs, one.reached, one.steps.low) == (1, 1, None)


def test_the_first_crossing_counts_also_if_the_loss_rose_again():
    steps, values = np.array([0.0, 10.0, 20.0, 30.0]), np.array([9.0, 5.0, 8.0, 5.0])
    assert first_crossing(steps, values, 5.0) == 10.0
    assert first_crossing(steps, values, 6.0) == 7.5
    assert first_crossing(steps, values, 9.5) == 0.0
    assert first_crossing(steps, values, 4.9) is None


@given(CURVE, st.floats(2.0, 9.0), st.floats(2.0, 9.0))
def test_a_lower_goal_is_never_reached_sooner(values, one, other):
    high, low = max(one, other), min(one, other)
    steps = np.arange(len(values), dtype=float)
    sooner, later = (first_crossing(steps, np.array(values), goal) for goal in (high, low))
    assert later is None or sooner <= later + 1e-12


def test_those_that_never_reach_it_are_counted_and_take_the_interval_away():
    base = [run("Stratified", [9.0, 6.0], seed) for seed in range(3)]
    good = [run("RnB", [9.0, 3.0], seed) for seed in range(2)]
    some = found(*base, *good, run("RnB", [9.0, 8.0], 2))
    assert (some.reached, some.pairs) == (2, 3)
    assert some.steps.mean == pytest.approx(0.5)
    assert some.steps.low is None
    assert some.sentence() == (
        "RnB reached the final loss of Stratified in 2 of 3 pairs, with 0.50 of its steps."
    )
    never = found(base[0], run("RnB", [9.0, 8.0]))
    assert (never.reached, never.steps, never.flops) == (0, None, None)
    assert never.sentence() == "RnB did not reach the final loss of Stratified (in 0 of 1 pair)."


def test_several_pairs_have_a_geometric_mean_and_an_interval():
    base = [run("Stratified", [9.0, 5.0], seed) for seed in range(3)]
    ours = [run("RnB", [9.0, 9 - 4 / share], seed) for seed, share in enumerate((0.25, 0.5, 1.0))]
    steps = found(*base, *ours).steps
    assert steps.mean == pytest.approx(0.5)
    assert 0 < steps.low < 0.5 < steps.high
    assert steps.low * steps.high == pytest.approx(0.25)


def test_what_was_paid_before_the_first_step_is_paid_in_full():
    base = run("Stratified", [9.0, 6.0])
    ours = run("RnB", [9.0, 3.0], entries=[{"name": "reference_run", "seconds": 30.0}])
    assert found(base, ours).seconds.mean == pytest.approx((30 + 50) / 100)


def test_a_final_loss_that_no_evaluation_shows_is_the_end_of_the_curve():
    last = run("RnB", [9.0, 5.0, 4.0], final=4.0)
    rows = last.metrics("eval")[:-1]
    last.metrics = lambda kind: rows
    assert needed(last, 4.5)["steps"] == 15.0


def test_nothing_learnt_nothing_measured_and_no_curve_are_no_ratios():
    flat = run("Stratified", [5.0, 6.0], final=6.0)
    assert found(flat, run("RnB", [9.0, 5.0])) is None
    free = [run(mixer, [9.0, 5.0], seconds=None) for mixer in ("RnB", "Stratified")]
    assert found(*free).seconds is None
    assert found(*free).steps.mean == 1.0
    assert found(run("Stratified", [9.0, 5.0], seed=1), run("RnB", [9.0, 5.0])) is None
