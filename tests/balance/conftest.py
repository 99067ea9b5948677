"""A small language model, and a round of it under a tracker."""

from contextlib import ExitStack
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import LlamaConfig, LlamaForCausalLM

from rbkit.balance import GramTracker
from rbkit.balance.gram import find_layer

M, IGNORE = 3, -100


def _tiny_lm(*, tied=False, dtype=torch.float64):
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=61,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=3,
        num_attention_heads=2,
        max_position_embeddings=32,
        tie_word_embeddings=tied,
    )
    return LlamaForCausalLM(config).to(dtype)


def _documents(rng, count):
    return [torch.from_numpy(rng.integers(1, 61, rng.integers(3, 10))) for _ in range(count)]


def _padded(docs):
    ids = nn.utils.rnn.pad_sequence(docs, batch_first=True)
    mask = nn.utils.rnn.pad_sequence([torch.ones_like(d) for d in docs], batch_first=True)
    labels = ids.masked_fill(mask == 0, IGNORE)
    labels[:, 1] = IGNORE  # an ignored label in the middle of a document
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def _run_round(
    model, *, layers=(None,), checkpointing=None, autocast=False, estimator="exact", **options
):
    if checkpointing is not None:
        for block in model.model.layers:
            block.mlp.forward = partial(checkpoint, block.mlp.forward, use_reentrant=checkpointing)
    rng = np.random.default_rng(3)
    trackers = [
        GramTracker(find_layer(model, layer), M, estimator=estimator, **options) for layer in layers
    ]
    for _ in range(4):
        batch, domains = _padded(_documents(rng, 6)), rng.integers(0, M, 6)
        with ExitStack() as stack:
            for tracker in trackers:
                scale = (batch["labels"][:, 1:] != IGNORE).sum()
                stack.enter_context(tracker.batch(domains, scale=scale))
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
                loss = model(**batch).loss
            loss.backward()
    return trackers[0] if len(trackers) == 1 else trackers


@pytest.fixture(scope="session")
def tiny_lm():
    """Make a Llama of 61 words and 16 dimensions, with the same weights each time."""
    return _tiny_lm


@pytest.fixture(scope="session")
def documents():
    """Draw documents of 3 to 9 random words."""
    return _documents


@pytest.fixture(scope="session")
def padded():
    """Make one batch of documents, with an ignored label in each."""
    return _padded


@pytest.fixture(scope="session")
def run_round():
    """Track the same four batches; return the tracker, or one for each of several layers."""
    return _run_round
