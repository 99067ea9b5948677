"""Neighbours, UMAP's graph, and the map: what is exact, what is cached, what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics.pairwise import cosine_distances

from rbkit.errors import InputError, RbkitWarning
from rbkit.files import cache_dir
from rbkit.regroup import umap
from rbkit.regroup.umap import (
    NeighbourIndex,
    exact_neighbours,
    fuzzy_graph,
    project,
    umap_coordinates,
    umap_learn,
)

QUICK = {"n_epochs": 20, "cache": False}


def blobs(n=200, d=8, k=4, seed=0):
    rng = np.random.default_rng(seed)
    truth = rng.integers(k, size=n)
    X = rng.normal(size=(k, d))[truth] * 5 + rng.normal(size=(n, d))
    return X.astype(np.float32), truth


class TestNeighbours:
    @settings(max_examples=30)
    @given(st.integers(1, 40), st.data())
    def test_they_are_those_of_brute_force(self, n, data):
        k = data.draw(st.integers(1, n))
        X = np.random.default_rng(n).normal(size=(n, 4))
        indices, distances = exact_neighbours(X, k)
        all_pairs = cosine_distances(X)
        np.testing.assert_allclose(distances, np.sort(all_pairs, axis=1)[:, :k], atol=1e-5)
        np.testing.assert_allclose(
            np.take_along_axis(all_pairs, indices, axis=1), distances, atol=1e-5
        )
        assert indices.dtype == np.int32
        assert distances.dtype == np.float32
        assert np.array_equal(indices[:, 0], np.arange(n))

    def test_a_row_is_its_own_neighbour_among_a_hundred_copies(self):
        indices, distances = exact_neighbours(np.ones((100, 3)), 5)
        assert np.array_equal(indices[:, 0], np.arange(100))
        assert all(len(set(row)) == 5 for row in indices)
        np.testing.assert_allclose(distances, 0, atol=1e-6)

    def test_zero_vectors_are_alike_and_far_from_all_others(self):
        X = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 0.0], [1.0, 0.1]])
        indices, distances = exact_neighbours(X, 4)
        assert sorted(indices[0][:2]) == [0, 2]
        np.testing.assert_allclose(distances[0], [0, 0, 1, 1], atol=1e-6)
        found, far = NeighbourIndex(X).search(np.zeros((1, 2)), 2)
        assert sorted(found[0]) == [0, 2]
        np.testing.assert_allclose(far, 0, atol=1e-6)

    def test_lengths_do_not_matter(self):
        X, _ = blobs()
        scaled = X * np.random.default_rng(0).uniform(1e-3, 1e3, size=(200, 1))
        assert np.array_equal(exact_neighbours(X, 5)[0], exact_neighbours(scaled, 5)[0])

    def test_an_index_finds_nearly_all_of_them(self, monkeypatch):
        monkeypatch.setattr(umap, "_INDEXED", 100)
        X, _ = blobs(n=3000)
        exact, near = exact_neighbours(X, 10)[0], NeighbourIndex(X).search(X, 10)[0]
        shared = [len(set(a) & set(b)) / 10 for a, b in zip(exact, near, strict=True)]
        assert np.mean(shared) > 0.9

    @pytest.mark.parametrize("k", [0, 4])
    def test_an_impossible_k_is_refused(self, k):
        with pytest.raises(InputError, match=rf"{k} neighbours asked among 3 .*1 <= k <= 3"):
            exact_neighbours(np.ones((3, 2)), k)


class TestGraph:
    @settings(max_examples=20)
    @given(st.integers(2, 30), st.integers(0, 1000))
    def test_it_is_symmetric_with_weights_up_to_one(self, n, seed):
        X = np.random.default_rng(seed).integers(0, 3, size=(n, 3)).astype(np.float32)
        graph = fuzzy_graph(*exact_neighbours(X, min(n, 6)))
        assert abs(graph - graph.T).max() == 0
        assert graph.diagonal().max() == 0
        assert graph.data.min() > 0
        assert graph.data.max() <= 1 + 1e-6

    @pytest.mark.slow
    def test_it_is_umap_learns_own(self):
        X, _ = blobs()
        X[:20] = X[0]  # with duplicates
        indices, distances = exact_neighbours(X, 15)
        theirs = umap_learn()[0].fuzzy_simplicial_set(
            X, 15, np.random.RandomState(0), "cosine", knn_indices=indices, knn_dists=distances
        )[0]
        assert abs(fuzzy_graph(indices, distances) - theirs).max() < 1e-3


class TestMap:
    def test_neighbours_stay_neighbours(self):
        X, truth = blobs(400)
        Y = umap_coordinates(X, cache=False, n_epochs=100)
        assert Y.shape == (400, 2)
        assert Y.dtype == np.float32
        nearest = exact_neighbours(X, 2)[0][:, 1]
        near = np.linalg.norm(Y - Y[nearest], axis=1).mean()
        assert near < 0.2 * np.linalg.norm(Y - Y[::-1], axis=1).mean()
        inside = np.mean([Y[truth == at].std(axis=0).mean() for at in range(4)])
        assert inside < 0.5 * Y.std(axis=0).mean()

    def test_the_same_seed_gives_the_same_bits_and_another_does_not(self):
        X, _ = blobs()
        one = umap_coordinates(X, seed=1, **QUICK)
        assert np.array_equal(one, umap_coordinates(X, seed=1, **QUICK))
        assert not np.array_equal(one, umap_coordinates(X, seed=2, **QUICK))

    def test_above_the_sample_the_rest_is_placed_among_its_neighbours(self):
        X, truth = blobs(600)
        placed = project(X, sample=300, cache=False, n_epochs=100)
        assert len(placed.seen) == 300
        assert np.isfinite(placed.coordinates).all()
        rest = np.setdiff1d(np.arange(600), placed.seen)
        assert set(placed.anchors[rest]) <= set(placed.seen)
        assert (truth[placed.anchors] == truth).mean() > 0.9
        away = np.linalg.norm(placed.coordinates - placed.coordinates[placed.anchors], axis=1)
        assert np.median(away[rest]) < 0.3 * placed.coordinates.std()

    def test_progress_rises_to_one_and_names_what_is_done(self):
        X, _ = blobs()
        seen = []
        umap_coordinates(X, on_progress=lambda *at: seen.append(at), sample=150, **QUICK)
        fractions, texts = zip(*seen, strict=True)
        assert list(fractions) == sorted(fractions)
        assert fractions[-1] == 1
        assert set(texts) >= {"finding neighbours", "laying out", "placing the rest"}
        assert sum(text == "laying out" for text in texts) == 20  # one for every epoch

    def test_whoever_watches_can_stop_it(self):
        layouts = umap_learn()[1]
        before = layouts.tqdm

        def stop(done, what):
            if what == "laying out":
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            umap_coordinates(blobs()[0], on_progress=stop, n_epochs=20)
        assert layouts.tqdm is before
        assert not list(cache_dir().rglob("*.npz"))

    @pytest.mark.parametrize("n", [1, 2, 3, 10])
    def test_few_examples_have_a_map_too(self, n):
        X, _ = blobs(n)
        Y = umap_coordinates(X, n_components=3, **QUICK)
        assert Y.shape == (n, 3)
        assert np.isfinite(Y).all()

    @pytest.mark.parametrize("X", [np.ones((50, 4)), np.zeros((50, 4)), np.eye(50, 4)])
    def test_copies_and_zero_vectors_have_a_map_too(self, X):
        Y = umap_coordinates(X, **QUICK)
        assert np.isfinite(Y).all()

    def test_float16_and_a_memory_map_are_read_as_they_are(self, tmp_path):
        X, _ = blobs(100)
        np.save(tmp_path / "X.npy", X.astype(np.float16))
        mapped = np.load(tmp_path / "X.npy", mmap_mode="r")
        one = umap_coordinates(mapped, sample=60, **QUICK)
        assert np.array_equal(one, umap_coordinates(X.astype(np.float16), sample=60, **QUICK))


class TestCache:
    def test_a_second_call_reads_and_computes_nothing(self, monkeypatch):
        X, _ = blobs(60)
        first = project(X, n_epochs=10)
        monkeypatch.setattr(umap, "_project", None)
        again = project(X.copy(), n_epochs=10)
        assert np.array_equal(first.coordinates, again.coordinates)
        assert np.array_equal(first.anchors, again.anchors)

    def test_other_vectors_and_parameters_are_other_files(self):
        X, _ = blobs(60)
        project(X, n_epochs=10)
        project(X + 1, n_epochs=10)
        project(X, n_epochs=11)
        project(X, n_epochs=10, key="mine")
        assert len(list((cache_dir() / "projections").glob("umap-*.npz"))) == 4

    def test_a_sample_that_would_hold_all_rows_changes_nothing(self):
        X, _ = blobs(60)
        project(X, n_epochs=10, sample=60)
        project(X, n_epochs=10, sample=1000)
        assert len(list((cache_dir() / "projections").glob("umap-*.npz"))) == 1

    @pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 half a file"])
    def test_a_damaged_file_is_named_and_computed_again(self, damage):
        X, _ = blobs(60)
        first = umap_coordinates(X, n_epochs=10)
        (path,) = (cache_dir() / "projections").glob("umap-*.npz")
        path.write_bytes(damage)
        with pytest.warns(RbkitWarning, match=path.name):
            again = umap_coordinates(X, n_epochs=10)
        assert np.array_equal(first, again)
        assert np.array_equal(umap_coordinates(X, n_epochs=10), first)  # whole again

    def test_a_file_of_other_shape_is_not_believed(self):
        X, _ = blobs(60)
        umap_coordinates(X, n_epochs=10)
        (path,) = (cache_dir() / "projections").glob("umap-*.npz")
        np.savez(path, coordinates=np.zeros((3, 2)), anchors=np.zeros(3, dtype=np.int32))
        with pytest.warns(RbkitWarning, match="not a projection of these vectors"):
            assert umap_coordinates(X, n_epochs=10).shape == (60, 2)


@pytest.mark.parametrize(
    ("X", "options", "message"),
    [
        (np.ones((0, 3)), {}, r"X: an array of shape \(0, 3\)"),
        (np.ones(3), {}, r"X: an array of shape \(3,\)"),
        (np.full((9, 3), np.nan), {}, "X: NaN or infinity"),
        (np.ones((9, 3)), {"n_neighbors": 1}, "n_neighbors: 1 is too few; choose at least 2"),
        (np.ones((9, 3)), {"n_components": 0}, "n_components: 0 is too few"),
    ],
)
def test_bad_input_is_refused_by_name(X, options, message):
    with pytest.raises(InputError, match=message):
        umap_coordinates(X, cache=False, **options)
