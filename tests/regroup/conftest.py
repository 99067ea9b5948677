"""Small things to regroup: a tiny encoder of random weights, and a corpus of three topics."""

from __future__ import annotations

import numpy as np
import pytest
from datasets import Dataset, DatasetDict

TOPICS = {
    "forest": "oak elm pine birch leaf root bark moss fern trunk",
    "engine": "piston valve gear clutch torque fuel brake axle turbo crank",
    "kitchen": "flour butter sugar oven dough yeast salt whisk cream pan",
}
WORDS = [word for words in TOPICS.values() for word in words.split()]


def texts_of(n: int, seed: int = 0) -> tuple[list[str], list[str]]:
    """Return `n` texts and their topics: each text takes its words from one topic."""
    rng = np.random.default_rng(seed)
    topics = [list(TOPICS)[at] for at in rng.integers(len(TOPICS), size=n)]
    texts = [
        " ".join(rng.choice(TOPICS[topic].split(), size=rng.integers(4, 30))) for topic in topics
    ]
    return texts, topics


def corpus_of(n_train: int = 120, n_eval: int = 30) -> DatasetDict:
    texts, topics = texts_of(n_train + n_eval)
    rows = Dataset.from_dict({"text": texts, "source": topics})
    return DatasetDict(
        train=rows.select(range(n_train)), eval=rows.select(range(n_train, n_train + n_eval))
    )


@pytest.fixture(scope="session")
def corpus() -> DatasetDict:
    return corpus_of()


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """No test reads or writes the cache of the person who runs it."""
    monkeypatch.setenv("RBKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory) -> str:
    """Folder of a two-layer BERT of random weights, as `save_pretrained` writes it."""
    import torch
    from transformers import BertConfig, BertModel, BertTokenizer

    folder = tmp_path_factory.mktemp("tiny-bert")
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    (folder / "vocab.txt").write_text("\n".join(vocabulary))
    BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
    )
    BertModel(config).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def make_texts():
    return texts_of


@pytest.fixture(scope="session")
def make_corpus():
    return corpus_of
