"""Metrics beside the loss: what they are given, what is recorded, and that training is the same."""

from __future__ import annotations

import json
import random
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from datasets import Dataset, DatasetDict
from job import M, make
from transformers import CLIPConfig, CLIPModel, LlamaConfig, LlamaForCausalLM

from rbkit.errors import InputError
from rbkit.regroup.domains import Domains
from rbkit.show.facts import Measure, measure_of, metric_names
from rbkit.train import (
    GenerationMetric,
    RetrievalMetric,
    Run,
    exact_match,
    generate,
    recall_at_k,
    token_f1,
    train,
    zero_shot_accuracy,
)
from rbkit.train.metrics import Metrics, as_metrics
from rbkit.train.models import build_model, train_tokenizer
from rbkit.train.trackers import TrackedValues

EVAL_LABELS = np.array([0, 0, 0, 1, 1, -1, 2, 2, 2, 2])


def eval_rows():
    rng = np.random.default_rng(1)
    return [{"input_ids": rng.integers(0, 64, 6).tolist(), "id": 100 + i} for i in range(10)]


def few_steps(folder, **options):
    """A run of 12 steps in rounds of 4, without a domain for one eval example."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, M, 40)
    rows = [{"input_ids": (rng.integers(0, 16, 6) + 12 * i).tolist()} for i in labels]
    return make(
        folder,
        **{
            "steps": 12,
            "round_steps": 4,
            "train_dataset": Dataset.from_list(rows),
            "eval_dataset": Dataset.from_list(eval_rows()),
            "domains": Domains.from_labels(list("abcd"), labels, EVAL_LABELS),
            "metrics": {"parity": parity},
            **options,
        },
    )


def parity(model, rows):
    """1 for rows with an even id, 0 for others; 104 does not count."""
    assert model.training is torch.is_grad_enabled() is False
    return [np.nan if row["id"] == 104 else row["id"] % 2 == 0 for row in rows]


def disturbing(model, rows):
    """Draws random numbers everywhere, and leaves the model in another mode."""
    torch.rand(3), np.random.rand(3), random.random()  # noqa: NPY002
    model.train()
    return model(torch.tensor(rows["input_ids"])).logits.mean((1, 2))


def test_a_metric_is_averaged_by_domain_and_over_examples_alike(tmp_path):
    few_steps(tmp_path).train()
    run = Run.open(tmp_path)
    rows = run.metrics("metric")
    assert [row["step"] for row in rows] == [0, 4, 8, 12]
    assert [row["round"] for row in rows] == [0, 1, 2, 3]
    # ids 100 101 102 | 103 (104) | - | 106 107 108 109
    wanted = {"value": 4 / 8, "by_domain": [2 / 3, 0.0, 0.5, None], "examples": 8, "rows": 9}
    wanted |= {"name": "parity", "higher_is_better": True, "kind": "metric"}
    assert all(wanted.items() <= row.items() for row in rows)
    final = run.info["final"]["metrics"]["parity"]
    assert (final["value"], final["by_domain"]) == (0.5, [2 / 3, 0.0, 0.5, None])
    with np.load(tmp_path / "final.npz") as arrays:
        np.testing.assert_array_equal(
            arrays["metric_parity"], [1, 0, 1, 0, np.nan, np.nan, 1, 0, 1, 0]
        )
        assert "eval_loss_per_example" in arrays
    assert "parity 0.500" in repr(run)
    assert metric_names([run]) == ["parity"]
    assert Measure("parity", True).series(run)[1].tolist() == [0.5] * 4
    (row, *_) = rows
    assert TrackedValues(run.info).row(row)["eval/parity/a"] == 2 / 3


def test_training_with_a_metric_is_bit_identical_to_training_without(tmp_path):
    plain = few_steps(tmp_path / "plain", metrics=None, dropout=0.1)
    plain.train()
    watched = few_steps(tmp_path / "watched", metrics={"m": disturbing, "n": parity}, dropout=0.1)
    watched.train()
    for one, other in zip(
        plain.model.state_dict().values(), watched.model.state_dict().values(), strict=True
    ):
        assert torch.equal(one, other)
    with_metric = Run.open(tmp_path / "watched")
    rows = [row for row in with_metric.metrics() if row["kind"] != "metric"]
    assert rows == Run.open(tmp_path / "plain").metrics()
    for name, array in Run.open(tmp_path / "plain").history.items():
        np.testing.assert_array_equal(array, with_metric.history[name])


def test_a_resumed_run_records_its_metrics_as_one_that_was_never_stopped(tmp_path):
    metrics = {"m": disturbing}
    options = {"arguments": {"save_steps": 6}, "metrics": metrics}
    few_steps(tmp_path / "whole", **options).train()
    first = few_steps(tmp_path / "cut", **options)
    stop = first._end_step
    first.callback_handler.callbacks[-1]._end_step = lambda seconds: (
        stop(seconds) or first.state.global_step == 6
    )
    first.train()
    assert first.state.global_step == 6
    second = few_steps(tmp_path / "cut", **options)
    second.train(resume_from_checkpoint=True)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert (whole / "metrics.jsonl").read_bytes() == (cut / "metrics.jsonl").read_bytes()
    one, other = (np.load(folder / "final.npz")["metric_m"] for folder in (whole, cut))
    np.testing.assert_array_equal(one, other)
    # From the checkpoint of the last step nothing is left to be done: no metric either.
    calls = []
    third = few_steps(tmp_path / "cut", **options | {"metrics": {"m": lambda *_: calls.append(1)}})
    third.metrics.check = lambda model: None
    third.train(resume_from_checkpoint=True)
    assert not calls
    assert (whole / "metrics.jsonl").read_bytes() == (cut / "metrics.jsonl").read_bytes()


def test_metric_examples_are_the_same_for_all_rules_and_seeds(tmp_path):
    seen = {}

    def ids(key):
        def metric(model, rows):
            seen.setdefault(key, []).append([row["id"] for row in rows])
            return np.zeros(len(rows))

        return {"ids": metric}

    for key, mixer, seed in (("a", "Stratified", 3), ("b", "RnB", 4)):
        options = {"metric_examples": 4, "metric_rounds": 0, "arguments": {"seed": seed}}
        few_steps(tmp_path / key, mixer=mixer, metrics=ids(key), **options).train()
    assert seen["a"] == seen["b"]
    tried, *asked = seen["a"]
    assert len(asked) == 2  # before and after training
    assert tried == asked[0][:2]
    assert len(asked[0]) == len({*asked[0]} - {105}) == 4
    assert Run.open(tmp_path / "a").info["final"]["metrics"]["ids"]["rows"] == 4


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        (lambda model, rows: 0.5, "metric mine: returned 0.5, a single number, for 2 rows; return"),
        (lambda model, rows: [[1.0]] * len(rows), r"metric mine: returned shape \(2, 1\) for 2"),
        (lambda model, rows: ["yes"] * len(rows), r"metric mine: returned \['yes', 'yes'\], which"),
        (lambda model, rows: [None] * len(rows), "metric mine: returned .* which is not numbers"),
        (lambda model, rows: [[1], [2, 3]], "metric mine: returned .* which is not numbers"),
        (lambda model, rows: [np.inf, 0.0], "metric mine: returned inf for row 0"),
        (lambda model, rows: rows[0]["nothing"], "metric mine: raised KeyError on 2 rows"),
    ],
)
def test_what_a_metric_returns_is_checked_before_training(tmp_path, metric, message):
    with pytest.raises(InputError, match=message):
        few_steps(tmp_path / "run", metrics={"mine": metric}).train()
    assert not (tmp_path / "run" / "run.json").exists()


def test_a_metric_that_breaks_while_training_is_named(tmp_path):
    def fragile(model, rows):
        if len(rows) > 2:
            raise RuntimeError("no more")
        return np.zeros(len(rows))

    with pytest.raises(InputError, match="metric mine: raised RuntimeError on 9 rows: no more"):
        few_steps(tmp_path, metrics={"mine": fragile}).train()
    assert "metric mine: raised" in Run.open(tmp_path).info["error"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metrics": {"loss": parity}}, "metrics: 'loss' is what the loss is called"),
        ({"metrics": {"Worst": parity}}, "metrics: 'Worst' is what the loss is called"),
        ({"metrics": {"a/b": parity}}, "metrics: 'a/b' cannot be the name of a metric"),
        ({"metrics": {"../x": parity}}, "cannot be the name"),
        ({"metrics": {"nul": parity}}, "cannot be the name"),
        ({"metrics": {3: parity}}, "metrics: 3 cannot be"),
        ({"metrics": {"F1": parity, "f1": parity}}, "'f1' and 'F1' would be one file"),
        ({"metrics": {"mine": 3}}, "metric mine: int is not a function"),
        ({"metrics": parity}, "metrics: function gives no names; give a dict"),
        ({"metrics": ["exact_mach"]}, "no metric is called 'exact_mach'; did you mean exact_match"),
        ({"metrics": ["exact_match"]}, "metric exact_match: writes answers, which takes a tok"),
        ({"metrics": None, "metric_rounds": 2}, "metric_rounds: decides nothing without metrics"),
        ({"metrics": {}, "metric_examples": 2}, "metric_examples: decides nothing without"),
        ({"metric_examples": 0}, "metric_examples: 0 is not positive"),
        ({"metric_rounds": -1}, "metric_rounds: -1 is negative"),
        ({"metric_dataset": [1, 2]}, "metric_dataset: 2 rows, but eval_dataset has 10"),
        ({"eval_dataset": None, "eval_rounds": 0}, "eval_dataset: none was given for metrics"),
    ],
)
def test_metrics_that_cannot_be_obeyed_are_refused_by_name(tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        few_steps(tmp_path, **options)


def test_metrics_have_an_entry_of_their_own_in_the_ledger(tmp_path):
    def reads(model, rows):
        for row in rows:
            model(input_ids=torch.tensor([row["input_ids"]]))
        return np.zeros(len(rows))

    trainer = few_steps(tmp_path, metrics={"reads": reads})
    trainer.train()
    ledger = Run.open(tmp_path).info["ledger"]
    entry = next(each for each in ledger["entries"] if each["name"] == "metrics")
    weights = sum(weight.numel() for weight in trainer.model.parameters())
    assert entry["calls"] == 4
    assert entry["seconds"] > 0
    assert entry["flops_modelled"] == 4 * 2 * weights * 9 * 6  # of 9 rows of 6 tokens
    assert "'metrics' are the functions beside the loss" in ledger["note"]
    few_steps(tmp_path / "other").train()
    entries = Run.open(tmp_path / "other").info["ledger"]["entries"]
    assert [e["flops_modelled"] for e in entries if e["name"] == "metrics"] == [None]


def test_compute_metrics_still_takes_its_own_pass(tmp_path):
    trainer = few_steps(tmp_path, compute_metrics=lambda prediction: {"size": 7})
    trainer.train()
    measured = trainer.evaluate()
    assert measured["eval_size"] == 7
    assert "eval_parity" not in measured


def test_a_metric_that_is_better_when_low_says_so(tmp_path):
    def errors(model, rows):
        return np.zeros(len(rows))

    errors.higher_is_better = False
    few_steps(tmp_path, metrics={"errors": errors, "parity": parity}).train()
    run = Run.open(tmp_path)
    assert measure_of([run], "errors") == Measure("errors", False)
    assert measure_of([run], "parity") == Measure("parity", True)
    assert measure_of([run], "errors", True) == Measure("errors", True)


def test_rows_of_a_stranger_are_put_in_order(tmp_path):
    few_steps(tmp_path).train()
    bad = [
        {"kind": "metric", "step": 3, "name": "../../etc", "value": 1},
        {"kind": "metric", "step": 3, "value": 1},
        {"kind": "metric", "step": 3, "name": "parity", "value": "high", "by_domain": "x"},
    ]
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.writelines(json.dumps(row) + "\n" for row in bad)
    run = Run.open(tmp_path)
    assert len(run.metrics("metric")) == 5
    assert run.metrics("metric")[-1]["value"] is None
    assert Measure("parity", True).series(run)[0].tolist() == [0, 4, 8, 12]


# ------------------------------------------------------------------------------ written answers


TEXTS = [f"say {word} {word}" for word in ("ant", "bee", "cat", "dog", "eel")] * 8


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(TEXTS, vocab_size=280, progress=False)


@pytest.fixture(scope="module")
def writer(tokenizer):
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=24,
        bos_token_id=0,
        eos_token_id=0,
        initializer_range=0.5,
    )
    return LlamaForCausalLM(config).eval()


def one_by_one(model, tokenizer, text, most, stop):
    """Greedy answers by nothing but the forward pass."""
    ids = tokenizer(text, add_special_tokens=False)["input_ids"][-(24 - most) :]
    written = []
    with torch.no_grad():
        while len(written) < most:
            token = int(model(torch.tensor([ids + written])).logits[0, -1].argmax())
            if token in stop:
                break
            written.append(token)
    return tokenizer.decode(written, skip_special_tokens=True).strip()


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_batched_answers_are_those_of_one_prompt_at_a_time(writer, tokenizer, batch_size):
    texts = ["say ant", "say", "say bee bee say dog", "e", "say cat " * 12]
    rows = [{"prompt": text} for text in texts]
    answers = generate(writer, rows, tokenizer, max_new_tokens=6, batch_size=batch_size)
    assert answers == [one_by_one(writer, tokenizer, text, 6, {0}) for text in texts]


def test_an_answer_ends_at_the_end_of_text(writer, tokenizer):
    rows = [{"q": "say ant"}, {"q": "say bee"}]
    first = int(writer(torch.tensor([tokenizer("say ant")["input_ids"]])).logits[0, -1].argmax())
    writer.generation_config.eos_token_id = [0, first]
    try:
        answers = generate(writer, rows, tokenizer, prompt="q", max_new_tokens=5)
    finally:
        writer.generation_config.eos_token_id = 0
    assert answers[0] == ""
    assert answers == [one_by_one(writer, tokenizer, r["q"], 5, {0, first}) for r in rows]


def test_a_chat_template_writes_the_prompt(writer, tokenizer):
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m['content'] }} {% endfor %}"
        "{% if add_generation_prompt %}say{% endif %}"
    )
    try:
        chat = [{"prompt": "ant"}, {"prompt": [{"role": "user", "content": "ant"}]}]
        answers = generate(writer, chat, tokenizer, max_new_tokens=4)
    finally:
        tokenizer.chat_template = None
    assert answers == generate(writer, [{"prompt": "ant say"}] * 2, tokenizer, max_new_tokens=4)


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        ([{"text": "a"}], {}, "generate: rows have no column 'prompt', but text"),
        ([{"prompt": ["a"]}], {}, "row 0 has .* as its prompt, and no chat template"),
        ([{"prompt": "a"}], {"max_new_tokens": 24}, "24 leave no room for a prompt in the 24"),
        ([{"prompt": "a"}], {"batch_size": 0}, "batch_size: 0 is not positive"),
    ],
)
def test_prompts_that_cannot_be_answered_are_refused(writer, tokenizer, rows, options, message):
    with pytest.raises(InputError, match=message):
        generate(writer, rows, tokenizer, **options)
    with pytest.raises(InputError, match="Linear writes no text"):
        generate(torch.nn.Linear(2, 2), [{"prompt": "a"}], tokenizer)


def test_answers_are_normalised_as_squad_does():
    answers = ["The  Answer!", "an apple", "U.S.", "", "it is"]
    references = ["answer", "apples", "us", "the", ["no", "It is."]]
    assert exact_match(answers, references).tolist() == [1, 0, 1, 1, 1]
    assert np.isnan(exact_match(["a"], [None])).all()
    assert token_f1(["red red car", "x", "", "the"], ["red car car", "y", "z", "a"]).tolist() == [
        2 * 2 / 6,
        0,
        0,
        1,
    ]
    assert exact_match(["yes"], [[{"role": "assistant", "content": "Yes."}]]).tolist() == [1]


def test_rb_train_takes_metrics_by_name_and_as_functions(tmp_path):
    word = ["ant", "bee"]
    split = {
        "text": [f"say {word[i % 2]}" for i in range(40)],
        "prompt": ["say"] * 40,
        "completion": [f" {word[i % 2]}" for i in range(40)],
        "id": list(range(40)),
    }
    corpus = DatasetDict(train=Dataset.from_dict(split), eval=Dataset.from_dict(split))
    labels = [i % 2 for i in range(40)]
    domains = Domains.from_labels(word, labels, labels)
    columns = []

    def odd(model, rows):
        columns.append(rows.column_names)
        return np.array(rows["id"]) % 2

    metrics = {
        "exact_match": "exact_match",
        "odd": odd,
    }
    run = train(
        corpus,
        domains,
        run_dir=tmp_path / "run",
        steps=20,
        round_steps=10,
        batch_size=8,
        context=40,
        vocab_size=270,
        device="cpu",
        completion_only_loss=True,
        metrics=metrics,
        metric_rounds=0,
        progress=False,
    )
    final = run.info["final"]["metrics"]
    assert (final["odd"]["value"], final["odd"]["by_domain"]) == (0.5, [0, 1])
    # One of the two words is right everywhere, the other one nowhere.
    assert sorted(final["exact_match"]["by_domain"]) == [0, 1]
    assert columns[0] == ["text", "prompt", "completion", "id"]
    assert run.info["arguments"]["metrics"] == {
        "exact_match": "GenerationMetric(exact_match, max_new_tokens=32)",
        "odd": odd.__qualname__,
    }
    assert {row["step"] for row in run.metrics("metric")} == {0, 20}
    assert "metrics" not in run.info["parameters"]
    bare = DatasetDict({name: rows.remove_columns("prompt") for name, rows in corpus.items()})
    with pytest.raises(InputError, match="metric exact_match: the split 'eval' of the corpus has"):
        train(bare, domains, run_dir=tmp_path / "bare", metrics=["exact_match"])
    with pytest.raises(InputError, match="metric_rounds: decides nothing without metrics"):
        train(bare, domains, run_dir=tmp_path / "bare", metric_rounds=3)


def test_the_guides_example_runs(tmp_path, monkeypatch, capsys, tokenizer):
    guide = (Path(__file__).parents[2] / "docs" / "guide.md").read_text(encoding="utf-8")
    code = guide.partition("## Metrics beside loss")[2].split("```python")[1].split("```")[0]
    split = {
        "text": [f"say {'ab'[i % 2]}" for i in range(30)],
        "prompt": ["say"] * 30,
        "completion": ["ab"[i % 2] for i in range(30)],
    }
    labels = [i % 2 for i in range(30)]
    monkeypatch.chdir(tmp_path)
    short_train = partial(train, steps=4, round_steps=2, context=16, device="cpu", progress=False)
    names = {
        "rb": SimpleNamespace(train=short_train),
        "corpus": DatasetDict(train=Dataset.from_dict(split), eval=Dataset.from_dict(split)),
        "domains": Domains.from_labels(["a", "b"], labels, labels),
        "model": build_model("tiny", vocab_size=len(tokenizer), context=64),
        "tokenizer": tokenizer,
    }
    exec(code, names)
    assert capsys.readouterr().out.startswith("RnB ended at exact_match 0.000 on the eval set")


def test_generation_metric_reads_the_columns_that_are_named(writer, tokenizer):
    rows = [{"q": "say ant", "a": None}, {"q": "say bee", "a": ""}]
    metric = GenerationMetric(token_f1, tokenizer, "q", "a", max_new_tokens=3)
    assert np.isnan(metric(writer, rows)[0])
    with pytest.raises(InputError, match="no column 'completion'"):
        GenerationMetric(exact_match, tokenizer, "q")(writer, rows)


# ----------------------------------------------------------------------------------- embeddings


def test_recall_and_zero_shot_accuracy_agree_with_a_count_by_hand():
    rng = np.random.default_rng(0)
    images, texts = rng.normal(size=(30, 5)), rng.normal(size=(30, 5))

    def unit(x):
        return x / np.linalg.norm(x, axis=1, keepdims=True)

    for k in (1, 3, 40):
        best = np.argsort(-(unit(images) @ unit(texts).T), axis=1)[:, :k]
        wanted = [float(i in best[i]) for i in range(30)]
        assert recall_at_k(images, 2.5 * texts, k).tolist() == wanted
    labels = rng.integers(0, 30, 30)
    nearest = (unit(images) @ unit(texts).T).argmax(1)
    assert (
        zero_shot_accuracy(torch.tensor(images), texts, labels).tolist()
        == (nearest == labels).astype(float).tolist()
    )


def test_a_model_whose_embeddings_are_all_the_same_is_no_better_than_chance():
    same = np.ones((8, 3))
    assert recall_at_k(same, same, 2).mean() == 2 / 8
    assert zero_shot_accuracy(same, same[:4], np.zeros(8, int)).mean() == 1 / 4
    assert recall_at_k(np.full((2, 3), np.nan), same[:2]).tolist() == [0, 0]


def test_a_clip_model_gives_its_own_recall(tmp_path):
    torch.manual_seed(0)
    tower = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    tower |= {"num_attention_heads": 2}
    config = CLIPConfig(
        text_config={**tower, "vocab_size": 40, "max_position_embeddings": 8},
        vision_config={**tower, "image_size": 8, "patch_size": 4},
        projection_dim=8,
    )
    model = CLIPModel(config).eval()

    def processor(images=None, text=None, **options):
        if images is not None:
            return {"pixel_values": torch.tensor(np.array(images))}
        return {
            "input_ids": torch.tensor(np.array(text)),
            "attention_mask": torch.ones(len(text), 4),
        }

    rng = np.random.default_rng(0)
    rows = [
        {"image": rng.normal(size=(3, 8, 8)).astype("f"), "text": rng.integers(1, 39, 4)}
        for _ in range(6)
    ]
    with torch.no_grad():
        output = model(
            pixel_values=torch.tensor(np.array([row["image"] for row in rows])),
            input_ids=torch.tensor(np.array([row["text"] for row in rows])),
            attention_mask=torch.ones(6, 4),
        )
        recalled = RetrievalMetric(processor, k=2, batch_size=4)(model, rows)
    best = output.logits_per_image.argsort(1, descending=True)[:, :2]
    assert recalled.tolist() == [float(i in best[i]) for i in range(6)]
    assert as_metrics({"recall@2": RetrievalMetric(processor, k=2)}).keys() == {"recall@2"}


def test_examples_outside_the_domains_count_in_the_overall_value_as_they_do_in_the_loss():
    labels, rows = np.array([0, -1, 1, -1]), [{"x": 1.0}, {"x": 2.0}, {"x": 4.0}, {"x": 9.0}]
    functions = {"x": lambda model, rows: [row["x"] for row in rows]}
    model = torch.nn.Linear(1, 1)
    inside = Metrics(functions, rows, labels, 2)(model)["x"]
    assert (inside.value, inside.examples) == (2.5, 2)
    whole = Metrics(functions, rows, labels, 2, asked=np.arange(4))(model)["x"]
    assert (whole.value, whole.examples) == (4.0, 4)
    assert whole.by_domain.tolist() == inside.by_domain.tolist() == [1.0, 4.0]
