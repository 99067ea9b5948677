"""What a run notebook makes of its parameters: domains saved, or made by hand and replayed."""

from __future__ import annotations

import json

import numpy as np
import pytest

from rbkit.data.corpus import load_corpus
from rbkit.errors import InputError
from rbkit.regroup import Editor, prepare
from rbkit.report.engine import execute
from rbkit.report.job import load_inputs, train_options
from rbkit.report.notebooks import find_notebook
from rbkit.report.parameters import RunParameters
from rbkit.train import Run, train

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
