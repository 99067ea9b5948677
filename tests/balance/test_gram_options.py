"""What is looked at: batches, tokens, halves, counts, rounds; and for how many domains."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from rbkit.balance import sketch
from rbkit.balance.gram import GramTracker, is_tracked
from rbkit.balance.watched import alternate
from rbkit.errors import InputError
from rbkit.regroup import add_domain_ids

M = 3
IDS = [0, 1, 2, 0, 1, 2]


def backward(layer, x):
    layer(x).square().sum().backward()


def batches(count, *shape):
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(0)).double()


def accumulated(tracker):
    """Sums of both halves and all domains, (2, m, V, d), of an exact tracker."""
    return tracker._watched[0].total[:, :, 0]


# ------------------------------------------------------------- a fraction of the batches


@given(st.sampled_from([1.0, 0.5, 1 / 3, 0.25, 0.3, 0.05, 2 / 3]), st.integers(0, 500))
def test_tracked_steps_are_evenly_spaced_from_the_first_on(fraction, first):
    assert is_tracked(0, fraction)
    tracked = [is_tracked(step, fraction) for step in range(first, first + 200)]
    for length in (20, 60, 200):  # in any window the share is right to one step
        assert abs(sum(tracked[:length]) - fraction * length) < 1 + 1e-9


def test_only_tracked_batches_enter_the_gram_and_its_counts():
    layer, data = nn.Linear(4, 5).double(), batches(8, 6, 4)
    some = GramTracker(layer, M, estimator="exact", fraction=0.25)
    few = GramTracker(layer, M, estimator="exact")
    for step, x in enumerate(data):
        with some.batch(IDS):
            backward(layer, x)
        if step in (0, 4):
            with few.batch(IDS):
                backward(layer, x)
    np.testing.assert_array_equal(some.estimate().gram, few.estimate().gram)
    np.testing.assert_array_equal(some.estimate().counts, [4, 4, 4])


def test_the_number_of_the_step_decides_for_all_its_micro_batches():
    layer, data = nn.Linear(4, 5).double(), batches(6, 6, 4)
    tracker = GramTracker(layer, M, fraction=0.5)
    for place, x in enumerate(data):  # three micro-batches a step, from step 6 on
        with tracker.batch(IDS, step=6 + place // 3):
            backward(layer, x)
    np.testing.assert_array_equal(tracker.estimate().counts, [6, 6, 6])


@pytest.mark.parametrize("estimator", ["sketch", "exact", "grouped"])
def test_a_batch_that_is_not_tracked_costs_nothing(estimator):
    layer, x = nn.Linear(4, 60), torch.randn(6, 4)
    with FlopCounterMode(display=False) as plain:
        backward(layer, x)
    tracker = GramTracker(layer, M, estimator=estimator, fraction=0.5)
    with FlopCounterMode(display=False) as watched, tracker.batch(IDS, step=1):
        backward(layer, x)
    assert watched.get_total_flops() == plain.get_total_flops()
    assert tracker.bytes == tracker.flops == 0
    assert not tracker._counts.any()


# -------------------------------------------------------------- a fraction of the tokens


def test_sums_of_some_tokens_are_right_on_average():
    layer, (x,) = nn.Linear(3, 4).double(), batches(1, 6, 5, 3)
    exact = GramTracker(layer, M, estimator="exact")
    with exact.batch(IDS):
        backward(layer, x)
    some = GramTracker(layer, M, estimator="exact", token_fraction=0.3)
    whole, calls = accumulated(exact).sum(0), 400
    sums = torch.zeros_like(whole)
    for _ in range(calls):
        with some.batch(IDS):
            backward(layer, x)
        sums += accumulated(some).sum(0)
        some.reset()
    torch.testing.assert_close(sums / calls, whole, rtol=0, atol=0.1 * float(whole.abs().max()))
    assert some.products == pytest.approx(0.3 * calls * exact.products, rel=0.02)


def test_the_choice_of_tokens_comes_back_from_the_seed():
    layer, data = nn.Linear(4, 50).double(), batches(3, 6, 7, 4)

    def gram(seed):
        tracker = GramTracker(layer, M, estimator="exact", token_fraction=0.4, seed=seed)
        for x in data:
            with tracker.batch(IDS):
                backward(layer, x)
        tracker.remove()
        return tracker.estimate().gram

    np.testing.assert_array_equal(gram(1), gram(1))
    assert not np.allclose(gram(1), gram(2))


# -------------------------------------------------------------------- tokens and halves


def test_packed_documents_give_the_gram_of_documents_one_by_one():
    """Ids of tokens, and the documents' own counts and halves: nothing else may differ."""
    torch.manual_seed(0)
    layer = nn.Sequential(nn.Linear(4, 50)).double()
    lengths, domains, halves = [3, 2, 4, 3], [1, 0, 1, 2], [0, 0, 1, 1]
    (packed,) = batches(1, 1, sum(lengths), 4)
    single = GramTracker(layer[0], M, estimator="exact")
    places = np.split(np.arange(sum(lengths)), np.cumsum(lengths)[:-1])
    for place, domain, half in zip(places, domains, halves, strict=True):
        with single.batch([domain], halves=[half]):
            backward(layer, packed[:, place])
    ids = np.repeat(domains, lengths)[None]
    for estimator in ("exact", "grouped"):
        together = GramTracker(layer[0], M, estimator=estimator)
        each = np.zeros((2, M))
        np.add.at(each, (halves, domains), 1)
        with together.batch(ids, halves=np.repeat(halves, lengths)[None], counts=each):
            backward(layer, packed)
        for name in ("gram", "noise_floor", "diagonal_debiased"):
            np.testing.assert_allclose(
                getattr(together.estimate(), name), getattr(single.estimate(), name), rtol=1e-9
            )
        np.testing.assert_array_equal(together.estimate().counts, [1, 2, 1])


def blocks(columns, size):
    """Chain each column of a batch of documents, and cut it into blocks; the rest is dropped."""
    chained = {name: np.concatenate(rows).tolist() for name, rows in columns.items()}
    whole = min(map(len, chained.values())) // size * size
    return {
        name: [values[at : at + size] for at in range(0, whole, size)]
        for name, values in chained.items()
    }


@pytest.mark.parametrize("estimator", ["exact", "grouped"])
def test_a_column_of_domain_ids_survives_packing_and_gives_the_gram_of_documents(estimator):
    """As run_clm packs: blocks of several documents and domains, cut wherever they end."""
    rng = np.random.default_rng(3)
    labels = rng.integers(-1, M, 40)
    texts = [rng.integers(0, 9, rng.integers(2, 12)).tolist() for _ in labels]
    targets = [rng.integers(0, 9, len(text)).tolist() for text in texts]
    rows = Dataset.from_dict({"input_ids": texts, "targets": targets})
    packed = add_domain_ids(rows, labels).map(
        blocks, batched=True, batch_size=16, fn_kwargs={"size": 10}
    )
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 9, bias=False)).double()
    tracker = GramTracker(model[1], M, estimator=estimator)
    sums, n, turns = np.zeros((2, M, 36)), np.zeros((2, M)), np.zeros(M, dtype=int)
    for start in range(0, len(packed), 4):
        batch = {k: torch.tensor(v) for k, v in packed[start : start + 4].items()}
        ids, tokens = batch["domain_ids"], batch["targets"].numel()
        with tracker.batch(ids, scale=tokens):
            F.cross_entropy(model(batch["input_ids"]).mT, batch["targets"]).backward()
        for row, text, target in zip(ids, batch["input_ids"], batch["targets"], strict=True):
            ends = [0, *(np.flatnonzero(row.diff()) + 1), len(row)]
            for first, last in itertools.pairwise(ends):  # a document: one pass of its own
                if (i := int(row[first])) < 0:
                    continue
                half, turns[i] = turns[i] % 2, turns[i] + 1
                loss = F.cross_entropy(model(text[first:last]), target[first:last], reduction="sum")
                (gradient,) = torch.autograd.grad(loss, model[1].weight)
                sums[half, i] += gradient.flatten().numpy()
                n[half, i] += last - first
    whole, means = sums.sum(0) / n.sum(0)[:, None], sums / n[:, :, None]
    estimate = tracker.estimate()
    assert estimate.counts.sum() == sum((np.array(row) >= 0).sum() for row in packed["domain_ids"])
    np.testing.assert_array_equal(estimate.counts, n.sum(0))
    np.testing.assert_allclose(estimate.gram, whole @ whole.T, rtol=1e-9)
    np.testing.assert_allclose(estimate.diagonal_debiased, (means[0] * means[1]).sum(1), rtol=1e-9)
    floor = ((means[0] - means[1]) ** 2).sum(1) / 4
    np.testing.assert_allclose(estimate.noise_floor, floor, rtol=1e-9)


def test_tokens_are_counted_unless_examples_are_given():
    layer, (x,) = nn.Linear(4, 5).double(), batches(1, 2, 4, 4)
    ids = np.array([[0, 0, 0, 1], [1, -1, -1, 1]])
    tokens, examples = (GramTracker(layer, M, estimator="exact") for _ in range(2))
    with tokens.batch(ids), examples.batch(ids, counts=[1, 2, 0]):
        backward(layer, x)
    np.testing.assert_array_equal(tokens.estimate().counts, [3, 3, 0])
    np.testing.assert_array_equal(examples.estimate().counts, [1, 2, 0])
    ratio = np.outer([3, 3 / 2], [3, 3 / 2])
    np.testing.assert_allclose(
        tokens.estimate().gram[:2, :2] * ratio, examples.estimate().gram[:2, :2]
    )


def test_tokens_may_be_in_one_long_row_as_some_models_flatten_them():
    layer, (x,) = nn.Linear(4, 5).double(), batches(1, 2, 4, 4)
    ids = np.array([[0, 0, 1, 1], [2, -1, -1, 2]])
    grams = []
    for shape in ((2, 4, 4), (8, 4)):
        tracker = GramTracker(layer, M)
        with tracker.batch(ids):
            backward(layer, x.reshape(shape))
        tracker.remove()
        grams.append(tracker.estimate().gram)
    np.testing.assert_array_equal(grams[0], grams[1])


@given(
    arrays(
        np.int64, st.tuples(st.integers(1, 4), st.integers(1, 12)), elements=st.integers(-1, M - 1)
    )
)
def test_a_document_is_never_divided_and_halves_are_even(ids):
    turn = np.zeros(M, dtype=np.int64)
    halves = alternate(ids, turn)
    same = ids[:, 1:] == ids[:, :-1]
    assert (halves[:, 1:] == halves[:, :-1])[same].all()
    begins = np.ones(ids.shape, dtype=bool)
    begins[:, 1:] = ~same
    for domain in range(M):
        documents = halves[begins & (ids == domain)]
        assert turn[domain] == len(documents)
        assert 0 <= (documents == 0).sum() - (documents == 1).sum() <= 1


@given(st.lists(st.lists(st.integers(-1, M - 1), max_size=9), max_size=4))
def test_examples_take_turns_also_over_batches(rounds):
    turn, seen = np.zeros(M, dtype=np.int64), {i: [] for i in range(M)}
    for ids in rounds:
        for domain, half in zip(ids, alternate(np.array(ids, dtype=np.int64), turn), strict=True):
            if domain >= 0:
                seen[domain].append(int(half))
    for halves in seen.values():
        assert halves == [place % 2 for place in range(len(halves))]


def test_given_halves_are_followed():
    layer, (x,) = nn.Linear(4, 5).double(), batches(1, 6, 4)
    tracker = GramTracker(layer, M, estimator="exact")
    with tracker.batch(IDS, halves=[1, 1, 1, 1, 1, 0]):
        backward(layer, x)
    assert not accumulated(tracker)[0, :2].any()
    np.testing.assert_array_equal(tracker._counts, [[0, 0, 1], [2, 2, 1]])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"halves": [0, 1]}, "give 0 or 1 for each domain id"),
        ({"halves": [0, 1, 2, 0, 0, 0]}, "give 0 or 1 for each domain id"),
        ({"counts": [1, 1]}, r"give the examples of each domain, \(m,\)"),
        ({"counts": [1, -1, 1]}, r"give the examples of each domain, \(m,\)"),
    ],
)
def test_wrong_halves_and_counts_are_refused_with_the_remedy(options, message):
    tracker = GramTracker(nn.Linear(2, 2), M)
    with pytest.raises(InputError, match=message), tracker.batch(IDS, **options):
        pass


def test_counts_of_a_domain_that_the_batch_does_not_have_are_refused():
    tracker = GramTracker(nn.Linear(2, 2), M)
    with pytest.raises(InputError, match="examples of domain 2"):  # noqa: SIM117
        with tracker.batch([0, 1], counts=[1, 1, 1]):
            pass


@pytest.mark.parametrize("estimator", ["exact", "sketch"])
def test_a_batch_of_which_no_token_is_used_adds_nothing(estimator):
    layer = nn.Linear(4, 2100, bias=False)
    tracker = GramTracker(layer, M, estimator=estimator, token_fraction=1e-6)
    with tracker.batch([0, 1, 2]):
        layer(torch.eye(3, 4)).square().sum().backward()
    np.testing.assert_array_equal(tracker.estimate().gram, np.zeros((M, M)))


@pytest.mark.parametrize(("rows", "each"), [(3, 700), (700, 3), (2100, 1)])
def test_a_sketch_is_the_same_however_its_rows_are_cut_into_pieces(rows, each, monkeypatch):
    layer = nn.Linear(8, 5000, bias=False).double()
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.normal(size=(rows, each, 8)))
    domains = rng.integers(-1, M, rows)

    def gram(chunk):
        monkeypatch.setitem(sketch._CHUNK, "cpu", chunk)
        tracker = GramTracker(layer, M, buckets=2)
        with tracker.batch(domains):
            layer(x).square().sum().backward()
        tracker.remove()
        return tracker.estimate().gram

    whole = gram(1 << 24)
    np.testing.assert_allclose(gram(1 << 15), whole, rtol=1e-9)
    np.testing.assert_allclose(gram(1), whole, rtol=1e-9)


@pytest.mark.parametrize(
    "option", [{"fraction": 0.0}, {"fraction": 1.5}, {"token_fraction": -1.0}, {"decay": 1.0}]
)
def test_shares_outside_their_range_are_refused(option):
    with pytest.raises(InputError, match=next(iter(option))):
        GramTracker(nn.Linear(2, 2), M, **option)


# ------------------------------------------------------------------------- several rounds


@pytest.mark.parametrize("estimator", ["sketch", "exact"])
def test_decay_keeps_a_share_of_earlier_sums_and_counts(estimator):
    layer, data = nn.Linear(4, 60).double(), batches(2, 6, 4)
    tracker = GramTracker(layer, M, estimator=estimator, buckets=4, decay=0.25)
    with tracker.batch(IDS):
        backward(layer, data[0])
    first = tracker._watched[0].total.clone()
    tracker.reset()
    with tracker.batch([0, 0, 0, 1, 1, -1]):
        backward(layer, data[1])
    alone = GramTracker(layer, M, estimator=estimator, buckets=4, decay=0.25)
    with alone.batch([0, 0, 0, 1, 1, -1]):
        backward(layer, data[1])
    # The same signs in both rounds, so sums add up.
    a = (0.25 * first + alone._watched[0].total).sum(0).flatten(1)
    n = torch.tensor([0.25 * 2 + 3, 0.25 * 2 + 2, 0.25 * 2])
    expected = (a @ a.T) / torch.outer(n, n)
    np.testing.assert_allclose(tracker.estimate().gram, expected, rtol=1e-9)
    np.testing.assert_array_equal(tracker.estimate().counts, [3, 2, 0])


def test_a_domain_that_has_faded_is_unknown_again():
    layer, x = nn.Linear(4, 5), torch.randn(6, 4)
    tracker = GramTracker(layer, M, decay=0.1)
    with tracker.batch(IDS):
        backward(layer, x)
    for _ in range(30):
        tracker.reset()
        with tracker.batch([0] * 6):
            backward(layer, x)
    gram = tracker.estimate().gram
    assert np.isfinite(gram[0, 0])
    assert np.isnan(gram[1:]).all()


# -------------------------------------------------------------------------- many domains


@pytest.mark.parametrize("estimator", ["sketch", "grouped"])
def test_work_on_a_batch_does_not_depend_on_the_number_of_domains(estimator):
    counted, touched = [], []
    for m in (8, 1000):
        layer, x = nn.Linear(16, 500), torch.randn(6, 10, 16)
        tracker = GramTracker(layer, m, estimator=estimator, buckets=5)
        names = np.array([0, 1, 2, 0, 1, 2]) * (m - 1) // 2
        with FlopCounterMode(display=False) as counter, tracker.batch(names):
            backward(layer, x)
        counted.append((counter.get_total_flops(), tracker.flops))
        touched.append(int(tracker._watched[0].total.flatten(2).any(-1).sum()))
    assert counted[0] == counted[1]
    assert touched == [6, 6]  # two halves of three domains


def test_a_thousand_domains_take_memory_in_proportion_and_a_gram_matrix():
    layer, x = nn.Linear(16, 500), torch.randn(1000, 16)
    tracker = GramTracker(layer, 1000, buckets=5)
    for _ in range(2):
        with tracker.batch(np.arange(1000)):
            backward(layer, x)
    estimate = tracker.estimate()
    assert tracker.bytes == 1000 * 2 * 5 * 16 * 4
    assert np.isfinite(estimate.gram).all()
    assert np.isfinite(estimate.noise_floor).all()
    assert (estimate.counts == 2).all()
