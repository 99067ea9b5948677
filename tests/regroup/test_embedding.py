"""Embedding is cached by content; a kill or a damaged file costs little and is told."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from sklearn.base import BaseEstimator

from rbkit.errors import InputError, RbkitWarning
from rbkit.regroup import TfidfEmbedder, VectorStore, embed, embed_corpus
from rbkit.regroup.embedding import embedding_seconds, text_keys


class Letters(BaseEstimator):
    """Counts letters, and remembers what it was asked."""

    def __init__(self, version: int = 1) -> None:
        self.version = version
        self.seen: list[str] = []

    @property
    def identity(self):
        return {"embedder": "Letters", "version": self.version}

    def fit(self, texts):
        self.fitted_on = list(texts)
        return self

    def transform(self, texts):
        self.seen += texts
        rows = [[text.count(letter) / 3 for letter in "abcde"] for text in texts]
        return np.array(rows, dtype=np.float32)


def shards(folder):
    return sorted(folder.rglob("shard-*.npz"))


def test_a_second_call_computes_nothing_and_gives_the_same_bits(tmp_path):
    texts = ["abc", "dad", "abc", "eee"]
    first, second = Letters(), Letters()
    fresh = embed(texts, first, cache=tmp_path, progress=False)
    again = embed(texts, second, cache=tmp_path, progress=False)
    assert sorted(first.seen) == ["abc", "dad", "eee"]
    assert second.seen == []
    assert fresh.dtype == np.float32
    assert np.array_equal(fresh, again)
    assert np.array_equal(fresh, embed(texts, Letters(), cache=None, progress=False))
    assert np.array_equal(fresh[0], fresh[2])


def test_what_cached_vectors_cost_is_still_known(tmp_path):
    class Slow(Letters):
        def transform(self, texts):
            time.sleep(0.05)
            return super().transform(texts)

    embed(["abc", "dad"], Slow(), cache=tmp_path, progress=False)
    whole = embedding_seconds(["abc", "dad"], Slow(), cache=tmp_path)
    assert whole >= 0.05
    assert embedding_seconds(["dad"], Slow(), cache=tmp_path) == pytest.approx(whole / 2)
    assert embedding_seconds(["new"], Slow(), cache=tmp_path) == 0
    assert embedding_seconds(["dad"], Slow(), cache=None) == 0


def test_only_texts_that_are_new_are_computed(tmp_path):
    embed(["abc", "dad"], Letters(), cache=tmp_path, progress=False)
    later = Letters()
    vectors = embed(["eee", "dad"], later, cache=tmp_path, progress=False)
    assert later.seen == ["eee"]
    assert np.array_equal(vectors, embed(["eee", "dad"], Letters(), cache=False, progress=False))


def test_another_identity_has_another_cache(tmp_path):
    embed(["abc"], Letters(), cache=tmp_path, progress=False)
    other = Letters(version=2)
    embed(["abc"], other, cache=tmp_path, progress=False)
    assert other.seen == ["abc"]


def test_the_default_cache_is_in_the_cache_folder(tmp_path):
    embed(["abc"], Letters(), progress=False)
    assert len(shards(tmp_path / "cache" / "embeddings")) == 1


def test_texts_with_surrogates_and_nulls_are_texts(tmp_path):
    texts = ["\ud800", "a\x00", "a", ""]
    vectors = embed(texts, Letters(), cache=tmp_path, progress=False)
    assert vectors.shape == (4, 5)
    assert len(set(text_keys(texts).tolist())) == 4


@pytest.mark.parametrize("at", [0.02, 0.3, 0.6, 0.9, 0.99])
@pytest.mark.parametrize("harm", ["flip", "cut", "empty"])
def test_a_damaged_shard_is_named_with_the_remedy(tmp_path, at, harm):
    texts = [f"{'abcde'[i % 5] * (i % 7)}{i}" for i in range(50)]
    good = embed(texts, Letters(), cache=tmp_path, progress=False)
    (path,) = shards(tmp_path)
    raw = bytearray(path.read_bytes())
    place = int(at * len(raw))
    if harm == "flip":
        raw[place] ^= 0xFF
    path.write_bytes({"flip": raw, "cut": raw[:place], "empty": b""}[harm])
    message = read = None
    try:
        read = embed(texts, Letters(), cache=tmp_path, progress=False)
    except InputError as error:
        message = str(error)
        path.unlink()
        read = embed(texts, Letters(), cache=tmp_path, progress=False)
    # A flip in what does not matter (a date in the zip header) may pass, wrong vectors never.
    assert np.array_equal(read, good)
    if message or harm != "flip":
        assert message.startswith(str(path))
        assert "delete this file" in message
        assert "\n" not in message


def test_a_shard_of_another_width_is_named(tmp_path):
    store = VectorStore(tmp_path)
    store.append(text_keys(["a"]), np.ones((1, 3), np.float16))
    store.append(text_keys(["b"]), np.ones((1, 4), np.float16))
    with pytest.raises(InputError, match=r"shard-.*npz: vectors of"):
        store.read(text_keys(["a", "b"]))


@pytest.mark.parametrize(
    ("texts", "message"), [([], "there are none"), (["a", None], "row 1 is NoneType")]
)
def test_texts_that_are_none_are_refused(texts, message):
    with pytest.raises(InputError, match=message):
        embed(texts, Letters(), cache=None, progress=False)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e6])
def test_vectors_that_float16_cannot_hold_are_refused(tmp_path, value):
    class Broken(Letters):
        def transform(self, texts):
            return np.full((len(texts), 2), value, dtype=np.float32)

    with pytest.raises(InputError, match="not finite"):
        embed(["abc"], Broken(), cache=tmp_path, progress=False)
    assert shards(tmp_path) == []


KILLED = """
import sys, time
from pathlib import Path
import rbkit.regroup.embedding as embedding
sys.path.insert(0, sys.argv[2])
from test_embedding import Letters

class Slow(Letters):
    def transform(self, texts):
        time.sleep(0.2)
        return super().transform(texts)

embedding._CHUNK, embedding._SECONDS_PER_SHARD = 10, 0.0
texts = [f"{'abcde'[i % 5]}{i}" for i in range(1000)]
embedding.embed(texts, Slow(), cache=Path(sys.argv[1]), progress=False)
"""


def test_after_kill_minus_9_only_the_rest_is_computed(tmp_path):
    command = [sys.executable, "-c", KILLED, str(tmp_path), os.path.dirname(__file__)]
    process = subprocess.Popen(command)
    deadline = time.monotonic() + 60
    while len(shards(tmp_path)) < 3 and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    saved = 10 * len(shards(tmp_path))
    assert 30 <= saved < 1000
    texts = [f"{'abcde'[i % 5]}{i}" for i in range(1000)]
    rest = Letters()
    vectors = embed(texts, rest, cache=tmp_path, progress=False)
    assert len(rest.seen) == 1000 - saved
    assert np.array_equal(vectors, embed(texts, Letters(), cache=None, progress=False))


def test_the_embedder_is_fitted_on_train_alone(corpus):
    letters = Letters()
    vectors = embed_corpus(corpus, letters, cache=None, progress=False)
    assert letters.fitted_on == list(corpus["train"]["text"])
    assert {split: len(rows) for split, rows in vectors.items()} == {"train": 120, "eval": 30}


def test_a_real_model_resumes_too(tiny_model, make_texts, tmp_path):
    from rbkit.regroup import TransformerEmbedder

    texts, _ = make_texts(30)
    embed(texts[:20], TransformerEmbedder(tiny_model), cache=tmp_path, progress=False)
    once = embed(texts, TransformerEmbedder(tiny_model), cache=tmp_path, progress=False)
    again = TransformerEmbedder(tiny_model)
    assert np.array_equal(once, embed(texts, again, cache=tmp_path, progress=False))
    assert not hasattr(again, "_loaded")  # all of it came from disk


class TestTfidf:
    def test_texts_of_one_topic_are_nearest_each_other(self, make_texts):
        texts, topics = make_texts(60)
        vectors = TfidfEmbedder(dim=3).fit(texts).transform(texts)
        likeness = vectors @ vectors.T
        same = np.equal.outer(topics, topics)
        assert likeness[same].mean() > likeness[~same].mean() + 0.5

    def test_rows_have_unit_length_or_are_zero(self, make_texts):
        embedder = TfidfEmbedder(dim=3).fit(make_texts(60)[0])
        norms = np.linalg.norm(embedder.transform(["oak elm", "unheard word", ""]), axis=1)
        np.testing.assert_allclose(norms, [1, 0, 0], atol=1e-6)

    def test_a_corpus_of_one_word_still_has_vectors(self):
        assert TfidfEmbedder().fit(["oak", "oak"]).transform(["oak"]).tolist() == [[1.0]]

    def test_a_corpus_without_words_is_refused(self):
        with pytest.raises(InputError, match="no usable word"):
            TfidfEmbedder().fit(["1 2", "the"])

    def test_identity_follows_what_was_learnt(self, make_texts):
        one, two = (TfidfEmbedder(dim=3).fit(make_texts(60, seed)[0]) for seed in (0, 1))
        assert one.identity != two.identity
        assert one.identity == TfidfEmbedder(dim=3).fit(make_texts(60, 0)[0]).identity


@pytest.mark.parametrize(
    "given",
    [
        lambda n: None,
        lambda n: np.zeros(n),
        lambda n: np.zeros((n + 1, 3)),
        lambda n: np.zeros((n, 0)),
        lambda n: np.zeros((n, 2, 2)),
        lambda n: [[1.0]] * (n - 1) + [[1.0, 2.0]],
        lambda n: [["a"]] * n,
        lambda n: np.full((n, 2), np.nan),
        lambda n: np.full((n, 2), 1e30),
        lambda n: np.zeros((n, n)),
    ],
)
def test_an_embedder_of_another_shape_is_refused_by_name(given):
    class Odd(Letters):
        def transform(self, texts):
            return given(len(texts))

    with pytest.raises(InputError, match="Odd: gave"):
        embed([f"text {i}" for i in range(300)], Odd(), cache=None, progress=False)


def test_embedders_of_other_libraries_are_taken():
    import torch
    from scipy.sparse import csr_matrix

    plain = embed(["abc", "dad"], Letters(), cache=None, progress=False)
    for of in (torch.tensor, csr_matrix, np.ndarray.tolist):

        class Other(Letters):
            def transform(self, texts, of=of):
                return of(super().transform(texts))

        assert np.array_equal(embed(["abc", "dad"], Other(), cache=None, progress=False), plain)


@pytest.mark.parametrize("bad", ["one text", b"x", ["a", None], ["a", 5], ["a", b"b"], []])
def test_what_is_not_a_list_of_texts_is_refused(bad):
    for call in (
        lambda: embed(bad, Letters(), cache=None, progress=False),
        lambda: TfidfEmbedder().fit(bad),
        lambda: TfidfEmbedder(dim=1).fit(["oak tree", "car"]).transform(bad),
    ):
        with pytest.raises(InputError, match="texts: "):
            call()


@pytest.mark.parametrize("name", ["write_json", "atomic_path"])
def test_a_full_disk_costs_the_cache_and_not_the_vectors(tmp_path, monkeypatch, name):
    def refuse(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    texts = ["abc", "dad", "eee"]
    whole = embed(texts, Letters(), cache=None, progress=False)
    monkeypatch.setattr(f"rbkit.regroup.embedding.{name}", refuse)
    with pytest.warns(RbkitWarning, match=r"cannot be written \(No space left on device\)"):
        made = embed(texts, Letters(), cache=tmp_path, progress=False)
    assert np.array_equal(made, whole)
