import pytest

from rbkit.report.compare import compare
from rbkit.report.compare.words import headline


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
    said = headline(runs)
    assert said[0].startswith("RnB ended at 4.")
    assert "below Stratified" in said[0]
    assert "Target" in said[0]
    assert "One seed: differences are not evidence of a ranking." in said


def test_several_seeds_are_paired_and_give_an_interval(three_seeds):
    said = headline(three_seeds)
    assert said == [
        "RnB ended at 5.450 nats per token on the eval set: 0.050 below Stratified "
        "(95 % interval −0.075 to −0.025, 3 paired seeds)."
    ]


def test_the_chosen_baseline_comes_first(runs):
    said = headline(compare(runs, "mixer=target"))[0]
    assert said.index("Target") < said.index("Stratified")


def test_the_best_of_several_variants_is_said_to_be_chosen(tmp_path, write_run):
    runs = [
        write_run(tmp_path / f"{mixer}{k}", mixer, rounds=2, parameters={"k": k})
        for mixer in ("Stratified", "RnB")
        for k in (10, 30)
    ]
    runs[3].info["final"]["loss_token"] = 3.0
    said = headline(runs)
    assert said[0].startswith("RnB · k 30 ended at 3.000")
    assert "below Stratified" in said[0]
    assert said[1].startswith("It has the lowest mean of 2 variants of RnB: chosen after the fact")


def test_losing_is_said_as_plainly_as_winning(runs):
    runs = [type(run).open(run.path) for run in runs]
    runs[-1].info["final"]["loss_token"] = 9.0
    assert "4.555 above Stratified" in headline(runs)[0]


def test_nothing_is_claimed_of_runs_that_did_not_finish(tmp_path, write_run):
    run = write_run(tmp_path / "run", status="failed", error="no")
    assert headline([run]) == ["No run has finished yet: there is nothing to compare."]
    assert headline([]) == headline([run])


def test_runs_that_did_not_finish_are_counted(tmp_path, write_run, runs):
    killed = write_run(tmp_path / "run", "DoGE", status="killed")
    said = headline([killed, *runs])
    assert "1 of 4 runs has no final loss (1 killed): see the table." in said


def test_runs_on_different_corpora_are_not_compared_in_silence(tmp_path, write_run, runs):
    other = write_run(tmp_path / "run", "ADO")
    other.info["corpus"]["fingerprint"] = "another"
    assert "different corpora" in " ".join(headline([*runs, other]))
