"""A tracker is saved and goes on in the middle of a round."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from rbkit.balance import GramTracker
from rbkit.errors import InputError

M = 3


def test_a_saved_tracker_goes_on_in_the_middle_of_a_round():
    torch.manual_seed(0)
    layer, batches = nn.Linear(4, 300), torch.randn(4, 6, 4)

    def watch(tracker, part):
        for x in part:
            with tracker.batch([0, 0, 1, 1, 2, 0]):
                layer(x).square().sum().backward()

    whole = GramTracker(layer, M, seed=5)
    watch(whole, batches)
    half = GramTracker(layer, M, seed=5)
    watch(half, batches[:2])
    rest = GramTracker(layer, M, seed=5)
    rest.load_state_dict(half.state_dict())
    watch(rest, batches[2:])
    np.testing.assert_array_equal(rest.estimate().gram, whole.estimate().gram)
    np.testing.assert_array_equal(rest.estimate().noise_floor, whole.estimate().noise_floor)


def test_each_layer_gets_its_own_operations_back():
    layers, x = [nn.Linear(4, 300), nn.Linear(4, 50)], torch.randn(2, 4)
    saved = GramTracker(layers, 1)
    with saved.batch([0, 0]):
        sum(layer(x).square().sum() for layer in layers).backward()
    state = saved.state_dict()
    restored = GramTracker(layers, 1)
    restored.load_state_dict(state)
    for one, other in zip(saved._watched, restored._watched, strict=True):
        assert (one.products, one.additions) == (other.products, other.additions)
    # Those of all layers together, as an older state has them, still count.
    restored.load_state_dict(state | {"operations": [7, 5]})
    assert (restored.products, restored.flops) == (7, 12)


@pytest.mark.parametrize("changed", [{"buckets": 8}, {"estimator": "exact"}, {"seed": 1}])
def test_a_tracker_with_other_settings_cannot_go_on(changed):
    saved = GramTracker(nn.Linear(4, 300), M).state_dict()
    with pytest.raises(InputError, match=f"resume with the {next(iter(changed))}"):
        GramTracker(nn.Linear(4, 300), M, **changed).load_state_dict(saved)
    with pytest.raises(InputError, match="resume with the layers"):
        GramTracker(nn.Linear(4, 200), M).load_state_dict(saved)


def test_sums_of_a_sketch_of_another_size_are_refused():
    layer = nn.Linear(4, 9000)
    saved = GramTracker(layer, M, buckets=7)
    with saved.batch([0, 1, 2]):
        layer(torch.eye(3, 4)).square().sum().backward()
    state = saved.state_dict()
    state["settings"]["buckets"] = None  # as if the default had been 7
    tracker = GramTracker(layer, M)
    tracker.load_state_dict(state)
    with (
        pytest.raises(InputError, match="the version of rbkit that saved it"),
        tracker.batch([0, 1, 2]),
    ):
        layer(torch.eye(3, 4)).square().sum().backward()
