import json
import os
import shutil
import sys

import nbformat
import pytest
from nbformat.v4 import new_output

from rbkit.errors import InputError
from rbkit.report import notebooks
from rbkit.report.notebooks import build, check, find_notebook, pull, read_notebook, render

pytest.importorskip("jupytext")
MASTER = """# ---
# jupyter:
#   kernelspec:
#     display_name: Other
#     language: python
#     name: other
# ---

# %% [markdown]
# # A title
#
# Some *text*.

# %% tags=["parameters"]
steps: int = 3  # steps

# %%
print(steps)

# %%
print(steps)
"""


@pytest.fixture
def folders(tmp_path):
    src, out = tmp_path / "src", tmp_path / "out"
    src.mkdir()
    (src / "00_tour.py").write_text(MASTER)
    build(src, out)
    return src, out


def test_building_twice_gives_the_same_bytes(folders):
    src, out = folders
    first = (out / "00_tour.ipynb").read_bytes()
    assert build(src, out) == []  # nothing changed, nothing written
    (out / "00_tour.ipynb").unlink()
    build(src, out)
    assert (out / "00_tour.ipynb").read_bytes() == first


def test_cells_have_their_tags_and_ids_from_their_own_text(folders):
    made = json.loads((folders[1] / "00_tour.ipynb").read_text())
    assert made["cells"][1]["metadata"] == {"tags": ["parameters"]}
    assert made["metadata"]["kernelspec"]["name"] == "python3"
    ids = [cell["id"] for cell in made["cells"]]
    assert len(set(ids)) == 4
    assert ids[2][:-2] == ids[3][:-2]
    assert (ids[2][-2:], ids[3][-2:]) == ("-0", "-1")


def test_changing_one_cell_changes_one_id(folders):
    src, out = folders
    before = [cell["id"] for cell in json.loads((out / "00_tour.ipynb").read_text())["cells"]]
    (src / "00_tour.py").write_text(MASTER.replace("Some *text*", "Other text"))
    build(src, out)
    after = [cell["id"] for cell in json.loads((out / "00_tour.ipynb").read_text())["cells"]]
    assert [a == b for a, b in zip(before, after, strict=True)] == [False, True, True, True]


def test_a_built_notebook_is_valid_and_has_no_outputs(folders):
    made = nbformat.read(folders[1] / "00_tour.ipynb", as_version=4)
    nbformat.validate(made)
    assert all(not cell.get("outputs") for cell in made.cells)


def test_check_finds_what_is_out_of_step(folders):
    src, out = folders
    assert check(src, out) == []
    made = nbformat.read(out / "00_tour.ipynb", as_version=4)
    made.cells[2].outputs = [new_output("stream", text="3")]
    nbformat.write(made, out / "00_tour.ipynb")
    (src / "01_new.py").write_text("# %%\n1\n")
    (out / "09_stray.ipynb").write_text("{}")
    problems = check(src, out)
    assert [p.split(";")[0] for p in problems] == [
        "00_tour.ipynb: holds outputs",
        "01_new.ipynb: missing",
        "09_stray.ipynb: has no master",
    ]


def test_edits_made_in_the_notebook_come_back(folders):
    src, out = folders
    made = nbformat.read(out / "00_tour.ipynb", as_version=4)
    made.cells[2].source = "print(steps + 1)"
    made.cells[2].outputs = [new_output("stream", text="4")]
    nbformat.write(made, out / "00_tour.ipynb")
    pull(out / "00_tour.ipynb", src / "00_tour.py")
    assert "print(steps + 1)" in (src / "00_tour.py").read_text()
    build(src, out)
    assert check(src, out) == []


def test_a_pulled_master_has_no_header_that_changes_with_versions(folders):
    src, out = folders
    pull(out / "00_tour.ipynb", src / "00_tour.py")
    assert (src / "00_tour.py").read_text().startswith("# %% [markdown]\n# # A title")


def test_a_master_that_makes_no_notebook_is_named(folders):
    (folders[0] / "00_tour.py").write_text("# ---\n# jupyter:\n#   kernelspec: 3\n# ---\n")
    with pytest.raises(InputError, match=r"00_tour\.py: "):
        build(*folders)


def test_pulling_a_built_notebook_changes_no_cell(folders):
    src, out = folders
    pull(out / "00_tour.ipynb", src / "00_tour.py")
    assert render(src / "00_tour.py") == (out / "00_tour.ipynb").read_text()


def test_without_jupytext_the_remedy_is_named(folders, monkeypatch):
    monkeypatch.setitem(sys.modules, "jupytext", None)
    with pytest.raises(InputError, match=r"pip install 'rbkit\[dev\]'"):
        build(*folders)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        build(tmp_path / "nowhere", tmp_path)


def test_an_installed_package_works_on_a_copy_that_keeps_what_is_there(tmp_path, monkeypatch):
    environment = tmp_path / "env" / "share" / "rbkit" / "notebooks"
    shutil.copytree(find_notebook("00_tour").parent, environment)
    monkeypatch.setattr(notebooks, "find_notebook", lambda name: environment / f"{name}.ipynb")
    monkeypatch.chdir(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in environment.iterdir()}
    folder = notebooks.notebooks_folder()
    assert folder == tmp_path / "rbkit-notebooks"
    (folder / "00_tour.ipynb").write_text("mine")
    (folder / "90_run.ipynb").unlink()
    assert notebooks.notebooks_folder(folder) == folder
    assert (folder / "00_tour.ipynb").read_text() == "mine"
    assert (folder / "90_run.ipynb").read_bytes() == (environment / "90_run.ipynb").read_bytes()
    assert {path: path.stat().st_mtime_ns for path in environment.iterdir()} == before
    with pytest.raises(InputError, match="belongs to the environment"):
        notebooks.notebooks_folder(environment)
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="file: cannot be written"):
        notebooks.notebooks_folder(tmp_path / "file")


def test_in_a_checkout_its_own_notebooks_are_opened():
    assert notebooks.notebooks_folder() == find_notebook("00_tour").parent


@pytest.mark.timeout(60)
def test_only_a_regular_file_is_a_notebook(tmp_path):
    os.mkfifo(tmp_path / "pipe.ipynb")
    (tmp_path / "deep.ipynb").write_text("[" * 100_000)
    (tmp_path / "list.ipynb").write_text("[1]")
    facts = {"nbformat": 4, "nbformat_minor": 5, "cells": []}
    for name, kernel in (("word", "python3"), ("number", {"name": 3})):
        whole = facts | {"metadata": {"kernelspec": kernel}}
        (tmp_path / f"{name}.ipynb").write_text(json.dumps(whole))
    for name in ("pipe", "deep", "list", "word", "number"):
        with pytest.raises(InputError, match=r"not a regular file|not a notebook"):
            read_notebook(tmp_path / f"{name}.ipynb")
