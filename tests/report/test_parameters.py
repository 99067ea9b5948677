# ruff: noqa: RUF009  (declare() makes a dataclasses.field)
import json
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rbkit.errors import InputError
from rbkit.report.parameters import Parameters, RunParameters, ShellText, check, declare


@dataclass(frozen=True)
class Small(Parameters):
    rate: float = declare(0.1, "a rate")
    count: int = declare(3, "a number")
    on: bool = declare(False, "a switch")
    how: Literal["a", "b", 1] = declare("a", "a choice")
    maybe: int | None = declare(None, "a number or nothing")
    many: tuple[int, ...] | int = declare((1, 2), "numbers")
    weights: dict[str, float] | None = declare(None, "weights")


def test_parameters_not_given_keep_their_defaults():
    assert Small.from_mapping({}) == Small()
    assert RunParameters.from_mapping({}) == RunParameters()


def test_an_unknown_name_is_an_error_that_says_what_may_be_meant():
    with pytest.raises(InputError, match="learning_rat: no such parameter; did you mean l"):
        RunParameters.from_mapping({"learning_rat": 1e-3})


@pytest.mark.parametrize(
    ("name", "given_", "meant"),
    [
        ("rate", "1e-3", 0.001),
        ("rate", 3, 3.0),
        ("count", "300", 300),
        ("count", "-2", -2),
        ("count", 8.0, 8),
        ("count", np.float32(8), 8),
        ("count", torch.tensor(8), 8),
        ("maybe", torch.tensor(8), 8),
        ("rate", torch.tensor(0.5), 0.5),
        ("on", "true", True),
        ("on", "False", False),
        ("how", "b", "b"),
        ("maybe", "None", None),
        ("maybe", "5", 5),
        ("many", [8, 12], (8, 12)),
        ("many", "[8, 12]", (8, 12)),
        ("many", 8, 8),
        ("many", "8", 8),
        ("weights", '{"wiki": 1}', {"wiki": 1.0}),
        ("weights", None, None),
    ],
)
def test_what_is_unambiguous_is_converted(name, given_, meant):
    value = getattr(Small.from_mapping({name: given_}), name)
    assert value == meant
    assert type(value) is type(meant)


@pytest.mark.parametrize(
    ("name", "given_"),
    [
        ("count", "007"),
        ("count", 1.5),
        ("count", "1e3"),
        ("count", True),
        ("count", np.array([8])),
        ("count", torch.tensor(8.5)),
        ("count", torch.tensor(True)),
        ("count", None),
        ("count", "٣"),
        ("rate", "fast"),
        ("rate", float("nan")),
        ("rate", "inf"),
        ("rate", True),
        ("on", 1),
        ("on", "yes"),
        ("how", "c"),
        ("how", True),
        ("maybe", "x"),
        ("many", "(1, 2)"),
        ("many", [1, "x"]),
        ("many", {}),
        ("weights", [1]),
        ("weights", {"wiki": "much"}),
    ],
)
def test_what_is_not_is_refused_by_name_value_and_what_is_allowed(name, given_):
    with pytest.raises(InputError) as error:
        Small.from_mapping({name: given_})
    said = str(error.value)
    assert said.startswith(f"{name}: ")
    assert repr(given_) in said
    assert "give " in said


def test_a_literal_lists_what_is_allowed():
    allowed = 'give Literal\\["kmeans", "ward", "hdbscan", "sources"\\]'
    with pytest.raises(InputError, match=allowed):
        RunParameters.from_mapping({"cluster": "umap"})


@pytest.mark.parametrize("name", ["steps", "batch_size", "learning_rate", "max_examples"])
def test_numbers_that_cannot_work_are_refused(name):
    with pytest.raises(InputError, match=f"{name}: 0.* is not positive"):
        RunParameters.from_mapping({name: 0})


@pytest.mark.parametrize(
    ("given_", "message"),
    [
        ({"weight_decai": 0.1}, "weight_decai: .* did you mean weight_decay"),
        ({"learning_rate": 0.1}, "learning_rate: cannot be given in training_args"),
        ({"weight_decay": "much"}, "weight_decay: 'much' is not a number"),
    ],
)
def test_arguments_of_the_trainer_are_checked_before_a_run(given_, message):
    with pytest.raises(InputError, match=message):
        RunParameters.from_mapping({"training_args": given_})
    text = ShellText('{"weight_decay": 0.1, "max_grad_norm": 0.5}')
    made = RunParameters.from_mapping({"training_args": text}).training_args
    assert made == {"weight_decay": 0.1, "max_grad_norm": 0.5}


def test_no_domains_are_refused():
    for k in (0, [], [4, -1]):
        with pytest.raises(InputError, match=r"^k: "):
            RunParameters.from_mapping({"k": k})


VALUES = st.fixed_dictionaries(
    {},
    optional={
        "rate": st.floats(-1e9, 1e9),
        "count": st.integers(),
        "on": st.booleans(),
        "how": st.sampled_from(["a", "b", 1]),
        "maybe": st.none() | st.integers(),
        "many": st.lists(st.integers(), max_size=5).map(tuple) | st.integers(),
        "weights": st.none() | st.dictionaries(st.text(max_size=5), st.floats(0, 1), max_size=3),
    },
)


@given(VALUES)
def test_parameters_survive_json(values):
    made = Small.from_mapping(values)
    assert Small.from_mapping(json.loads(made.to_json())) == made


@given(VALUES)
def test_equal_parameters_have_the_same_json(values):
    backwards = dict(reversed(list(values.items())))
    assert Small.from_mapping(values).to_json() == Small.from_mapping(backwards).to_json()


@given(VALUES)
def test_checking_twice_changes_nothing(values):
    once = Small.from_mapping(values)
    assert Small.from_mapping(once.__dict__) == once


@given(st.text())
def test_text_parameters_take_any_text(text):
    assert check("mixer", text, str) == text


def test_other_variables_of_a_notebook_do_not_matter():
    assert RunParameters.from_globals({"steps": 7, "np": object(), "x": 1}).steps == 7


def test_mutable_defaults_are_not_shared():
    assert RunParameters().mixer_options is not RunParameters().mixer_options


def test_a_type_that_json_does_not_have_is_refused_in_one_line():
    with pytest.raises(InputError, match="x"):
        check("x", [1, 2], np.ndarray)
