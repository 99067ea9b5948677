"""From a GGUF file of the llama family to an ordinary Hugging Face model folder.

``transformers`` can read GGUF itself, but needs two more packages and takes a minute every time;
converted once, the model loads in seconds, and everything that takes a folder takes it.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from tqdm import tqdm

from rbkit.data.assets import move_into_place
from rbkit.data.gguf import GgufFile
from rbkit.errors import InputError
from rbkit.files import write_json

_CONTROL_TOKEN = 3
# how llama.cpp names the ways to cut a text before BPE -> digits one by one?
_PRE_TOKENIZERS = {"smollm": True, "gpt-2": False}


def convert(source: str | Path, folder: str | Path, *, progress: bool = True) -> Path:
    """Convert a llama GGUF file to a Hugging Face folder with float16 weights.

    Written aside and renamed: `folder` is whole or absent.

    Parameters
    ----------
    source : path
        The GGUF file.
    folder : path
        Where ``config.json``, ``generation_config.json``, ``model.safetensors``,
        ``tokenizer.json``, ``tokenizer_config.json`` and ``special_tokens_map.json`` go.
    progress : bool
        Show a progress bar.

    Raises
    ------
    InputError
        If the file is damaged, or is not a llama model with a byte-level BPE tokenizer.
    """
    file, folder = GgufFile(source), Path(folder)
    if (architecture := file.get("general.architecture")) != "llama":
        raise InputError(str(source), f"is a {architecture} model", "only llama is converted")
    staging = folder.with_name(f".tmp-{folder.name}")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    try:
        config = _config(file)
        write_json(staging / "config.json", config)
        tensors = dict(_tensors(file, config, progress))
        save_file(tensors, staging / "model.safetensors", metadata={"format": "pt"})
        # save_file makes private files
        shutil.copymode(staging / "config.json", staging / "model.safetensors")
        ids = {key: value for key, value in config.items() if key.endswith("_token_id")}
        ids.pop("unk_token_id", None)
        write_json(staging / "generation_config.json", ids)
        _write_tokenizer(file, config, staging)
        move_into_place(staging, folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return folder


def is_whole(folder: Path) -> bool:
    """Tell whether a converted folder is there and its weights are not cut short."""
    if not (folder / "tokenizer_config.json").is_file():
        return False
    try:
        with safe_open(folder / "model.safetensors", framework="numpy"):
            return True  # opening compares the header with the size of the file
    except (OSError, SafetensorError):
        return False


def _config(file: GgufFile) -> dict[str, Any]:
    tokens = file.texts("tokenizer.ggml.tokens")
    heads = file.integer("llama.attention.head_count")
    ids = {
        name: file.metadata.get(f"tokenizer.ggml.{theirs}_token_id")
        for name, theirs in (("bos", "bos"), ("eos", "eos"), ("pad", "padding"), ("unk", "unknown"))
    }
    epsilon = file.get("llama.attention.layer_norm_rms_epsilon")
    theta = file.metadata.get("llama.rope.freq_base", 10_000.0)
    numbers_ok = all(isinstance(number, float) and number > 0 for number in (epsilon, theta))
    ids_ok = all(i is None or (isinstance(i, int) and i < len(tokens)) for i in ids.values())
    if not numbers_ok or not ids_ok:
        raise InputError(str(file.path), "has damaged metadata", "get the file again")
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "hidden_size": file.integer("llama.embedding_length"),
        "intermediate_size": file.integer("llama.feed_forward_length"),
        "num_hidden_layers": file.integer("llama.block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": file.integer("llama.attention.head_count_kv", heads),
        "max_position_embeddings": file.integer("llama.context_length"),
        # stored as float32: its shortest decimal is what was meant (1e-05)
        "rms_norm_eps": float(str(np.float32(epsilon))),
        "rope_parameters": {"rope_type": "default", "rope_theta": theta},
        "vocab_size": len(tokens),
        "tie_word_embeddings": "output.weight" not in file.names,
        **{f"{name}_token_id": i for name, i in ids.items() if i is not None},
        "dtype": "float16",
    }


_LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def _tensors(
    file: GgufFile, config: dict[str, Any], progress: bool
) -> Iterator[tuple[str, NDArray[np.float16]]]:
    names = {"token_embd.weight": "model.embed_tokens.weight"}
    names["output_norm.weight"] = "model.norm.weight"
    if not config["tie_word_embeddings"]:
        names["output.weight"] = "lm_head.weight"
    for layer in range(config["num_hidden_layers"]):
        for theirs, ours in _LAYER.items():
            names[f"blk.{layer}.{theirs}.weight"] = f"model.layers.{layer}.{ours}.weight"
        file.shape(f"blk.{layer}.attn_norm.weight")  # a damaged layer count ends here
    if unknown := set(file.names) - set(names):
        raise InputError(str(file.path), f"has unknown tensors ({min(unknown)})", "use llama")
    shapes = _shapes(file, config)
    heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
    for theirs, ours in tqdm(
        names.items(), desc="converting", unit=" tensors", mininterval=1, disable=not progress
    ):
        part = theirs.split(".")[-2]
        if file.shape(theirs) != shapes[part]:
            what = f"has {theirs} of shape {file.shape(theirs)}, expected {shapes[part]}"
            raise InputError(str(file.path), what, "get the file again")
        weight = file.tensor(theirs)
        if part in heads:
            weight = _halves(weight, heads[part])
        with np.errstate(over="ignore"):
            half = weight.astype(np.float16)
        if not np.isfinite(half).all():
            what = f"has numbers in {theirs} that are too large for float16"
            raise InputError(str(file.path), what, "get the file again")
        yield ours, half


def _shapes(file: GgufFile, config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    d, inner = config["hidden_size"], config["intermediate_size"]
    heads, shared = config["num_attention_heads"], config["num_key_value_heads"]
    if d % heads or heads % shared or (d // heads) % 2:
        what = f"has {heads} heads, {shared} of them for keys, in {d} dimensions"
        raise InputError(str(file.path), what, "get the file again")
    keys = d // heads * shared
    return {
        "token_embd": (config["vocab_size"], d),
        "output": (config["vocab_size"], d),
        "output_norm": (d,),
        "attn_norm": (d,),
        "ffn_norm": (d,),
        "attn_q": (d, d),
        "attn_k": (keys, d),
        "attn_v": (keys, d),
        "attn_output": (d, d),
        "ffn_gate": (inner, d),
        "ffn_up": (inner, d),
        "ffn_down": (d, inner),
    }


def _halves(weight: NDArray[np.float32], heads: int) -> NDArray[np.float32]:
    """Undo llama.cpp's reordering of a head's rows for rotary embeddings.

    llama.cpp rotates neighbouring pairs of rows, transformers row i of the first half with row
    i of the second half.

    Examples
    --------
    >>> _halves(np.arange(8.0, dtype=np.float32)[:, None], heads=2).ravel().tolist()
    [0.0, 2.0, 1.0, 3.0, 4.0, 6.0, 5.0, 7.0]
    """
    pairs = weight.reshape(heads, weight.shape[0] // heads // 2, 2, *weight.shape[1:])
    back: NDArray[np.float32] = pairs.swapaxes(1, 2).reshape(weight.shape)
    return back


def _write_tokenizer(file: GgufFile, config: dict[str, Any], folder: Path) -> None:
    kind, cut = file.get("tokenizer.ggml.model"), file.metadata.get("tokenizer.ggml.pre", "gpt-2")
    if kind != "gpt2" or cut not in _PRE_TOKENIZERS:
        raise InputError(
            str(file.path), f"has a tokenizer of kind {kind}/{cut}", "only byte-level BPE is known"
        )
    tokens = file.texts("tokenizer.ggml.tokens")
    merges = [pair.partition(" ")[::2] for pair in file.texts("tokenizer.ggml.merges")]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    try:
        tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    except Exception as error:  # tokenizers raises bare Exception
        what = f"has a damaged tokenizer ({error})"
        raise InputError(str(file.path), what, "get the file again") from error
    # `use_regex` splits as GPT-2 does; SmolLM2 first makes each digit a token of its own.
    bytes_ = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    digits = [pre_tokenizers.Digits(individual_digits=True)] if _PRE_TOKENIZERS[cut] else []
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*digits, bytes_])
    tokenizer.decoder = decoders.ByteLevel()
    kinds = file.metadata.get("tokenizer.ggml.token_type")
    kinds = kinds if isinstance(kinds, list) else []
    special = [token for token, kind in zip(tokens, kinds, strict=False) if kind == _CONTROL_TOKEN]
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in special])
    tokenizer.save(str(folder / "tokenizer.json"))
    named = {
        f"{name}_token": tokens[config[f"{name}_token_id"]]
        for name in ("bos", "eos", "pad", "unk")
        if f"{name}_token_id" in config
    }
    write_json(folder / "special_tokens_map.json", named)
    # Not GPT2Tokenizer: that class would build its own pre-tokenizer, without the digits.
    facts = {
        **named,
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": config["max_position_embeddings"],
        "clean_up_tokenization_spaces": False,
        "additional_special_tokens": special,
    }
    if template := file.metadata.get("tokenizer.chat_template"):
        facts["chat_template"] = template
    write_json(folder / "tokenizer_config.json", facts)
