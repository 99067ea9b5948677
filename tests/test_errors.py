"""An error says where, what and what to do, also after a journey between processes."""

import multiprocessing
import warnings
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
import torch

from rbkit.errors import AssetError, InputError, RbkitError, RbkitWarning, as_count, as_seed


def fail(kind):
    raise kind("k", "500 domains\nasked of 120", "choose fewer")


@pytest.mark.parametrize("kind", [InputError, AssetError])
def test_an_error_of_a_worker_arrives_whole(kind):
    with multiprocessing.get_context("spawn").Pool(1) as pool, pytest.raises(kind) as caught:
        pool.apply(fail, (kind,))
    assert str(caught.value) == "k: 500 domains asked of 120; choose fewer"
    assert caught.value.remedy == "choose fewer"


@pytest.mark.parametrize(
    "value",
    [8, 8.0, np.int8(8), np.uint64(8), np.float16(8), np.array(8), torch.tensor(8), Fraction(8),
     torch.tensor(8.0, dtype=torch.bfloat16), Decimal(8), np.longdouble(8), pd.Series([8])[0]],
)  # fmt: skip
def test_a_count_is_a_whole_number_of_any_library(value):
    assert as_count("k", value) == 8
    assert type(as_count("k", value)) is int


@pytest.mark.parametrize(
    "value",
    [True, np.True_, torch.tensor(True), "8", b"8", 8.5, np.float32(8.5), np.nan, np.inf, None,
     [8], np.array([8]), torch.tensor([8]), pd.NA, np.timedelta64(8, "ns"), 8 + 1j, np.str_("8"),
     Decimal("NaN"), torch.empty((), device="meta"), object()],
)  # fmt: skip
def test_nothing_else_is_a_count(value):
    with pytest.raises(InputError, match=r"k: .* is not a whole number; give an integer of 0"):
        as_count("k", value)


def test_the_range_of_a_count_is_named():
    for value, least, what in ((-1, 0, "negative"), (0, 1, "not positive"), (1, 2, "too few")):
        with pytest.raises(InputError, match=f"k: {value} is {what}"):
            as_count("k", value, least=least)
    with pytest.raises(InputError, match=f"from 0 to {2**32 - 1}"):
        as_seed(2**32)


HOSTILE = "\x1b[31mred\x1b]0;title\x07 \u202eevil\x08"


@pytest.mark.parametrize("kind", [RbkitError, RbkitWarning])
def test_errors_and_warnings_are_safe_to_send_to_a_terminal(kind):
    assert str(kind(HOSTILE)) == "red evil"
    assert str(InputError(HOSTILE, HOSTILE, HOSTILE)) == "red evil: red evil; red evil"
    with pytest.warns(RbkitWarning) as caught:
        warnings.warn(HOSTILE, RbkitWarning, stacklevel=1)
    message = caught[0]
    said = warnings.formatwarning(message.message, message.category, "x.py", 1, "")
    assert said == "x.py:1: RbkitWarning: red evil\n"
