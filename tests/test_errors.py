"""An error says where, what and what to do, also after a journey between processes."""

import multiprocessing
import warnings

import pytest

from rbkit.errors import AssetError, InputError, RbkitError, RbkitWarning


def fail(kind):
    raise kind("k", "500 domains\nasked of 120", "choose fewer")


@pytest.mark.parametrize("kind", [InputError, AssetError])
def test_an_error_of_a_worker_arrives_whole(kind):
    with multiprocessing.get_context("spawn").Pool(1) as pool, pytest.raises(kind) as caught:
        pool.apply(fail, (kind,))
    assert str(caught.value) == "k: 500 domains asked of 120; choose fewer"
    assert caught.value.remedy == "choose fewer"


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
