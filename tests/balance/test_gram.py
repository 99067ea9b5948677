"""The tracked Gram matrix is Algorithm 1's, against autograd by brute force."""

from __future__ import annotations

from contextlib import ExitStack

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from rbkit.balance import Observation, RnB
from rbkit.balance.gram import GramTracker, find_layer
from rbkit.errors import InputError

M, IGNORE = 3, -100


def summed_loss(model, batch):
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    return F.cross_entropy(
        logits[:, :-1].flatten(0, 1), batch["labels"][:, 1:].flatten(), reduction="sum"
    )


def algorithm_1(gradients, domains, q, lam):
    """R&B's Algorithm 1, from a list of per-example gradients, in float64."""
    total = [sum(g for g, d in zip(gradients, domains, strict=True) if d == i) for i in range(M)]
    n = np.bincount(domains, minlength=M)
    gram = np.array(
        [[float((total[i] * total[j]).sum()) / (n[i] * n[j]) for j in range(M)] for i in range(M)]
    )
    v = gram @ q
    z = lam * v / np.linalg.norm(v)
    return gram, np.exp(z) / np.exp(z).sum()


def rnb(estimate, q, lam=3.0):
    seen = Observation(0, np.full(M, 1 / M), q, np.full(M, 9), gram=estimate)
    return RnB(lam=lam).update(seen)


@pytest.mark.parametrize("layer", ["lm_head", "model.layers.1.mlp.up_proj"])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_proportions_equal_algorithm_1_from_one_example_at_a_time(
    layer, accumulate, documents, padded, tiny_lm
):
    rng, q = np.random.default_rng(1), np.array([0.6, 0.3, 0.1])
    model = tiny_lm()
    watched = find_layer(model, layer)
    tracker = GramTracker(watched, M, estimator="exact")
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    gradients, seen = [], []
    for _ in range(3):
        docs, domains = documents(rng, 8), rng.integers(0, M, 8)
        domains[:M] = range(M)
        for doc, domain in zip(docs, domains, strict=True):  # brute force, before the step
            loss = summed_loss(model, padded([doc]))
            gradients.append(torch.autograd.grad(loss, watched.weight)[0])
            seen.append(domain)
        for part in np.split(np.arange(8), accumulate):
            batch = padded([docs[i] for i in part])
            tokens = (batch["labels"][:, 1:] != IGNORE).sum()
            with tracker.batch(domains[part], scale=tokens * accumulate):
                (model(**batch).loss / accumulate).backward()
        optimizer.step()
        optimizer.zero_grad()
    gram, p = algorithm_1(gradients, seen, q, lam=3.0)
    estimate = tracker.estimate()
    np.testing.assert_allclose(estimate.gram, gram, rtol=1e-6, atol=1e-9 * np.abs(gram).max())
    np.testing.assert_array_equal(estimate.counts, np.bincount(seen, minlength=M))
    np.testing.assert_allclose(rnb(estimate, q), p, atol=1e-6)


def test_proportions_equal_algorithm_1_for_a_clip_like_projection():
    """In-batch contrastive loss; each example has its own copy of the projection."""
    torch.manual_seed(0)
    rng, q = np.random.default_rng(2), np.array([0.2, 0.2, 0.6])
    image = nn.Sequential(nn.Linear(12, 20), nn.GELU()).double()
    project = nn.Linear(20, 8, bias=False).double()
    text = nn.Linear(10, 8, bias=False).double()

    def contrastive(a, b):
        logits = 5 * F.normalize(a, dim=-1) @ F.normalize(b, dim=-1).T
        target = torch.arange(len(a))
        return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2

    tracker = GramTracker(project, M, estimator="exact")
    gradients, seen = [], []
    for _ in range(2):
        x, y = torch.randn(9, 12).double(), torch.randn(9, 10).double()
        domains = np.r_[0, 1, 2, rng.integers(0, M, 6)]
        copies = project.weight.detach().repeat(9, 1, 1).requires_grad_()
        loss = 9 * contrastive(torch.einsum("bd,bed->be", image(x), copies), text(y))
        gradients += list(torch.autograd.grad(loss, copies)[0])
        seen += domains.tolist()
        with tracker.batch(domains, scale=9):
            contrastive(project(image(x)), text(y)).backward()
    gram, p = algorithm_1(gradients, seen, q, lam=2.0)
    np.testing.assert_allclose(tracker.estimate().gram, gram, rtol=1e-9)
    np.testing.assert_allclose(rnb(tracker.estimate(), q, lam=2.0), p, atol=1e-6)


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("layer", ["lm_head", "model.layers.1.mlp.up_proj"])
def test_gradient_checkpointing_changes_nothing(reentrant, layer, run_round, tiny_lm):
    plain = run_round(tiny_lm(), layers=[layer]).estimate()
    recomputed = run_round(tiny_lm(), layers=[layer], checkpointing=reentrant).estimate()
    np.testing.assert_allclose(recomputed.gram, plain.gram, rtol=1e-9)
    np.testing.assert_array_equal(recomputed.counts, plain.counts)


def test_tied_head_is_tracked_without_the_input_side(run_round, tiny_lm):
    model = tiny_lm(tied=True)
    untied = tiny_lm(tied=False)
    untied.load_state_dict(model.state_dict(), strict=False)
    untied.lm_head.weight = nn.Parameter(model.lm_head.weight.detach().clone())
    np.testing.assert_allclose(
        run_round(model).estimate().gram, run_round(untied).estimate().gram, rtol=1e-9
    )


def test_autocast_gives_nearly_the_same_gram(run_round, tiny_lm):
    plain = run_round(tiny_lm(dtype=torch.float32)).estimate().gram
    mixed = run_round(tiny_lm(dtype=torch.float32), autocast=True).estimate().gram
    assert np.abs(mixed - plain).max() < 0.05 * np.abs(plain).max()


def test_backward_inside_autocast_still_multiplies_in_float32():
    torch.manual_seed(0)
    layer, x = nn.Linear(32, 32), torch.randn(8, 32)
    grams = []
    for autocast in (False, True):
        tracker = GramTracker(layer, 1)
        mixed = torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast)
        with mixed, tracker.batch([0] * 8):
            (layer(x.bfloat16().float()).float()).sum().backward()
        grams.append(tracker.estimate().gram)
    np.testing.assert_allclose(grams[0], grams[1], rtol=1e-6)


def test_domain_gradients_sum_to_the_layers_own_gradient(run_round, documents, padded, tiny_lm):
    model = tiny_lm()
    tracker = run_round(model)
    whole = tracker._watched[0].total.sum((0, 1, 2))
    batchwise = tiny_lm()
    rng = np.random.default_rng(3)
    for _ in range(4):
        summed_loss(batchwise, padded(documents(rng, 6))).backward()
        rng.integers(0, M, 6)
    # The library computes its loss in float32.
    torch.testing.assert_close(whole, batchwise.lm_head.weight.grad, rtol=1e-5, atol=1e-5)


def test_half_rounds_remove_the_bias_of_the_diagonal():
    """Mean gradient g plus noise: the plug-in diagonal is |g|^2 + tr(Sigma)/n."""
    d, n, rng = 40, 10, np.random.default_rng(0)
    g = np.ones(d)
    layer = nn.Linear(d, 1, bias=False)
    plug_in, debiased, floor = [], [], []
    for _ in range(300):
        tracker = GramTracker(layer, 1)
        x = torch.from_numpy(g + rng.normal(0, 2, (n, d))).float()
        with tracker.batch([0] * n):
            layer(x).sum().backward()
        estimate = tracker.estimate()
        plug_in.append(estimate.gram[0, 0])
        debiased.append(estimate.diagonal_debiased[0])
        floor.append(estimate.noise_floor[0])
    noise = 4 * d / n
    assert np.mean(plug_in) == pytest.approx(d + noise, rel=0.03)
    assert np.mean(debiased) == pytest.approx(d, rel=0.05)
    assert np.mean(floor) == pytest.approx(noise, rel=0.05)


@given(st.permutations(range(M)), st.integers(0, 5))
@settings(max_examples=15, deadline=None)
def test_renaming_domains_permutes_the_gram(order, seed):
    torch.manual_seed(seed)
    layer, x, ids = nn.Linear(5, 7), torch.randn(9, 5), np.arange(9) % M
    grams = []
    for names in (ids, np.array(order)[ids]):
        tracker = GramTracker(layer, M)
        with tracker.batch(names):
            layer(x).square().sum().backward()
        grams.append(tracker.estimate().gram)
    np.testing.assert_allclose(grams[1][np.ix_(order, order)], grams[0], rtol=1e-9)
    assert np.linalg.eigvalsh(grams[0]).min() > -1e-9 * np.abs(grams[0]).max()


def test_an_absent_domain_is_nan_and_left_out_examples_do_not_count():
    layer = nn.Linear(3, 2)
    tracker = GramTracker(layer, M)
    with tracker.batch([0, 2, -1]):
        layer(torch.randn(3, 3)).sum().backward()
    estimate = tracker.estimate()
    assert estimate.counts.tolist() == [1, 0, 1]
    assert np.isnan(estimate.gram[1]).all()
    assert np.isnan(estimate.gram[:, 1]).all()
    assert np.isfinite(estimate.gram[np.ix_([0, 2], [0, 2])]).all()


@pytest.mark.parametrize("estimator", ["sketch", "exact", "grouped"])
def test_the_gram_of_several_layers_is_the_sum_of_theirs(estimator):
    torch.manual_seed(0)
    net, x = nn.Sequential(nn.Linear(4, 50), nn.Tanh(), nn.Linear(50, 60)), torch.randn(7, 4)
    ids = [0, 1, 2, 0, 1, 2, 0]

    def sums(layers):
        tracker = GramTracker(layers, M, estimator=estimator, buckets=4)
        with tracker.batch(ids):
            net(x).square().sum().backward()
        tracker.remove()
        return tracker

    both = sums([net[0], net[2]])
    parts = []
    for place in (0, 1):  # a layer's signs depend on its place, so take each from the whole
        alone = sums([net[0], net[2]])
        alone._watched = alone._watched[place : place + 1]
        parts.append(alone.estimate())
    np.testing.assert_allclose(both.estimate().gram, parts[0].gram + parts[1].gram)
    floors = parts[0].noise_floor + parts[1].noise_floor
    np.testing.assert_allclose(both.estimate().noise_floor, floors)
    if estimator != "sketch":
        single = [sums(layer).estimate().gram for layer in (net[0], net[2])]
        np.testing.assert_allclose(both.estimate().gram, single[0] + single[1])


def test_nothing_is_watched_outside_a_batch():
    layer = nn.Linear(3, 2)
    tracker = GramTracker(layer, 1)
    layer(torch.randn(2, 3)).sum().backward()
    assert tracker.bytes == 0
    tracker.remove()
    with tracker.batch([0, 0]):
        layer(torch.randn(2, 3)).sum().backward()
    assert tracker.bytes == 0


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([0, 3], "0 to m - 1"),
        ([0.5, 1.0], "one integer per example"),
        ([0, 1, 1], "3 ids of shape"),
    ],
)
def test_wrong_domain_ids_are_refused_with_the_remedy(ids, message):
    layer = nn.Linear(3, 2)
    tracker = GramTracker(layer, M)
    with pytest.raises(InputError, match=message), tracker.batch(ids):
        layer(torch.randn(2, 3))


@pytest.mark.parametrize("estimator", ["sketch", "exact", "grouped"])
@pytest.mark.parametrize("decay", [0.0, 0.5])
def test_an_overflowing_batch_counts_as_if_it_had_not_been(estimator, decay):
    torch.manual_seed(0)
    layer, x = nn.Linear(3, 2), torch.randn(4, 3)
    found = []
    for factors in ([1.0, 2.0], [1.0, float("inf"), float("nan"), 2.0]):
        tracker = GramTracker(layer, 2, estimator=estimator, decay=decay)
        for round_ in range(2):
            for factor in factors:
                with tracker.batch([0, 0, 1, 1], halves=[0, 1, 0, 1]):
                    (layer(x + round_).sum() * factor).backward()
                    layer.zero_grad()
                saved = tracker.state_dict()
                tracker.load_state_dict(saved)
            found.append(tracker.estimate())
            tracker.reset()
    for clean, overflowed in zip(found[:2], found[2:], strict=True):
        assert overflowed.counts.tolist() == clean.counts.tolist() == [4, 4]
        for name in ("gram", "diagonal_debiased", "noise_floor"):
            np.testing.assert_allclose(getattr(overflowed, name), getattr(clean, name))


def test_one_domain_that_overflows_costs_no_other_its_count():
    layer, x = nn.Linear(3, 2), torch.randn(4, 3)
    tracker = GramTracker(layer, 3)
    weights = torch.tensor([1.0, 1.0, float("inf"), 1.0])
    for factor in (torch.ones(4), weights):
        with tracker.batch([0, 0, 1, 2]):
            (layer(x).sum(1) * factor).sum().backward()
    assert tracker.estimate().counts.tolist() == [4, 1, 2]


def test_layers_count_what_reaches_them():
    """Two layers of which one is skipped in every other batch, as by layer dropout."""
    torch.manual_seed(0)
    one, two, x = nn.Linear(3, 2), nn.Linear(3, 2), torch.randn(4, 3)
    both, apart = GramTracker([one, two], 2), [GramTracker(one, 2), GramTracker(two, 2)]
    ids = [0, 0, 1, 1]
    for skips in (False, True):
        watching = [both, apart[0]] if skips else [both, *apart]
        with ExitStack() as stack:
            for tracker in watching:
                stack.enter_context(tracker.batch(ids))
            (one(x).sum() + (0 if skips else two(x).square().sum())).backward()
    grams = [tracker.estimate().gram for tracker in (both, *apart)]
    np.testing.assert_allclose(grams[0], grams[1] + grams[2], rtol=1e-6)


@pytest.mark.parametrize("layer", [nn.Embedding(5, 4), nn.LayerNorm(4), nn.Bilinear(2, 2, 2)])
def test_what_is_not_linear_is_refused(layer):
    with pytest.raises(InputError, match="is not a linear layer"):
        GramTracker(layer, 1)


def test_a_layer_that_the_loss_goes_around_is_reported():
    """As with a loss kernel that is fused with the head: at once, not after a round."""
    layer = nn.Linear(3, 2)
    tracker = GramTracker(layer, 1)
    with (
        pytest.raises(InputError, match="took no part in the backward pass"),
        tracker.batch([0, 0]),
    ):
        (torch.randn(2, 3) @ layer.weight.T).sum().backward()


class Tied(nn.Module):
    """An embedding whose frozen weight is that of the head, too."""

    def __init__(self):
        super().__init__()
        self.embedding, self.body = nn.Embedding(7, 3), nn.Linear(3, 3)
        self.head = nn.Linear(3, 7, bias=False)
        self.head.weight = self.embedding.weight.requires_grad_(False)

    def hidden(self, ids):
        return self.body(self.embedding(ids))


class Fused(torch.autograd.Function):
    """A loss with the head in it, as kernels are made, piece by piece."""

    @staticmethod
    def forward(ctx, hidden, weight):
        ctx.save_for_backward(weight)
        return sum((h[None] @ weight.t()).sum() for h in hidden)

    @staticmethod
    def backward(ctx, grad):
        (weight,) = ctx.saved_tensors
        return grad * weight.sum(0).expand(2, -1), None


@pytest.mark.parametrize("estimator", ["sketch", "exact", "grouped"])
@pytest.mark.parametrize(
    "loss",
    [
        lambda model, h: (h @ model.head.weight.T).sum(),
        lambda model, h: nn.functional.linear(h, model.embedding.weight[:4]).sum(),
        lambda model, h: torch.einsum("bd,vd->", h, model.head.weight),
        lambda model, h: Fused.apply(h, model.head.weight),
    ],
)
def test_a_frozen_layer_that_the_loss_goes_around_is_reported_at_once(estimator, loss):
    model, ids = Tied(), torch.tensor([1, 4])
    tracker = GramTracker(model.head, 1, estimator=estimator)
    with (
        pytest.raises(InputError, match="took no part in the backward pass"),
        tracker.batch([0, 0]),
    ):
        loss(model, model.hidden(ids)).backward()


@pytest.mark.parametrize("estimator", ["exact", "grouped"])
def test_a_frozen_tied_head_is_tracked_and_one_that_is_not_asked_is_waited_for(estimator):
    model, ids = Tied(), torch.tensor([1, 4])
    tracker = GramTracker(model.head, 1, estimator=estimator)
    with tracker.batch([0, 0]):  # another part of the model alone, as of several experts
        assert model.head.weight.dtype == model.head.weight.T.dtype
        model.hidden(ids).sum().backward()
    with tracker.batch([0, 0]):
        model.head(model.hidden(ids)).square().sum().backward()
    hidden, weight = model.hidden(ids).detach(), model.head.weight.clone().requires_grad_()
    (g,) = torch.autograd.grad((hidden @ weight.T).square().sum() / 2, weight)
    np.testing.assert_allclose(tracker.estimate().gram, float(g.square().sum()), rtol=1e-5)


@pytest.mark.parametrize("trained", ["adapter", "copy"])
def test_the_default_layer_is_found_inside_an_adapter(trained):
    """As of PEFT: a frozen head with a low-rank product beside it, or a copy that is trained."""

    class Wrapper(nn.Module):
        def __init__(self, base):
            super().__init__()
            self.base_layer = base.requires_grad_(False)
            if trained == "adapter":
                self.down, self.up = nn.Linear(4, 2, bias=False), nn.Linear(2, 9, bias=False)
            else:
                self.copies = nn.ModuleDict({"default": nn.Linear(4, 9, bias=False)})

        def forward(self, x):
            if trained == "copy":
                return self.copies["default"](x)
            return self.base_layer(x) + self.up(self.down(x))

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.head = nn.Linear(4, 4), Wrapper(nn.Linear(4, 9, bias=False))

        def get_output_embeddings(self):
            return self.head

    model, x = Model(), torch.randn(3, 4)
    layer = find_layer(model)
    assert layer is (model.head.base_layer if trained == "adapter" else model.head.copies.default)
    tracker = GramTracker(layer, 1, estimator="exact")
    with tracker.batch([0, 0, 0]):
        model.head(model.body(x)).square().sum().backward()
    hidden = model.body(x).detach()
    delta = 2 * model.head(hidden).detach()  # of the outputs, whatever makes them
    g = delta.T @ hidden / 3
    np.testing.assert_allclose(tracker.estimate().gram, float(g.square().sum()), rtol=1e-5)
    with pytest.raises(InputError, match=r"Wrapper is not a linear layer; .* such as its"):
        GramTracker(find_layer(model, "head"), 1)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("estimator", ["sketch", "exact", "grouped"])
def test_a_gpu_gives_the_same_gram(run_round, tiny_lm, estimator):
    options = {"estimator": estimator, "buckets": 6}
    cpu = run_round(tiny_lm(dtype=torch.float32), **options).estimate().gram
    torch.set_default_device("cuda")
    try:
        gpu = run_round(tiny_lm(dtype=torch.float32), **options).estimate().gram
    finally:
        torch.set_default_device(None)
    assert np.abs(cpu - gpu).max() < 1e-2 * np.abs(cpu).max()
