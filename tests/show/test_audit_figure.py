from __future__ import annotations

import pytest
from matplotlib.figure import Figure

from rbkit.show import alt_text, overhead_audit, png
from rbkit.show.audit_figure import percent
from rbkit.train.cost_audit import table1


def test_every_cell_is_there_with_both_numbers_and_a_sign_beside_its_colour():
    ax = overhead_audit(table1())
    written = [text.get_text() for text in ax.texts]
    for cell in table1():
        assert f"{cell.printed} %" in written
        assert f"recomputed {percent(cell.reproduced)}" in written
    for sign in "✓≈✗":
        assert any(sign in text for text in written)
    assert len({patch.get_facecolor() for patch in ax.patches}) == 3
    assert png(ax, 40)


def test_the_words_say_which_cells_are_lost():
    ax = Figure().subplots()
    assert overhead_audit(table1(), ax) is ax
    said = alt_text(ax)
    assert "3 not reproducible" in said
    assert "DGA on NI-test" in said


@pytest.mark.parametrize(
    ("value", "text"),
    [(1336.5, "1336.5 %"), (595.5, "595.5 %"), (0.0091553, "0.009155 %"), (1e-5, "0.00001 %")],
)
def test_percentages_keep_four_digits(value, text):
    assert percent(value) == text
