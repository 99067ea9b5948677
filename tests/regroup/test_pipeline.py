"""regroup(): from a corpus to domains, and what it says when it cannot."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from datasets import Dataset, DatasetDict
from sklearn.cluster import HDBSCAN, AgglomerativeClustering
from sklearn.metrics import adjusted_rand_score

from rbkit.data import load_corpus
from rbkit.errors import InputError, RbkitWarning
from rbkit.regroup import (
    Domains,
    EditLog,
    Editor,
    TfidfEmbedder,
    assign_new,
    embed_corpus,
    regroup,
)

TFIDF = {"embedder": TfidfEmbedder(dim=4), "progress": False}


def test_the_topics_are_found_and_eval_goes_where_it_belongs(corpus):
    domains = regroup(corpus, k=[2, 3, 4], **TFIDF)
    assert domains.m == 3
    assert adjusted_rand_score(domains.train_labels, corpus["train"]["source"]) > 0.95
    assert adjusted_rand_score(domains.eval_labels, corpus["eval"]["source"]) > 0.85
    assert domains.sizes.sum() == 120
    assert domains.q.sum() == pytest.approx(1)
    assert [row["k"] for row in domains.quality["grid"]] == [2, 3, 4]
    assert domains.method["name"] == "KMeans"
    assert domains.method["embedder"] == {
        "name": "TfidfEmbedder",
        "dim": 4,
        "max_features": 50_000,
        "seed": 0,
    }


@pytest.mark.parametrize("make", [list, tuple, np.array, iter, lambda texts: {"text": texts}])
def test_texts_in_hand_are_regrouped_as_the_corpus_made_of_them(make, corpus):
    texts = list(dict.fromkeys(corpus["train"]["text"]))
    expected = regroup(load_corpus(texts, seed=3), k=3, seed=3, **TFIDF)
    domains = regroup(make(texts), k=3, seed=3, **TFIDF)
    np.testing.assert_array_equal(domains.train_labels, expected.train_labels)
    np.testing.assert_array_equal(domains.eval_labels, expected.eval_labels)
    assert domains.material.corpus["eval"]["text"][:]


def test_it_is_deterministic_and_survives_a_round_trip(corpus, tmp_path):
    one, two = (regroup(corpus, k=3, seed=5, **TFIDF) for _ in range(2))
    assert np.array_equal(one.train_labels, two.train_labels)
    assert np.array_equal(one.centroids, two.centroids)
    loaded = Domains.load(one.save(tmp_path))
    assert repr(loaded) == repr(one)
    assert loaded._repr_html_() == one._repr_html_()


def test_eval_labels_are_the_nearest_centroid(corpus):
    from rbkit.regroup import embed_corpus

    domains = regroup(corpus, k=3, **TFIDF)
    vectors = embed_corpus(corpus, TfidfEmbedder(dim=4), progress=False)["eval"]
    squared = ((vectors[:, None] - domains.centroids) ** 2).sum(-1)
    assert np.array_equal(domains.eval_labels, squared.argmin(axis=1))


def test_a_transformer_by_path_works(corpus, tiny_model):
    domains = regroup(corpus, embedder=tiny_model, k=3, progress=False)
    assert domains.centroids.shape == (3, 16)
    assert domains.method["embedder"]["model"] == tiny_model


def test_by_default_k_comes_from_a_grid_that_fits(corpus):
    domains = regroup(corpus, **TFIDF)  # 120 examples: up to 6 domains
    assert [row["k"] for row in domains.quality["grid"]] == [5]


def test_auto_is_the_default_grid_and_no_other_word_is_a_k(corpus):
    one, other = regroup(corpus, **TFIDF), regroup(corpus, k="auto", **TFIDF)
    assert one.quality["grid"] == other.quality["grid"]
    np.testing.assert_array_equal(one.train_labels, other.train_labels)


def test_a_function_of_ones_own_makes_the_vectors(corpus, tmp_path):
    words = {topic: set() for topic in corpus["train"]["source"]}
    for row in corpus["train"]:
        words[row["source"]] |= set(row["text"].split())

    def count(texts):
        return [[len(topic & set(text.split())) for topic in words.values()] for text in texts]

    domains = regroup(corpus, embedder=count, k=3, progress=False)
    assert len({*zip(domains.train_labels.tolist(), corpus["train"]["source"], strict=True)}) == 3
    assert domains.method["embedder"] == {"name": "FunctionEmbedder"}
    loaded = Domains.load(domains.save(tmp_path))
    with pytest.raises(InputError, match="pass the embedder= or vectors= used originally"):
        loaded.attach(corpus)
    loaded.attach(corpus, embedder=count)
    np.testing.assert_array_equal(loaded.material.train, domains.material.train)


def test_a_sentence_transformer_in_hand_gives_the_vectors_of_its_folder(corpus, tiny_model):
    from sentence_transformers import SentenceTransformer

    by_path, in_hand = (
        regroup(corpus, embedder=model, k=3, progress=False).material.train
        for model in (tiny_model, SentenceTransformer(tiny_model, device="cpu"))
    )
    np.testing.assert_allclose(in_hand, by_path, atol=2e-3)  # kept in float16


@pytest.mark.parametrize("wrong", [TfidfEmbedder, 7])
def test_what_makes_no_vectors_is_refused(corpus, wrong):
    with pytest.raises(InputError, match=r"embedder: (TfidfEmbedder is a class|'7' has no fit)"):
        regroup(corpus, embedder=wrong, k=3, progress=False)


def test_sources_need_no_embedding(corpus):
    domains = regroup(corpus, cluster="sources", embedder="not used", progress=False)
    assert sorted(domains.names) == ["engine", "forest", "kitchen"]
    named = np.array(domains.names)[domains.train_labels]
    assert named.tolist() == list(corpus["train"]["source"])
    assert domains.centroids is None
    assert all(card.terms and card.nearest for card in domains.cards)


def with_unseen(corpus):
    strange = Dataset.from_dict({"text": ["dear all"] * 10, "source": ["mail"] * 10})
    rows = [*corpus["eval"], *strange]
    return DatasetDict(train=corpus["train"], eval=Dataset.from_list(rows))


def test_eval_sources_that_training_lacks_are_an_error(corpus):
    with pytest.raises(InputError, match=r"25\.0% .*'mail'.*unseen=\"drop\"") as caught:
        regroup(with_unseen(corpus), cluster="sources", progress=False)
    assert "\n" not in str(caught.value)


def test_or_are_dropped_on_request(corpus):
    domains = regroup(with_unseen(corpus), cluster="sources", unseen="drop", progress=False)
    assert (domains.eval_labels == -1).sum() == 10
    assert domains.eval_sizes.sum() == 30
    assert domains.quality["eval_dropped_share"] == 0.25


def of_elsewhere(corpus):
    """Eval examples of a source that training lacks, of the topic of one that it has."""
    kitchen = [row["text"] for row in corpus["train"] if row["source"] == "kitchen"][:10]
    rows = {"text": [*kitchen, "oak elm"], "source": ["bakery"] * 10 + ["garden"]}
    evals = [*corpus["eval"], *Dataset.from_dict(rows)]
    return DatasetDict(train=corpus["train"], eval=Dataset.from_list(evals))


def test_or_go_to_the_nearest_source_that_training_has(corpus, tmp_path):
    options = {"cluster": "sources", "unseen": "nearest", **TFIDF}
    domains = regroup(of_elsewhere(corpus), **options)
    assert domains.quality["unseen"] == {"bakery": "kitchen", "garden": "forest"}
    named = np.array(domains.names)[domains.eval_labels]
    assert named.tolist() == [*corpus["eval"]["source"], *["kitchen"] * 10, "forest"]
    assert domains.q.sum() == 1
    assert domains.method["params"]["unseen"] == "nearest"
    assert domains.method["embedder"]["name"] == "TfidfEmbedder"
    assert domains.quality["eval_dropped_share"] == 0
    # against brute force: the distances between means
    of = of_elsewhere(corpus)
    vectors = embed_corpus(of, TfidfEmbedder(dim=4), progress=False)
    theirs = vectors["eval"][np.array(of["eval"]["source"]) == "bakery"].mean(axis=0)
    train = np.array(of["train"]["source"])
    gaps = [np.linalg.norm(vectors["train"][train == n].mean(0) - theirs) for n in domains.names]
    assert domains.names[int(np.argmin(gaps))] == "kitchen"
    only = DatasetDict(train=of["train"], eval=of["eval"].select(range(30, 40)))
    assert regroup(only, **options).q[domains.names.index("kitchen")] == 1
    # nothing is embedded where training has all sources
    plain = regroup(corpus, **{**options, "embedder": "not there"})
    assert plain.method["embedder"] is None
    assert Domains.load(domains.save(tmp_path)).quality["unseen"] == domains.quality["unseen"]


def test_or_count_in_the_overall_loss_without_a_domain(corpus, tmp_path):
    domains = regroup(with_unseen(corpus), cluster="sources", unseen="outside", progress=False)
    assert domains.outside == (domains.eval_labels == -1).sum() == 10
    assert domains.eval_sizes.sum() == 30
    assert domains.quality["eval_dropped_share"] == 0
    loaded = Domains.load(domains.save(tmp_path / "a"))
    assert loaded.count_outside
    for shown in (repr(loaded), loaded._repr_html_()):
        assert "outside" in shown
        assert "10 eval examples, in the overall loss alone" in shown
    dropped = regroup(with_unseen(corpus), cluster="sources", unseen="drop", progress=False)
    assert dropped.outside == 0
    assert "outside" not in (dropped.save(tmp_path / "b") / "domains.json").read_text()
    only = DatasetDict(train=corpus["train"], eval=with_unseen(corpus)["eval"].select([35]))
    with pytest.raises(InputError, match="all of its examples"):
        regroup(only, cluster="sources", unseen="outside", progress=False)


def test_far_eval_examples_may_count_outside(corpus):
    strange = Dataset.from_dict({"text": ["oak flour"] * 9, "source": ["mail"] * 9})
    strange = DatasetDict(
        train=corpus["train"], eval=Dataset.from_list([*corpus["eval"], *strange])
    )
    rng = np.random.default_rng(0)
    vectors = {split: rng.normal(size=(len(strange[split]), 3)) for split in strange}
    vectors["eval"][30:] += 50
    made = {far: regroup(strange, k=3, vectors=vectors, far=far, progress=False)
            for far in ("apart", "outside")}  # fmt: skip
    assert (made["outside"].eval_labels[30:] == -1).all()
    np.testing.assert_array_equal(made["outside"].eval_labels, made["apart"].eval_labels)
    assert made["apart"].outside == 0 < 9 <= made["outside"].outside
    np.testing.assert_array_equal(made["outside"].q, made["apart"].q)
    editor = Editor(made["outside"].material, made["outside"])
    assert editor.domains().count_outside


def test_an_eval_set_of_unseen_sources_alone_cannot_be_dropped(corpus):
    strange = Dataset.from_dict({"text": ["dear all"], "source": ["mail"]})
    only = DatasetDict(train=corpus["train"], eval=strange)
    with pytest.raises(InputError, match="all of its examples"):
        regroup(only, cluster="sources", unseen="drop", progress=False)


def test_an_eval_set_of_another_kind_is_told(corpus):
    strange = Dataset.from_dict({"text": ["dear all"] * 60, "source": ["mail"] * 60})
    with pytest.warns(RbkitWarning, match=r"60 of 60 eval examples \(100%\) lie farther"):
        regroup(DatasetDict(train=corpus["train"], eval=strange), k=3, **TFIDF)


def test_another_estimator_can_cluster(corpus):
    domains = regroup(corpus, cluster=AgglomerativeClustering(n_clusters=3), **TFIDF)
    assert domains.m == 3
    assert domains.method["name"] == "AgglomerativeClustering"
    assert adjusted_rand_score(domains.train_labels, corpus["train"]["source"]) > 0.9


def test_noise_is_not_passed_over_in_silence(corpus):
    with pytest.raises(InputError, match=r"HDBSCAN leaves .* as noise; give noise="):
        regroup(corpus, cluster=HDBSCAN(min_cluster_size=60, copy=True), **TFIDF)


@pytest.mark.parametrize(
    ("policy", "where"), [("nearest", "nearest"), ("own", "own"), ("drop", "out")]
)
@pytest.mark.filterwarnings("ignore:.*holds.*:rbkit.errors.RbkitWarning")
def test_a_stated_policy_says_where_noise_goes(corpus, policy, where):
    tool = HDBSCAN(min_cluster_size=5, copy=True)
    noise = tool.fit(embedded(corpus)["train"]).labels_ < 0
    assert noise.any()
    domains = regroup(corpus, cluster=tool, noise=policy, **TFIDF)
    assert domains.quality["noise"]["share"] == pytest.approx(noise.mean())
    assert where in repr(domains).splitlines()[0]
    assert sum(domains.quality["noise"]["sizes_before"]) == (~noise).sum()
    assert domains.quality["noise"]["sizes_after"] == domains.sizes.tolist()
    assert (domains.train_labels[noise] == -1).all() == (policy == "drop")
    assert ("noise" in domains.names) == (policy == "own")
    bounded = regroup(corpus, cluster=tool, noise="drop", max_noise=0.05, **TFIDF)
    assert (bounded.train_labels < 0).mean() <= 0.05


def embedded(corpus):
    from rbkit.regroup import embed_corpus

    return embed_corpus(corpus, TfidfEmbedder(dim=4), progress=False)


def test_any_k_is_a_cut_of_one_hierarchy(corpus):
    fine, coarse = (regroup(corpus, cluster="ward", k=k, **TFIDF) for k in (6, 3))
    parents = {(a, b) for a, b in zip(fine.train_labels, coarse.train_labels, strict=True)}
    assert len(parents) == 6
    assert adjusted_rand_score(coarse.train_labels, corpus["train"]["source"]) > 0.9
    assert coarse.method["name"] == "WardTree"


def test_hdbscan_finds_the_topics_and_takes_a_k(corpus):
    domains = regroup(corpus, cluster="hdbscan", min_cluster_size=15, **TFIDF)
    assert domains.method["name"] == "UmapHDBSCAN"
    assert adjusted_rand_score(domains.train_labels, corpus["train"]["source"]) > 0.6
    assert (domains.train_labels >= 0).all()
    near = regroup(corpus, cluster="hdbscan", k=3, **TFIDF)
    assert 2 <= near.m <= 5
    with pytest.raises(InputError, match="no grid of k"):
        regroup(corpus, cluster="hdbscan", k=[3, 4], **TFIDF)


def test_far_eval_examples_can_be_kept_apart(corpus):
    strange = Dataset.from_dict({"text": ["dear all"] * 60, "source": ["mail"] * 60})
    mixed = DatasetDict(train=corpus["train"], eval=Dataset.from_list([*corpus["eval"], *strange]))
    domains = regroup(mixed, k=3, far="apart", **TFIDF)
    assert (domains.eval_labels[30:] == -1).all()
    assert domains.eval_sizes.sum() >= 27
    assert "kept apart" in repr(domains)
    with pytest.raises(InputError, match="'away' is unknown"):
        regroup(mixed, k=3, far="away", **TFIDF)


def test_vectors_of_ones_own_take_the_place_of_an_embedder(corpus):
    vectors = embedded(corpus)
    domains = regroup(corpus, vectors=vectors, k=3, progress=False)
    assert np.array_equal(domains.train_labels, regroup(corpus, k=3, **TFIDF).train_labels)
    again = regroup(corpus, vectors=vectors, edits=EditLog.of(domains.edits), progress=False)
    assert np.array_equal(again.train_labels, domains.train_labels)
    with pytest.raises(InputError, match="cannot be made from its name"):
        regroup(corpus, edits=EditLog.of(domains.edits), progress=False)
    with pytest.raises(InputError, match="119 vectors for the 120"):
        regroup(corpus, vectors=vectors | {"train": vectors["train"][1:]}, k=3, progress=False)


def test_more_domains_than_examples_names_both(corpus):
    with pytest.raises(InputError, match="500 domains asked of 120 training examples"):
        regroup(corpus, k=500, **TFIDF)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("eval"), "no split 'eval'"),
        (lambda c: c.update(train=c["train"].select([])), "'train' is empty"),
        (lambda c: c.update(eval=c["eval"].remove_columns("text")), "no column 'text'"),
    ],
)
def test_an_incomplete_corpus_is_refused(make_corpus, change, message):
    corpus = make_corpus(20, 10)
    change(corpus)
    with pytest.raises(InputError, match=message):
        regroup(corpus, **TFIDF)


def test_sources_may_be_missing(make_corpus):
    corpus = make_corpus(20, 10)
    for split in ("train", "eval"):
        corpus[split] = corpus[split].remove_columns("source")
    domains = regroup(corpus, k=2, **TFIDF)
    assert [card.sources for card in domains.cards] == [{"unknown": 1.0}] * 2


@pytest.mark.parametrize("option", [{"cluster": "luck"}, {"cluster": "sources", "unseen": "luck"}])
def test_unknown_options_are_refused(corpus, option):
    with pytest.raises(InputError, match="'luck' is unknown"):
        regroup(corpus, **TFIDF | option)


class TestKinds:
    """k, seed, vectors and texts of every kind are taken as they are meant, or refused by name."""

    @pytest.mark.parametrize("cluster", ["kmeans", "ward"])
    def test_k_is_a_whole_number_or_a_grid_of_them(self, corpus, cluster):
        for k in (3, 3.0, np.int8(3), np.array(3), [3], np.array([3]), range(3, 4), (3.0,)):
            assert regroup(corpus, k=k, cluster=cluster, **TFIDF).m == 3
        for bad in ("3", True, 2.5, [2.5], [3, "4"], [None], [[3]], 0, -1, "best", np.nan):
            with pytest.raises(InputError, match="k: "):
                regroup(corpus, k=bad, cluster=cluster, **TFIDF)
        with pytest.raises(InputError, match="seed: '1' is not a whole number"):
            regroup(corpus, k=3, cluster=cluster, seed="1", **TFIDF)

    def test_vectors_are_refused_with_split_and_row(self, corpus):
        good = {split: np.ones((len(corpus[split]), 4)) for split in ("train", "eval")}
        good["train"][:60] = 2
        for bad in (np.nan, 1e25, -np.inf):
            eval_ = good["eval"].copy()
            eval_[7, 2] = bad
            with pytest.raises(InputError, match=r"vectors, eval: .* in row 7"):
                regroup(corpus, k=2, vectors=good | {"eval": eval_}, progress=False)
        narrow = good | {"eval": good["eval"][:, :3]}
        with pytest.raises(InputError, match="4 numbers for train and 3 for eval"):
            regroup(corpus, k=2, vectors=narrow, progress=False)
        lists = {split: rows.tolist() for split, rows in good.items()}
        assert regroup(corpus, k=2, vectors=lists, progress=False).m == 2

    def test_a_missing_text_is_named_with_its_row_for_every_embedder(self, corpus):
        texts = [*corpus["train"]["text"][:30], None]
        for embedder in ("tfidf", "minilm", "pixels", TfidfEmbedder(dim=4)):
            bad = DatasetDict(
                train=Dataset.from_dict({"text": texts, "source": ["a"] * 31}), eval=corpus["eval"]
            )
            with pytest.raises(InputError, match="corpus, train: row 30 has no text"):
                regroup(bad, embedder=embedder, k=2, progress=False)
            bad = DatasetDict(train=corpus["train"], eval=Dataset.from_dict({"text": [1, 2]}))
            with pytest.raises(InputError, match="'text' holds int64, not text"):
                regroup(bad, embedder=embedder, k=2, progress=False)

    def test_a_missing_text_that_was_selected_away_is_no_fault(self, corpus):
        rows = Dataset.from_dict({"text": [None, *corpus["train"]["text"]], "source": ["a"] * 121})
        some = DatasetDict(train=rows.select(range(1, 121)), eval=corpus["eval"])
        assert regroup(some, k=2, **TFIDF).m == 2

    @pytest.mark.parametrize("cluster", ["kmeans", "ward", "hdbscan"])
    @pytest.mark.parametrize("kinds", [1, 3])
    def test_copies_are_in_one_domain_and_give_one_warning(self, cluster, kinds):
        at = np.arange(900) % kinds
        X = np.random.default_rng(0).normal(size=(kinds, 16))[at]
        rows = Dataset.from_dict({"text": [f"text {i}" for i in range(900)]})
        corpus = DatasetDict(train=rows, eval=rows.select(range(9)))
        vectors = {"train": X, "eval": X[:9]}
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            domains = regroup(corpus, cluster=cluster, vectors=vectors, progress=False)
        for kind in range(kinds):
            assert len(set(domains.train_labels[at == kind])) == 1
        assert domains.m <= kinds
        assert len([w for w in told if "vectors" in str(w.message)]) <= 1
        if cluster != "hdbscan":
            assert domains.m == kinds
            assert any(f"only {kinds} different vectors" in str(w.message) for w in told)

    def test_an_estimator_with_labels_of_another_shape_is_refused(self, corpus):
        class Odd(AgglomerativeClustering):
            def fit(self, X, y=None):
                self.labels_ = np.zeros(3, dtype=int)
                return self

        with pytest.raises(InputError, match=r"Odd gives labels of shape \(3,\)"):
            regroup(corpus, cluster=Odd(), **TFIDF)
        with pytest.raises(InputError, match="cluster: cannot be cloned"):
            regroup(corpus, cluster=object(), **TFIDF)


def test_no_file_chooses_a_model_but_the_users_own_call_may(corpus, tiny_model, tmp_path):
    domains = regroup(corpus, embedder=tiny_model, k=3, progress=False)
    log = EditLog.of(domains.method["edits"])
    again = Domains.load(domains.save(tmp_path / "domains"))
    for call in (
        lambda **given: regroup(corpus, edits=log, progress=False, **given),
        lambda **given: again.attach(corpus, progress=False, **given),
    ):
        with pytest.raises(InputError, match="which is not loaded by itself; pass embedder="):
            call()
        call(embedder=tiny_model)


# --- what is embedded ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def answered(make_corpus):
    """Prompts of one topic, answers of another: what is embedded decides the domains."""
    corpus, other = make_corpus(), make_corpus()
    made = DatasetDict()
    for split in corpus:
        prompts, topics = corpus[split]["text"][:], corpus[split]["source"][:]
        answers = other[split]["text"][::-1]
        made[split] = Dataset.from_dict(
            {
                "text": [f"{p} {a} {a}" for p, a in zip(prompts, answers, strict=True)],
                "prompt": prompts,
                "chat": [[{"from": "human", "value": p}] for p in prompts],
                "parts": [p.split() for p in prompts],
                "source": topics,
                "n": range(len(topics)),
            }
        )
    return made


@pytest.mark.parametrize("column", ["prompt", "chat", "parts"])
def test_what_is_embedded_can_be_chosen_and_is_recorded(answered, column, tmp_path):
    domains = regroup(answered, k=3, embed=column, **TFIDF)
    view = DatasetDict({s: answered[s].remove_columns("text") for s in answered})
    view = DatasetDict({s: data.rename_column("prompt", "text") for s, data in view.items()})
    if column == "prompt":  # as a corpus of the prompts alone
        expected = regroup(view, k=3, **TFIDF)
        np.testing.assert_array_equal(domains.centroids, expected.centroids)
        np.testing.assert_array_equal(domains.train_labels, expected.train_labels)
    assert adjusted_rand_score(domains.train_labels, answered["train"]["source"]) > 0.9
    of_texts = regroup(answered, k=3, **TFIDF)
    assert adjusted_rand_score(of_texts.train_labels, answered["train"]["source"]) < 0.5
    assert domains.method["embedder"]["embed"] == column
    assert "embed" not in of_texts.method["embedder"]
    # loaded, replayed and new examples: the same column
    loaded = Domains.load(domains.save(tmp_path)).attach(answered, progress=False)
    np.testing.assert_array_equal(loaded.material.train, domains.material.train)
    assert loaded.material.embedder == domains.material.embedder
    again = regroup(answered, edits=tmp_path, progress=False)
    np.testing.assert_array_equal(again.train_labels, domains.train_labels)
    placed = assign_new(loaded, answered["eval"])
    np.testing.assert_array_equal(placed.labels, domains.eval_labels)
    with pytest.raises(InputError, match=f"embed: no column {column!r}; it has 'text'"):
        assign_new(loaded, answered["eval"].select_columns(["text"]))
    with pytest.raises(InputError, match="learnt from the corpus, which is not at hand; attach"):
        assign_new(Domains.load(tmp_path), answered["eval"])


def test_a_column_that_cannot_be_embedded_is_named(answered):
    for options in ({}, {"cluster": "sources"}):
        with pytest.raises(InputError, match=r"embed: no column 'promt'.*it has 'text', 'prompt'"):
            regroup(answered, k=3, embed="promt", **TFIDF, **options)
        with pytest.raises(InputError, match="embed: the column 'n' holds integer, not texts"):
            regroup(answered, k=3, embed="n", **TFIDF, **options)
    vectors = {split: np.eye(3)[np.arange(len(answered[split])) % 3] for split in answered}
    with pytest.raises(InputError, match="embed: decides nothing where vectors are given"):
        regroup(answered, k=3, embed="prompt", vectors=vectors, progress=False)
    with pytest.raises(InputError, match=r"embed: 'prompt', but PixelEmbedder reads .* 'image'"):
        regroup(answered, k=3, embed="prompt", embedder="pixels", progress=False)
