"""What is said of a comparison: means over the same seeds and texts only, and its cautions."""

import pytest

from rbkit.errors import InputError
from rbkit.report.compare import compare, findings
from rbkit.report.compare.variants import Finding, comparable


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


def sentences(comparison):
    return [str(finding) for finding in findings(comparison)]


def said(runs):
    return " ".join(sentences(compare(runs)))


def cautions(comparison):
    return " ".join(map(str, comparison.cautions()))


@pytest.fixture
def write(write_run, tmp_path):
    return lambda losses, corpora=None: made(write_run, tmp_path, losses, corpora)


def test_means_are_over_the_seeds_that_all_have(write):
    found = compare(write({"Stratified": {0: 3.0, 1: 4.0, 2: 5.0}, "RnB": {0: 3.1, 1: None}}))
    ground = comparable(found)
    assert ground.seeds == (0,)
    assert [ground.value(variant) for variant in found.variants] == [3.0, 3.1]
    text = cautions(found)
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
    assert comparable(found).seeds == (1, 2)
    assert "means are over seeds 1, 2, which all have" in cautions(found)


def test_without_a_shared_seed_means_hang_on_the_baseline(write):
    losses = {"Stratified": {0: 3.0, 1: 5.0}, "RnB": {0: 2.9}, "ADO": {1: 4.8}, "DGA": {7: 1.0}}
    found = compare(write(losses))
    ground = comparable(found)
    assert not ground.same_seeds
    assert ground.value(found.variant("RnB")) == pytest.approx(3.9)
    assert ground.value(found.variant("ADO")) == pytest.approx(3.8)
    assert "No seed is in all variants: means are over different seeds" in cautions(found)
    assert "The lowest loss" not in " ".join(sentences(found))


def test_the_same_seeds_need_no_words(write):
    found = compare(write({"Stratified": {0: 3.0, 1: 4.0}, "RnB": {0: 2.0, 1: 3.5}}))
    assert found.cautions() == []
    assert comparable(found).variants == found.variants


def test_variants_on_other_corpora_are_left_out(write):
    losses = {"Stratified": {0: 3.0, 1: 4.0}, "RnB": {0: 2.0, 1: 3.5}, "ADO": {0: 1.0, 1: 1.0}}
    found = compare(write(losses, {"ADO": "other"}))
    assert [variant.label for variant in comparable(found).left_out] == ["ADO"]
    assert "ADO" not in sentences(found)[0]
    assert "The lowest loss" not in " ".join(sentences(found))


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


@pytest.fixture
def three_seeds(tmp_path, write_run):
    made = []
    for seed, gap in enumerate((-0.05, -0.04, -0.06)):
        for mixer, loss in (("Stratified", 4.5 + seed), ("RnB", 4.5 + seed + gap)):
            run = write_run(tmp_path / f"{mixer}{seed}", mixer, seed, rounds=2)
            run.info["final"]["loss_token"] = loss
            made.append(run)
    return made


def test_one_seed_is_no_evidence(runs):
    said = sentences(compare(runs))
    assert said[0].startswith("RnB ended at 4.")
    assert "below Stratified" in said[0]
    assert "Target" in said[0]
    assert "One seed: differences are not evidence of a ranking." in said


def test_several_seeds_are_paired_and_give_an_interval(three_seeds):
    said = sentences(compare(three_seeds))
    assert said == [
        "RnB ended at 5.450 nats per token on the eval set: 0.050 below Stratified "
        "(95 % interval −0.075 to −0.025, 3 paired seeds)."
    ]


def test_the_chosen_baseline_comes_first(runs):
    said = sentences(compare(runs, "mixer=target"))[0]
    assert said.index("Target") < said.index("Stratified")


def test_the_best_of_several_variants_is_said_to_be_chosen(tmp_path, write_run):
    runs = [
        write_run(tmp_path / f"{mixer}{k}", mixer, rounds=2, parameters={"k": k})
        for mixer in ("Stratified", "RnB")
        for k in (10, 30)
    ]
    runs[3].info["final"]["loss_token"] = 3.0
    said = sentences(compare(runs))
    assert said[0].startswith("RnB · k 30 ended at 3.000")
    assert "below Stratified" in said[0]
    chosen = "It has the lowest mean of 2 variants of RnB: chosen after the fact"
    assert any(text.startswith(chosen) for text in said)


def test_losing_is_said_as_plainly_as_winning(runs):
    runs = [type(run).open(run.path) for run in runs]
    runs[-1].info["final"]["loss_token"] = 9.0
    assert "4.555 above Stratified" in sentences(compare(runs))[0]


def test_nothing_is_claimed_of_runs_that_did_not_finish(tmp_path, write_run):
    run = write_run(tmp_path / "run", status="failed", error="no")
    assert sentences(compare([run])) == ["No run has finished yet: there is nothing to compare."]
    assert sentences(compare([])) == sentences(compare([run]))


def test_runs_that_did_not_finish_are_counted(tmp_path, write_run, runs):
    killed = write_run(tmp_path / "run", "DoGE", status="killed")
    said = sentences(compare([killed, *runs]))
    assert "1 of 4 runs has no final loss (1 killed): see the table." in said


def test_runs_on_different_corpora_are_not_compared_in_silence(tmp_path, write_run, runs):
    other = write_run(tmp_path / "run", "ADO")
    other.info["corpus"]["fingerprint"] = "another"
    assert "different corpora" in " ".join(sentences(compare([*runs, other])))


def test_a_finding_can_be_printed_whatever_a_variant_is_called():
    finding = Finding("result", "\x1b]0;owned\x07\x1b[31mRnB ended below Target.")
    assert str(finding) == "RnB ended below Target."


# ------------------------------------------------------------------------- metrics beside loss


@pytest.fixture
def scored(write_run, tmp_path):
    """Runs of a mixer by (loss, exact_match) by seed; None: it was not recorded."""

    def make(values, name="exact_match"):
        runs = []
        for mixer, by_seed in values.items():
            for seed, (loss, score) in by_seed.items():
                metrics = {} if score is None else {name: score}
                folder = tmp_path / f"{mixer}{seed}"
                run = write_run(folder, mixer, seed, rounds=2, names=["a", "b"], metrics=metrics)
                run.info["final"]["loss_token"] = loss
                runs.append(run)
        return runs

    return make


DISAGREE = {
    "Stratified": {0: (3.0, 0.60), 1: (3.1, 0.62), 2: (3.2, 0.61)},
    "RnB": {0: (2.9, 0.50), 1: (3.0, 0.53), 2: (3.11, 0.51)},
    "DGA": {0: (2.8, 0.40), 1: (2.9, 0.41), 2: (3.01, 0.42)},
}


def test_a_metric_that_disagrees_with_the_loss_is_named_in_the_result(scored):
    result, best, *_ = sentences(compare(scored(DISAGREE)))
    assert result.startswith("RnB ended at 3.003 nats per token on the eval set: 0.097 below")
    objection = (
        "exact_match disagrees (higher is better): Stratified ended at exact_match 0.610, "
        "RnB at 0.513."
    )
    assert result.endswith(objection)
    assert best.startswith("The lowest loss is that of DGA, 2.903")
    assert best.endswith("Stratified ended at exact_match 0.610, DGA at 0.410.")


def test_a_metric_that_agrees_needs_no_words(scored):
    agree = {"Stratified": {0: (3.0, 0.5), 1: (3.1, 0.5)}, "RnB": {0: (2.9, 0.6), 1: (3, 0.7)}}
    assert "disagrees" not in said(scored(agree))


def test_a_metric_of_errors_is_better_when_low(scored):
    agree = {"Stratified": {0: (3.0, 0.5), 1: (3.1, 0.5)}, "RnB": {0: (2.9, 0.6), 1: (3, 0.7)}}
    text = said(scored(agree, "error_rate"))
    assert "error_rate disagrees (lower is better): Stratified ended at error_rate 0.500" in text


def test_a_metric_that_not_all_runs_have_says_nothing_of_the_others(scored):
    values = {"Stratified": {0: (3.0, None), 1: (3.1, 0.9)}, "RnB": {0: (2.9, 0.6), 1: (3, 0.7)}}
    assert "disagrees" not in said(scored(values))


def test_a_comparison_by_a_metric_ranks_by_it_and_says_where_the_loss_disagrees(scored):
    runs = scored(DISAGREE)
    found = compare(runs, metric="exact_match")
    result, best, *rest = sentences(found)
    # All further mixers against RnB, which the result is about.
    assert result.startswith(
        "RnB ended at exact_match 0.513 on the eval set: 0.097 below Stratified (95 % interval"
    )
    assert "disagrees" not in result  # nothing was beaten
    assert best == (
        "The highest exact_match is that of Stratified, 0.610, a baseline. The eval loss "
        "disagrees (lower is better): DGA ended at 2.903 nats per token, Stratified at 3.100."
    )
    assert rest[0].startswith("In exact_match, DGA ended 0.200 below Stratified (95 % interval")
    lower = compare(runs, metric="exact_match", higher_is_better=False)
    assert sentences(lower)[1].startswith("The lowest exact_match is that of DGA, 0.410: 0.200")


def test_runs_without_the_metric_are_unfinished_in_a_comparison_by_it(scored):
    values = {"Stratified": {0: (3.0, 0.5)}, "RnB": {0: (2.9, 0.6)}, "DGA": {0: (2.8, None)}}
    found = compare(scored(values), metric="exact_match")
    assert [variant.label for variant in found.variants] == ["Stratified", "RnB"]
    assert "1 of 3 runs has no final exact_match (1 without exact_match)" in cautions(found)


def test_a_metric_that_no_run_has_is_refused_with_those_there_are(scored):
    runs = scored(DISAGREE)
    with pytest.raises(InputError, match="metric: no run recorded 'f1'; they have exact_match"):
        compare(runs, metric="f1")
    with pytest.raises(InputError, match="higher_is_better: is for a metric"):
        compare(runs, higher_is_better=True)


def test_metrics_are_no_settings_that_make_variants(write_run, tmp_path):
    runs = [
        write_run(tmp_path / str(i), "RnB", i, rounds=1, parameters={"metrics": metrics})
        for i, metrics in enumerate(([], ["exact_match"]))
    ]
    assert len(compare(runs).variants) == 1
