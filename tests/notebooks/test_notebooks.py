"""Every notebook is its master, runs from top to bottom, and stays readable."""

from __future__ import annotations

import json
import os
import re
from dataclasses import fields
from pathlib import Path
from typing import get_type_hints

import nbformat
import numpy as np
import pytest

from rbkit.report.engine import execute
from rbkit.report.html import assert_offline, mathml, notebook_to_html
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
def test_headings_are_headings_and_every_formula_becomes_mathml(path):
    markdown = "\n\n".join(cell.source for cell in cells(path, "markdown"))
    lines = re.sub(r"```.*?```", "", markdown, flags=re.S).splitlines()
    assert [line for line in lines if re.match("#{1,6} ", line) and len(line) > 78] == []
    formulas = re.findall(r"\$\$(.+?)\$\$|\$([^$]+?)\$", markdown, re.S)
    shown = [mathml(display or inline) for display, inline in formulas]
    assert [formula for formula in shown if not formula.startswith("<math")] == []


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
def test_it_runs_from_top_to_bottom_exports_offline_and_can_be_run_again(path, tmp_path):
    once, out = len(nbformat.read(path, as_version=4).cells), tmp_path / "out"
    if path.stem in RUN_TWICE:
        again = with_all_cells_again(path, out)
        nbformat.write(again, path := tmp_path / path.name)
    given = {"corpus": "docstrings"} if path.stem == "90_run" else {}  # no download
    done = execute(path, given, out, profile="smoke", progress=False, timeout=300)
    notebook = nbformat.read(done, as_version=4)
    assert notebook.metadata.papermill.exception is None
    assert all(c.execution_count for c in notebook.cells if c.cell_type == "code" and c.source)
    # A notebook that trains leaves run folders where it was told to.
    trains = "rb.train(" in "".join(c.source for c in cells(path, "code"))
    runs = [Run.open(out)] if path.stem == "90_run" else list_runs(out)
    assert runs or not trains
    assert all(run.status == "ok" for run in runs)
    notebook.cells = notebook.cells[: once + 1]  # with the cell of the given parameters
    nbformat.write(notebook, done)
    html = notebook_to_html(done, out / "run.html").read_text()
    assert assert_offline(html) == []
    formulas = any("$" in c.source for c in cells(path, "markdown"))
    assert "<math" in html or not formulas
    assert str(Path.home()) not in json.dumps([c.source for c in notebook.cells])
    images = html.count("<img")
    assert images >= 5
    assert html.count('alt="') >= images
    assert os.path.getsize(out / "run.html") < 3e6


RUN_TWICE = ("00_tour", "05_train_live", "06_mixers", "07_costs", "11_sweeps", "91_compare")


def with_all_cells_again(path, run_dir):
    """Return the notebook with all of its code a second time, as who clicks "Run all" again."""
    notebook = nbformat.read(path, as_version=4)
    for cell in cells(path, "code"):
        notebook.cells.append(nbformat.v4.new_code_cell(cell.source))
        if "parameters" in cell.metadata.get("tags", []):
            given = f"run_dir, profile = {str(run_dir)!r}, 'smoke'"
            notebook.cells.append(nbformat.v4.new_code_cell(given))
    return notebook
