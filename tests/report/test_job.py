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


DOLLY = [
    {"instruction": f"what is {i}", "context": "sums" * (i % 2), "response": f"{i} {word}"}
    | {"category": word}
    for i in range(20)
    for word in ("oak", "elm")
]
SMALL = {"embedder": "tfidf", "cluster": "sources", "steps": 2, "round_steps": 1, "context": 24}
SMALL |= {"vocab_size": 280, "eval_size": 8, "completion_only_loss": True}


def test_columns_become_prompts_and_answers(tmp_path):
    given = {
        **SMALL,
        "corpus": lines(tmp_path / "dolly.jsonl", DOLLY),
        "text_column": ["instruction", "context", "response"],
        "source_column": "category",
        "prompt": ["instruction", "context"],
        "completion": "response",
        "training_args": {"weight_decay": 0.25},
        "run_dir": str(tmp_path / "run"),
    }
    params = RunParameters.from_mapping(given)
    corpus, domains = load_inputs(params, progress=False)
    assert domains.names == ["elm", "oak"]
    for row in corpus["train"]:
        at = DOLLY[row["original_row"]]
        parts = [at["instruction"], at["context"]] if at["context"] else [at["instruction"]]
        assert row["prompt"] == "\n\n".join(parts) + "\n\n"
        assert row["completion"] == at["response"]
        assert set(row) == {"text", "source", "original_row", "prompt", "completion"}
    run = train(corpus, domains, **train_options(params), progress=False, save_model=False)
    assert run.info["parameters"]["training_args"] == {"weight_decay": 0.25}
    assert run.info["arguments"]["completion_only_loss"] is True


@pytest.mark.parametrize(
    ("role", "content", "you", "me"),
    [("role", "content", "user", "assistant"), ("from", "value", "human", "gpt")],
)
def test_the_last_answer_of_a_chat_is_what_is_trained(tmp_path, role, content, you, me):
    chats = [
        [
            {role: who, content: f"{word} {i}"}
            for who, word in ((you, "oak"), (me, "elm"), (you, "ash"), (me, "fir"), (you, "ok"))
        ]
        for i in range(20)
    ]
    path = lines(tmp_path / "chats.jsonl", [{"chat": chat, "source": "a"} for chat in chats])
    given = {**SMALL, "corpus": path, "messages": "chat"}
    row = load_inputs(RunParameters.from_mapping(given), progress=False)[0]["train"][0]
    number = row["original_row"]
    assert row["prompt"] == [
        {"role": "user", "content": f"oak {number}"},
        {"role": "assistant", "content": f"elm {number}"},
        {"role": "user", "content": f"ash {number}"},
    ]
    assert row["completion"] == [{"role": "assistant", "content": f"fir {number}"}]


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
