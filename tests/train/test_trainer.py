"""The trainer: what it records is what happened, and what cannot work is said at once."""

from __future__ import annotations

import copy
import dataclasses
import errno
import inspect
import json
import math
import resource
import shutil
import warnings
from dataclasses import replace
from pathlib import Path

import job
import numpy as np
import pytest
import torch
import transformers
from accelerate import ParallelismConfig
from datasets import Dataset, DatasetDict
from job import M, make
from transformers import (
    EarlyStoppingCallback,
    Seq2SeqTrainingArguments,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from rbkit.balance.gram import GramTracker
from rbkit.balance.mixers.base import Mixer, normalise
from rbkit.balance.mixers.rnb import RnB
from rbkit.balance.signals import Observation
from rbkit.errors import InputError, RbkitWarning
from rbkit.regroup.domains import Domains
from rbkit.train import Run, list_runs, recorder, training
from rbkit.train.mixture import DOMAIN
from rbkit.train.models import build_model, load_tokenizer, train_tokenizer
from rbkit.train.trainer import Mixture, MixtureTrainer, TrainingError, _check_arguments
from rbkit.train.training import train


def test_recorded_proportions_follow_from_the_recorded_gram(tmp_path):
    trainer = make(tmp_path, mixer=RnB(lam=2))
    trainer.train()
    history = Run.open(tmp_path).history
    assert history["p"].shape == (5, M)
    assert history["gram"].shape == (4, M, M)
    np.testing.assert_array_equal(history["step"], [10, 20, 30, 40])
    assert history["counts"].sum(axis=1).tolist() == [60] * 4
    for t in range(4):
        v = history["gram"][t] @ history["q"]
        z = np.exp(2 * v / np.linalg.norm(v))
        np.testing.assert_allclose(history["p"][t + 1], z / z.sum(), rtol=1e-9)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_trainers_gram_is_that_of_summed_losses(tmp_path, accumulate):
    """Mean-reduced loss, padding and accumulation are undone: compare with bare autograd."""
    trainer = make(
        tmp_path, steps=1, accumulate=accumulate, dropout=0.0, estimator="exact", eval_rounds=0
    )
    model, per_example, domains = trainer.model, [], []
    rows, _ = trainer.sampler.peek(3 * accumulate)
    for row in rows.tolist():
        batch = trainer.data_collator([trainer.train_dataset[row]])
        loss = model(**batch).loss * (batch["labels"][:, 1:] != -100).sum()
        head = model.lm_head.weight
        hidden = model.model(**{k: v for k, v in batch.items() if k != "labels"}).last_hidden_state
        logits = torch.nn.functional.linear(hidden.detach(), head)
        loss = torch.nn.functional.cross_entropy(
            logits[0, :-1], batch["labels"][0, 1:], reduction="sum"
        )
        per_example.append(torch.autograd.grad(loss, head)[0].double())
        domains.append(int(trainer.sampler.labels[row]))
    trainer.train()
    total = trainer.tracker._watched[0].total.sum((0, 2)).double()  # halves; the one block
    for i in range(M):
        expected = sum(
            (g for g, d in zip(per_example, domains, strict=True) if d == i),
            torch.zeros_like(total[i]),
        )
        torch.testing.assert_close(total[i], expected, rtol=1e-4, atol=1e-5)


def test_eval_losses_agree_with_the_models_own(tmp_path):
    trainer = make(tmp_path, steps=2)
    metrics = trainer.evaluate()
    losses, tokens = [], []
    for row in trainer.eval_dataset:
        batch = trainer.data_collator([row])
        with torch.no_grad():
            losses.append(trainer.model.eval()(**batch).loss.item())
        tokens.append(len(row["input_ids"]) - 1)
    assert metrics["eval_loss"] == pytest.approx(np.average(losses, weights=tokens), rel=1e-5)
    assert metrics["eval_loss_example"] == pytest.approx(np.mean(losses), rel=1e-5)
    mine = trainer.domains.eval_labels == 1
    expected = np.average(np.array(losses)[mine], weights=np.array(tokens)[mine])
    assert metrics["eval_loss/b"] == pytest.approx(expected, rel=1e-5)


def test_the_mixture_really_changes_what_is_drawn(tmp_path):
    class OnlyFirst(Mixer):
        def update(self, seen: Observation):
            return normalise(np.eye(M)[0], seen.available)

    trainer = make(tmp_path, mixer=OnlyFirst())
    trainer.train()
    assert trainer.tracker is None  # no signal asked for, none paid for
    np.testing.assert_array_equal(trainer.sampler.drawn[1:] < 30, True)
    assert trainer.sampler.drawn[0] > 180


def test_a_mixer_that_asks_for_eval_losses_gets_them(tmp_path):
    seen_losses = []

    class Greedy(Mixer):
        signals = frozenset({"eval_losses"})

        def update(self, seen: Observation):
            seen_losses.append(seen.eval_losses)
            return normalise(np.exp(seen.eval_losses), seen.available)

    make(tmp_path, mixer=Greedy(), eval_rounds=0).train()
    assert np.shape(seen_losses) == (4, M)
    assert np.isfinite(seen_losses).all()


def test_a_mixer_that_leaves_the_simplex_is_stopped(tmp_path):
    class Wrong(Mixer):
        def update(self, seen: Observation):
            return seen.p * 2

    with pytest.raises(ValueError, match="sum to 1"):
        make(tmp_path, mixer=Wrong()).train()
    assert Run.open(tmp_path).status == "failed"


def test_the_ledger_prices_what_was_done(tmp_path):
    trainer = make(tmp_path)
    trainer.train()
    entries = {e["name"]: e for e in Run.open(tmp_path).info["ledger"]["entries"]}
    assert entries["step"]["calls"] == 40
    assert entries["track"]["calls"] == 80  # two micro-batches a step
    assert 0 < entries["track"]["seconds"] < entries["step"]["seconds"]
    assert entries["gram"]["calls"] == 4
    assert entries["gram"]["flops_counted"] == 4 * 2 * M * M * 64 * 16
    assert entries["eval"]["calls"] == 5
    assert 0 < entries["track"]["flops_counted"] < entries["step"]["flops_counted"]
    # 64 outputs fit into 128 buckets: nothing is folded, so the model counts products only,
    # and it knows every step where the counter saw one in ten.
    ratio = entries["track"]["flops_counted"] / entries["track"]["flops_modelled"]
    assert ratio == pytest.approx(1, rel=0.1)
    assert entries["track"]["bytes"] == 2 * M * 64 * 16 * 4


def test_the_ledger_has_what_regrouping_cost(tmp_path):
    domains = two_domains()
    domains.method["seconds"] = {"embed": 80.0, "cluster": 2.0}
    run = train(
        corpus(),
        domains,
        run_dir=tmp_path,
        vocab_size=280,
        steps=2,
        round_steps=1,
        context=16,
        progress=False,
    )
    entries = {e["name"]: e["seconds"] for e in run.info["ledger"]["entries"]}
    assert (entries["embed"], entries["cluster"]) == (80.0, 2.0)


def test_training_loss_that_becomes_nan_stops_the_run(tmp_path):
    trainer = make(tmp_path)

    class Poison(TrainerCallback):
        def on_step_begin(self, args, state, control, **_):
            if state.global_step == 12:
                with torch.no_grad():
                    trainer.model.lm_head.weight.fill_(math.nan)

    trainer.add_callback(Poison())
    with pytest.raises(TrainingError, match=r"became nan at step 13; lower learning_rate"):
        trainer.train()
    run = Run.open(tmp_path)
    assert run.status == "failed"
    assert "became nan at step 13" in run.info["error"]
    assert all(math.isfinite(row["loss"]) for row in run.metrics("train"))
    saved = sorted(p.name for p in (tmp_path / "checkpoints").iterdir())
    assert saved == ["checkpoint-7"]  # the poisoned one at step 14 was not written


@pytest.mark.parametrize("round_steps", [7, 10])
def test_a_loss_that_is_nan_at_a_checkpoint_is_reported_as_such(tmp_path, round_steps):
    trainer = make(tmp_path, round_steps=round_steps)

    class Poison(TrainerCallback):
        def on_step_begin(self, args, state, control, **_):
            if state.global_step == 13:  # the loss of step 14, which would be saved
                with torch.no_grad():
                    trainer.model.lm_head.weight.fill_(math.nan)

    trainer.add_callback(Poison())
    with pytest.raises(TrainingError, match=r"loss: became nan at step 14; lower learning_rate"):
        trainer.train()
    assert Run.open(tmp_path).status == "failed"
    saved = sorted(p.name for p in (tmp_path / "checkpoints").iterdir())
    assert saved == ["checkpoint-7"]


def test_weights_that_the_last_step_has_made_infinite_are_not_saved(tmp_path):
    trainer = make(tmp_path)

    class Poison(TrainerCallback):
        def on_optimizer_step(self, args, state, control, **_):
            if state.global_step == 13:
                with torch.no_grad():
                    trainer.model.lm_head.weight[0, 0] = math.inf

    trainer.add_callback(Poison())
    with pytest.raises(TrainingError, match="a weight: became not a finite number at step 14"):
        trainer.train()
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["checkpoint-7"]


def test_a_stop_file_ends_the_run(tmp_path):
    trainer = make(tmp_path, steps=4000)

    class Touch(TrainerCallback):
        def on_step_begin(self, args, state, control, **_):
            if state.global_step == 5:
                (tmp_path / "STOP").touch()

    trainer.add_callback(Touch())
    trainer.train()
    assert Run.open(tmp_path).status == "interrupted"
    assert trainer.state.global_step == 6
    assert not (tmp_path / "STOP").exists()


@pytest.mark.parametrize(
    ("train_labels", "eval_labels", "message"),
    [
        ([0] * 90, [0] * 29 + [2], "3% of the eval set lies in domains without training data"),
        ([-1] * 90, [0] * 30, "no domain has training data"),
        ([0] * 89, [0] * 30, "train_dataset: 90 rows, but the domains label 89"),
    ],
)
def test_domains_that_cannot_work_are_refused_before_training(
    tmp_path, train_labels, eval_labels, message
):
    with pytest.warns(RbkitWarning, match="no training example"):
        domains = Domains.from_labels(["a", "b", "c"], train_labels, eval_labels)
    with pytest.raises(InputError, match=message):
        make(tmp_path, domains=domains)
    assert not (tmp_path / "run.json").exists()


def test_a_domain_without_training_data_is_told_and_gets_nothing(tmp_path):
    with pytest.warns(RbkitWarning, match="domain 'void' has no training example"):
        domains = Domains.from_labels(["a", "b", "void"], [0, 1, 0] * 30, [0, 1, 1] * 10)
    trainer = make(tmp_path, domains=domains)
    trainer.train()
    assert (Run.open(tmp_path).history["p"][:, 2] == 0).all()


def test_data_loader_workers_change_nothing(tmp_path):
    losses = []
    for workers in (0, 2):
        trainer = make(tmp_path / str(workers), steps=12)
        trainer.args.dataloader_num_workers = workers
        trainer.train()
        losses.append((tmp_path / str(workers) / "metrics.jsonl").read_bytes())
    assert losses[0] == losses[1]


def corpus(n_train=60, n_eval=20):
    rng = np.random.default_rng(0)

    def texts(n):
        return [" ".join(rng.choice(["ant", "bee", "sum", "root"], 12)) for _ in range(n)]

    split = {"train": n_train, "eval": n_eval}
    return DatasetDict(
        {s: Dataset.from_dict({"text": texts(n), "source": ["s"] * n}) for s, n in split.items()}
    )


def two_domains(n_train=60, n_eval=20):
    return Domains.from_labels(["a", "b"], np.arange(n_train) % 2, np.arange(n_eval) % 2)


def small(tmp_path, **options):
    return train(
        corpus(),
        two_domains(),
        **{
            "run_dir": tmp_path,
            "vocab_size": 280,
            "steps": 6,
            "round_steps": 3,
            "context": 16,
            "batch_size": 4,
            "progress": False,
            **options,
        },
    )


@pytest.fixture(scope="module")
def small_run(tmp_path_factory):
    """A run with the default seed; tests that write to its folder take a copy."""
    return small(tmp_path_factory.mktemp("small"), checkpoint_rounds=1)


@pytest.fixture
def small_copy(small_run, tmp_path):
    return Path(shutil.copytree(small_run.path, tmp_path / "small"))


def test_train_leaves_a_whole_run_folder(tmp_path, small_run):
    run = small_run
    assert run.status == "ok"
    assert run.domains.names == ["a", "b"]
    assert run.info["final"]["loss_token"] == run.metrics("eval")[-1]["loss_token"]
    assert run.info["parameters"]["mixer_options"]["lam"] == 3.0
    assert [r["step"] for r in run.timings() if r["kind"] == "eval"] == [0, 3, 6]
    assert len(np.load(run.path / "final.npz")["eval_loss_per_example"]) == 20
    again = train(
        corpus(),
        two_domains(),
        run_dir=tmp_path / "b",
        model=str(run.path / "model"),
        steps=2,
        round_steps=1,
        context=16,
        progress=False,
    )
    assert again.info["model"]["class"] == "LlamaForCausalLM"
    before, after = run.info["final"]["loss_token"], again.metrics("eval")[0]["loss_token"]
    assert after == pytest.approx(before, rel=1e-4)  # it starts where the saved model ended


def test_the_same_seed_gives_the_same_run_and_another_one_another(tmp_path, small_run):
    runs = [small_run, *(small(tmp_path / str(seed), seed=seed) for seed in (0, 2))]
    metrics = [(run.path / "metrics.jsonl").read_bytes() for run in runs]
    assert metrics[0] == metrics[1] != metrics[2]


def test_training_does_not_depend_on_whether_it_is_tracked(tmp_path):
    """RnB with lambda 0 draws as Stratified does, so the losses are the same."""
    stratified = small(tmp_path / "a", mixer="Stratified")
    tracked = small(tmp_path / "b", mixer=RnB(lam=0.0))
    assert stratified.metrics() == tracked.metrics()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps: 0 is not positive"),
        ({"model": "nope", "vocab_size": None}, "model: .*'nope'"),
        ({"context": 1}, "context: 1 tokens"),
        ({"vocab_size": 10}, "vocab_size: 10"),
        ({"mixer": "RnBB"}, "did you mean RnB"),
        ({"layer": "nope"}, "layer: the model has no"),
        ({"round_steps": 0}, "round_steps: 0"),
        ({"estimator": "no"}, "estimator: 'no'"),
        ({"learning_rate": math.nan}, "learning_rate: nan"),
        ({"device": "tpu"}, "device: 'tpu'"),
        ({"eval_rounds": -1}, "eval_rounds: -1"),
        ({"checkpoint_rounds": 0}, "checkpoint_rounds: 0"),
    ],
)
def test_a_wrong_parameter_is_named_and_nothing_is_written(tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        small(tmp_path / "run", **options)
    assert not (tmp_path / "run" / "run.json").exists()


def test_a_folder_in_use_is_refused_before_anything_is_tokenized(tmp_path, monkeypatch):
    taken = recorder.Recorder(tmp_path)
    taken.in_use = True
    monkeypatch.setattr("rbkit.train.training.tokenize", None)
    with pytest.raises(InputError, match="in progress"):
        small(tmp_path)
    taken.leave()


def test_a_full_disk_fails_the_run_without_half_a_file(tmp_path, monkeypatch):
    """The record is replaced atomically, so what was there stays readable."""
    from rbkit.train import recorder

    trainer = make(tmp_path)
    real, calls = recorder.Recorder.save_arrays, []

    def full(self, name, **arrays):
        calls.append(name)
        if len(calls) > 2:
            raise OSError(28, "No space left on device", str(self.path / name))
        real(self, name, **arrays)

    monkeypatch.setattr(recorder.Recorder, "save_arrays", full)
    with pytest.raises(TrainingError, match=r"cannot be written \(No space left on device\)"):
        trainer.train()
    run = Run.open(tmp_path)
    assert run.status == "failed"
    assert "No space left on device" in run.info["error"]
    assert 1 <= len(run.history["step"]) <= 2  # very short rounds are not all written at once
    assert not list(tmp_path.glob(".tmp-*"))


def test_a_reader_never_sees_half_a_line(small_copy):
    run = Run.open(small_copy)
    rows = len(run.metrics())
    with (small_copy / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"kind": "train", "step": 7})[:-3])
    assert len(run.metrics()) == rows


def test_a_tracker_on_the_side_sees_the_same_as_the_trainers_own(tmp_path):
    trainer = make(tmp_path, steps=10)
    side = GramTracker(trainer.model.lm_head, M, estimator="exact")
    step, reset = trainer.training_step, trainer.tracker.reset
    found = {}

    def training_step(model, inputs, num_items_in_batch=None):
        with side.batch(inputs[DOMAIN], scale=float(num_items_in_batch)):
            return step(model, inputs, num_items_in_batch)

    def at_end():
        found["gram"] = side.estimate().gram
        reset()

    trainer.training_step, trainer.tracker.reset = training_step, at_end
    trainer.train()
    np.testing.assert_allclose(found["gram"], Run.open(tmp_path).history["gram"][0], rtol=1e-4)


def test_without_an_eval_set_nothing_is_evaluated(tmp_path):
    trainer = make(tmp_path)
    trainer.eval_dataset = None
    trainer.train()
    run = Run.open(tmp_path)
    assert run.status == "ok"
    assert run.metrics("eval") == []
    assert run.history["p"].shape == (5, M)


def test_options_of_the_mixer_are_recorded_as_they_were(tmp_path):
    run = small(tmp_path, mixer=RnB(lam=2), record={"parameters": {"mixer_options": {}, "k": 9}})
    assert run.info["parameters"]["mixer_options"]["lam"] == 2
    assert run.info["parameters"]["k"] == 9


def test_an_unfinished_run_is_not_overwritten_without_a_word(small_run, small_copy):
    info = json.loads((small_copy / "run.json").read_text()) | {"status": "interrupted"}
    (small_copy / "run.json").write_text(json.dumps(info))
    with pytest.raises(InputError, match="interrupted at step 6; give resume=True"):
        small(small_copy)
    assert small(small_copy, resume=True).info["final"] == small_run.info["final"]
    assert small(small_copy, overwrite=True).metrics() == small_run.metrics()


def test_a_finished_run_is_neither_overwritten_nor_trained_again(small_run, small_copy):
    before = (small_copy / "metrics.jsonl").read_bytes()
    refusal = "a finished run; give resume=True .* overwrite=True .* such as .*-2"
    with pytest.raises(InputError, match=refusal):
        small(small_copy)
    with pytest.raises(InputError, match="overwrite: is given with resume"):
        small(small_copy, resume=True, overwrite=True)
    with pytest.raises(InputError, match=r"learning_rate: was 0\.003 in the finished run"):
        small(small_copy, resume=True, learning_rate=1e-3)
    assert (small_copy / "metrics.jsonl").read_bytes() == before
    kept = small(small_copy, resume=True)
    assert (kept.status, kept.metrics()) == ("ok", small_run.metrics())
    shutil.rmtree(small_copy / "checkpoints")
    with pytest.raises(InputError, match="a finished run without checkpoints"):
        small(small_copy, resume=True)


def test_a_trainer_replaces_a_run_only_where_that_is_asked_for(tmp_path):
    make(tmp_path, steps=7).train()
    with pytest.raises(InputError, match="resume_from_checkpoint=True"):
        make(tmp_path, steps=4, arguments={"save_steps": 2}).train()
    make(tmp_path, steps=4, arguments={"save_steps": 2}, overwrite=True).train()
    saved = sorted(p.name for p in (tmp_path / "checkpoints").iterdir())
    assert saved == ["checkpoint-2", "checkpoint-4"]  # none of the older run


def test_checkpoints_without_a_record_are_not_replaced_unasked(small_copy):
    (small_copy / "run.json").unlink()
    with pytest.raises(InputError, match="holds checkpoints of a run"):
        small(small_copy)


def test_a_damaged_record_is_not_replaced_unasked(small_copy):
    (small_copy / "run.json").write_text("{")
    with pytest.raises(InputError, match=r"a run that cannot be read .*overwrite=True"):
        small(small_copy)


def test_a_checkpoint_that_does_not_fit_on_the_disk_fails_the_run_in_one_line(tmp_path):
    trainer = make(tmp_path)

    class Fill(TrainerCallback):
        def on_step_begin(self, args, state, control, **_):
            if state.global_step == 13:
                weights = tmp_path / "checkpoints" / "checkpoint-7" / "model.safetensors"
                size = weights.stat().st_size // 2
                resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    trainer.add_callback(Fill())
    try:
        with pytest.raises(TrainingError, match=r"cannot be written \(.*\); make room, then"):
            trainer.train()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    run = Run.open(tmp_path)
    assert run.status == "failed"
    assert "cannot be written" in run.info["error"]
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["checkpoint-7"]


def test_a_run_says_that_the_disk_is_full_though_nothing_new_can_be_written(tmp_path, monkeypatch):
    trainer = make(tmp_path)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    class Fill(TrainerCallback):
        def on_step_begin(self, args, state, control, **_):
            if state.global_step == 9:
                monkeypatch.setattr(recorder, "write_json", full)
                monkeypatch.setattr(recorder, "_append", full)

    trainer.add_callback(Fill())
    with pytest.raises(TrainingError, match=r"cannot be written \(No space left on device\)"):
        trainer.train()
    assert Run.open(tmp_path).status == "failed"
    assert "No space left on device" in Run.open(tmp_path).info["error"]


def test_a_wrong_parameter_leaves_an_earlier_run_as_it_is(small_copy):
    other = small_copy / "checkpoints" / "mine.txt"
    other.write_text("keep")
    before = sorted(p.name for p in small_copy.rglob("*"))
    with pytest.raises(InputError, match="layer"):
        small(small_copy, layer="nope", overwrite=True)
    assert sorted(p.name for p in small_copy.rglob("*")) == before
    small(small_copy, overwrite=True)
    assert other.read_text() == "keep"


def test_domains_of_another_corpus_are_refused(tmp_path):
    domains = two_domains()
    domains.method["corpus"] = "0123456789abcdef"
    with pytest.raises(InputError, match="made from the corpus 0123456789abcdef"):
        train(corpus(), domains, run_dir=tmp_path, progress=False)


def test_a_mixer_used_twice_starts_again(tmp_path, small_run):
    mixer = RnB()
    for name in ("a", "b"):
        assert small(tmp_path / name, mixer=mixer).metrics() == small_run.metrics()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("eval"), "no split 'eval' with a column 'text'"),
        (
            lambda c: c.update(train=c["train"].rename_column("text", "body")),
            "no split 'train' with",
        ),
        (lambda c: c.update(eval=c["eval"].select([])), "the split 'eval' is empty"),
        (
            lambda c: c.update(train=Dataset.from_dict({"text": ["a", None]})),
            "row 1 of 'train' has",
        ),
    ],
)
def test_a_corpus_that_cannot_be_trained_on_is_named(tmp_path, change, message):
    data = corpus()
    change(data)
    with pytest.raises(InputError, match=message):
        train(data, two_domains(), run_dir=tmp_path, progress=False)
    assert list(tmp_path.iterdir()) == []


def test_examples_left_out_of_all_domains_count_nowhere():
    from rbkit.train.losses import summarise

    one = np.ones(2)
    assert summarise(np.array([1.0, 100.0]), one, np.array([0, -1]), 1).token == 1.0


def test_or_those_outside_count_in_the_overall_loss_alone():
    from rbkit.train.losses import summarise

    total, count = np.array([1.0, 100.0, 30.0, 7.0]), np.array([1.0, 5.0, 3.0, 2.0])
    labels = np.array([0, -1, 1, -1])
    losses = summarise(total, count, labels, 2, count_outside=True)
    assert losses.token == total.sum() / count.sum()
    assert losses.example == (total / count).mean()
    assert losses.by_domain_token.tolist() == [1.0, 10.0]
    assert losses.outside_token == 107 / 7
    assert losses.outside_example == (20 + 3.5) / 2
    without = summarise(total, count, labels, 2)
    assert without.token == 31 / 4
    assert np.isnan(without.outside_token)


def test_eval_examples_outside_are_evaluated_recorded_and_in_no_domain(tmp_path):
    eval_labels = np.arange(30) % 3 - 1  # a third is in no domain
    domains = Domains.from_labels(["a", "b"], np.arange(90) % 2, eval_labels, count_outside=True)
    assert domains.q.tolist() == [0.5, 0.5]
    trainer = make(tmp_path, steps=4, domains=domains, compute_metrics=accuracy)
    losses, tokens = [], []
    for row in trainer.eval_dataset:
        with torch.no_grad():
            losses.append(trainer.model.eval()(**trainer.data_collator([row])).loss.item())
        tokens.append(len(row["input_ids"]) - 1)
    losses, tokens = np.array(losses), np.array(tokens)
    metrics = trainer.evaluate()
    assert metrics["eval_rows"] == 30  # in metrics, too
    assert metrics["eval_loss"] == pytest.approx(np.average(losses, weights=tokens), rel=1e-5)
    for name, label in (("_loss_outside", -1), ("_loss/a", 0), ("_loss/b", 1)):
        mine = eval_labels == label
        expected = np.average(losses[mine], weights=tokens[mine])
        assert metrics[f"eval{name}"] == pytest.approx(expected, rel=1e-5)
    trainer.train()
    run = Run.open(trainer.run_dir)
    assert run.info["domains"]["outside"] == 10
    assert run.info["domains"]["eval_sizes"] == [10, 10]
    first, final = run.metrics("eval")[0], run.info["final"]
    assert first["loss_token"] == pytest.approx(metrics["eval_loss"])
    assert first["outside_token"] == pytest.approx(metrics["eval_loss_outside"])
    assert np.isfinite([final["outside_token"], final["outside_example"]]).all()
    assert np.isfinite(np.load(run.path / "final.npz")["eval_loss_per_example"]).all()
    assert run.domains.count_outside
    with pytest.raises(InputError, match="domains was"):  # they are not those without it
        make(tmp_path, steps=8, domains=replace(domains, count_outside=False)).train(True)


def test_a_broken_run_folder_does_not_stop_the_others(tmp_path, small_run):
    for name in ("good", "bad"):
        shutil.copytree(small_run.path, tmp_path / name)
    (tmp_path / "bad" / "metrics.jsonl").write_text("no json\n")
    with pytest.warns(RbkitWarning, match=r"run left out: .*metrics\.jsonl: line 1 is not a row"):
        runs = list_runs(tmp_path)
    assert [run.path.name for run in runs] == ["good"]


def test_a_later_process_with_the_same_number_is_not_taken_for_the_run(small_copy):
    info = json.loads((small_copy / "run.json").read_text())
    stale = {"status": "running", "heartbeat": "2020-01-01T00:00:00+00:00"}
    (small_copy / "run.json").write_text(json.dumps(info | stale))
    assert Run.open(small_copy).status == "killed"


def test_every_argument_is_recorded_with_its_default(tmp_path):
    run = small(tmp_path, mixer=RnB(lam=2), steps=2, round_steps=1, live="off")
    recorded = run.info["arguments"]
    data = {"corpus", "domains", "record"}
    names = set(inspect.signature(train).parameters) - data
    assert set(recorded) == names | {"mixer_options"}
    assert (recorded["mixer"], recorded["mixer_options"]["lam"]) == ("RnB", 2)
    assert (recorded["batch_size"], recorded["vocab_size"], recorded["live"]) == (4, 280, "off")
    assert (recorded["eval_rounds"], recorded["learning_rate"]) == (1, 3e-3)  # not given
    assert run.info["domains"]["method"]["name"] == "by hand"


# Arguments of the library's trainer that cannot be obeyed, each with a value of that kind; and
# those that have nothing to decide here. All others are obeyed, by the library or the trainer.
REFUSED = {
    "eval_strategy": "epoch",
    "save_strategy": "epoch",
    "logging_strategy": "epoch",
    "train_sampling_strategy": "group_by_length",
    "auto_find_batch_size": True,
    "bf16_full_eval": True,
    "fp16_full_eval": True,
    "dataloader_drop_last": True,
    "dataloader_persistent_workers": True,
    "dataloader_in_order": False,
    "enable_jit_checkpoint": True,
    "parallelism_config": ParallelismConfig(),
    "deepspeed": {},
    "data_seed": 5,
    "use_liger_kernel": True,
    "torch_compile": True,
    "accelerator_config": {"split_batches": True},
}
IRRELEVANT = {
    "length_column_name",  # of group_by_length
    "ignore_data_skip",  # the sampler knows where it stands
    *("do_train", "do_eval", "do_predict", "resume_from_checkpoint"),  # for scripts of the user's
    *("torch_compile_backend", "torch_compile_mode", "liger_kernel_config"),  # as what they modify
}
NAMES = """
output_dir per_device_train_batch_size num_train_epochs max_steps learning_rate lr_scheduler_type
lr_scheduler_kwargs warmup_steps optim optim_args weight_decay adam_beta1 adam_beta2 adam_epsilon
optim_target_modules gradient_accumulation_steps average_tokens_across_devices max_grad_norm
label_smoothing_factor bf16 fp16 tf32 activation_checkpointing activation_checkpointing_kwargs
gradient_checkpointing gradient_checkpointing_kwargs use_cache neftune_noise_alpha
torch_empty_cache_steps logging_steps logging_first_step log_on_each_node logging_nan_inf_filter
include_num_input_tokens_seen log_level log_level_replica disable_tqdm report_to run_name project
trackio_space_id trackio_bucket_id trackio_static_space_id eval_steps eval_delay
per_device_eval_batch_size prediction_loss_only eval_on_start eval_do_concat_batches
eval_use_gather_object eval_accumulation_steps include_for_metrics batch_eval_metrics
save_only_model save_steps save_on_each_node save_total_limit push_to_hub hub_token
hub_private_repo hub_model_id hub_strategy hub_always_push hub_revision load_best_model_at_end
metric_for_best_model greater_is_better restore_callback_states_from_checkpoint full_determinism
seed use_cpu dataloader_num_workers dataloader_pin_memory dataloader_prefetch_factor
dataloader_multiprocessing_context remove_unused_columns label_names ddp_find_unused_parameters
ddp_bucket_cap_mb ddp_broadcast_buffers ddp_static_graph ddp_backend ddp_timeout fsdp fsdp_config
debug skip_memory_metrics local_rank
"""
OBEYED = set(NAMES.split())


def test_arguments_of_another_trainer_are_refused_by_name(tmp_path):
    folder = {"output_dir": str(tmp_path), "report_to": "none", "use_cpu": True}
    data = {"train_dataset": [{"input_ids": [1, 2]}] * 2, "run_dir": tmp_path, "eval_rounds": 0}
    data["domains"] = Domains.from_labels(["a"], [0, 0], [0])
    model = torch.nn.Sequential(torch.nn.Linear(2, 2))
    MixtureTrainer(model, Seq2SeqTrainingArguments(**folder), **data)
    args = Seq2SeqTrainingArguments(predict_with_generate=True, **folder)
    with pytest.raises(InputError, match="predict_with_generate: True cannot be obeyed"):
        MixtureTrainer(model, args, **data)

    class Generating(MixtureTrainer):
        """Obeys it, for all we know."""

    Generating(model, args, **data)

    @dataclasses.dataclass
    class Mine(TrainingArguments):
        colour: str = "red"

    MixtureTrainer(model, Mine(colour="blue", **folder), **data)


def test_every_argument_of_the_library_is_obeyed_or_irrelevant_or_refused_by_name(tmp_path):
    fields = {field.name for field in dataclasses.fields(TrainingArguments)}
    known = OBEYED | IRRELEVANT | set(REFUSED)
    pinned = (Path(__file__).parents[2] / "constraints.txt").read_text().splitlines()
    if f"transformers=={transformers.__version__}" in pinned:
        assert fields == known
    assert fields <= known  # an older release has fewer
    trainer = make(tmp_path, eval_rounds=0)
    for name, value in REFUSED.items():
        args = copy.copy(trainer.args)
        if name == "accelerator_config":
            name, value = "accelerator_config", copy.copy(args.accelerator_config)
            value.split_batches = True
        setattr(args, name, value)
        named = "split_batches" if name == "accelerator_config" else name
        with pytest.raises(InputError, match=f"^{named}: "):
            _check_arguments(args, trainer.mixer, trainer.eval_dataset)


class Seen(TrainerCallback):
    """Notes what the trainer was given, and what it did."""

    def __init__(self):
        self.steps = self.logs = 0

    def on_train_begin(self, args, state, control, **_):
        self.args = args

    def on_step_end(self, *_, **__):
        self.steps += 1

    def on_log(self, *_, **__):
        self.logs += 1


def test_training_args_are_obeyed_and_recorded(tmp_path):
    given = {
        "weight_decay": 0.0,
        "max_grad_norm": 0.5,
        "lr_scheduler_type": "linear",
        "warmup_steps": 2,
        "gradient_checkpointing": True,
        "bf16": True,
        "adam_beta2": 0.95,
        "label_smoothing_factor": 0.1,
        "per_device_eval_batch_size": 3,
        "save_total_limit": 1,
        "logging_steps": 2,
        "eval_strategy": "steps",
        "eval_steps": 3,
        "optim": "adamw_torch",
    }
    run = small(tmp_path, training_args=given, callbacks=[seen := Seen()], checkpoint_rounds=1)
    assert {name: getattr(seen.args, name) for name in given} == given
    assert run.info["arguments"]["training_args"] == given
    assert run.info["parameters"]["training_args"] == given
    assert run.info["arguments"]["callbacks"] == ["Seen"]
    assert (seen.steps, seen.logs) == (6, 6)  # three of losses, two evaluations, and the end
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["checkpoint-6"]


def test_training_args_change_the_run_as_the_library_says(tmp_path, small_run):
    constant = small(tmp_path / "constant", training_args={"lr_scheduler_type": "constant"})
    assert [row["lr"] for row in constant.metrics("train")] == [3e-3]
    still = {"optim": "sgd", "max_grad_norm": 1e-12, "weight_decay": 0}
    losses = [
        r["loss_token"] for r in small(tmp_path / "still", training_args=still).metrics("eval")
    ]
    np.testing.assert_allclose(losses, losses[0], rtol=1e-6)
    same = small(tmp_path / "same", training_args={"weight_decay": 0.1, "max_grad_norm": 1})
    assert same.metrics() == small_run.metrics()  # these are what it does by default
    other = small(tmp_path / "other", training_args={"weight_decay": 5})
    assert other.metrics() != small_run.metrics()


def test_a_run_continues_with_the_same_training_args_only(tmp_path, small_run, small_copy):
    with pytest.raises(InputError, match=r"training_args: was \{\} in the finished run in"):
        small(small_copy, training_args={"optim": "sgd"}, resume=True)
    with pytest.raises(InputError, match=r"training_args: was \{\} in the run in"):
        small(small_copy, training_args={"optim": "sgd"}, resume=True, steps=8)
    given = {"optim": "sgd"}
    small(tmp_path / "a", training_args=given, steps=3, checkpoint_rounds=1)
    again = small(tmp_path / "a", training_args=given, resume=True)
    assert again.info["progress"]["step"] == 6


@pytest.mark.parametrize("name", sorted(training._OPTION))
def test_an_argument_that_an_option_decides_is_refused_by_both_names(tmp_path, name):
    option = training._OPTION[name]
    assert option in inspect.signature(train).parameters
    with pytest.raises(InputError, match=f"^{name}: cannot be .*; give {option}= to rb.tr"):
        small(tmp_path / "run", training_args={name: 1})
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        *(({name: True}, f"^{name}: cannot be given") for name in training._IDLE),
        *(
            ({name: 1, needed: "no"}, f"^{name}: decides nothing without {needed}")
            for name, needed in training._NEEDS.items()
        ),
        ({"weight_decya": 0.1}, "^weight_decya: .* no such argument; did you mean weight_decay"),
        ({"eval_strategy": "no", "eval_steps": 3}, "^eval_steps: decides nothing without eval_str"),
        ({"weight_decay": "0.1"}, "^weight_decay: '0.1' is not a number"),
        ({"weight_decay": None}, "^weight_decay: None is not a number"),
        ({"max_grad_norm": math.nan}, "^max_grad_norm: nan is out of range"),
        ({"max_grad_norm": -1}, "^max_grad_norm: -1 is out of range"),
        ({"bf16": "no"}, "^bf16: 'no' is not a truth value"),
        ({"gradient_checkpointing": 1}, "^gradient_checkpointing: 1 is not a truth value"),
        ({"per_device_eval_batch_size": 0}, "^per_device_eval_batch_size: 0 is not positive"),
        ({"dataloader_num_workers": 1.5}, "^dataloader_num_workers: 1.5 is not a whole number"),
        ({"lr_scheduler_type": "cosin"}, "^training_args: .*cosin is not a valid SchedulerType"),
        ({"lr_scheduler_kwargs": {"speed": 1}}, "^training_args: .*speed"),
        ({"optim": "adam9"}, "^training_args: .*adam9"),
        ({"optim_args": "speed=1"}, "^optim_args: decides nothing with optim='adamw_torch"),
        ({"optim_target_modules": ["q_proj"]}, "^optim_target_modules: decides nothing with opt"),
        (
            {"warmup_steps": 2, "lr_scheduler_type": "constant"},
            "^warmup_steps: decides nothing with lr_scheduler_type='constant'",
        ),
        ({"fp16": True}, "^fp16: a CPU does not train in it"),
        ({"log_level": "loud"}, "^training_args: .*loud"),
        ({"parallelism_config": {}}, "^training_args: .*no attribute"),
        ({1: 2}, "^1: transformers.TrainingArguments has no such argument"),
        ({"adam_beta1": 2.0}, "^training_args: .*Invalid beta"),
        ({"fp16": True, "bf16": True}, "^training_args: .*At most one of fp16 and bf16"),
        ({"save_total_limit": 1, "load_best_model_at_end": True}, "^training_args: .*load_best"),
        ({"deepspeed": {}}, "^deepspeed: "),
        ({"data_loader": 1}, "^data_loader: "),
        ({"label_smoothing_factor": 2.0}, "^label_smoothing_factor: 2.0 is out of range"),
        ([("weight_decay", 0.1)], "^training_args: list is not a dict"),
    ],
)
def test_training_args_that_cannot_be_obeyed_are_refused_before_the_run(tmp_path, given, message):
    with pytest.raises(InputError, match=message):
        small(tmp_path / "run", training_args=given)
    assert not (tmp_path / "run" / "run.json").exists()


def test_the_arguments_that_training_args_refuses_are_the_librarys(tmp_path):
    names = {field.name for field in dataclasses.fields(TrainingArguments)}
    refused = set(training._OPTION) | set(training._IDLE) | set(training._NEEDS)
    pinned = (Path(__file__).parents[2] / "constraints.txt").read_text().splitlines()
    if f"transformers=={transformers.__version__}" in pinned:
        assert refused <= names
    assert not set(training._OPTION) & (set(training._IDLE) | set(training._NEEDS))


@pytest.mark.parametrize("wrong", [[print], "early", [EarlyStoppingCallback(1), None], {Seen: 1}])
def test_what_is_not_a_callback_is_refused(tmp_path, wrong):
    with pytest.raises(InputError, match=r"^callbacks: .* is not a TrainerCallback"):
        small(tmp_path / "run", callbacks=wrong)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model_init": lambda: None}, "model_init: layers"),
        ({"train": lambda data: data.to_iterable_dataset()}, "train_dataset: IterableDataset has"),
        ({"eval_dataset": {"x": [], "y": []}}, "eval_dataset: several datasets"),
        ({"compute_loss_func": lambda *_, **__: 0.0}, "compute_loss_func: eval_rounds takes"),
        (
            {"compute_loss_func": lambda *_, **__: 0.0, "mixer": "ODM", "eval_rounds": 0},
            "compute_loss_func: ODM needs",
        ),
    ],
)
def test_arguments_of_the_trainer_that_cannot_be_obeyed_are_named(tmp_path, options, message):
    trainer = make(tmp_path)
    options = dict(options)
    change = options.pop("train", lambda data: data)
    model = None if "model_init" in options else trainer.model
    if model is None:
        options["model_init"] = lambda: trainer.model
    with pytest.raises(InputError, match=message):
        MixtureTrainer(
            model,
            trainer.args,
            train_dataset=change(trainer.train_dataset),
            **{
                "eval_dataset": trainer.eval_dataset,
                "domains": trainer.domains,
                "data_collator": trainer.data_collator,
                **options,
            },
        )


def accuracy(prediction):
    """The share of right next tokens, which ties the metric to rows and their order."""
    logits, labels = prediction.predictions[:, :-1], prediction.label_ids[:, 1:]
    valid = labels != -100
    return {"accuracy": float((logits.argmax(-1) == labels)[valid].mean()), "rows": len(labels)}


def test_metrics_are_those_of_the_examples_in_domains_and_can_choose_the_best_model(tmp_path):
    eval_labels = np.arange(30) % 3 - 1  # a third is in no domain
    domains = Domains.from_labels(["a", "b"], np.arange(90) % 2, eval_labels)
    trainer = make(
        tmp_path,
        steps=6,
        domains=domains,
        compute_metrics=accuracy,
        arguments={
            "eval_strategy": "steps",
            "eval_steps": 3,
            "save_steps": 3,
            "load_best_model_at_end": True,
            "metric_for_best_model": "accuracy",
        },
    )
    trainer.train()
    assert trainer.state.best_metric is not None
    metrics = trainer.evaluate(metric_key_prefix="test")
    assert metrics["test_rows"] == 20
    assert metrics["test_runtime"] > 0
    rows = [trainer.eval_dataset[int(i)] for i in np.flatnonzero(eval_labels >= 0)]
    batch = trainer.data_collator(rows)
    with torch.no_grad():
        hits = trainer.model.eval()(**batch).logits[:, :-1].argmax(-1) == batch["labels"][:, 1:]
    right = hits[batch["labels"][:, 1:] != -100].double().mean().item()
    assert metrics["test_accuracy"] == pytest.approx(right)
    assert metrics["test_loss"] == pytest.approx(trainer.evaluate()["eval_loss"])


@pytest.mark.parametrize("resumed", [False, True])
def test_the_final_record_is_of_the_weights_that_are_kept(tmp_path, resumed):
    best = {
        "eval_strategy": "steps",
        "eval_steps": 2,
        "save_steps": 2,
        "load_best_model_at_end": True,
        "metric_for_best_model": "eval_loss",
        "greater_is_better": True,  # the best are the first weights that are evaluated
    }
    trainer = make(tmp_path, steps=6, round_steps=2, arguments=best)
    trainer.train()
    if resumed:
        trainer = make(tmp_path, steps=6, round_steps=2, arguments=best)
        trainer.train(resume_from_checkpoint=True)
    run = Run.open(tmp_path)
    losses = {row["step"]: row["loss_token"] for row in run.metrics("eval")}
    assert run.info["final"]["step"] == 2
    assert run.info["final"]["loss_token"] == pytest.approx(losses[2], rel=1e-5)
    assert run.info["final"]["loss_token"] == pytest.approx(trainer.evaluate()["eval_loss"])
    assert losses[6] < losses[2]


def test_a_callback_that_stops_training_ends_the_run(tmp_path):
    trainer = make(
        tmp_path,
        arguments={
            "eval_strategy": "steps",
            "eval_steps": 2,
            "save_steps": 2,
            "load_best_model_at_end": True,
            "metric_for_best_model": "eval_loss",
            "greater_is_better": True,
        },
        callbacks=[EarlyStoppingCallback(1)],
    )
    trainer.train()
    run = Run.open(tmp_path)
    assert trainer.state.global_step == 4
    assert run.status == "ok"
    assert run.info["progress"]["step"] == 4
    assert run.info["final"]["loss_token"] == pytest.approx(trainer.evaluate()["eval_loss"])


def test_code_of_a_model_is_not_even_asked_about(tmp_path, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda _: pytest.fail("it asked whether to run it"))
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    own = {"auto_map": {"AutoTokenizer": ["evil.Evil", None]}, "tokenizer_class": "Evil"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(own))
    with pytest.raises(InputError, match="cannot be loaded"):
        load_tokenizer(str(tmp_path))


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "generation_config.json"])
def test_a_damaged_model_is_an_input_error(tmp_path, name):
    build_model("tiny", vocab_size=300).save_pretrained(tmp_path)
    (tmp_path / name).write_bytes(b"[1]")
    with pytest.raises(InputError, match=r"cannot be loaded|not the configuration"):
        build_model(str(tmp_path))


def test_checkpoints_of_another_run_are_not_written_over(tmp_path):
    make(tmp_path / "a", steps=7, arguments={"output_dir": str(tmp_path / "shared")}).train()
    saved = sorted(p.name for p in (tmp_path / "shared").iterdir())
    for folder in ("b", "c"):
        again = make(tmp_path / folder, steps=7, arguments={"output_dir": str(tmp_path / "shared")})
        with pytest.raises(InputError, match="shared holds checkpoints of another run; give"):
            again.train()
    assert sorted(p.name for p in (tmp_path / "shared").iterdir()) == saved


class OfMine(Trainer):
    """Another trainer: its loss, and what it says of it, are its own."""

    seen = ()

    def compute_loss(self, *args, **kwargs):
        loss = super().compute_loss(*args, **kwargs)
        self.seen = [*self.seen, float(loss.detach())] if torch.is_grad_enabled() else self.seen
        return loss


class Mine(Mixture, OfMine):
    pass


class Fused(Trainer):
    """Computes the loss of a causal LM from its head's weights, past the head itself."""

    factor = 1.0

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        hidden = model.model(inputs["input_ids"], inputs["attention_mask"]).last_hidden_state
        logits = (hidden @ model.lm_head.weight.T)[:, :-1].flatten(0, 1)
        labels = inputs["labels"][:, 1:].flatten()
        total = torch.nn.functional.cross_entropy(logits, labels, reduction="sum") * self.factor
        return total / (num_items_in_batch or (labels != -100).sum())


class MineFused(Mixture, Fused):
    pass


@pytest.mark.parametrize("kind", [Mine, MineFused])
def test_another_trainer_draws_from_a_mixture_with_its_own_loss(tmp_path, monkeypatch, kind):
    plain = make(tmp_path / "plain", dropout=0.0, steps=20)
    plain.train()
    monkeypatch.setattr(job, "MixtureTrainer", kind)
    other = make(tmp_path / "other", dropout=0.0, steps=20)
    assert type(other) is kind
    other.train()
    ours, theirs = (Run.open(tmp_path / name) for name in ("other", "plain"))
    for name in ("p", "gram", "counts"):
        np.testing.assert_allclose(ours.history[name], theirs.history[name], rtol=1e-3, atol=1e-5)
    assert len(ours.metrics()) == len(theirs.metrics())
    assert ours.info["final"]["loss_token"] == pytest.approx(
        theirs.info["final"]["loss_token"], rel=1e-4
    )
    if kind is Mine:
        assert len(other.seen) == 40  # micro-batches
    again = make(tmp_path / "other", dropout=0.0, steps=20)
    again.train(resume_from_checkpoint=True)
    assert Run.open(tmp_path / "other").metrics() == ours.metrics()


def test_another_loss_that_goes_past_the_tracked_layer_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(job, "MixtureTrainer", MineFused)
    monkeypatch.setattr(Fused, "factor", 3.0)
    trainer = make(tmp_path, dropout=0.0, eval_rounds=0)
    with pytest.raises(InputError, match="took no part in the backward pass; watch another"):
        trainer.train()


@pytest.mark.slow
def test_the_trainer_of_trl_draws_from_a_mixture(tmp_path):
    """Prompts and completions, as TRL prepares them: the run is that of rb.train on its rows."""
    trl = pytest.importorskip("trl")
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(["ant", "bee", "sum", "root"], 6)) for _ in range(80)]
    rows = Dataset.from_dict({"prompt": texts, "completion": [f" {text[:9]}" for text in texts]})
    tokenizer = train_tokenizer(texts, 280, progress=False)
    model = build_model("tiny", vocab_size=len(tokenizer), context=64)

    class SFTMixture(Mixture, trl.SFTTrainer):
        pass

    def training(folder, steps=6, **options):
        args = {"output_dir": str(folder), "max_steps": steps, "learning_rate": 1e-3}
        args |= {"per_device_train_batch_size": 4, "bf16": False, "use_cpu": True}
        args |= {"save_steps": 3, "report_to": "none", "disable_tqdm": True, "seed": 0}
        return SFTMixture(
            copy.deepcopy(model),
            args=trl.SFTConfig(**args),
            train_dataset=rows.select(range(60)),
            eval_dataset=rows.select(range(60, 80)),
            processing_class=tokenizer,
            domains=two_domains(),
            round_steps=3,
            **options,
        )

    with warnings.catch_warnings(action="ignore"):  # of TRL's own
        trainer = training(tmp_path / "run")
        shared = vars(trl.SFTTrainer).keys() | vars(trainer).keys()
        ours = {name for name in vars(Mixture) if not name.startswith("__")}
        assert ours & shared <= {*vars(trl.SFTTrainer)} & {*dir(Trainer)}
        trainer.train()
        run = Run.open(tmp_path / "run")
        assert run.status == "ok"
        assert run.history["counts"].sum(axis=1).tolist() == [12, 12]
        z = np.exp(3 * (v := run.history["gram"][0] @ run.history["q"]) / np.linalg.norm(v))
        np.testing.assert_allclose(run.history["p"][1], z / z.sum(), rtol=1e-6)
        rows_of_eval = [trainer.data_collator([row]) for row in trainer.eval_dataset]
        first = [model.eval()(**row).loss.item() for row in rows_of_eval]
        tokens = [(row["labels"][:, 1:] != -100).sum().item() for row in rows_of_eval]
        assert min(tokens) < max(len(row["input_ids"][0]) for row in rows_of_eval) - 5  # no prompts
        expected = pytest.approx(np.average(first, weights=tokens), rel=1e-4)
        assert run.metrics("eval")[0]["loss_token"] == expected
        shutil.rmtree(tmp_path / "run" / "checkpoint-6")
        before = run.metrics()
        training(tmp_path / "run").train(resume_from_checkpoint=True)
        assert Run.open(tmp_path / "run").metrics() == before
        training(tmp_path / "rule", mixer="GroupDRO").train()
    assert Run.open(tmp_path / "rule").status == "ok"
