"""Cards say what sets a domain apart."""

from __future__ import annotations

import numpy as np
from datasets import Dataset, DatasetDict
from hypothesis import given
from hypothesis import strategies as st

from rbkit.regroup import Material
from rbkit.regroup.cards import CardMaker, unique_names


def make_cards(texts, sources, labels, m, **more):
    rows = Dataset.from_dict({"text": texts, "source": sources})
    vectors = np.zeros((len(texts), 1))
    corpus = DatasetDict({"train": rows, "eval": rows})
    material = Material(corpus, vectors, vectors, embedder={}, origin="")
    return CardMaker(material).cards(labels, m, **more)


def test_terms_are_those_of_the_domain(make_texts):
    texts, topics = make_texts(90)
    order = ["forest", "engine", "kitchen"]
    labels = np.array([order.index(topic) for topic in topics])
    cards = make_cards(texts, topics, labels, 3, eval_sizes=np.array([1, 2, 3]))
    for at, card in enumerate(cards):
        own = " ".join(
            text for text, topic in zip(texts, topics, strict=True) if topic == order[at]
        )
        assert len(card.terms) == 10
        assert all(term in own for term in card.terms)
        assert card.sources == {order[at]: 1.0}
        assert card.size == (labels == at).sum()
        assert card.eval_size == at + 1
        assert len(card.nearest) == 3


def test_nearest_are_the_least_distances_without_repetitions():
    texts = ["far away oak", "near oak", "near oak", "middle oak", "elsewhere elm"]
    labels = np.array([0, 0, 0, 0, -1])
    distances = np.array([9.0, 1.0, 1.5, 2.0, 0.0])
    (card,) = make_cards(texts, ["s"] * 5, labels, 1, distances=distances)
    assert card.nearest == ["near oak", "middle oak", "far away oak"]


def test_long_examples_are_cut_to_300_characters():
    (card,) = make_cards(["oak " * 500], ["s"], np.array([0]), 1)
    assert len(card.nearest[0]) <= 300
    assert card.nearest[0].endswith("…")


def test_texts_without_words_still_have_cards():
    one, two = make_cards(["1 2", "3"], ["s", "s"], np.array([0, 1]), 2)
    assert (one.name, one.terms, two.name) == ("domain 0", [], "domain 1")


def test_a_domain_without_examples_has_a_card():
    _, empty = make_cards(["oak tree"], ["s"], np.array([0]), 2)
    assert (empty.size, empty.nearest, empty.sources) == (0, [], {})


@given(
    st.lists(
        st.lists(st.sampled_from(["war", "wars", "art", "sea", "oak", "elm"]), max_size=5),
        max_size=8,
    )
)
def test_names_are_unique(terms):
    names = unique_names(terms)
    assert len(set(names)) == len(names) == len(terms)
    assert all(names)


def test_a_name_given_by_hand_is_not_made_from_terms_again():
    words = ["war", "army", "gun"]
    given = ["war · army · gun", "war · army · gun (2)"]
    made = unique_names([words, words], taken=given)
    assert made == ["war · army · gun (3)", "war · army · gun (4)"]
