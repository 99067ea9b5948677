"""What a run notebook makes of its parameters: domains saved, or made by hand and replayed."""

from __future__ import annotations

import json
from typing import get_args

import numpy as np
import pytest

from rbkit.data.corpus import load_corpus
from rbkit.errors import InputError
from rbkit.regroup import Editor, prepare
from rbkit.report.engine import execute
from rbkit.report.job import load_inputs, train_options
from rbkit.report.notebooks import find_notebook
from rbkit.report.parameters import RUN_HINTS, RunParameters
from rbkit.train import Run
from rbkit.train.metrics import SCORES
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
    assert get_args(get_args(RUN_HINTS["metrics"])[0]) == tuple(SCORES)
