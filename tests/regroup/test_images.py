"""Vectors of pictures."""

from __future__ import annotations

import numpy as np
import pytest
from datasets import Dataset, DatasetDict
from PIL import Image

from rbkit.errors import InputError
from rbkit.regroup import ClipEmbedder, PixelEmbedder, regroup
from rbkit.regroup.embedders import on_white

COLOURS = ["red", "darkred", "blue", "navy"]


@pytest.fixture(scope="module")
def pictures():
    return [Image.new("RGB", (20, 30), colour) for colour in COLOURS * 10]


@pytest.fixture(scope="module")
def corpus(pictures):
    rows = Dataset.from_dict({"image": pictures, "text": COLOURS * 10})
    return DatasetDict(train=rows, eval=rows.select(range(4)))


@pytest.fixture(scope="module")
def tiny_clip(tmp_path_factory):
    """Folder of a CLIP of random weights, as `save_pretrained` writes it."""
    import torch
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

    torch.manual_seed(0)
    small = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    config = CLIPConfig(
        text_config=small | {"vocab_size": 50, "max_position_embeddings": 16},
        vision_config=small | {"image_size": 16, "patch_size": 8},
        projection_dim=12,
    )
    folder = tmp_path_factory.mktemp("tiny-clip")
    CLIPModel(config).save_pretrained(folder)
    CLIPImageProcessor(
        size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}
    ).save_pretrained(folder)
    return str(folder)


def test_pictures_that_look_alike_lie_together(pictures):
    vectors = PixelEmbedder(dim=4).fit(pictures).transform(pictures)
    assert vectors.shape == (40, 4)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2]


def test_what_is_transparent_is_white():
    icon = Image.new("RGBA", (2, 2), (255, 0, 0, 0))
    assert on_white(icon).getpixel((0, 0)) == (255, 255, 255)


def test_a_corpus_of_pictures_is_regrouped_by_pixels(corpus):
    domains = regroup(corpus, embedder="pixels", k=2, progress=False)
    assert len(set(domains.train_labels[:2])) == 1
    assert domains.train_labels[0] != domains.train_labels[2]
    assert domains.method["embedder"]["name"] == "PixelEmbedder"


def test_clip_vectors_are_cached_by_the_content_of_the_picture(corpus, tiny_clip, monkeypatch):
    first = regroup(corpus, embedder=ClipEmbedder(tiny_clip), k=2, progress=False)
    assert first.centroids.shape[1] == 12
    monkeypatch.setattr(ClipEmbedder, "transform", lambda *_: pytest.fail("computed again"))
    again = regroup(corpus, embedder=ClipEmbedder(tiny_clip), k=2, progress=False)
    assert np.array_equal(first.train_labels, again.train_labels)


def test_a_model_that_is_no_clip_is_refused(corpus, tiny_model):
    with pytest.raises(InputError, match="CLIP"):
        regroup(corpus, embedder=ClipEmbedder(tiny_model), k=2, progress=False)


def test_texts_alone_cannot_be_embedded_as_pictures(make_corpus):
    with pytest.raises(InputError, match="no column 'image'"):
        regroup(make_corpus(20, 10), embedder="pixels", k=2, progress=False)


def test_the_folder_of_a_clip_embeds_pictures_and_the_default_reads_captions(corpus, tiny_clip):
    domains = regroup(corpus, embedder=tiny_clip, k=2, progress=False)
    assert domains.method["embedder"]["name"] == "ClipEmbedder"
    by_name = regroup(corpus, embedder="tfidf", k=4, progress=False)
    assert [len({*by_name.train_labels[i::4]}) for i in range(4)] == [1] * 4
