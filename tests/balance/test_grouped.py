"""The layer's own gradient, made domain by domain: the same gradient, and no product more."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode
from transformers.pytorch_utils import Conv1D

from rbkit.balance import GramTracker
from rbkit.errors import InputError

M = 3
EXAMPLES = np.array([0, 2, 1, 0, -1, 2])
TOKENS = np.array([[0, 0, 1, 1], [2, -1, -1, 2], [1, 1, 1, 1], [-1, -1, -1, -1], [0] * 4, [2] * 4])


def net(**options):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 50, **options))


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("ids", [EXAMPLES, TOKENS], ids=["examples", "tokens"])
def test_it_takes_not_one_product_more_than_training(ids, bias):
    model, x = net(bias=bias), torch.randn(6, 4, 5)
    with FlopCounterMode(display=False) as plain:
        model(x).square().sum().backward()
    expected = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    tracker = GramTracker(model[2], M, estimator="grouped")
    with FlopCounterMode(display=False) as watched, tracker.batch(ids):
        model(x).square().sum().backward()
    assert watched.get_total_flops() == plain.get_total_flops()
    assert tracker.products == 0
    for parameter, gradient in zip(model.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)


@pytest.mark.parametrize("ids", [EXAMPLES, TOKENS], ids=["examples", "tokens"])
def test_it_sees_what_the_exact_estimator_sees(ids):
    grams = []
    for estimator in ("exact", "grouped"):
        model, x = net().double(), torch.arange(120).view(6, 4, 5).double().sin()
        tracker = GramTracker([model[0], model[2]], M, estimator=estimator)
        for _ in range(2):
            with tracker.batch(ids, scale=3.0):
                model(x).square().sum().backward()
        grams.append(tracker.estimate())
    np.testing.assert_allclose(grams[1].gram, grams[0].gram, rtol=1e-9)
    np.testing.assert_allclose(grams[1].noise_floor, grams[0].noise_floor, rtol=1e-6, atol=1e-9)
    np.testing.assert_array_equal(grams[1].counts, grams[0].counts)


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("checkpointing", [None, False, True])
def test_a_language_model_gets_the_gradients_it_would_have_had(
    run_round, tiny_lm, tied, checkpointing, autocast
):
    """Four batches without a step are gradient accumulation as well."""
    options = {"checkpointing": checkpointing, "autocast": autocast}
    options["layers"] = ("lm_head", "model.layers.1.mlp.up_proj")
    plain, grouped = (tiny_lm(tied=tied, dtype=torch.float32) for _ in range(2))
    first = run_round(plain, **options)
    second = run_round(grouped, estimator="grouped", **options)
    near = 2e-2 if autocast else 1e-5
    for (name, p), other in zip(grouped.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(
            p.grad, other.grad, rtol=near, atol=near * float(other.grad.abs().max()), msg=name
        )
    for exact, parts in zip(first, second, strict=True):
        one, two = exact.estimate().gram, parts.estimate().gram
        assert np.abs(one - two).max() < (3e-2 if autocast else 1e-5) * np.abs(one).max()


def test_the_output_is_the_layers_own_under_autocast():
    model, x = net(bias=True), torch.randn(6, 5)
    tracker = GramTracker(model[2], M, estimator="grouped")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        plain = model(x)
        with tracker.batch(EXAMPLES):
            watched = model(x)
    assert watched.dtype == plain.dtype == torch.bfloat16
    assert torch.equal(watched, plain)


def test_checkpointing_of_the_watched_layer_itself_changes_nothing():
    grams = []
    for reentrant in (None, False, True):
        model, x = net().double(), torch.arange(30).view(6, 5).double().sin().requires_grad_()
        run = partial(checkpoint, model[2], use_reentrant=reentrant)
        tracker = GramTracker(model[2], M, estimator="grouped")
        with tracker.batch(EXAMPLES):
            hidden = model[1](model[0](x))
            out = model[2](hidden) if reentrant is None else run(hidden)
            out.square().sum().backward()
        grams.append(tracker.estimate().gram)
    np.testing.assert_allclose(grams[1], grams[0], rtol=1e-12)
    np.testing.assert_allclose(grams[2], grams[0], rtol=1e-12)


def test_a_frozen_layer_is_tracked_at_its_price():
    model, x = net().double(), torch.randn(6, 4, 5).double()
    model[2].weight.requires_grad_(False)
    exact = GramTracker(model[2], M, estimator="exact")
    grouped = GramTracker(model[2], M, estimator="grouped")
    with exact.batch(EXAMPLES), grouped.batch(EXAMPLES):
        model(x).square().sum().backward()
    assert model[2].weight.grad is None
    np.testing.assert_allclose(grouped.estimate().gram, exact.estimate().gram, rtol=1e-9)
    assert grouped.products == exact.products > 0


def test_an_overflowing_batch_does_not_spoil_the_round():
    model, x = net(), torch.randn(6, 5)
    tracker = GramTracker(model[2], M, estimator="grouped")
    for factor in (1.0, float("inf")):
        with tracker.batch(EXAMPLES):
            (model(x).sum() * factor).backward()
    assert np.isfinite(tracker.estimate().gram).all()


def test_the_layer_is_itself_again_after_a_batch_even_one_that_failed():
    layer = nn.Linear(3, 2)
    tracker = GramTracker(layer, M, estimator="grouped")
    with pytest.raises(RuntimeError, match="stop"), tracker.batch([0, 1]):
        raise RuntimeError("stop")
    assert "forward" not in vars(layer)
    layer(torch.randn(2, 3)).sum().backward()
    assert tracker.bytes == 0


def test_what_multiplies_in_its_own_way_is_refused():
    class Scaled(nn.Linear):
        def forward(self, x):
            return 2 * super().forward(x)

    patched = nn.Linear(2, 2)
    patched.forward = lambda x: x
    for layer in (Scaled(2, 2), Conv1D(2, 2), patched):
        with pytest.raises(InputError, match="use estimator='sketch'"):
            GramTracker(layer, M, estimator="grouped")
    with pytest.raises(InputError, match="token_fraction"):
        GramTracker(nn.Linear(2, 2), M, estimator="grouped", token_fraction=0.5)


def test_two_trackers_cannot_take_the_place_of_one_product():
    layer, x = nn.Linear(3, 2), torch.randn(2, 3)
    one, two = (GramTracker(layer, M, estimator="grouped") for _ in range(2))
    with pytest.raises(InputError, match="another tracker"), one.batch([0, 1]), two.batch([0, 1]):
        layer(x)
    with one.batch([0, 1]):
        layer(x).sum().backward()
    assert one.estimate().counts.tolist() == [1, 1, 0]
