"""Every notebook is its master, runs from top to bottom, and stays readable."""

from __future__ import annotations

import json
import os
from dataclasses import fields
from pathlib import Path
from typing import get_type_hints

import nbformat
import numpy as np
import pytest

from rbkit.report.engine import execute
from rbkit.report.html import assert_offline, notebook_to_html
from rbkit.report.notebooks import check
from rbkit.report.parameters import RunParameters, declared
from rbkit.train import Run, list_runs

FOLDER = Path(__file__).parents[2] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
each = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)


def cells(path, kind):
    return [c for c in nbformat.read(path, as_version=4).cells if c.cell_type == kind]


def test_notebooks_and_masters_are_in_step():
    assert check(FOLDER / "src", FOLDER) == []
    assert len(NOTEBOOKS) == len(list((FOLDER / "src").glob("[0-9]*.py"))) > 0


@each
def test_no_outputs_are_committed_and_cell_ids_are_unique(path):
    notebook = nbformat.read(path, as_version=4)
    assert not any(c.get("outputs") or c.get("execution_count") for c in notebook.cells)
    ids = [c.id for c in notebook.cells]
    assert len(set(ids)) == len(ids)


@each
def test_cells_are_short_and_explained(path):
    code = [c for c in cells(path, "code") if "parameters" not in c.metadata.get("tags", [])]
    lines = [len([x for x in c.source.splitlines() if x.strip()]) for c in code]
    assert np.median(lines) <= 4
    assert np.percentile(lines, 90) <= 12
    assert max(lines) <= 25
    assert len(cells(path, "markdown")) >= len(code) / 2
    assert any("assert " in c.source for c in code), "a claim wants a check"


@each
def test_every_notebook_can_be_made_small(path):
    assert "profile" in declared(path)


def test_the_run_template_declares_the_parameters_of_a_run():
    ours, template = fields(RunParameters), declared(FOLDER / "90_run.ipynb")
    assert template.names == [f.name for f in ours]
    assert template.hints == get_type_hints(RunParameters)
    assert template.defaults == RunParameters().to_dict()
    assert template.helps == {f.name: f.metadata["help"] for f in ours}


@pytest.mark.slow
@pytest.mark.notebook
@each
def test_the_notebook_runs_from_top_to_bottom_and_exports_offline(path, tmp_path):
    done = execute(path, {}, tmp_path, profile="smoke", progress=False, timeout=300)
    notebook = nbformat.read(done, as_version=4)
    assert notebook.metadata.papermill.exception is None
    assert all(c.execution_count for c in notebook.cells if c.cell_type == "code" and c.source)
    # A notebook that trains leaves run folders where it was told to.
    trains = "rb.train(" in "".join(c.source for c in cells(path, "code"))
    runs = [Run.open(tmp_path)] if path.stem == "90_run" else list_runs(tmp_path)
    assert runs or not trains
    assert all(run.status == "ok" for run in runs)
    html = notebook_to_html(done, tmp_path / "run.html").read_text()
    assert assert_offline(html) == []
    formulas = any("$" in c.source for c in cells(path, "markdown"))
    assert "<math" in html or not formulas
    assert str(Path.home()) not in json.dumps([c.source for c in notebook.cells])
    images = html.count("<img")
    assert images >= 5
    assert html.count('alt="') >= images
    assert os.path.getsize(tmp_path / "run.html") < 3e6


@pytest.mark.slow
@pytest.mark.notebook
@pytest.mark.parametrize(
    "name", ["00_tour", "05_train_live", "06_mixers", "07_costs", "11_sweeps", "91_compare"]
)
def test_all_cells_can_be_run_twice_into_one_folder(name, tmp_path):
    notebook = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    given = f"run_dir, profile = {str(tmp_path / 'runs')!r}, 'smoke'"
    cells = []
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cells.append(nbformat.v4.new_code_cell(cell.source))
            if "parameters" in cell.metadata.get("tags", []):
                cells.append(nbformat.v4.new_code_cell(given))
    notebook.cells = cells + [nbformat.v4.new_code_cell(cell.source) for cell in cells]
    nbformat.write(notebook, tmp_path / "twice.ipynb")
    execute(tmp_path / "twice.ipynb", {}, tmp_path / "out", progress=False, timeout=300)
    assert all(run.status == "ok" for run in list_runs(tmp_path / "runs"))
