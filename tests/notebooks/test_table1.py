"""Notebook 07 redoes the overheads of the paper's Table 1, cell by cell."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace

import nbformat
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from pandas import Series

from rbkit import show
from rbkit.train.costs import TABLE_4, Budget, relative_overhead, table4

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "07_costs.ipynb"


@pytest.fixture(scope="module")
def table1():
    """What the cells with the tag table1 define; setup and plotting helpers are given to them."""

    def picture(width, height):
        return Figure(figsize=(width, height), layout="constrained").subplots()

    def label(ax, title, alt):
        ax.set_title(title)
        show.set_alt(ax, alt)

    names = {
        "Budget": Budget,
        "Series": Series,
        "Decimal": Decimal,
        "GREY": "#59636e",
        "Rectangle": Rectangle,
        "label": label,
        "picture": picture,
        "relative_overhead": relative_overhead,
        "replace": replace,
        "show": show,
        "table4": table4,
    }
    for cell in nbformat.read(NOTEBOOK, as_version=4).cells:
        if "table1" in cell.metadata.get("tags", []):
            exec(cell.source, names)
    return SimpleNamespace(**{name: names[name] for name in names if not name.startswith("__")})


# Every number of Table 1's overhead columns, and what our settings make of it, to four digits.
EXPECTED = {
    ("Dolly", "Skill-It"): ("14.46", 14.4625),
    ("Dolly", "Aioli"): ("62.5", 62.5),
    ("Dolly", "DGA"): ("0.41", 0.41172),
    ("Dolly", "R&B"): ("0.0006", 0.00065104),
    ("NI", "Skill-It"): ("595.5", 595.5),
    ("NI", "Aioli"): ("1336.5", 1336.5),
    ("NI", "DGA"): ("1.723", 1.72275),
    ("NI", "R&B"): ("0.009", 0.0091553),
    ("NI-test", "Skill-It"): ("6e7", 14568.1),
    ("NI-test", "Aioli"): ("7e6", 124843.75),
    ("NI-test", "DGA"): ("1601", 6.12109),
    ("NI-test", "R&B"): ("0.1", 0.101725),
}


@pytest.mark.parametrize(("corpus", "method"), EXPECTED)
def test_a_printed_overhead_and_its_recomputation(table1, corpus, method):
    cell = table1.audit(corpus, method)
    printed, value = EXPECTED[corpus, method]
    assert cell["printed"] == printed
    assert cell["recomputed"] == pytest.approx(value, rel=1e-4)


def test_every_printed_cell_is_audited_once(table1):
    cells = [(cell["corpus"], cell["method"]) for cell in table1.cells]
    assert cells == [(c, method) for c in ("Dolly", "NI", "NI-test") for method in TABLE_4]


def test_the_status_says_whether_the_numbers_agree(table1):
    for cell in table1.cells:
        agrees = table1.agrees(cell["printed"], cell["recomputed"])
        assert (cell["status"] != "not reproducible") == agrees
        as_stated = table1.agrees(cell["printed"], cell["as stated"])
        assert (cell["status"] == "reproduced") == as_stated
        assert bool(cell["reason"]) == (cell["status"] != "reproduced")


def test_three_cells_cannot_be_reproduced_and_one_slip_explains_them(table1):
    lost = [cell for cell in table1.cells if cell["status"] == "not reproducible"]
    assert [(c["corpus"], c["method"]) for c in lost] == [
        ("NI-test", "Skill-It"),
        ("NI-test", "Aioli"),
        ("NI-test", "DGA"),
    ]
    for cell in lost:
        assert table1.agrees(cell["printed"], cell["slip"])
        assert not table1.agrees(cell["printed"], cell["recomputed"])
    assert "swapped" in lost[0]["reason"]


@given(value=st.floats(1e-6, 1e8), digits=st.integers(1, 5))
def test_a_number_agrees_with_its_rounding_and_with_little_else(table1, value, digits):
    printed = f"{value:.{digits - 1}e}"
    assert table1.agrees(printed, value)
    beyond = float(printed) + 1.01 * 10.0 ** (np.floor(np.log10(value)) + 1)
    assert not table1.agrees(printed, beyond)


def test_every_cell_is_drawn_with_both_numbers_and_a_sign_beside_its_colour(table1):
    ax = table1.draw_table(table1.cells)
    written = [text.get_text() for text in ax.texts]
    for cell in table1.cells:
        assert f"{cell['printed']} %" in written
        assert f"recomputed {table1.percent(cell['recomputed'])}" in written
    for sign in "✓≈✗":
        assert any(sign in text for text in written)
    assert len({patch.get_facecolor() for patch in ax.patches}) == 3
    assert show.png(ax, 40)


def test_the_words_of_the_figure_say_which_cells_are_lost(table1):
    alt = show.alt_text(table1.draw_table(table1.cells))
    assert "3 not reproducible" in alt
    assert "DGA on NI-test" in alt


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1336.5, "1336.5 %"),
        (595.5, "595.5 %"),
        (0.0091553, "0.009155 %"),
        (1e-5, "0.00001 %"),
        (14568.1, "14,568 %"),
        (0.0, "0 %"),
    ],
)
def test_percentages_keep_four_digits(table1, value, text):
    assert table1.percent(value) == text
