"""A folder of runs over time: the notebook changes, moves, is another one of the same name."""

import shutil

import pytest

from rbkit.errors import InputError
from rbkit.report.sweep import folder, pipeline
from rbkit.report.sweep.plan import make_plan
from rbkit.report.sweep.status import sweep_status

CELL = "seed: int = 0\nrate: float = 0.1\ndata: str = ''"


@pytest.fixture
def plan(template, tmp_path, monkeypatch):
    """Plan, and write, a sweep of a notebook with this cell and this code."""
    monkeypatch.chdir(tmp_path)

    def make(grid="seed=0..1", cell=CELL, code="print(seed)", **parameters):
        template(cell, code=code)
        made = make_plan("try.ipynb", grid, "out", parameters)
        made.write()
        return made

    return make


@pytest.mark.parametrize(
    ("cell", "code", "grid"),
    [
        (CELL + "\nk: int = 3", "print(seed)", "seed=0..1"),  # one more
        (CELL + "\nk: int = 3", "print(seed)", "seed=0..1 k=3"),  # at its default
        (CELL.replace("0.1", "0.2"), "print(seed)", "seed=0..1"),  # another default
        ("seed: int = 0", "print(seed)", "seed=0..1"),  # two fewer
        (CELL, "print(seed + 1)", "seed=0..1 rate=0.1"),  # the default, given
    ],
)
def test_runs_of_an_older_cell_of_parameters_are_replaced(plan, cell, code, grid):
    first, second = plan(), plan(grid, cell, code)
    info = folder.read_sweep("out")
    assert info["superseded"] == [job.id for job in first.jobs]
    assert info["jobs"] == [job.id for job in second.jobs]


@pytest.mark.parametrize(
    ("cell", "grid"),
    [(CELL + "\nk: int = 3", "seed=0..1 k=4"), (CELL, "seed=2..3"), (CELL, "seed=0..1 rate=0.2")],
)
def test_runs_that_were_asked_to_be_something_else_stay(plan, cell, grid):
    first = plan()
    plan(grid, cell, "print(seed + 1)")
    assert folder.read_sweep("out")["jobs"][:2] == [job.id for job in first.jobs]


def test_what_has_changed_is_named(plan, template, tmp_path, capsys):
    (tmp_path / "a.txt").write_text("1")
    plan(data="a.txt")
    (tmp_path / "a.txt").write_text("2")
    pipeline.sweep("try.ipynb", "seed=0", "out", parameters={"data": "a.txt"}, dry_run=True)
    assert "make way for new ones; changed: the data of data\n" in capsys.readouterr().err
    template(CELL, code="print(seed + 1)")
    pipeline.sweep("try.ipynb", "seed=0", "out", parameters={"data": "a.txt"}, dry_run=True)
    said = capsys.readouterr().err
    assert "make way for new ones; changed: the notebook's code, the data of data\n" in said


def test_another_notebook_of_the_same_name_gets_another_folder(plan, template, tmp_path):
    first = plan()
    elsewhere = tmp_path / "elsewhere" / "try.ipynb"
    elsewhere.parent.mkdir()
    shutil.copy("try.ipynb", elsewhere)
    make_plan(elsewhere, "seed=0..1", "out").write()  # a copy is the same
    plan()
    template(CELL, code="print('another')", name="elsewhere/try.ipynb")
    with pytest.raises(InputError, match=r"holds a sweep of another notebook, .*try.ipynb; give"):
        make_plan(elsewhere, "seed=0..1", "out").write()
    (tmp_path / "try.ipynb").unlink()  # then it has been moved
    make_plan(elsewhere, "seed=0..1", "out").write()
    assert folder.read_sweep("out")["superseded"] == [job.id for job in first.jobs]


def test_the_way_on_is_every_call_that_has_runs_which_are_not_ok(plan, ends, tmp_path):
    calls = [plan("seed=0..1"), plan("seed=2"), plan("seed=3"), plan("seed=1..2")]
    ends(calls[2].jobs[0], "ok")
    calls[-1].release()
    assert resume_commands() == [calls[0].command, calls[3].command]  # the second is in the last
    for made in calls:
        for job in made.jobs:
            ends(job, "ok")
    ends(calls[1].jobs[0], "failed")
    assert resume_commands() == [calls[3].command]
    assert sweep_status("out").advice.endswith(f"1 run is not ok. Resume with: {calls[3].command}")


def test_the_way_on_has_the_options_and_the_folder_of_the_call(plan, tmp_path, monkeypatch):
    plan("seed=0")
    made = make_plan("try.ipynb", "seed=0..1", "out")
    made.options = {
        "jobs": 2,
        "timeout": 9.5,
        "gpus": "none",
        "baseline": "mixer=A k=1",
        "pdf": True,
    }
    made.write()
    options = "--jobs 2 --timeout 9.5 --gpus none --baseline 'mixer=A k=1' --pdf"
    assert resume_commands() == [f"rbkit sweep try.ipynb --grid seed=0,1 --out out {options}"]
    (tmp_path / "sub dir").mkdir()
    monkeypatch.chdir(tmp_path / "sub dir")
    assert resume_commands("../out") == [f"cd {tmp_path} && {made.command}"]


def test_calls_of_older_files_and_strangers_are_read(plan):
    plan("seed=0")
    info = folder.read_sweep("out")
    for calls in ([{"command": "rbkit old"}], [3, {"jobs": [[]], "cwd": 3}], []):
        assert folder.resume_commands({**info, "calls": calls}, {info["jobs"][0]: "failed"}) == [
            info["command"]
        ]


def resume_commands(out="out"):
    return list(sweep_status(out).commands)
