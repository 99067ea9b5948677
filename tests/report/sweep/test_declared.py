"""Parameters of any notebook: read without running it, typed, checked by name."""

from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from rbkit.cli import read_parameters
from rbkit.errors import InputError
from rbkit.report.parameters import (
    COMPUTED,
    RUN_HINTS,
    RunParameters,
    ShellText,
    declared,
    read_cell,
    read_hint,
)

RUN = Path(__file__).parents[3] / "notebooks" / "90_run.ipynb"


@pytest.mark.parametrize(
    "hint",
    [
        int,
        float,
        str,
        bool,
        Any,
        list,
        dict,
        tuple,
        int | None,
        tuple[int, ...] | int,
        dict[str, float] | None,
        list[tuple[str, int]],
        Literal["a", 1, None],
        str | float | bool,
    ],
)
def test_hints_are_read_as_python_would(hint):
    written = str(hint).replace("typing.", "") if not isinstance(hint, type) else hint.__name__
    assert read_hint("Any" if hint is Any else written) == hint


def test_older_spellings_are_the_same_types():
    assert read_hint("Optional[int]") == int | None
    assert read_hint("typing.Union[int, 'str']") == int | str
    assert read_hint("typing.Literal['a']") == Literal["a"]


@pytest.mark.parametrize(
    "hint",
    [
        "Path",
        "datetime.date",
        "__import__('os').system('false')",
        "int if 1 else str",
        "[int]",
        "os.int",
        "Literal[print()]",
        "list[",
        "lambda: 1",
        "int | os",
    ],
)
def test_nothing_else_is_read_or_run(hint):
    with pytest.raises(ValueError, match=r"."):
        read_hint(hint)


def test_a_cell_is_read_with_types_defaults_and_help(template):
    found = declared(template())
    assert found.names == [
        "mixer",
        "rate",
        "seed",
        "how",
        "k",
        "options",
        "data",
        "run_dir",
        "resume",
    ]
    assert found.hints["k"] == tuple[int, ...] | int
    assert found.defaults["k"] == [8, 12]
    assert found.helps["rate"] == "of learning"
    assert found.helps["seed"] == ""


def test_without_hints_the_default_says_the_type():
    found = read_cell("a = 1\nb = 0.5\nc = 'x'\nd = [1]\ne = None\nf = True\n")
    assert [p.hint for p in found.values()] == [int, float, str, list, Any, bool]
    assert found["e"].check("1e-3") == 0.001
    assert found["e"].check("007") == "007"
    assert found["d"].check("[1, 2]") == [1, 2]


def test_what_only_the_notebook_can_compute_is_left_to_it(template):
    cell = "%matplotlib inline\n!ls\nfrom pathlib import Path\nhere = Path.cwd()\nn: int = 2\n"
    found = declared(template(cell + "bad = float('nan')\nday: Path = Path()"))
    assert found.parameters["here"].default is COMPUTED
    assert found.check({}) == {"n": 2}
    assert found.check({"here": "/tmp"}) == {"here": "/tmp", "n": 2}
    with pytest.raises(InputError, match=r"day: its type Path cannot be checked; declare it by in"):
        found.check({"day": "1"})


def test_a_parameter_without_default_must_be_given():
    found = read_cell("n: int")
    assert found["n"].required


def test_no_value_for_a_required_parameter_is_an_error(template):
    known = declared(template("n: int"))
    assert known.check({"n": "3"}) == {"n": 3}
    with pytest.raises(InputError, match=r"n: has no default; give it: -p n=VALUE"):
        known.check({})


@pytest.mark.parametrize(
    ("name", "given", "meant"),
    [
        ("rate", "1e-3", 0.001),
        ("rate", 1, 1.0),
        ("rate", np.float64(0.5), 0.5),
        ("seed", "3", 3),
        ("seed", np.int64(3), 3),
        ("how", "2", 2),
        ("k", "[8, 12]", [8, 12]),
        ("k", (8, 12), [8, 12]),
        ("k", "8", 8),
        ("options", '{"a": 1}', {"a": 1.0}),
        ("data", Path("a/b"), "a/b"),
        ("mixer", "rnb", "RnB"),
        ("mixer", "STRATIFIED", "Stratified"),
        ("resume", "true", True),
    ],
)
def test_values_become_what_is_declared(template, name, given, meant):
    found = declared(template()).check({name: given})[name]
    assert found == meant
    assert type(found) is type(meant)


@pytest.mark.parametrize(
    ("name", "given", "said"),
    [
        ("rat", 1, "rat: the notebook declares no such parameter; did you mean rate"),
        ("seed", "many", "seed: 'many' (str) is not allowed; give int"),
        ("seed", 1.5, "seed: 1.5 (float) is not allowed; give int"),
        ("how", "quick", 'how: \'quick\' (str) is not allowed; give Literal["slow", "fast", 2]'),
        ("mixer", "rbn", "mixer: 'rbn' is unknown; use one of Stratified, Proportional, Target"),
        ("options", '{"a": "b"}', "options: "),
        ("rate", "nan", "rate: 'nan' (str) is not allowed; give float"),
    ],
)
def test_what_is_wrong_is_said_with_the_name_and_what_is_allowed(template, name, given, said):
    with pytest.raises(InputError) as error:
        declared(template()).check({name: given})
    assert str(error.value).startswith(said)


@pytest.mark.parametrize(
    ("hint", "given"),
    [
        ("dict[int, float]", '{"0": 2}'),
        ("dict[int, float]", {0: 2.0}),
        ("dict", {1: 2}),
        ("Any", {"a": [{2: 3}]}),
    ],
)
def test_keys_that_would_arrive_as_text_are_refused(hint, given):
    found = read_cell(f"x: {hint} = {{0: 1.0}}")["x"]
    with pytest.raises(InputError, match=r"x: its key \d \(int\) would arrive as text; give keys"):
        found.check(given)


def test_the_run_notebook_is_checked_by_its_dataclass():
    known = declared(RUN)
    assert known.is_run
    assert known.hints == RUN_HINTS
    assert known.check({}) == RunParameters().to_dict()
    with pytest.raises(InputError, match="steps: 0 is not positive"):
        known.check({"steps": 0})
    with pytest.raises(InputError, match="mixer options of Target"):
        known.check({"mixer": "target", "mixer_options": '{"lam": 2}'})


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ('["a", "b"]', ["a", "b"]),
        ("null", None),
        ("None", "None"),
        ("lm_head", "lm_head"),
        ("[a", "[a"),
        (["a"], ["a"]),
    ],
)
def test_where_text_and_lists_are_allowed_what_looks_like_a_list_is_one(text, meant):
    assert declared(RUN).check({"layer": text})["layer"] == meant


@pytest.mark.parametrize(
    ("hint", "typed", "meant"),
    [
        ("int | str", "3", 3),
        ("str | int", "3", 3),
        ("int | str", "007", "007"),
        ("int | str", '"3"', "3"),
        ("int | str", '"a', '"a'),
        ("bool | str", "true", True),
        ("str | float | int", "3", 3),
        ("float | int", "3", 3),
        ("float | str", "1e-3", 0.001),
        ("float | str", "nan", "nan"),
        ("float | str", "1_000", "1_000"),
        ("str", '"3"', '"3"'),
        ("str | None", "None", None),
        ("str | None", '"None"', "None"),
        ("str | None", "none", "none"),
        ("str | list | None", "None", None),
        ("Any", "None", None),
        ("Any", '"None"', "None"),
        ("Any", "True", True),
        ("str", "None", "None"),
        ("str | None", "null", None),
        ("int | None", "None", None),
        ("str | list", "[1]", [1]),
    ],
)
def test_what_is_typed_in_a_shell_is_text_where_nothing_else_fits(hint, typed, meant):
    found = read_cell(f"x: {hint}")["x"]
    value = found.check(ShellText(typed))
    assert (value, type(value)) == (meant, type(meant))
    assert found.check(ShellText(found.as_text(value))) == value


def test_text_from_python_stays_text_where_text_is_allowed():
    assert read_cell("x: int | str")["x"].check("3") == "3"
    assert read_cell("x: str | None")["x"].check("None") == "None"


def test_none_on_the_command_line_is_none_wherever_a_parameter_may_be(template):
    known = declared(template("a: int | None = 3\nb: str | None = 'x'\nc = None\n"))
    given = read_parameters([f"{name}=None" for name in "abc"])
    assert known.check(given) == dict.fromkeys("abc")


@pytest.mark.parametrize("given", ["caf\udce9", ["\ud800"], {"\udfff": 1}])
def test_what_is_no_unicode_is_refused(given):
    with pytest.raises(InputError, match=r"x: .* is not all text; write it in UTF-8"):
        read_cell("x: str | list | dict = ''")["x"].check(given)


def test_a_copy_of_it_with_more_of_its_own_is_checked_as_well(template):
    cell = "mixer: str = 'RnB'\nsteps: int = 10\nnote: str = ''"
    known = declared(template(cell, code="RunParameters.from_globals(globals())"))
    assert known.check({"note": "x", "mixer": "ADO"}) == {"mixer": "ADO", "steps": 10, "note": "x"}
    with pytest.raises(InputError, match="steps: -1 is not positive"):
        known.check({"steps": "-1"})


def test_a_cell_that_is_no_python_is_named(template):
    with pytest.raises(InputError, match="the notebook's parameters cell: is not Python"):
        declared(template("seed: int ="))


def test_a_notebook_without_such_a_cell_takes_no_parameters(template):
    known = declared(template(cell=""))
    assert known.names == []
    with pytest.raises(InputError, match="tag a cell of it with: parameters"):
        known.check({"seed": 1})
