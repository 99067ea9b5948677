"""Tiny notebooks to sweep over, and job files as a launcher leaves them."""

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from rbkit.report.sweep.folder import read_job, write_job

KERNEL = {"name": "python3", "language": "python", "display_name": "Python 3"}
CELL = """from typing import Literal
mixer: str = "Target"  # rule that sets the proportions
rate: float = 1e-3  # of learning
seed: int = 0
how: Literal["slow", "fast", 2] = "slow"
k: tuple[int, ...] | int = (8, 12)  # domains
options: dict[str, float] = {}
data: str = ""
run_dir: str = ""
resume: bool = False"""


@pytest.fixture
def template(tmp_path):
    """Write a notebook with this cell of parameters, and return its path."""

    def write(cell=CELL, code="print(seed)", text="# Test", name="try.ipynb"):
        cells = [
            new_markdown_cell(text),
            new_code_cell(cell, metadata={"tags": ["parameters"]}),
            new_code_cell(code),
        ]
        nbformat.write(new_notebook(cells=cells, metadata={"kernelspec": KERNEL}), tmp_path / name)
        return tmp_path / name

    return write


@pytest.fixture
def ends():
    """Write into a job how it ended, as a launcher would."""

    def write(job, status, **more):
        changed = {"status": status, "attempts": 1, "seconds": 2.5, **more}
        write_job(job.run_dir, {**read_job(job.run_dir), **changed})

    return write


@pytest.fixture
def tiny(tmp_path):
    """Write a notebook of such cells; ``parameters`` come before them."""

    def write(*sources, parameters='seed: int = 0\nrun_dir: str = ""'):
        first = new_code_cell(parameters, metadata={"tags": ["parameters"]})
        cells = [first, *map(new_code_cell, sources)]
        path = tmp_path / "tiny.ipynb"
        nbformat.write(new_notebook(cells=cells, metadata={"kernelspec": KERNEL}), path)
        return path

    return write
