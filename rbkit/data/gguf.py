"""From a GGUF file of the llama family to an ordinary Hugging Face model folder.

GGUF is the file format of llama.cpp (the ggml project's ``docs/gguf.md``). ``transformers`` can
read it, but not exactly for SmolLM2: it drops the tokenizer's first step, which splits off every
digit, so that white space before a number is encoded differently than in the model's training
("x  12"), and it takes a minute or two where this takes seconds. Converted once, the model loads
in seconds, and everything that takes a folder takes it.
"""

from __future__ import annotations

import math
import shutil
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from rbkit.errors import InputError
from rbkit.files import atomic_folder, write_json
from rbkit.text import progress_bar

# types of metadata values, as struct spells them
_SCALARS = dict(zip([*range(8), 10, 11, 12], "BbHhIif?Qqd", strict=True))
_STRING, _ARRAY = 8, 9
# type of a tensor -> (name, weights per block, bytes per block)
_TYPES = {0: ("F32", 1, 4), 1: ("F16", 1, 2), 3: ("Q4_1", 32, 20), 8: ("Q8_0", 32, 34)}
_CONTROL_TOKEN = 3
# how llama.cpp names the ways to cut a text before BPE -> digits one by one?
_PRE_TOKENIZERS = {"smollm": True, "gpt-2": False}


def convert(source: str | Path, folder: str | Path, *, progress: bool = True) -> Path:
    """Convert a llama GGUF file to a Hugging Face folder with float16 weights, whole or absent.

    Raises InputError if the file is damaged, or is not a llama model with a byte-level BPE
    tokenizer.
    """
    file, folder = GgufFile(source), Path(folder)
    if (architecture := file.get("general.architecture")) != "llama":
        raise InputError(str(source), f"is a {architecture} model", "only llama is converted")
    with atomic_folder(folder) as staging:
        config = _config(file)
        write_json(staging / "config.json", config)
        tensors = dict(_tensors(file, config, progress))
        save_file(tensors, staging / "model.safetensors", metadata={"format": "pt"})
        # save_file makes private files
        shutil.copymode(staging / "config.json", staging / "model.safetensors")
        ids = {key: config[key] for key in config if key.endswith("_token_id")}
        ids.pop("unk_token_id", None)
        write_json(staging / "generation_config.json", ids)
        _write_tokenizer(file, config, staging)
    return folder


def is_whole(folder: Path) -> bool:
    """Whether a converted folder is there and its weights are not truncated."""
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
        raise file.broken("has damaged metadata")
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
    for theirs, ours in progress_bar(
        names.items(), desc="converting", unit=" tensors", mininterval=1, disable=not progress
    ):
        part = theirs.split(".")[-2]
        if file.shape(theirs) != shapes[part]:
            shape = file.shape(theirs)
            raise file.broken(f"has {theirs} of shape {shape}, expected {shapes[part]}")
        weight = file.tensor(theirs)
        if part in heads:
            weight = _rotary_halves(weight, heads[part])
        with np.errstate(over="ignore"):
            half = weight.astype(np.float16)
        if not np.isfinite(half).all():
            raise file.broken(f"has numbers in {theirs} that are too large for float16")
        yield ours, half


def _shapes(file: GgufFile, config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    d, inner = config["hidden_size"], config["intermediate_size"]
    heads, shared = config["num_attention_heads"], config["num_key_value_heads"]
    if d % heads or heads % shared or (d // heads) % 2:
        raise file.broken(f"has {heads} heads, {shared} of them for keys, in {d} dimensions")
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


def _rotary_halves(weight: NDArray[np.float32], heads: int) -> NDArray[np.float32]:
    """Undo llama.cpp's reordering of a head's rows for rotary embeddings.

    llama.cpp rotates neighbouring pairs of rows, transformers row i of the first half with row
    i of the second half.

    >>> _rotary_halves(np.arange(8.0, dtype=np.float32)[:, None], heads=2).ravel().tolist()
    [0.0, 2.0, 1.0, 3.0, 4.0, 6.0, 5.0, 7.0]
    """
    pairs = weight.reshape(heads, weight.shape[0] // heads // 2, 2, *weight.shape[1:])
    back: NDArray[np.float32] = pairs.swapaxes(1, 2).reshape(weight.shape)
    return back


def _write_tokenizer(file: GgufFile, config: dict[str, Any], folder: Path) -> None:
    kind, cut = file.get("tokenizer.ggml.model"), file.metadata.get("tokenizer.ggml.pre", "gpt-2")
    if kind != "gpt2" or cut not in _PRE_TOKENIZERS:
        raise InputError(
            str(file.path),
            f"has a tokenizer of kind {kind}/{cut}",
            "only byte-level BPE is supported",
        )
    tokens = file.texts("tokenizer.ggml.tokens")
    merges = [pair.partition(" ")[::2] for pair in file.texts("tokenizer.ggml.merges")]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    try:
        tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    except Exception as error:  # tokenizers raises bare Exception
        raise file.broken(f"has a damaged tokenizer ({error})") from error
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


# ------------------------------------------------------------------------ reading GGUF


@dataclass
class _Tensor:
    shape: tuple[int, ...]  # rows first, as torch has it (GGUF writes it the other way round)
    kind: int
    offset: int


class GgufFile:
    """A GGUF file, memory-mapped: its metadata, and its tensors as float32 arrays on demand."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise InputError(str(path), "no such file", "check the path")
        if self.path.stat().st_size < 24:
            raise self.broken("is too short to be a GGUF file")
        self._bytes = np.memmap(self.path, dtype=np.uint8, mode="r")
        self._at = 0
        if self._take(4) != b"GGUF":
            raise self.broken("is not a GGUF file")
        version, n_tensors, n_values = self._number("I"), self._number("Q"), self._number("Q")
        if version not in (2, 3):
            raise self.broken(f"has GGUF version {version}; only 2 and 3 are supported")
        if max(n_tensors, n_values) > len(self._bytes):
            raise self.broken("has a damaged header")
        self.metadata: dict[str, Any] = {}
        for _ in range(n_values):
            key = self._text()
            self.metadata[key] = self._value(self._number("I"))
        self._tensors = {self._text(): self._tensor_info() for _ in range(n_tensors)}
        alignment = int(self.metadata.get("general.alignment", 32))
        if alignment < 1:
            raise self.broken("has a damaged header")
        self._start = math.ceil(self._at / alignment) * alignment

    @property
    def names(self) -> list[str]:
        """Names of the tensors."""
        return list(self._tensors)

    def get(self, key: str) -> Any:
        """Return a metadata value that must be there."""
        if key not in self.metadata:
            raise self.broken(f"has no {key}")
        return self.metadata[key]

    def integer(self, key: str, default: int | None = None) -> int:
        """Return a metadata value that must be a positive integer."""
        value = self.get(key) if default is None else self.metadata.get(key, default)
        if not isinstance(value, int) or value < 1:
            raise self.broken(f"has {key} = {value!r}"[:200])
        return value

    def texts(self, key: str) -> list[str]:
        """Return a metadata value that must be a list of strings."""
        values = self.get(key)
        if not isinstance(values, list) or not all(isinstance(v, str) for v in values):
            raise self.broken(f"has no list of strings as {key}")
        return values

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor, rows first."""
        if name not in self._tensors:
            raise self.broken(f"has no tensor {name}")
        return self._tensors[name].shape

    def tensor(self, name: str) -> NDArray[np.float32]:
        """Return a tensor, its quantisation undone."""
        shape = self.shape(name)
        tensor = self._tensors[name]
        if tensor.kind not in _TYPES:
            raise self.broken(f"holds {name} in the unknown format {tensor.kind}")
        _, weights, size = _TYPES[tensor.kind]
        count = math.prod(shape)
        first = self._start + tensor.offset
        end = first + count // weights * size
        if count % weights or end > len(self._bytes):
            raise self.broken(f"is cut short in {name}")
        with np.errstate(all="ignore"):  # damaged scales are caught below
            values = _dequantised(self._bytes[first:end], tensor.kind)
        if not np.isfinite(values).all():
            raise self.broken(f"holds numbers that are not finite in {name}")
        shaped: NDArray[np.float32] = values.reshape(shape)
        return shaped

    def broken(self, what: str) -> InputError:
        return InputError(str(self.path), what, "get the file again")

    def _take(self, count: int) -> bytes:
        if count > len(self._bytes) - self._at:
            raise self.broken("is cut short or damaged")
        self._at += count
        return self._bytes[self._at - count : self._at].tobytes()

    def _number(self, code: str) -> Any:
        return struct.unpack(f"<{code}", self._take(struct.calcsize(f"<{code}")))[0]

    def _text(self) -> str:
        try:
            return self._take(self._number("Q")).decode("utf-8")
        except UnicodeDecodeError as error:
            raise self.broken("is damaged (text that is not UTF-8)") from error

    def _value(self, kind: int, nested: bool = False) -> Any:
        if kind == _STRING:
            return self._text()
        if kind == _ARRAY and not nested:
            inner, count = self._number("I"), self._number("Q")
            if count > len(self._bytes):
                raise self.broken("is damaged (an array longer than the file)")
            return [self._value(inner, nested=True) for _ in range(count)]
        if kind not in _SCALARS:
            raise self.broken(f"has a metadata value of the unknown type {kind}")
        return self._number(_SCALARS[kind])

    def _tensor_info(self) -> _Tensor:
        n_dims = self._number("I")
        if n_dims > 4:
            raise self.broken(f"has a tensor of {n_dims} dimensions")
        shape = tuple(self._number("Q") for _ in range(n_dims))
        return _Tensor(shape[::-1], self._number("I"), self._number("Q"))


def _dequantised(raw: NDArray[np.uint8], kind: int) -> NDArray[np.float32]:
    name, weights, size = _TYPES[kind]
    if name == "F32":
        return raw.view("<f4").astype(np.float32)
    if name == "F16":
        return raw.view("<f2").astype(np.float32)
    blocks = np.ascontiguousarray(raw).reshape(-1, size)
    scale = blocks[:, :2].copy().view("<f2").astype(np.float32)
    if name == "Q8_0":
        return (scale * blocks[:, 2:].view(np.int8)).reshape(-1)
    # Q4_1: scale and minimum, then 16 bytes: the low halves are weights 0-15, the high 16-31
    minimum = blocks[:, 2:4].copy().view("<f2").astype(np.float32)
    packed = blocks[:, 4:]
    nibbles = np.concatenate([packed & 15, packed >> 4], axis=1)
    assert nibbles.shape[1] == weights
    values: NDArray[np.float32] = scale * nibbles + minimum
    return values.reshape(-1)
