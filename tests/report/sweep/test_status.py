"""``rbkit status`` tells how things are, not how they were left."""

import io
import json
import platform
import subprocess
import sys
import threading
import time

import pytest

from rbkit.errors import InputError, RbkitWarning
from rbkit.processes import process_identity
from rbkit.report.sweep import status
from rbkit.report.sweep.folder import now, read_job, write_job
from rbkit.report.sweep.plan import make_plan
from rbkit.report.sweep.status import print_status, print_table, sweep_status
from rbkit.text import one_line


@pytest.fixture
def swept(template, tmp_path):
    """A sweep of four that this process works on."""
    plan = make_plan(template(), "seed=0..3", tmp_path / "out")
    plan.write()
    return plan


def update_job(path, **changes):
    write_job(path, {**read_job(path), **changes})


def here():
    return {"host": platform.node(), "worker": process_identity(), "started": now(), "attempts": 1}


def killed_worker():
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    identity = process_identity(child.pid)
    child.kill()
    child.communicate()
    return identity


def test_running_ones_come_first_with_what_they_have_reached(swept, ends, capsys):
    ends(swept.jobs[0], "ok", seconds=3725)
    ends(swept.jobs[1], "failed", error="ValueError: loss is NaN", attempts=3)
    update_job(swept.jobs[3].run_dir, status="running", gpu="1", **here())
    record = {"progress": {"step": 12, "steps": 300, "loss": 4.25}}
    (swept.jobs[3].run_dir / "run.json").write_text(json.dumps(record))
    final = {**record, "final": {"loss_token": 3.5}}
    (swept.jobs[0].run_dir / "run.json").write_text(json.dumps(final))
    assert print_status(swept.out) == 3
    head, names, *rows = capsys.readouterr().out.splitlines()
    assert head.startswith("try: 4 runs: 1 ok, 1 running, 1 failed, 1 queued (process ")
    assert names.split() == ["run", "status", "step", "loss", "time", "attempts", "gpu", "error"]
    assert [row.split()[1] for row in rows] == ["running", "failed", "queued", "ok"]
    assert rows[0].split()[2:4] == ["12/300", "4.2500"]
    assert rows[0].split()[-1] == "1"
    assert rows[1].endswith("ValueError: loss is NaN")
    assert "1 h 02 min" in rows[3]
    assert "3.5000" in rows[3]


def test_all_ok_is_zero(swept, ends):
    for job in swept.jobs:
        ends(job, "ok")
    assert print_status(swept.out) == 0


def test_a_dead_launcher_leaves_killed_runs_and_waiting_ones_that_nobody_does(swept, capsys):
    info = json.loads((swept.out / "sweep.json").read_text())
    gone = killed_worker()
    info["launcher"] |= gone
    (swept.out / "sweep.json").write_text(json.dumps(info))
    update_job(swept.jobs[0].run_dir, status="running", **{**here(), "worker": gone})
    assert print_status(swept.out) == 1
    said = capsys.readouterr().out
    assert said.startswith("try: 4 runs: 1 killed, 3 queued\n")
    assert f"Nobody works on it; 4 runs are not ok. Resume with: {swept.command}" in said


def test_without_a_launcher_nothing_is_waited_for(swept):
    assert sweep_status(swept.out).exit_code == 3
    swept.release()
    assert sweep_status(swept.out).exit_code == 1


@pytest.mark.parametrize("bad", ["{", "[]", '{"format": "rbkit-job/1"}'])
def test_a_damaged_job_is_shown_and_not_ok(swept, ends, bad, capsys):
    for job in swept.jobs:
        ends(job, "ok")
    (swept.jobs[2].run_dir / "job.json").write_text(bad)
    assert print_status(swept.out) == 1
    assert "damaged" in capsys.readouterr().out


@pytest.mark.parametrize(
    "record",
    [
        "{",
        "[]",
        "null",
        '{"progress": 3}',
        '{"progress": {"step": "\\u001b[31m"}}',
        '{"progress": {"loss": []}}',
        '{"final": {"loss_token": null}}',
    ],
)
def test_a_record_that_makes_no_sense_shows_no_progress(swept, record):
    (swept.jobs[0].run_dir / "run.json").write_text(record)
    update_job(swept.jobs[0].run_dir, status="running", **here())
    assert sweep_status(swept.out).rows[0][2:4] == ("", "")


def test_text_of_errors_is_text(swept, ends, capsys):
    ends(swept.jobs[0], "failed", error="\x1b[31m[bold]bad[/bold]\x1b[0m\n\x07:smile: \u202eevil")
    print_status(swept.out)
    said = capsys.readouterr().out
    assert "[bold]bad[/bold] :smile: evil" in said
    assert not set(said) & {"\x1b", "\x07", "\u202e"}


def test_where_there_is_no_terminal_lines_are_whole(swept, ends, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    ends(swept.jobs[0], "failed", error="x" * 300)
    print_status(swept.out)
    assert "x" * 300 in capsys.readouterr().out


def test_a_terminal_gets_a_table_that_fits(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("TERM", "xterm")
    file = Terminal()
    print_table(["run", "error"], [["a", "x" * 300], ["b", "[red]y"]], file)
    lines = [one_line(line) for line in file.getvalue().splitlines()]
    assert lines[0].split() == ["run", "error"]
    assert len(lines) == 3
    assert max(map(len, lines)) <= 40
    assert "[red]y" in lines[2]


def test_watching_ends_when_the_sweep_does(swept, ends, capsys, monkeypatch):
    monkeypatch.setattr(status, "_REFRESH", 0.02)

    def work():
        for job in swept.jobs:
            time.sleep(0.1)
            ends(job, "ok")

    worker = threading.Thread(target=work)
    worker.start()
    assert print_status(swept.out, watch=True) == 0
    worker.join()
    said = capsys.readouterr().out
    assert "try: 4 runs: 1 ok, 3 queued" in said
    assert "try: 4 runs: 4 ok" in said


def test_a_folder_without_a_sweep_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"no sweep.json there; give the folder of a sweep"):
        print_status(tmp_path)


def test_a_sweep_that_lost_its_list_is_shown_by_the_runs_that_are_there(swept, ends, capsys):
    ends(swept.jobs[0], "failed", error="ValueError: no")
    (swept.out / "sweep.json").write_text("{")
    with pytest.warns(RbkitWarning, match="its runs are taken by name"):
        assert print_status(swept.out) == 1
    assert "4 runs: 1 failed, 3 queued" in capsys.readouterr().out


def test_a_loss_of_four_hundred_digits_costs_no_status(swept):
    update_job(swept.jobs[0].run_dir, status="running", **here())
    (swept.jobs[0].run_dir / "run.json").write_text(f'{{"final": {{"loss_token": {10**400}}}}}')
    assert sweep_status(swept.out).rows[0][3] == ""


def test_a_run_that_leads_out_of_the_sweep_is_damaged(swept, ends, tmp_path, capsys):
    for job in swept.jobs:
        ends(job, "ok")
    swept.jobs[1].run_dir.rename(tmp_path / "elsewhere")
    swept.jobs[1].run_dir.symlink_to(tmp_path / "elsewhere")
    assert print_status(swept.out) == 1
    assert "is a link that leads out of out" in capsys.readouterr().out
