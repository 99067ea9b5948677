"""Vectors on disk: indexed as an array is, resumed after a kill, never taken for another's."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
import pytest
from datasets import Dataset, load_from_disk
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import BaseEstimator

from rbkit.errors import InputError, RbkitWarning
from rbkit.regroup import KMeans, TfidfEmbedder, embed
from rbkit.regroup.distances import distance_profile
from rbkit.regroup.shards import (
    ShardedVectors,
    ShardFolder,
    ShardHeader,
    embed_corpus_sharded,
    embed_shards,
    portable,
)


class Letters(BaseEstimator):
    """Counts letters, and writes down what it was asked: workers have memories of their own."""

    def __init__(self, version: int = 1, log: str | None = None, slow: float = 0.0) -> None:
        self.version, self.log, self.slow = version, log, slow

    @property
    def identity(self):
        return {"embedder": "Letters", "version": self.version}

    def fit(self, texts):
        return self

    def transform(self, texts):
        time.sleep(self.slow)
        if self.log:
            with open(self.log, "a") as file:
                file.write("".join(f"{os.getpid()} {text}\n" for text in texts))
        rows = [[text.count(letter) / 3 for letter in "abcde"] for text in texts]
        return np.array(rows, dtype=np.float32)

    def seen(self):
        path = Path(self.log)
        lines = path.read_text().splitlines() if path.exists() else []
        return [line.split(" ", 1) for line in lines]


def rows_of(n=100):
    return Dataset.from_dict({"text": [f"{'abcde'[i % 5] * (i % 7)}{i}" for i in range(n)]})


def write(folder, X, rows_per_shard):
    header = ShardHeader({"embedder": "none"}, "corpus", len(X), rows_per_shard)
    files = ShardFolder.claim(folder, header)
    for shard in range(header.shards):
        files.write(shard, X[slice(*header.span(shard))])
    return ShardedVectors(folder)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """The same 23 rows as an array and as four shards."""
    X = np.random.default_rng(0).normal(size=(23, 3)).astype(np.float16)
    return X, write(tmp_path_factory.mktemp("shards"), X, 7)


numbers = st.integers(-23, 22)
ends = st.none() | st.integers(-30, 30)
steps = st.none() | st.integers(-9, 9).filter(bool)


class TestShardedVectors:
    @settings(max_examples=300)
    @given(
        st.one_of(
            numbers,
            st.builds(slice, ends, ends, steps),
            st.lists(numbers, max_size=40),
            st.lists(numbers, max_size=40).map(lambda rows: np.array(rows, dtype=np.int32)),
            st.lists(st.booleans(), min_size=23, max_size=23).map(np.array),
        )
    )
    def test_indexing_is_numpys(self, pair, rows):
        X, vectors = pair
        wanted = X[rows] if not (isinstance(rows, list) and not rows) else X[:0]
        found = vectors[rows]
        assert found.dtype == wanted.dtype
        assert found.shape == wanted.shape
        assert np.array_equal(found, wanted)

    @settings(max_examples=30)
    @given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 5))
    def test_any_number_of_rows_in_shards_of_any_size(self, tmp_path_factory, n, size, d):
        X = np.arange(n * d).reshape(n, d).astype(np.float16)
        vectors = write(tmp_path_factory.mktemp("any"), X, size)
        assert vectors.shape == X.shape == (len(vectors), d)
        assert np.array_equal(vectors, X)
        assert np.array_equal(np.concatenate([part for _, part in vectors.chunks()]), X)
        starts = [start for start, _ in vectors.chunks()]
        assert starts == list(range(0, n, size))

    @pytest.mark.parametrize(
        "rows", [23, -24, [0, 23], [0.5], np.zeros(22, bool), (0, 1), None, ..., [[0], [1]]]
    )
    def test_what_is_no_row_is_refused(self, pair, rows):
        with pytest.raises(IndexError):
            pair[1][rows]

    def test_it_is_an_array_to_numpy(self, pair):
        X, vectors = pair
        assert np.asarray(vectors, dtype=np.float32).dtype == np.float32
        assert (vectors.dtype, vectors.ndim, vectors.size) == (X.dtype, X.ndim, X.size)
        with pytest.raises(ValueError, match="without a copy"):
            np.array(vectors, copy=False)

    def test_one_shard_is_no_copy_and_cannot_be_written_to(self, pair):
        with pytest.raises(ValueError, match="read-only"):
            pair[1][0:3][0] = 1

    def test_a_sample_is_seeded_sorted_and_without_repetition(self, pair):
        X, vectors = pair
        rows, sample = vectors.sample(9, seed=1)
        assert (np.diff(rows) > 0).all()
        assert np.array_equal(sample, X[rows])
        assert np.array_equal(rows, vectors.sample(9, seed=1)[0])
        assert len(vectors.sample(99)[0]) == 23

    def test_more_shards_than_a_process_may_have_files_open(self, tmp_path):
        X = np.arange(300.0).reshape(300, 1).astype(np.float16)
        vectors = write(tmp_path, X, 1)
        assert np.array_equal(vectors[::-1], X[::-1])
        open_files = os.listdir("/proc/self/fd") if os.path.exists("/proc/self/fd") else []
        assert sum(1 for fd in open_files if fd.isdigit()) < 200

    def test_the_key_follows_the_vectors(self, tmp_path):
        X = np.ones((4, 2), np.float16)
        one, two = write(tmp_path / "one", X, 2), write(tmp_path / "two", X, 2)
        X[3, 1] = 2
        assert one.key == two.key != write(tmp_path / "three", X, 2).key


class TestClusteringOnDisk:
    def blobs(self):
        rng = np.random.default_rng(0)
        truth = rng.integers(5, size=3_000)
        X = rng.normal(size=(5, 8))[truth] * 10 + rng.normal(size=(3_000, 8))
        return X.astype(np.float16)

    @pytest.mark.parametrize("max_train", [500_000, 1_000])
    def test_kmeans_on_shards_is_kmeans_in_memory(self, tmp_path, max_train):
        X = self.blobs()
        vectors = write(tmp_path / "shards", X, 1_000)
        np.save(tmp_path / "x.npy", X)
        mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
        memory = KMeans(5, max_train=max_train).fit(X.astype(np.float32))
        for rows in (vectors, mapped, X):
            disk = KMeans(5, max_train=max_train).fit(rows)
            assert np.array_equal(disk.labels_, memory.labels_)
            assert np.array_equal(disk.cluster_centers_, memory.cluster_centers_)
            assert np.array_equal(disk.predict(rows), memory.labels_)
            assert disk.n_features_in_ == 8

    def test_chunks_change_nothing(self, tmp_path, monkeypatch):
        vectors = write(tmp_path, self.blobs(), 1_000)
        whole = KMeans(40, n_iter=3).fit(vectors)
        monkeypatch.setattr("rbkit.regroup.kmeans._CHUNK", 700)
        parts = KMeans(40, n_iter=3).fit(vectors)
        assert np.mean(parts.labels_ == whole.labels_) > 0.999
        np.testing.assert_allclose(parts.cluster_centers_, whole.cluster_centers_, atol=1e-3)

    def test_no_domain_is_empty_whatever_the_subset_missed(self, tmp_path):
        X = np.zeros((4_000, 2), np.float16)
        X[1_234], X[3_456] = 50, -50  # two rows that hardly any subset of 100 sees
        kmeans = KMeans(3, max_train=100).fit(write(tmp_path, X, 900))
        assert np.bincount(kmeans.labels_).tolist() == [3_998, 1, 1]

    def test_vectors_that_are_not_finite_are_refused(self, tmp_path):
        X = self.blobs()
        X[2_500, 3] = np.nan
        with pytest.raises(ValueError, match="NaN"):
            KMeans(2).fit(write(tmp_path, X, 1_000))

    @pytest.mark.slow
    def test_a_memory_map_is_not_read_into_memory(self, tmp_path):
        # 400 MB of vectors, a process that may allocate 250 MB more than it has.
        code = """
import resource, sys, numpy as np
from rbkit.regroup.kmeans import KMeans
import rbkit.regroup.kmeans as cluster
X = np.lib.format.open_memmap(sys.argv[1], "w+", np.float16, (1_600_000, 128))
for start in range(0, len(X), 100_000):
    X[start : start + 100_000] = np.random.default_rng(start).normal(size=(100_000, 128))
KMeans(4, n_init=1, n_iter=2).fit(np.zeros((100, 128)) + np.arange(100)[:, None])
has = int(open("/proc/self/statm").read().split()[5]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_DATA, (has + 250 * 2**20,) * 2)
print(len(np.unique(KMeans(4, n_init=1, n_iter=2, max_train=20_000).fit(X).labels_)))
"""
        if not sys.platform.startswith("linux"):
            pytest.skip("limits the heap in Linux's way")
        command = [sys.executable, "-c", code, str(tmp_path / "x.npy")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.stdout.strip() == "4", done.stderr


class TestEmbedding:
    def test_vectors_are_those_of_embed(self, tmp_path):
        rows = rows_of()
        vectors = embed_shards(rows, Letters(), tmp_path, rows_per_shard=16, progress=False)
        assert vectors.shape == (100, 5)
        assert vectors.seconds > 0
        assert np.array_equal(vectors, embed(rows["text"], Letters(), cache=None, progress=False))

    def test_a_second_call_computes_nothing(self, tmp_path):
        embed_shards(rows_of(), Letters(), tmp_path, rows_per_shard=16, progress=False)
        later = Letters(log=str(tmp_path / "log"))
        embed_shards(rows_of(), later, tmp_path, rows_per_shard=50, progress=False)
        assert later.seen() == []

    def test_texts_are_read_shard_by_shard(self, tmp_path, monkeypatch):
        rows_of().save_to_disk(tmp_path / "rows")
        asked = []
        real = Dataset.__getitem__
        monkeypatch.setattr(
            Dataset, "__getitem__", lambda self, at: asked.append(at) or real(self, at)
        )
        rows = load_from_disk(str(tmp_path / "rows"))
        embed_shards(rows, Letters(), tmp_path / "v", rows_per_shard=30, progress=False)
        assert asked == [slice(0, 30), slice(30, 60), slice(60, 90), slice(90, 100)]

    @pytest.mark.slow
    def test_processes_give_the_same_and_share_the_work(self, tmp_path):
        rows_of().save_to_disk(tmp_path / "rows")
        rows = load_from_disk(str(tmp_path / "rows"))
        log = Letters(log=str(tmp_path / "log"))
        one = embed_shards(rows, Letters(), tmp_path / "1", rows_per_shard=10, progress=False)
        two = embed_shards(rows, log, tmp_path / "2", rows_per_shard=10, num_proc=2, progress=False)
        assert one.key == two.key
        assert sorted(text for _, text in log.seen()) == sorted(rows["text"])
        workers = {int(pid) for pid, _ in log.seen()}
        assert len(workers) == 2
        assert os.getpid() not in workers

    @pytest.mark.slow
    def test_a_fitted_embedder_and_a_model_reach_the_processes(
        self, tmp_path, tiny_model, make_texts
    ):
        from rbkit.regroup import TransformerEmbedder

        rows = Dataset.from_dict({"text": make_texts(60)[0]})
        for name, embedder in (
            ("tfidf", TfidfEmbedder(dim=3).fit(rows["text"])),
            ("model", TransformerEmbedder(tiny_model, precision="fp32")),
        ):
            one, two = (
                embed_shards(
                    rows,
                    embedder,
                    tmp_path / f"{name}{num_proc}",
                    rows_per_shard=20,
                    num_proc=num_proc,
                    progress=False,
                )
                for num_proc in (1, 2)
            )
            np.testing.assert_allclose(one[:], two[:], atol=2e-3)
            assert (one[:] == two[:]).mean() > 0.99

    def test_what_travels_is_what_was_learnt_and_no_model(self, tiny_model, make_texts):
        from rbkit.regroup import TransformerEmbedder

        texts, _ = make_texts(20)
        model = TransformerEmbedder(tiny_model)
        model.transform(texts)
        assert not hasattr(portable(model), "_loaded")
        tfidf = TfidfEmbedder(dim=3).fit(texts)
        copy = portable(tfidf)
        assert np.array_equal(copy.transform(texts), tfidf.transform(texts))

    def test_a_corpus_gets_a_folder_of_its_own_in_the_cache(self, corpus, make_corpus):
        vectors = embed_corpus_sharded(corpus, TfidfEmbedder(dim=3), progress=False)
        assert {split: len(rows) for split, rows in vectors.items()} == {"train": 120, "eval": 30}
        again = embed_corpus_sharded(corpus, TfidfEmbedder(dim=3), progress=False)
        assert again["train"].folder == vectors["train"].folder
        other = embed_corpus_sharded(make_corpus(60, 20), TfidfEmbedder(dim=3), progress=False)
        assert other["train"].folder != vectors["train"].folder

    def test_one_folder_serves_many_corpora_and_embedders(self, tmp_path, corpus, make_corpus):
        for rows in (corpus, make_corpus(60, 20)):
            for dim in (2, 3):
                found = embed_corpus_sharded(rows, TfidfEmbedder(dim), tmp_path, progress=False)
                assert found["train"].shape == (len(rows["train"]), dim)
        assert len(list(tmp_path.iterdir())) == 4


class TestFaults:
    def test_a_folder_of_another_embedder_or_corpus_is_refused(self, tmp_path):
        embed_shards(rows_of(), Letters(), tmp_path, progress=False)
        with pytest.raises(InputError, match=r"another embedder .*\"version\": 1.*not .*2.*folder"):
            embed_shards(rows_of(), Letters(version=2), tmp_path, progress=False)
        changed = [*rows_of()["text"][:-1], "other"]
        with pytest.raises(InputError, match="another corpus"):
            embed_shards(Dataset.from_dict({"text": changed}), Letters(), tmp_path, progress=False)

    @pytest.mark.parametrize("harm", ["flip", "cut", "empty", "gone", "facts"])
    def test_a_damaged_shard_is_named_and_computed_anew(self, tmp_path, harm):
        good = embed_shards(rows_of(), Letters(), tmp_path, rows_per_shard=40, progress=False)[:]
        path = tmp_path / "vectors-00001.npy"
        raw = bytearray(path.read_bytes())
        if harm == "flip":
            raw[-5] ^= 0xFF
        if harm == "gone":
            path.unlink()
        elif harm == "facts":
            path.with_suffix(".json").write_text('{"of": ')
        else:
            path.write_bytes({"flip": raw, "cut": raw[:200], "empty": b""}[harm])
        with pytest.raises(InputError, match=r"vectors-00001.*; (embed again|delete or repair)"):
            ShardedVectors(tmp_path)[:]
        log = Letters(log=str(tmp_path / "log"))
        with pytest.warns(RbkitWarning, match=r"vectors-00001.*computing it again"):
            again = embed_shards(rows_of(), log, tmp_path, progress=False)
        assert np.array_equal(again, good)
        assert len(log.seen()) == 40

    def test_a_shard_copied_from_another_folder_is_not_used(self, tmp_path):
        mine, theirs = tmp_path / "mine", tmp_path / "theirs"
        good = embed_shards(rows_of(), Letters(), mine, rows_per_shard=40, progress=False)[:]
        other = Letters(version=2)
        embed_shards(rows_of(), other, theirs, rows_per_shard=40, progress=False)
        for suffix in (".npy", ".json"):
            name = f"vectors-00001{suffix}"
            (mine / name).write_bytes((theirs / name).read_bytes())
        with pytest.raises(InputError, match="another embedder or corpus"):
            ShardedVectors(mine)
        with pytest.warns(RbkitWarning, match="another embedder or corpus; computing it again"):
            assert np.array_equal(embed_shards(rows_of(), Letters(), mine, progress=False), good)

    @pytest.mark.parametrize("header", ["{", "[]", '{"format": "rbkit-shards/1"}', "{}"])
    def test_a_damaged_header_is_named(self, tmp_path, header):
        embed_shards(rows_of(), Letters(), tmp_path, progress=False)
        (tmp_path / "shards.json").write_text(header)
        with pytest.raises(InputError, match=r"shards\.json"):
            embed_shards(rows_of(), Letters(), tmp_path, progress=False)

    def test_a_folder_without_shards_and_an_embedder_without_identity(self, tmp_path):
        with pytest.raises(InputError, match="holds no shards"):
            ShardedVectors(tmp_path)

        class Anonymous:
            def transform(self, texts):
                return np.ones((len(texts), 2))

        with pytest.raises(InputError, match="identity"):
            embed_shards(rows_of(), Anonymous(), tmp_path, progress=False)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"column": "body"}, r"no column 'body'; it has 'text'"),
            ({"num_proc": 0}, "num_proc"),
            ({"rows_per_shard": 0}, "rows_per_shard"),
        ],
    )
    def test_bad_parameters_are_named(self, tmp_path, options, message):
        with pytest.raises(InputError, match=message):
            embed_shards(rows_of(), Letters(), tmp_path, progress=False, **options)

    def test_a_row_that_is_no_text_is_named_by_its_number(self, tmp_path):
        rows = Dataset.from_dict({"text": ["a"] * 25 + [None]})
        with pytest.raises(InputError, match="row 25 is NoneType"):
            embed_shards(rows, Letters(), tmp_path, rows_per_shard=10, progress=False)
        assert (tmp_path / "vectors-00001.json").exists()

    @pytest.mark.slow
    def test_an_error_in_a_process_is_the_users_error(self, tmp_path):
        rows = Dataset.from_dict({"text": ["a"] * 25 + [None]})
        with pytest.raises(InputError, match="row 25 is NoneType"):
            embed_shards(rows, Letters(), tmp_path, rows_per_shard=10, num_proc=2, progress=False)

    def test_a_full_disk_is_told_and_nothing_half_written_is_left(self, tmp_path):
        rows = Dataset.from_dict({"text": [f"{at}" for at in range(4_000)]})
        with small_disk(tmp_path / "small") as folder:
            with pytest.raises(InputError, match=r"cannot be written .*; make room there"):
                embed_shards(rows, Wide(), folder, rows_per_shard=400, progress=False)
            assert not list(folder.glob(".tmp-*"))
            written = {path.stem for path in folder.glob("*.json")} - {"shards"}
            assert len(written) < 10
        embed_shards(rows, Wide(), tmp_path / "large", rows_per_shard=400, progress=False)

    @pytest.mark.slow
    def test_after_kill_minus_9_only_the_rest_is_computed(self, tmp_path):
        log = tmp_path / "log"
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(tmp_path), str(Path(__file__).parent)]
        )
        deadline = time.monotonic() + 120
        while len(list(tmp_path.glob("v/vectors-*.json"))) < 4 and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
        saved = len(list((tmp_path / "v").glob("vectors-*.json")))
        assert 4 <= saved < 100
        log.unlink()
        rest = Letters(log=str(log))
        vectors = embed_shards(rows_of(1_000), rest, tmp_path / "v", progress=False)
        assert len(rest.seen()) == 1_000 - 10 * saved
        assert np.array_equal(
            vectors, embed(rows_of(1_000)["text"], Letters(), cache=None, progress=False)
        )

    @pytest.mark.slow
    def test_the_death_of_a_process_is_told_and_the_next_call_goes_on(self, tmp_path):
        deadly = Deadly(flag=str(tmp_path / "flag"), log=str(tmp_path / "log"))
        with pytest.raises(InputError, match=r"num_proc=2: a worker died"):
            embed_shards(
                rows_of(), deadly, tmp_path / "v", rows_per_shard=10, num_proc=2, progress=False
            )
        vectors = embed_shards(rows_of(), deadly, tmp_path / "v", num_proc=2, progress=False)
        assert len(vectors) == 100

    @pytest.mark.slow
    def test_processes_do_not_outlive_a_killed_parent(self, tmp_path):
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(tmp_path), str(Path(__file__).parent), "2"]
        )
        log = Letters(log=str(tmp_path / "log"))
        deadline = time.monotonic() + 120
        while len({pid for pid, _ in log.seen()}) < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        started = {child.pid for child in psutil.Process(process.pid).children(recursive=True)}
        process.send_signal(signal.SIGKILL)
        process.wait()
        workers = {int(pid) for pid, _ in log.seen()}
        assert len(workers) == 2
        assert workers < started  # and the process that keeps their queue
        while any(map(alive, started)) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not any(map(alive, started))


KILLED = """
import sys
sys.path.insert(0, sys.argv[2])
from test_shards import Letters, rows_of
from rbkit.regroup.shards import embed_shards
slow = Letters(log=sys.argv[1] + "/log", slow=0.1)
num_proc = int(sys.argv[3]) if sys.argv[3:] else 1
embed_shards(rows_of(1_000), slow, sys.argv[1] + "/v", rows_per_shard=10, num_proc=num_proc,
             progress=False)
"""


class Wide(Letters):
    """Vectors of 1,000 numbers: 800 KB a shard of 400."""

    def transform(self, texts):
        return np.full((len(texts), 1_000), 0.5, dtype=np.float32)


class Deadly(Letters):
    """Kills its process once, with the signal that nobody can catch."""

    def __init__(self, flag: str = "", version: int = 1, log: str | None = None) -> None:
        super().__init__(version, log)
        self.flag = flag

    def transform(self, texts):
        if not Path(self.flag).exists():
            Path(self.flag).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().transform(texts)


@contextmanager
def small_disk(folder):
    """Three megabytes, as a file system of its own where one may mount it, else as a limit."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)]
    if shutil.which("mount") and subprocess.run(command, capture_output=True).returncode == 0:
        try:
            yield folder
        finally:
            subprocess.run(["umount", "-l", str(folder)], check=True)
    else:
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, limits[1]))
        try:
            yield folder
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_two_threads_may_read_the_same_shards(tmp_path, monkeypatch):
    monkeypatch.setattr("rbkit.regroup.shards._MAPPED", 1)
    X = np.arange(400, dtype=np.float16).reshape(200, 2)
    vectors = write(tmp_path, X, rows_per_shard=10)
    order = np.random.default_rng(0).permutation(200)
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: vectors[order], range(60)):
            assert np.array_equal(found, X[order])


def test_distances_are_measured_without_reading_all_shards_into_one_array(tmp_path, monkeypatch):
    X = np.random.default_rng(0).normal(size=(300, 4)).astype(np.float16)
    vectors = write(tmp_path, X, rows_per_shard=64)
    labels, centre = np.zeros(300, int), X.mean(axis=0, keepdims=True, dtype=np.float32)
    expected = distance_profile(X, labels, centre)
    monkeypatch.setattr(ShardedVectors, "__array__", None)
    assert distance_profile(vectors, labels, centre) == expected
