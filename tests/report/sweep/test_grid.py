"""A grid in one line: what is written is what is read."""

from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rbkit.errors import InputError
from rbkit.report.sweep.grid import format_grid, parse_grid

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats(0, 1) | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2)
    ),
    max_leaves=4,
)
VALUES = st.text(max_size=6) | JSON.filter(lambda v: isinstance(v, list | dict))
NAMES = st.from_regex(r"[a-z_][a-z0-9_]{0,5}", fullmatch=True)
GRIDS = st.dictionaries(NAMES, st.lists(VALUES, min_size=1, max_size=3), max_size=3)


@given(GRIDS)
def test_a_grid_survives_being_written(grid):
    assert parse_grid(format_grid(grid)) == grid
    assert list(parse_grid(format_grid(grid))) == list(grid)


@given(st.integers(-50, 50), st.integers(0, 20), st.integers(1, 7))
def test_ranges_include_both_ends(first, length, step):
    last = first + length * step
    numbers = parse_grid(f"seed={first}..{last}..{step}")["seed"]
    assert numbers == [str(first + i * step) for i in range(length + 1)]


@given(st.text(max_size=20))
def test_any_text_is_read_or_refused(text):
    with suppress(InputError):  # which is always one line
        assert all(parse_grid(text).values())


def test_spaces_separate_parameters_and_commas_values():
    assert parse_grid("mixer=stratified,target,rnb seed=0..4 k=10,30") == {
        "mixer": ["stratified", "target", "rnb"],
        "seed": ["0", "1", "2", "3", "4"],
        "k": ["10", "30"],
    }


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("k=[8,12],[16]", [[8, 12], [16]]),
        ('k={"prior":"target"},{}', [{"prior": "target"}, {}]),
        ('k="a b.jsonl",c.jsonl', ["a b.jsonl", "c.jsonl"]),
        ("k='say \"hi\", you'", ['say "hi", you']),
        (r'k="a\"b"', ['a"b']),
        ("k=0..4..2", ["0", "2", "4"]),
        ('k="0..4"', ["0..4"]),
        ("k=data/*.jsonl", ["data/*.jsonl"]),
        ("k=1e-3,-2", ["1e-3", "-2"]),
        ('k=""', [""]),
    ],
)
def test_quotes_and_brackets_protect(text, values):
    assert parse_grid(text) == {"k": values}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("target", "'target' has no '='"),
        ("mixer=a, b", "no value after ','"),
        ("mixer=", "no value after '='"),
        ("mixer=a,,b", "no value after ','"),
        ("k=4..0", "4..0 is not a range"),
        ("k=0..9999999999", "is not a range"),
        ("k=0..4..0", "is not a range"),
        ("k='a", "a quote is not closed"),
        ("k=[8,12", "not JSON"),
        ("k=[a]", "not JSON"),
        ("k=[NaN]", "not JSON"),
        ('k="a"b', "'b' follows a value"),
        ("k=1 k=2", "k: is in the grid twice"),
    ],
)
def test_what_makes_no_sense_is_shown_where_it_stops(text, said):
    with pytest.raises(InputError) as error:
        parse_grid(text)
    assert said in str(error.value)


def test_python_values_are_taken_as_they_are():
    grid = parse_grid(
        {
            "seed": range(3),
            "rate": np.array([0.1]),
            "mixer": "rnb",
            "k": [(8, 12)],
            "options": {"a": 1},
        }
    )
    assert grid == {
        "seed": [0, 1, 2],
        "rate": [0.1],
        "mixer": ["rnb"],
        "k": [(8, 12)],
        "options": [{"a": 1}],
    }


def test_several_grids_multiply_and_must_not_overlap():
    assert parse_grid(["a=1,2", {"b": [3]}]) == {"a": ["1", "2"], "b": [3]}
    for wrong in (["a=1", "a=2"], {"a": []}, {"a": {1, 2}}):
        with pytest.raises(InputError, match=r"^a: "):
            parse_grid(wrong)
