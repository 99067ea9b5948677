"""Models by name and as objects: what is trained of them, in which precision, and what is not."""

from __future__ import annotations

import copy
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from datasets import Dataset, DatasetDict
from transformers import (
    AutoModelForCausalLM,
    BertConfig,
    BertForMaskedLM,
    BertModel,
    BloomConfig,
    BloomForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoConfig,
    GPTNeoForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    TrainerCallback,
)

import rbkit as rb
from rbkit.balance.mixers.fixed import Stratified
from rbkit.errors import InputError, RbkitWarning
from rbkit.regroup.domains import Domains
from rbkit.train.losses import Objective, by_example
from rbkit.train.mixture import EXAMPLE
from rbkit.train.models import (
    PackCollator,
    build_model,
    freeze_all_but_last,
    separates,
    tokenize_completions,
    train_tokenizer,
)
from rbkit.train.propose.runs import train_once


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_a_folder_of_another_precision_is_trained_in_float32(dtype, tmp_path):
    build_model("tiny", vocab_size=300).to(dtype).save_pretrained(tmp_path)
    model = build_model(str(tmp_path))
    assert {p.dtype for p in model.parameters()} == {torch.float32}


@pytest.mark.slow
@pytest.mark.assets
def test_a_pretrained_model_gets_better_by_the_defaults(real_asset, tmp_path):
    real_asset("smollm2")
    texts = [f"The river number {i} of Zubrowka is {7 * i} miles long." for i in range(60)]
    rows = [{"text": text, "source": "ab"[i % 2]} for i, text in enumerate(texts)]
    corpus = rb.load_corpus(rows, eval_size=12)
    domains = rb.regroup(corpus, cluster="sources", progress=False)
    run = rb.train(
        corpus,
        domains,
        run_dir=tmp_path / "run",
        model="smollm2",
        steps=6,
        round_steps=2,
        batch_size=4,
        context=16,
        save_model=False,
        progress=False,
    )
    losses = [row["loss_token"] for row in run.metrics("eval")]
    assert run.info["arguments"]["learning_rate"] == 5e-5
    assert len(losses) == 4
    assert losses[-1] < losses[0] < 8


TEXTS = [f"the {a} of the {b}" for a in ("ant", "bee", "sum") for b in ("root", "bee")] * 10


def given(tmp_path, model, corpus=None, **options):
    """Train a model for a few steps."""
    sizes = {"train": 60, "eval": 20}
    corpus = corpus or DatasetDict(
        {split: Dataset.from_dict({"text": TEXTS[:n]}) for split, n in sizes.items()}
    )
    domains = Domains.from_labels(["a", "b"], np.arange(60) % 2, np.arange(20) % 2)
    usual = {"tokenizer": words(), "steps": 4, "round_steps": 2, "context": 8, "batch_size": 4}
    usual |= {"learning_rate": 3e-3, "checkpoint_rounds": 1, "progress": False}
    return rb.train(corpus, domains, run_dir=tmp_path, model=model, **{**usual, **options})


def words():
    return train_tokenizer(TEXTS, 280, progress=False)


def llama(**changes):
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 3}
    shape |= {"num_attention_heads": 2, "vocab_size": 280, "max_position_embeddings": 16}
    return LlamaForCausalLM(LlamaConfig(**{**shape, **changes}))


def weights_of(model):
    return {name: weight.clone() for name, weight in model.state_dict().items()}


def changed(before, after):
    return {name for name in before if not torch.equal(before[name], after[name])}


def test_a_model_given_as_an_object_is_trained_as_the_same_one_by_name(tmp_path):
    model = build_model("tiny", vocab_size=len(words()), context=8, seed=0)
    before = weights_of(model)
    by_name = given(tmp_path / "name", "tiny", tokenizer=None, vocab_size=280)
    runs = [given(tmp_path / name, model) for name in ("a", "b")]
    for run in runs:
        assert (run.path / "metrics.jsonl").read_bytes() == (
            by_name.path / "metrics.jsonl"
        ).read_bytes()
    assert not changed(before, weights_of(model))  # what was trained is a copy
    assert model.config.use_cache
    trained = AutoModelForCausalLM.from_pretrained(runs[0].path / "model")
    assert changed(before, weights_of(trained)) == set(before)
    assert runs[0].info["model"]["class"] == "LlamaForCausalLM"
    assert runs[0].info["arguments"]["model"] == "LlamaForCausalLM"
    again = given(tmp_path / "c", AutoModelForCausalLM.from_pretrained(runs[0].path / "model"))
    where = str(runs[0].path / "model")
    assert again.info["model"]["name"] == where
    assert again.info["arguments"]["model"] == f"LlamaForCausalLM({where})"
    assert again.info["parameters"]["model"] == f"LlamaForCausalLM({where})"


def test_gradients_of_an_earlier_training_do_not_count(tmp_path):
    model = llama()
    fresh = given(tmp_path / "fresh", model)
    model(input_ids=torch.ones(1, 3, dtype=torch.int64)).logits.sum().backward()
    assert given(tmp_path / "used", model).metrics() == fresh.metrics()
    assert model.lm_head.weight.grad is not None


def test_a_run_of_an_object_continues_with_the_same_kind_of_model_only(tmp_path):
    given(tmp_path, llama())
    longer = {"resume": True, "steps": 6}
    with pytest.raises(InputError, match=r"model: its parameters was \d+ in the run"):
        given(tmp_path, llama(num_hidden_layers=2), **longer)
    with pytest.raises(InputError, match="model: its class was 'LlamaForCausalLM' in the run"):
        given(tmp_path, GPT2LMHeadModel(GPT2Config(n_embd=16, n_head=2, vocab_size=280)), **longer)
    half = llama()
    half.model.embed_tokens.requires_grad_(False)
    with pytest.raises(InputError, match="model: its trainable was"):
        given(tmp_path, half, **longer)
    with pytest.raises(InputError, match=r"model: was 'LlamaForCausalLM' in the finished run"):
        given(tmp_path, "tiny", tokenizer=None, vocab_size=280, resume=True)
    run = given(tmp_path, llama(), **longer)
    assert (run.status, run.info["progress"]["step"]) == ("ok", 6)


class StopAt(TrainerCallback):
    """Asks the run in `folder` to stop after a step."""

    def __init__(self, folder, step):
        self.folder, self.step = folder, step

    def on_step_end(self, args, state, control, **_):
        if state.global_step == self.step:
            (self.folder / "STOP").touch()


def test_an_interrupted_run_of_an_object_continues_exactly(tmp_path):
    whole = given(tmp_path / "whole", llama(), trainable_layers=1)
    stop = StopAt(tmp_path / "parts", 2)
    parts = given(tmp_path / "parts", llama(), trainable_layers=1, callbacks=[stop])
    assert parts.status == "interrupted"
    other_weights = llama()
    other_weights.lm_head.reset_parameters()
    parts = given(tmp_path / "parts", other_weights, trainable_layers=1, resume=True)
    assert (parts.status, parts.metrics()) == ("ok", whole.metrics())


def test_small_runs_of_an_object_are_read_again_where_a_method_finds_them(tmp_path):
    corpus = DatasetDict({split: Dataset.from_dict({"text": TEXTS}) for split in ("train", "eval")})
    domains = Domains.from_labels(["a", "b"], np.arange(60) % 2, np.arange(60) % 2)

    def once(**options):
        usual = {"tokenizer": words(), "steps": 2, "round_steps": 1, "context": 8}
        return train_once(corpus, domains, tmp_path / "run", Stratified(), {**usual, **options})

    first = once(model=llama(), callbacks=[StopAt(tmp_path, 9)])
    again = once(model=llama(), callbacks=[StopAt(tmp_path, 9)])
    assert again.info["started"] == first.info["started"]
    with pytest.raises(InputError, match="holds a run with other options"):
        once(model=llama())


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        (llama, {"tokenizer": None}, "tokenizer: a LlamaForCausalLM that is given as an object br"),
        (llama, {"tokenizer": "gpt2"}, "tokenizer: str is not a tokenizer"),
        (llama, {"vocab_size": 280}, "vocab_size: the tokenizer that is given has its own"),
        (lambda: llama(vocab_size=270), {}, r"tokenizer: has a token 2\d\d, but .* of 270"),
        (lambda: torch.nn.Linear(2, 2), {}, "model: Linear is not a model of transformers"),
        (lambda: BertForMaskedLM(BertConfig(**TINY_BERT)), {}, "model: BertForMaskedLM is not a c"),
        (lambda: BertModel(BertConfig(**TINY_BERT)), {}, "model: BertModel is not a causal LM"),
        (lambda: llama().half(), {}, "model: its weights are float16"),
        (lambda: llama().requires_grad_(False), {}, "model: none of its weights can be trained"),
        (llama, {"context": 20}, "context: 20 tokens, but LlamaForCausalLM takes 16"),
    ],
)
def test_an_object_that_cannot_be_trained_is_named_and_nothing_is_written(
    model, options, message, tmp_path
):
    with pytest.raises(InputError, match=message):
        given(tmp_path / "run", model(), **options)
    assert not (tmp_path / "run" / "run.json").exists()


TINY_BERT = {"hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 1}
TINY_BERT |= {"intermediate_size": 16, "vocab_size": 280}


def test_weights_in_bfloat16_are_trained_with_a_warning(tmp_path):
    with pytest.warns(RbkitWarning, match="weights are bfloat16, in which steps below"):
        run = given(tmp_path, llama().bfloat16())
    assert run.status == "ok"


def test_a_preset_takes_a_tokenizer(tmp_path):
    run = given(tmp_path, "tiny")
    assert run.info["model"]["vocabulary"] == len(words())
    assert run.info["arguments"]["tokenizer"] == type(words()).__name__


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.*:FutureWarning")  # of peft's
def test_of_a_model_with_adapters_the_adapters_are_trained(tmp_path):
    peft = pytest.importorskip("peft")
    options = {"target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM"}
    model = peft.get_peft_model(llama(), peft.LoraConfig(r=2, **options))
    before = weights_of(model)
    run = given(tmp_path, model, fidelity_rounds=1)
    assert run.info["model"]["class"] == "PeftModelForCausalLM"
    assert run.info["model"]["trainable"] == sum(
        weight.numel() for name, weight in model.named_parameters() if "lora_" in name
    )
    assert np.isfinite(run.history["gram"]).all()
    assert not changed(before, weights_of(model))
    saved = peft.PeftModel.from_pretrained(llama(), run.path / "model")
    assert {name.rsplit("lora_")[1][0] for name in changed(before, weights_of(saved))} == {"A", "B"}
    again = given(tmp_path, model, resume=True, steps=6)
    assert (again.status, again.info["progress"]["step"]) == ("ok", 6)
    with pytest.raises(InputError, match="trainable_layers: PeftModelForCausalLM has adapters"):
        given(tmp_path / "other", model, trainable_layers=1)


FAMILIES = {
    "llama": (llama, "model.layers", "lm_head"),
    "gpt2": (
        lambda: GPT2LMHeadModel(GPT2Config(n_embd=16, n_layer=3, n_head=2, vocab_size=280)),
        "transformer.h",
        "transformer.wte",  # which the head shares
    ),
    "gpt-neo": (
        lambda: GPTNeoForCausalLM(
            GPTNeoConfig(
                hidden_size=16,
                num_layers=3,
                num_heads=2,
                vocab_size=280,
                attention_types=[[["global"], 3]],
            )
        ),
        "transformer.h",
        "transformer.wte",
    ),
    "mixtral": (  # whose experts are lists within blocks
        lambda: MixtralForCausalLM(
            MixtralConfig(
                hidden_size=16,
                intermediate_size=16,
                num_hidden_layers=3,
                num_attention_heads=2,
                num_key_value_heads=2,
                num_local_experts=5,
                vocab_size=280,
            )
        ),
        "model.layers",
        "lm_head",
    ),
}


@pytest.mark.parametrize("layers", [0, 1, 2, 3])
@pytest.mark.parametrize("family", FAMILIES)
def test_only_the_last_blocks_and_the_head_are_trainable(family, layers):
    make, blocks, head = FAMILIES[family]
    model = make()
    freeze_all_but_last(model, layers)
    kept = [f"{head}.", *(f"{blocks}.{i}." for i in range(3 - layers, 3))]
    for name, weight in model.named_parameters():
        assert weight.requires_grad == name.startswith(tuple(kept)), name
    with pytest.raises(InputError, match="trainable_layers: 4, but the model has 3 blocks; give"):
        freeze_all_but_last(model, 4)


@pytest.mark.parametrize("tied", [False, True])
def test_training_changes_the_trainable_layers_only(tmp_path, tied):
    model = llama(tie_word_embeddings=tied)
    run = given(tmp_path, model, trainable_layers=1, fidelity_rounds=1)
    after = weights_of(AutoModelForCausalLM.from_pretrained(run.path / "model"))
    moved = changed(weights_of(model), after)
    parts = {name.split(".")[0 if name == "lm_head.weight" else 1] for name in moved}
    assert parts == {"layers", "lm_head"} | ({"embed_tokens"} if tied else set())
    assert all(".2." in name for name in moved if "layers" in name)
    assert len(moved) > 9
    assert run.info["arguments"]["trainable_layers"] == 1
    assert run.info["parameters"]["trainable_layers"] == 1
    assert run.info["model"]["trainable"] < run.info["model"]["parameters"]
    with pytest.raises(InputError, match=r"trainable_layers: was 1 in the run .* is 2 now"):
        given(tmp_path, model, trainable_layers=2, resume=True, steps=6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"trainable_layers": 4},
            "trainable_layers: 4, but the model has 3 blocks; give at most 3",
        ),
        ({"trainable_layers": -1}, "trainable_layers: -1 is negative"),
        ({"trainable_layers": "all"}, "trainable_layers: 'all' is not a whole number"),
        (
            {"trainable_layers": 1, "layer": "model.layers.1.mlp.up_proj"},
            "layer: 'model.layers.1.mlp.up_proj' is not trained with trainable_layers=1",
        ),
    ],
)
def test_layers_that_cannot_be_trained_alone_are_refused(options, message, tmp_path):
    with pytest.raises(InputError, match=message):
        given(tmp_path, llama(), **options)
    assert not (tmp_path / "run.json").exists()


def test_frozen_weights_stay_frozen(tmp_path):
    model = llama()
    model.model.layers[2].mlp.requires_grad_(False)
    freeze_all_but_last(model, 1)
    assert not model.model.layers[2].mlp.up_proj.weight.requires_grad
    assert model.model.layers[2].self_attn.q_proj.weight.requires_grad


TEMPLATE = (
    "{% for turn in messages %}{% if turn.role == 'robot' %}{{ raise_exception('no robots') }}"
    "{% endif %}<{{ turn.role }}>{{ turn.content }}</>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def chatting():
    tokenizer = copy.deepcopy(words())
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def split_of(row, tokenizer):
    """Decode what is read and what is predicted."""
    ids, labels = np.array(row["input_ids"]), np.array(row["labels"])
    assert (ids[labels != -100] == labels[labels != -100]).all()
    return tokenizer.decode(ids[labels == -100]), tokenizer.decode(ids[labels != -100])


@pytest.mark.parametrize("context", [2, 3, 9, 12, 40])
def test_a_row_that_is_too_long_loses_its_prompt_before_its_completion(context):
    tokenizer = words()
    prompt, completion = "the ant of the root and some more", "zyxwv"  # one byte is one token
    row = tokenize_completions([prompt], [completion], tokenizer, context)[0]
    before, after = (tokenizer(text).input_ids for text in (prompt, completion))
    whole = [*before, *after, tokenizer.eos_token_id]
    first = max(0, min(len(whole) - context, len(before)))
    assert row["input_ids"] == whole[first:][:context]
    labels = [*[-100] * len(before), *after, tokenizer.eos_token_id]
    assert row["labels"] == labels[first:][:context]


def test_the_chat_template_writes_prompt_and_completion():
    tokenizer = chatting()
    messages = [{"role": "system", "content": "ant"}, {"role": "user", "content": "bee"}]
    answer = [{"role": "assistant", "content": "root"}]
    rows = tokenize_completions(["ant", messages], ["root", answer], tokenizer, 100)
    assert [split_of(row, tokenizer) for row in rows] == [
        ("<user>ant</><assistant>", "root</>"),
        ("<system>ant</><user>bee</><assistant>", "root</>"),
    ]
    for row, turns in zip(rows, ([{"role": "user", "content": "ant"}], messages), strict=True):
        whole = tokenizer.apply_chat_template(turns + answer, tokenize=False)
        assert tokenizer.decode(row["input_ids"]) == whole
    robot = [{"role": "robot", "content": "bee"}]
    with pytest.raises(InputError, match=r"corpus: the chat template .* row 1 \(no robots"):
        tokenize_completions(["ant", robot], ["root"] * 2, tokenizer)
    with pytest.raises(InputError, match=r"corpus: row 0 is not text, .* no chat template"):
        tokenize_completions([messages], ["root"], words())
    tokenizer.chat_template = TEMPLATE.replace("<assistant>", "<assistant><think>")
    with pytest.raises(InputError, match="the chat template: writes the prompt of row 0 otherwise"):
        tokenize_completions(["ant"], ["root"], tokenizer)


def test_a_row_without_a_completion_has_no_labels():
    rows = tokenize_completions(["ant", "ant", ""], ["", " \n", ""], words())
    assert {label for row in rows["labels"] for label in row} == {-100}
    assert all(row["input_ids"] for row in rows)


def questions(answer):
    """A corpus of prompts with completions, of which `answer` gives that of a row."""
    rows = {"train": 60, "eval": 20}
    return DatasetDict(
        {
            split: Dataset.from_dict(
                {
                    "text": TEXTS[:n],
                    "prompt": TEXTS[:n],
                    "completion": [answer(i) for i in range(n)],
                }
            )
            for split, n in rows.items()
        }
    )


@pytest.mark.parametrize("tokenizer", [words, chatting])
def test_the_loss_of_completions_is_that_of_the_model_itself(tmp_path, tokenizer):
    made = tokenizer()
    corpus = questions(lambda i: "zyx"[: 1 + i % 3])
    options = {"completion_only_loss": True, "context": 16, "batch_size": 4}
    run = given(tmp_path, llama(), corpus, tokenizer=made, eval_rounds=1, **options)
    rows = tokenize_completions(*(corpus["eval"][c] for c in ("prompt", "completion")), made, 16)
    model, losses, tokens = llama().eval(), [], []
    for row in rows:
        batch = {name: torch.tensor([row[name]]) for name in ("input_ids", "labels")}
        tokens.append(sum(label != -100 for label in row["labels"][1:]))
        with torch.no_grad():
            losses.append(model(**batch).loss.item())
    first = run.metrics("eval")[0]
    assert first["loss_token"] == pytest.approx(np.average(losses, weights=tokens), rel=1e-5)
    assert run.info["parameters"]["completion_only_loss"] is True
    assert run.metrics("eval")[-1]["loss_token"] < first["loss_token"]
    assert np.isfinite(run.history["gram"]).all()


@pytest.mark.parametrize(
    "shape",
    [
        lambda i: {"Definition": "Answer.", "input": TEXTS[i % 60], "output": f"zyx {i}"},
        lambda i: {"question": TEXTS[i % 60], "thinking_trajectories": ["zyx"], "attempt": f"{i}"},
        lambda i: {"instruction": TEXTS[i % 60], "input": "", "output": f"zyx {i}", "labels": [i]},
        lambda i: {"messages": [{"role": "user", "content": TEXTS[i % 60]},
                                {"role": "assistant", "content": f"zyx {i}"}]},
    ],
    ids=["Natural Instructions", "S1", "Alpaca, with labels", "chats"],
)  # fmt: skip
def test_data_of_usual_shapes_trains_on_its_completions(tmp_path, shape):
    with pytest.warns(RbkitWarning, match="no column 'text', but those of"):
        corpus = rb.load_corpus([shape(i) for i in range(80)], eval_size=20, progress=False)
    tokenizer = chatting() if "messages" in shape(0) else words()
    pairs = (corpus["eval"][name][:] for name in ("prompt", "completion"))
    rows = tokenize_completions(*pairs, tokenizer, 16)
    expected = sum(label != -100 for row in rows["labels"] for label in row[1:])
    assert 20 <= expected < sum(map(len, rows["input_ids"]))
    options = {"completion_only_loss": True, "context": 16, "tokenizer": tokenizer}
    unused = "its columns 'labels' are not used: texts are tokenised anew"
    with pytest.warns(RbkitWarning, match=unused) if "labels" in shape(0) else nullcontext():
        run = given(tmp_path, llama(), corpus, **options)
    assert run.status == "ok"


def test_examples_without_a_completion_are_counted_once_and_never_drawn(tmp_path):
    corpus = questions(lambda i: "" if i % 10 < 3 else "zyx")
    message = "completion_only_loss: 24 of 80 examples have no token of a completion"
    with pytest.warns(RbkitWarning, match=message) as warned:
        run = given(tmp_path, llama(), corpus, completion_only_loss=True)
    assert len(warned) == 1
    assert sum(run.info["domains"]["sizes"]) == 42
    assert (run.domains.train_labels.reshape(6, 10)[:, :3] == -1).all()
    assert np.isnan(np.load(run.path / "final.npz")["eval_loss_per_example"]).sum() == 6


@pytest.mark.parametrize(
    ("corpus", "options", "message"),
    [
        (
            lambda: questions(lambda i: "zyx" if i % 2 else ""),
            {},
            "domains: no train example of 'a' has a token of a completion to be predicted",
        ),
        (
            lambda: questions(lambda i: "zyx").remove_columns("completion"),
            {},
            "completion_only_loss: the split 'train' of the corpus has no column 'completion'",
        ),
        (
            lambda: questions(lambda i: None if i == 7 else "zyx"),
            {},
            "corpus: row 7 of 'train' has None as its completion",
        ),
        (
            lambda: questions(lambda i: [{"role": "user"}]),
            {},
            r"corpus: row 0 of 'train' has \[\{'role': 'user'\}\] as its completion",
        ),
        (lambda: questions(str), {"completion_only_loss": "yes"}, "completion_only_loss: 'yes' is"),
        (lambda: questions(str), {"context": 1}, "context: 1 tokens leave nothing to predict"),
    ],
)
def test_completions_that_cannot_be_trained_on_are_named(tmp_path, corpus, options, message):
    with pytest.raises(InputError, match=message):
        given(tmp_path / "run", llama(), corpus(), **{"completion_only_loss": True, **options})
    assert not (tmp_path / "run" / "run.json").exists()


def opt():
    shape = {"hidden_size": 16, "word_embed_proj_dim": 16, "ffn_dim": 32, "vocab_size": 280}
    return OPTForCausalLM(OPTConfig(**shape, num_hidden_layers=2, num_attention_heads=2))


def bloom():
    return BloomForCausalLM(BloomConfig(hidden_size=16, n_layer=2, n_head=2, vocab_size=280))


SEPARATED = {name: (make, "position_ids") for name, (make, *_) in FAMILIES.items()}
SEPARATED |= {"opt": (opt, "attention_mask"), "bloom": (bloom, None)}


@pytest.mark.parametrize("family", SEPARATED)
def test_a_packed_example_has_the_loss_that_it_has_alone(family):
    """All examples of a batch, in rows of three lengths, against each by itself."""
    torch.manual_seed(0)
    make, by = SEPARATED[family]
    model = make().eval()
    assert separates(model, 280) == by
    rng = np.random.default_rng(0)
    rows = [{"input_ids": rng.integers(1, 280, n).tolist()} for n in (5, 9, 2, 7, 3, 1, 4)]
    for row in rows[:3]:
        row["labels"] = [-100, -100, *row["input_ids"][2:]]
    batch = PackCollator(0, 12, masks=by == "attention_mask")(rows)
    examples = batch.pop(EXAMPLE)
    assert batch["input_ids"].shape == (3, 11)  # as even as they can be
    for i, row in enumerate(rows):  # once, in one piece, in the order that it had
        assert batch["input_ids"][examples == i].tolist() == row["input_ids"]
    assert (examples == -1).sum() == 33 - 31
    losses, valid = Objective("next token").by_token(_uncached(model), batch)
    mine = by_example(losses * valid, examples, len(rows)).tolist()
    alone = []
    for row in rows:
        ids = torch.tensor([row["input_ids"]])
        labels = torch.tensor([row.get("labels", row["input_ids"])])
        count = (labels[:, 1:] != -100).sum()
        alone.append((model(ids, labels=labels).loss * count).item() if count else 0.0)
    counts = [max(0, (len(row["input_ids"]) - (2 if "labels" in row else 1))) for row in rows]
    assert by_example(valid, examples, len(rows)).tolist() == counts
    if by is None:
        assert mine != pytest.approx(alone, rel=1e-4)
    else:
        assert mine == pytest.approx(alone, rel=1e-5)


def _uncached(model):
    model.config.use_cache = False  # as the library has it while training
    return model


@pytest.mark.parametrize("completion_only_loss", [False, True])
def test_packing_changes_no_number_of_a_run(tmp_path, completion_only_loss):
    options = {"completion_only_loss": completion_only_loss, "batch_size": 8, "context": 16}
    options |= {"fraction": 0.5, "learning_rate": 1e-3}
    corpus = questions(lambda i: "zyxwvutsrq"[: 1 + i % 9])
    corpus = corpus.map(lambda row, i: {"text": row["text"][: 1 + i % 23]}, with_indices=True)
    runs = [
        given(tmp_path / str(packing), llama(), corpus, packing=packing, **options)
        for packing in (False, True)
    ]
    rows = [run.metrics() for run in runs]
    for one, two in zip(*rows, strict=True):
        assert one.keys() == two.keys()
        for name in one.keys() - {"tokens"}:  # of padding, too
            assert two[name] == (
                one[name] if name == "kind" else pytest.approx(one[name], rel=1e-3)
            )
    tokens = [run.metrics("train")[-1]["tokens"] for run in runs]
    assert tokens[1] < tokens[0]
    for name in ("p", "counts"):
        np.testing.assert_allclose(*(run.history[name] for run in runs), rtol=1e-3, err_msg=name)
    assert runs[1].info["packing"] == {"separated_by": "position_ids"}
    assert runs[1].info["parameters"]["packing"] is True


def test_a_packed_run_continues_exactly(tmp_path):
    options = {"packing": True, "batch_size": 8, "context": 16}
    whole = given(tmp_path / "whole", llama(), **options)
    stop = StopAt(tmp_path / "parts", 2)
    assert given(tmp_path / "parts", llama(), **options, callbacks=[stop]).status == "interrupted"
    parts = given(tmp_path / "parts", llama(), **options, resume=True)
    assert (parts.status, parts.metrics()) == ("ok", whole.metrics())


def test_what_cannot_be_packed_apart_is_said(tmp_path):
    with pytest.warns(RbkitWarning, match="packing: tokens of BloomForCausalLM attend to the exam"):
        run = given(tmp_path / "bloom", bloom(), packing=True)
    assert run.info["packing"] == {"separated_by": None}
    with pytest.raises(InputError, match="use_cache: lets tokens attend"):
        given(tmp_path / "cache", llama(), packing=True, training_args={"use_cache": True})
    with pytest.raises(InputError, match="packing: 'yes' is not a truth value"):
        given(tmp_path / "word", llama(), packing="yes")


def test_a_mixture_that_reads_a_domain_over_and_over_is_announced(tmp_path):
    texts = [f"{word} text {i}" for i in range(60) for word in ("ash", "elm")]
    corpus = rb.load_corpus(texts, eval_size=20, progress=False)
    n = len(corpus["train"])
    few = Domains.from_labels(["few", "many"], [0] * 5 + [1] * (n - 5), [0] * 10 + [1] * 10)
    options = {"steps": 10, "round_steps": 5, "batch_size": 8, "context": 8, "vocab_size": 300}
    options |= {"progress": False, "eval_rounds": 0, "save_model": False}
    with pytest.warns(RbkitWarning, match=r"\('few' 8 times\): .*Target\(max_epochs=4\)") as told:
        rb.train(corpus, few, mixer="Target", run_dir=tmp_path / "often", **options)
    assert len(told) == 1
    for name, mixer in {"cap": rb.Target(max_epochs=4), "aware": rb.RepeatAware()}.items():
        run = rb.train(corpus, few, mixer=mixer, run_dir=tmp_path / name, **options)
        assert run.status == "ok"
