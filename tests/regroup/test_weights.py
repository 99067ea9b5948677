"""Weights give the proportions they were made for, in any loop, and come back from disk."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pyarrow.parquet as pq
import pytest
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from rbkit.errors import InputError, RbkitWarning
from rbkit.regroup import (
    Domains,
    Weights,
    add_domain_ids,
    add_weights,
    proportions_of,
    sampling_weights,
    token_counts,
    training_table,
    write_weighted,
)
from rbkit.regroup.weights import tokens_by_domain

NAMES = ["wiki", "code", "<b>"]


def some_domains(train=(0, 0, 0, 0, 1, 1, 2, -1), evaluated=(0, 1, 1, 2)):
    return Domains(NAMES, np.array(train), np.array(evaluated), method={"corpus": "abc"})


@st.composite
def mixtures(draw):
    """Domains of any sizes, some empty, and proportions that are 0 where there is nothing."""
    sizes = draw(st.lists(st.integers(0, 30), min_size=1, max_size=6).filter(any))
    labels = np.repeat(np.arange(len(sizes)), sizes)
    labels = np.append(labels, np.full(draw(st.integers(0, 5)), -1))
    raw = np.array(draw(st.lists(st.floats(0.01, 1), min_size=len(sizes), max_size=len(sizes))))
    raw[np.array(sizes) == 0] = 0
    return Domains([f"d{i}" for i in range(len(sizes))], labels, [0]), raw / raw.sum()


@given(mixtures())
def test_the_weights_of_a_domain_sum_to_its_proportion(mixture):
    domains, p = mixture
    weights = sampling_weights(domains, p).of(domains.train_labels)
    inside = domains.train_labels >= 0
    assert np.allclose(
        np.bincount(domains.train_labels[inside], weights[inside], minlength=domains.m), p
    )
    assert weights.sum() == pytest.approx(1)
    assert (weights[~inside] == 0).all()


def test_torch_draws_the_domains_in_the_proportions():
    import torch

    domains, p = some_domains(), np.array([0.2, 0.5, 0.3])
    weights = sampling_weights(domains, p).of(domains.train_labels)
    generator = torch.Generator().manual_seed(0)
    rows = list(torch.utils.data.WeightedRandomSampler(weights, 20_000, generator=generator))
    drawn = np.bincount(domains.train_labels[rows], minlength=3) / 20_000
    assert np.allclose(drawn, p, atol=4 * np.sqrt(0.25 / 20_000))


@settings(max_examples=25)
@given(mixtures())
def test_what_is_saved_is_loaded(tmp_path_factory, mixture):
    domains, p = mixture
    made = sampling_weights(
        domains, p, tokens=np.arange(domains.m) if domains.m != len(domains.train_labels) else None
    )
    loaded = Weights.load(made.save(tmp_path_factory.mktemp("w")))
    assert (loaded.of(domains.train_labels) == made.of(domains.train_labels)).all()
    assert loaded.names == made.names
    assert (loaded.tokens is None) == (made.tokens is None)


def test_the_file_says_what_it_is_and_nothing_less_is_read(tmp_path):
    path = sampling_weights(some_domains()).save(tmp_path)
    facts = json.loads(path.read_text())
    assert facts["format"] == "rbkit-weights/1"
    assert facts["corpus"] == "abc"
    assert facts["p"] == [0.25, 0.5, 0.25]
    assert facts["weight"] == [0.0625, 0.25, 0.25]
    for damage in (
        {"p": [1, 1, 1]},
        {"p": [0.5, 0.5]},
        {"sizes": None},
        {"format": "x"},
        {"weight": [0, 0, 0]},
        {"names": 3},
    ):
        path.write_text(json.dumps(facts | damage))
        with pytest.raises(InputError, match=r"weights\.json"):
            Weights.load(tmp_path)
    with pytest.raises(InputError, match="no such file"):
        Weights.load(tmp_path / "absent.json")


def test_weights_know_the_labels_they_belong_to():
    weights = sampling_weights(some_domains())
    with pytest.raises(InputError, match="not those that the weights were made for"):
        weights.of([0, 1, 2])


def test_columns_are_added_and_written(tmp_path):
    domains = some_domains()
    rows = Dataset.from_dict({"text": [f"text {at}" for at in range(8)]})
    path = write_weighted(tmp_path / "train.parquet", rows, domains)
    table = pq.read_table(path).to_pydict()
    assert table["domain"] == ["wiki"] * 4 + ["code"] * 2 + ["<b>", None]
    assert table["text"] == rows["text"][:]
    assert np.allclose(table["weight"], sampling_weights(domains).of(domains.train_labels))
    with pytest.raises(InputError, match="column 'domain' already"):
        add_weights(add_weights(rows, domains), domains)
    assert "d" in add_weights(rows, domains, columns=("d", "w")).column_names
    with pytest.raises(InputError, match="3 rows"):
        add_weights(rows.select(range(3)), domains)


@pytest.mark.parametrize(
    ("columns", "labels", "message"),
    [
        ({"input_ids": [[1], [2]]}, [0], r"labels: shape \(1,\), dtype int64 for 2 rows"),
        ({"input_ids": [[1], [2]]}, [0.0, 1.0], "labels: .*dtype float64"),
        ({"input_ids": [[1], [2]]}, [[0, 1]], "labels: shape"),
        ({"text": ["a", "b"]}, [0, 1], "dataset: columns 'text'; give one with 'input_ids'"),
        ({"input_ids": [[1], [2]], "domain_ids": [[1], [2]]}, [0, 1], "without 'domain_ids'"),
    ],
)
def test_ids_of_tokens_need_tokens_and_a_label_for_each_row(columns, labels, message):
    with pytest.raises(InputError, match=message):
        add_domain_ids(Dataset.from_dict(columns), labels)


def test_a_selection_of_rows_is_written_in_its_order(tmp_path):
    rows = Dataset.from_dict({"text": [f"text {at}" for at in range(9)]}).select(range(8, 0, -1))
    path = write_weighted(tmp_path / "train.parquet", rows, some_domains())
    assert pq.read_table(path)["text"].to_pylist() == rows["text"][:]


@pytest.mark.parametrize(
    ("p", "told"),
    [
        ([0.5, 0.5], "2,"),
        ([0.5, 0.6, 0.0], "sums to 1.1"),
        ([np.nan, 0.5, 0.5], "sums to nan"),
        ([-0.5, 1.0, 0.5], "from -0.5"),
        ("best", "unknown"),
    ],
)
def test_proportions_that_cannot_be_are_refused(p, told):
    with pytest.raises(InputError, match=told):
        proportions_of(some_domains(), p)


def test_proportions_may_be_given_by_name():
    by_name = {"code": 0.5, "<b>": 0.2, "wiki": 0.3}
    assert proportions_of(some_domains(), by_name).tolist() == [0.3, 0.5, 0.2]
    table = training_table(some_domains(), by_name, steps=1, batch_size=1, warn=False)
    assert proportions_of(some_domains(), table["p"]).tolist() == [0.3, 0.5, 0.2]
    assert sampling_weights(some_domains(), by_name).p.tolist() == [0.3, 0.5, 0.2]
    with pytest.raises(InputError, match=r"p: no domain is called 'b'; the domains are 'wiki'"):
        proportions_of(some_domains(), {"b": 1.0})
    with pytest.raises(InputError, match="p: nothing for 'wiki', '<b>'"):
        proportions_of(some_domains(), {"code": 1.0})


def test_a_domain_without_training_examples_has_no_share():
    domains = some_domains(train=(0, 0, 1), evaluated=(0, 1, 2, 2))
    with pytest.raises(InputError, match="'<b>', which has no training example"):
        proportions_of(domains, [0.2, 0.2, 0.6])
    with pytest.warns(RbkitWarning, match=r"50\.0% of the target"):
        assert proportions_of(domains).tolist() == [0.5, 0.5, 0.0]
    assert proportions_of(domains, "uniform").tolist() == [0.5, 0.5, 0.0]


def test_a_run_that_ends_sharply_rounded_is_no_trouble():
    p = np.array([1 / 3, 1 / 3, 1 / 3], dtype=np.float32)
    assert proportions_of(some_domains(), p).sum() == pytest.approx(1, abs=1e-15)


# ------------------------------------------------------------------------------ tokens


def test_tokens_are_counted_as_training_cuts_them():
    from rbkit.train.models import tokenize, train_tokenizer

    texts = ["an ant and an aunt"] * 9 + ["ant " * 50, "漢字"]
    tokenizer = train_tokenizer(texts, vocab_size=262, progress=False)
    rows = tokenize(texts, tokenizer, context=24)["input_ids"]
    counts = token_counts(texts, tokenizer, context=24, progress=False)
    assert counts.tolist() == [len(row) for row in rows]


@given(st.lists(st.text(max_size=40), max_size=8), st.integers(1, 10))
def test_estimates_are_positive_and_below_the_context(texts, context):
    counts = token_counts(texts, context=context)
    assert counts.shape == (len(texts),)
    assert ((counts >= 1) & (counts <= context)).all()


@given(st.lists(st.tuples(st.integers(0, 999), st.integers(-1, 3)), max_size=30))
def test_tokens_of_domains_sum_to_those_of_the_kept_examples(rows):
    tokens = np.array([t for t, _ in rows], dtype=np.int64)
    labels = np.array([label for _, label in rows], dtype=np.int64)
    domains = Domains(list("abcd"), labels, [0])
    assert tokens_by_domain(domains, tokens).sum() == tokens[labels >= 0].sum()


# ------------------------------------------------------------------------------ budget


def quiet(domains, p="target", **more):
    return training_table(domains, p, warn=False, **more)


@settings(max_examples=25)
@given(mixtures(), st.integers(1, 50), st.integers(1, 32))
def test_the_table_adds_up(mixture, steps, batch_size):
    domains, p = mixture
    table = quiet(domains, p, steps=steps, batch_size=batch_size)
    assert table["drawn"].sum() == pytest.approx(steps * batch_size)
    assert np.allclose(table["epochs"] * table["examples"], table["drawn"])
    used = table[(table["p"] > 0)]
    assert np.allclose(used["lasts"] * used["epochs"], steps)
    enough = table["examples"] >= p * steps * batch_size / 4  # four epochs are allowed
    assert (table["note"].str.contains("seen") == ~enough.to_numpy()).all()


def test_repetitions_agree_with_the_sampler():
    from rbkit.balance.sampler import MixtureSampler

    domains, p = some_domains(), np.array([0.2, 0.5, 0.3])
    sampler = MixtureSampler(domains.train_labels, p)
    sampler.take(300 * 16)
    table = quiet(domains, p, steps=300, batch_size=16)
    assert np.allclose(table["epochs"], sampler.epochs, rtol=0.1)


def test_it_warns_of_repetitions_and_of_domains_of_a_handful():
    domains = some_domains()
    with pytest.warns(RbkitWarning) as seen:
        table = training_table(domains, steps=10, batch_size=4)
    said = [str(warning.message) for warning in seen]
    assert "2 domains would be seen more than 4 times ('code' 10 times, '<b>' 10 times)" in said[0]
    assert "3 domains cannot fill 4 batches of 4 ('<b>' 1 examples" in said[1]
    assert table["note"].tolist()[1:] == ["seen 10 times, fills no batch"] * 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        training_table(domains, steps=1, batch_size=1, min_batches=1)


def test_tokens_and_rounds_have_columns_of_their_own():
    domains, p = some_domains(), [0.5, 0.25, 0.25]
    table = quiet(domains, p, steps=10, batch_size=4, tokens=np.full(8, 7), round_steps=5)
    assert table["tokens"].tolist() == [28, 14, 7]
    assert table["token_share"].sum() == pytest.approx(1)
    assert np.allclose(table["token_share"], p)  # all examples are of one length
    assert table["per_round"].tolist() == [10, 5, 5]


def test_steps_are_at_least_one():
    with pytest.raises(InputError, match="steps: 0 is not positive"):
        quiet(some_domains(), steps=0, batch_size=4)
    with pytest.raises(InputError, match="5 counts for 8"):
        quiet(some_domains(), steps=1, batch_size=4, tokens=np.ones(5))
