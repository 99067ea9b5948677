"""Domains are valid or refused; saved, they come back equal or not at all."""

from __future__ import annotations

import errno
import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset, DatasetDict
from hypothesis import given, settings
from hypothesis import strategies as st

from rbkit.data import load_corpus
from rbkit.errors import InputError, RbkitWarning
from rbkit.files import sha256_of_file
from rbkit.regroup import Card, Domains, regroup

NASTY = '<script>alert("x")</script> & more'


def some_domains() -> Domains:
    cards = [
        Card("oak & elm", 2, 1, ["oak", NASTY], [NASTY], {NASTY: 1.0}),
        Card(NASTY, 1, 1, ["car"], ["a car"], {"web": 1.0}),
    ]
    return Domains(
        names=["oak & elm", NASTY],
        train_labels=np.array([0, 1, 0]),
        eval_labels=np.array([1, 0, -1]),
        centroids=np.array([[0.0, 1.0], [2.0, 3.0]]),
        method={"name": "KMeans", "params": {"n_clusters": np.int64(2)}, "seed": 0},
        quality={"silhouette": np.float32(0.25), "grid": [{"k": 2, "silhouette": float("nan")}]},
        cards=cards,
    )


def test_sizes_and_target_proportions_leave_out_what_was_dropped():
    domains = some_domains()
    assert domains.m == 2
    assert domains.sizes.tolist() == [2, 1]
    assert domains.sizes.dtype == np.int64
    assert domains.eval_sizes.tolist() == [1, 1]
    assert domains.q.tolist() == [0.5, 0.5]


@settings(deadline=None, max_examples=30)
@given(
    st.integers(1, 5).flatmap(
        lambda m: st.tuples(
            st.just(m),
            st.lists(st.integers(-1, m - 1), max_size=20),
            st.lists(st.integers(-1, m - 1), max_size=20),
        )
    )
)
@pytest.mark.filterwarnings("ignore::rbkit.errors.RbkitWarning")
def test_what_is_saved_is_loaded(tmp_path_factory, drawn):
    m, train, evaluated = drawn
    domains = Domains.from_labels([f"é{at}" for at in range(m)], train, evaluated)
    loaded = Domains.load(domains.save(tmp_path_factory.mktemp("domains")))
    assert loaded.names == domains.names
    assert np.array_equal(loaded.train_labels, domains.train_labels)
    assert np.array_equal(loaded.eval_labels, domains.eval_labels)
    assert loaded.train_labels.dtype == np.int32
    assert loaded.centroids is None
    assert loaded.method == domains.method


def test_centroids_cards_and_quality_come_back(tmp_path):
    domains = some_domains()
    loaded = Domains.load(domains.save(tmp_path))
    assert np.array_equal(loaded.centroids, domains.centroids)
    assert loaded.centroids.dtype == np.float32
    assert loaded.cards == domains.cards
    assert loaded.quality == {"silhouette": 0.25, "grid": [{"k": 2, "silhouette": None}]}
    assert loaded.method["params"] == {"n_clusters": 2}


def test_saving_again_replaces_all_of_it(tmp_path):
    some_domains().save(tmp_path)
    plain = Domains.from_labels(["all"], [0], [0])
    plain.save(tmp_path)
    assert Domains.load(tmp_path).names == ["all"]
    assert not (tmp_path / "centroids.parquet").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "assignments.parquet",
        "domains.json",
    ]


@pytest.mark.parametrize("name", ["assignments.parquet", "centroids.parquet", "domains.json"])
@pytest.mark.parametrize("harm", ["cut", "gone", "other"])
def test_a_damaged_file_is_named(tmp_path, name, harm):
    some_domains().save(tmp_path)
    path = tmp_path / name
    raw = path.read_bytes()
    if harm == "gone":
        path.unlink()
    else:
        path.write_bytes(raw[: len(raw) // 2] if harm == "cut" else b"[1, 2]")
    with pytest.raises(InputError) as caught:
        Domains.load(tmp_path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        lambda facts: facts.pop("names"),
        lambda facts: facts.update(names=["one"]),
        lambda facts: facts.update(cards=[{"no": "card"}]),
        lambda facts: facts.update(sha256=3),
        lambda facts: facts.update(sha256={"../../etc/passwd": "0"}),
    ],
)
def test_a_tampered_header_is_an_input_error_that_names_the_folder(tmp_path, change):
    some_domains().save(tmp_path)
    header = tmp_path / "domains.json"
    facts = json.loads(header.read_text())
    change(facts)
    header.write_text(json.dumps(facts))
    with pytest.raises(InputError, match=tmp_path.name):
        Domains.load(tmp_path)


def test_a_kill_between_the_files_leaves_nothing_that_loads(tmp_path, monkeypatch):
    some_domains().save(tmp_path)
    from rbkit.regroup import domains

    monkeypatch.setattr(domains, "write_json", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        some_domains().save(tmp_path)
    with pytest.raises(InputError, match="no saved domains"):
        Domains.load(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"names": []}, "no domains"),
        ({"names": ["a", "a"]}, "'a' occurs twice"),
        ({"train_labels": [0, 2]}, "example 1 is in domain 2 of 2"),
        ({"eval_labels": [-2]}, "eval_labels: example 0 is in domain -2"),
        ({"train_labels": [0.5]}, "whole number"),
        ({"centroids": np.ones((3, 2))}, "for 2 domains"),
        ({"cards": [Card("a", 1, 1)]}, "1 cards for 2 domains"),
    ],
)
def test_what_does_not_fit_is_refused(change, message):
    parts = {"names": ["a", "b"], "train_labels": [0, 1], "eval_labels": [0]} | change
    with pytest.raises(InputError, match=message):
        Domains(**parts)


def test_a_domain_without_training_data_is_told():
    with pytest.warns(RbkitWarning, match=r"'code' has no training example.*66\.7%"):
        Domains.from_labels(["wiki", "code"], [0, 0], [0, 1, 1])


def test_no_eval_examples_means_no_target_proportions():
    with pytest.raises(InputError, match="no eval example"):
        _ = Domains.from_labels(["wiki"], [0, 0], []).q


def test_the_table_escapes_whatever_the_corpus_says():
    html = some_domains()._repr_html_()
    assert "<script" not in html
    assert "&lt;script&gt;" in html
    assert "oak &amp; elm" in html


ROWS = Dataset.from_dict(
    {"text": ["a red oak", "cars go", "an oak"], "source": ["x", "y", "x"], "id": [7, 8, 9]}
)


def parts_of(parts):
    return {name: part["id"][:] for name, part in parts.items()}


def test_a_data_set_is_divided_by_domain_with_all_its_columns():
    domains = some_domains()
    assert parts_of(domains.split(ROWS)) == {"oak & elm": [7, 9], NASTY: [8]}
    assert domains.split(ROWS)["oak & elm"].column_names == ["text", "source", "id"]
    # One eval example was dropped; a domain without rows has no entry.
    assert parts_of(domains.split(ROWS, "eval")) == {"oak & elm": [8], NASTY: [7]}
    alone = Domains(["a", "b", "c"], [2, 0, 0], [1, 1, 1])
    assert parts_of(alone.split(ROWS)) == {"a": [8, 9], "c": [7]}
    assert parts_of(alone.split(ROWS.remove_columns("text"))) == {"a": [8, 9], "c": [7]}


def test_other_rows_than_those_that_were_regrouped_are_refused(corpus):
    from rbkit.regroup import regroup

    with pytest.raises(InputError, match=r"2 rows, but 3 train examples were regrouped; give the"):
        some_domains().split(ROWS.select([0, 1]))
    with pytest.raises(InputError, match="'test' is unknown"):
        some_domains().split(ROWS, "test")
    with pytest.raises(InputError, match="list has no rows to select"):
        some_domains().split([1, 2, 3])
    domains = regroup(corpus, embedder="tfidf", k=3, progress=False)
    parts = domains.split(corpus)
    assert list(parts) == [name for name in domains.names if name in parts]
    for at, name in enumerate(domains.names):
        texts = np.array(corpus["train"]["text"][:])[domains.train_labels == at]
        assert parts[name]["text"][:] == texts.tolist()
    assert sum(map(len, domains.split(corpus["eval"], "eval").values())) == len(corpus["eval"])
    swapped = corpus["train"].select([1, 0, *range(2, len(corpus["train"]))])
    with pytest.raises(InputError, match="row 0 has another text"):
        domains.split(swapped)
    listed = corpus["train"].map(lambda row: {"text": row["text"].split()})
    with pytest.raises(InputError, match=r"the column 'text' holds .*, not text"):
        domains.split(listed)
    domains.material = None  # as after loading
    with pytest.raises(InputError, match=r"domains: made from the corpus .* not from this one"):
        domains.split(DatasetDict(train=swapped, eval=corpus["eval"]))


def test_the_table_is_aligned_left_also_where_a_page_aligns_all_tables_right():
    html = some_domains()._repr_html_()
    assert "text-align:left!important" in html
    assert html.count('<td class="s"><span>') == 2 * some_domains().m  # share, then q beside it
    assert "td.s+td.s i{" in html, "q has a colour of its own"
    assert "next: <code>rb.explore(domains)</code>" in html


def test_the_text_table_has_a_line_per_domain():
    text = repr(some_domains())
    assert text.splitlines()[0].startswith("2 domains over 3 train and 3 eval examples")
    assert len(text.splitlines()) == 4


@pytest.mark.parametrize(
    "change",
    [
        lambda facts: facts.update(names=["one", 2]),
        lambda facts: facts.update(method=3),
        lambda facts: facts.update(quality=[]),
        lambda facts: facts["cards"][0].update(terms=["a", 1.5]),
        lambda facts: facts["cards"][0].update(sources={"a": "many"}),
        lambda facts: facts["cards"][0].update(size="x"),
        lambda facts: facts.update(cards=[3]),
    ],
)
def test_a_header_of_other_types_is_refused(tmp_path, change):
    test_a_tampered_header_is_an_input_error_that_names_the_folder(tmp_path, change)


def sign(folder):
    """Write the checksums of a stranger who made the files on purpose."""
    facts = json.loads((folder / "domains.json").read_text())
    facts["sha256"] = {name: sha256_of_file(folder / name) for name in facts["sha256"]}
    (folder / "domains.json").write_text(json.dumps(facts))


@pytest.mark.parametrize(
    "table",
    [
        {"domain": ["0", "x"], "centroid": [[1.0], [2.0]]},
        {"domain": [0, 1], "centroid": [1.0, 2.0]},
        {"domain": [], "centroid": []},
        {"domain": [0, None], "centroid": [[1.0], None]},
        {"other": [1]},
    ],
)
def test_a_table_of_another_kind_is_refused(tmp_path, table):
    some_domains().save(tmp_path)
    pq.write_table(pa.table(table), tmp_path / "centroids.parquet")
    sign(tmp_path)
    with pytest.raises(InputError, match=r"restore it from a copy, or regroup again"):
        Domains.load(tmp_path)


def test_a_table_that_does_not_fit_into_memory_is_refused(tmp_path, monkeypatch):
    some_domains().save(tmp_path)
    n = 10_000_000  # equal values: some kilobytes in the file
    table = pa.table({"split": pa.array(["train"]).take(pa.array(np.zeros(n, dtype=int)))})
    table = table.append_column("domain", pa.array(np.zeros(n, dtype=np.int32)))
    pq.write_table(table, tmp_path / "assignments.parquet")
    sign(tmp_path)
    monkeypatch.setattr("rbkit.files._SMALL", 1e8)
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=1e8))
    with pytest.raises(InputError, match="it would unpack to"):
        Domains.load(tmp_path)


def test_a_table_that_leads_out_of_the_folder_is_not_read(tmp_path):
    folder = some_domains().save(tmp_path / "mine")
    (folder / "assignments.parquet").rename(tmp_path / "theirs.parquet")
    (folder / "assignments.parquet").symlink_to(tmp_path / "theirs.parquet")
    with pytest.raises(InputError, match="is a link that leads out of mine"):
        Domains.load(folder)


def test_the_folder_may_be_called_like_a_column(tmp_path):
    folder = some_domains().save(tmp_path / "domain=3" / "split=x")
    assert Domains.load(folder).names == some_domains().names


def test_what_a_header_says_of_itself_is_safe_to_print(tmp_path):
    some_domains().save(tmp_path)
    facts = json.loads((tmp_path / "domains.json").read_text())
    facts["method"]["name"] = "\x1b[31mKMeans\u202e"
    facts["quality"] = {"silhouette": "high", "noise": 3}
    (tmp_path / "domains.json").write_text(json.dumps(facts))
    loaded = Domains.load(tmp_path)
    assert repr(loaded).startswith("2 domains over 3 train and 3 eval examples")
    assert not set("\x1b\u202e") & set(repr(loaded) + loaded._repr_html_())


def test_edits_made_by_hand_are_not_replaced_unasked(tmp_path):
    cut, one, two = (
        {"op": "cut", "method": "sources"},
        {"op": "refine"},
        {"op": "drop", "domain": 0},
    )

    def edited(*ops):
        made = some_domains()
        made.method = {"name": "by hand", "edits": {"format": "rbkit-edits/1", "ops": list(ops)}}
        return made

    edited(cut, one).save(tmp_path / "mine")
    edited(cut, one, two).save(tmp_path / "mine")  # what the same hand did next
    for other in (some_domains(), edited(cut), edited(cut, two), edited(cut, one)):
        with pytest.raises(InputError, match=r"holds domains with 2 edits made by hand; give over"):
            other.save(tmp_path / "mine")
    assert len(Domains.load(tmp_path / "mine").edits["ops"]) == 3
    some_domains().save(tmp_path / "mine", overwrite=True)
    edited(cut).save(tmp_path / "mine")
    some_domains().save(tmp_path / "mine")  # nothing was done by hand


def test_a_full_disk_is_said_in_one_line(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("rbkit.regroup.domains.write_json", refuse)
    with pytest.raises(InputError, match=r"cannot be written \(No space left on device\)"):
        some_domains().save(tmp_path)


@pytest.mark.filterwarnings("ignore::rbkit.errors.RbkitWarning")  # of the shape of the domains
@pytest.mark.parametrize("cluster", ["kmeans", "ward", "sources"])
def test_every_label_can_be_joined_to_the_row_that_was_given(tmp_path, cluster):
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(list("abcdefghij"), size=9)) + f" {i}" for i in range(60)]
    frame = pd.DataFrame({"text": texts, "source": ["x", "y"] * 30, "key": np.arange(60) * 7})
    corpus = load_corpus(frame, id="key", eval_size=9, max_examples=40, progress=False)
    domains = regroup(corpus, cluster=cluster, k=3, embedder="tfidf", progress=False)
    table = domains.to_pandas()
    assert list(table) == ["split", "row", "domain", "original_row", "id"]
    joined = table.join(frame, on="original_row")
    assert (joined["id"] == joined["key"]).all()
    for split, labels in (("train", domains.train_labels), ("eval", domains.eval_labels)):
        part = joined[joined["split"] == split]
        assert part["text"].to_list() == corpus[split]["text"][:]
        assert part["domain"].to_list() == [domains.names[at] for at in labels]
    loaded = Domains.load(domains.save(tmp_path / "domains"))
    pd.testing.assert_frame_equal(loaded.to_pandas(), table)
    saved = pq.read_table(tmp_path / "domains" / "assignments.parquet")
    assert saved["original_row"].to_pylist() == table["original_row"].to_list()


def test_domains_of_a_corpus_without_rows_have_a_table_all_the_same(tmp_path):
    domains = some_domains()
    assert list(domains.to_pandas()) == ["split", "row", "domain"]
    # what older versions saved
    loaded = Domains.load(domains.save(tmp_path))
    assert loaded.keys is None
    pd.testing.assert_frame_equal(loaded.to_pandas(), domains.to_pandas())
