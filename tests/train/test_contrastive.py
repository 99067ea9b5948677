"""Images with captions: the loss of each pair, its evaluation, and training on them."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from datasets import Dataset, DatasetDict
from PIL import Image, ImageDraw
from torch import nn
from transformers import (
    AutoImageProcessor,
    AutoTokenizer,
    CLIPConfig,
    CLIPModel,
    CLIPProcessor,
    SiglipConfig,
    SiglipModel,
    TrainingArguments,
)

import rbkit as rb
from rbkit.balance.mixers.rnb import RnB
from rbkit.balance.signals import Observation
from rbkit.errors import InputError
from rbkit.regroup.domains import Domains
from rbkit.train import MixtureTrainer, Run, contrastive_losses, train_tokenizer
from rbkit.train.fidelity import measure_fidelity
from rbkit.train.losses import FreshBatches, example_losses, shuffled_batches
from rbkit.train.models import build_model
from rbkit.train.training import train

COLOURS, SHAPES = ["red", "green", "blue", "black"], ["circle", "square"]
SMALL = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
SMALL |= {"num_attention_heads": 2}


def picture(colour, shape, rng):
    image = Image.new("RGB", (16, 16), "white")
    x, y, r = *rng.integers(5, 11, 2).tolist(), int(rng.integers(2, 5))
    draw = ImageDraw.Draw(image)
    drawn = draw.ellipse if shape == "circle" else draw.rectangle
    drawn([x - r, y - r, x + r, y + r], fill=colour)
    return image


@pytest.fixture(scope="module")
def corpus():
    rng = np.random.default_rng(0)
    rows = {"image": [], "text": [], "source": []}
    for i in range(80):
        colour, shape = COLOURS[i % 4], SHAPES[i // 4 % 2]
        rows["image"].append(picture(colour, shape, rng))
        rows["text"].append(f"a {colour} {shape}")
        rows["source"].append(shape)
    return rb.load_corpus(rows, eval_size=21, progress=False)


@pytest.fixture(scope="module")
def domains(corpus):
    return rb.regroup(corpus, cluster="sources", progress=False)


@pytest.fixture(scope="module")
def tokenizer(corpus):
    return train_tokenizer(corpus["train"]["text"][:], 300, progress=False)


def small_clip(tokenizer, kind="clip"):
    torch.manual_seed(0)
    text = SMALL | {"vocab_size": len(tokenizer), "max_position_embeddings": 12}
    vision = SMALL | {"image_size": 16, "patch_size": 8}
    if kind == "siglip":
        return SiglipModel(SiglipConfig(text_config=text, vision_config=vision))
    text |= {"eos_token_id": tokenizer.eos_token_id, "bos_token_id": 0, "pad_token_id": 0}
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=12))


def pairs(n, tokenizer, seed=0):
    """A batch of random pixels and tokens."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(1, len(tokenizer), (n, 6), generator=generator)
    ids[:, -1] = tokenizer.eos_token_id
    return {"input_ids": ids, "pixel_values": torch.randn(n, 3, 16, 16, generator=generator)}


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_the_mean_of_the_losses_is_the_models_own_loss(tokenizer, kind):
    model, batch = small_clip(tokenizer, kind).eval(), pairs(5, tokenizer)
    losses, counts = contrastive_losses(model, {**batch, "return_loss": True})
    own = model(**batch, return_loss=True).loss
    torch.testing.assert_close(losses.mean(), own)
    assert counts.tolist() == [1] * 5


def test_each_loss_is_that_of_the_pair_among_the_others(tokenizer):
    model, batch = small_clip(tokenizer).eval(), pairs(4, tokenizer)
    losses = contrastive_losses(model, batch)[0].tolist()
    s = model(**batch).logits_per_image.double().detach().numpy()
    for i in range(4):
        by_caption = -np.log(np.exp(s[i, i]) / np.exp(s[i]).sum())
        by_image = -np.log(np.exp(s[i, i]) / np.exp(s[:, i]).sum())
        assert losses[i] == pytest.approx((by_caption + by_image) / 2, rel=1e-5)


def test_a_model_that_compares_no_images_is_refused():
    with pytest.raises(InputError, match="LlamaForCausalLM gives no similarity"):
        contrastive_losses(
            build_model("tiny", vocab_size=300), {"input_ids": torch.ones(2, 3).long()}
        )


# ------------------------------------------------------------------------------ evaluation


class Collator:
    def __call__(self, rows):
        batch = {
            name: torch.stack([torch.as_tensor(row[name]) for row in rows])
            for name in ("input_ids", "pixel_values")
        }
        return {**batch, "return_loss": True}


def trainer_of(tmp_path, tokenizer, order, batch=8, loss_of=contrastive_losses, seed=0, **options):
    """A trainer whose eval set are 21 pairs in a given order, in two domains."""
    data = pairs(21, tokenizer, seed=7)
    rows = [
        {
            name: value[i].tolist() if name == "input_ids" else value[i]
            for name, value in data.items()
        }
        for i in order
    ]
    labels = np.asarray(order) % 2
    domains = Domains.from_labels(["a", "b"], labels, labels)
    args = TrainingArguments(
        output_dir=str(tmp_path / "out"),
        per_device_train_batch_size=batch,
        per_device_eval_batch_size=batch,
        max_steps=2,
        seed=seed,
        use_cpu=True,
        report_to="none",
        remove_unused_columns=False,
        disable_tqdm=True,
    )
    return MixtureTrainer(
        small_clip(tokenizer),
        args,
        train_dataset=rows,
        eval_dataset=rows,
        data_collator=Collator(),
        domains=domains,
        loss_of=loss_of,
        round_steps=1,
        run_dir=tmp_path / "run",
        **options,
    )


def test_the_eval_loss_does_not_depend_on_the_order_of_the_rows(tmp_path, tokenizer):
    by_domain = sorted(range(21), key=lambda i: i % 2)
    losses = [
        trainer_of(tmp_path, tokenizer, order).evaluate()
        for order in (range(21), by_domain, np.random.default_rng(1).permutation(21).tolist())
    ]
    for name in ("eval_loss", "eval_loss/a", "eval_loss/b"):
        assert losses[1][name] == pytest.approx(losses[0][name], rel=1e-5)
        assert losses[2][name] == pytest.approx(losses[0][name], rel=1e-5)
    # Another seed draws other batches.
    other = trainer_of(tmp_path, tokenizer, range(21), seed=5).evaluate()
    assert other["eval_loss"] != pytest.approx(losses[0]["eval_loss"], rel=1e-5)


def test_each_example_is_scored_once_among_as_many_others(tmp_path, tokenizer):
    sizes = []

    def noted(model, batch):
        sizes.append(len(batch["input_ids"]))
        return contrastive_losses(model, batch)

    trainer = trainer_of(tmp_path, tokenizer, range(21), loss_of=noted)
    trainer._study_loss()
    sizes.clear()
    measured = trainer._measure_losses()
    assert sizes == [8, 8, 8]  # 21 examples: the last batch is filled with 3 of the first
    assert np.isfinite(measured.per_example).all()
    assert measured.token == pytest.approx(measured.per_example.mean())
    # By brute force: of each batch of the plan, the losses of the examples that count.
    expected = np.full(21, np.nan)
    for rows in trainer._eval_plan:
        batch = trainer.eval_collator([trainer.eval_dataset[i if i >= 0 else ~i] for i in rows])
        with torch.no_grad():
            losses = contrastive_losses(trainer.model.eval(), batch)[0].numpy()
        for i, loss in zip(rows, losses, strict=True):
            if i >= 0:
                assert np.isnan(expected[i])
                expected[i] = loss
    np.testing.assert_allclose(measured.per_example, expected, rtol=1e-5)


def test_fewer_examples_than_a_batch_takes_are_one_batch():
    assert [b.tolist() for b in shuffled_batches(["b", "a"], 8)] == [[1, 0]]
    assert [len(b) for b in shuffled_batches([str(i) for i in range(16)], 8)] == [8, 8]


def test_examples_that_meet_in_a_loss_are_noticed_whoever_wrote_it(tmp_path, tokenizer):
    def of_my_own(model, batch):
        similarity = model(**batch).logits_per_text
        losses = -similarity.log_softmax(1).diagonal()
        return losses, torch.ones(len(losses))

    def apart(model, batch):
        losses = -model(**batch).logits_per_text.diagonal()
        return losses, torch.full((len(losses),), 2)

    for loss_of, meet, unit in ((of_my_own, True, "example"), (apart, False, "token")):
        trainer = trainer_of(tmp_path, tokenizer, range(21), loss_of=loss_of)
        trainer._study_loss()
        assert trainer._meet is meet
        assert trainer.loss_unit == f"nats per {unit}"


def test_the_tracked_gradient_is_split_by_rows(tmp_path, tokenizer):
    """Both projections, and each domain's part is what flows back to the rows of its examples."""
    trainer = trainer_of(tmp_path, tokenizer, range(21), estimator="exact", eval_rounds=0)
    rows, _ = trainer.sampler.peek(8)
    labels = np.asarray(trainer.domains.train_labels)[rows]
    batch = trainer.data_collator([trainer.train_dataset[i] for i in rows])
    model, grams, kept = trainer.model.train(), 0, []
    hooks = [
        layer.register_forward_hook(lambda _, x, y: kept.append((x[0].detach(), y)))
        for layer in (model.visual_projection, model.text_projection)
    ]
    loss = model(**batch).loss * 8
    for x, y in kept:
        (delta,) = torch.autograd.grad(loss, y, retain_graph=True)
        parts = torch.stack([delta[labels == i].T @ x[labels == i] for i in (0, 1)]).flatten(1)
        n = np.bincount(labels)
        grams = grams + (parts @ parts.T).numpy() / np.outer(n, n)
    for hook in hooks:
        hook.remove()
    trainer.train()
    np.testing.assert_allclose(Run.open(tmp_path / "run").history["gram"][0], grams, rtol=1e-4)


# ------------------------------------------------------------------------------- fidelity


def fresh(rows, labels, collate):
    members = [np.flatnonzero(labels == i) for i in (0, 1)]
    return FreshBatches(rows, rows, members, np.arange(len(rows)), collate, 8, 0)


def seen():
    half = np.full(2, 0.5)
    return Observation(0, half, half, np.array([40, 40]), step=3)


def test_mixed_batches_change_nothing_where_examples_do_not_meet():
    torch.manual_seed(0)
    model = build_model("tiny", vocab_size=50)
    rows = [{"ids": torch.randint(0, 50, (6,))} for _ in range(80)]
    labels = np.arange(80) % 2

    def collate(some):
        ids = torch.stack([row["ids"] for row in some])
        return {"input_ids": ids, "labels": ids}

    batches = fresh(rows, labels, collate)
    apart, mixed = (
        measure_fidelity(
            model,
            [model.lm_head],
            batches,
            seen(),
            loss_of=example_losses,
            mixed=mixed,
            rule=RnB(),
        )
        for mixed in (False, True)
    )
    assert vars(mixed) == pytest.approx(vars(apart), abs=1e-4)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_fidelity_compares_the_split_by_rows_with_batches_of_one_domain(tmp_path, tokenizer):
    trainer = trainer_of(tmp_path, tokenizer, range(21), fidelity_rounds=1)
    trainer.train()
    rows = Run.open(tmp_path / "run").metrics("fidelity")
    assert len(rows) == 2
    trainer._meet = False  # as if examples did not meet: batches of one domain on both sides
    unmixed = trainer._check_fidelity(2)
    assert unmixed.tv != pytest.approx(rows[-1]["tv"], abs=1e-9)


# ------------------------------------------------------------------------------- rb.train


@pytest.fixture(scope="module")
def run(tmp_path_factory, corpus, domains):
    folder = tmp_path_factory.mktemp("clip") / "run"
    return train(
        corpus,
        domains,
        model="clip-tiny",
        run_dir=folder,
        steps=24,
        round_steps=8,
        batch_size=8,
        context=16,
        checkpoint_rounds=1,
        device="cpu",
        progress=False,
    )


def test_a_small_clip_learns_from_scratch(run):
    losses = [row["loss_token"] for row in run.metrics("eval")]
    assert losses[0] == pytest.approx(np.log(8), abs=0.4)  # of random embeddings
    assert losses[-1] < losses[0] - 0.5
    assert run.info["loss_unit"] == "nats per example"
    assert run.info["parameters"]["layer"] == "visual_projection, text_projection"
    assert "tokens" not in run.metrics("train")[-1]
    assert run.metrics("train")[-1]["examples"] == 192
    assert "by examples" in run.info["ledger"]["note"]
    step = next(e for e in run.info["ledger"]["entries"] if e["name"] == "step")
    assert step["flops_counted"] > 0


def test_a_run_on_images_continues_exactly(run, corpus, domains, tmp_path):
    folder = tmp_path / "again"
    options = {"model": "clip-tiny", "round_steps": 4, "batch_size": 8, "context": 16}
    options |= {"device": "cpu", "progress": False, "checkpoint_rounds": 1, "run_dir": folder}
    options |= {"training_args": {"warmup_steps": 1, "lr_scheduler_type": "constant_with_warmup"}}
    train(corpus, domains, **options, steps=4)
    train(corpus, domains, **options, steps=8, resume=True)
    options["run_dir"] = tmp_path / "at_once"
    at_once = train(corpus, domains, **options, steps=8)
    assert Run.open(folder).metrics("eval")[-1] == at_once.metrics("eval")[-1]


def test_the_trained_model_is_an_ordinary_folder_that_can_be_trained_on(
    run, corpus, domains, tmp_path
):
    folder = run.path / "model"
    model, tokenizer = CLIPModel.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    processor = AutoImageProcessor.from_pretrained(folder)
    inputs = processor(images=[corpus["eval"][0]["image"]], return_tensors="pt")
    assert inputs["pixel_values"].shape == (1, 3, 64, 64)
    few = {"steps": 2, "round_steps": 1, "batch_size": 8, "device": "cpu", "progress": False}
    by_path = train(corpus, domains, model=folder, run_dir=tmp_path / "path", **few)
    assert by_path.info["model"]["class"] == "CLIPModel"
    last = run.metrics("eval")[-1]["loss_token"]
    assert by_path.metrics("eval")[0]["loss_token"] == pytest.approx(last, rel=1e-4)
    given = train(
        corpus, domains, model=model, tokenizer=tokenizer, run_dir=tmp_path / "object", **few
    )
    assert given.metrics("eval")[0]["loss_token"] == pytest.approx(last, rel=1e-4)
    both = CLIPProcessor(image_processor=processor, tokenizer=tokenizer)
    given = train(corpus, domains, model=model, tokenizer=both, run_dir=tmp_path / "both", **few)
    assert given.metrics("eval")[0]["loss_token"] == pytest.approx(last, rel=1e-4)
    assert (
        json.loads((tmp_path / "both" / "model" / "config.json").read_text())["model_type"]
        == "clip"
    )


def test_rb_train_refuses_what_a_clip_cannot_do(corpus, domains, tmp_path, tokenizer):
    options = {"run_dir": tmp_path / "run", "device": "cpu", "progress": False, "steps": 1}
    texts = DatasetDict({name: rows.remove_columns("image") for name, rows in corpus.items()})
    by_source = rb.regroup(texts, cluster="sources", progress=False)
    with pytest.raises(InputError, match="has no column 'image' of images"):
        train(texts, by_source, model="clip-tiny", **options)
    paired = corpus.map(lambda row: {"prompt": "what?", "completion": row["text"]})
    by_source = rb.regroup(paired, cluster="sources", progress=False)
    with pytest.raises(InputError, match="captions have no prompt"):
        train(paired, by_source, model="clip-tiny", completion_only_loss=True, **options)
    with pytest.raises(InputError, match="packing: images and captions are not packed"):
        train(corpus, domains, model="clip-tiny", packing=True, **options)
    with pytest.raises(InputError, match="a CLIPModel that is given as an object brings none"):
        train(corpus, domains, model=small_clip(tokenizer), **options)
    with pytest.raises(InputError, match="trainable_layers"):
        train(corpus, domains, model="clip-tiny", trainable_layers=1, **options)
    with pytest.raises(InputError, match="is not a causal LM, nor a model of images"):
        train(
            corpus,
            domains,
            model=small_clip(tokenizer).vision_model,
            tokenizer=tokenizer,
            **options,
        )
    assert not (tmp_path / "run" / "run.json").exists()


def test_a_model_of_images_that_are_classified_has_losses_by_example(tmp_path):
    """Without tokens, examples are counted; and the loss of a classifier is known by itself."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(12, 2)

        def forward(self, pixel_values, labels=None):
            logits = self.head(pixel_values.flatten(1))
            loss = None if labels is None else nn.functional.cross_entropy(logits, labels)
            return {"loss": loss, "logits": logits} if labels is not None else Out(logits)

    class Out(dict):
        def __init__(self, logits):
            super().__init__(logits=logits)
            self.logits = logits

    torch.manual_seed(0)
    rows = Dataset.from_dict(
        {"pixel_values": torch.randn(20, 3, 2, 2).tolist(), "labels": [i % 2 for i in range(20)]}
    )
    labels = np.arange(20) % 2
    args = TrainingArguments(
        output_dir=str(tmp_path),
        max_steps=2,
        per_device_train_batch_size=4,
        use_cpu=True,
        report_to="none",
        disable_tqdm=True,
    )
    trainer = MixtureTrainer(
        Net(),
        args,
        train_dataset=rows,
        eval_dataset=rows,
        domains=Domains.from_labels(["a", "b"], labels, labels),
        round_steps=1,
    )
    trainer.train()
    run = Run.open(tmp_path)
    assert run.info["loss_unit"] == "nats per example"
    assert "tokens" not in run.metrics("train")[-1]
    assert run.info["ledger"]["note"].count("examples") == 1
