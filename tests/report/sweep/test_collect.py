"""Runs of sweeps and of notebooks side by side, read from files inside the folders given."""

import json
import shutil

import pytest

from rbkit.errors import InputError, RbkitWarning
from rbkit.report.collect import collect_runs
from rbkit.report.sweep.plan import make_plan


@pytest.fixture
def swept(template, tmp_path, runs, ends):
    """A sweep of three: one has trained, one has failed before it could, one waits."""
    plan = make_plan(template(), "mixer=rnb,target,ado", tmp_path / "out", {"rate": 0.5})
    plan.write()
    trained, failed, _ = plan.jobs
    shutil.copytree(runs[2].path, trained.run_dir, dirs_exist_ok=True)
    ends(trained, "ok")
    ends(failed, "failed", error="ValueError: no", cell="Training", tail=["ValueError: no"])
    return plan


def test_a_sweep_comes_in_its_order_with_the_truth_of_its_jobs(swept, runs):
    trained, failed, waiting = collect_runs(swept.out)
    assert [run.status for run in (trained, failed, waiting)] == ["ok", "failed", "queued"]
    assert [run.path.name for run in (trained, failed, waiting)] == [job.id for job in swept.jobs]
    assert trained.info["parameters"]["rate"] == 0.5  # of the job
    assert trained.info["parameters"]["steps"] == runs[2].info["parameters"]["steps"]  # of the run
    assert trained.info["final"] == runs[2].info["final"]
    assert trained.metrics("eval") == runs[2].metrics("eval")
    assert set(trained.history) == set(runs[2].history)
    assert trained.job["varied"] == {"mixer": "RnB"}


def test_a_run_that_recorded_nothing_is_known_by_its_job(swept):
    failed = collect_runs(swept.out)[1]
    assert (failed.name, failed.status) == ("Target", "failed")
    assert failed.info["error"] == "ValueError: no"
    assert failed.info["seconds"] == 2.5
    assert failed.info["parameters"]["rate"] == 0.5
    assert failed.info["final"] is None
    assert (failed.metrics("train"), failed.timings(), failed.history) == ([], [], {})
    assert failed.domains is None


def test_the_job_knows_better_than_a_run_that_was_killed_or_a_cell_that_failed_later(swept, ends):
    ends(swept.jobs[0], "failed", error="AssertionError")
    run = collect_runs(swept.out)[0]
    assert (run.status, run.info["status"], run.info["error"]) == ("failed",) * 2 + (
        "AssertionError",
    )
    ends(swept.jobs[0], "running", worker={"pid": 1, "born": 1.0}, host="elsewhere")
    assert collect_runs(swept.out)[0].status == "killed"


def test_runs_at_any_depth_are_found_once_interactive_ones_last(swept, runs, tmp_path):
    shutil.copytree(runs[0].path, tmp_path / "mine" / "runs" / "first")
    found = collect_runs([tmp_path, swept.out, swept.jobs[1].run_dir])
    assert len(found) == 4
    assert [bool(run.job) for run in found] == [True] * 3 + [False]
    assert len(collect_runs(swept.jobs[1].run_dir)) == 1
    assert len(collect_runs(tmp_path / "mine" / "runs" / "first")) == 1


def test_damaged_runs_are_told_of_and_shown_as_damaged(swept):
    (swept.jobs[1].run_dir / "job.json").write_text("{")
    with pytest.warns(RbkitWarning, match=rf"damaged run: .*{swept.jobs[1].id}/job.json: not val"):
        found = {run.path.name: run.status for run in collect_runs(swept.out)}
    assert found == dict(zip((j.id for j in swept.jobs), ("ok", "damaged", "queued"), strict=True))
    shutil.rmtree(swept.jobs[1].run_dir)
    with pytest.warns(RbkitWarning, match="is planned, but not there"):
        assert len(collect_runs(swept.out)) == 2


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"format": "rbkit-run/1"}', "null"])
def test_a_run_json_that_makes_no_sense_is_damage(swept, text, ends):
    (swept.jobs[0].run_dir / "run.json").write_text(text)
    ends(swept.jobs[0], "failed", error="ValueError: loss is NaN")
    with pytest.warns(RbkitWarning, match="damaged run"):
        run = collect_runs(swept.out)[0]
    assert (run.status, run.history, run.metrics("eval"), run.domains) == ("damaged", {}, [], None)
    assert run.info["parameters"] == swept.jobs[0].parameters
    assert run.job["error"].endswith("; it had failed: ValueError: loss is NaN")


@pytest.mark.parametrize("line", ["{", "[1]", "null", '"x"'])
def test_a_record_that_makes_no_sense_is_left_out(swept, line):
    (swept.jobs[0].run_dir / "metrics.jsonl").write_text(f"{line}\n")
    with pytest.warns(RbkitWarning, match="damaged run"):
        assert collect_runs(swept.out)[0].status == "damaged"


def test_a_sweep_that_lost_its_list_is_read_by_name(swept):
    (swept.out / "sweep.json").write_text("{")
    with pytest.warns(RbkitWarning, match="its runs are taken by name"):
        found = collect_runs(swept.out)
    assert [run.path.name for run in found] == sorted(job.id for job in swept.jobs)


@pytest.mark.parametrize("name", ["run.json", "metrics.jsonl", "history.npz", "domains", ""])
def test_links_that_lead_out_are_not_followed(swept, runs, tmp_path, name):
    run_dir = swept.jobs[0].run_dir
    inside = run_dir / name
    shutil.rmtree(inside) if inside.is_dir() else inside.unlink()
    inside.symlink_to(runs[2].path / name)
    with pytest.warns(RbkitWarning, match="is a link that leads out of out"):
        assert len(collect_runs(swept.out)) == 2


def test_a_link_among_runs_is_not_followed_either(runs, tmp_path):
    shutil.copytree(runs[0].path, tmp_path / "all" / "one")
    (tmp_path / "all" / "away").symlink_to(runs[1].path)
    (tmp_path / "all" / "again").symlink_to(tmp_path / "all")
    with pytest.warns(RbkitWarning, match="away: is a link that leads out of all"):
        assert len(collect_runs(tmp_path / "all")) == 1


def test_runs_of_older_code_are_not_compared_with_the_new(swept, template):
    template(code="print(2)")
    newer = make_plan(swept.template, "mixer=rnb", swept.out, {"rate": 0.5})
    newer.write()
    names = [run.path.name for run in collect_runs(swept.out)]
    assert names == [swept.jobs[1].id, swept.jobs[2].id, newer.jobs[0].id]


def test_what_is_no_folder_is_refused(tmp_path):
    with pytest.raises(InputError, match="nowhere: no run folder in there"):
        collect_runs([tmp_path / "nowhere"])
    assert collect_runs(tmp_path) == []


def test_info_is_json(swept):
    for run in collect_runs(swept.out):
        json.dumps(run.info, allow_nan=False)
