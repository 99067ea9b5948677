"""Editing by hand: every step can be undone, and a log replayed gives the same domains."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from datasets import Dataset, DatasetDict
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rbkit.errors import InputError, RbkitWarning
from rbkit.regroup import Domains, EditLog, Editor, Material, TfidfEmbedder, prepare, regroup
from rbkit.regroup.editor import Clusterings
from rbkit.regroup.grouping import Grouping, means
from rbkit.regroup.operations import pack, pack_labels, unpack, unpack_labels


@pytest.fixture(scope="session")
def material(make_corpus):
    return prepare(make_corpus(), TfidfEmbedder(dim=4), progress=False)[0]


@pytest.fixture
def editor(material):
    return Editor(material).cut("ward", k=6, seed=0)


def same(one: Editor, two: Editor) -> bool:
    return (
        np.array_equal(one.labels, two.labels)
        and np.array_equal(one.eval_labels, two.eval_labels)
        and one.names == two.names
    )


def test_a_cut_into_k_gives_k_domains_with_names_of_their_own(editor):
    assert editor.grouping.m == 6
    assert len(set(editor.names)) == 6
    assert (editor.labels >= 0).all()
    assert editor.crosstab().sum() == len(editor.labels)


def test_a_merge_takes_the_examples_of_both_and_of_no_other(editor):
    before = editor.labels
    editor.merge([1, 4], "both")
    assert editor.grouping.m == 5
    assert editor.names[1] == "both"
    assert np.array_equal(editor.labels == 1, np.isin(before, [1, 4]))


def test_after_a_merge_eval_examples_follow_their_cells(editor):
    before = editor.eval_labels
    editor.merge([0, 5])
    assert np.array_equal(editor.eval_labels == 0, np.isin(before, [0, 5]))


def test_a_split_leaves_the_other_domains_alone(editor):
    before = editor.labels
    editor.split(2, parts=3)
    assert editor.grouping.m == 8
    assert np.array_equal(np.isin(editor.labels, [2, 3, 4]), before == 2)
    assert np.array_equal(editor.labels == 5, before == 3)
    assert (np.bincount(editor.labels, minlength=8) > 0).all()


def test_moved_examples_are_where_they_were_sent(editor):
    editor.move([3, 4, 5, 90], to=1)
    assert (editor.labels[[3, 4, 5, 90]] == 1).all()
    editor.move([7, 8], name="mine")
    assert editor.names[-1] == "mine"
    assert np.flatnonzero(editor.labels == editor.grouping.m - 1).tolist() == [7, 8]


def test_eval_examples_near_moved_ones_move_with_them(editor, material):
    near = int(np.argmin(((material.train - material.eval[0]) ** 2).sum(axis=1)))
    rows = np.flatnonzero(((material.train - material.train[near]) ** 2).sum(axis=1) < 1e-3)
    editor.move(rows, name="mine")
    assert editor.eval_labels[0] == editor.grouping.m - 1


def test_a_dropped_domain_takes_no_part_and_its_eval_examples_go_elsewhere(editor):
    gone = editor.labels == 3
    editor.drop(3)
    assert editor.grouping.m == 5
    assert (editor.labels[gone] == -1).all()
    assert (editor.eval_labels >= 0).all()
    assert editor.domains().sizes.sum() == (~gone).sum()


def test_a_name_given_stays_and_an_empty_one_takes_it_back(editor):
    own = editor.names[2]
    editor.rename(2, "  trees \n and so on ")
    assert editor.names[2] == "trees and so on"
    editor.merge([0, 1])
    assert editor.names[1] == "trees and so on"
    editor.rename(1, "")
    assert editor.names[1] == own


def test_refining_keeps_numbers_and_names(editor):
    editor.rename(0, "first").refine()
    assert editor.grouping.m == 6
    assert editor.names[0] == "first"


@pytest.mark.parametrize(
    ("op", "message"),
    [
        ({"op": "merge", "domains": [1]}, "at least two"),
        ({"op": "merge", "domains": [1, 99]}, "99 is not one of the 6"),
        ({"op": "split", "domain": 0, "parts": 10_000}, "parts of a domain"),
        ({"op": "move", "rows": "", "to": 1}, "no examples are selected"),
        ({"op": "move", "rows": "5-900", "to": 1}, "of 120 training examples"),
        ({"op": "move", "rows": "a-b", "to": 1}, "not a range"),
        ({"op": "rename", "domain": 0, "name": "x" * 500}, "500 characters"),
        ({"op": "drop", "domain": True, "why": 1}, "why"),
        ({"op": "noise", "policy": "drop"}, "has no noise"),
        ({"op": "explode"}, "'explode' is unknown"),
        ({"op": "cut", "method": "luck"}, "'luck' is unknown"),
        ({"op": "cut", "method": "ward", "k": 3, "colour": "red"}, "colour"),
    ],
)
def test_what_is_not_possible_is_refused_and_changes_nothing(editor, op, message):
    before = editor.grouping
    with pytest.raises(InputError, match=message) as caught:
        editor.apply(op)
    assert "\n" not in str(caught.value)
    assert editor.grouping is before


def test_marks_that_turn_or_hide_text_are_no_part_of_a_name(editor):
    editor.rename(0, "a\u202eb\x00c 👩\u200d👧")
    assert editor.names[0] == "a b c 👩\u200d👧"


def test_a_tree_that_would_not_fit_is_refused(editor, monkeypatch):
    monkeypatch.setattr("rbkit.regroup.ward._MOST_MICRO", 50)
    with pytest.raises(InputError, match="at most 50, or use k-means"):
        editor.cut("ward", k=5, n_micro=60)


def test_a_damaged_tree_in_the_cache_is_told_and_made_again(material, tmp_path, monkeypatch):
    monkeypatch.setenv("RBKIT_CACHE", str(tmp_path))
    labels = Editor(material).cut("ward", k=4).labels
    (path,) = (tmp_path / "hierarchies").glob("*.npz")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.warns(RbkitWarning, match="made again"):
        assert np.array_equal(Editor(material).cut("ward", k=4).labels, labels)
    fresh = Editor(material)
    assert np.array_equal(fresh.clusterings.tree().predict(material.train[:3]), [0, 0, 0])


def test_two_domains_cannot_have_one_name(editor):
    editor.rename(0, "trees")
    with pytest.raises(InputError, match="'trees' is taken"):
        editor.rename(1, "trees")


def test_the_last_domain_cannot_be_dropped(material):
    with pytest.raises(InputError, match="only domain"):
        Editor(material).cut("ward", k=1).drop(0)


def any_op(draw, m: int):
    kind = draw(st.sampled_from(["merge", "split", "move", "rename", "drop", "refine", "cut"]))
    domain = st.integers(0, m - 1)
    return {
        "merge": lambda: {"op": kind, "domains": draw(st.lists(domain, min_size=2, max_size=3))},
        "split": lambda: {"op": kind, "domain": draw(domain), "parts": draw(st.integers(2, 3))},
        "move": lambda: {
            "op": kind,
            "rows": draw(st.lists(st.integers(0, 119), min_size=1, max_size=30)),
            "to": draw(st.none() | domain),
        },
        "rename": lambda: {"op": kind, "domain": draw(domain), "name": draw(st.text(max_size=9))},
        "drop": lambda: {"op": kind, "domain": draw(domain)},
        "refine": lambda: {"op": kind},
        "cut": lambda: {"op": kind, "method": "ward", "k": draw(st.integers(1, 8))},
    }[kind]()


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_session_keeps_its_promises(material, data):
    """Labels stay valid, undo goes back exactly, and the replayed log gives the same domains."""
    editor = Editor(material).cut("ward", k=5)
    states = [editor.grouping]
    for _ in range(data.draw(st.integers(1, 6))):
        op = any_op(data.draw, editor.grouping.m)
        try:
            editor.apply(op)
        except InputError:
            continue
        states.append(editor.grouping)
        now = editor.grouping
        assert (np.bincount(now.labels[now.labels >= 0], minlength=now.m) > 0).all()
        assert ((now.eval_labels >= 0) & (now.eval_labels < now.m)).all()
        assert len(set(editor.names)) == now.m
        counted = means(material.train, now.cells, len(now.owners))
        used = np.unique(now.cells[now.cells >= 0])
        assert np.allclose(now.centers[used], counted[used], atol=0.35)
    log = EditLog.of(json.loads(json.dumps(editor.log.to_dict())))
    assert same(Editor(material, clusterings=editor.clusterings).replay(log), editor)
    while editor.undo():
        pass
    assert editor.grouping is states[0]
    while editor.redo():
        pass
    assert editor.grouping is states[-1]


def test_the_log_says_in_words_what_was_done(editor):
    names = editor.names
    editor.merge([0, 1], "both").move([1, 2, 3], to=2)
    assert str(editor.log).splitlines()[1] == f"2. merge {names[0]} + {names[1]}"
    assert editor.undoable.startswith("move 3 examples to ")
    editor.undo()
    assert editor.redoable.startswith("move 3")
    editor.cut("ward", k=3)
    assert str(editor.log) == "1. hierarchy: 3 domains"
    assert editor.redoable == ""


def test_domains_carry_their_log_through_saving_and_papermill_can_replay_it(
    editor, make_corpus, tmp_path
):
    editor.merge([0, 3], "both").drop(1)
    domains = editor.domains()
    domains.save(tmp_path / "domains")
    log = editor.log.save(tmp_path / "edits.json")
    for where in (log, tmp_path / "domains", EditLog.load(log)):
        again = regroup(make_corpus(), edits=where, progress=False)
        assert np.array_equal(again.train_labels, domains.train_labels)
        assert np.array_equal(again.eval_labels, domains.eval_labels)
        assert again.names == domains.names
    loaded = Domains.load(tmp_path / "domains").attach(make_corpus(), progress=False)
    assert same(Editor(loaded.material, loaded), editor)


def test_a_log_of_another_corpus_is_refused(editor, make_corpus):
    log = editor.log
    with pytest.raises(InputError, match="made on the corpus"):
        regroup(make_corpus(60, 10), edits=log, progress=False)


def test_a_replay_that_ends_elsewhere_is_told(editor, material):
    log = editor.log
    log.result["labels"] = "0" * 16
    with pytest.warns(RbkitWarning, match="the replay gives domains of"):
        Editor(material).replay(log)


def test_a_step_that_fails_in_a_replay_is_named(editor, material):
    log = EditLog([*editor.ops, {"op": "drop", "domain": 50}])
    with pytest.raises(InputError, match=r"step 2 \(drop domain 50\).*50 is not one of the 6"):
        Editor(material).replay(log)


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ([], "not of the format"),
        ({"format": "rbkit-edits/1"}, "damaged"),
        ({"format": "rbkit-edits/1", "ops": []}, "no operations"),
        ({"format": "rbkit-edits/1", "ops": [3]}, "damaged"),
        ({"format": "rbkit-edits/1", "ops": [{"op": "drop", "domain": 1}]}, "is not a cut"),
        ({"format": "rbkit-edits/1", "ops": [{"op": "cut"}, {"op": "exec"}]}, "'exec' is unknown"),
    ],
)
def test_a_damaged_log_is_an_input_error_that_names_the_file(tmp_path, facts, message):
    path = tmp_path / "edits.json"
    path.write_text(json.dumps(facts))
    with pytest.raises(InputError, match=message):
        EditLog.load(path)


def test_a_log_cannot_switch_on_remote_code(make_corpus):
    tool = {"name": "TransformerEmbedder", "model": "x", "trust_remote_code": True}
    log = EditLog([{"op": "cut", "method": "ward", "k": 3}], tool)
    with pytest.raises(InputError, match="ran code that came with the model"):
        regroup(make_corpus(), edits=log, progress=False)


def test_domains_without_a_known_cut_begin_with_their_labels(material):
    labels = np.arange(120) % 4
    labels[:5] = -1
    domains = Domains.from_labels(list("abcd"), labels, np.zeros(30, int))
    editor = Editor(material, domains)
    assert np.array_equal(editor.labels, labels)
    assert editor.names == list("abcd")
    assert len(json.dumps(editor.log.to_dict())) < 3_000


def test_sources_keep_what_is_known_of_eval_examples(material, make_corpus):
    editor = Editor(material).cut("sources")
    named = np.array(editor.names)[editor.eval_labels]
    assert named.tolist() == list(make_corpus()["eval"]["source"])
    editor.merge([0, 1], "both")
    assert set(np.array(editor.names)[editor.eval_labels]) == {
        "both",
        named[editor.eval_labels == 1][0],
    }


def test_labels_of_a_column_of_ones_own(make_corpus):
    corpus = make_corpus()
    corpus = DatasetDict(
        {
            split: data.add_column(
                "mine", ["long" if len(t) > 60 else "short" for t in data["text"]]
            )
            for split, data in corpus.items()
        }
    )
    material = prepare(corpus, TfidfEmbedder(dim=4), progress=False)[0]
    editor = Editor(material).cut("column", column="mine")
    assert sorted(editor.names) == ["long", "short"]
    with pytest.raises(InputError, match="no 'yours'"):
        editor.cut("column", column="yours")


@given(st.sets(st.integers(0, 300)))
def test_ranges_hold_any_rows(rows):
    assert unpack(pack(list(rows)), n=max(rows, default=0) + 1).tolist() == sorted(rows)


@given(st.lists(st.integers(-1, 70_000), max_size=50))
def test_packed_labels_hold_any_labels(labels):
    assert unpack_labels(pack_labels(np.array(labels)), len(labels)).tolist() == labels


def test_packed_labels_of_another_length_are_refused():
    bomb = pack_labels(np.zeros(1_000_000, dtype=int))
    with pytest.raises(InputError, match="or more labels for 10 examples"):
        unpack_labels(bomb, 10)
    with pytest.raises(InputError, match="cannot be read"):
        unpack_labels("%%%", 10)


def test_means_are_those_of_numpy():
    rng = np.random.default_rng(0)
    X, labels = rng.normal(size=(500, 3)), rng.integers(-1, 7, 500)
    expected = np.stack([X[labels == at].mean(axis=0) for at in range(7)])
    assert np.allclose(means(X, labels, 7), expected, atol=1e-6)


def test_a_grouping_without_any_domain_is_refused():
    with pytest.raises(InputError, match="none would be left"):
        Grouping.of(np.array([-1, -1]), np.zeros((2, 1)), np.zeros((1, 1)))


@pytest.mark.parametrize(
    "op",
    [
        {"op": "move"},
        {"op": "move", "rows": 5},
        {"op": "move", "rows": ["x"]},
        {"op": "move", "rows": [[1]]},
        {"op": "move", "rows": [1.7]},
        {"op": "move", "rows": "1-2-3"},
        {"op": "move", "rows": "0-999999999999"},
        {"op": "merge", "domains": None},
        {"op": "merge", "domains": [[0], [1]]},
        {"op": "rename", "domain": True, "name": "x"},
        {"op": "rename", "domain": 0},
        {"op": "split", "domain": 0, "seed": -1},
        {"op": "noise", "policy": []},
        {"op": "noise", "max_noise": "x"},
        {"op": "cut", "method": []},
        {"op": "cut", "method": "kmeans", "k": 2, "seed": -1},
        {"op": "cut", "method": "labels", "labels": pack_labels(np.full(120, 2**31 - 1))},
        {"op": "cut", "method": "labels", "labels": pack_labels(np.full(120, -5))},
        {"op": ["cut"]},
    ],
    ids=lambda op: json.dumps(op)[:60],
)
def test_a_log_from_a_stranger_is_refused_in_one_line(material, op):
    def read_and_replay():
        log = EditLog([{"op": "cut", "method": "kmeans", "k": 4}, op])
        assert str(log)
        Editor(material).replay(log)

    with pytest.raises(InputError):
        read_and_replay()


def test_labels_need_a_name_each(material):
    labels = pack_labels(np.arange(len(material.train)) % 3)
    for names in (["a", "b"], ["a", "b", "a"]):
        with pytest.raises(InputError, match="its own name"):
            Editor(material).cut("labels", labels=labels, names=names)


def test_what_is_too_old_to_be_undone_is_still_in_the_log(material, monkeypatch):
    monkeypatch.setattr("rbkit.regroup.editor._MOST_STEPS", 3)
    editor = Editor(material).cut("kmeans", k=4).merge([0, 1])
    for name in "abcd":
        editor.rename(0, name)
    assert [op["op"] for op in editor.log.ops] == ["cut", "merge", *["rename"] * 4]
    assert [editor.undo() for _ in range(3)] == [True, True, False]
    assert same(Editor(material).replay(editor.log), editor)


def test_the_names_of_labels_are_replayed(material):
    n = len(material.train)
    made = Domains.from_labels(
        ["wiki", "code"], np.arange(n) % 2, np.zeros(len(material.eval), int)
    )
    editor = Editor(material, made).split(0)
    assert "code" in editor.names
    assert same(Editor(material).replay(editor.log), editor)


class TestTheNoiseDomain:
    @pytest.fixture
    def noisy(self, material):
        labels = np.arange(len(material.train)) % 4 - 1
        return Editor(material).cut("labels", labels=pack_labels(labels), noise="own")

    def test_its_name_may_be_taken(self, noisy):
        noisy.settle("nearest").rename(0, "noise").settle("own")
        assert noisy.names.count("noise") == 1
        assert noisy.names[3] == "noise (2)"
        assert noisy.domains().m == 4

    def test_it_is_known_after_a_split_of_another(self, noisy):
        noisy.split(0, parts=3)
        assert noisy.names[noisy.grouping.noise_domain] == "noise"

    def test_it_is_one_no_more_when_it_was_split_or_merged(self, noisy):
        assert noisy.split(3).grouping.noise_domain is None
        noisy.undo()
        assert noisy.merge([0, 3]).grouping.noise_domain is None


def test_two_trees_with_as_many_leaves_are_not_mistaken_for_each_other():
    rng = np.random.default_rng(1)
    few = rng.normal(size=(60, 4)).astype(np.float32)
    rows = [Dataset.from_dict({"text": ["a b"] * n}) for n in (400, 60)]
    corpus = DatasetDict({"train": rows[0], "eval": rows[1]})
    material = Material(corpus, few[rng.integers(60, size=400)], few, embedder={}, origin="")
    cut = {"method": "ward", "k": 5, "n_micro": 200}
    alone = Clusterings(material, cache=False).cut(cut)
    shared = Clusterings(material, cache=False)
    shared.cut({"method": "ward", "k": 5})
    assert np.array_equal(shared.cut(cut).eval_labels, alone.eval_labels)


def test_eval_labels_that_no_vectors_made_are_kept(material):
    n, n_eval = len(material.train), len(material.eval)
    given = np.arange(n_eval) % 4 - 1
    made = Domains.from_labels(["a", "b", "c"], np.arange(n) % 3, given)
    editor = Editor(material, made)
    assert np.array_equal(editor.eval_labels, given)
    assert np.array_equal(editor.domains().q, made.q)
    editor.drop(1)
    assert np.array_equal(editor.eval_labels == -1, given == -1)
    assert same(Editor(material).replay(editor.log), editor)


def test_saved_domains_stay_what_they_were_with_other_vectors(material):
    made = Editor(material).cut("kmeans", k=4).rename(0, "mine").domains()
    rng = np.random.default_rng(0)
    train, evals = (rng.normal(size=X.shape) for X in (material.train, material.eval))
    other = Material(material.corpus, train, evals, embedder={}, origin=material.origin)
    with pytest.warns(RbkitWarning, match="give other domains than those saved"):
        editor = Editor(other, made)
    assert np.array_equal(editor.labels, made.train_labels)
    assert np.array_equal(editor.eval_labels, made.eval_labels)
    assert editor.names == made.names


def test_a_log_holds_the_defaults_that_decide(material):
    op = Editor(material).cut("hdbscan", min_cluster_size=8).ops[0]
    assert {"seed", "min_samples", "n_neighbors", "min_dist", "n_components", "sample"} <= set(op)


class TestSelection:
    """What is selected is what is moved, however it is given."""

    ROWS = (3, 5, 117, 119)
    MASK = np.isin(np.arange(120), ROWS)

    @pytest.mark.parametrize(
        "rows",
        [
            ROWS,
            list(ROWS),
            set(ROWS),
            iter(ROWS),
            [np.int16(at) for at in ROWS],
            [torch.tensor(at) for at in ROWS],
            [*ROWS, 5],
            np.array(ROWS, dtype=np.uint8),
            np.array(ROWS, dtype=object),
            pd.Series(ROWS, index=[9, 8, 7, 6]),
            pd.Series(ROWS, dtype="Int64"),
            pd.Index(ROWS),
            pa.array(ROWS),
            torch.tensor(ROWS),
            MASK,
            MASK.tolist(),
            list(MASK),
            pd.Series(MASK),
            pd.Series(MASK, dtype="boolean"),
            torch.tensor(MASK),
            pa.array(MASK),
        ],
    )
    def test_numbers_and_masks_of_any_library_move_their_rows(self, editor, rows):
        before = editor.labels
        editor.move(rows, name="mine")
        assert np.flatnonzero(editor.labels == editor.names.index("mine")).tolist() == list(
            self.ROWS
        )
        assert np.array_equal(editor.labels[~self.MASK], before[~self.MASK])
        assert editor.log.ops[-1]["rows"] == "3,5,117,119"

    @pytest.mark.parametrize(
        "rows",
        [
            [1.5, 2.7], [1.0, 2.0], np.array([1.0]), [True, 3], [3, True], [None, 3], ["3"], "3-5",
            b"3", {3: 4}, 3.0, None, [[3, 4]], np.array([[True]]), [3, 120], [-1, 3], [2**70],
            MASK[:-1], np.append(MASK, True), MASK[:, None], MASK.astype(float),
            pd.Series([True, None] * 60), pd.Series([1, None], dtype="Int64"), [3 + 0j],
            pd.Series(MASK, index=np.arange(120)[::-1]), pd.Series(["3"]), torch.tensor([3.0]),
            pd.Timestamp(0), np.array([3], dtype="M8[s]"), [], np.zeros(120, dtype=bool),
        ],
    )  # fmt: skip
    def test_everything_else_is_refused_and_moves_nothing(self, editor, rows):
        before, steps = editor.labels, len(editor.log.ops)
        with pytest.raises(InputError):
            editor.move(rows)
        assert np.array_equal(editor.labels, before)
        assert len(editor.log.ops) == steps

    def test_counts_in_a_log_are_integers(self, editor):
        editor.cut("ward", k=np.float32(5)).split(np.int8(1), parts=2.0).merge([0.0, np.uint8(2)])
        assert json.loads(json.dumps(editor.log.to_dict()))["ops"][0]["k"] == 5
        assert isinstance(editor.log.ops[0]["k"], int)
        assert editor.log.ops[1]["names"]
        for bad in ("5", True, 2.5):
            with pytest.raises(InputError, match="k: "):
                editor.cut("kmeans", k=bad)
            with pytest.raises(InputError, match="domain: "):
                editor.drop(bad)
