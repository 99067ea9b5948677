"""The transformer embedder gives the model's own vectors, whatever the batching."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rbkit.errors import InputError
from rbkit.regroup import TransformerEmbedder
from rbkit.regroup.embedders import batches, refuse_code


@given(st.lists(st.integers(1, 200), min_size=1, max_size=60).map(np.array), st.integers(1, 1000))
def test_batches_hold_every_row_once_within_the_budget(lengths, budget):
    rows = list(batches(lengths, budget))
    assert sorted(np.concatenate(rows).tolist()) == list(range(len(lengths)))
    for batch in rows:
        assert len(batch) == 1 or lengths[batch].max() * len(batch) <= budget


def test_vectors_are_the_mean_of_the_last_hidden_state(tiny_model, make_texts):
    import torch
    from transformers import AutoModel, AutoTokenizer

    texts, _ = make_texts(7)
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    model = AutoModel.from_pretrained(tiny_model).eval()
    expected = []
    for text in texts:
        with torch.no_grad():
            hidden = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
        expected.append(torch.nn.functional.normalize(hidden.mean(0), dim=0).numpy())
    embedder = TransformerEmbedder(tiny_model, precision="fp32", device="cpu")
    np.testing.assert_allclose(embedder.transform(texts), expected, atol=1e-5)


def test_batching_does_not_change_the_vectors(tiny_model, make_texts):
    texts, _ = make_texts(40)
    whole, single = (
        TransformerEmbedder(tiny_model, batch_tokens=n, precision="fp32", device="cpu")
        for n in (4096, 1)
    )
    np.testing.assert_allclose(whole.transform(texts), single.transform(texts), atol=1e-5)


def test_texts_are_cut_at_max_tokens_and_the_prefix_counts(tiny_model):
    cut = TransformerEmbedder(tiny_model, max_tokens=4, precision="fp32")
    one, same = cut.transform(["oak elm pine birch", "oak elm leaf"])
    np.testing.assert_allclose(one, same, atol=1e-6)  # [CLS] oak elm [SEP]
    with_prefix = TransformerEmbedder(tiny_model, max_tokens=4, prefix="gear ", precision="fp32")
    assert not np.allclose(with_prefix.transform(["oak elm"]), one[None], atol=1e-3)


def test_bf16_stays_close_to_fp32(tiny_model, make_texts):
    texts, _ = make_texts(20)
    half, full = (
        TransformerEmbedder(tiny_model, precision=p, device="cpu").transform(texts)
        for p in ("bf16", "fp32")
    )
    assert (half * full).sum(axis=1).min() > 0.999


def test_identity_follows_content_and_parameters_not_the_path(tiny_model, tmp_path):
    first = TransformerEmbedder(tiny_model).identity
    copy = tmp_path / "elsewhere"
    shutil.copytree(tiny_model, copy)
    assert TransformerEmbedder(str(copy)).identity == first
    assert TransformerEmbedder(tiny_model, max_tokens=9).identity != first
    weights = copy / "model.safetensors"
    raw = bytearray(weights.read_bytes())
    raw[-1] ^= 1
    weights.write_bytes(raw)
    assert TransformerEmbedder(str(copy)).identity != first


def test_a_folder_without_a_model_is_named(tmp_path):
    with pytest.raises(InputError, match=r"neither modules.json nor config.json") as caught:
        TransformerEmbedder(str(tmp_path)).transform(["oak"])
    assert str(tmp_path) in str(caught.value)


def test_a_model_that_the_hub_does_not_give_is_named():
    with pytest.raises(InputError, match="no-such-owner/no-such-model") as caught:
        TransformerEmbedder("no-such-owner/no-such-model").transform(["oak"])
    assert "\n" not in str(caught.value)


def test_pickled_weights_are_refused(tiny_model, tmp_path):
    import torch

    copy = tmp_path / "pickled"
    shutil.copytree(tiny_model, copy)
    (copy / "model.safetensors").unlink()
    torch.save({}, copy / "pytorch_model.bin")
    with pytest.raises(InputError, match="cannot be loaded"):
        TransformerEmbedder(str(copy)).transform(["oak"])


def test_an_unknown_precision_is_refused(tiny_model):
    with pytest.raises(InputError, match="precision"):
        TransformerEmbedder(tiny_model, precision="int8").transform(["oak"])


@pytest.mark.assets
@pytest.mark.slow
def test_minilm_knows_what_is_alike(monkeypatch):
    from rbkit.data import assets

    monkeypatch.delenv("RBKIT_CACHE")
    try:
        assets.model_folder("minilm", progress=False)
    except InputError as error:
        pytest.skip(str(error))
    texts = ["An oak is a tree.", "Elms are tall plants.", "The engine has four pistons."]
    vectors = TransformerEmbedder("minilm").transform(texts)
    assert vectors.shape == (3, 384)
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2] + 0.1


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("modules.json", '[{"idx": 0, "name": "0", "path": "", "type": "evil_module.Run"}]'),
        ("1_Dense/config.json", '{"activation_function": "evil_module.Run"}'),
        ("router_config.json", '{"types": {"a": "evil_module.Run"}}'),
    ],
)
def test_a_model_that_names_code_of_its_own_is_refused(tiny_model, tmp_path, name, content):
    folder = shutil.copytree(tiny_model, tmp_path / "model")
    (folder / "evil_module.py").write_text("raise SystemExit('it ran')")
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text(content)
    with pytest.raises(InputError, match=r"imports 'evil_module\.Run'; pass an embedder with"):
        TransformerEmbedder(str(folder)).transform(["a text"])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.json", '{"attn_implementation": "evil/kernel"}', "brings in 'evil/kernel'"),
        ("config.json", '{"text_config": {"attn_implementation": {"": "a/b"}}}', "brings in 'a/b'"),
        ("adapter_config.json", '{"base_model_name_or_path": "../x"}', r"brings in '\.\./x'"),
        ("model.safetensors.index.json", '{"weight_map": {"w": "../x"}}', "the weights '../x'"),
        ("config.json", '{"model_type": "\\u001b[31mred"}', "holds control characters"),
        ("config.json", "[" * 200_000, "nested more than 100 deep"),
        ("tokenizer_config.json", "null", "not the configuration of a model"),
    ],
)
def test_a_model_that_takes_anything_from_elsewhere_is_refused(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=message):
        refuse_code(tmp_path)
