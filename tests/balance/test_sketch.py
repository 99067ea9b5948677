"""A sketch keeps inner products in expectation, at the price it states."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from rbkit.balance import GramTracker
from rbkit.balance.sketch import CountSketch, default_buckets, walsh

M = 3


def test_sketched_products_are_right_on_average_over_seeds():
    torch.manual_seed(0)
    x, target = torch.randn(12, 6).double(), torch.randn(12, 50).double()
    layer = nn.Linear(6, 50).double()

    def gram(**options):
        tracker = GramTracker(layer, M, **options)
        with tracker.batch(np.arange(12) % M):
            (layer(x) - target).square().sum().backward()
        tracker.remove()
        return tracker.estimate().gram

    exact = gram(estimator="exact")
    sketches = np.array([gram(buckets=4, seed=s) for s in range(300)])
    standard_error = sketches.std(axis=0) / np.sqrt(len(sketches))
    assert (np.abs(sketches.mean(axis=0) - exact) < 4 * standard_error).all()
    assert standard_error.min() > 0


def test_a_sketch_with_a_bucket_per_output_is_exact(run_round, tiny_lm):
    exact = run_round(tiny_lm()).estimate().gram
    np.testing.assert_allclose(
        run_round(tiny_lm(), estimator="sketch", buckets=61).estimate().gram, exact, rtol=1e-9
    )


def test_signs_change_from_round_to_round_and_come_back_from_the_seed():
    layer, x = nn.Linear(4, 64, bias=False), torch.eye(4)
    target = torch.randn(4, 64, generator=torch.Generator().manual_seed(0))

    def two_rounds(seed):
        tracker, found = GramTracker(layer, 2, buckets=8, seed=seed), []
        for _ in range(2):
            with tracker.batch([0, 0, 1, 1]):
                (layer(x) * target).sum().backward()
            found.append(tracker.estimate().gram)
            tracker.reset()
        return found

    first, second = two_rounds(0)
    assert not np.allclose(first, second)
    np.testing.assert_array_equal(two_rounds(0), [first, second])


def test_the_flops_it_reports_are_those_that_torch_counts_and_additions():
    counter = FlopCounterMode(display=False)
    layer, x = nn.Linear(16, 500, bias=False), torch.randn(8, 10, 16)
    tracker = GramTracker(layer, M, buckets=5)
    tracker.watch_with = lambda _device: counter
    with tracker.batch([0, 1, 2, 0, 1, 2, 0, 1]):
        layer(x).square().sum().backward()
    assert counter.get_total_flops() == tracker.products == 2 * 80 * 5 * 16
    # 16 blocks of 1 input: each token is folded, and both sides take 4 stages of additions;
    # each of the 6 groups of half and domain is scaled and added.
    additions = 80 * (500 - 16 * 5 + 4 * (16 * 5 + 16)) + 6 * 2 * 5 * 16
    assert tracker.flops - tracker.products == additions


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize(("outputs", "inputs", "buckets"), [(200, 16, 3), (97, 10, 4), (9, 5, 6)])
def test_a_sketch_is_the_convolution_that_its_text_states(outputs, inputs, buckets, dtype):
    """By brute force: fold with signs, then out_u = sum_k F_(u xor k)^T H_k."""
    torch.manual_seed(0)
    sketch = CountSketch(outputs, inputs, buckets, seed=3)
    delta, hidden = torch.randn(7, outputs).to(dtype), torch.randn(7, inputs).to(dtype)
    found = sketch.gain * torch.bmm(sketch.fold(delta).mT, sketch.split(hidden))

    blocks, width = sketch.blocks, sketch.width
    wide = torch.promote_types(dtype, torch.float32)
    folded = torch.zeros(7, blocks * buckets, dtype=wide)
    signs = sketch._outputs.to(wide)
    for j in range(outputs):
        folded[:, j % (blocks * buckets)] += signs[j] * delta[:, j].to(wide)
    folded = folded.view(7, blocks, buckets)
    signs = sketch._inputs.to(wide) if blocks > 1 else torch.ones(inputs, dtype=wide)
    padded = torch.zeros(7, blocks * width, dtype=wide)
    padded[:, :inputs] = signs * hidden.to(wide)
    padded = padded.view(7, blocks, width)
    out = torch.stack(
        [sum(folded[:, u ^ k].T @ padded[:, k] for k in range(blocks)) for u in range(blocks)]
    )
    # The same up to the transform over u, which is a rotation.
    torch.testing.assert_close(found, blocks**-0.5 * walsh(out), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.square().sum(), out.square().sum(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", [1, 2, 16])
def test_the_walsh_transform_is_its_own_inverse(size):
    x = torch.randn(size, 3, generator=torch.Generator().manual_seed(0)).double()
    torch.testing.assert_close(walsh(walsh(x)), size * x)


def test_a_direction_that_all_rows_share_costs_little():
    """Rows all along one hidden state: plain buckets would have a variance of 2 / c."""
    rng, c = np.random.default_rng(0), 8
    delta = torch.from_numpy(rng.normal(size=(1, 4096)))
    hidden = torch.from_numpy(rng.normal(size=(1, 128)))
    norm = float(delta.norm() * hidden.norm())
    squares = []
    for seed in range(200):
        sketch = CountSketch(4096, 128, c, seed)
        kept = sketch.gain * torch.bmm(sketch.fold(delta).mT, sketch.split(hidden))
        squares.append(float(kept.square().sum()) / norm**2)
    assert np.mean(squares) == pytest.approx(1, abs=4 * np.std(squares) / 200**0.5)
    assert np.var(squares) < 2 / c / 20


@given(st.integers(1, 5000), st.integers(1, 400), st.integers(1, 300))
def test_a_sketch_never_keeps_more_than_the_gradient_itself_rounded_up(outputs, inputs, buckets):
    sketch = CountSketch(outputs, inputs, buckets, seed=0)
    assert sketch.blocks <= inputs
    assert sketch.blocks & (sketch.blocks - 1) == 0
    assert sketch.buckets <= outputs
    assert sketch.blocks * sketch.width < inputs + sketch.blocks
    assert sketch.exact or 2 * sketch.blocks * sketch.buckets <= outputs or sketch.blocks == 1


def test_the_default_keeps_as_many_numbers_whatever_the_width():
    for inputs in (64, 128, 768, 1024):
        assert 8192 - inputs < inputs * default_buckets(inputs) <= 8192
    assert 2 * 4 * 768 * default_buckets(768) < 1_000_000  # bytes of two half-rounds
