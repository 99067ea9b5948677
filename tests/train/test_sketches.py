"""Sketches of per-example gradients: close to the gradients themselves."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from rbkit.errors import InputError
from rbkit.train.losses import example_losses
from rbkit.train.models import PadCollator
from rbkit.train.sketches import gradient_sketches

VOCAB, WIDTH = 61, 16


def language_model(**more):
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=WIDTH,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=32,
        attention_dropout=0.5,
        **{"tie_word_embeddings": False, **more},
    )
    return LlamaForCausalLM(config)


def examples(n=12):
    rng = np.random.default_rng(0)
    return [{"input_ids": rng.integers(0, VOCAB, rng.integers(3, 14)).tolist()} for _ in range(n)]


def exact(model, rows, weight, per_token=True):
    """Gradients of `weight`, one example at a time, by autograd."""
    model.eval()
    found = []
    for row in rows:
        loss, tokens = example_losses(model, PadCollator(0)([row]))
        (gradient,) = torch.autograd.grad((loss / (tokens if per_token else 1)).sum(), [weight])
        found.append(gradient.flatten().numpy())
    return np.stack(found)


@pytest.mark.parametrize("per_token", [True, False])
@pytest.mark.parametrize("layer", [None, "model.layers.0.mlp.down_proj"])
def test_with_room_for_all_numbers_products_are_those_of_the_gradients(layer, per_token):
    model, rows = language_model(), examples()
    watched = model.get_submodule(layer) if layer else model.lm_head
    true = exact(model, rows, watched.weight, per_token)
    found = gradient_sketches(
        model,
        rows,
        size=true.shape[1] + 3,
        layer=layer,
        batch_size=5,
        per_token=per_token,
        progress=False,
    )
    np.testing.assert_allclose(found @ found.T, true @ true.T, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("size", [12, 40, 128])  # fewer than the inputs, and more
def test_products_of_sketches_are_right_on_average_over_seeds(size):
    model, rows = language_model(), examples(6)
    true = exact(model, rows, model.lm_head.weight)
    gram, norms = true @ true.T, np.linalg.norm(true, axis=1)
    found = []
    for seed in range(40):
        sketch = gradient_sketches(model, rows, size=size, seed=seed, progress=False)
        assert sketch.shape == (6, size)
        found.append(sketch @ sketch.T)
    error = (np.array(found) - gram) / np.outer(norms, norms)
    assert np.sqrt((error**2).mean()) < 1.6 / np.sqrt(size)
    np.testing.assert_allclose(error.mean(axis=0), 0, atol=4 * 1.6 / np.sqrt(40 * size))


def test_batches_order_and_padding_do_not_matter():
    model, rows = language_model(), examples(9)
    one = gradient_sketches(model, rows, size=64, batch_size=1, progress=False)
    many = gradient_sketches(model, rows, size=64, batch_size=4, progress=False)
    turned = gradient_sketches(model, rows[::-1], size=64, batch_size=9, progress=False)
    np.testing.assert_allclose(one, many, atol=1e-6)
    np.testing.assert_allclose(one, turned[::-1], atol=1e-6)


def test_a_tied_head_gives_the_gradient_of_its_output_side():
    rows = examples(4)
    tied, free = language_model(tie_word_embeddings=True), language_model()
    free.load_state_dict(
        tied.state_dict() | {"lm_head.weight": tied.model.embed_tokens.weight.detach().clone()}
    )
    one, two = (gradient_sketches(lm, rows, size=64, progress=False) for lm in (tied, free))
    np.testing.assert_allclose(one, two, atol=1e-6)


def test_the_model_is_left_as_it_was():
    model = language_model()
    model.train()
    model.requires_grad_(False)  # frozen weights have gradients all the same
    before = {k: v.clone() for k, v in model.state_dict().items()}
    assert np.abs(gradient_sketches(model, examples(3), size=32, progress=False)).max() > 0
    assert model.training
    assert torch.is_grad_enabled()
    assert all(p.grad is None for p in model.parameters())
    assert not model.lm_head._forward_hooks
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_half_precision_gives_nearly_the_same():
    rows, model = examples(4), language_model()
    full = gradient_sketches(model, rows, size=64, progress=False)
    half = gradient_sketches(model.bfloat16(), rows, size=64, progress=False)
    assert half.dtype == np.float32
    assert np.abs(half - full).max() < 0.05 * np.abs(full).max()


def test_a_classifier_with_a_collator_of_ones_own():
    net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))

    def loss_of(model, batch):
        losses = nn.functional.cross_entropy(model(batch["x"]), batch["y"], reduction="none")
        return losses, torch.ones_like(losses)

    def collate(rows):
        return {"x": torch.stack([x for x, _ in rows]), "y": torch.tensor([y for _, y in rows])}

    rows = [(torch.randn(4), at % 3) for at in range(5)]
    found = gradient_sketches(
        net, rows, size=24, collate=collate, loss_of=loss_of, batch_size=2, progress=False
    )
    for (x, y), sketch in zip(rows, found, strict=True):
        loss = nn.functional.cross_entropy(net(x[None]), torch.tensor([y]))
        (true,) = torch.autograd.grad(loss, [net[2].weight])
        assert np.linalg.norm(sketch) == pytest.approx(float(true.norm()), rel=1e-4)


def test_no_examples_no_sketches():
    assert gradient_sketches(language_model(), [], size=8, progress=False).shape == (0, 8)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layer": "model.embed_tokens"}, "layer: Embedding is not a linear layer"),
        ({"layer": "model.norm"}, "not a linear layer"),
        ({"layer": "lm_haed"}, "try lm_head"),
        ({"size": 0}, "size: 0 is not positive"),
    ],
)
def test_what_cannot_be_sketched_is_refused(options, message):
    with pytest.raises(InputError, match=message):
        gradient_sketches(language_model(), examples(2), progress=False, **options)


def test_a_layer_without_part_in_the_loss_is_refused():
    model = language_model()
    model.unused = nn.Linear(2, 2)
    with pytest.raises(InputError, match="no part in the loss"):
        gradient_sketches(model, examples(2), layer="unused", progress=False)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_cuda_gives_the_same_sketches():
    model, rows = language_model(), examples()
    here = gradient_sketches(model, rows, size=64, progress=False)
    there = gradient_sketches(model.cuda(), rows, size=64, progress=False)
    np.testing.assert_allclose(here, there, atol=1e-5)
