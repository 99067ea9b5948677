"""A folder of runs over time: the notebook changes, moves, is another one of the same name."""

import shutil

import pytest

from rbkit.errors import InputError
from rbkit.report.sweep import launch, sweepfile
from rbkit.report.sweep.plan import make_plan

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
    info = sweepfile.read_sweep("out")
    assert info["superseded"] == [job.id for job in first.jobs]
    assert info["jobs"] == [job.id for job in second.jobs]


@pytest.mark.parametrize(
    ("cell", "grid"),
    [(CELL + "\nk: int = 3", "seed=0..1 k=4"), (CELL, "seed=2..3"), (CELL, "seed=0..1 rate=0.2")],
)
def test_runs_that_were_asked_to_be_something_else_stay(plan, cell, grid):
    first = plan()
    plan(grid, cell, "print(seed + 1)")
    assert sweepfile.read_sweep("out")["jobs"][:2] == [job.id for job in first.jobs]


def test_what_has_changed_is_named(plan, template, tmp_path, capsys):
    (tmp_path / "a.txt").write_text("1")
    plan(data="a.txt")
    (tmp_path / "a.txt").write_text("2")
    launch.sweep("try.ipynb", "seed=0", "out", parameters={"data": "a.txt"}, dry_run=True)
    assert "make way for new ones; changed: the data of data\n" in capsys.readouterr().err
    template(CELL, code="print(seed + 1)")
    launch.sweep("try.ipynb", "seed=0", "out", parameters={"data": "a.txt"}, dry_run=True)
    said = capsys.readouterr().err
    assert "make way for new ones; changed: the notebook's code, the data of data\n" in said


def test_another_notebook_of_the_same_name_gets_another_folder(plan, template, tmp_path):
    first = plan()
    elsewhere = tmp_path / "elsewhere" / "try.ipynb"
    elsewhere.parent.mkdir()
    shutil.copy("try.ipynb", elsewhere)
    make_plan(elsewhere, "seed=0..1", "out").write()  # a copy is the same
    template(CELL, code="print('another')", name="elsewhere/try.ipynb")
    plan()
    with pytest.raises(InputError, match=r"holds a sweep of another notebook, .*try.ipynb; give"):
        make_plan(elsewhere, "seed=0..1", "out").write()
    (tmp_path / "try.ipynb").unlink()  # then it has been moved
    make_plan(elsewhere, "seed=0..1", "out").write()
    assert sweepfile.read_sweep("out")["superseded"] == [job.id for job in first.jobs]
