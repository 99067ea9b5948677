"""What a run notebook makes of its parameters: domains saved, or made by hand and replayed."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest

from rbkit.data.corpus import load_corpus
from rbkit.errors import InputError, RbkitWarning
from rbkit.regroup import Editor, prepare
from rbkit.report.engine import execute
from rbkit.report.job import load_inputs, train_options
from rbkit.report.notebooks import find_notebook
from rbkit.report.parameters import RUN_HINTS, RunParameters
from rbkit.train import Run
from rbkit.train.metrics import NAMED
from rbkit.train.training import train

TOPICS = [
    "oak elm pine birch leaf",
    "piston valve gear clutch fuel",
    "flour butter sugar oven dough",
]


@pytest.fixture
def texts(tmp_path):
    rng = np.random.default_rng(0)
    rows = [" ".join(rng.choice(TOPICS[at % 3].split(), 12)) for at in range(150)]
    path = tmp_path / "texts.jsonl"
    path.write_text("\n".join(json.dumps({"text": f"{row} {at}"}) for at, row in enumerate(rows)))
    return str(path)


@pytest.fixture
def edits(texts, tmp_path):
    """A log as the explorer saves it, and the labels that it led to."""
    corpus = load_corpus(texts, progress=False)
    editor = Editor(prepare(corpus, "tfidf", progress=False)[0]).cut("ward", k=5)
    editor.merge([0, 1], "two in one").move([0, 3, 6], name="by hand").drop(2)
    return editor.log.save(tmp_path / "edits.json"), editor.labels


def test_a_log_of_edits_is_repeated_by_its_own_embedder(texts, edits):
    path, labels = edits
    params = RunParameters.from_mapping({"corpus": texts, "edits": str(path)})
    assert params.embedder == "minilm"  # which is not run
    _, domains = load_inputs(params, progress=False)
    assert np.array_equal(domains.train_labels, labels)
    assert "two in one" in domains.names


def test_hdbscan_takes_no_grid_and_a_policy_for_noise(texts):
    given = {
        "corpus": texts,
        "embedder": "tfidf",
        "cluster": "hdbscan",
        "noise": "drop",
        "min_cluster_size": 10,
    }
    _, domains = load_inputs(RunParameters.from_mapping(given), progress=False)
    assert domains.quality["noise"]["policy"] == "drop"


def lines(path, rows):
    path.write_text("\n".join(map(json.dumps, rows)))
    return str(path)


def test_prompts_chats_and_arguments_of_the_trainer_reach_the_run(tmp_path):
    rows = [{"prompt": f"what is {i}?\n\n", "completion": f"{i} {word}", "source": word}
            for i in range(20) for word in ("oak", "elm")]  # fmt: skip
    given = {
        "corpus": lines(tmp_path / "pairs.jsonl", rows),
        "text_column": ["prompt", "completion"],
        "embedder": "tfidf",
        "cluster": "sources",
        "steps": 2,
        "round_steps": 1,
        "context": 24,
        "vocab_size": 280,
        "eval_size": 8,
        "completion_only_loss": True,
        "packing": True,
        "trainable_layers": 1,
        "training_args": {"weight_decay": 0.25},
        "run_dir": str(tmp_path / "run"),
    }
    params = RunParameters.from_mapping(given)
    corpus, domains = load_inputs(params, progress=False)
    run = train(corpus, domains, **train_options(params), progress=False, save_model=False)
    assert run.status == "ok"
    for name in ("training_args", "completion_only_loss", "packing", "trainable_layers"):
        assert run.info["arguments"][name] == given[name]
    turns = [{"role": "user", "content": "oak"}, {"role": "assistant", "content": "elm"}]
    chats = lines(tmp_path / "chats.jsonl", [{"chat": turns, "source": f"{i}"} for i in range(9)])
    given = {"corpus": chats, "messages": "chat", "cluster": "sources", "eval_size": 2}
    with pytest.raises(InputError, match="at least two different texts"):
        load_inputs(RunParameters.from_mapping(given), progress=False)


def test_an_edit_log_that_is_not_there_is_named(texts):
    with pytest.raises(InputError, match="no such file"):
        load_inputs(RunParameters(corpus=texts, edits="nowhere.json"), progress=False)


def named(i):
    return {"body": f"{TOPICS[i % 3]} {i}", "topic": "rare" if i % 50 == 7 else "abc"[i % 3]}


def test_a_smoke_run_is_of_a_part_of_the_given_corpus(tmp_path):
    rows = [named(i) for i in range(2000)]
    (path := tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    given = {"corpus": str(path), "text_column": "body", "source_column": "topic"}
    given |= {"profile": "smoke", "cluster": "sources", "eval_sources": {"a": 0.75, "rare": 0.25}}
    params = RunParameters.from_mapping({**given, "eval_sources": None}).resolved()
    corpus, domains = load_inputs(params, progress=False)
    assert (len(corpus["train"]), len(corpus["eval"])) == (240, 40)
    assert all(set(data["topic"]) == {"a", "b", "c", "rare"} for data in corpus.values())
    assert sorted(domains.names) == ["a", "b", "c", "rare"]
    assert all(row["text"] == rows[row["original_row"]]["body"] for row in corpus["train"])
    again, _ = load_inputs(params, progress=False)
    other, _ = load_inputs(replace(params, seed=1), progress=False)
    assert again["train"]["original_row"][:] == corpus["train"]["original_row"][:]
    assert other["train"]["original_row"][:] != corpus["train"]["original_row"][:]
    with_target, _ = load_inputs(RunParameters.from_mapping(given).resolved(), progress=False)
    assert Counter(with_target["eval"]["source"])["a"] == 3 * len(with_target["eval"]) / 4


def test_a_smoke_run_has_a_part_of_saved_domains(tmp_path):
    (path := tmp_path / "rows.jsonl").write_text(
        "\n".join(json.dumps(named(i)) for i in range(900))
    )
    params = RunParameters(corpus=str(path), text_column="body", embedder="tfidf", k=3)
    _, domains = load_inputs(params, progress=False)
    domains.save(tmp_path / "domains")
    params = replace(params, domains=str(tmp_path / "domains"), profile="smoke")
    part, kept = load_inputs(params.resolved(), progress=False)
    assert (len(part["train"]), len(part["eval"])) == (240, 40)
    assert kept.names == domains.names
    assert kept.sizes / 240 == pytest.approx(domains.sizes / domains.sizes.sum(), abs=0.02)
    assert kept.q == pytest.approx(domains.q, abs=0.06)
    whole = domains.to_pandas().set_index(["split", "original_row"])["domain"]
    for row in kept.to_pandas().itertuples():
        assert whole.loc[row.split, row.original_row] == row.domain
        assert part[row.split][row.row]["original_row"] == row.original_row
    assert kept.split(part)  # they are of this corpus


def test_what_a_smoke_run_leaves_out_is_announced(texts, edits):
    given = {"edits": str(edits[0]), "model": "small", "metrics": ("token_f1",)}
    with pytest.warns(RbkitWarning, match="edits, metrics: left out with profile='smoke'"):
        made = RunParameters(corpus=texts, profile="smoke", **given).resolved()
    assert (made.edits, made.model, made.metrics) == ("", "tiny", ())
    kept = RunParameters(profile="smoke", model="clip-tiny", metrics=("recall_at_1",)).resolved()
    assert (kept.model, kept.metrics) == ("clip-tiny", ("recall_at_1",))


@pytest.mark.slow
@pytest.mark.notebook
def test_papermill_reproduces_a_regroup_made_by_hand(texts, edits, tmp_path):
    path, labels = edits
    params = {
        "corpus": texts,
        "edits": str(path),
        "steps": 4,
        "round_steps": 2,
        "context": 24,
        "vocab_size": 300,
    }
    execute(find_notebook("90_run"), params, tmp_path / "run", progress=False, timeout=300)
    run = Run.open(tmp_path / "run")
    assert run.status == "ok"
    assert np.array_equal(run.domains.train_labels, labels)
    assert run.domains.edits["ops"][1]["op"] == "merge"


def test_a_run_evaluates_metrics_by_name_where_the_corpus_has_answers(tmp_path):
    rng = np.random.default_rng(0)
    rows = [
        {
            "text": " ".join(rng.choice(TOPICS[at % 3].split(), 8)) + f" {at}",
            "prompt": "oak",
            "completion": "elm",
        }
        for at in range(80)
    ]
    path = tmp_path / "answers.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    params = RunParameters.from_mapping(
        {
            "corpus": str(path),
            "embedder": "tfidf",
            "k": 2,
            "metrics": '["exact_match", "token_f1"]',
            "metric_examples": 5,
            "vocab_size": 270,
            "context": 48,
            "steps": 2,
            "round_steps": 2,
            "batch_size": 4,
            "run_dir": str(tmp_path / "run"),
        }
    )
    corpus, domains = load_inputs(params, progress=False)
    run = train(corpus, domains, **train_options(params), progress=False, device="cpu")
    assert run.info["final"]["metrics"].keys() == {"exact_match", "token_f1"}
    assert run.info["final"]["metrics"]["token_f1"]["rows"] == 5
    with pytest.raises(InputError, match="metric_examples: decides nothing without metrics"):
        RunParameters.from_mapping({"metric_examples": 5})


def test_metrics_by_name_are_those_of_training():
    assert get_args(get_args(RUN_HINTS["metrics"])[0]) == NAMED
