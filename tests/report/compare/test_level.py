"""Means are put beside each other only where they are over the same seeds and texts."""

import pytest

from rbkit.report.compare import compare
from rbkit.report.compare.paired import level
from rbkit.report.compare.words import headline


def made(write_run, folder, losses, corpora=None):
    """Runs of a mixer by its losses by seed; None: the run failed."""
    runs = []
    for mixer, by_seed in losses.items():
        for seed, loss in by_seed.items():
            run = write_run(
                folder / f"{mixer}{seed}",
                mixer,
                seed,
                "ok" if loss else "failed",
                names=["a", "b"],
                rounds=1,
            )
            run.info["final"] = loss and {"loss_token": loss}
            run.info["corpus"]["fingerprint"] = (corpora or {}).get(mixer, "same")
            runs.append(run)
    return runs


def said(runs):
    return " ".join(headline(compare(runs)))


@pytest.fixture
def write(write_run, tmp_path):
    return lambda losses, corpora=None: made(write_run, tmp_path, losses, corpora)


def test_means_are_over_the_seeds_that_all_have(write):
    found = compare(write({"Stratified": {0: 3.0, 1: 4.0, 2: 5.0}, "RnB": {0: 3.1, 1: None}}))
    ground = level(found)
    assert ground.seeds == (0,)
    assert [ground.loss(variant) for variant in found.variants] == [3.0, 3.1]
    text = " ".join(found.cautions())
    assert "means are over seed 0, which all have" in text
    assert "Only one seed, so no interval: RnB" in text


def test_an_easy_seed_does_not_win(write):
    runs = write({"Stratified": {0: 3.0, 1: 9.0}, "RnB": {0: 3.2, 1: 9.2}, "ADO": {0: 3.4}})
    assert "The lowest loss is that of Stratified, 3.000, a baseline." in said(runs)
    assert said(runs).startswith("RnB ended at 3.200")


def test_seeds_of_one_number_need_not_be_the_same_seeds(write):
    found = compare(
        write({"Stratified": {0: 3.0, 1: 4.0, 2: 5.0}, "RnB": {1: 4.1, 2: 5.1, 3: 0.1}})
    )
    assert level(found).seeds == (1, 2)
    assert "means are over seeds 1, 2, which all have" in " ".join(found.cautions())


def test_without_a_shared_seed_means_hang_on_the_baseline(write):
    losses = {"Stratified": {0: 3.0, 1: 5.0}, "RnB": {0: 2.9}, "ADO": {1: 4.8}, "DGA": {7: 1.0}}
    found = compare(write(losses))
    ground = level(found)
    assert not ground.is_even
    assert ground.loss(found.variant("RnB")) == pytest.approx(3.9)
    assert ground.loss(found.variant("ADO")) == pytest.approx(3.8)
    assert "No seed is in all variants: means are over different seeds" in " ".join(
        found.cautions()
    )
    assert "The lowest loss" not in " ".join(headline(found))


def test_the_same_seeds_need_no_words(write):
    found = compare(write({"Stratified": {0: 3.0, 1: 4.0}, "RnB": {0: 2.0, 1: 3.5}}))
    assert found.cautions() == []
    assert level(found).variants == found.variants


def test_variants_on_other_corpora_are_left_out(write):
    losses = {"Stratified": {0: 3.0, 1: 4.0}, "RnB": {0: 2.0, 1: 3.5}, "ADO": {0: 1.0, 1: 1.0}}
    found = compare(write(losses, {"ADO": "other"}))
    assert [variant.label for variant in level(found).left_out] == ["ADO"]
    assert "ADO" not in headline(found)[0]
    assert "The lowest loss" not in " ".join(headline(found))


def test_whatever_won_is_named(write):
    text = said(
        write(
            {
                "Stratified": {0: 3.0, 1: 4.0, 2: 3.5},
                "RnB": {0: 2.9, 1: 3.8, 2: 3.41},
                "DGA": {0: 2.5, 1: 3.6, 2: 3.1},
            }
        )
    )
    assert text.startswith("RnB ended at 3.370")
    assert "The lowest loss is that of DGA, 3.067: 0.433 below Stratified (95 % interval" in text
    assert "lowest of 3 variants: chosen after the fact" in text


def test_comparisons_with_further_baselines_are_counted(write):
    losses = {"Stratified": {0: 3.0, 1: 3.1}, "Target": {0: 3.1, 1: 3.3}, "RnB": {0: 2.9, 1: 2.8}}
    assert "The result names 1 more" in said(write(losses))
