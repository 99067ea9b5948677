import numpy as np
import pytest

from rbkit.show.facts import domain_names, labels, losses, overhead, target


def test_runs_are_named_by_mixer_and_by_seed_only_where_needed(tmp_path, write_run):
    runs = [
        write_run(tmp_path / f"{i}", mixer, seed)
        for i, (mixer, seed) in enumerate([("RnB", 0), ("RnB", 1), ("Target", 0)])
    ]
    assert labels(runs) == ["RnB, seed 0", "RnB, seed 1", "Target"]


def test_the_same_mixer_and_seed_twice_are_told_apart_by_folder(tmp_path, write_run):
    runs = [write_run(tmp_path / name) for name in ("first", "second")]
    assert labels(runs) == ["RnB, seed 0, first", "RnB, seed 0, second"]


def test_overhead_is_what_adapting_costs_over_the_plain_steps(runs):
    price = overhead(runs[-1])
    assert price.flops == pytest.approx(100 * (1.1e9 + 21e6 + 2e3) / 2.4e12)
    assert 1 < price.seconds < 3
    assert overhead(runs[0]).flops == 0  # Stratified pays for no signal


def test_what_was_not_counted_is_unknown_not_zero(tmp_path, write_run):
    run = write_run(tmp_path / "run")
    for entry in run.info["ledger"]["entries"]:
        entry["flops_counted"] = entry["flops_modelled"] = None
    assert overhead(run).flops is None
    assert overhead(run).seconds is not None


@pytest.mark.parametrize("name", ["track", "eval_losses", "a_signal_of_tomorrow"])
def test_one_price_that_is_not_known_makes_the_sum_unknown(tmp_path, write_run, name):
    run = write_run(tmp_path / "run")
    entries = [e for e in run.info["ledger"]["entries"] if e["name"] != name]
    entries.append({"name": name, "seconds": 41.0, "calls": 3, "flops_counted": None})
    run.info["ledger"]["entries"] = entries
    assert overhead(run).flops is None  # the others' sum would be too low
    assert overhead(run).seconds > 90  # an unknown name is charged


def test_domains_without_an_eval_loss_are_nan(tmp_path, write_run):
    run = write_run(tmp_path / "run")
    run.info["final"]["by_domain_token"][:2] = [None, None]
    final = losses(run)
    assert np.isnan(final.by_domain[:2]).all()
    assert final.worst == int(np.nanargmax(final.by_domain))


def test_an_unfinished_run_has_the_losses_of_its_last_evaluation(tmp_path, write_run):
    run = write_run(tmp_path / "run", rounds=2, status="interrupted")
    assert run.info["final"] is None
    evaluated = run.metrics("eval")
    assert losses(run).token == (evaluated[-1]["loss_token"] if evaluated else None)


def test_an_empty_record_is_read_without_complaint(tmp_path, write_run):
    run = write_run(tmp_path / "run")
    run.info = {"status": "failed", "error": None}
    (run.path / "metrics.jsonl").write_text("")
    assert losses(run).token is None
    assert losses(run).worst is None
    assert domain_names(run) == []
    assert target(run) is not None  # from the history


def test_flops_that_could_not_be_counted_are_taken_as_modelled(tmp_path, write_run):
    run = write_run(tmp_path / "run")
    entries = {entry["name"]: entry for entry in run.info["ledger"]["entries"]}
    entries["gram"] |= {"flops_counted": None, "flops_modelled": 21e6}
    entries["mixer"] |= {"flops_counted": None, "flops_modelled": None}
    assert overhead(run).flops == pytest.approx(100 * (1.1e9 + 21e6) / 2.4e12)


def test_a_tracker_that_never_looked_costs_nothing(tmp_path, write_run):
    run = write_run(tmp_path / "run", "Stratified")
    idle = {"seconds": 0.0, "calls": 0, "flops_counted": None, "flops_modelled": None}
    run.info["ledger"]["entries"] += [{"name": "track", **idle}]
    assert overhead(run).flops == 0
