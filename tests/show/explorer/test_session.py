"""What stands behind the widget, without a browser: messages in, traits and answers out."""

from __future__ import annotations

import json

import numpy as np
import pytest
from datasets import Dataset, DatasetDict
from PIL import Image, ImageDraw

import rbkit as rb
from rbkit.errors import InputError, RbkitWarning
from rbkit.show.explorer.explorer import Background, Cancelled
from rbkit.show.explorer.session import NO_DOMAIN

TOPICS = {
    "forest": "oak elm pine birch leaf root bark moss fern trunk",
    "engine": "piston valve gear clutch torque fuel brake axle turbo crank",
    "kitchen": "flour butter sugar oven dough yeast salt whisk cream pan",
}
NASTY = [
    "<script>alert('oak')</script> elm pine",
    "<img src=x onerror=alert(1)> oak elm",
    "oak \u202egnirts desrever\u202c elm",
    "🌲 oak 👩‍👩‍👧‍👦 elm",
    "oak " * 250_000,
]


def corpus_of(n=240, extra=()):
    rng = np.random.default_rng(0)
    topics = rng.choice(list(TOPICS), size=n)
    texts = [" ".join(rng.choice(TOPICS[t].split(), size=rng.integers(5, 25))) for t in topics]
    texts, topics = [*texts, *extra], [*map(str, topics), *["<b>odd</b>"] * len(extra)]
    rows = Dataset.from_dict({"text": texts, "source": topics})
    return DatasetDict(train=rows, eval=rows.select(range(30)))


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """Embeddings and maps of the same texts are computed once."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def own_folder(cache, tmp_path, monkeypatch):
    monkeypatch.setenv("RBKIT_CACHE", str(cache))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def explorer():
    return open_on(corpus_of())


def open_on(corpus, **options):
    options = {"embedder": "tfidf", "k": 3, "display": "off", "progress": False} | options
    made = rb.explore(corpus, **options)
    made.session.lay_out_by_pca()
    made.refresh()
    made.sent = []
    made.widget.send = lambda content, buffers=None: made.sent.append(content)
    return made


def test_it_embeds_the_column_that_is_asked_for_and_domains_know_theirs(tmp_path):
    corpus = corpus_of()
    prompts = [{"role": "user", "content": "oak"}], [{"role": "user", "content": "valve"}]
    for split, data in corpus.items():
        column = [prompts[i % 2] for i in range(len(data))]
        corpus[split] = data.add_column("prompt", column)
    explorer = open_on(corpus, k=2, embed="prompt")
    labels = explorer.domains.train_labels
    assert set(labels[::2]).isdisjoint(labels[1::2])
    loaded = rb.Domains.load(explorer.save(tmp_path / "domains"))
    again = rb.explore(loaded, corpus, display="off", progress=False)
    np.testing.assert_array_equal(again.editor.material.train, explorer.editor.material.train)
    again = rb.explore(corpus, edits=explorer.log, display="off", progress=False)
    np.testing.assert_array_equal(again.domains.train_labels, labels)
    with pytest.raises(InputError, match="embed: no column 'promt'"):
        open_on(corpus, embed="promt")
    with pytest.raises(InputError, match="embed: domains know what was embedded for them"):
        rb.explore(loaded, corpus, embed="prompt", display="off")


def tell(explorer, **message):
    explorer.answer(message)
    explorer.wait(120)
    return explorer.sent[-1] if explorer.sent else None


def labels_of(explorer):
    return np.frombuffer(explorer.widget.labels, dtype="<u2")


def test_at_the_start_the_widget_knows_everything(explorer):
    widget = explorer.widget
    assert len(widget.domains) == 3
    assert len(labels_of(explorer)) == 270 == len(widget.xy) // 8
    xy = np.frombuffer(widget.xy, dtype="<f4")
    assert ((xy >= 0) & (xy <= 1)).all()
    assert sum(domain["size"] for domain in widget.domains) == 240
    assert sum(domain["eval_size"] for domain in widget.domains) == 30
    assert np.sum(widget.crosstab["counts"]) == 240
    assert widget.controls["method"] == "ward"
    assert widget.history == {"undo": "", "redo": "", "log": ["1. hierarchy: 3 domains"]}
    json.dumps([widget.domains, widget.controls, widget.colour, widget.sources])


def test_a_preview_shows_a_cut_without_making_it(explorer):
    answer = tell(explorer, type="preview", method="ward", k=7)
    assert answer == {"type": "previewed", "k": 7}
    assert len(explorer.widget.domains) == 7 == len(set(labels_of(explorer)))
    assert explorer.editor.grouping.m == 3
    tell(explorer, type="op", op={"op": "cut", "method": "ward", "k": 7})
    assert explorer.domains.m == 7


def test_a_lasso_moves_training_examples_and_leaves_eval_examples(explorer):
    explorer.widget.selection = memoryview(np.array([0, 1, 2, 260], "<u4").tobytes())
    tell(explorer, type="op", op={"op": "move", "to": None, "name": "mine"})
    assert explorer.widget.domains[-1]["name"] == "mine"
    assert explorer.widget.domains[-1]["size"] == 3
    assert explorer.selection.tolist() == [0, 1, 2]


def test_undo_and_redo_go_through_the_widget(explorer):
    tell(explorer, type="op", op={"op": "merge", "domains": [0, 1], "name": "both"})
    assert "both" in [domain["name"] for domain in explorer.widget.domains]
    tell(explorer, type="undo")
    assert len(explorer.widget.domains) == 3
    assert explorer.widget.history["redo"].startswith("merge")
    tell(explorer, type="redo")
    assert len(explorer.widget.domains) == 2


def test_a_dropped_domain_has_no_label(explorer):
    tell(explorer, type="op", op={"op": "drop", "domain": 1})
    assert (labels_of(explorer)[:240] == NO_DOMAIN).any()
    assert (labels_of(explorer)[240:] != NO_DOMAIN).all()


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ({"type": "op", "op": {"op": "move", "to": 0}}, "no examples are selected"),
        ({"type": "op", "op": {"op": "rename", "domain": 9, "name": "x"}}, "9 is not one of the 3"),
        (
            {"type": "op", "op": {"op": "merge", "domains": ["a"]}},
            "'a' is not a whole number; give 0 to 2",
        ),
        ({"type": "op"}, "op: KeyError"),
        ({"type": "preview", "k": 10_000}, "10000 domains asked"),
        ({"type": "preview", "k": "many"}, "ValueError"),
        ({"type": "colour", "mode": "taste"}, "'taste' is unknown"),
        ({"type": "read", "rows": [10_000]}, "IndexError"),
        ({"type": "export", "folder": "../elsewhere"}, "leaves the folder"),
        ({"type": "nonsense"}, "'nonsense' is unknown"),
        ({}, "reload the page"),
    ],
)
def test_what_cannot_be_done_is_answered_in_one_line(explorer, message, said):
    before = explorer.editor.grouping
    answer = tell(explorer, token=5, **message)
    assert answer["type"] == "error"
    assert said in answer["text"]
    assert "\n" not in answer["text"]
    assert answer["token"] == 5
    assert explorer.editor.grouping is before


def test_examples_can_be_read_searched_and_asked_for(explorer):
    read = tell(explorer, type="read", rows=[3, 250], token=1)["items"]
    assert [item["split"] for item in read] == ["train", "eval"]
    assert read[0]["text"] == explorer.editor.material.texts("train", [3])[0]
    assert read[0]["distance"] > 0
    for kind in ("nearest", "strangest", "random"):
        items = tell(explorer, type="more", domain=0, kind=kind)["items"]
        assert {item["domain"] for item in items} == {0}
    found = tell(explorer, type="search", query="PISTON")["count"]
    assert found == sum(
        "piston" in t for s in ("train", "eval") for t in explorer.editor.material.corpus[s]["text"]
    )
    assert len(explorer.widget.selected_rows) == found
    assert tell(explorer, type="search", query="  ")["count"] == 0


def test_a_corpus_of_nasty_texts_is_data():
    explorer = open_on(corpus_of(extra=NASTY))
    items = tell(explorer, type="read", rows=list(range(240, 245)))["items"]
    assert [item["text"][:20] for item in items] == [text[:20] for text in NASTY]
    assert all(len(item["text"]) <= 2_000 for item in items)
    assert items[-1]["length"] == 1_000_000
    assert "<b>odd</b>" in [source["name"] for source in explorer.widget.sources]
    assert all(len(text) <= 300 for d in explorer.widget.domains for text in d["nearest"])
    html = explorer.domains._repr_html_()
    assert "<script" not in html
    assert "<img" not in html
    assert "<b>" not in html


@pytest.mark.parametrize("mode", ["distance", "length", "source", "domain"])
def test_colours_are_values_of_every_point_or_none(explorer, mode):
    tell(explorer, type="colour", mode=mode)
    values = np.frombuffer(explorer.widget.values, dtype=np.uint8)
    continuous = mode in ("distance", "length")
    assert len(values) == (270 if continuous else 0)
    assert explorer.widget.colour["mode"] == mode
    assert bool(explorer.widget.colour["low"]) == continuous


@pytest.mark.slow
def test_a_run_colours_the_map_by_loss_and_by_its_gram_matrix(explorer, tmp_path):
    run = rb.train(
        explorer.editor.material.corpus,
        explorer.domains,
        run_dir=tmp_path / "run",
        steps=4,
        round_steps=2,
        context=24,
        vocab_size=300,
        progress=False,
    )
    with pytest.raises(InputError, match="loss and gram need a run"):
        explorer.session.colour_by("loss")
    explorer.show_run(run)
    assert explorer.widget.colour["mode"] == "gram"
    by_gram = np.frombuffer(explorer.widget.values, dtype=np.uint8)
    assert len(set(by_gram[:240])) <= 3
    tell(explorer, type="colour", mode="loss")
    by_loss = np.frombuffer(explorer.widget.values, dtype=np.uint8)
    assert len(set(by_loss[240:])) > 3
    assert explorer.freeze() is not None


def test_hdbscan_runs_beside_the_notebook_and_noise_is_a_policy(explorer):
    tell(explorer, type="op", op={"op": "cut", "method": "hdbscan", "min_cluster_size": 12})
    assert explorer.editor.ops[0]["method"] == "hdbscan"
    explorer.session._advised = {"k": 4, "text": "the silhouette is highest at 4"}
    assert explorer.session.controls()["recommended"] is None  # here nobody chooses k
    assert explorer.widget.status["busy"] is False
    assert explorer.widget.controls["method"] == "hdbscan"
    share = explorer.widget.controls["noise_share"]
    if share:
        tell(explorer, type="op", op={"op": "noise", "policy": "drop", "max_noise": None})
        assert np.mean(labels_of(explorer)[:240] == NO_DOMAIN) == pytest.approx(share)
        tell(explorer, type="op", op={"op": "noise", "policy": "nearest", "max_noise": None})
        assert "grew" in explorer.widget.controls["noise_text"]
    cut = {"op": "cut", "method": "hdbscan", "min_cluster_size": 12}
    tell(explorer, type="op", op=cut | {"min_samples": 5, "noise": "drop", "max_noise": 0.5})
    tell(explorer, type="op", op=cut | {"min_cluster_size": 10})
    first = explorer.editor.ops[0]
    assert (first["min_samples"], first["noise"], first["max_noise"]) == (5, "drop", 0.5)
    again = rb.regroup(explorer.editor.material.corpus, edits=explorer.log, progress=False)
    assert np.array_equal(again.train_labels, explorer.editor.labels)


def test_advice_on_k_and_the_map_come_from_the_background():
    explorer = open_on(corpus_of(), display="live")
    explorer.wait(120)
    first = explorer.widget.xy
    advised, told = explorer.widget.controls["recommended"], explorer.widget.notices
    assert advised or any("no k stands out" in notice["text"] for notice in told)
    tell(explorer, type="map", n_neighbors=5, min_dist=0.5)
    assert explorer.widget.xy != first
    assert explorer.widget.controls["n_neighbors"] == 5


def test_export_writes_what_training_needs(explorer, tmp_path):
    tell(explorer, type="op", op={"op": "rename", "domain": 0, "name": "first"})
    answer = tell(explorer, type="export", folder="out/mine", token=3)
    assert answer["folder"] == "out/mine"
    assert {"domains.json", "edits.json", "weights.json", "train.parquet"} <= set(answer["files"])
    loaded = rb.Domains.load(tmp_path / "out" / "mine")
    assert loaded.names == explorer.domains.names
    reopened = rb.explore(loaded, explorer.editor.material.corpus, display="off", progress=False)
    assert np.array_equal(reopened.editor.labels, explorer.editor.labels)
    with pytest.raises(InputError, match="do not bring their texts"):
        rb.explore(rb.Domains.load(tmp_path / "out" / "mine"))


def test_an_export_does_not_replace_what_another_hand_did(explorer, tmp_path):
    for number in (1, 2):  # the same explorer may, also after an undo
        tell(explorer, type="op", op={"op": "rename", "domain": 0, "name": f"name {number}"})
        assert tell(explorer, type="export", folder="mine", token=3)["type"] == "exported"
    tell(explorer, type="undo")
    assert tell(explorer, type="export", folder="mine", token=3)["type"] == "exported"
    other = open_on(corpus_of())
    answer = tell(other, type="export", folder="mine", token=3)
    assert "holds domains with 1 edit made by hand" in str(answer)
    assert rb.Domains.load(tmp_path / "mine").names[0] == "name 1"
    other.save("mine", overwrite=True)


def test_in_a_batch_run_it_is_a_figure_and_at_most_once_a_widget(explorer, monkeypatch):
    monkeypatch.setenv("RBKIT_DISPLAY", "batch")
    batch = rb.explore(explorer.domains)
    data, look = batch._repr_mimebundle_()
    assert set(data) == {"image/png", "text/plain"}
    assert "domains" in look["image/png"]["alt"]
    batch.refresh()
    assert "widget" not in vars(batch)  # whose state would be saved with the notebook
    monkeypatch.setenv("RBKIT_DISPLAY", "hologram")
    with pytest.raises(InputError, match="'hologram' is unknown"):
        rb.explore(explorer.domains)


def test_a_domain_that_swallows_the_corpus_is_told(explorer):
    tell(explorer, type="op", op={"op": "cut", "method": "ward", "k": 6})
    tell(explorer, type="op", op={"op": "merge", "domains": [0, 1, 2, 3], "name": "most"})
    assert any("most holds" in n["text"] for n in explorer.widget.notices)
    with pytest.warns(RbkitWarning, match="of the examples"):
        rb.regroup(explorer.editor.material.corpus, edits=explorer.log, progress=False)


def test_what_cannot_be_explored_is_refused():
    with pytest.raises(InputError, match="int cannot be explored"):
        rb.explore(3)


def test_texts_in_hand_are_explored():
    texts = corpus_of()["train"]["text"][:]
    explorer = rb.explore(texts, k=3, embedder="tfidf", display="off", progress=False)
    assert explorer.domains.m == 3
    loaded = rb.load_corpus(texts, progress=False)
    assert explorer.editor.material.corpus["train"]["text"][:] == loaded["train"]["text"][:]


def test_of_very_many_sources_the_largest_are_shown():
    corpus = corpus_of()
    names = [f"site {at}" if at % 2 else "common" for at in range(240)]
    corpus = DatasetDict(
        {
            split: data.remove_columns("source").add_column("source", names[: len(data)])
            for split, data in corpus.items()
        }
    )
    explorer = open_on(corpus)
    assert len(explorer.widget.sources) == 60
    assert explorer.widget.sources[0]["name"] == "common"
    assert explorer.widget.sources[-1]["name"] == "62 other sources"
    assert np.sum(explorer.widget.crosstab["counts"]) == 240


def pictures(n=90):
    rng = np.random.default_rng(0)
    made, names = [], []
    for _ in range(n):
        colour, shape = rng.choice(["red", "green", "blue"]), rng.choice(["disc", "box"])
        picture = Image.new("RGBA", (32, 32), (0, 0, 0, 0))
        draw = ImageDraw.Draw(picture)
        x, y = rng.integers(2, 12, 2)
        (draw.ellipse if shape == "disc" else draw.rectangle)(
            (x, y, x + 16, y + 16), fill=str(colour)
        )
        made.append(picture)
        names.append(f"a {colour} {shape}")
    rows = Dataset.from_dict(
        {"image": made, "text": names, "source": [n.split()[1] for n in names]}
    )
    return DatasetDict(train=rows, eval=rows.select(range(10)))


def test_pictures_are_grouped_by_look_and_shown_as_thumbnails():
    explorer = open_on(pictures(), embedder="pixels", k=12)
    assert explorer.widget.images
    colours = np.array(explorer.editor.material.sources("train"))
    pure = [len(set(colours[explorer.editor.labels == at])) == 1 for at in range(12)]
    assert np.mean(pure) > 0.7
    thumbs = explorer.widget.domains[0]["thumbs"]
    assert all(uri.startswith("data:image/png;base64,") for uri in thumbs)
    item = tell(explorer, type="read", rows=[0])["items"][0]
    assert item["image"].startswith("data:image/png;base64,")


def test_a_newer_job_replaces_the_one_that_waits_and_stops_the_one_that_runs():
    said, done = [], []
    jobs = Background(said.append)

    def slow(name):
        def work(report):
            for step in range(200):
                report(step / 200, name)
                import time

                time.sleep(0.005)
            done.append(name)

        return work

    jobs.start("map", slow("first"))
    jobs.start("map", slow("second"))
    jobs.start("map", slow("third"))
    jobs.wait(30)
    assert done == ["third"]
    jobs.start("map", slow("fourth"))
    jobs.cancel()
    jobs.wait(30)
    assert done == ["third"]
    assert said[-1]["busy"] is False
    jobs.start("fails", lambda report: (_ for _ in ()).throw(InputError("k", "is odd", "even it")))
    jobs.wait(30)
    assert said[-1]["error"] == "k: is odd; even it"
    assert issubclass(Cancelled, Exception)


@pytest.mark.parametrize("n", [2, 3, 5])
def test_a_corpus_of_a_few_examples_can_be_explored(n):
    texts = [f"{'oak tree' if at % 2 else 'car engine'} {at}" for at in range(n + 1)]
    corpus = rb.load_corpus(Dataset.from_dict({"text": texts}), eval_size=1)
    explorer = open_on(corpus, k=None)
    assert 1 <= explorer.domains.m <= n
    explorer.session.lay_out_by_pca()
    explorer.refresh()


def test_a_cut_that_was_made_before_it_was_cancelled_is_shown(explorer):
    def stopped(*_):
        raise Cancelled("cut")

    explorer.session.lay_out_by_pca()
    explorer._cut({"op": "cut", "method": "kmeans", "k": 5}, stopped)
    assert len(explorer.widget.domains) == explorer.editor.grouping.m == 5


def test_the_cliff_is_looked_for_in_the_tree_that_was_cut(explorer):
    explorer.session.lay_out_by_pca()
    explorer.editor.cut("hdbscan", min_cluster_size=5, min_samples=3, min_dist=0.2)
    fitted = list(explorer.editor.clusterings._densities)
    explorer.refresh()
    assert list(explorer.editor.clusterings._densities) == fitted


def test_a_log_brings_its_embedder(explorer):
    again = rb.explore(corpus_of(), edits=explorer.log, display="off", progress=False)
    assert again.editor.material.embedder == explorer.editor.material.embedder
    assert np.array_equal(again.editor.labels, explorer.editor.labels)


def test_far_eval_examples_that_were_kept_apart_stay_apart():
    corpus, rng = corpus_of(), np.random.default_rng(0)
    vectors = {split: rng.normal(size=(len(corpus[split]), 3)) for split in ("train", "eval")}
    vectors["eval"][:3] += 100
    domains = rb.regroup(corpus, vectors=vectors, k=2, far="apart", progress=False)
    assert [card.eval_size for card in domains.cards] == domains.eval_sizes.tolist()
    again = rb.explore(domains, display="off").domains
    assert np.array_equal(again.eval_labels, domains.eval_labels)


def test_an_edit_that_a_new_cut_would_replace_is_announced(explorer):
    def said():
        return [n["text"] for n in explorer.widget.notices if "replaced" in n["text"]]

    tell(explorer, type="op", op={"op": "cut", "method": "ward", "k": 6})
    assert said() == []
    tell(explorer, type="op", op={"op": "rename", "domain": 0, "name": "mine"})
    assert said() == ["with a new cut 1 edit will be replaced; undo brings it back"]
    tell(explorer, type="op", op={"op": "merge", "domains": [1, 2], "name": None})
    tell(explorer, type="preview", method="ward", k=4)
    assert said() == ["2 edits will be replaced; undo brings them back"]
    tell(explorer, type="op", op={"op": "cut", "method": "ward", "k": 4})
    assert said() == []
    tell(explorer, type="undo")
    assert "mine" in explorer.editor.names


def test_a_saved_notebook_holds_a_picture_below_the_widget(explorer, monkeypatch):
    shown = []
    monkeypatch.setattr(
        "IPython.display.display", lambda data, metadata, raw: shown.append((data, metadata))
    )
    monkeypatch.setattr(explorer, "display", "live")
    explorer._ipython_display_()
    (widget, _), (picture, look) = shown
    assert "application/vnd.jupyter.widget-view+json" in widget
    assert set(picture) == {"image/png", "text/plain"}
    assert "domains" in look["image/png"]["alt"]
    assert sum(map(len, picture.values())) < 600_000
