import pytest

from rbkit.report.summary import difference, headline, rows, varying


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
    gap = difference(three_seeds, "RnB", "Stratified")
    assert gap.mean == pytest.approx(-0.05)
    assert gap.half_width == pytest.approx(4.3027 * 0.01 / 3**0.5, rel=1e-3)
    said = headline(three_seeds)
    assert "95 % interval −0.075 to −0.025" in said[0]
    assert said[0].endswith("means over 3 paired seeds.")
    assert len(said) == 1


def test_seeds_that_only_one_has_are_left_out(three_seeds):
    assert difference(three_seeds[1:], "RnB", "Stratified").seeds == 2
    assert difference(three_seeds[1:2], "RnB", "Stratified") is None


def test_losing_is_said_as_plainly_as_winning(runs):
    runs = [type(run).open(run.path) for run in runs]
    runs[-1].info["final"]["loss_token"] = 9.0
    assert "4.555 above Stratified" in headline(runs)[0]


def test_nothing_is_claimed_of_runs_that_did_not_finish(tmp_path, write_run):
    run = write_run(tmp_path / "run", status="failed", error="no")
    assert headline([run]) == ["No run has finished yet: there is nothing to compare."]
    assert headline([]) == headline([run])


def test_unfinished_runs_come_last_and_have_no_difference(tmp_path, write_run, runs):
    killed = write_run(tmp_path / "run", "DoGE", status="killed")
    table = rows([killed, *runs])
    assert [row["name"] for row in table] == ["RnB", "Target", "Stratified", "DoGE"]
    assert table[-1]["status"] == "killed"
    assert table[-1]["gap"] is None
    assert "1 run of 4 did not finish: see the table." in headline([killed, *runs])


def test_runs_on_different_corpora_are_not_compared_in_silence(tmp_path, write_run, runs):
    other = write_run(tmp_path / "run", "ADO", rounds=2)
    other.info["corpus"]["fingerprint"] = "another"
    assert "different corpora" in " ".join(headline([*runs, other]))


def test_parameters_are_split_into_shared_and_different(runs):
    shared, differ = varying(runs)
    assert differ == ["mixer"]
    assert shared["steps"] == 300
