"""An error says where, what and what to do, also after a journey between processes."""

import multiprocessing

import pytest

from rbkit.errors import AssetError, InputError


def fail(kind):
    raise kind("k", "500 domains\nasked of 120", "choose fewer")


@pytest.mark.parametrize("kind", [InputError, AssetError])
def test_an_error_of_a_worker_arrives_whole(kind):
    with multiprocessing.get_context("spawn").Pool(1) as pool, pytest.raises(kind) as caught:
        pool.apply(fail, (kind,))
    assert str(caught.value) == "k: 500 domains asked of 120; choose fewer"
    assert caught.value.remedy == "choose fewer"
