"""What ``sweep`` does around the runs: it says what will happen, and reports in the end."""

import io
import os
import subprocess
import sys

import pytest

from rbkit.errors import InputError, RbkitWarning
from rbkit.report.page import page
from rbkit.report.sweep import pipeline
from rbkit.report.sweep.launcher import SweepResult
from rbkit.report.sweep.plan import make_plan


@pytest.fixture
def calls(monkeypatch, template, tmp_path):
    """Stand in for pool and page; return what they were asked, and how the pool ends."""
    monkeypatch.chdir(tmp_path)
    template()
    asked = {"statuses": ["ok", "failed"], "interrupted": False, "report": []}

    def run_plan(plan, **options):
        asked["options"] = options
        ended = dict(zip([job.id for job in plan.jobs], asked["statuses"], strict=True))
        return SweepResult(plan.out, ended, asked["interrupted"], len(ended))

    def write_report(paths, out, *, baseline=None, pdf=False, progress=True, metric=None):
        asked["report"].append((paths, out.name, baseline))
        if baseline == "mixer=target":
            raise InputError("baseline", "no run has it", "give another")
        return out

    monkeypatch.setattr(pipeline, "run_plan", run_plan)
    monkeypatch.setattr(page, "write_report", write_report)
    return asked


def sweep(**options):
    return pipeline.sweep("try.ipynb", "mixer=target,rnb", **options)


def test_the_report_is_written_also_when_some_have_failed(calls, capsys):
    result = sweep(jobs=2, timeout=9, retries=1, gpus="none")
    assert result.exit_code == 1
    assert [(str(paths[0]), name) for paths, name, _ in calls["report"]] == [
        ("reports/try", "index.html")
    ]
    assert calls["options"] == {
        "jobs": 2,
        "resume": True,
        "timeout": 9,
        "retries": 1,
        "gpus": "none",
        "progress": True,
        "ray": None,
    }
    said = capsys.readouterr().err.splitlines()
    assert said[0] == "try -> reports/try: 2 runs, 0 done already, 2 to do, 2 at a time"
    assert said[1] == "try -> reports/try: 1 ok, 1 failed"
    assert said[2].startswith("The report: ")


def test_an_interrupted_sweep_says_how_to_resume_and_reports_nothing(calls, capsys):
    calls["interrupted"] = True
    assert sweep().exit_code == 130
    assert calls["report"] == []
    assert "Resume with: rbkit sweep try.ipynb --grid mixer=Target,RnB" in capsys.readouterr().err


def test_the_command_has_the_options_that_were_given(calls, capsys):
    calls["interrupted"] = True
    options = {"jobs": 2, "retries": 1, "baseline": {"mixer": "Target"}, "resume": False}
    sweep(gpus="none", **options)
    said = capsys.readouterr().err
    assert said.endswith("--jobs 2 --retries 1 --gpus none --baseline mixer=Target\n")


def test_an_interrupt_after_the_last_run_costs_no_report(calls):
    calls.update(interrupted=True, statuses=["ok", "ok"])
    assert sweep().exit_code == 0
    assert len(calls["report"]) == 1


class Gone(io.StringIO):
    """What is left of a pipe whose reader has gone."""

    def write(self, text):
        raise BrokenPipeError


@pytest.mark.parametrize("stderr", [Gone(), None])
def test_where_nobody_listens_report_and_exit_code_stay(calls, stderr, monkeypatch):
    monkeypatch.setattr("sys.stderr", stderr)
    assert sweep().exit_code == 1
    assert len(calls["report"]) == 1
    assert sys.stderr is not None


def test_what_is_said_to_nobody_costs_no_exit_code():
    code = "from rbkit.text import say; say('a'); say('b'); print('end')"
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as pipe:
        done = subprocess.run([sys.executable, "-c", code], stdout=-1, stderr=pipe, check=False)
    assert (done.returncode, done.stdout) == (0, b"end\n")


def test_streams_that_were_closed_go_nowhere_and_children_have_them_too():
    code = (
        "import subprocess, sys; from rbkit.text import need_streams;"
        "need_streams(); print('a', file=sys.stderr); child = 'import sys; sys.stderr.flush()';"
        "sys.exit(subprocess.call([sys.executable, '-c', child]))"
    )
    closed = ["sh", "-c", 'exec "$0" -c "$1" <&- >&- 2>&-', sys.executable, code]
    assert subprocess.run(closed, check=False).returncode == 0


def test_no_more_at_a_time_than_there_are_gpus(calls, capsys):
    sweep(jobs=2, gpus="0", dry_run=True)
    assert "2 to do, 1 at a time" in capsys.readouterr().err


def test_a_baseline_whose_runs_all_failed_costs_no_report(calls):
    with pytest.warns(RbkitWarning, match="the report takes another baseline"):
        sweep(baseline="mixer=target", progress=False)
    assert [baseline for *_, baseline in calls["report"]] == ["mixer=target", None]


def test_without_progress_nothing_is_said_and_without_report_none_is_made(calls, capsys):
    sweep(progress=False, report=False)
    assert calls["report"] == []
    assert capsys.readouterr() == ("", "")


def test_what_is_done_is_counted(calls, ends, capsys):
    plan = make_plan("try.ipynb", "mixer=target,rnb")
    plan.write()
    ends(plan.jobs[0], "ok")
    sweep()
    assert "2 runs, 1 done already, 1 to do, 1 at a time" in capsys.readouterr().err
    sweep(resume=False)
    assert "2 runs, 0 done already, 2 to do" in capsys.readouterr().err


def test_rb_sweep_is_the_function(calls):
    import rbkit as rb
    import rbkit.report.sweep as package

    assert rb.sweep is pipeline.sweep
    assert package("try.ipynb", "seed=0", report=False, dry_run=True).counts == {"queued": 1}
