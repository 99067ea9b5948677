"""Each signal is what it says, and the price of each is in the ledger."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
import torch
from datasets import Dataset, concatenate_datasets
from job import M, make, rows
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    BertConfig,
    BertForMaskedLM,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
    DataCollatorWithFlattening,
    GPT2Config,
    GPT2LMHeadModel,
    T5Config,
    T5ForConditionalGeneration,
    Trainer,
    TrainingArguments,
    ViTConfig,
    ViTForImageClassification,
    Wav2Vec2Config,
    Wav2Vec2ForCTC,
    XLMConfig,
    XLMWithLMHeadModel,
    default_data_collator,
)

from rbkit.balance.gram import find_layer
from rbkit.balance.mixers.base import Mixer, normalise
from rbkit.balance.mixers.rnb import RnB
from rbkit.balance.sampler import MixtureSampler
from rbkit.errors import InputError
from rbkit.regroup import add_domain_ids
from rbkit.regroup.domains import Domains
from rbkit.train import Run
from rbkit.train.losses import Objective, example_losses, token_losses
from rbkit.train.models import PackCollator, PadCollator
from rbkit.train.trainer import MixtureTrainer


class Watching(Mixer):
    """Keeps what it was shown, and goes to proportions of its own."""

    def __init__(self, *signals, p=(1, 2, 3, 4), **attributes):
        self.signals = frozenset(signals)
        self.seen, self.found, self.to = [], None, np.array(p, dtype=float)
        for name, value in attributes.items():
            setattr(self, name, value)

    def probe_steps(self):
        return 3

    def prepare(self, found):
        self.found = found
        return normalise(self.to, np.ones(M, dtype=bool))

    def update(self, seen):
        self.seen.append(seen)
        return normalise(self.to, seen.available)


def ran(folder, mixer, **options):
    trainer = make(folder, mixer=mixer, **{"steps": 6, "round_steps": 3, "dropout": 0.0, **options})
    trainer.train()
    return trainer


@pytest.fixture(scope="module")
def twelve_steps(tmp_path_factory):
    return ran(tmp_path_factory.mktemp("twelve"), RnB(), steps=12)


@pytest.fixture(scope="module")
def six_steps(tmp_path_factory):
    """Trained without any signal."""
    return ran(tmp_path_factory.mktemp("six"), Watching())


def entries(folder):
    return {e["name"]: e for e in Run.open(folder).info["ledger"]["entries"]}


def losses_by_hand(model, trainer, rows):
    """Summed loss, tokens and domain of each row, one at a time."""
    found = []
    for row in rows:
        batch = trainer.data_collator([trainer.train_dataset[int(row)]])
        each, valid = token_losses(model, batch)
        found.append((each.sum(), int(valid.sum()), int(trainer.sampler.labels[row])))
    return found


def first_step(folder, mixer, **options):
    """Make one step of plain gradient descent; return the trainer, and the gradient it took."""
    arguments = {
        "optim": "sgd",
        "max_grad_norm": 0.0,
        "lr_scheduler_type": "constant",
        "learning_rate": 1.0,
        **options.pop("arguments", {}),
    }
    trainer = make(
        folder,
        mixer=mixer,
        steps=1,
        round_steps=1,
        dropout=0.0,
        eval_rounds=0,
        arguments=arguments,
        **options,
    )
    rows = trainer.sampler.peek(trainer.examples_per_step)[0]
    before = {k: v.detach().clone() for k, v in trainer.model.named_parameters()}
    expected = losses_by_hand(trainer.model, trainer, rows)
    parameters = list(trainer.model.parameters())
    grads = [torch.autograd.grad(loss, parameters, retain_graph=True) for loss, _, _ in expected]
    trainer.train()
    moved = [before[k] - v.detach() for k, v in trainer.model.named_parameters()]
    return trainer, moved, expected, grads


@pytest.mark.parametrize("accumulate", [1, 2])
def test_training_losses_are_those_of_each_step_and_domain(tmp_path, accumulate):
    mixer = Watching("train_losses")
    trainer, _, expected, _ = first_step(tmp_path, mixer, accumulate=accumulate)
    shown = mixer.seen[0].train_losses
    assert shown.loss.shape == shown.tokens.shape == (1, M)
    assert shown.excess is None
    for i in range(M):
        mine = [(float(loss.detach()), tokens) for loss, tokens, domain in expected if domain == i]
        assert shown.examples[0, i] == len(mine)
        assert shown.tokens[0, i] == sum(tokens for _, tokens in mine)
        if mine:
            mean = sum(loss for loss, _ in mine) / sum(tokens for _, tokens in mine)
            assert shown.loss[0, i] == pytest.approx(mean, rel=1e-5)
        else:
            assert np.isnan(shown.loss[0, i])
    assert trainer.sampler.p.tolist() == [0.1, 0.2, 0.3, 0.4]


@pytest.mark.parametrize("accumulate", [1, 2])
def test_visit_losses_are_those_of_first_visits_and_of_repeats(tmp_path, accumulate):
    """With a rate of 0 the model stays, so that each row has one loss."""
    mixer = Watching("visit_losses", p=[1, 1, 1, 7], reserve=0.5)
    trainer = make(
        tmp_path,
        mixer=mixer,
        steps=12,
        round_steps=6,
        dropout=0.0,
        eval_rounds=0,
        accumulate=accumulate,
        arguments={"learning_rate": 0.0, "weight_decay": 0.0},
    )
    rows = len(trainer.sampler.labels)
    expected = {int(r): losses_by_hand(trainer.model, trainer, [r])[0] for r in range(rows)}
    mine = trainer.sampler
    copy = MixtureSampler(mine.labels, mine.p, trainer.args.seed, reserve=0.5)
    trainer.train()
    assert len(mixer.seen) == 2
    seen = np.zeros(rows, int)
    for shown in mixer.seen:
        copy.set_proportions(shown.p)
        sums = np.zeros((2, M, 4))
        for row in copy.take(6 * trainer.examples_per_step):
            loss, tokens, domain = expected[int(row)]
            sums[int(seen[row] > 0), domain] += [float(loss.detach()), tokens, 1, seen[row]]
            seen[row] += 1
        found = shown.visit_losses
        with np.errstate(invalid="ignore"):
            np.testing.assert_allclose(found.first, sums[0, :, 0] / sums[0, :, 1], rtol=1e-5)
            np.testing.assert_allclose(found.repeat, sums[1, :, 0] / sums[1, :, 1], rtol=1e-5)
            np.testing.assert_allclose(found.visits, sums[1, :, 3] / sums[1, :, 2], rtol=1e-12)
        np.testing.assert_array_equal(found.first_examples, sums[0, :, 2])
        np.testing.assert_array_equal(found.repeat_examples, sums[1, :, 2])
        np.testing.assert_array_equal(shown.drawn, copy.drawn)
    assert found.repeat_examples.sum() > 0


@pytest.mark.parametrize("accumulate", [1, 2])
def test_asking_for_training_losses_does_not_change_training(tmp_path, accumulate):
    plain = ran(tmp_path / "plain", Watching(), accumulate=accumulate)
    shown = ran(tmp_path / "shown", Watching("train_losses"), accumulate=accumulate)
    for one, other in zip(plain.model.parameters(), shown.model.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("normalised", [False, True])
def test_a_rule_that_weighs_losses_trains_on_the_weighted_loss(tmp_path, accumulate, normalised):
    class Starts(Watching):
        def start(self, q, sizes):
            return np.array([0.7, 0.1, 0.1, 0.1])

    mixer = Starts("train_losses", acts="loss", normalise_loss=normalised)
    trainer, moved, expected, grads = first_step(tmp_path, mixer, accumulate=accumulate)
    np.testing.assert_array_equal(trainer.sampler.history[0][1], np.full(M, 0.25))
    weights = np.array([0.7, 0.1, 0.1, 0.1]) / 0.25
    tokens = np.array([n for _, n, _ in expected])
    ours = np.array([weights[domain] for _, _, domain in expected])
    total = (ours * tokens).sum() if normalised else tokens.sum()
    for k, change in enumerate(moved):
        wanted = sum(w * g[k] for w, g in zip(ours, grads, strict=True)) / total
        torch.testing.assert_close(change, wanted.float(), rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(Run.open(tmp_path).history["p"][0], [0.7, 0.1, 0.1, 0.1])


def test_excess_is_the_loss_above_a_reference_trained_first(tmp_path):
    mixer = Watching("excess_losses", reference_steps=4)
    trainer = ran(tmp_path, mixer)
    reference = Run.open(tmp_path / "side" / "reference")
    assert reference.status == "ok"
    sizes = np.asarray(trainer.domains.sizes)
    np.testing.assert_allclose(reference.history["p"][0], sizes / sizes.sum())
    assert reference.info["parameters"]["steps"] == 4
    last = trainer.reference
    batch = trainer.data_collator([trainer.train_dataset[0], trainer.train_dataset[5]])
    ours, valid = token_losses(trainer.model.eval(), batch)
    theirs, _ = token_losses(last, batch)
    mine = trainer.step_losses
    mine.clear()
    trainer.mixture.round_began = trainer.state.global_step
    trainer._example_losses(trainer.model, batch, torch.tensor([0, 1]))
    found = mine.collect(1, torch.device("cpu")).excess[0]
    wanted = ((ours - theirs).clamp(min=0).sum(1) / valid.sum(1)).detach()
    np.testing.assert_allclose(found[:2], wanted, rtol=1e-5)
    assert (wanted > 0).any()
    assert entries(tmp_path)["reference_run"]["flops_counted"] > 0
    assert entries(tmp_path)["reference"]["flops_counted"] > 0


def test_fresh_gradients_are_those_of_all_parameters(tmp_path):
    mixer = Watching("target_gradient", "domain_gradients")
    trainer = make(tmp_path, mixer=mixer, steps=3, round_steps=3, dropout=0.0)
    batches = trainer._fresh_batches()
    trainer.train()
    shown, model = mixer.seen[0].gradients, trainer.model.eval()

    def gradient(data, rows):
        model.zero_grad()
        each, valid = token_losses(model, trainer.data_collator([data[int(r)] for r in rows]))
        (each.sum() / valid.sum()).backward()
        return torch.cat([p.grad.flatten() for p in model.parameters()]).double()

    g = [gradient(trainer.train_dataset, batches.rows(0, i, 6)) for i in range(M)]
    target = gradient(trainer.eval_dataset, batches.rows(0, None, 6))
    gram = torch.stack(g) @ torch.stack(g).T
    np.testing.assert_allclose(shown.gram, gram, rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(shown.target, torch.stack(g) @ target, rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(shown.norms, gram.diag().sqrt(), rtol=1e-4)
    assert shown.target_norm == pytest.approx(float(target.norm()), rel=1e-4)
    numbers = sum(p.numel() for p in model.parameters())
    assert entries(tmp_path)["domain_gradients"]["bytes"] == 4 * numbers * (M + 1)


def test_fresh_batches_do_not_touch_the_sequence_that_trains(tmp_path, six_steps):
    fresh = ran(tmp_path / "fresh", Watching("domain_gradients"))
    for one, other in zip(six_steps.model.parameters(), fresh.model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_probe_runs_train_on_one_domain_each_and_leave_the_model_alone(tmp_path):
    mixer = Watching("probe_runs", "eval_losses")
    trainer = make(tmp_path, mixer=mixer, steps=3, round_steps=3, dropout=0.0)
    before = [p.detach().clone() for p in trainer.model.parameters()]
    at_start = []
    prepare = mixer.prepare
    mixer.prepare = lambda found: (
        at_start.append([p.detach().clone() for p in trainer.model.parameters()]) or prepare(found)
    )
    trainer.train()
    assert all(torch.equal(a, b) for a, b in zip(before, at_start[0], strict=True))
    found = mixer.found
    assert found.steps == 3
    assert found.before.shape == (M,)
    assert found.after.shape == (M, M)
    gain = found.before[None] - found.after
    assert (gain.argmax(axis=1) == np.arange(M)).all()  # domains share no tokens here
    np.testing.assert_allclose(Run.open(tmp_path).history["p"][0], [0.1, 0.2, 0.3, 0.4])
    assert entries(tmp_path)["probe_runs"]["calls"] == M + 1  # with the evaluation before


def test_side_runs_that_ended_well_are_not_made_again(tmp_path):
    ran(tmp_path, Watching("probe_runs", "eval_losses"))
    runs = sorted((tmp_path / "side").glob("*/run.json"))
    started = [json.loads(path.read_text())["started"] for path in runs]
    stamps = [path.stat().st_mtime_ns for path in runs]
    mixer = Watching("probe_runs", "eval_losses")
    ran(tmp_path, mixer, overwrite=True)
    assert [path.stat().st_mtime_ns for path in runs] == stamps
    assert [json.loads(path.read_text())["started"] for path in runs] == started
    assert mixer.found is not None
    ran(tmp_path, Watching("probe_runs", "eval_losses"), arguments={"seed": 4}, overwrite=True)
    assert [path.stat().st_mtime_ns for path in runs] != stamps  # another run: other probes


def test_rounds_are_as_long_as_the_rule_plans(tmp_path):
    class Planned(Watching):
        def round_length(self, round_steps):
            return 2 if len(self.seen) < 3 else round_steps

    mixer = Planned("eval_losses")
    trainer = ran(tmp_path, mixer, steps=20, round_steps=5)
    assert [seen.step for seen in mixer.seen] == [2, 4, 6, 11, 16]
    assert Run.open(tmp_path).history["step"].tolist() == [2, 4, 6, 11, 16]
    assert [s for s, _ in trainer.sampler.history] == [6 * n for n in (0, 2, 4, 6, 11, 16)]


def test_rounds_of_one_step_are_all_recorded_in_the_end(tmp_path):
    ran(tmp_path, RnB(), steps=30, round_steps=1)
    history = Run.open(tmp_path).history
    assert history["step"].tolist() == list(range(1, 31))
    assert history["p"].shape == (31, M)


def test_no_domain_is_seen_more_often_than_the_cap_allows(tmp_path):
    mixer = Watching(p=(1000, 1, 1, 1), max_epochs=1.5)
    trainer = ran(tmp_path, mixer, steps=20)
    sizes = np.bincount(trainer.domains.train_labels, minlength=M)
    assert (trainer.sampler.drawn <= np.floor(1.5 * sizes)).all()
    assert trainer.sampler.drawn[0] == np.floor(1.5 * sizes[0])
    assert Run.open(tmp_path).history["p"][-1][0] < 0.5


def test_a_corpus_used_up_under_a_cap_is_an_error_that_says_so(tmp_path):
    with pytest.raises(InputError, match="used up"):
        ran(tmp_path, Watching(max_epochs=0.2), steps=20)


def test_the_repetition_cap_survives_a_resume(tmp_path):
    whole = ran(tmp_path / "whole", Watching(p=(1000, 1, 1, 1), max_epochs=1.5), steps=20)
    ran(tmp_path / "parts", Watching(p=(1000, 1, 1, 1), max_epochs=1.5), steps=7)
    again = make(
        tmp_path / "parts",
        mixer=Watching(p=(1000, 1, 1, 1), max_epochs=1.5),
        steps=20,
        round_steps=3,
        dropout=0.0,
    )
    again.train(resume_from_checkpoint=True)
    assert (again.sampler.drawn == whole.sampler.drawn).all()


@pytest.mark.parametrize(
    ("changed", "tolerance"),
    [({"dataloader_num_workers": 2}, 0), ({"activation_checkpointing": True}, 1e-7)],
)
def test_settings_that_must_not_matter_do_not(tmp_path, twelve_steps, changed, tolerance):
    if not all(hasattr(twelve_steps.args, name) for name in changed):
        pytest.skip("this release of transformers does not have it")
    other = ran(tmp_path / "other", RnB(), steps=12, arguments=changed)
    p, theirs = (Run.open(t.run_dir).history["p"] for t in (twelve_steps, other))
    np.testing.assert_allclose(p, theirs, rtol=0, atol=tolerance)
    assert (twelve_steps.sampler.drawn == other.sampler.drawn).all()


def test_accumulating_gradients_gives_the_p_of_one_large_batch(tmp_path):
    whole = ran(
        tmp_path / "whole",
        RnB(),
        accumulate=1,
        arguments={"per_device_train_batch_size": 6},
        steps=12,
    )
    parts = ran(
        tmp_path / "parts",
        RnB(),
        accumulate=3,
        arguments={"per_device_train_batch_size": 2},
        steps=12,
    )
    p, theirs = (Run.open(t.run_dir).history["p"] for t in (whole, parts))
    np.testing.assert_allclose(p, theirs, atol=1e-5)


def test_autocast_moves_p_only_by_its_rounding(tmp_path, twelve_steps):
    half = ran(tmp_path / "half", RnB(), steps=12, arguments={"bf16": True})
    p, theirs = (Run.open(t.run_dir).history["p"] for t in (twelve_steps, half))
    assert not np.array_equal(p, theirs)
    np.testing.assert_allclose(p, theirs, atol=0.02)


def test_compiled_models_train_on_the_same_examples_but_are_not_tracked(tmp_path):
    compiled = {"torch_compile": True, "torch_compile_backend": "eager"}
    with pytest.raises(InputError, match="torch_compile: the tracker's hooks are not compiled"):
        make(tmp_path / "no", mixer=RnB(), arguments=compiled)
    # Few steps: each new length of a batch is compiled again.
    plain = ran(tmp_path / "plain", Watching("eval_losses"), steps=3)
    other = ran(tmp_path / "other", Watching("eval_losses"), steps=3, arguments=compiled)
    for one, two in zip(plain.mixer.seen, other.mixer.seen, strict=True):
        np.testing.assert_allclose(one.eval_losses, two.eval_losses, rtol=1e-4)


def test_packed_batches_have_the_gram_matrix_of_padded_ones(tmp_path):
    padded = ran(tmp_path / "padded", RnB())
    packed = make(
        tmp_path / "packed",
        mixer=RnB(),
        steps=6,
        round_steps=3,
        dropout=0.0,
        eval_collator=PadCollator(0),
    )
    packed.data_collator = DataCollatorWithFlattening()
    packed.train()
    ours, theirs = (Run.open(t.run_dir).history for t in (packed, padded))
    np.testing.assert_array_equal(ours["counts"], theirs["counts"])
    for name in ("gram", "noise_floor", "diagonal_debiased"):
        np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-3, atol=1e-5, err_msg=name)
    np.testing.assert_allclose(ours["p"], theirs["p"], atol=1e-5)


class PaddedFlattening(DataCollatorWithFlattening):
    """Pads the one row, as collators with ``pad_to_multiple_of`` do."""

    def __call__(self, rows, **options):
        batch = super().__call__(rows, **options)
        pads = {"input_ids": 0, "labels": -100, "position_ids": 0}
        return {k: torch.nn.functional.pad(v, (0, 7), value=pads[k]) for k, v in batch.items()}


def test_the_padding_of_a_packed_batch_is_in_no_domain(tmp_path):
    grams = []
    for name, collator in (("plain", DataCollatorWithFlattening()), ("pad", PaddedFlattening())):
        trainer = make(
            tmp_path / name, mixer=RnB(), steps=3, round_steps=3, dropout=0.0, eval_rounds=0
        )
        trainer.data_collator = collator
        trainer.train()
        grams.append(Run.open(trainer.run_dir).history["gram"])
    np.testing.assert_allclose(*grams, rtol=1e-4, atol=1e-5)


class Between(DataCollatorWithFlattening):
    """Puts a token of its own before each text, so that no token is where it was."""

    def __call__(self, rows, **options):
        return super().__call__([{"input_ids": [1, *row["input_ids"]]} for row in rows], **options)


class Backwards(DataCollatorWithFlattening):
    """Flattens the texts in another order."""

    def __call__(self, rows, **options):
        return super().__call__(rows[::-1], **options)


@pytest.mark.parametrize("collator", [Between(), Backwards()])
def test_a_packed_batch_whose_tokens_are_not_those_of_its_rows_is_refused(tmp_path, collator):
    trainer = make(tmp_path, mixer=RnB(), steps=3, eval_rounds=0)
    trainer.data_collator = collator
    with pytest.raises(InputError, match="domains: 3 ids of shape"):
        trainer.train()


def packed_rows(by_domain=True):
    """Rows of 12 tokens, as run_clm's ``group_texts`` makes them, and the domains of documents."""
    rng = np.random.default_rng(1)
    labels = rng.integers(0, M, 120)
    documents = Dataset.from_list(rows(rng, labels))
    documents = documents.add_column("labels", documents["input_ids"][:])
    documents = add_domain_ids(documents, labels)

    def group(columns):
        chained = {name: np.concatenate(lists).tolist() for name, lists in columns.items()}
        whole = len(chained["input_ids"]) // 12 * 12
        return {k: [v[at : at + 12] for at in range(0, whole, 12)] for k, v in chained.items()}

    parts = [np.flatnonzero(labels == i) for i in range(M)] if by_domain else [range(120)]
    packed = [documents.select(part).map(group, batched=True) for part in parts]
    domains = Domains.from_labels(list("abcd"), labels, np.arange(30) % M)
    return concatenate_datasets(packed), domains


def test_packed_rows_are_drawn_and_tracked_by_the_domains_of_their_tokens(tmp_path):
    packed, domains = packed_rows()
    labels = [row[0] for row in packed["domain_ids"]]
    assert len(labels) < len(domains.train_labels)
    by_hand = Domains.from_labels(list("abcd"), labels, domains.eval_labels)
    plain = packed.remove_columns("domain_ids")
    ours, theirs = (
        ran(tmp_path / name, RnB(), domains=which, train_dataset=data, **options)
        for name, which, data, options in (
            # Also where the library removes no columns, and the collator sees them all.
            (
                "ours",
                domains,
                packed,
                {
                    "data_collator": default_data_collator,
                    "eval_collator": PadCollator(0),
                    "arguments": {"remove_unused_columns": False},
                },
            ),
            ("theirs", by_hand, plain, {}),
        )
    )
    np.testing.assert_array_equal(ours.sampler.labels, labels)
    one, other = (Run.open(t.run_dir).history for t in (ours, theirs))
    for name in ("gram", "counts", "noise_floor", "diagonal_debiased", "p"):
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)


def test_a_packed_eval_set_has_its_domains_in_the_column_too(tmp_path):
    packed, domains = packed_rows()
    trainer = make(
        tmp_path, mixer=RnB(), domains=domains, train_dataset=packed, eval_dataset=packed
    )
    labels = [row[0] for row in packed["domain_ids"]]
    np.testing.assert_array_equal(trainer.domains.eval_labels, labels)
    shifted = torch.tensor(packed["input_ids"][:])
    with torch.no_grad():
        losses = torch.nn.functional.cross_entropy(
            trainer.model.eval()(shifted).logits[:, :-1].mT, shifted[:, 1:], reduction="none"
        ).mean(1)
    for i, name in enumerate("abcd"):
        mine = losses[torch.tensor(labels) == i].mean()
        assert trainer.evaluate()[f"eval_loss/{name}"] == pytest.approx(float(mine), rel=1e-5)


def test_packed_rows_that_cannot_be_drawn_by_domain_are_refused(tmp_path):
    mixed, domains = packed_rows(by_domain=False)
    options = {"mixer": RnB(), "domains": domains}
    with pytest.raises(InputError, match=r"train_dataset: row 0 has tokens of .* pack each domain"):
        make(tmp_path, train_dataset=mixed, **options)
    with pytest.raises(InputError, match=r"rows, but the domains label 120; .*add_domain_ids"):
        make(tmp_path, train_dataset=mixed.remove_columns("domain_ids"), **options)
    packed, _ = packed_rows()
    outside = packed.remove_columns("domain_ids").add_column("domain_ids", [[9]] * len(packed))
    with pytest.raises(InputError, match="train_labels"):
        make(tmp_path, train_dataset=outside, **options)
    lengths = packed.add_column("seq_lengths", [[5, 7]] * len(packed))
    with pytest.raises(InputError, match="remove_unused_columns: would remove seq_lengths"):
        make(tmp_path, train_dataset=lengths, **options)


PACKERS = {"flat": DataCollatorWithFlattening(), "pack": PackCollator(0, 32)}
PACKERS["mask"] = PackCollator(0, 32, masks=True)


@pytest.mark.parametrize("packer", PACKERS)
def test_packed_batches_give_what_padded_ones_do(tmp_path, packer):
    """Losses of examples, of the step and of the weights after it; the Gram matrix, its halves."""
    options = {"steps": 6, "round_steps": 3, "dropout": 0.0, "accumulate": 2}
    options["arguments"] = {"per_device_train_batch_size": 7}
    options["mixer"] = Watching("train_losses", "gram")
    made = {}
    for name, collator in (("padded", PadCollator(0)), ("packed", PACKERS[packer])):
        one = {**options, "mixer": copy.deepcopy(options["mixer"])}
        trainer = make(tmp_path / name, **one, eval_collator=PadCollator(0))
        trainer.data_collator = collator
        trainer.train()
        made[name] = trainer
    padded, packed = made.values()
    for ours, theirs in zip(packed.mixer.seen, padded.mixer.seen, strict=True):
        for name in ("loss", "tokens", "examples"):
            one, two = (getattr(each.train_losses, name) for each in (ours, theirs))
            np.testing.assert_allclose(one, two, rtol=1e-4, err_msg=name)
        for name in ("gram", "noise_floor", "diagonal_debiased", "counts"):
            one, two = (getattr(each.gram, name) for each in (ours, theirs))
            np.testing.assert_allclose(one, two, rtol=2e-3, atol=1e-4, err_msg=name)
    for one, two in zip(packed.model.parameters(), padded.model.parameters(), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-2, atol=2e-4)
    losses = [[row["loss"] for row in Run.open(t.run_dir).metrics("train")] for t in made.values()]
    np.testing.assert_allclose(*losses, rtol=1e-4)


@pytest.mark.parametrize("rule", ["GroupDRO", "DoReMi"])
def test_losses_of_packed_examples_are_weighed_as_those_of_padded_ones(tmp_path, rule):
    losses = []
    for name, collator in (("padded", PadCollator(0)), ("packed", PACKERS["pack"])):
        trainer = make(
            tmp_path / name,
            mixer=rule,
            steps=6,
            round_steps=3,
            dropout=0.0,
            eval_collator=PadCollator(0),
        )
        trainer.data_collator = collator
        trainer.train()
        run = Run.open(trainer.run_dir)
        losses.append([*run.history["p"].ravel(), run.info["final"]["loss_token"]])
    np.testing.assert_allclose(*losses, rtol=1e-4)


def test_a_loss_of_rows_cannot_be_that_of_packed_examples(tmp_path):
    trainer = make(
        tmp_path,
        mixer=Watching("train_losses"),
        steps=3,
        eval_collator=PadCollator(0),
        loss_of=example_losses,
    )
    trainer.data_collator = DataCollatorWithFlattening()
    with pytest.raises(InputError, match="do not pack"):
        trainer.train()


def test_several_layers_are_tracked_together(tmp_path):
    layers = ["lm_head", "model.layers.0.mlp.down_proj"]
    both = ran(tmp_path / "both", RnB(), layer=layers, steps=3, estimator="exact")
    apart = [ran(tmp_path / name, RnB(), layer=name, steps=3, estimator="exact") for name in layers]
    grams = [Run.open(t.run_dir).history["gram"][0] for t in (both, *apart)]
    np.testing.assert_allclose(grams[0], grams[1] + grams[2], rtol=1e-4)


def test_a_fraction_of_the_steps_is_tracked(tmp_path):
    ran(tmp_path, RnB(), steps=8, round_steps=4, fraction=0.5)
    assert Run.open(tmp_path).history["counts"].sum(axis=1).tolist() == [12, 12]


def test_the_tracked_layer_is_compared_with_all_parameters_on_demand(tmp_path):
    trainer = ran(tmp_path, RnB(), fidelity_rounds=1)
    (first, second) = Run.open(tmp_path).metrics("fidelity")
    assert (first["step"], second["step"]) == (3, 6)
    assert -1 <= first["correlation"] <= 1
    assert 0 <= first["tv"] <= 1
    assert 0 <= first["noise_tv_layer"] <= 1
    assert 0 <= first["noise_tv_all"] <= 1
    assert entries(tmp_path)["fidelity"]["flops_counted"] > 0
    plain = ran(tmp_path / "plain", RnB())
    for one, other in zip(plain.model.parameters(), trainer.model.parameters(), strict=True):
        assert torch.equal(one, other)  # looking changes nothing


def test_all_parameters_compared_with_themselves_agree(tmp_path):
    """A model whose only trainable matrix is the tracked one."""
    trainer = make(
        tmp_path,
        mixer=RnB(),
        steps=3,
        round_steps=3,
        dropout=0.0,
        tied=False,
        fidelity_rounds=1,
        estimator="exact",
    )
    for name, parameter in trainer.model.named_parameters():
        parameter.requires_grad_(name == "lm_head.weight")
    trainer.train()
    (row,) = Run.open(tmp_path).metrics("fidelity")
    assert row["correlation"] == pytest.approx(1, abs=1e-6)
    assert row["tv"] == pytest.approx(0, abs=1e-5)
    assert row["noise_tv_layer"] == pytest.approx(row["noise_tv_all"], abs=1e-5)


@pytest.mark.parametrize(
    ("mixer", "options", "word"),
    [
        (Watching("loses"), {}, "loses unknown"),
        (Watching("gram", acts="loss"), {}, "tracks gradients of losses that it weighs"),
        (Watching("eval_losses"), {"eval_dataset": None}, "needs it for eval_losses"),
    ],
)
def test_what_cannot_work_is_refused_before_training(tmp_path, mixer, options, word):
    with pytest.raises(InputError, match=word):
        make(tmp_path, mixer=mixer, **options)


# ------------------------------------------------------- the losses of models of other kinds

ROWS, LENGTH, WORDS = 24, 8, 32


def model_and_rows(kind):
    """A model of a kind, and rows that it can be trained on."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    ids = rng.integers(3, WORDS, (ROWS, LENGTH))
    masked = np.where(rng.random(ids.shape) < 0.6, -100, ids)
    masked[:, 0] = ids[:, 0]  # a first label, which only an LM that shifts leaves out

    def bert(**more):
        sizes = {"hidden_size": 8, "intermediate_size": 8, "max_position_embeddings": LENGTH}
        heads = {"num_hidden_layers": 1, "num_attention_heads": 1}
        return BertConfig(vocab_size=WORDS, **sizes, **heads, **more)

    model, labels = {
        "causal LM": lambda: (
            GPT2LMHeadModel(
                GPT2Config(
                    vocab_size=WORDS,
                    n_positions=LENGTH,
                    n_embd=8,
                    n_layer=1,
                    n_head=1,
                    bos_token_id=1,
                    eos_token_id=2,
                )
            ),
            ids,
        ),
        "LM that does not shift": lambda: (
            XLMWithLMHeadModel(
                XLMConfig(
                    vocab_size=WORDS,
                    emb_dim=8,
                    n_layers=1,
                    n_heads=1,
                    max_position_embeddings=LENGTH,
                )
            ),
            masked,
        ),
        "masked LM": lambda: (BertForMaskedLM(bert()), masked),
        "token classes": lambda: (BertForTokenClassification(bert(num_labels=3)), ids % 3),
        "classes": lambda: (BertForSequenceClassification(bert(num_labels=3)), ids[:, 0] % 3),
        "a value": lambda: (
            BertForSequenceClassification(bert(num_labels=1)),
            rng.normal(size=ROWS).astype(np.float32),
        ),
        "values": lambda: (
            BertForSequenceClassification(bert(num_labels=2, problem_type="regression")),
            rng.normal(size=(ROWS, 2)).astype(np.float32),
        ),
        "binary labels": lambda: (
            BertForSequenceClassification(bert(num_labels=3)),
            (ids[:, :3] % 2).astype(np.float32),
        ),
        "seq2seq T5": lambda: (
            T5ForConditionalGeneration(
                T5Config(
                    vocab_size=WORDS,
                    d_model=8,
                    d_kv=4,
                    d_ff=8,
                    num_layers=1,
                    num_heads=2,
                    decoder_start_token_id=0,
                )
            ),
            masked,
        ),
        "seq2seq BART": lambda: (
            BartForConditionalGeneration(
                BartConfig(
                    vocab_size=WORDS,
                    max_position_embeddings=LENGTH,
                    encoder_layers=1,
                    encoder_ffn_dim=8,
                    encoder_attention_heads=1,
                    decoder_layers=1,
                    decoder_ffn_dim=8,
                    decoder_attention_heads=1,
                    d_model=8,
                )
            ),
            masked,
        ),
        "images": lambda: (
            ViTForImageClassification(
                ViTConfig(
                    hidden_size=8,
                    num_hidden_layers=1,
                    num_attention_heads=1,
                    intermediate_size=8,
                    image_size=4,
                    patch_size=2,
                    num_labels=3,
                )
            ),
            ids[:, 0] % 3,
        ),
    }[kind]()
    for module in model.modules():
        for name, value in vars(module).items():
            if isinstance(value, float) and (name == "p" or "dropout" in name):
                setattr(module, name, 0.0)
    head = find_layer(model)
    head.weight.data = torch.randn_like(head.weight)  # losses that differ
    inputs = (
        {"pixel_values": rng.normal(size=(ROWS, 3, 4, 4)).astype(np.float32)}
        if kind == "images"
        else {"input_ids": ids}
    )
    columns = {name: list(value) for name, value in {**inputs, "labels": labels}.items()}
    return model, [
        dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)
    ]


KINDS = (
    "causal LM",
    "LM that does not shift",
    "masked LM",
    "token classes",
    "classes",
    "a value",
    "values",
    "binary labels",
    "seq2seq T5",
    "seq2seq BART",
    "images",
)


def trainer_of(folder, kind, mixer, *, accumulate=1, batch=8, arguments=None, **options):
    model, rows = model_and_rows(kind)
    args = TrainingArguments(
        **{
            "output_dir": str(folder),
            "max_steps": 2,
            "optim": "sgd",
            "learning_rate": 0.1,
            "max_grad_norm": 0.0,
            "per_device_train_batch_size": batch,
            "per_device_eval_batch_size": ROWS,
            "gradient_accumulation_steps": accumulate,
            "save_strategy": "no",
            "logging_strategy": "no",
            "report_to": "none",
            "disable_tqdm": True,
            "use_cpu": True,
            **(arguments or {}),
        }
    )
    labels = np.arange(ROWS) % M
    return MixtureTrainer(
        model,
        args,
        **{
            "train_dataset": rows,
            "eval_dataset": rows,
            "data_collator": default_data_collator,
            "domains": Domains.from_labels(list("abcd"), labels, labels),
            "mixer": mixer,
            "round_steps": 1,
            "estimator": "exact",
            **options,
        },
    )


def own_loss(trainer):
    """The library's loss of the whole eval set, as one batch."""
    batch = trainer.data_collator(trainer.eval_dataset)
    with torch.no_grad():
        return float(Trainer.compute_loss(trainer, trainer.model.eval(), batch))


def weights(trainer):
    return torch.cat([p.detach().flatten() for p in trainer.model.parameters()])


@pytest.mark.parametrize("smoothing", [0.0, 0.5])
@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_reported_is_the_models_own(tmp_path, kind, smoothing):
    numbers = kind in ("a value", "values", "binary labels")
    trainer = trainer_of(
        tmp_path, kind, Watching(), arguments={"label_smoothing_factor": smoothing}
    )
    if smoothing and (numbers or kind == "seq2seq T5"):  # nor can the library itself
        with pytest.raises(InputError, match="has no loss on its first rows"):
            trainer.evaluate()
        return
    assert trainer.evaluate()["eval_loss"] == pytest.approx(own_loss(trainer), rel=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_rules_that_read_losses_train_on_the_models_own(tmp_path, kind):
    options = {"accumulate": 3, "batch": 2, "eval_rounds": 0}
    plain = trainer_of(tmp_path / "plain", kind, Watching(p=np.ones(M)), **options)
    reads = trainer_of(tmp_path / "reads", kind, Watching("train_losses", p=np.ones(M)), **options)
    start = weights(plain)
    plain.train()
    reads.train()
    assert not torch.equal(weights(plain), start)
    torch.testing.assert_close(weights(reads), weights(plain), rtol=1e-4, atol=1e-6)
    shown = [Run.open(t.run_dir).info["progress"]["loss"] for t in (plain, reads)]
    assert shown[0] == pytest.approx(shown[1], rel=1e-4)


def mean_of_micro_batch(outputs, labels, num_items_in_batch=None):
    return torch.nn.functional.cross_entropy(outputs.logits.flatten(0, 1), labels.flatten())


def sum_over_items(outputs, labels, num_items_in_batch=None):
    loss = torch.nn.functional.cross_entropy
    return (
        loss(outputs.logits.flatten(0, 1), labels.flatten(), reduction="sum") / num_items_in_batch
    )


@pytest.mark.parametrize(
    ("kind", "function"),
    [
        *((kind, None) for kind in KINDS),
        ("masked LM", mean_of_micro_batch),
        ("masked LM", sum_over_items),
    ],
)
def test_accumulation_gives_the_gram_matrix_of_one_large_batch(tmp_path, kind, function):
    """Whether the loss is divided by the step's items or by the micro-batch's."""
    grams = []
    for accumulate in (1, 4):
        trainer = trainer_of(
            tmp_path / str(accumulate),
            kind,
            RnB(),
            accumulate=accumulate,
            batch=8 // accumulate,
            eval_rounds=0,
            arguments={"max_steps": 1},
            **({} if function is None else {"compute_loss_func": function}),
        )
        trainer.train()
        run = Run.open(trainer.run_dir)
        grams.append(run.history["gram"][0])
        assert np.isfinite(run.info["progress"]["loss"])
    np.testing.assert_allclose(grams[1], grams[0], rtol=1e-3, atol=1e-9)


def spans(rows):
    starts = [row["labels"][:2] % LENGTH for row in rows]
    for row, (start, end) in zip(rows, starts, strict=True):
        row |= {"start_positions": int(start), "end_positions": int(end)}
        del row["labels"]
    sizes = {"hidden_size": 8, "intermediate_size": 8, "max_position_embeddings": LENGTH}
    heads = {"num_hidden_layers": 1, "num_attention_heads": 1}
    return BertForQuestionAnswering(BertConfig(vocab_size=WORDS, **sizes, **heads)), rows


def sounds(rows, reduction):
    rng = np.random.default_rng(1)
    for number, row in enumerate(rows):
        said = row["labels"][:3] % 9 + 1  # labels of several lengths
        row["labels"] = np.where(np.arange(3) <= number % 3, said, -100)
        row["input_values"] = rng.normal(size=800).astype(np.float32)
        del row["input_ids"]
    config = Wav2Vec2Config(
        vocab_size=10,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
        conv_dim=(8, 8),
        conv_stride=(5, 4),
        conv_kernel=(10, 8),
        num_feat_extract_layers=2,
        num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=2,
        apply_spec_augment=False,
        layerdrop=0.0,
        ctc_loss_reduction=reduction,
    )
    return Wav2Vec2ForCTC(config), rows


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("kind", ["spans", "sounds, mean", "sounds, sum"])
def test_the_gram_matrix_of_other_losses_is_that_of_their_rows(tmp_path, kind, accumulate):
    """A mean or a sum over rows, whatever a row's loss is: as of each row alone."""
    trainer = trainer_of(
        tmp_path,
        "token classes",
        RnB(),
        accumulate=accumulate,
        batch=8 // accumulate,
        eval_rounds=0,
        arguments={"max_steps": 1},
    )
    rows = [dict(row) for row in trainer.train_dataset]
    torch.manual_seed(0)
    model, rows = spans(rows) if kind == "spans" else sounds(rows, kind.split()[1])
    for module in model.modules():
        for name, value in vars(module).items():
            if isinstance(value, float) and (name == "p" or "dropout" in name):
                setattr(module, name, 0.0)
    trainer = MixtureTrainer(
        model,
        trainer.args,
        train_dataset=rows,
        data_collator=default_data_collator,
        domains=trainer.domains,
        mixer=RnB(),
        round_steps=1,
        estimator="exact",
        eval_rounds=0,
    )
    head, total, n = find_layer(model).weight, {}, np.zeros(M)
    for at in trainer.sampler.peek(8)[0]:
        loss = model(**default_data_collator([rows[at]])).loss
        (g,) = torch.autograd.grad(loss, head)
        domain = int(trainer.sampler.labels[at])
        total[domain] = total.get(domain, 0) + g.double().flatten()
        n[domain] += 1
    trainer.train()
    gram = Run.open(trainer.run_dir).history["gram"][0]
    for i, one in total.items():
        for j, other in total.items():
            assert gram[i, j] == pytest.approx(float(one @ other) / n[i] / n[j], rel=1e-3)


@pytest.mark.parametrize("signal", ["eval_losses", "train_losses"])
def test_a_loss_that_cannot_be_divided_among_examples_is_refused_before_training(tmp_path, signal):
    def make_trainer(**options):
        trainer = trainer_of(tmp_path, "masked LM", Watching(signal), eval_rounds=0, **options)
        forward = trainer.model.forward

        def with_another_loss(**inputs):
            output = forward(**inputs)
            if output.loss is not None:
                output.loss = output.loss + output.logits.pow(2).mean()
            return output

        trainer.model.forward = with_another_loss
        return trainer

    with pytest.raises(InputError, match="loss_of: the loss of BertForMaskedLM cannot be divided"):
        make_trainer().train()
    assert not (tmp_path / "run.json").exists()
    make_trainer(loss_of=Objective("token")).train()


def test_labels_that_a_model_cannot_take_are_one_line(tmp_path):
    trainer = trainer_of(tmp_path, "classes", RnB())
    for row in trainer.train_dataset:
        row["labels"] = np.array([1, 2, 1, 0])
    with pytest.raises(InputError, match="BertForSequenceClassification has no loss on its first"):
        trainer.train()
    assert not (tmp_path / "run.json").exists()


@pytest.mark.parametrize("rule", ["GroupDRO", "ODM", "ADO", "DoGE"])
def test_a_loss_function_is_refused_by_rules_that_need_losses_of_examples(tmp_path, rule):
    with pytest.raises(InputError, match="compute_loss_func: "):
        trainer_of(
            tmp_path, "masked LM", rule, compute_loss_func=mean_of_micro_batch, eval_rounds=0
        )


@pytest.mark.parametrize("rule", ["ODM", "GroupDRO", "RnB"])
def test_smoothed_labels_are_what_is_trained_and_reported(tmp_path, rule):
    """A step of a rule that reads or weighs losses is the library's own."""
    trainers = []
    for smoothing in (0.0, 0.5):
        trainer = trainer_of(
            tmp_path / str(smoothing),
            "causal LM",
            rule,
            arguments={"label_smoothing_factor": smoothing, "max_steps": 1},
        )
        trainer.train()
        trainers.append(trainer)
    plain, smooth = trainers
    assert not torch.equal(weights(plain), weights(smooth))
    final = Run.open(smooth.run_dir).info["final"]
    assert final["loss_token"] == pytest.approx(own_loss(smooth), rel=1e-5)
