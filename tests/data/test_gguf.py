import contextlib
import json
import os
import struct
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer

from rbkit.data import assets
from rbkit.data.gguf import GgufFile, convert, is_whole
from rbkit.errors import InputError

D, INNER, HEADS, SHARED, LAYERS = 64, 96, 4, 2, 2
TOKENS = ["<|end|>", "<|im|>", *(chr(c) for c in range(33, 127)), "Ġ", "he", "Ġhe"]
F32, Q4_1, Q8_0 = 0, 3, 8


def text(value):
    raw = value.encode()
    return struct.pack("<Q", len(raw)) + raw


def value(x):
    if isinstance(x, bool):
        return struct.pack("<I?", 7, x)
    if isinstance(x, int):
        return struct.pack("<II", 4, x)
    if isinstance(x, float):
        return struct.pack("<If", 6, x)
    if isinstance(x, str):
        return struct.pack("<I", 8) + text(x)
    inner = value(x[0])[:4]
    return (
        struct.pack("<I", 9)
        + inner
        + struct.pack("<Q", len(x))
        + b"".join(value(item)[4:] for item in x)
    )


def quantised(weight, kind):
    """Rounds to the format; returns the bytes and what they stand for."""
    blocks = weight.astype(np.float32).reshape(-1, 32)
    if kind == F32:
        return weight.astype("<f4").tobytes(), weight.astype(np.float32)
    if kind == Q8_0:
        scale = (np.abs(blocks).max(1, keepdims=True) / 127).astype(np.float16)
        q = np.round(blocks / np.maximum(scale.astype(np.float32), 1e-8)).clip(-127, 127)
        raw = np.concatenate([scale.view(np.uint8), q.astype(np.int8).view(np.uint8)], 1)
        return raw.tobytes(), (scale.astype(np.float32) * q).reshape(weight.shape)
    low = blocks.min(1, keepdims=True).astype(np.float16)
    scale = ((blocks.max(1, keepdims=True) - low) / 15).astype(np.float16)
    q = np.round((blocks - low) / np.maximum(scale.astype(np.float32), 1e-8)).clip(0, 15)
    packed = q[:, :16].astype(np.uint8) | (q[:, 16:].astype(np.uint8) << 4)
    raw = np.concatenate([scale.view(np.uint8), low.view(np.uint8), packed], 1)
    back = scale.astype(np.float32) * q + low.astype(np.float32)
    return raw.tobytes(), back.astype(np.float32).reshape(weight.shape)


def metadata():
    return {
        "general.architecture": "llama",
        "llama.block_count": LAYERS,
        "llama.context_length": 32,
        "llama.embedding_length": D,
        "llama.feed_forward_length": INNER,
        "llama.attention.head_count": HEADS,
        "llama.attention.head_count_kv": SHARED,
        "llama.rope.freq_base": 100000.0,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.tokens": TOKENS,
        "tokenizer.ggml.token_type": [3, 3, *[1] * (len(TOKENS) - 2)],
        "tokenizer.ggml.merges": ["h e", "Ġ he"],
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 0,
        "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.ggml.padding_token_id": 0,
        "tokenizer.chat_template": "{% for m in messages %}{{ m['content'] }}{% endfor %}",
    }


def tensors():
    rng = np.random.default_rng(0)
    keys = D // HEADS * SHARED
    shapes = {"token_embd": ((len(TOKENS), D), Q8_0), "output_norm": ((D,), F32)}
    for i in range(LAYERS):
        for name in ("attn_norm", "ffn_norm"):
            shapes[f"blk.{i}.{name}"] = ((D,), F32)
        for name, shape in {
            "attn_q": (D, D),
            "attn_k": (keys, D),
            "attn_v": (keys, D),
            "attn_output": (D, D),
            "ffn_gate": (INNER, D),
            "ffn_up": (INNER, D),
            "ffn_down": (D, INNER),
        }.items():
            shapes[f"blk.{i}.{name}"] = (shape, Q4_1)
    return {
        f"{name}.weight": (rng.normal(size=shape, scale=0.1), kind)
        for name, (shape, kind) in shapes.items()
    }


def write_gguf(path, facts=None, weights=None):
    """Writes a tiny llama model; returns what its tensors stand for."""
    facts, weights = facts or metadata(), weights or tensors()
    head = b"GGUF" + struct.pack("<IQQ", 3, len(weights), len(facts))
    head += b"".join(text(key) + value(x) for key, x in facts.items())
    data, stored = b"", {}
    for name, (weight, kind) in weights.items():
        raw, stored[name] = quantised(weight, kind)
        head += text(name) + struct.pack("<I", weight.ndim)
        head += struct.pack(f"<{weight.ndim}Q", *weight.shape[::-1])
        head += struct.pack("<IQ", kind, len(data))
        data += raw + b"\0" * (-len(raw) % 32)
    path.write_bytes(head + b"\0" * (-len(head) % 32) + data)
    return stored


def test_tensors_come_back_as_they_were_quantised(tmp_path):
    stored = write_gguf(tmp_path / "m.gguf")
    file = GgufFile(tmp_path / "m.gguf")
    assert set(file.names) == set(stored)
    for name, expected in stored.items():
        np.testing.assert_array_equal(file.tensor(name), expected)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gguf")
    stored = write_gguf(folder / "m.gguf")
    convert(folder / "m.gguf", folder / "model", progress=False)
    return folder / "model", stored


def test_the_folder_loads_like_any_other(model):
    folder, stored = model
    loaded = AutoModelForCausalLM.from_pretrained(folder)
    assert loaded.config.rope_parameters["rope_theta"] == 100000.0
    assert loaded.config.rms_norm_eps == 1e-5
    assert loaded.lm_head.weight is loaded.model.embed_tokens.weight
    assert np.allclose(
        loaded.model.layers[1].mlp.down_proj.weight.detach().float().numpy(),
        stored["blk.1.ffn_down.weight"],
        atol=1e-3,
    )
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.tokenize("he 12 he<|im|>") == ["he", "Ġ", "1", "2", "Ġhe", "<|im|>"]
    assert tokenizer.decode(tokenizer("he 12 he")["input_ids"]) == "he 12 he"
    assert (tokenizer.bos_token, tokenizer.eos_token) == ("<|im|>", "<|end|>")
    assert tokenizer.apply_chat_template([{"role": "user", "content": "x"}], tokenize=False) == "x"


def test_rows_of_queries_and_keys_are_put_back_in_the_order_of_rotary_halves(model):
    from safetensors.numpy import load_file

    folder, stored = model
    ours = load_file(folder / "model.safetensors")["model.layers.0.self_attn.k_proj.weight"]
    width = D // HEADS
    for head in range(SHARED):
        theirs = stored["blk.0.attn_k.weight"][head * width : (head + 1) * width]
        here = ours[head * width : (head + 1) * width].astype(np.float32)
        np.testing.assert_allclose(here[: width // 2], theirs[0::2], atol=1e-3)
        np.testing.assert_allclose(here[width // 2 :], theirs[1::2], atol=1e-3)


def test_a_folder_is_whole_or_made_again(model, tmp_path):
    folder, _ = model
    assert is_whole(folder)
    assert not is_whole(tmp_path)
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    cut = (folder / "model.safetensors").read_bytes()[:-100]
    (tmp_path / "model.safetensors").write_bytes(cut)
    assert not is_whole(tmp_path)


def changed(**facts):
    return {**metadata(), **{key.replace("__", "."): x for key, x in facts.items()}}


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        (changed(general__architecture="gpt2"), "is a gpt2 model"),
        (changed(llama__block_count=3), "has no tensor blk.2"),
        (changed(llama__attention__head_count=0), "head_count = 0"),
        (changed(llama__attention__head_count=3), "has 3 heads"),
        (changed(llama__embedding_length="x"), "embedding_length = 'x'"),
        (changed(llama__feed_forward_length=32), "expected (32, 64)"),
        (changed(tokenizer__ggml__pre="llama-bpe"), "tokenizer of kind gpt2/llama-bpe"),
        (changed(tokenizer__ggml__merges=["x yy"]), "damaged tokenizer"),
        (changed(tokenizer__ggml__eos_token_id=10_000), "damaged metadata"),
        (changed(tokenizer__ggml__tokens=[1, 2]), "no list of strings"),
        (changed(llama__attention__layer_norm_rms_epsilon=float("nan")), "damaged metadata"),
    ],
)
def test_a_model_that_does_not_fit_is_refused_and_nothing_is_left(tmp_path, facts, said):
    write_gguf(tmp_path / "m.gguf", facts)
    with pytest.raises(InputError) as caught:
        convert(tmp_path / "m.gguf", tmp_path / "model", progress=False)
    assert said in str(caught.value)
    assert "m.gguf: " in str(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == ["m.gguf"]


def test_weights_that_are_not_finite_are_refused(tmp_path):
    weights = tensors()
    weights["output_norm.weight"][0][5] = np.nan
    write_gguf(tmp_path / "m.gguf", weights=weights)
    with pytest.raises(InputError, match="not finite in output_norm"):
        convert(tmp_path / "m.gguf", tmp_path / "model", progress=False)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    write_gguf(folder / "m.gguf")
    return (folder / "m.gguf").read_bytes(), folder


@given(st.floats(0, 0.999))
def test_a_file_cut_anywhere_is_refused(whole, part):
    raw, folder = whole
    (folder / "cut.gguf").write_bytes(raw[: int(len(raw) * part)])
    with pytest.raises(InputError, match=r"cut\.gguf: "):
        convert(folder / "cut.gguf", folder / "cut", progress=False)
    assert not (folder / "cut").exists()


@given(st.integers(0, 4500), st.integers(1, 255))
def test_a_flipped_byte_in_the_header_never_gives_another_error(whole, at, flip):
    raw, folder = whole
    damaged = bytearray(raw)
    damaged[at] ^= flip
    (folder / "bad.gguf").write_bytes(damaged)
    # some flips change nothing that can be noticed: a letter of a token
    with contextlib.suppress(InputError):
        convert(folder / "bad.gguf", folder / "bad", progress=False)


@pytest.mark.slow
@pytest.mark.assets
def test_minilm_is_a_sentence_transformers_folder(real_asset):
    real_asset("minilm")
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(assets.model_folder("minilm")), device="cpu")
    a, b, c = model.encode(["a small cat", "a little kitten", "the stock exchange"])
    assert a.shape == (384,)
    assert a @ b > a @ c


@pytest.mark.slow
@pytest.mark.assets
def test_smollm2_reads_an_encyclopaedia_and_knows_paris(real_asset):
    real_asset("smollm2")
    # in a process of its own: HF_HUB_OFFLINE is read at import
    script = """
        import json, sys, torch
        from transformers import AutoModelForCausalLM, AutoTokenizer
        folder = sys.argv[1]
        tokenizer = AutoTokenizer.from_pretrained(folder)
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        text = (
            "The Colosseum is an elliptical amphitheatre in the centre of the city of Rome, "
            "Italy, just east of the Roman Forum. It is the largest ancient amphitheatre ever "
            "built, and is still the largest standing amphitheatre in the world, despite its "
            "age. Construction began under the emperor Vespasian in 72 and was completed in 80 "
            "AD under his successor and heir, Titus."
        )
        ids = tokenizer(text, return_tensors="pt")
        with torch.no_grad():
            perplexity = torch.exp(model(**ids, labels=ids["input_ids"]).loss).item()
        asked = tokenizer.apply_chat_template(
            [{"role": "user", "content": "What is the capital of France?"}],
            add_generation_prompt=True, return_tensors="pt", return_dict=True,
        )
        out = model.generate(**asked, max_new_tokens=12, do_sample=False)
        answer = tokenizer.decode(out[0, asked["input_ids"].shape[1]:], skip_special_tokens=True)
        parameters = sum(p.numel() for p in model.parameters())
        print(json.dumps([perplexity, answer, parameters]))
    """
    folder = str(assets.model_folder("smollm2", progress=False))
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), folder],
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    perplexity, answer, parameters = json.loads(done.stdout)
    assert 7 < perplexity < 10
    assert "Paris" in answer
    assert parameters == 134_515_008
