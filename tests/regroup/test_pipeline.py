"""regroup(): from a corpus to domains, and what it says when it cannot."""

from __future__ import annotations

import numpy as np
import pytest
from datasets import Dataset, DatasetDict
from sklearn.cluster import HDBSCAN, AgglomerativeClustering
from sklearn.metrics import adjusted_rand_score

from rbkit.errors import InputError, RbkitWarning
from rbkit.regroup import Domains, EditLog, TfidfEmbedder, regroup

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
